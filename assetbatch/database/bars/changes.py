"""Cursors: which bars have changed since a moment, whatever was under way then.

A cursor is the snapshot of the transaction that read the bars. What was written by a transaction which that snapshot
did not see, and which this one sees, has changed since: each of `assetbatch.bar_changes` has the number of its
transaction. Times would not do: a row that is committed late has an earlier time than others that were read by then.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from assetbatch.database.query import Query
from assetbatch.database.rows import one
from assetbatch.errors import CursorError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection

# What tells one history of transactions from another: server and timeline, database, table (a dump that is restored
# makes both anew), and what `init --restored` renews.
READ_MOMENT = """
select pg_current_snapshot()::text as snapshot, pg_is_in_recovery() as is_standby,
       concat_ws('/', coalesce(assetbatch.history(), '-'), d.oid, 'assetbatch.bar_changes'::regclass::oid, c.epoch)
         as history
from assetbatch.bar_cursors c join pg_database d on d.datname = current_database()
"""

# Of what was forgotten only the newest transaction is known: one that is older may have been forgotten as well.
CHECK = """
select pg_snapshot_xmax(k.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) as is_ahead,
       coalesce(c.forgotten_in = 'assetbatch.bar_changes'::regclass and (
         c.forgotten_through >= pg_snapshot_xmax(k.snapshot)
         or exists (select from pg_snapshot_xip(k.snapshot) x where x <= c.forgotten_through)
       ), false) as is_too_old
from assetbatch.bar_cursors c cross join (select %(snapshot)s::pg_snapshot as snapshot) k
"""

READ_CHANGES = """
select symbol, lower(r) as since, upper(r) as until
from (
  select c.symbol, range_agg(r) as ranges
  from (select %(snapshot)s::pg_snapshot as snapshot) k
  join assetbatch.bar_changes c
    on c.xid >= pg_snapshot_xmin(k.snapshot) and not pg_visible_in_snapshot(c.xid, k.snapshot)
  cross join unnest(c.ranges) r
  where c.made_in = 'assetbatch.bar_changes'::regclass and c.symbol = any(coalesce(%(symbols)s, array[c.symbol]))
  group by c.symbol
) changed
cross join unnest(changed.ranges * tstzmultirange(tstzrange(%(since)s, %(until)s))) r
order by symbol collate "C", since
"""

WHOLE = "export whole, without the cursor, and go on with the cursor that this gives"


class Cursor(Struct, frozen=True, array_like=True):
    """A moment of one history: what its `snapshot` saw was read."""

    history: str
    snapshot: str

    @property
    def text(self) -> str:
        """The cursor as whoever exports keeps it."""
        packed = msgspec.json.encode(self)
        return urlsafe_b64encode(zlib.crc32(packed).to_bytes(4, "big") + packed).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Read a cursor. Raises CursorError where it is none."""
        try:
            packed = urlsafe_b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
            if zlib.crc32(packed[4:]).to_bytes(4, "big") == packed[:4]:
                return msgspec.json.decode(packed[4:], type=cls)
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            pass
        raise CursorError("this is no cursor of `bars export`, or not all of it", hint=WHOLE)


def moment(connection: Connection) -> Cursor | None:
    """Return the cursor of the transaction under way; None on a standby: it does not tell what is under way."""
    row = one(connection.execute(READ_MOMENT))
    return None if row["is_standby"] else Cursor(row["history"], row["snapshot"])


def check(connection: Connection, cursor: Cursor, now: Cursor | None) -> None:
    """Check that all that has changed since a cursor is known in the transaction under way, whose moment is `now`.

    Raises CursorError where it is not, DatabaseUnavailableError on a standby.
    """
    if now is None:
        raise DatabaseUnavailableError(
            "a standby cannot tell what has changed since a cursor", hint="name the primary server, not a standby"
        )
    if cursor.history != now.history:
        raise CursorError(
            "this cursor was given by another database, or before a backup was restored or another server took over:"
            " what has changed since cannot be told",
            hint=WHOLE,
        )
    row = one(connection.execute(CHECK, {"snapshot": cursor.snapshot}))
    if row["is_ahead"]:
        raise CursorError("this cursor is of a later time than the database: it was set back since", hint=WHOLE)
    if row["is_too_old"]:
        raise CursorError(
            "this cursor is too old: some of what has changed since was dropped (bars.changes_retention_days)",
            hint=WHOLE,
        )


def since(
    cursor: Cursor, symbols: Sequence[str] | None, begin: datetime | None, end: datetime | None
) -> Query[list[tuple[str, datetime, datetime]]]:
    """Ask for the symbols and spans whose bars have changed since a cursor, in order; of these symbols, None: of all.

    Only from `begin` on and before `end`, where these are given.
    """
    names = None if symbols is None else list(symbols)
    return Query(
        READ_CHANGES,
        {"snapshot": cursor.snapshot, "symbols": names, "since": begin, "until": end},
        lambda rows: [(row["symbol"], row["since"], row["until"]) for row in rows],
    )
