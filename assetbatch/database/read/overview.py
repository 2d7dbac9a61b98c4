"""What `status` reads: a handful of statements, none of which looks at more than an hour of calls or two days of runs.

Times are held against `statement_timestamp()`, which an index can be searched with: `clock_timestamp()` may change from
row to row, so each row would be looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from msgspec import Struct, field

from assetbatch.database import entitlements, outbox, splits, streams
from assetbatch.database.query import Query
from assetbatch.database.rows import one, value
from assetbatch.database.setup import platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.outbox import Refusal
    from assetbatch.database.setup.platform import RoleView
    from assetbatch.database.streams import Told
    from assetbatch.model import AssetType, Product
    from assetbatch.planner import Days
    from assetbatch.plans import Plan
    from assetbatch.plans import Told as Entitled

# A run that was killed never says how it ended: one that has not ended when it must have failed. A drain that was
# good for nothing but a dead letter did its work: that letter is told of.
READ_JOBS = """
with recent as (
  select job, started_at, finished_at, exit_code, error_kind, error,
         case when status = 'running' and ends_by < clock_timestamp()
              then 'failed' else status end as status,
         started_at - lag(started_at) over (partition by job order by started_at) as gap
  from assetbatch.runs
  where job = any(%(jobs)s) and status <> 'skipped' and started_at > statement_timestamp() - interval '48 hours'
)
select j.job, last.started_at as last_run, last.host, coalesce(r.status, last.status) as last_status, ended.exit_code,
       good.finished_at as last_success,
       failing.in_a_row, failing.since as failing_since, failing.error as failing_error,
       failing.error_kind as failing_error_kind,
       day.runs, day.ok, day.partial, day.failed, day.last_failure, day.last_error,
       greatest(day.longest_gap_seconds, extract(epoch from clock_timestamp() - last.started_at)::float8)
         as longest_gap_seconds
from unnest(%(jobs)s::text[]) with ordinality as j (job, place)
left join lateral (
  select started_at, host, status from assetbatch.runs
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
  select count(*) as in_a_row, min(started_at) as since, (array_agg(error order by started_at desc))[1] as error,
         (array_agg(error_kind order by started_at desc))[1] as error_kind
  from recent
  where recent.job = j.job and status = 'failed' and not (job = 'drain-queue' and coalesce(exit_code = 3, false))
    and started_at > coalesce(
    (select max(started_at) from recent well where well.job = j.job and well.status in ('ok', 'partial')), '-infinity')
) failing
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

# A refusal of a priority call is among the waits of its run already. A call that is of no limit has no window.
READ_HOUR = """
select r.priority_ok, r.priority_finished, r.priority_latency_ms,
       r.rate_limit_waits + c.other_refusals as rate_limit_waits, c.calls, c.limited_calls, c.refusals,
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
         count(*) filter (where sent and calls_in_window is not null) as limited_calls,
         count(*) filter (where outcome = 'rate_limited') as refusals,
         count(*) filter (
           where outcome = 'rate_limited'
             and not exists (select from assetbatch.runs p where p.id = a.run_id and p.job = 'run-priority')
         )::int as other_refusals
  from assetbatch.api_calls a where at > statement_timestamp() - interval '1 hour'
) c
"""

# Each host as its last run of the last hour had it: an upgrade is soon over, and so is a host that was switched off.
READ_DIFFERING_HOSTS = """
with hosts as (
  select distinct on (host) host, version, plan from assetbatch.runs
  where started_at > statement_timestamp() - interval '1 hour'
  order by host, started_at desc
)
select host, version, plan from hosts
where (select count(distinct (version, plan)) from hosts) > 1
order by host
"""

# Of the key that is named, or was used last.
READ_BUDGET = """
select k.key_fingerprint as key, k.max_calls, extract(epoch from k.window_length)::float8 as window_seconds,
       case when k.full_by + k.window_length + k.margin > clock_timestamp() then k.max_calls
            else count(*) filter (where s.counted_by + k.window_length + k.margin > clock_timestamp()) end as busy,
       greatest(min(s.counted_by), k.full_by) + k.window_length + k.margin as next_free_at,
       k.blocked_until, k.spaced_until > clock_timestamp() as spaced
from assetbatch.rate_limits k
left join assetbatch.rate_limit_slots s using (key_fingerprint)
where k.key_fingerprint = (
  select key_fingerprint from assetbatch.rate_limits
  order by key_fingerprint is not distinct from %(key)s desc, greatest(last_answer_at, next_call_at) desc limit 1
)
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


# The newest dead letters are found by an index: looking for them in every group costs a tenth of the statement.
READ_QUEUE = """
select state, priority, count(*) as items, min(enqueued_at) as oldest,
       case when state = 'dead' then (select max(died_at) from assetbatch.queue where state = 'dead') end as died_at,
       case when state = 'dead' then (
         select jsonb_agg(to_jsonb(d) order by d.died_at desc)
         from (
           select symbol, error_kind, error, died_at from assetbatch.queue
           where state = 'dead' order by died_at desc limit %(limit)s
         ) d
       ) end as newest
