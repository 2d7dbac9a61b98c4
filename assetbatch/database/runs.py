"""The record of runs and of calls: what `status`, metrics and alerts are computed from."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from msgspec import Struct

from assetbatch.database.errors import meaning_of
from assetbatch.database.query import Query, command
from assetbatch.database.rows import columns, one, value
from assetbatch.errors import EXIT_BUG, AssetbatchError, Interrupted
from assetbatch.failures import POLICIES
from assetbatch.processes import this_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult

# Who begins takes the right to run its job alone, if nobody has it. Times lie ahead where the clock that wrote them was
# set back since: no lease is taken for longer than two hours.
BEGIN_RUN = """
with run as (
  insert into assetbatch.runs
    (job, host, version, plan, calls_per_window, place, pid, pid_started, started_at, ends_by)
  select %(job)s, %(host)s, %(version)s, %(plan)s, %(calls_per_window)s, %(place)s, %(pid)s, %(pid_started)s,
         at, at + make_interval(secs => %(longest)s)
  from coalesce(%(started_at)s::timestamptz, clock_timestamp()) as at
  returning id, started_at, (lpad(to_hex(id), 16, '0') || %(secret)s)::uuid as token
), lease as (
  insert into assetbatch.leases as l (name, holder, held_until)
  select %(job)s, token, clock_timestamp() + make_interval(secs => %(lease_seconds)s)
  from run where %(lease_seconds)s::float8 is not null
  on conflict (name) do update set holder = excluded.holder, held_until = excluded.held_until
  where l.held_until < clock_timestamp()
  returning holder
)
select id as run_id, started_at, token, exists (select from lease) as has_lease,
       %(started_at)s::timestamptz is null and (
  exists (select from assetbatch.sync_state where served_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.bar_state where asked_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.daily_figures where asked_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.entitlements where asked_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.market_status where asked_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.streams where told_at > clock_timestamp() + interval '1 minute')
  or exists (select from assetbatch.leases where held_until > clock_timestamp() + interval '2 hours')
) as is_ahead
from run
"""

# What was begun though the answer was lost.
BEGUN_RUN = """
select id as run_id, started_at, token, false as is_ahead,
       exists (select from assetbatch.leases where holder = token) as has_lease
from assetbatch.runs
cross join lateral (select (lpad(to_hex(id), 16, '0') || %(secret)s)::uuid as token) own
where job = %(job)s and place = %(place)s and pid = %(pid)s and pid_started = %(pid_started)s and status = 'running'
order by id desc limit 1
"""

FINISH_RUN = """
update assetbatch.runs
set finished_at = %(finished_at)s, status = %(status)s, exit_code = %(exit_code)s, updated = %(updated)s,
    unchanged = %(unchanged)s, deferred = %(deferred)s, failed = %(failed)s, api_calls = %(api_calls)s,
    rate_limit_waits = %(rate_limit_waits)s, waited_seconds = %(waited_seconds)s,
    requeued = %(requeued)s, dead = %(dead)s, enqueued = %(enqueued)s,
    error_kind = %(error_kind)s, error = %(error)s
where id = %(id)s
"""

# A statement of its own: runs that have nothing to do with the queue do without its table.
NOTE_REMAINING = """
update assetbatch.runs set remaining = (select count(*) from assetbatch.queue where state <> 'dead')
where id = %(id)s
returning remaining
"""

ABANDON_RUN = """
update assetbatch.runs
set finished_at = clock_timestamp(), status = 'failed', exit_code = %(exit_code)s,
    error_kind = %(error_kind)s, error = %(error)s
where id = %(id)s and finished_at is null
"""

GO_ON = """
update assetbatch.runs set ends_by = clock_timestamp() + make_interval(secs => %(seconds)s) where id = %(id)s
"""

RECORD_CALLS = """
insert into assetbatch.api_calls
  (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets, symbol, calls_in_window)
select * from unnest(
  %(run_id)s::bigint[], %(kind)s::text[], %(outcome)s::text[], %(http_status)s::int[], %(sent)s::boolean[],
  %(latency_ms)s::int[], %(waited_ms)s::int[], %(assets)s::int[], %(symbol)s::text[], %(calls_in_window)s::int[]
)
"""

# The same calls, just now: no two take the same time to the millisecond, one right after the other.
RECORDED_CALLS = """
select from assetbatch.api_calls c
join unnest(
  %(run_id)s::bigint[], %(kind)s::text[], %(outcome)s::text[], %(latency_ms)s::int[], %(waited_ms)s::int[]
) as v (run_id, kind, outcome, latency_ms, waited_ms) using (run_id, kind, outcome, latency_ms, waited_ms)
where c.at > clock_timestamp() - interval '1 minute'
"""

# Whoever made them: a call that fails may be its asset's fault, but not when those for others before it failed, too. A
# call that never left says nothing about its asset.
IS_STRUCK = """
select count(*) = %(times)s and count(distinct coalesce(case when sent then symbol end, id::text)) > 1
       and bool_and(outcome = any(%(kinds)s) and at > clock_timestamp() - interval '15 minutes') as struck
