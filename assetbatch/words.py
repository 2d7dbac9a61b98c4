"""Counts and times as people tell them, 1 asset, 2,000 assets, 12 s, 4 min, 3 h, 2 d; and times as programs do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta


def counted(count: int, thing: str) -> str:
    """Return how many there are of something that has a plural in s."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def named(names: Sequence[str], total: int | None = None, *, most: int = 5, separator: str = ", ") -> str:
    """Return the first names, and how many more there are: of `total`, where not all names are at hand."""
    total = len(names) if total is None else total
    more = total - min(len(names), most)
    rest = f" and {more:,} more" if more > 0 else ""
    return separator.join(names[:most]) + rest if names else counted(total, "asset")


def joined(names: Sequence[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def duration(length: timedelta) -> str:
    """Return a length of time in its largest sensible unit."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was."""
    return "never" if moment is None else f"{duration(now - moment)} ago"


def until(moment: datetime, now: datetime) -> str:
    """Return how long it is until something is expected, to the second where that is within the hour."""
    seconds = max(0, round((moment - now).total_seconds()))
    if 120 <= seconds < 3600:
        return f"in {seconds // 60} min {seconds % 60} s"
    return f"in {duration(moment - now)}"


def utc(at: datetime, *, seconds: bool = False, today: datetime | None = None, zone: bool = True) -> str:
    """Return a time as a clock in UTC has it, and say so: 2026-11-27 21:55 UTC.

    Beside `today` what goes without saying is left out: the day, or the year, and seconds of another day. Without
    `zone`, what stands around it says UTC.
    """
    at = at.astimezone(UTC)
    day, clock = "%Y-%m-%d ", "%H:%M:%S" if seconds else "%H:%M"
    if today is not None and at.year == today.astimezone(UTC).year:
        is_todays = at.date() == today.astimezone(UTC).date()
        day, clock = ("", clock) if is_todays else ("%m-%d ", "%H:%M")
    return f"{at:{day}{clock}}{' UTC' if zone else ''}"


def rfc3339(at: datetime) -> str:
    """Return a time as all documents have it: in UTC, with a Z."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(text: str | None) -> datetime | None:
    """Return the aware time that a text is; None where there is none, or what is there is none."""
    try:
        read = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read is None or read.tzinfo else None
