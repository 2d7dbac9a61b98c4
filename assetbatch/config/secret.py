"""The key, passwords, URLs with one: from a variable, its `_FILE` twin, .env or a systemd credential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from assetbatch.config.given import CONTROL, Given
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("POLYGON_API_KEY", "DATABASE_URL", "DB_PASSWORD", "REDIS_URL")
MAX_BYTES = 65_536


class Secret:
    """A text that does not show itself: printing, formatting and logging it give `***`."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """Return the text itself, for the one place that needs it."""
        return self._text

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Secret does not change")

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other.reveal()

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not written down")


def ways(name: str) -> str:
    """Return how a secret may be given, for messages."""
    return f"{name} in the environment or in .env, {name}_FILE, or a systemd credential named {name}"


class Layer(msgspec.Struct, frozen=True):
    """Variables by name, as one source gives them, and the folder that relative `_FILE` paths start from."""

    variables: Mapping[str, Given]
    folder: Path


def read(layers: list[Layer], credentials: Path | None, faults: list[Fault]) -> dict[str, Given]:
    """Return the secrets that are given, by name, each a `Secret` with its place.

    The first layer is the process's environment; systemd's credentials (a folder) come next, then the rest.
    """
    found: dict[str, Given] = {}
    for name in NAMES:
        given = _from_layer(name, layers[0], faults) or _from_credentials(name, credentials, faults)
        for layer in layers[1:]:
            given = given or _from_layer(name, layer, faults)
        if given is None:
            continue
        if CONTROL.search(given.value):
            faults.append(Fault(given.place, key_of(name, given), "has a control character, or is not UTF-8 text"))
        else:
            found[name] = Given(Secret(given.value), given.place)
    return found


def key_of(name: str, given: Given) -> str:
    """Return the `key` of a secret's fault: empty where the place names it already."""
    return "" if given.place in {name, name + "_FILE"} else name


def _from_layer(name: str, layer: Layer, faults: list[Fault]) -> Given | None:
    direct, twin = layer.variables.get(name), layer.variables.get(name + "_FILE")
    if twin is None:
        return direct
    if direct is not None:
        faults.append(Fault(twin.place, key_of(name, twin), f"{name} and {name}_FILE are both set: remove one"))
        return direct
    try:
        path = layer.folder / twin.value
        # The path is repeated only where it cannot be the secret itself, put under the wrong name.
        called = str(path) if Path(twin.value).is_absolute() else "the file that it names"
        return _from_file(path, called, twin.place, faults)
    except ValueError:
        faults.append(Fault(twin.place, name, "names no file"))
        return None


def _from_credentials(name: str, folder: Path | None, faults: list[Fault]) -> Given | None:
    if folder is None:
        return None
    for file_name in (name, name.lower()):
        try:
            there = (folder / file_name).exists()
        except (OSError, ValueError):
            there = False
        if there:
            return _from_file(folder / file_name, f"systemd credential {file_name}", f"credential {file_name}", faults)
    return None


def _from_file(path: Path, called: str, place: str, faults: list[Fault]) -> Given | None:
    """Return the file's first line, without the space around it."""
    message = ""
    text = ""
    try:
        with path.open("rb") as stream:
            text = (stream.read(MAX_BYTES).splitlines() or [b""])[0].decode().strip()
        if not text:
            message = "is empty"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        message = "is not UTF-8 text"
    if message:
        faults.append(Fault(place, "", f"{called} {message}"))
        return None
    return Given(text, place)
