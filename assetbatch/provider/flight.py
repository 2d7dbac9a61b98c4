"""One request on its way: what the thread that makes it, and the one that waits for it, have to agree on."""

from __future__ import annotations

import math
import socket
import threading
from contextlib import suppress

from msgspec import Struct, field

from assetbatch.boottime import boot_time


class HeldUpError(Exception):
    """A request was held up for so long that it had no right to leave any more; it never left, and nobody is to blame.

    Its process was frozen, or stood at a lock; or another call was refused meanwhile as one too many. Who meant to send
    it asks for the right anew.
    """


class Flight(Struct):
    """One request on its way, seen by who asked, by the thread that makes it and by the connection that carries it.

    All its times are seconds of `boot_time()`: they pass while a laptop sleeps, as those of its slot do.
    """

    path: str
    seconds: float
    """How long it may take."""
    leave_by: float = math.inf
    """When the right to send it runs out."""
    brake: threading.Event = field(default_factory=threading.Event)
    """Set: none of the calls that share it leaves any more, since one of them was refused as one too many."""
    began: float = field(default_factory=boot_time)
    sent: bool = False
    given_up: bool = False
    through: socket.socket | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_late(self) -> bool:
        """Whether it may not leave any more."""
        return boot_time() > self.leave_by or self.brake.is_set()

    @property
    def is_over(self) -> bool:
        """Whether its time has passed."""
        return boot_time() > self.began + self.seconds or (not self.sent and self.is_late)

    @property
    def seconds_to_leave(self) -> float:
        """How long it may still be in leaving."""
        return 0.0 if self.is_late else max(0.0, min(self.leave_by, self.began + self.seconds) - boot_time())

    @property
    def seconds_left(self) -> float:
        """How long it may still take."""
        return max(0.0, self.began + self.seconds - boot_time())

    def leave(self, through: socket.socket) -> None:
        """Note that the request leaves now: the last look at the clock before the socket is written.

        Raises HeldUpError when the right to send it has run out, TimeoutError when nobody waits for it any more.
        """
        with self.lock:
            if self.is_late:
                raise HeldUpError
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
