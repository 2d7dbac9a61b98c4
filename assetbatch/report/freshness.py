"""How fresh an asset is, told in market time: a weekend makes nothing stale."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.database.asset_states import Limit
from assetbatch.errors import FailureKind
from assetbatch.market_hours import Market
from assetbatch.model import AssetType
from assetbatch.planner import DayOutcome, Days, Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from assetbatch.database.catalogue import SyncState
    from assetbatch.model import Asset

# A finished day that is not stored so long after it could be had is trouble.
DAY_PATIENCE = timedelta(hours=3)


class Freshness(StrEnum):
    """How an asset stands, as `status` words it."""

    FRESH = "fresh"
    STALE = "stale"
    CLOSED = "closed"
    END_OF_DAY = "end_of_day"
    NOT_ENTITLED = "not_entitled"
    FAILING = "failing"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What freshness is held against: how prices are asked for, what the vendor has of the last days, who rests."""

    now: datetime
    interval: timedelta
    mode: Mode = Mode.LIVE
    days: Days = field(default_factory=dict)
    closed: frozenset[AssetType] = frozenset()
    """Markets that the vendor says are closed, whatever their hours."""

    def expected_day(self, market: AssetType) -> date:
        """Tell the newest finished day that there should be figures of: not one that the vendor has none of."""
        return next(
            day
            for day in market_hours.finished_days(market, self.now)
            if (asked := self.days.get((market, day))) is None or asked.outcome is not DayOutcome.EMPTY
        )

    def overdue_day(self, market: AssetType) -> date | None:
        """Tell the finished day that should be stored by now; None while there is still time for the newest one."""
        expected = self.expected_day(market)
        return expected if self.now > market_hours.day_over_at(expected) + DAY_PATIENCE else None


def market_age(asset: Asset, state: SyncState, now: datetime) -> timedelta | None:
    """How long the asset's market was open since it was last updated; None when it never was."""
    if state.succeeded_at is None:
        return None
    return market_hours.open_time(market_hours.market_of(asset), state.succeeded_at, now)


def freshness(asset: Asset, state: SyncState, outlook: Outlook) -> Freshness:
    """Tell how fresh an asset is. Stale is what is older than two of its periods and one interval of the job.

    With end-of-day prices, it is what lacks the newest finished day some hours after that could be had.
    """
    if state.error_kind is FailureKind.NOT_ENTITLED:
        return Freshness.NOT_ENTITLED
    if outlook.mode is Mode.LIVE and asset.asset_type in outlook.closed:
        return Freshness.CLOSED
    if state.error_kind is not None:
        return Freshness.FAILING
    if state.succeeded_at is None:
        return Freshness.NEVER
    if outlook.mode is Mode.END_OF_DAY:
        due = outlook.overdue_day(asset.asset_type)
        late = due is not None and (state.day is None or state.day < due)
        return Freshness.STALE if late else Freshness.END_OF_DAY
    return _by_age(asset, state.succeeded_at, outlook)


def oldest_fresh(update_frequency_seconds: int, interval: timedelta) -> timedelta:
    """Tell how old in market time an asset may be before it is stale."""
    return 2 * timedelta(seconds=update_frequency_seconds) + interval


def market_time_ago(market: Market, length: timedelta, now: datetime) -> datetime:
    """Tell since when the market was open for so long; within a rest, the end of it."""
    since = now - length
    while (lacking := length - market_hours.open_time(market, since, now)) > timedelta(0):
        since = (market_hours.last_close(market, since) or since) - lacking
    return since


def limits(frequencies: Iterable[int], outlook: Outlook) -> list[Limit]:
    """Tell what all assets are held against, by frequency and market: `freshness` for many, for a statement."""
    daily = outlook.mode is Mode.END_OF_DAY
    days = {kind: outlook.overdue_day(kind) if daily else None for kind in AssetType}
    found = []
    for seconds in frequencies:
        oldest = oldest_fresh(seconds, outlook.interval)
        found += [
            Limit(
                seconds,
                market,
                stale_before=market_time_ago(market, oldest, outlook.now),
                fresh_since=outlook.now - oldest,
                day=days[market.asset_type],
                rests=not daily and market.asset_type in outlook.closed,
            )
            for market in Market
        ]
    return found


def _by_age(asset: Asset, succeeded_at: datetime, outlook: Outlook) -> Freshness:
    limit = oldest_fresh(asset.update_frequency_seconds, outlook.interval)
    if market_hours.open_time(market_hours.market_of(asset), succeeded_at, outlook.now) > limit:
        return Freshness.STALE
    return Freshness.FRESH if outlook.now - succeeded_at <= limit else Freshness.CLOSED
