"""What `--help` says of each command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer

from assetbatch.cli import global_options
from assetbatch.cli.main import new_command

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON = {"--help", "--json", "--config", "--verbose", "-v", "--quiet", "-q", "--log-format"}


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Go through all commands of the tree, each with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


ALL = dict(commands(new_command()))


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = ALL[name]

    assert f"Example: assetbatch {name}" in (command.help or "")
    for parameter in command.params:
        assert parameter.help, parameter.name
    hands_on = command.context_settings.get("ignore_unknown_options")
    common = {"--json", "--config", "--log-format"} if hands_on else COMMON - {"--help"}
    assert {word for option in command.params for word in option.opts} >= common


@pytest.mark.parametrize("name", ALL)
def test_a_number_is_one(name: str) -> None:
    command = ALL[name]
    for parameter in command.params:
        if "float" in parameter.type.name:
            with typer.Context(command) as context, pytest.raises(typer.BadParameter, match="nan is no number"):
                parameter.process_value(context, ["nan"] if parameter.nargs == -1 else "nan")


def test_a_command_that_hands_its_arguments_on_keeps_no_short_one_back() -> None:
    app = typer.Typer(add_completion=False)
    app.command("psql", context_settings={"ignore_unknown_options": True})(lambda: None)
    app.command("other")(lambda: None)
    root: Any = typer.main.get_command(app)

    global_options.add_to(root)

    words = {name: {word for one in root.commands[name].params for word in one.opts} for name in ("psql", "other")}
    assert words == {"psql": {"--json", "--config", "--log-format"}, "other": COMMON - {"--help"}}
