"""Every block of commands in the documentation does what it says: it is run, in the order of its page."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.pages import PAGES, PROJECT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.pages import Block

KEY = "sandbox"
STREAM_ABOVE = 1000
# A page that starts a sandbox is tried with the budget that it tells of, and waits for it.
OWN_SANDBOX = "assetbatch sandbox"
SECONDS = 600
# The program as a page finds it; a sandbox has a port of its own, since tests run side by side.
PROGRAM = """#!/bin/sh
if [ "$1" = sandbox ]; then
    shift
    set -- sandbox --port {port} "$@"
fi
exec {python} -m assetbatch "$@"
"""
# How it ends tells which block it was in, and at which command. What it has started ends with it.
BEGIN = """set -eo pipefail
trap 'echo "@failed: $BASH_COMMAND"' ERR
trap 'kill $(jobs -p) 2>/dev/null || :' EXIT
"""
SHELL = {
    "sh": "{text}",
    "sql": "assetbatch database psql -v ON_ERROR_STOP=1 <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n",
    "python": "python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n",
}


def pages() -> Iterator[object]:
    for page in PAGES:
        found = [block for block in blocks(page) if block.is_run]
        if found:
            yield pytest.param(found, id=str(page.relative_to(PROJECT)))


def free_port() -> int:
    """Return a port that is free, and whose stream's is."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + STREAM_ABOVE))
            except (OSError, OverflowError):
                continue
            return port


@pytest.fixture(scope="module")
def data_folder() -> Iterator[Path]:
    """Where the embedded server of all pages has its data; each page has a database of its own."""
    with tempfile.TemporaryDirectory(prefix="assetbatch-pages-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        subprocess.run(
            [sys.executable, "-m", "assetbatch", "database", "stop"],
            env=os.environ | {"XDG_DATA_HOME": folder},
            capture_output=True,
            check=True,
        )


@pytest.fixture
def clone(tmp_path: Path, data_folder: Path) -> Clone:
    return Clone(tmp_path, data_folder)


class Clone:
    """What somebody has who has cloned the project and run scripts/quickstart: its files, and an environment."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder / "assetbatch"
        self.port = free_port()
        shutil.copytree(PROJECT / "scripts", self.folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("config.yaml", "crontab.example", "README.md"):
            shutil.copy(PROJECT / name, self.folder)
        shutil.copytree(PROJECT / "docs", self.folder / "docs")
        config = self.folder / "scripts" / "sandbox.yaml"
        text = config.read_text().replace("127.0.0.1:8765", f"127.0.0.1:{self.port}")
        config.write_text(text.replace("name: sandbox", f"name: page_{self.port}"))
        programs = self.folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "assetbatch").write_text(PROGRAM.format(port=self.port, python=sys.executable))
        (programs / "assetbatch").chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
        home = folder / "home"
        home.mkdir()
        self.environment = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_DATA_HOME": str(data),
            "ASSETBATCH_CONFIG": "scripts/sandbox.yaml",
            "POLYGON_API_KEY": KEY,
        }

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell as somebody would who copies it, without a terminal."""
        with (self.folder / "told").open("w+") as told:
            done = subprocess.run(
                ["bash", "-c", BEGIN + script],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                check=False,
                text=True,
            )
            told.seek(0)
            done.stdout = told.read()
        return done


@pytest.mark.slow
@pytest.mark.parametrize("found", list(pages()))
def test_the_blocks_of_a_page_run_in_their_order(found: Sequence[Block], clone: Clone) -> None:
    with ExitStack() as stack:
        if not any(OWN_SANDBOX in block.text for block in found):
            sandbox = Sandbox(key=KEY, plan="starter", port=clone.port, stream_port=clone.port + STREAM_ABOVE)
            stack.enter_context(sandbox)
            clone.environment["POLYGON_RATE_LIMIT"] = "unlimited"
            prepared = clone.run("assetbatch init\nassetbatch run-priority\n")
            assert prepared.returncode == 0, prepared.stdout
        script = "".join(
            f"echo @block {number}\n{SHELL[block.language].format(text=block.text)}\n"
            for number, block in enumerate(found)
        )
        done = clone.run(script)

    numbers = re.findall(r"^@block (\d+)$", done.stdout, re.MULTILINE)
    last = found[int(numbers[-1])] if numbers else found[0]
    failed = re.findall(r"^@failed: (.*)$", done.stdout, re.MULTILINE)
    told = done.stdout.rpartition("@block")[2][-2000:]
    assert done.returncode == 0, f"{last.place}: {failed[-1:] or 'it'} exited with {done.returncode}:\n{told}"