from assetbatch.queue
group by state, priority
"""

READ_FAILING_BARS = """
select symbol, b.error_kind, b.error, count(*) over () as total
from assetbatch.bar_state b join assetbatch.assets a using (symbol)
where b.error_kind is not null and a.enabled
order by b.asked_at desc nulls last, symbol limit %(limit)s
"""

READ_GONE = """
select g.symbol, g.state, g.words, count(*) over () as total
from assetbatch.gone_tickers g join assetbatch.assets a using (symbol)
where a.enabled
order by g.delisted_on desc nulls last, g.symbol limit %(limit)s
"""

MOST_NAMED = 5
# A stream tells every few seconds how it is doing: one that has told nothing for so long is away.
STREAM_AWAY_SECONDS = 120.0

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


class Gone(Struct, frozen=True):
    """The assets that were found to be gone last, each with its words, of `total`."""

    named: tuple[tuple[str, str], ...] = ()
    total: int = 0


class Overview(Struct, frozen=True):
    """Rows as they were read; `now` is the database's time."""

    now: datetime
    jobs: list[Row]
    hour: dict[str, Any]
    queue: list[Row]
    queue_size_before: int | None
    budget: Row | None
    disagreeing_hosts: list[Row]
    differing_hosts: list[Row] = field(default_factory=list)
    entitlements: Entitled = field(default_factory=dict)
    days: Days = field(default_factory=dict)
    closed: frozenset[AssetType] = frozenset()
    types: frozenset[AssetType] = frozenset()
    """Of which types there are enabled assets."""
    key: str | None = None
    """The fingerprint of the key in use."""
    first_run_at: datetime | None = None
    failing_bars: list[Row] = field(default_factory=list)
    """The assets whose last call for bars failed, a few of `total`."""
    events_refused: Refusal | None = None
    role_view: RoleView | None = None
    """What the role may see of the platform's tables."""
    splits_listed_at: datetime | None = None
    """When the list of splits came last, or since when there are assets that need it; None: there are none."""
    streams: Sequence[Told] = ()
    """What streams last told, by cluster."""
    gone: Gone = Gone()
    """What is delisted or renamed."""

    def job(self, name: str) -> Row:
        """Give the row of a job; each has one, whether it ever ran or not."""
        return next(row for row in self.jobs if row["job"] == name)


class Reading:
    """The questions whose answers are an overview of these jobs; `key` is the fingerprint of the key in use.

    Where none is at hand it is the one that was used last.
    """

    def __init__(
        self, *, jobs: Sequence[str], key: str | None, plans: Mapping[Product, Plan], enqueued_every_seconds: float
    ) -> None:
        self._key = key
        self._plans = plans
        remembered = entitlements.Remembered(key=key or "", plans=plans, now=None)
        # By the fields of an overview.
        self._asked: dict[str, Query[Any]] = {
            "hour": Query(READ_HOUR, None, one),
            "budget": Query(READ_BUDGET, {"key": key}, lambda cursor: cursor.fetchone()),
            "queue_size_before": Query(READ_QUEUE_BEFORE, {"seconds": enqueued_every_seconds}, value),
            "jobs": _rows(READ_JOBS, {"jobs": list(jobs)}),
            "queue": _rows(READ_QUEUE, {"limit": MOST_NAMED}),
            "disagreeing_hosts": _rows(READ_DISAGREEING_HOSTS),
            "differing_hosts": _rows(READ_DIFFERING_HOSTS),
            "entitlements": remembered.entitlements,
            "days": remembered.days,
            "closed": remembered.closed,
            "types": remembered.types,
            "failing_bars": _rows(READ_FAILING_BARS, {"limit": MOST_NAMED}),
            "events_refused": outbox.refusal(),
            "role_view": platform.role_view(),
            "splits_listed_at": splits.listed_at(),
            "streams": streams.all_told(away_seconds=STREAM_AWAY_SECONDS),
            "gone": gone(limit=MOST_NAMED),
        }
        # Hours are looked up by what the vendor lists from then on.
        self.queries = (*self._asked.values(), remembered.holidays)

    def overview(self, connection: Connection) -> Overview:
        """Return what was read; what the key may see that was used last is asked for now."""
        found, key = {name: query.answer for name, query in self._asked.items()}, self._key
        if key is None and found["budget"] is not None:
            key = found["budget"]["key"]
            found["entitlements"] = connection.answer(entitlements.entitlements(key=key, plans=self._plans))
        return Overview(now=found["hour"]["now"], first_run_at=found["hour"]["first_run_at"], key=key, **found)


def _rows(statement: LiteralString, params: Mapping[str, object] | None = None) -> Query[list[Row]]:
    return Query(statement, params, lambda cursor: cursor.fetchall())


def not_well(*, seconds: float, limit: int) -> Query[list[Row]]:
    """Ask for the runs of the last so many seconds that were not well, the newest first."""
    return _rows(READ_NOT_WELL, {"seconds": seconds, "limit": limit})


def gone(*, limit: int) -> Query[Gone]:
    """Ask which enabled assets are gone, the last ones first."""

    def read(rows: Sequence[Row]) -> Gone:
        return Gone(tuple((row["symbol"], row["words"]) for row in rows), rows[0]["total"] if rows else 0)

    return Query(READ_GONE, {"limit": limit}, lambda cursor: read(cursor.fetchall()))
