"""What came and is not stored yet: the newest quote of each asset, and the minutes of bars that are still open.

So memory is bounded by the number of assets, however much comes and however long the database is away.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import bars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.model import Bar, Quote
    from assetbatch.provider.stream import Frame

MINUTE = timedelta(minutes=1)
MOST_LAGS = 2000
# An open bar is of use until a call brings the final one; minutes that are older wait for nothing.
KEPT = 2 * bars.LENGTH


@dataclass(slots=True)
class Taken:
    """What was taken out of a book to be stored."""

    quotes: dict[str, Quote] = field(default_factory=dict)
    bars: dict[tuple[str, datetime], BarSeries] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What came since the counts were last taken; `lags_ms` are those of the last quotes, in order of size."""

    events: int = 0
    dropped: int = 0
    lags_ms: list[int] = field(default_factory=list)
    oddest: str = ""

    def lag_ms(self, share: float) -> int | None:
        """Return what so large a share of the lags does not exceed; None: nothing came."""
        return self.lags_ms[min(len(self.lags_ms) - 1, int(share * len(self.lags_ms)))] if self.lags_ms else None


class Book:
    """The news of one cluster: filled by its connection's thread, emptied by the one that stores.

    `symbols` has an asset's symbol by what the stream calls it.
    """

    def __init__(self, symbols: Mapping[str, str]) -> None:
        self._symbols = symbols
        self._lock = threading.Lock()
        self._quotes: dict[str, Quote] = {}
        self._newest: dict[str, datetime] = {}
        self._minutes: dict[tuple[str, datetime], dict[datetime, Bar]] = {}
        self._changed: set[tuple[str, datetime]] = set()
        self._whole_since: datetime | None = None
        self._counts = Counts()
        self._lags: deque[float] = deque(maxlen=MOST_LAGS)

    def begin(self, now: datetime) -> None:
        """Take it that all that comes from now on comes whole: a bar is built if all of its minutes are still to come.

        One that had begun before is left to a call: some of its minutes may have been missed.
        """
        with self._lock:
            self._whole_since = now - (now - bars.floor(now)) % MINUTE
            self._minutes.clear()
            self._changed.clear()

    def take(self, frame: Frame, now: datetime) -> None:
        """Take in what a frame brought."""
        with self._lock:
            counts = self._counts
            counts.events += len(frame.quotes) + len(frame.minutes)
            counts.dropped += frame.dropped
            counts.oddest = frame.oddest or counts.oddest
            for name, quote in frame.quotes:
                symbol = self._symbols.get(name)
                if symbol is None:
                    counts.dropped += 1
                    continue
                newest = self._newest.get(symbol)
                if newest is None or newest <= quote.timestamp:
                    self._newest[symbol] = quote.timestamp
                    self._quotes[symbol] = quote
                    self._lags.append((now - quote.timestamp).total_seconds())
            for name, minute in frame.minutes:
                symbol = self._symbols.get(name)
                if symbol is None:
                    counts.dropped += 1
                else:
                    self._add(symbol, minute, now)

    def _add(self, symbol: str, minute: Bar, now: datetime) -> None:
        begins = bars.floor(minute.ts)
        if self._whole_since is None or begins < self._whole_since or begins < now - KEPT:
            return
        minutes = self._minutes.setdefault((symbol, begins), {})
        if minutes.get(minute.ts) != minute:
            minutes[minute.ts] = minute
            self._changed.add((symbol, begins))

    def drain(self, now: datetime) -> Taken:
        """Take out what is to be stored now."""
        with self._lock:
            quotes, self._quotes = self._quotes, {}
            changed, self._changed = self._changed, set()
            for key in [key for key in self._minutes if key[1] < now - KEPT]:
                del self._minutes[key]
            built = {
                key: bars.built(self._minutes[key][ts] for ts in sorted(self._minutes[key]))
                for key in sorted(changed)
                if key in self._minutes
            }
        return Taken(quotes, built)

    def put_back(self, taken: Taken) -> None:
        """Keep what could not be stored, as far as nothing newer came."""
        with self._lock:
            self._quotes = taken.quotes | self._quotes
            self._changed.update(key for key in taken.bars if key in self._minutes)

    def counts(self) -> Counts:
        """Return what came since the last time."""
        with self._lock:
            counts, self._counts = self._counts, Counts()
            lags = sorted(self._lags)
            self._lags.clear()
        counts.lags_ms = [round(lag * 1000) for lag in lags]
        return counts

    def newest(self) -> dict[str, datetime]:
        """Return the time of the newest quote of each asset that had one."""
        with self._lock:
            return dict(self._newest)
