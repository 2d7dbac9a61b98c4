"""Variables that nothing reads, though they were plainly meant for us: POLYGON_APIKEY, DATABASE_URI, DB_PASS.

Only told of, never refused, and only where the right one is absent: the environment, and a .env, are other programs',
too. No value is looked at.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from assetbatch.config import sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from assetbatch.config.database import Database
    from assetbatch.config.given import Given

OURS = sources.KNOWN | {"ASSETBATCH_CONFIG"}
# What people write for the same, in capitals and without underscores.
_SYNONYMS = (
    (r"^(MASSIVE|POLYGONIO)", "POLYGON"),
    (r"TOKEN(FILE)?$", r"KEY\1"),
    (r"API(?=KEY)", ""),
    (r"^DBUR[IL]|^DATABASEDSN", "DATABASEURL"),
    (r"URI(FILE)?$", r"URL\1"),
    (r"(PASS|PASSWD|PWD)(FILE)?$", r"PASSWORD\2"),
    (r"^DBUSERNAME$", "DBUSER"),
    (r"^DBHOSTNAME$", "DBHOST"),
    (r"^DB(DATABASE|DBNAME)$", "DBNAME"),
    (r"^POLYGONPLAN$", "POLYGONTIER"),
    (r"^ASSETBATCH(CONF|CFG|CONFIGFILE|CONFIGPATH)$", "ASSETBATCHCONFIG"),
)
# Words of fewer letters are like too many others.
_SHORTEST = 8
_LIKENESS = 0.9


class Doubt(msgspec.Struct, frozen=True):
    """A variable that nothing reads: `meant` is the one that it stands for, `told` the sentence."""

    meant: str
    told: str


def find(environ: Mapping[str, str], dotenv: Mapping[str, Given], credentials: Mapping[str, Given]) -> list[Doubt]:
    """Return what is to be told of names in the environment and in .env."""
    process = [name for name, value in environ.items() if value.strip()]
    given = {name.removesuffix("_FILE") for name in (*dotenv, *credentials, *process) if name in OURS}
    places = {name: f"{name} ({found.place})" for name, found in dotenv.items()} | {name: name for name in process}
    return [
        Doubt(meant.removesuffix("_FILE"), f"{place} is not read by anything here: did you mean {meant}?")
        for name, place in places.items()
        if (meant := _meant(name)) and meant.removesuffix("_FILE") not in given
    ]


def that_count(doubts: list[Doubt], where: Database | None, named_at: str) -> Iterator[Doubt]:
    """Leave out names of a database where another one is in force: they are somebody else's."""
    for doubt in doubts:
        if doubt.meant == "DATABASE_URL" and where is not None:
            continue
        if doubt.meant.startswith("DB_") and where is not None and (where.embedded or "DATABASE_URL" in named_at):
            continue
        yield doubt


def _meant(name: str) -> str:
    """Return which of our names another one was meant to be; empty: none, or it is one of ours."""
    if name in OURS or _beginning(name) not in _BEGINNINGS:
        return ""
    plain, by_plain = _plain(name), _by_plain()
    if plain in by_plain:
        return by_plain[plain]
    import difflib

    close = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_LIKENESS) if len(plain) >= _SHORTEST else []
    return by_plain[close[0]] if close else ""


def _beginning(name: str) -> str:
    return name.upper().replace("_", "")[:3]


@cache
def _by_plain() -> dict[str, str]:
    return {_plain(name): name for name in sorted(OURS)}


def _plain(name: str) -> str:
    plain = re.sub(r"[^A-Z0-9]", "", name.upper())
    for pattern, word in _SYNONYMS:
        plain = re.sub(pattern, word, plain)
    return plain


# Of all other names, most of an environment, no more is looked at.
_BEGINNINGS = frozenset(map(_beginning, (*OURS, "MASSIVE")))
