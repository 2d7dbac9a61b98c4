"""What can be traded, as data: each type of asset with the vendor's words for it, and the hours at which it trades."""

from __future__ import annotations

import re
from datetime import time, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.calendars import christmas_and_new_year, new_york_stock_exchange
from assetbatch.model import AssetType, Product

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date


class Hours(Struct, frozen=True, eq=False):
    """Sessions by New York's clock, one for each day from Monday to Friday.

    One that opens no earlier than it closes opens the evening before. `exceptions` are the days of a year that are not
    as others: when the session closes then; None: there is none. Some trade goes on `before` a session and `after` it.
    `names` is how tickers begin, behind the prefix, that trade at these hours; empty: all others of their type do.
    `has_own_holidays`: the market may rest on days that are not known here, while others of the same type trade.
    """

    opens: time
    closes: time
    before: timedelta = timedelta(0)
    after: timedelta = timedelta(0)
    exceptions: Callable[[int], Mapping[date, time | None]] = christmas_and_new_year
    names: tuple[str, ...] = ()
    has_own_holidays: bool = False

    @property
    def is_overnight(self) -> bool:
        """Whether a session begins on the evening before."""
        return self.opens >= self.closes


class Market(Enum):
    """Assets that trade at the same hours, as the catalogue's column `market` has them."""

    FOREX = "forex"
    METALS = "metals"
    CRYPTO = "crypto"
    STOCKS = "stocks"
    INDICES = "indices"

    @property
    def asset_type(self) -> AssetType:
        """The type of the assets that trade at these hours."""
        return next(asset_type for asset_type, traits in TRAITS.items() if self in traits.markets)

    @property
    def hours(self) -> Hours | None:
        """Return its sessions; None: it never rests."""
        return HOURS.get(self)

    @property
    def rests_alone(self) -> bool:
        """Whether it may rest on days that are not known here, while others of the same type trade."""
        return self.hours is not None and self.hours.has_own_holidays


HOURS: Mapping[Market, Hours] = {
    Market.FOREX: Hours(opens=time(17), closes=time(17)),
    Market.METALS: Hours(opens=time(18), closes=time(17), names=("XAU", "XAG", "XPT", "XPD"), has_own_holidays=True),
    # From 4:00 until 20:00, on half days until 17:00.
    Market.STOCKS: Hours(
        opens=time(9, 30),
        closes=time(16),
        before=timedelta(hours=5, minutes=30),
        after=timedelta(hours=4),
        exceptions=new_york_stock_exchange,
    ),
    # Some have values before and after that, too; most have none. They come by many feeds, and each is asked for alone:
    # a day that one lacks may be a holiday that is on no list.
    Market.INDICES: Hours(
        opens=time(9, 30), closes=time(16), exceptions=new_york_stock_exchange, has_own_holidays=True
    ),
}


class Price(Struct, frozen=True):
    """Where a snapshot has a price: a figure of one of its parts, as the unified one calls them; "" is the row itself.

    `name` is what it is called in a message.
    """

    part: str
    figure: str
    name: str


class Traits(Struct, frozen=True):
    """What the vendor calls the assets of one type, and what it has of them.

    Their tickers are `prefix` and a name that `names` (a regular expression) describes, case and all; `example` is one
    that every plan has. The reference list and the days of a whole market call them `reference_name`, snapshots of one
    ticker `snapshot_name`; paths have the `locale` before that. `prices` are where the price is, the first one that is
    there. `markets` are the hours at which they trade: those of the first, but for tickers that others name. They are
    sold as the `product`. `status` is where the market's status has their words: a group, and names in it.
    `has_whole_days`: one call brings a finished day of all of them; else it takes a call each. `has_volume`: their bars
    tell what was traded. `has_splits`: one changes all their bars of before. `is_sold_in_part`: a plan may have
    days and bars of some of them, so that a refusal is of a ticker, not of all. `lists_inactive`: the reference list
    tells what became of those that are not traded any more. `test_names` (a regular expression) are those that
    exchanges test with.
    """

    prefix: str
    example: str
    reference_name: str
    snapshot_name: str
    markets: tuple[Market, ...]
    prices: tuple[Price, ...]
    product: Product
    status: tuple[str, tuple[str, ...]]
    names: str = "[A-Z0-9]+"
    locale: str = "global"
    has_whole_days: bool = True
    has_volume: bool = True
    has_splits: bool = False
    is_sold_in_part: bool = False
    lists_inactive: bool = False
    test_names: str = ""

    @property
    def is_case_sensitive(self) -> bool:
        """Whether two tickers may differ by case alone."""
        return "a-z" in self.names

    @property
    def has_trades(self) -> bool:
        """Whether they are traded at prices that are told; else there are quotes alone, or computed values."""
        return any(price.part == TRADE.part for price in self.prices)

    @property
    def main_market(self) -> Market:
        """The market whose trading days are those of the asset type."""
        return self.markets[0]

    @property
    def included(self) -> tuple[str, ...]:
        """What the asset type is called, and what else it includes."""
        return tuple(market.value for market in self.markets)


