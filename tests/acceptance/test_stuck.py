"""A database that is away, locked, or no longer answers: runs end, tell it once, and lose nothing."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.acceptance.conftest import Cron, runs
from tests.conftest import open_database, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from tests.conftest import Commands

# What a command may take beyond its own limit.
HARD_END_SECONDS = 30.0
OUTAGE_SECONDS = 600.0


def test_a_locked_table_ends_a_run_in_bounded_time(commands: Commands, connection: Connection) -> None:
    commands("init")
    with connection.transaction():
        connection.execute("lock table trading.symbols in access exclusive mode")
        began = time.monotonic()
        done = commands("run-priority")

    assert (done.returncode, "lock timeout" in done.stderr) == (69, True)
    assert time.monotonic() - began < HARD_END_SECONDS
    assert commands("run-priority").returncode == 0


class Relay:
    """Stands between a command and PostgreSQL's socket, and may stop passing anything on."""

    def __init__(self, folder: Path, target: str) -> None:
        self._target = target
        self.silent = threading.Event()
        self.passed = threading.Event()
        self._closed = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / Path(target).name))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with sink, suppress(OSError):
            while data := source.recv(65536):
                if self.silent.is_set():
                    self.passed.set()
                    self._closed.wait()
                    return
                sink.sendall(data)

    def close(self) -> None:
        self._closed.set()
        self._listener.close()


@pytest.fixture
def relay(database: str) -> Iterator[Relay]:
    """A relay whose socket has a path that is short enough."""
    known = conninfo_to_dict(database)
    folder = Path("/tmp") / f"assetbatch-relay-{os.getpid()}"
    folder.mkdir(mode=0o700)
    relay = Relay(folder, f"{known['host']}/.s.PGSQL.{known.get('port') or 5432}")
    yield relay
    relay.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_connection_that_is_dead_ends_a_run_by_force(commands: Commands, relay: Relay, database: str) -> None:
    (commands.folder / "config.yaml").write_text(
        "batch: {max_cycle_seconds: 1}\nprovider: {connect_timeout_seconds: 1, timeout_seconds: 1}\n"
    )
    commands("init")
    folder = Path("/tmp") / f"assetbatch-relay-{os.getpid()}"
    commands.environment["DATABASE_URL"] = make_conninfo(database, host=str(folder), requirepeer="")
    assert commands("run-priority").returncode == 0

    relay.silent.set()
    began = time.monotonic()
    done = commands("run-priority", timeout=HARD_END_SECONDS * 3)

    assert relay.passed.is_set()
    assert done.returncode == 69
    assert time.monotonic() - began < HARD_END_SECONDS + 10


@pytest.mark.slow
def test_ten_minutes_without_a_database_are_told_once_and_lose_nothing(
    cron: Cron, postgres: EmbeddedServer, database: str
) -> None:
    jobs = ("run-priority", "drain-queue", "enqueue-secondary")
    fresh = "select symbol from assetbatch.sync_state where succeeded_at > %s order by symbol"
    dead = "select symbol, error from assetbatch.queue where state = 'dead'"

    def wait_for_runs(seconds: float) -> None:
        with open_database(database) as connection:
            known = {job: runs(connection, job, exit_code=0) for job in jobs}
            wait_until(
                lambda: all(runs(connection, job, exit_code=0) >= known[job] + 2 for job in jobs), seconds=seconds
            )

    wait_for_runs(240)
    assert cron.mails() == []

    postgres.stop()
    time.sleep(OUTAGE_SECONDS)
    told = [cron.mails(job) for job in jobs]
    back_at = datetime.now(UTC)
    postgres.start()
    wait_for_runs(300)

    assert [len(mails) for mails in told] == [1, 1, 1]
    assert all("PostgreSQL" in mails[0] for mails in told)
    assert [[len(mail.splitlines()) for mail in cron.mails(job)[1:]] for job in jobs] == [[1], [1], [1]]
    with open_database(database) as connection:
        assert [row["symbol"] for row in connection.execute(fresh, [back_at])] == ["BTCUSD", "ETHUSD"]
        assert connection.execute(dead).fetchall() == []


@pytest.mark.slow
def test_a_database_that_is_away_for_a_while_is_told_once_and_nothing_is_lost(
    commands: Commands, postgres: EmbeddedServer, connection: Connection
) -> None:
    (commands.folder / "config.yaml").write_text("events: {backend: none}\nbars: {enabled: false}\n")
    assert commands("enqueue-secondary").returncode == 0
    connection.close()
    postgres.stop()
    try:
        away = [commands(job) for _ in range(2) for job in ("run-priority", "drain-queue")]
    finally:
        postgres.start(create=False)
    back = [commands(job) for _ in range(2) for job in ("run-priority", "drain-queue")]

    assert {done.returncode for done in away} == {69}
    # A block for each job at first, then silence; a line for each when it is over, then silence.
    assert [bool(done.stderr) for done in away] == [True, True, False, False]
    assert [len(done.stderr.splitlines()) for done in back] == [1, 1, 0, 0]
    assert {done.returncode for done in back} == {0}
    listing = commands("queue", "list", "--json").stdout
    assert '"total": 0' in listing
    wait_until(lambda: commands("status", "--check").returncode == 0)
