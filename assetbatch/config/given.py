"""A value together with the place where it was written: what all sources of configuration hand on.

The values that pass inside this room are `msgspec.Struct`s: declaring a dataclass takes ten times as long, at every
start.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Given(msgspec.Struct, frozen=True):
    """One value: a scalar, a `dict[str, Given]`, a `list[Given]`, or `Odd`.

    `place` is `config.yaml:12`, `.env:3`, a variable's name or `option`; `written` is a scalar as it stands
    in the file, since YAML reads NO as false.
    """

    value: Any
    place: str
    written: str = ""


class Odd(msgspec.Struct, frozen=True):
    """A value that no key can hold, by what it is called: `a YAML tag`."""

    called: str


def printable(text: str, limit: int = 60) -> str:
    """Return `text` fit for a message: one line, no control characters, not long."""
    clean = CONTROL.sub("?", text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"


def plain(value: Any) -> Any:
    """Return a value without its places, all the way down."""
    if isinstance(value, Given):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def located(value: Any, place: str) -> Given:
    """Return plain data as if it had been written at one place: the contrary of `plain`."""
    if isinstance(value, dict):
        return Given({str(key): located(item, place) for key, item in value.items()}, place)
    if isinstance(value, list | tuple):
        return Given([located(item, place) for item in value], place)
    return Given(value, place)