BID, TRADE = Price("last_quote", "bid", "bid price"), Price("last_trade", "price", "trade price")
MINUTE, VALUE = Price("last_minute", "close", "minute's close"), Price("", "value", "value")
# Indices are computed in many groups, most of them of stocks.
EXCHANGES = ("exchanges", ("nyse", "nasdaq"))

TRAITS: Mapping[AssetType, Traits] = {
    # Forex has no trades: the bid is its price, of which the vendor makes its own bars and changes.
    AssetType.FOREX: Traits(
        prefix="C:",
        example="C:EURUSD",
        reference_name="fx",
        snapshot_name="forex",
        markets=(Market.FOREX, Market.METALS),
        prices=(BID,),
        product=Product.CURRENCIES,
        status=("currencies", ("fx",)),
    ),
    AssetType.CRYPTO: Traits(
        prefix="X:",
        example="X:BTCUSD",
        reference_name="crypto",
        snapshot_name="crypto",
        markets=(Market.CRYPTO,),
        prices=(TRADE,),
        product=Product.CURRENCIES,
        status=("currencies", ("crypto",)),
    ),
    # Smaller plans have no trades, but the last minute made of them. Lower case marks preferred shares (KIMpL), a dot
    # a class (BRK.B). No type of the reference list marks those that exchanges test with: NASDAQ's ZVZZT, NYSE's NTEST
    # and NTEST.A, Cboe's ZTST and ZBZX, IEX' ZEXIT.
    AssetType.STOCKS: Traits(
        prefix="",
        example="AAPL",
        reference_name="stocks",
        snapshot_name="stocks",
        markets=(Market.STOCKS,),
        prices=(TRADE, MINUTE),
        product=Product.STOCKS,
        status=EXCHANGES,
        names="[A-Z][A-Za-z0-9.]*",
        locale="us",
        has_splits=True,
        lists_inactive=True,
        test_names=r"Z[A-Z]ZZT|ZVZZCNX|[ACMNPZ]TEST(\.[A-Z])?|ZTST|ZBZX|ZEXIT|ZIEXT|ZXIET",
    ),
    AssetType.INDICES: Traits(
        prefix="I:",
        example="I:SPX",
        reference_name="indices",
        snapshot_name="indices",
        markets=(Market.INDICES,),
        prices=(VALUE,),
        product=Product.INDICES,
        status=EXCHANGES,
        names="[A-Z0-9.]+",
        locale="us",
        has_whole_days=False,
        has_volume=False,
        is_sold_in_part=True,
        lists_inactive=True,
    ),
}

TICKER_PATTERN = rf"^({'|'.join(re.escape(traits.prefix) + traits.names for traits in TRAITS.values())})$"
TICKERS_DESCRIBED = ", ".join(
    f"{traits.prefix}… for {' and '.join(traits.included)}" if traits.prefix else f"{traits.example} for {kind}"
    for kind, traits in TRAITS.items()
)
# The longest prefix first: one that is empty begins every ticker.
_BY_PREFIX = sorted(TRAITS.items(), key=lambda item: -len(item[1].prefix))


def type_of(ticker: str) -> AssetType:
    """Return the type of asset that a well-formed ticker of the vendor's is of."""
    return next(asset_type for asset_type, traits in _BY_PREFIX if ticker.startswith(traits.prefix))


def is_for_tests(ticker: str) -> bool:
    """Return whether a ticker is one that exchanges test with: its prices mean nothing."""
    tests = TRAITS[type_of(ticker)].test_names
    return bool(tests) and re.fullmatch(tests, ticker) is not None


def with_prefix(ticker: str) -> list[str]:
    """Return what a ticker without a prefix may be meant for: a pair where it has six letters, else an index."""
    is_pair = re.fullmatch("[A-Z]{6}", ticker) is not None
    return [
        traits.prefix + ticker
        for traits in TRAITS.values()
        if traits.prefix
        and not TRAITS[type_of(ticker)].prefix
        and is_pair is (traits.product is Product.CURRENCIES)
        and re.fullmatch(traits.names, ticker)
    ]


def without_prefix(ticker: str) -> str:
    """Return a ticker without what tells its type, if it has that."""
    return ticker.removeprefix(TRAITS[type_of(ticker)].prefix)
