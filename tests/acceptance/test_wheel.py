"""The built wheel, installed without what only developers need. That takes a package index: only `-m slow` does it."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ran

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = ran(list(map(str, command)), cwd=folder, env=os.environ | environment, timeout=None)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """Root's server runs under an account that has to pass here."""
    with tempfile.TemporaryDirectory(prefix="assetbatch-data-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_it_holds_every_file_of_the_package_what_is_shipped_beside_it_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
        (manual,) = {name for name in held if name.partition("/")[0].endswith(".data")}

    files = (path for path in (ROOT / "assetbatch").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    shipped = [ROOT / "config.yaml", ROOT / "crontab.example", *(ROOT / "scripts" / "systemd").iterdir()]
    assert manual.endswith(".data/data/share/man/man1/assetbatch.1")
    assert held - {manual} == {path.relative_to(ROOT).as_posix() for path in files} | {
        f"assetbatch/shipped/{path.relative_to(ROOT).as_posix()}" for path in shipped
    }


def test_it_runs_with_what_it_names_as_needed(wheel: Path, database: str, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": database, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    (tmp_path / "config.yaml").touch()
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, folder=tmp_path)
    program = tmp_path / "venv/bin/assetbatch"

    assert run(program, "--version", folder=tmp_path).startswith("assetbatch ")
    for command in (["--help"], ["config", "schema"], ["init", "--grants", "jobs"], ["init"], ["status"], ["metrics"]):
        assert run(program, *command, folder=tmp_path, **environment)


def test_what_it_says_of_a_missing_extra_works_as_it_stands(wheel: Path, tmp_path: Path, data_folder: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "config.yaml").write_text("database: {embedded: true}\n")
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    run(folder / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, folder=folder)
    environment = {"XDG_DATA_HOME": str(data_folder), "XDG_STATE_HOME": str(folder), "PATH": os.environ["PATH"]}
    program = folder / "venv/bin/assetbatch"

    refused = ran([program, "init"], cwd=folder, env=environment)
    (hint,) = re.findall(r"Next: (.*)", refused.stderr)
    run("sh", "-c", hint, folder=tmp_path)

    assert refused.returncode == 78
    try:
        assert "migrations applied" in run(program, "init", folder=folder, **environment)
    finally:
        run(program, "database", "stop", folder=folder, **environment)


@pytest.mark.parametrize(
    ("tool", "install"), [("pipx", ["pipx", "install"]), ("uv", ["uv", "tool", "install"])], ids=["pipx", "uv"]
)
def test_a_tool_for_programs_installs_it_and_what_it_says_of_a_missing_extra(
    wheel: Path, tmp_path: Path, data_folder: Path, tool: str, install: list[str]
) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "tools", folder=tmp_path)
    run(tmp_path / "tools/bin/python", "-m", "pip", "install", "--quiet", tool, folder=tmp_path)
    places = {
        "UV_SYSTEM_CERTS": "1",  # as pip, which asks the same index
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "conf"),
        "XDG_DATA_HOME": str(data_folder),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_BIN_HOME": str(tmp_path / "bin"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PATH": f"{tmp_path}/tools/bin:{tmp_path}/bin:{os.environ['PATH']}",
    }

    def program(*arguments: str) -> str:
        return run("env", "assetbatch", *arguments, folder=tmp_path, **places)

    run("env", *install, wheel, folder=tmp_path, **places)
    program("config", "init")
    before = json.loads(program("--version", "--json"))
    refused = ran(["env", "assetbatch", "init"], cwd=tmp_path, env=os.environ | places)
    (hint,) = re.findall(r"Next: (.*)", refused.stderr)
    run("sh", "-c", hint, folder=tmp_path, **places)
    after = json.loads(program("--version", "--json"))

    assert refused.returncode == 78
    assert before["installed_by"] == {"uv": "uv tool"}.get(tool, tool)
    assert before["program"] == str(tmp_path / "bin" / "assetbatch")
    assert (before["extras"]["embedded"], before["editable"]) == (None, False)
    assert hint.startswith({"pipx": "pipx inject assetbatch ", "uv": "uv tool install --with "}[tool])
    assert after["extras"]["embedded"]
    block = json.loads(program("install", "cron", "--json"))["block"]
    assert f" {tmp_path}/bin/assetbatch --config {tmp_path}/conf/assetbatch/config.yaml run-priority\n" in block
    script = run("bash", "-c", "assetbatch --show-completion; exit $?", folder=tmp_path, **places)
    assert "complete -o default" in script
    try:
        program("init")
        program("database", "dump", "--output", str(tmp_path / "a.dump"))
        program("database", "restore", "--yes", str(tmp_path / "a.dump"))
        assert program("database", "psql", "-Atc", "select count(*) from assetbatch.runs") == "0\n"
        assert program("database", "path").startswith(f"{data_folder}/assetbatch/postgresql-")
        assert program("database", "url").startswith("postgresql://")
    finally:
        program("database", "stop")
