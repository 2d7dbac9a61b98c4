"""The one loop of all jobs that make calls: work from sources, in their order, as many calls at once as there may be.

Slot first, then the work: nothing is held but while a call is under way for it. One thread asks the database, begins
calls, and lets their sources store together what came home together.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import psycopg
from msgspec import Struct

from assetbatch.database import leases, runs
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import AssetbatchError, Interrupted
from assetbatch.failures import POLICIES, CallError, FailureKind
from assetbatch.jobs.calls import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from assetbatch.database.connection import Connection
    from assetbatch.database.rate_limit import Slot
    from assetbatch.jobs.calls import Calls, Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Call, Trouble
    from assetbatch.provider.request import Request

log = logging.getLogger(__name__)

# After a failure that may pass.
STRIKE_PAUSE_SECONDS = 0.5
# The pace at which calls leave is kept by those, too, that wait for none.
PACE_SECONDS = 0.5
# A database that is away when what is held is to be given back is waited for this long.
GIVE_BACK_SECONDS = 15.0


class Planned(Struct, frozen=True):
    """A call that a source wants made now, for some work of its own; past `leave_by` (`boot_time()`) it is too late."""

    request: Request[Any]
    work: Any = None
    leave_by: float = math.inf


class Aftermath(Struct, frozen=True):
    """What follows from a failed call for others: `calls_off` keeps them from leaving."""

    pause_seconds: float = 0.0
    calls_off: bool = False

    @classmethod
    def of(cls, kind: FailureKind, *, calls_off: bool = False) -> Self:
        """Return what follows for others from a kind of failure: a pause where the API may be in trouble."""
        return cls(STRIKE_PAUSE_SECONDS if POLICIES[kind].strike else 0.0, calls_off)


class Source(ABC):
    """Where work comes from, and what becomes of it: call by call, and stored at once, where it does not say more."""

    waits: bool = True
    """Whether a call is worth waiting for; else it is made where one is free at once, or `no_slot` forgoes it."""

    @property
    def ended_by(self) -> Trouble | None:
        """What no further call can fare better than, once there is such."""
        return None

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of assets that the next call may be about; none: any."""
        return frozenset()

    @property
    def awaits(self) -> bool:
        """Whether what is under way may serve all that comes after it."""
        return False

    @property
    def is_behind(self) -> bool:
        """Whether something came home that `store` has not stored yet."""
        return False

    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether a call would be of use now."""

    def wants(self, _free: int) -> tuple[int, int]:
        """Return for how many calls, of so many that may begin, to take a slot at once, and how many come after."""
        return 1, 0

    @abstractmethod
    def begin(self, calls: int) -> Sequence[Planned]:
        """Choose the work for so many calls, which have their slot, and hold it; nothing where none is left."""

    def no_slot(self, error: CallError) -> None:  # noqa: B027 - not every source has to
        """Take it that no further call begins, for `error`; what waits is left to the next run."""

    @abstractmethod
    def landed(self, came: Sequence[Landed]) -> None:
        """Take in answers."""

    def store(self) -> None:  # noqa: B027 - not every source has to
        """Store what was taken in."""

    @abstractmethod
    def failed(self, one: Landed, error: CallError) -> Aftermath:
        """Do what follows from a call that brought nothing."""

    @abstractmethod
    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Take back the work of calls that were held up, or called off."""

    def finish(self, *, has_ended: bool) -> None:  # noqa: B027 - not every source has to
        """Decide about what was left open: the run has ended early, or there is nothing more to do."""


