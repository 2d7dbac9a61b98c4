"""The invented market: prices and bars that are a pure function of (seed, ticker, time). No market data.

A day of a ticker is one of a few shapes that all tickers share: 1,440 minutes that lead from one of five
heights to another. A hash of (seed, ticker, day) chooses heights and shape, so that one day ends where the
next begins, and sums over any stretch of a day cost nothing however many tickers are asked for. Heights are
millionths of the ticker's level. Turning a height into a price never reverses an order, so the high of a day
is exactly the highest of its minutes. In a minute in which nothing happens (see `Pace`) the price stands still.

Bars keep market hours: forex has none from Friday 17:00 to Sunday 17:00 New York time. Live quotes of currencies do
not: they move at weekends too, since the sandbox is there to try things with at any hour. Stocks and indices stand
where the last minute left them.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.catalogue import Pace
from assetbatch.sandbox.hours import (
    CLOSES,
    DAY_MINUTES,
    EARLY,
    EXCHANGES,
    HISTORY_BEGINS,
    LATE_MINUTES,
    MINUTE_MS,
    OPENS,
    REST,
    Hours,
    Session,
    midnight_ms,
    moment,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.sandbox.catalogue import Instrument

TICK_MS = 250
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


class _Shape(Struct, frozen=True, eq=False):
    path: array[int]
    high: array[int]
    low: array[int]
    high_so_far: array[int]
    low_so_far: array[int]
    transactions: array[int]
    """Of all minutes before the n-th."""
    weighted: array[int]
    """The sum of height times transactions of all minutes before the n-th."""
    busy: array[int]
    """In how many of all minutes before the n-th something happened."""


class Market:
    """Prices of one seed. Everything is exact and repeatable; times are milliseconds since 1970 (UTC)."""

    def __init__(self, seed: int, hours: Hours | None = None) -> None:
        self._seed = seed
        self.hours = hours or Hours()
        self.listing = Listing()
        """Which instruments there are; another one may take its place at any time."""
        # Caches of this object, not of the class: they end with it.
        self._finished = lru_cache(maxsize=50_000)(self._whole_day)
        self._height = lru_cache(maxsize=100_000)(self._choose_height)

    def tick(self, instrument: Instrument, now_ms: int) -> Tick:
        """Return the newest quote or trade at `now_ms`: while there is trade at most 250 ms old, new every second."""
        phase = instrument.mark % TICK_MS
        at_ms = (now_ms - phase) // TICK_MS * TICK_MS + phase
        day, rest = moment(instrument.market, at_ms)
        minute, within = divmod(rest, MINUTE_MS)
        if instrument.market in EXCHANGES:
            newest_day, newest = self._last_minute(instrument, day, minute)
            if (newest_day, newest) != (day, minute):
                return self._standing(instrument, newest_day, newest)
        shape = self._shape_of(instrument, day)
        start = shape.path[minute]
        # The range opens as the minute goes, so that no earlier tick of it lies outside what is shown as high
        # and low.
        done = 400 + 600 * within // MINUTE_MS
        high = instrument.price(start + (shape.high[minute] - start) * done // 1000)
        low = instrument.price(start - (start - shape.low[minute]) * done // 1000)
        price = low + (high - low) * (_mix(at_ms // TICK_MS + instrument.mark) & 1023) // 1023
        # Odd seconds have odd prices: two seconds running are never at the same price.
        if (price ^ (at_ms // 1000)) & 1:
            price += 1 if price < high else -1
        begin = instrument.price(start)
        whole = shape.transactions[minute + 1] - shape.transactions[minute]
        bar = Bar(begin, high, low, price, (begin + price) // 2, max(1, whole * within // MINUTE_MS), 1)
        return _tick(instrument, price, at_ms, bar)

    def bar(self, instrument: Instrument, begin_ms: int, end_ms: int, now_ms: int) -> Bar | None:
        """Build the bar of [begin, end), on whole minutes, as it stands at `now_ms`; None for no bar."""
        market = instrument.market
        parts: list[Bar | None] = []
        last = min(moment(market, end_ms - 1)[0], moment(market, now_ms)[0])
        for day in range(max(moment(market, begin_ms)[0], HISTORY_BEGINS), last + 1):
            session, midnight = self._session(instrument, day), midnight_ms(market, day)
            begin = max((begin_ms - midnight) // MINUTE_MS, session.begins)
            end = min((end_ms - midnight) // MINUTE_MS, session.ends)
            parts += self._minutes(instrument, day, begin, end, now_ms)
        return merge(parts)

    def day(self, instrument: Instrument, day: int, now_ms: int) -> Bar | None:
        """Build the bar of a day of its market as it stands at `now_ms`; None for no bar.

        Prices are those of the session; what was traded before and after is in its volume, too.
        """
        today, _ = moment(instrument.market, now_ms)
        if not HISTORY_BEGINS <= day <= today:
            return None
        return self._finished(instrument, day) if day < today else self._day_at(instrument, day, now_ms)

    def day_so_far(self, instrument: Instrument, tick: Tick) -> Bar:
        """Build the UTC day of currencies as live snapshots show it: from midnight to `tick`, at weekends too."""
        day, rest = moment(instrument.market, tick.at_ms)
        return merge([self.stretch(instrument, day, 0, rest // MINUTE_MS), tick.bar]) or tick.bar

    def stretch(self, instrument: Instrument, day: int, begin: int, end: int) -> Bar | None:
        """Build the bar of the finished minutes [begin, end) of a day; None where nothing happened."""
        if begin >= end:
            return None
        shape = self._shape_of(instrument, day)
        count = shape.transactions[end] - shape.transactions[begin]
        if count == 0:
            return None
        if begin == 0:
            high, low = shape.high_so_far[end - 1], shape.low_so_far[end - 1]
        elif end - begin == 1:
            high, low = shape.high[begin], shape.low[begin]
        else:
            high, low = _extremes(shape, begin, end)
        return Bar(
            instrument.price(shape.path[begin]), instrument.price(high), instrument.price(low),
            instrument.price(shape.path[end]), instrument.price(shape.weighted[end] - shape.weighted[begin], count),
            count, shape.busy[end] - shape.busy[begin],
        )  # fmt: skip

    def _minutes(self, instrument: Instrument, day: int, begin: int, end: int, now_ms: int) -> list[Bar | None]:
        # What is finished of these minutes of a day, and the one that is still open as far as it has come.
        today, rest = moment(instrument.market, now_ms)
        minute = rest // MINUTE_MS
        if day < today:
            return [self.stretch(instrument, day, begin, end)]
        finished = self.stretch(instrument, day, begin, min(end, minute))
        if begin <= minute < end:
            tick = self.tick(instrument, now_ms)
            if tick.at_ms // MINUTE_MS == now_ms // MINUTE_MS:
                return [finished, tick.bar]
        return [finished]

    def _whole_day(self, instrument: Instrument, day: int) -> Bar | None:
        return self._day_at(instrument, day, midnight_ms(instrument.market, day + 1))

    def _day_at(self, instrument: Instrument, day: int, now_ms: int) -> Bar | None:
        session = self._session(instrument, day)
        bar = merge(self._minutes(instrument, day, session.opens, session.closes, now_ms))
        if bar is None or session[:2] == session[2:]:
            return bar
        traded = merge(self._minutes(instrument, day, session.begins, session.ends, now_ms)) or bar
        return bar._replace(transactions=traded.transactions)

    def _session(self, instrument: Instrument, day: int) -> Session:
        return self.hours.session(instrument.market, day) if instrument.is_listed(day) else REST

    def _last_minute(self, instrument: Instrument, day: int, minute: int) -> tuple[int, int]:
        # The newest minute up to this one in which something happened, and its day.
        while day >= HISTORY_BEGINS:
            session = self.hours.session(instrument.market, day)
            busy = self._shape_of(instrument, day).busy
            end = min(minute + 1, session.ends)
            if end > session.begins and busy[end] > busy[session.begins]:
                return day, bisect_left(busy, busy[end], session.begins, end) - 1
            day, minute = day - 1, DAY_MINUTES
        return HISTORY_BEGINS, 0

    def _standing(self, instrument: Instrument, day: int, minute: int) -> Tick:
        # As the last quarter of a second of a finished minute left it.
        bar = self.stretch(instrument, day, minute, minute + 1)
        assert bar is not None  # noqa: S101 - something happened in that minute
        end_ms = midnight_ms(instrument.market, day) + (minute + 1) * MINUTE_MS
        return _tick(instrument, bar.close, end_ms - TICK_MS + instrument.mark % TICK_MS, bar)

    def _shape_of(self, instrument: Instrument, day: int) -> _Shape:
        ticker = instrument.before or instrument.ticker
        begin, kind = self._height(ticker, day)
        end, _ = self._height(ticker, day + 1)
        return _shape(self._seed, kind, begin, end, instrument.pace)

    def _choose_height(self, ticker: str, day: int) -> tuple[int, int]:
        digest = hashlib.blake2b(f"{self._seed}/{ticker}/{day}".encode(), digest_size=8).digest()
        return _HEIGHTS[digest[0] % len(_HEIGHTS)], digest[1] % _SHAPES


def merge(parts: Sequence[Bar | None]) -> Bar | None:
    """Join bars that follow each other into one; None out of none."""
    bars = [bar for bar in parts if bar is not None]
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


def _tick(instrument: Instrument, price: int, at_ms: int, bar: Bar) -> Tick:
    spread = max(1, instrument.price(20) - instrument.price(0))
    bid = price - spread if instrument.traits.has_trades else price
    return Tick(price, bid, price + spread, at_ms, bar)


# Shared by all markets of a seed: a hundred shapes of each pace, some 50 kB each.
@lru_cache(maxsize=800)
def _shape(seed: int, kind: int, begin: int, end: int, pace: Pace) -> _Shape:
    chance = random.Random(f"{seed}/{kind}/{begin}/{end}")  # noqa: S311 - an invented price is no secret
    busy = _busy(pace, random.Random(f"{seed}/{kind}/{begin}/{end}/{pace.value}"))  # noqa: S311
    done = [0, *accumulate(busy)]
    walk = [0.0, *accumulate(chance.gauss(0, 40) * happens for happens in busy)]
    slope = (end - begin - walk[-1]) / done[-1]
    path = [begin + round(height + slope * minutes) for height, minutes in zip(walk, done, strict=True)]
    steps = list(zip(pairwise(path), busy, strict=True))
    high = [max(pair) + (60 + chance.randrange(40)) * happens for pair, happens in steps]
    low = [min(pair) - (60 + chance.randrange(40)) * happens for pair, happens in steps]
    counts = [chance.randrange(20, 180) * happens for happens in busy]
    middle = [sum(four) // 4 for four in zip(path, path[1:], high, low, strict=False)]
    return _Shape(
        path=array("i", path),
        high=array("i", high),
        low=array("i", low),
        high_so_far=array("i", accumulate(high, max)),
        low_so_far=array("i", accumulate(low, min)),
        transactions=array("i", [0, *accumulate(counts)]),
        weighted=array("q", [0, *accumulate(map(int.__mul__, counts, middle))]),
        busy=array("i", done),
    )


# Sessions begin and end at the same minutes for all that share a shape.
@lru_cache(maxsize=4_000)
def _extremes(shape: _Shape, begin: int, end: int) -> tuple[int, int]:
    return max(shape.high[begin:end]), min(shape.low[begin:end])


def _busy(pace: Pace, chance: random.Random) -> list[int]:
    # For each minute of the day 1 where something happens, else 0.
    if pace is Pace.ALWAYS:
        return [1] * DAY_MINUTES
    session = range(OPENS, CLOSES)
    if pace is Pace.BUSY:
        around = range(EARLY, CLOSES + LATE_MINUTES)
        wanted = {minute for minute in around if minute in session or chance.random() < 0.25}
    else:
        wanted = set(chance.sample(session, len(session) // 5 if pace is Pace.THIN else 5))
    return [int(minute in wanted) for minute in range(DAY_MINUTES)]


def _mix(number: int) -> int:
    # The finaliser of splitmix64: neighbouring numbers come out unrelated, in a fraction of a hash's time.
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)
