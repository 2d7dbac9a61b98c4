"""Why a value is refused, in words for people, made from the key's declaration."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import msgspec

from assetbatch.config.given import Given, Odd, has_control, printable
from assetbatch.config.keys import meta
from assetbatch.plans import ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_VARIABLE_WORDS = {"yes": True, "on": True, "no": False, "off": False, "unlimited": None, "none": None}
"""What people write into variables beside what JSON has."""


class Refusal(ValueError):  # noqa: N818 - it is the answer to a value, caught by whoever asked
    """A key cannot hold a value; the text says what it can hold."""


def typed(annotation: Any, given: Given, *, hidden: bool, variable: bool = False) -> Any:
    """Return the value as the key's declaration wants it. Raises `Refusal`, which repeats no `hidden` text.

    A `variable` is text, which may stand for a number, a truth or nothing.
    """
    readings = [[item.value for item in given.value] if isinstance(given.value, list) else given.value]
    if variable:
        readings.append(_VARIABLE_WORDS.get(given.value.lower(), given.value))
    for reading in readings:
        try:
            value = msgspec.convert(reading, annotation, strict=not variable)
        except msgspec.ValidationError:
            continue
        if isinstance(value, str) and has_control(value):
            raise Refusal("has a line break or another control character")
        return value
    raise Refusal(_refusal(annotation, given, hidden=hidden, nothing='"unlimited"' if variable else "null"))


def expected(annotation: Any, *, nothing: str = "null") -> str:
    """Return what a key can hold, as `a whole number from 1 to 250`; `nothing` is how null is called."""
    said: str | None = (meta(annotation).extra or {}).get("expected")
    if said is None:
        *first, last = _alternatives(annotation, meta(annotation), nothing)
        said = f"{', '.join(first)} or {last}" if first else last
    return said


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return the likeliest of `words`, upper or lower case, or an empty text."""
    import difflib

    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower()[:60], by_lower, n=1, cutoff=0.65)
    return by_lower[close[0]] if close else ""


def called(given: Given) -> str:
    """Return what a value that is no text is called: `a list`, 12."""
    match given.value:
        case Odd(called=name):
            return name
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "text"
    return printable(given.written) or "null"


def _refusal(annotation: Any, given: Given, *, hidden: bool, nothing: str) -> str:
    sentence = f"expected {expected(annotation, nothing=nothing)}"
    words, listed = list(_words(annotation)), list(_listed(annotation))
    if is_list := bool(listed) and isinstance(given.value, list):
        wrong = [item for item in given.value if item.value not in listed]
        if not wrong:
            return f"{sentence}, not an empty one"
        given, words = wrong[0], listed
    value = given.value
    if not isinstance(value, str):
        sentence += f", not {called(given)}"
        if isinstance(value, bool | int | float) and _takes_text(annotation):
            sentence += ", which YAML does not take for text: put it in quotes"
    # A URL or an account may hold a password, whatever key it was put under.
    elif not hidden and "://" not in value and "@" not in value:
        sentence += f', not "{printable(value)}"'
        if close := did_you_mean(value, words):
            sentence += f"; did you mean {f'[{close}]' if close in listed and not is_list else close}?"
    return sentence


def _alternatives(annotation: Any, bounds: msgspec.Meta, nothing: str) -> Iterator[str]:
    if hasattr(annotation, "__metadata__"):
        yield from _alternatives(annotation.__origin__, meta(annotation), nothing)
    elif get_origin(annotation) in {Union, types.UnionType}:
        for part in get_args(annotation):
            yield from _alternatives(part, bounds, nothing)
    elif get_origin(annotation) is Literal:
        words = list(_words(annotation))
        yield words[0] if len(words) == 1 else "one of " + ", ".join(words)
    elif annotation is int:
        yield "a whole number" + _range(bounds)
    elif annotation is float:
        yield "a number" + _range(bounds)
    elif annotation is str:
        yield f"text of at most {bounds.max_length} letters"
    elif annotation is type(None):
        yield nothing
    elif annotation is bool or get_origin(annotation) is tuple:
        yield from ("true", "false") if annotation is bool else [f"a list of {', '.join(_words(annotation))}"]


def _range(bounds: msgspec.Meta) -> str:
    return f" above {bounds.gt}, at most {bounds.le}" if bounds.ge is None else f" from {bounds.ge} to {bounds.le}"


def _words(annotation: Any) -> Iterator[str]:
    """Yield the words that a key knows, without those that are not offered."""
    if get_origin(annotation) is Literal:
        yield from (word for word in get_args(annotation) if word not in ALIASES)
    else:
        for part in get_args(annotation):
            yield from _words(part)


def _listed(annotation: Any) -> Iterator[str]:
    """Yield the words that a key knows in a list."""
    if get_origin(annotation) is tuple:
        yield from _words(annotation)
    else:
        for part in get_args(annotation):
            yield from _listed(part)


def _takes_text(annotation: Any) -> bool:
    return annotation is str or any(map(_takes_text, get_args(annotation)))
