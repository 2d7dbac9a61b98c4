"""What was told of a command's trouble, kept between its runs: in full once, then hourly, then that it has ended.

It is kept in a file of the user's and not in the database, so that it holds while that is away, too. Whoever cannot
read or write it tells everything in full.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from assetbatch import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE, LOCK = "told.json", "told.lock"
# A little less than an hour: cron's runs come some seconds early or late.
HOUR_SECONDS = 3570.0
# So often within an hour is a cause that comes and goes told as a new one; then it counts as never gone.
BEGINNINGS = 3
# A crontab line that is no more.
FORGOTTEN_AFTER_SECONDS = 30 * 86_400.0
MAX_ENTRIES = 500
MAX_ABOUT = 200
# The lock is held for milliseconds, unless its holder was stopped.
LOCK_PATIENCE_SECONDS = 1.0


class Cause(Struct, frozen=True):
    """One thing to tell of: `key` is the same in every run that meets it, `about` is one line for people.

    `fails`: it decided the run's exit code; else it is a warning. `lasts`: it goes on until a run goes well; what is
    over with its run, as a dead letter, has no end to tell of.
    """

    key: str
    about: str
    fails: bool
    lasts: bool = True


class Telling(Enum):
    """How a cause is told now."""

    FULL = "full"
    STILL = "still"
    NOT = "not"


class Verdict(Struct, frozen=True):
    """How to tell of a cause, and for how long and in how many runs it was met."""

    telling: Telling
    seconds: float = 0.0
    runs: int = 1


class End(Struct, frozen=True):
    """Trouble that has ended: a warning, or all that made runs fail."""

    about: str
    fails: bool
    seconds: float
    runs: int


class Entry(Struct, kw_only=True):
    """What is known of one cause in the runs of one command line; times are seconds since the epoch."""

    who: str
    key: str
    about: str
    fails: bool
    lasts: bool
    since: float
    seen: float
    told: float
    runs: int = 1
    beginnings: int = 1
    ended: float | None = None
    end_told: float = 0.0


def review(
    folder: Path, who: str, causes: Sequence[Cause], *, well: bool, now: float
) -> tuple[list[Verdict], list[End]]:
    """Return how each of a run's causes is to be told, and what has ended; remember that it was.

    `who` stands for the command line. A run that went `well` ends what it does not meet itself. Raises OSError.
    """
    if not causes and not (well and any(_is_under_way(entry, who) for entry in _read(folder))):
        return [], []
    with _locked(folder):
        entries = [entry for entry in _read(folder) if not _is_over(entry, now)]
        verdicts = [_meet(entries, who, cause, now) for cause in causes]
        met = {cause.key for cause in causes}
        gone = [entry for entry in entries if well and _is_under_way(entry, who) and entry.key not in met]
        ends = _end(gone, now)
        _write(folder, sorted(entries, key=lambda entry: entry.seen)[-MAX_ENTRIES:])
    return verdicts, ends


def _is_under_way(entry: Entry, who: str) -> bool:
    return entry.who == who and entry.ended is None


def _is_over(entry: Entry, now: float) -> bool:
    return now - entry.seen > FORGOTTEN_AFTER_SECONDS or (entry.ended is not None and now - entry.ended > HOUR_SECONDS)


def _meet(entries: list[Entry], who: str, cause: Cause, now: float) -> Verdict:
    """Find or make a cause's entry, and decide."""
    entry = next((one for one in entries if (one.who, one.key) == (who, cause.key)), None)
    about = cause.about[:MAX_ABOUT]
    if entry is None:
        what = asdict(cause) | {"about": about}
        entries.append(Entry(**what, who=who, since=now, seen=now, told=now))
        return Verdict(Telling.FULL)
    entry.about, entry.seen = about, now
    if entry.ended is not None and entry.beginnings < BEGINNINGS:
        entry.beginnings += 1
        entry.since, entry.told, entry.runs, entry.ended = now, now, 1, None
        return Verdict(Telling.FULL)
    entry.ended = None
    entry.runs += 1
    # Told in the future: the clock was set back.
    if 0 <= now - entry.told < HOUR_SECONDS:
        return Verdict(Telling.NOT)
    entry.told = now
    return Verdict(Telling.STILL, max(0.0, now - entry.since), entry.runs)


def _end(gone: Sequence[Entry], now: float) -> list[End]:
    """End what is gone; tell of it where it was told of since its last end."""
    ends = [
        End(entry.about, entry.fails, max(0.0, now - entry.since), entry.runs)
        for entry in gone
        if entry.told >= entry.end_told and _has_lasted(entry)
    ]
    for entry in gone:
        entry.ended = entry.end_told = now
    failures = [end for end in ends if end.fails]
    warnings = [end for end in ends if not end.fails]
    if not failures:
        return warnings
    longest = max(failures, key=lambda end: end.seconds)
    return [replace(longest, runs=sum(end.runs for end in failures)), *warnings]


def _has_lasted(entry: Entry) -> bool:
    """Return whether anybody waits for the end; a warning of one run was about that run."""
    return entry.lasts if entry.fails else entry.runs > 1


def _read(folder: Path) -> list[Entry]:
    """Return what is kept; nothing where the file is not there, or is not ours."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=list[Entry])
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def _write(folder: Path, entries: Sequence[Entry]) -> None:
    new = folder / f"{FILE}.new"
    with open(new, "wb", opener=_private) as stream:
        stream.write(msgspec.json.encode(entries))
    new.replace(folder / FILE)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the file between processes, for a moment. Raises OSError, too, when another one holds it for too long."""
    if not folder.is_dir():
        _make(folder)
    with open(folder / LOCK, "ab", opener=_private) as lock:
        processes.lock_file(lock.fileno(), LOCK_PATIENCE_SECONDS)
        yield


def _make(folder: Path) -> None:
    parent = folder.parent
    if not parent.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            parent.chmod(0o711)  # the embedded server's account has to pass there
    folder.mkdir(0o700, exist_ok=True)
