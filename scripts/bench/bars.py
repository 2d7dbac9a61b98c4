"""Measure the bars: reading the newest, storing pages, fetching again what has not changed, and a whole backfill.

    python scripts/bench/bars.py                                   everything, some ten minutes, 3 GB of disk
    python scripts/bench/bars.py --only page --rounds 50
    python scripts/bench/bars.py --symbols 50 --bars 1000 --rounds 5 --days 60                              a try

latest    the newest bar of each symbol, as docs/guide/bars.md shows it (LATERAL), beside DISTINCT ON.
page      a page of 10,000 new bars with its reasons and its lease, in one transaction: in a table of 1,000 symbols
          with 10,000 bars each, and in one without any. The two take turns: noise hits both alike.
refetch   7,200 bars that have not changed: milliseconds and bytes of WAL, beside an upsert that writes them all. The
          jobs read them first and compare them here, so that nothing is locked or written: it is that which counts,
          and costs more time than an upsert.
backfill  two years of one crypto asset by the real job, in a process of its own, against a sandbox in another one:
          calls, seconds, and the largest size of the process.

On an embedded PostgreSQL of its own, as durable as its defaults make it. Needs the extra `embedded`.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import harness
from harness import SandboxProcess, goal

from assetbatch import bars as core
from assetbatch import config
from assetbatch.bar_series import BarSeries
from assetbatch.bars import LENGTH, JudgedPage
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import pages as bar_pages
from assetbatch.database.bars import state as bars
from assetbatch.database.opening import connect
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.drain import Bounds, drain_queue
from assetbatch.jobs.run import Start
from assetbatch.model import Asset, AssetType, Bar, Role, Span

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from assetbatch.database.connection import Connection

PAGE = 10_000
REFETCHED = 7_200
FIRST = datetime(2024, 1, 1, tzinfo=UTC)

CONFIG = """
provider: {{base_url: {url}, plan: starter, max_calls_per_second: null}}
bars: {{backfill_days: {days}}}
batch: {{priority_assets_enabled: false, secondary_assets: []}}
database: {{embedded: true, name: {database}}}
"""

ADD_ASSETS = """
insert into assetbatch.assets
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select 'T' || i || 'USD', 'X:T' || i || 'USD', 'crypto', 'secondary', 3, 1800, 'symbols'
from generate_series(1, %(symbols)s) i
"""

MAP = "insert into trading.symbols (symbol, metadata) select symbol, '{}' from assetbatch.assets order by symbol"

ADD_BARS = """
insert into market_data.ohlcv_5m
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, %(first)s + i * interval '5 minutes', 96500 + i %% 977, 97512.25 + i %% 977, 96499.5, 96512.25 + i %% 977,
       i %% 3001 / 8.0, 96510.0625, i %% 251, true, %(first)s + i * interval '5 minutes'
