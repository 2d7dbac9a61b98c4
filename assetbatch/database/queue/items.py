"""The queue's items and their life; states and order are drawn in migration 0004.

    bring_back(...)           what a killed run held, and what is due again
    items = claim(...)        as many as the next calls cover; counts the attempt
    complete(...) or end(...) each fenced by the claim's token: who has lost his lease ends nothing

Each change of state is one statement, and none of them costs more because the queue is long. The statements make up
half of this module: they are best read beside each other.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.leases import dead_runs, new_token, release
from assetbatch.database.query import Query
from assetbatch.errors import EXIT_BUG
from assetbatch.failures import FailureKind
from assetbatch.model import Asset, AssetType, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime
    from uuid import UUID

    import psycopg

    from assetbatch.database.connection import Connection, Row
    from assetbatch.model import Failure

log = logging.getLogger(__name__)

LOST = "its worker was killed, or stood still for too long"

# What a killed worker held goes back at once, at its old place, unless it is out of attempts. On its way to its last
# attempt it stands alone, so that an item that kills its worker takes no other with it. The attempt is given back where
# the database itself was away meanwhile: its worker could not tell how the work ended; and where the run has written
# down its end, but for a bug: nothing killed it.
BRING_BACK = """
with expired as materialized (
  select q.symbol, not (pg_postmaster_start_time() > q.claimed_at or coalesce(r.exit_code <> %(bug)s, false)) as charged
  from assetbatch.queue q left join assetbatch.runs r on r.id = assetbatch.run_of(q.token)
  where q.state = 'leased' and q.leased_until <= statement_timestamp()
  for update of q skip locked
), brought_back as (
  update assetbatch.queue q
  set state = case when e.charged and q.attempts > %(retries)s then 'dead' else 'queued' end,
      died_at = case when e.charged and q.attempts > %(retries)s then statement_timestamp() end,
      attempts = q.attempts - (not e.charged)::int,
      largest_call = case %(retries)s - (q.attempts - (not e.charged)::int)
                       when 0 then 1 when 1 then least(q.largest_call, 16) else q.largest_call end,
      error_kind = case when e.charged then %(kind)s else q.error_kind end,
      error = case when e.charged then %(error)s else q.error end,
      token = null, claimed_at = null, leased_until = null
  from expired e
  where q.symbol = e.symbol
  returning q.symbol, q.state
), due as materialized (
  select symbol from assetbatch.queue
  where state = 'delayed' and available_at <= statement_timestamp()
  for update skip locked
), promoted as (
  update assetbatch.queue q set state = 'queued' from due where q.symbol = due.symbol
  returning q.symbol
)
select array(select symbol from brought_back where state = 'queued' order by symbol) as expired,
       array(select symbol from brought_back where state = 'dead' order by symbol) as dead,
       (select count(*) from promoted) as promoted,
       exists (select from brought_back where state = 'queued') or exists (select from promoted) or (
         select true from assetbatch.queue
         where state = 'queued' and (%(types)s::text[] is null or coalesce((
           select asset_type from assetbatch.assets a where a.symbol = queue.symbol and enabled and role = 'secondary'
         ) = any(%(types)s), true))
         order by (priority > 1), rank, id limit 1
       ) is not null as is_waiting
