"""One call after another, or several at once: slot -> request -> slot told -> record.

Each call takes a slot of the budget, leaves in a thread of its own, and comes home; the one thread that waits for them
alone asks the database. Whoever waits for a slot is told first.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from msgspec import Struct
from msgspec.structs import replace

from assetbatch.database import runs
from assetbatch.database.rate_limit import Outcome, RateLimiter, key_fingerprint
from assetbatch.failures import POLICIES, CallError
from assetbatch.markets import TRAITS
from assetbatch.provider.client import Client
from assetbatch.provider.flight import HeldUpError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from tenacity import Retrying

    from assetbatch.database.query import Query
    from assetbatch.database.rate_limit import Lane, Slot
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Call
    from assetbatch.provider.client import Asked
    from assetbatch.provider.request import Request

log = logging.getLogger(__name__)
A = TypeVar("A")

HTTP_OK = 200
# So many calls in a row that fail as if the API were away: no other one would fare better.
STRIKES = 3
# How often a call is made that fails as if it might fare better at once.
ATTEMPTS = 3
# How long at most to wait for an answer before leases are looked after.
PATIENCE_SECONDS = 1.0


class InFlight(Struct, frozen=True):
    """A call under way, and the work that it is for: what its source knows it by."""

    call: Call
    source: Any
    work: Any
    slot: Slot
    client: Client
    asked: Asked[Any]
    began_at: datetime
    began: float
    """The same as monotonic time."""


class Landed(Struct, frozen=True):
    """A call that came home.

    It has an answer and its record, to be written with what it brought; or an error, which is written down already; or
    neither: it was held up and never left, and nobody is to blame.
    """

    call: Call
    source: Any
    work: Any
    began_at: datetime
    answer: Any = None
    record: runs.CallRecord | None = None
    error: CallError | None = None


class Calls:
    """The calls of one run, as many at once as it has clients."""

    def __init__(self, run: Run, lane: Lane, *, clients: int = 1) -> None:
        api_key = run.config.require_api_key().reveal()
        self._run = run
        self.limiter = RateLimiter(
            run.connection,
            key=key_fingerprint(api_key),
            host=run.host,
            rules=run.rules,
            lane=lane,
            pause=self.pause,
        )
        provider = run.config.settings.provider
        self._idle = [
            Client(
                base_url=provider.base_url,
                api_key=api_key,
                connect_timeout_seconds=provider.connect_timeout_seconds,
                timeout_seconds=provider.timeout_seconds,
            )
            for _ in range(clients)
        ]
        self.under_way: list[InFlight] = []
        self._something_landed = threading.Event()
        self._brake = threading.Event()

    def warm_up(self) -> None:
        """Get ready to send."""
        for client in self._idle:
            client.warm_up()

    @property
    def free(self) -> int:
        """How many more calls may begin."""
        return len(self._idle)

    def left(self, max_calls: int | None) -> float:
        """Return how many more requests may be made that take a slot, of so many in all; None: no bound."""
        if max_calls is None:
            return math.inf
        return max_calls - self._run.cost.slots_used - sum(one.slot.token is not None for one in self.under_way)

    def takes_slot(self, types: Iterable[AssetType]) -> bool:
        """Return whether calls about these types (none: any) are limited."""
        return self.limiter.takes_slot({TRAITS[one].product for one in types})

    def serves(self, slot: Slot, types: Iterable[AssetType]) -> bool:
        """Return whether a slot does for a call about these types: what is none does not where there is a limit."""
        return slot.token is not None or not self.takes_slot(types)

    def api_is_away(self) -> bool:
        """Return whether so many calls in a row failed that no other one would fare better."""
        return runs.is_struck(self._run.connection, times=STRIKES)

    def pause(self, seconds: float) -> None:
        """Sleep, but raise as soon as the run is asked to end; keep the right to run."""
        self._run.stop.pause(seconds)
        self.keep_lease()

    def keep_lease(self, *queries: Query[Any]) -> None:
        """Keep the right to run for at least as long as a call takes; ask these with it. Raises LeaseLostError."""
        if self._run.lease is not None:
            self._run.lease.keep(*queries, lasting=self._run.rules.hold_seconds)
        else:
            self._run.connection.ask(*queries)

    def acquire(
        self,
        *,
        max_wait_seconds: float,
        types: Iterable[AssetType] = (),
        calls_after: int = 0,
        calls: int = 1,
    ) -> Slot:
        """Wait for a slot for a call about these types (none: any). Raises CallError (no_slot) if it takes too long."""
        self._run.stop.check()
        began = time.monotonic()
        try:
            return self.limiter.acquire(
                max_wait_seconds=max_wait_seconds,
                calls_after=calls_after,
                calls=calls,
                products={TRAITS[one].product for one in types},
                lease=self._run.lease,
            )
        finally:
            waited = time.monotonic() - began
            self._run.cost.waited_seconds += waited
            self._run.cost.long_waits += waited > self._run.config.settings.rate_limiting.reservation_grace_seconds

    def begin(
        self,
        request: Request[Any],
        slot: Slot,
        *,
        source: Any = None,
        work: Any = None,
        leave_by: float = math.inf,
        after_seconds: float = 0.0,
    ) -> None:
        """Send a call that has its slot, after a pause of so many seconds.

        It leaves while it has its slot, the run its job, and by `leave_by` (`boot_time()`), or not at all; nor once
        another one was refused as one too many, until what has not left is called off.
        """
        lease = self._run.lease
        until = min(slot.send_by, leave_by, math.inf if lease is None else lease.until)
        client = self._idle.pop()
        asked = client.begin(
            request,
            self._something_landed.set,
            leave_by=until + after_seconds,
            after_seconds=after_seconds,
            brake=self._brake,
        )
        began_at, began = self._run.clock.now(), time.monotonic() + after_seconds
        self.under_way.append(InFlight(request.call, source, work, slot, client, asked, began_at, began))

    def land(self, seconds: float) -> list[Landed]:
        """Wait for answers, for so long; return what came home, and give up what takes too long.

        Raises when the run is asked to end, where nothing is under way; else what is may come home yet.
        """
        if not self.under_way:
            self._run.stop.pause(seconds)
            return []
        flights = [one.asked.flight for one in self.under_way]
        left = min(flight.seconds_left if flight.sent else flight.seconds_to_leave for flight in flights)
        self._run.stop.wait_for(self._something_landed, min(seconds, left))
        return self.landed()

    def ask(self, request: Request[A], *, max_wait_seconds: float) -> A:
        """Take a slot for a call, make it, alone, and write it down. Raises CallError."""
        end = time.monotonic() + max_wait_seconds
        try:
            while True:
                slot = self.acquire(max_wait_seconds=end - time.monotonic(), types=request.call.types)
                self.begin(request, slot)
                while not (landed := self.land(PATIENCE_SECONDS)):
                    self._run.stop.check()
                (one,) = landed
                if one.error is not None:
                    # What is given up because the run is to end says nothing about the API.
                    self._run.stop.check()
                    raise one.error
                if one.record is not None:
                    self._run.connection.ask(runs.recording([one.record]))
                    answer: A = one.answer
                    return answer
        except BaseException:
            with suppress(psycopg.Error):
                self.write_down(self.give_up())
            raise

    def patiently(self) -> Retrying:
        """Make a call again where that may help, ATTEMPTS times. Raises the last error."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

        return Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, CallError) and POLICIES[error.kind].retry),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=0.5, max=5) + wait_random(0, 0.5),
            sleep=self._run.stop.pause,
            reraise=True,
        )

    def landed(self) -> list[Landed]:
        """Return what came home, without waiting, and what takes too long."""
        self._something_landed.clear()
        landed = [one for one in self.under_way if one.asked.has_landed or one.asked.flight.is_over]
        for one in landed:
            self.under_way.remove(one)
            self._idle.append(one.client)
        return [self._finish(one) for one in landed]

    def _finish(self, one: InFlight) -> Landed:
        landed = Landed(one.call, one.source, one.work, one.began_at)
        try:
            answer = one.client.finish(one.asked, now=self._run.clock.now())
        except HeldUpError:
            log.info("a call was held up until its slot was too old: it is given back, and another one is asked for")
            self.limiter.release(one.slot, Outcome.UNSENT)
            return landed
        except CallError as error:
            self._run.connection.ask(runs.recording([self._told(one, Outcome.of(error), error)]))
            return replace(landed, error=error)
        return replace(landed, answer=answer, record=self._told(one, Outcome.OK))

    def _told(self, one: InFlight, outcome: Outcome, error: CallError | None = None) -> runs.CallRecord:
        """Tell the slot what became of its call, before anything else: others wait for it. Return the call's record."""
        call, slot, latency = one.call, one.slot, time.monotonic() - one.began
        foreseen = self.limiter.release(slot, outcome, retry_after_seconds=error.retry_after_seconds if error else None)
        self._run.cost.calls_used += outcome is not Outcome.UNSENT
        self._run.cost.slots_used += outcome is not Outcome.UNSENT and slot.token is not None
        if outcome is Outcome.LIMITED:
            self._run.cost.refusals += 1
            if not foreseen and slot.calls_in_window is not None:
                self._run.cost.unforeseen.append(slot.calls_in_window)
        record = runs.CallRecord(
            run_id=self._run.id,
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

    def call_off(self) -> list[InFlight]:
        """Keep those that have not left yet from leaving; return them, and what left just then."""
        waiting = [one for one in self.under_way if not one.asked.flight.sent]
        for one in waiting:
            one.client.give_up(one.asked)
            self.under_way.remove(one)
            self._idle.append(one.client)
        self._brake = threading.Event()
        self.write_down([one for one in waiting if one.asked.flight.sent])
        for one in waiting:
            if not one.asked.flight.sent:
                self.limiter.release(one.slot, Outcome.UNSENT)
        return waiting

    def give_up(self) -> list[InFlight]:
        """Wait for none of them any longer; return them, for `write_down`."""
        given_up, self.under_way = self.under_way, []
        for one in given_up:
            one.client.give_up(one.asked)
        return given_up

    def write_down(self, given_up: Sequence[InFlight]) -> None:
        """Tell the slots of calls whose answers nobody waits for any more, and write them down."""
        records = [self._told(one, Outcome.UNKNOWN if one.asked.flight.sent else Outcome.UNSENT) for one in given_up]
        if records:
            self._run.connection.ask(runs.recording(records))
