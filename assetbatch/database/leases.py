"""Leases: one run of a job, one publisher at a time, over all hosts; a dead holder's lease runs out by itself."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

import psycopg

from assetbatch.boottime import boot_time
from assetbatch.errors import LeaseLostError

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

LEASE_SECONDS = 30

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


class Lease:
    """The right to do `name` alone, for so many seconds from the last `take`."""

    def __init__(self, connection: Connection, name: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._name = name
        self._seconds = seconds
        self._parameters = {"name": name, "holder": uuid4(), "seconds": seconds}
        self.until = -math.inf
        """When it runs out at the earliest, as `boot_time()`."""

    def take(self) -> bool:
        """Take the lease; False when somebody else holds it."""
        return self._asked(TAKE)

    def keep(self, *, lasting: float = 0.0) -> None:
        """Renew it when a third of it is over, or when it would not last for so many seconds.

        Raises LeaseLostError when it ran out and somebody else has had it since.
        """
        left = self.until - boot_time()
        if left < max(lasting, self._seconds * 2 / 3) and not self._asked(RENEW):
            raise LeaseLostError(f"{self._name} stood still for too long: another run has taken over")

    def _asked(self, statement: LiteralString) -> bool:
        asked_at = boot_time()
        granted = self._connection.execute(statement, self._parameters).fetchone() is not None
        if granted:
            self.until = asked_at + self._seconds
        return granted

    def give_up(self) -> None:
        """Let the next one have it; with the connection gone, it runs out by itself."""
        with suppress(psycopg.Error):
            self._connection.execute(GIVE_UP, self._parameters)
