"""Measure `bars export` to Parquet: rows a second, the size of the process, and every value against the table.

    python scripts/bench/export.py                        10 million bars: some ten minutes, 4 GB of disk
    python scripts/bench/export.py --symbols 5 --bars 20000                                         a try

The same bars are written by hand, as a script would do it: COPY into a CSV, which pyarrow turns into Parquet. The two
take turns, `--rounds` times: noise hits both alike, and the best of each counts. Then the exported file is read back in
parts, and each value is compared with the table's.

On an embedded PostgreSQL of its own. Needs the extras `embedded` and `export`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import bars as bar_tables
import harness
import psycopg
import pyarrow.parquet as pq
from harness import goal

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

ADD_BARS = """
insert into market_data.ohlcv_5m
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, %(first)s + i * interval '5 minutes', 96500 + i %% 977, 97512.25 + i %% 977, 96499.5, 96512.25 + i %% 977,
       trim_scale(i %% 3001 / 8.0), case when i %% 50 > 0 then 96510.0625 end, i %% 251, true,
       %(first)s + i * interval '5 minutes'
from trading.symbols s cross join generate_series(0, %(bars)s - 1) i
where s.symbol = %(symbol)s
"""

# As many would write it. A process of its own, as the command is one.
BY_HAND = """
import sys
import psycopg, pyarrow as pa, pyarrow.csv as csv, pyarrow.parquet as pq
names = "symbol ts open high low close volume vwap trades is_final fetched_at".split()
number, moment = pa.decimal128(38, 18), pa.timestamp("us", "UTC")
types = dict.fromkeys(names[2:8], number) | {"symbol": pa.string(), "ts": moment, "fetched_at": moment}
types |= {"trades": pa.int64(), "is_final": pa.bool_()}
with psycopg.connect(sys.argv[1]) as connection, open("by-hand.csv", "wb") as file:
    connection.execute("set timezone = 'UTC'")
    with connection.cursor().copy(
        "copy (select s.symbol, b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades, b.is_final,"
        " b.fetched_at from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
        " where b.is_final order by s.symbol, b.ts) to stdout (format csv)"
    ) as copy:
        for row in copy:
            file.write(row)
read = csv.ReadOptions(column_names=names, block_size=8 << 20)
convert = csv.ConvertOptions(column_types=types, null_values=[""], true_values=["t"], false_values=["f"])
with csv.open_csv("by-hand.csv", read_options=read, convert_options=convert) as batches:
    with pq.ParquetWriter("by-hand.parquet", batches.schema, compression="zstd", compression_level=1) as writer:
        for batch in batches:
            writer.write_batch(batch)
"""

# With what the process was at its largest, in KiB.
EXPORT = """
import resource, sys
from assetbatch.cli import main
try:
    main()
finally:
    sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""

READ_BACK = """
select s.symbol, b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades, b.is_final, b.fetched_at
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
order by s.symbol collate "C", b.ts
"""


def run(program: str, *arguments: str, folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stderr


def compare(conninfo: str, file: Path) -> int:
    """Return how many rows are equal, each value of each; end the benchmark at the first that is not."""
    rows = 0
    with psycopg.connect(conninfo) as connection, pq.ParquetFile(file) as opened:
        connection.execute("set timezone = 'UTC'")
        table = connection.cursor("there")
        table.execute(READ_BACK)
        for batch in opened.iter_batches(batch_size=20_000):
            for row, there in zip(
                zip(*(column.to_pylist() for column in batch.columns), strict=True),
                table.fetchmany(batch.num_rows),
                strict=True,
            ):
                if there != row:
                    raise SystemExit(f"{row} is {there} in the table")
            rows += batch.num_rows
        if table.fetchone() is not None:
            raise SystemExit("bars are missing in the file")
    return rows


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--symbols", type=int, default=40)
    parser.add_argument("--bars", type=int, default=250_000, help="of each symbol")
    parser.add_argument("--rounds", type=int, default=2)
    options: argparse.Namespace = parser.parse_args()
    total = options.symbols * options.bars
    with harness.Bench.start() as bench:
        conninfo = bench.create()
        with harness.open_migrated(conninfo) as connection:
            connection.execute(bar_tables.ADD_ASSETS, {"symbols": options.symbols})
            connection.execute(bar_tables.MAP)
            connection.execute("set statement_timeout = 0")
            for number in range(1, options.symbols + 1):
                asked = {"symbol": f"T{number}USD", "bars": options.bars, "first": bar_tables.FIRST}
                connection.execute(ADD_BARS, asked)
            connection.execute("vacuum freeze analyze")
        environment = bench.environment(conninfo)
        environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
        took: dict[str, list[float]] = {}
        largest = 0
        for number in range(options.rounds):
            for way in ("by hand", "bars export")[:: 1 if number % 2 else -1]:
                if way == "by hand":
                    seconds, _ = run(BY_HAND, conninfo, folder=bench.folder, environment=environment)
                else:
                    arguments = ("bars", "export", "--all", "--json", "--output", "bars.parquet")
                    seconds, told = run(EXPORT, *arguments, folder=bench.folder, environment=environment)
                    largest = max(largest, int(told.split()[-1]))
                took.setdefault(way, []).append(seconds)
        print(f"\nexport: {total:,} bars of {options.symbols} symbols to Parquet, best of {options.rounds}")
        best = {way: min(seconds) for way, seconds in took.items()}
        for way, seconds in best.items():
            print(f"{way:34}{seconds:10.1f} s{total / seconds:12,.0f} bars/s")
        ratio = best["by hand"] / best["bars export"]
        goal(f"{ratio:.2f} x the way by hand: at least 0.7", ratio >= 0.7)
        goal(f"{largest / 1024:.0f} MiB at most: under 200", largest < 200 * 1024)
        equal = compare(conninfo, bench.folder / "bars.parquet")
        goal(f"{equal:,} rows read back, every value equal to the table's", equal == total)


if __name__ == "__main__":
    main()