"""

# In the order of the index: else, with few rows in this state among many, all are read to find one. What is no asset to
# be served any more is of every type: whoever claims it drops it.
IS_WAITING = """
select (
  select true from assetbatch.queue
  where state = 'queued' and (%(types)s::text[] is null or coalesce((
    select asset_type from assetbatch.assets a where a.symbol = queue.symbol and enabled and role = 'secondary'
  ) = any(%(types)s), true))
  order by (priority > 1), rank, id limit 1
) is not null as waiting
"""

SIZE = "select count(*) as size from assetbatch.queue where state <> 'dead'"

# The first in order that nobody else is just claiming, and those after it that the next calls cover: as far as their
# lines of tickers may be long, and no further than any of them may be asked for together with others. The lateral join
# is looked up row by row: the planner would rather read the whole catalogue. A run that has ended claims nothing: its
# statement may have been on its way when the connection broke, and what it held was given back meanwhile.
CLAIM = """
with run as materialized (
  select from assetbatch.runs where id = %(run_id)s::bigint and finished_at is null for share
), first as materialized (
  select q.ctid, (q.priority > 1) as later, q.rank as turn, q.id, q.largest_call, a.*
  from assetbatch.queue q
  left join lateral (
    select polygon_ticker, asset_type, rank, update_frequency_seconds from assetbatch.assets
    where symbol = q.symbol and enabled and role = 'secondary' limit 1
  ) a on true
  where q.state = 'queued' and (%(run_id)s::bigint is null or exists (select from run))
    and (%(types)s::text[] is null or coalesce(a.asset_type = any(%(types)s), true))
  order by (q.priority > 1), q.rank, q.id
  limit %(limit)s
  for update of q skip locked
), reach as (
  select *,
         row_number() over places as place,
         min(largest_call) over places as most,
         first_value(coalesce(asset_type = any(%(daily)s), false)) over places as leads_daily,
         coalesce(asset_type = any(%(daily)s), false) as daily,
         sum(length(polygon_ticker) + %(added_length)s) over places as length
  from first
  window places as (order by later, turn, id)
), claimed as (
  update assetbatch.queue q
  set state = 'leased', token = %(token)s, attempts = q.attempts + 1, claimed_at = statement_timestamp(),
      leased_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s)
  from reach r
  where q.ctid = r.ctid
    and (r.place = 1 or not (r.leads_daily or r.daily))
    and (%(alone)s or r.place = 1 or (r.place <= coalesce(r.most, r.place) and coalesce(r.length, 0) <= %(max_length)s))
  returning r.place, q.symbol, r.polygon_ticker, r.asset_type, r.rank, r.update_frequency_seconds,
            q.attempts, q.served_at, q.struck_at
)
select *, (
  select true from assetbatch.queue
  where state = 'queued' and symbol not in (select symbol from claimed)
    and (%(types)s::text[] is null or coalesce((
      select asset_type from assetbatch.assets a where a.symbol = queue.symbol and enabled and role = 'secondary'
    ) = any(%(types)s), true))
  order by (priority > 1), rank, id limit 1
) is not null as more
from claimed order by place
"""

# What a claim has brought whose answer was lost.
CLAIMED = """
select q.symbol, a.polygon_ticker, a.asset_type, a.rank, a.update_frequency_seconds,
       q.attempts, q.served_at, q.struck_at, true as more
from assetbatch.queue q
left join assetbatch.assets a on a.symbol = q.symbol and a.enabled and a.role = 'secondary'
where q.token = %(token)s
order by (q.priority > 1), q.rank, q.id
"""

KEEP = """
update assetbatch.queue q
set leased_until = statement_timestamp() + make_interval(secs => %(lease_seconds)s)
from unnest(%(symbols)s::text[], %(tokens)s::uuid[]) as v (symbol, token)
where q.symbol = v.symbol and q.token = v.token
"""

# Looked up row by row, too; in binary, tokens cost a third less time.
COMPLETE = """
delete from assetbatch.queue q
using unnest(%(symbols)b::text[], %(tokens)b::uuid[]) as v (symbol, token)
cross join lateral (
  select ctid from assetbatch.queue where symbol = v.symbol and token = v.token limit 1
) own
where q.ctid = own.ctid
returning q.symbol
"""

# A spent attempt costs the place, too: back at LOW, behind what waits already. What was struck by an outage, or seemed
# to be, keeps its priority and goes behind the others of it: the next run asks for something else first.
END = """
update assetbatch.queue q
set state = v.state,
    priority = case when v.requeued then 4 else q.priority end,
    waiting_since = case when v.requeued or v.struck then v.available_at else q.waiting_since end,
    rank = case when v.requeued then v.available_at + 3 * make_interval(secs => %(step_seconds)s)
                when v.struck then v.available_at + (q.priority - 1) * make_interval(secs => %(step_seconds)s)
                else q.rank end,
    struck_at = case when v.struck then statement_timestamp() else q.struck_at end,
    available_at = v.available_at,
    attempts = q.attempts - (not v.spent)::int,
    largest_call = coalesce(v.largest_call, q.largest_call),
    error_kind = coalesce(v.error_kind, q.error_kind),
    error = coalesce(v.error, q.error),
    died_at = case when v.state = 'dead' then statement_timestamp() end,
    died_on_plan = case when v.state = 'dead' then %(plan)s end,
    died_with_key = case when v.state = 'dead' then %(key)s end,
    token = null, claimed_at = null, leased_until = null
