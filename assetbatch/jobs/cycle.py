"""Calls made one after another, in order: what failed is tried again within the run, as far as its calls reach.

What the key may not see, or the vendor does not have yet, is planned anew: the next kind of call, or the day before.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg

from assetbatch import planner
from assetbatch.database.prices import Brought
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind
from assetbatch.jobs.sight import Turn
from assetbatch.jobs.update import sort_out
from assetbatch.model import Call, CallKind, Failure, Role
from assetbatch.provider.flight import HeldUpError
from assetbatch.provider.quotes import Answers
from assetbatch.provider.reference import MarketsOpen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.sight import Sight
    from assetbatch.jobs.update import Road
    from assetbatch.model import Asset
    from assetbatch.planner import Days
    from assetbatch.provider.client import Client

log = logging.getLogger(__name__)

# How often to look whether another run has got the answer that this one needs too.
POLL_SECONDS = 0.25


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
    _waiting: deque[Call] = field(default_factory=deque, init=False)
    _days: Days = field(default_factory=dict, init=False)
    """What was known of finished days when the calls that wait were planned."""
    _theirs: set[Call] = field(default_factory=set, init=False)
    """Calls that other runs were found to be making, since the last look at all of them."""

    def make(self, calls: Sequence[Call]) -> None:
        """Make the calls, in order; store what each brings. Failures are on the road's trip, they are not raised."""
        self._waiting, self._days = deque(calls), self.sight.days
        try:
            while self._waiting:
                self._make_next()
        except BaseException:
            with suppress(psycopg.Error):
                self.sight.give_up_day()
            raise

    def _make_next(self) -> None:
        if self.calls_left < 1:
            self._fail_all(self._waiting, FailureKind.NO_SLOT, "the run has made its calls")
            self._waiting.clear()
            return
        call = self._waiting.popleft()
        try:
            if call.kind is not CallKind.DAILY or self._is_our_turn(call):
                self._make(call, calls_after=len(self._waiting))
        except HeldUpError:
            # Another run may have asked for its day meanwhile.
            self.sight.give_up_day()
            self._waiting.appendleft(call)
        except CallError as error:
            self.road.stop.check()
            self._failed(call, error)

    def _is_our_turn(self, call: Call) -> bool:
        turn = self.sight.take_day(call, self._days)
        if turn is Turn.OVER:
            self._plan_anew([call, *self._waiting])
        elif turn is Turn.THEIRS:
            self._put_off(call)
        return turn is Turn.OURS

    def _put_off(self, call: Call) -> None:
        """Let all other calls go first; wait a little once each of them is another run's, too."""
        if time.monotonic() >= self.no_call_after:
            raise CallError(FailureKind.NO_SLOT, "another run is still asking for it", sent=False)
        self._waiting.append(call)
        self._theirs.add(call)
        if self._theirs.issuperset(self._waiting):
            self.road.pause(POLL_SECONDS)
            self._theirs.clear()

    def _plan_anew(self, *groups: Sequence[Call]) -> None:
        """Let what waits be planned anew, group by group."""
        self._waiting = deque(call for group in groups for call in self.replan(group))
        self._days = self.sight.days

    def _failed(self, call: Call, error: CallError) -> None:
        """Decide what follows from a call that brought nothing."""
        meaning = KINDS[error.kind]
        if self.sight.learn(call, error):
            if call.kind is CallKind.DAILY:
                # A market whose days are late does not keep the other from its call.
                self._plan_anew(self._waiting, [call])
            else:
                self._plan_anew([call, *self._waiting])
            return
        self.sight.give_up_day()
        resting = [one for one in call.assets if call.day is None and self.sight.excuses(one, error.kind)]
        awake = tuple(one for one in call.assets if one not in resting)
        halve = meaning.halve and awake and len(call.assets) > 1 and call.day is None
        if halve and self.calls_left >= 2 + len(self._waiting):
            log.info("%s for %d assets was refused as a whole, halving it: %s", call.kind, len(call.assets), error)
            self._waiting.extendleft(reversed(planner.halves(call)))
            return
        if resting:
            self.rested(resting)
        useless = [replace(call, assets=awake)]
        if meaning.ends_run or (meaning.strike and self.road.api_is_away()):
            useless += self._waiting
        elif error.kind is FailureKind.NOT_ENTITLED:
            useless += [other for other in self._waiting if other.kind.access is call.kind.access]
        self._fail_all(useless, error.kind, error.reason)
        self._waiting = deque(other for other in self._waiting if other not in useless)

    def _make(self, call: Call, *, calls_after: int) -> None:
        """Make one call, again where that may help; every attempt takes its own slot. Raises the last CallError.

        Where no slot is left to try again, that is the error of the attempt before: it says why.
        """
        before: CallError | None = None
        for attempt in self.road.attempts(lambda: self._must_end(calls_after)):
            with attempt:
                try:
                    self._attempt(call, calls_after)
                except CallError as error:
                    if error.kind is FailureKind.NO_SLOT and before is not None:
                        raise before from None
                    before = error
                    raise

    def _must_end(self, calls_after: int) -> bool:
        return self.calls_left <= calls_after or time.monotonic() >= self.no_call_after

    @property
    def calls_left(self) -> float:
        """How many more requests may be made."""
        return self.road.calls_left(self.max_calls)

    def _attempt(self, call: Call, calls_after: int) -> None:
        road = self.road
        slot = road.acquire(max_wait_seconds=self.no_call_after - time.monotonic(), calls_after=calls_after)
        began = time.monotonic()
        answers = road.sent(self.client, call, slot, began, leave_by=self.sight.leave_by(call))
        assert isinstance(answers, Answers)  # noqa: S101 - such calls bring prices
        record = road.landed(call, slot, began, Outcome.OK)
        self.sight.learn(call, None)
        self._store(call, sort_out(call, answers, self.sight.known, self.sight.excuses), [record])

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
            # Another run that has taken over may have had better luck.
            self.road.keep_lease()
            brought = [Brought(asset.symbol, failure=Failure(asset.symbol, kind, reason)) for asset in assets]
            self._store(None, brought, [])

    def rested(self, assets: Sequence[Asset]) -> None:
        """Write down that these assets were asked for while their market rests, and that it has no price of them."""
        self.road.keep_lease()
        self._store(None, [Brought(asset.symbol) for asset in assets], [])

    def _fail_all(self, calls: Iterable[Call], kind: FailureKind, reason: str) -> None:
        self.fail([asset for call in calls for asset in call.assets], kind, reason)

    def _store(self, call: Call | None, brought: Sequence[Brought], records: Sequence[CallRecord]) -> None:
        day = None if call is None else call.day

        def note() -> None:
            if call is not None and day is not None:
                self.sight.note_stored(call)

        served_at = planner.served_as_of(call, self.road.clock.started_at)
        self.road.store(brought, records, lambda _: ((), note), served_at=served_at, day=day)
