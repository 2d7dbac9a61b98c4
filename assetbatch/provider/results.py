"""What calls bring, whichever vendor was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime, time

    from assetbatch.bar_series import BarSeries
    from assetbatch.failures import FailureKind
    from assetbatch.model import Quote, Split


class Answers(Struct):
    """The prices that a call brought, by symbol, and why there is none."""

    quotes: dict[str, Quote] = field(default_factory=dict)
    failures: dict[str, tuple[FailureKind, str]] = field(default_factory=dict)


class Page(Struct, frozen=True):
    """What one call for bars brought, in the order of time; `more`: the vendor has further ones behind the last.

    `invalid` has the times of rows that were no bars, and why; `contradicted` those of which there were several, with
    different figures: the one of most trades is taken, of as many that of most volume.
    """

    bars: BarSeries
    more: bool
    invalid: tuple[tuple[datetime, str], ...] = ()
    contradicted: tuple[datetime, ...] = ()


class Listing(Struct, frozen=True):
    """What a row of the reference list tells of a ticker's life; empty or None: not told.

    `delisted_on` is the last day it was traded on, `figi` the composite FIGI of what is traded, which stays when its
    ticker changes, `company` the CIK of who issued it.
    """

    ticker: str
    is_active: bool = True
    delisted_on: date | None = None
    figi: str = ""
    company: str = ""


class TickerPage(Struct, frozen=True):
    """A page of the reference list: the names of its tickers, and of pairs what the sides are called, base first.

    `next_page` is empty on the last. Several `listings` may be of one ticker, which was given to one after another.
    """

    names: dict[str, str]
    pairs: dict[str, tuple[str, str]]
    next_page: str
    listings: tuple[Listing, ...] = ()


class SplitPage(Struct, frozen=True):
    """A page of the list of splits; `invalid`: why rows were none. `next_page` is empty on the last."""

    splits: tuple[Split, ...]
    invalid: tuple[str, ...]
    next_page: str


class Holidays(Struct, frozen=True):
    """Days that come on which exchanges are not open as usual: when the session closes, None: there is none.

    `odd`: what was wrong with rows that made no sense.
    """

    days: Mapping[date, time | None]
    odd: tuple[str, ...] = ()
