"""The budget of calls, shared by all processes and hosts that use a key; design and proof: functions/rate_limit.sql.

    slot = limiter.acquire(max_wait_seconds=60)
    ... send, by `slot.send_by`; read the answer ...
    limiter.release(slot, Outcome.OK)

The database alone decides who may send when; a process only sleeps for as long as it is told, by its monotonic clock.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from msgspec import Struct, field
from msgspec.structs import asdict

from assetbatch.boottime import boot_time
from assetbatch.database.query import Query, command
from assetbatch.database.rows import one
from assetbatch.errors import LeaseLostError
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Product

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime
    from uuid import UUID

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.leases import Lease
    from assetbatch.model import AssetType

log = logging.getLogger(__name__)

ACQUIRE = """
select verdict, token, ticket, wait_seconds, calls_in_window
from assetbatch.acquire_slot(
  %(key)s, %(host)s,
  %(max_calls)s::int, %(window_seconds)s::float8, %(margin_seconds)s::float8, %(min_spacing_seconds)s::float8,
  %(max_calls_per_second)s::float8, %(hold)s::float8, %(lane)s, %(ticket)s::bigint, %(max_wait)s::float8,
  %(calls_after)s::int, %(calls)s::int, %(token)s::uuid, %(products)s::text[], %(exempts)s::text[]
)
"""

RELEASE = """
select known, foreseen
from assetbatch.release_slot(%(key)s, %(token)s::uuid, %(outcome)s, %(retry_after)s::float8)
"""

WITHDRAW = "delete from assetbatch.rate_limit_waiters where key_fingerprint = %(key)s and ticket = %(ticket)s"

FORESEE = """
update assetbatch.rate_limits
set running_calls = 0, running_until = 'epoch', foreseen_calls = %(calls)s, foreseen_due = %(due)s,
    priority_every = make_interval(secs => %(every)s), priority_grace = make_interval(secs => %(grace)s),
    priority_seen_at = clock_timestamp()
where key_fingerprint = %(key)s
"""

# From the grant of a slot to when its request has left: for the grant's way here, a claim, and connecting.
LEAVE_SECONDS = 10


class Lane(StrEnum):
    """Who goes first."""

    PRIORITY = "priority"
    QUEUE = "queue"


class Outcome(StrEnum):
    """What became of a request, as far as the vendor's count goes."""

    OK = "ok"
    UNSENT = "unsent"
    UNKNOWN = "unknown"
    LIMITED = "limited"

    @classmethod
    def of(cls, error: CallError) -> Outcome:
        """Return the outcome of a call that failed."""
        if error.kind is FailureKind.RATE_LIMITED:
            return cls.LIMITED
        if not error.sent:
            return cls.UNSENT
        return cls.OK if error.answered else cls.UNKNOWN


class Rules(Struct, frozen=True):
    """The limit as this host's configuration has it; where hosts disagree, the strictest holds."""

    max_calls: int | None
    window_seconds: float
    margin_seconds: float
    min_spacing_seconds: float
    max_calls_per_second: float | None
    request_seconds: float
    """The most that a request takes, from connecting to its last byte."""
    exempts: list[str] = field(default_factory=list)
    """Products whose calls are without limit, though others' are not."""

    @property
    def hold_seconds(self) -> float:
        """From the grant of a slot to the last instant at which its request can still be counted."""
        return self.request_seconds + LEAVE_SECONDS


def rules_of(config: Config, types: Iterable[AssetType]) -> Rules:
    """Return the limit that the configuration asks for, where there are assets of these types."""
    provider, limits = config.settings.provider, config.settings.rate_limiting
    return Rules(
        max_calls=config.calls_per_window(types),
        exempts=[product.value for product in Product if config.limit_of(product) is None],
        window_seconds=limits.window_seconds,
        margin_seconds=limits.margin_seconds,
        min_spacing_seconds=limits.min_spacing_seconds,
        max_calls_per_second=provider.max_calls_per_second,
        request_seconds=provider.connect_timeout_seconds + provider.timeout_seconds,
    )


class Slot(Struct, frozen=True):
    """Permission to send `calls` requests, the first one now and each other `spacing_seconds` after the one before.

    It is one request where there is a limit; `token` is None on an unlimited plan, as long as the server does not count
    all the same.
    """

    token: UUID | None
    calls: int
    spacing_seconds: float
    waited_seconds: float
    calls_in_window: int | None
    send_by: float
    """Until when the first request may leave, as `boot_time()`: later, the slot may be another's."""


