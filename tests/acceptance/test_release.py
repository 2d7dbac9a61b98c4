"""scripts/release, whole: a version is prepared, refused, and made, in a clone. That takes a package index."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ran

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_a_tag_makes_checked_packages_and_the_notes_of_its_version(tmp_path: Path) -> None:
    clone = tmp_path / "a clone"
    who = {f"GIT_{role}_{what}": "nobody@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | who | {"PYTHON": sys.executable}

    def run(*command: str, code: int = 0) -> str:
        done = ran(command, cwd=clone, env=environment, timeout=None)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    assert ran(["git", "clone", "--quiet", ROOT, clone]).returncode == 0
    run("scripts/release", "prepare", "7.8.9")
    run("git", "commit", "--quiet", "--all", "--message", "Release 7.8.9")

    refused = run("scripts/release", "final", code=1)
    assert "no tag v7.8.9" in refused
    pyproject = clone / "pyproject.toml"
    if "[project.urls]" not in pyproject.read_text():
        assert "[project.urls]" in refused
        urls = '[project.urls]\nSource = "https://forge.example/assetbatch"\n'
        pyproject.write_text(pyproject.read_text().replace("[project.scripts]", f"{urls}\n[project.scripts]"))
        run("git", "commit", "--quiet", "--all", "--message", "Name the address")
    run("git", "tag", "v7.8.9")
    (clone / "README.md").write_text("changed\n")
    assert "not committed" in run("scripts/release", "final", code=1)
    run("git", "checkout", "--quiet", "README.md")
    assert not (clone / "dist").exists()

    run("scripts/release", "final")

    names = {"assetbatch-7.8.9-py3-none-any.whl", "assetbatch-7.8.9.tar.gz"}
    made = {file.name: file.read_bytes() for file in (clone / "dist" / "packages").iterdir()}
    assert made.keys() == names
    listed = [line.split() for line in (clone / "dist" / "SHA256SUMS").read_text().splitlines()]
    assert {name: digest for digest, name in listed} == {
        name: hashlib.sha256(content).hexdigest() for name, content in made.items()
    }
    assert (clone / "dist" / "notes.md").read_text().startswith("### ")
    assert run("git", "status", "--porcelain") == ""

    # The same commit is the same bytes, wherever and by whomever it is built.
    shutil.move(clone, clone := tmp_path / "elsewhere")
    previous = os.umask(0o077)
    try:
        run("scripts/release", "final")
    finally:
        os.umask(previous)
    assert {file.name: file.read_bytes() for file in (clone / "dist" / "packages").iterdir()} == made
