"""The invented market: prices and bars that are a pure function of (seed, ticker, time). No market data.

A day of a ticker is one of a few shapes that all tickers share: 1,440 minutes that lead from one of five
heights to another. A hash of (seed, ticker, day) chooses heights and shape, so that one day ends where the
next begins, and sums over any stretch of a day cost nothing however many tickers are asked for. Heights are
millionths of the ticker's level. Turning a height into a price never reverses an order, so the high of a day
is exactly the highest of its minutes.

Bars keep market hours: forex has none from Friday 17:00 to Sunday 17:00 New York time. Live quotes do not:
they move at weekends too, since the sandbox is there to try things with at any hour.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from assetbatch.markets import TRAITS

if TYPE_CHECKING:
    from assetbatch.model import AssetType
    from assetbatch.sandbox.catalogue import Instrument

MINUTE_MS = 60_000
DAY_MINUTES = 1440
DAY_MS = DAY_MINUTES * MINUTE_MS
TICK_MS = 250
NEW_YORK = ZoneInfo("America/New_York")
EPOCH = date(1970, 1, 1)
HISTORY_BEGINS = (date(2010, 1, 1) - EPOCH).days
"""Days are counted from 1970-01-01; before this one there is nothing."""

_MILLION = 1_000_000
_HEIGHTS = (-3000, -1500, 0, 1500, 3000)
_SHAPES = 4
_MASK = (1 << 64) - 1


class Bar(NamedTuple):
    """One bar, prices in the instrument's units; `transactions` counts quotes (forex) or trades (crypto)."""

    open: int
    high: int
    low: int
    close: int
    vwap: int
    transactions: int
    base_minutes: int
    """How many one-minute bars it is made of."""


class Tick(NamedTuple):
    """The newest price, in units: `price` is the last trade (for forex the bid), `at_ms` its time."""

    price: int
    bid: int
    ask: int
    at_ms: int
    bar: Bar
    """The minute that is still open, as far as it has come."""


class _Shape(Struct, frozen=True):
    path: array[int]
    high: array[int]
    low: array[int]
    high_so_far: array[int]
    low_so_far: array[int]
    transactions: array[int]
    """Of all minutes before the n-th."""
    weighted: array[int]
    """The sum of height times transactions of all minutes before the n-th."""


def open_minutes(market: AssetType, day: int) -> tuple[int, int]:
    """From which minute of the UTC day to which (exclusive) the market has bars; (0, 0) for a day of rest."""
    if TRAITS[market].main_market.hours is None:
        return 0, DAY_MINUTES
    return _forex_minutes(day)


@lru_cache(maxsize=10_000)
def _forex_minutes(day: int) -> tuple[int, int]:
    date_ = EPOCH + timedelta(days=day)
    weekday = date_.isoweekday()
    if weekday == 6:
        return 0, 0
    turn = datetime.combine(date_, time(17), NEW_YORK).astimezone(UTC)
    minute = turn.hour * 60 + turn.minute
    return {5: (0, minute), 7: (minute, DAY_MINUTES)}.get(weekday, (0, DAY_MINUTES))


def is_open(market: AssetType, at_ms: int) -> bool:
    """Whether the market has a bar for this minute."""
    day, rest = divmod(at_ms, DAY_MS)
    begin, end = open_minutes(market, day)
    return begin <= rest // MINUTE_MS < end


