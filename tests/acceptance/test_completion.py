"""Completion by a real bash: the script that the command prints, and what a shell is offered with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ran

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
    ],
)
def test_bash_is_offered_commands_options_and_words(
    environment: dict[str, str], script: Path, line: str, offered: list[str]
) -> None:
    assert BASH is not None
    printed = run(BASH, "--norc", "-c", ASK, "bash", script, line, **environment)

    assert sorted(printed.split()) == offered


def test_a_shell_is_told_its_own_script(environment: dict[str, str], script: Path) -> None:
    assert BASH is not None
    # The second command keeps bash from becoming the first: it has to be there to be recognised.
    printed = run(BASH, "--norc", "-c", "assetbatch --show-completion; exit $?", **environment)

    assert printed.strip() == script.read_text().strip()
