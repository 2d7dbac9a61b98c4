"""What settings.py declares, for whoever walks over it: which keys a section has, and of what kind."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

from assetbatch.config.settings import Section, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec.structs import FieldInfo


@cache
def fields(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the keys of a section, in order."""
    return {field.name: field for field in msgspec.structs.fields(section)}


def meta(annotation: Any) -> msgspec.Meta:
    """Return what is declared of a key that holds a value or a list."""
    declared: msgspec.Meta = annotation.__metadata__[-1]
    return declared


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section that a key holds, or None when it holds a value or a list."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def item_of(annotation: Any) -> type[Section] | None:
    """Return the section that each item of a key's list is, or None when the key holds a value."""
    held = annotation.__origin__
    return get_args(held)[0] if get_origin(held) is tuple else None


def leaves(section: type[Section] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that holds a value or a list: its dotted name and its declaration."""
    for name, field in fields(section).items():
        if inner := section_of(field.type):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field
