"""A full disk of the database's: runs end with PostgreSQL's words, say so where it can be written, and cost nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

# The server's own error, at the moment at which a table needs another page.
FULL = """
create function assetbatch.full() returns trigger language plpgsql as $$
begin
  raise exception 'could not extend file "base/16385/16478": No space left on device' using errcode = 'disk_full';
end $$;
create trigger full_disk before insert or update on {table} for each statement execute function assetbatch.full()
"""
DONE = ("market_data.ohlcv_5m", "drain-queue")
WORDS = 'could not extend file "base/16385/16478": No space left on device'


@pytest.mark.parametrize(
    "table", ["trading.symbols", "assetbatch.outbox", "market_data.ohlcv_5m", "assetbatch.api_calls"]
)
@pytest.mark.parametrize("job", ["run-priority", "drain-queue"])
def test_a_full_disk_ends_a_run_with_69_and_blames_nobody(
    commands: Commands, connection: Connection, table: str, job: str
) -> None:
    (commands.folder / "config.yaml").write_text("bars: {enabled: true, backfill_days: 1}\n")
    commands.environment["POLYGON_RATE_LIMIT"] = "100"
    assert commands("run-priority").returncode == 0
    assert commands("enqueue-secondary").returncode == 0
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    connection.execute("delete from assetbatch.bar_state; delete from market_data.ohlcv_5m")
    queue = "select symbol, state, attempts, error_kind, died_at from assetbatch.queue order by symbol"
    before = connection.execute(queue).fetchall()
    assert len(before) > 2
    connection.execute(FULL.format(table=table))

    done = commands(job)

    assert done.returncode == 69
    assert WORDS in done.stderr
    assert "make room" in done.stderr
    assert connection.execute(
        "select status, exit_code, error from assetbatch.runs where job = %s order by id desc limit 1", [job]
    ).fetchone() == {"status": "failed", "exit_code": 69, "error": f"the database: {WORDS}"}
    told = commands("status", "--check")
    assert told.returncode > 0
    assert f"{job} failed, for" in told.stdout
    assert f"{WORDS} (make room" in told.stdout
    # Prices go before bars.
    assert connection.execute(queue).fetchall() == ([] if (table, job) == DONE else before)
    busy = "select from assetbatch.rate_limit_slots where token is not null"
    assert connection.execute(busy).fetchall() == []
    connection.execute(f"drop trigger full_disk on {table}")
    connection.execute("update assetbatch.bar_state set leased_until = clock_timestamp()")

    well = commands(job)

    assert well.returncode == 0
    assert "well again" in well.stderr
