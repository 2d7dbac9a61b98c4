"""docs/reference/json.md, held against what the commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.reference.cli import flat, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Commands

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
# They have the fields of all runs, too.
RUNS = {"run-priority", "drain-queue", "backfill", "stream"}
# Each in the order in which it is run, with what is told of under the heading.
TOLD = {
    "init --check": "init --check",
    "init": "init",
    "init --grants": "init --grants jobs",
    "run-priority": "run-priority",
    "symbols add": "symbols add SOLUSD X:SOLUSD --no-check",
    "symbols list": "symbols list",
    "enqueue-secondary": "enqueue-secondary --all",
    "queue list": "queue list",
    "forecast": "forecast",
    "drain-queue": "drain-queue",
    "probe": "probe",
    "queue retry": "queue retry --all",
    "queue remove": "queue remove NOTHING",
    "queue clear": "queue clear --yes",
    "backfill": "backfill --symbol BTCUSD",
    "bars export": "bars export --all --output bars.csv",
    "bars coverage": "bars coverage",
    "chart": "chart BTCUSD",
    "status": "status --asset BTCUSD",
    "metrics": "metrics",
    "doctor": "doctor",
    "config show": "config show",
    "config check": "config check",
    "config init": "config init --output new.yaml",
    "symbols remove": "symbols remove SOLUSD",
    "stream": "stream --max-seconds 2",
    "database url": "database url",
}


def documented() -> dict[str, dict[str, bool]]:
    """Read the page: by heading each field, and whether it is always there."""
    found: dict[str, dict[str, bool]] = {}
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("## "):
            fields = found.setdefault(line[3:], {})
        elif line.startswith("| `"):
            cell = line.split(" | ")[0]
            fields |= dict.fromkeys(re.findall("`([^`]+)`", cell), "(optional)" not in cell)
    return found


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the way to each field that holds a value, as the page writes it."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for inner in value:
            yield from paths(inner, f"{path}[]")
    else:
        yield path


def is_told(path: str, fields: dict[str, bool]) -> bool:
    """Tell whether a field is documented: itself, or what it holds where it is empty, or all that is in it."""
    return any(
        field.removesuffix("[]") == path or field.startswith((f"{path}.", f"{path}[]")) or _covers(field, path)
        for field in fields
    )


def _covers(field: str, path: str) -> bool:
    return field.endswith("*") and path.startswith(field[:-1])


def test_every_command_is_told_of() -> None:
    headings, text = documented(), PAGE.read_text("utf-8")
    names = [one.name for one in flat(program().commands) if one.commands is None]
    assert len(names) > 30
    assert [name for name in names if name not in headings and f"`{name}`" not in text] == []


def test_every_document_has_the_fields_that_are_told_and_no_other(commands: Commands) -> None:
    commands.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    page = documented()
    wrong = []

    for heading, line in TOLD.items():
        done = commands(*line.split(), "--json")
        document = json.loads(done.stdout)
        assert document.pop("schema") == f"assetbatch.{heading.partition(' --')[0].replace(' ', '-')}/1"
        fields = page[heading] | (page["Runs"] if heading in RUNS else {})
        there = set(paths(document))
        wrong += [f"{line}: {path} is not told of" for path in there if not is_told(path, fields)]
        tops = {re.split(r"[.\[]", field)[0] for field, always in fields.items() if always}
        wrong += [f"{line}: {name} is told of, but is not there" for name in tops - document.keys()]

    assert wrong == []
