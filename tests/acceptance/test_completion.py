"""Completion by a real bash: the script that the command prints, and what a shell is offered with it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assetbatch.database.connection import Connection
from tests.conftest import ran, wait_until
from tests.world import add_assets

BASH = shutil.which("bash")
# What readline does on TAB: it calls the function that was registered for the command.
ASK = """
source "$1"
read -ra COMP_WORDS <<<"$2"
[[ $2 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p assetbatch | sed -E 's/.* -F ([^ ]+) .*/\\1/')
"$function" assetbatch "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

pytestmark = pytest.mark.skipif(BASH is None, reason="no bash on this machine")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `assetbatch` is a command."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "assetbatch"
    program.write_text(f"#!{sys.executable}\nfrom assetbatch.cli import main\n\nmain()\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}


def run(*command: str | Path, **environment: str) -> str:
    """Run a command without a terminal that goes well and says nothing on stderr; return its stdout."""
    done = ran(command, env=environment, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def script(environment: dict[str, str]) -> Path:
    """What bash sources, as a shell asks for it: without a terminal, and without an option."""
    file = Path(environment["HOME"]) / "completion.bash"
    file.write_text(run("assetbatch", _ASSETBATCH_COMPLETE="source_bash", **environment))
    return file


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("assetbatch run-", ["run-priority"]),
        ("assetbatch do", ["doctor"]),
        ("assetbatch config s", ["schema", "show"]),
        ("assetbatch database p", ["path", "psql"]),
        ("assetbatch database restore --y", ["--yes"]),
        ("assetbatch drain-queue --max-", ["--max-items", "--max-seconds"]),
        ("assetbatch --log-format j", ["journald", "json"]),
        ("assetbatch queue list --log-format j", ["journald", "json"]),
        ("assetbatch run-priority --q", ["--quiet"]),
        ("assetbatch symbols --conf", ["--config"]),
        ("assetbatch sandbox --plan d", ["developer"]),
        ("assetbatch sandbox --indices-plan ", ["advanced", "business", "free", "starter"]),
        ("assetbatch sandbox --fail ws-dr", ["ws-drop"]),
        ("assetbatch queue retry --kind not_e", ["not_entitled"]),
        ("assetbatch queue list --state d", ["dead", "delayed"]),
        ("assetbatch status --asset X", ["XAGUSD", "XAUUSD"]),
        ("assetbatch backfill --symbol EURUSD --symbol E", ["ETHUSDT", "EURUSD"]),
        ("assetbatch bars export --symbol GB", ["GBPUSD"]),
        ("assetbatch chart BTC", ["BTCUSD"]),
        ("assetbatch queue retry GBP", ["GBPUSD"]),
        # Files are the shell's own.
        ("assetbatch --config ", []),
        ("assetbatch metrics --output ", []),
        ("assetbatch symbols import ", []),
        ("assetbatch database restore ", []),
    ],
)
def test_bash_is_offered_commands_options_and_words(
    environment: dict[str, str], script: Path, line: str, offered: list[str]
) -> None:
    assert BASH is not None
    printed = run(BASH, "--norc", "-c", ASK, "bash", script, line, **environment)

    assert sorted(printed.split()) == offered


def asked(environment: dict[str, str], script: Path, line: str, folder: Path, **more: str) -> list[str]:
    """What is offered in a folder; nothing is said on stderr, and it is soon there."""
    assert BASH is not None
    command: list[str | Path] = [BASH, "--norc", "-c", ASK, "bash", script, line]
    done = ran(command, env=environment | more, cwd=folder, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(done.stdout.split())


def test_symbols_are_those_of_the_file_that_is_named(environment: dict[str, str], script: Path, tmp_path: Path) -> None:
    rows = "{symbol: ADAUSD, polygon_ticker: 'X:ADAUSD', asset_type: crypto}"
    (tmp_path / "other.yaml").write_text(
        f"database: {{embedded: true}}\nbatch: {{priority_assets: [], secondary_assets: [{rows}]}}\n"
    )

    for line in ("assetbatch --config other.yaml status --asset ", "assetbatch status --config other.yaml --asset "):
        assert asked(environment, script, line, tmp_path) == ["ADAUSD"]


def test_symbols_of_the_database_are_offered_if_it_answers(
    environment: dict[str, str], script: Path, tmp_path: Path, database: str, connection: Connection
) -> None:
    add_assets(connection, "X:ZRXUSD")
    line = "assetbatch status --asset Z"

    # On a busy machine it may take longer than anybody waits; then somebody presses TAB again.
    assert wait_until(lambda: asked(environment, script, line, tmp_path, DATABASE_URL=database)) == ["ZRXUSD"]


def test_a_database_that_does_not_answer_holds_nobody_up_and_an_embedded_one_is_not_started(
    environment: dict[str, str], script: Path, tmp_path: Path
) -> None:
    line = "assetbatch status --asset XAU"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        url = f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/nothing"
        assert asked(environment, script, line, tmp_path, DATABASE_URL=url) == ["XAUUSD"]
        assert time.monotonic() - began < 5
    data = {"XDG_DATA_HOME": str(tmp_path / "data")}
    (tmp_path / "config.yaml").write_text("database: {embedded: true}\n")
    assert asked(environment, script, line, tmp_path, **data) == ["XAUUSD"]
    assert not (tmp_path / "data").exists()
    # With faults there is nothing to offer, and nothing to say.
    (tmp_path / "config.yaml").write_text("databas: {}\n")
    assert asked(environment, script, line, tmp_path, **data) == []


def test_a_shell_is_told_its_own_script(environment: dict[str, str], script: Path) -> None:
    assert BASH is not None
    # The second command keeps bash from becoming the first: it has to be there to be recognised.
    printed = run(BASH, "--norc", "-c", "assetbatch --show-completion; exit $?", **environment)

    assert printed.strip() == script.read_text().strip()
