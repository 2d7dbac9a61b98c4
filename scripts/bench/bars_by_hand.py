"""Time pages of bars from the vendor's JSON into the table: a loop by hand, `backfill` and `drain-queue`, in one run.

    python scripts/bench/bars_by_hand.py --rounds 3                40 assets, 30 days of each: some two minutes
    python scripts/bench/bars_by_hand.py --assets 5 --days 10      a try

by hand    what one would write for this alone: eight threads that fetch and read pages with msgspec, one connection,
           COPY into a temporary table, insert on conflict. It knows no lease, no reasons for gaps, no odd row.
by hand 8  the same, but that each of the threads stores by a connection of its own.
backfill   the real job, as `drain` is; both into an empty table, each in a process of its own, on an unlimited plan.

The vendor is a process that has its pages ready, so that nobody waits for their making. The ways take turns: noise
hits them alike, and hardly moves what they take of the processors. On an embedded PostgreSQL of its own, as durable as
its defaults make it. Needs the extra `embedded`.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import msgspec
import psycopg
import requests
from bars import ADD_ASSETS, MAP
from canned import CannedBars
from harness import SandboxProcess, goal

from assetbatch import config
from assetbatch.database.opening import connect
from assetbatch.jobs import backfill
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.drain import Bounds, drain_queue
from assetbatch.jobs.run import Start

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from assetbatch.database.connection import Connection

CONFIG = """
provider: {{base_url: {url}, plan: starter, max_calls_per_second: null}}
bars: {{backfill_days: {days}}}
batch: {{priority_assets_enabled: false, secondary_assets: []}}
database: {{embedded: true, name: {database}}}
"""

THREADS = 8
WAYS = ("by hand", "by hand 8", "backfill", "drain")

TEMPORARY = """
create temporary table page (ts timestamptz, open numeric, high numeric, low numeric, close numeric, volume numeric,
                             vwap numeric, trades int) on commit drop
