"""What becomes of stocks in the sandbox: splits, delistings, renamings; and which calls its limit counts."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.server import Sandbox
from tests.sandbox_client import ask, ms, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

NEW_YORK = ZoneInfo("America/New_York")
AGGS = "/v2/aggs/ticker"
GROUPED = "/v2/aggs/grouped/locale/us/market/stocks"
STOCKS = "/v2/snapshot/locale/us/markets/stocks/tickers"
TUESDAY = datetime(2026, 12, 1, tzinfo=NEW_YORK)
MONDAY = TUESDAY - timedelta(days=1)
NOON = timedelta(hours=12)


class Clock:
    """The time of the sandbox, to be set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@contextmanager
def serving(clock: Clock, *, stocks: int = 0, **words: list[str]) -> Iterator[Sandbox]:
    with Sandbox(clock=clock, stocks_plan="advanced", listing=Listing(stocks=stocks, **words)) as sandbox:
        yield sandbox


# --- splits


@pytest.mark.parametrize(("factor", "times"), [("2", Decimal(2)), ("10", Decimal(10)), ("1/8", Decimal("0.125"))])
def test_a_split_rewrites_what_was_before_it_once_its_day_has_come(
    session: requests.Session, factor: str, times: Decimal
) -> None:
    clock = Clock(MONDAY + NOON)
    path = f"{AGGS}/AAPL/range/5/minute/2026-11-24/2026-11-30?limit=50000"
    other = f"{AGGS}/MSFT/range/5/minute/2026-11-24/2026-11-30?limit=50000"
    with serving(clock, splits=[f"AAPL:{factor}:2026-12-01"]) as sandbox:
        clock.now = TUESDAY - timedelta(seconds=1)
        before, untouched = rows(session, sandbox, path), rows(session, sandbox, other)
        grouped = {row["T"]: row for row in rows(session, sandbox, f"{GROUPED}/2026-11-30")}
        clock.now = TUESDAY
        after = rows(session, sandbox, path)
        assert rows(session, sandbox, other) == untouched
        adjusted = {row["T"]: row for row in rows(session, sandbox, f"{GROUPED}/2026-11-30")}
        clock.now = TUESDAY + NOON
        live = ask(session, sandbox, "/v3/snapshot?ticker.any_of=AAPL")["results"][0]
    assert len(before) == len(after) > 300
    for old, new in zip(before, after, strict=True):
        assert [new[key] * times for key in "ohlc"] == [old[key] for key in "ohlc"]
        assert (new["v"], new["n"], new["t"]) == (old["v"] * times, old["n"], old["t"])
    assert adjusted["AAPL"]["c"] * times == grouped["AAPL"]["c"]
    assert adjusted["MSFT"] == grouped["MSFT"]
    assert live["session"]["previous_close"] == adjusted["AAPL"]["c"]
    assert live["last_trade"]["price"] == pytest.approx(adjusted["AAPL"]["c"], rel=Decimal("0.1"))


def test_prices_of_before_a_split_are_told_as_they_were_where_asked(session: requests.Session) -> None:
    clock = Clock(MONDAY + NOON)
    days = f"{AGGS}/AAPL/range/1/day/2026-11-30/2026-12-01"
    minutes = f"{AGGS}/AAPL/range/30/minute/2026-11-30/2026-12-01"
    with serving(clock, splits=["AAPL:4:2026-12-01"]) as sandbox:
        clock.now = TUESDAY + 2 * NOON
        for path in (days, minutes):
            adjusted, told = (rows(session, sandbox, f"{path}?adjusted={word}") for word in ("true", "false"))
            times = [4 if row["t"] < ms(TUESDAY) else 1 for row in adjusted]
            assert {*times} == {1, 4}
            assert [row["c"] for row in told] == [row["c"] * n for row, n in zip(adjusted, times, strict=True)]
            assert [row["v"] * n for row, n in zip(told, times, strict=True)] == [row["v"] for row in adjusted]
        body = ask(session, sandbox, f"{GROUPED}/2026-11-30?adjusted=false")
        apple = next(row for row in body["results"] if row["T"] == "AAPL")
        assert (body["adjusted"], apple["c"]) == (False, rows(session, sandbox, days)[0]["c"] * 4)


