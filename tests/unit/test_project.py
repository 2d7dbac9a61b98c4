"""What is told to those who contribute, and what a forge does with it: held against the tree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
# Where a recipe's short paths begin.
ROOMS = (ROOT, ROOT / "assetbatch", ROOT / "assetbatch" / "database", ROOT / "scripts" / "bench")


def workflow(file: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(file.read_text())
    return found


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.get("steps", [])
    return found


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_every_path_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"\]\(([^)#]+)", text))
    for words in re.findall(r"`([^`\n]+)`|^(?: {4})?((?:\.venv|scripts)/.*)$", text, re.MULTILINE):
        named |= set(
            re.findall(r"(?<![\w$./])[\w.-]*/[\w./*-]*\w|(?<![\w./])\w+\.(?:py|md|sql|toml)\b", " ".join(words))
        )
    missing = [
        path
        for path in named
        if not path.startswith((".venv", "dist/", "http", "/"))
        and not re.search(r"what\.sql|^1/", path)
        and not any(any(room.glob(path)) or any(room.rglob(path)) for room in ROOMS)
    ]
    assert named
    assert not missing


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_may_no_more_than_each_job_needs(file: Path) -> None:
    found = workflow(file)

    assert found["permissions"] in ({}, {"contents": "read"})
    for job in found["jobs"].values():
        writes = [name for name, right in job.get("permissions", {}).items() if right == "write"]
        assert len(writes) <= 1
        assert not (writes and any("actions/checkout" in step.get("uses", "") for step in steps(job)))
        for step in steps(job):
            if "actions/checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
            # What others can write, a branch's name say, is no part of a command.
            assert not re.search(r"\$\{\{(?! *matrix\.)", step.get("run", ""))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_starts_scripts_that_exist(file: Path) -> None:
    started = re.findall(r"\bscripts/\w+", file.read_text())

    assert started
    assert {name for name in started if not (ROOT / name).exists()} == set()


def test_the_versions_of_python_that_are_promised_are_tried_and_locked() -> None:
    promised = [found[1] for one in CLASSIFIERS if (found := re.fullmatch(r".*Python :: (3\.\d+)", one))]
    matrix = workflow(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["tests"]["strategy"]["matrix"]

    assert matrix == {"python": promised, "postgresql": ["14", "16", "18"]}
    assert all(f" {version}" in (ROOT / "scripts" / "lock").read_text() for version in promised)


def test_what_a_tag_publishes_was_tested_and_built_by_the_release_script() -> None:
    jobs = workflow(ROOT / ".github" / "workflows" / "release.yml")["jobs"]

    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert {name: job.get("needs") for name, job in jobs.items()} == {
        "test": None,
        "build": "test",
        "publish": "build",
        "announce": "publish",
    }
    assert "scripts/release final" in [step.get("run") for step in steps(jobs["build"])]


def test_hooks_run_what_the_environment_has() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert [one["repo"] for one in repositories] == ["local"]
    entries = {hook["id"]: hook["entry"] for hook in repositories[0]["hooks"]}
    assert {entries[name].split()[0] for name in ("ruff-check", "ruff-format", "mypy")} == {
        ".venv/bin/ruff",
        ".venv/bin/mypy",
    }


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 8192
