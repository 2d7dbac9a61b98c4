"""What freshness is held against, in market time: a weekend makes nothing stale. The judge is `database.freshness`.

Market time is that of regular sessions: around them a price that does not come raises no alarm.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from assetbatch import market_hours, planner, plans
from assetbatch.database.read.freshness import Limit
from assetbatch.failures import FailureKind, kind_of
from assetbatch.markets import TRAITS, Market
from assetbatch.model import AssetType
from assetbatch.planner import DayOutcome, Days, Delays
from assetbatch.plans import Mode, Modes
from assetbatch.words import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from assetbatch.config import Config
    from assetbatch.database.read.overview import Overview
    from assetbatch.model import Asset

# A finished day that is not stored so long after it could be had is trouble.
DAY_PATIENCE = timedelta(hours=3)
# What did not trade for so long while its market was open is silent: nobody can bring a newer price.
SILENT_AFTER = timedelta(days=7)
# As the jobs have it, that tell of the same assets.
SEEN_WITHIN = planner.SEEN_WITHIN


class Freshness(StrEnum):
    """How an asset stands, as `status` words it."""

    FRESH = "fresh"
    STALE = "stale"
    SILENT = "silent"
    CLOSED = "closed"
    END_OF_DAY = "end_of_day"
    NOT_ENTITLED = "not_entitled"
    FAILING = "failing"
    NEVER = "never"
    DELISTED = "delisted"
    RENAMED = "renamed"


# What is not asked for any more, since it is not traded.
GONE = frozenset({Freshness.DELISTED, Freshness.RENAMED})


class AssetStatus(Struct, frozen=True):
    """One asset: its newest price (the vendor's digits), when the market made it, when it was last asked for.

    `ill`, `unknown`, `late`: as `database.freshness` judges it.
    """

    asset: Asset
    origin: str
    state: Freshness
    ill: bool
    unknown: bool
    late: bool
    last_price: str | None
    daily_open: str | None
    data_timestamp: str | None
    last_sync: datetime | None
    market_age: timedelta | None
    day: date | None
    """The newest finished day that the vendor was asked for it."""
    error_kind: FailureKind | None
    error: str

    @property
    def priced_at(self) -> datetime | None:
        """When the market made the price; None also where somebody else wrote what is no time."""
        return moment(self.data_timestamp)


class Outlook(Struct, frozen=True):
    """What freshness is held against: how prices are asked for, what the vendor has of the last days, who rests."""

    now: datetime
    interval: timedelta
    modes: Modes
    """How prices of each type are asked for."""
    delays: Delays
    """How late live ones are."""
    types: frozenset[AssetType] = frozenset(AssetType)
    """Of which types there are assets."""
    days: Days = field(default_factory=dict)
    closed: frozenset[AssetType] = frozenset()
    """Markets that the vendor says are closed, whatever their hours."""

    @property
    def mode(self) -> Mode:
        """How prices of all types that there are are asked for: live, where any are."""
        return plans.overall(self.modes, self.types)

    def overdue_day(self, market: AssetType) -> date:
        """Return the newest finished day that should be stored by now: not one that the vendor has nothing of."""
        return next(
            day
            for day in market_hours.finished_days(market, self.now)
            if self.now > market_hours.day_over_at(day) + DAY_PATIENCE
            and ((asked := self.days.get((market, day))) is None or asked.outcome is not DayOutcome.EMPTY)
        )


def outlook_of(config: Config, overview: Overview) -> Outlook:
    """Return what freshness is held against now."""
    return Outlook(
        overview.now,
        timedelta(minutes=config.settings.batch.interval_minutes),
        plans.modes(config.plans, config.settings.provider.mode, overview.entitlements, overview.now),
        config.delays,
        types=overview.types | config.types,
        days=overview.days,
        closed=overview.closed,
    )


def asks_for_bars(config: Config, outlook: Outlook, kind: AssetType) -> bool:
    """Return whether bars of a type are asked for."""
    limit = config.limit_of(TRAITS[kind].product)
    return plans.asks_for_bars(config.settings.bars.enabled, limit, outlook.modes[kind])


def asset_status(asset: Asset, row: Mapping[str, Any] | None, now: datetime) -> AssetStatus:
    """Return how one asset stands, by its row of `database.freshness`; None: the catalogue has it not yet."""
    row = row or {}
    return AssetStatus(
        asset=asset,
        origin=row.get("origin", "config"),
        state=Freshness(row.get("state", Freshness.NEVER)),
        ill=row.get("ill", False),
        unknown=row.get("unknown", False),
        late=row.get("late", False),
        last_price=row.get("last_price"),
        daily_open=row.get("daily_open"),
        data_timestamp=row.get("data_timestamp"),
        last_sync=row.get("succeeded_at"),
        market_age=market_age(asset, row.get("succeeded_at"), now),
        day=row.get("day"),
        error_kind=kind_of(row.get("error_kind")),
        error=row.get("error") or "",
    )


def market_age(asset: Asset, succeeded_at: datetime | None, now: datetime) -> timedelta | None:
    """Return how long the asset's market was open since it was last updated; None when it never was."""
    if succeeded_at is None:
        return None
    return market_hours.open_time(market_hours.market_of(asset), succeeded_at, now, regular=True)


def oldest_fresh(update_frequency_seconds: int, interval: timedelta) -> timedelta:
    """Return how old in market time an asset may be before it is stale: two of its periods and one interval."""
    return 2 * timedelta(seconds=update_frequency_seconds) + interval


def oldest_priority(update_frequency_seconds: int, interval: timedelta) -> timedelta:
    """Return how old in market time a priority asset may be: three intervals, or as its own frequency makes it."""
    return max(3 * interval, oldest_fresh(update_frequency_seconds, interval))


def market_time_ago(market: Market, length: timedelta, now: datetime) -> datetime:
    """Return since when the market was open for so long; within a rest, the end of it."""
    if market.hours is not None:
        for opens, closes in market_hours.sessions_before(market.hours, now, regular=True):
            now = min(now, closes)
            if now - opens >= length:
                break
            length -= now - opens
    return now - length


def limits(frequencies: Iterable[int], outlook: Outlook) -> list[Limit]:
    """Return what assets are held against, a row for each of these frequencies (seconds) and each market."""
    return [_limit(market, seconds, outlook) for seconds in frequencies for market in Market]


def _limit(market: Market, seconds: int, outlook: Outlook) -> Limit:
    kind, now = market.asset_type, outlook.now
    oldest = oldest_fresh(seconds, outlook.interval)
    delay = outlook.delays[kind]

    def ago(length: timedelta) -> datetime:
        return market_time_ago(market, length, now - delay) + delay

    closed_at = market_hours.last_close(market, now - delay, regular=True)
    daily = outlook.modes[kind] is Mode.END_OF_DAY
    return Limit(
        seconds,
        market,
        stale_before=ago(oldest),
        fresh_since=now - oldest,
        late_before=ago(oldest_priority(seconds, outlook.interval)),
        never_before=ago(timedelta(seconds=2 * seconds)),
        silent_before=None if daily else ago(max(SILENT_AFTER, oldest)),
        closed_at=None if daily or closed_at is None else closed_at + delay,
        day=outlook.overdue_day(kind) if daily else None,
        rests=not daily and kind in outlook.closed,
        daily=daily,
        rests_alone=market.rests_alone,
    )
