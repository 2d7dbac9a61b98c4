"""Streams of several hosts on one database: one serves, the others stand by, and the vendor never sees two for long."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import API_KEY, wait_until
from tests.relay import Relay, Where
from tests.stream_runs import CRYPTO, Process, command, told, wait_for_price

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from assetbatch.sandbox.session import Session
    from tests.conftest import Commands


@pytest.fixture
def commands(commands: Commands, sandbox: Sandbox) -> Commands:
    """With a configuration that streams Bitcoin, which is never at rest."""
    sandbox.stream.rate = 10
    (commands.folder / "config.yaml").write_text(
        f"batch: {{{CRYPTO}, secondary_assets: []}}\n"
        f"stream: {{flush_seconds: 0.2, clusters: [crypto], urls: {{crypto: '{sandbox.stream.url}/crypto'}}}}\n"
    )
    commands.environment.pop("POLYGON_RATE_LIMIT")
    return commands


def goes_on(connection: Connection, seconds: float = 30) -> None:
    """Wait until a price comes whose time is now."""
    wait_for_price(connection, "BTCUSD", after=datetime.now(UTC), seconds=seconds)


def only_one(sandbox: Sandbox) -> Session:
    """The one connection that there is."""
    found = wait_until(lambda: [one for one in sandbox.stream.open("crypto") if one.held])
    assert len(found) == 1
    session: Session = found[0]
    return session


def test_one_serves_the_other_stands_by_and_takes_over_from_one_that_ends(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    with command(commands, host="host-a") as first:
        goes_on(connection)
        with command(commands, host="host-b") as second:
            wait_until(lambda: len(running(connection)) == 2, seconds=30)
            serving = only_one(sandbox)
            goes_on(connection)
            assert sandbox.stream.open("crypto") == [serving]

            began = time.monotonic()
            assert first.end() < 2
            goes_on(connection, 5 - (time.monotonic() - began))
            assert first.process.returncode == 143
            assert serving.close_code == 1000
            assert second.process.poll() is None
            assert second.end() < 2
    assert sandbox.stream.overlap_seconds("crypto") < 1
    assert told(connection)["state"] == "ended"
    assert traces(first, second) == []


def test_a_stream_of_another_host_that_is_killed_is_followed_within_30_seconds(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    with command(commands, host="host-a") as first, command(commands, host="host-b") as second:
        goes_on(connection)
        wait_until(lambda: len(running(connection)) == 2, seconds=30)
        # Which of the two it is, nobody knows.
        serving = told(connection)["run_id"]
        hosts = {"host-a": first, "host-b": second}
        victim = hosts.pop(host_of(connection, serving))
        victim.process.kill()
        victim.process.wait()
        began = time.monotonic()
        goes_on(connection, 30)
        assert time.monotonic() - began < 30
        assert sandbox.stream.overlap_seconds("crypto") < 1
        (heir,) = hosts.values()
        assert heir.end() < 2
    assert traces(first, second) == []


def test_on_the_same_host_a_killed_stream_is_followed_at_once(commands: Commands, connection: Connection) -> None:
    with command(commands) as first:
        goes_on(connection)
        first.process.kill()
        first.process.wait()
        with command(commands) as second:
            goes_on(connection, 10)
            assert second.end() < 2


def test_one_that_ends_by_its_time_is_followed_without_a_gap_in_prices(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    times: list[datetime] = []

    def note() -> bool:
        """Note each time of a price; be done when the first has ended and the other has streamed for a while."""
        row = connection.execute("select priced_at from assetbatch.sync_state where symbol = 'BTCUSD'").fetchone()
        if row is not None and row["priced_at"] is not None and (not times or times[-1] != row["priced_at"]):
            times.append(row["priced_at"])
        ended = first.process.poll() is not None
        return ended and len(times) > 1 and datetime.now(UTC) - times[0] > timedelta(seconds=16)

    with command(commands, "--max-seconds", "8", host="host-a") as first:
        goes_on(connection)
        with command(commands, "--max-seconds", "60", host="host-b") as second:
            wait_until(note, seconds=60)
            assert first.process.returncode == 0
            second.end()
    assert max(after - before for before, after in pairwise(times)) < timedelta(seconds=5)
    assert sandbox.stream.overlap_seconds("crypto") < 1


def test_one_that_was_frozen_gives_way_and_stores_nothing_older(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    with command(commands, host="host-a", scaled="stream.streamer.LEASE_SECONDS=4") as first:
        goes_on(connection)
        ours = only_one(sandbox)
        with command(commands, host="host-b", scaled="stream.streamer.LEASE_SECONDS=4") as second:
            wait_until(lambda: len(running(connection)) == 2, seconds=30)
            first.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: host_of(connection, told(connection)["run_id"]) == "host-b", seconds=30)
            goes_on(connection)
            # The sandbox has ended the older one: one connection of an account at a time.
            heir = wait_until(lambda: [one for one in sandbox.stream.open("crypto") if one is not ours])[0]
            before = len(sandbox.stream.sessions)
            first.process.send_signal(signal.SIGCONT)
            wait_until(lambda: "stood still for too long" in first.log, seconds=15)
            for _ in range(3):
                goes_on(connection)
            assert heir.is_open
            assert len(sandbox.stream.sessions) == before
            assert host_of(connection, told(connection)["run_id"]) == "host-b"
            assert second.process.poll() is None
    payloads = connection.execute("select payload from assetbatch.outbox order by seq").fetchall()
    moments = [row["payload"]["timestamp"] for row in payloads]
    assert moments == sorted(moments)
    assert traces(first, second) == []


def test_one_that_is_cut_off_from_the_database_makes_no_war_for_the_place(
    commands: Commands, connection: Connection, database: str, sandbox: Sandbox
) -> None:
    cut_off = threading.Event()
    scaled = "stream.streamer.LEASE_SECONDS=3 stream.pacing.REST_SECONDS=0.5"
    with (
        Relay(database, lambda _number, _request: Where.BEFORE if cut_off.is_set() else None) as relay,
        command(commands, host="host-a", scaled=scaled, DATABASE_URL=relay.conninfo) as first,
    ):
        goes_on(connection)
        with command(commands, host="host-b", scaled=scaled):
            wait_until(lambda: len(running(connection)) == 2, seconds=30)
            cut_off.set()
            wait_until(lambda: host_of(connection, told(connection)["run_id"]) == "host-b", seconds=30)
            goes_on(connection)
            wait_until(lambda: "max_connections" in first.log)
            # Its rest is over soon, and its lease all along.
            end = time.monotonic() + 3
            wait_until(lambda: time.monotonic() > end)
            assert len(sandbox.stream.sessions) == 2
            cut_off.clear()
            wait_until(lambda: "stood still for too long" in first.log)
            goes_on(connection)
            assert len(sandbox.stream.sessions) == 2
            assert first.end() < 2.5
    assert sandbox.stream.overlap_seconds("crypto") < 1
    assert traces(first) == []


def test_the_key_is_nowhere(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    with command(commands, level="-vv") as stream:
        goes_on(connection)
        sandbox.stream.expel("force_disconnect", f"no more {API_KEY}")
        wait_until(lambda: len(sandbox.stream.sessions) > 1)
        sandbox.fail = ["ws-auth-failed"]
        sandbox.stream.drop()
        stream.process.wait(30)
        assert stream.process.returncode == 77
    assert API_KEY not in stream.log
    assert "authentication failed" in stream.log
    assert tables_with(connection, API_KEY) == []


def test_the_process_list_has_no_key(commands: Commands, connection: Connection) -> None:
    with command(commands) as stream:
        goes_on(connection)
        assert API_KEY.encode() not in Path(f"/proc/{stream.process.pid}/cmdline").read_bytes()


def running(connection: Connection) -> list[dict[str, Any]]:
    """The runs of `stream` under way."""
    return connection.execute("select host from assetbatch.runs where job = 'stream' and status = 'running'").fetchall()


def host_of(connection: Connection, run_id: int) -> str:
    row = connection.execute("select host from assetbatch.runs where id = %s", [run_id]).fetchone()
    assert row is not None
    return str(row["host"])


def traces(*streams: Process) -> list[str]:
    """What looks like a bug in their logs."""
    return [line for one in streams for line in one.log.splitlines() if "Traceback" in line or "a bug" in line]


def tables_with(connection: Connection, word: str) -> list[str]:
    """The tables of the program in which a word stands somewhere."""
    query = (
        "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname !~ '^(pg_|information)'"
    )
    names = [row["name"] for row in connection.execute(query).fetchall()]
    count = "select count(*) as found from {} t where t::text like '%' || {} || '%'"
    from psycopg import sql

    return [
        name
        for name in names
        if connection.execute(sql.SQL(count).format(sql.SQL(name), sql.Literal(word))).fetchone() != {"found": 0}
    ]
