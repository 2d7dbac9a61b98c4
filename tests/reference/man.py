"""docs/man/assetbatch.1, the manual page, from the tree of commands."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from assetbatch.config.secret import NAMES
from assetbatch.config.sources import VARIABLES
from assetbatch.errors import EXIT_CODES
from tests.reference.cli import PROGRAM, Command, Parameter, program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROFF = {"\\": "\\e", "-": "\\-", "~": "\\(ti", "^": "\\(ha"}
FILES = (
    (
        "./config.yaml, ~/.config/assetbatch/config.yaml, /etc/assetbatch/config.yaml",
        "The configuration; the first counts.",
    ),
    (".env beside it", "Variables, the key among them."),
    ("~/.local/share/assetbatch, for root /var/lib/assetbatch", "The embedded PostgreSQL."),
    ("~/.local/state/assetbatch, for root /var/lib/assetbatch/state", "What was told of trouble."),
)


def page() -> str:
    """Return the whole page as roff."""
    declared = program()
    lines = [
        '.\\" made by scripts/docs from the tree of commands: change that, and run it',
        f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM}" "User Commands"',
        ".SH NAME",
        f"{PROGRAM} \\- keep a PostgreSQL database of prices fresh on few API calls",
        ".SH SYNOPSIS",
        f".B {PROGRAM}",
        "[OPTION]... COMMAND [OPTION]... [ARGUMENT]...",
        ".SH DESCRIPTION",
        text(declared.summary),
        ".PP",
        text("Each command prints one JSON document with --json, and its help with --help."),
        ".SH OPTIONS",
        text("They stand before a command or after it; of two, the one further right counts."),
        *_options((*declared.global_options, *declared.options)),
        ".SH COMMANDS",
    ]
    for command in declared.commands:
        lines += _command(command)
    lines.append(".SH EXIT STATUS")
    for one in EXIT_CODES:
        lines += [".TP", text(one.code), text(f"{one.meaning}. {one.more}")]
    lines.append(".SH ENVIRONMENT")
    for name in NAMES:
        lines += [".TP", f".B {_line(name)}", text(f"A secret; {name}_FILE names a file that holds it.")]
    for name, key in VARIABLES.items():
        lines += [".TP", f".B {_line(name)}", text(f"Stands for {key} of config.yaml.")]
    lines.append(".SH FILES")
    for name, meaning in FILES:
        lines += [".TP", _line(name), text(meaning)]
    return "\n".join(lines) + "\n"


def text(words: str) -> str:
    """Return a text as roff that shows as it is written, backticks apart."""
    return "\n".join(map(_line, textwrap.wrap(words.replace("`", ""), 72, break_on_hyphens=False)))


def _line(words: str) -> str:
    escaped = "".join(ROFF.get(one, one if one.isascii() else f"\\[u{ord(one):04X}]") for one in words)
    return re.sub(r"^([.'])", r"\\&\1", escaped)


def _command(command: Command) -> Iterator[str]:
    if command.commands is not None:
        for inner in command.commands:
            yield from _command(inner)
        return
    yield f".SS {_line(command.usage)}"
    for number, paragraph in enumerate(command.paragraphs):
        yield from [".PP"] * bool(number)
        yield text(paragraph)
    yield from _options((*command.arguments, *command.options))
    yield from (".PP", "Example:", ".PP", ".in +4n", ".nf", _line(command.example), ".fi", ".in")


def _options(parameters: Iterable[Parameter]) -> Iterator[str]:
    for one in parameters:
        yield ".TP"
        yield f".B {_line(one.synopsis)}"
        yield text(f"{one.help} ({one.notes})" if one.notes else one.help)
