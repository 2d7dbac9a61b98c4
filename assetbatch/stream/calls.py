"""What a stream asks for by calls, beside it: daily figures every five minutes, and what was missed in a gap.

In a thread and on a database connection of its own, so that no answer keeps prices from being stored. It goes the way
of all calls: slots, records, the same storing.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from assetbatch import planner, threads
from assetbatch.database import streams
from assetbatch.database.bars import absences
from assetbatch.database.prices import Stored
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import AssetbatchError, Interrupted
from assetbatch.events import Announcer
from assetbatch.jobs.bar_spans import SpanBars
from assetbatch.jobs.bars import MOST_AT_ONCE, Bars
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.jobs.quote_work import QuoteWork
from assetbatch.jobs.run import Cost
from assetbatch.jobs.worker import Worker
from assetbatch.model import Access
from assetbatch.planner import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.run import Run
    from assetbatch.model import Asset, Span

log = logging.getLogger(__name__)

# A task begins no call after that; what it leaves is asked for the next time, or by the other jobs.
REFRESH_SECONDS = 120.0
GAP_SECONDS = 3600.0


class Aside:
    """The calls of a stream, one task after another; what fails is logged, and left to the jobs.

    `connect` opens a database connection for it.
    """

    def __init__(self, run: Run, api_key: str, connect: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._run = run
        self._api_key = api_key
        self._connect = connect
        self._tasks: queue.SimpleQueue[Callable[[Run], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="stream calls", daemon=True)
        self.cost = Cost()
        """What all its calls cost."""

    def start(self) -> None:
        """Be ready for tasks. Raises NoThreadError."""
        threads.start(self._thread)

    def end(self, seconds: float) -> None:
        """Take no further task, and wait for the one that is going on, for so long."""
        self._tasks.put(None)
        self._thread.join(seconds)

    def refresh(self, assets: Sequence[Asset]) -> None:
        """Ask for the quotes of these assets, and with them for the figures of their day."""
        self._tasks.put(lambda run: self._refresh(run, assets))

    def close_gap(self, spans: Mapping[str, Span]) -> None:
        """Ask for the bars of these spans, by symbol, once more."""
        self._tasks.put(lambda run: self._close_gap(run, spans))

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                with self._connect() as connection:
                    run = replace(
                        self._run,
                        connection=connection,
                        clock=Clock(self._run.clock.now()),
                        announcer=Announcer(self._run.config, connection, run_id=self._run.id),
                        cost=self.cost,
                        stored=Stored(),
                        leaves=[],
                    )
                    task(run)
                    run.announcer.announce(at_once=True)
            except Interrupted:
                return
            except (AssetbatchError, psycopg.Error) as error:
                log.warning("a call beside the stream came to nothing, and is left to the jobs: %s", error)

    def _entitlements(self, run: Run) -> Entitlements:
        return Entitlements(run.connection, run.config, run.clock, api_key=self._api_key, run_id=run.id)

    def _refresh(self, run: Run, assets: Sequence[Asset]) -> None:
        entitlements = self._entitlements(run)
        if entitlements.mode is not Mode.LIVE:
            return
        calls = Calls(run, self._api_key, Lane.QUEUE)
        end = time.monotonic() + REFRESH_SECONDS
        work = QuoteWork(run, calls, entitlements, lambda _: [], no_call_after=end, max_calls=None)
        work.plan(planner.snapshots(assets, run.config.settings.provider.batch_size))
        Worker(run, calls, [work], begin_until=end).work()
        run.connection.answer(streams.complete([*run.stored.updated, *run.stored.unchanged]))

    def _close_gap(self, run: Run, spans: Mapping[str, Span]) -> None:
        entitlements = self._entitlements(run)
        if not entitlements.may(Access.BARS):
            return
        calls = Calls(
            run, self._api_key, Lane.QUEUE, clients=MOST_AT_ONCE if run.config.calls_per_window is None else 1
        )
        known = absences.release(run.connection, list(spans), now=run.clock.now())
        work = SpanBars(run, calls, entitlements, spans, refetch=True, known_refused=known)
        end = time.monotonic() + GAP_SECONDS
        bars = Bars(run, calls, entitlements, work)
        Worker(run, calls, [bars], begin_until=end).work()
        log.info("the gap is closed: %d bars of %d assets", bars.stored, len(bars.assets))