def test_splits_are_listed_before_their_day(session: requests.Session) -> None:
    words = ["AAPL:2:2026-12-01", "AAPL:4:2026-12-15", "CKX:0.125:2026-11-20", "NOPE:3:2026-12-01"]
    with serving(Clock(MONDAY), splits=words) as sandbox:
        listed = rows(session, sandbox, "/stocks/v1/splits?execution_date.gte=2026-11-25&sort=execution_date.asc")
        paged = rows(session, sandbox, "/stocks/v1/splits?limit=1")
        of_apple = rows(session, sandbox, "/stocks/v1/splits?ticker=AAPL&execution_date.lt=2026-12-15")
        none = ask(session, sandbox, "/stocks/v1/splits?execution_date=2026-12-02")
        ask(session, sandbox, "/stocks/v1/splits?execution_date.gte=soon", 400)
        ask(session, sandbox, "/stocks/v1/splits?limit=5001", 400)
    assert [(row["ticker"], row["execution_date"]) for row in listed] == [
        ("AAPL", "2026-12-01"),
        ("NOPE", "2026-12-01"),
        ("AAPL", "2026-12-15"),
    ]
    first = listed[0]
    assert first == {
        "ticker": "AAPL",
        "execution_date": "2026-12-01",
        "split_from": 1,
        "split_to": 2,
        "adjustment_type": "forward_split",
        "historical_adjustment_factor": Decimal("0.125"),
        "id": first["id"],
    }
    assert [row["id"] for row in of_apple] == [first["id"]]
    assert len({row["id"] for row in paged}) == 4
    assert [row["execution_date"] for row in paged] == ["2026-12-15", "2026-12-01", "2026-12-01", "2026-11-20"]
    reverse = paged[-1]
    assert (reverse["split_from"], reverse["split_to"], reverse["adjustment_type"]) == (8, 1, "reverse_split")
    assert none["results"] == []


def test_a_split_may_be_withdrawn(session: requests.Session) -> None:
    clock = Clock(TUESDAY + NOON)
    path = f"{AGGS}/AAPL/range/1/day/2026-11-30/2026-11-30"
    with serving(clock, splits=["AAPL:2:2026-12-01"]) as sandbox:
        halved = rows(session, sandbox, path)[0]
        sandbox.listing = Listing()
        assert rows(session, sandbox, path)[0]["c"] == halved["c"] * 2
        assert rows(session, sandbox, "/stocks/v1/splits") == []


# --- delistings and renamings


def test_a_delisted_ticker_has_nothing_from_its_day_on(session: requests.Session) -> None:
    clock = Clock(MONDAY + NOON)
    with serving(clock, delistings=["KIMpL:2026-12-01"]) as sandbox:
        assert "error" not in ask(session, sandbox, "/v3/snapshot?ticker.any_of=KIMpL")["results"][0]
        assert rows(session, sandbox, "/v3/reference/tickers?ticker=KIMpL")[0]["active"] is True
        assert rows(session, sandbox, "/v3/reference/tickers?active=false") == []
        clock.now = TUESDAY + NOON
        row = ask(session, sandbox, "/v3/snapshot?ticker.any_of=KIMpL")["results"][0]
        assert (row["error"], row["message"]) == ("NOT_FOUND", "Ticker not found.")
        ask(session, sandbox, f"{STOCKS}/KIMpL", 404)
        ask(session, sandbox, "/v3/reference/tickers/KIMpL", 404)
        assert "KIMpL" not in [one["ticker"] for one in ask(session, sandbox, STOCKS)["tickers"]]
        assert rows(session, sandbox, "/v3/reference/tickers?ticker=KIMpL") == []
        (gone,) = rows(session, sandbox, "/v3/reference/tickers?market=stocks&active=false")
        assert (gone["ticker"], gone["active"], gone["delisted_utc"]) == ("KIMpL", False, "2026-12-01T00:00:00Z")
        assert rows(session, sandbox, f"{AGGS}/KIMpL/prev") == []
        assert len(rows(session, sandbox, f"{AGGS}/KIMpL/range/1/day/2026-11-24/2026-12-01")) == 4
        assert [
            "KIMpL" in [row["T"] for row in rows(session, sandbox, f"{GROUPED}/{day}")]
            for day in ("2026-11-30", "2026-12-01")
        ] == [True, False]


def test_a_renamed_ticker_is_the_same_security(session: requests.Session) -> None:
    clock = Clock(MONDAY + NOON)
    with serving(clock, renamings=["META:MVRS:2026-12-01"], splits=["META:2:2026-11-30"]) as sandbox:
        unknown = ask(session, sandbox, "/v3/snapshot?ticker.any_of=MVRS")["results"][0]
        assert unknown["error"] == "NOT_FOUND"
        old = rows(session, sandbox, "/v3/reference/tickers?ticker=META")[0]
        close = rows(session, sandbox, f"{AGGS}/META/range/1/day/2026-11-27/2026-11-27")[0]["c"]
        clock.now = TUESDAY + NOON
        new = rows(session, sandbox, "/v3/reference/tickers?ticker=MVRS")[0]
        gone = rows(session, sandbox, "/v3/reference/tickers?ticker=META&active=false")[0]
        days = rows(session, sandbox, f"{AGGS}/MVRS/range/1/day/2026-11-24/2026-12-01")
        live = ask(session, sandbox, "/v3/snapshot?ticker.any_of=META,MVRS")["results"]
    assert old["composite_figi"] == gone["composite_figi"] == new["composite_figi"]
    assert (gone["active"], new["active"]) == (False, True)
    assert len(days) == 1
    assert days[0]["o"] == pytest.approx(close, rel=Decimal("0.1"))
    assert [row.get("error") for row in live] == ["NOT_FOUND", None]


