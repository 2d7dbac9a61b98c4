"""The outbox: events as rows that were written in the transaction of the price that they announce."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.query import Query, command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.database.savepoints import Sifted

# What was published stays this long at least, for who wants to see what was said.
KEPT_MINUTES = 60.0
# Rows that one sweep looks at: a few milliseconds, and more than a run writes between two of them.
SWEPT = 5_000
# What is refused of a batch is looked for in so many; what is not found by then waits with it.
MOST_STATEMENTS = 200

# News that is too old to be news is overtaken, but for each symbol's newest, which tells how things stand.
READ_PENDING = """
select id, symbol, payload::text as payload,
       created_at < clock_timestamp() - make_interval(secs => 60 * %(max_age_minutes)s::float8)
         and exists (
           select from assetbatch.outbox newer
           where newer.symbol = o.symbol and newer.id > o.id and newer.published_at is null
         ) as overtaken
from assetbatch.outbox o
where published_at is null and id > %(after_id)s
order by id
limit %(limit)s
"""

# The right to publish, where there is something to publish.
TAKE_TURN = """
insert into assetbatch.leases as l (name, holder, held_until)
select %(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s)
where exists (select from assetbatch.outbox where published_at is null)
on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
where l.held_until < clock_timestamp() or l.holder = excluded.holder
returning holder
"""

IS_ANY_PENDING = "select exists (select from assetbatch.outbox where published_at is null) as pending"

MARK_PUBLISHED = """
with mended as (
  delete from assetbatch.meta where key = 'events_refused' and %(is_well)s
)
update assetbatch.outbox set published_at = clock_timestamp()
where id = any(%(ids)s) and published_at is null
"""

NOTE_REFUSAL = """
insert into assetbatch.meta as m (key, value)
select 'events_refused', jsonb_build_object('words', %(words)s::text, 'since', clock_timestamp(), 'times', 1)
on conflict (key) do update
set value = m.value::jsonb
            || jsonb_build_object('words', %(words)s::text, 'times', (m.value::jsonb ->> 'times')::int + 1)
"""

READ_REFUSAL = """
select m.value::jsonb ->> 'words' as words, (m.value::jsonb ->> 'since')::timestamptz as since,
       (m.value::jsonb ->> 'times')::int as times, waiting.events
