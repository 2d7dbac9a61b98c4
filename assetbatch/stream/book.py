"""What came and is not stored yet: the newest quote of each asset, and the minutes of bars that are still open.

So memory is bounded by the number of assets, however much comes and however long the database is away.
"""

from __future__ import annotations

import threading
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch import bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.model import Bar, Quote
    from assetbatch.provider.stream import Frame

MINUTE = timedelta(minutes=1)
MOST_LAGS = 2000
# An open bar is of use until a call brings the final one; minutes that are older wait for nothing.
KEPT = 2 * bars.LENGTH


class Taken(Struct):
    """What was taken out of a book to be stored."""

    quotes: dict[str, Quote] = field(default_factory=dict)
    bars: dict[tuple[str, datetime], BarSeries] = field(default_factory=dict)


class Counts(Struct, frozen=True):
    """What came in all, and what was wrong with the last event that was dropped.

    `lags_ms` are those of the last quotes, in order of size.
    """

    events: int = 0
    dropped: int = 0
    oddest: str = ""
    lags_ms: Sequence[int] = ()

    def lag_ms(self, share: float) -> int | None:
        """Return what so large a share of the lags does not exceed; None: nothing came."""
        return self.lags_ms[min(len(self.lags_ms) - 1, int(share * len(self.lags_ms)))] if self.lags_ms else None


class Book:
    """The news of one cluster: filled by its connection's thread, emptied by the one that stores.

    `symbols` has an asset's symbol by what the stream calls it. `now` is the time of which the vendor tells by now:
    that of the clock, less the delay of the plan.
    """

    def __init__(self, symbols: Mapping[str, str]) -> None:
        self._symbols = symbols
        self._lock = threading.Lock()
        self._quotes: dict[str, Quote] = {}
        self._newest: dict[str, datetime] = {}
        # Of each asset those of two bars at most, whether or not they are taken out.
        self._minutes: dict[str, dict[datetime, Bar]] = {}
        self._changed: set[tuple[str, datetime]] = set()
        self._whole_since: datetime | None = None
        self._events = self._dropped = 0
        self._oddest = ""
        self._lags: deque[float] = deque(maxlen=MOST_LAGS)

    def relist(self, symbols: Mapping[str, str]) -> None:
        """Let these be the assets from now on, and forget what came of others."""
        with self._lock:
            self._symbols, listed = symbols, set(symbols.values())
            self._quotes = {symbol: quote for symbol, quote in self._quotes.items() if symbol in listed}
            self._newest = {symbol: moment for symbol, moment in self._newest.items() if symbol in listed}
            self._minutes = {symbol: minutes for symbol, minutes in self._minutes.items() if symbol in listed}
            self._changed = {key for key in self._changed if key[0] in listed}

    def begin(self, now: datetime) -> None:
        """Take it that all that comes from now on comes whole: a bar is built if all of its minutes are still to come.

        One that had begun before is left as it was, and to a call: some of its minutes may have been missed.
        """
        with self._lock:
            self._whole_since = _minute_of(now)

    def take(self, frame: Frame, now: datetime) -> None:
        """Take in what a frame brought."""
        with self._lock:
            if self._whole_since is not None and self._whole_since > now:
                # The clock was ahead then, and was set right.
                self._whole_since = _minute_of(now)
            self._events += len(frame.quotes) + len(frame.minutes)
            self._dropped += frame.dropped
            self._oddest = frame.oddest or self._oddest
            for name, quote in frame.quotes:
                symbol = self._symbols.get(name)
                if symbol is None:
                    self._dropped += 1
                else:
                    self._renew(symbol, quote, now)
            for name, minute in frame.minutes:
                symbol = self._symbols.get(name)
                if symbol is None:
                    self._dropped += 1
                else:
                    self._add(symbol, minute, now)
            for name, quote in frame.closes:
                if (symbol := self._symbols.get(name)) is not None:
                    self._renew(symbol, quote, now)

    def _renew(self, symbol: str, quote: Quote, now: datetime) -> None:
        newest = self._newest.get(symbol)
        if newest is None or newest <= quote.timestamp:
            self._newest[symbol] = quote.timestamp
            self._quotes[symbol] = quote
            self._lags.append((now - quote.timestamp).total_seconds())

    def _add(self, symbol: str, minute: Bar, now: datetime) -> None:
        begins = bars.floor(minute.ts)
        if self._whole_since is None or begins < self._whole_since or begins < now - KEPT:
            return
        minutes = self._minutes.setdefault(symbol, {})
        if minutes.get(minute.ts) != minute:
            for old in [ts for ts in minutes if bars.floor(ts) < now - KEPT]:
                del minutes[old]
                self._changed.discard((symbol, bars.floor(old)))
            minutes[minute.ts] = minute
            self._changed.add((symbol, begins))

    def drain(self, now: datetime) -> Taken:
        """Take out what is to be stored now."""
        with self._lock:
            quotes, self._quotes = self._quotes, {}
            changed, self._changed = self._changed, set()
            built = {
                (symbol, begins): bars.built(minutes[ts] for ts in sorted(minutes) if bars.floor(ts) == begins)
                for symbol, begins in sorted(changed)
                if begins >= now - KEPT and (minutes := self._minutes.get(symbol))
            }
        return Taken(quotes, {key: series for key, series in built.items() if len(series)})

    def put_back(self, taken: Taken) -> None:
        """Keep what could not be stored, as far as nothing newer came, and it is still listed."""
        with self._lock:
            listed = set(self._symbols.values())
            quotes = {symbol: quote for symbol, quote in taken.quotes.items() if symbol in listed}
            self._quotes = quotes | self._quotes
            self._changed.update(key for key in taken.bars if key[0] in self._minutes)

    def counts(self) -> Counts:
        """Return what came in all; lags, and what was odd, since the last time."""
        with self._lock:
            lags, oddest = sorted(self._lags), self._oddest
            self._lags.clear()
            self._oddest = ""
            return Counts(self._events, self._dropped, oddest, [round(lag * 1000) for lag in lags])

    def newest(self) -> dict[str, datetime]:
        """Return the time of the newest quote of each asset that had one."""
        with self._lock:
            return dict(self._newest)


def _minute_of(moment: datetime) -> datetime:
    return moment - (moment - bars.floor(moment)) % MINUTE
