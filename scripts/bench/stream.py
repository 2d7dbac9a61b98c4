"""Measure the stream: prices and open bars of 1,000 assets at 10,000 messages a second, beside the way by hand.

    python scripts/bench/stream.py                               everything, some five minutes
    python scripts/bench/stream.py --only flush --rounds 60
    python scripts/bench/stream.py --only load --seconds 10                                         a try

load     forex and crypto, from a server in another process that speaks the vendor's handshake: several events a frame,
         and one event a frame. A reader of its own looks at the table ten times a second: how long the oldest price has
         waited that was sent, and is neither there nor overtaken. Memory and CPU of the process of `stream`; at the end
         each asset's last price, to the digit, and its last bar.
sustain  more and more messages a second until the newest price in the table is 5 s late: `stream`, and a script by
         hand (the vendor's own client, an update of the table for each message), in turn. What each stored in its
         best five seconds until then is what it sustains.
flush    milliseconds and round trips of a flush in which the price of each asset has changed, without and with a bar of
         each: for 1,000 assets, and for fewer. A relay counts the round trips, in a run of its own.

On an embedded PostgreSQL of its own, as durable as its defaults make it. Needs what `scripts/test` installs; run it
from the root of the repository, since the relay is the tests'.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import SandboxProcess, goal
from stream_feed import STRIDE, FeedProcess, Plan, Sent, joined, number_of, price

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.relay import Relay

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection

KEY = "bench-key"
FLUSH_SECONDS = 1.0
POLL_SECONDS = 0.1
# What comes in this time after a beginning is not measured.
WARM_SECONDS = 3.0
LATE_SECONDS = 5.0
MOST_LATE, MOST_MIB, MOST_CORES, LEAST_TIMES, MOST_TRIPS, MOST_MS = FLUSH_SECONDS + 1, 120, 1.0, 10, 6, 150
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

CONFIG = """
batch: {{priority_assets_enabled: false, secondary_assets: []}}
provider: {{max_calls_per_second: null}}
stream:
  flush_seconds: {flush_seconds}
  clusters: [{clusters}]
  urls: {{forex: "ws://127.0.0.1:{port}/forex", crypto: "ws://127.0.0.1:{port}/crypto"}}
"""

# The command as it is, but that it writes down when each flush began, how long it and its transaction took, what CPU it
# took of the thread that stores and of its server process, and what was stored.
TIMED = """
import os, time
from assetbatch.cli import main
from assetbatch.database.bars import pages
from assetbatch.jobs import storing

found = [0.0, 0.0, 0, 0]
upserting, write_prices = pages.upserting, storing.write_prices

def counted_upserting(series, **others):
    found[3] = len(series)
    return upserting(series, **others)

def timed_write_prices(connection, brought, *others, **named):
    began = time.monotonic()
    written = write_prices(connection, brought, *others, **named)
    found[0], found[2] = time.monotonic() - began, len(brought)
    return written

# Before it is imported by name.
pages.upserting, storing.write_prices = counted_upserting, timed_write_prices
from assetbatch.stream.streamer import Streamer

flush = Streamer._flush

def cpu_seconds(self):
    with open(f"/proc/{self._connection.info.backend_pid}/schedstat") as file:
        return time.thread_time() + int(file.read().split()[0]) / 1e9

def timed_flush(self, **options):
    found[:] = 0.0, 0.0, 0, 0
    began, cpu = time.monotonic(), cpu_seconds(self)
    flush(self, **options)
    found[1] = cpu_seconds(self) - cpu
    print(began, time.monotonic() - began, *found, file=log, flush=True)

Streamer._flush = timed_flush
log = open(os.environ["FLUSHES"], "w")
main()
"""

ADD_ASSETS = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select n || 'USD', %(prefix)s || n || 'USD', %(cluster)s, 'secondary', 3, 1800, 'symbols'
from unnest(%(names)s::text[]) n
"""
ADD_PAIRS = """
insert into assetbatch.pairs (polygon_ticker, base, quote)
select %(prefix)s || n || 'USD', n, 'USD' from unnest(%(names)s::text[]) n
"""
ADD_SYMBOLS = "insert into trading.symbols (symbol) select symbol from assetbatch.assets order by symbol"
READ_LIVE = "select count(*) as n from assetbatch.streams where state = 'live' and confirmed = asked"
READ_PRICES = "select symbol, metadata -> 'last_update' ->> 'last_price' as digits from trading.symbols"
READ_BARS = """
select s.symbol, b.open, b.high, b.low, b.close, b.volume,
       (extract(epoch from b.ts) * 1000)::bigint as begins
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
"""

