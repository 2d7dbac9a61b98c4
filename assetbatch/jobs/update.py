"""The one road that every asset travels: slot -> call -> store.

A call takes a slot of the budget, goes out and comes home; all that it brought is stored with its record, and with
whatever ends with it, in one transaction. What a failure means is read from one table, `errors.KINDS`. How calls follow
one another is the jobs' affair: `cycle` makes a list of them in order, `drain` those that the queue asks for.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

from assetbatch.database import prices, runs
from assetbatch.database.connection import transaction
from assetbatch.database.rate_limit import Outcome
from assetbatch.database.savepoints import carefully
from assetbatch.errors import KINDS, CallError
from assetbatch.model import Failure
from assetbatch.provider.flight import HeldUpError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.database.leases import Lease
    from assetbatch.database.query import Query
    from assetbatch.database.rate_limit import RateLimiter, Slot
    from assetbatch.errors import FailureKind
    from assetbatch.jobs.clock import Clock, Stop
    from assetbatch.jobs.flights import Flying
    from assetbatch.model import Asset, Call
    from assetbatch.provider.client import Client
    from assetbatch.provider.quotes import Answers
    from assetbatch.provider.reading import Answer

log = logging.getLogger(__name__)
T = TypeVar("T")

HTTP_OK = 200
# So many calls in a row that fail as if the API were away: no other one would fare better.
STRIKES = 3
# How often a call is made that fails as if it might fare better at once.
ATTEMPTS = 3


@dataclass(slots=True)
class Trip:
    """What a run did on the road; grows as it goes."""

    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    calls_used: int = 0
    refusals: int = 0
    long_waits: int = 0
    waited_seconds: float = 0.0
    statuses_lost: int = 0
    """Rows of data_sync_status that were not written, and nothing said why."""
    locked: list[str] = field(default_factory=list)
    """Symbols that another transaction kept locked: their prices are asked for again."""
    from_future: list[str] = field(default_factory=list)
    """Symbols whose stored price was of a time in the future, and gave way."""
    unforeseen: list[int] = field(default_factory=list)
    """For each refusal that our own calls do not explain: how many of them were in the window."""


@dataclass(slots=True)
class Road:
    """What a call needs on its way."""

    connection: Connection
    limiter: RateLimiter
    clock: Clock
    stop: Stop
    lease: Lease | None
    """The right to run the job alone; None where runs share it."""
    run_id: int
    long_wait_seconds: float
    """A wait for a slot that is worth counting."""
    trip: Trip = field(default_factory=Trip)

    def acquire(self, *, max_wait_seconds: float, calls_after: int = 0, calls: int = 1) -> Slot:
        """Wait for a slot. Raises CallError (no_slot) when it would take too long."""
        self.stop.check()
        began = time.monotonic()
        try:
            return self.limiter.acquire(
                max_wait_seconds=max_wait_seconds, calls_after=calls_after, calls=calls, lease=self.lease
            )
        finally:
            waited = time.monotonic() - began
            self.trip.waited_seconds += waited
            self.trip.long_waits += waited > self.long_wait_seconds

    def pause(self, seconds: float) -> None:
        """Sleep, but raise as soon as the run is asked to end; keep the right to run."""
        self.stop.pause(seconds)
        self.keep_lease()

    def keep_lease(self, *queries: Query[Any]) -> None:
        """Keep the right to run for at least as long as a call takes; ask these with it. Raises LeaseLostError."""
        if self.lease is not None:
            self.lease.keep(*queries, lasting=self.limiter.rules.hold_seconds)
        else:
            self.connection.ask(*queries)

    def leave_by(self, slot: Slot) -> float:
        """Return until when a call may leave, as `boot_time()`: while it has its slot, and this run its job."""
        return slot.send_by if self.lease is None else min(slot.send_by, self.lease.until)

    def ask(self, client: Client, call: Call, *, max_wait_seconds: float) -> Answer:
        """Take a slot for a call, make it and write it down. Raises CallError."""
        end = time.monotonic() + max_wait_seconds
        while True:
            slot = self.acquire(max_wait_seconds=end - time.monotonic())
            began = time.monotonic()
            try:
                answer = self.sent(client, call, slot, began)
            except HeldUpError:
                continue
            runs.record_calls(self.connection, [self.landed(call, slot, began, Outcome.OK)])
            return answer

    def sent(self, client: Client, call: Call, slot: Slot, began: float, *, leave_by: float = math.inf) -> Answer:
        """Make a call that has its slot; one that brings an answer is left to `landed`.

        Raises CallError, and HeldUpError when it had not left by `leave_by`, or while the slot was its own: then it has
        to be made anew, with another slot.
        """
        try:
            leave_by = min(self.leave_by(slot), leave_by)
            return client.ask(call, now=self.clock.now, leave_by=leave_by, wait=self.stop.wait_for)
        except HeldUpError:
            self.held_up(slot)
            raise
        except CallError as error:
            self.failed(call, slot, began, error)
            # What is given up because the run is to end says nothing about the API, or about any asset.
            self.stop.check()
            raise
        except BaseException:
            runs.record_calls(self.connection, [self.landed(call, slot, began, Outcome.UNKNOWN)])
            raise

    def held_up(self, slot: Slot) -> None:
        """Give back the slot of a call that was held up and never left; nobody is charged for it."""
        log.info("a call was held up until its slot was too old: it is given back, and another one is asked for")
        self.limiter.release(slot, Outcome.UNSENT)

    def landed(
        self, call: Call, slot: Slot, began: float, outcome: Outcome, error: CallError | None = None
    ) -> runs.CallRecord:
        """Tell the slot what became of its call, before anything else: others wait for it. Return the call's record."""
        latency = time.monotonic() - began
        foreseen = self.limiter.release(slot, outcome, retry_after_seconds=error.retry_after_seconds if error else None)
        self.trip.calls_used += outcome is not Outcome.UNSENT
        if outcome is Outcome.LIMITED:
            self._refused(slot, foreseen=foreseen)
        record = runs.CallRecord(
            run_id=self.run_id,
            kind=call.kind.value,
            outcome=error.kind.value if error else outcome.value,
            http_status=error.http_status if error else HTTP_OK if outcome is Outcome.OK else None,
            sent=outcome is not Outcome.UNSENT,
            latency_ms=round(latency * 1000),
            waited_ms=round(slot.waited_seconds * 1000),
            assets=len(call.assets),
            symbol=call.assets[0].symbol if len(call.assets) == 1 else None,
            calls_in_window=slot.calls_in_window,
        )
        log.debug("%s of %s: %s", call.kind, ",".join(call.symbols), record)
        return record

    def failed(self, call: Call, slot: Slot, began: float, error: CallError) -> None:
        """Tell the slot of a call that failed, and write it down."""
        runs.record_calls(self.connection, [self.landed(call, slot, began, Outcome.of(error), error)])

    def given_up(self, calls: Sequence[Flying]) -> None:
        """Tell the slots of calls whose answers nobody waits for any more, and write them down."""
        records = [
            self.landed(one.call, one.slot, one.began, Outcome.UNKNOWN if one.asked.flight.sent else Outcome.UNSENT)
            for one in calls
        ]
        if records:
            runs.record_calls(self.connection, records)

    def _refused(self, slot: Slot, *, foreseen: bool) -> None:
        self.trip.refusals += 1
        if not foreseen and slot.calls_in_window is not None:
            self.trip.unforeseen.append(slot.calls_in_window)

    def attempts(self, is_last: Callable[[], bool] = lambda: False) -> Retrying:
        """Make a call again where that may help: `ATTEMPTS` times, or until `is_last`. Raises the last error."""
        return Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and KINDS[error.kind].retry),
            stop=lambda state: state.attempt_number >= ATTEMPTS or is_last(),
            wait=wait_exponential(multiplier=0.5, max=5) + wait_random(0, 0.5),
            sleep=self.stop.pause,
            reraise=True,
        )

    def calls_left(self, max_calls: int | None) -> float:
        """Tell how many more requests may be made, of so many in all; None: no bound."""
        return float("inf") if max_calls is None else max_calls - self.trip.calls_used

    def api_is_away(self) -> bool:
        """Tell whether so many calls in a row failed that no other one would fare better."""
        return runs.is_struck(self.connection, times=STRIKES)

    def store(
        self,
        brought: Sequence[prices.Brought],
        records: Sequence[runs.CallRecord],
        ending: Callable[[prices.Stored], tuple[Sequence[Query[Any]], Callable[[], T]]],
        *,
        served_at: datetime,
        day: date | None = None,
    ) -> T:
        """Store what calls brought, with their records and what `ending` writes, in one transaction.

        `served_at` decides when the assets are due again; daily figures are of a `day`. `ending` is told what becomes
        of them; it returns what is written with that, and what follows from it, before the transaction ends. A deadlock
        repeats it.
        """

        def write(*, carefully: bool) -> tuple[prices.Stored, T]:
            follows: list[Callable[[], T]] = []

            def along(stored: prices.Stored) -> Sequence[Query[Any]]:
                queries, then = ending(stored)
                follows.append(then)
                return [*queries, *([runs.recording(records)] if records else [])]

            times = prices.Times(served_at, self.clock.now(), day)
            stored = prices.write(self.connection, brought, times, carefully=carefully, along=along)
            return stored, follows[-1]()

        stored, ended = self.write(write, [])
        self.trip.updated += stored.updated
        self.trip.unchanged += stored.unchanged
        self.trip.deleted += stored.deleted
        self.trip.failed += stored.failed
        self.trip.statuses_lost += stored.statuses_lost
        self.trip.locked += stored.locked
        self.trip.from_future += stored.from_future
        return ended

    def write(self, write: Callable[..., T], records: Sequence[runs.CallRecord]) -> T:
        """Write something with the records of its calls, in one transaction; what gets in its way repeats it.

        `write` is told whether to go about it `carefully`: the platform's tables refused something before, or a row
        was locked.
        """

        def attempt(*, carefully: bool) -> T:
            with transaction(self.connection):
                written = write(carefully=carefully)
                if records:
                    runs.record_calls(self.connection, records)
                return written

        return carefully(attempt)


def sort_out(
    call: Call, answers: Answers, known: Collection[str], excuses: Callable[[Asset, FailureKind], bool]
) -> list[prices.Brought]:
    """Return for each asset of a call what the answer has for it; `known` had rows in the platform's table before.

    `excuses` tells of which assets a live answer without a price is no failure.
    """
    failures = {
        asset.symbol: Failure(asset.symbol, *failed)
        for asset in call.assets
        if (failed := answers.failures.get(asset.symbol)) and (call.day is not None or not excuses(asset, failed[0]))
    }
    return [
        prices.Brought(
            asset.symbol,
            answers.quotes.get(asset.symbol),
            failures.get(asset.symbol),
            known=asset.symbol in known,
        )
        for asset in call.assets
    ]
