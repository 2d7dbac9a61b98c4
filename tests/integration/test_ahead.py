"""A database whose clock was hours ahead, and was then set right: nothing waits for what it wrote."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from assetbatch import planner
from assetbatch.database.ahead import TOLD
from assetbatch.model import Asset, AssetType, Role
from tests.world import TUESDAY

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

HOURS = timedelta(hours=5)
# As if all that the tool has written had been written five hours later.
COLUMNS = """
select format('update %s set %s', c.oid::regclass,
              string_agg(format('%I = %I + interval ''5 hours''', a.attname, a.attname), ', ')) as statement
from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'assetbatch'::regnamespace and c.relkind = 'r' and a.atttypid = 'timestamptz'::regtype
  and a.attgenerated = ''
  and c.relname <> 'migrations' and (c.relname, a.attname) not in (('bar_state', 'wanted_since'))
group by c.oid
"""
# What other plans, or other days, would have written: a stream that was killed, and what was said of stocks.
MORE = """
insert into assetbatch.streams (cluster, run_id, state, told_at, alive_until, since, frame_at)
values ('crypto', 1, 'live', now(), now() + interval '20 seconds', now(), now());
insert into assetbatch.streamed_assets values ('BTCUSD', 'crypto');
insert into assetbatch.ticker_lives (symbol, state, asked_at, ask_at)
values ('ABC', 'listed', now(), now() + interval '7 days');
insert into assetbatch.bar_silences (symbol, told_at, ask_at, ranges)
values ('ABC', now(), now() + interval '1 hour', '{}');
insert into assetbatch.splits (ticker, execution_date, split_from, split_to, noted_at, adjusted_from, is_applied)
values ('ABC', current_date - 3, 1, 2, now(), now(), true),
       ('XYZ', current_date + 3, 1, 2, now() - interval '1 day', now() + interval '3 days', true);
insert into assetbatch.unadjusted_bars values ('ABC', '{}', now(), now(), now())
"""
STILL_AHEAD = """
select (select count(*) from assetbatch.sync_state where greatest(served_at, succeeded_at) > now()) as served,
       (select count(*) from assetbatch.leases where held_until > now() + interval '70 minutes') as leases,
       (select count(*) from assetbatch.bar_state where greatest(asked_at, retry_at, scanned_at) > now()) as bars,
       (select count(*) from assetbatch.queue where greatest(enqueued_at, available_at) > now()) as items,
       (select count(*) from assetbatch.runs where started_at > now()) as runs,
       (select count(*) from assetbatch.api_calls where at > now()) as calls,
       (select count(*) from assetbatch.outbox where created_at > now()) as events,
       (select count(*) from assetbatch.streams
        where greatest(told_at, alive_until, since, frame_at) > now()) as streams,
       (select count(*) from assetbatch.ticker_lives where greatest(asked_at, ask_at) > now()) as lives,
       (select count(*) from assetbatch.bar_silences where told_at > now()) as silences,
       (select count(*) from assetbatch.splits
        where noted_at > now() or adjusted_from > greatest(now(), execution_date + interval '1 day')
          or (is_applied and execution_date > now()))
         + (select count(*) from assetbatch.unadjusted_bars where adjusted_from > now()) as splits
"""
# Longer than a market rests, over a weekend with holidays: what was asked for since its close is not due.
LONG_AGO = """
select bool_and(served_at < now() - interval '5 days') as long_ago
from assetbatch.sync_state join assetbatch.assets using (symbol) where role = 'secondary'
"""
NOTHING = ("served", "leases", "bars", "items", "runs", "calls", "events", "streams", "lives", "silences", "splits")


def write_ahead(connection: Connection) -> None:
    for statement in MORE.split(";"):
        connection.execute(statement.encode())
    for row in connection.execute(COLUMNS).fetchall():
        connection.execute(row["statement"].encode())


def test_served_in_the_future_is_due() -> None:
    asset = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300)

    due = [planner.is_due(planner.Candidate(asset, TUESDAY + ahead), TUESDAY) for ahead in (HOURS, timedelta(0))]

    assert due == [True, False]


@pytest.mark.parametrize("plan", ["starter", "free"])
def test_jobs_go_on_at_once_and_say_so_once(commands: Commands, connection: Connection, plan: str) -> None:
    for line in (("run-priority",), ("enqueue-secondary",), ("drain-queue", "--max-seconds=3")):
        assert commands(*line, POLYGON_TIER=plan).returncode == 0
    write_ahead(connection)

    run = commands("run-priority", "--json", POLYGON_TIER=plan)
    again = commands("run-priority", "--json", POLYGON_TIER=plan)
    queued = commands("enqueue-secondary", "--json", POLYGON_TIER=plan)
    seen = commands("status", "--json", POLYGON_TIER=plan)

    assert (run.returncode, again.returncode, queued.returncode) == (0, 0, 0)
    assert (TOLD in run.stderr, again.stderr, queued.stderr) == (True, "", "")
    done = json.loads(run.stdout)
    assert sorted([*done["updated"], *done["unchanged"]]) == ["BTCUSD", "EURUSD", "XAUUSD"]
    if plan == "starter":
        assert done["api_calls_used"] > 0
        assert json.loads(queued.stdout)["enqueued"] == 4
        assert connection.execute(LONG_AGO).fetchone() == {"long_ago": True}
    assert json.loads(seen.stdout)["status"] == "healthy"
    assert connection.execute(STILL_AHEAD).fetchone() == dict.fromkeys(NOTHING, 0)


def test_a_restored_database_is_mended_likewise(commands: Commands, connection: Connection) -> None:
    assert commands("run-priority").returncode == 0
    write_ahead(connection)

    mended = commands("init", "--restored", "--json")

    assert json.loads(mended.stdout)["restored"]["times_set_back"] > 0
    assert connection.execute(STILL_AHEAD).fetchone() == dict.fromkeys(NOTHING, 0)
