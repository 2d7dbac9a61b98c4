"""Trouble under cron, where nobody looks: told once, then hourly, then its end. A person is told everything."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import psycopg
import pytest

from assetbatch.cli import trouble_state as told
from tests.conftest import API_KEY
from tests.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

WRONG_KEY = "wrong-key-1234567"
HOUR = 3600.0


# Imports once what a command imports, then is a new process for each command line: folder, arguments, environment.
SERVER = """
import json, os, sys
from assetbatch.cli import main
import assetbatch.cli.job, assetbatch.database.retries, assetbatch.jobs.enqueue, assetbatch.provider.transport
import assetbatch.cli.main, assetbatch.jobs.priority, psycopg

NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
for line in sys.stdin:
    folder, arguments, environment, patch = json.loads(line)
    if not (child := os.fork()):
        os.chdir(folder)
        for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "stdout", NEW), (2, "stderr", NEW)):
            os.dup2(os.open(name, flags, 0o600), number)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["assetbatch", *arguments]
        exec(patch)
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


END_EARLY = """
from datetime import UTC, datetime
from assetbatch.failures import FailureKind
from assetbatch.model import RunResult, RunStatus, Trouble
at, slow = datetime.now(UTC), Trouble(FailureKind.TIMEOUT, "too slow")
result = RunResult("run-priority", 1, RunStatus.FAILED, 69, at, at, remaining=%s, ended_by=slow)
assetbatch.jobs.priority.run_priority = lambda *_, **__: result
"""