PREFIX = {"forex": "C", "crypto": "X"}
JOINED_BY = {"forex": "/", "crypto": "-"}


@dataclass(frozen=True)
class Assets:
    """So many assets, one cluster after another; an asset's number is its place in `symbols`."""

    bases: dict[str, list[str]]

    @classmethod
    def of(cls, **counts: int) -> Assets:
        return cls({cluster: [f"{PREFIX[cluster]}{n:03}" for n in range(count)] for cluster, count in counts.items()})

    @property
    def names(self) -> dict[str, list[str]]:
        """What the stream calls them."""
        return {cluster: [f"{base}{JOINED_BY[cluster]}USD" for base in bases] for cluster, bases in self.bases.items()}

    @property
    def symbols(self) -> list[str]:
        return [f"{base}USD" for bases in self.bases.values() for base in bases]

    def add(self, connection: Connection) -> None:
        for cluster, names in self.bases.items():
            given = {"cluster": cluster, "prefix": f"{PREFIX[cluster]}:", "names": names}
            connection.execute(ADD_ASSETS, given)
            connection.execute(ADD_PAIRS, given)
        connection.execute(ADD_SYMBOLS)


@dataclass(frozen=True)
class Flush:
    """One flush: when it began (monotonic), seconds in all, of its transaction and of CPU; how much it stored."""

    began: float
    seconds: float
    storing_seconds: float
    cpu_seconds: float
    quotes: int
    bars: int


@dataclass
class Process:
    """A process that is measured from the outside."""

    pid: int

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def peak_mib(self) -> float:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024


@dataclass
class Stage:
    """A database with assets, a server of their events, and the database's reader."""

    bench: harness.Bench
    assets: Assets
    feed: FeedProcess
    conninfo: str
    reader: Connection
    sandbox_url: str

    @classmethod
    @contextmanager
    def set_up(cls, bench: harness.Bench, name: str, assets: Assets) -> Iterator[Stage]:
        conninfo = bench.create(name)
        with (
            harness.open_migrated(conninfo) as reader,
            closing(FeedProcess(assets.names)) as feed,
            closing(SandboxProcess(key=KEY, keep_arrivals=False)) as sandbox,
        ):
            assets.add(reader)
            yield cls(bench, assets, feed, conninfo, reader, sandbox.url)

    @contextmanager
    def streaming(self, conninfo: str = "", *, flush_seconds: float = FLUSH_SECONDS) -> Iterator[Process]:
        """Run `stream` until the block ends, once all of its names are confirmed."""
        clusters = ", ".join(self.assets.bases)
        environment = self.bench.environment(conninfo or self.conninfo) | {
            "POLYGON_API_KEY": KEY,
            "POLYGON_BASE_URL": self.sandbox_url,
            "POLYGON_TIER": "starter",
            "XDG_STATE_HOME": str(self.bench.folder / "state"),
            "FLUSHES": str(self.bench.folder / "flushes"),
        }
        (self.bench.folder / "config.yaml").write_text(
            CONFIG.format(flush_seconds=flush_seconds, clusters=clusters, port=self.feed.port)
        )
        process = subprocess.Popen(
            [sys.executable, "-c", TIMED, "stream"], env=environment, cwd=self.bench.folder, stdout=subprocess.DEVNULL
        )
        try:
            end = time.monotonic() + 60
            while self._live() < len(self.assets.bases):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit("the stream did not become live")
                time.sleep(0.1)
            # It asks for daily figures as it begins.
            time.sleep(WARM_SECONDS)
            yield Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
            self.reader.execute("delete from assetbatch.streams")

    @contextmanager
    def by_hand(self) -> Iterator[Process]:
        """Run the script by hand until the block ends."""
        file = self.bench.folder / "names"
        file.write_text("\n".join(f"C.{name}" for name in self.assets.names["forex"]))
        script = Path(__file__).with_name("stream_by_hand.py")
        process = subprocess.Popen(
            [sys.executable, str(script), f"127.0.0.1:{self.feed.port}", str(file), self.conninfo],
            env=self.bench.environment(self.conninfo),
            cwd=self.bench.folder,
        )
        try:
            time.sleep(WARM_SECONDS)
            yield Process(process.pid)
        finally:
            process.kill()
            process.wait()

    def _live(self) -> int:
        row = self.reader.execute(READ_LIVE).fetchone()
        assert row is not None
        return int(row["n"])

    def look(self) -> tuple[float, dict[str, str | None]]:
        """Return what the table shows, and the time before it was asked."""
        asked_at = time.monotonic()
        return asked_at, {row["symbol"]: row["digits"] for row in self.reader.execute(READ_PRICES)}

    def flushes(self) -> list[Flush]:
        """Return what the flushes of the last run were, that stored something."""
        lines = (self.bench.folder / "flushes").read_text().splitlines()
        rows = [line.split() for line in lines]
        flushes = [
            Flush(float(began), float(seconds), float(storing), float(cpu), int(quotes), int(bars))
            for began, seconds, storing, cpu, quotes, bars in rows
        ]
        return [flush for flush in flushes if flush.quotes]


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# --- load ---


