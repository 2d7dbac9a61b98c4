"""`enqueue-secondary` and `drain-queue` as cron runs them; and what may befall them there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, open_database, wait_until
from tests.integration.test_drain_job import World, symbols

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

SECONDARY = ["ETHUSDT", "GBPUSD", "USDJPY", "XAGUSD"]
# Once a day, so that no slot ends while a test runs.
DAILY = "batch: {enqueue_interval_minutes: 1440}\n"
RUN = ["job", "run_id", "status", "started_at", "finished_at", "latency_ms"]


@pytest.fixture
def world(commands: Commands, connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    """Assets and a queue beside the commands, which read the config.yaml that it writes."""
    commands.environment["POLYGON_RATE_LIMIT"] = ""
    return World(connection, database, sandbox, tmp_path)


def ended(run: subprocess.Popen[str], *, seconds: float = 30) -> tuple[int, str, str]:
    stdout, stderr = run.communicate(timeout=seconds)
    assert "Traceback" not in stderr
    return run.returncode, stdout, stderr


def test_from_the_catalogue_to_stored_prices_and_events(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text(DAILY)
    none = dict.fromkeys(["enqueued", "already_queued", "fresh", "dead", "dropped", "unmapped"], 0)

    def enqueued() -> dict[str, Any]:
        done = commands("enqueue-secondary", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        document: dict[str, Any] = json.loads(done.stdout)
        assert set(document) >= {"schema", *RUN}
        assert (document["schema"], document["job"]) == ("assetbatch.enqueue-secondary/1", "enqueue-secondary")
        return {key: document[key] for key in none}

    assert enqueued() == none | {"enqueued": 4}
    assert enqueued() == none | {"already_queued": 4}

    done = commands("drain-queue", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.drain-queue/1"
    assert set(document) >= {*RUN, "rate_limit_waits", "waited_seconds"}
    expected = {"job": "drain-queue", "status": "ok", "unchanged": [], "deferred": [], "failed": [], "requeued": [],
                "dead": [], "remaining": 0, "api_calls_used": 1, "bars": {"assets": 0, "stored": 0}}  # fmt: skip
    assert {key: document[key] for key in expected} == expected
    assert sorted(document["updated"]) == SECONDARY
    assert document["started_at"] < document["finished_at"]
    assert len(sandbox.arrivals) == 1
    rows = connection.execute(
        """
        select s.symbol, s.metadata -> 'last_update' ->> 'last_price' = o.payload ->> 'last_price' as same,
               d.sync_status, o.published_at is not null as published
        from trading.symbols s
        join data_sources.data_sync_status d on d.ticker_id = s.id
        join assetbatch.outbox o using (symbol)
        order by 1
        """
    ).fetchall()
    assert [row.pop("symbol") for row in rows] == SECONDARY
    assert all(row == {"same": True, "sync_status": "success", "published": True} for row in rows)
    assert json.loads(commands("queue", "list", "--json").stdout)["items"] == []
    assert enqueued() == none | {"fresh": 4}


def test_what_goes_well_prints_nothing(commands: Commands) -> None:
    for arguments in (["enqueue-secondary"], ["drain-queue"]):
        done = commands(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_enqueued_can_be_chosen(commands: Commands, world: World, connection: Connection) -> None:
    (commands.folder / "config.yaml").write_text(DAILY)
    world.add("T1USD")
    connection.execute("update assetbatch.assets set update_frequency_seconds = 86400")

    def counts(*arguments: str) -> dict[str, int]:
        done = commands("enqueue-secondary", "--json", *arguments)
        assert done.returncode == 0
        document = json.loads(done.stdout)
        return {key: document[key] for key in ("enqueued", "already_queued", "fresh", "unmapped") if document[key]}

    stray = commands("enqueue-secondary", "--symbol", "T1USD")
    assert "1 cannot be enqueued, being no enabled secondary assets: T1USD" in stray.stderr
    assert counts("--symbol", "GBPUSD", "--symbol", "T1USD") == {"enqueued": 1, "unmapped": 1}
    assert world.rows("symbol") == [("GBPUSD",)]
    assert counts("--source", "database") == {"enqueued": 4, "already_queued": 1}
    assert commands("drain-queue").returncode == 0
    assert counts("--source", "database") == {"fresh": 5}
    assert counts("--all", "--symbol", "USDJPY") == {"enqueued": 1}


def test_what_does_not_fit_is_counted_and_warned_of(commands: Commands, world: World) -> None:
    done = commands("enqueue-secondary", "--json", QUEUE_MAX_SIZE="3")

    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert (document["enqueued"], document["dropped"], document["remaining"]) == (3, 1, 3)
    assert "queue.max_size" in json.loads(done.stderr)["warnings"][0]
    assert len(world.rows("symbol")) == 3


def test_an_unknown_ticker_is_told_once_with_the_way_out(commands: Commands, world: World) -> None:
    world.put(*symbols(20), "NOPEUSD")

    done = commands("drain-queue")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("assetbatch drain-queue:") == 1
    for words in ("NOPEUSD: unknown_ticker: NOT_FOUND", "polygon_ticker", "assetbatch queue retry NOPEUSD"):
        assert words in done.stderr
    assert world.stored() == {*symbols(20)}
    again = commands("drain-queue")
    assert (again.returncode, again.stderr, len(world.sandbox.arrivals)) == (0, "", 1)


def test_without_a_key_no_call_is_made(commands: Commands, world: World) -> None:
    world.put("T1USD")

    done = commands("drain-queue", POLYGON_API_KEY="")

    assert (done.returncode, "POLYGON_API_KEY_FILE" in done.stderr) == (78, True)
    assert not world.sandbox.arrivals
    assert world.rows("state", "attempts") == [("queued", 0)]


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [("key", 77, "the API refused the key"), ("network", 69, "unreachable"), ("500", 69, "server_error")],
)
def test_what_no_item_is_to_blame_for_is_told_and_leaves_all_as_it_was(
    commands: Commands, world: World, fault: str, code: int, words: str
) -> None:
    world.put(*symbols(8))
    world.configure(provider="{batch_size: 2}", queue="{retry_max_attempts: 0}")
    world.sandbox.fail = ["500"] if fault == "500" else []
    environment: dict[str, dict[str, Any]] = {
        "key": {"POLYGON_API_KEY": "wrong-key-1234567"},
        "network": {"POLYGON_BASE_URL": "http://127.0.0.1:9"},
    }

    done = commands("drain-queue", **environment.get(fault, {}))

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("assetbatch drain-queue:") == 1
    assert words in done.stderr
    assert "wrong-key-1234567" not in done.stderr
    assert len(world.sandbox.arrivals) == {"key": 1, "network": 0, "500": 3}[fault]
    assert world.rows("state", "attempts") == [("queued", 0)] * 8


@pytest.mark.parametrize(("items", "batch_size"), [(4, 250), (1, 250), (3, 1)])
def test_no_network_is_told_at_once(commands: Commands, world: World, items: int, batch_size: int) -> None:
    world.put(*symbols(items))
    world.configure(provider=f"{{batch_size: {batch_size}}}")

    done = commands("drain-queue", POLYGON_BASE_URL="http://127.0.0.1:9")

    assert world.rows("attempts") == [(0,)] * items
    assert world.connection.execute("select count(*) as n from assetbatch.api_calls").fetchone() == {"n": 3}
    assert (done.returncode, "unreachable" in done.stderr) == (69, True)


def test_a_connection_that_is_lost_meanwhile_costs_nothing(commands: Commands, world: World) -> None:
    world.put(*symbols(3))
    world.configure(provider="{timeout_seconds: 1}", queue="{retry_max_attempts: 0}")
    world.sandbox.fail = ["timeout"]
    run = commands.start("drain-queue")
    wait_until(lambda: world.sandbox.arrivals)
    killed = world.connection.execute(
        "select pg_terminate_backend(pid) as gone from pg_stat_activity"
        " where application_name = 'assetbatch drain-queue' and datname = current_database()"
    ).fetchall()

    code, stdout, stderr = ended(run)

    assert killed == [{"gone": True}]
    # As if the connection had held: the call for several was given up, and blames none of them.
    assert (code, stdout, stderr) == (0, "", "")
    assert world.rows("state", "attempts") == [("delayed", 0)] * 3


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_soon_and_nothing_stays_held(
    commands: Commands, world: World, signum: signal.Signals
) -> None:
    for symbol in symbols(4):
        world.put(symbol)
    world.configure(provider="{batch_size: 1}", queue="{retry_max_attempts: 0}")
    world.sandbox.fail = ["timeout:T3USD"]
    run = commands.start("drain-queue")
    wait_until(lambda: len(world.sandbox.arrivals) == 3)
    began = time.monotonic()
    os.kill(run.pid, signum)

    code, stdout, stderr = ended(run)

    # Two seconds by itself; the machine may be busy.
    assert time.monotonic() - began < 5
    assert (code, stdout) == (128 + signum, "")
    assert "ended by SIG" in stderr
    assert world.stored() == {"T1USD", "T2USD"}
    assert world.rows("symbol", "state", "attempts") == [("T3USD", "queued", 0), ("T4USD", "queued", 0)]
    assert world.connection.execute("select * from assetbatch.leases where name <> 'pruning'").fetchall() == []
    assert world.connection.execute("select * from assetbatch.rate_limit_waiters").fetchall() == []


def test_one_that_kills_its_worker_each_time_is_dead_in_the_end(commands: Commands, world: World) -> None:
    world.put("T1USD")
    settings = "{retry_max_attempts: 2, lease_seconds: 3600}"
    world.configure(queue=settings)
    world.sandbox.fail = ["timeout"]
    for attempts in (1, 2, 3):
        calls = len(world.sandbox.arrivals)
        run = commands.start("drain-queue", "--shared")
        wait_until(lambda: len(world.sandbox.arrivals) > calls)  # noqa: B023 - waited for at once
        run.kill()
        run.communicate()
        assert world.rows("state", "attempts") == [("leased", attempts)]
        if attempts == 1:
            # On another host it is out of reach until the lease has run out; here it is known at once.
            world.connection.execute("update assetbatch.runs set place = 'elsewhere'")
            assert world.drain(queue=settings).api_calls_used == 0
            world.connection.execute("update assetbatch.queue set leased_until = clock_timestamp()")
    world.sandbox.fail = []

    done = commands("drain-queue", "--shared")

    assert done.returncode == 3
    assert "T1USD: worker_lost" in done.stderr
    assert world.rows("state", "attempts") == [("dead", 3)]
    assert len(world.sandbox.arrivals) == 3
    assert commands("queue", "retry", "T1USD").returncode == 0
    assert world.rows("state", "attempts") == [("queued", 0)]
    assert world.drain().updated == ("T1USD",)


def test_a_second_drain_is_skipped_and_shared_ones_run_side_by_side(commands: Commands, world: World) -> None:
    world.put(*symbols(2))
    world.configure(provider="{batch_size: 1}")
    world.connection.execute(
        "insert into assetbatch.leases values ('drain-queue', gen_random_uuid(), clock_timestamp() + interval '1 hour')"
    )
    waiting = commands.start("drain-queue", "--json")
    world.sandbox.fail = ["timeout"]
    shared = [commands.start("drain-queue", "--shared", "--json") for _ in range(2)]
    try:
        wait_until(lambda: len(world.sandbox.arrivals) == 2, seconds=20)
        assert world.rows("state") == [("leased",)] * 2
        code, stdout, stderr = ended(waiting)
    finally:
        for run in shared:
            run.terminate()
            ended(run)

    assert (code, stderr) == (0, "")
    document = json.loads(stdout)
    assert (document["status"], document["api_calls_used"], document["updated"]) == ("skipped", 0, [])
    assert 8_000 < document["latency_ms"] < 20_000


def test_the_priority_job_has_its_calls_beside_a_drain(
    commands: Commands, connection: Connection, database: str, tmp_path: Path
) -> None:
    limits = "{window_seconds: 2, margin_seconds: 0.2, calls_per_minute: 5, reservation_grace_seconds: 1}"
    with Sandbox(key=API_KEY, limit=5, window_seconds=2) as sandbox:
        world = World(connection, database, sandbox, tmp_path)
        commands.environment |= {"POLYGON_RATE_LIMIT": "", "POLYGON_BASE_URL": sandbox.url}
        world.put(*symbols(200))
        world.configure(rate_limiting=limits, provider="{batch_size: 1}", batch="{secondary_assets: []}")
        running = commands.start("drain-queue", "--json")
        try:
            wait_until(lambda: len(sandbox.arrivals) >= 5, seconds=20)
            done = commands("run-priority", "--json")
            after = len(sandbox.arrivals)
            wait_until(lambda: len(sandbox.arrivals) > after + 2, seconds=20)
        finally:
            running.terminate()
        code, _, _ = ended(running)

    assert (done.returncode, code) == (0, 143)
    document = json.loads(done.stdout)
    assert document["updated"] == ["XAUUSD", "EURUSD", "BTCUSD"]
    # At the front of the line three slots are at most a window away.
    assert document["waited_seconds"] < 2 * 4
    assert all(one.status == 200 for one in sandbox.arrivals)


def test_many_drains_that_are_killed_now_and_then_lose_nothing(
    commands: Commands, connection: Connection, database: str, tmp_path: Path
) -> None:
    drains, items, lease_seconds, kills = 6, 1200, 3, 8
    everything = tuple(f"T{number}USD" for number in range(1, items + 1))
    with Sandbox(key=API_KEY, limit=20, window_seconds=1) as sandbox:
        world = World(connection, database, sandbox, tmp_path)
        commands.environment |= {"POLYGON_RATE_LIMIT": "", "POLYGON_BASE_URL": sandbox.url}
        world.put(*everything, queue="{max_size: 5000}")
        world.configure(
            rate_limiting="{window_seconds: 1, margin_seconds: 0.1, calls_per_minute: 20}",
            provider="{batch_size: 10, timeout_seconds: 10}",
            queue=f"{{lease_seconds: {lease_seconds}, retry_max_attempts: 100, retry_delay_seconds: 0}}",
        )
        running: list[subprocess.Popen[str]] = []
        victims: list[subprocess.Popen[str]] = []
        outcomes: list[tuple[int, str, str]] = []
        try:
            running += [commands.start("drain-queue", "--shared") for _ in range(drains)]
            wait_until(lambda: sandbox.arrivals, seconds=30)
            while len(victims) < kills and left(world):
                time.sleep(1)  # a kill a second is what this is about
                victims.append(running.pop(0))
                victims[-1].kill()
                running.append(commands.start("drain-queue", "--shared"))
            outcomes += [ended(run, seconds=90) for run in running]
            # What the last victim held is out of reach until its lease has run out.
            wait_until(lambda: not held(world), seconds=20)
        finally:
            for run in (*running, *victims):
                run.kill()
            outcomes += [ended(run) for run in (*victims,)]
        # Nor does the right to publish, which a victim may have had.
        connection.execute("update assetbatch.leases set held_until = clock_timestamp() where name = 'publisher'")
        last = commands("drain-queue", "--shared")

    assert len(victims) > 3
    assert {(code, stderr) for code, _, stderr in outcomes if code not in {-signal.SIGKILL, 0}} == set()
    assert all(stderr == "" or "off this run's hands" in stderr for _, _, stderr in outcomes)
    assert (last.returncode, last.stderr) == (0, "")
    assert world.rows("symbol", "state", "error") == []
    assert world.stored() == set(everything)
    assert {one.status for one in sandbox.arrivals} <= {200, 0}
    events = defaultdict(list)
    for row in connection.execute("select symbol, seq, payload, published_at from assetbatch.outbox order by id"):
        assert row["published_at"] is not None
        events[row["symbol"]].append((row["seq"], row["payload"]))
    for row in connection.execute("select symbol, metadata -> 'last_update' as stored from trading.symbols"):
        seqs = [seq for seq, _ in events[row["symbol"]]]
        assert seqs == sorted(set(seqs))
        newest = events[row["symbol"]][-1][1]
        assert {key: newest[key] for key in ("bid", "ask", "last_price", "timestamp")} == {
            key: row["stored"][key] for key in ("bid", "ask", "last_price", "timestamp")
        }


def left(world: World) -> int:
    with open_database(world.database) as connection:
        row = connection.execute("select count(*) as count from assetbatch.queue where state = 'queued'").fetchone()
    return 0 if row is None else int(row["count"])


def held(world: World) -> bool:
    with open_database(world.database) as connection:
        return bool(connection.execute("select 1 from assetbatch.queue where leased_until > now()").fetchall())
