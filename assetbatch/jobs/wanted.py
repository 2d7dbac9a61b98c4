"""Which bars are wanted: of whom, since when, until when."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import bars, market_hours, planner
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars.holes import HELD
from assetbatch.markets import Market
from assetbatch.model import Span
from assetbatch.planner import Mode
from assetbatch.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.bars import Track
    from assetbatch.jobs.entitlements import Entitlements


class Wanted:
    """What the configuration wants of bars, as far as the key may see them now."""

    def __init__(self, entitlements: Entitlements) -> None:
        self._entitlements = entitlements
        self._config = entitlements.config
        self._settings = entitlements.config.settings.bars
        self._clock = entitlements.clock
        self.settle = timedelta(seconds=self._settings.settle_seconds)

    @property
    def enabled(self) -> bool:
        """Whether bars are asked for at all: of itself, where that delays no price."""
        return planner.asks_for_bars(self._settings.enabled, self._config.calls_per_window, self._entitlements.mode)

    def since(self, asked_for: datetime | None = None) -> datetime:
        """Return since when bars are wanted, or can be had if they are `asked_for`: as far as the plan reaches back."""
        now = self._clock.now()
        since = asked_for or now - timedelta(days=self._settings.backfill_days)
        if (history := PLANS[self._config.plan].history) is not None:
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

    def until(self, market: Market) -> datetime | None:
        """Return until when a market's bars are settled now; None: no finished day can be had."""
        now = self._clock.now()
        return bars.reach(
            market, mode=self._entitlements.mode, days=self._entitlements.days, now=now, settle=self.settle
        )

    def newest(self, track: Track) -> Span | None:
        """Return what the call for an asset's newest bars asks for; None: nothing that is settled is missing."""
        until = self.until(market_hours.market_of(track.asset))
        if until is None:
            return None
        now = self._clock.now()
        span = bars.tail(track, until=until, now=now, recheck=timedelta(hours=self._settings.recheck_hours))
        if span is None or self._entitlements.mode is Mode.END_OF_DAY:
            return span
        # The bars that are open now come along; they are fetched again.
        until = bars.floor(now) + bars.LENGTH
        return Span(max(span.since, until - bars.ONE_PAGE), until)

    def holes(
        self, symbol: str, since: datetime, until: datetime | None, *, held: timedelta = HELD, at_once: bool = False
    ) -> list[Span]:
        """Return where bars are missing, as far as they are kept; the rest is as `database.bars.holes` has it."""
        since = max(since, self.kept_since() or since)
        if until is None or until <= since:
            return []
        now, told = self._clock.now(), self._entitlements.told
        span = Span(since, until)
        return bar_holes.holes(
            self._entitlements.connection, symbol, span, now=now, told=told, held=held, at_once=at_once
        )

    def limits(self, frequencies: Sequence[int]) -> list[tuple[int, Market, datetime, datetime]]:
        """Return for each frequency and market before when bars must have been asked for to be due, and until when."""
        now = self._clock.now()
        daily = self._entitlements.mode is Mode.END_OF_DAY
        return [
            (seconds, market, now if daily else planner.due_before(seconds, now), until)
            for market in Market
            if (until := self.until(market)) is not None
            for seconds in frequencies
        ]
