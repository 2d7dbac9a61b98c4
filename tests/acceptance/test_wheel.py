"""The built wheel, installed without what only developers need. That takes a package index: only `-m slow` does it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_package_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}

    files = (path for path in (ROOT / "assetbatch").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {path.relative_to(ROOT).as_posix() for path in files}


def test_it_runs_with_what_it_names_as_needed(wheel: Path, database: str, tmp_path: Path) -> None:
    environment = {"DATABASE_URL": database, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    (tmp_path / "config.yaml").touch()
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, folder=tmp_path)
    program = tmp_path / "venv/bin/assetbatch"

    assert run(program, "--version", folder=tmp_path).startswith("assetbatch ")
    for command in (["--help"], ["config", "schema"], ["init", "--grants", "jobs"], ["init"], ["status"], ["metrics"]):
        assert run(program, *command, folder=tmp_path, **environment)
