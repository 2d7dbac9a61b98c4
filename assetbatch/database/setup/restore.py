"""After a backup came back: what the database cannot know of the time since, and what nobody can mean any more.

Calls were made that no slot remembers, prices were told that are newer than those here, and who held a lease when the
backup was made is gone. A symbol's `seq` needs nothing: the clock is ahead of all that was given, and counts with it.

All of it may be done again, and on a system that runs: that waits for a window, and asks once more for what was just on
its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from assetbatch.database import ahead
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import value

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.database.rate_limit import Rules

# What a worker of the backup's time held goes back to its place; the attempt was no fault of the item's.
RELEASE_ITEMS = """
update assetbatch.queue
set state = 'queued', attempts = greatest(attempts - 1, 0), token = null, claimed_at = null, leased_until = null
where state = 'leased'
"""

RELEASE_BARS = "update assetbatch.bar_state set token = null, leased_until = null where token is not null"

RELEASE_DAYS = "update assetbatch.daily_figures set token = null, asking_until = null where token is not null"

# No run holds a lease for ten minutes: one that lasts longer paces what may as well be done once more, or was taken by
# a clock ahead of this one. What a live run may hold runs out within a minute; taken from it, that run would fail.
RELEASE_LEASES = """
delete from assetbatch.leases
where held_until not between clock_timestamp() and clock_timestamp() + interval '10 minutes'
"""

# Of a price that was overtaken, and of any that is too old to be news: after a restore not even a symbol's newest event
# is kept for its own sake, since subscribers have heard of newer prices. Both times were written by `rfc3339`, so that
# their texts sort as they do; what others wrote there is not compared.
DROP_EVENTS = """
update assetbatch.outbox o
set published_at = clock_timestamp(), dropped = true
where published_at is null
  and (created_at < clock_timestamp() - make_interval(secs => 60 * %(max_age_minutes)s::float8)
       or exists (
         select from trading.symbols s
         where s.symbol = o.symbol
           and s.metadata #>> '{last_update,timestamp}' ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$'
           and rtrim(o.payload ->> 'timestamp', 'Z') collate "C"
                 < rtrim(s.metadata #>> '{last_update,timestamp}', 'Z') collate "C"
       ))
"""

# A load of the data alone, or logical replication, leaves sequences where they began. Those of the platform's tables,
# too, where they have numbers and we may.
SET_SEQUENCES = """
with numbered (sequence, last) as (
  select pg_get_serial_sequence('assetbatch.runs', 'id'), max(id) from assetbatch.runs
  union all select pg_get_serial_sequence('assetbatch.api_calls', 'id'), max(id) from assetbatch.api_calls
  union all select pg_get_serial_sequence('assetbatch.outbox', 'id'), max(id) from assetbatch.outbox
  union all select pg_get_serial_sequence('assetbatch.queue', 'id'), max(id) from assetbatch.queue
  union all select pg_get_serial_sequence('assetbatch.bar_changes', 'id'), max(id) from assetbatch.bar_changes
  union all select pg_get_serial_sequence('trading.symbols', 'id'), max(id::text::bigint) from trading.symbols
            where pg_get_serial_sequence('trading.symbols', 'id') is not null
  union all select pg_get_serial_sequence('data_sources.api_providers', 'id'), max(id::text::bigint)
            from data_sources.api_providers
            where pg_get_serial_sequence('data_sources.api_providers', 'id') is not null
)
select count(setval(sequence::regclass, last)) as mended from numbered
where last > coalesce(pg_sequence_last_value(sequence::regclass), 0)
  and has_sequence_privilege(sequence, 'update')
"""

FORGET_REFUSALS = "delete from assetbatch.entitlements where not allowed"

# Transactions of before the backup came back mean nothing to cursors of after it, nor the other way round.
END_CURSORS = "update assetbatch.bar_cursors set epoch = gen_random_uuid()"

# A key that the backup does not know takes over what it knows of the others.
ADOPT_KEY = """
select assetbatch.adopt_key(
  %(key)s, %(max_calls)s::int, make_interval(secs => %(window_seconds)s), make_interval(secs => %(margin_seconds)s),
  make_interval(secs => %(min_spacing_seconds)s)
)
"""

# In the order of `adopt_key`; the clock is read once they are held.
LOCK_KEYS = "select from assetbatch.rate_limits order by key_fingerprint for update"

# Calls that no slot remembers were counted by now: that is what `full_by` says, and it outlives a change of the rules.
BLOCK_KEYS = """
update assetbatch.rate_limits
set full_by = greatest(full_by, clock_timestamp()), history = assetbatch.history()
returning max_calls, full_by + greatest(window_length + margin, make_interval(secs => %(cooldown)s)) as blocked_until
"""


class Restored(Struct, frozen=True):
    """What was done: no call goes out before `blocked_until` (None: without a limit none has to wait); counts."""

    blocked_until: datetime | None
    keys_blocked: int
    events_dropped: int
    refusals_forgotten: int
    queue_items_released: int
    bars_released: int
    days_released: int
    leases_released: int
    sequences_mended: int
    times_set_back: int


def mend(connection: Connection, *, key: str | None, rules: Rules, max_age_minutes: float) -> Restored:
    """Make a database that a backup brought back safe to go on with.

    `key` is the fingerprint of the key in use, None: none is at hand; all keys that the database knows are blocked.
    """

    def work() -> Restored:
        items = connection.execute(RELEASE_ITEMS).rowcount
        events = connection.execute(DROP_EVENTS, {"max_age_minutes": max_age_minutes}).rowcount
        bars = connection.execute(RELEASE_BARS).rowcount
        days = connection.execute(RELEASE_DAYS).rowcount
        leases = connection.execute(RELEASE_LEASES).rowcount
        refusals = connection.execute(FORGET_REFUSALS).rowcount
        connection.execute(END_CURSORS)
        times = ahead.set_back(connection)
        mended = value(connection.execute(SET_SEQUENCES))
        blocked_until, keys = _block(connection, key, rules)
        return Restored(blocked_until, keys, events, refusals, items, bars, days, leases, mended, times)

    return in_transaction(connection, work)


def _block(connection: Connection, key: str | None, rules: Rules) -> tuple[datetime | None, int]:
    """Block all keys for one window; return until when, and how many they are."""
    if key is not None:
        connection.execute(ADOPT_KEY, asdict(rules) | {"key": key})
    connection.execute(LOCK_KEYS)
    cooldown = rules.window_seconds + rules.margin_seconds
    rows = connection.execute(BLOCK_KEYS, {"cooldown": cooldown}).fetchall()
    limited = [row["blocked_until"] for row in rows if rules.max_calls is not None or row["max_calls"] is not None]
    return max(limited, default=None), len(rows)
