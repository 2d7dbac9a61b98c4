"""`drain-queue`: what waits in the queue, in its order, for as long as there is something to do and a call to do it.

Slot first, then the claim: an item is held only while a call works on it. Where the plan has no limit, several calls
are under way at once, each in a thread of its own; this one thread alone asks the database, and stores together what
came home together.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from assetbatch.database import catalogue, queue
from assetbatch.database.rate_limit import Lane, Outcome
from assetbatch.errors import AssetbatchError, CallError, FailureKind, Interrupted
from assetbatch.jobs.backlog import Backlog
from assetbatch.jobs.bar_catalogue import CatalogueBars
from assetbatch.jobs.bars import Bars
from assetbatch.jobs.claims import Claims
from assetbatch.jobs.flights import Flights
from assetbatch.jobs.run import new_client, perform, renewal_seconds, unknown_tickers
from assetbatch.jobs.settling import Settling
from assetbatch.jobs.sight import Sight
from assetbatch.model import AssetType, CallKind
from assetbatch.planner import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from assetbatch.database.connection import Connection
    from assetbatch.database.rate_limit import Slot
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import RunResult

log = logging.getLogger(__name__)

JOB = "drain-queue"
# Calls begin until so long before the run's end.
LAST_CALL_SECONDS = 2.0
# How long at most to wait for an answer before leases are looked after.
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
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

    `reconnect` opens another connection, to give back what is held when the first one broke. `progress` is told how
    many items are done, and how many waited when it began. Failures of items are in the result. Raises
    ConfigurationError without a key, SourceMismatchError on a database of another source.
    """
    api_key = start.config.require_api_key().reveal()
    begin_until = time.monotonic() + bounds.max_seconds - LAST_CALL_SECONDS

    def work(run: Run) -> RunResult:
        claims = Claims(run.config, run.connection, api_key, reconnect, run_id=run.id)
        drain = Drain(run, api_key, claims, begin_until=begin_until, max_items=bounds.max_items, progress=progress)
        drain.to_the_end()
        return drain.result()

    lease_seconds = None if shared else renewal_seconds(start.config)
    return perform(JOB, start, work, max_seconds=bounds.max_seconds, lease_seconds=lease_seconds)


