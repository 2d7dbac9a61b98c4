"""What becomes of stocks: splits, delistings, renamings, as words that are asked for; which tickers there are when.

A split is `TICKER:FACTOR:DATE` (`AAPL:2:2026-12-01`; `0.125` and `1/8` are a reverse split, eight to one), a delisting
`TICKER:DATE`, a renaming `OLD:NEW:DATE`. From its date on, by New York's calendar, a split divides all prices by its
factor, those of before, too, and multiplies volumes; the old name of what was renamed is delisted, and the new one is
the same security. A name that another has was that one's until then.
"""

from __future__ import annotations

import hashlib
from datetime import date
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch.sandbox.catalogue import KNOWN, find
from assetbatch.sandbox.hours import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.model import AssetType
    from assetbatch.sandbox.catalogue import Instrument


class Split(Struct, frozen=True):
    """Each share becomes `factor` shares on a day."""

    ticker: str
    factor: Fraction
    day: date

    @property
    def id(self) -> str:
        """What the vendor would call it by."""
        return f"E{hashlib.blake2b(f'{self.ticker}/{self.factor}/{self.day}'.encode(), digest_size=32).hexdigest()}"


class Listing:
    """Which instruments there are when, beside them so many invented `stocks`. Raises ValueError for a wrong word."""

    def __init__(
        self,
        splits: Sequence[str] = (),
        delistings: Sequence[str] = (),
        renamings: Sequence[str] = (),
        stocks: int = 0,
    ) -> None:
        self._lives = {ticker: [instrument] for ticker, instrument in KNOWN.items()}
        for number in range(1, stocks + 1):
            ticker = f"ZZT{number}"
            self._lives[ticker] = [_existing(ticker)]
        for word in delistings:
            ticker, day = _parts(word, "TICKER:DATE")
            self._end(ticker, _number(day, word))
        for word in renamings:
            old, new, day = _parts(word, "OLD:NEW:DATE")
            number = _number(day, word)
            renamed = self._end(old, number)
            if new in self._lives:
                self._end(new, number)
            life = replace(renamed, ticker=new, since=number, before=renamed.before or old)
            self._lives[new] = [*self._lives.get(new, []), life]
        self._tickers = sorted(self._lives)
        self.splits = sorted((_split(word) for word in splits), key=lambda split: (split.day, split.ticker))
        """All that are known of, those of days to come, too."""
        self._split = frozenset(split.ticker for split in self.splits)

    def listed(self, ticker: str, day: int) -> Instrument | None:
        """Return the instrument that a ticker is on a day, as its prices are told then; None when it is none."""
        found = self.find(ticker, day)
        return found if found is not None and found.is_listed(day) else None

    def find(self, ticker: str, day: int) -> Instrument | None:
        """Return the newest instrument of a ticker by a day; it may be delisted. None when there was none."""
        known = find(ticker)
        for life in reversed(self._lives.get(ticker, [] if known is None else [known])):
            if life.since <= day:
                return self._as_of(life, day)
        return None

    def known(self, market: AssetType, day: int) -> Iterator[Instrument]:
        """Yield all instruments that a market had up to a day, in the order of their tickers."""
        for ticker in self._tickers:
            for life in self._lives[ticker]:
                if life.market is market and life.since <= day:
                    yield self._as_of(life, day)

    def factor(self, split: Split) -> Fraction:
        """Return what prices of before a split are multiplied by, on account of it and of all after it."""
        after = (other.factor for other in self.splits if other.ticker == split.ticker and other.day >= split.day)
        return 1 / prod(after, start=Fraction(1))

    def _as_of(self, life: Instrument, day: int) -> Instrument:
        names = {life.ticker, life.before}
        if names.isdisjoint(self._split):
            return life
        come = (split.factor for split in self.splits if split.ticker in names and _days(split.day) <= day)
        return life.split(prod(come, start=Fraction(1)))

    def _end(self, ticker: str, day: int) -> Instrument:
        lives = self._lives.get(ticker) or [_existing(ticker)]
        self._lives[ticker] = [*lives[:-1], replace(lives[-1], until=min(lives[-1].until, day))]
        return lives[-1]


def _existing(ticker: str) -> Instrument:
    known = find(ticker)
    if known is None:
        raise ValueError(f"there is no {ticker!r} here")
    return known


def _split(word: str) -> Split:
    ticker, factor, day = _parts(word, "TICKER:FACTOR:DATE")
    try:
        times = Fraction(factor)
    except (ValueError, ZeroDivisionError):
        times = Fraction(0)
    if times <= 0:
        raise ValueError(f"{word!r}: {factor!r} is no factor above 0")
    return Split(ticker, times, _date(day, word))


def _parts(word: str, form: str) -> list[str]:
    count = form.count(":")
    parts = word.rsplit(":", count)
    if len(parts) != count + 1 or not all(parts):
        raise ValueError(f"{word!r} is not {form}")
    return parts


def _number(day: str, word: str) -> int:
    return _days(_date(day, word))


def _date(text: str, word: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{word!r}: {text!r} is no date such as 2026-12-01") from None


def _days(day: date) -> int:
    return (day - EPOCH).days
