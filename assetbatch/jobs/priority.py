"""`run-priority`: the priority assets, in order, before anything else may spend the budget."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from assetbatch import market_hours, planner
from assetbatch.database import catalogue
from assetbatch.database.rate_limit import Lane
from assetbatch.failures import POLICIES, WITHOUT_PRICE, CallError, FailureKind
from assetbatch.jobs.bar_catalogue import CatalogueBars
from assetbatch.jobs.bars import Bars
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.quote_work import QuoteWork
from assetbatch.jobs.run import perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.splits import Splits
from assetbatch.jobs.wanted import Wanted
from assetbatch.jobs.worker import Worker
from assetbatch.model import AssetType, Call, Failure
from assetbatch.planner import Mode
from assetbatch.provider import endpoints
from assetbatch.schedule import RUN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.query import Query
    from assetbatch.database.rate_limit import RateLimiter
    from assetbatch.database.splits import SplitsState
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import Asset, RunResult
    from assetbatch.planner import Candidate

log = logging.getLogger(__name__)


def run_priority(start: Start) -> RunResult:
    """Update the priority assets that are due; store and announce what came.

    Failures of assets are in the result. Raises ConfigurationError without a key, SourceMismatchError on a database of
    another source.
    """
    start.config.require_api_key()
    known = catalogue.candidates(start.config.priority_assets)
    is_as_configured = catalogue.is_as_configured(start.config.assets)
    splits = Splits.state(start.started_at)
    return perform(
        RUN_PRIORITY.name,
        start,
        lambda run: _Update(run).work(known.answer, splits.answer, is_as_configured=is_as_configured.answer),
        max_seconds=start.config.settings.batch.max_cycle_seconds,
        lease_seconds=renewal_seconds(start.config),
        needs=[known, is_as_configured, splits],
    )


class _Update:
    """One run: quotes first, or the figures of finished days; with the calls that are left the splits, and bars."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._assets = run.config.priority_assets
        self._entitlements = run.entitlements
        self._not_due: list[Asset] = []
        self._unchanged: list[Asset] = []

    def work(self, known: Sequence[Candidate], splits_state: SplitsState, *, is_as_configured: bool) -> RunResult:
        """Update the assets, of which this is known as the run begins."""
        run, config, settings = self._run, self._run.config, self._run.config.settings
        calls = self._plan(known)
        log.info(
            "assets due: %d; calls planned on plan %s (%s): %d",
            len(self._assets) - len(self._not_due),
            config.plan,
            self._entitlements.mode,
            len(calls),
        )
        if calls:
            run.claim_source()
        if not is_as_configured:
            catalogue.sync_with_config(run.connection, config.assets)
        requests = Calls(run, Lane.PRIORITY)
        work = CatalogueBars(run, symbols=[asset.symbol for asset in self._assets])
        bars = Bars(run, requests, work)
        splits = Splits(run, splits_state, applied=work.look_again)
        if calls or splits.is_ready() or work.has_work():
            run.claim_source()
            requests.warm_up()
        no_call_after = time.monotonic() + settings.batch.max_cycle_seconds
        max_calls = None if config.calls_per_window is None else len(self._assets)
        quotes = QuoteWork(run, requests, self._replan, no_call_after=no_call_after, max_calls=max_calls)
        first = Worker(run, requests, [quotes], begin_until=no_call_after)
        if (barred := self._entitlements.barred) is not None:
            quotes.fail([asset for call in calls for asset in call.assets], barred.kind, barred.error)
        else:
            quotes.plan(
                [
                    self._entitlements.widened(call)
                    for call in calls
                    if not planner.looks_back(call, self._entitlements.days)
                ]
            )
            first.work()
            self._look_back(quotes, calls)
            first.work()
        self._look_at_markets(quotes, requests, no_call_after)
        if not self._ends_run():
            Worker(
                run,
                requests,
                [splits, bars],
                begin_until=no_call_after,
                may_begin=lambda: requests.left(max_calls) >= 1,
            ).work()
        deferred = work.waiting()
        known = self._known_by_now(requests, known)
        run.leaves.append(self._foresee(requests.limiter, known))
        return self._result(bars, deferred, self._missed(known))

    def _plan(self, known: Sequence[Candidate]) -> list[Call]:
        plan = self._entitlements.plan(known, self._run.clock.started_at)
        self._not_due += plan.not_due
        self._unchanged += plan.unchanged
        return list(plan.calls)

    def _replan(self, calls: Sequence[Call]) -> list[Call]:
        """Plan the priority assets of these calls anew."""
        covered = {symbol for call in calls for symbol in call.symbols}
        assets = [one for one in self._assets if one.symbol in covered]
        return [self._entitlements.widened(call) for call in self._plan(self._known(assets))]

    def _known(self, assets: Sequence[Asset]) -> list[Candidate]:
        return self._run.connection.answer(catalogue.candidates(assets))

    def _known_by_now(self, requests: Calls, known: Sequence[Candidate]) -> Sequence[Candidate]:
        """Return what is known of the assets after all calls: of live prices, all that matters is that they came."""
        if self._entitlements.mode is Mode.LIVE:
            return known
        asked = catalogue.candidates(self._assets)
        requests.keep_lease(asked)
        return asked.answer

    def _ends_run(self) -> bool:
        return any(POLICIES[failure.kind].ends_run for failure in self._run.stored.failed)

    def _look_back(self, quotes: QuoteWork, planned: Sequence[Call]) -> None:
        """Ask for the day before of what has no price and may have rested on the newest one, with a call that is left.

        It tells gold on a holiday of its own from a ticker that does not exist.
        """
        if self._entitlements.mode is Mode.LIVE or self._ends_run():
            return
        if any(failure.kind is FailureKind.MISSING for failure in self._run.stored.failed):
            planned = self._plan(self._known(self._assets))
        calls = [call for call in planned if planner.looks_back(call, self._entitlements.days)]
        if len(calls) <= quotes.calls_left:
            quotes.plan([self._entitlements.widened(call) for call in calls])

    def _missed(self, known: Sequence[Candidate]) -> list[Failure] | None:
        """Return what the finished days lack and should have, whoever asked for them; None: prices are live."""
        if self._entitlements.mode is Mode.LIVE:
            return None
        missed = [one for one in known if planner.is_missed(one, self._run.clock.now())]
        return [Failure(one.asset.symbol, FailureKind.MISSING, one.missing) for one in missed]

    def _look_at_markets(self, quotes: QuoteWork, requests: Calls, no_call_after: float) -> None:
        """Ask whether a market rests of which no asset has a price, at most hourly: a holiday is no failure."""
        if self._entitlements.mode is Mode.END_OF_DAY:
            return
        stored = self._run.stored
        failed = {failure.symbol: failure.kind for failure in stored.failed}
        now = self._run.clock.now()
        trading = [one for one in self._assets if market_hours.is_open(market_hours.market_of(one), now)]
        silent = {
            market
            for market in AssetType
            if (own := [asset for asset in trading if asset.asset_type is market])
            and all(failed.get(asset.symbol) in WITHOUT_PRICE for asset in own)
        }
        if not silent or not self._entitlements.may_ask_status() or quotes.calls_left < 1:
            return
        markets: dict[AssetType, bool] = {}
        try:
            markets = requests.ask(endpoints.markets_open(), max_wait_seconds=no_call_after - time.monotonic())
        except CallError as error:
            log.info("the market's status is not known: %s", error)
        self._entitlements.note_markets(markets)
        rest = [one for one in trading if one.asset_type in silent & self._entitlements.closed]
        log.info("the vendor says that the market rests: %s", ", ".join(asset.symbol for asset in rest) or "none")
        if rest:
            symbols = {asset.symbol for asset in rest}
            stored.failed[:] = [one for one in stored.failed if one.symbol not in symbols]
            quotes.rested(rest)

    def _foresee(self, limiter: RateLimiter, known: Sequence[Candidate]) -> Query[int]:
        """Keep slots for the next run: other work leaves it those that it is going to need."""
        run, batch = self._run, self._run.config.settings.batch
        every = RUN_PRIORITY.every(batch)
        due = planner.next_due(run.clock.started_at, every)
        served = [replace(candidate, served_at=run.clock.started_at) for candidate in known]
        calls = self._entitlements.plan(served, due).calls
        bars = len(self._assets) if calls and Wanted(self._entitlements).enabled else 0
        return limiter.foreseeing(
            calls=min(len(calls) + bars, len(self._assets)),
            due=due,
            every_seconds=every.total_seconds(),
            grace_seconds=run.config.settings.rate_limiting.reservation_grace_seconds,
        )

    def _result(
        self, bars: Bars[CatalogueBars], deferred: Sequence[str], missed: Sequence[Failure] | None
    ) -> RunResult:
        run, own = self._run, [asset.symbol for asset in self._assets]
        stored = run.stored
        # A call for a whole market serves many others, too.
        own_failures = [failure for failure in stored.failed if failure.symbol in own]
        failed, known = tuple(own_failures), {*stored.unchanged, *(asset.symbol for asset in self._unchanged)}
        if missed is not None:
            # That one day lacks an asset says little: it may not have traded then, or have come with the day before.
            failed = (*(one for one in failed if one.kind is not FailureKind.MISSING), *missed)
            known.update(one.symbol for one in own_failures)
        known -= {one.symbol for one in failed}
        strangers = [one for one in stored.failed if one.symbol not in {*own, *stored.updated, *stored.unchanged}]
        updated = [symbol for symbol in own if symbol in stored.updated]
        unchanged = [symbol for symbol in own if symbol in known and symbol not in updated]
        kinds = [*(failure.kind for failure in failed), *([bars.ended_by.kind] if bars.ended_by else [])]
        return run.result(
            kinds,
            anything_stored=bool(updated or unchanged),
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            deferred=tuple(deferred),
            not_due=tuple(asset.symbol for asset in self._not_due),
            failed=failed,
            others_updated=len(set(stored.updated) - set(own)),
            bars=bars.result,
            newer_at=self._entitlements.newer_at({asset.asset_type for asset in self._assets}),
            ended_by=bars.ended_by,
            warnings=(
                *run.platform_warnings(),
                *bars.work.warnings(),
                *([self._entitlements.contradiction] if self._entitlements.contradiction else []),
                *unknown_tickers(self._entitlements.unknown(strangers)),
            ),
        )