from assetbatch.meta m
cross join lateral (select count(*) as events from assetbatch.outbox where published_at is null) waiting
where m.key = 'events_refused' and waiting.events > 0
"""

# Where nothing carries events, nobody wants to hear of them: they are through, but were never sent.
SET_ASIDE = """
update assetbatch.outbox set published_at = clock_timestamp(), dropped = true
where id = any(%(ids)s) and published_at is null
"""

DROP = """
with gone as (
  delete from assetbatch.outbox where id = any(%(ids)s) and published_at is null returning id
)
insert into assetbatch.meta as m (key, value)
select 'events_dropped', count(*)::text from gone having count(*) > 0
on conflict (key) do update set value = (m.value::bigint + excluded.value::bigint)::text
"""

# Looks at the next rows in the order of their ids, a stretch a sweep, round and round: however long the table, and
# whatever waits in it, a sweep costs the same and every row gets its turn. Where it met rows too young to delete it
# begins again at the first.
SWEEP = """
with stretch as materialized (
  select id, created_at
  from assetbatch.outbox
  where id > coalesce((select value::bigint from assetbatch.meta where key = 'outbox_swept'), 0)
  order by id
  limit %(limit)s
), old as materialized (
  select o.id, o.published_at is null as dropped
  from stretch join assetbatch.outbox o using (id)
  where o.published_at < clock_timestamp()
                         - make_interval(secs => 60 * greatest(%(max_age_minutes)s::float8, %(kept_minutes)s::float8))
     or (o.published_at is null
         and o.created_at < clock_timestamp() - make_interval(secs => 60 * %(max_age_minutes)s::float8)
         and exists (
           select from assetbatch.outbox newer
           where newer.symbol = o.symbol and newer.id > o.id and newer.published_at is null
         ))
  order by o.id
  for update of o skip locked
), gone as (
  delete from assetbatch.outbox o using old where o.id = old.id returning old.dropped
), noted (key, value) as (
  select 'events_dropped', count(*) from gone where dropped having count(*) > 0
  union all
  select 'outbox_swept',
         case when count(*) < %(limit)s
                or max(created_at) > clock_timestamp() - make_interval(secs => 60 * %(max_age_minutes)s::float8)
              then 0 else max(id) end
  from stretch
), written as (
  insert into assetbatch.meta as m (key, value)
  select key, value::text from noted
  on conflict (key) do update
  set value = case when m.key = 'events_dropped' then (m.value::bigint + excluded.value::bigint)::text
                   else excluded.value end
  where m.key = 'events_dropped' or m.value <> excluded.value
)
select count(*) as gone from gone
"""

# Marked in the same transaction: of two publishers, one of which should not be, each announces what the other has not.
NOTIFY = """
with published as (
  update assetbatch.outbox set published_at = clock_timestamp()
  where id = any(%(ids)s) and published_at is null
  returning id, symbol, payload::text as payload
)
select count(pg_notify('asset:update:' || symbol, payload)), count(pg_notify('asset:update', payload))
from (select symbol, payload from published order by id) in_order
"""

# The newest that is so old: read backwards by id, which is the order of created_at but for moments.
READ_BEFORE = """
select coalesce((
  select id from assetbatch.outbox
  where created_at < clock_timestamp() - make_interval(secs => %(seconds)s)
  order by id desc
  limit 1
), 0) as id, clock_timestamp() as now
"""

# Rows and snapshot belong together: what was under way then is what may still fill the gaps between these ids.
READ_RANGES = """
select s.now, pg_snapshot_xmin(s.snapshot)::text::bigint as oldest_running,
       pg_snapshot_xmax(s.snapshot)::text::bigint as next_transaction, o.*
from (select clock_timestamp() as now, pg_current_snapshot() as snapshot) s
left join lateral (
  select o.id, o.symbol, o.seq, o.payload::text as payload, o.created_at, o.published_at, o.dropped
  from unnest(%(firsts)s::bigint[], %(lasts)s::bigint[]) as r (first_id, last_id)
  join assetbatch.outbox o on o.id between r.first_id and r.last_id
  order by o.id
  limit %(limit)s
) o on true
order by o.id
"""

READ_FATES = """
select id, published_at, dropped from assetbatch.outbox
where id = any(%(ids)s) and published_at is not null
"""


class Event(Struct, frozen=True):
    """One change of one asset's price; `payload` is JSON text. Overtaken: too old, and a newer one waits, too."""

    id: int
    symbol: str
    payload: str
    overtaken: bool = False

    @property
    def channel(self) -> str:
        """Where it is announced."""
        return f"asset:update:{self.symbol}"


class Refusal(Struct, frozen=True):
    """What carries events refuses them: its last words, since when, how many times, how many events wait now."""

    words: str
    since: datetime
    times: int
    events: int


class Stored(Struct, frozen=True):
    """An event as it lies in the outbox; `dropped`: it is through without having been sent."""

    id: int
    symbol: str
    seq: int
    payload: str
    created_at: datetime
    published_at: datetime | None
    dropped: bool


class Stretch(Struct, frozen=True):
    """Events of some ranges of ids, in order, and the transactions that were under way when they were read."""

    now: datetime
    events: tuple[Stored, ...]
    oldest_running: int
    next_transaction: int


def pending(*, limit: int, max_age_minutes: float, after_id: int = 0) -> Query[list[Event]]:
    """Ask for the oldest events that were not announced yet, in order, but for those up to `after_id`."""
    return Query(
        READ_PENDING,
        {"limit": limit, "max_age_minutes": max_age_minutes, "after_id": after_id},
        lambda rows: [Event(row["id"], row["symbol"], row["payload"], row["overtaken"]) for row in rows],
    )


def is_any_pending() -> Query[bool]:
    """Ask whether events wait to be announced."""
    return Query(IS_ANY_PENDING, None, lambda rows: any(row["pending"] for row in rows))


