"""Saturate the rate limit with several processes against a strict server, beside what others do.

    python scripts/bench/rate_limit.py                                                      5 calls in any 2 s, 60 s
    python scripts/bench/rate_limit.py --window 60 --margin 1 --seconds 960 --jitter 0.5    the real setting, 16 min

All competitors run at the same time, each against a server of its own that refuses what would be one request too many
in any window. Used is measured there: (calls - L) * W / (L * (last arrival - first arrival)). Needs the group
`bench` beside what `scripts/test` installs. `--database URL` takes an empty database of yours (through PgBouncer, say)
in place of an embedded server.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import harness
import psycopg
import requests
from harness import SandboxProcess

from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.sandbox.server import Arrival

CALL = Call(CallKind.SNAPSHOT_SINGLE, (Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300),))


@dataclass(frozen=True)
class Load:
    """What the processes do: `limit` calls in `window` s, each sent up to `jitter` s after it was allowed."""

    conninfo: str
    url: str
    limit: int
    window: float
    margin: float
    jitter: float
    seconds: float


@dataclass
class Tally:
    """What one process saw."""

    calls: int = 0
    refused: int = 0
    errors: int = 0
    trips: list[float] = field(default_factory=list)


class TimedConnection:
    """Passes statements and queries on, and times each round trip."""

    losses = 0

    def __init__(self, connection: Connection, trips: list[float]) -> None:
        self._connection = connection
        self._trips = trips

    def execute(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        cursor = self._connection.execute(*arguments)
        self._trips.append(time.perf_counter() - began)
        return cursor

    def ask(self, *queries: Query[Any]) -> None:
        began = time.perf_counter()
        self._connection.ask(*queries)
        self._trips.append(time.perf_counter() - began)


def by_slots(load: Load, seed: int) -> Tally:
    """Run assetbatch's limiter and client."""
    tally = Tally()
    jitter = random.Random(seed)
    connection = harness.open_database(load.conninfo)
    client = Client(base_url=load.url, api_key="sandbox", connect_timeout_seconds=5, timeout_seconds=20)
    limiter = RateLimiter(
        TimedConnection(connection, tally.trips),  # type: ignore[arg-type]
        key="bench",
        host="bench",
        rules=Rules(load.limit, load.window, load.margin, 0, None, client.request_seconds),
        lane=Lane.QUEUE,
        pause=time.sleep,
    )
    end = time.monotonic() + load.seconds
    while (left := end - time.monotonic()) > 0:
        try:
            slot = limiter.acquire(max_wait_seconds=left)
        except CallError:
            break
        time.sleep(jitter.uniform(0, load.jitter))
        try:
            harness.ask(client, endpoints.prices(CALL))
            limiter.release(slot, Outcome.OK)
        except CallError as error:
            limiter.release(slot, Outcome.of(error), retry_after_seconds=error.retry_after_seconds)
            tally.refused += error.kind is FailureKind.RATE_LIMITED
            tally.errors += error.kind is not FailureKind.RATE_LIMITED
        tally.calls += 1
    return tally


def by_request(load: Load, seed: int, allow: Callable[[], bool]) -> Tally:
    """Run a peer: `allow` says whether a request may go out now."""
    tally = Tally()
    jitter = random.Random(seed)
    session = requests.Session()
    session.headers["Authorization"] = "Bearer sandbox"
    end = time.monotonic() + load.seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        allowed = allow()
        tally.trips.append(time.perf_counter() - began)
        if not allowed:
            time.sleep(0.005)
            continue
        time.sleep(jitter.uniform(0, load.jitter))
        status = session.get(
            f"{load.url}/v2/snapshot/locale/global/markets/crypto/tickers/X:BTCUSD", timeout=20
        ).status_code
        tally.calls += 1
        tally.refused += status == 429
        tally.errors += status not in {200, 429}
    return tally


def by_fixed_window(load: Load, seed: int) -> Tally:
    """Run the usual script: each process counts for itself, anew in every window of the clock."""
    window, used = 0, 0

    def allow() -> bool:
        nonlocal window, used
        if (now := int(time.time() / load.window)) != window:
            window, used = now, 0
        used += 1
        return used <= load.limit

    return by_request(load, seed, allow)


