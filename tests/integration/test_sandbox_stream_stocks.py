"""The sandbox's stream of stocks and indices: channels and delay by plan, what events have, when nothing comes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.server import Sandbox
from tests.sandbox_client import get
from tests.streaming import Clock, connected, streaming

if TYPE_CHECKING:
    from collections.abc import Iterator

# A Thursday, 10:00 in New York, and a holiday.
TEN = datetime(2026, 9, 3, 14, 0, 30, tzinfo=UTC)
LABOR_DAY = datetime(2026, 9, 7, 14, 0, 30, tzinfo=UTC)
LATE_MS = 15 * 60_000


@pytest.fixture
def clock() -> Clock:
    return Clock(TEN)


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock, stocks_plan="advanced", indices_plan="advanced") as sandbox:
        yield sandbox


def next_minute(sandbox: Sandbox, clock: Clock, path: str, name: str) -> dict[str, Any]:
    with streaming(sandbox, name, path=path) as client:
        clock.forward(seconds=60)
        return client.event("AM")


def test_trades_and_minutes_of_a_stock_are_those_that_calls_bring(sandbox: Sandbox, clock: Clock) -> None:
    with streaming(sandbox, "T.BRK.B", "AM.BRK.B", path="/stocks") as client:
        trade = client.event("T")
        clock.forward(seconds=60)
        minute = client.event("AM")
    assert list(trade) == ["ev", "sym", "x", "i", "z", "p", "s", "ds", "c", "t", "q"]
    assert list(minute) == [
        "ev", "sym", "v", "av", "op", "vw", "o", "c", "h", "l", "a", "z", "s", "e", "dv", "dav",
    ]  # fmt: skip
    assert (trade["sym"], minute["sym"]) == ("BRK.B", "BRK.B")
    assert isinstance(trade["i"], str)
    assert isinstance(minute["dv"], str)
    assert minute["v"] == int(Decimal(minute["dv"])) <= minute["av"] == int(Decimal(minute["dav"]))
    assert minute["l"] <= minute["vw"] <= minute["h"]

    span = f"{minute['s']}/{minute['e'] - 1}"
    (bar,) = get(sandbox, f"/v2/aggs/ticker/BRK.B/range/1/minute/{span}")["results"]
    assert [bar[key] for key in "ohlc"] == [minute[key] for key in "ohlc"]
    assert str(bar["v"]) == minute["dv"]
    sandbox.clock = partial(datetime.fromtimestamp, trade["t"] / 1000, UTC)
    shown = get(sandbox, "/v2/snapshot/locale/us/markets/stocks/tickers/BRK.B")["ticker"]["lastTrade"]
    assert (shown["p"], shown["t"] // 1_000_000) == (trade["p"], trade["t"])


def test_values_and_minutes_of_an_index_have_no_volume(sandbox: Sandbox, clock: Clock) -> None:
    with streaming(sandbox, "V.I:SPX", "AM.I:SPX", path="/indices") as client:
        value = client.event("V")
        clock.forward(seconds=60)
        minute = client.event("AM")
    assert list(value) == ["ev", "T", "val", "t"]
    assert value["T"] == minute["sym"] == "I:SPX"
    assert list(minute) == ["ev", "sym", "op", "o", "c", "h", "l", "s", "e"]


@pytest.mark.parametrize("plan", ["starter", "developer"])
def test_a_plan_that_is_late_streams_what_was_15_minutes_ago(sandbox: Sandbox, clock: Clock, plan: str) -> None:
    sandbox.stocks_plan = plan
    minute = next_minute(sandbox, clock, "/stocks", "AM.AAPL")
    late = clock().timestamp() * 1000 - minute["e"]
    assert LATE_MS < late < LATE_MS + 65_000

    with connected(sandbox, "/stocks") as client:
        client.authenticate()
        client.send("subscribe", "T.AAPL,A.AAPL")
        if plan == "starter":
            assert client.status() == ("error", "not authorized")
            assert client.event("A")["sym"] == "AAPL"
        else:
            trade = client.event("T")
            assert LATE_MS <= clock().timestamp() * 1000 - trade["t"] < LATE_MS + 30_000


def test_seldom_traded_stocks_holidays_and_evenings_of_indices_are_silent(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.stream.rate = 4
    with streaming(sandbox, "T.KIMpL", "AM.KIMpL", "T.KIMPL", path="/stocks") as stocks:
        assert stocks.silent(1.0)
        clock.set(TEN + timedelta(hours=9))
        with streaming(sandbox, "V.I:SPX", path="/indices") as indices:
            assert indices.silent(0.5)
        clock.set(LABOR_DAY)
        stocks.subscribe("T.AAPL")
        assert stocks.silent(0.5)


def test_a_stock_that_has_split_is_told_of_by_its_new_price_and_one_that_has_left_not_at_all(
    sandbox: Sandbox, clock: Clock
) -> None:
    before = next_minute(sandbox, clock, "/stocks", "AM.AAPL")
    day = f"{TEN.date()}"
    sandbox.listing = Listing(splits=[f"AAPL:10:{day}"], delistings=[f"TSLA:{day}"])
    with streaming(sandbox, "AM.AAPL", "T.TSLA", path="/stocks") as client:
        clock.forward(seconds=60)
        after = client.event("AM")
    assert before["c"] / 11 < after["c"] < before["c"] / 9
    assert all(event["ev"] != "T" for frame in client.frames for event in frame)


def test_minutes_that_are_sent_again_have_other_figures(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.fail = ["ws-revised"]
    for path, name in (("/stocks", "AM.AAPL"), ("/indices", "AM.I:SPX")):
        with streaming(sandbox, name, path=path) as client:
            clock.forward(seconds=60)
            first = client.event("AM")
            again = client.event("AM")
            while again["s"] != first["s"]:
                again = client.event("AM")
        assert first["c"] == first["o"] != again["c"]
        assert ("dv" in first) is (path == "/stocks")
        assert first.get("dv") != again.get("dv") or path == "/indices"
