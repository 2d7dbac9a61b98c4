"""The sandbox over real sockets: key, plans, documents, paging, limit, life and death."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.sandbox.server import Arrival, Sandbox
from tests.sandbox_client import BEARER

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

NOW = datetime(2026, 9, 3, 12, 0, 30, 500_000, tzinfo=UTC)  # a Thursday
NOW_MS = int(NOW.timestamp() * 1000)
UPGRADE = " Please upgrade your plan at https://massive.com/pricing"


@contextmanager
def serving(**options: Any) -> Iterator[Sandbox]:
    with Sandbox(**{"clock": lambda: NOW} | options) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def paid() -> Iterator[Sandbox]:
    with serving() as sandbox:
        yield sandbox


def document(session: requests.Session, sandbox: Sandbox, path: str, status: int = 200) -> dict[str, Any]:
    answer = session.get(sandbox.url + path, timeout=10)
    assert answer.status_code == status, answer.text
    decoded: dict[str, Any] = json.loads(answer.content, parse_float=Decimal)
    return decoded


def pages(session: requests.Session, sandbox: Sandbox, path: str) -> list[list[dict[str, Any]]]:
    found = []
    while path:
        page = document(session, sandbox, path)
        found.append(page["results"])
        following = page.get("next_url", "")
        assert following == "" or following.startswith(sandbox.url)
        path = following.removeprefix(sandbox.url)
    return found


# --- key


def test_no_key_and_a_wrong_key_are_told_apart(session: requests.Session, paid: Sandbox) -> None:
    for headers, words in (
        ({"Authorization": None}, "API Key was not provided"),
        ({"Authorization": "Bearer wrong"}, "Unknown API Key"),
        ({"Authorization": "Bearer sandboxx"}, "Unknown API Key"),
        ({"Authorization": "Basic c2FuZGJveA=="}, "API Key was not provided"),
    ):
        answer = session.get(f"{paid.url}/v1/marketstatus/now", headers=headers, timeout=10)
        body = answer.json()
        assert answer.status_code == 401
        assert body == {"status": "ERROR", "request_id": body["request_id"], "error": words}
        assert len(body["request_id"]) == 32


def test_a_key_in_the_query_is_taken_and_not_kept(session: requests.Session) -> None:
    with serving(key="s3cret") as sandbox:
        url = f"{sandbox.url}/v1/marketstatus/now?x=1&apiKey="
        good = session.get(f"{url}s3cret&y=2", headers={"Authorization": None}, timeout=10)
        bad = session.get(f"{url}other", headers={"Authorization": None}, timeout=10)
        assert (good.status_code, bad.status_code) == (200, 401)
        assert [arrival.path for arrival in sandbox.arrivals] == [
            "/v1/marketstatus/now?x=1&apiKey=***&y=2",
            "/v1/marketstatus/now?x=1&apiKey=***",
        ]


# --- live prices


def test_unified_snapshot_mixes_markets_and_sorts_by_ticker(session: requests.Session, paid: Sandbox) -> None:
    query = "X:BTCUSD,C:XAUUSD,NOPE,C:EURUSD,AAPL,C:eurusd"
    body = document(session, paid, f"/v3/snapshot?ticker.any_of={query}&limit=250")
    assert body["status"] == "OK"
    rows = {row["ticker"]: row for row in body["results"]}
    assert list(rows) == ["AAPL", "C:EURUSD", "C:XAUUSD", "C:eurusd", "NOPE", "X:BTCUSD"]
    assert rows["NOPE"] == {"ticker": "NOPE", "error": "NOT_FOUND", "message": "Ticker not found."}
    assert rows["AAPL"] == {"ticker": "AAPL", "error": "NOT_ENTITLED", "message": "Not entitled to this ticker."}
    gold, bitcoin = rows["C:XAUUSD"], rows["X:BTCUSD"]
    assert (gold["type"], bitcoin["type"]) == ("fx", "crypto")
    assert "last_trade" not in gold
    assert gold["last_quote"]["bid"] < gold["last_quote"]["ask"]
    assert gold["session"]["low"] <= gold["last_quote"]["bid"] <= gold["session"]["high"]
    assert gold["session"]["change"] == gold["last_quote"]["bid"] - gold["session"]["previous_close"]
    assert 0 <= NOW_MS * 10**6 - gold["last_quote"]["last_updated"] < 250 * 10**6
    assert 0 <= NOW_MS * 10**6 - bitcoin["last_trade"]["participant_timestamp"] < 250 * 10**6
    assert "next_url" not in body


def test_unified_snapshot_gives_ten_rows_unless_told(session: requests.Session, paid: Sandbox) -> None:
    tickers = sorted(f"C:T{n}USD" for n in range(25))
    listed = ",".join(tickers)
    found = pages(session, paid, f"/v3/snapshot?ticker.any_of={listed}")
    assert [len(page) for page in found] == [10, 10, 5]
    assert [row["ticker"] for page in found for row in page] == tickers
    backwards = pages(session, paid, f"/v3/snapshot?ticker.any_of={listed}&order=desc&limit=24")
    assert [row["ticker"] for page in backwards for row in page] == tickers[::-1]


def test_unified_snapshot_without_tickers_lists_the_catalogue(session: requests.Session, paid: Sandbox) -> None:
    every = [row for page in pages(session, paid, "/v3/snapshot?limit=40") for row in page]
    crypto = [row for page in pages(session, paid, "/v3/snapshot?limit=250&type=crypto") for row in page]
    assert len(every) > 100
    assert {row["type"] for row in every} == {"fx", "crypto"}
    assert [row for row in every if row["type"] == "crypto"] == crypto


@pytest.mark.parametrize(
    "query",
    ["limit=251", "limit=0", "limit=x", "limit=-1", "order=up", "cursor=!!", "ticker.any_of={many}"],
)
def test_a_query_that_cannot_be_parsed_is_a_400(session: requests.Session, paid: Sandbox, query: str) -> None:
    many = ",".join(f"C:T{n}USD" for n in range(251))
    body = document(session, paid, "/v3/snapshot?" + query.format(many=many), 400)
    assert body["status"] == "ERROR"
    assert body["error"].startswith("Failed to parse query parameters")


def test_a_row_in_every_shape_tells_the_same_price(session: requests.Session, paid: Sandbox) -> None:
    snapshot = "/v2/snapshot/locale/global/markets"
    unified = document(session, paid, "/v3/snapshot?ticker.any_of=C:EURUSD,X:ETHUSDT")["results"]
    euro = document(session, paid, f"{snapshot}/forex/tickers/C:EURUSD")["ticker"]
    ether = document(session, paid, f"{snapshot}/crypto/tickers/X:ETHUSDT")["ticker"]
    assert (euro["lastQuote"]["b"], euro["lastQuote"]["a"]) == (
        unified[0]["last_quote"]["bid"],
        unified[0]["last_quote"]["ask"],
    )
    assert euro["lastQuote"]["t"] * 10**6 == unified[0]["last_quote"]["last_updated"]
    assert "lastTrade" not in euro
    assert "vw" not in euro["day"]
    assert euro["todaysChange"] == euro["lastQuote"]["b"] - euro["prevDay"]["c"]
    assert ether["lastTrade"]["p"] == unified[1]["last_trade"]["price"]
    assert ether["todaysChange"] == ether["lastTrade"]["p"] - ether["prevDay"]["c"]
    assert ether["min"]["t"] == NOW_MS // 60_000 * 60_000
    quote = document(session, paid, "/v1/last_quote/currencies/EUR/USD")
    trade = document(session, paid, "/v1/last/crypto/ETH/USDT")
    assert (quote["status"], quote["symbol"], quote["last"]["bid"]) == ("success", "EUR/USD", euro["lastQuote"]["b"])
    assert (trade["symbol"], trade["last"]["price"]) == ("ETH-USDT", ether["lastTrade"]["p"])


def test_market_snapshot_leaves_unknown_tickers_out(session: requests.Session, paid: Sandbox) -> None:
    path = "/v2/snapshot/locale/global/markets/forex/tickers"
    some = document(session, paid, f"{path}?tickers=C:EURUSD,C:NOPE,X:BTCUSD,C:XAUUSD")
    assert [row["ticker"] for row in some["tickers"]] == ["C:EURUSD", "C:XAUUSD"]
    every = document(session, paid, path)["tickers"]
    assert len(every) >= 60
    # `updated` is no time of anything: many rows share one value of tomorrow.
    future = [row["updated"] for row in every if row["updated"] > NOW_MS]
    assert len(set(future)) == 1
    assert 0 < len(future) < len(every)
    assert future[0] == int(datetime(2026, 9, 4, 4, 0, 8, tzinfo=UTC).timestamp()) * 1000 + 999
    assert all(row["lastQuote"]["t"] <= NOW_MS for row in every)


@pytest.mark.parametrize("path", ["forex/tickers/C:NOPE", "crypto/tickers/C:EURUSD", "forex/tickers/X:BTCUSD"])
def test_an_unknown_single_ticker_is_a_404(session: requests.Session, paid: Sandbox, path: str) -> None:
    body = document(session, paid, f"/v2/snapshot/locale/global/markets/{path}", 404)
    assert body == {"status": "NotFound", "request_id": body["request_id"]}


def test_an_encoded_ticker_is_the_same_ticker(session: requests.Session, paid: Sandbox) -> None:
    raw = document(session, paid, "/v2/aggs/ticker/C:EURUSD/prev")
    encoded = document(session, paid, "/v2/aggs/ticker/C%3AEURUSD/prev")
    assert raw["results"] == encoded["results"]


def test_prices_move_with_the_clock_at_weekends_too(session: requests.Session) -> None:
    saturday = [datetime(2026, 9, 5, 12, 0, second, tzinfo=UTC) for second in range(3)]
    with Sandbox(clock=lambda: saturday[0]) as sandbox:
        seen = []
        while saturday:
            row = document(session, sandbox, "/v3/snapshot?ticker.any_of=C:EURUSD")["results"][0]
            assert row["market_status"] == "closed"
            seen.append((row["last_quote"]["last_updated"], row["last_quote"]["bid"]))
            saturday.pop(0)
    assert len({at for at, _ in seen}) == 3
    assert seen[0][1] != seen[1][1] != seen[2][1]


# --- bars


def bars(session: requests.Session, sandbox: Sandbox, path: str) -> list[dict[str, Any]]:
    return [row for page in pages(session, sandbox, path) for row in page]


@pytest.mark.parametrize("ticker", ["C:XAUUSD", "X:BTCUSD"])
def test_ranges_previous_day_and_grouped_day_agree(session: requests.Session, paid: Sandbox, ticker: str) -> None:
    aggs = f"/v2/aggs/ticker/{ticker}"
    market = "fx" if ticker.startswith("C:") else "crypto"
    minutes = bars(session, paid, f"{aggs}/range/1/minute/2026-09-02/2026-09-02")
    fives = bars(session, paid, f"{aggs}/range/5/minute/2026-09-02/2026-09-02")
    hours = bars(session, paid, f"{aggs}/range/1/hour/2026-09-02/2026-09-02")
    day = bars(session, paid, f"{aggs}/range/1/day/2026-09-02/2026-09-02")
    assert [len(minutes), len(fives), len(hours), len(day)] == [1440, 288, 24, 1]
    for longer in (fives, hours, day):
        size = 1440 // len(longer)
        for place, bar in enumerate(longer):
            parts = minutes[place * size : (place + 1) * size]
            assert (bar["t"], bar["o"], bar["c"]) == (parts[0]["t"], parts[0]["o"], parts[-1]["c"])
            assert (bar["h"], bar["l"]) == (max(p["h"] for p in parts), min(p["l"] for p in parts))
            assert bar["n"] == sum(p["n"] for p in parts)
            assert float(bar["v"]) == pytest.approx(float(sum(p["v"] for p in parts)))
    previous = document(session, paid, f"{aggs}/prev")["results"][0]
    grouped = document(session, paid, f"/v2/aggs/grouped/locale/global/market/{market}/2026-09-02")["results"]
    same = next(row for row in grouped if row["T"] == ticker)
    assert previous == same
    end_ms = int(datetime(2026, 9, 3, tzinfo=UTC).timestamp()) * 1000 - 1
    assert {**day[0], "t": end_ms, "T": ticker} == previous


def test_limit_counts_base_minutes_and_pages_join_without_a_gap(session: requests.Session, paid: Sandbox) -> None:
    path = "/v2/aggs/ticker/X:BTCUSD/range/5/minute/2026-09-01/2026-09-02"
    whole = document(session, paid, f"{path}?limit=50000")
    assert (whole["queryCount"], whole["resultsCount"]) == (2880, 576)
    assert "next_url" not in whole
    up = pages(session, paid, f"{path}?limit=1000")
    assert [len(page) for page in up] == [200, 200, 176]
    assert [row for page in up for row in page] == whole["results"]
    down = pages(session, paid, f"{path}?limit=1003&sort=desc")
    assert [row for page in down for row in page] == whole["results"][::-1]
    assert document(session, paid, f"{path}?limit=50001", 400)["status"] == "ERROR"
    days = pages(session, paid, "/v2/aggs/ticker/C:EURUSD/range/1/day/2026-08-01/2026-08-31?limit=10")
    assert [len(page) for page in days] == [10, 10, 6]  # Saturdays have none


def test_from_and_to_are_included_and_may_be_milliseconds(session: requests.Session, paid: Sandbox) -> None:
    begin, end = NOW_MS // 300_000 * 300_000 - 600_000, NOW_MS
    body = document(session, paid, f"/v2/aggs/ticker/X:BTCUSD/range/5/minute/{begin}/{end}")
    assert [row["t"] for row in body["results"]] == [begin, begin + 300_000, begin + 600_000]
    newest = body["results"][-1]
    live = document(session, paid, "/v3/snapshot?ticker.any_of=X:BTCUSD")["results"][0]
    assert newest["c"] == live["last_trade"]["price"]  # the open bar comes as far as it is


def test_forex_has_no_bars_at_the_weekend(session: requests.Session, paid: Sandbox) -> None:
    aggs = "/v2/aggs/ticker/C:EURUSD/range"
    rows = bars(session, paid, f"{aggs}/1/hour/2026-08-28/2026-08-30")
    hours = [datetime.fromtimestamp(row["t"] / 1000, UTC) for row in rows]
    assert [(at.day, at.hour) for at in hours] == [*((28, h) for h in range(21)), (30, 21), (30, 22), (30, 23)]
    saturday = document(session, paid, f"{aggs}/5/minute/2026-08-29/2026-08-29")
    assert "results" not in saturday
    assert (saturday["resultsCount"], saturday["status"]) == (0, "OK")
    closed = document(session, paid, "/v2/aggs/grouped/locale/global/market/fx/2026-08-29")
    assert "results" not in closed
    assert document(session, paid, "/v2/aggs/grouped/locale/global/market/crypto/2026-08-29")["resultsCount"] > 30


def test_an_unknown_ticker_has_bars_of_nothing(session: requests.Session, paid: Sandbox) -> None:
    for path in ("prev", "range/5/minute/2026-09-01/2026-09-02"):
        body = document(session, paid, f"/v2/aggs/ticker/C:NOPE/{path}")
        assert (body["ticker"], body["resultsCount"], body["status"]) == ("C:NOPE", 0, "OK")
        assert "results" not in body


def test_today_is_a_bar_that_still_moves_for_a_paid_plan(session: requests.Session, paid: Sandbox) -> None:
    today = document(session, paid, "/v2/aggs/grouped/locale/global/market/fx/2026-09-03")["results"]
    live = document(session, paid, "/v3/snapshot?ticker.any_of=C:EURUSD")["results"][0]
    euro = next(row for row in today if row["T"] == "C:EURUSD")
    assert (euro["c"], euro["h"]) == (live["session"]["close"], live["session"]["high"])
    assert document(session, paid, "/v2/aggs/grouped/locale/global/market/fx/2026-09-04")["resultsCount"] == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("grouped/locale/global/market/fx/2026-13-01", "The path parameter `date` is invalid"),
        ("ticker/C:EURUSD/range/5/minute/yesterday/2026-09-01", "Could not parse the date"),
        ("ticker/C:EURUSD/range/5/minute/2026-09-01/99999999999999999999", "Could not parse the date"),
        ("ticker/C:EURUSD/range/5/minute/2026-09-02/2026-09-01", "The path parameter `to` is invalid"),
        ("ticker/C:EURUSD/range/5/fortnight/2026-09-01/2026-09-01", "The path parameter `timespan` is invalid"),
        ("ticker/C:EURUSD/range/0/minute/2026-09-01/2026-09-01", "The path parameter `timespan` is invalid"),
    ],
)
def test_a_path_that_cannot_be_parsed_is_a_400(session: requests.Session, paid: Sandbox, path: str, words: str) -> None:
    body = document(session, paid, f"/v2/aggs/{path}", 400)
    assert body["error"].startswith(words)


# --- reference


def test_reference_tickers_tell_base_and_quote(session: requests.Session, paid: Sandbox) -> None:
    found = pages(session, paid, "/v3/reference/tickers?market=fx&limit=25")
    rows = {row["ticker"]: row for page in found for row in page}
    assert [len(page) for page in found][:2] == [25, 25]
    gas = rows["C:NATGASUSD"]
    assert (gas["base_currency_symbol"], gas["currency_symbol"], gas["market"]) == ("NATGAS", "USD", "fx")
    assert all(row["market"] == "fx" and row["active"] for row in rows.values())
    assert [r["ticker"] for r in bars(session, paid, "/v3/reference/tickers?search=gold")] == ["C:XAUEUR", "C:XAUUSD"]
    assert document(session, paid, "/v3/reference/tickers?active=false")["results"] == []


def test_reference_ticker_is_the_validator(session: requests.Session, paid: Sandbox) -> None:
    known = document(session, paid, "/v3/reference/tickers/X:ETHUSDT")["results"]
    assert (known["ticker"], known["name"]) == ("X:ETHUSDT", "Ethereum - Tether")
    body = document(session, paid, "/v3/reference/tickers/C:NOPE", 404)
    assert body == {"status": "NOT_FOUND", "request_id": body["request_id"], "message": "Ticker not found."}


@pytest.mark.parametrize(
    ("now", "forex", "stocks"),
    [
        (datetime(2026, 9, 3, 14, tzinfo=UTC), "open", "open"),
        (datetime(2026, 9, 4, 20, 59, tzinfo=UTC), "open", "extended-hours"),
        (datetime(2026, 9, 4, 21, 0, tzinfo=UTC), "closed", "extended-hours"),
        (datetime(2026, 9, 6, 21, 0, tzinfo=UTC), "open", "closed"),
    ],
)
def test_market_status_keeps_market_hours(session: requests.Session, now: datetime, forex: str, stocks: str) -> None:
    with serving(plan="free", clock=lambda: now) as sandbox:
        body = document(session, sandbox, "/v1/marketstatus/now")
    assert body["currencies"] == {"fx": forex, "crypto": "open"}
    assert body["market"] == stocks
    assert datetime.fromisoformat(body["serverTime"]) == now
    assert body["serverTime"].endswith("-04:00")


# --- plans


@pytest.mark.parametrize(
    "path",
    [
        "/v3/snapshot?ticker.any_of=C:EURUSD",
        "/v2/snapshot/locale/global/markets/forex/tickers/C:EURUSD",
        "/v2/snapshot/locale/global/markets/crypto/tickers",
        "/v1/last_quote/currencies/EUR/USD",
        "/v1/last/crypto/BTC/USD",
        "/v3/snapshot/indices?ticker.any_of=I:SPX",
        "/v2/snapshot/locale/us/markets/stocks/tickers/AAPL",
    ],
)
def test_free_plan_is_not_entitled_to_live_prices(session: requests.Session, path: str) -> None:
    with serving(plan="free") as sandbox:
        body = document(session, sandbox, path, 403)
    assert body == {
        "status": "NOT_AUTHORIZED",
        "request_id": body["request_id"],
        "message": "You are not entitled to this data." + UPGRADE,
    }


TODAY = "Attempted to request today's data before end of day." + UPGRADE
TIMEFRAME = "Your plan doesn't include this data timeframe." + UPGRADE


@pytest.mark.parametrize(
    ("now", "day", "refusal"),
    [
        ("2026-09-03T12:00:00Z", "2026-09-02", None),
        ("2026-09-03T12:00:00Z", "2026-09-03", TODAY),
        ("2026-09-03T12:00:00Z", "2026-09-04", TIMEFRAME),
        ("2026-09-04T03:59:59Z", "2026-09-03", TODAY),  # over in UTC, not in New York
        ("2026-09-04T04:00:00Z", "2026-09-03", None),
        ("2026-01-08T04:59:59Z", "2026-01-07", TODAY),
        ("2026-01-08T05:00:00Z", "2026-01-07", None),
        ("2026-09-03T12:00:00Z", "2024-09-03", None),
        ("2026-09-03T12:00:00Z", "2024-09-02", TIMEFRAME),
        ("2028-02-29T12:00:00Z", "2026-02-28", None),
    ],
)
def test_free_plan_gets_days_that_are_over_and_not_too_old(
    session: requests.Session, now: str, day: str, refusal: str | None
) -> None:
    with serving(plan="free", clock=lambda: datetime.fromisoformat(now)) as sandbox:
        for path in (
            f"/v2/aggs/grouped/locale/global/market/crypto/{day}",
            f"/v2/aggs/ticker/X:BTCUSD/range/1/day/{day}/{day}",
        ):
            body = document(session, sandbox, path, 403 if refusal else 200)
            assert body.get("message") == refusal
            assert body["status"] == ("NOT_AUTHORIZED" if refusal else "OK")


def test_free_plan_gets_the_previous_day_once_it_is_over_everywhere(session: requests.Session) -> None:
    for now, end in (("2026-09-04T03:00:00Z", "2026-09-03"), ("2026-09-04T04:00:00Z", "2026-09-04")):
        with serving(plan="free", clock=lambda now=now: datetime.fromisoformat(now)) as sandbox:
            row = document(session, sandbox, "/v2/aggs/ticker/C:EURUSD/prev")["results"][0]
        assert row["t"] + 1 == int(datetime.fromisoformat(f"{end}T00:00:00Z").timestamp()) * 1000


def test_free_plan_sees_reference_data(session: requests.Session) -> None:
    with serving(plan="basic") as sandbox:
        assert document(session, sandbox, "/v3/reference/tickers/C:XAUUSD")["status"] == "OK"


@pytest.mark.parametrize("options", [{"plan": "gold"}, {"limit": 0}, {"window_seconds": 0}, {"fail": ["nonsense"]}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"plan|limit|window|failure"):
        Sandbox(**options)


# --- limit


def strict(arrivals: list[Arrival], limit: int, window_seconds: float) -> list[bool]:
    """Replay what an exact window lets in, slowly and plainly."""
    accepted: list[float] = []
    verdicts = []
    for arrival in arrivals:
        fits = sum(at > arrival.at - window_seconds for at in accepted) < limit
        verdicts.append(fits)
        if fits:
            accepted.append(arrival.at)
    return verdicts


def test_the_one_too_many_is_refused_in_the_vendors_words(session: requests.Session) -> None:
    with serving(limit=5) as sandbox:
        for _ in range(5):
            document(session, sandbox, "/v1/marketstatus/now")
        answer = session.get(f"{sandbox.url}/v1/marketstatus/now", timeout=10)
        assert answer.status_code == 429
        assert "Retry-After" not in answer.headers
        body = answer.json()
        assert body["status"] == "ERROR"
        assert body["error"] == (
            "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to "
            "continue. https://massive.com/pricing"
        )
        assert [arrival.status for arrival in sandbox.arrivals] == [200] * 5 + [429]


def test_whatever_is_answered_counts(session: requests.Session) -> None:
    with serving(limit=4, fail=["500:grouped"]) as sandbox:
        paths = ["/nowhere", "/v3/reference/tickers/C:NOPE", "/v2/aggs/grouped/x", "/v3/snapshot?limit=x", "/"]
        statuses = [session.get(sandbox.url + path, timeout=10).status_code for path in paths]
    assert statuses == [404, 404, 500, 400, 429]


def test_never_more_than_the_limit_in_any_window_however_many_ask_at_once() -> None:
    import requests

    limit, window_seconds, threads = 7, 0.25, 8
    barrier = Barrier(threads)

    with serving(limit=limit, window_seconds=window_seconds) as sandbox:

        def hammer(_: int) -> list[int]:
            with requests.Session() as own:
                own.headers.update(BEARER)
                barrier.wait()
                end = time.monotonic() + 1.2
                statuses = []
                while time.monotonic() < end:
                    statuses.append(own.get(f"{sandbox.url}/v1/marketstatus/now", timeout=10).status_code)
                return statuses

        with ThreadPoolExecutor(threads) as pool:
            statuses = [status for statuses in pool.map(hammer, range(threads)) for status in statuses]
        arrivals = sandbox.arrivals

    assert len(arrivals) == len(statuses)
    assert [arrival.at for arrival in arrivals] == sorted(arrival.at for arrival in arrivals)
    assert [arrival.status != 429 for arrival in arrivals] == strict(arrivals, limit, window_seconds)
    accepted = [arrival.at for arrival in arrivals if arrival.status == 200]
    assert len(accepted) == statuses.count(200)
    for first, later in zip(accepted, accepted[limit:], strict=False):
        assert first <= later - window_seconds
    assert len(accepted) >= 2 * limit  # nor are permits lost
    assert statuses.count(429) > 0


# --- wire, life and death


def test_unknown_paths_and_methods(session: requests.Session, paid: Sandbox) -> None:
    lost = session.get(f"{paid.url}/v9/nothing", timeout=10)
    assert (lost.status_code, lost.text) == (404, "404 page not found\n")
    assert lost.headers["Content-Type"].startswith("text/plain")
    assert session.post(f"{paid.url}/v3/snapshot", data="x" * 10_000, timeout=10).status_code == 405
    long = session.get(f"{paid.url}/v3/snapshot?ticker.any_of={'C:EURUSD,' * 1000}", timeout=10)
    assert (long.status_code, long.headers["Content-Type"]) == (414, "text/html")


def test_a_connection_is_kept_and_long_answers_are_packed(session: requests.Session, paid: Sandbox) -> None:
    answer = session.get(f"{paid.url}/v3/snapshot?limit=250", timeout=10)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Connection"] == "keep-alive"
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"]
    unpacked = session.get(f"{paid.url}/v3/snapshot?limit=250", headers={"Accept-Encoding": "identity"}, timeout=10)
    assert "Content-Encoding" not in unpacked.headers
    assert unpacked.json()["results"] == answer.json()["results"]
    with socket.create_connection(("127.0.0.1", int(paid.url.rsplit(":")[-1])), timeout=10) as raw:
        request = b"GET /v1/marketstatus/now HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox\r\n\r\n"
        for _ in range(3):
            raw.sendall(request)
            # One write an answer: it arrives whole.
            assert raw.recv(65_536).endswith(b"}")


def test_it_says_nothing_on_its_own(session: requests.Session, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(fail=["404:C:XAUUSD"]) as sandbox:
        document(session, sandbox, "/v2/aggs/ticker/C:EURUSD/prev")
        document(session, sandbox, "/v2/aggs/ticker/C:XAUUSD/prev", 404)
        with socket.create_connection(("127.0.0.1", int(sandbox.url.rsplit(":")[-1])), timeout=10) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            assert b"400" in raw.recv(1000)
    assert capfd.readouterr() == ("", "")


def test_arrivals_need_not_be_kept(session: requests.Session) -> None:
    with serving(keep_arrivals=False, limit=1) as sandbox:
        document(session, sandbox, "/v1/marketstatus/now")
        document(session, sandbox, "/v1/marketstatus/now", 429)
        assert sandbox.arrivals == []


def test_it_can_go_away_and_come_back_at_the_same_address() -> None:
    import requests

    sandbox = Sandbox(clock=lambda: NOW)
    url = f"{sandbox.url}/v1/marketstatus/now"
    with requests.Session() as own:
        own.headers.update(BEARER)
        with sandbox:
            assert own.get(url, timeout=10).status_code == 200
        with pytest.raises(requests.ConnectionError):
            own.get(url, timeout=10)
        sandbox.stop()
        with sandbox:
            assert own.get(url, timeout=10).status_code == 200
    assert len(sandbox.arrivals) == 2


def test_serve_forever_ends_when_told(session: requests.Session) -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    thread = Thread(target=sandbox.serve_forever)
    thread.start()
    document(session, sandbox, "/v1/marketstatus/now")
    sandbox.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_an_address_that_is_taken_is_an_error(paid: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        Sandbox(port=int(paid.url.rsplit(":")[-1]))
