"""stdout and stderr that cannot be written, and folders that are gone or closed: a sentence and an exit code each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.database.embedded import EmbeddedServer
from tests.conftest import API_KEY, Commands, ran

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.database.connection import Connection

ASSETBATCH = [sys.executable, "-m", "assetbatch"]
# Python itself needs a folder for `-m`.
PROGRAM = [
    sys.executable,
    "-P",
    "-c",
    "import sys; from assetbatch.cli import main; sys.argv[0] = 'assetbatch'; main()",
]
FULL = "the answer could not be written: No space left on device"


def shell(
    commands: Commands, line: str, *words: str, program: Sequence[str] = ASSETBATCH, **environment: Any
) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which "$@" is the command."""
    return commands.run(["bash", "-c", f"set -o pipefail; {line}", "bash", *program, *words], **environment)


ANSWERS = [
    "--help",
    "--version",
    "status -h",
    "status",
    "status --json",
    "config show --defaults",
    "config schema",
    "queue list",
    "symbols list --json",
    "forecast",
    "doctor",
    "metrics",
    "init",
    "init --grants me",
    "events tail --no-follow",
    "database stop",
]
# One of each kind: by the program, by the parser, a table, JSON, text for other programs, rows as they come, a note.
KINDS = ["--version", "status -h", "status", "status --json", "metrics", "events tail --no-follow", "database stop"]


@pytest.fixture
def filled(commands: Commands, connection: Connection) -> Commands:
    """With an event, for `events tail`."""
    commands("run-priority")
    commands.environment["XDG_DATA_HOME"] = str(commands.folder)
    return commands


def test_an_answer_for_a_full_disk_is_done_in_part(filled: Commands) -> None:
    for words in ANSWERS:
        done = shell(filled, '"$@" >/dev/full', *words.split())

        assert FULL in done.stderr, words
        assert done.stderr.count("\n") <= 2
        assert done.returncode == 3, words


def test_a_reader_who_has_seen_enough_is_no_trouble(filled: Commands) -> None:
    for words in KINDS:
        done = shell(filled, '"$@" | true', *words.split())

        assert (done.returncode, done.stderr) == (0, ""), words


def test_a_command_that_failed_says_that_first(filled: Commands) -> None:
    for line in ('"$@" >/dev/full', '"$@" | true', '"$@" >&-'):
        assert shell(filled, line, "status", POLYGON_TIER="none").returncode == 78
        assert shell(filled, line, "queue", "retry", "NONE").returncode == 2
        # Critical, and not 3, which would say that this is not known.
        away = "postgresql://u@127.0.0.1:9/db"
        assert shell(filled, line, "status", "--check", DATABASE_URL=away).returncode == 2


@pytest.mark.parametrize("words", ["run-priority", "drain-queue --max-seconds 3", "enqueue-secondary", "backfill"])
def test_a_job_that_cannot_print_its_summary_has_done_its_work(
    commands: Commands, connection: Connection, words: str
) -> None:
    done = shell(commands, '"$@" --json >/dev/full', *words.split(), POLYGON_RATE_LIMIT="unlimited")

    assert done.returncode == 0
    assert (trouble := json.loads(done.stderr.splitlines()[-1]))["exit_code"] == 0
    assert FULL in trouble["reason"]
    runs = connection.execute("select status, exit_code from assetbatch.runs").fetchall()
    assert runs == [{"status": "ok", "exit_code": 0}]


def test_a_job_that_failed_ends_so_wherever_its_summary_goes(commands: Commands) -> None:
    for line in ('"$@" --json >/dev/full', '"$@" --json | true', '"$@" --json 2>/dev/full', '"$@" >/dev/full 2>&1'):
        assert shell(commands, line, "run-priority", POLYGON_API_KEY="wrong").returncode == 77


def test_trouble_that_cannot_be_told_leaves_the_exit_code(commands: Commands) -> None:
    for line in ('"$@" 2>/dev/full', '"$@" >/dev/full 2>/dev/full', '"$@" 2>&-', '"$@" 2> >(true)'):
        assert shell(commands, line, "-vv", "status", DATABASE_URL="postgresql://u@127.0.0.1:9/d").returncode == 69
        assert shell(commands, line, "none").returncode == 2
    for line in ('"$@" 2>/dev/full', '"$@" 2>&-'):
        assert shell(commands, line, "-vv", "forecast").returncode == 0


def test_an_answer_is_whole_where_stderr_is_full(commands: Commands) -> None:
    done = shell(commands, '"$@" 2>/dev/full', "-vv", "run-priority", "--json")

    assert json.loads(done.stdout)["status"] == "ok"


# Folders


