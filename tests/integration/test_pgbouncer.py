"""PgBouncer in transaction mode: each statement may run in another backend, so nothing may rest on a session."""

from __future__ import annotations

import json
import multiprocessing
import os
import pwd
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules
from assetbatch.failures import CallError
from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client
from assetbatch.sandbox.server import Sandbox
from tests.asking import ask
from tests.conftest import API_KEY, free_port, open_database, wait_until
from tests.integration.test_bar_changes import ADD_SYMBOL, bar, export, told, write
from tests.integration.test_settings import HOSTILE, health

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from tests.conftest import Commands

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on this machine")

PROCESSES = 8
LIMIT = 5
WINDOW_SECONDS = 1.0
BACKENDS = 2
SECONDS = 8.0

CALL = Call(CallKind.SNAPSHOT_SINGLE, (Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300),))

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {backends}
min_pool_size = 0
"""


@pytest.fixture(scope="module")
def pgbouncer(postgres: EmbeddedServer, short_folder: Path) -> Iterator[int]:
    """Run PgBouncer in front of the embedded server; give its port."""
    assert PROGRAM is not None
    server = conninfo_to_dict(postgres.conninfo("postgres"))
    port = free_port()
    configuration = short_folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(
            host=server["host"], port=server["port"], user=server["user"], listen_port=port, backends=BACKENDS
        )
    )
    configuration.chmod(0o644)
    # PgBouncer refuses to run as root, and only the server's own account may pass its socket's folder.
    account = pwd.getpwnam(str(server["requirepeer"])) if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [PROGRAM, str(configuration)],
        user=account and account.pw_uid,
        group=account and account.pw_gid,
        extra_groups=[] if account else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )

    def listens() -> bool:
        assert process.poll() is None, "PgBouncer ended at once"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with process:
        try:
            wait_until(listens)
            yield port
        finally:
            process.kill()


@pytest.fixture
def pooled(pgbouncer: int, database: str) -> str:
    """`database` through PgBouncer, as a URL."""
    return f"postgresql://anybody@127.0.0.1:{pgbouncer}/{conninfo_to_dict(database)['dbname']}"


def one(connection: psycopg.Connection[tuple[Any, ...]], query: LiteralString) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def work(conninfo: str, url: str, together: Barrier, results: multiprocessing.Queue[tuple[int, list[str]]]) -> None:
    """Make calls for some seconds, once all are there; tell how many, and what went wrong."""
    calls, errors = 0, []
    client = Client(base_url=url, api_key=API_KEY, connect_timeout_seconds=5, timeout_seconds=20)
    rules = Rules(LIMIT, WINDOW_SECONDS, 0, 0, None, client.request_seconds)
    try:
        with open_database(conninfo) as connection:
            limiter = RateLimiter(connection, key="key", host="host", rules=rules, lane=Lane.QUEUE, pause=time.sleep)
            together.wait(timeout=60)
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                slot = limiter.acquire()
                outcome = Outcome.UNKNOWN
                try:
                    ask(client, endpoints.prices(CALL))
                    outcome = Outcome.OK
                except CallError as error:
                    errors.append(repr(error))
                    outcome = Outcome.of(error)
                finally:
                    limiter.release(slot, outcome)
                calls += 1
    except Exception as error:  # noqa: BLE001 - told to the test, which fails
        errors.append(repr(error))
    results.put((calls, errors))


def test_eight_processes_share_the_limit_through_two_backends(connection: Connection, pooled: str) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[int, list[str]]] = context.Queue()
    with Sandbox(key=API_KEY, plan="starter", limit=LIMIT, window_seconds=WINDOW_SECONDS) as server:
        together = context.Barrier(PROCESSES)
        workers = [
            context.Process(target=work, args=(pooled, server.url, together, results), daemon=True)
            for _ in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join()

    assert [error for _, errors in found for error in errors] == []
    assert {arrival.status for arrival in server.arrivals} == {200}
    assert sum(calls for calls, _ in found) == len(server.arrivals) > LIMIT
    row = connection.execute(
        "select count(*) filter (where token is not null) as held, count(*) as slots from assetbatch.rate_limit_slots"
    ).fetchone()
    assert row == {"held": 0, "slots": LIMIT}
    assert connection.execute("select from assetbatch.rate_limit_waiters").fetchall() == []


def test_what_another_client_of_the_pool_left_behind_does_no_harm(commands: Commands, pooled: str) -> None:
    # Those of a session that idles would end the others' before ours begins.
    left = {name: value for name, value in HOSTILE.items() if not name.startswith("idle_")}
    left |= {"search_path": "shadow, pg_catalog", "statement_timeout": "2ms"}
    with ExitStack() as stack:
        # Each in a transaction, so that it has a backend of its own.
        others = [stack.enter_context(psycopg.connect(pooled, prepare_threshold=None)) for _ in range(BACKENDS)]
        assert len({one(other, "select pg_backend_pid()") for other in others}) == BACKENDS
        for other in others:
            for name, value in left.items():
                other.execute("select set_config(%s, %s, false)", [name, value])
            other.commit()

    assert health(commands, DATABASE_URL=pooled) == "healthy"

    with psycopg.connect(pooled, prepare_threshold=None) as other:
        # Nothing of ours is left behind for others.
        assert one(other, "select current_setting('default_transaction_isolation')") == "serializable"
        assert one(other, "select current_setting('search_path')") == "shadow, pg_catalog"


def test_run_priority_and_status_work_through_it(commands: Commands, pooled: str) -> None:
    run = commands("run-priority", "--json", DATABASE_URL=pooled)
    status = commands("status", "--json", DATABASE_URL=pooled)

    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)["status"] == "ok"
    assert (status.returncode, status.stderr) == (0, "")
    assert json.loads(status.stdout)["status"] == "healthy"


def test_bars_are_exported_by_a_cursor(pooled: str, database: str) -> None:
    with open_database(pooled) as connection:
        connection.execute(ADD_SYMBOL, ["BTCUSD"])
        write(connection, "BTCUSD", [bar(0), bar(1)])
        rows, cursor = export(pooled)
        assert len(rows) == 2
        with open_database(pooled) as late, late.transaction():
            write(late, "BTCUSD", [bar(1, "2.5")])
            changes, beside = told(pooled, cursor)
            assert changes == []
        assert told(pooled, beside)[0] == told(database, cursor)[0] == [("BTCUSD", bar(1).ts, "2.5")]
