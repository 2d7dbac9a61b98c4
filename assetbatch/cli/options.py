"""Options that several commands share, and the questions that --yes answers beforehand."""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

import typer


def complete_symbols(incomplete: str) -> list[str]:
    """Return the symbols that begin so, for a shell; what that takes is imported when somebody presses TAB."""
    from assetbatch.cli import completion

    return completion.symbols(incomplete)


SymbolsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--symbol", autocompletion=complete_symbols, help="Only this one; may be given several times."),
]
SymbolArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SYMBOL", autocompletion=complete_symbols, help="The asset's symbol.")
]
LimitOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many; a table shows 50 without it.")
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
TABLE_LIMIT = 50

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=3660)


def duration(text: str) -> timedelta:
    """Read a length of time as people write it: 90s, 10m, 24h, 7d; ten years at most."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    if length is None or length > _LONGEST:
        raise typer.BadParameter(f"{text} is no length of time: 90s, 10m, 24h or 7d are")
    return length


def span(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Read --since and --until, days or times with their zone (UTC where they have none)."""
    begin, end = _moment(since), _moment(until)
    if begin and end and begin >= end:
        raise typer.BadParameter("--since is not before --until")
    return begin, end


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day or time such as 2026-01-31 or 2026-01-31T12:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def no_nan(number: float | None) -> float | None:
    """Refuse what is no number: an option's bounds let it pass."""
    if number is not None and math.isnan(number):
        raise typer.BadParameter("nan is no number")
    return number


def agreed(question: str) -> bool:
    """Ask a question that is answered with yes or no, on stderr; no is what anything else means."""
    # typer.confirm writes a space to stdout, where only the answer belongs.
    sys.stderr.write(f"{question} [y/N]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def require_yes(question: str) -> None:
    """Ask whether something is to be done; anything but yes ends the command. Raises BadParameter where nobody is."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody is there to ask: say --yes")
    if not agreed(question):
        raise typer.Exit
