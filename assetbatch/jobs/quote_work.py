"""Prices of a list of calls, in order: what failed is made again within the run, as far as its calls reach.

What the key may not see, or the vendor does not have yet, is planned anew: the next kind of call, or the day before.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from assetbatch import planner
from assetbatch.database.prices import Brought, Times
from assetbatch.failures import (
    OF_A_TICKERS_DAY,
    POLICIES,
    CallError,
    Covers,
    FailureKind,
    Then,
    backoff_seconds,
    decide,
)
from assetbatch.jobs.calls import ATTEMPTS
from assetbatch.jobs.entitlements import Turn
from assetbatch.jobs.storing import sort_out, write_prices
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.model import CallKind, Failure, Role
from assetbatch.provider import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.calls import Calls, Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import Asset, AssetType, Call
    from assetbatch.planner import Days

log = logging.getLogger(__name__)

# How often to look whether another run has got the answer that this one needs too.
POLL_SECONDS = 0.25
# Between two attempts at a call: the first time, and the longest.
AGAIN_SECONDS = 0.5
LONGEST_AGAIN_SECONDS = 5.0


class QuoteWork(Source):
    """The calls for prices that one run has planned; failures are in what the run stored, they are not raised.

    `max_calls` bounds the requests of the run, None: no bound. `replan` makes other calls out of some that are of no
    use as they are. `is_aside`: others bring the quotes, so that a call that fails is no failure of its assets; they
    make rows, too, so `known` tells of which assets there was one by the time of an answer.
    """

    def __init__(
        self,
        run: Run,
        calls: Calls,
        replan: Callable[[Sequence[Call]], Sequence[Call]],
        *,
        no_call_after: float,
        max_calls: int | None,
        is_aside: bool = False,
        known: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._run = run
        self._calls = calls
        self._entitlements = run.entitlements
        self._replan = replan
        self._no_call_after = no_call_after
        self._max_calls = max_calls
        self._is_aside = is_aside
        self._known = known
        self._waiting: deque[Call] = deque()
        # What was known of finished days when the calls that wait were planned.
        self._days: Days = {}
        # Calls that other runs were found to be making, since the last look at all of them.
        self._theirs: set[Call] = set()
        # Of the call that comes next.
        self._is_our_turn = False
        self._errors: list[CallError] = []

    @property
    def calls_left(self) -> float:
        """How many more requests may be made."""
        return self._calls.left(self._max_calls)

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of the next call."""
        return self._waiting[0].types

    def plan(self, calls: Sequence[Call]) -> None:
        """Let these calls be made, in order."""
        self._waiting, self._days = deque(calls), self._entitlements.days

    def is_ready(self) -> bool:
        """Return whether there is a call to make, and it is our turn to make it."""
        while self._waiting:
            if self.calls_left < 1:
                self._fail_all(self._waiting, FailureKind.NO_SLOT, "the run has made its calls")
                self._waiting.clear()
            elif self._is_our_turn or self._waiting[0].kind is not CallKind.DAILY:
                return True
            else:
                self._take_turn()
        return False

    def _take_turn(self) -> None:
        call = self._waiting[0]
        turn = self._entitlements.take_day(call, self._days)
        self._is_our_turn = turn is Turn.OURS
        if turn is Turn.OVER:
            self._plan_anew(self._waiting)
        elif turn is Turn.THEIRS:
            self._put_off()

    def _put_off(self) -> None:
        """Let all other calls go first; wait a little once each of them is another run's, too."""
        if time.monotonic() >= self._no_call_after:
            self._failed(CallError(FailureKind.NO_SLOT, "another run is still asking for it", sent=False))
            return
        self._waiting.rotate(-1)
        self._theirs.add(self._waiting[-1])
        if self._theirs.issuperset(self._waiting):
            self._calls.pause(POLL_SECONDS)
            self._theirs.clear()

    def _plan_anew(self, *groups: Iterable[Call]) -> None:
        """Let what waits be planned anew, group by group."""
        self._waiting = deque(call for group in groups for call in self._replan(list(group)))
        self._days = self._entitlements.days
        self._forget()

    def _forget(self) -> None:
        self._is_our_turn = False
        self._errors.clear()

    def wants(self, _free: int) -> tuple[int, int]:
        """Return that it takes one call after another, and how many come after the next one."""
        return 1, len(self._waiting) - 1

    def begin(self, _calls: int) -> Sequence[Planned]:
        """Begin with the next call."""
        return [Planned(endpoints.prices(self._waiting[0]), leave_by=self._entitlements.leave_by(self._waiting[0]))]

    def no_slot(self, error: CallError) -> None:
        """Let all that waits fail."""
        self._run.stop.check()
        if self._errors:
            # Why it came to wait for another slot says more.
            why = self._errors[-1]
            self._fail_all([self._waiting.popleft()], why.kind, why.reason)
            self._entitlements.give_up_day()
            self._forget()
        if self._waiting:
            self._failed(error)

    def landed(self, came: Sequence[Landed]) -> None:
        """Store what came."""
        for one in came:
            self._waiting.popleft()
            self._forget()
            known = self._entitlements.known.union(self._known())
            refused = self._entitlements.learn_rows(one.call, one.answer)
            call = replace(one.call, assets=tuple(asset for asset in one.call.assets if asset not in refused))
            brought = sort_out(call, one.answer, known, self._entitlements.excuses)
            self._store(call, brought, [one.record] if one.record else [])
            if refused:
                self._waiting.extend(self._replan([replace(one.call, assets=refused)]))

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Let the call be the next one again, once it is our turn."""
        del works, held_up
        # Another run may have asked for its day meanwhile.
        self._entitlements.give_up_day()
        self._is_our_turn = False

    def finish(self, *, has_ended: bool) -> None:
        """Let fail what was left for want of time."""
        del has_ended
        self._fail_all(self._waiting, FailureKind.NO_SLOT, "the time in which calls may begin is over")
        self._waiting.clear()

    def failed(self, _one: Landed, error: CallError) -> Aftermath:
        """Make it again, make other calls in its place, or let its assets fail."""
        self._run.stop.check()
        return self._failed(error)

    def _failed(self, error: CallError) -> Aftermath:
        """Decide what follows from the next call, which brought nothing."""
        self._errors.append(error)
        call, kind = self._waiting[0], error.kind
        others = len(self._waiting) - 1
        must_end = self.calls_left <= others or time.monotonic() >= self._no_call_after
        covers = Covers.SEVERAL if len(call.assets) > 1 and call.day is None else Covers.ONE
        tries_left = 0 if must_end else ATTEMPTS - len(self._errors)
        decision = decide(kind, covers, tries_left=tries_left)
        if decision.then is Then.AGAIN:
            return Aftermath(backoff_seconds(len(self._errors), AGAIN_SECONDS, LONGEST_AGAIN_SECONDS))
        self._waiting.popleft()
        self._forget()
        if self._entitlements.learn(call, error):
            if call.day is not None:
                # A market whose days are late does not keep the other from its call.
                self._plan_anew(self._waiting, [call])
            else:
                self._plan_anew([call, *self._waiting])
            return Aftermath()
        self._entitlements.give_up_day()
        if call.kind is CallKind.DAILY_TICKER and kind in OF_A_TICKERS_DAY:
            told = [Failure(asset.symbol, OF_A_TICKERS_DAY[kind], error.reason) for asset in call.assets]
            self._store(call, [Brought(one.symbol, failure=one) for one in told], [])
            return Aftermath()
        resting = [asset for asset in call.assets if call.day is None and self._entitlements.excuses(asset, kind)]
        awake = tuple(asset for asset in call.assets if asset not in resting)
        if decision.then is Then.HALVE and awake and self.calls_left >= 2 + len(self._waiting):
            log.info("%s for %d assets was refused as a whole, halving it: %s", call.kind, len(call.assets), error)
            self._waiting.extendleft(reversed(planner.halves(call)))
            return Aftermath()
        if resting:
            self.rested(resting)
        useless = [replace(call, assets=awake)]
        if POLICIES[kind].strike:
            decision = decide(kind, covers, is_away=self._calls.api_is_away())
        if decision.ends_run:
            useless += self._waiting
        elif kind is FailureKind.NOT_ENTITLED:
            useless += [other for other in self._waiting if not self._entitlements.serves(other)]
        self._fail_all(useless, kind, error.reason)
        self._waiting = deque(other for other in self._waiting if other not in useless)
        return Aftermath()

    def fail(self, assets: Sequence[Asset], kind: FailureKind, reason: str) -> None:
        """Write down that these assets were not updated, and why; others that a call covers beside them were no aim."""
        own = [asset for asset in assets if asset.role is Role.PRIORITY]
        if self._is_aside and assets:
            log.info("calls for figures of the day came to nothing: %s: %s", kind, reason)
        elif own and not self._is_aside:
            # Another run that has taken over may have had better luck.
            self._calls.keep_lease()
            brought = [Brought(asset.symbol, failure=Failure(asset.symbol, kind, reason)) for asset in own]
            self._store(None, brought, [])

    def rested(self, assets: Sequence[Asset]) -> None:
        """Write down that these assets were asked for while their market rests, and that it has no price of them."""
        self._calls.keep_lease()
        self._store(None, [Brought(asset.symbol) for asset in assets], [])

    def _fail_all(self, calls: Iterable[Call], kind: FailureKind, reason: str) -> None:
        self.fail([asset for call in calls for asset in call.assets], kind, reason)

    def _store(self, call: Call | None, brought: Sequence[Brought], records: Sequence[CallRecord]) -> None:
        day = None if call is None else call.day

        def note() -> None:
            if call is not None and call.kind is CallKind.DAILY:
                self._entitlements.note_stored(call)

        clock, stored = self._run.clock, self._run.stored
        times = Times(planner.served_as_of(call, clock.started_at), clock.now(), day)
        found, _ = write_prices(self._run.connection, brought, times, records, lambda _: ((), note))
        stored += found
