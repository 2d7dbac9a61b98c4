"""Connections to PostgreSQL that are cut, at any message of a run: it goes on with another one, and loses nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch.database.connection import translated_errors
from assetbatch.database.retries import in_transaction
from assetbatch.errors import DatabaseUnavailableError
from assetbatch.jobs import backfill, drain, priority
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, TEMPLATE, new_database, open_database
from tests.relay import Relay
from tests.world import QUICK, TUESDAY, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from assetbatch.model import RunResult

SECONDARY = ("T1USD", "T2USD", "T3USD", "T4USD", "T5USD")
PATIENCE_SECONDS = 10.0
# Every so many messages; `slow` tries them all.
STRIDE = 9
STATE = """
select (select count(*) from trading.symbols where metadata #> '{last_update,last_price}' is not null) as priced,
       (select count(*) from assetbatch.outbox) as events,
       (select count(distinct symbol) from assetbatch.outbox) as symbols,
       (select count(*) from assetbatch.queue) as queued,
       (select count(*) from assetbatch.runs) as runs,
       (select count(*) from assetbatch.runs where status <> 'ok') as runs_not_well,
       (select count(*) from assetbatch.api_calls) as calls,
       (select count(*) from assetbatch.api_calls where outcome <> 'ok') as calls_failed,
       (select count(*) from assetbatch.leases where name not in ('pruning')) as leases,
       (select count(*) from assetbatch.bar_state where token is not null) as bars_held,
       (select count(*) from assetbatch.rate_limit_slots where token is not null) as slots_held,
       (select count(*) from market_data.ohlcv_5m) as bars
"""


@dataclass
class Cut:
    """Where a connection ends: at this round trip, before the server hears it, or before its answer is heard."""

    at: int
    answered: bool
    is_done: bool = False

    def __call__(self, number: int, answered: bool) -> bool:
        if self.is_done or (number, answered) != (self.at, self.answered):
            return False
        self.is_done = True
        return True


def prioritise(world: World, connection: Connection) -> RunResult:
    return priority.run_priority(world.start(world.configure(rate_limiting=QUICK), connection))


def prioritise_days(world: World, connection: Connection) -> RunResult:
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "free"
    return prioritise(world, connection)


def drain_one_by_one(world: World, connection: Connection) -> RunResult:
    return drained(world, connection, provider="{batch_size: 2}", rate_limiting=QUICK)


def drain_without_limit(world: World, connection: Connection) -> RunResult:
    unlimited = "{calls_per_minute: null}"
    return drained(world, connection, provider="{batch_size: 1, concurrency: 4}", rate_limiting=unlimited)


def drained(world: World, connection: Connection, **sections: str) -> RunResult:
    world.add(*SECONDARY)
    world.enqueue(SECONDARY, batch="{priority_assets: [], secondary_assets: []}")
    config = world.configure(batch="{priority_assets: [], secondary_assets: []}", bars="{enabled: false}", **sections)
    return drain.drain_queue(
        world.start(config, connection),
        bounds=drain.Bounds(20.0),
        shared=False,
        reconnect=lambda: open_database(world.database),
    )


def fill_back(world: World, connection: Connection) -> RunResult:
    world.add(*SECONDARY[:2])
    nobody = "{priority_assets: [], secondary_assets: []}"
    config = world.configure(batch=nobody, bars="{backfill_days: 1}", rate_limiting=QUICK)
    foreseen = backfill.foresee(config, connection, symbols=None, since=None, until=None, refetch=False)
    return backfill.backfill(world.start(config, connection), foreseen, refetch=False)


JOBS = [prioritise, prioritise_days, drain_one_by_one, drain_without_limit, fill_back]


def outcome(
    job: Callable[[World, Connection], RunResult], server: EmbeddedServer, folder: Path, cut: Cut | None
) -> tuple[dict[str, Any], int]:
    """Run a job whose connection ends at `cut`; return what is to be seen after it, and its round trips."""
    database = new_database(server, TEMPLATE)
    with (
        Sandbox(key=API_KEY, plan="starter") as sandbox,
        open_database(database) as own,
        Relay(database, cut or (lambda _number, _answered: False)) as relay,
    ):
        world = World(own, database, sandbox, folder, now=TUESDAY)
        with open_database(relay.url, patience_seconds=PATIENCE_SECONDS) as connection:
            result = job(world, connection)
        state = own.execute(STATE).fetchone()
        assert state is not None
        found = state | {
            "exit_code": result.exit_code,
            "updated": sorted(result.updated),
            "warnings": result.warnings,
            "statuses": Counter(arrival.status for arrival in sandbox.arrivals),
        }
    return found, relay.round_trips


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
def test_a_connection_that_is_cut_changes_nothing(
    postgres: EmbeddedServer, tmp_path: Path, job: Callable[[World, Connection], RunResult], stride: int
) -> None:
    usual, round_trips = outcome(job, postgres, tmp_path, None)
    assert (usual["exit_code"], usual["runs_not_well"]) == (0, 0), usual

    differ = {}
    # The first ones open the connection.
    for at in range(3, round_trips, stride):
        for answered in (False, True):
            try:
                found, _ = outcome(job, postgres, tmp_path, Cut(at, answered))
            except Exception as error:  # noqa: BLE001 - told with the others
                found = {"error": repr(error)}
            if found != usual:
                differ[at, answered] = {key: value for key, value in found.items() if value != usual.get(key)}

    assert differ == {}


def test_a_server_that_stays_away_ends_the_run(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assetbatch.database.connection.LONGER_SECONDS", 1.0)
    world = World(connection, database, sandbox, tmp_path, now=TUESDAY)
    with Relay(database, lambda number, _answered: number >= 20) as relay:
        opened = open_database(relay.url, patience_seconds=1)
        began = time.monotonic()
        with opened, pytest.raises(DatabaseUnavailableError), translated_errors("test"):
            prioritise(world, opened)

    assert time.monotonic() - began < 5


def test_without_patience_the_servers_own_words_are_told(database: str) -> None:
    with Relay(database) as relay, open_database(relay.url) as opened:
        opened.execute("select 1")
        relay.cut = lambda _number, _answered: True
        with pytest.raises(psycopg.OperationalError, match="server closed the connection"):
            opened.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match="server closed the connection"), opened.transaction():
            opened.execute("select 1")


@pytest.mark.parametrize("answered", [False, True])
def test_a_transaction_is_done_once_when_the_answer_to_its_end_is_lost(
    connection: Connection, database: str, answered: bool
) -> None:
    connection.execute("create table public.done (n int)")
    attempts = 0

    def work() -> None:
        nonlocal attempts
        attempts += 1
        opened.execute("insert into public.done values (1)")

    with Relay(database) as relay, open_database(relay.url, patience_seconds=PATIENCE_SECONDS) as opened:
        opened.execute("select 1")
        # It begins, it inserts, it ends.
        cut = Cut(relay.round_trips + 3, answered)
        relay.cut = cut
        in_transaction(opened, work)

    assert cut.is_done
    assert attempts == (1 if answered else 2)
    assert connection.execute("select count(*) as n from public.done").fetchone() == {"n": 1}