def measure_load(bench: harness.Bench, options: argparse.Namespace) -> None:
    half = options.assets // 2
    for size in options.frame:
        assets = Assets.of(forex=half, crypto=options.assets - half)
        plan = Plan(options.seconds, options.rate, events_a_frame=size, minutes_every=min(20, options.seconds / 2))
        with Stage.set_up(bench, f"load_{size}", assets) as stage:
            with stage.streaming() as process:
                began, cpu_seconds = stage.feed.begin(plan), process.cpu_seconds()
                looks = []
                while time.monotonic() < began + plan.seconds:
                    looks.append(stage.look())
                    time.sleep(POLL_SECONDS)
                sent = stage.feed.end(10)
                cores = (process.cpu_seconds() - cpu_seconds) / (time.monotonic() - began)
                time.sleep(MOST_LATE)
                peak_mib = process.peak_mib()
            _, shown = stage.look()
            waits = waiting(assets, sent, [one for one in looks if one[0] > began + WARM_SECONDS])
            flushes = stage.flushes()
            lost = [symbol for symbol, number in last_numbers(assets, sent).items() if shown[symbol] != price(number)]
            bars = bars_lost(stage, sent)
        ms = [flush.seconds * 1000 for flush in flushes]
        print(f"\nload: {options.assets:,} assets, {sent.total / sent.seconds:,.0f} messages a second for ", end="")
        print(f"{sent.seconds:.0f} s, {size} a frame; the server was {sent.latest * 1000:.0f} ms late at most")
        print(f"  waiting p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s, ", end="")
        print(f"most {max(waits):.2f} s; a flush {statistics.median(ms):.0f} ms (median), p95 {quantile(ms, 0.95):.0f}")
        goal(f"p99 {quantile(waits, 0.99):.2f} s: within flush + 1 s", quantile(waits, 0.99) <= MOST_LATE)
        goal(f"{peak_mib:.0f} MiB: under {MOST_MIB}", peak_mib < MOST_MIB)
        goal(f"{cores:.2f} cores: under one", cores < MOST_CORES)
        goal(f"{len(lost)} of {options.assets:,} last prices lost", not lost)
        goal(f"{bars} of {len(sent.bars):,} bars lost or wrong", not bars)


def last_numbers(assets: Assets, sent: Sent) -> dict[str, int]:
    """Return the number of each asset's last event."""
    symbols = assets.symbols
    return {symbols[number * STRIDE % len(symbols)]: number for number in range(sent.total - len(symbols), sent.total)}


def waiting(assets: Assets, sent: Sent, looks: list[tuple[float, dict[str, str | None]]]) -> list[float]:
    """Return how long, at each look, the oldest event of each asset had waited that was not there: 0, if all were."""
    every = len(assets.symbols)
    found = []
    for asked_at, shown in looks:
        for digits in shown.values():
            assert digits is not None
            following = number_of(digits) + every
            found.append(max(0.0, asked_at - sent.time_of(following)) if following < sent.total else 0.0)
    return found


def bars_lost(stage: Stage, sent: Sent) -> int:
    """Return how many bars are not as the minutes make them."""
    rows = stage.reader.execute(READ_BARS).fetchall()
    stored = {
        (row["symbol"], row["begins"]): tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
        for row in rows
    }
    symbols = stage.assets.symbols
    return sum(
        stored.get((symbols[asset], begins)) != joined(minutes) for (asset, begins), minutes in sent.bars.items()
    )


# --- sustain ---


