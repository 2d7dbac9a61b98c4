"""Time for a run: the database's clock decides, this host's own, which counts sleep, only carries it on."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from assetbatch.boottime import boot_time

if TYPE_CHECKING:
    from collections.abc import Callable

# A request that is on its way when the run is asked to end may still come home and be stored.
LAST_CHANCE_SECONDS = 1.0


class Clock:
    """What time it is by the database, from `started_at` on: its time when the run began."""

    def __init__(self, started_at: datetime) -> None:
        self.started_at = started_at
        # One value, so that a thread that reads it meanwhile has both of the same moment.
        self._basis = started_at, boot_time()

    def now(self) -> datetime:
        """Return the database's time, carried on by this host's `boot_time()`."""
        known, read_at = self._basis
        return known + timedelta(seconds=boot_time() - read_at)

    def set(self, now: datetime) -> None:
        """Go by what the database's clock has just told: two clocks drift apart in a run of days."""
        self._basis = now, boot_time()


class Stop:
    """A request to end the run: set by a signal, looked at wherever the run waits.

    `interrupt` makes the exception that ends it.
    """

    def __init__(self, interrupt: Callable[[], BaseException]) -> None:
        self.requested = threading.Event()
        self._interrupt = interrupt

    def check(self) -> None:
        """Raise if the run has been asked to end."""
        if self.requested.is_set():
            raise self._interrupt()

    def pause(self, seconds: float) -> None:
        """Sleep, but raise as soon as the run is asked to end."""
        self.requested.wait(seconds)
        self.check()

    def wait_for(self, event: threading.Event, seconds: float) -> None:
        """Wait for an event; once the run is asked to end, only a moment longer."""
        end = time.monotonic() + seconds
        while not event.wait(min(0.05, max(0.0, end - time.monotonic()))) and time.monotonic() < end:
            if self.requested.is_set():
                event.wait(LAST_CHANCE_SECONDS)
                return
