"""Putting assets on the queue: all that are due, in one statement, however many they are.

Whoever adds to the queue holds one lock meanwhile, so that the count against the largest size is exact. Claims do not
take it: they only make the queue shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.database.query import Query, command
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import one
from assetbatch.markets import Market
from assetbatch.model import Enqueued

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType

# A statement's snapshot is older than a lock that it waits for, so the lock is a statement of its own.
LOCK_ENTRANCE = "select pg_advisory_xact_lock(hashtextextended('assetbatch.queue', 0))"
# Other enqueuers take seconds with 100,000 assets.
ENTRANCE_TIMEOUT = "25s"

# An asset is due when it was last served before the limit of its frequency and market, and is not streamed; with daily
# figures, when it lacks the day that its market can be asked for, unless days of its ticker are refused. When not all
# fit, those that have been due for longest go in; what is dropped is due for longer still the next time. What died for
# want of entitlement comes back under another plan or key.
ENQUEUE = """
with limits as (
  select * from unnest(
    %(frequencies)s::int[], %(markets)s::text[], %(served_before)s::timestamptz[], %(daily)s::boolean[],
    %(days)s::date[]
  ) as l (update_frequency_seconds, market, served_before, daily, day)
), looked_at as materialized (
  select a.symbol, a.rank as priority, q.symbol is not null as known,
         q.state is not distinct from 'dead' and not (
           q.error_kind = 'not_entitled'
           and (q.died_on_plan <> %(plan)s or q.died_with_key <> coalesce(%(key)s, q.died_with_key))
         ) as dead,
         coalesce(q.state <> 'dead', false) as queued,
         s.served_at is not null and not exists (select from trading.symbols t where t.symbol = a.symbol) as unmapped,
         a.symbol in (select symbol from assetbatch.gone_tickers) as gone,
         %(all)s or case when l.daily then coalesce(coalesce(s.day, '-infinity') < l.day, false)
                                           and not a.polygon_ticker = any(%(refused)s::text[])
                         else t.symbol is null
                              and (s.served_at is null or coalesce(s.served_at < l.served_before, false)
                                   or s.served_at > clock_timestamp() + interval '1 minute') end as due,
         s.served_at, s.served_at + make_interval(secs => a.update_frequency_seconds) as due_at
  from assetbatch.assets a
  left join limits l
    on l.update_frequency_seconds = a.update_frequency_seconds
   and l.market = a.market
  left join assetbatch.sync_state s on s.symbol = a.symbol
  left join assetbatch.streamed t on t.symbol = a.symbol
  left join assetbatch.queue q on q.symbol = a.symbol
  where a.enabled and a.role = 'secondary' and a.origin = any(coalesce(%(origins)s, array[a.origin]))
    and a.symbol = any(coalesce(%(symbols)s, array[a.symbol]))
), wanted as materialized (
  select * from looked_at where due and not (queued or dead or unmapped or gone)
), added as (
  insert into assetbatch.queue as q (symbol, priority, waiting_since, rank, served_at, enqueued_at, available_at)
  select symbol, priority, at, at + (priority - 1) * make_interval(secs => %(step_seconds)s), served_at, at, at
  from wanted, statement_timestamp() as at
  order by due_at nulls first, symbol
  limit greatest(0, %(max_size)s - (select count(*) from assetbatch.queue where state <> 'dead'))
  on conflict (symbol) do update
  set id = default, state = 'queued', priority = excluded.priority, waiting_since = excluded.waiting_since,
      rank = excluded.rank, enqueued_at = excluded.enqueued_at, available_at = excluded.available_at,
      attempts = 0, largest_call = null, struck_at = null, died_at = null, died_on_plan = null, died_with_key = null
  returning 1
)
select added.enqueued, wanted.due - added.enqueued as dropped, looked_at.*
from (select count(*) as enqueued from added) added,
     (select count(*) as due from wanted) wanted,
     (select count(*) filter (where queued) as already_queued,
             count(*) filter (where dead) as dead,
             count(*) filter (where gone and not (queued or dead)) as gone,
             count(*) filter (where unmapped and not (queued or dead or gone)) as unmapped,
             count(*) filter (where not (due or queued or dead or unmapped or gone)) as fresh,
             count(*) as found
      from looked_at) looked_at
"""

# What waited in line when a step of priority was worth something else gets its place by today's worth; what another
# statement is just changing gets it the next time.
PUT_IN_ORDER = """
with misplaced as materialized (
  select symbol, waiting_since + (priority - 1) * make_interval(secs => %(step_seconds)s) as rank
  from assetbatch.queue
  where state in ('queued', 'delayed')
    and rank <> waiting_since + (priority - 1) * make_interval(secs => %(step_seconds)s)
  for update skip locked
)
update assetbatch.queue q set rank = misplaced.rank from misplaced where q.symbol = misplaced.symbol
"""


def enqueue(
    connection: Connection,
    served_before: Callable[[int, Market], datetime],
    *,
    origins: Sequence[str] | None,
    symbols: Sequence[str] | None,
    due_or_not: bool,
    max_size: int,
    step_seconds: float,
    plan: str,
    key: str | None,
    frequencies: Sequence[int],
    days: Mapping[AssetType, date | None],
    refused: Collection[str] = (),
) -> Enqueued:
    """Put the secondary assets that are due on the queue, as many as fit.

    `served_before(update_frequency_seconds, market)` is the planner's word on who is due, for each of the catalogue's
    `frequencies`; of markets whose prices are those of finished days it is `days`, the newest one that can be had of
    each (None: no day now), and of `refused` tickers there is none. `origins` and `symbols` choose among the enabled
    secondary assets of the catalogue, None: all. `key` is the fingerprint of the key, None: unknown.
    """
    limits = [(seconds, market, served_before(seconds, market)) for seconds in frequencies for market in Market]
    enqueuing = Query(
        ENQUEUE,
        {
            "frequencies": [seconds for seconds, _, _ in limits],
            "markets": [market.value for _, market, _ in limits],
            "served_before": [moment for _, _, moment in limits],
            "daily": [market.asset_type in days for _, market, _ in limits],
            "days": [days.get(market.asset_type) for _, market, _ in limits],
            "refused": list(refused),
            "origins": None if origins is None else list(origins),
            "symbols": None if symbols is None else list(symbols),
            "all": due_or_not,
            "max_size": max_size,
            "step_seconds": step_seconds,
            "plan": plan,
            "key": key,
        },
        one,
    )
    in_order = command(PUT_IN_ORDER, {"step_seconds": step_seconds})
    in_transaction(
        connection,
        lambda: connection.ask(command(LOCK_ENTRANCE), in_order, enqueuing),
        lock_timeout=ENTRANCE_TIMEOUT,
    )
    counts = enqueuing.answer
    found = counts.pop("found")
    if symbols is not None:
        counts["unmapped"] += len(set(symbols)) - found
    return Enqueued(**counts)
