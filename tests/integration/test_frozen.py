"""Processes that are held up, at a lock or by SIGSTOP, between a decision and its act: they notice, and do no harm.

Their time-outs are short, so that what takes a minute and a half takes seconds. Where a process is to stop is said by a
table that is locked just then: the one that it reads next.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, LiteralString

import psycopg
import pytest
import redis
from psycopg import sql

from assetbatch import events
from assetbatch.database import connection as connections
from assetbatch.database import rate_limit
from assetbatch.database.leases import LEASE_SECONDS, Lease
from assetbatch.database.pipeline import pipeline
from assetbatch.database.query import command
from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, key_fingerprint, rules_of
from assetbatch.jobs import backfill, probe, symbols
from assetbatch.model import AssetType
from assetbatch.sandbox.server import Sandbox
from tests import world as worlds
from tests.conftest import API_KEY, open_database, wait_until
from tests.world import NO_ASSETS, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from tests.conftest import RedisServer

ROOT = Path(__file__).parents[2]
LIMIT = 5
WINDOW_SECONDS = 2.0
LIMITS = f"{{calls_per_minute: {LIMIT}, window_seconds: {WINDOW_SECONDS}, margin_seconds: 0.1}}"
END_OF_DAY = "{connect_timeout_seconds: 1, timeout_seconds: 2, mode: end_of_day}"
# The command, with a second in place of the ten for a call's leaving, and a job's lease no longer than a call takes.
PROGRAM = """
from assetbatch.database import rate_limit
rate_limit.LEAVE_SECONDS = 1
from assetbatch.jobs import run
run.LEASE_SECONDS = 1
from assetbatch.cli import main
main()
"""
HOLD_SECONDS = 1 + 1 + 2
# Of a slot whose holder is taken for dead.
LOST_SECONDS = HOLD_SECONDS + WINDOW_SECONDS + 0.1

# Slots that a living holder keeps, or that a dead one still blocks.
BUSY = """
select count(*) as n from assetbatch.rate_limit_slots
where counted_by + make_interval(secs => %(cooldown)s) > clock_timestamp()
"""


@dataclass
class World(worlds.World):
    """Short time-outs, a server with a strict limit, and processes that can be held up."""

    KEYS: ClassVar = {
        "batch": NO_ASSETS,
        "bars": "{enabled: false}",
        "events": "{backend: none}",
        "provider": "{connect_timeout_seconds: 1, timeout_seconds: 2, batch_size: 1}",
        "rate_limiting": LIMITS,
    }

    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    def begin(self, *command: str, program: str = PROGRAM, **environment: str) -> subprocess.Popen[str]:
        """Start a command, or another program."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, *command],
            env=self.commands()._whole({"PYTHONPATH": str(ROOT)} | environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )
        self.begun.append(process)
        return process

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock a table against all others."""
        with open_database(self.database) as other, other.transaction():
            other.execute("set local idle_in_transaction_session_timeout = 0")
            other.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(*table.split("."))))
            yield

    def wait_for_lock(self, table: str, processes: int = 1) -> None:
        """Wait until so many processes stand at the lock."""
        statement = "select count(*) as n from pg_locks where not granted and relation = to_regclass(%s)"

        def stand() -> bool:
            row = self.connection.execute(statement, [table]).fetchone()
            return row is not None and row["n"] >= processes

        wait_until(stand, seconds=20)

    @contextmanager
    def slots_taken(self, **sections: str) -> Iterator[None]:
        """Hold all slots, so that whoever asks for one waits; then give them back, unused."""
        rules = rules_of(self.configure(**sections), {AssetType.FOREX})
        limiter = RateLimiter(
            self.connection,
            key=key_fingerprint(API_KEY),
            host="test",
            rules=rules,
            lane=Lane.QUEUE,
            pause=time.sleep,
        )
        slots = [limiter.acquire(max_wait_seconds=0) for _ in range(LIMIT)]
        yield
        for slot in slots:
            limiter.release(slot, Outcome.UNSENT)

    def wait_until_lost(self) -> None:
        """Wait until all holders of slots are taken for dead."""

        def lost() -> bool:
            row = self.connection.execute(BUSY, {"cooldown": WINDOW_SECONDS + 0.1}).fetchone()
            return row is not None and row["n"] == 0

        wait_until(lost, seconds=LOST_SECONDS + 10)

    def count(self, statement: LiteralString) -> int:
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return int(next(iter(row.values())))

    def statuses(self) -> Counter[int]:
        """What the server answered, how often."""
        return Counter(arrival.status for arrival in self.sandbox.arrivals)

    def outcomes(self) -> Counter[str]:
        """How the calls went, as they are written down."""
        rows = self.connection.execute("select outcome from assetbatch.api_calls")
        return Counter(row["outcome"] for row in rows)

    def attempts(self) -> list[int]:
        return [row["attempts"] for row in self.connection.execute("select attempts from assetbatch.queue")]


def stop(process: subprocess.Popen[str]) -> None:
    """Freeze a process, as a laptop's sleep or a paused virtual machine does."""
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; return its exit code and what it said."""
    _, stderr = process.communicate(timeout=40)
    return process.returncode, stderr


@pytest.fixture
def strict() -> Iterator[Sandbox]:
    """A server that counts strictly."""
    with Sandbox(key=API_KEY, plan="starter", limit=LIMIT, window_seconds=WINDOW_SECONDS) as server:
        yield server


@pytest.fixture
def world(connection: Connection, database: str, strict: Sandbox, tmp_path: Path) -> Iterator[World]:
    world = World(connection, database, strict, tmp_path)
    yield world
    for process in world.begun:
        process.kill()
        process.communicate()


def test_drains_that_stood_at_a_lock_with_their_slots_send_nothing_on_them(world: World) -> None:
    world.add(*(four := [f"T{number}USD" for number in range(4)]))
    world.enqueue(four)
    with world.slots_taken(batch="{secondary_assets: []}"):
        drains = [world.begin("drain-queue", "--shared", "--max-seconds", "30") for _ in range(4)]
        wait_until(lambda: world.count("select count(*) from assetbatch.rate_limit_waiters") == 4, seconds=20)
        locked = world.locked("assetbatch.queue")
        locked.__enter__()
    world.wait_for_lock("assetbatch.queue", 4)
    world.wait_until_lost()
    priority = ended(world.begin("run-priority"))
    made = len(world.sandbox.arrivals)
    locked.__exit__(None, None, None)
    found = [ended(drain) for drain in drains]

    assert priority[0] == 0
    assert made == 3
    assert [code for code, _ in found] == [0] * 4, found
    assert world.statuses() == {200: 3 + 4}
    assert world.outcomes() == {"ok": 3 + 4}
    assert world.count("select count(*) from assetbatch.queue") == 0


@pytest.mark.parametrize("plan", ["limited", "unlimited"])
def test_a_drain_that_was_frozen_with_its_claims_gives_back_slot_and_items_uncharged(world: World, plan: str) -> None:
    world.add("T1USD", "T2USD")
    world.enqueue(["T1USD", "T2USD"])
    if plan == "limited":
        with world.slots_taken():
            drain = world.begin("-v", "drain-queue", "--shared")
            wait_until(lambda: world.count("select count(*) from assetbatch.rate_limit_waiters"), seconds=20)
            locked = world.locked("assetbatch.queue")
            locked.__enter__()
    else:
        locked = world.locked("assetbatch.queue")
        world.configure(rate_limiting="{calls_per_minute: null}")
        with world.locked("assetbatch.rate_limits"):
            drain = world.begin("-v", "drain-queue", "--shared")
            world.wait_for_lock("assetbatch.rate_limits")
            locked.__enter__()
    world.wait_for_lock("assetbatch.queue")
    stop(drain)
    locked.__exit__(None, None, None)
    # The server has done what was asked of it: the items are claimed.
    wait_until(lambda: world.count("select count(*) from assetbatch.queue where state = 'leased'"))
    time.sleep(1.5)
    drain.send_signal(signal.SIGCONT)

    code, said = ended(drain)
    assert (code, "a call was held up" in said) == (0, True)
    assert world.statuses() == {200: 2}
    assert world.outcomes() == {"ok": 2}
    assert world.count("select count(*) from assetbatch.queue") == 0


def test_a_page_of_bars_is_not_asked_for_by_who_was_frozen_while_another_asked(world: World) -> None:
    wanted = "{enabled: true, backfill_days: 1}"
    world.add("X:T1USD")
    with world.slots_taken(bars=wanted):
        backfill = world.begin("backfill", "--symbol", "T1USD")
        wait_until(lambda: world.count("select count(*) from assetbatch.rate_limit_waiters"), seconds=20)
        locked = world.locked("assetbatch.bar_absences")
        locked.__enter__()
    world.wait_for_lock("assetbatch.bar_absences")
    stop(backfill)
    locked.__exit__(None, None, None)
    # The server has done what was asked of it, and then the lease runs out.
    held = "select count(*) from assetbatch.bar_state where leased_until > clock_timestamp()"
    wait_until(lambda: world.count(held))
    wait_until(lambda: world.count(held) == 0)
    drained = world.drain(bars=wanted)
    bars = [one.path for one in world.sandbox.arrivals]
    backfill.send_signal(signal.SIGCONT)

    assert ended(backfill)[0] == 0
    assert drained.bars is not None
    assert drained.bars.stored > 0
    assert [one.path for one in world.sandbox.arrivals] == bars
    assert world.outcomes() == {"ok": len(bars)}


def test_a_run_that_was_frozen_makes_no_call_once_another_had_its_job(world: World) -> None:
    world.configure(batch="{secondary_assets: []}")
    with world.locked("assetbatch.rate_limits"):
        frozen = world.begin("run-priority")
        world.wait_for_lock("assetbatch.rate_limits")
        stop(frozen)
    wait_until(lambda: world.count("select count(*) from assetbatch.leases where held_until > clock_timestamp()") == 0)
    other = ended(world.begin("run-priority"))
    frozen.send_signal(signal.SIGCONT)
    code, said = ended(frozen)

    assert other[0] == 0
    assert code == 69
    assert "another run has taken over" in said
    assert world.statuses() == {200: 3}
    assert world.outcomes() == {"ok": 3}


def test_a_day_that_another_asked_for_meanwhile_is_not_asked_for_again(world: World) -> None:
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "free"
    world.add("C:GBPUSD")
    world.enqueue(["GBPUSD"])
    world.configure(batch="{secondary_assets: []}")
    with world.locked("assetbatch.rate_limits"):
        frozen = world.begin("run-priority")
        world.wait_for_lock("assetbatch.rate_limits")
        stop(frozen)
    held = "select count(*) from assetbatch.daily_figures where asking_until > clock_timestamp()"
    assert world.count(held) == 1
    wait_until(lambda: world.count(held) == 0)
    world.drain(batch="{secondary_assets: []}")
    assert len(world.sandbox.arrivals) == 1
    frozen.send_signal(signal.SIGCONT)

    assert ended(frozen)[0] == 0
    paths = Counter(one.path for one in world.sandbox.arrivals)
    assert sorted(paths.values()) == [1, 1]
    assert world.outcomes() == {"ok": 2}


def test_max_items_counts_no_item_that_was_given_back(world: World) -> None:
    world.add("T1USD")
    world.enqueue(["T1USD"])
    with world.slots_taken():
        drain = world.begin("drain-queue", "--shared", "--max-items", "1")
        wait_until(lambda: world.count("select count(*) from assetbatch.rate_limit_waiters"), seconds=20)
        locked = world.locked("assetbatch.queue")
        locked.__enter__()
    world.wait_for_lock("assetbatch.queue")
    time.sleep(1.5)
    locked.__exit__(None, None, None)

    assert ended(drain)[0] == 0
    assert world.statuses() == {200: 1}
    assert world.count("select count(*) from assetbatch.queue") == 0


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_transaction_of_a_frozen_client_lets_go_of_its_locks_before_a_lease_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    idle = re.search(r"'idle_in_transaction_session_timeout', '(\d+)s'", connections.SETTINGS)
    assert idle is not None
    assert int(idle[1]) < LEASE_SECONDS
    monkeypatch.setattr(connections, "SETTINGS", connections.SETTINGS.replace(idle[0], idle[0].replace(idle[1], "1")))
    lock = "lock table assetbatch.queue in access exclusive mode"

    def frozen() -> None:
        with open_database(world.database) as connection, connection.transaction():
            connection.ask(*(command(lock, {}) for _ in range(at_once)))
            # Meanwhile nothing is heard of it, as of a host without power.
            with world.connection.transaction(lock_timeout="5s"):
                world.connection.execute(lock)
            connection.execute("select")

    # An older libpq does not read the server's last word.
    with pytest.raises((psycopg.errors.IdleInTransactionSessionTimeout, psycopg.OperationalError)):
        frozen()


def test_a_client_that_is_frozen_while_it_asks_has_locked_nothing(world: World) -> None:
    lock = "lock table assetbatch.queue in access exclusive mode"
    with open_database(world.database) as connection, connection.transaction() as transaction:
        connection.execute("select")
        with pipeline(connection.plain):
            connection.plain.execute(lock)
            with world.connection.transaction(lock_timeout="100ms"):
                world.connection.execute(lock)
            connection.plain.execute("select")
        with pytest.raises(psycopg.errors.LockNotAvailable), world.connection.transaction(lock_timeout="100ms"):
            world.connection.execute(lock)
        raise psycopg.Rollback(transaction)


def backfilled(world: World) -> RunResult:
    config = world.configure(bars="{backfill_days: 1}")
    foreseen = backfill.foresee(config, world.connection, symbols=None, since=None, until=None, refetch=False)
    result = backfill.backfill(world.start(config), foreseen, refetch=False)
    assert result.updated == ("T1USD", "T2USD")
    return result


def probed(world: World) -> None:
    found = probe.probe(world.configure(), world.connection, host="test", stop=no_stop())
    assert found.calls_used == probe.calls_for({one.market for one in found.markets})


def listed(world: World) -> RunResult:
    config = world.configure()
    asked = symbols.read_reference(
        config, world.connection, host="test", stop=no_stop(), markets=[AssetType.CRYPTO, AssetType.FOREX]
    )
    assert asked.names
    return asked.result


CALLERS: dict[str, Callable[[World], RunResult | None]] = {
    "run-priority": lambda world: world.prioritise(batch="{secondary_assets: []}"),
    "finished days": lambda world: world.prioritise(batch="{secondary_assets: []}", provider=END_OF_DAY),
    "drain-queue": lambda world: world.drain(max_items=2),
    "drain-queue without a limit": lambda world: world.drain(rate_limiting="{calls_per_minute: null}"),
    "drain-queue of finished days": lambda world: world.drain(provider=END_OF_DAY),
    "backfill": backfilled,
    "probe": probed,
    "symbols": listed,
}


@pytest.mark.parametrize("caller", CALLERS)
def test_whoever_is_held_up_while_it_connects_makes_its_call_anew_and_nobody_is_charged(
    world: World, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first name is looked up for longer than a slot may be on its way."""
    real, seconds = socket.getaddrinfo, [1.5]

    def slow_once(*args: Any, **options: Any) -> Any:
        time.sleep(seconds.pop() if seconds else 0)
        return real(*args, **options)

    monkeypatch.setattr(rate_limit, "LEAVE_SECONDS", 1)
    monkeypatch.setattr(socket, "getaddrinfo", slow_once)
    assets = ("SOLUSD", "ETHUSD") if "finished" in caller else ("T1USD", "T2USD")
    world.add(*assets)
    world.enqueue(assets)

    result = CALLERS[caller](world)

    assert seconds == []
    assert result is None or (result.exit_code, result.failed, result.warnings) == (0, (), ())
    assert set(world.outcomes()) == {"ok"}
    assert set(world.statuses()) == {200}
    assert len({one.path for one in world.sandbox.arrivals}) == len(world.sandbox.arrivals)
    if "drain" in caller:
        assert world.count("select count(*) from assetbatch.queue") == 0


