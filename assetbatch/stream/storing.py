"""Storing what came: quotes through the same functions as all prices, open bars with them, in one transaction.

What is not taken keeps nothing else from being stored: it is left alone for a while, and told once.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct, field

from assetbatch.database.bars import holes, pages
from assetbatch.database.errors import words_of
from assetbatch.database.prices import Brought, Times
from assetbatch.database.retries import in_transaction
from assetbatch.database.savepoints import refuses, sift
from assetbatch.jobs.storing import write_prices
from assetbatch.stream.book import Taken
from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.database.connection import Connection
    from assetbatch.database.prices import Stored
    from assetbatch.database.query import Query

log = logging.getLogger(__name__)

# What others keep locked is not waited for: all else waits with it.
LOCK_TIMEOUT = "500ms"
# For how long an asset, or its bars, are left alone once they were locked, or refused.
LOCKED_SECONDS = 5.0
REFUSED_SECONDS = 60.0
NO_BARS_SECONDS = 3600.0


class Resting(Struct):
    """What was not taken, why, and the monotonic time until which it is left alone."""

    until: dict[str, float] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def has(self, symbol: str) -> bool:
        """Return whether a symbol is left alone now."""
        return time.monotonic() < self.until.get(symbol, -math.inf)

    def add(self, symbols: Iterable[str], why: str, seconds: float) -> list[str]:
        """Leave these alone; return those of which that is news."""
        found = sorted(symbols)
        news = [symbol for symbol in found if self.why.get(symbol) != why]
        self.until.update(dict.fromkeys(found, time.monotonic() + seconds))
        self.why.update(dict.fromkeys(found, why))
        return news

    def end(self, symbols: Iterable[str]) -> None:
        """Take it that these were taken."""
        for symbol in self.why.keys() & set(symbols):
            del self.until[symbol], self.why[symbol]


class Storage:
    """Stores for one run, on its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._has_finality = holes.has_finality(connection)
        self._quotes, self._bars = Resting(), Resting()

    def store(
        self, taken: Taken, known: Collection[str], beside: Sequence[Query[Any]], now: datetime
    ) -> tuple[Sequence[str], Taken]:
        """Store what was taken, and ask these beside it; return whose price has changed, and what is left for later.

        `known` had rows in the platform's table before. Raises what keeps anything from being stored; then nothing is.
        """
        left = Taken(
            {symbol: quote for symbol, quote in taken.quotes.items() if self._quotes.has(symbol)},
            {key: series for key, series in taken.bars.items() if self._bars.has(key[0])},
        )
        quotes = {symbol: quote for symbol, quote in taken.quotes.items() if symbol not in left.quotes}
        bars = {key: series for key, series in taken.bars.items() if key not in left.bars}
        if not quotes and not bars:
            self._connection.ask(*beside)
            return [], left
        brought = [Brought(symbol, quote, known=symbol in known) for symbol, quote in sorted(quotes.items())]
        try:
            stored = self._write(brought, [*self._writing(bars, now), *beside], now)
        except psycopg.Error as error:
            is_locked = isinstance(error, psycopg.errors.LockNotAvailable)
            if not bars or not (is_locked or refuses(error)):
                raise
            stored = self._write(brought, beside, now)
            if is_locked:
                self._bars.add({symbol for symbol, _ in bars}, "locked", LOCKED_SECONDS)
                left.bars.update(bars)
            else:
                self._store_bars_apart(bars, now)
        else:
            self._bars.end(symbol for symbol, _ in bars)
        left.quotes.update({symbol: quotes[symbol] for symbol in self._look_after(stored)})
        return stored.updated, left

    def _write(self, brought: Sequence[Brought], beside: Sequence[Query[Any]], now: datetime) -> Stored:
        stored, _ = write_prices(
            self._connection, brought, Times(now, now), [], lambda _: (beside, lambda: None), lock_timeout=LOCK_TIMEOUT
        )
        return stored

    def _writing(self, bars: Mapping[tuple[str, datetime], BarSeries], now: datetime) -> list[Query[int]]:
        series = [(symbol, bars[symbol, begins]) for symbol, begins in sorted(bars)]
        return [pages.upserting(series, has_finality=self._has_finality, now=now)] if series else []

    def _store_bars_apart(self, bars: Mapping[tuple[str, datetime], BarSeries], now: datetime) -> None:
        """Store the bars that the table takes, of those that it did not take together."""
        found = in_transaction(
            self._connection,
            lambda: sift(
                self._connection,
                sorted(bars),
                lambda part: self._connection.ask(*self._writing({k: bars[k] for k in part}, now)),
            ),
            lock_timeout=LOCK_TIMEOUT,
        )
        if found.refused:
            why = words_of(found.refused[0][1])
            news = self._bars.add({symbol for (symbol, _), _ in found.refused}, "refused", NO_BARS_SECONDS)
            if news:
                log.warning("open bars are refused, and left to calls for an hour: %s: %s", named(news), why)

    def _look_after(self, stored: Stored) -> list[str]:
        """Tell what was not stored; return what is to be tried again with the newest quote."""
        self._quotes.end([*stored.updated, *stored.unchanged])
        for one in stored.failed:
            if self._quotes.add([one.symbol], "refused", REFUSED_SECONDS):
                log.warning("%s is not stored: %s", one.symbol, one.error)
        if news := self._quotes.add(stored.locked, "locked", LOCKED_SECONDS):
            log.warning("not stored, since another transaction keeps the rows locked, for now: %s", named(news))
        if news := self._quotes.add(stored.deleted, "deleted", REFUSED_SECONDS):
            log.warning("not stored, since the platform has deleted the rows: %s", named(news))
        return [*(one.symbol for one in stored.failed), *stored.locked]