class Run(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Cron:
    """Runs command lines as cron does, without a terminal, and without importing everything for each."""

    def __init__(self, commands: Commands, server: subprocess.Popen[str]) -> None:
        self.commands = commands
        self.environment = commands.environment
        self.folder = commands.folder
        self._server = server

    def __call__(self, *arguments: str, patch: str = "", **environment: str) -> Run:
        assert self._server.stdin
        assert self._server.stdout
        order = [str(self.folder), arguments, self.environment | environment, patch]
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        exit_code = int(self._server.stdout.readline())
        return Run(exit_code, *((self.folder / name).read_text() for name in ("stdout", "stderr")))


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported what a command imports, and becomes many."""
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, "-c", SERVER], env={}, stdin=pipe, stdout=pipe, text=True)
    yield server
    server.communicate(timeout=10)


@pytest.fixture
def cron(commands: Commands, server: subprocess.Popen[str]) -> Cron:
    """Without a limit: what a run may call is no matter here."""
    commands.environment |= {"POLYGON_RATE_LIMIT": "", "XDG_STATE_HOME": str(commands.folder / "state")}
    return Cron(commands, server)


@pytest.fixture
def state(cron: Cron) -> Path:
    return cron.folder / "state" / "assetbatch" / told.FILE


@pytest.fixture
def wait(state: Path) -> Callable[[float], None]:
    """Let time pass: move what was told into the past."""

    def move(seconds: float) -> None:
        rows = msgspec.json.decode(state.read_bytes())
        for row in rows:
            row |= {name: row[name] - seconds for name in ("since", "seen", "told", "end_told")}
        state.write_bytes(msgspec.json.encode(rows))

    return move


def test_a_broken_key_is_told_once_then_hourly_then_that_it_is_well_again(
    cron: Cron, state: Path, wait: Callable[[float], None]
) -> None:
    runs = [cron("run-priority", POLYGON_API_KEY=WRONG_KEY) for _ in range(3)]
    wait(2 * HOUR)
    runs += [cron("run-priority", POLYGON_API_KEY=WRONG_KEY) for _ in range(2)]
    kept = state.read_text()
    well = [cron("run-priority") for _ in range(2)]

    assert [run.returncode for run in runs] == 5 * [77]
    first, *others = [run.stderr for run in runs]
    assert first.startswith("assetbatch run-priority: the API refused the key\n  XAUUSD, EURUSD, BTCUSD: key_refused")
    assert "Next: check POLYGON_API_KEY" in first
    assert others[:2] == ["", ""]
    assert others[2].startswith("assetbatch run-priority: still: key_refused: ")
    assert others[2].endswith(", for 2 hours, 4 runs\n")
    assert others[3] == ""
    assert [run.returncode for run in well] == [0, 0]
    assert [run.stderr for run in well] == ["assetbatch run-priority: well again after 2 hours, 5 runs failed\n", ""]
    assert WRONG_KEY not in kept


def test_with_json_each_is_one_line_of_json(cron: Cron, wait: Callable[[float], None]) -> None:
    runs = [cron("run-priority", "--json", POLYGON_API_KEY=WRONG_KEY) for _ in range(2)]
    wait(90 * 60)
    runs += [cron("run-priority", "--json", POLYGON_API_KEY=WRONG_KEY), cron("run-priority", "--json")]

    assert all(json.loads(run.stdout)["job"] == "run-priority" for run in runs)
    assert runs[1].stderr == ""
    first, third, last = [json.loads(run.stderr) for run in runs if run.stderr]
    assert {failure["kind"] for failure in first["failed"]} == {"key_refused"}
    assert "repeated" not in first
    assert (third["schema"], third["command"], third["exit_code"], third["repeated"], third["runs"]) == (
        "assetbatch.trouble/1",
        "run-priority",
        77,
        True,
        3,
    )
    assert third["seconds"] >= 90 * 60
    assert (last["exit_code"], last["ended"], last["runs"]) == (0, True, 3)


def test_a_database_that_is_away_is_told_once_although_nothing_can_be_stored(
    cron: Cron, database: str, wait: Callable[[float], None]
) -> None:
    patch = "from assetbatch.cli import job; job.JOB_PATIENCE_SECONDS = 0"
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]

    def allow(connections: bool) -> None:
        with psycopg.connect(database, dbname="postgres", autocommit=True) as administrator:
            administrator.execute(f'alter database "{name}" allow_connections {connections}')

    allow(False)
    runs = [cron("run-priority", patch=patch) for _ in range(2)]
    wait(HOUR)
    runs.append(cron("run-priority", patch=patch))
    allow(True)

    assert [run.returncode for run in runs] == 3 * [69]
    first, second, third = [run.stderr for run in runs]
    assert "is not currently accepting connections\n  Next: is PostgreSQL running" in first
    assert second == ""
    assert third.startswith("assetbatch run-priority: still: ")
    assert third.endswith(", for 60 minutes, 3 runs\n")
    assert cron("run-priority").stderr == ("assetbatch run-priority: well again after 60 minutes, 3 runs failed\n")


def test_a_database_that_is_read_only_is_named_as_that(cron: Cron, database: str, connection: Connection) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    connection.execute(f'alter database "{name}" set default_transaction_read_only = on')

    run = cron("run-priority")

    assert run.returncode == 69
    assert " is read only: cannot execute " in run.stderr
    assert "Next: name the primary server, not a standby" in run.stderr


@pytest.mark.parametrize(("remaining", "waiting"), [(None, ""), (4, "; 4 on the queue")])
def test_an_early_end_tells_what_waits_on_the_queue_where_that_has_a_part_in_it(
    cron: Cron, remaining: int | None, waiting: str
) -> None:
    run = cron("run-priority", patch=END_EARLY % remaining)

    assert run.returncode == 69
    assert run.stderr.startswith(
        f"assetbatch run-priority: ended early, after 0 assets{waiting}\n  timeout: too slow\n"
    )


@pytest.mark.parametrize(
    ("closed", "arguments", "key", "exit_code"),
    [
        ("<&-", ("symbols", "import", "-"), API_KEY, 2),
        (">&-", ("run-priority", "--json"), API_KEY, 0),
        ("2>&-", ("run-priority",), WRONG_KEY, 77),
        ("<&- >&- 2>&-", ("run-priority", "--json"), API_KEY, 0),
    ],
)
def test_a_stream_that_is_closed_is_no_trouble(
    commands: Commands, connection: Connection, closed: str, arguments: tuple[str, ...], key: str, exit_code: int
) -> None:
    line = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "assetbatch", *arguments]
    done = commands.run(line, POLYGON_API_KEY=key)

    assert (done.returncode, "Traceback" in done.stderr) == (exit_code, False)
    runs = connection.execute("select exit_code from assetbatch.runs").fetchall()
    assert runs == ([{"exit_code": exit_code}] if "run-priority" in arguments else [])


def test_causes_that_alternate_are_told_once_each(cron: Cron, sandbox: Sandbox) -> None:
    runs = []
    for _ in range(2):
        runs.append(cron("run-priority", POLYGON_API_KEY=WRONG_KEY))
        sandbox.fail = ["403-entitled"]
        runs.append(cron("run-priority"))
        sandbox.fail = []

    assert [run.returncode for run in runs] == [77, 3, 77, 3]
    assert ["the API refused the key" in runs[0].stderr, "not_entitled" in runs[1].stderr] == [True, True]
    assert [run.stderr for run in runs[2:]] == ["", ""]


@pytest.mark.parametrize("place", ["/proc", "a file"])
def test_where_nothing_can_be_kept_all_is_told_each_time(cron: Cron, place: str) -> None:
    (cron.folder / "a file").touch()
    cron.environment["XDG_STATE_HOME"] = str(cron.folder / place)

    runs = [cron("run-priority", POLYGON_API_KEY="") for _ in range(2)]

    assert [run.returncode for run in runs] == [78, 78]
    assert runs[0].stderr.startswith("assetbatch run-priority: POLYGON_API_KEY: no API key is given")
    assert runs[1].stderr == runs[0].stderr


def test_two_at_once_tell_once(cron: Cron, wait: Callable[[float], None]) -> None:
    def both() -> list[str]:
        running = [cron.commands.start("run-priority", POLYGON_API_KEY="") for _ in range(2)]
        ended = [process.communicate(timeout=30)[1] for process in running]
        assert [process.returncode for process in running] == [78, 78]
        return sorted(text.splitlines()[0] if text else "" for text in ended)

    nothing, block = both()
    wait(HOUR)
    silence, still = both()

    assert (nothing, silence) == ("", "")
    assert block.startswith("assetbatch run-priority: POLYGON_API_KEY: no API key")
    assert still.endswith((", for 60 minutes, 3 runs", ", for 60 minutes, 4 runs"))


def test_another_configuration_or_database_is_another_matter(cron: Cron) -> None:
    for name in ("one.yaml", "two.yaml"):
        (cron.folder / name).write_text("provider: {plan: starter}\n")
    other = "postgresql://u@127.0.0.1:9/other"
    lines = [(["--config", name], cron.environment["DATABASE_URL"]) for name in ("one.yaml", "two.yaml")] + [
        ([], other)
    ]

    def run() -> list[str]:
        return [cron(*options, "run-priority", POLYGON_API_KEY="", DATABASE_URL=url).stderr for options, url in lines]

    assert all("no API key is given" in text for text in run())
    assert run() == ["", "", ""]


def test_a_person_is_told_everything_each_time(cron: Cron) -> None:
    with terminal() as shown:
        for _ in range(2):
            cron.commands("run-priority", streams={"stderr": shown.theirs}, POLYGON_API_KEY="")

    assert shown.seen.count(b"no API key is given") == 2
    verbose = [cron("-v", "run-priority", POLYGON_API_KEY="").stderr for _ in range(2)]
    assert all("no API key is given" in text for text in verbose)
    # What is started by hand, or by a script that wants to know, is not cron's.
    asked = [cron("queue", "retry", "NONE").stderr for _ in range(2)]
    assert all("no dead letter" in text for text in asked)
    assert not (cron.folder / "state").exists()


def test_a_bug_is_told_with_its_traceback_once(cron: Cron, wait: Callable[[float], None]) -> None:
    patch = "def broken(*_, **__): raise ValueError('of all things')\nassetbatch.jobs.priority.run_priority = broken"
    runs = [cron("run-priority", patch=patch) for _ in range(2)]
    wait(HOUR)
    runs.append(cron("run-priority", patch=patch))

    assert [run.returncode for run in runs] == [1, 1, 1]
    assert "Traceback" in runs[0].stderr
    assert "ValueError: of all things" in runs[0].stderr
    assert runs[1].stderr == ""
    still = "still: an unexpected error (ValueError): this is a bug, for 60 minutes, 3 runs"
    assert runs[2].stderr == f"assetbatch run-priority: {still}\n"


def test_warnings_of_good_runs_are_told_once_and_end(cron: Cron, wait: Callable[[float], None]) -> None:
    runs = [cron("enqueue-secondary", QUEUE_MAX_SIZE="1") for _ in range(2)]
    wait(HOUR)
    runs += [cron("enqueue-secondary", QUEUE_MAX_SIZE="1"), cron("enqueue-secondary")]

    assert [run.returncode for run in runs] == 4 * [0]
    first, second, third, last = [run.stderr for run in runs]
    assert first.startswith("assetbatch enqueue-secondary: done, but\n  the queue is full: 3 of the assets")
    assert second == ""
    assert third.startswith("assetbatch enqueue-secondary: still: the queue is full: 3 of the assets")
    assert last.startswith(
        "assetbatch enqueue-secondary: ended after 60 minutes, 3 runs: the queue is full: 3 of the assets"
    )
    assert cron("-q", "enqueue-secondary", "--all", QUEUE_MAX_SIZE="1").stderr == ""


def test_warnings_of_the_log_are_told_once_and_end(cron: Cron, connection: Connection) -> None:
    away = "redis://127.0.0.1:9/0"
    runs = [cron("--log-format", "journald", "run-priority", REDIS_URL=away) for _ in range(2)]
    runs.append(cron("run-priority"))

    assert [run.returncode for run in runs] == [0, 0, 0]
    assert runs[0].stderr.startswith("<4>")
    assert "events wait" in runs[0].stderr
    assert runs[1].stderr == ""
    assert runs[2].stderr.startswith("assetbatch run-priority: ended after less than a minute, 2 runs: events wait")


def test_trouble_has_its_priority_in_the_journal_and_is_json_in_a_log_of_json(cron: Cron) -> None:
    plain = cron("--log-format", "journald", "status", DATABASE_URL="postgresql://u@127.0.0.1:9/db").stderr
    document = cron("--log-format", "json", "status", DATABASE_URL="postgresql://u@127.0.0.1:9/db").stderr

    assert all(line.startswith("<3>") for line in plain.splitlines())
    assert json.loads(document)["exit_code"] == 69
