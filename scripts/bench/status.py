"""Time `status` on a large database: as a whole process, and what of it the database takes.

    python scripts/bench/status.py                                             some five minutes, 3 GB of disk
    python scripts/bench/status.py --assets 1000 --calls 10000 --queued 1000 --bars 10000                a try

Everything is read once before, so that it is warm. Which statements take longest is told. Beside it: forgetting old
calls, as a run does at its end. On an embedded PostgreSQL of its own. Needs the extra `embedded`.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import harness
import psycopg
from harness import Bench, goal

from assetbatch import config
from assetbatch.database import retention
from assetbatch.report import reading

if TYPE_CHECKING:
    import argparse

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query

SYMBOLS_WITH_BARS = 1_000

ADD_ASSETS = """
insert into assetbatch.assets
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select 'T' || i || 'USD', case when i %% 3 = 0 then 'C:T' else 'X:T' end || i || 'USD',
       case when i %% 3 = 0 then 'forex' else 'crypto' end, 'secondary', 1 + i %% 4, 1800, 'symbols'
from generate_series(1, %(assets)s) i
"""

MAP = """
insert into trading.symbols (symbol, metadata)
select symbol, jsonb_build_object('last_update', jsonb_build_object(
         'last_price', 1.25, 'daily_open', 1.24, 'timestamp', '2026-11-20T12:00:00.000Z'))
from (select symbol from assetbatch.assets union select unnest(array['XAUUSD', 'EURUSD', 'BTCUSD'])) s
order by symbol
"""

ADD_STATES = """
insert into assetbatch.sync_state (symbol, served_at, succeeded_at, error_kind, error)
select symbol, at, at, case when n % 1000 = 0 then 'invalid' end, case when n % 1000 = 0 then 'zero' end
from (select symbol, n, clock_timestamp() - interval '1 second' * (n % 7200) as at
      from (select symbol, row_number() over () as n from trading.symbols) numbered) served
"""

ADD_RUNS = """
insert into assetbatch.runs
  (job, host, version, plan, started_at, ends_by, finished_at, status, exit_code, remaining)
select case when i %% 6 = 0 then 'run-priority' when i %% 31 = 0 then 'enqueue-secondary' else 'drain-queue' end,
       'bench', '0', 'starter', at, at + interval '2 minutes', at + interval '9 seconds',
       case when i %% 500 = 0 then 'partial' else 'ok' end, 0, 1000
from generate_series(1, %(runs)s) i,
     lateral (select clock_timestamp() - (%(runs)s - i) * interval '50 seconds' as at) t
"""

ADD_CALLS = """
insert into assetbatch.api_calls (run_id, at, kind, outcome, http_status, sent, latency_ms, waited_ms, assets, symbol)
select 1 + i %% 50000, clock_timestamp() - (%(calls)s - i) * interval '30 days' / %(calls)s, 'bars',
       case when i %% 100000 = 0 then 'rate_limited' else 'ok' end, 200, true, 120, 0, 1, 'T' || 1 + i %% 1000 || 'USD'
from generate_series(1, %(calls)s) i
"""

ADD_QUEUE = """
insert into assetbatch.queue
  (symbol, state, priority, waiting_since, rank, attempts, enqueued_at, available_at, died_at, error_kind, error)
select 'Q' || i, case when i %% 1000 = 0 then 'dead' when i %% 50 = 0 then 'delayed' else 'queued' end, 1 + i %% 4,
       at, at + i %% 4 * interval '30 minutes', 0, at, at, case when i %% 1000 = 0 then at end,
       case when i %% 50 = 0 then 'invalid' end, case when i %% 50 = 0 then 'zero' end
from generate_series(1, %(queued)s) i,
     lateral (select clock_timestamp() - i * interval '1 millisecond' as at) t
"""

ADD_BARS = """
insert into market_data.ohlcv_5m
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, at, 96500 + i %% 977, 97512.25 + i %% 977, 96499.5, 96512.25 + i %% 977, i %% 3001 / 8.0, 96510.0625,
       i %% 251, true, at + interval '10 minutes'
