"""The key, passwords, URLs with one: from a variable, its `_FILE` twin, .env or a systemd credential."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from assetbatch.config.given import Given, has_control
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = ("POLYGON_API_KEY", "DATABASE_URL", "DB_PASSWORD", "REDIS_URL")
MAX_BYTES = 65_536
SANDBOX_KEY = "sandbox"
SHORTEST = 6
USERINFO = r"(?:(?:[^\s@/?#:%]|%[0-9A-Fa-f]{2})*(?::(?:[^\s@/?#%]|%[0-9A-Fa-f]{2})*)?@)?"
"""User and password of a URL that has one meaning: with an @ or a / in a password each library finds another host in
it, asks DNS for that, and tells of it."""
HOST = r"(?:\[[^\s@/?#\[\]]*\]|[^\s@/?#:\[\]]*)(?::[0-9]{1,5})?"
ENCODE = "in user and password write @ / ? # % : and spaces as % codes: %40 for @, %2F for /"
_FORMS = {
    "POLYGON_API_KEY": (r"[!-~]+", "has a space or a letter that no key has"),
    "REDIS_URL": (
        rf"(rediss?://{USERINFO}{HOST}(/[^\s@?#]*)?|unix://{USERINFO}/[^\s?#]*)(\?(\w+=[^\s#]*)?)?",
        f"expected redis://user:password@host:6379/0, rediss://… or unix:///path; {ENCODE}",
    ),
}


class Secret:
    """A text that does not show itself: printing, formatting and logging it give `***`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"


def ways(name: str) -> str:
    """Return how a secret may be given, for messages."""
    return f"{name} in the environment or in .env, {name}_FILE, or a systemd credential named {name}"


def read(layers: Iterable[tuple[Mapping[str, Given], Path]], faults: list[Fault]) -> dict[str, Given]:
    """Return the secrets that are given, by name; one without its usual form is there, and a fault.

    Each layer has a source's variables by name, and the folder from which their relative `_FILE` paths start. The
    first that gives a secret counts, and what stands behind it is not looked at.
    """
    found: dict[str, Given] = {}
    for name in NAMES:
        given = next(filter(None, (_from_layer(name, *layer, faults) for layer in layers)), None)
        if given is None:
            continue
        form, message = _FORMS.get(name, (".*", ""))
        if has_control(given.value):
            faults.append(Fault(given.place, _key(name, given), "has a control character, or is not UTF-8 text"))
            continue
        if not re.fullmatch(form, given.value):
            faults.append(Fault(given.place, _key(name, given), message))
        found[name] = given
    return found


def _key(name: str, given: Given) -> str:
    """Return the `key` of a secret's fault: empty where the place names it already."""
    return "" if given.place in {name, name + "_FILE"} else name


def _from_layer(name: str, variables: Mapping[str, Given], folder: Path, faults: list[Fault]) -> Given | None:
    direct, twin = variables.get(name), variables.get(name + "_FILE")
    if twin is None:
        return direct
    if direct is not None:
        faults.append(Fault(twin.place, _key(name, twin), f"{name} and {name}_FILE are both set: remove one"))
        return direct
    try:
        with (folder / twin.value).open("rb") as stream:
            text = (stream.read(MAX_BYTES).splitlines() or [b""])[0].decode().strip()
        if text:
            return Given(text, twin.place)
        message = "is empty"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except ValueError:
        message = "is not UTF-8 text"
    # The path is repeated only where it cannot be the secret itself, put under the wrong name.
    called = twin.value if Path(twin.value).is_absolute() else "the file that it names"
    faults.append(Fault(twin.place, "", f"{called} {message}"))
    return None


def hidden(secrets: set[str]) -> tuple[str, ...]:
    """Return every text that no message may show: secrets and the passwords in them, in all their spellings.

    The longest comes first: masking one leaves no rest of another.
    """
    texts = set(secrets)
    for text in secrets:
        texts.update(re.findall(r"//[^/?#]*?:([^/?#]*)@", text) + re.findall(r"[?&](?:ssl)?password=([^&#]*)", text))
        texts.update(re.findall(r"//[^:]*:(.*)@", text))  # what it may have been meant to be
    # % codes, resolved and written: libraries repeat a URL's parts in either way.
    texts |= {unquote(text) for text in texts} | {quote(text, safe="", errors="replace") for text in texts}
    return tuple(sorted(filter(None, texts), key=len, reverse=True))


def masked(text: str, secrets: Iterable[str], *, shortest: int = SHORTEST) -> str:
    """Blot out secrets, given as `hidden` does.

    Words too short for one stay, and so does the sandbox's key, which is part of many a path.
    """
    for one in secrets:
        if len(one) >= shortest and one != SANDBOX_KEY:
            text = text.replace(one, "***")
    return text
