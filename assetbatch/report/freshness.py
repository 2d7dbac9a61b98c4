"""How fresh an asset is, told in market time: a weekend makes nothing stale."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.errors import FailureKind
from assetbatch.planner import DayOutcome, Days, Mode

if TYPE_CHECKING:
    from assetbatch.database.catalogue import SyncState
    from assetbatch.model import Asset, AssetType

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
        expected = outlook.expected_day(asset.asset_type)
        late = state.day is None or state.day < expected
        patience_ends = market_hours.day_over_at(expected) + DAY_PATIENCE
        return Freshness.STALE if late and outlook.now > patience_ends else Freshness.END_OF_DAY
    return _by_age(asset, state.succeeded_at, outlook)


def _by_age(asset: Asset, succeeded_at: datetime, outlook: Outlook) -> Freshness:
    limit = 2 * timedelta(seconds=asset.update_frequency_seconds) + outlook.interval
    if market_hours.open_time(market_hours.market_of(asset), succeeded_at, outlook.now) > limit:
        return Freshness.STALE
    return Freshness.FRESH if outlook.now - succeeded_at <= limit else Freshness.CLOSED
