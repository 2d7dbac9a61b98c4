"""`drain-queue`: what waits in the queue, in its order, for as long as there is something to do and a call to do it.

The list of splits and bars take the slots that the queue leaves.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database import catalogue, lives
from assetbatch.database.queue import items as queue
from assetbatch.database.rate_limit import Lane
from assetbatch.jobs.bar_catalogue import CatalogueBars
from assetbatch.jobs.bars import Bars, total
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.claims import Claims
from assetbatch.jobs.holidays import Holidays
from assetbatch.jobs.lives import LifeWork
from assetbatch.jobs.queue_work import QueueWork
from assetbatch.jobs.run import perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.splits import Splits
from assetbatch.jobs.worker import Worker
from assetbatch.markets import TRAITS
from assetbatch.schedule import DRAIN_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import RunResult, Trouble

log = logging.getLogger(__name__)

# Calls begin until so long before the run's end.
LAST_CALL_SECONDS = 2.0


class Bounds(Struct, frozen=True):
    """What a run may do at most."""

    max_seconds: float
    max_items: int | None = None


def drain_queue(
    start: Start,
    *,
    bounds: Bounds,
    shared: bool,
    reconnect: Callable[[], AbstractContextManager[Connection]],
    progress: Callable[[int, int], object] | None = None,
) -> RunResult:
    """Update queued assets until nothing is due or `bounds` are reached; `shared`: beside other runs of this job.

    `reconnect` opens another connection, to give back what is held when the first one is lost for good. `progress` is
    told how many items are done, and how many waited when it began. Failures of items are in the result. Raises
    ConfigurationError without a key, SourceMismatchError on a database of another source.
    """
    api_key = start.config.require_api_key()
    begin_until = time.monotonic() + bounds.max_seconds - LAST_CALL_SECONDS
    is_as_configured = catalogue.is_as_configured(start.config.assets)
    splits_state = Splits.state(start.started_at)
    brought_back = queue.bringing_back(retries=start.config.settings.queue.retry_max_attempts)
    due_lives = lives.due(start.started_at)

    def work(run: Run) -> RunResult:
        config, connection = run.config, run.connection
        claims = Claims(config, connection, api_key.reveal(), run_id=run.id)
        claims.brought_back(brought_back.answer)
        groups = run.entitlements.groups
        is_limited = all(config.limit_of(TRAITS[one].product) is not None for one in run.entitlements.types)
        calls = Calls(run, Lane.QUEUE, clients=1 if is_limited else config.settings.provider.concurrency)
        bars = [Bars(run, calls, CatalogueBars(run, types=group)) for group in groups]
        splits = Splits(run, splits_state.answer, applied=[one.work.look_again for one in bars], waits=True)
        looks = LifeWork(run, calls, due_lives.answer)
        lists = [Holidays(run), splits, looks]
        size = 0

        def tell() -> None:
            if progress is not None:
                progress(len(run.stored.updated) + len(run.stored.unchanged), size)

        items = [
            QueueWork(
                run,
                calls,
                run.entitlements,
                claims,
                types=group,
                max_items=bounds.max_items,
                served_anew=own.work.look_again,
                progress=tell,
            )
            for group, own in zip(groups, bars, strict=True)
        ]
        worker = Worker(
            run,
            calls,
            [*items, *lists, *bars],
            begin_until=begin_until,
            may_begin=lambda: items[0].items_left > 0,
            reconnect=reconnect,
        )
        is_waiting = any(one.is_waiting(brought_back.answer) for one in items)
        if is_waiting or any(one.is_ready() for one in (*lists, *bars)):
            run.claim_source()
            if not is_as_configured.answer:
                catalogue.sync_with_config(connection, config.assets)
            if progress is not None:
                size = queue.size(connection)
            calls.warm_up()
            worker.work()
        return _result(run, claims, bars, worker.ended_by, looks.warnings())

    lease_seconds = None if shared else renewal_seconds(start.config)
    return perform(
        DRAIN_QUEUE.name,
        start,
        work,
        max_seconds=bounds.max_seconds,
        lease_seconds=lease_seconds,
        needs=[brought_back, is_as_configured, splits_state, due_lives],
        looks_at_queue=True,
    )


def _result(
    run: Run,
    claims: Claims,
    bars: Sequence[Bars[CatalogueBars]],
    ended_by: Trouble | None,
    lives_told: tuple[str, ...],
) -> RunResult:
    stored, dead, entitlements = run.stored, claims.dead, run.entitlements
    warnings = run.platform_warnings() + bars[0].work.warnings()
    of_bars = total(bars)
    if stored.deleted:
        warnings += (f"dropped, having no row in trading.symbols any more: {', '.join(stored.deleted)}",)
    warnings += unknown_tickers(entitlements.unknown(stored.failed))
    warnings += lives_told
    if not run.config.priority_assets and entitlements.contradiction:  # else run-priority tells it
        warnings += (entitlements.contradiction,)
    return run.result(
        [*([ended_by.kind] if ended_by else []), *(one.kind for one in dead)],
        anything_stored=bool(stored.updated or stored.unchanged or of_bars.assets),
        updated=tuple(stored.updated),
        unchanged=tuple(stored.unchanged),
        failed=tuple(dead),
        requeued=tuple(claims.requeued),
        dead=tuple(failure.symbol for failure in dead),
        bars=of_bars,
        newer_at=entitlements.newer_at(entitlements.types),
        ended_by=ended_by,
        warnings=warnings,
    )
