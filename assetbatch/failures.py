"""What follows from a failed call, decided in one place: pure, from the kind of failure and what the call was for.

The policy of each kind stands in one table, `errors.KINDS`; a source of work carries out what `decide` says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto

from assetbatch.errors import KINDS, FailureKind, Fate

LONGEST_DELAY_SECONDS = 86_400.0


class Covers(Enum):
    """What a call was for."""

    ONE = auto()
    """The price of one asset."""
    SEVERAL = auto()
    """The prices of several assets, of which none came."""
    MARKET = auto()
    """A finished day of all assets of a market."""
    NEWEST_BARS = auto()
    OLD_BARS = auto()


class Then(Enum):
    """What becomes of what a failed call was for."""

    AGAIN = auto()
    """The same call, with another slot, after a pause."""
    HALVE = auto()
    """Two calls for half as many assets each."""
    GIVE_BACK = auto()
    """The failure says nothing about it: nobody is charged."""
    SUSPECT = auto()
    """Perhaps the API is in trouble: it is charged only once the API is seen to answer others."""
    POSTPONE = auto()
    """The vendor does not have it yet: asked again in an hour."""
    SKIP = auto()
    """The plan does not reach back to it: what comes after it is asked for."""
    FAIL = auto()
    """It is charged."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a failed call. `ends_run`: no further call of the run can fare better."""

    then: Then
    ends_run: bool = False


def decide(kind: FailureKind, covers: Covers, *, is_away: bool = False, tries_left: int = 0) -> Decision:
    """Return what follows from a failed call.

    `is_away`: so many calls failed in a row that the API seems to be away. `tries_left`: how often the run may make the
    same call again.
    """
    policy = KINDS[kind]
    if policy.retry and tries_left > 0:
        return Decision(Then.AGAIN)
    ends_run = policy.ends_run or (policy.strike and is_away)
    return Decision(_fate(kind, covers), ends_run)


def _fate(kind: FailureKind, covers: Covers) -> Then:
    policy = KINDS[kind]
    match covers:
        case Covers.MARKET:
            then = Then.GIVE_BACK
        case Covers.NEWEST_BARS | Covers.OLD_BARS:
            then = _fate_of_bars(kind, covers)
        case _ if policy.strike:
            # Where nothing was reached, it is all the same what was asked for.
            then = Then.GIVE_BACK if policy.outage and policy.fate is Fate.BACK else Then.SUSPECT
        case Covers.SEVERAL:
            then = Then.HALVE if policy.halve else Then.GIVE_BACK
        case Covers.ONE:
            then = Then.GIVE_BACK if policy.fate is Fate.BACK else Then.FAIL
    return then


def _fate_of_bars(kind: FailureKind, covers: Covers) -> Then:
    if kind is FailureKind.NOT_YET:
        return Then.POSTPONE
    if kind is FailureKind.TIMEFRAME and covers is Covers.OLD_BARS:
        return Then.SKIP
    policy = KINDS[kind]
    is_ours = policy.fate is Fate.BACK and not policy.strike
    return Then.GIVE_BACK if is_ours or kind is FailureKind.NOT_ENTITLED else Then.FAIL


def backoff_seconds(failures: int, first: float, longest: float = LONGEST_DELAY_SECONDS) -> float:
    """Return how long to wait after so many failures: `first`, doubled with each, and jitter of up to `first` / 4."""
    return min(first * 2.0 ** (failures - 1), longest) + random.uniform(0, first / 4)  # noqa: S311