def test_a_name_may_be_used_again(session: requests.Session) -> None:
    clock = Clock(TUESDAY + NOON)
    with serving(clock, delistings=["T:2026-11-24"], renamings=["IBM:T:2026-12-01"]) as sandbox:
        listed = rows(session, sandbox, "/v3/reference/tickers?ticker=T")
        gone = rows(session, sandbox, "/v3/reference/tickers?ticker=T&active=false")
        days = [len([row for row in rows(session, sandbox, f"{GROUPED}/2026-{day}") if row["T"] == "T"])
                for day in ("11-23", "11-24", "11-30", "12-01")]  # fmt: skip
    assert [(row["name"], row["active"]) for row in listed] == [("International Business Machines", True)]
    assert [(row["name"], row["delisted_utc"]) for row in gone] == [("AT&T Inc.", "2026-11-24T00:00:00Z")]
    assert listed[0]["composite_figi"] != gone[0]["composite_figi"]
    assert days == [1, 0, 0, 1]


def test_invented_stocks_are_listed_where_they_are_asked_for(session: requests.Session) -> None:
    with serving(Clock(TUESDAY + NOON), stocks=2000) as sandbox:
        assert len(rows(session, sandbox, f"{GROUPED}/2026-11-30")) == 2043
        listed = [row["ticker"] for row in rows(session, sandbox, "/v3/reference/tickers?market=stocks&limit=1000")]
    assert len(set(listed)) == len(listed) == 2043


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"splits": ["AAPL:2"]}, "'AAPL:2' is not TICKER:FACTOR:DATE"),
        ({"splits": ["AAPL:0:2026-12-01"]}, "'0' is no factor above 0"),
        ({"splits": ["AAPL:two:2026-12-01"]}, "'two' is no factor above 0"),
        ({"delistings": ["AAPL:2026-13-01"]}, "'2026-13-01' is no date"),
        ({"delistings": ["NOPE:2026-12-01"]}, "there is no 'NOPE' here"),
        ({"renamings": ["AAPL:2026-12-01"]}, "'AAPL:2026-12-01' is not OLD:NEW:DATE"),
    ],
)
def test_a_wrong_word_is_refused(words: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Listing(**words)  # type: ignore[arg-type]


# --- limit


def statuses(session: requests.Session, sandbox: Sandbox, path: str, times: int = 3) -> list[int]:
    return [session.get(sandbox.url + path, timeout=10).status_code for _ in range(times)]


def test_what_is_on_a_paid_plan_may_be_without_limit(session: requests.Session) -> None:
    with Sandbox(limit=1, paid_unlimited=True, indices_plan="starter", clock=Clock(TUESDAY + NOON)) as sandbox:
        free = f"{AGGS}/AAPL/range/1/day/2026-11-30/2026-11-30"
        assert statuses(session, sandbox, free) == [200, 429, 429]
        for path in (
            "/v3/snapshot?ticker.any_of=C:EURUSD,X:BTCUSD,I:SPX",
            "/v3/snapshot/indices",
            f"{AGGS}/C:EURUSD/range/1/day/2026-11-30/2026-11-30",
            f"{AGGS}/I%3ADJI/prev",
            "/v2/aggs/grouped/locale/global/market/crypto/2026-11-30",
            "/v2/snapshot/locale/global/markets/forex/tickers/C:EURUSD",
            "/v1/last_quote/currencies/EUR/USD",
            "/v3/reference/tickers?market=fx",
            "/v3/reference/tickers/X:BTCUSD",
        ):
            assert statuses(session, sandbox, path) == [200, 200, 200], path
        for path in (
            f"{GROUPED}/2026-11-30",
            "/v3/snapshot?ticker.any_of=C:EURUSD,AAPL",
            "/stocks/v1/splits",
            "/v3/reference/tickers?market=stocks",
            "/v1/marketstatus/now",
        ):
            assert statuses(session, sandbox, path, 1) == [429], path
        sandbox.stocks_plan = "starter"
        assert statuses(session, sandbox, free) == [200, 200, 200]
        sandbox.paid_unlimited = False
        assert statuses(session, sandbox, free) == [429, 429, 429]
