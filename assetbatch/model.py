"""The words of the field, as frozen values. Pure: nothing here reads a clock, a file or the network."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import date, datetime
    from decimal import Decimal

    from assetbatch.failures import FailureKind


class AssetType(StrEnum):
    """What the vendor's markets are called here; metals trade on the forex market."""

    FOREX = "forex"
    CRYPTO = "crypto"
    STOCKS = "stocks"
    INDICES = "indices"


class Product(StrEnum):
    """What the vendor sells by itself, each with plans of its own: a key is on one of each."""

    CURRENCIES = "currencies"
    """Forex and crypto, together."""
    STOCKS = "stocks"
    INDICES = "indices"


class Priority(IntEnum):
    """Order of the queue: the smaller, the sooner."""

    CRITICAL = 1
    HIGH = 2
    MEDIUM = 3
    LOW = 4


class Role(StrEnum):
    """Which job keeps an asset fresh."""

    PRIORITY = "priority"
    SECONDARY = "secondary"


class Asset(Struct, frozen=True):
    """One asset of the catalogue.

    `rank` orders the priority assets (1 first); for secondary assets it is their `Priority`.
    """

    symbol: str
    polygon_ticker: str
    asset_type: AssetType
    role: Role
    rank: int
    update_frequency_seconds: int
    name: str = ""


class Quote(Struct, frozen=True):
    """The newest price of an asset.

    `last_price` is the last trade's price, or what `markets` has in its place: for forex the bid, since the vendor
    computes its own bars and changes from it. `timestamp` is the vendor's time of that price. Numbers are the vendor's
    digits; what it did not send, or sent as zero, is None. `has_daily`: it came with the figures of its day, as that of
    a call does; that of a stream has none.
    """

    last_price: Decimal
    timestamp: datetime
    bid: Decimal | None = None
    ask: Decimal | None = None
    daily_open: Decimal | None = None
    daily_high: Decimal | None = None
    daily_low: Decimal | None = None
    daily_close: Decimal | None = None
    has_daily: bool = True


class Span(Struct, frozen=True):
    """The time from `since` to just before `until`."""

    since: datetime
    until: datetime


class Bar(Struct, frozen=True):
    """What traded in one stretch of time that begins at `ts`; numbers are the vendor's digits.

    `volume` and `trades` are as the vendor counts them: for forex, quotes; for crypto, units of the base currency and
    trades; for stocks, shares, parts of them, too. `vwap` and `trades` may be absent; indices have no volume either.
    """

    ts: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal | None
    vwap: Decimal | None = None
    trades: int | None = None


class Split(Struct, frozen=True):
    """So many shares of a ticker (`split_from`) become so many (`split_to`) on a day, before its trade begins."""

    ticker: str
    execution_date: date
    split_from: Decimal
    split_to: Decimal


class Failure(Struct, frozen=True):
    """Why one asset was not updated."""

    symbol: str
    kind: FailureKind
    error: str


class Trouble(Struct, frozen=True):
    """Why no further call of a run can fare better."""

    kind: FailureKind
    error: str


class Access(StrEnum):
    """What a plan allows or does not: kinds of calls that are refused together."""

    SNAPSHOTS = "snapshots"
    DAILY = "daily"
    BARS = "bars"
    REFERENCE = "reference"


class CallKind(StrEnum):
    """The vendor's calls, by what they bring."""

    SNAPSHOT = "snapshot"
    """Unified snapshot: quotes of up to 250 tickers of any market."""
    SNAPSHOT_SINGLE = "snapshot_single"
    """Single-ticker snapshot of one market."""
    DAILY = "grouped_daily"
    """One finished day of a whole market."""
    DAILY_TICKER = "daily_ticker"
    """One finished day of one ticker, of a market that has no call for all of it."""
    BARS = "bars"
    """One page of one ticker's bars."""
    MARKET_STATUS = "market_status"
    """Which markets are open now."""
    MARKET_HOLIDAYS = "market_holidays"
    """The days that come on which exchanges rest, or close early."""
    TICKERS = "tickers"
    """One page of the reference list of a market."""
    SPLITS = "splits"
    """One page of the list of splits."""

    @property
    def access(self) -> Access:
        """What a plan must allow for this call."""
        return ACCESS[self]


