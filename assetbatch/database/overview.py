"""What `status` reads: a handful of statements, none of which looks at more than an hour of calls or two days of runs.

Times are held against `statement_timestamp()`, which an index can be searched with: `clock_timestamp()` may change from
row to row, so each row would be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assetbatch.database import entitlements, outbox
from assetbatch.planner import ASK_AGAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.outbox import Refusal
    from assetbatch.model import Access, AssetType
    from assetbatch.planner import Days, Entitlement

READ_PRICES = """
select s.symbol,
       s.metadata -> 'last_update' ->> 'last_price' as last_price,
       s.metadata -> 'last_update' ->> 'daily_open' as daily_open,
       s.metadata -> 'last_update' ->> 'timestamp' as data_timestamp
from trading.symbols s
where s.symbol = any(%(symbols)s)
"""

# A run that was killed never says how it ended: one that has not ended when it must have failed.
READ_JOBS = """
with recent as (
  select job, started_at, finished_at, error,
         case when status = 'running' and ends_by < clock_timestamp()
              then 'failed' else status end as status,
         started_at - lag(started_at) over (partition by job order by started_at) as gap
  from assetbatch.runs
  where job = any(%(jobs)s) and status <> 'skipped' and started_at > statement_timestamp() - interval '48 hours'
)
select j.job, last.started_at as last_run, coalesce(r.status, last.status) as last_status, ended.exit_code,
       good.finished_at as last_success,
       day.runs, day.ok, day.partial, day.failed, day.last_failure, day.last_error,
       greatest(day.longest_gap_seconds, extract(epoch from clock_timestamp() - last.started_at)::float8)
         as longest_gap_seconds
from unnest(%(jobs)s::text[]) with ordinality as j (job, place)
left join lateral (
  select started_at, status from assetbatch.runs
  where runs.job = j.job and status <> 'skipped' order by started_at desc limit 1
) last on true
left join recent r on r.job = j.job and r.started_at = last.started_at
left join lateral (
  select exit_code from assetbatch.runs
  where runs.job = j.job and status <> 'skipped' and finished_at is not null order by started_at desc limit 1
) ended on true
left join lateral (
  select finished_at from assetbatch.runs
  where runs.job = j.job and status = 'ok' order by started_at desc limit 1
) good on true
cross join lateral (
  select count(*) as runs,
         count(*) filter (where status = 'ok') as ok,
         count(*) filter (where status = 'partial') as partial,
         count(*) filter (where status = 'failed') as failed,
         extract(epoch from max(gap))::float8 as longest_gap_seconds,
         max(coalesce(finished_at, started_at)) filter (where status in ('partial', 'failed')) as last_failure,
         (array_agg(error order by started_at desc) filter (where status in ('partial', 'failed')))[1] as last_error
  from recent
  where recent.job = j.job and started_at > statement_timestamp() - interval '24 hours'
) day
order by j.place
"""

# A refusal of a priority call is among the waits of its run already.
READ_HOUR = """
select r.priority_ok, r.priority_finished, r.priority_latency_ms,
       r.rate_limit_waits + c.other_refusals as rate_limit_waits, c.calls, c.refusals,
       (select count(*) from assetbatch.outbox where published_at is null) as events_pending,
       (select created_at from assetbatch.outbox where published_at is null order by id limit 1) as oldest_event_at,
       coalesce((select value::bigint from assetbatch.meta where key = 'events_dropped'), 0) as events_dropped,
       (select started_at from assetbatch.runs order by id limit 1) as first_run_at,
       clock_timestamp() as now
from (
  select count(*) filter (where status = 'ok') as priority_ok,
         count(*) filter (
           where status in ('ok', 'partial', 'failed')
              or (status = 'running' and ends_by < clock_timestamp())
         ) as priority_finished,
         (avg(extract(epoch from finished_at - started_at)) filter (where status <> 'skipped') * 1000)::float8
           as priority_latency_ms,
         coalesce(sum(rate_limit_waits), 0)::int as rate_limit_waits
  from assetbatch.runs
  where job = 'run-priority' and started_at > statement_timestamp() - interval '1 hour'
) r
cross join (
  select count(*) filter (where sent) as calls,
         count(*) filter (where outcome = 'rate_limited') as refusals,
         count(*) filter (
           where outcome = 'rate_limited'
             and not exists (select from assetbatch.runs p where p.id = a.run_id and p.job = 'run-priority')
         )::int as other_refusals
  from assetbatch.api_calls a where at > statement_timestamp() - interval '1 hour'
) c
"""

READ_KEY_IN_USE = """
select key_fingerprint as key from assetbatch.rate_limits
order by key_fingerprint is not distinct from %(key)s desc, greatest(last_answer_at, next_call_at) desc limit 1
"""

READ_BUDGET = """
select k.max_calls, extract(epoch from k.window_length)::float8 as window_seconds,
       case when k.full_by + k.window_length + k.margin > clock_timestamp() then k.max_calls
            else count(*) filter (where s.counted_by + k.window_length + k.margin > clock_timestamp()) end as busy,
       greatest(min(s.counted_by), k.full_by) + k.window_length + k.margin as next_free_at,
       k.blocked_until
