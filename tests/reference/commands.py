"""docs/reference/commands.md, from the tree of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.reference.cli import PROGRAM, Command, Parameter, flat, program
from tests.reference.markdown import anchor, head, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

INTRODUCTION = (
    "Each command says the same with `--help`. stdout is the answer, stderr the log. Every command prints one"
    " [JSON document](json.md) with `--json`, and ends with one of these [exit codes](exit-codes.md)."
)


def page() -> str:
    """Return the whole page."""
    declared = program()
    overview = table(
        ["command", "does"],
        ([f"[`{one.name}`](#{anchor(one.name)})", prose(one.paragraphs[0])] for one in flat(declared.commands)),
    )
    parts = [
        head("Commands", "the tree of commands", prose(declared.summary), INTRODUCTION),
        overview,
        "## Global options\n",
        "They stand before a command or after it, as you like; of two, the one further right counts.\n",
        _list(declared.global_options),
        "Of the program itself:\n",
        _list(declared.options),
    ]
    for command in declared.commands:
        parts += _section(command, level=2)
    return "\n".join(parts).rstrip() + "\n"


def _section(command: Command, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {command.name}\n"
    if command.commands is not None:
        yield from (f"{prose(text)}\n" for text in command.paragraphs)
        for inner in command.commands:
            yield from _section(inner, level=level + 1)
        return
    yield f"```text\n{PROGRAM} {command.usage}\n```\n"
    yield from (f"{prose(text)}\n" for text in command.paragraphs)
    if command.arguments or command.options:
        yield _list([*command.arguments, *command.options])
    yield f"```text\n$ {command.example}\n```\n"


def _list(parameters: Iterable[Parameter]) -> str:
    lines = []
    for one in parameters:
        notes = f" ({one.notes})" if one.notes else ""
        lines.append(f"- `{one.synopsis}`{notes}: {prose(one.help)}\n")
    return "".join(lines)
