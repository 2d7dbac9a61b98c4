"""`run-priority`: the priority assets, in order, before anything else may spend the budget."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from assetbatch import market_hours, planner, plans
from assetbatch.database import catalogue, lives
from assetbatch.database.rate_limit import Lane
from assetbatch.failures import POLICIES, WITHOUT_PRICE, CallError, FailureKind
from assetbatch.jobs.bar_catalogue import CatalogueBars
from assetbatch.jobs.bars import Bars, total
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.holidays import Holidays
from assetbatch.jobs.lives import LifeWork
from assetbatch.jobs.quote_work import QuoteWork
from assetbatch.jobs.run import perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.splits import Splits
from assetbatch.jobs.wanted import Wanted
from assetbatch.jobs.worker import Source, Worker
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Call, Failure
from assetbatch.plans import Mode
from assetbatch.provider import endpoints
from assetbatch.provider.client import get_ready
from assetbatch.schedule import RUN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.config import Config
    from assetbatch.database.lives import Life
    from assetbatch.database.query import Query
    from assetbatch.database.rate_limit import RateLimiter
    from assetbatch.database.splits import SplitsState
    from assetbatch.jobs.run import Run, Start
    from assetbatch.jobs.worker import Source
    from assetbatch.model import Asset, RunResult
    from assetbatch.planner import Candidate

log = logging.getLogger(__name__)


def run_priority(start: Start) -> RunResult:
    """Update the priority assets that are due; store and announce what came.

    Failures of assets are in the result. Raises ConfigurationError without a key, SourceMismatchError on a database of
    another source.
    """
    start.config.require_api_key()
    if _expects_calls(start.config, start.started_at or datetime.now(UTC)):
        get_ready()
    known = catalogue.candidates(start.config.priority_assets)
    is_as_configured = catalogue.is_as_configured(start.config.assets)
    splits, due_lives = Splits.state(start.started_at), lives.due(start.started_at)
    return perform(
        RUN_PRIORITY.name,
        start,
        lambda run: _Update(run).work(
            known.answer, splits.answer, due_lives.answer, is_as_configured=is_as_configured.answer
        ),
        max_seconds=start.config.settings.batch.max_cycle_seconds,
        lease_seconds=renewal_seconds(start.config),
        needs=[known, is_as_configured, splits, due_lives],
    )


def _expects_calls(config: Config, now: datetime) -> bool:
    """Return whether a run most likely makes a call: with live prices each does, while any of their markets trades.

    Then what a call needs is imported beside the first questions to the database; for nothing that would be a sixth of
    the run's work.
    """
    modes = plans.modes(config.plans, config.settings.provider.mode, {}, now)
    return any(
        modes[one.asset_type] is Mode.LIVE and market_hours.is_open(market_hours.market_of(one), now)
        for one in config.priority_assets
    )


def _may_begin(requests: Calls, source: Source, max_calls: int | None) -> bool:
    return not requests.takes_slot(source.types) or requests.left(max_calls) >= 1


class _Update:
    """One run: quotes first, or the figures of finished days; with the calls that are left the splits, and bars.

    At last it is asked what became of tickers that seem to be gone.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._assets = run.config.priority_assets
        self._entitlements = run.entitlements
        self._not_due: list[Asset] = []
        self._unchanged: list[Asset] = []

    def work(
        self,
        known: Sequence[Candidate],
        splits_state: SplitsState,
        due_lives: Sequence[Life],
        *,
        is_as_configured: bool,
    ) -> RunResult:
        """Update the assets, of which this is known as the run begins."""
        run, config, settings = self._run, self._run.config, self._run.config.settings
        calls = self._plan(known)
        log.info(
            "assets due: %d; calls planned on plan %s (%s): %d",
            len(self._assets) - len(self._not_due),
            config.plan_words,
            self._entitlements.mode,
            len(calls),
        )
        if calls:
            run.claim_source()
        if not is_as_configured:
            catalogue.sync_with_config(run.connection, config.assets)
        requests = Calls(run, Lane.PRIORITY)
        symbols = [asset.symbol for asset in self._assets]
        works = [CatalogueBars(run, types=group, symbols=symbols) for group in self._entitlements.groups]
        bars = [Bars(run, requests, work) for work in works]
        splits = Splits(run, splits_state, applied=[work.look_again for work in works], waits=False)
        lists, looks = [Holidays(run), splits], LifeWork(run, requests, due_lives, waits=False)
        if calls or due_lives or any(work.has_work() for work in works) or any(one.is_ready() for one in lists):
            run.claim_source()
            requests.warm_up()
        no_call_after = time.monotonic() + settings.batch.max_cycle_seconds
        max_calls = None if run.rules.max_calls is None else len(self._assets)
        quotes = QuoteWork(run, requests, self._replan, no_call_after=no_call_after, max_calls=max_calls)
        first = Worker(run, requests, [quotes], begin_until=no_call_after)
        self._quotes = quotes
        quotes.plan(self._allowed([call for call in calls if not planner.looks_back(call, self._entitlements.days)]))
        first.work()
        self._look_back(quotes, calls)
        first.work()
        self._look_at_markets(quotes, requests, no_call_after)
        for source in (*lists, *bars, looks):
            if not self._ends_run():
                Worker(
                    run,
                    requests,
                    [source],
                    begin_until=no_call_after,
                    may_begin=partial(_may_begin, requests, source, max_calls),
                ).work()
        deferred = [symbol for work in works for symbol in work.waiting()]
        known = self._known_by_now(requests, known)
        run.leaves.append(self._foresee(requests.limiter, known))
        return self._result(bars, deferred, self._missed(known), looks.warnings())

    def _plan(self, known: Sequence[Candidate]) -> list[Call]:
        plan = self._entitlements.plan(known, self._run.clock.started_at)
        self._not_due += plan.not_due
        self._unchanged += plan.unchanged
        return list(plan.calls)

    def _replan(self, calls: Sequence[Call]) -> list[Call]:
        """Plan the priority assets of these calls anew."""
        covered = {symbol for call in calls for symbol in call.symbols}
        assets = [one for one in self._assets if one.symbol in covered]
        return self._allowed(self._plan(self._known(assets)))

    def _allowed(self, calls: Sequence[Call]) -> list[Call]:
        """Return those calls that the key may make, each for all that it serves; let the assets of the others fail."""
        allowed = []
        for call in calls:
            barred = next(filter(None, map(self._entitlements.barred, call.types)), None)
            if barred is None:
                allowed.append(self._entitlements.widened(call))
            else:
                self._quotes.fail(call.assets, barred.kind, barred.error)
        return allowed

    def _known(self, assets: Sequence[Asset]) -> list[Candidate]:
        return self._run.connection.answer(catalogue.candidates(assets))

    @property
    def _has_daily(self) -> bool:
        """Whether the prices of any of the assets are those of finished days."""
        return not self._entitlements.daily_types.isdisjoint(asset.asset_type for asset in self._assets)

    def _known_by_now(self, requests: Calls, known: Sequence[Candidate]) -> Sequence[Candidate]:
        """Return what is known of the assets after all calls: of live prices, all that matters is that they came."""
        if not self._has_daily:
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
        if self._ends_run() or not self._has_daily:
            return
        if any(failure.kind is FailureKind.MISSING for failure in self._run.stored.failed):
            planned = self._plan(self._known(self._assets))
        calls = [call for call in planned if planner.looks_back(call, self._entitlements.days)]
        if calls and len(calls) <= quotes.calls_left:
            quotes.plan(self._allowed(calls))

    def _missed(self, known: Sequence[Candidate]) -> list[Failure]:
        """Return what the finished days lack and should have, whoever asked for them."""
        daily, now = self._entitlements.daily_types, self._run.clock.now()
        missed = [one for one in known if one.asset.asset_type in daily and planner.is_missed(one, now)]
        return [Failure(one.asset.symbol, FailureKind.MISSING, one.missing) for one in missed]

    def _look_at_markets(self, quotes: QuoteWork, requests: Calls, no_call_after: float) -> None:
        """Ask whether a market rests of which no asset has a price, at most hourly: a holiday is no failure."""
        live = self._entitlements.types - self._entitlements.daily_types
        stored = self._run.stored
        failed = {failure.symbol: failure.kind for failure in stored.failed}
        now = self._run.clock.now()
        trading = [one for one in self._assets if market_hours.is_open(market_hours.market_of(one), now)]
        silent = {
            market
            for market in live
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
        limited = [asset for asset in self._assets if limiter.takes_slot([TRAITS[asset.asset_type].product])]
        number = sum(limiter.takes_slot({TRAITS[one].product for one in call.types}) for call in calls)
        wanted = Wanted(self._entitlements)
        bars = sum(wanted.asks(asset.asset_type) for asset in limited) if number else 0
        return limiter.foreseeing(
            calls=min(number + bars, len(limited)),
            due=due,
            every_seconds=every.total_seconds(),
            grace_seconds=run.config.settings.rate_limiting.reservation_grace_seconds,
        )

    def _result(
        self,
        bars: Sequence[Bars[CatalogueBars]],
        deferred: Sequence[str],
        missed: Sequence[Failure],
        lives_told: Sequence[str],
    ) -> RunResult:
        run, own = self._run, [asset.symbol for asset in self._assets]
        stored = run.stored
        # A call for a whole market serves many others, too.
        own_failures = [failure for failure in stored.failed if failure.symbol in own]
        known = {*stored.unchanged, *(asset.symbol for asset in self._unchanged)}
        # That one day lacks an asset says little: it may not have traded then, or have come with the day before.
        types = self._entitlements.daily_types
        daily = {one.symbol for one in self._assets if one.asset_type in types}
        lacked = [one for one in own_failures if one.kind is FailureKind.MISSING and one.symbol in daily]
        failed = (*(one for one in own_failures if one not in lacked), *missed)
        known.update(one.symbol for one in lacked)
        known -= {one.symbol for one in failed}
        served = {*own, *stored.updated, *stored.unchanged}
        strangers = [one for one in stored.failed if one.symbol not in served]
        updated = [symbol for symbol in own if symbol in stored.updated]
        unchanged = [symbol for symbol in own if symbol in known and symbol not in updated]
        ended_by = next((one.ended_by for one in bars if one.ended_by), None)
        kinds = [*(failure.kind for failure in failed), *([ended_by.kind] if ended_by else [])]
        return run.result(
            kinds,
            anything_stored=bool(updated or unchanged),
            updated=tuple(updated),
            unchanged=tuple(unchanged),
            deferred=tuple(deferred),
            not_due=tuple(asset.symbol for asset in self._not_due),
            failed=failed,
            others_updated=len(set(stored.updated) - set(own)),
            bars=total(bars),
            newer_at=self._entitlements.newer_at({asset.asset_type for asset in self._assets}),
            ended_by=ended_by,
            warnings=(
                *run.platform_warnings(),
                *(warning for one in bars[:1] for warning in one.work.warnings()),
                *([self._entitlements.contradiction] if self._entitlements.contradiction else []),
                *unknown_tickers(self._entitlements.unknown(strangers)),
                *lives_told,
            ),
        )
