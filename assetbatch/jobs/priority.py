"""`run-priority`: the priority assets, in order, before anything else may spend the budget."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import market_hours, planner
from assetbatch.database import catalogue
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import KINDS, WITHOUT_PRICE, FailureKind
from assetbatch.jobs import bar_loop
from assetbatch.jobs.bar_catalogue import CatalogueBars
from assetbatch.jobs.bars import Bars
from assetbatch.jobs.cycle import Cycle
from assetbatch.jobs.flights import Flights
from assetbatch.jobs.run import new_client, perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.sight import Sight
from assetbatch.jobs.wanted import Wanted
from assetbatch.model import AssetType, Failure
from assetbatch.planner import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.rate_limit import RateLimiter
    from assetbatch.jobs.run import Run, Start
    from assetbatch.jobs.update import Trip
    from assetbatch.model import Asset, Call, RunResult
    from assetbatch.planner import Candidate

log = logging.getLogger(__name__)

JOB = "run-priority"


def run_priority(start: Start) -> RunResult:
    """Update the priority assets that are due; store and announce what came.

    Failures of assets are in the result. Raises ConfigurationError without a key, SourceMismatchError on a database of
    another source.
    """
    api_key = start.config.require_api_key().reveal()
    return perform(
        JOB,
        start,
        lambda run: _Update(run, api_key)(),
        max_seconds=start.config.settings.batch.max_cycle_seconds,
        lease_seconds=renewal_seconds(start.config),
    )


class _Update:
    """One run: quotes first, or the figures of finished days; then bars, with the calls that are left."""

    def __init__(self, run: Run, api_key: str) -> None:
        self._run = run
        self._api_key = api_key
        self._assets = run.config.priority_assets
        self._sight = Sight(run.connection, run.config, run.clock, api_key=api_key, run_id=run.id)
        self._not_due: list[Asset] = []
        self._unchanged: list[Asset] = []

    def __call__(self) -> RunResult:
        run, config, settings = self._run, self._run.config, self._run.config.settings
        calls = self._plan(self._assets)
        log.info(
            "assets due: %d; calls planned on plan %s (%s): %d",
            len(self._assets) - len(self._not_due),
            config.plan,
            self._sight.mode,
            len(calls),
        )
        if calls:
            run.claim_source()
        catalogue.sync_with_config(run.connection, config.assets)
        road = run.road(self._api_key, Lane.PRIORITY)
        client = new_client(config, self._api_key)
        work = CatalogueBars(run, self._sight, symbols=[asset.symbol for asset in self._assets])
        bars = Bars(run, road, self._sight, work)
        if calls or work.has_work():
            run.claim_source()
            client.warm_up()
        no_call_after = time.monotonic() + settings.batch.max_cycle_seconds
        max_calls = None if config.calls_per_window is None else len(self._assets)
        cycle = Cycle(road, client, self._sight, self._replan, no_call_after=no_call_after, max_calls=max_calls)
        if (barred := self._sight.barred) is not None:
            cycle.fail([asset for call in calls for asset in call.assets], barred.kind, barred.error)
        else:
            cycle.make([self._sight.widened(call) for call in calls if not planner.looks_back(call, self._sight.days)])
            self._look_back(cycle, calls)
        self._look_at_markets(cycle)
        if not self._ends_run(road.trip):
            flights = Flights([client], run.clock, run.stop)
            bar_loop.fetch(road, flights, bars, no_call_after=no_call_after, max_calls=max_calls)
        deferred = work.waiting()
        road.keep_lease()
        known = catalogue.candidates(run.connection, self._assets)
        self._foresee(road.limiter, known)
        return self._result(road.trip, bars, deferred, self._missed(known))

    def _plan(self, assets: Sequence[Asset]) -> list[Call]:
        plan = planner.plan(
            catalogue.candidates(self._run.connection, assets),
            mode=self._sight.mode,
            batch_size=self._run.config.settings.provider.batch_size,
            now=self._run.clock.started_at,
            days=self._sight.days,
            closed=self._sight.closed,
        )
        self._not_due += plan.not_due
        self._unchanged += plan.unchanged
        return list(plan.calls)

    def _replan(self, calls: Sequence[Call]) -> list[Call]:
        """Plan the priority assets of these calls anew."""
        covered = {symbol for call in calls for symbol in call.symbols}
        return [
            self._sight.widened(call) for call in self._plan([one for one in self._assets if one.symbol in covered])
        ]

    def _ends_run(self, trip: Trip) -> bool:
        return any(KINDS[failure.kind].ends_run for failure in trip.failed)

    def _look_back(self, cycle: Cycle, planned: Sequence[Call]) -> None:
        """Ask for the day before of what has no price and may have rested on the newest one, with a call that is left.

        It tells gold on a holiday of its own from a ticker that does not exist.
        """
        if self._sight.mode is Mode.LIVE or self._ends_run(cycle.road.trip):
            return
        if any(failure.kind is FailureKind.MISSING for failure in cycle.road.trip.failed):
            planned = self._plan(self._assets)
        calls = [call for call in planned if planner.looks_back(call, self._sight.days)]
        if len(calls) <= cycle.calls_left:
            cycle.make([self._sight.widened(call) for call in calls])

    def _missed(self, known: Sequence[Candidate]) -> list[Failure] | None:
        """Return what the finished days lack and should have, whoever asked for them; None: prices are live."""
        if self._sight.mode is Mode.LIVE:
            return None
        missed = [one for one in known if planner.is_missed(one, self._run.clock.now())]
        return [Failure(one.asset.symbol, FailureKind.MISSING, one.missing) for one in missed]

    def _look_at_markets(self, cycle: Cycle) -> None:
        """Ask whether a market rests of which no asset has a price, at most hourly: a holiday is no failure."""
        if self._sight.mode is Mode.END_OF_DAY:
            return
        failed = {failure.symbol: failure.kind for failure in cycle.road.trip.failed}
        now = self._run.clock.now()
        trading = [one for one in self._assets if market_hours.is_open(market_hours.market_of(one), now)]
        silent = {
            market
            for market in AssetType
            if (own := [asset for asset in trading if asset.asset_type is market])
            and all(failed.get(asset.symbol) in WITHOUT_PRICE for asset in own)
        }
        if not silent or not self._sight.may_ask_status() or cycle.calls_left < 1:
            return
        found = cycle.ask_status()
        self._sight.note_markets({} if found is None else found.markets)
        rest = [one for one in trading if one.asset_type in silent & self._sight.closed]
        log.info("the vendor says that the market rests: %s", ", ".join(asset.symbol for asset in rest) or "none")
        if rest:
            symbols = {asset.symbol for asset in rest}
            cycle.road.trip.failed = [one for one in cycle.road.trip.failed if one.symbol not in symbols]
            cycle.rested(rest)

    def _foresee(self, limiter: RateLimiter, known: Sequence[Candidate]) -> None:
        """Keep slots for the next run: other work leaves it those that it is going to need."""
        run, batch = self._run, self._run.config.settings.batch
        every = timedelta(minutes=batch.interval_minutes)
        due = planner.next_due(run.clock.started_at, every)
        served = [replace(candidate, served_at=run.clock.started_at) for candidate in known]
        calls = planner.plan(
            served,
            mode=self._sight.mode,
            batch_size=run.config.settings.provider.batch_size,
            now=due,
            days=self._sight.days,
            closed=self._sight.closed,
        ).calls
        bars = len(self._assets) if calls and Wanted(run.config, self._sight, run.clock).enabled else 0
        limiter.foresee(
            calls=min(len(calls) + bars, len(self._assets)),
            due=due,
            every_seconds=every.total_seconds(),
            grace_seconds=run.config.settings.rate_limiting.reservation_grace_seconds,
        )

    def _result(
        self, trip: Trip, bars: Bars[CatalogueBars], deferred: Sequence[str], missed: Sequence[Failure] | None
    ) -> RunResult:
        run, own = self._run, [asset.symbol for asset in self._assets]
        # A call for a whole market serves many others, too.
        own_failures = [failure for failure in trip.failed if failure.symbol in own]
        failed, known = tuple(own_failures), {*trip.unchanged, *(asset.symbol for asset in self._unchanged)}
        if missed is not None:
            # That one day lacks an asset says little: it may not have traded then, or have come with the day before.
            failed = (*(one for one in failed if one.kind is not FailureKind.MISSING), *missed)
            known.update(one.symbol for one in own_failures)
        known -= {one.symbol for one in failed}
        strangers = [one for one in trip.failed if one.symbol not in {*own, *trip.updated, *trip.unchanged}]
        updated = [symbol for symbol in own if symbol in trip.updated]
        unchanged = [symbol for symbol in own if symbol in known and symbol not in updated]
        kinds = [*(failure.kind for failure in failed), *([bars.work.ended_by.kind] if bars.work.ended_by else [])]
        result = run.result(kinds, anything_stored=bool(updated or unchanged))
        return replace(
            result,
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            deferred=tuple(deferred),
            not_due=tuple(asset.symbol for asset in self._not_due),
            failed=failed,
            others_updated=len(set(trip.updated) - set(own)),
            bars=bars.result,
            newer_at=self._sight.newer_at({asset.asset_type for asset in self._assets}),
            ended_by=bars.work.ended_by,
            warnings=(
                *result.warnings,
                *run.platform_warnings(),
                *bars.work.warnings(),
                *([self._sight.contradiction] if self._sight.contradiction else []),
                *unknown_tickers(self._sight.unknown(strangers)),
            ),
        )
