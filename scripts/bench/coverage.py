"""Time `bars coverage` on 1,000 assets and 30 days: the whole command, and what of it the database takes.

    python scripts/bench/coverage.py                                       some five minutes, 3 GB of disk
    python scripts/bench/coverage.py --assets 100 --rounds 3                                         a try

Two catalogues: crypto alone, whose every day has 288 bars, and a mix of forex, crypto and stocks. Some assets have
holes, some the newest bars open. Tables are vacuumed and analyzed, as autovacuum leaves them. On an embedded
PostgreSQL of its own. Beside it a plain count of all bars, which is what a busy machine slows down as much. Needs the
extra `embedded`.
"""

from __future__ import annotations

import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import Bench, goal

from assetbatch import config, market_hours
from assetbatch.bars import LENGTH, floor
from assetbatch.database.setup import schema
from assetbatch.jobs import coverage
from assetbatch.markets import Market

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query

COMMAND = [str(Path(sys.executable).with_name("assetbatch")), "bars", "coverage"]
MOST_SECONDS = 1.5

ADD_ASSETS = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select 'T' || to_char(i, 'FM0000'), prefix || 'T' || to_char(i, 'FM0000'), kind, 'secondary', 1 + i %% 4, 1800,
       'symbols'
from generate_series(1, %(assets)s) i
join unnest(%(kinds)s::text[], %(prefixes)s::text[]) with ordinality v (kind, prefix, n)
  on n = 1 + i %% cardinality(%(kinds)s)
"""

MAP = "insert into trading.symbols (symbol, metadata) select symbol, '{}' from assetbatch.assets order by symbol"

# As jobs store them: some hours of all assets, one after the other. Of stocks, every twelfth bar has no trade; some
# assets lack a stretch of a day.
ADD_BARS = """
insert into market_data.ohlcv_5m
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, t, 96500 + i %% 977, 97512.25 + i %% 977, 96499.5, 96512.25 + i %% 977, i %% 3001 / 8.0, 96510.0625,
       i %% 251, t < %(settled)s, t + interval '10 minutes'
from unnest(%(since)s::timestamptz[], %(until)s::timestamptz[]) v (since, until)
cross join assetbatch.assets a join trading.symbols s using (symbol)
cross join generate_series(v.since, v.until - interval '5 minutes', interval '5 minutes') with ordinality g (t, i)
where a.market = %(market)s
  and not (a.asset_type = 'stocks' and (s.id + extract(epoch from t)::bigint / 300) %% 12 = 0)
  and not (s.id %% 10 = 0 and t::date = (%(settled)s - interval '5 days')::date
           and extract(hour from t) between 14 and 15)