# Publishes what waits, as each run does at its end.
PUBLISHES = """
import os, sys
from pathlib import Path
from assetbatch import config, events
from assetbatch.events.delivery import DeliveryError
from tests.conftest import open_database
folder, database = sys.argv[1:]
loaded = config.load(file=Path(folder) / "config.yaml", environ=os.environ, cwd=Path(folder))
try:
    events.publish_pending(loaded, open_database(database), seconds=60)
except DeliveryError as error:
    print(error)
"""


class Relay:
    """Stands before Redis, and holds its answers back until it is told."""

    def __init__(self, port: int) -> None:
        self.asked = threading.Event()
        self.open = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._port = port
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            answers = threading.Thread(target=self._answers, args=(server, client), daemon=True)
            answers.start()
            with suppress(OSError):
                while data := client.recv(65536):
                    self.asked.set()
                    server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        self.open.wait()
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)

    def close(self) -> None:
        self.open.set()
        self._thread.join(10)
        self._listener.close()


def test_a_publisher_that_was_frozen_with_its_events_publishes_none_that_another_did(
    world: World, redis_server: RedisServer
) -> None:
    for number in range(3):
        world.connection.execute(
            "insert into assetbatch.outbox (symbol, seq, payload) values (%s, %s, jsonb_build_object('seq', %s::int))",
            [f"T{number}USD", number, number],
        )
    world.environment["REDIS_URL"] = redis_server.url
    world.configure(events="{backend: redis}")
    relay = Relay(redis_server.port)
    frozen = world.begin(str(world.folder), world.database, program=PUBLISHES, REDIS_URL=relay.url)
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("asset:update:*")
        subscriber.get_message(timeout=5)
        # It has read the events and connects, which it may for a second.
        assert relay.asked.wait(20)
        stop(frozen)
        relay.open.set()
        wait_until(lambda: Lease(world.connection, "publisher").take(), seconds=events.LEASE_SECONDS + 5)
        world.connection.execute("delete from assetbatch.leases")
        config = world.configure(events="{backend: redis}")
        assert events.publish_pending(config, world.connection) == 3
        frozen.send_signal(signal.SIGCONT)
        assert ended(frozen)[0] == 0
        relay.close()
        heard = [message["data"] for message in iter(lambda: subscriber.get_message(timeout=0.5), None)]

    assert [data for data in heard if data != 1] == [b'{"seq": 0}', b'{"seq": 1}', b'{"seq": 2}']
