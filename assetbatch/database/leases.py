"""Leases: one run of a job, one publisher at a time, over all hosts; a dead holder's lease runs out by itself."""

from __future__ import annotations

import math
import time
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


def boot_time() -> float:
    """Seconds that also pass while a laptop sleeps or a virtual machine is paused."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The right to do `name` alone, for so many seconds from the last `take`."""

    def __init__(self, connection: Connection, name: str, *, seconds: float = LEASE_SECONDS) -> None:
        self._connection = connection
        self._name = name
        self._seconds = seconds
        self._parameters = {"name": name, "holder": uuid4(), "seconds": seconds}
        self._taken_at = -math.inf

    def take(self) -> bool:
        """Take the lease, or renew it; False when somebody else holds it."""
        asked_at = boot_time()
        taken = self._connection.execute(TAKE, self._parameters).fetchone() is not None
        if taken:
            self._taken_at = asked_at
        return taken

    def keep(self) -> None:
        """Renew it in good time. Raises LeaseLostError when it ran out and somebody else holds it now."""
        if boot_time() - self._taken_at > self._seconds / 3 and not self.take():
            raise LeaseLostError(f"{self._name} stood still for too long: another run has taken over")

    def give_up(self) -> None:
        """Let the next one have it; with the connection gone, it runs out by itself."""
        with suppress(psycopg.Error):
            self._connection.execute(GIVE_UP, self._parameters)