"""

ADD_STATES = """
insert into assetbatch.bar_state (symbol, wanted_since, asked_until, asked_at, watermark)
select symbol, %(since)s, %(settled)s, %(settled)s, %(settled)s - interval '5 minutes' from assetbatch.assets
"""

COUNT = "select count(*) from market_data.ohlcv_5m"

# What a page has no bar for.
NOTE_ABSENT = """
with closed as (
  select market, range_agg(tstzrange(since, until)) as r
  from unnest(%(markets)s::text[], %(rests_since)s::timestamptz[], %(rests_until)s::timestamptz[])
    as v (market, since, until)
  group by market
), absent as (
  select a.symbol, 'closed' as reason, c.r from assetbatch.assets a join closed c using (market)
  union all
  select a.symbol, 'nothing',
         range_agg(tstzrange(t, t + interval '5 minutes')) - (select r from closed where market = 'stocks')
  from assetbatch.assets a join trading.symbols s using (symbol)
  cross join generate_series(%(since)s::timestamptz, %(settled)s::timestamptz - interval '5 minutes', '5 minutes') t
  where a.asset_type = 'stocks' and (s.id + extract(epoch from t)::bigint / 300) %% 12 = 0
  group by a.symbol
)
insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at)
select symbol, reason, m::date, r * tstzmultirange(tstzrange(m, m + interval '1 month')), %(settled)s
from absent, generate_series(date_trunc('month', %(since)s::timestamptz), %(settled)s::timestamptz, '1 month') m
"""

KINDS = {
    "crypto alone": {"crypto": "X:"},
    "forex, crypto and stocks": {"forex": "C:", "crypto": "X:", "stocks": ""},
}


def fill(connection: Connection, kinds: dict[str, str], options: argparse.Namespace) -> None:
    connection.execute("set statement_timeout = 0")
    now = schema.check(connection)
    since, settled = floor(now - timedelta(days=options.days)), floor(now - timedelta(minutes=15))
    markets = [market for market in Market if market.asset_type.value in kinds]
    rests = [(market, span) for market in markets for span in market_hours.closed_spans(market, since, settled)]
    connection.execute(ADD_ASSETS, {"assets": options.assets, "kinds": list(kinds), "prefixes": list(kinds.values())})
    connection.execute(MAP)
    for hours in range(0, options.days * 24 + 1, 6):
        begin = since + timedelta(hours=hours)
        end = min(begin + timedelta(hours=6), settled + 2 * LENGTH)
        for market in markets:
            spans, at = [], begin
            for rest in [*market_hours.closed_spans(market, begin, end), None]:
                upto = end if rest is None else rest.since
                if at < upto:
                    spans.append((at, upto))
                at = end if rest is None else rest.until
            connection.execute(
                ADD_BARS,
                {
                    "since": [one for one, _ in spans],
                    "until": [one for _, one in spans],
                    "settled": settled,
                    "market": market.value,
                },
            )
    connection.execute(ADD_STATES, {"since": since, "settled": settled})
    connection.execute(
        NOTE_ABSENT,
        {
            "markets": [market.value for market, _ in rests],
            "rests_since": [span.since for _, span in rests],
            "rests_until": [span.until for _, span in rests],
            "since": since,
            "settled": settled,
        },
    )
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def measure(bench: Bench, connection: Connection, conninfo: str, rounds: int) -> None:
    environment = bench.environment(conninfo) | {"POLYGON_TIER": "starter"}
    configured = config.load(file=None, environ=environment, cwd=bench.folder)
    trips: list[float] = []
    ask = connection.ask

    def timed(*queries: Query[Any], **more: Any) -> None:
        began = time.perf_counter()
        ask(*queries, **more)
        trips.append(time.perf_counter() - began)

    connection.ask = timed  # type: ignore[method-assign]
    inside, plain, whole = [], [], []
    for _ in range(rounds + 1):
        trips.clear()
        found = coverage.read(configured, connection, now=schema.check(connection))
        inside.append(sum(trips))
        with connection.transaction():
            connection.execute("set local max_parallel_workers_per_gather = 0")
            began = time.perf_counter()
            connection.execute(COUNT)
            plain.append(time.perf_counter() - began)
        whole.append(bench.run(COMMAND, environment)[0] / 1000)
    counted = found.total["final"]
    print(f"  {len(found.assets):,} assets, {counted:,} bars; the first time {inside[0]:.2f} s in the database")
    _tell("in the database", inside[1:])
    _tell("the whole command", whole[1:])
    _tell("a plain count(*)", plain[1:])
    print(f"  {min(inside) / min(plain):.1f} times a plain count of all bars by one process; best of each")
    goal(f"{min(whole):.2f} s: under {MOST_SECONDS}", min(whole) < MOST_SECONDS)


def _tell(what: str, took: Sequence[float]) -> None:
    print(f"  {what:20} best {min(took):.2f} s, median {statistics.median(took):.2f} s of {len(took)} rounds")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--assets", type=int, default=1000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with Bench.start() as bench:
        for number, (name, kinds) in enumerate(KINDS.items()):
            conninfo = bench.create(f"bench_{number}")
            with harness.open_migrated(conninfo) as connection:
                began = time.perf_counter()
                fill(connection, kinds, options)
                print(f"{name}: filled in {time.perf_counter() - began:.0f} s")
                measure(bench, connection, conninfo, options.rounds)


if __name__ == "__main__":
    main()
