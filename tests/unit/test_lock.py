"""The lock, held against pyproject.toml. Only files are read; `scripts/lock` renews it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = {"run": ["embedded"], "test": ["embedded", "export"]}
LOCKS = [*EXTRAS, "docs", "release"]
MACHINES = [
    {
        "python_version": version,
        "python_full_version": f"{version}.{patch}",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for version, patch in (("3.11", 0), ("3.11", 9), ("3.12", 1), ("3.13", 0), ("3.14", 0))
    for machine in ("x86_64", "aarch64")
]


def direct(name: str) -> list[Requirement]:
    lines = list(PROJECT["dependency-groups"].get(name, []))
    if name != "docs":
        lines += PROJECT["build-system"]["requires"]
    if name in EXTRAS:
        lines += PROJECT["project"]["dependencies"]
        lines += [line for extra in EXTRAS[name] for line in PROJECT["project"]["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines]


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return a lock's packages with their hashes, each of which pip accepts as the only thing on its logical line."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    found = []
    for line in text.replace("\\\n", "").splitlines():
        if line.startswith("#"):
            continue
        package, *hashes = re.split(r"\s+--hash=", line.strip())
        found.append((Requirement(package), hashes))
    return found


def key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_locked_at_one_version_within_its_range_on_every_python(name: str) -> None:
    lock = locked(name)
    for machine in MACHINES:
        here = [package for package, _ in lock if package.marker is None or package.marker.evaluate(machine)]
        versions = {key(package.name): str(package.specifier).removeprefix("==") for package in here}
        assert len(versions) == len(here), "a package twice"
        for needed in direct(name):
            if needed.marker is None or needed.marker.evaluate(machine):
                assert needed.specifier.contains(versions[key(needed.name)]), (needed, machine)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_one_version_with_hashes_and_names_no_index(name: str) -> None:
    lock = locked(name)
    assert len(lock) > 20
    for package, hashes in lock:
        assert re.fullmatch(r"==[\w.]+", str(package.specifier)), package
        assert package.url is None
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), package


def test_what_runs_is_what_was_tested() -> None:
    tested = {(package.name, str(package.specifier)): hashes for package, hashes in locked("test")}
    for package, hashes in locked("run"):
        assert tested[package.name, str(package.specifier)] == hashes


def test_every_range_has_a_lower_bound_that_names_a_release() -> None:
    lines = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
    for more in (PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]):
        lines = [*lines, *(line for some in more.values() for line in some)]
    for line in lines:
        (bound,) = [part.version for part in Requirement(line).specifier if part.operator == ">="]
        assert len(Version(bound).release) >= 2, line
