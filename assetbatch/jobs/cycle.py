"""Calls made one after another, in order: what failed is tried again within the run, as far as its calls reach.

What the key may not see, or the vendor does not have yet, is planned anew: the next kind of call, or the day before.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

from assetbatch import planner
from assetbatch.database.prices import Brought
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind
from assetbatch.jobs.update import sort_out
from assetbatch.model import Call, CallKind, Failure, Role
from assetbatch.provider.bars import Page
from assetbatch.provider.quotes import Answers
from assetbatch.provider.reference import MarketsOpen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenacity import RetryCallState

    from assetbatch.database.prices import Stored
    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.bars import Bars
    from assetbatch.jobs.sight import Sight
    from assetbatch.jobs.update import Road
    from assetbatch.model import Asset
    from assetbatch.provider.client import Client

log = logging.getLogger(__name__)

ATTEMPTS = 3


@dataclass(slots=True)
class Cycle:
    """One pass over a list of calls. `max_calls` bounds its requests, None: no bound.

    `replan` makes other calls out of some that are of no use as they are.
    """

    road: Road
    client: Client
    sight: Sight
    replan: Callable[[Sequence[Call]], Sequence[Call]]
    no_call_after: float
    """Monotonic time after which no call begins."""
    max_calls: int | None

    def make(self, calls: Sequence[Call]) -> None:
        """Make the calls, in order; store what each brings. Failures are on the road's trip, they are not raised."""
        try:
            self._make_all(calls)
        except BaseException:
            with suppress(psycopg.Error):
                self.sight.give_up_day()
            raise

    def _make_all(self, calls: Sequence[Call]) -> None:
        waiting = deque(calls)
        while waiting:
            if self.calls_left < 1:
                left = [asset for other in waiting for asset in other.assets]
                self.fail(left, FailureKind.NO_SLOT, "the run has made its calls")
                break
            call = waiting.popleft()
            try:
                if call.kind is CallKind.DAILY and not self.sight.take_day(call, self._await_other):
                    waiting.extendleft(reversed(self.replan([call])))
                    continue
                self._make(call, calls_after=len(waiting))
            except CallError as error:
                self.road.stop.check()
                meaning = KINDS[error.kind]
                if self.sight.learn(call, error):
                    if call.kind is CallKind.DAILY:
                        # A market whose days are late does not keep the other from its call.
                        waiting.extend(self.replan([call]))
                        continue
                    useless = [call, *(other for other in waiting if other.kind.access is call.kind.access)]
                    waiting = deque([*self.replan(useless), *(other for other in waiting if other not in useless)])
                    continue
                self.sight.give_up_day()
                if meaning.halve and len(call.assets) > 1 and call.day is None and self.calls_left >= 2 + len(waiting):
                    log.info(
                        "%s for %d assets was refused as a whole, halving it: %s",
                        call.kind,
                        len(call.assets),
                        error,
                    )
                    waiting.extendleft(reversed(planner.halves(call)))
                    continue
                self.fail(call.assets, error.kind, error.reason)
                if error.kind is FailureKind.NOT_ENTITLED:
                    refused = [other for other in waiting if other.kind.access is call.kind.access]
                    self.fail([asset for other in refused for asset in other.assets], error.kind, error.reason)
                    waiting = deque(other for other in waiting if other not in refused)
                if meaning.ends_run or (meaning.strike and self.road.api_is_away()):
                    self.fail([asset for other in waiting for asset in other.assets], error.kind, error.reason)
                    break

    def _await_other(self, seconds: float) -> None:
        if time.monotonic() >= self.no_call_after:
            raise CallError(FailureKind.NO_SLOT, "another run is still asking for it", sent=False)
        self.road.pause(seconds)

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
            state.attempt_number >= ATTEMPTS or self.calls_left <= calls_after or time.monotonic() >= self.no_call_after
        )

    @property
    def calls_left(self) -> float:
        """How many more requests may be made."""
        return float("inf") if self.max_calls is None else self.max_calls - self.road.trip.calls_used

    def _attempt(self, call: Call, calls_after: int) -> None:
        road = self.road
        slot = road.acquire(max_wait_seconds=self.no_call_after - time.monotonic(), calls_after=calls_after)
        began = time.monotonic()
        answers = road.sent(self.client, call, slot, began)
        assert isinstance(answers, Answers)  # noqa: S101 - such calls bring prices
        self.sight.learn(call, None)
        brought = sort_out(call.assets, answers, self.sight.known)
        self._store(call, brought, [road.landed(call, slot, began, Outcome.OK)])

    def make_bars(self, bars: Bars, progress: Callable[[], object] = lambda: None) -> None:
        """Ask for bars, page by page, for as long as there is something to ask for and a call to do it."""
        road = self.road
        while self.calls_left >= 1 and time.monotonic() < self.no_call_after and bars.has_work():
            try:
                slot = road.acquire(max_wait_seconds=self.no_call_after - time.monotonic())
            except CallError as error:
                log.info("no further call in this run: %s", error)
                return
            one = None
            try:
                one = bars.begin()
            finally:
                if one is None:
                    road.limiter.release(slot, Outcome.UNSENT)
            if one is None:
                continue
            began = time.monotonic()
            try:
                page = road.sent(self.client, one.call, slot, began)
            except CallError as error:
                bars.failed(one, error)
            except BaseException:
                bars.let_go(one)
                raise
            else:
                assert isinstance(page, Page)  # noqa: S101 - such calls bring bars
                bars.landed(one, page, road.landed(one.call, slot, began, Outcome.OK))
            progress()

    def ask_status(self) -> MarketsOpen | None:
        """Ask which markets are open; None: not known."""
        left = self.no_call_after - time.monotonic()
        try:
            found = self.road.ask(self.client, Call(CallKind.MARKET_STATUS), max_wait_seconds=left)
        except CallError as error:
            log.info("the market's status is not known: %s", error)
            return None
        assert isinstance(found, MarketsOpen)  # noqa: S101 - such calls bring this
        return found

    def fail(self, assets: Sequence[Asset], kind: FailureKind, reason: str) -> None:
        """Write down that these assets were not updated, and why; others that a call covers beside them were no aim."""
        assets = [asset for asset in assets if asset.role is Role.PRIORITY]
        if assets:
            brought = [Brought(asset.symbol, failure=Failure(asset.symbol, kind, reason)) for asset in assets]
            self._store(None, brought, [])

    def _store(self, call: Call | None, brought: Sequence[Brought], records: Sequence[CallRecord]) -> None:
        day = None if call is None else call.day

        def ending(_stored: Stored) -> None:
            if call is not None and day is not None:
                self.sight.note_stored(call)

        self.road.store(brought, records, ending, served_at=self.road.clock.started_at, day=day)