ACCESS = {
    CallKind.SNAPSHOT: Access.SNAPSHOTS,
    CallKind.SNAPSHOT_SINGLE: Access.SNAPSHOTS,
    CallKind.DAILY: Access.DAILY,
    CallKind.DAILY_TICKER: Access.DAILY,
    CallKind.BARS: Access.BARS,
    CallKind.MARKET_STATUS: Access.REFERENCE,
    CallKind.MARKET_HOLIDAYS: Access.REFERENCE,
    CallKind.TICKERS: Access.REFERENCE,
    CallKind.SPLITS: Access.REFERENCE,
}


class Call(Struct, frozen=True):
    """One request to make: what for, and which assets its answer serves.

    Daily figures are of a `market` and a `day`, all of it or one asset's; bars are of one asset, of so many `minutes`
    each, within a `span`; tickers are of a `market`, all or that of the one asset, from where `page` (the vendor's
    words for the next) says: those of one `company` (its CIK, the number that the SEC knows it by), where one is named;
    not `active`: those that are not traded any more, the last ones first. So are splits, since a `day`.
    """

    kind: CallKind
    assets: tuple[Asset, ...] = ()
    market: AssetType | None = None
    day: date | None = None
    span: Span | None = None
    minutes: int = 5
    page: str = ""
    active: bool = True
    company: str = ""

    @property
    def symbols(self) -> list[str]:
        """The symbols that the call covers, in its order."""
        return [asset.symbol for asset in self.assets]

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of assets that it is about; none: of all."""
        of_market = frozenset() if self.market is None else frozenset({self.market})
        return of_market or frozenset(asset.asset_type for asset in self.assets)

    @property
    def market_day(self) -> tuple[AssetType, date]:
        """The market and the day that a call for daily figures is about."""
        assert self.market is not None and self.day is not None  # noqa: S101, PT018 - another call has none
        return self.market, self.day


class RunStatus(StrEnum):
    """How a run ended."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"


class Enqueued(Struct, frozen=True):
    """What became of the assets that were looked at for the queue; each counts once.

    `fresh`: not due; `dead`: a dead letter, until it is retried; `dropped`: the queue is full; `unmapped`: not in the
    catalogue, or without its row in the platform's table; `gone`: delisted or renamed.
    """

    enqueued: int = 0
    already_queued: int = 0
    fresh: int = 0
    dead: int = 0
    dropped: int = 0
    unmapped: int = 0
    gone: int = 0


class BarsResult(Struct, frozen=True):
    """Of how many assets bars were asked for, and how many were written."""

    assets: int = 0
    stored: int = 0


class ChangedBar(Struct, frozen=True):
    """A bar that the vendor has otherwise now than it was stored."""

    symbol: str
    old: Bar
    new: Bar


class Streamed(Struct, frozen=True):
    """What one run streamed of a cluster: `assets` at a time at most, none where another stream had it all along.

    `events` are quotes and minutes, `dropped` what was no price or not asked for; `connects` counts attempts, too.
    """

    cluster: str
    assets: int = 0
    events: int = 0
    dropped: int = 0
    connects: int = 0


class RunResult(Struct, frozen=True):
    """What a run did, and what the operator should hear beside it (`warnings`).

    `unchanged`: nothing newer exists; `deferred`: bars left for spare slots; `not_due`: served already; `requeued`:
    tried and back on the queue; `dead`: became dead letters; `remaining`: items that wait in the queue now. `ended_by`
    is what ended the run before its work was done. With end-of-day prices a call serves `others_updated` assets too,
    and newer figures can exist at `newer_at`. A backfill foresees its calls; one that asks again finds `changed` bars.
    A stream has `streamed` clusters.
    """

    job: str
    run_id: int
    status: RunStatus
    exit_code: int
    started_at: datetime
    finished_at: datetime
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()
    not_due: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    requeued: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    remaining: int | None = None
    enqueued: Enqueued | None = None
    others_updated: int = 0
    bars: BarsResult = BarsResult()
    newer_at: datetime | None = None
    calls_foreseen: int | None = None
    changed: tuple[ChangedBar, ...] = ()
    ended_by: Trouble | None = None
    streamed: tuple[Streamed, ...] = ()
    api_calls_used: int = 0
    rate_limit_waits: int = 0
    waited_seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def latency_ms(self) -> int:
        """From the run's start to its end."""
        return round((self.finished_at - self.started_at).total_seconds() * 1000)
