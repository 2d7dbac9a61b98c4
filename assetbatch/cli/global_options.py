"""The options that every command has, wherever they stand: before it, within its name, or after it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from assetbatch.cli import telling
from assetbatch.cli.invocation import LogFormat, configure_log, current

PANEL = "Global options, before or after any command"


def begin() -> None:
    """Put in force what is known of the options so far; safe to call again."""
    configure_log()
    telling.begin()


def _take(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> None:
    """Put an option in force when it is read: what stands further right counts, and each -v adds to those before."""
    name = str(parameter.name)
    if context.resilient_parsing:
        # A shell completes: what it is offered is read from that file.
        current.config_file = value if name == "config_file" and value else current.config_file
    elif value:
        setattr(current, name, current.verbosity + value if name == "verbosity" else value)
        begin()


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, callback=_take, expose_value=False, show_default=False, rich_help_panel=PANEL, **more)


def _declare(
    config_file: Annotated[
        Path | None,
        _option(
            "--config",
            metavar="FILE",
            help="Configuration file; else $ASSETBATCH_CONFIG, ./config.yaml, the user's and the system's folder.",
        ),
    ] = None,
    verbosity: Annotated[
        int,
        _option("--verbose", "-v", count=True, metavar="", help="Tell the story; twice: every call and statement."),
    ] = 0,
    quiet: Annotated[bool, _option("--quiet", "-q", help="No warnings on stderr, errors only.")] = False,
    json: Annotated[bool, _option("--json", help="Print one JSON document and nothing else.")] = False,
    log_format: Annotated[
        LogFormat | None,
        _option(
            "--log-format",
            metavar="FORMAT",
            help="How lines on stderr look: plain, json or journald; by itself journald under systemd, else plain.",
        ),
    ] = None,
) -> None:
    """Declare them, named as the fields of `Invocation` that they set."""


def add_to(command: Any, name: str = "") -> None:
    """Give a command, and all commands below it, the global options; each sets its whole name when it runs."""
    options = _options()
    if command.context_settings.get("ignore_unknown_options"):
        # What follows is for another program, whose short options are not ours.
        options = [option for option in options if all(word.startswith("--") for word in option.opts)]
    command.params = [*command.params, *options]
    if not hasattr(command, "commands"):
        command.callback = _named(name, command.callback)
        return
    for word, below in command.commands.items():
        add_to(below, f"{name} {word}".lstrip())


@cache
def _options() -> list[Any]:
    carrier = typer.Typer(add_completion=False)
    carrier.command()(_declare)
    return typer.main.get_command(carrier).params


def _named(name: str, run: Callable[..., object]) -> Callable[..., object]:
    def begin(**arguments: object) -> object:
        current.command = name
        return run(**arguments)

    return begin
