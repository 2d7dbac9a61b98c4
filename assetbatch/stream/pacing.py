"""How a connection ends, and how long to wait before the next one."""

from __future__ import annotations

import math
import random
import time
from enum import StrEnum

from msgspec import Struct

# Any end is followed by another attempt, ever later: from the first pause to the longest.
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
# Only a connection that lasted for so long, and brought data, begins anew with the first pause.
STEADY_SECONDS = 10.0
# Another connection of the account took the place: to take it back at once would be a war.
REST_SECONDS = 60.0
LONGEST_REST_SECONDS = 900.0
# What a plan or a key was refused is asked for again.
REFUSED_SECONDS = 3600.0


class Cause(StrEnum):
    """Why a connection ended, or did not come about."""

    UNREACHABLE = "unreachable"
    MUTE = "mute"
    """It did not answer in time."""
    SILENT = "silent"
    """Nothing came though the market is open."""
    CLOSED = "closed"
    DROPPED = "dropped"
    ENDED = "ended"
    """The vendor said why it ends it."""
    TOO_MANY = "too_many"
    REFUSED_KEY = "refused_key"
    REFUSED_PLAN = "refused_plan"
    HALTED = "halted"
    """It was we who ended it."""


REFUSED = frozenset({Cause.REFUSED_KEY, Cause.REFUSED_PLAN})


class Ending(Struct, frozen=True):
    """How a connection ended; `had_data`: it had brought a price or a bar."""

    cause: Cause
    words: str
    lasted_seconds: float = 0.0
    had_data: bool = False

    @property
    def was_steady(self) -> bool:
        """Whether the connection was a good one until then."""
        return self.had_data and self.lasted_seconds >= STEADY_SECONDS


class Pacing:
    """The pauses between the connections of one cluster, whichever feed makes them."""

    def __init__(self) -> None:
        self.not_before = -math.inf
        """Until then (monotonic) no connection is to be made."""
        self._failures = 0
        self._evictions = 0

    def pause(self, ending: Ending) -> float:
        """Return how many seconds to wait after a connection that ended so; `not_before` goes by that."""
        seconds = self._pause(ending)
        self.not_before = time.monotonic() + seconds
        return seconds

    def _pause(self, ending: Ending) -> float:
        if ending.cause in REFUSED:
            return REFUSED_SECONDS
        if ending.cause is Cause.TOO_MANY:
            # One that held on for longer than the longest rest is no sign of a war.
            self._evictions = 0 if ending.lasted_seconds > LONGEST_REST_SECONDS else self._evictions
            self._evictions += 1
            rest: float = min(REST_SECONDS * 2 ** (self._evictions - 1), LONGEST_REST_SECONDS)
            return rest * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
        self._failures = 1 if ending.was_steady else self._failures + 1
        longest: float = min(FIRST_SECONDS * 2 ** (self._failures - 1), LONGEST_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
