"""A value together with the place where it was written: what all sources of configuration hand on."""

import re
from typing import Any, TypeAlias

import msgspec

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


def printable(text: str, limit: int = 60) -> str:
    """Return `text` fit for a message: one line, no control characters, not long."""
    clean = CONTROL.sub("?", text[: limit + 1])
    return clean if len(clean) <= limit else clean[:limit] + "…"