from (
  select symbol, token, state, spent, struck, largest_call, error_kind, error, spent and state = 'delayed' as requeued,
         statement_timestamp() + make_interval(secs => delay_seconds) as available_at
  from unnest(
    %(symbols)s::text[], %(tokens)s::uuid[], %(states)s::text[], %(spent)s::boolean[], %(struck)s::boolean[],
    %(delays)s::float8[], %(largest_calls)s::int[], %(error_kinds)s::text[], %(errors)s::text[]
  ) as v (symbol, token, state, spent, struck, delay_seconds, largest_call, error_kind, error)
) v
where q.symbol = v.symbol and q.token = v.token
returning q.symbol
"""


# What needs no call: the newest day that the market can be asked for is there, or none can be asked for now. An asset
# for which it brought something that is no price is asked for again with its market, but not as long as that is held.
COMPLETE_SERVED = """
with wanted as (
  select * from unnest(%(markets)s::text[], %(days)s::date[], %(held_seconds)s::float8[])
    as w (asset_type, day, held_seconds)
), put_off as (
  update assetbatch.queue q
  set state = 'delayed', available_at = statement_timestamp() + make_interval(secs => w.held_seconds)
  from assetbatch.assets a
  join wanted w using (asset_type)
  join assetbatch.sync_state s using (symbol)
  where q.symbol = a.symbol and q.state = 'queued' and w.held_seconds > 0
    and s.day >= w.day and coalesce(s.error_kind, 'missing') <> 'missing'
)
delete from assetbatch.queue q
using assetbatch.assets a
join wanted w using (asset_type)
left join assetbatch.sync_state s on s.symbol = a.symbol
where q.symbol = a.symbol and q.state in ('queued', 'delayed')
  and (w.day is null or (s.day >= w.day and coalesce(s.error_kind, 'missing') = 'missing'))
