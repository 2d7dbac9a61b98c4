"""What may fail, what that means, and what follows: each kind of failure has one policy, and one function decides.

`decide` is pure: from the kind of failure, and what the call was for. A source of work carries out what it says.
"""

from __future__ import annotations

import random
from enum import Enum, StrEnum, auto

from msgspec import Struct

from assetbatch.errors import (
    EXIT_KEY_REFUSED,
    EXIT_PARTIAL,
    EXIT_UNAVAILABLE,
    NO_THREAD_HINT,
    AssetbatchError,
)

LONGEST_DELAY_SECONDS = 86_400.0


class FailureKind(StrEnum):
    """Why a call, or one asset of it, brought nothing; stored and printed as it stands."""

    KEY_REFUSED = "key_refused"
    NOT_ENTITLED = "not_entitled"
    TIMEFRAME = "timeframe"
    NOT_YET = "not_yet"
    EMPTY = "empty"
    RATE_LIMITED = "rate_limited"
    NO_SLOT = "no_slot"
    NO_THREAD = "no_thread"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    UNKNOWN_TICKER = "unknown_ticker"
    MISSING = "missing"
    INVALID = "invalid"
    TOO_MANY = "too_many_assets"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    REDIRECTED = "redirected"
    REFUSED_BY_DATABASE = "refused_by_database"
    REFUSED_BY_TABLE = "refused_by_table"
    LOCKED = "locked"
    WORKER_LOST = "worker_lost"


class SyncStatus(StrEnum):
    """The words of `data_sync_status.sync_status`."""

    SUCCESS = "success"
    FAILED = "failed"
    NO_DATA = "no_data"
    NOT_ENTITLED = "not_entitled"


class Fate(StrEnum):
    """What becomes of a queue item whose asset a call failed for alone."""

    RETRY = "retry"
    """It spends an attempt and goes back, behind the others; out of attempts, it is dead."""
    DEAD = "dead"
    """No further call can fare better."""
    BACK = "back"
    """The failure says nothing about the asset: it goes back, with all its attempts."""


class Policy(Struct, frozen=True):
    """What a kind of failure means: for the run, the call, the queue item, the asset's status, and for the reader."""

    hint: str = ""
    sync_status: SyncStatus = SyncStatus.FAILED
    fate: Fate = Fate.RETRY
    retry: bool = False
    """The same call is worth another slot in this run, where calls are made in order; a drain goes on after it."""
    halve: bool = False
    """A call for several assets that was refused as a whole condemns none: halve it until one stands alone."""
    strike: bool = False
    """Perhaps the API is in trouble, and not this call: so many in a row end the run."""
    outage: bool = False
    """Nobody answered: when nothing else was stored, the run ends with 69."""
    ends_run: bool = False
    """No further call can fare better."""


# Answers without a price, as the vendor gives them where a market rests; of an open market each means what it says.
WITHOUT_PRICE = frozenset({FailureKind.MISSING, FailureKind.INVALID, FailureKind.NOT_FOUND, FailureKind.UNKNOWN_TICKER})

# What a call for the day of one ticker means that brought none: said of the ticker and the day, as a row would say it.
OF_A_TICKERS_DAY = {
    FailureKind.EMPTY: FailureKind.MISSING,
    FailureKind.NOT_FOUND: FailureKind.MISSING,
    FailureKind.UNKNOWN_TICKER: FailureKind.MISSING,
    FailureKind.NOT_ENTITLED: FailureKind.NOT_ENTITLED,
}

NOT_THE_API = "what answered is not the API: check provider.base_url and any proxy"

