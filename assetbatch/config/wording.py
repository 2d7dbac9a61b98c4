"""Why a value is refused, in words for people, made from the key's declaration."""

from __future__ import annotations

import re
import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import msgspec

from assetbatch.config.given import CONTROL, Given, Odd, printable
from assetbatch.config.keys import meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ALIASES = frozenset({"basic"})
"""Words that are understood, but not offered."""
HIDDEN = "this value"
_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})([eE][+-]?[0-9]{1,3})?")
_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_NOTHING = frozenset({"unlimited", "null", "none"})


class Refusal(ValueError):  # noqa: N818 - it is the answer to a value, caught by whoever asked
    """A key cannot hold a value; the text says what it can hold."""


def typed(annotation: Any, given: Given, *, secret: bool = False) -> Any:
    """Return the value as the key's declaration wants it. Raises `Refusal`, which repeats no secret."""
    try:
        value = msgspec.convert(given.value, annotation)
    except (msgspec.ValidationError, TypeError, OverflowError):
        raise Refusal(_refusal(annotation, given, secret=secret)) from None
    if isinstance(value, str) and CONTROL.search(value):
        raise Refusal("has a line break or another control character")
    return value


def typed_text(annotation: Any, given: Given, *, secret: bool = False) -> Any:
    """Return what a text, as variables of the environment are, means to a key. Raises `Refusal`."""
    text = given.value
    candidates: list[Any] = [text]
    if _INTEGER.fullmatch(text):
        candidates.append(int(text))
    if _NUMBER.fullmatch(text):
        candidates.append(float(text))
    if text.lower() in _TRUTH:
        candidates.append(_TRUTH[text.lower()])
    if text.lower() in _NOTHING:
        candidates.append(None)
    for candidate in candidates:
        try:
            return typed(annotation, Given(candidate, given.place), secret=True)
        except Refusal:
            continue
    raise Refusal(_refusal(annotation, given, secret=secret, nothing='"unlimited"'))


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return the likeliest of `words`, upper or lower case, or an empty text."""
    import difflib

    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower()[:60], by_lower, n=1, cutoff=0.65)
    return by_lower[close[0]] if close else ""


def expected(annotation: Any, *, nothing: str = "null") -> str:
    """Return what a key can hold: `a whole number from 1 to 250`; `nothing` is how null is called."""
    said = (meta(annotation).extra or {}).get("expected") or _inner_expected(annotation)
    if said:
        return str(said)
    parts = list(_alternatives(annotation, msgspec.Meta(), nothing))
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " or " + parts[-1]


def _inner_expected(annotation: Any) -> str:
    arguments = get_args(annotation) if _is_union(annotation) else ()
    return next((said for part in arguments if (said := (meta(part).extra or {}).get("expected"))), "")


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, types.UnionType}


def _alternatives(annotation: Any, bounds: msgspec.Meta, nothing: str) -> Iterator[str]:
    if hasattr(annotation, "__metadata__"):
        yield from _alternatives(annotation.__origin__, annotation.__metadata__[-1], nothing)
    elif _is_union(annotation):
        for part in get_args(annotation):
            yield from _alternatives(part, bounds, nothing)
    elif get_origin(annotation) is Literal:
        words = [word for word in get_args(annotation) if word not in ALIASES]
        yield words[0] if len(words) == 1 else "one of " + ", ".join(words)
    elif annotation is bool:
        yield from ("true", "false")
    elif annotation is int:
        yield "a whole number" + _range(bounds)
    elif annotation is float:
        yield "a number" + _range(bounds)
    elif annotation is str:
        yield "text" + (f" of at most {bounds.max_length} letters" if bounds.max_length else "")
    elif annotation is type(None):
        yield nothing


def _range(bounds: msgspec.Meta) -> str:
    if bounds.ge is not None:
        return f" from {bounds.ge} to {bounds.le}"
    return f" above {bounds.gt}, at most {bounds.le}" if bounds.gt is not None else ""


def _refusal(annotation: Any, given: Given, *, secret: bool, nothing: str = "null") -> str:
    sentence = f"expected {expected(annotation, nothing=nothing)}"
    if secret or (meta(annotation).extra or {}).get("secret"):
        return sentence
    if (value := shown(given)) != HIDDEN:
        sentence += f", not {value}"
    words = [word for word in _words(annotation) if word not in ALIASES]
    if isinstance(given.value, str):
        if close := did_you_mean(given.value, words):
            sentence += f"; did you mean {close}?"
    elif isinstance(given.value, bool | int | float) and given.written and _takes_text(annotation):
        sentence += ", which YAML does not take for text: put it in quotes"
    return sentence


def _words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _words(part)


def _takes_text(annotation: Any) -> bool:
    return annotation is str or any(_takes_text(part) for part in get_args(annotation))


def shown(given: Given) -> str:
    """Return a value as a message may show it: short, and never what looks like a URL or an account."""
    value = given.value
    if isinstance(value, str):
        return HIDDEN if "://" in value or "@" in value else f'"{printable(value)}"'
    if given.written and not isinstance(value, Odd):
        return printable(given.written)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        # Python refuses to print an integer of more than 4300 digits.
        return f"{value:g}" if abs(value) < 1e15 else "a number that large"
    return value.called if isinstance(value, Odd) else _KINDS.get(type(value), "a value of another kind")


_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", tuple: "a list"}