returning q.symbol
"""

ASSET_TYPES = {one.value: one for one in AssetType}


class State(StrEnum):
    """What an item is doing."""

    QUEUED = "queued"
    DELAYED = "delayed"
    LEASED = "leased"
    DEAD = "dead"


class Item(Struct, frozen=True, eq=False):
    """A claimed item; each claim makes another one.

    `attempts` counts this claim; `served_at` is when the asset was last served, None: never. `struck_at` is when its
    call last failed in what looked like an outage.
    """

    asset: Asset
    token: UUID
    attempts: int
    served_at: datetime | None
    struck_at: datetime | None


class Batch(list[Item]):
    """Claimed items; `more`: others wait beside them."""

    more = False


class Ending(Struct, frozen=True):
    """How a claim ends that did not bring the item to its end.

    The attempt is `spent` or given back; `struck`: it failed in what looks like an outage. A call that covers it may
    from now on cover at most `largest_call` assets.
    """

    item: Item
    state: State
    spent: bool = False
    struck: bool = False
    delay_seconds: float = 0.0
    largest_call: int | None = None
    failure: Failure | None = None


class BroughtBack(Struct, frozen=True):
    """What became of items whose worker was lost, and how many delayed ones are due again.

    `is_waiting`: an item waits for its turn now.
    """

    expired: list[str]
    dead: list[str]
    promoted: int
    is_waiting: bool


def bring_back(connection: Connection, *, retries: int, types: Collection[AssetType] | None = None) -> BroughtBack:
    """Bring back what has been leased for too long, and what was delayed and is due; any number of runs may do so.

    What a killed worker of this host held has been leased for long enough. Looked for are items of these types (None:
    of any) that wait.
    """
    dead, brought_back = dead_runs(), bringing_back(retries=retries, types=types)
    connection.ask(dead, brought_back)
    if release(connection, dead.answer):
        before = brought_back.answer
        again = connection.answer(brought_back)
        return BroughtBack(
            before.expired + again.expired, before.dead + again.dead, before.promoted + again.promoted, again.is_waiting
        )
    return brought_back.answer


def bringing_back(*, retries: int, types: Collection[AssetType] | None = None) -> Query[BroughtBack]:
    """Ask for what `bring_back` does, but for what killed workers of this host held."""

    def read(cursor: psycopg.Cursor[Row]) -> BroughtBack:
        row = cursor.fetchone()
        assert row is not None  # noqa: S101 - a select without from has one row
        return BroughtBack(row["expired"], row["dead"], row["promoted"], row["is_waiting"])

    given = {"retries": retries, "types": _words(types), "kind": FailureKind.WORKER_LOST.value, "error": LOST}
    return Query(BRING_BACK, given | {"bug": EXIT_BUG}, read)


def waiting(types: Collection[AssetType] | None = None) -> Query[bool]:
    """Ask whether an item of these types (None: of any) waits for its turn now."""
    return Query(IS_WAITING, {"types": _words(types)}, lambda rows: any(row["waiting"] for row in rows))


def size(connection: Connection) -> int:
    """Count the items that take up room: all but dead letters."""
    row = connection.execute(SIZE).fetchone()
    return 0 if row is None else row["size"]


def claim(
    connection: Connection,
    *,
    limit: int,
    alone: bool,
    max_length: int,
    added_length: int,
    lease_seconds: float,
    run_id: int | None = None,
    types: Collection[AssetType] | None = None,
    daily: Collection[AssetType] = (),
) -> Batch:
    """Claim the first `limit` items at most: for the calls to come, or (`alone`) for a call each.

    Of these `types` only; None: of any. Where the first is of one of the `daily` types, it is the only one, and others
    of those are left out behind it: their calls bring finished days.

    All tickers may take `max_length` characters, counting `added_length` more for each. What the catalogue does
    not list any more is dropped.
    """
    token = new_token(run_id)
    claiming = Query(
        CLAIM,
        {
            "limit": limit,
            "alone": alone,
            "types": _words(types),
            "daily": _words(daily),
            "max_length": max_length,
            "added_length": added_length,
            "token": token,
            "run_id": run_id,
            "lease_seconds": lease_seconds,
        },
        lambda cursor: cursor.fetchall(),
        found_by=CLAIMED,
        in_order=True,
    )
    rows = connection.answer(claiming)
    strays = [row["symbol"] for row in rows if row["polygon_ticker"] is None]
    if strays:
        log.warning("dropped from the queue, being no enabled secondary asset any more: %s", ", ".join(strays))
        connection.execute(COMPLETE, {"symbols": strays, "tokens": [token] * len(strays)})
    batch = Batch(
        Item(
            Asset(
                row["symbol"],
                row["polygon_ticker"],
                ASSET_TYPES[row["asset_type"]],
                Role.SECONDARY,
                row["rank"],
                row["update_frequency_seconds"],
            ),
            token,
            row["attempts"],
            row["served_at"],
            row["struck_at"],
        )
        for row in rows
        if row["polygon_ticker"] is not None
    )
    batch.more = any(row["more"] for row in rows)
    return batch


def keep(connection: Connection, items: Sequence[Item], *, lease_seconds: float) -> None:
    """Hold on to claimed items for another `lease_seconds`."""
    connection.execute(KEEP, _claims(items) | {"lease_seconds": lease_seconds})


def complete(connection: Connection, items: Sequence[Item]) -> set[str]:
    """Take items off the queue that are done; return the symbols of those whose lease was still held."""
    return connection.answer(completing(items)) if items else set()


def completing(items: Sequence[Item]) -> Query[set[str]]:
    """Ask for what `complete` does."""
    return Query(COMPLETE, _claims(items), _symbols)


def _symbols(cursor: psycopg.Cursor[Row]) -> set[str]:
    return {row["symbol"] for row in cursor.fetchall()}


def complete_served(
    connection: Connection, days: Mapping[AssetType, date | None], held_seconds: Mapping[AssetType, float]
) -> list[str]:
    """Take items off the queue that nobody holds and whose asset has the day that is given for its market.

    None for a market: no day can be asked for now. Items of assets for which the day brought something that is no price
    wait for `held_seconds`: for so long it is not asked for again. Returns the symbols of those that are done.
    """
    rows = connection.execute(
        COMPLETE_SERVED,
        {
            "markets": [market.value for market in days],
            "days": list(days.values()),
            "held_seconds": [held_seconds.get(market, 0.0) for market in days],
        },
    )
    return [row["symbol"] for row in rows]


def ending(endings: Sequence[Ending], *, step_seconds: float, plan: str, key: str) -> Query[set[str]]:
    """End claims otherwise; the answer is the symbols of those whose lease was still held.

    `step_seconds` is what a step of priority is worth; `plan` and `key` (its fingerprint) are what dead letters died
    under.
    """
    failures = [ending.failure for ending in endings]
    return Query(
        END,
        _claims([ending.item for ending in endings])
        | {
            "states": [ending.state.value for ending in endings],
            "spent": [ending.spent for ending in endings],
            "struck": [ending.struck for ending in endings],
            "delays": [float(ending.delay_seconds) for ending in endings],
            "largest_calls": [ending.largest_call for ending in endings],
            "error_kinds": [failure.kind.value if failure else None for failure in failures],
            "errors": [failure.error if failure else None for failure in failures],
            "step_seconds": step_seconds,
            "plan": plan,
            "key": key,
        },
        _symbols,
    )


def _words(types: Collection[AssetType] | None) -> list[str] | None:
    return None if types is None else [one.value for one in types]


def _claims(items: Sequence[Item]) -> dict[str, object]:
    return {"symbols": [item.asset.symbol for item in items], "tokens": [item.token for item in items]}
