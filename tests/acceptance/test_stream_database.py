"""A PostgreSQL that is stopped, killed or frozen under a stream, a Redis that is away: what is told, and its end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.setup import schema
from tests.conftest import Commands, make_unsafe, new_database, open_database, variables, wait_until
from tests.stream_runs import CRYPTO, command, told, wait_for_price

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import RedisServer

TEMPLATE = "template_own"
# What is asked for is two seconds; a busy machine takes some for starting to end.
END_SECONDS = 2.5


@pytest.fixture(scope="module")
def server(short_folder: Path) -> Iterator[EmbeddedServer]:
    """A PostgreSQL that may be stopped."""
    server = EmbeddedServer(short_folder / "own")
    server.start(create=True)
    make_unsafe(server)
    server.create_database(TEMPLATE)
    with open_database(server.conninfo(TEMPLATE)) as connection:
        schema.migrate(connection)
    yield server
    server.stop()


@pytest.fixture
def own(server: EmbeddedServer) -> str:
    server.start()
    return new_database(server, TEMPLATE)


@pytest.fixture
def commands(tmp_path: Path, own: str, sandbox: Sandbox) -> Commands:
    """Streams Bitcoin, twenty times a second, into the database of its own."""
    sandbox.stream.rate = 20
    (tmp_path / "config.yaml").write_text(
        f"batch: {{{CRYPTO}, secondary_assets: []}}\n"
        f"stream: {{flush_seconds: 0.2, clusters: [crypto], urls: {{crypto: '{sandbox.stream.url}/crypto'}}}}\n"
    )
    return Commands(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | variables(own, sandbox.url))


def processes(server: EmbeddedServer) -> list[int]:
    """The server's process, and those of its connections."""
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def kill(server: EmbeddedServer) -> None:
    """Let the server end without a word to anybody."""
    pid = processes(server)[0]
    os.kill(pid, signal.SIGQUIT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def send(signum: int, pids: list[int]) -> None:
    """Send a signal to those that are there still."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def goes_on(conninfo: str, seconds: float = 30) -> datetime:
    with open_database(conninfo) as connection:
        return wait_for_price(connection, "BTCUSD", after=datetime.now(UTC), seconds=seconds)


def memory(pid: int) -> float:
    """Its resident memory, in MiB."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_server_that_is_away_for_a_while_is_waited_for_and_has_the_newest_prices_afterwards(
    commands: Commands, own: str, server: EmbeddedServer, sandbox: Sandbox, seconds: int
) -> None:
    with command(commands) as stream:
        goes_on(own)
        before = memory(stream.process.pid)
        connections = len(sandbox.stream.sessions)
        server.stop()
        wait_until(lambda: "the database is away" in stream.log)
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, seconds=seconds + 5)
        assert stream.process.poll() is None
        server.start()
        began = time.monotonic()
        goes_on(own)
        assert time.monotonic() - began < 10
        wait_until(lambda: "the database is back" in stream.log)
        assert stream.log.count("the database is away") == stream.log.count("the database is back") == 1
        assert memory(stream.process.pid) - before < 20
        # It has kept its connection, unless its lease could not be renewed for too long and it broke besides.
        assert len(sandbox.stream.sessions) == connections
        with open_database(own) as connection:
            wait_until(lambda: told(connection)["state"] == "live")
        assert stream.end() < END_SECONDS
        assert stream.process.returncode == 143
    assert "Traceback" not in stream.log


def test_without_its_lease_no_connection_is_made_until_the_database_has_told_whose_turn_it_is(
    commands: Commands, own: str, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    with command(commands, scaled="stream.streamer.LEASE_SECONDS=2") as stream:
        goes_on(own)
        server.stop()
        wait_until(lambda: "the database is away" in stream.log)
        end = time.monotonic() + 2.5
        wait_until(lambda: time.monotonic() > end)
        sandbox.stream.drop()
        wait_until(lambda: "the next attempt in" in stream.log)
        # Longer than that attempt is waited for.
        end = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > end)
        assert len(sandbox.stream.sessions) == 1
        server.start()
        goes_on(own)
        assert len(sandbox.stream.sessions) == 2
        assert stream.end() < END_SECONDS
    assert "Traceback" not in stream.log


