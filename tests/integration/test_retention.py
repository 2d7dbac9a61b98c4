"""Forgetting what is old."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from assetbatch.database import retention
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.run import Start, perform
from assetbatch.model import RunResult, RunStatus
from tests.conftest import open_database
from tests.relay import Relay
from tests.world import load_config

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.jobs.run import Run

AGES = {"old": 31, "new": 29}
PLENTY = 60.0


def add(connection: Connection, *, runs: int = 0, calls: int = 0) -> None:
    """Add as many old rows, and then as many new ones."""
    for days in AGES.values():
        connection.execute(
            "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by, status)"
            " select 'run-priority', 'h', '0', 'free', at, at, 'ok'"
            " from generate_series(1, %s), (select clock_timestamp() - make_interval(days => %s) as at) t",
            (runs, days),
        )
        connection.execute(
            "insert into assetbatch.api_calls (run_id, at, kind, outcome, sent, latency_ms, waited_ms, assets)"
            " select 1, clock_timestamp() - make_interval(days => %s), 'bars', 'ok', true, 1, 1, 1"
            " from generate_series(1, %s)",
            (days, calls),
        )


def count(connection: Connection, table: str) -> int:
    row = connection.execute(f"select count(*) as rows from assetbatch.{table}").fetchone()
    assert row is not None
    return int(row["rows"])


def prune(connection: Connection, *, budget_seconds: float = PLENTY, batch: int = retention.BATCH) -> int:
    """Prune where it is time for that, as a run does at its end."""
    lease = retention.turn(connection)
    if not connection.answer(lease.taking()):
        return 0
    return retention.prune(connection, lease, days=30, bar_changes_days=30, budget_seconds=budget_seconds, batch=batch)


def test_runs_and_calls_are_kept_for_so_many_days_and_no_longer(connection: Connection) -> None:
    add(connection, runs=1100, calls=1300)

    assert prune(connection) == 2400

    assert (count(connection, "runs"), count(connection, "api_calls")) == (1100, 1300)
    left = connection.execute(
        "select min(started_at) > clock_timestamp() - interval '30 days' as new from assetbatch.runs"
    )
    assert left.fetchone() == {"new": True}


def test_it_is_done_once_an_hour(connection: Connection) -> None:
    prune(connection)
    add(connection, calls=10)

    assert prune(connection) == 0
    connection.execute("update assetbatch.leases set held_until = held_until - interval '61 minutes'")
    assert prune(connection) == 10


def test_of_a_database_that_is_far_away_all_is_forgotten_too(
    connection: Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine, too.
    monkeypatch.setattr(retention, "STATEMENT_TIMEOUT", "10s")
    connection.execute(
        "insert into assetbatch.bar_changes (symbol, ranges, bars, changed_at)"
        " values ('BTCUSD', '{[2026-01-01, 2026-01-02)}', 288, now() - interval '31 days')"
    )
    with Relay(database, delay_seconds=0.03) as relay, open_database(relay.conninfo) as far_away:
        far_away.execute("select 1")
        before = relay.round_trips

        assert prune(far_away, budget_seconds=retention.BUDGET_SECONDS) == 1
        assert relay.round_trips - before <= 2

    assert prune(connection) == 0
    assert count(connection, "bar_changes") == 0


def test_what_there_is_no_time_for_is_left_to_the_next_run(connection: Connection) -> None:
    add(connection, calls=30)
    deleted = [prune(connection, budget_seconds=0)]

    # Each has time for some, however slow the machine is: at most so many are needed.
    while sum(deleted) < 30 and len(deleted) < 40:
        deleted.append(prune(connection, budget_seconds=0.001, batch=10))

    assert deleted[0] == 0
    assert sum(deleted) == 30
    assert count(connection, "api_calls") == 30


def test_a_row_that_somebody_holds_holds_up_nobody(connection: Connection, database: str) -> None:
    add(connection, runs=3)
    with open_database(database) as other, other.transaction():
        other.execute("select from assetbatch.runs order by id limit 1 for update")

        assert prune(connection) == 2

    connection.execute("delete from assetbatch.leases")
    assert prune(connection) == 1


def test_a_run_that_is_still_going_keeps_its_record(connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by)"
        " select 'backfill', 'h', '0', 'free', now - interval '40 days', now + n * interval '1 day'"
        " from unnest(array[-1, 1]) n, clock_timestamp() as now"
    )

    assert prune(connection) == 1

    assert count(connection, "runs") == 1


def test_hosts_refusals_and_days_that_nobody_uses_are_forgotten(connection: Connection) -> None:
    for days in AGES.values():
        connection.execute(
            "insert into assetbatch.rate_limit_hosts"
            " select 'key', 'host' || %(days)s, 5, '1 minute', '1 second', '0', at from (select clock_timestamp()"
            " - make_interval(days => %(days)s) as at) t",
            {"days": days},
        )
        connection.execute(
            "insert into assetbatch.entitlements (key_fingerprint, plan, access, allowed, asked_at)"
            " values ('key', 'plan' || %(days)s, 'bars', false, clock_timestamp() - make_interval(days => %(days)s))",
            {"days": days},
        )
        connection.execute(
            "insert into assetbatch.daily_figures (market, day, outcome) values ('forex', current_date - %s, 'stored')",
            (days,),
        )

    assert prune(connection) == 3

    for table in ("rate_limit_hosts", "entitlements", "daily_figures"):
        assert count(connection, table) == 1, table


def test_what_a_key_in_use_may_see_is_remembered(connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.rate_limits (key_fingerprint, window_length, margin, min_spacing, last_answer_at)"
        " values ('used', '1 minute', '0', '0', clock_timestamp()), ('gone', '1 minute', '0', '0', 'epoch')"
    )
    connection.execute(
        "insert into assetbatch.entitlements (key_fingerprint, plan, access, allowed, asked_at)"
        " select key, 'free', 'snapshots', true, clock_timestamp() - interval '90 days'"
        " from unnest(array['used', 'gone']) key"
    )

    assert prune(connection) == 1

    left = connection.execute("select key_fingerprint as key from assetbatch.entitlements").fetchall()
    assert left == [{"key": "used"}]


@pytest.mark.parametrize("job", ["run-priority", "enqueue-secondary", "drain-queue"])
def test_which_runs_forget_and_that_a_locked_table_delays_and_fails_none(
    job: str, connection: Connection, database: str, tmp_path: Path
) -> None:
    config = load_config(tmp_path, DATABASE_URL=database)
    add(connection, calls=5)

    def work(run: Run) -> RunResult:
        now = run.clock.now()
        return RunResult(job, run.id, RunStatus.OK, 0, now, now)

    def once() -> RunResult:
        start = Start(config, connection, "h", Stop(KeyboardInterrupt))
        return perform(job, start, work, max_seconds=60, lease_seconds=30)

    with open_database(database) as other, other.transaction():
        other.execute("lock table assetbatch.api_calls in access exclusive mode")
        began = time.monotonic()
        assert once().status is RunStatus.OK
        assert time.monotonic() - began < 5
    assert count(connection, "api_calls") == 10

    connection.execute("delete from assetbatch.leases")
    once()

    assert count(connection, "api_calls") == (10 if job == "drain-queue" else 5)