POLICIES: dict[FailureKind, Policy] = {
    FailureKind.KEY_REFUSED: Policy(
        "check POLYGON_API_KEY: the key is wrong, expired or revoked", fate=Fate.BACK, ends_run=True
    ),
    FailureKind.NOT_ENTITLED: Policy(
        "set provider.plan (POLYGON_TIER), or what provider.plans says of that market, to what the key really has;"
        " `status` names the way to another plan",
        sync_status=SyncStatus.NOT_ENTITLED,
        fate=Fate.DEAD,
    ),
    FailureKind.TIMEFRAME: Policy(
        "the plan does not reach back so far", sync_status=SyncStatus.NOT_ENTITLED, fate=Fate.DEAD
    ),
    FailureKind.NOT_YET: Policy(
        "the day is not over for the vendor: it is asked again after an hour",
        sync_status=SyncStatus.NO_DATA,
        fate=Fate.BACK,
    ),
    FailureKind.EMPTY: Policy(
        "a holiday, or the vendor is late: it is asked again after an hour",
        sync_status=SyncStatus.NO_DATA,
        fate=Fate.BACK,
    ),
    FailureKind.RATE_LIMITED: Policy(
        "calls wait until the API allows them; a warning says if another program uses this key",
        fate=Fate.BACK,
        retry=True,
    ),
    FailureKind.NO_SLOT: Policy(
        "the budget of calls is used up: the next run tries again", fate=Fate.BACK, ends_run=True
    ),
    FailureKind.NO_THREAD: Policy(
        NO_THREAD_HINT,
        fate=Fate.BACK,
        outage=True,
        ends_run=True,
    ),
    FailureKind.UNREACHABLE: Policy(
        "check the network and provider.base_url", fate=Fate.BACK, retry=True, strike=True, outage=True
    ),
    FailureKind.TIMEOUT: Policy(
        "the API is slow or stuck: the next run tries again", retry=True, strike=True, outage=True
    ),
    FailureKind.SERVER_ERROR: Policy(
        "the API is in trouble: the next run tries again", retry=True, strike=True, outage=True
    ),
    FailureKind.BAD_REQUEST: Policy("check polygon_ticker", fate=Fate.DEAD, halve=True),
    FailureKind.TOO_MANY: Policy(
        "the API takes no call for so many assets: lower provider.batch_size", fate=Fate.BACK, halve=True
    ),
    FailureKind.NOT_FOUND: Policy(
        "the ticker is unknown, or has no data now; if all fail so, check provider.base_url",
        sync_status=SyncStatus.NO_DATA,
        halve=True,
    ),
    FailureKind.UNKNOWN_TICKER: Policy("check polygon_ticker: the vendor does not know it", fate=Fate.DEAD, halve=True),
    FailureKind.MISSING: Policy(
        "check polygon_ticker: the vendor left it out of its answer", sync_status=SyncStatus.NO_DATA
    ),
    FailureKind.INVALID: Policy("the vendor sent something that is no price; nothing was stored for it"),
    FailureKind.MALFORMED: Policy(NOT_THE_API, fate=Fate.BACK, strike=True),
    FailureKind.TOO_LARGE: Policy(NOT_THE_API, fate=Fate.BACK, strike=True),
    FailureKind.REDIRECTED: Policy(
        "set provider.base_url to the API itself; redirects are not followed", fate=Fate.BACK, strike=True
    ),
    FailureKind.REFUSED_BY_DATABASE: Policy("a constraint or trigger of the platform's own tables refused it"),
    FailureKind.REFUSED_BY_TABLE: Policy(
        "the table's owner has to mend it: create the month's partition, or grant the privilege", fate=Fate.BACK
    ),
    FailureKind.LOCKED: Policy(
        "another transaction keeps the row locked, pg_stat_activity shows whose: the next run tries again",
        fate=Fate.BACK,
    ),
    FailureKind.WORKER_LOST: Policy("is memory short, or does something kill the jobs?"),
}


def kind_of(stored: str | None) -> FailureKind | None:
    """Return a kind of failure as it is stored; None where it is none, or one that a newer program knows."""
    return FailureKind(stored) if stored in set(FailureKind) else None


def hint_of(kind: str | None) -> str:
    """Return what mends a kind of failure, as it is stored; nothing where it is none."""
    known = kind_of(kind)
    return POLICIES[known].hint if known else ""


class CallError(AssetbatchError):
    """A call to the vendor brought no usable answer; `POLICIES[error.kind]` says what follows.

    `sent` is False when no byte of the request left this machine, so that the vendor cannot have counted it;
    `answered` is True when the vendor's answer arrived, so that it has counted it by now.
    """

    def __init__(
        self,
        kind: FailureKind,
        reason: str,
        *,
        http_status: int | None = None,
        sent: bool = True,
        answered: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason, hint=POLICIES[kind].hint)
        refused = kind is FailureKind.KEY_REFUSED
        self.exit_code = EXIT_KEY_REFUSED if refused else EXIT_UNAVAILABLE if POLICIES[kind].outage else EXIT_PARTIAL
        self.kind = kind
        self.http_status = http_status
        self.sent = sent
        self.answered = answered
        self.retry_after_seconds = retry_after_seconds


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


class Decision(Struct, frozen=True):
    """What follows from a failed call. `ends_run`: no further call of the run can fare better."""

    then: Then
    ends_run: bool = False


def decide(kind: FailureKind, covers: Covers, *, is_away: bool = False, tries_left: int = 0) -> Decision:
    """Return what follows from a failed call.

    `is_away`: so many calls failed in a row that the API seems to be away. `tries_left`: how often the run may make the
    same call again.
    """
    policy = POLICIES[kind]
    if policy.retry and tries_left > 0:
        return Decision(Then.AGAIN)
    ends_run = policy.ends_run or (policy.strike and is_away)
    return Decision(_fate(kind, covers), ends_run)


def _fate(kind: FailureKind, covers: Covers) -> Then:
    policy = POLICIES[kind]
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
    policy = POLICIES[kind]
    is_ours = policy.fate is Fate.BACK and not policy.strike
    return Then.GIVE_BACK if is_ours or kind is FailureKind.NOT_ENTITLED else Then.FAIL


def backoff_seconds(failures: int, first: float, longest: float = LONGEST_DELAY_SECONDS) -> float:
    """Return how long to wait after so many failures: `first`, doubled with each, and jitter of up to `first` / 4."""
    return min(first * 2.0 ** (failures - 1), longest) + random.uniform(0, first / 4)  # noqa: S311
