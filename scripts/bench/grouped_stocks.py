"""Measure one finished day of all US stocks, from the call to the commit: seconds, and the memory of the process.

    python scripts/bench/grouped_stocks.py                                                                  a minute
    python scripts/bench/grouped_stocks.py --stocks 1000 --rounds 1                                            a try

Each day is asked for, read and stored in a process of its own, as a run is one: by the client, from a vendor in another
process that has its answer ready, with the functions that the jobs call. Its first day finds no stock in the platform's
table, and the others find all of them. `in all` is a run's share: connecting and the catalogue are in it. Last comes a
day by the real `run-priority`, with its events.

On an embedded PostgreSQL of its own, as durable as its defaults make it. Needs the extra `embedded`.
"""

from __future__ import annotations

import re
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import harness
from canned import Canned
from harness import Bench, SandboxProcess, goal, in_a_process, peak_mib

from assetbatch import config
from assetbatch.database import catalogue, prices
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.priority import run_priority
from assetbatch.jobs.run import Start
from assetbatch.jobs.storing import sort_out, write_prices
from assetbatch.model import AssetType, Call, CallKind
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

FIRST = date(2026, 10, 5)
SECONDS, MIB = 2.5, 150
GROUPED = re.compile(r"/v2/aggs/grouped/locale/us/market/stocks/(\d{4}-\d{2}-\d{2})\?adjusted=true")

CONFIG = """
provider: {{base_url: {url}, plan: free}}
batch:
  priority_assets: [{{symbol: {stock}, polygon_ticker: {stock}, asset_type: stocks, priority: 1}}]
  secondary_assets: []
bars: {{enabled: false}}
"""

ADD_STOCKS = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select ticker, ticker, 'stocks', 'secondary', 4, 1800, 'symbols' from unnest(%(tickers)s::text[]) as t (ticker)
"""


class CannedDay(Canned):
    """It has a finished day of so many stocks, and some more that nobody knows."""

    def __init__(self, *, stocks: int) -> None:
        super().__init__()
        self._rows = [_row(number, ticker) for number, ticker in enumerate([*tickers(stocks), *others(stocks)])]

    def answer(self, path: str) -> bytes:
        asked = GROUPED.fullmatch(path)
        assert asked is not None
        day = date.fromisoformat(asked[1])
        # The end of the session, 16:00 in New York.
        at_ms = int(datetime(day.year, day.month, day.day, 20, tzinfo=UTC).timestamp() * 1000)
        rows = b",".join(self._rows).replace(b"@time", str(at_ms).encode()).replace(b"@day", str(day.day).encode())
        head = b'{"queryCount":%d,"resultsCount":%d,"adjusted":true,"results":[' % ((len(self._rows),) * 2)
        return head + rows + b'],"status":"OK","request_id":"canned","count":%d}' % len(self._rows)


def tickers(number: int) -> list[str]:
    """Return so many tickers as the vendor writes them, case and all."""
    return [_ticker(at) for at in range(number)]


def others(number: int) -> list[str]:
    """Return tickers that are in no catalogue, a hundredth of so many."""
    return [f"Z{_ticker(at)}" for at in range(number // 100)]


def _ticker(number: int) -> str:
    letters = "".join(chr(65 + number // 26**place % 26) for place in (3, 2, 1, 0))
    return letters + ("", "", "w", f"p{letters[-1]}", ".B")[number % 5]


def _row(number: int, ticker: str) -> bytes:
    cents = 1_000 + number * 37 % 90_000
    opened, high, low, close, average = (one / 100 for one in (cents, cents + 125, cents - 95, cents + 17, cents + 6))
    volume = number * 7_919 % 30_000_000
    thin = "" if number % 140 == 0 else f'"vw":{average}31,"n":{volume // 131},'
    return (
        f'{{"T":"{ticker}","v":{volume}.618093,"dv":"{volume}.618093",{thin}'
        f'"o":{opened},"c":{close}@day,"h":{high},"l":{low},"t":@time}}'
    ).encode()


@dataclass(frozen=True)
class Took:
    """Seconds, from the call to the answer that is read, from there to the commit; MiB before and at most."""

    read: float
    store: float
    whole: float
    before_mib: float
    peak_mib: float
    stored: int


def store_day(conninfo: str, url: str, day: date) -> Took:
    """Do what a run does for its market's day."""
    began = time.perf_counter()
    with harness.open_database(conninfo) as connection:
        of_market = catalogue.assets_of_market(connection, AssetType.STOCKS)
        known = {row["symbol"] for row in connection.execute("select symbol from trading.symbols")}
        client = Client(base_url=url, api_key="canned", connect_timeout_seconds=5, timeout_seconds=20)
        client.warm_up()
        before_mib, asked_at = peak_mib(), time.perf_counter()
        call = Call(CallKind.DAILY, of_market.assets, market=AssetType.STOCKS, day=day)
        answers = harness.ask(client, endpoints.prices(call))
        read_at = time.perf_counter()
        brought = sort_out(call, answers, known, lambda _asset, _kind: False)
        times = prices.Times(datetime.now(UTC), datetime.now(UTC), day)
        stored, _ = write_prices(connection, brought, times, [], lambda _: ((), lambda: None))
        done_at = time.perf_counter()
    return Took(read_at - asked_at, done_at - read_at, done_at - began, before_mib, peak_mib(), len(stored.updated))


