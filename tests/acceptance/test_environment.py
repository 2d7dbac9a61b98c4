"""The virtual environments of scripts/: locked, oldest, newest. With pip, on a small project and packages on disk."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ran

ROOT = Path(__file__).parents[2]
LOCKS = {"requirements/run.txt", "requirements/test.txt"}
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "assetbatch"
version = "1.0"
dependencies = ["tiny >=1.0,<2"]

[project.optional-dependencies]
embedded = ["server[fast]>=3.1 ; python_version >= '3.11'"]
export = []

[dependency-groups]
test = ["checker>=1.0"]
"""
BACKEND = """
import pathlib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "assetbatch-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("assetbatch.pth", str(pathlib.Path.cwd()))
        info = "assetbatch-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: assetbatch\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", WHEEL)
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Machine:
    """A fresh one: a clone of a project, an empty home, and an index, which is a folder here."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "a clone"

    def release(self, name: str, version: str, *, needs: str = "") -> str:
        """Put a wheel into the index; return its line of a lock."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: fast\n"
        wheel = self.folder / "index" / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as opened:
            opened.writestr(f"{name}.py", "")
            opened.writestr(f"{info}/METADATA", metadata + (f"Requires-Dist: {needs}\n" if needs else ""))
            opened.writestr(f"{info}/WHEEL", WHEEL)
            opened.writestr(f"{info}/RECORD", "")
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"

    def lock(self, name: str, *lines: str) -> None:
        (self.project / "requirements" / f"{name}.txt").write_text("".join(lines))

    def ensure(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "PYTHON": sys.executable,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": (self.folder / "index").as_uri(),
        }
        script = 'project=$1; shift; . "$project/scripts/_environment"; ensure_environment "$@"'
        command = ["sh", "-euc", script, "sh", str(self.project), *arguments]
        return ran(command, cwd=self.folder / "home", env=environment, timeout=None)

    def installed(self, environment: str = ".venv") -> dict[str, str]:
        """Return what pip brought into an environment, the project too."""
        folders = self.project.glob(f"{environment}/lib/python*/site-packages/*.dist-info")
        found = dict(folder.name.removesuffix(".dist-info").split("-") for folder in folders)
        return {name: version for name, version in found.items() if name not in {"pip", "setuptools"}}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    for folder in ("home", "index", "a clone/scripts", "a clone/requirements"):
        (tmp_path / folder).mkdir(parents=True)
    (machine.project / "pyproject.toml").write_text(PYPROJECT)
    (machine.project / "backend.py").write_text(f"WHEEL = {WHEEL!r}\n{BACKEND}")
    shutil.copy(ROOT / "scripts" / "_environment", machine.project / "scripts")
    return machine


@pytest.mark.slow
def test_the_environment_has_what_is_locked_and_follows_it(machine: Machine) -> None:
    tiny, newer = machine.release("tiny", "1.0"), machine.release("tiny", "1.1", needs="below>=4")
    server, checker, below = (machine.release(*of) for of in (("server", "3.1"), ("checker", "1.0"), ("below", "4.0")))
    machine.lock("run", tiny, server)
    machine.lock("test", tiny, server, checker)
    run = {"assetbatch": "1.0", "tiny": "1.0", "server": "3.1"}

    first = machine.ensure("run")
    assert (first.returncode, machine.installed()) == (0, run)
    assert "locked versions" in first.stderr
    assert machine.ensure("run").stderr == ""

    assert machine.ensure("test").returncode == 0
    assert machine.installed() == run | {"checker": "1.0"}
    assert machine.ensure("run").stderr == machine.ensure("test").stderr == ""

    machine.lock("test", newer, server, checker, below)
    assert machine.ensure("run").returncode == 0
    assert machine.installed() == run | {"checker": "1.0", "tiny": "1.1", "below": "4.0"}


@pytest.mark.slow
def test_the_oldest_and_the_newest_versions_have_environments_of_their_own(machine: Machine) -> None:
    tiny = machine.release("tiny", "1.0")
    machine.release("tiny", "1.1", needs="below>=4")
    machine.release("tiny", "2.0")
    server, checker, _ = (machine.release(*of) for of in (("server", "3.1"), ("checker", "1.0"), ("below", "4.0")))
    machine.release("server", "3.2")
    machine.lock("test", tiny, server, checker)
    run = {"assetbatch": "1.0", "tiny": "1.0", "server": "3.1"}
    assert machine.ensure("test").returncode == 0

    assert machine.ensure("test", "oldest").returncode == 0
    assert machine.installed(".venv-oldest") == run | {"checker": "1.0"}
    assert machine.ensure("test", "oldest").stderr == ""

    assert machine.ensure("test", "newest").returncode == 0
    newest = run | {"checker": "1.0", "tiny": "1.1", "server": "3.2", "below": "4.0"}
    assert machine.installed(".venv-newest") == newest
    machine.release("below", "4.1")
    assert machine.ensure("test", "newest").returncode == 0
    assert machine.installed(".venv-newest") == newest | {"below": "4.1"}
    assert machine.installed() == run | {"checker": "1.0"}


@pytest.mark.slow
def test_what_is_not_as_the_lock_says_is_refused(machine: Machine) -> None:
    tiny, server = machine.release("tiny", "1.0"), machine.release("server", "3.1", needs="below>=4")
    machine.release("below", "4.0")
    trap = machine.folder / "trap"
    source = {
        "setup.py": f"from pathlib import Path\nPath({str(trap)!r}).touch()\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: below\nVersion: 5.0\n",
    }
    with tarfile.open(machine.folder / "index" / "below-5.0.tar.gz", "w:gz") as archive:
        for name, text in source.items():
            member = tarfile.TarInfo(f"below-5.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    built = hashlib.sha256((machine.folder / "index" / "below-5.0.tar.gz").read_bytes()).hexdigest()
    other = hashlib.sha256(b"another file").hexdigest()
    for lock, word in (
        (f"tiny==1.0 --hash=sha256:{other}\n", "DO NOT MATCH THE HASHES"),
        ("tiny==1.0\n", "Hashes are required"),
        (tiny + server, "below"),
        (f"{tiny}{server}below==5.0 --hash=sha256:{built}\n", "below==5.0"),
        (tiny.replace("1.0", "1.7"), "tiny==1.7"),
    ):
        machine.lock("run", lock)
        done = machine.ensure("run")
        assert done.returncode == 1
        assert word in done.stderr
        assert "takes only files whose hashes are in requirements/run.txt" in done.stderr
        assert machine.installed() == {}
    assert not trap.exists()

    machine.lock("run", tiny)
    assert machine.ensure("run").returncode == 0
    assert machine.installed() == {"assetbatch": "1.0", "tiny": "1.0"}


@pytest.mark.slow
def test_an_installation_that_failed_half_way_is_not_taken_for_the_one_before(machine: Machine) -> None:
    tiny, newer = machine.release("tiny", "1.0"), machine.release("tiny", "1.1")
    backend = machine.project / "backend.py"
    machine.lock("run", tiny)
    assert machine.ensure("run").returncode == 0
    machine.lock("run", newer)
    backend.write_text("raise SystemExit('broken')")
    assert machine.ensure("run").returncode == 1
    assert machine.installed()["tiny"] == "1.1"

    machine.lock("run", tiny)
    backend.write_text(f"WHEEL = {WHEEL!r}\n{BACKEND}")

    assert machine.ensure("run").returncode == 0
    assert machine.installed()["tiny"] == "1.0"


@pytest.mark.slow
def test_a_python_that_the_lock_does_not_know_gets_the_newest_and_is_told(machine: Machine) -> None:
    machine.release("tiny", "1.0")
    machine.release("tiny", "1.1")
    machine.release("server", "3.1")
    machine.lock("run", "tiny==1.0\n")
    script = machine.project / "scripts" / "_environment"
    assert script.read_text().count("(3, 15)") == 1
    script.write_text(script.read_text().replace("(3, 15)", "(3, 11)"))

    done = machine.ensure("run")

    assert (done.returncode, machine.installed()["tiny"]) == (0, "1.1")
    assert "knows Python 3.11 to 3.14, and this is 3." in done.stderr
    assert machine.ensure("run").stderr == ""


@pytest.mark.slow
def test_a_clean_clone_with_an_empty_home_runs_the_tests_with_the_lock_and_nothing_else(tmp_path: Path) -> None:
    clone, home = tmp_path / "a clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHON": sys.executable}

    def run(*command: str | Path) -> str:
        done = ran(command, cwd=home, env=environment, timeout=None)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "passed" in run(clone / "scripts" / "test", "-n", "0", "tests/unit/test_lock.py")
    lock = (clone / "requirements" / "test.txt").read_text()
    for line in run(clone / ".venv/bin/python", "-m", "pip", "freeze", "--exclude-editable").splitlines():
        assert f"\n{line.lower().replace('_', '-')} " in lock

    # The lock leads nowhere that its own packages do not, on any Python that it is for.
    before = [line for line in lock.splitlines() if "==" in line]
    run(clone / "scripts" / "lock", "--no-upgrade")
    assert [line for line in (clone / "requirements" / "test.txt").read_text().splitlines() if "==" in line] == before
    assert set(run("git", "-C", clone, "diff", "--name-only").split()) <= LOCKS
    assert run("git", "-C", clone, "ls-files", "--others", "--exclude-standard") == ""
