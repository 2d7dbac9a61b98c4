"""What the program declares of its commands, as data: one walk for all pages that tell of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from assetbatch.cli import global_options
from assetbatch.cli.main import new_command

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "assetbatch"
_EXAMPLE = re.compile(r"^Example: (.*)$", re.MULTILINE)


class Parameter(NamedTuple):
    """An option or an argument: how it is written, what it takes, its default as typed, and its help."""

    spellings: tuple[str, ...]
    value: str
    bounds: str
    default: str
    help: str

    @property
    def synopsis(self) -> str:
        """Return how it is typed: `--state queued|dead`, `-v, --verbose`."""
        return f"{', '.join(self.spellings)} {self.value}".rstrip()

    @property
    def notes(self) -> str:
        """Return what it can hold and holds by itself, or an empty text."""
        return "; ".join(filter(None, (self.bounds, self.default and f"default {self.default}")))


class Command(NamedTuple):
    """A command, or a group of them: its whole name, its paragraphs, and without the program's name its usage.

    `commands` is None for one that runs something.
    """

    name: str
    paragraphs: tuple[str, ...]
    example: str
    usage: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    commands: tuple[Command, ...] | None


class Program(NamedTuple):
    """The whole command line: what it does, its own options, those of all commands, and the commands as in --help."""

    summary: str
    options: tuple[Parameter, ...]
    global_options: tuple[Parameter, ...]
    commands: tuple[Command, ...]


def program() -> Program:
    """Return what the program declares."""
    root = new_command()
    own = [option for option in root.params if not _is_global(option)]
    return Program(
        summary=root.help,
        options=tuple(map(_parameter, own)),
        global_options=tuple(_parameter(option) for option in root.params if _is_global(option)),
        commands=tuple(_command(name, command) for name, command in root.commands.items()),
    )


def flat(commands: tuple[Command, ...]) -> Iterator[Command]:
    """Yield every command that runs something, in order."""
    for command in commands:
        yield from [command] if command.commands is None else flat(command.commands)


def _is_global(option: Any) -> bool:
    return getattr(option, "rich_help_panel", None) == global_options.PANEL


def _command(name: str, command: Any) -> Command:
    text = command.help or ""
    example = _EXAMPLE.search(text)
    paragraphs = [" ".join(part.split()) for part in _EXAMPLE.sub("", text).split("\n\n")]
    below = getattr(command, "commands", None)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not _is_global(one)]
    words = [name, "[OPTION]..." if options else "", *map(_place, arguments)]
    return Command(
        name=name,
        paragraphs=tuple(filter(None, paragraphs)),
        example=example[1] if example else "",
        usage=" ".join(filter(None, words)),
        arguments=tuple(map(_parameter, arguments)),
        options=tuple(map(_parameter, options)),
        commands=None if below is None else tuple(_command(f"{name} {word}", inner) for word, inner in below.items()),
    )


def _place(argument: Any) -> str:
    """Return how an argument stands in the usage: `SYMBOL`, `[FILE]`, `SYMBOLS...`."""
    word = re.sub(r"[\[\].]", "", argument.metavar or argument.name.upper())
    several = "..." if argument.nargs == -1 else ""
    return f"{word}{several}" if argument.required else f"[{word}]{several}"


def _parameter(parameter: Any) -> Parameter:
    is_option = parameter.param_type_name == "option"
    words = (*parameter.opts, *parameter.secondary_opts)
    is_value = is_option and not parameter.is_flag and not parameter.count
    return Parameter(
        spellings=tuple(sorted(words, key=lambda word: word.startswith("--"))) if is_option else (_place(parameter),),
        value=_value(parameter) if is_value else "",
        bounds=_bounds(parameter.type) if is_value else "",
        default=_default(parameter) if is_option else "",
        help=" ".join((parameter.help or "").split()),
    )


def _value(option: Any) -> str:
    if option.metavar:
        return str(option.metavar).strip("<>")
    choices = getattr(option.type, "choices", None)
    return "|".join(map(str, choices)) if choices else "NUMBER" if _bounds(option.type) else "TEXT"


def _bounds(kind: Any) -> str:
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    if least is None and most is None:
        return ""
    return f"at least {least:,}" if most is None else f"{least:,} to {most:,}"


def _default(option: Any) -> str:
    value = option.default
    if not value or callable(value):
        return ""
    if value is True:
        return str(option.opts[0])
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))