from (select id, symbol, sent, outcome, at from assetbatch.api_calls order by id desc limit %(times)s) last
"""

LAST_ANSWER = "select at from assetbatch.api_calls where outcome = 'ok' order by id desc limit 1"

REFUSALS_IN_LAST_HOUR = """
select count(*) as refusals from assetbatch.api_calls
where outcome = 'rate_limited' and at > statement_timestamp() - interval '1 hour'
"""


class CallRecord(Struct, frozen=True):
    """One request as it went: `outcome` is "ok", the kind of failure, or "unknown": the run was ended meanwhile."""

    run_id: int
    kind: str
    outcome: str
    http_status: int | None
    sent: bool
    latency_ms: int
    waited_ms: int
    assets: int
    symbol: str | None
    calls_in_window: int | None


class Begun(Struct, frozen=True):
    """A run that has begun; `is_ahead`: times of the database lie in the future that cannot, see `ahead`.

    `token` is what it holds its lease by, if it `has_lease`.
    """

    run_id: int
    started_at: datetime
    token: UUID
    has_lease: bool
    is_ahead: bool


def begin(
    *,
    job: str,
    host: str,
    version: str,
    plan: str,
    calls_per_window: int | None,
    longest_seconds: float,
    started_at: datetime | None = None,
    lease_seconds: float | None = None,
) -> Query[Begun]:
    """Write down that a run has begun; its start is by the database's clock unless given.

    Takes the lease on its job for `lease_seconds`, if nobody has it; None: it needs none. What has not ended after
    `longest_seconds` counts as killed, and at once what this process has begun when that is gone.
    """
    process = this_process()
    return Query(
        BEGIN_RUN,
        {
            "job": job,
            "host": host,
            "version": version,
            "plan": plan,
            "calls_per_window": calls_per_window,
            "place": process and process.place,
            "pid": process and process.pid,
            "pid_started": process and process.started,
            "longest": longest_seconds,
            "started_at": started_at,
            "lease_seconds": lease_seconds,
            "secret": uuid4().hex[16:],
        },
        lambda cursor: Begun(**one(cursor)),
        found_by=BEGUN_RUN,
    )


def note_remaining(run_id: int) -> Query[int | None]:
    """Write down how many items the queue has as a run ends, but for dead letters; that is the answer."""
    return Query(NOTE_REMAINING, {"id": run_id}, value)


def finish(result: RunResult) -> Query[int]:
    """Write down how a run ended."""
    cause = result.ended_by or next(iter(result.failed), None)
    return command(
        FINISH_RUN,
        {
            "id": result.run_id,
            "finished_at": result.finished_at,
            "status": result.status.value,
            "exit_code": result.exit_code,
            "updated": len(result.updated),
            "unchanged": len(result.unchanged),
            "deferred": len(result.deferred),
            "failed": len(result.failed),
            "api_calls": result.api_calls_used,
            "rate_limit_waits": result.rate_limit_waits,
            "waited_seconds": result.waited_seconds,
            "requeued": len(result.requeued),
            "dead": len(result.dead),
            "enqueued": result.enqueued.enqueued if result.enqueued else 0,
            "error_kind": cause.kind.value if cause else None,
            "error": cause.error if cause else None,
        },
    )


def go_on(run_id: int, *, seconds: float) -> Query[int]:
    """Let a run that has no end of its own count as under way for so long from now."""
    return command(GO_ON, {"id": run_id, "seconds": seconds})


def abandon(connection: Connection, run_id: int, error: BaseException) -> None:
    """Write down that an exception ended a run, as far as the connection still carries that."""
    code, words = EXIT_BUG, "unexpected, see the log"
    known = meaning_of(error, "the database") if isinstance(error, psycopg.Error) else error
    if isinstance(known, AssetbatchError | Interrupted):
        code, words = known.exit_code, known.reason
    with suppress(psycopg.Error):
        connection.execute(
            ABANDON_RUN,
            {
                "id": run_id,
                "exit_code": code,
                "error_kind": type(error).__name__,
                "error": words,
            },
        )


def recording(calls: Sequence[CallRecord]) -> Query[int]:
    """Write down calls: of one that brought something, in the transaction that stores it."""
    return Query(RECORD_CALLS, columns(CallRecord, calls), lambda cursor: cursor.rowcount, found_by=RECORDED_CALLS)


def is_struck(connection: Connection, *, times: int) -> bool:
    """Return whether the last calls, so many in a row and none of them long ago, all failed as if the API were away.

    Calls for one and the same asset tell nothing of the API.
    """
    kinds = [kind.value for kind, meaning in POLICIES.items() if meaning.strike]
    return bool(value(connection.execute(IS_STRUCK, {"times": times, "kinds": kinds})))


def last_answer_at(connection: Connection) -> datetime | None:
    """Return when the API last answered any process with what it was asked for."""
    at: datetime | None = value(connection.execute(LAST_ANSWER))
    return at


def refusals_in_last_hour(connection: Connection) -> int:
    """Count how often the vendor answered 429 to any process, as far as it is written down."""
    refusals: int = value(connection.execute(REFUSALS_IN_LAST_HOUR))
    return refusals