@dataclass(frozen=True)
class Ran:
    """What a run did, seconds and MiB."""

    calls: int
    updated: int
    seconds: float
    peak_mib: float


def run(folder: Path, conninfo: str, url: str, day: date) -> Ran:
    """Do the real job on the morning behind a day."""
    file = folder / "config.yaml"
    file.write_text(CONFIG.format(url=url, stock=tickers(1)[0]))
    configured = config.load(file=file, environ={"POLYGON_API_KEY": "canned", "DATABASE_URL": conninfo}, cwd=folder)
    morning = datetime(day.year, day.month, day.day, 6, tzinfo=UTC) + timedelta(days=1)
    with harness.open_database(conninfo) as connection:
        began = time.perf_counter()
        result = run_priority(Start(configured, connection, "bench", Stop(KeyboardInterrupt), morning))
        seconds = time.perf_counter() - began
    return Ran(result.api_calls_used, len(result.updated) + result.others_updated, seconds, peak_mib())


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--stocks", type=int, default=12_500)
    parser.add_argument("--rounds", type=int, default=5, help="days behind the first one")
    options = parser.parse_args()
    with Bench.start() as bench:
        measure(bench, options)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    conninfo = bench.create()
    with harness.open_migrated(conninfo) as connection:
        connection.execute(ADD_STOCKS, {"tickers": tickers(options.stocks)})
        connection.execute("vacuum freeze analyze")
    with closing(SandboxProcess(CannedDay, stocks=options.stocks)) as vendor:
        days = [FIRST + timedelta(days=number) for number in range(options.rounds + 1)]
        took = [in_a_process(store_day, conninfo, vendor.url, day) for day in days]
        ran = in_a_process(run, bench.folder, conninfo, vendor.url, FIRST + timedelta(weeks=4))

    stored = {ran.updated, *(one.stored for one in took)}
    if stored != {options.stocks}:
        raise SystemExit(f"of {options.stocks} stocks {stored} were stored")
    print(f"\na finished day of {options.stocks:,} stocks, seconds; medians of {options.rounds} days behind the first")
    print(f"{'':34}{'read':>10}{'store':>10}{'both':>10}{'in all':>10}{'peak MiB':>10}{'before':>10}")
    for name, some in {"first day": took[:1], "further days": took[1:]}.items():
        read, store, whole, peak, before = (
            statistics.median(getattr(one, field) for one in some)
            for field in ("read", "store", "whole", "peak_mib", "before_mib")
        )
        print(f"{name:34}{read:10.2f}{store:10.2f}{read + store:10.2f}{whole:10.2f}{peak:10.0f}{before:10.0f}")
    print(f"{'run-priority':34}{'':30}{ran.seconds:10.2f}{ran.peak_mib:10.0f}")
    slowest = max(one.read + one.store for one in took)
    largest = max(ran.peak_mib, *(one.peak_mib for one in took))
    goal(f"{slowest:.2f} s from call to commit at most: under {SECONDS}", slowest < SECONDS)
    goal(f"{ran.calls} call of run-priority", ran.calls == 1)
    goal(f"{largest:.0f} MiB at most: under {MIB}", largest < MIB)


if __name__ == "__main__":
    main()
