from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import make_conninfo

from assetbatch import pings
from assetbatch.config import load
from tests.conftest import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

TOKEN = "9f1c7e2a-secret-token"
PATH = f"/ping/{TOKEN}"


class Monitor:
    """Takes pings; `answer` is a status, `redirect`, `hang`, `drip` or `close`."""

    def __init__(self) -> None:
        self.answer: int | str = 200
        self.seen: list[str] = []
        self.released = threading.Event()
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                monitor.seen.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
                monitor.respond(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        if self.answer == "close":
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.answer == "hang":
            self.released.wait()
            return
        if self.answer == "drip":
            # A byte now and then of a header that never ends: no read ever times out.
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.released.wait(0.02):
                try:
                    handler.wfile.write(b"x")
                except OSError:
                    return
            return
        handler.send_response(302 if self.answer == "redirect" else int(self.answer))
        if self.answer == "redirect":
            handler.send_header("Location", f"{self.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def end(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.end()


def configured(folder: Path, url: str) -> Config:
    (folder / "config.yaml").write_text(
        f"database: {{embedded: true}}\npings: {{run_priority: {json.dumps(url)}, drain_queue: null}}\n"
    )
    return load(file=None, environ={}, cwd=folder)


@pytest.mark.parametrize(
    ("failed", "query", "path"),
    [
        (False, "", PATH),
        (True, "", f"{PATH}/fail"),
        (False, "?create=1", f"{PATH}?create=1"),
        (True, "?create=1", f"{PATH}/fail?create=1"),
        (True, "/", f"{PATH}/fail"),
    ],
)
def test_an_end_is_told_once(tmp_path: Path, monitor: Monitor, failed: bool, query: str, path: str) -> None:
    pings.ping(configured(tmp_path, monitor.url + query), "run-priority", failed=failed, seconds=5)

    assert monitor.seen == [f"GET {path}"]


@pytest.mark.parametrize("job", ["drain-queue", "backfill"])
def test_who_is_not_monitored_tells_nobody(tmp_path: Path, monitor: Monitor, job: str) -> None:
    pings.ping(configured(tmp_path, monitor.url), job, failed=False, seconds=5)

    assert not monitor.seen


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (200, "sent"),
        (500, "failed: HTTP 500"),
        ("redirect", "failed: HTTP 302, a redirect"),
        ("close", "failed: ConnectionError"),
        ("hang", "failed: "),
        ("drip", "failed: no answer within 0.3 s"),
    ],
)
def test_whatever_the_monitor_does_is_one_line_without_the_url(
    tmp_path: Path, monitor: Monitor, caplog: pytest.LogCaptureFixture, answer: int | str, told: str
) -> None:
    config, monitor.answer = configured(tmp_path, monitor.url), answer

    began = time.monotonic()
    with caplog.at_level(logging.DEBUG):
        pings.ping(config, "run-priority", failed=False, seconds=0.3 if isinstance(answer, str) else 5.0)

    assert time.monotonic() - began < 5
    assert [f"GET {PATH}"] == monitor.seen
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("assetbatch")]
    assert len(lines) == 1
    assert lines[0].startswith(f"pings.run_priority (success): {told}")
    assert TOKEN not in lines[0]


@pytest.mark.parametrize("place", ["nobody listens", "no port", "no host", "a broken address"])
def test_a_monitor_that_is_none_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    host = {
        "nobody listens": f"127.0.0.1:{free_port()}",
        "no port": "127.0.0.1:port",
        "no host": "?",
        "a broken address": "[::1",
    }[place]

    with caplog.at_level(logging.INFO, logger="assetbatch"):
        pings.ping(configured(tmp_path, f"http://{host}{PATH}"), "run-priority", failed=True, seconds=5)

    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("assetbatch")]
    assert line.startswith("pings.run_priority (failure): failed: ")
    assert TOKEN not in line


def test_no_password_of_netrc_goes_along(tmp_path: Path, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    pings.ping(configured(tmp_path, monitor.url), "run-priority", failed=False, seconds=5)

    assert monitor.seen == [f"GET {PATH}"]


# As a user runs it


@pytest.fixture
def watched(commands: Commands, monitor: Monitor) -> Commands:
    (commands.folder / "config.yaml").write_text(
        f"pings: {{run_priority: {monitor.url}, enqueue_secondary: {monitor.url}/e}}\n"
    )
    commands.environment["XDG_STATE_HOME"] = str(commands.folder / "state")
    return commands


def run_with(commands: Commands, patch: str) -> subprocess.CompletedProcess[str]:
    """Run the priority job as a user does, but for one change."""
    return commands.python("-c", f"from assetbatch.cli import main\n{patch}\nmain()", "run-priority")


def test_runs_ping_as_they_end_and_never_print_the_url(
    watched: Commands, connection: Connection, database: str, monitor: Monitor
) -> None:
    refused = watched("-v", "run-priority", POLYGON_API_KEY="wrong-key-1234567")
    good = watched("-vv", "run-priority", "--json")
    absent = watched("run-priority", DATABASE_URL=make_conninfo(database, dbname="absent"))
    bug = run_with(watched, "from assetbatch.jobs import priority; priority.run_priority = None")
    connection.execute(
        "insert into assetbatch.leases"
        " values ('run-priority', gen_random_uuid(), clock_timestamp() + interval '1 minute')"
    )
    skipped = run_with(watched, "from assetbatch.jobs import run; run.LEASE_PATIENCE_SECONDS = 0")
    warned = watched("enqueue-secondary", QUEUE_MAX_SIZE="1")

    runs = [refused, good, absent, bug, skipped, warned]
    assert [run.returncode for run in runs] == [77, 0, 69, 1, 0, 0]
    fail = f"GET {PATH}/fail"
    assert monitor.seen == [fail, f"GET {PATH}", fail, fail, f"GET {PATH}/e"]
    assert "pings.run_priority (failure): sent" in refused.stderr
    assert "pings.run_priority (success): sent" in good.stderr
    for run in runs:
        assert TOKEN not in run.stdout + run.stderr


def test_a_run_that_cannot_print_its_summary_went_well_all_the_same(watched: Commands, monitor: Monitor) -> None:
    # Longer than what is kept back until the end.
    long = "job.print_json = lambda document: print_json(document | {'long': 9999 * 'x'})"
    patch = f"from assetbatch.cli import job; print_json = job.print_json; {long}"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", f"from assetbatch.cli import main\n{patch}\nmain()", "run-priority", "--json"],
            cwd=watched.folder,
            env=watched.environment,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 0
    assert "could not be written: No space left on device" in done.stderr
    assert monitor.seen == [f"GET {PATH}"]


def test_a_monitor_that_hangs_changes_nothing(watched: Commands, monitor: Monitor) -> None:
    monitor.answer = "hang"

    done = run_with(watched, "from assetbatch import pings; pings.PING_SECONDS = 0.5")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert monitor.seen == [f"GET {PATH}"]


def test_a_run_that_a_signal_ends_is_not_held_up(watched: Commands, monitor: Monitor, sandbox: Sandbox) -> None:
    monitor.answer, sandbox.fail = "hang", ["timeout"]
    with watched.start("run-priority") as running:
        wait_until(lambda: sandbox.arrivals)
        asked_at = time.monotonic()
        running.terminate()
        _, told = running.communicate(timeout=10)

    # Two seconds, and what a busy machine adds; a ping of full length would be over that.
    assert time.monotonic() - asked_at < 4.5
    assert running.returncode == 143
    assert told == "assetbatch run-priority: ended by SIGTERM\n"
    assert monitor.seen == [f"GET {PATH}/fail"]