def by_pyrate(load: Load, seed: int) -> Tally:
    """Run pyrate-limiter's bucket in PostgreSQL, shared by all processes."""
    from psycopg_pool import ConnectionPool
    from pyrate_limiter import Limiter, PostgresBucket, Rate

    pool = ConnectionPool(load.conninfo, min_size=1, max_size=1, open=True)
    bucket = PostgresBucket(pool, "bench", [Rate(load.limit, int(load.window * 1000))])
    limiter = Limiter(bucket)

    def allow() -> bool:
        with suppress(psycopg.Error):
            return bool(limiter.try_acquire("bench", blocking=True, timeout=1))
        return False

    return by_request(load, seed, allow)


COMPETITORS = {
    "slots stamped at the answer": by_slots,
    "fixed window, one counter a process": by_fixed_window,
    "pyrate-limiter, PostgreSQL bucket": by_pyrate,
}


def work(name: str, load: Load, seed: int, results: Any) -> None:
    """Run one process of one competitor."""
    results.put(COMPETITORS[name](load, seed))


def compete(name: str, conninfo: str, options: argparse.Namespace) -> str:
    """Run all processes of one competitor against its own server; return its line of the report."""
    sandbox = SandboxProcess(limit=options.limit, window_seconds=options.window)
    load = Load(conninfo, sandbox.url, options.limit, options.window, options.margin, options.jitter, options.seconds)
    results: multiprocessing.Queue[Tally] = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=work, args=(name, load, seed, results), daemon=True)
        for seed in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    tallies = [results.get(timeout=options.seconds + 5 * options.window + 120) for _ in workers]
    return report(name, tallies, sandbox.close(), options)


def report(name: str, tallies: list[Tally], arrivals: list[Arrival], options: argparse.Namespace) -> str:
    times = sorted(arrival.at for arrival in arrivals)
    refused = sum(arrival.status == 429 for arrival in arrivals)
    over = sum(b - a <= options.window for a, b in zip(times, times[options.limit :], strict=False))
    used = (len(times) - options.limit) * options.window / (options.limit * (times[-1] - times[0]))
    trips = [trip for tally in tallies for trip in tally.trips]
    calls = sum(tally.calls for tally in tallies)
    cuts = statistics.quantiles(trips, n=100)
    return (
        f"{name:38}{len(times):11}{over:11}{refused:11}{used:11.1%}{sum(tally.errors for tally in tallies):11}"
        f"{len(trips) / calls:11.1f}{cuts[49] * 1000:11.2f}{cuts[98] * 1000:11.2f}"
    )


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--limit", type=int, default=5)
    parser.add_argument("--window", type=float, default=2.0, help="seconds")
    parser.add_argument("--margin", type=float, default=0.0, help="seconds")
    parser.add_argument("--jitter", type=float, default=0.05, help="most seconds on the way to the server")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=["slots", "fixed", "pyrate"], action="append", help="not all competitors")
    parser.add_argument("--database", help="libpq URL of an empty database, in place of an embedded server")
    options = parser.parse_args()
    names = [name for name in COMPETITORS if not options.only or any(word in name for word in options.only)]
    with ExitStack() as stack:
        conninfo = options.database or stack.enter_context(harness.Bench.start()).create()
        harness.open_migrated(conninfo).close()
        print(
            f"{options.processes} processes, {options.limit} calls in any {options.window:g} s,"
            f" margin {options.margin:g} s,"
            f" 0 to {options.jitter * 1000:g} ms on the way, {options.seconds:g} s"
        )
        heads = ("calls", "over", "refused", "used", "errors", "trips/call", "p50 ms", "p99 ms")
        print(" " * 38 + "".join(f"{head:>11}" for head in heads))
        threads = [
            threading.Thread(target=lambda name=name: print(compete(name, conninfo, options), flush=True), daemon=True)
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if "slots stamped at the answer" in names:
            ideal = options.window / (options.window + options.margin + options.jitter / 2)
            print(f"the most that any safe client can use: {ideal:.1%}")


if __name__ == "__main__":
    main()