def test_a_server_that_is_killed_under_it_is_followed_by_another(
    commands: Commands, own: str, server: EmbeddedServer
) -> None:
    with command(commands) as stream:
        goes_on(own)
        for number in (1, 2):
            kill(server)
            wait_until(lambda: stream.log.count("the database is away") >= number)  # noqa: B023 - waited for here
            assert stream.process.poll() is None
            server.start()
            goes_on(own)
            # Calls beside it store prices on a connection of their own.
            wait_until(lambda: stream.log.count("the database is back") >= number)  # noqa: B023 - waited for here
        assert stream.end() < END_SECONDS
    assert "Traceback" not in stream.log


def test_a_session_that_becomes_read_only_is_followed_by_another(
    commands: Commands, own: str, server: EmbeddedServer
) -> None:
    # As behind a proxy that keeps a session with what became a standby, while new ones lead to another server.
    with command(commands) as stream, psycopg.connect(own, autocommit=True) as owner:
        goes_on(own)
        name = sql.Identifier(owner.info.dbname)
        owner.execute(sql.SQL("alter database {} set default_transaction_read_only = off").format(name))
        try:
            owner.execute("alter system set default_transaction_read_only = on")
            owner.execute("select pg_reload_conf()")
            wait_until(lambda: "read-only transaction" in stream.log)
            goes_on(own)
            wait_until(lambda: "the database is back" in stream.log)
        finally:
            owner.execute("alter system reset default_transaction_read_only")
            owner.execute("select pg_reload_conf()")
        assert stream.end() < END_SECONDS
    assert "Traceback" not in stream.log


def test_it_ends_in_time_while_the_server_is_away(commands: Commands, own: str, server: EmbeddedServer) -> None:
    with command(commands) as stream:
        goes_on(own)
        server.stop()
        wait_until(lambda: "the database is away" in stream.log)
        took = stream.end()
        server.start()
    assert took < END_SECONDS
    assert "Traceback" not in stream.log


def test_it_ends_in_time_while_the_server_is_frozen_and_closes_its_connection(
    commands: Commands, own: str, server: EmbeddedServer, sandbox: Sandbox
) -> None:
    with command(commands) as stream:
        goes_on(own)
        (session,) = sandbox.stream.open("crypto")
        frozen = processes(server)
        try:
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            took = stream.end()
        finally:
            for pid in frozen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    assert took < END_SECONDS
    wait_until(lambda: not session.is_open)
    assert session.close_code == 1000
    assert "Traceback" not in stream.log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_time_while_a_row_is_locked(commands: Commands, own: str, signum: int) -> None:
    with command(commands) as stream, open_database(own) as connection:
        goes_on(own)
        with connection.transaction():
            connection.execute("lock table trading.symbols in access exclusive mode")
            wait_until(lambda: waits(own))
            took = stream.end(signum)
    assert took < END_SECONDS
    assert "Traceback" not in stream.log


def waits(conninfo: str) -> bool:
    """Whether somebody waits for a lock."""
    with open_database(conninfo) as connection:
        return connection.execute("select from pg_locks where not granted").fetchone() is not None


def test_a_redis_that_is_away_is_told_once_and_has_the_events_afterwards(
    commands: Commands, own: str, redis_server: RedisServer
) -> None:
    commands.environment["REDIS_URL"] = redis_server.url
    scaled = "events.RETRY_SECONDS=0.5 stream.streamer.ANNOUNCER_SECONDS=1"
    with command(commands, scaled=scaled) as stream:
        goes_on(own)
        redis_server.stop()
        for _ in range(5):
            goes_on(own)
        wait_until(lambda: "events wait" in stream.log)
        goes_on(own)
        assert stream.log.count("events wait") == 1
        redis_server.start()
        since = datetime.now(UTC)
        with open_database(own) as connection:
            query = "select from assetbatch.outbox where published_at > %s"
            wait_until(lambda: connection.execute(query, [since]).fetchone() is not None, seconds=30)
        assert stream.end() < END_SECONDS
    assert "Traceback" not in stream.log
