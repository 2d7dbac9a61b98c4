"""How fresh an asset is, told in market time: a weekend makes nothing stale."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.errors import FailureKind

if TYPE_CHECKING:
    from assetbatch.database.catalogue import SyncState
    from assetbatch.model import Asset


class Freshness(StrEnum):
    """How an asset stands, as `status` words it."""

    FRESH = "fresh"
    STALE = "stale"
    CLOSED = "closed"
    END_OF_DAY = "end_of_day"
    NOT_ENTITLED = "not_entitled"
    FAILING = "failing"
    NEVER = "never"


def market_age(asset: Asset, state: SyncState, now: datetime) -> timedelta | None:
    """How long the asset's market was open since it was last updated; None when it never was."""
    if state.succeeded_at is None:
        return None
    return market_hours.open_time(market_hours.market_of(asset), state.succeeded_at, now)


def freshness(asset: Asset, state: SyncState, *, interval: timedelta, now: datetime) -> Freshness:
    """Tell how fresh an asset is. Stale is what is older than two of its periods and one interval of the job."""
    if state.error_kind is FailureKind.NOT_ENTITLED:
        return Freshness.NOT_ENTITLED
    if state.error_kind is not None:
        return Freshness.FAILING
    age = market_age(asset, state, now)
    if age is None or state.succeeded_at is None:
        return Freshness.NEVER
    limit = 2 * timedelta(seconds=asset.update_frequency_seconds) + interval
    if age > limit:
        return Freshness.STALE
    if now - state.succeeded_at <= limit:
        return Freshness.FRESH
    return Freshness.CLOSED
