"""What scripts/release takes for a release: notes, versions, the wheel's files."""

from __future__ import annotations

import re
import zipfile
from datetime import date
from pathlib import Path

import pytest

import assetbatch
from releasing import (
    RefusedError,
    check_wheel,
    expected_files,
    notes,
    number,
    obstacles,
    prepared,
    sections,
    version_in,
)

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

What changes.

## Unreleased

### Added

- A thing.

## 1.9.0 - 2029-01-31

- Another.

## 1.2.0 - 2028-12-01

- The first.
"""
INFO = "assetbatch-1.10.0.dist-info"


def test_prepared_is_the_version_with_its_date_below_an_empty_unreleased() -> None:
    text = prepared(CHANGELOG, "1.10.0", date(2029, 3, 1))

    assert "## Unreleased\n\n## 1.10.0 - 2029-03-01\n\n### Added\n" in text
    assert list(sections(text)) == ["Unreleased", "1.10.0", "1.9.0", "1.2.0"]
    assert notes(text, "1.10.0") == "### Added\n\n- A thing.\n"
    assert text.replace("\n\n## 1.10.0 - 2029-03-01", "") == CHANGELOG


@pytest.mark.parametrize("version", ["1.9.0", "1.2.0", "1.2.9", "v2.0.0", "2.0", "2.0.0rc1", "2.00.0"])
def test_no_version_is_prepared_that_is_none_or_not_above_all_others(version: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(version)):
        prepared(CHANGELOG, version, date(2029, 3, 1))


def test_nothing_is_prepared_twice() -> None:
    once = prepared(CHANGELOG, "1.10.0", date(2029, 3, 1))
    with pytest.raises(RefusedError, match="nothing to release"):
        prepared(once, "1.11.0", date(2029, 3, 2))


@pytest.mark.parametrize(
    ("changelog", "version", "why"),
    [
        (CHANGELOG, "1.10.0", r"says nothing of 1\.10\.0"),
        (CHANGELOG, "1.9.0", 'lines below "Unreleased"'),
        (CHANGELOG.replace("### Added\n\n- A thing.\n", ""), "1.2.0", "not the newest"),
        (CHANGELOG.replace("- Another.\n", ""), "1.9.0", r"says nothing of 1\.9\.0"),
        (CHANGELOG.replace(" - 2029-01-31", ""), "1.2.0", '"## 1.9.0" is neither'),
        (CHANGELOG.replace("## 1.9.0 -", "## 1.9.0 of"), "1.2.0", "is neither"),
        (CHANGELOG.replace("Unreleased", "Unreleased - 2029-01-31"), "1.2.0", "is neither"),
    ],
)
def test_notes_that_are_not_finished_are_refused(changelog: str, version: str, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        notes(changelog, version)


def test_versions_compare_as_numbers() -> None:
    assert number("1.10.0") > number("1.9.12")


def test_a_commit_is_published_with_its_tag_all_committed_and_an_address() -> None:
    project = {"project": {"urls": {"Source": "https://forge.example/assetbatch"}}}

    assert obstacles(project, "1.2.3", {"v1.2.3", "other"}, is_clean=True) == []
    assert len(obstacles(project, "1.2.3", {"1.2.3", "v1.2.4"}, is_clean=True)) == 1
    assert len(obstacles(project, "1.2.3", {"v1.2.3"}, is_clean=False)) == 1
    assert "[project.urls]" in " ".join(obstacles({"project": {}}, "1.2.3", {"v1.2.3"}, is_clean=True))


def test_the_projects_own_changelog_and_version_can_be_read() -> None:
    assert next(iter(sections((ROOT / "CHANGELOG.md").read_text()))) == "Unreleased"
    assert version_in((ROOT / "assetbatch" / "__init__.py").read_text()) == assetbatch.__version__


def test_the_wheel_is_to_hold_packages_and_what_is_shipped_beside_them(tmp_path: Path) -> None:
    for name in ("assetbatch/a.py", "assetbatch/sql/b.sql", "units/one.timer", "config.yaml", "a.1", "tests/test_a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shipped = {"config.yaml": "assetbatch/shipped/config.yaml", "units": "assetbatch/shipped/units"}
    wheel = {"packages": ["assetbatch"], "force-include": shipped, "shared-data": {"a.1": "share/man/man1/a.1"}}

    found = expected_files({"tool": {"hatch": {"build": {"targets": {"wheel": wheel}}}}}, tmp_path, "1.10.0")

    assert {name for name in found if not name.startswith(INFO)} == {
        "assetbatch/a.py",
        "assetbatch/sql/b.sql",
        "assetbatch/shipped/config.yaml",
        "assetbatch/shipped/units/one.timer",
        "assetbatch-1.10.0.data/data/share/man/man1/a.1",
    }


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, None),
        ({"tests/test_a.py": ""}, r"\['tests/test_a.py'\] too much"),
        ({"assetbatch/a.py": None}, r"lacks \['assetbatch/a.py'\]"),
        ({"assetbatch/a.py": "'/home/builder/project/x'"}, "names /home/builder, which"),
        ({f"{INFO}/METADATA": "Version: 1.9.0\n"}, r"says that it is 1\.9\.0"),
    ],
)
def test_a_wheel_with_more_less_another_version_or_a_path_is_refused(
    tmp_path: Path, more: dict[str, str | None], why: str | None
) -> None:
    good = {"assetbatch/a.py": "'/home/builders'", f"{INFO}/METADATA": "Name: assetbatch\nVersion: 1.10.0\n"}
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as made:
        for name, text in (good | more).items():
            if text is not None:
                made.writestr(name, text)

    def check() -> None:
        check_wheel(tmp_path / "a.whl", set(good), "1.10.0", [Path("/home/builder")])

    if why is None:
        check()
    else:
        with pytest.raises(RefusedError, match=why):
            check()
