"""Events of the outbox for people and for programs: one JSON line each, one line of text each, or a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from assetbatch.words import ago, moment, rfc3339, utc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from assetbatch.database.outbox import Stored

# What the table's frame, its title and the prompt beneath it take of a terminal's lines.
FRAME_LINES = 6


def json_line(event: Stored) -> str:
    """Write an event as it is published, its digits and all, and when that was; null: not yet, or never."""
    published_at = None if event.dropped or event.published_at is None else rfc3339(event.published_at)
    return f'{event.payload.rstrip()[:-1]}, "published_at": {json.dumps(published_at)}}}'


def text_line(event: Stored, *, width: int | None = None) -> str:
    """Write an event as a line: when it was stored, symbol, price, bid, ask, time of the price, seq, fate.

    Whole columns are left out that do not fit into `width`; None: it is no terminal, and nothing is.
    """
    told = _fields(event)
    cells = {
        "stored": utc(event.created_at, seconds=True, today=event.created_at),
        "symbol": f"{event.symbol:<12}",
        "price": f"{told['last_price']:>14}",
        "bid": f"{told['bid']:>14}",
        "ask": f"{told['ask']:>14}",
        "priced": f"{told['timestamp']:<27}",
        "seq": str(event.seq),
        "published": f"{_fate(event, zone=True):<12}",
    }
    for name in ("seq", "ask", "bid", "priced", "published"):
        if width is None or len("  ".join(cells.values())) <= width:
            break
        del cells[name]
    return "  ".join(cells.values()).rstrip()


def table(events: Sequence[Stored], now: datetime, *, width: int, height: int) -> RenderableType:
    """Lay out the newest events that fit, the newest at the bottom."""
    from rich.text import Text

    from assetbatch.report.tables import fitted_table

    if not events:
        return Text("no event yet; Ctrl-C ends this")
    columns = ("symbol", "price", "bid", "ask", "priced", "age", "seq", "published")
    rows = [_row(event, now) for event in events[-max(1, height - FRAME_LINES) :]]
    less, numbers = ("seq", "age", "ask", "bid", "published"), ("price", "bid", "ask", "seq")
    return fitted_table("Events, times in UTC", columns, rows, width=width, less=less, numbers=numbers)


def _row(event: Stored, now: datetime) -> tuple[Sequence[str], str | None]:
    told = _fields(event)
    at = moment(told["timestamp"])
    cells = (
        event.symbol,
        told["last_price"],
        told["bid"],
        told["ask"],
        told["timestamp"] if at is None else utc(at, seconds=True, today=now, zone=False),
        "-" if at is None else ago(at, now),
        str(event.seq),
        _fate(event),
    )
    return cells, "yellow" if event.published_at is None else "dim" if event.dropped else None


def _fields(event: Stored) -> dict[str, str]:
    """Read the payload; digits stay as they are, whatever is missing is a dash."""
    read: Any = json.loads(event.payload, parse_float=str, parse_int=str)
    return {
        name: "-" if read.get(name) is None else str(read[name]) for name in ("last_price", "bid", "ask", "timestamp")
    }


def _fate(event: Stored, *, zone: bool = False) -> str:
    if event.dropped:
        return "not sent"
    at = event.published_at
    return "waits" if at is None else utc(at, seconds=True, today=at, zone=zone)
