"""What calls bring, whichever vendor was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.failures import FailureKind
    from assetbatch.model import AssetType, Quote


@dataclass(slots=True)
class Answers:
    """The prices that a call brought, by symbol, and why there is none."""

    quotes: dict[str, Quote] = field(default_factory=dict)
    failures: dict[str, tuple[FailureKind, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """What one call for bars brought, in the order of time; `more`: the vendor has further ones behind the last.

    `invalid` has the times of rows that were no bars, and why; `contradicted` those of which there were several, with
    different figures: the one of most trades is taken, of as many that of most volume.
    """

    bars: BarSeries
    more: bool
    invalid: tuple[tuple[datetime, str], ...] = ()
    contradicted: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class MarketsOpen:
    """Which markets the vendor says are open; one that it does not mention is not there."""

    markets: dict[AssetType, bool]


@dataclass(frozen=True, slots=True)
class Ticker:
    """One ticker of the reference list; of a pair, with what its two sides are called, base first."""

    ticker: str
    name: str
    pair: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TickerPage:
    """A page of the reference list; `next_page` is empty on the last."""

    tickers: tuple[Ticker, ...]
    next_page: str
