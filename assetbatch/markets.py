"""What can be traded, as data: each type of asset with the vendor's words for it, and the hours at which it trades."""

from __future__ import annotations

import re
from datetime import time
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.model import AssetType

if TYPE_CHECKING:
    from collections.abc import Mapping


class Hours(Struct, frozen=True, eq=False):
    """Sessions by New York's clock, one for each day from Monday to Friday but the `holidays` (month, day).

    One that opens no earlier than it closes opens the evening before. `names` is how tickers begin, behind the prefix,
    that trade at these hours; empty: all others of their type do. `has_own_holidays`: the market may rest on days that
    are not known here, while others of the same type trade.
    """

    opens: time
    closes: time
    names: tuple[str, ...] = ()
    holidays: tuple[tuple[int, int], ...] = ((12, 25), (1, 1))
    has_own_holidays: bool = False


class Market(Enum):
    """Assets that trade at the same hours, as the catalogue's column `market` has them."""

    FOREX = "forex"
    METALS = "metals"
    CRYPTO = "crypto"

    @property
    def asset_type(self) -> AssetType:
        """The type of the assets that trade at these hours."""
        return next(asset_type for asset_type, traits in TRAITS.items() if self in traits.markets)

    @property
    def hours(self) -> Hours | None:
        """Return its sessions; None: it never rests."""
        return HOURS.get(self)


HOURS: Mapping[Market, Hours] = {
    Market.FOREX: Hours(opens=time(17), closes=time(17)),
    Market.METALS: Hours(opens=time(18), closes=time(17), names=("XAU", "XAG", "XPT", "XPD"), has_own_holidays=True),
}


class Traits(Struct, frozen=True):
    """What the vendor calls the assets of one type, and what it has of them.

    Their tickers begin with `prefix`; `example` is one that every plan has. The reference list, the days of a whole
    market and the market's status call them `reference_name`, snapshots of one ticker `snapshot_name`; paths have the
    `locale` before that. `has_trades`: their price is that of the last trade; else it is the bid. `markets` are the
    hours at which they trade: those of the first, but for tickers that others name.
    """

    prefix: str
    example: str
    reference_name: str
    snapshot_name: str
    markets: tuple[Market, ...]
    has_trades: bool
    locale: str = "global"

    @property
    def main_market(self) -> Market:
        """The market whose trading days are those of the asset type."""
        return self.markets[0]

    @property
    def included(self) -> tuple[str, ...]:
        """What the asset type is called, and what else it includes."""
        return tuple(market.value for market in self.markets)


TRAITS: Mapping[AssetType, Traits] = {
    AssetType.FOREX: Traits(
        prefix="C:",
        example="C:EURUSD",
        reference_name="fx",
        snapshot_name="forex",
        markets=(Market.FOREX, Market.METALS),
        has_trades=False,
    ),
    AssetType.CRYPTO: Traits(
        prefix="X:",
        example="X:BTCUSD",
        reference_name="crypto",
        snapshot_name="crypto",
        markets=(Market.CRYPTO,),
        has_trades=True,
    ),
}

TICKER_PATTERN = rf"^({'|'.join(re.escape(traits.prefix) for traits in TRAITS.values())})[A-Z0-9]+$"
TICKERS_DESCRIBED = ", ".join(f"{traits.prefix}… for {' and '.join(traits.included)}" for traits in TRAITS.values())


def type_of(ticker: str) -> AssetType:
    """Return the type of asset that a well-formed ticker of the vendor's is of."""
    return next(asset_type for asset_type, traits in TRAITS.items() if ticker.startswith(traits.prefix))


def without_prefix(ticker: str) -> str:
    """Return a ticker without what tells its type, if it has that."""
    prefix = next((traits.prefix for traits in TRAITS.values() if ticker.startswith(traits.prefix)), "")
    return ticker.removeprefix(prefix)