def key_fingerprint(api_key: str) -> str:
    """Name a key in the database without telling it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:16]


def key_of(config: Config) -> str | None:
    """Return the fingerprint of the configured key; None: there is none."""
    return None if config.api_key is None else key_fingerprint(config.api_key.reveal())


class RateLimiter:
    """Slots for one process: `pause(seconds)` sleeps, or does something of use, and may raise to end the run."""

    def __init__(
        self,
        connection: Connection,
        *,
        key: str,
        host: str,
        rules: Rules,
        lane: Lane,
        pause: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._key = key
        self._host = host
        self.rules = rules
        self._lane = lane
        self.pause = pause
        self._refusals = 0

    def acquire(
        self,
        *,
        max_wait_seconds: float = math.inf,
        calls_after: int = 0,
        calls: int = 1,
        products: Collection[Product] = (),
        lease: Lease | None = None,
    ) -> Slot:
        """Wait for a slot, where `products` (none: of any) are without limit for `calls` of them.

        `calls_after` tells how many calls this run still means to make after this one. The `lease` is kept for as long
        as a call takes. Raises CallError (no_slot) at once when it would take longer than `max_wait_seconds`, or when
        that is negative, and LeaseLostError.
        """
        if max_wait_seconds < 0:
            raise CallError(FailureKind.NO_SLOT, "the time in which calls may begin is over", sent=False)
        started = time.monotonic()
        ticket = None
        # Who does not mean to wait is told the whole time until a call is free, and who waits, when to ask again.
        turn_at = None if self.takes_slot(products) else started
        try:
            while True:
                asked_at, refusals = boot_time(), self._refusals
                left = max_wait_seconds - (time.monotonic() - started)
                answer = self._ask(
                    ticket, 0.0 if turn_at is None else left, calls_after, calls, products=products, lease=lease
                )
                ticket = answer["ticket"]
                if answer["verdict"] == "refused" and turn_at is None and answer["wait_seconds"] <= left:
                    turn_at = time.monotonic() + answer["wait_seconds"]
                    continue
                if answer["verdict"] == "refused":
                    raise CallError(
                        FailureKind.NO_SLOT,
                        f"no call is free for another {answer['wait_seconds']:.0f} s",
                        sent=False,
                    )
                if answer["wait_seconds"] > 0:
                    whole = max((turn_at or 0) - time.monotonic(), answer["wait_seconds"])
                    log.info("waiting %.0f s for a call", whole, extra={"counts_down": True})
                    self.pause(answer["wait_seconds"])
                # What was granted for later, without a slot, is void after a refusal meanwhile.
                if answer["verdict"] == "granted" and refusals == self._refusals:
                    slot = self._slot(answer, asked_at, time.monotonic() - started, calls)
                    if self._is_in_time(slot, max_wait_seconds):
                        return slot
        except BaseException:
            if ticket is not None:
                with suppress(psycopg.Error):
                    self._connection.execute(WITHDRAW, {"key": self._key, "ticket": ticket})
            raise

    def _slot(self, answer: Row, asked_at: float, waited_seconds: float, calls: int) -> Slot:
        token, a_second = answer["token"], self.rules.max_calls_per_second
        return Slot(
            token=token,
            calls=1 if token else calls,
            spacing_seconds=0 if token or not a_second else 1 / a_second,
            waited_seconds=waited_seconds,
            calls_in_window=answer["calls_in_window"],
            # Asked before the grant, and its turn comes `wait_seconds` after that.
            send_by=asked_at + answer["wait_seconds"] + LEAVE_SECONDS,
        )

    def _is_in_time(self, slot: Slot, max_wait_seconds: float) -> bool:
        """Return whether a slot can still be used; one that cannot is given back."""
        if boot_time() <= slot.send_by:
            return True
        self.release(slot, Outcome.UNSENT)
        if slot.waited_seconds > max_wait_seconds:
            raise CallError(FailureKind.NO_SLOT, "each call comes too late to be used", sent=False)
        return False

    def takes_slot(self, products: Collection[Product]) -> bool:
        """Return whether a call for these products (none: of any) is one of those that are limited."""
        return self.rules.max_calls is not None and not (products and set(products) <= set(self.rules.exempts))

    def _ask(
        self,
        ticket: int | None,
        max_wait_seconds: float,
        calls_after: int,
        calls: int,
        *,
        products: Collection[Product],
        lease: Lease | None,
    ) -> Row:
        token = uuid4()
        renewing = None if lease is None else lease.renewing(lasting=self.rules.hold_seconds)
        asking = Query(
            ACQUIRE,
            asdict(self.rules)
            | {
                "key": self._key,
                "host": self._host,
                "hold": self.rules.hold_seconds,
                "lane": self._lane,
                "ticket": ticket,
                "max_wait": max_wait_seconds,
                "calls_after": calls_after,
                "calls": calls,
                "products": [product.value for product in products],
                # Ours, so that a slot whose grant was lost on the way is known again.
                "token": token,
            },
            one,
        )
        # In this order: who waits for the key's row has nothing locked yet.
        self._connection.ask(asking, *([renewing] if renewing else []))
        row = asking.answer
        if lease is not None:
            try:
                lease.require(renewing)
            except LeaseLostError:
                self._forgo(row)
                raise
        return row

    def _forgo(self, answer: Row) -> None:
        """Give back what was granted, or the place in the line, since there is no right to make a call."""
        with suppress(psycopg.Error):
            if answer["token"] is not None:
                self._tell(answer["token"], Outcome.UNSENT)
            elif answer["ticket"] is not None:
                self._connection.execute(WITHDRAW, {"key": self._key, "ticket": answer["ticket"]})

    def _tell(self, token: UUID | None, outcome: Outcome, retry_after_seconds: float | None = None) -> Row:
        given = {"key": self._key, "token": token, "outcome": outcome, "retry_after": retry_after_seconds}
        return one(self._connection.execute(RELEASE, given))

    def release(self, slot: Slot, outcome: Outcome, *, retry_after_seconds: float | None = None) -> bool:
        """Report what became of the request, as soon as it is known; return False for an unforeseen refusal."""
        self._refusals += outcome is Outcome.LIMITED
        if slot.token is None and outcome is not Outcome.LIMITED:
            return True  # without slots, only a refusal is anybody else's concern
        losses = self._connection.losses
        row = self._tell(slot.token, outcome, retry_after_seconds)
        if self._connection.losses > losses:
            return True  # perhaps it was told twice, and only the first answer would say how it was
        if not row["known"] and outcome is not Outcome.UNSENT:
            log.warning("a call took longer than it can: its slot was given to another one meanwhile")
        return bool(row["foreseen"])

    def foreseeing(self, *, calls: int, due: datetime, every_seconds: float, grace_seconds: float) -> Query[int]:
        """Keep `calls` slots for the next priority run, at `due`: what one leaves at its end."""
        return command(
            FORESEE,
            {"key": self._key, "calls": calls, "due": due, "every": every_seconds, "grace": grace_seconds},
        )
