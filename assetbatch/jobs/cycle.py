"""Calls made one after another, in order: what failed is tried again within the run, as far as its calls reach."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

from assetbatch import planner
from assetbatch.database import runs
from assetbatch.database.prices import Brought
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind
from assetbatch.jobs.update import sort_out
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenacity import RetryCallState

    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.update import Road
    from assetbatch.model import Asset, Call
    from assetbatch.provider.client import Client

log = logging.getLogger(__name__)

ATTEMPTS = 3


@dataclass(slots=True)
class Cycle:
    """One pass over a list of calls. `max_calls` bounds its requests, None: no bound."""

    road: Road
    client: Client
    no_call_after: float
    """Monotonic time after which no call begins."""
    max_calls: int | None

    def make(self, calls: Sequence[Call]) -> None:
        """Make the calls, in order; store what each brings. Failures are on the road's trip, they are not raised."""
        waiting = deque(calls)
        while waiting:
            call = waiting.popleft()
            try:
                self._make(call, calls_after=len(waiting))
            except CallError as error:
                self.road.stop.check()
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
                self.fail(call.assets, error.kind, error.reason)
                if meaning.ends_run or (meaning.strike and self.road.api_is_away()):
                    self.fail([asset for other in waiting for asset in other.assets], error.kind, error.reason)
                    break

    def _make(self, call: Call, *, calls_after: int) -> None:
        """Make one call, again where that may help; every attempt takes its own slot. Raises the last CallError.

        Where no slot is left to try again, that is the error of the attempt before: it says why.
        """
        before: CallError | None = None
        for attempt in Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and KINDS[error.kind].retry),
            stop=lambda state: self._no_further_attempt(state, calls_after),
            wait=wait_exponential(multiplier=0.5, max=5) + wait_random(0, 0.5),
            sleep=self.road.stop.pause,
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
        return float("inf") if self.max_calls is None else self.max_calls - self.road.trip.calls_used

    def _attempt(self, call: Call, calls_after: int) -> None:
        road = self.road
        slot = road.acquire(max_wait_seconds=self.no_call_after - time.monotonic(), calls_after=calls_after)
        began = time.monotonic()
        try:
            answers = self.client.ask(call, now=road.clock.now, wait=road.stop.wait_for)
        except CallError as error:
            road.failed(call, slot, began, error)
            raise
        except BaseException:
            runs.record_calls(road.connection, [road.landed(call, slot, began, Outcome.UNKNOWN)])
            raise
        self._store(sort_out(call.assets, answers), [road.landed(call, slot, began, Outcome.OK)])

    def fail(self, assets: Sequence[Asset], kind: FailureKind, reason: str) -> None:
        """Write down that these assets were not updated, and why."""
        if assets:
            self._store([Brought(asset.symbol, failure=Failure(asset.symbol, kind, reason)) for asset in assets], [])

    def _store(self, brought: Sequence[Brought], records: Sequence[CallRecord]) -> None:
        self.road.store(brought, records, lambda _stored: None, served_at=self.road.clock.started_at)