def measure_sustain(bench: harness.Bench, options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {"stream": [], "by hand": []}
    with Stage.set_up(bench, "sustain", Assets.of(forex=options.assets)) as stage:
        for _ in range(options.turns):
            for name, running, rate in (("by hand", stage.by_hand, 300), ("stream", stage.streaming, 5_000)):
                stage.reader.execute("update trading.symbols set metadata = '{}'")
                with running():
                    found[name].append(sustained(stage, Plan(120, rate, doubling_seconds=8)))
    print(f"\nsustain: messages a second before it lags {LATE_SECONDS:.0f} s, {options.assets:,} assets")
    for name, rates in found.items():
        print(f"  {name:10}{', '.join(f'{rate:,.0f}' for rate in rates)}")
    times = statistics.median(a / b for a, b in zip(found["stream"], found["by hand"], strict=True))
    goal(f"{times:.1f} times by hand, turn by turn (goal: {LEAST_TIMES})", times >= LEAST_TIMES)


def sustained(stage: Stage, plan: Plan) -> float:
    """Return what the most messages were, a second, that were stored in five seconds, until it lagged so much."""
    began = stage.feed.begin(plan)
    newest: list[tuple[float, int]] = []
    best = 0.0
    while (now := time.monotonic() - began) < plan.seconds:
        _, shown = stage.look()
        numbers = [number_of(digits) for digits in shown.values() if digits is not None]
        newest.append((now, max(numbers, default=0)))
        before = [one for one in newest if now - one[0] >= LATE_SECONDS]
        if before:
            best = max(best, (newest[-1][1] - before[-1][1]) / (now - before[-1][0]))
        if now - plan.at(newest[-1][1]) > LATE_SECONDS:
            break
        time.sleep(POLL_SECONDS)
    stage.feed.end()
    return best


# --- flush ---


def measure_flush(bench: harness.Bench, options: argparse.Namespace) -> None:
    print("\nflush: every asset's price has changed")
    print(f"{'':30}{'flushes':>9}{'ms':>8}{'p95':>8}{'transaction':>13}{'p95':>8}{'CPU ms':>8}{'round trips':>13}")
    for assets in sorted({10, 100, options.assets}):
        with Stage.set_up(bench, f"flush_{assets}", Assets.of(forex=assets)) as stage:
            timed = flushed(stage, options.rounds)
            with Relay(stage.conninfo) as relay:
                spoken = Noted(relay)
                counted = flushed(stage, options.rounds // 3, relay.conninfo)
        for words, with_bars in (("", False), (" and bars", True)):
            kind = [flush for flush in timed if flush.quotes == assets and bool(flush.bars) is with_bars]
            trips = [
                spoken.between(flush.began, flush.began + flush.seconds)
                for flush in counted
                if flush.quotes == assets and bool(flush.bars) is with_bars
            ]
            most = max(trips, default=0)
            ms, storing, cpu = (
                [getattr(one, name) * 1000 for one in kind] for name in ("seconds", "storing_seconds", "cpu_seconds")
            )
            print(f"  {f'{assets:,} prices{words}':28}{len(kind):9}{statistics.median(ms):8.0f}", end="")
            print(f"{quantile(ms, 0.95):8.0f}{statistics.median(storing):13.0f}{quantile(storing, 0.95):8.0f}", end="")
            print(f"{statistics.median(cpu):8.0f}{most:13}", flush=True)
            goal(f"{most} round trips, of {len(trips)} flushes: at most {MOST_TRIPS}", 0 < most <= MOST_TRIPS)
            if not with_bars:
                goal(f"{statistics.median(ms):.0f} ms: under {MOST_MS}", statistics.median(ms) < MOST_MS)


def flushed(stage: Stage, rounds: int, conninfo: str = "") -> list[Flush]:
    """Let all assets change at once, again and again; in every other round a bar of each comes beside."""
    every, symbols = 2.0, stage.assets.symbols
    plan = Plan(rounds * every, len(symbols) / every, burst=len(symbols), minutes_every=2 * every)
    with stage.streaming(conninfo, flush_seconds=0.5):
        began = stage.feed.begin(plan)
        stage.feed.end(plan.seconds + 10)
    return [flush for flush in stage.flushes() if flush.began > began]


class Noted:
    """When round trips went through a relay."""

    def __init__(self, relay: Relay) -> None:
        self._times: list[float] = []
        count = relay.count_round_trip

        def note() -> None:
            self._times.append(time.monotonic())
            count()

        relay.count_round_trip = note  # type: ignore[method-assign]

    def between(self, begin: float, end: float) -> int:
        return sum(begin <= at <= end for at in self._times)


PARTS = {"load": measure_load, "sustain": measure_sustain, "flush": measure_flush}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="not all parts")
    parser.add_argument("--assets", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60, help="load: for so long")
    parser.add_argument("--rate", type=float, default=10_000, help="load: messages a second")
    parser.add_argument("--frame", type=int, action="append", help="load: events a frame (25, then 1)")
    parser.add_argument("--turns", type=int, default=3, help="sustain: how often each")
    parser.add_argument("--rounds", type=int, default=60, help="flush: how often")
    options = parser.parse_args()
    options.frame = options.frame or [25, 1]
    with harness.Bench.start() as bench:
        for name, measure in PARTS.items():
            if name in (options.only or PARTS):
                measure(bench, options)


if __name__ == "__main__":
    main()
