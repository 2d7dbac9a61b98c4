"""Stocks and indices of the sandbox over real sockets: documents, plans, sessions."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.sandbox_client import ask, ms, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

NEW_YORK = ZoneInfo("America/New_York")
NOON = datetime(2026, 9, 3, 12, 0, 30, 500_000, tzinfo=NEW_YORK)  # a Thursday
STOCKS = "/v2/snapshot/locale/us/markets/stocks/tickers"
GROUPED = "/v2/aggs/grouped/locale/us/market/stocks"
PAID = {"stocks_plan": "advanced", "indices_plan": "advanced"}
NOT_ENTITLED = {"error": "NOT_ENTITLED", "message": "Not entitled to this ticker."}
NOT_FOUND = {"error": "NOT_FOUND", "message": "Ticker not found."}


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=NEW_YORK)  # type: ignore[misc, arg-type]


@contextmanager
def serving(now: datetime = NOON, **options: Any) -> Iterator[Sandbox]:
    with Sandbox(clock=lambda: now, **(PAID | options)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def paid() -> Iterator[Sandbox]:
    with serving() as sandbox:
        yield sandbox


def snapshot(session: requests.Session, sandbox: Sandbox, *tickers: str) -> dict[str, dict[str, Any]]:
    body = ask(session, sandbox, f"/v3/snapshot?ticker.any_of={','.join(tickers)}&limit=250")
    return {row["ticker"]: row for row in body["results"]}


# --- live prices


def test_a_snapshot_mixes_four_types_of_assets(session: requests.Session, paid: Sandbox) -> None:
    found = snapshot(session, paid, "AAPL", "BRK.B", "KIMpL", "KIMPL", "I:SPX", "C:EURUSD", "X:BTCUSD", "ZZT1")
    assert [row.get("type") for row in found.values()] == [
        "stocks", "stocks", "fx", "indices", None, "stocks", "crypto", "stocks",
    ]  # fmt: skip
    assert found["KIMPL"] == {"ticker": "KIMPL", **NOT_FOUND}
    apple, index = found["AAPL"], found["I:SPX"]
    assert apple["last_trade"]["price"] == apple["session"]["price"] == apple["last_minute"]["close"]
    assert apple["last_quote"]["bid"] < apple["last_trade"]["price"] < apple["last_quote"]["ask"]
    assert 0 <= ms(NOON) * 10**6 - apple["last_trade"]["last_updated"] < 250 * 10**6
    assert apple["last_minute"]["last_updated"] == apple["last_trade"]["last_updated"]
    assert apple["session"]["decimal_volume"] == f"{apple['session']['volume']}.0" or "." in str(
        apple["session"]["volume"]
    )
    assert {*index} == {"ticker", "type", "name", "market_status", "session", "value", "last_updated", "timeframe"}
    assert index["session"]["low"] <= index["value"] <= index["session"]["high"]
    assert "volume" not in index["session"]
    assert (apple["market_status"], index["market_status"]) == ("open", "regular_trading")


def test_indices_have_a_snapshot_of_their_own(session: requests.Session, paid: Sandbox) -> None:
    body = ask(session, paid, "/v3/snapshot/indices?ticker.any_of=I:SPX,I:DJI,I:NOPE,AAPL&limit=250")
    assert [row["ticker"] for row in body["results"]] == ["AAPL", "I:DJI", "I:NOPE", "I:SPX"]
    assert [row.get("error") for row in body["results"]] == ["NOT_FOUND", None, "NOT_FOUND", None]
    assert body["results"][3] == snapshot(session, paid, "I:SPX")["I:SPX"]
    assert len(ask(session, paid, "/v3/snapshot/indices")["results"]) == 6


def test_a_stock_has_the_same_price_in_both_shapes(session: requests.Session, paid: Sandbox) -> None:
    unified = snapshot(session, paid, "BRK.B")["BRK.B"]
    row = ask(session, paid, f"{STOCKS}/BRK.B")["ticker"]
    assert (row["lastQuote"]["p"], row["lastQuote"]["P"]) == (
        unified["last_quote"]["bid"],
        unified["last_quote"]["ask"],
    )
    assert row["lastTrade"]["p"] == row["min"]["c"] == row["day"]["c"] == unified["last_trade"]["price"]
    assert row["lastTrade"]["t"] == row["lastQuote"]["t"] == row["updated"] == unified["last_trade"]["last_updated"]
    assert row["min"]["t"] == ms(NOON) // 60_000 * 60_000
    assert row["todaysChange"] == row["lastTrade"]["p"] - row["prevDay"]["c"]
    assert Decimal(row["day"]["dv"]) == Decimal(row["day"]["v"])
    assert row["prevDay"]["c"] == rows(session, paid, "/v2/aggs/ticker/BRK.B/range/1/day/2026-09-02/2026-09-02")[0]["c"]


def test_a_whole_market_has_what_is_traded_over_the_counter_for_who_asks(
    session: requests.Session, paid: Sandbox
) -> None:
    listed = [row["ticker"] for row in ask(session, paid, STOCKS)["tickers"]]
    assert {"AAPL", "ZVZZT", "KIM", "KIMpL"} < {*listed}
    assert "TCEHY" not in listed
    assert "TCEHY" in [row["ticker"] for row in ask(session, paid, f"{STOCKS}?include_otc=true")["tickers"]]
    some = ask(session, paid, f"{STOCKS}?tickers=KIMpL,NOPE,TCEHY,C:EURUSD")
    assert ([row["ticker"] for row in some["tickers"]], some["count"]) == (["KIMpL", "TCEHY"], 2)
    ask(session, paid, f"{STOCKS}/NOPE", 404)
    ask(session, paid, "/v2/snapshot/locale/us/markets/indices/tickers", 404)
    ask(session, paid, "/v2/snapshot/locale/global/markets/stocks/tickers", 404)


# --- sessions


@pytest.mark.parametrize(
    ("now", "status", "day", "minute"),
    [
        (at(2026, 9, 3, 3, 29), "closed", True, True),
        (at(2026, 9, 3, 3, 30), "closed", False, False),
        (at(2026, 9, 3, 9, 29), "early_trading", False, True),
        (at(2026, 9, 3, 9, 30, 30), "open", True, True),
        (at(2026, 9, 3, 16, 0), "late_trading", True, True),
        (at(2026, 9, 5, 12, 0), "closed", True, True),
        (at(2026, 11, 27, 13, 0), "late_trading", True, True),
        (at(2026, 11, 27, 17, 0), "closed", True, True),
    ],
)
def test_figures_of_a_day_are_zero_until_its_session_begins(
    session: requests.Session, now: datetime, status: str, day: bool, minute: bool
) -> None:
    with serving(now) as sandbox:
        row = ask(session, sandbox, f"{STOCKS}/AAPL")["ticker"]
        unified = snapshot(session, sandbox, "AAPL")["AAPL"]
    assert unified["market_status"] == status
    assert (row["day"]["c"] > 0, row["day"]["v"] > 0, unified["session"]["open"] > 0) == (day, day, day)
    assert (row["min"]["c"] > 0, row["lastTrade"]["p"] > 0, row["updated"] > 0) == (minute, minute, minute)
    assert row["prevDay"]["c"] == unified["session"]["previous_close"]
    assert unified["last_trade"]["price"] > 0


def test_bars_keep_the_sessions(session: requests.Session, paid: Sandbox) -> None:
    aggs = "/v2/aggs/ticker"
    stock = rows(session, paid, f"{aggs}/AAPL/range/5/minute/2026-08-28/2026-08-31")
    index = ask(session, paid, f"{aggs}/I:SPX/range/5/minute/2026-08-28/2026-08-31")
    times = [datetime.fromtimestamp(int(row["t"]) / 1000, NEW_YORK) for row in stock]
    assert {moment.day for moment in times} == {28, 31}
    assert min(moment.time() for moment in times).hour == 4
    assert max(moment.time() for moment in times).hour == 19
    assert len([moment for moment in times if (9, 30) <= (moment.hour, moment.minute) < (16, 0)]) == 2 * 78
    assert len(index["results"]) == 2 * 78
    assert {*index["results"][0]} == {"o", "h", "l", "c", "t"}
    assert "adjusted" not in index
    hours = rows(session, paid, f"{aggs}/I:SPX/range/1/hour/2026-08-28/2026-08-28")
    assert datetime.fromtimestamp(int(hours[0]["t"]) / 1000, NEW_YORK).hour == 9
    rare = rows(session, paid, f"{aggs}/CKX/range/1/minute/2026-08-28/2026-08-28")
    assert len(rare) == 5


@pytest.mark.parametrize("ticker", ["AAPL", "CKX", "KIMpL"])
def test_range_previous_day_and_grouped_day_of_stocks_agree(
    session: requests.Session, paid: Sandbox, ticker: str
) -> None:
    day = rows(session, paid, f"/v2/aggs/ticker/{ticker}/range/1/day/2026-09-02/2026-09-02")[0]
    grouped = next(row for row in rows(session, paid, f"{GROUPED}/2026-09-02") if row["T"] == ticker)
    previous = ask(session, paid, f"/v2/aggs/ticker/{ticker}/prev")["results"][0]
    assert day["t"] == ms(at(2026, 9, 2))
    assert grouped == previous == {**day, "T": ticker, "t": ms(at(2026, 9, 2, 16))}


def test_a_grouped_day_has_all_stocks_and_none_on_a_holiday(session: requests.Session) -> None:
    with serving(at(2026, 12, 3, 12), holidays=[date(2026, 12, 1)]) as sandbox:
        assert len(rows(session, sandbox, f"{GROUPED}/2026-11-27")) == 43
        assert len(rows(session, sandbox, f"{GROUPED}/2026-11-27?include_otc=true")) == 44
        for rest in ("2026-11-26", "2026-11-28", "2026-12-01"):
            assert "results" not in ask(session, sandbox, f"{GROUPED}/{rest}")
        ask(session, sandbox, "/v2/aggs/grouped/locale/us/market/indices/2026-11-27", 404)


# --- reference


def test_reference_tickers_tell_what_a_stock_is(session: requests.Session, paid: Sandbox) -> None:
    found = {row["ticker"]: row for row in rows(session, paid, "/v3/reference/tickers?market=stocks&limit=25")}
    apple = found["AAPL"]
    assert (apple["type"], apple["primary_exchange"], apple["locale"], apple["active"]) == ("CS", "XNAS", "us", True)
    assert len({row["composite_figi"] for row in found.values()}) == len(found) >= 40
    assert "TCEHY" not in found
    assert [row["ticker"] for row in rows(session, paid, "/v3/reference/tickers?market=otc")] == ["TCEHY"]
    tests = rows(session, paid, "/v3/reference/tickers?market=stocks&type=TEST")
    assert [row["ticker"] for row in tests] == ["ZVZZT"]
    indices = rows(session, paid, "/v3/reference/tickers?market=indices")
    assert [row["ticker"] for row in indices] == ["I:COMP", "I:DJI", "I:NDX", "I:RUT", "I:SPX", "I:VIX"]
    assert [row["ticker"] for row in rows(session, paid, "/v3/reference/tickers?search=dow jones")] == ["I:DJI"]
    assert ask(session, paid, "/v3/reference/tickers/BRK.B")["results"]["type"] == "CS"


@pytest.mark.parametrize(
    ("now", "stocks", "indices", "phase"),
    [
        (at(2026, 9, 3, 8), "extended-hours", "closed", "earlyHours"),
        (at(2026, 9, 3, 12), "open", "open", None),
        (at(2026, 9, 7, 12), "closed", "closed", None),  # Labor Day
        (at(2026, 11, 27, 12, 59), "open", "open", None),
        (at(2026, 11, 27, 13), "extended-hours", "closed", "afterHours"),
        (at(2026, 12, 1, 12), "closed", "closed", None),
    ],
)
def test_market_status_knows_the_calendar(
    session: requests.Session, now: datetime, stocks: str, indices: str, phase: str | None
) -> None:
    with serving(now, holidays=[date(2026, 12, 1)]) as sandbox:
        body = ask(session, sandbox, "/v1/marketstatus/now")
    assert body["market"] == body["exchanges"]["nyse"] == body["exchanges"]["nasdaq"] == stocks
    assert {*body["indicesGroups"].values()} == {indices}
    assert [name for name in ("earlyHours", "afterHours") if body[name]] == ([phase] if phase else [])
    assert {*body["currencies"]} == {"fx", "crypto"}


def test_holidays_are_a_bare_list_with_a_row_an_exchange(session: requests.Session) -> None:
    with serving(at(2026, 11, 20), holidays=[date(2026, 12, 1)]) as sandbox:
        found = ask(session, sandbox, "/v1/marketstatus/upcoming")
    assert found[0] == {"date": "2026-11-26", "exchange": "NASDAQ", "name": "Thanksgiving", "status": "closed"}
    assert found[4] == {
        "date": "2026-11-27",
        "exchange": "NYSE",
        "name": "Thanksgiving",
        "status": "early-close",
        "open": "2026-11-27T14:30:00.000Z",
        "close": "2026-11-27T18:00:00.000Z",
    }
    days = [row["date"] for row in found[::3]]
    assert days[2] == "2026-12-01"
    assert all([row["exchange"] for row in found[place : place + 3]] == ["NASDAQ", "NYSE", "OTC"] for place in (0, 3))
    assert days == sorted(days)
    assert len(days) == 13
    assert "2027-06-18" in days  # Juneteenth, a Saturday


# --- plans


def test_a_plan_is_that_of_its_market(session: requests.Session) -> None:
    with serving(stocks_plan="free") as sandbox:
        found = snapshot(session, sandbox, "AAPL", "C:EURUSD", "I:SPX")
        assert found["AAPL"] == {"ticker": "AAPL", **NOT_ENTITLED}
        assert "value" in found["I:SPX"]
        ask(session, sandbox, f"{STOCKS}/AAPL", 403)
        assert len(rows(session, sandbox, f"{GROUPED}/2026-09-02")) > 40
    with serving(plan="free", stocks_plan="free", indices_plan="free") as sandbox:
        ask(session, sandbox, "/v3/snapshot?ticker.any_of=C:EURUSD", 403)
        ask(session, sandbox, "/v3/snapshot/indices?ticker.any_of=I:DJI", 403)
    with serving(plan="free", stocks_plan="starter", indices_plan="free") as sandbox:
        found = snapshot(session, sandbox, "AAPL", "C:EURUSD", "I:SPX")
        assert [row.get("error") for row in found.values()] == [None, "NOT_ENTITLED", "NOT_ENTITLED"]
        ask(session, sandbox, "/v3/snapshot/indices?ticker.any_of=I:DJI", 403)


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        ("starter", {"last_minute"}),
        ("developer", {"last_minute", "last_trade"}),
        ("advanced", {"last_minute", "last_trade", "last_quote"}),
    ],
)
def test_smaller_plans_have_fewer_parts_and_are_late(session: requests.Session, plan: str, parts: set[str]) -> None:
    with serving(stocks_plan=plan, indices_plan="starter") as sandbox:
        found = snapshot(session, sandbox, "AAPL", "I:SPX")
        row = ask(session, sandbox, f"{STOCKS}/AAPL")["ticker"]
        bars = ask(session, sandbox, "/v2/aggs/ticker/AAPL/range/1/minute/2026-09-03/2026-09-03")
        euro = ask(session, sandbox, "/v3/snapshot?ticker.any_of=C:EURUSD")
    late_ms = 0 if plan == "advanced" else 15 * 60_000
    apple = found["AAPL"]
    assert {part for part in ("last_minute", "last_trade", "last_quote") if part in apple} == parts
    assert ("lastTrade" in row, "lastQuote" in row) == ("last_trade" in parts, "last_quote" in parts)
    seen_ms = ms(NOON) - late_ms
    assert 0 <= seen_ms - apple["last_minute"]["last_updated"] // 10**6 < 250
    assert 0 <= seen_ms - row["updated"] // 10**6 < 250
    assert bars["results"][-1]["t"] == seen_ms // 60_000 * 60_000
    assert bars["results"][-1]["c"] == row["min"]["c"] == apple["last_minute"]["close"]
    assert bars["status"] == ("DELAYED" if late_ms else "OK")
    assert (found["I:SPX"]["timeframe"], euro["status"]) == ("DELAYED", "OK")
    assert 0 <= ms(NOON) - 15 * 60_000 - found["I:SPX"]["last_updated"] // 10**6 < 250


TODAY = "Attempted to request today's data before end of day."
TIMEFRAME = "Your plan doesn't include this data timeframe."
REFUSED = "You are not entitled to this data."


@pytest.mark.parametrize(
    ("now", "day", "refusal"),
    [
        (at(2026, 9, 3, 23, 59), "2026-09-03", TODAY),
        (at(2026, 9, 4, 0, 0), "2026-09-03", None),
        (at(2026, 9, 3, 23, 59), "2026-09-04", TIMEFRAME),
        (at(2026, 9, 3, 12, 0), "2024-09-02", TIMEFRAME),
    ],
)
def test_a_free_plan_has_days_that_are_over_in_new_york(
    session: requests.Session, now: datetime, day: str, refusal: str | None
) -> None:
    with serving(now, stocks_plan="free", indices_plan="free") as sandbox:
        for path in (f"{GROUPED}/{day}", *(f"/v2/aggs/ticker/{t}/range/1/day/{day}/{day}" for t in ("AAPL", "I:DJI"))):
            body = ask(session, sandbox, path, 403 if refusal else 200)
            assert body.get("message", "").startswith(refusal or "")
            assert (refusal is None) == ("results" in body)


def test_a_free_plan_has_the_previous_day_once_the_session_is_over(session: requests.Session) -> None:
    for now, day in ((at(2026, 9, 3, 15, 59), at(2026, 9, 2, 16)), (at(2026, 9, 3, 16), at(2026, 9, 3, 16))):
        with serving(now, stocks_plan="free") as sandbox:
            assert ask(session, sandbox, "/v2/aggs/ticker/AAPL/prev")["results"][0]["t"] == ms(day)


@pytest.mark.parametrize("path", ["range/1/day/2026-09-01/2026-09-01", "range/5/minute/2026-09-01/2026-09-01", "prev"])
def test_a_free_plan_has_some_indices_only(session: requests.Session, path: str) -> None:
    with serving(indices_plan="free") as sandbox:
        for ticker in ("I:SPX", "I:NDX"):
            body = ask(session, sandbox, f"/v2/aggs/ticker/{ticker}/{path}", 403)
            assert body["status"] == "NOT_AUTHORIZED"
            assert body["message"].startswith(REFUSED)
        for ticker in ("I:COMP", "I:DJI"):
            assert ask(session, sandbox, f"/v2/aggs/ticker/{ticker}/{path}")["resultsCount"] > 0


def test_plans_are_those_of_their_market() -> None:
    with pytest.raises(ValueError, match="unknown plan 'developer' of indices"):
        Sandbox(indices_plan="developer")
    sandbox = Sandbox(stocks_plan="basic")
    sandbox.stocks_plan = "developer"
    assert (sandbox.plan, sandbox.stocks_plan, sandbox.indices_plan) == ("starter", "developer", "free")
    sandbox.stop()


def test_utc_days_of_currencies_stay(session: requests.Session) -> None:
    with serving(datetime(2026, 9, 4, 1, tzinfo=UTC)) as sandbox:
        path = "range/1/day/2026-09-03/2026-09-04"
        assert len(rows(session, sandbox, f"/v2/aggs/ticker/C:EURUSD/{path}")) == 2
        assert len(rows(session, sandbox, f"/v2/aggs/ticker/AAPL/{path}")) == 1
