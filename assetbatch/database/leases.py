"""Leases: one run of a job, one publisher at a time, over all hosts; a dead holder's lease runs out by itself.

On the holder's own host it need not: whoever waits for what a run holds, of whatever kind, looks whether the run's
process is gone (`release_dead`), and that ends all that it held.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg import errors

from assetbatch import processes
from assetbatch.boottime import boot_time
from assetbatch.database.query import Query
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import value
from assetbatch.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection, Row

log = logging.getLogger(__name__)

LEASE_SECONDS = 30
# Half of a token.
TOKEN_BITS = 64
RELEASE_TIMEOUT = "1s"

TAKE = """
insert into assetbatch.leases as l (name, holder, held_until)
values (%(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
where l.held_until < clock_timestamp() or l.holder = excluded.holder
returning holder
"""

# Of who has it: had another one had it meanwhile, what this one means to do would no longer be to be done.
RENEW = """
update assetbatch.leases set held_until = clock_timestamp() + make_interval(secs => %(seconds)s)
where name = %(name)s and holder = %(holder)s
returning holder
"""

GIVE_UP = "delete from assetbatch.leases where name = %(name)s and holder = %(holder)s"

READ_HOLDER = """
select concat_ws(', process ', r.host, r.pid)
from assetbatch.leases l join assetbatch.runs r on r.id = assetbatch.run_of(l.holder)
where l.name = %(name)s and l.held_until >= clock_timestamp()
"""

# A run's record says how it ended before it gives up its leases. What a dead one was just asking the database for may
# yet be done: it is looked after for a while.
READ_NEIGHBOURS = """
select id, pid, pid_started from assetbatch.runs
where place = %(place)s and status = 'running' and coalesce(gone_at > clock_timestamp() - interval '2 minutes', true)
union
select r.id, r.pid, r.pid_started
from assetbatch.leases l join assetbatch.runs r on r.id = assetbatch.run_of(l.holder)
where r.place = %(place)s and l.held_until >= clock_timestamp()
"""

# What the dead hold is over, as if it had run out, and so is the time in which they must have ended. Of two that do
# this at once, one leaves it to the other.
RELEASE_DEAD = """
with dead as materialized (
  select id from assetbatch.runs where id = any(%(ids)s) order by id for update skip locked
), runs as (
  update assetbatch.runs r
  set gone_at = coalesce(r.gone_at, clock_timestamp()), ends_by = least(r.ends_by, clock_timestamp())
  from dead where r.id = dead.id
), leases as (
  delete from assetbatch.leases l using dead where assetbatch.run_of(l.holder) = dead.id
  returning l.name
), items as (
  update assetbatch.queue q set leased_until = clock_timestamp()
  from dead where q.state = 'leased' and q.leased_until > clock_timestamp() and assetbatch.run_of(q.token) = dead.id
  returning q.symbol
), bars as (
  update assetbatch.bar_state b set token = null, leased_until = null
  from dead where b.token is not null and assetbatch.run_of(b.token) = dead.id
  returning b.symbol
), days as (
  update assetbatch.daily_figures d set token = null, asking_until = null
  from dead where d.token is not null and assetbatch.run_of(d.token) = dead.id
  returning d.market
)
select array(
  select name from leases union all select symbol from items
  union all select 'bars of ' || symbol from bars union all select 'a day of ' || market from days
) as released
"""

# The same of a run that ends by itself, so that no item is to blame: attempts are given back, too. By its id, since it
# may not know all: the answer to a claim may have been lost with the connection.
GIVE_BACK = """
with leases as (
  delete from assetbatch.leases l where %(has_ended)s and assetbatch.run_of(l.holder) = %(id)s
), bars as (
  update assetbatch.bar_state b set token = null, leased_until = null
  where b.token is not null and assetbatch.run_of(b.token) = %(id)s
), days as (
  update assetbatch.daily_figures d set token = null, asking_until = null
  where d.token is not null and assetbatch.run_of(d.token) = %(id)s
)
update assetbatch.queue q
set state = 'queued', attempts = q.attempts - 1, token = null, claimed_at = null, leased_until = null
where q.state = 'leased' and assetbatch.run_of(q.token) = %(id)s
"""


def new_token(run_id: int | None) -> UUID:
    """Make a token that a run holds something by, which tells whose it is; None: nobody's whose end would matter."""
    return uuid4() if run_id is None else UUID(int=(run_id << TOKEN_BITS) | (uuid4().int >> TOKEN_BITS))


def dead_runs() -> Query[list[int]]:
    """Ask for the runs that may hold something and whose processes on this host are gone."""
    here = processes.this_process()
    place = None if here is None else here.place
    return Query(
        READ_NEIGHBOURS,
        {"place": place},
        lambda rows: [
            row["id"]
            for row in rows
            if processes.is_gone(processes.Process(place or "", row["pid"], row["pid_started"]))
        ],
    )


def release_dead(connection: Connection) -> bool:
    """End all that runs hold whose processes on this host are gone; return whether anything was held."""
    return release(connection, connection.answer(dead_runs()))


def release(connection: Connection, dead: Sequence[int]) -> bool:
    """End all that these dead runs hold; return whether anything was held.

    Who has no right to write, or would have to wait for a lock, leaves it to others.
    """
    if not dead:
        return False
    try:
        released: list[str] = in_transaction(
            connection,
            lambda: value(connection.execute(RELEASE_DEAD, {"ids": list(dead)})),
            lock_timeout=RELEASE_TIMEOUT,
        )
    except (errors.LockNotAvailable, errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        log.info("what a killed run holds is left to others: %s", error)
        return False
    if released:
        log.info("a run was killed that held %s", ", ".join(released))
    return bool(released)


def give_back(connection: Connection, run_id: int, *, has_ended: bool = True) -> None:
    """Give back all that a run holds, items with their attempts, whether or not it has heard of it.

    A run that has not ended keeps its leases, and gives back what its calls were for.
    """
    in_transaction(connection, lambda: connection.execute(GIVE_BACK, {"id": run_id, "has_ended": has_ended}))


class Lease:
    """The right to do `name` alone, for so many seconds from the last `take`.

    `run_id` is the run whose end ends it; None: it is held for its time, whoever took it. `holder` is the token of who
    has taken it already, or means to.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        seconds: float = LEASE_SECONDS,
        run_id: int | None = None,
        holder: UUID | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._seconds = seconds
        self._parameters = {"name": name, "holder": holder or new_token(run_id), "seconds": seconds}
        self.until = -math.inf
        """When it runs out at the earliest, as `boot_time()`."""
        self._is_held = False

    def take(self) -> bool:
        """Take the lease; False when somebody else holds it whose process, as far as known, lives."""
        return self._connection.answer(self.taking()) or self.take_from_dead()

    def take_from_dead(self) -> bool:
        """Take the lease that somebody else holds, if that is a run whose process is gone."""
        return release_dead(self._connection) and self._connection.answer(self.taking())

    def holder(self) -> str | None:
        """Return which host, and which process of it, holds it now; None: nobody of whom that is known."""
        found: str | None = value(self._connection.execute(READ_HOLDER, self._parameters))
        return found

    def keep(self, *queries: Query[Any], lasting: float = 0.0) -> None:
        """Renew it when a third of it is over, or when it would not last for so many seconds; ask these with it.

        Raises LeaseLostError when it ran out and somebody else has had it since.
        """
        renewing = self.renewing(lasting=lasting)
        self._connection.ask(*([renewing] if renewing else []), *queries)
        self.require(renewing)

    def renewing(self, *, lasting: float = 0.0) -> Query[bool] | None:
        """Ask for more time, where `keep` would; `require` looks at the answer."""
        left = self.until - boot_time()
        return self.taking(RENEW) if left < max(lasting, self._seconds * 2 / 3) else None

    def require(self, renewing: Query[bool] | None) -> None:
        """Raise LeaseLostError where more time was asked for and not granted."""
        if renewing is not None and not renewing.answer:
            raise LeaseLostError(f"{self._name} stood still for too long: another run has taken over")

    def taking(self, statement: LiteralString = TAKE) -> Query[bool]:
        """Ask for the lease, by a statement that has its own condition; the answer is whether it is granted."""
        asked_at = boot_time()

        def read(cursor: psycopg.Cursor[Row]) -> bool:
            granted = cursor.fetchone() is not None
            if granted:
                self.granted(asked_at)
            return granted

        return Query(statement, self._parameters, read)

    def granted(self, asked_at: float) -> None:
        """Note that it was granted to who asked for it at `asked_at`, by `boot_time()`."""
        self.until, self._is_held = asked_at + self._seconds, True

    def giving_up(self) -> Query[None]:
        """Ask for the next one to have it."""

        def read(_cursor: psycopg.Cursor[Row]) -> None:
            self._is_held = False

        return Query(GIVE_UP, self._parameters, read)

    def give_up(self) -> None:
        """Let the next one have it, if this one has it; with the connection gone, it runs out by itself."""
        if self._is_held:
            with suppress(psycopg.Error):
                self._connection.ask(self.giving_up())