class Market:
    """Prices of one seed. Everything is exact and repeatable; times are milliseconds since 1970 (UTC)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        # Caches of this object, not of the class: they end with it.
        self._day = lru_cache(maxsize=50_000)(self.stretch)
        self._height = lru_cache(maxsize=100_000)(self._choose_height)

    def tick(self, instrument: Instrument, now_ms: int) -> Tick:
        """Return the newest quote or trade at `now_ms`: at most 250 ms old, another price every second."""
        phase = instrument.mark % TICK_MS
        at_ms = (now_ms - phase) // TICK_MS * TICK_MS + phase
        day, rest = divmod(at_ms, DAY_MS)
        minute, within = divmod(rest, MINUTE_MS)
        shape = self._shape_of(instrument, day)
        start = shape.path[minute]
        # The range opens as the minute goes, so that no earlier tick of it lies outside what is shown as high
        # and low.
        done = 400 + 600 * within // MINUTE_MS
        high = _price(instrument, start + (shape.high[minute] - start) * done // 1000)
        low = _price(instrument, start - (start - shape.low[minute]) * done // 1000)
        price = low + (high - low) * (_mix(at_ms // TICK_MS + instrument.mark) & 1023) // 1023
        # Odd seconds have odd prices: two seconds running are never at the same price.
        if (price ^ (at_ms // 1000)) & 1:
            price += 1 if price < high else -1
        spread = max(1, instrument.level * 20 * instrument.swing // _MILLION)
        bid = price - spread if instrument.traits.has_trades else price
        begin = _price(instrument, start)
        whole = shape.transactions[minute + 1] - shape.transactions[minute]
        bar = Bar(begin, high, low, price, (begin + price) // 2, max(1, whole * within // MINUTE_MS), 1)
        return Tick(price, bid, price + spread, at_ms, bar)

    def bar(self, instrument: Instrument, begin_ms: int, end_ms: int, now_ms: int) -> Bar | None:
        """Build the bar of [begin, end), on whole minutes, as it stands at `now_ms`; None for no bar."""
        parts: list[Bar] = []
        now_day, now_rest = divmod(now_ms, DAY_MS)
        now_minute = now_rest // MINUTE_MS
        for day in range(max(begin_ms // DAY_MS, HISTORY_BEGINS), min((end_ms - 1) // DAY_MS, now_day) + 1):
            opens, closes = open_minutes(instrument.market, day)
            begin = max((begin_ms - day * DAY_MS) // MINUTE_MS, opens)
            end = min((end_ms - day * DAY_MS) // MINUTE_MS, closes)
            finished = min(end, now_minute) if day == now_day else end
            if begin < finished:
                parts.append(self.stretch(instrument, day, begin, finished))
            if day == now_day and begin <= now_minute < end:
                tick = self.tick(instrument, now_ms)
                if tick.at_ms // MINUTE_MS == now_ms // MINUTE_MS:
                    parts.append(tick.bar)
        return merge(parts)

    def finished_day(self, instrument: Instrument, day: int) -> Bar | None:
        """Build the bar of a UTC day that is over; None when the market rested, or before history begins."""
        begin, end = open_minutes(instrument.market, day)
        return self._day(instrument, day, begin, end) if begin < end and day >= HISTORY_BEGINS else None

    def day_so_far(self, instrument: Instrument, tick: Tick) -> Bar:
        """Build the UTC day as live snapshots show it: from midnight to `tick`, at weekends too."""
        day, rest = divmod(tick.at_ms, DAY_MS)
        minute = rest // MINUTE_MS
        if minute == 0:
            return tick.bar
        return merge([self.stretch(instrument, day, 0, minute), tick.bar]) or tick.bar

    def stretch(self, instrument: Instrument, day: int, begin: int, end: int) -> Bar:
        """Build the bar of the finished minutes [begin, end) of a day; `begin` < `end`."""
        shape = self._shape_of(instrument, day)
        if begin == 0:
            high, low = shape.high_so_far[end - 1], shape.low_so_far[end - 1]
        elif end - begin == 1:
            high, low = shape.high[begin], shape.low[begin]
        else:
            high, low = max(shape.high[begin:end]), min(shape.low[begin:end])
        count = shape.transactions[end] - shape.transactions[begin]
        weighted = shape.weighted[end] - shape.weighted[begin]
        vwap = instrument.level * (_MILLION * count + instrument.swing * weighted) // (_MILLION * count)
        return Bar(
            _price(instrument, shape.path[begin]), _price(instrument, high), _price(instrument, low),
            _price(instrument, shape.path[end]), vwap, count, end - begin,
        )  # fmt: skip

    def _shape_of(self, instrument: Instrument, day: int) -> _Shape:
        begin, kind = self._height(instrument.ticker, day)
        end, _ = self._height(instrument.ticker, day + 1)
        return _shape(self._seed, kind, begin, end)

    def _choose_height(self, ticker: str, day: int) -> tuple[int, int]:
        digest = hashlib.blake2b(f"{self._seed}/{ticker}/{day}".encode(), digest_size=8).digest()
        return _HEIGHTS[digest[0] % len(_HEIGHTS)], digest[1] % _SHAPES


def merge(bars: list[Bar]) -> Bar | None:
    """Join bars that follow each other into one; None out of none."""
    if len(bars) < 2:
        return bars[0] if bars else None
    count = sum(bar.transactions for bar in bars)
    return Bar(
        open=bars[0].open,
        high=max(bar.high for bar in bars),
        low=min(bar.low for bar in bars),
        close=bars[-1].close,
        vwap=sum(bar.vwap * bar.transactions for bar in bars) // count,
        transactions=count,
        base_minutes=sum(bar.base_minutes for bar in bars),
    )


# Shared by all markets of a seed: a hundred shapes, some 50 kB each.
@lru_cache(maxsize=400)
def _shape(seed: int, kind: int, begin: int, end: int) -> _Shape:
    chance = random.Random(f"{seed}/{kind}/{begin}/{end}")  # noqa: S311 - an invented price is no secret
    walk = [0.0, *accumulate(chance.gauss(0, 40) for _ in range(DAY_MINUTES))]
    slope = (end - begin - walk[-1]) / DAY_MINUTES
    path = [begin + round(height + slope * minute) for minute, height in enumerate(walk)]
    high = [max(pair) + 60 + chance.randrange(40) for pair in pairwise(path)]
    low = [min(pair) - 60 - chance.randrange(40) for pair in pairwise(path)]
    counts = [chance.randrange(20, 180) for _ in range(DAY_MINUTES)]
    middle = [sum(four) // 4 for four in zip(path, path[1:], high, low, strict=False)]
    return _Shape(
        path=array("i", path),
        high=array("i", high),
        low=array("i", low),
        high_so_far=array("i", accumulate(high, max)),
        low_so_far=array("i", accumulate(low, min)),
        transactions=array("i", [0, *accumulate(counts)]),
        weighted=array("q", [0, *accumulate(map(int.__mul__, counts, middle))]),
    )


def _price(instrument: Instrument, height: int) -> int:
    return instrument.level * (_MILLION + instrument.swing * height) // _MILLION


def _mix(number: int) -> int:
    # The finaliser of splitmix64: neighbouring numbers come out unrelated, in a fraction of a hash's time.
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
