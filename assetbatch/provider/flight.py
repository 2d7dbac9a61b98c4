"""One request on its way: what the thread that makes it, and the one that waits for it, have to agree on."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Flight:
    """One request on its way, seen by who asked, by the thread that makes it and by the connection that carries it."""

    path: str
    seconds: float
    """How long it may take, counting the time that a laptop sleeps: its slot of the budget waits no longer either."""
    began: float = field(default_factory=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    sent: bool = False
    given_up: bool = False
    through: socket.socket | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether its time has passed."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) > self.began + self.seconds

    def leave(self, through: socket.socket) -> None:
        """Note that the request leaves now. Raises TimeoutError when nobody waits for it any more."""
        with self.lock:
            if self.given_up or self.is_over:
                raise TimeoutError("the time was over before the request left")
            self.sent = True
            self.through = through

    def give_up(self) -> None:
        """Wait no longer: what has not left never leaves, so that `sent` is final, and what is under way is cut."""
        with self.lock:
            self.given_up = True
        if isinstance(self.through, socket.socket):
            # Wakes the thread, which an endless answer would keep busy; closing is left to it. TCP's own shutdown:
            # that of an SSLSocket takes the encryption away from under the thread.
            with suppress(OSError):
                socket.socket.shutdown(self.through, socket.SHUT_RDWR)
