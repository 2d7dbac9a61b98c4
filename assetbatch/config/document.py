"""YAML text to values with their lines. Harmless on any text: no tags, bounded depth, aliases read once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from assetbatch.config.given import Given, Odd, printable
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Hashable

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 8
"""Deeper than any key; what is deeper is not looked at."""
SAFE_LENGTH = 5000
"""libyaml's composer recurses in C, and tens of thousands of levels kill it: a longer text is measured."""
SAFE_NESTING = 1000
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset(_TAG + name for name in ("str", "timestamp", "value", "merge"))
_UNREADABLE = (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError)


def read(text: str, display: str, faults: list[Fault]) -> Given | None:
    """Return the document's root, None for an empty or unreadable one.

    Adds to `faults` a syntax error (one: what follows it cannot be told) and duplicate keys. `display` is the
    file's name as the user gave it.
    """
    try:
        if len(text) > SAFE_LENGTH and _nested_too_deeply(text):
            faults.append(Fault(display, "", f"is nested more than {SAFE_NESTING} levels deep"))
            return None
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{display}:{mark.line + 1}" if mark else display
        faults.append(Fault(place, "", _syntax_error(error, text, mark.index if mark else 0)))
        return None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.append(Fault(f"{display}:{line}", "", "has a control character, which YAML does not allow"))
        return None
    except (yaml.YAMLError, RecursionError, ValueError):
        faults.append(Fault(display, "", "is not YAML"))
        return None
    return None if node is None else _Reader(display, faults).value(node, "", 0)


def _nested_too_deeply(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > SAFE_NESTING:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


def _syntax_error(error: yaml.MarkedYAMLError, text: str, index: int) -> str:
    problem = error.problem or "cannot be read"
    if "cannot start any token" in problem and text[index : index + 1] == "\t":
        return "not YAML: a tab cannot indent; use spaces"
    if "undefined alias" in problem:
        return "not YAML: an alias (*…) without its anchor (&…); a text that begins with * needs quotes"
    if "another document" in problem:
        return "not one YAML document: a second one begins here (---)"
    # What the parser quotes may be part of a secret; a single sign, such as the one it misses, cannot.
    return "not YAML: " + printable(
        re.sub(r"'([^']*)'", lambda quoted: quoted[0] if len(quoted[1]) < 4 else "…", problem), 200
    )


class _Reader:
    """Turns nodes into values; a node that aliases repeat is read once, so that they cannot multiply."""

    def __init__(self, display: str, faults: list[Fault]) -> None:
        self._display = display
        self._faults = faults
        self._seen: dict[tuple[int, int], Given] = {}
        self._scalars: Any = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: str, depth: int) -> Given:
        """Return a node's value; `path` is its dotted key, for faults."""
        place = self._place(node)
        if depth > MAX_DEPTH:
            return Given(Odd("something nested that deeply"), place)
        if (known := self._seen.get((id(node), depth))) is not None:
            return known
        if isinstance(node, yaml.ScalarNode):
            given = Given(self._scalar(node), place, node.value)
        elif isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            given = Given(self._mapping(node, path, depth), place)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            items = [self.value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
            given = Given(items, place)
        else:
            given = Given(Odd("a YAML tag"), place)
        self._seen[id(node), depth] = given
        return given

    def _place(self, node: yaml.Node) -> str:
        return f"{self._display}:{node.start_mark.line + 1}"

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Given]:
        found: dict[str, Given] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._faults.append(Fault(place, path, "expected a word as key, not a list or mapping"))
                continue
            name: str = key_node.value
            dotted = f"{path}.{name}" if path else name
            given = self.value(value_node, dotted, depth + 1)
            if name in found:
                message = f"is given twice; the first one is at {found[name].place}"
                self._faults.append(Fault(place, printable(dotted, 120), message))
            else:
                # The key's own line: a section's first line is where one looks for it.
                found[name] = Given(given.value, place, given.written)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag in _TEXT_TAGS:
            return node.value
        read: dict[Hashable, Any] = {
            _TAG + "null": lambda _: None,
            _TAG + "bool": self._scalars.construct_yaml_bool,
            _TAG + "int": self._scalars.construct_yaml_int,
            _TAG + "float": self._scalars.construct_yaml_float,
        }
        if node.tag not in read:
            return Odd("a YAML tag")
        try:
            return read[node.tag](node)
        except _UNREADABLE:
            return Odd("a number that cannot be read")
