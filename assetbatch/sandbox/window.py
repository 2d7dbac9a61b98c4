"""The strict sliding window: what the server counts, and when."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock

from msgspec import Struct


class Arrival(Struct):
    """One request, as the strict server counted it.

    `at` is `time.monotonic()`, stamped under the lock that counts; `path` has its query (a key in it is
    masked), never a header; `status` is the HTTP status answered, 0 while (or because) nothing was.
    """

    at: float
    path: str
    status: int


class Window:
    """Lets a request in when fewer than `limit` of those let in arrived in (now - window, now].

    Every request counts but those it refuses, whatever they are answered: nobody documents that a 401 or a
    404 is free, so the strict reading is to count them. `limit` None counts nothing and refuses nothing.
    """

    def __init__(self, limit: int | None, window_seconds: float, *, keep_arrivals: bool) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a limit of {limit} lets nothing in: give at least 1, or none for unlimited")
        if window_seconds <= 0:
            raise ValueError(f"a window of {window_seconds} s is no window")
        self.arrivals: list[Arrival] = []
        self._limit = limit
        self._window_seconds = window_seconds
        self._keep_arrivals = keep_arrivals
        self._counted: deque[float] = deque()
        self._lock = Lock()

    def arrive(self, path: str, *, counts: bool = True) -> tuple[Arrival, bool]:
        """Stamp a request and say whether it is let in, as one that does not count is; a refused one is a 429."""
        with self._lock:
            now = time.monotonic()
            accepted = not counts or self._count(now)
            arrival = Arrival(now, path, 0 if accepted else 429)
            if self._keep_arrivals:
                self.arrivals.append(arrival)
        return arrival, accepted

    def answered(self, arrival: Arrival, status: int) -> None:
        """Note what a request that was let in is answered, before the answer is sent."""
        arrival.status = status

    def _count(self, now: float) -> bool:
        if self._limit is None:
            return True
        while self._counted and self._counted[0] <= now - self._window_seconds:
            self._counted.popleft()
        if len(self._counted) >= self._limit:
            return False
        self._counted.append(now)
        return True
