"""Every error that can end a command or a call, in one tree; those that never leave their room stand there.

    AssetbatchError                 1
    ├── ConfigurationError         78   one or more faults, each with its place
    ├── SchemaError                78   the database's schema is absent, too old or too new
    ├── SourceMismatchError        78   the database belongs to another source of prices
    ├── DatabaseUnavailableError   69
    ├── LeaseLostError             69   another run of the job has taken over
    ├── NoThreadError              69   the system gives the process no further thread
    ├── CallError           3, 69, 77   one call to the vendor; its kind says the rest
    └── AnswerLostError             3   stdout could not be written

    Interrupted         129, 130, 143   SIGHUP, SIGINT, SIGTERM; no Exception: who handles those lets it pass

Each carries a `reason` (what happened), a `hint` (what to do next) and the exit code of the command that it ends.
What a failed call or a failed row means for the run is decided here too, in one table: `KINDS`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_KEY_REFUSED = 77
EXIT_CONFIGURATION = 78


class AssetbatchError(Exception):
    """Something went wrong that the tool knows of."""

    exit_code = EXIT_BUG

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the configuration, and where: `place` is `config.yaml:12` or an environment name.

    `hint`: what to do next, where the message has not said it.
    """

    place: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.message) if part)


class ConfigurationError(AssetbatchError):
    """The configuration is wrong; carries all faults at once, one line each."""

    exit_code = EXIT_CONFIGURATION

    def __init__(self, faults: Sequence[Fault], *, hint: str = "") -> None:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        super().__init__("\n".join(map(str, faults)), hint=hint or "\n".join(hints))
        self.faults = tuple(faults)


class SchemaError(AssetbatchError):
    """The database's schema is absent, or of a version that this program does not work with."""

    exit_code = EXIT_CONFIGURATION


class SourceMismatchError(AssetbatchError):
    """The database was filled from another source: prices of two sources never mix."""

    exit_code = EXIT_CONFIGURATION


class DatabaseUnavailableError(AssetbatchError):
    """PostgreSQL could not be reached, after waiting for it."""

    exit_code = EXIT_UNAVAILABLE


class LeaseLostError(AssetbatchError):
    """The run stood still for so long that another one has taken over."""

    exit_code = EXIT_UNAVAILABLE


class NoThreadError(AssetbatchError):
    """The system gives the process no further thread: a limit of the user, the unit or the container is reached."""

    exit_code = EXIT_UNAVAILABLE

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(f"no thread could be started: {error}", hint=KINDS[FailureKind.NO_THREAD].hint)


class AnswerLostError(AssetbatchError):
    """What a command had to print could not be written; what it did before that is done."""

    exit_code = EXIT_PARTIAL

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"the answer could not be written: {error.strerror}", hint="see where stdout goes: is its disk full?"
        )
        self.is_unread = isinstance(error, BrokenPipeError)


class Interrupted(BaseException):
    """A signal asked the run to end."""

    hint = ""

    def __init__(self, signum: int) -> None:
        self.reason = f"ended by {signal.Signals(signum).name}"
        self.exit_code = 128 + signum
        super().__init__(self.reason)


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


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a kind of failure means: for the run, the call, the queue item, the asset's status, and for the reader."""

    hint: str = ""
    sync_status: SyncStatus = SyncStatus.FAILED
    fate: Fate = Fate.RETRY
    retry: bool = False
    """The same call is worth another slot in this run."""
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

NOT_THE_API = "what answered is not the API: check provider.base_url and any proxy"