from trading.symbols s cross join generate_series(0, %(bars)s - 1) i
"""

LATEST = """
select s.symbol, b.ts, b.close
from trading.symbols s
cross join lateral (
  select ts, close from market_data.ohlcv_5m where symbol_id = s.id order by ts desc limit 1
) b
"""
LATEST_DISTINCT = """
select distinct on (b.symbol_id) s.symbol, b.ts, b.close
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
order by b.symbol_id, b.ts desc
"""

# The same statement, that writes whatever comes.
PLAIN = (
    bar_pages.WRITE_OVER.partition("where coalesce(b.fetched_at")[0]
    + "returning b.ts, b.is_final"
    + bar_pages.TELL_CHANGES
)

WAL = "select pg_current_wal_insert_lsn() - '0/0' as bytes"


class Bench(harness.Bench):
    """The server, and databases with bars on it."""

    def database(self, name: str, *, symbols: int, bars: int = 0) -> str:
        """Make a database with so many symbols, and so many bars of each; return its name."""
        with harness.open_migrated(self.create(name)) as connection:
            connection.execute(ADD_ASSETS, {"symbols": symbols})
            connection.execute(MAP)
            if bars:
                connection.execute("set statement_timeout = 0")
                connection.execute(ADD_BARS, {"first": FIRST, "bars": bars})
            connection.execute("vacuum freeze analyze")
            connection.execute("checkpoint")
        return name


def asset(number: int) -> Asset:
    return Asset(f"T{number}USD", f"X:T{number}USD", AssetType.CRYPTO, Role.SECONDARY, 3, 1800)


def page(begin: datetime, length: int) -> BarSeries:
    """Make bars as the vendor has them: prices of seven or eight digits."""
    made = []
    for number in range(length):
        cents = Decimal(9_650_000 + number * 37 % 9_973) / 100
        made.append(
            Bar(
                begin + number * LENGTH,
                cents,
                cents + Decimal("10.25"),
                cents - Decimal("9.5"),
                cents + Decimal("1.75"),
                volume=Decimal(number * 7919 % 1_000_003) / 10_000,
                vwap=cents + Decimal("0.0625"),
                trades=number % 251,
            )
        )
    return BarSeries.of(made)


def store(connection: Connection, number: int, begin: datetime, made: BarSeries, *, again: bool = False) -> int:
    """Store a page as the jobs do, that may be there already if it is stored `again`; return how many were written."""
    span = Span(begin, begin + len(made) * LENGTH)
    asked_at = datetime.now(UTC)
    claimed = bars.claim(
        connection, asset(number).symbol, wanted_since=begin, kept_since=None, seconds=60, now=asked_at
    )
    assert claimed is not None
    with connection.transaction():
        stored = bar_pages.write(
            connection,
            asset(number),
            made,
            final_until=span.until,
            is_new=False,
            has_finality=True,
            asked_at=asked_at,
            fetched_at=asked_at,
            carefully=False,
            known=bar_pages.read(connection, asset(number).symbol, span) if again else None,
        )
        found = JudgedPage(made, (), (), until=span.until, whole=True)
        bar_absences.note_absences(connection, asset(number).symbol, found, span=span, closed=[], noted_at=asked_at)
        bars.finish(connection, claimed, bars.Learned(5, asked_until=span.until, asked_at=asked_at))
    assert stored is not None
    return stored.written


# --- latest ---


def measure_latest(bench: Bench, full: str, options: argparse.Namespace) -> None:
    took: dict[str, list[float]] = {}
    with bench.open(full) as connection:
        connection.execute("set statement_timeout = 0")
        for name, statement, rounds in (
            ("LATERAL", LATEST, options.rounds),
            ("DISTINCT ON", LATEST_DISTINCT, 1),
        ):
            for _ in range(rounds):
                began = time.perf_counter()
                rows = connection.execute(statement).fetchall()
                took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
                if len(rows) != options.symbols:
                    raise SystemExit(f"{name} found {len(rows)} of {options.symbols} symbols")

    print(f"\nlatest: the newest of {options.bars:,} bars of each of {options.symbols:,} symbols, medians")
    print(f"{'':34}{'rounds':>10}{'ms':>10}{'first ms':>10}")
    for name, times in took.items():
        print(f"{name:34}{len(times):10}{statistics.median(times):10.1f}{times[0]:10.1f}")
    ms = statistics.median(took["LATERAL"])
    goal(f"{ms:.1f} ms: under 50", ms < 50)


# --- page ---


def measure_page(bench: Bench, full: str, options: argparse.Namespace) -> None:
    begin = FIRST + options.bars * LENGTH
    took: dict[str, list[float]] = {}
    empty = bench.database("empty", symbols=options.symbols)
    with bench.open(full) as one, bench.open(empty) as other:
        tables = {f"{options.symbols * options.bars:,} bars": one, "none": other}
        for number in range(options.rounds):
            made = page(begin, PAGE)
            order = list(tables.items())
            for name, connection in order if number % 2 else reversed(order):
                began = time.perf_counter()
                # Any order but that of the keys: a table of many symbols is written all over.
                written = store(connection, number * 7919 % options.symbols + 1, begin, made)
                took.setdefault(name, []).append((time.perf_counter() - began) * 1000)
                if written != PAGE:
                    raise SystemExit(f"{written} of {PAGE} bars were written")

    print(f"\npage: {PAGE:,} new bars of a symbol, its reasons and its lease, medians of {options.rounds} rounds")
    print(f"{'in a table of':34}{'ms':>10}{'largest':>10}{'bars/s':>10}")
    medians = {name: statistics.median(times) for name, times in took.items()}
    for name, ms in medians.items():
        print(f"{name:34}{ms:10.1f}{max(took[name]):10.1f}{PAGE / ms * 1000:10.0f}")
    largest, none = medians[f"{options.symbols * options.bars:,} bars"], medians["none"]
    goal(f"{largest / 1000:.3f} s: under 0.5", largest < 500)
    goal(f"{largest / none:.2f} x an empty table: at most 1.3", largest <= 1.3 * none)


# --- refetch ---


class Cost(NamedTuple):
    """What one statement costs."""

    ms: float
    wal_bytes: int


def measure_refetch(bench: Bench, _full: str, options: argparse.Namespace) -> None:
    costs: dict[str, list[Cost]] = {}
    made = page(FIRST, REFETCHED)
    ways = {
        "as the jobs do": (bar_pages.WRITE_OVER, True),
        "guarded upsert alone": (bar_pages.WRITE_OVER, False),
        "plain upsert": (PLAIN, False),
    }
    guarded = bar_pages.WRITE_OVER
    with bench.open(bench.database("refetch", symbols=len(ways))) as connection:
        for number in range(1, len(ways) + 1):
            store(connection, number, FIRST, made)
        try:
            for _ in range(options.rounds):
                for number, (name, (statement, again)) in enumerate(ways.items(), start=1):
                    connection.execute("vacuum market_data.ohlcv_5m")
                    bar_pages.WRITE_OVER = statement
                    costs.setdefault(name, []).append(cost_of_storing(connection, number, made, again=again))
        finally:
            bar_pages.WRITE_OVER = guarded

    print(f"\nrefetch: {REFETCHED:,} bars that have not changed, medians of {options.rounds} rounds")
    print(f"{'':34}{'ms':>10}{'WAL kB':>10}")
    medians = {
        name: Cost(statistics.median(one.ms for one in of_it), int(statistics.median(one.wal_bytes for one in of_it)))
        for name, of_it in costs.items()
    }
    for name, cost in medians.items():
        print(f"{name:34}{cost.ms:10.1f}{cost.wal_bytes / 1000:10.1f}")
    ours, plain = medians["as the jobs do"], medians["plain upsert"]
    print(f"          {ours.ms / plain.ms:.2f} x the time of a plain upsert")
    goal(f"{ours.wal_bytes} bytes of WAL: nothing but the record of having asked", ours.wal_bytes < 10_000)


def cost_of_storing(connection: Connection, number: int, made: BarSeries, *, again: bool) -> Cost:
    before = wal_bytes(connection)
    began = time.perf_counter()
    store(connection, number, FIRST, made, again=again)
    ms = (time.perf_counter() - began) * 1000
    return Cost(ms, wal_bytes(connection) - before)


def wal_bytes(connection: Connection) -> int:
    row = connection.execute(WAL).fetchone()
    assert row is not None
    return int(row["bytes"])


# --- backfill ---


@dataclass(frozen=True)
class Backfill:
    """Calls, bars, seconds, and the memory of the process that did it."""

    calls: int
    bars: int
    seconds: float
    peak_mib: float


def measure_backfill(bench: Bench, _full: str, options: argparse.Namespace) -> None:
    database = bench.database("backfill", symbols=1)
    with closing(SandboxProcess(keep_arrivals=False)) as sandbox:
        found = harness.in_a_process(by_job, bench.folder, database, sandbox.url, options.days)

    print(f"\nbackfill: {options.days} days of one crypto asset, once")
    print(f"{'':34}{'calls':>10}{'bars':>10}{'seconds':>10}{'s a page':>10}{'peak MiB':>10}")
    each = found.seconds / found.calls
    print(f"{'':34}{found.calls:10}{found.bars:10,}{found.seconds:10.1f}{each:10.2f}{found.peak_mib:10.0f}")
    least = -(-timedelta(days=options.days) // core.ONE_PAGE)
    goal(f"{found.calls} calls: at most {least}", found.calls <= least)
    goal(f"{found.bars:,} bars: all of them", found.bars >= options.days * 288)
    goal(f"{found.peak_mib:.0f} MiB: under 120", found.peak_mib < 120)


def by_job(folder: Path, database: str, url: str, days: int) -> Backfill:
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(url=url, days=days, database=database))
    configured = config.load(file=file, environ={"POLYGON_API_KEY": "sandbox"}, cwd=folder)

    def reconnect() -> Connection:
        return connect(configured.database, folder / "data", job="bench")

    with reconnect() as connection:
        began = time.perf_counter()
        result = drain_queue(
            Start(configured, connection, "bench", Stop(KeyboardInterrupt)),
            bounds=Bounds(3600),
            shared=False,
            reconnect=reconnect,
        )
        return Backfill(result.api_calls_used, result.bars.stored, time.perf_counter() - began, harness.peak_mib())


PARTS = {"latest": measure_latest, "page": measure_page, "refetch": measure_refetch, "backfill": measure_backfill}
IN_FULL = {"latest", "page"}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="not all parts")
    parser.add_argument("--symbols", type=int, default=1_000, help="latest, page: symbols of the full table")
    parser.add_argument("--bars", type=int, default=10_000, help="latest, page: bars of each of them")
    parser.add_argument("--rounds", type=int, default=30, help="latest, page, refetch: how often")
    parser.add_argument("--days", type=int, default=730, help="backfill: how far back")
    options = parser.parse_args()
    chosen = options.only or list(PARTS)

    with Bench.start() as bench:
        full = ""
        if IN_FULL & set(chosen):
            began = time.perf_counter()
            full = bench.database("filled", symbols=options.symbols, bars=options.bars)
            rows = options.symbols * options.bars
            print(f"{rows:,} bars made in {time.perf_counter() - began:.0f} s")
        for name, measure in PARTS.items():
            if name in chosen:
                measure(bench, full, options)


if __name__ == "__main__":
    main()
