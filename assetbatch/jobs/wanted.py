"""Which bars are wanted: of whom, since when, until when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import bars, market_hours, planner, plans
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars.holes import HELD
from assetbatch.markets import TRAITS, Market
from assetbatch.model import Span
from assetbatch.plans import Mode

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from assetbatch.bars import Track
    from assetbatch.jobs.entitlements import Entitlements
    from assetbatch.model import AssetType


class Wanted:
    """What the configuration wants of bars, as far as the key may see them now."""

    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements
        self._config = entitlements.config
        self._settings = entitlements.config.settings.bars
        self._clock = entitlements.clock

    def asks(self, asset_type: AssetType) -> bool:
        """Return whether bars of a type are asked for at all: of itself, where that delays no price."""
        limit = self._config.limit_of(TRAITS[asset_type].product)
        return plans.asks_for_bars(self._settings.enabled, limit, self._entitlements.modes[asset_type])

    def settle(self, asset_type: AssetType) -> timedelta:
        """Return how long after its end a bar is final: the plan may be late by itself."""
        return timedelta(seconds=self._settings.settle_seconds) + self._config.plan_of(asset_type).delay

    def since(self, asset_type: AssetType, asked_for: datetime | None = None) -> datetime:
        """Return since when bars are wanted, or can be had if they are `asked_for`: as far as the plan reaches back."""
        now = self._clock.now()
        since = asked_for or now - timedelta(days=self._settings.backfill_days)
        if (history := self._config.plan_of(asset_type).history) is not None:
            since = max(since, now - history)
        return bars.floor(max(since, self.kept_since() or since))

    def kept_since(self) -> datetime | None:
        """Return before when bars are dropped; None: never."""
        months = self._settings.retention_months
        if months is None:
            return None
        now = self._clock.now()
        month = now.year * 12 + now.month - 1 - months
        return now.replace(year=month // 12, month=month % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)

    def until(self, market: Market, now: datetime | None = None) -> datetime | None:
        """Return until when a market's bars are settled by a time, or now; None: no finished day can be had."""
        kind, entitlements = market.asset_type, self._entitlements
        return bars.reach(
            market,
            mode=entitlements.modes[kind],
            days=entitlements.days,
            now=now or self._clock.now(),
            settle=self.settle(kind),
        )

    def newest(self, track: Track) -> Span | None:
        """Return what the call for an asset's newest bars asks for; None: nothing that is settled is missing."""
        until = self.until(market_hours.market_of(track.asset))
        if until is None:
            return None
        now = self._clock.now()
        span = bars.tail(track, until=until, now=now, recheck=timedelta(hours=self._settings.recheck_hours))
        if span is None or self._entitlements.modes[track.asset.asset_type] is Mode.END_OF_DAY:
            return span
        # The bars that are open now come along; they are fetched again.
        until = bars.floor(now) + bars.LENGTH
        return Span(max(span.since, until - bars.ONE_PAGE), until)

    def holes(
        self,
        symbol: str,
        asset_type: AssetType,
        since: datetime,
        until: datetime | None,
        *,
        held: timedelta = HELD,
        at_once: bool = False,
    ) -> list[Span]:
        """Return where bars are missing, as far as they are kept; the rest is as `database.bars.holes` has it."""
        since = max(since, self.kept_since() or since)
        if until is None or until <= since:
            return []
        now, told = self._clock.now(), self._entitlements.told_of(asset_type)
        span = Span(since, until)
        return bar_holes.holes(
            self._entitlements.connection, symbol, span, now=now, told=told, held=held, at_once=at_once
        )

    def limits(
        self, frequencies: Sequence[int], types: Collection[AssetType]
    ) -> list[tuple[int, Market, datetime, datetime]]:
        """Return before when bars must have been asked for to be due, and until when: by frequency and market."""
        now, daily = self._clock.now(), self._entitlements.daily_types
        return [
            (seconds, market, now if market.asset_type in daily else planner.due_before(seconds, now), until)
            for market in Market
            if market.asset_type in types and (until := self.until(market)) is not None
            for seconds in frequencies
        ]
