"""YAML text to values with their lines. Harmless on any text: no tags, bounded depth, aliases read once."""

from __future__ import annotations

import re
from typing import Any

import yaml

from assetbatch.config.given import Given, Odd, printable
from assetbatch.errors import Fault

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 100
"""Deeper than any key. Tens of thousands of levels kill libyaml's composer, which recurses in C: so the document is
built here, from the parser's events."""
_TAG = "tag:yaml.org,2002:"
_TEXTS = frozenset(_TAG + name for name in ("str", "timestamp", "value", "merge"))
_SCALARS = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))
_COLLECTIONS = frozenset({None, "!", _TAG + "map", _TAG + "seq"})


def read(text: str, display: str, faults: list[Fault]) -> Given | None:
    """Return the document's root, None for an empty or unreadable one.

    Adds to `faults` a syntax error (one: what follows it cannot be told) and duplicate keys. `display` is the
    file's name as the user gave it.
    """
    try:
        return _Reader(text, display, faults).root()
    except _Unreadable as error:
        faults.append(error.fault)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark  # the parser's errors all have one
        message = _syntax_error(str(error.problem), text[mark.index : mark.index + 1])
        faults.append(_too_deep(text[: mark.index], display) or Fault(f"{display}:{mark.line + 1}", "", message))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.append(Fault(f"{display}:{line}", "", "has a control character, which YAML does not allow"))
    except (yaml.YAMLError, ValueError):
        faults.append(Fault(display, "", "is not YAML"))
    return None


def _too_deep(text: str, display: str) -> Fault | None:
    """Return the fault of depth in what stands before the place where the parser gave up; None where there is none.

    The parser reads ahead, up to 1,024 characters, and some have a bound of their own (libyaml 0.2.6: 1,000 levels):
    then they give up, in words of their own, before we have seen one level.
    """
    try:
        _Reader(text, display, []).root()
    except _TooDeep as error:
        return error.fault
    except (_Unreadable, yaml.YAMLError, ValueError):
        pass
    return None


def _syntax_error(problem: str, sign: str) -> str:
    if "cannot start any token" in problem and sign == "\t":
        return "not YAML: a tab cannot indent; use spaces"
    # What the parser quotes may be part of a secret; a single sign, such as the one it misses, cannot.
    return "not YAML: " + printable(
        re.sub(r"'([^']*)'", lambda quoted: quoted[0] if len(quoted[1]) < 4 else "…", problem), 200
    )


class _Unreadable(Exception):  # noqa: N818 - a fault of the document, on its way to the others
    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(place, "", message)


class _TooDeep(_Unreadable):
    def __init__(self, display: str) -> None:
        super().__init__(display, f"is nested more than {MAX_DEPTH} levels deep")


class _Reader:
    """Makes values of the parser's events; an alias is the very value of its anchor, and so multiplies nothing."""

    def __init__(self, text: str, display: str, faults: list[Fault]) -> None:
        self._yaml = LOADER(text)
        self._display = display
        self._faults = faults
        self._anchors: dict[str, Given] = {}

    def root(self) -> Given | None:
        """Return the only document's root, None when there is no document."""
        self._yaml.get_event()  # the stream's start
        if isinstance(self._yaml.get_event(), yaml.StreamEndEvent):
            return None
        root = self._value(self._yaml.get_event(), "", 0)
        self._yaml.get_event()  # the document's end
        if not isinstance(second := self._yaml.get_event(), yaml.StreamEndEvent):
            raise _Unreadable(self._place(second), "not one YAML document: a second one begins here (---)")
        return root

    def _place(self, event: Any) -> str:
        return f"{self._display}:{event.start_mark.line + 1}"

    def _value(self, event: Any, path: str, depth: int) -> Given:
        """Return the value that begins with an event; `path` is its dotted key, for faults."""
        place = self._place(event)
        if depth > MAX_DEPTH:
            raise _TooDeep(self._display)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                message = "not YAML: an alias (*…) without its anchor (&…); a text that begins with * needs quotes"
                raise _Unreadable(place, message)
            return self._anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            return self._anchored(event, Given(self._scalar(event), place, event.value))
        items: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        # Anchored before it is filled: it may contain itself.
        given = self._anchored(event, Given(items if event.tag in _COLLECTIONS else Odd("a YAML tag"), place))
        while not isinstance(inner := self._yaml.get_event(), yaml.CollectionEndEvent):
            if isinstance(items, dict):
                self._add_pair(items, inner, path, depth)
            else:
                items.append(self._value(inner, f"{path}[{len(items)}]", depth + 1))
        return given

    def _anchored(self, event: Any, given: Given) -> Given:
        if event.anchor is not None:
            self._anchors[event.anchor] = given
        return given

    def _add_pair(self, found: dict[str, Given], key: Any, path: str, depth: int) -> None:
        place = self._place(key)
        name = self._value(key, path, depth + 1).written
        dotted = f"{path}.{name}" if path else name
        given = self._value(self._yaml.get_event(), dotted, depth + 1)
        if not isinstance(key, yaml.ScalarEvent):
            self._faults.append(Fault(place, path, "expected a word as key, not a list or mapping"))
        elif name in found:
            message = f"is given twice; the first one is at {found[name].place}"
            self._faults.append(Fault(place, printable(dotted, 120), message))
        else:
            # The key's own line: a section's first line is where one looks for it.
            found[name] = Given(given.value, place, given.written)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        tag = event.tag
        if tag in {None, "!"}:
            tag = self._yaml.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag in _TEXTS:
            return event.value
        if tag not in _SCALARS:
            return Odd("a YAML tag")
        try:
            return self._yaml.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, LookupError, OverflowError):
            return Odd("a number that cannot be read")