def in_a_deleted_folder(commands: Commands, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (commands.folder / "gone").mkdir(exist_ok=True)
    return shell(commands, 'cd gone && rmdir ../gone && exec "$@"', *words, program=PROGRAM, **environment)


def test_a_working_folder_that_is_gone_is_no_trouble_where_nothing_in_it_is_needed(commands: Commands) -> None:
    named = ["--config", str(commands.folder / "config.yaml")]
    for words in (["run-priority"], ["status"], ["queue", "list"], ["config", "check"], ["doctor", "--json"], ["init"]):
        done = in_a_deleted_folder(commands, *words, *named)

        assert (done.returncode, done.stderr) == (0, ""), words
    assert in_a_deleted_folder(commands, "run-priority").returncode == 0
    assert in_a_deleted_folder(commands, _ASSETBATCH_COMPLETE="source_bash").stdout.count("complete") > 1
    shown = in_a_deleted_folder(
        commands, _ASSETBATCH_COMPLETE="complete_bash", COMP_WORDS="assetbatch do", COMP_CWORD="1"
    )
    assert (shown.stdout.strip(), shown.stderr) == ("doctor", "")


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        ("--config config.yaml status", 78, "--config: config.yaml does not exist"),
        ("status", 78, "no config.yaml was found: database: no database is named"),
        ("doctor", 78, ""),
        ("metrics --output metrics.prom", 2, "cannot be written: No such file or"),
        ("symbols import assets.csv", 2, "does not exist"),
    ],
)
def test_a_file_in_a_working_folder_that_is_gone_does_not_exist(
    commands: Commands, words: str, exit_code: int, told: str
) -> None:
    database = commands.environment.pop("DATABASE_URL") if exit_code == 78 else ""
    done = in_a_deleted_folder(commands, *words.split())

    assert done.returncode == exit_code, database
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def embedded(short_folder: Path) -> Iterator[Commands]:
    """An embedded server of one's own, as a home has it; running."""
    folder = short_folder / "home"
    folder.mkdir()
    (folder / "config.yaml").write_text("database: {embedded: true}\n")
    commands = Commands(folder, {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder)})
    assert commands("init").returncode == 0
    yield commands
    EmbeddedServer(folder / "assetbatch").stop()
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to mount")
def test_with_a_home_that_became_read_only_the_embedded_server_stops_and_then_says_why_it_does_not_start(
    embedded: Commands,
) -> None:
    place = embedded.folder
    mounted = f"mount --bind {place} {place} && mount -o remount,ro,bind {place} {place} && cd {place} && exec"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        # Only there is the folder read-only.
        return ran(
            ["unshare", "--mount", "sh", "-c", f'{mounted} "$@"', "sh", *ASSETBATCH, *words],
            env=embedded.environment | {"XDG_STATE_HOME": str(place / "state"), "POLYGON_API_KEY": API_KEY},
            stdin=subprocess.DEVNULL,
        )

    assert run("status").returncode == 0
    stopped = [run("database", "stop") for _ in range(2)]
    assert [one.returncode for one in stopped] == [0, 0], stopped
    assert [one.stdout.rpartition(": ")[2] for one in stopped] == ["stopped\n", "was not running\n"]
    for words in ("status", "init", "run-priority"):
        done = run(*words.split())

        assert done.returncode == 69
        assert "Read-only file system" in done.stderr
        assert "Next: is there room, and may this user write there?" in done.stderr


@pytest.mark.parametrize("home", ["/proc", "/dev/null", "missing/home", "relative", "file"])
def test_a_home_that_is_none_ends_no_command_with_a_traceback(commands: Commands, home: str) -> None:
    (commands.folder / "file").touch()
    home = str(commands.folder / home) if home in {"file", "missing/home"} else home
    commands.environment |= {"HOME": home} | {f"XDG_{kind}_HOME": home for kind in ("CONFIG", "DATA", "STATE")}
    if home == "relative" and os.geteuid() == 0:
        pytest.skip("root's folders are the system's then")
    for words in ("database stop", "config check", "doctor", "run-priority", "run-priority"):
        done = commands(*words.split())

        assert done.returncode == (3 if words == "doctor" else 0), (words, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_on_another_system_than_linux_it_says_so_and_why(commands: Commands, system: str) -> None:
    done = commands.python("-c", f"import sys; sys.platform = {system!r}; from assetbatch.cli import main; main()")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert done.stderr.startswith("assetbatch: this runs on Linux only: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_a_terminal_does_not_have_end_no_command(commands: Commands, encoding: str) -> None:
    odd = commands.folder / os.fsdecode(b"caf\xe9.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "assetbatch", "config", "init", "--output", odd],
        cwd=commands.folder,
        env=commands.environment | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )

    assert b"wrote " + os.fsencode(odd) in done.stdout
    assert "POLYGON_API_KEY=…".encode(encoding, "replace") in done.stdout