class Drain:
    """One run's way through the queue."""

    def __init__(
        self,
        run: Run,
        api_key: str,
        claims: Claims,
        *,
        begin_until: float,
        max_items: int | None,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._run = run
        self._claims = claims
        self._begin_until = begin_until
        self._max_items = max_items
        self._progress = progress
        self._road = run.road(api_key, Lane.QUEUE, self._pause)
        self._sight = Sight(run.connection, run.config, run.clock, api_key=api_key, run_id=run.id)
        self._backlog = Backlog(run, self._sight, claims)
        self._bars = Bars(run, self._road, self._sight, CatalogueBars(run, self._sight))
        lanes = run.config.settings.provider.concurrency if run.config.calls_per_window is None else 1
        self._flights = Flights([new_client(run.config, api_key) for _ in range(lanes)], run.clock, run.stop)
        self._settling = Settling(
            run, road=self._road, sight=self._sight, claims=claims, flights=self._flights, bars=self._bars
        )
        self._size = 0
        # The last call that began leaves another one to begin at once.
        self._goes_on = False

    def to_the_end(self) -> None:
        """Make calls until there is nothing more to do; whatever ends it, but a bug, nothing stays claimed."""
        run = self._run
        try:
            self._claims.bring_back()
            if not self._backlog.is_waiting() and not self._bars.work.has_work():
                return
            run.claim_source()
            catalogue.sync_with_config(run.connection, run.config.assets)
            if self._progress is not None:
                self._size = queue.size(run.connection)
            self._flights.warm_up()
            # The next calls are under way while what the last ones brought is stored.
            while self._begin_calls() or self._flights or self._settling.is_behind:
                self._store()
                if self._flights:
                    self._land(0.0 if self._goes_on else PATIENCE_SECONDS)
            self._settling.judge()
        except (AssetbatchError, Interrupted, psycopg.Error) as error:
            self._let_go(error, asked_to_end=run.stop.requested.is_set())
            raise
        # Any other error is a bug. What met it stays claimed, as if the worker had been killed: should an answer bring
        # it about, its items run out of attempts and hold nobody up.

    def _begin_calls(self) -> bool:
        """Begin as many calls as lanes are free and the queue has work for; False when no further one will begin."""
        self._goes_on = False
        items_left = float("inf") if self._max_items is None else self._max_items - self._claims.taken
        if self._settling.ended_by or items_left <= 0 or time.monotonic() >= self._begin_until:
            return False
        if not self._flights.free or self._awaits_day():
            return True
        queued = self._backlog.is_waiting()
        if queued and (barred := self._sight.barred) is not None:
            self._settling.ended_by = barred
            return False
        if not queued and not (self._takes_bars() and self._bars.work.has_work()):
            return False
        try:
            calls = int(min(self._backlog.calls_at_once(self._flights.free), items_left))
            slot = self._road.acquire(max_wait_seconds=self._begin_until - time.monotonic(), calls=calls)
        except CallError as error:
            log.info("no further call in this run: %s", error)
            return False
        begun = False
        try:
            if self._settling.ended_by is None:  # else something came home while it waited
                begun = (queued and self._begin_items(slot, items_left)) or self._begin_bars(slot)
        finally:
            if not begun:
                self._road.limiter.release(slot, Outcome.UNSENT)
        return True

    def _awaits_day(self) -> bool:
        """Tell whether a finished day is under way, or not stored yet: it may serve all that waits."""
        asked = any(one.call.kind is CallKind.DAILY for one in self._flights)
        return asked or (self._sight.mode is Mode.END_OF_DAY and self._settling.is_behind)

    def _begin_items(self, slot: Slot, items_left: float) -> bool:
        """Begin the calls for what is first in the queue; False where it has nothing after all."""
        calls = self._backlog.claim(slot.calls, items_left)
        for number, (call, items) in enumerate(calls):
            pause = number * slot.spacing_seconds
            self._flights.begin(call, items, slot, leave_by=self._road.leave_by(slot), after_seconds=pause)
        return bool(calls)

    def _begin_bars(self, slot: Slot) -> bool:
        """Begin a call for bars, with a slot that the queue leaves."""
        one = self._bars.work.begin() if self._takes_bars() and self._bars.work.has_work() else None
        if one is not None:
            self._flights.begin(one.call, (), slot, leave_by=self._road.leave_by(slot), bars=one)
            self._goes_on = True
        return one is not None

    def _takes_bars(self) -> bool:
        """Return whether another page may be under way."""
        return sum(one.bars is not None for one in self._flights) < self._bars.most_at_once

    def _pause(self, seconds: float) -> None:
        """Wait for a slot; meanwhile store and announce what comes home."""
        end = time.monotonic() + seconds
        self._store()
        if seconds > PATIENCE_SECONDS:
            self._run.announcer.announce(at_once=True)
        while (left := end - time.monotonic()) > 0:
            self._land(min(left, PATIENCE_SECONDS))
            self._store()
            if self._settling.ended_by is not None:
                raise CallError(FailureKind.NO_SLOT, "something came home that ends the run", sent=False)

    def _land(self, seconds: float) -> None:
        """Wait for answers, for so long; give up what takes too long."""
        self._settling.take_in(self._flights.land(min(seconds, self._run.config.settings.queue.lease_seconds / 3)))
        self._run.stop.check()
        if self._run.lease is not None:
            self._run.lease.keep()
        self._backlog.keep()

    def _store(self) -> None:
        self._settling.store()
        if self._progress is not None:
            self._progress(len(self._road.trip.updated) + len(self._road.trip.unchanged), self._size)

    def _let_go(self, error: BaseException, *, asked_to_end: bool) -> None:
        """Store what has come home, where it was a signal that ended the run; give back the rest."""
        try:
            if asked_to_end:
                with suppress(psycopg.Error, AssetbatchError, Interrupted):
                    self._settling.take_in(self._flights.landed())
                    self._settling.store()
        finally:
            given_up = self._flights.give_up()
            self._claims.let_go(error, patiently=not asked_to_end)
            with suppress(psycopg.Error, Interrupted):
                self._road.given_up(given_up)

    def result(self) -> RunResult:
        """Tell what the run did."""
        trip, dead, ended_by = self._road.trip, self._claims.dead, self._settling.ended_by
        result = self._run.result(
            [*([ended_by.kind] if ended_by else []), *(one.kind for one in dead)],
            anything_stored=bool(trip.updated or trip.unchanged or self._bars.assets),
        )
        warnings = result.warnings + self._run.platform_warnings() + self._bars.work.warnings()
        if trip.deleted:
            warnings += (f"dropped, having no row in trading.symbols any more: {', '.join(trip.deleted)}",)
        warnings += unknown_tickers(self._sight.unknown(trip.failed))
        if not self._run.config.priority_assets and self._sight.contradiction:  # else run-priority tells it
            warnings += (self._sight.contradiction,)
        return replace(
            result,
            updated=tuple(trip.updated),
            unchanged=tuple(trip.unchanged),
            failed=tuple(dead),
            requeued=tuple(self._claims.requeued),
            dead=tuple(failure.symbol for failure in dead),
            remaining=queue.size(self._run.connection),
            bars=self._bars.result,
            newer_at=self._sight.newer_at(list(AssetType)),
            ended_by=ended_by,
            warnings=warnings,
        )
