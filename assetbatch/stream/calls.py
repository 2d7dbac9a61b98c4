"""What a stream asks for by calls, beside it: what pairs are called, figures of days, and what was missed in a gap.

In a thread and on a database connection of its own, so that no answer keeps prices from being stored. It goes the way
of all calls: slots, records, the same storing.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import psycopg
from msgspec.structs import replace

from assetbatch import planner, threads
from assetbatch.database import catalogue, streams
from assetbatch.database.bars import absences
from assetbatch.database.prices import Stored
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import AssetbatchError, DatabaseUnavailableError, Interrupted
from assetbatch.events import Announcer
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs.bar_spans import SpanBars
from assetbatch.jobs.bars import MOST_AT_ONCE, Bars
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.clock import Clock, Stop
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.jobs.quote_work import QuoteWork
from assetbatch.jobs.run import Cost
from assetbatch.jobs.worker import Worker
from assetbatch.stream import pairs
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.run import Run
    from assetbatch.model import Asset, Span

    Task = Callable[[Run], None]

log = logging.getLogger(__name__)

# A task begins no call after that; what it leaves is asked for the next time, or by the other jobs.
REFRESH_SECONDS = 120.0
GAP_SECONDS = 3600.0
# When to ask again what a pair is called: that the list has not, and that could not be asked.
NO_PAIR_SECONDS = 3600.0
AGAIN_SECONDS = 60.0
# Between two attempts at a gap that the database kept from being closed.
OUTAGE_SECONDS = 5.0


class BackgroundCalls:
    """The calls of a stream, one task after another; what fails is logged, and left to the jobs.

    Figures of days do not wait for gaps to be closed. `connect` opens a database connection for it. `known` tells, in
    any thread, which symbols had a row in the platform's table by now: one that it has deleted is not put there again.
    """

    def __init__(
        self,
        run: Run,
        connect: Callable[[], AbstractContextManager[Connection]],
        known: Callable[[], Collection[str]],
    ) -> None:
        # Its end is not that of the run.
        self._stop = Stop(lambda: Interrupted(signal.SIGTERM))
        self._run = replace(run, stop=self._stop, cost=Cost())
        self._connect = connect
        self._known = known
        self._urgent: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._gaps: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._has_task = threading.Event()
        self._thread = threading.Thread(target=self._work, name="stream calls", daemon=True)
        # By ticker, the monotonic time until which it is not asked for again.
        self._pairs_asked: dict[str, float] = {}
        self.pairless: frozenset[str] = frozenset()
        """Tickers of which the vendor's reference list has no pair."""
        self.has_asked_pairs = threading.Event()
        """Set once more is known of pairs."""
        self.stored: set[str] = set()
        """Symbols of which it has stored quotes."""
        self.refusal: CallError | None = None
        """What says that the key is wrong."""
        self.error: Exception | None = None
        """What nobody foresaw, and has ended it."""

    @property
    def cost(self) -> Cost:
        """What all its calls cost."""
        return self._run.cost

    def start(self) -> None:
        """Be ready for tasks. Raises NoThreadError."""
        threads.start(self._thread)

    def end(self, seconds: float) -> None:
        """Take no further task, and wait for the one that is going on, for so long."""
        self._stop.requested.set()
        self._has_task.set()
        self._thread.join(seconds)

    def name_pairs(self, assets: Sequence[Asset]) -> None:
        """Ask what the sides of these pairs are called, but for those that were asked for lately."""
        now = time.monotonic()
        missing = [asset for asset in assets if self._pairs_asked.get(asset.polygon_ticker, now) <= now]
        if missing:
            self._pairs_asked.update((asset.polygon_ticker, now + NO_PAIR_SECONDS) for asset in missing)
            self._add(self._urgent, partial(self._name_pairs, missing))

    def refresh(self, assets: Sequence[Asset]) -> None:
        """Ask for the quotes of these assets, and with them for the figures of their day."""
        self._add(self._urgent, partial(self._refresh, assets))

    def close_gap(self, spans: Mapping[str, Span]) -> None:
        """Ask for the bars of these spans, by symbol, once more."""
        self._add(self._gaps, partial(self._close_gap, spans, time.monotonic() + GAP_SECONDS))

    def _add(self, tasks: queue.SimpleQueue[Task], task: Task) -> None:
        tasks.put(task)
        self._has_task.set()

    def _work(self) -> None:
        try:
            while not self._stop.requested.is_set():
                self._has_task.wait()
                self._has_task.clear()
                while (tasks := self._gaps if self._urgent.empty() else self._urgent) and not tasks.empty():
                    self._stop.check()
                    self._do(tasks.get(), tasks)
        except Interrupted:
            return
        except Exception as error:  # noqa: BLE001 - raised again by who looks after it
            self.error = error

    def _do(self, task: Task, tasks: queue.SimpleQueue[Task]) -> None:
        try:
            with self._connect() as connection:
                clock = Clock(self._run.clock.now())
                run = replace(
                    self._run,
                    connection=connection,
                    clock=clock,
                    entitlements=Entitlements(connection, self._run.config, clock, run_id=self._run.id),
                    announcer=Announcer(self._run.config, connection, run_id=self._run.id),
                    stored=Stored(),
                    leaves=[],
                )
                task(run)
        except (AssetbatchError, psycopg.Error) as error:
            is_outage = isinstance(error, psycopg.Error | DatabaseUnavailableError)
            if is_outage and tasks is self._gaps:
                log.info("a gap waits for the database: %s", error)
                self._stop.pause(OUTAGE_SECONDS)
                self._add(tasks, task)
            else:
                log.warning("a call beside the stream came to nothing, and is left to the jobs: %s", error)

    def _name_pairs(self, missing: Sequence[Asset], run: Run) -> None:
        tickers = {asset.polygon_ticker for asset in missing}
        try:
            found = pairs.ask(run, missing)
        except BaseException as error:
            if isinstance(error, CallError) and error.kind is FailureKind.KEY_REFUSED:
                self.refusal = error
            self._pairs_asked.update(dict.fromkeys(tickers, time.monotonic() + AGAIN_SECONDS))
            raise
        self.refusal = None
        lacking = tickers - found
        if news := sorted(lacking - self.pairless):
            log.warning("not streamed, since the vendor's reference list has no such pairs: %s", ", ".join(news))
        self.pairless = self.pairless - found | lacking
        self.has_asked_pairs.set()

    def _refresh(self, assets: Sequence[Asset], run: Run) -> None:
        live = [asset for asset in assets if asset.asset_type not in run.entitlements.daily_types]
        if not live:
            return
        calls = Calls(run, Lane.QUEUE)
        end = time.monotonic() + REFRESH_SECONDS
        work = QuoteWork(run, calls, lambda _: [], no_call_after=end, max_calls=None, is_aside=True, known=self._known)
        work.plan(planner.snapshots(live, run.config.settings.provider.batch_size))
        Worker(run, calls, [work], begin_until=end, is_all=False).work()
        stored = [*run.stored.updated, *run.stored.unchanged]
        self.stored.update(stored)
        run.connection.answer(streams.complete(stored))

    def _close_gap(self, spans: Mapping[str, Span], until: float, run: Run) -> None:
        if time.monotonic() >= until:
            return
        calls = Calls(run, Lane.QUEUE, clients=MOST_AT_ONCE if run.rules.max_calls is None else 1)
        kinds = {asset.symbol: asset.asset_type for asset in catalogue.enabled_assets(run.connection, list(spans))}
        spans = {symbol: span for symbol, span in spans.items() if symbol in kinds}
        known = absences.release(run.connection, list(spans), now=run.clock.now())
        work = SpanBars(run, calls, spans, kinds, refetch=True, known_refused=known)
        bars = Bars(run, calls, work)
        Worker(run, calls, [bars], begin_until=until, may_begin=self._urgent.empty, is_all=False).work()
        left = {one: spans[one] for one in work.todo}
        if left and work.ended_by is None and not self._urgent.empty():
            # It has made way.
            self._add(self._gaps, partial(self._close_gap, left, until))
            return
        words = f"; {counted(len(left), 'asset')} left to the jobs" if left else ""
        log.info("the gap is closed: %d bars of %d assets%s", bars.stored, len(bars.assets), words)
