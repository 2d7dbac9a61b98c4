"""A weekend of the stream, in simulated time: silence of a closed market is no trouble, that of an open one is."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from assetbatch.boottime import boot_time
from assetbatch.jobs import clock
from assetbatch.stream import cluster
from assetbatch.stream import connection as connections
from tests.conftest import wait_until
from tests.stream_runs import FOREX, wait_for_price

if TYPE_CHECKING:
    import pytest

    from tests.stream_runs import StreamWorld

SATURDAY = datetime(2026, 9, 5, 12, tzinfo=UTC)
FRIDAYS_CLOSE = datetime(2026, 9, 4, 21, tzinfo=UTC)
SUNDAYS_OPEN = datetime(2026, 9, 6, 21, tzinfo=UTC)


def test_over_the_weekend_forex_is_silent_and_stays_connected_and_crypto_goes_on(
    world: StreamWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "assetbatch")
    world.market.set(SATURDAY)
    with world.streaming(world.settings()) as running:
        world.wait_for(state="live")
        end = time.monotonic() + 3 * connections.SILENT_SECONDS
        while time.monotonic() < end:
            world.goes_on("BTCUSD")
        row = world.wait_for(state="live", silent=[], events=0)
        # A call has brought what there is, once.
        assert wait_for_price(world.connection, "EURUSD") < SATURDAY + timedelta(seconds=30)
        assert row["since"] < SATURDAY + timedelta(seconds=30)
        assert len(world.sandbox.stream.sessions) == 2
    assert running.error is None
    assert caplog.text == ""


def test_the_silence_of_an_open_market_counts_from_its_opening(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "boot_time", lambda: boot_time() + world.market.forwarded)
    world.sandbox.fail = ["ws-silent"]
    world.market.set(SATURDAY)
    with world.streaming(world.settings(FOREX)) as running:
        world.wait_for(state="live")
        (session,) = world.sandbox.stream.open("forex")
        # Over a day of silence lies behind it when trade begins.
        world.market.forward(seconds=(SUNDAYS_OPEN - world.market()).total_seconds() - 1)
        wait_until(lambda: not session.is_open)
        assert world.market() - SUNDAYS_OPEN >= timedelta(seconds=connections.SILENT_SECONDS - 0.5)
        world.wait_for(words="nothing came for")
        world.sandbox.fail = []
        world.goes_on("EURUSD")
        world.wait_for(state="live")
    assert running.error is None


def test_once_a_market_has_closed_the_figures_of_its_day_come_to_where_its_last_price_is(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "assetbatch")
    monkeypatch.setattr(clock, "boot_time", lambda: boot_time() + world.market.forwarded)
    monkeypatch.setattr(cluster, "REFRESH_SECONDS", 0.5)
    world.market.set(FRIDAYS_CLOSE - timedelta(minutes=2))
    calls = "select count(*) as n from assetbatch.api_calls where kind = 'snapshot'"

    def asked() -> int:
        row = world.connection.execute(calls).fetchone()
        assert row is not None
        return int(row["n"])

    def times() -> tuple[datetime, datetime] | None:
        row = world.connection.execute("select priced_at, daily_at from assetbatch.sync_state").fetchone()
        return None if row is None else (row["priced_at"], row["daily_at"])

    with world.streaming(world.settings(FOREX)) as running:
        world.goes_on("EURUSD")
        wait_until(asked)
        monkeypatch.setattr(cluster, "REFRESH_SECONDS", 300)
        world.market.forward(seconds=100)
        world.goes_on("EURUSD")
        monkeypatch.setattr(cluster, "REFRESH_SECONDS", 0.5)
        world.market.forward(minutes=5)
        wait_until(lambda: (found := times()) and found[0] == found[1] >= FRIDAYS_CLOSE - timedelta(seconds=10))
        once = asked()
        time.sleep(3 * cluster.REFRESH_SECONDS)
        assert asked() == once
        world.wait_for(state="live", silent=[])
    assert running.error is None
    assert "came to nothing" not in caplog.text
