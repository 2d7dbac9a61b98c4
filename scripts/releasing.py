"""The steps of scripts/release, which starts this with the tools beside it."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from datetime import UTC, date, datetime
from email.parser import Parser
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
VERSION_FILE = Path("assetbatch/__init__.py")
UNRELEASED = "Unreleased"
_VERSION = re.compile(r'^__version__ = "(.*)"$', re.MULTILINE)
_HEADING = re.compile(r"^## (?P<title>\S+)(?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)


class RefusedError(Exception):
    """Why there is no release; its text is a sentence for people."""


def sections(changelog: str) -> dict[str, str]:
    """Return what CHANGELOG.md says below each heading, "Unreleased" or a version, newest first."""
    _, *parts = re.split(r"^(?=## )", changelog, flags=re.MULTILINE)
    found = {}
    for part in parts:
        heading = _HEADING.match(part)
        if heading is None or (heading["title"] == UNRELEASED) == bool(heading["date"]):
            raise RefusedError(
                f'CHANGELOG.md: "{part.splitlines()[0]}" is neither "## Unreleased" nor "## 1.2.3 - DATE"'
            )
        found[heading["title"]] = part[heading.end() :].strip()
    return found


def notes(changelog: str, version: str) -> str:
    """Return the release notes of a version. Raises RefusedError where they are not finished."""
    told = sections(changelog)
    if not told.get(version):
        raise RefusedError(f"CHANGELOG.md says nothing of {version}: run scripts/release prepare {version}")
    if told.get(UNRELEASED):
        raise RefusedError(f'CHANGELOG.md: there are lines below "Unreleased" that belong to {version}')
    if next(title for title in told if title != UNRELEASED) != version:
        raise RefusedError(f"CHANGELOG.md: {version} is not the newest version")
    return told[version] + "\n"


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare. Raises RefusedError for one that is not like 1.2.3."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise RefusedError(f"{version} is no version like 1.2.3")
    return tuple(map(int, version.split(".")))


def prepared(changelog: str, version: str, day: date) -> str:
    """Return CHANGELOG.md with "Unreleased" as that version, and an empty "Unreleased" above it."""
    told = sections(changelog)
    if not told.get(UNRELEASED):
        raise RefusedError('CHANGELOG.md: below "Unreleased" is nothing to release')
    for before in told.keys() - {UNRELEASED}:
        if number(version) <= number(before):
            raise RefusedError(f"{version} is not above {before}, which was released")
    number(version)
    return changelog.replace(f"## {UNRELEASED}\n", f"## {UNRELEASED}\n\n## {version} - {day}\n", 1)


def version_in(program: str) -> str:
    """Return the version that the text of assetbatch/__init__.py says."""
    (found,) = _VERSION.findall(program)
    return str(found)


def obstacles(pyproject: dict[str, Any], version: str, tags: set[str], *, is_clean: bool) -> list[str]:
    """Return what stands against publishing a commit with these tags: a sentence each."""
    found = []
    if f"v{version}" not in tags:
        found.append(f"the program says {version}, and this commit has no tag v{version}")
    if not is_clean:
        found.append("there are changes that are not committed")
    if not pyproject["project"].get("urls"):
        found.append("pyproject.toml has no [project.urls]: it needs the project's public address")
    return found


def expected_files(pyproject: dict[str, Any], source: Path, version: str) -> set[str]:
    """Return the names of all that the wheel of a clean tree must hold, and nothing else."""
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    places = {name: name for name in wheel["packages"]} | wheel.get("force-include", {})
    shared = wheel.get("shared-data", {})
    places |= {origin: f"assetbatch-{version}.data/data/{place}" for origin, place in shared.items()}
    info = f"assetbatch-{version}.dist-info"
    found = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    for origin, place in places.items():
        start = source / origin
        files = [start] if start.is_file() else [file for file in start.rglob("*") if file.is_file()]
        found |= {f"{place}/{file.relative_to(start)}".removesuffix("/.") for file in files}
    return found


def check_wheel(wheel: Path, expected: set[str], version: str, paths: list[Path]) -> None:
    """Raise RefusedError for a wheel with other files than expected, another version, or a path of this machine."""
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
        if held != expected:
            more, less = sorted(held - expected), sorted(expected - held)
            raise RefusedError(f"{wheel.name} has {more or 'nothing'} too much and lacks {less or 'nothing'}")
        for name in held:
            content = opened.read(name)
            for path in paths:
                if f"{path}/".encode() in content:
                    raise RefusedError(f"{wheel.name}: {name} names {path}, which is this machine's")
        metadata = Parser().parsestr(opened.read(f"assetbatch-{version}.dist-info/METADATA").decode())
    if metadata["Version"] != version:
        raise RefusedError(f"{wheel.name} says that it is {metadata['Version']}, and not {version}")


def _run(*command: str | Path, folder: Path = PROJECT, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RefusedError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def _tree(folder: Path) -> Path:
    """Unpack what HEAD holds, and nothing that only lies about, below a folder."""
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    _run("git", "archive", f"--output={archive}", "HEAD")
    _run("tar", "-xf", archive, "-C", folder)
    return folder


def _built(source: Path, folder: Path, *kinds: str) -> dict[str, Path]:
    """Build the kinds, `sdist` or `wheel`, each the same bytes for the same commit. Return them by their suffix."""
    epoch = _run("git", "log", "-1", "--format=%ct")
    asked = [f"--{kind}" for kind in kinds]
    program = (sys.executable, "-m", "build", "--no-isolation")
    _run(*program, *asked, "--outdir", folder, source, SOURCE_DATE_EPOCH=epoch)
    return {file.suffix: file for file in folder.iterdir()}


def _require_same(one: Path, other: Path, how: str) -> None:
    if one.read_bytes() != other.read_bytes():
        raise RefusedError(f"{one.name}, {how}, is another one")


def _check_installed(wheel: Path, version: str, work: Path) -> None:
    """Install the wheel as a user does, and run it."""
    environment = work / "installed"
    venv.create(environment, with_pip=True)
    _run(environment / "bin/python", "-m", "pip", "install", "--quiet", wheel, folder=work)
    told = _run(environment / "bin/assetbatch", "--version", folder=work, HOME=str(work))
    if told.split()[:2] != ["assetbatch", version]:
        raise RefusedError(f"the installed program says that it is {told}")


def build(work: Path) -> tuple[str, list[Path]]:
    """Build wheel and sdist of HEAD below a folder, and check them. Return the version, and both."""
    source = _tree(work / "source")
    pyproject = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))
    version = version_in((source / VERSION_FILE).read_text("utf-8"))
    made = _built(source, work / "made", "sdist", "wheel")
    wheel, sdist = made[".whl"], made[".gz"]

    again = _built(_tree(work / "elsewhere"), work / "again", "sdist", "wheel")
    _require_same(again[".whl"], wheel, "built once more in another folder")
    _require_same(again[".gz"], sdist, "built once more in another folder")
    _run("tar", "-xf", sdist, "-C", work)
    from_sdist = _built(work / sdist.name.removesuffix(".tar.gz"), work / "from-sdist", "wheel")
    _require_same(from_sdist[".whl"], wheel, "built from the sdist")

    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    check_wheel(wheel, expected_files(pyproject, source, version), version, [PROJECT, work, Path.home()])
    _check_installed(wheel, version, work)
    return version, [wheel, sdist]


def release(*, final: bool) -> None:
    """Leave dist/: the packages of HEAD, their digests, and the notes. Raises RefusedError."""
    version = version_in((PROJECT / VERSION_FILE).read_text("utf-8"))
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    changelog = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    tags = set(_run("git", "tag", "--points-at", "HEAD").split())
    against = obstacles(pyproject, version, tags, is_clean=not _run("git", "status", "--porcelain"))
    try:
        told = notes(changelog, version)
    except RefusedError as error:
        against.append(str(error))
        told = sections(changelog).get(UNRELEASED, "") + "\n"
    if final and against:
        raise RefusedError("not to be published:\n  " + "\n  ".join(against))

    shutil.rmtree(PROJECT / "dist", ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        version, files = build(Path(work))
        packages = PROJECT / "dist" / "packages"
        packages.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, packages / file.name)
    digests = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(packages.iterdir())]
    (PROJECT / "dist" / "SHA256SUMS").write_text("".join(digests))
    (PROJECT / "dist" / "notes.md").write_text(told, "utf-8")
    print("".join(digests), end="")
    print(f"{version} is in dist/packages, and what it changes in dist/notes.md")
    for obstacle in against:
        print(f"Before it is published: {obstacle}")


def prepare(version: str) -> None:
    """Write the version and today's date into CHANGELOG.md and the program. Raises RefusedError."""
    changelog, program = PROJECT / "CHANGELOG.md", PROJECT / VERSION_FILE
    text = prepared(changelog.read_text("utf-8"), version, datetime.now(UTC).date())
    changelog.write_text(text, "utf-8")
    program.write_text(_VERSION.sub(f'__version__ = "{version}"', program.read_text("utf-8")), "utf-8")
    print(f"Look at it, then: git commit -am 'Release {version}' && git tag v{version} && scripts/release final")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="scripts/release")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("final")
    commands.add_parser("prepare").add_argument("version")
    arguments = parser.parse_args()
    try:
        if arguments.command == "prepare":
            prepare(arguments.version)
        else:
            release(final=arguments.command == "final")
    except RefusedError as error:
        sys.exit(f"scripts/release: {error}")


if __name__ == "__main__":
    main()