class Worker:
    """Makes the calls of one run, from its sources in their order.

    No call begins after the monotonic time `begin_until`, or once `may_begin` says no. `reconnect` opens another
    connection, to give back what is held when the run's own is lost for good. `is_all`: what ends these calls ends
    the run.
    """

    def __init__(
        self,
        run: Run,
        calls: Calls,
        sources: Sequence[Source],
        *,
        begin_until: float,
        may_begin: Callable[[], bool] = lambda: True,
        reconnect: Callable[[], AbstractContextManager[Connection]] | None = None,
        is_all: bool = True,
    ) -> None:
        self._run = run
        self._calls = calls
        self._sources = sources
        self._begin_until = begin_until
        self._may_begin = may_begin
        self._reconnect = reconnect
        self._is_all = is_all
        # A call has begun, and another one may begin at once.
        self._goes_on = False

    @property
    def ended_by(self) -> Trouble | None:
        """What no further call can fare better than, once there is such."""
        return next((source.ended_by for source in self._sources if source.ended_by), None)

    def work(self) -> None:
        """Make calls until there is nothing more to do; whatever ends it, but a bug, nothing stays held."""
        self._calls.limiter.pause = self._pause
        try:
            # The next calls are under way while what the last ones brought is stored.
            while self._begin() or self._calls.under_way or any(source.is_behind for source in self._sources):
                self._store()
                if self._calls.under_way:
                    self._land(0.0 if self._goes_on else PATIENCE_SECONDS)
            self._finish()
        except (AssetbatchError, Interrupted, psycopg.Error) as error:
            self._let_go(error)
            raise
        # Any other error is a bug. What met it stays held, as if the worker had been killed: should an answer bring it
        # about, its items run out of attempts and hold nobody up.

    def _begin(self) -> bool:
        """Begin what the first source with work has for the next slot; return False when no further call will begin."""
        self._goes_on = False
        if self.ended_by or time.monotonic() >= self._begin_until or not self._may_begin():
            return False
        if not self._calls.free or any(source.awaits for source in self._sources):
            return True
        first = next((number for number, source in enumerate(self._sources) if source.is_ready()), None)
        if first is None or self.ended_by:
            return False
        source, wait_seconds = self._sources[first], self._begin_until - time.monotonic()
        if (beside := self._beside(first)) is not None:
            # Where its slot is not free at once, what needs none goes on meanwhile.
            try:
                slot = self._acquire(source, 0.0)
            except CallError:
                first, source = beside, self._sources[beside]
            else:
                return self._begin_in(slot, first)
        try:
            slot = self._acquire(source, wait_seconds if source.waits else PACE_SECONDS)
        except CallError as error:
            source.no_slot(error)
            if source.waits:
                log.info("no further call in this run: %s", error)
            return not source.waits
        return self._begin_in(slot, first)

    def _beside(self, first: int) -> int | None:
        """Return which source has work that needs no slot, where the first one that has any needs one; None: none."""
        if not self._calls.takes_slot(self._sources[first].types):
            return None
        others = range(first + 1, len(self._sources))
        exempt = (number for number in others if not self._calls.takes_slot(self._sources[number].types))
        return next((number for number in exempt if self._sources[number].is_ready()), None)

    def _acquire(self, source: Source, max_wait_seconds: float) -> Slot:
        calls, calls_after = source.wants(self._calls.free)
        return self._calls.acquire(
            max_wait_seconds=max_wait_seconds, types=source.types, calls_after=calls_after, calls=calls
        )

    def _begin_in(self, slot: Slot, first: int) -> bool:
        """Begin what the sources from the first one on have for a slot, or give it back."""
        begun = False
        try:
            # Something may have come home meanwhile that ends the run.
            begun = self.ended_by is None and self._begin_with(slot, first)
        finally:
            if not begun:
                self._calls.limiter.release(slot, Outcome.UNSENT)
        return True

    def _begin_with(self, slot: Slot, first: int) -> bool:
        """Begin the calls of the first source from that one on that has any after all."""
        for source in self._sources[first:]:
            if source is not self._sources[first] and not (
                source.is_ready() and self._calls.serves(slot, source.types)
            ):
                continue
            planned = source.begin(slot.calls)
            for number, one in enumerate(planned):
                pause = number * slot.spacing_seconds
                self._calls.begin(
                    one.request, slot, source=source, work=one.work, leave_by=one.leave_by, after_seconds=pause
                )
            if planned:
                self._goes_on = self._calls.free > 0
                return True
        return False

    def _pause(self, seconds: float) -> None:
        """Wait for a slot; meanwhile store and announce what comes home."""
        end = time.monotonic() + seconds
        self._store()
        if seconds > PATIENCE_SECONDS:
            self._run.announcer.announce(at_once=True)
        while (left := end - time.monotonic()) > 0:
            self._land(min(left, PATIENCE_SECONDS))
            self._store()
            if self.ended_by is not None:
                raise CallError(FailureKind.NO_SLOT, "something came home that ends the run", sent=False)

    def _land(self, seconds: float) -> None:
        """Wait for answers, for so long; give up what takes too long."""
        self._take_in(self._calls.land(seconds))
        self._run.stop.check()
        if self._run.lease is not None:
            self._run.lease.keep()

    def _take_in(self, landed: Sequence[Landed]) -> None:
        """Let the sources have what came home; what failed is decided once the rest is stored."""
        if any(one.error is not None and one.error.kind is FailureKind.RATE_LIMITED for one in landed):
            self._call_off()
        pause = 0.0
        for source in self._sources:
            own = [one for one in landed if one.source is source]
            source.landed([one for one in own if one.record is not None])
            failed = [(one, one.error) for one in own if one.error is not None]
            if failed:
                source.store()
            if held_up := [(one.call, one.work) for one in own if one.record is None and one.error is None]:
                source.take_back(held_up, held_up=True)
            for one, error in failed:
                after = source.failed(one, error)
                pause = max(pause, after.pause_seconds)
                if after.calls_off:
                    self._call_off()
        if self.ended_by is None:
            if pause:
                self._run.stop.pause(pause)
        else:
            self._call_off()
            self._finish()

    def _store(self) -> None:
        for source in self._sources:
            source.store()

    def _finish(self) -> None:
        has_ended = self.ended_by is not None
        for source in self._sources:
            source.finish(has_ended=has_ended)

    def _call_off(self) -> None:
        """Keep calls from leaving that have not left yet."""
        called_off = self._calls.call_off()
        for source in self._sources:
            if own := [(one.call, one.work) for one in called_off if one.source is source]:
                source.take_back(own, held_up=False)

    def _let_go(self, error: BaseException) -> None:
        """Store what has come home, where it was a signal that ended the run; give back the rest."""
        asked_to_end = self._run.stop.requested.is_set()
        try:
            if asked_to_end:
                with suppress(psycopg.Error, AssetbatchError, Interrupted):
                    self._take_in(self._calls.landed())
                    self._store()
        finally:
            given_up = self._calls.give_up()
            self._give_back(error, patiently=not asked_to_end)
            with suppress(psycopg.Error, Interrupted):
                self._calls.write_down(given_up)

    def _give_back(self, error: BaseException, *, patiently: bool) -> None:
        """Write down that `error` ended the run, and give back all that it holds: that is nobody's fault.

        `patiently`: a database that is away is waited for. What cannot be given back runs out by itself.
        """
        with suppress(psycopg.Error, Interrupted):
            self._give_all_back(self._run.connection, error)
            return
        if self._reconnect is None:
            return
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

        with suppress(psycopg.Error, AssetbatchError, Interrupted):
            for attempt in Retrying(
                retry=retry_if_exception_type(Exception),
                stop=stop_after_delay(GIVE_BACK_SECONDS if patiently else 0.0),
                wait=wait_exponential(multiplier=0.2, max=2),
                reraise=True,
            ):
                with attempt, self._reconnect() as connection:
                    self._give_all_back(connection, error)

    def _give_all_back(self, connection: Connection, error: BaseException) -> None:
        # The end first: from then on, no claim of this run that is still on its way comes to anything.
        if self._is_all:
            runs.abandon(connection, self._run.id, error)
        leases.give_back(connection, self._run.id, has_ended=self._is_all)
