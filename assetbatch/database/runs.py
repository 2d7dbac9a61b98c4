"""The record of runs and of calls: what `status`, metrics and alerts are computed from."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psycopg

from assetbatch.errors import EXIT_BUG, AssetbatchError

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult

BEGIN_RUN = """
insert into assetbatch.runs (job, host, version, plan, calls_per_window, started_at)
values (%(job)s, %(host)s, %(version)s, %(plan)s, %(calls_per_window)s, coalesce(%(started_at)s, clock_timestamp()))
returning id, started_at
"""

FINISH_RUN = """
update assetbatch.runs
set finished_at = %(finished_at)s, status = %(status)s, exit_code = %(exit_code)s, updated = %(updated)s,
    unchanged = %(unchanged)s, deferred = %(deferred)s, failed = %(failed)s, api_calls = %(api_calls)s,
    rate_limit_waits = %(rate_limit_waits)s, waited_seconds = %(waited_seconds)s,
    error_kind = %(error_kind)s, error = %(error)s
where id = %(id)s
"""

ABANDON_RUN = """
update assetbatch.runs
set finished_at = clock_timestamp(), status = 'failed', exit_code = %(exit_code)s,
    error_kind = %(error_kind)s, error = %(error)s
where id = %(id)s and finished_at is null
"""

RECORD_CALL = """
insert into assetbatch.api_calls
  (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets, calls_in_window)
values (%(run_id)s, %(kind)s, %(outcome)s, %(http_status)s, %(sent)s, %(latency_ms)s, %(waited_ms)s, %(assets)s,
        %(calls_in_window)s)
"""

REFUSALS_IN_LAST_HOUR = """
select count(*) as refusals from assetbatch.api_calls
where outcome = 'rate_limited' and at > clock_timestamp() - interval '1 hour'
"""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One request as it went: `outcome` is "ok", the kind of failure, or "unknown": the run was ended meanwhile."""

    run_id: int
    kind: str
    outcome: str
    http_status: int | None
    sent: bool
    latency_ms: int
    waited_ms: int
    assets: int
    calls_in_window: int | None


def begin(
    connection: Connection,
    *,
    job: str,
    host: str,
    version: str,
    plan: str,
    calls_per_window: int | None,
    started_at: datetime | None = None,
) -> tuple[int, datetime]:
    """Write down that a run has begun; return its id and its start, by the database's clock unless given."""
    row = connection.execute(
        BEGIN_RUN,
        {
            "job": job,
            "host": host,
            "version": version,
            "plan": plan,
            "calls_per_window": calls_per_window,
            "started_at": started_at,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - an insert without conflict returns its row
    return row["id"], row["started_at"]


def finish(connection: Connection, result: RunResult) -> None:
    """Write down how a run ended."""
    first = result.failed[0] if result.failed else None
    connection.execute(
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
            "error_kind": first.kind.value if first else None,
            "error": first.error if first else None,
        },
    )


def abandon(connection: Connection, run_id: int, error: BaseException) -> None:
    """Write down that an exception ended a run, as far as the connection still carries that."""
    with suppress(psycopg.Error):
        connection.execute(
            ABANDON_RUN,
            {
                "id": run_id,
                "exit_code": error.exit_code if isinstance(error, AssetbatchError) else EXIT_BUG,
                "error_kind": type(error).__name__,
                "error": error.reason if isinstance(error, AssetbatchError) else "unexpected, see the log",
            },
        )


def record_call(connection: Connection, call: CallRecord) -> None:
    """Write down one call; of one that brought something, in the transaction that stores it."""
    connection.execute(RECORD_CALL, asdict(call))


def refusals_in_last_hour(connection: Connection) -> int:
    """Count how often the vendor answered 429 to any process, as far as it is written down."""
    row = connection.execute(REFUSALS_IN_LAST_HOUR).fetchone()
    return 0 if row is None else row["refusals"]
