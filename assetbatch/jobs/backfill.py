"""`backfill`: bars of the past, page by page. What is stored is not asked for again, so it may be broken off."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import bars as core
from assetbatch import market_hours
from assetbatch.database import catalogue
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.leases import Lease
from assetbatch.database.rate_limit import Lane
from assetbatch.database.setup import schema
from assetbatch.errors import EXIT_BUSY
from assetbatch.jobs.bar_spans import SpanBars
from assetbatch.jobs.bars import MOST_AT_ONCE, Bars, total
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.jobs.run import perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.wanted import Wanted
from assetbatch.jobs.worker import Worker
from assetbatch.model import RunStatus, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.bars.absences import Silence
    from assetbatch.database.connection import Connection
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import Asset, AssetType, Failure, RunResult

JOB = "backfill"
# How long another backfill is waited for.
WAIT_FOR_ANOTHER_SECONDS = 60.0
# What a run may take beyond what it foresees: answers and bars, which beside a limit are waited for one after another,
# retries, others that use the budget.
CALL_SECONDS = 1.0
PATIENCE = 2
SPARE_SECONDS = 600.0


class Foreseen(Struct, frozen=True):
    """What a backfill is going to ask for: a span for each symbol, so many calls for it, so long at the least.

    `wanted` has the spans of all that it was asked for; `silences` is what of them it is not going to ask for yet,
    since the vendor has just said that it has nothing, `unknown` what it does not know at all.
    """

    spans: Mapping[str, Span]
    assets: Mapping[str, Asset]
    calls_for: Mapping[str, int]
    seconds: float
    wanted: Mapping[str, Span]
    silences: Sequence[Silence]
    unknown: Sequence[Failure]

    @property
    def calls(self) -> int:
        """All calls together."""
        return sum(self.calls_for.values())


class Progress(Struct, frozen=True):
    """How far a backfill is: whose bars come next, how many are stored, and what is left of what was foreseen."""

    symbol: str
    bars: int
    calls: int
    calls_left: int
    seconds_left: float


def seconds_for(calls: int, config: Config, types: Collection[AssetType], *, exempt: int = 0) -> float:
    """Return how long so many calls for assets of these types take at the least, on the configured budget.

    So many of them are `exempt`, being of types without limit.
    """
    limit, a_second = config.calls_per_window(types), config.settings.provider.max_calls_per_second or 100.0
    if limit is None:
        return calls / a_second
    return max(max(0, -(-(calls - exempt) // limit) - 1) * config.window_seconds, exempt / a_second)


def longest_seconds(foreseen: Foreseen) -> float:
    """Return when to end at the latest."""
    return (foreseen.seconds + foreseen.calls * CALL_SECONDS) * PATIENCE + SPARE_SECONDS


def foresee(
    config: Config,
    connection: Connection,
    *,
    symbols: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    refetch: bool,
) -> Foreseen:
    """Return what a backfill of these assets (None: all) is going to ask for. Makes no call.

    `since` None: as far back as bars are wanted anyway; `until` None: up to now.
    """
    clock = Clock(schema.check(connection))
    entitlements = Entitlements(connection, config, clock)
    wanted = Wanted(entitlements)
    assets = {asset.symbol: asset for asset in catalogue.enabled_assets(connection, symbols)}
    unknown = catalogue.unknown_tickers(connection, symbols)
    spans: dict[str, Span] = {}
    all_wanted: dict[str, Span] = {}
    calls: dict[str, int] = {}
    left_out = {one.symbol for one in unknown}
    for asset in assets.values():
        if asset.symbol in left_out:
            continue
        reach = wanted.until(market_hours.market_of(asset))
        if reach is None:
            continue
        span = Span(wanted.since(asset.asset_type, since), min(core.floor(until), reach) if until else reach)
        all_wanted[asset.symbol] = span
        missing = [span] if span.since < span.until else []
        if not refetch:
            # Who asks for it may have mended what was refused: nothing is put off.
            missing = wanted.holes(
                asset.symbol, asset.asset_type, span.since, span.until, held=timedelta(0), at_once=True
            )
        if missing:
            spans[asset.symbol] = span
            calls[asset.symbol] = core.calls_for(missing, market_hours.market_of(asset))
    kinds = {symbol: assets[symbol].asset_type for symbol in spans}
    types = set(kinds.values())
    unlimited = _unlimited(config, types)
    exempt = sum(number for symbol, number in calls.items() if kinds[symbol] in unlimited)
    return Foreseen(
        spans,
        assets,
        calls,
        seconds_for(sum(calls.values()), config, types, exempt=exempt),
        all_wanted,
        [] if refetch else bar_absences.silences(connection, all_wanted, now=clock.now()),
        unknown,
    )


def _unlimited(config: Config, types: Collection[AssetType]) -> set[AssetType]:
    """Return those of these types whose calls are without limit."""
    return {one for one in types if config.calls_per_window([one]) is None}


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
    start.config.require_api_key()
    limit = longest_seconds(foreseen)

    def work(run: Run) -> RunResult:
        run.claim_source()
        kinds = {symbol: foreseen.assets[symbol].asset_type for symbol in foreseen.spans}
        calls = Calls(run, Lane.QUEUE, clients=MOST_AT_ONCE if run.rules.max_calls is None else 1)
        known = bar_absences.release(run.connection, list(foreseen.spans), now=run.clock.now())
        work = SpanBars(run, calls, foreseen.spans, kinds, refetch=refetch, known_refused=known)
        began = time.monotonic()
        # Once: of thousands of assets it would take longer, before each call, than the call does.
        types = set(kinds.values())
        unlimited = _unlimited(run.config, types)

        def tell() -> None:
            made = run.cost.calls_used
            left, todo = max(1, foreseen.calls - made), work.todo
            exempt = sum(foreseen.calls_for[symbol] for symbol in todo if kinds[symbol] in unlimited)
            seconds = seconds_for(left, run.config, types, exempt=min(left, exempt))
            seconds = max(foreseen.seconds - (time.monotonic() - began), seconds)
            progress(Progress(todo[0], bars.stored, made, left, seconds))

        bars = Bars(run, calls, work, progress=tell)
        calls.warm_up()
        Worker(run, calls, [bars], begin_until=began + limit).work()
        return _result(run, bars, foreseen)

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
            return run.result(calls_foreseen=foreseen.calls)
        holder = Lease(run.connection, JOB).holder()
        words = (
            f"another backfill{f' ({holder})' if holder else ''} was still going after {wait_seconds:g} s, and nothing"
            " was fetched: it goes on; start this one again later, or let it wait longer with --wait SECONDS"
        )
        result = run.result(calls_foreseen=foreseen.calls, warnings=[words])
        return replace(result, status=RunStatus.SKIPPED, exit_code=EXIT_BUSY)

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


def _result(run: Run, bars: Bars[SpanBars], foreseen: Foreseen) -> RunResult:
    work = bars.work
    kinds = [one.kind for one in work.given_up]
    if work.ended_by is not None:
        kinds.append(work.ended_by.kind)
    return run.result(
        kinds,
        anything_stored=bool(bars.assets),
        updated=tuple(sorted(bars.assets)),
        deferred=tuple(sorted(work.todo, key=list(foreseen.spans).index)),
        failed=tuple(work.given_up),
        bars=total([bars]),
        calls_foreseen=foreseen.calls,
        changed=tuple(work.changed),
        ended_by=work.ended_by,
        warnings=_warnings(run, foreseen, work.unknown),
    )


def _warnings(run: Run, foreseen: Foreseen, unknown: Sequence[Failure]) -> tuple[str, ...]:
    silences = bar_absences.silences(run.connection, foreseen.wanted, now=run.clock.now())
    long = [one for one in silences if one.bars * core.LENGTH >= core.SILENT]
    words = [f"{bar_absences.silence_sentence(long)}: start it again then, or leave it to drain-queue"] if long else []
    refused = bar_absences.sentences(run.connection.answer(bar_absences.refused(list(foreseen.spans))))
    return (*refused, *words, *unknown_tickers([*foreseen.unknown, *unknown]))