from assetbatch.rate_limits k
left join assetbatch.rate_limit_slots s using (key_fingerprint)
where k.key_fingerprint = %(key)s
group by k.key_fingerprint
"""

READ_DISAGREEING_HOSTS = """
select host, max_calls, extract(epoch from window_length)::float8 as window_seconds
from assetbatch.rate_limit_hosts h
where seen_at > statement_timestamp() - interval '10 minutes'
  and exists (
    select from assetbatch.rate_limit_hosts o
    where o.key_fingerprint = h.key_fingerprint and o.seen_at > statement_timestamp() - interval '10 minutes'
      and (o.max_calls, o.window_length, o.margin, o.min_spacing)
            is distinct from (h.max_calls, h.window_length, h.margin, h.min_spacing)
  )
order by host
"""


# When the last dead letter died, an index tells: looking for it in every group costs a tenth of the statement.
READ_QUEUE = """
select state, priority, count(*) as items, min(enqueued_at) as oldest,
       case when state = 'dead' then (select max(died_at) from assetbatch.queue where state = 'dead') end as died_at
from assetbatch.queue
group by state, priority
"""

READ_BARS = """
select count(*) as failing
from assetbatch.bar_state b join assetbatch.assets a using (symbol)
where b.error_kind is not null and a.enabled
"""

# The last ones first; what was killed ended when it must have.
READ_NOT_WELL = """
select job, host, started_at, finished_at, exit_code, error_kind,
       case when status = 'running' then 'killed' else status end as status,
       coalesce(error, case when status = 'running' then 'it was killed' end) as error
from assetbatch.runs
where started_at > statement_timestamp() - make_interval(secs => %(seconds)s)
  and (status in ('partial', 'failed') or (status = 'running' and ends_by < clock_timestamp()))
order by started_at desc
limit %(limit)s
"""

# How long the queue was one interval of its job ago: the last that a run wrote down before that.
READ_QUEUE_BEFORE = """
select last.remaining
from unnest(array['drain-queue', 'enqueue-secondary']) as j (job)
cross join lateral (
  select started_at, remaining from assetbatch.runs
  where runs.job = j.job and remaining is not null
    and finished_at <= statement_timestamp() - make_interval(secs => %(seconds)s)
  order by started_at desc
  limit 1
) last
order by last.started_at desc
limit 1
"""


@dataclass(frozen=True, slots=True)
class Overview:
    """Rows as they were read; `now` is the database's time."""

    now: datetime
    prices: dict[str, Row]
    jobs: list[Row]
    hour: dict[str, Any]
    queue: list[Row]
    queue_size_before: int | None
    budget: Row | None
    disagreeing_hosts: list[Row]
    entitlements: Mapping[Access, Entitlement] = field(default_factory=dict)
    days: Days = field(default_factory=dict)
    closed: frozenset[AssetType] = frozenset()
    key: str | None = None
    """The fingerprint of the key in use."""
    first_run_at: datetime | None = None
    bars_failing: int = 0
    events_refused: Refusal | None = None

    def job(self, name: str) -> Row:
        """Give the row of a job; each has one, whether it ever ran or not."""
        return next(row for row in self.jobs if row["job"] == name)


def read(
    connection: Connection,
    *,
    symbols: Sequence[str],
    jobs: Sequence[str],
    key: str | None,
    plan: str,
    enqueued_every_seconds: float,
) -> Overview:
    """Read all that `status` tells of, for these assets and jobs; `key` is the fingerprint of the key in use.

    Where none is at hand it is the one that was used last.
    """
    hour = connection.execute(READ_HOUR).fetchone()
    assert hour is not None  # noqa: S101 - an aggregate has one row
    used = connection.execute(READ_KEY_IN_USE, {"key": key}).fetchone()
    before = connection.execute(READ_QUEUE_BEFORE, {"seconds": enqueued_every_seconds}).fetchone()
    bars = connection.execute(READ_BARS).fetchone()
    assert bars is not None  # noqa: S101 - a select without from has one row
    return Overview(
        now=hour["now"],
        prices=prices(connection, symbols),
        jobs=connection.execute(READ_JOBS, {"jobs": list(jobs)}).fetchall(),
        hour=hour,
        queue=connection.execute(READ_QUEUE).fetchall(),
        queue_size_before=None if before is None else before["remaining"],
        budget=connection.execute(READ_BUDGET, {"key": used and used["key"]}).fetchone(),
        disagreeing_hosts=connection.execute(READ_DISAGREEING_HOSTS).fetchall(),
        entitlements={} if used is None else entitlements.read(connection, key=used["key"], plan=plan),
        days=entitlements.read_days(connection, hour["now"]),
        closed=entitlements.closed_markets(connection, hour["now"] - ASK_AGAIN),
        key=key if used is None else used["key"],
        first_run_at=hour["first_run_at"],
        bars_failing=bars["failing"],
        events_refused=outbox.refusal(connection),
    )


def prices(connection: Connection, symbols: Sequence[str]) -> dict[str, Row]:
    """Read the newest prices of assets by symbol."""
    return {row["symbol"]: row for row in connection.execute(READ_PRICES, {"symbols": list(symbols)})}


def not_well(connection: Connection, *, seconds: float, limit: int) -> list[Row]:
    """Read the runs of the last so many seconds that were not well, the newest first."""
    return connection.execute(READ_NOT_WELL, {"seconds": seconds, "limit": limit}).fetchall()
