"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=3660)


def duration(text: str) -> timedelta:
    """Read a length of time as people write it: 90s, 10m, 24h, 7d; ten years at most."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if length is None or length > _LONGEST:
        raise typer.BadParameter(f"{text} is no length of time: 90s, 10m, 24h or 7d are")
    return length
