"""Connections to PostgreSQL that are cut at any message of a run, and runs that are killed there: nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch import config as configuration
from assetbatch.database.errors import translated_errors
from assetbatch.database.query import Query, command
from assetbatch.database.retries import in_transaction
from assetbatch.errors import DatabaseUnavailableError
from assetbatch.jobs import backfill, drain, priority
from assetbatch.jobs.run import Start
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, TEMPLATE, new_database, open_database, wait_until
from tests.relay import Relay, Where
from tests.world import NO_ASSETS, TUESDAY, UNLIMITED, World, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from assetbatch.model import RunResult

PATIENCE_SECONDS = 10.0
# Every so many messages; `slow` tries them all.
STRIDE = 9
# As many calls as the free plan has, in a window that nobody waits for.
LIMIT, WINDOW_SECONDS = 5, 0.2
LIMITED = f"{{calls_per_minute: {LIMIT}, window_seconds: {WINDOW_SECONDS}, margin_seconds: 0.05}}"

# What is there in the end, however it came.
STATE = """
select (select count(*) from trading.symbols where metadata #> '{last_update,last_price}' is not null) as priced,
       (select count(*) from assetbatch.outbox) as events,
       (select count(distinct symbol) from assetbatch.outbox) as symbols,
       (select count(*) from assetbatch.queue) as queued,
       (select count(*) from assetbatch.leases where name not in ('pruning')) as leases,
       (select count(*) from assetbatch.bar_state where token is not null) as bars_held,
       (select count(*) from assetbatch.daily_figures where token is not null) as days_held,
       (select count(*) from market_data.ohlcv_5m) as bars
"""
# What only a run shows that was not killed.
BOOKS = """
select (select count(*) from assetbatch.runs) as runs,
       (select count(*) from assetbatch.runs where status <> 'ok') as runs_not_well,
       (select count(*) from assetbatch.api_calls) as calls,
       (select count(*) from assetbatch.api_calls where outcome <> 'ok') as calls_failed,
       (select count(*) from assetbatch.rate_limit_slots where token is not null) as slots_held
"""
# Of each asset: the time of its price, those of its events in order, and what else is stored together with it.
STORED = """
select t.symbol, t.metadata #>> '{last_update,timestamp}' as stored,
       array(select payload ->> 'timestamp' from assetbatch.outbox where symbol = t.symbol order by seq) as told,
       exists (select from assetbatch.sync_state where symbol = t.symbol and succeeded_at is not null) as is_served,
       exists (select from data_sources.data_sync_status where ticker_id = t.id) as is_synced
from trading.symbols t
"""
OTHERS = """
select count(*) as n from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
"""
QUEUED = "select symbol, attempts from assetbatch.queue order by symbol"


@dataclass(frozen=True)
class Job:
    """A job that is cut short: what its world has, and how it runs there."""

    name: str
    run: Callable[[Start], RunResult]
    sections: dict[str, str] = field(default_factory=dict)
    plan: str = "starter"
    secondary: tuple[str, ...] = ()

    @property
    def limit(self) -> int | None:
        """How many calls the server lets in."""
        return None if self.sections.get("rate_limiting") == UNLIMITED else LIMIT

    def start(self, config: Config, conninfo: str) -> RunResult:
        """Run through a connection of its own."""
        with open_database(conninfo, patience_seconds=PATIENCE_SECONDS) as connection:
            return self.run(Start(config, connection, "test", no_stop(), TUESDAY))


def drained(start: Start) -> RunResult:
    def reconnect() -> Connection:
        assert start.config.database.conninfo is not None
        return open_database(start.config.database.conninfo.reveal())

    return drain.drain_queue(start, bounds=drain.Bounds(20.0), shared=False, reconnect=reconnect)


def filled_back(start: Start) -> RunResult:
    foreseen = backfill.foresee(start.config, start.connection, symbols=None, since=None, until=None, refetch=False)
    return backfill.backfill(start, foreseen, refetch=False)


FIVE = ("T1USD", "T2USD", "T3USD", "T4USD", "T5USD")
DRAIN = {"batch": NO_ASSETS, "bars": "{enabled: false}"}
JOBS = [
    Job("run-priority", priority.run_priority),
    Job("finished-days", priority.run_priority, plan="free"),
    Job("drain", drained, DRAIN | {"provider": "{batch_size: 2}"}, secondary=FIVE),
    Job(
        "drain-unlimited",
        drained,
        DRAIN | {"provider": "{batch_size: 1, concurrency: 4}", "rate_limiting": UNLIMITED},
        secondary=FIVE,
    ),
    Job("backfill", filled_back, {"batch": NO_ASSETS, "bars": "{backfill_days: 1}"}, secondary=FIVE[:2]),
]
every_job = pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)


@contextmanager
def prepared(job: Job, server: EmbeddedServer, folder: Path) -> Iterator[World]:
    """Make a world in which a job has something to do."""
    database = new_database(server, TEMPLATE)
    with (
        open_database(database) as own,
        Sandbox(key=API_KEY, plan=job.plan, limit=job.limit, window_seconds=WINDOW_SECONDS) as sandbox,
    ):
        world = World(own, database, sandbox, folder, {"POLYGON_TIER": job.plan}, now=TUESDAY)
        if job.secondary:
            world.add(*job.secondary)
            world.enqueue(job.secondary, batch=NO_ASSETS)
        yield world


def configured(job: Job, world: World) -> Config:
    return world.configure(**{"rate_limiting": LIMITED} | job.sections)


def read(world: World, query: Any) -> dict[str, Any]:
    found = world.connection.execute(query).fetchone()
    assert found is not None
    return found


@dataclass
class Once:
    """Has the connection cut at this request, once, and the process killed that is at the other end of it."""

    at: int = -1
    where: Where = Where.BEFORE
    pid: int | None = None
    is_done: bool = False

    def __call__(self, number: int, _request: bytes) -> Where | None:
        if self.is_done or number != self.at:
            return None
        self.is_done = True
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
        return self.where


# --- The connection is cut


def outcome(job: Job, server: EmbeddedServer, folder: Path, cut: Once) -> tuple[dict[str, Any], int]:
    """Run a job whose connection ends at `cut`; return what is to be seen after it, and how many requests it made."""
    with prepared(job, server, folder) as world, Relay(world.database, cut) as relay:
        result = job.start(configured(job, world), relay.conninfo)
        found = read(world, STATE) | read(world, BOOKS)
        found |= {
            "exit_code": result.exit_code,
            "updated": sorted(result.updated),
            "warnings": result.warnings,
            "statuses": Counter(arrival.status for arrival in world.sandbox.arrivals),
        }
    return found, len(relay.requests)


@every_job
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
def test_a_connection_that_is_cut_changes_nothing(
    postgres: EmbeddedServer, tmp_path: Path, job: Job, stride: int
) -> None:
    usual, requests = outcome(job, postgres, tmp_path, Once())
    assert (usual["exit_code"], usual["runs_not_well"]) == (0, 0), usual

    differ = {}
    for at in range(1, requests + 1, stride):
        for where in Where if stride == 1 else (Where.BEFORE, Where.AFTER):
            try:
                found, _ = outcome(job, postgres, tmp_path, Once(at, where))
            except Exception as error:  # noqa: BLE001 - told with the others
                found = {"error": repr(error)}
            if found != usual:
                differ[at, where.name] = {key: value for key, value in found.items() if value != usual.get(key)}

    assert differ == {}


# --- The process is killed


def faults(world: World, job: Job, *, is_killed: bool) -> list[str]:
    """Look at what belongs together: is it stored together, and told once?"""
    found = []
    rows = {row["symbol"]: row for row in world.connection.execute(STORED).fetchall()}
    for symbol, row in rows.items():
        told = row["told"]
        if told != sorted(set(told)) or (told[-1] if told else None) != row["stored"]:
            found.append(f"{symbol}: stored {row['stored']}, told {told}")
        if len({row["stored"] is not None, row["is_served"], row["is_synced"]}) > 1 and job.run is not filled_back:
            found.append(f"{symbol}: in parts: {row}")
    queued = {row["symbol"]: row["attempts"] for row in world.connection.execute(QUEUED).fetchall()}
    done = {symbol for symbol, row in rows.items() if row["stored"] is not None}
    if job.run is drained and sorted([*done, *queued]) != sorted(FIVE):
        found.append(f"done: {done}, queued: {queued}")
    if max(queued.values(), default=0) > is_killed:
        found.append(f"attempts: {queued}")
    if 429 in {arrival.status for arrival in world.sandbox.arrivals}:
        found.append("the limit was not kept")
    return found


@pytest.mark.slow
@every_job
def test_a_run_that_is_killed_leaves_nothing_in_parts_and_the_next_one_goes_on(
    postgres: EmbeddedServer, tmp_path: Path, job: Job
) -> None:
    usual, requests = outcome(job, postgres, tmp_path, Once())
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])

    differ: dict[tuple[int, str], list[str]] = {}
    for at in range(1, requests + 1):
        for where in Where:
            cut = Once(at, where)
            with prepared(job, postgres, tmp_path) as world, Relay(world.database, cut) as relay:
                config = configured(job, world)
                begins = processes.Event()
                arguments = (job.name, relay.conninfo, tmp_path, world.variables(), begins)
                process = processes.Process(target=run_in_a_process, args=arguments)
                process.start()
                cut.pid = process.pid
                begins.set()
                process.join(60)
                assert process.exitcode == (-signal.SIGKILL if cut.is_done else 0), (at, where)
                wait_until(lambda: not read(world, OTHERS)["n"])
                found = faults(world, job, is_killed=True)

                result = job.start(config, world.database)
                found += faults(world, job, is_killed=False)
                after = read(world, STATE)
                # A second run of a job that has only so many calls brings more bars.
                after["bars"] = min(after["bars"], usual["bars"])
                found += [f"{key}: {after[key]}, not {usual[key]}" for key in after if after[key] != usual[key]]
                if result.exit_code:
                    found.append(f"{result}")
            if found:
                differ[at, where.name] = found

    assert differ == {}


def run_in_a_process(name: str, conninfo: str, folder: Path, environment: dict[str, str], begins: Event) -> None:
    config = configuration.load(file=folder / "config.yaml", environ=environment, cwd=folder)
    job = next(job for job in JOBS if job.name == name)
    begins.wait()
    job.start(config, conninfo)


# --- The server stays away


def test_a_server_that_stays_away_ends_the_run(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assetbatch.database.opening.LONGER_SECONDS", 1.0)
    world = World(connection, database, sandbox, tmp_path, now=TUESDAY)
    with Relay(database, lambda number, _request: Where.BEFORE if number >= 8 else None) as relay:
        opened = open_database(relay.conninfo, patience_seconds=1)
        began = time.monotonic()
        with opened, pytest.raises(DatabaseUnavailableError), translated_errors("test"):
            priority.run_priority(world.start(world.configure(rate_limiting=LIMITED), opened))

    assert time.monotonic() - began < 5


def test_without_patience_the_servers_own_words_are_told(database: str) -> None:
    with Relay(database) as relay, open_database(relay.conninfo) as opened:
        opened.execute("select 1")
        relay.cut = lambda _number, _request: Where.BEFORE
        with pytest.raises(psycopg.OperationalError, match="server closed the connection"):
            opened.execute("select 1")
        with pytest.raises(psycopg.OperationalError, match="server closed the connection"), opened.transaction():
            opened.execute("select 1")


@pytest.mark.parametrize("where", list(Where))
def test_a_transaction_is_done_once_when_the_answer_to_its_end_is_lost(
    connection: Connection, database: str, where: Where
) -> None:
    connection.execute("create table public.done (n int)")
    attempts = 0

    def work() -> None:
        nonlocal attempts
        attempts += 1
        opened.execute("insert into public.done values (1)")

    with Relay(database) as relay, open_database(relay.conninfo, patience_seconds=PATIENCE_SECONDS) as opened:
        opened.execute("select 1")
        # It begins, it inserts, it ends.
        cut = Once(len(relay.requests) + 3, where)
        relay.cut = cut
        in_transaction(opened, work)

    assert cut.is_done
    assert attempts == (2 if where is Where.BEFORE else 1)
    assert connection.execute("select count(*) as n from public.done").fetchone() == {"n": 1}


@pytest.mark.parametrize("where", list(Where))
def test_what_is_asked_together_is_done_once_when_the_answers_are_lost(
    connection: Connection, database: str, where: Where
) -> None:
    connection.execute("create table public.done (n int)")
    done = Query(
        "insert into public.done values (%(n)s) returning n",
        {"n": 1},
        lambda rows: [row["n"] for row in rows],
        found_by="select n from public.done where n = %(n)s",
    )
    number = Query("select %(n)s::int as n", {"n": 2}, lambda rows: [row["n"] for row in rows])

    with Relay(database) as relay, open_database(relay.conninfo, patience_seconds=PATIENCE_SECONDS) as opened:
        opened.execute("select 1")
        relay.cut = Once(len(relay.requests) + 1, where)
        opened.ask(done, number)

    assert relay.cut.is_done
    assert (done.answer, number.answer) == ([1], [2])
    assert connection.execute("select count(*) as n from public.done").fetchone() == {"n": 1}


def test_what_is_asked_together_is_done_together_or_not_at_all(connection: Connection) -> None:
    connection.execute("create table public.done (n int)")

    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.ask(
            command("insert into public.done values (%(n)s)", {"n": 1}), command("select 1 / %(n)s::int", {"n": 0})
        )

    assert connection.execute("select count(*) as n from public.done").fetchone() == {"n": 0}
