"""What of a quote belongs in `metadata.last_update`, and how it is written there. Pure.

`last_update` is a merge of two parts: the newest quote (bid, ask, last price and their time), and the newest figures of
a day. Each gives way to a newer one alone, whoever brings it: a stream has no figures of days, a call's quote may be
older than a stream's. What is there may have been written by others: it may be anything at all.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from assetbatch.model import Quote

# As far ahead as a quote of the vendor's may be: clocks differ.
FUTURE_TOLERANCE = timedelta(minutes=5)
# What `metadata.last_update` has of a quote beside its time, by the same names.
QUOTE_FIGURES = ("bid", "ask", "last_price")
DAILY_FIGURES = ("daily_open", "daily_high", "daily_low", "daily_close")


class News(Struct, frozen=True):
    """What of a quote is newer than what is stored: the quote itself, the figures of its day, or both."""

    quote: Quote
    has_quote: bool
    has_daily: bool

    def is_in(self, stored: object) -> bool:
        """Return whether `stored`, a `metadata.last_update` or anything at all, has all of it."""
        return (not self.has_quote or _has_quote(stored, self.quote)) and (
            not self.has_daily or _has(stored, self.quote, DAILY_FIGURES)
        )


def news_of(quote: Quote, stored: object, daily_at: datetime | None, now: datetime) -> News | None:
    """Return what of `quote` belongs in the place of `stored`, a `metadata.last_update` (or None, or anything at all).

    That is what is newer, or of the same time but not the same; `daily_at` is the time of the daily figures that are
    stored, None: not known. What cannot be read as a time gives way, and so does a time in the future.
    """
    stored_at = _time_of(stored)
    quote_fits = _gives_way(stored_at, quote.timestamp, now) and not _has_quote(stored, quote)
    daily_fits = quote.has_daily and _gives_way(daily_at or stored_at, quote.timestamp, now)
    daily_fits = daily_fits and not _has(stored, quote, DAILY_FIGURES)
    return News(quote, quote_fits, daily_fits) if quote_fits or daily_fits else None


def _gives_way(stored_at: datetime | None, moment: datetime, now: datetime) -> bool:
    return stored_at is None or _is_future(stored_at, now) or stored_at <= moment


def _time_of(stored: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(stored["timestamp"]) if isinstance(stored, dict) else None
    except (KeyError, TypeError, ValueError):
        return None
    return None if moment is None or moment.tzinfo is None else moment


def is_from_future(stored: object, now: datetime) -> bool:
    """Return whether the time of what is stored lies in the future, further than clocks differ."""
    return _is_future(_time_of(stored), now)


def _is_future(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment - now > FUTURE_TOLERANCE


def _has_quote(stored: object, quote: Quote) -> bool:
    return _has(stored, quote, QUOTE_FIGURES) and _time_of(stored) == quote.timestamp


def _has(stored: object, quote: Quote, figures: Sequence[str]) -> bool:
    return isinstance(stored, dict) and all(stored.get(name) == getattr(quote, name) for name in figures)


def rfc3339(moment: datetime) -> str:
    """Write an aware UTC time as the vendor's documents and ours do: `2026-11-22T08:00:00.123Z`."""
    text = moment.isoformat(timespec="microseconds" if moment.microsecond % 1000 else "milliseconds")
    return text.replace("+00:00", "Z")


def texts_of(symbol: str, news: News, before: object) -> tuple[str, str]:
    """Write news as JSON, with the vendor's digits: for `metadata.last_update`, and as an event, but for its seq.

    An event tells the quote that there is then: that of `before`, where only the figures of the day are news.
    """
    quote = news.quote
    daily = _figures(DAILY_FIGURES, partial(getattr, quote))
    if news.has_quote:
        told = _figures(QUOTE_FIGURES, partial(getattr, quote))
        told += f', "timestamp": "{rfc3339(quote.timestamp)}"'
        written = f"{told}, {daily}" if news.has_daily else told
    else:
        kept = before if isinstance(before, dict) else {}
        told = _figures(QUOTE_FIGURES, kept.get)
        told += f', "timestamp": {json.dumps(kept.get("timestamp"))}'
        written = daily
    return f"{{{written}}}", f'{{"symbol": {json.dumps(symbol)}, {told}}}'


def _figures(names: Iterable[str], value_of: Callable[[str], object]) -> str:
    return ", ".join([f'"{name}": {_number(value_of(name))}' for name in names])


def _number(value: object) -> str:
    """Write a number; what others wrote may be none."""
    is_number = isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool))
    return str(value) if is_number else "null"
