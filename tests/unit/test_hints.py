"""What people are told to type: every command in a sentence of the program or of its pages is one that it knows."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import assetbatch
from assetbatch.cli.main import new_command
from tests.unit.test_help import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Any = new_command()
PACKAGE = Path(assetbatch.__file__).parent
PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *PROJECT.joinpath("docs").rglob("*.md")]
# Stands for what is put into a sentence when it is told.
FILLED = "X1"
BLOCKS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def sentences() -> Iterator[str]:
    """Every text in the source that is no docstring; what is filled in later is FILLED."""
    for file in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
        formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        known = {id(part) for node in formatted for part in ast.walk(node)}
        known |= {id(node.body[0].value) for node in nodes if isinstance(node, BLOCKS) and _has_docstring(node)}  # type: ignore[attr-defined]
        for text in formatted:
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED for part in text.values)
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known:
                yield node.value


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr)


def commands_in(text: str) -> Iterator[str]:
    """Everything between backticks that begins with the program's name or that of a command."""
    for line in re.findall(r"`([^`\n[…]+)`", text):
        first = line.split()[0] if line.split() else ""
        if first == "assetbatch" or first in ROOT.commands:
            yield line if first == "assetbatch" else f"assetbatch {line}"


def refusal(line: str) -> str:
    """Read a command line as the program would, without running it; return what is wrong with it."""
    command, words = ROOT, shlex.split(line)[1:]
    while True:
        context = command.context_class(command, **command.context_settings)
        try:
            _, words, _ = command.make_parser(context).parse_args(words)
        except Exception as error:  # noqa: BLE001 - click's, or that of the click inside typer
            # An option that is spoken of, as in `init --grants`.
            return "" if "requires an argument" in str(error) else str(error)
        # A command that is left open, as in `assetbatch -v JOB`.
        if not hasattr(command, "commands") or not words or words[0].isupper():
            return ""
        name, *words = words
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]


EXAMPLES = [line for command in ALL.values() for line in re.findall(r"Example: (assetbatch .*)", command.help)]


def test_commands_that_people_are_told_to_type_are_some() -> None:
    in_source = {line for text in sentences() for line in commands_in(text)}

    assert {"assetbatch init", "assetbatch init --restored", "assetbatch queue retry X1"} <= in_source
    assert len(EXAMPLES) == len(ALL)
    in_pages = {line for page in PAGES for line in commands_in(page.read_text("utf-8"))}
    refusals = {line: refusal(line) for line in sorted({*in_source, *EXAMPLES, *in_pages})}
    assert not {line: why for line, why in refusals.items() if why}


@pytest.mark.parametrize("line", ["assetbatch nothing", "assetbatch init --nothing", "assetbatch queue nothing"])
def test_what_is_no_command_is_found(line: str) -> None:
    assert "nothing" in refusal(line)
