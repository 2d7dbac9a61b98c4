"""The one road that every asset travels: slot -> call -> store.

A call takes a slot of the budget, goes out, comes home, and all that a good one brought is stored with its record in
one transaction. What a failure means is read from one table, `errors.KINDS`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

from assetbatch import planner
from assetbatch.database import prices, runs
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenacity import RetryCallState

    from assetbatch.database.connection import Connection
    from assetbatch.database.leases import Lease
    from assetbatch.database.rate_limit import RateLimiter, Slot
    from assetbatch.jobs.clock import Clock, Stop
    from assetbatch.model import Asset, Call
    from assetbatch.provider.client import Client
    from assetbatch.provider.quotes import Answers

log = logging.getLogger(__name__)

HTTP_OK = 200
ATTEMPTS = 3
# So many time-outs or errors of the server in a row are an outage: no other call would fare better.
OUTAGE = 3


@dataclass(slots=True)
class Trip:
    """What one pass over the road did; grows as it goes."""

    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    calls_used: int = 0
    refusals: int = 0
    long_waits: int = 0
    waited_seconds: float = 0.0
    unforeseen: list[int] = field(default_factory=list)
    """For each refusal that our own calls do not explain: how many of them were in the window."""


@dataclass(slots=True)
class Road:
    """Everything that a call needs on its way. `max_calls` bounds the requests of this run, None: no bound."""

    connection: Connection
    limiter: RateLimiter
    client: Client
    clock: Clock
    stop: Stop
    lease: Lease
    run_id: int
    no_call_after: float
    """Monotonic time after which no call begins."""
    long_wait_seconds: float
    """A wait for a slot that is worth counting."""
    max_calls: int | None
    trip: Trip = field(default_factory=Trip)
    outages_in_a_row: int = 0

    def travel(self, calls: Sequence[Call]) -> Trip:
        """Make the calls, in order; store what each brings. Failures are in the result, they are not raised."""
        waiting = deque(calls)
        while waiting:
            call = waiting.popleft()
            try:
                self._travel_once(call, calls_after=len(waiting))
            except CallError as error:
                self.stop.check()
                meaning = KINDS[error.kind]
                if meaning.halve and len(call.assets) > 1 and self._calls_left() >= 2 + len(waiting):
                    log.info(
                        "%s for %d assets was refused as a whole, halving it: %s",
                        call.kind,
                        len(call.assets),
                        error,
                    )
                    waiting.extendleft(reversed(planner.halves(call)))
                    continue
                self._fail(call.assets, error)
                if meaning.ends_run or self.outages_in_a_row >= OUTAGE:
                    self._fail([asset for other in waiting for asset in other.assets], error)
                    break
        return self.trip

    def _travel_once(self, call: Call, *, calls_after: int) -> None:
        """Make one call, again where that may help; every attempt takes its own slot. Raises the last CallError.

        Where no slot is left to try again, that is the error of the attempt before: it says why.
        """
        before: CallError | None = None
        for attempt in Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and KINDS[error.kind].retry),
            stop=lambda state: self._no_further_attempt(state, calls_after),
            wait=wait_exponential(multiplier=0.5, max=5) + wait_random(0, 0.5),
            sleep=self.stop.pause,
            reraise=True,
        ):
            with attempt:
                try:
                    self._attempt(call, calls_after)
                except CallError as error:
                    if error.kind is FailureKind.NO_SLOT and before is not None:
                        raise before from None
                    before = error
                    raise

    def _no_further_attempt(self, state: RetryCallState, calls_after: int) -> bool:
        return (
            state.attempt_number >= ATTEMPTS
            or self._calls_left() <= calls_after
            or time.monotonic() >= self.no_call_after
        )

    def _calls_left(self) -> float:
        return float("inf") if self.max_calls is None else self.max_calls - self.trip.calls_used

    def _attempt(self, call: Call, calls_after: int) -> None:
        slot = self._acquire(calls_after)
        began = time.monotonic()
        try:
            brought = self.client.ask(call, now=self.clock.now, wait=self.stop.wait_for)
        except CallError as error:
            self.outages_in_a_row = self.outages_in_a_row + 1 if KINDS[error.kind].outage else 0
            runs.record_call(self.connection, self._landed(call, slot, began, Outcome.of(error), error))
            raise
        except BaseException:
            runs.record_call(self.connection, self._landed(call, slot, began, Outcome.UNKNOWN))
            raise
        self.outages_in_a_row = 0
        self._store(call.assets, brought, self._landed(call, slot, began, Outcome.OK))

    def _landed(
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
            calls_in_window=slot.calls_in_window,
        )
        log.debug("%s of %s: %s", call.kind, ",".join(call.symbols), record)
        return record

    def _acquire(self, calls_after: int) -> Slot:
        self.stop.check()
        self.lease.keep()
        began = time.monotonic()
        try:
            return self.limiter.acquire(max_wait_seconds=self.no_call_after - began, calls_after=calls_after)
        finally:
            waited = time.monotonic() - began
            self.trip.waited_seconds += waited
            self.trip.long_waits += waited > self.long_wait_seconds

    def _refused(self, slot: Slot, *, foreseen: bool) -> None:
        self.trip.refusals += 1
        if not foreseen and slot.calls_in_window is not None:
            self.trip.unforeseen.append(slot.calls_in_window)

    def _store(self, assets: Sequence[Asset], brought: Answers, record: runs.CallRecord) -> None:
        stored = prices.store(
            self.connection,
            [
                prices.Brought(asset.symbol, brought.quotes.get(asset.symbol), _failure(asset, brought))
                for asset in assets
            ],
            record,
            served_at=self.clock.started_at,
            answered_at=self.clock.now(),
        )
        self._add(stored)

    def _fail(self, assets: Sequence[Asset], error: CallError) -> None:
        if not assets:
            return
        stored = prices.store(
            self.connection,
            [prices.Brought(asset.symbol, failure=Failure(asset.symbol, error.kind, error.reason)) for asset in assets],
            None,
            served_at=self.clock.started_at,
            answered_at=self.clock.now(),
        )
        self._add(stored)

    def fail(self, assets: Sequence[Asset], kind: FailureKind, reason: str) -> None:
        """Write down that these assets need a call that cannot be made."""
        self._fail(assets, CallError(kind, reason, sent=False))

    def _add(self, stored: prices.Stored) -> None:
        self.trip.updated += stored.updated
        self.trip.unchanged += stored.unchanged
        self.trip.failed += stored.failed


def _failure(asset: Asset, brought: Answers) -> Failure | None:
    found = brought.failures.get(asset.symbol)
    return None if found is None else Failure(asset.symbol, *found)