from (select id from trading.symbols order by symbol in ('XAUUSD', 'EURUSD', 'BTCUSD') desc, id
      limit %(symbols)s) s
cross join generate_series(1, %(each)s) i
cross join lateral (
  select date_bin('5 minutes', statement_timestamp(), 'epoch') - i * interval '5 minutes' as at
) t
"""

ADD_BAR_STATES = """
insert into assetbatch.bar_state (symbol, wanted_since, asked_until, asked_at, watermark, error_kind, error)
select symbol, clock_timestamp() - interval '30 days', clock_timestamp() - interval '10 minutes', clock_timestamp(),
       clock_timestamp() - interval '15 minutes', case when id % 500 = 0 then 'timeout' end,
       case when id % 500 = 0 then 'slow' end
from trading.symbols
"""


def fill(connection: Connection, options: argparse.Namespace) -> None:
    connection.execute("set statement_timeout = 0")
    symbols = min(SYMBOLS_WITH_BARS, options.assets)
    for statement, parameters in (
        (ADD_ASSETS, {"assets": options.assets}),
        (MAP, None),
        (ADD_STATES, None),
        (ADD_RUNS, {"runs": 52_000}),
        (ADD_CALLS, {"calls": options.calls}),
        (ADD_QUEUE, {"queued": options.queued}),
        (ADD_BARS, {"symbols": symbols, "each": options.bars // symbols}),
        (ADD_BAR_STATES, None),
    ):
        connection.execute(statement, parameters)
    connection.execute("vacuum freeze analyze")
    connection.execute("checkpoint")


def measure_status(bench: Bench, connection: Connection, conninfo: str, rounds: int) -> None:
    environment = bench.environment(conninfo) | {"POLYGON_TIER": "starter"}
    whole, inside = [], []
    for number in range(rounds + 1):
        took, _ = bench.run(harness.STATUS, environment)
        if number:
            whole.append(took)

    configured = config.load(file=None, environ=environment, cwd=bench.folder)
    trips: list[float] = []
    ask = connection.ask

    def timed(*queries: Query[Any], **options: Any) -> None:
        began = time.perf_counter()
        ask(*queries, **options)
        trips.append((time.perf_counter() - began) * 1000)

    connection.ask = timed  # type: ignore[method-assign]
    for number in range(rounds + 1):
        trips.clear()
        reading.read(configured, connection, reading.Wanted(closes=True))
        if number:
            inside.append(sum(trips))

    print(f"\nstatus --json, medians of {rounds} rounds")
    print(f"{'whole process':34}{statistics.median(whole):10.0f} ms")
    print(f"{'in the database':34}{statistics.median(inside):10.0f} ms   in the last one, trip by trip:")
    for number, ms in enumerate(trips, 1):
        print(f"{'':34}{ms:10.1f} ms   {number}")
    goal(f"{statistics.median(whole) / 1000:.2f} s: under 1.5", statistics.median(whole) < 1500)
    goal(f"{statistics.median(inside):.0f} ms in the database: under 500", statistics.median(inside) < 500)


def measure_retention(connection: Connection, rounds: int) -> None:
    took, deleted = [], 0
    for _ in range(rounds):
        began = time.perf_counter()
        deleted += retention.prune(connection, retention.turn(connection), days=1, bar_changes_days=1)
        took.append((time.perf_counter() - began) * 1000)
    print(
        f"\nforgetting, {rounds} runs: {deleted:,} rows, {statistics.median(took):.0f} ms each, at most {max(took):.0f}"
    )
    goal(f"{max(took):.0f} ms: under 200", max(took) < 200)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--assets", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--bars", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with Bench.start() as bench:
        conninfo = bench.create()
        with harness.open_migrated(conninfo) as connection:
            began = time.perf_counter()
            fill(connection, options)
            print(f"filled in {time.perf_counter() - began:.0f} s")
            measure_status(bench, connection, conninfo, options.rounds)
            connection.plain.cursor_factory = psycopg.Cursor
            measure_retention(connection, options.rounds)


if __name__ == "__main__":
    main()