def mark_published(events: Sequence[Event], *, is_well: bool = False) -> Query[int]:
    """Write down that they were announced; `is_well`: and that none was refused."""
    return command(MARK_PUBLISHED, {"ids": [event.id for event in events], "is_well": is_well})


def note_refusal(connection: Connection, words: str) -> None:
    """Write down that what carries events refused them, where those can read it who do not ask it themselves."""
    connection.execute(NOTE_REFUSAL, {"words": words})


def refusal() -> Query[Refusal | None]:
    """Ask why events wait that were refused; None: none were since the last that were taken, or none wait."""
    return Query(READ_REFUSAL, None, lambda rows: next((Refusal(**row) for row in rows), None))


def set_aside(connection: Connection, events: Sequence[Event]) -> None:
    """Write down that nobody carries them."""
    connection.execute(SET_ASIDE, {"ids": [event.id for event in events]})


def drop(connection: Connection, events: Sequence[Event]) -> None:
    """Delete events that were overtaken before they could be announced, and count them."""
    connection.execute(DROP, {"ids": [event.id for event in events]})


def sweep(*, max_age_minutes: float, limit: int = SWEPT) -> Query[int]:
    """Delete old events of the next stretch: published ones, and those that were overtaken; tell how many."""
    parameters = {"max_age_minutes": max_age_minutes, "kept_minutes": KEPT_MINUTES, "limit": limit}
    return Query(SWEEP, parameters, lambda rows: sum(row["gone"] for row in rows))


def notify(connection: Connection, events: Sequence[Event], *, seconds: float) -> None:
    """Announce by NOTIFY, on each symbol's channel and on `asset:update`, and mark, within so many seconds."""
    timeout = f"{max(1, round(seconds * 1000))}ms"
    connection.ask(
        command(NOTIFY, {"ids": [event.id for event in events]}), lock_timeout=timeout, statement_timeout=timeout
    )


def notify_apart(connection: Connection, events: Sequence[Event], *, seconds: float) -> Sifted[Event, Sequence[Event]]:
    """Announce as `notify` does, but for events that PostgreSQL refuses; return which it took, and the others."""
    # Who only reads the outbox does without.
    from assetbatch.database.savepoints import sift

    timeout = f"{max(1, round(seconds * 1000))}ms"

    def put(part: Sequence[Event]) -> Sequence[Event]:
        connection.execute(NOTIFY, {"ids": [event.id for event in part]})
        return part

    with connection.transaction(lock_timeout=timeout, statement_timeout=timeout):
        return sift(connection, events, put, most_statements=MOST_STATEMENTS)


def read_before(connection: Connection, *, seconds: float) -> tuple[int, datetime]:
    """Return the id of the newest event that is so old, 0 for none, and the database's time."""
    row = connection.execute(READ_BEFORE, {"seconds": seconds}).fetchone()
    assert row is not None  # noqa: S101 - a select without from has one row
    return row["id"], row["now"]


def read_ranges(connection: Connection, ranges: Sequence[tuple[int, int]], *, limit: int) -> Stretch:
    """Read the events whose ids are in one of these ranges, both ends included: the lowest ids, so many at most."""
    rows = connection.execute(
        READ_RANGES, {"firsts": [first for first, _ in ranges], "lasts": [last for _, last in ranges], "limit": limit}
    ).fetchall()
    return Stretch(
        rows[0]["now"],
        tuple(
            Stored(
                row["id"],
                row["symbol"],
                row["seq"],
                row["payload"],
                row["created_at"],
                row["published_at"],
                row["dropped"],
            )
            for row in rows
            if row["id"] is not None
        ),
        rows[0]["oldest_running"],
        rows[0]["next_transaction"],
    )


def read_fates(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[datetime, bool]]:
    """Return which of these events are through by now: when, and whether without having been sent."""
    if not ids:
        return {}
    rows = connection.execute(READ_FATES, {"ids": list(ids)})
    return {row["id"]: (row["published_at"], row["dropped"]) for row in rows}
