"""A value together with the place where it was written: what all sources of configuration hand on."""

from typing import Any, TypeAlias

import msgspec


class Given(msgspec.Struct, frozen=True):
    """One value: a scalar, a `dict[str, Given]`, a `list[Given]`, or `Odd`.

    `place` is `config.yaml:12`, `.env:3` or a variable's name; `written` is a scalar as it stands in the file,
    since YAML reads NO as false.
    """

    value: Any
    place: str
    written: str = ""


class Odd(msgspec.Struct, frozen=True):
    """A value that no key can hold, by what it is called: `a YAML tag`."""

    called: str


Values: TypeAlias = dict[str, Given]
"""Checked values by dotted key; a list of assets is a list of `dict[str, Given]`."""


def has_control(text: str) -> bool:
    """Return whether a text has a control character, a line break, or half a character, which no UTF-8 text has."""
    return not text.isprintable() and any(map(_is_control, text))


def printable(text: str, limit: int = 60) -> str:
    """Return `text` fit for a message: one line, no control characters, not long."""
    clean = "".join("?" if _is_control(one) else one for one in text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def _is_control(one: str) -> bool:
    return one < " " or "\x7f" <= one <= "\x9f" or one in "\u2028\u2029" or "\ud800" <= one <= "\udfff"
