"""Stocks and indices streamed over a real socket into a real database: by plan, late or not, each by itself."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.boottime import boot_time
from assetbatch.jobs import clock
from tests.conftest import wait_until
from tests.stream_runs import FOREX, last_price, wait_for_price

if TYPE_CHECKING:
    from assetbatch.config import Config
    from tests.stream_runs import StreamWorld

# A Thursday, 10:00 in New York.
TEN = datetime(2026, 9, 3, 14, 0, 30, tzinfo=UTC)
LATE = timedelta(minutes=15)
APPLE = "{symbol: AAPL, polygon_ticker: AAPL, asset_type: stocks}"
SPX = "{symbol: SPX, polygon_ticker: 'I:SPX', asset_type: indices}"
EURO = FOREX.partition("[")[2].rpartition("]")[0]


@pytest.fixture
def world(world: StreamWorld) -> StreamWorld:
    world.market.set(TEN)
    return world


def configured(world: StreamWorld, *assets: str, stocks: str = "free", indices: str = "free", **more: str) -> Config:
    """Let key and configuration have these plans."""
    world.sandbox.stocks_plan, world.sandbox.indices_plan = stocks, indices
    provider = f"{{plan: starter, plans: {{stocks: {stocks}, indices: {indices}}}}}"
    return world.settings(f"priority_assets: [{', '.join(assets)}]", provider=provider, **more)


def open_bars(world: StreamWorld, symbol: str) -> list[dict[str, Any]]:
    return world.connection.execute(
        "select b.* from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
        " where s.symbol = %s and not is_final order by ts",
        [symbol],
    ).fetchall()


def lags(world: StreamWorld, cluster: str) -> list[int]:
    """The median lag that was told, once there is one."""
    lag_ms = world.told(cluster)["lag_p50_ms"]
    return [] if lag_ms is None else [lag_ms]


def has_price(world: StreamWorld, symbol: str, price: Decimal) -> bool:
    found = last_price(world.connection, symbol)
    return found is not None and found[1] == price


def test_late_trades_and_values_are_stored_with_their_own_time_and_are_not_called_late(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "boot_time", lambda: boot_time() + world.market.forwarded)
    config = configured(world, APPLE, SPX, EURO, stocks="developer", indices="starter")
    with world.streaming(config) as running:
        for name, asked in (("stocks", 1), ("indices", 1), ("forex", 1)):
            world.wait_for(name, state="live", asked=asked, confirmed=1, unconfirmed=[], silent=[])
        began = world.market()
        for symbol in ("AAPL", "SPX"):
            at = wait_for_price(world.connection, symbol, after=began - LATE)
            assert at <= world.market() - LATE
        wait_for_price(world.connection, "EURUSD", after=began)
        for name in ("stocks", "indices"):
            (lag_ms,) = wait_until(partial(lags, world, name))
            assert abs(lag_ms) < 5_000
        # The bars of five minutes that are all still to come, a quarter of an hour ago.
        for _ in range(5):
            world.market.forward(seconds=61)
            world.goes_on("EURUSD")
        bars = {symbol: wait_until(partial(open_bars, world, symbol)) for symbol in ("AAPL", "SPX")}
    assert running.error is None
    assert {path.path: len(path.held) for path in world.sandbox.stream.sessions} == {
        "/stocks": 2, "/indices": 2, "/forex": 2,
    }  # fmt: skip
    for first, *_ in bars.values():
        assert began - LATE - timedelta(minutes=1) < first["ts"] < world.market() - LATE
        assert first["low"] <= first["close"] <= first["high"]
    assert bars["AAPL"][0]["volume"] > 0
    assert bars["SPX"][0]["volume"] is None


@pytest.mark.parametrize("with_bars", [True, False])
def test_without_trades_minutes_are_prices_and_build_bars_where_these_are_wanted(
    world: StreamWorld, *, with_bars: bool
) -> None:
    urls = f"{{stocks: '{world.sandbox.stream.url}/stocks'}}"
    stream = f"{{flush_seconds: 0.1, bars: {str(with_bars).lower()}, clusters: [stocks], urls: {urls}}}"
    config = configured(world, APPLE, stocks="starter", stream=stream)
    world.sandbox.fail = ["ws-silent:AAPL"]
    with world.streaming(config) as running:
        world.wait_for("stocks", state="live", confirmed=1)
        (session,) = world.sandbox.stream.open("stocks")
        assert list(session.held) == ["AM.AAPL"]
        begins = TEN.replace(second=0) - LATE
        for close in (231.25, 231.505):
            times = {"s": int(begins.timestamp() * 1000), "e": int(begins.timestamp() * 1000) + 60_000}
            minute = {"ev": "AM", "sym": "AAPL", "o": 231, "h": 232, "l": 230.5, "c": close, "v": 10, "dv": "10.5"}
            world.sandbox.stream.publish(minute | times, cluster="stocks")
            wait_until(partial(has_price, world, "AAPL", Decimal(str(close))))
            assert wait_for_price(world.connection, "AAPL") == begins + timedelta(minutes=1)
        bars = wait_until(lambda: open_bars(world, "AAPL")) if with_bars else open_bars(world, "AAPL")
    assert running.error is None
    closes = [(bar["close"], bar["volume"]) for bar in bars]
    assert closes == ([(Decimal("231.505"), Decimal("10.5"))] if with_bars else [])


def test_tickers_that_differ_in_case_or_have_a_dot_are_assets_of_their_own(world: StreamWorld) -> None:
    names = {"KIM": "KIM", "KIMPL": "KIMPL", "KIM-L": "KIMpL", "BRKB": "BRK.B"}
    assets = [f"{{symbol: {one}, polygon_ticker: {name}, asset_type: stocks}}" for one, name in names.items()]
    world.sandbox.fail = ["ws-silent"]
    with world.streaming(configured(world, *assets, stocks="advanced")) as running:
        world.wait_for("stocks", state="live", confirmed=4)
        # Newer than what calls bring meanwhile.
        at_ms = int(world.market().timestamp() * 1000) + 10_000
        prices = {symbol: 20 + Decimal(number) / 8 for number, symbol in enumerate(names)}
        trades = [{"ev": "T", "sym": names[symbol], "p": float(price), "t": at_ms} for symbol, price in prices.items()]
        luld = {"ev": "LULD", "T": "KIM", "h": 1, "l": 1, "t": at_ms * 1_000_000}
        world.sandbox.stream.publish(*trades, luld, cluster="stocks")
        for symbol, price in prices.items():
            wait_until(partial(has_price, world, symbol, price))
        wait_until(lambda: world.told("stocks")["dropped"] == 1)
    assert running.error is None
    assert all(has_price(world, symbol, price) for symbol, price in prices.items())


def test_a_key_without_stocks_streams_what_it_has_and_asks_for_them_again(world: StreamWorld) -> None:
    config = configured(world, APPLE, EURO, stocks="starter")
    world.sandbox.stocks_plan = "free"
    with world.streaming(config) as running:
        world.wait_for("stocks", state="refused", words="websocket access")
        world.goes_on("EURUSD")
        world.sandbox.stocks_plan = "starter"
        world.wait_for("stocks", state="live", words="")
        world.goes_on("EURUSD")
    assert running.error is None


@pytest.mark.parametrize("named", [False, True])
def test_a_market_with_a_free_plan_is_left_to_calls_with_one_sentence(
    world: StreamWorld, caplog: pytest.LogCaptureFixture, *, named: bool
) -> None:
    caplog.set_level(logging.INFO, "assetbatch.stream")
    urls = f"{{forex: '{world.sandbox.stream.url}/forex', crypto: '{world.sandbox.stream.url}/crypto'}}"
    clusters = "[forex, stocks]" if named else "auto"
    stream = f"{{flush_seconds: 0.1, clusters: {clusters}, urls: {urls}}}"
    config = configured(world, APPLE, EURO, stream=stream)
    with world.streaming(config) as running:
        world.goes_on("EURUSD")
    assert running.error is None
    told = [one for one in caplog.records if one.getMessage().startswith("stocks: not streamed")]
    # Where it is named, somebody has to mend it.
    assert [one.levelno for one in told] == [logging.WARNING if named else logging.INFO]
    assert {one.path for one in world.sandbox.stream.sessions} == {"/forex"}
