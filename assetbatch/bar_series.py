"""A series of bars, kept by column: the vendor's digits as they were written, until somebody computes with them.

So numbers are exact from the JSON text to `numeric`, and a bar takes an eighth of the memory of a `Bar`.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import compress
from typing import TYPE_CHECKING, overload

from msgspec import Struct

from assetbatch.model import Bar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import datetime

# The columns of `BarSeries.digits`, as the fields of a bar are called.
NUMBERS = ("open", "high", "low", "close", "volume", "vwap", "trades")
ABSENT = "null"


class BarSeries(Struct, frozen=True):
    """Bars in the order of time: when each begins, and for each of NUMBERS their digits, with a comma between them.

    What is absent is written ABSENT, as JSON and PostgreSQL do.
    """

    times: tuple[datetime, ...] = ()
    digits: tuple[str, ...] = ("",) * len(NUMBERS)

    @classmethod
    def of(cls, bars: Iterable[Bar]) -> BarSeries:
        """Return the series of bars that are in the order of time."""
        bars = list(bars)
        columns = ([getattr(bar, name) for bar in bars] for name in NUMBERS)
        texts = (",".join(ABSENT if value is None else str(value) for value in column) for column in columns)
        return cls(tuple(bar.ts for bar in bars), tuple(texts))

    def __len__(self) -> int:
        return len(self.times)

    @overload
    def __getitem__(self, at: int) -> Bar: ...
    @overload
    def __getitem__(self, at: slice) -> BarSeries: ...
    def __getitem__(self, at: int | slice) -> Bar | BarSeries:
        if isinstance(at, slice):
            if at.indices(len(self)) == (0, len(self), 1):
                return self
            return BarSeries(self.times[at], tuple(",".join(column[at]) for column in self._columns()))
        return _bar(self.times[at], [column[at] for column in self._columns()])

    def __iter__(self) -> Iterator[Bar]:
        return map(_bar, self.times, zip(*self._columns(), strict=True))

    def without(self, times: Collection[datetime]) -> BarSeries:
        """Return the series without the bars that begin at these times."""
        if not times:
            return self
        kept = [ts not in times for ts in self.times]
        texts = tuple(",".join(compress(column, kept)) for column in self._columns())
        return BarSeries(tuple(compress(self.times, kept)), texts)

    def _columns(self) -> list[list[str]]:
        return [column.split(",") if self.times else [] for column in self.digits]


def _bar(ts: datetime, digits: Iterable[str]) -> Bar:
    *prices, volume, vwap, trades = digits
    opened, high, low, close = map(Decimal, prices)
    traded, average = (None if one == ABSENT else Decimal(one) for one in (volume, vwap))
    return Bar(ts, opened, high, low, close, traded, average, None if trades == ABSENT else int(trades))
