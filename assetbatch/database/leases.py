"""Leases: one run of a job, one publisher at a time, over all hosts; a dead holder's lease runs out by itself."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

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

GIVE_UP = "delete from assetbatch.leases where name = %(name)s and holder = %(holder)s"


class Lease:
    """The right to do `name` alone, for so many seconds from the last `take`."""

    def __init__(self, connection: Connection, name: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._name = name
        self._parameters = {"name": name, "holder": uuid4(), "seconds": seconds}

    def take(self) -> bool:
        """Take the lease, or renew it; False when somebody else holds it."""
        return self._connection.execute(TAKE, self._parameters).fetchone() is not None

    def keep(self) -> None:
        """Renew it. Raises LeaseLostError when it ran out and somebody else holds it now."""
        if not self.take():
            raise LeaseLostError(f"{self._name} stood still for too long: another run has taken over")

    def give_up(self) -> None:
        """Let the next one have it; with the connection gone, it runs out by itself."""
        with suppress(psycopg.Error):
            self._connection.execute(GIVE_UP, self._parameters)
