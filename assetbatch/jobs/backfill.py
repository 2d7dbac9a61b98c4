"""`backfill`: bars of the past, page by page. What is stored is not asked for again, so it may be broken off."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import bars as core
from assetbatch import market_hours
from assetbatch.database import bar_holes, bar_pages, catalogue, schema
from assetbatch.database.leases import Lease
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import EXIT_BUSY, KINDS, FailureKind
from assetbatch.jobs.bars import Bars
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.run import perform, renewal_seconds, skipped, unknown_tickers
from assetbatch.jobs.sight import Sight
from assetbatch.jobs.wanted import Wanted
from assetbatch.jobs.worker import Worker
from assetbatch.model import Access, ChangedBar, Failure, Span, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.bars import Harvest
    from assetbatch.config import Config
    from assetbatch.database.bar_holes import Silence
    from assetbatch.database.bar_pages import StoredBars
    from assetbatch.database.bars import Claimed
    from assetbatch.database.connection import Connection
    from assetbatch.errors import CallError
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import Asset, Bar, RunResult

log = logging.getLogger(__name__)

JOB = "backfill"
# How long another backfill is waited for.
WAIT_FOR_ANOTHER_SECONDS = 60.0
# How often an asset's page is asked for that fails.
ATTEMPTS = 3
# How long at a time to wait for another run that asks for bars of the same asset.
WAIT_SECONDS = 0.5
SPARE_WAIT_SECONDS = 10.0
# What a run may take beyond what it foresees: retries, others that use the budget.
PATIENCE = 2
SPARE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a backfill is going to ask for: a span for each symbol, so many calls, so long at the least.

    `wanted` has the spans of all that it was asked for; `silences` is what of them it is not going to ask for yet,
    since the vendor has just said that it has nothing, `unknown` what it does not know at all.
    """

    spans: Mapping[str, Span]
    assets: Mapping[str, Asset]
    calls: int
    seconds: float
    wanted: Mapping[str, Span]
    silences: Sequence[Silence]
    unknown: Sequence[Failure]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is: whose bars come next, how many are stored, and what is left of what was foreseen."""

    symbol: str
    bars: int
    calls: int
    calls_left: int
    seconds_left: float


def seconds_for(calls: int, config: Config) -> float:
    """Tell how long so many calls take at the least, on the configured budget."""
    limit = config.calls_per_window
    if limit is None:
        return calls / (config.settings.provider.max_calls_per_second or 100.0)
    return max(0, -(-calls // limit) - 1) * config.window_seconds


def longest_seconds(foreseen: Foreseen) -> float:
    """Tell when to end at the latest."""
    return foreseen.seconds * PATIENCE + SPARE_SECONDS


def foresee(
    config: Config,
    connection: Connection,
    *,
    symbols: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    refetch: bool,
) -> Foreseen:
    """Tell what a backfill of these assets (None: all) is going to ask for. Makes no call.

    `since` None: as far back as bars are wanted anyway; `until` None: up to now.
    """
    clock = Clock(schema.check(connection))
    api_key = config.api_key.reveal() if config.api_key else None
    sight = Sight(connection, config, clock, api_key=api_key)
    wanted = Wanted(config, sight, clock)
    assets = catalogue.enabled_assets(connection, symbols)
    unknown = catalogue.unknown_tickers(connection, symbols)
    spans: dict[str, Span] = {}
    all_wanted: dict[str, Span] = {}
    calls = 0
    left_out = {one.symbol for one in unknown}
    for asset in assets:
        if asset.symbol in left_out:
            continue
        reach = wanted.until(market_hours.market_of(asset))
        if reach is None:
            continue
        span = Span(wanted.since(since), min(core.floor(until), reach) if until else reach)
        all_wanted[asset.symbol] = span
        missing = [span]
        if not refetch:
            # Who asks for it may have mended what was refused: nothing is put off.
            missing = bar_holes.holes(
                connection,
                asset.symbol,
                span,
                now=clock.now(),
                told=sight.told,
                held=timedelta(0),
                at_once=True,
            )
        if span.since < span.until and missing:
            spans[asset.symbol] = span
            calls += core.calls_for(missing, market_hours.market_of(asset))
    return Foreseen(
        spans,
        {asset.symbol: asset for asset in assets},
        calls,
        seconds_for(calls, config),
        all_wanted,
        [] if refetch else bar_holes.silences(connection, all_wanted, now=clock.now()),
        unknown,
    )


def backfill(
    start: Start,
    foreseen: Foreseen,
    *,
    refetch: bool,
    wait_seconds: float = WAIT_FOR_ANOTHER_SECONDS,
    progress: Callable[[Progress], object] = lambda _: None,
) -> RunResult:
    """Ask for the bars that are missing within the spans that were foreseen; `refetch`: for those that are there, too.

    Another backfill that is going on is waited for, `wait_seconds` at most; this one is skipped, with EXIT_BUSY, when
    nothing was fetched then that it was asked for. `progress` is told before each call. Raises ConfigurationError
    without a key.
    """
    api_key = start.config.require_api_key().reveal()
    limit = longest_seconds(foreseen)

    def work(run: Run) -> RunResult:
        run.claim_source()
        sight = Sight(run.connection, run.config, run.clock, api_key=api_key, run_id=run.id)
        calls = Calls(run, api_key, Lane.QUEUE)
        known = bar_holes.release(run.connection, list(foreseen.spans), now=run.clock.now())
        began = time.monotonic()

        def tell(pages: _Pages) -> None:
            made = run.cost.calls_used
            left = max(1, foreseen.calls - made)
            seconds = max(foreseen.seconds - (time.monotonic() - began), seconds_for(left, run.config))
            progress(Progress(pages.todo[0], pages.stored, made, left, seconds))

        pages = _Pages(run, calls, sight, foreseen, refetch=refetch, known_refused=known, progress=tell)
        calls.warm_up()
        Worker(run, calls, [pages], begin_until=began + limit).work()
        return _result(run, pages, foreseen)

    def turned_away(run: Run) -> RunResult:
        spans = foreseen.spans.values()
        left = foresee(
            run.config,
            run.connection,
            symbols=list(foreseen.spans),
            since=min(span.since for span in spans),
            until=max(span.until for span in spans),
            refetch=refetch,
        )
        if not left.calls:
            return replace(run.result(), calls_foreseen=foreseen.calls)
        holder = Lease(run.connection, JOB).holder()
        words = (
            f"another backfill{f' ({holder})' if holder else ''} was still going after {wait_seconds:g} s, and nothing"
            " was fetched: it goes on; start this one again later, or let it wait longer with --wait SECONDS"
        )
        result = replace(skipped(run), exit_code=EXIT_BUSY, calls_foreseen=foreseen.calls)
        return replace(result, warnings=(*result.warnings, words))

    return perform(
        JOB,
        start,
        work,
        max_seconds=limit,
        # Who has nothing to ask for is in nobody's way.
        lease_seconds=renewal_seconds(start.config) if foreseen.calls else None,
        patience_seconds=wait_seconds,
        turned_away=turned_away,
    )


def _result(run: Run, pages: _Pages, foreseen: Foreseen) -> RunResult:
    kinds = [one.kind for one in pages.given_up]
    if pages.ended_by is not None:
        kinds.append(pages.ended_by.kind)
    result = run.result(kinds, anything_stored=bool(pages.assets))
    return replace(
        result,
        updated=tuple(sorted(pages.assets)),
        deferred=tuple(pages.todo),
        failed=tuple(pages.given_up),
        bars=pages.result,
        calls_foreseen=foreseen.calls,
        changed=tuple(pages.changed),
        ended_by=pages.ended_by,
        warnings=result.warnings + pages.warnings(),
    )


class _Pages(Bars):
    """The bars within some spans, asset by asset: the holes, or with `refetch` all of them once more."""

    _at_once = True

    def __init__(
        self,
        run: Run,
        calls: Calls,
        sight: Sight,
        foreseen: Foreseen,
        *,
        refetch: bool,
        known_refused: set[str],
        progress: Callable[[_Pages], object],
    ) -> None:
        super().__init__(run, calls, sight)
        self._progress = progress
        self._wanted_spans = foreseen.wanted
        self._unknown_ones = list(foreseen.unknown)
        self._spans = dict(foreseen.spans)
        self._refetch = refetch
        self._known_refused = known_refused
        self._tries = self._waits = 0
        self._before: Mapping[datetime, tuple[Bar, bool]] = {}
        self.todo = deque(foreseen.spans)
        self.given_up: list[Failure] = []
        self._changed: dict[tuple[str, datetime], ChangedBar] = {}

    @property
    def changed(self) -> list[ChangedBar]:
        """The bars that were stored otherwise before."""
        return list(self._changed.values())

    def warnings(self) -> tuple[str, ...]:
        connection = self._run.connection
        silences = bar_holes.silences(connection, self._wanted_spans, now=self._run.clock.now())
        long = [one for one in silences if one.bars * core.LENGTH >= core.SILENT]
        words = [f"{bar_holes.silence_sentence(long)}: start it again then, or leave it to drain-queue"] if long else []
        refused = bar_holes.sentences(connection.answer(bar_holes.refused(list(self._spans))))
        return (*refused, *words, *unknown_tickers(self._unknown_ones))

    def is_ready(self) -> bool:
        ready = super().is_ready()
        if ready:
            self._progress(self)
        return ready

    def has_work(self) -> bool:
        # Looked at before a slot is waited for: nobody waits a window long to learn that all is there.
        while self.todo and self._missing(self.todo[0]) is None:
            self.todo.popleft()
        if self.todo and self.ended_by is None:
            self.ended_by = self._sight.refusal(Access.BARS)
        return bool(self.todo) and self.ended_by is None

    def _next(self) -> tuple[str, bool]:
        return self.todo[0], False

    def _since(self, symbol: str) -> datetime:
        return self._spans[symbol].since

    def _taken(self, symbol: str) -> None:
        # A killed run holds on to it until its lease runs out; beyond that, the asset is gone.
        self._waits += 1
        if self._waits * WAIT_SECONDS > self._lease_seconds + SPARE_WAIT_SECONDS:
            log.warning("%s was removed from the catalogue", symbol)
            self._waits = 0
            self.todo.popleft()
            return
        log.info("another run asks for bars of %s", symbol)
        self._calls.pause(WAIT_SECONDS)

    def _unknown(self, symbol: str) -> None:
        self.todo.popleft()
        self._unknown_ones += catalogue.unknown_tickers(self._run.connection, [symbol])

    def _again(self, one: BarCall) -> None:
        del one  # it is still the first to do
        self._tries = self._waits = 0

    def _missing(self, symbol: str) -> Span | None:
        """Return what the next call for an asset is to bring; None: all is there that can be had."""
        span = self._spans[symbol]
        if self._refetch:
            found = span if span.since < span.until else None
        else:
            found = core.next_hole(self._holes(symbol, span.since, span.until))
        # A hole that its call has left as it was stays as it is.
        return None if self._tries == 0 and found == self._last_holes.get(symbol) else found

    def _hole(self, claimed: Claimed) -> Span | None:
        symbol = claimed.track.asset.symbol
        found = self._missing(symbol)
        if found is None:
            self.todo.popleft()
        else:
            self._last_holes[symbol] = found
        return found

    def _known(self, one: BarCall) -> Mapping[datetime, tuple[Bar, bool]]:
        if not self._refetch:
            return {}
        self._before = bar_pages.read(self._run.connection, one.claimed.track.asset.symbol, one.span)
        return self._before

    def _write(self, one: BarCall, found: Harvest, *, carefully: bool) -> StoredBars | None:
        symbol = one.claimed.track.asset.symbol
        stored = super()._write(one, found, carefully=carefully)
        if self._refetch and stored is not None:
            # Read again: the platform's columns may round, and its constraints refuse.
            for ts, (new, _) in bar_pages.read(self._run.connection, symbol, one.span).items():
                old, was_final = self._before.get(ts, (new, True))
                if was_final and old != new:
                    self._changed[symbol, ts] = ChangedBar(symbol, old, new)
            self._spans[symbol] = replace(self._spans[symbol], since=one.span.until if found.whole else found.until)
        return stored

    def _refused(self, one: BarCall, stored: StoredBars) -> None:
        del one  # it is the first to do
        symbol, kind = self.todo.popleft(), stored.kind or FailureKind.REFUSED_BY_DATABASE
        # What it refuses for good is a warning: else no backfill after the first one would end well.
        if kind is FailureKind.REFUSED_BY_DATABASE and symbol in self._known_refused:
            return
        self.given_up.append(Failure(symbol, kind, stored.refused[0][1]))
        if kind is FailureKind.REFUSED_BY_TABLE:
            self.ended_by = Trouble(kind, stored.refused[0][1])

    def _lost(self, one: BarCall) -> None:
        # Another run has it now, or nobody: who claims it anew finds out which.
        self._last_holes.pop(one.claimed.track.asset.symbol, None)

    def _skip(self, one: BarCall) -> Span:
        refused, symbol = super()._skip(one), one.claimed.track.asset.symbol
        self._spans[symbol] = replace(self._spans[symbol], since=refused.until)
        return refused

    def _failed(self, one: BarCall, error: CallError) -> None:
        super()._failed(one, error)
        if error.kind is FailureKind.TIMEFRAME or self.ended_by is not None:
            return
        self._tries += 1
        if not KINDS[error.kind].retry or self._tries >= ATTEMPTS:
            self._tries = 0
            self.given_up.append(Failure(self.todo.popleft(), error.kind, error.reason))
        else:
            self._calls.pause(WAIT_SECONDS * 2**self._tries)
