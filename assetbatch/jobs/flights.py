"""Several calls under way at once, each in a thread of its own, seen by the one thread that waits for them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assetbatch.errors import CallError
from assetbatch.provider import endpoints
from assetbatch.provider.flight import HeldUpError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from assetbatch.database.queue import Item
    from assetbatch.database.rate_limit import Slot
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.clock import Clock, Stop
    from assetbatch.model import Call
    from assetbatch.provider.client import Asked, Client
    from assetbatch.provider.request import Request
    from assetbatch.provider.results import Answers, Page


@dataclass(frozen=True, slots=True)
class Flying:
    """A call under way, and the items that it covers, or the bars that it is for."""

    call: Call
    items: tuple[Item, ...]
    bars: BarCall | None
    slot: Slot
    client: Client
    asked: Asked[Answers | Page]
    began_at: datetime
    began: float
    """The same as monotonic time."""


class Flights:
    """As many calls at once as there are clients."""

    def __init__(self, clients: Sequence[Client], clock: Clock, stop: Stop) -> None:
        self._idle = list(clients)
        self._flying: list[Flying] = []
        self._clock = clock
        self._stop = stop
        self._something_landed = threading.Event()
        self._brake = threading.Event()

    @property
    def free(self) -> int:
        """How many more calls may begin."""
        return len(self._idle)

    def __len__(self) -> int:
        """How many calls are under way."""
        return len(self._flying)

    def __iter__(self) -> Iterator[Flying]:
        """Go through the calls under way."""
        return iter(self._flying)

    def begin(
        self,
        call: Call,
        items: tuple[Item, ...],
        slot: Slot,
        *,
        leave_by: float,
        after_seconds: float = 0.0,
        bars: BarCall | None = None,
    ) -> None:
        """Send a call, after a pause of so many seconds; past `leave_by` and that pause it does not leave.

        Nor does it once another one was refused as one too many, until what has not left is called off.
        """
        client = self._idle.pop()
        request: Request[Answers | Page] = endpoints.prices(call) if bars is None else endpoints.bars(call)
        asked = client.begin(
            request,
            self._something_landed.set,
            leave_by=leave_by + after_seconds,
            after_seconds=after_seconds,
            brake=self._brake,
        )
        self._flying.append(
            Flying(call, items, bars, slot, client, asked, self._clock.now(), time.monotonic() + after_seconds)
        )

    def warm_up(self) -> None:
        """Get ready to send."""
        for client in self._idle:
            client.warm_up()

    def land(self, seconds: float) -> list[tuple[Flying, Answers | Page | CallError | HeldUpError]]:
        """Wait for answers, for so long; return what came home, and give up what takes too long.

        Raises when the run is asked to end, where nothing is under way; else what is may come home yet.
        """
        if not self._flying:
            self._stop.pause(seconds)
            return []
        self._stop.wait_for(self._something_landed, seconds)
        return self.landed()

    def landed(self) -> list[tuple[Flying, Answers | Page | CallError | HeldUpError]]:
        """Return what came home, without waiting, and what takes too long."""
        self._something_landed.clear()
        landed = [one for one in self._flying if one.asked.has_landed or one.asked.flight.is_over]
        for one in landed:
            self._flying.remove(one)
            self._idle.append(one.client)
        return [(one, self._finish(one)) for one in landed]

    def _finish(self, one: Flying) -> Answers | Page | CallError | HeldUpError:
        try:
            return one.client.finish(one.asked, now=self._clock.now())
        except (CallError, HeldUpError) as error:
            return error

    def call_off(self) -> list[Flying]:
        """Keep those that have not left yet from leaving; return them, and what left just then."""
        waiting = [one for one in self._flying if not one.asked.flight.sent]
        for one in waiting:
            one.client.give_up(one.asked)
            self._flying.remove(one)
            self._idle.append(one.client)
        self._brake = threading.Event()
        return waiting

    def give_up(self) -> list[Flying]:
        """Wait for none of them any longer; return them."""
        given_up, self._flying = self._flying, []
        for one in given_up:
            one.client.give_up(one.asked)
        return given_up
