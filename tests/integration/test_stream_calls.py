"""What the calls beside a stream leave alone, and what becomes of a gap that they cannot close at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch import bars
from assetbatch.database.bars import pages
from assetbatch.model import Bar
from assetbatch.stream import calls, cluster
from tests.conftest import wait_until
from tests.stream_runs import FOREX

if TYPE_CHECKING:
    from tests.stream_runs import StreamWorld

SECONDARY = (
    "{priority_assets: [{symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex}],"
    " secondary_assets: [{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto}]}"
)
HEARD = """
insert into assetbatch.streams (cluster, run_id, state, told_at, frame_at) values ('forex', 1, 'ended', now(), %s)
"""
# All that an asset was ever noted as failed for.
NOTE_FAILURES = """
create table public.failed (symbol text, kind text);
create function public.note() returns trigger language plpgsql as $$ begin
  if new.error_kind is not null then insert into public.failed values (new.symbol, new.error_kind); end if;
  return new;
end $$;
create trigger note after insert or update on assetbatch.sync_state for each row execute function public.note();
"""


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When it was tried to close a gap."""
    tried: list[float] = []
    close = calls.BackgroundCalls._close_gap

    def counted(self: calls.BackgroundCalls, *given: Any) -> None:
        tried.append(time.monotonic())
        close(self, *given)

    monkeypatch.setattr(calls.BackgroundCalls, "_close_gap", counted)
    monkeypatch.setattr(cluster, "STEADY_SECONDS", 1.0)
    return tried


def test_a_row_that_the_platform_has_deleted_does_not_come_back(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "REFRESH_SECONDS", 1.0)
    world.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    with world.streaming(world.settings(batch=SECONDARY)):
        world.goes_on()
        for table in ("market_data.ohlcv_5m", "data_sources.data_sync_status"):
            world.connection.execute(f"delete from {table}")
        world.connection.execute("delete from trading.symbols where symbol = 'BTCUSD'")
        asked = len(world.sandbox.arrivals)
        wait_until(lambda: sum("X%3ABTCUSD" in one.path for one in world.sandbox.arrivals[asked:]) >= 3, seconds=20)
        # One call asks for the figures of both clusters.
        assert all("C%3AEURUSD" in one.path for one in world.sandbox.arrivals[-2:])
    assert world.connection.execute("select symbol from trading.symbols").fetchall() == [{"symbol": "EURUSD"}]


def test_calls_for_daily_figures_that_fail_are_no_failure_of_what_streams(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "REFRESH_SECONDS", 1.0)
    world.connection.execute(NOTE_FAILURES)
    world.sandbox.fail = ["500:/v3/snapshot"]
    world.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    with world.streaming(world.settings()):
        world.goes_on()
        wait_until(lambda: sum("/v3/snapshot" in one.path for one in world.sandbox.arrivals) >= 6, seconds=30)
        world.goes_on()
    assert world.connection.execute("select * from public.failed").fetchall() == []


def test_a_gap_that_the_database_kept_from_being_closed_is_closed_later(
    world: StreamWorld, gaps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "OUTAGE_SECONDS", 0.2)
    close = calls.BackgroundCalls._close_gap

    def cut_off(self: calls.BackgroundCalls, *given: Any) -> None:
        close(self, *given)
        if len(gaps) == 1:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(calls.BackgroundCalls, "_close_gap", cut_off)
    world.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    world.connection.execute(HEARD, [world.market() - timedelta(minutes=30)])
    with world.streaming(world.settings(FOREX)):
        wait_until(lambda: len(gaps) == 2, seconds=20)
        final = "select from market_data.ohlcv_5m where is_final"
        wait_until(lambda: len(world.connection.execute(final).fetchall()) >= 5, seconds=20)
    # The call that was cut off, and the one that took its place: no third.
    assert len(gaps) == 2


def test_a_gap_that_no_slot_is_left_for_is_left_to_the_jobs(
    world: StreamWorld, gaps: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(calls, "GAP_SECONDS", 3.0)
    world.environment["POLYGON_RATE_LIMIT"] = "2"
    world.connection.execute(HEARD, [world.market() - timedelta(minutes=30)])
    with world.streaming(world.settings(FOREX)):
        wait_until(lambda: "left to the jobs" in caplog.text, seconds=30)
    assert len(gaps) <= 3


def test_without_finality_an_open_bar_does_not_take_the_place_of_one_that_was_asked_for(world: StreamWorld) -> None:
    ask, noon = world.connection.execute, datetime(2026, 11, 26, 12, tzinfo=UTC)
    ask("alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at")
    ask("insert into trading.symbols (symbol, metadata) values ('S', '{}')")
    ask(
        "insert into assetbatch.bar_state (symbol, wanted_since, asked_until) values ('S', %s, %s)",
        [noon, noon + bars.LENGTH],
    )
    ask(
        "insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume)"
        " select id, %s, 1, 9, 1, 5, 100 from trading.symbols",
        [noon],
    )
    one = Decimal(1)
    minutes = [Bar(ts, one, one, one, one, one) for ts in (noon, noon + bars.LENGTH)]
    world.connection.ask(pages.upserting([("S", bars.built(minutes))], has_finality=False, now=world.market()))
    rows = ask("select ts, volume from market_data.ohlcv_5m order by ts").fetchall()
    assert [(row["ts"], row["volume"]) for row in rows] == [(noon, 100), (noon + bars.LENGTH, 1)]
