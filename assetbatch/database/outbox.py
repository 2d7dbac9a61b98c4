"""Events waiting to be announced: rows that were written in the transaction of the price that they announce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assetbatch.database.connection import transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection

# News that is too old to be news is dropped, but for each symbol's newest, which tells how things stand.
DROP_STALE = """
update assetbatch.outbox o
set published_at = clock_timestamp(), dropped = true
where published_at is null and created_at < clock_timestamp() - make_interval(secs => 60 * %(max_age_minutes)s::float8)
  and exists (
    select from assetbatch.outbox newer
    where newer.symbol = o.symbol and newer.id > o.id and newer.published_at is null
  )
"""

DISCARD = "update assetbatch.outbox set published_at = clock_timestamp(), dropped = true where published_at is null"

READ_PENDING = """
select id, symbol, payload::text as payload from assetbatch.outbox
where published_at is null
order by id
limit %(limit)s
"""

MARK_PUBLISHED = """
update assetbatch.outbox set published_at = clock_timestamp()
where id = any(%(ids)s) and published_at is null
"""

NOTIFY = """
select count(pg_notify('asset:update:' || symbol, payload)), count(pg_notify('asset:update', payload))
from unnest(%(symbols)b::text[], %(payloads)b::text[]) with ordinality as v (symbol, payload, position)
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one asset's price; `payload` is JSON text."""

    id: int
    symbol: str
    payload: str

    @property
    def channel(self) -> str:
        """Where it is announced."""
        return f"asset:update:{self.symbol}"


def drop_stale(connection: Connection, *, max_age_minutes: float) -> int:
    """Drop pending events older than that which a newer one has overtaken; return how many."""
    return connection.execute(DROP_STALE, {"max_age_minutes": max_age_minutes}).rowcount


def pending(connection: Connection, *, limit: int) -> list[Event]:
    """Read the oldest events that were not announced yet, in order."""
    return [
        Event(row["id"], row["symbol"], row["payload"]) for row in connection.execute(READ_PENDING, {"limit": limit})
    ]


def mark_published(connection: Connection, events: Sequence[Event]) -> None:
    """Write down that they were announced."""
    connection.execute(MARK_PUBLISHED, {"ids": [event.id for event in events]})


def discard(connection: Connection) -> None:
    """Drop all that waits: nobody wants to hear of it."""
    connection.execute(DISCARD)


def notify(connection: Connection, events: Sequence[Event], *, seconds: float) -> None:
    """Announce by NOTIFY, on each symbol's channel and on `asset:update`, within so many seconds."""
    timeout = f"{max(1, round(seconds * 1000))}ms"
    with transaction(connection, lock_timeout=timeout, statement_timeout=timeout):
        connection.execute(
            NOTIFY, {"symbols": [event.symbol for event in events], "payloads": [event.payload for event in events]}
        )