"""
COPY = "copy page from stdin"
UPSERT = """
insert into market_data.ohlcv_5m
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, p.*, true, clock_timestamp() from page p, trading.symbols s where s.symbol = %(symbol)s
on conflict (symbol_id, ts) do update
set open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    vwap = excluded.vwap, trades = excluded.trades, is_final = excluded.is_final, fetched_at = excluded.fetched_at
"""


# --- by hand ---


class Row(msgspec.Struct):
    """A bar, as the vendor has it."""

    t: int
    o: float
    h: float
    l: float  # noqa: E741 - the vendor's name
    c: float
    v: float
    vw: float
    n: int


class Page(msgspec.Struct):
    """What one call brings."""

    results: list[Row]


def by_hand(conninfo: str, url: str, assets: int, days: int, *, connections: int) -> int:
    """Fetch and store by threads; return how many bars."""
    own = threading.local()
    decoder = msgspec.json.Decoder(Page)
    until = int(time.time() * 1000)

    def fetch(number: int) -> tuple[int, list[Row]]:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        path = f"/v2/aggs/ticker/X:T{number}USD/range/5/minute/{until - days * 86_400_000}/{until}"
        answer = own.session.get(url + path, params={"limit": 50_000}, timeout=30)
        answer.raise_for_status()
        return number, decoder.decode(answer.content).results

    def both(number: int) -> int:
        if not hasattr(own, "connection"):
            own.connection = psycopg.connect(conninfo)
        return store(own.connection, *fetch(number))

    with ThreadPoolExecutor(THREADS) as pool:
        if connections > 1:
            return sum(pool.map(both, range(1, assets + 1)))
        with psycopg.connect(conninfo) as connection:
            fetched = [pool.submit(fetch, number) for number in range(1, assets + 1)]
            return sum(store(connection, *one.result()) for one in as_completed(fetched))


def store(connection: psycopg.Connection[Any], number: int, rows: list[Row]) -> int:
    with connection.transaction():
        connection.execute(TEMPORARY)
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            for row in rows:
                ts = datetime.fromtimestamp(row.t / 1000, UTC)
                copy.write_row((ts, row.o, row.h, row.l, row.c, row.v, row.vw, row.n))
        connection.execute(UPSERT, {"symbol": f"T{number}USD"})
    return len(rows)


# --- the jobs ---


def by_job(folder: Path, database: str, url: str, days: int, job: str) -> int:
    """Fetch and store by a real job; return how many bars."""
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(url=url, days=days, database=database))
    configured = config.load(file=file, environ={"POLYGON_API_KEY": "sandbox"}, cwd=folder)

    def reconnect() -> Connection:
        return connect(configured.database, folder / "data", job="bench")

    with reconnect() as connection:
        start = Start(configured, connection, "bench", Stop(KeyboardInterrupt))
        if job == "backfill":
            foreseen = backfill.foresee(configured, connection, symbols=None, since=None, until=None, refetch=False)
            return backfill.backfill(start, foreseen, refetch=False).bars.stored
        return drain_queue(start, bounds=Bounds(3600), shared=False, reconnect=reconnect).bars.stored


@dataclass(frozen=True)
class Took:
    """Bars a second, the memory of the process that did it, and what it, and the server, took of the processors."""

    rate: float
    peak_mib: float
    cpu_seconds: float
    server_cpu_seconds: float = 0.0


def timed(work: Callable[..., int], *arguments: Any) -> Took:
    before = time.perf_counter()
    bars = work(*arguments)
    return Took(bars / (time.perf_counter() - before), harness.peak_mib(), time.process_time())


def server_cpu_seconds(data: Path) -> float:
    """Return what a server's processes have taken of the processors so far, those that have ended included."""
    postmaster = next(data.rglob("postmaster.pid")).read_text().partition("\n")[0]
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = file.read_text().rpartition(")")[2].split()
            if file.parent.name == postmaster:
                ticks += sum(map(int, fields[11:15]))
            elif fields[1] == postmaster:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--assets", type=int, default=40)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, action="append", help="not all ways")
    options = parser.parse_args()
    ways = options.only or list(WAYS)

    took: dict[str, list[Took]] = {way: [] for way in ways}
    with (
        harness.Bench.start() as bench,
        closing(SandboxProcess(CannedBars, days=options.days + 2)) as vendor,
    ):
        for number in range(options.rounds):
            for way in ways:
                took[way].append(measure(bench, f"{way.replace(' ', '_')}_{number}", way, vendor.url, options))

    bars = options.assets * options.days * 288
    print(f"{options.assets} assets, {options.days} days of each, {bars:,} bars: medians of {options.rounds} rounds")
    print(
        f"{'':12}{'bars/s':>10}{'CPU us a bar':>14}{'of the server':>15}{'peak MiB':>10}{'x by hand':>12}   each round"
    )
    for way, found in took.items():
        ratios = [mine.rate / theirs.rate for mine, theirs in zip(found, took.get("by hand", found), strict=True)]
        rate, peak = statistics.median(one.rate for one in found), max(one.peak_mib for one in found)
        each = "  ".join(f"{ratio:.2f}" for ratio in ratios)
        own, servers = (
            statistics.median(getattr(one, name) for one in found) / bars * 1e6
            for name in ("cpu_seconds", "server_cpu_seconds")
        )
        print(f"{way:12}{rate:10,.0f}{own:14.1f}{servers:15.1f}{peak:10.0f}{statistics.median(ratios):12.2f}   {each}")
        if not way.startswith("by hand"):
            goal(f"{statistics.median(ratios):.2f} x the loop by hand: at least 1", statistics.median(ratios) >= 1)
            goal(f"{peak:.0f} MiB: under 90", peak < 90)


def measure(bench: harness.Bench, database: str, way: str, url: str, options: argparse.Namespace) -> Took:
    conninfo = bench.create(database)
    with harness.open_migrated(conninfo) as connection:
        connection.execute(ADD_ASSETS, {"symbols": options.assets})
        connection.execute(MAP)
        connection.execute("checkpoint")
    before = server_cpu_seconds(bench.folder / "data")
    if way.startswith("by hand"):
        work = partial(by_hand, connections=THREADS if way == "by hand 8" else 1)
        took = harness.in_a_process(timed, work, conninfo, url, options.assets, options.days)
    else:
        took = harness.in_a_process(timed, by_job, bench.folder, database, url, options.days, way)
    return replace(took, server_cpu_seconds=server_cpu_seconds(bench.folder / "data") - before)


if __name__ == "__main__":
    main()