KINDS: dict[FailureKind, Consequence] = {
    FailureKind.KEY_REFUSED: Consequence(
        "check POLYGON_API_KEY: the key is wrong, expired or revoked", fate=Fate.BACK, ends_run=True
    ),
    FailureKind.NOT_ENTITLED: Consequence(
        "set provider.plan (POLYGON_TIER) to what the key really has; `status` names the way to another plan",
        sync_status=SyncStatus.NOT_ENTITLED,
        fate=Fate.DEAD,
    ),
    FailureKind.TIMEFRAME: Consequence(
        "the plan does not reach back so far", sync_status=SyncStatus.NOT_ENTITLED, fate=Fate.DEAD
    ),
    FailureKind.NOT_YET: Consequence(
        "the day is not over for the vendor: it is asked again after an hour",
        sync_status=SyncStatus.NO_DATA,
        fate=Fate.BACK,
    ),
    FailureKind.EMPTY: Consequence(
        "a holiday, or the vendor is late: it is asked again after an hour",
        sync_status=SyncStatus.NO_DATA,
        fate=Fate.BACK,
    ),
    FailureKind.RATE_LIMITED: Consequence(
        "calls wait until the API allows them; a warning says if another program uses this key",
        fate=Fate.BACK,
        retry=True,
    ),
    FailureKind.NO_SLOT: Consequence(
        "the budget of calls is used up: the next run tries again", fate=Fate.BACK, ends_run=True
    ),
    FailureKind.NO_THREAD: Consequence(
        "raise the limit that is reached: pids of the container, TasksMax= of the unit, or processes of the user",
        fate=Fate.BACK,
        outage=True,
        ends_run=True,
    ),
    FailureKind.UNREACHABLE: Consequence(
        "check the network and provider.base_url", fate=Fate.BACK, retry=True, strike=True, outage=True
    ),
    FailureKind.TIMEOUT: Consequence(
        "the API is slow or stuck: the next run tries again", retry=True, strike=True, outage=True
    ),
    FailureKind.SERVER_ERROR: Consequence(
        "the API is in trouble: the next run tries again", retry=True, strike=True, outage=True
    ),
    FailureKind.BAD_REQUEST: Consequence("check polygon_ticker", fate=Fate.DEAD, halve=True),
    FailureKind.TOO_MANY: Consequence(
        "the API takes no call for so many assets: lower provider.batch_size", fate=Fate.BACK, halve=True
    ),
    FailureKind.NOT_FOUND: Consequence(
        "the ticker is unknown, or has no data now; if all fail so, check provider.base_url",
        sync_status=SyncStatus.NO_DATA,
        halve=True,
    ),
    FailureKind.UNKNOWN_TICKER: Consequence(
        "check polygon_ticker: the vendor does not know it", fate=Fate.DEAD, halve=True
    ),
    FailureKind.MISSING: Consequence(
        "check polygon_ticker: the vendor left it out of its answer", sync_status=SyncStatus.NO_DATA
    ),
    FailureKind.INVALID: Consequence("the vendor sent something that is no price; nothing was stored for it"),
    FailureKind.MALFORMED: Consequence(NOT_THE_API, fate=Fate.BACK, strike=True),
    FailureKind.TOO_LARGE: Consequence(NOT_THE_API, fate=Fate.BACK, strike=True),
    FailureKind.REDIRECTED: Consequence(
        "set provider.base_url to the API itself; redirects are not followed", fate=Fate.BACK, strike=True
    ),
    FailureKind.REFUSED_BY_DATABASE: Consequence("a constraint or trigger of the platform's own tables refused it"),
    FailureKind.REFUSED_BY_TABLE: Consequence(
        "the table's owner has to mend it: create the month's partition, or grant the privilege", fate=Fate.BACK
    ),
    FailureKind.LOCKED: Consequence(
        "another transaction keeps the row locked, pg_stat_activity shows whose: the next run tries again",
        fate=Fate.BACK,
    ),
    FailureKind.WORKER_LOST: Consequence("is memory short, or does something kill the jobs?"),
}


def kind_of(stored: str | None) -> FailureKind | None:
    """Return a kind of failure as it is stored; None where it is none, or one that a newer program knows."""
    return FailureKind(stored) if stored in set(FailureKind) else None


def hint_of(kind: str | None) -> str:
    """Return what mends a kind of failure, as it is stored; nothing where it is none."""
    known = kind_of(kind)
    return KINDS[known].hint if known else ""


class CallError(AssetbatchError):
    """A call to the vendor brought no usable answer; `KINDS[error.kind]` says what follows.

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
        super().__init__(reason, hint=KINDS[kind].hint)
        refused = kind is FailureKind.KEY_REFUSED
        self.exit_code = EXIT_KEY_REFUSED if refused else EXIT_UNAVAILABLE if KINDS[kind].outage else EXIT_PARTIAL
        self.kind = kind
        self.http_status = http_status
        self.sent = sent
        self.answered = answered
        self.retry_after_seconds = retry_after_seconds
