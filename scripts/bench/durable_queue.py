"""Measure the durable queue beside procrastinate, pgqueuer and a loop written by hand.

    python scripts/bench/durable_queue.py                          everything, half an hour
    python scripts/bench/durable_queue.py --only claim --rounds 200
    python scripts/bench/durable_queue.py --items 500 --rows 20000 --symbols 5000 --jobs 2000 --rounds 10     a try

drain    symbols from enqueue to stored price: the real jobs, with batches and with single calls, beside the two peers,
         whose jobs make the same single call and write the same rows. Each runs in one process with eight calls at
         once, against a vendor without limit, in a process of its own, that has its answers ready: the making of
         prices counts against nobody.
claim    claim and complete of batches of 250, whatever else the table holds, beside a plain table and statements
         written by hand, and the peers with jobs that do nothing. All databases take turns: noise hits all alike.
enqueue  many symbols at once. The job decides which are due; the peers are told.

On an embedded PostgreSQL of its own, as durable as its defaults make it. Needs the group
`bench` beside what `scripts/test` installs.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4

import harness
from canned import CannedQuotes
from harness import SandboxProcess, goal, in_a_process, peak_mib
from psycopg import sql
from queue_peers import Task, Took, by_pgqueuer, by_procrastinate

from assetbatch import config, planner
from assetbatch.database import catalogue
from assetbatch.database.opening import connect
from assetbatch.database.queue import enqueue
from assetbatch.database.queue import items as queue
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.drain import Bounds, drain_queue
from assetbatch.jobs.enqueue import enqueue_secondary
from assetbatch.jobs.run import Start

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection

BATCH = 250
WORKERS = 8
FEW = 1_000
# What each peer does best with: tried before the measurement counts, the best one is what is told.
PGQUEUER_BATCHES = (100, 250, 1_000)
PROCRASTINATE_WORKERS = (8, 30)
# procrastinate takes a hundred times as long a job as the others.
FEWER_JOBS = 10

CONFIG = """
provider:
  base_url: {url}
  plan: starter
  max_calls_per_second: null
  concurrency: {workers}
  batch_size: {batch_size}
queue: {{max_size: 10000000}}
bars: {{enabled: false}}
batch: {{priority_assets_enabled: false, secondary_assets: []}}
database: {{embedded: true, name: {database}}}
"""

ADD_ASSETS = """
insert into assetbatch.assets
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
select symbol, 'X:' || symbol, 'crypto', 'secondary', 3, 1800, 'symbols'
from (
  select 'T' || lpad(i::text, greatest(6, length(i::text)), '0') || 'USD' as symbol
  from generate_series(0, %(rows)s - 1) i
) s
"""

# As after a day: served before, and due again.
SERVE = """
insert into assetbatch.sync_state (symbol, served_at, succeeded_at, event_seq)
select symbol, now() - interval '1 day', now() - interval '1 day', 1 from assetbatch.assets
"""

MAP = "insert into trading.symbols (symbol, metadata) select symbol, '{}' from assetbatch.assets"

# The first so many are queued, over the last hour; all others are in another state.
ADD_ITEMS = """
insert into assetbatch.queue
  (symbol, state, priority, waiting_since, rank, enqueued_at, available_at, died_at)
select symbol, case when place <= %(queued)s then 'queued' else %(others)s end, 3, at, at + interval '1 hour', at,
       case when place > %(queued)s and %(others)s = 'delayed' then now() + interval '1 day' else at end,
       case when place > %(queued)s and %(others)s = 'dead' then now() end
from (
  select symbol, row_number() over (order by symbol) as place,
         now() - interval '1 hour' * (1 - row_number() over (order by symbol) / (count(*) over ())::float8) as at
  from assetbatch.assets
) s
order by symbol
"""

PUT_BACK = """
insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at)
select symbol, 3, now(), now() + interval '1 hour', now(), now() from unnest(%(symbols)s::text[]) as s (symbol)
"""

# For the same use: a symbol at most once, priorities that age, attempts, what the call needs to know.
BY_HAND = """
create table jobs (
  symbol text primary key, id bigint generated always as identity, priority int not null default 3,
  rank timestamptz not null default now(), attempts int not null default 0, token uuid, leased_until timestamptz
);
create index jobs_waiting on jobs ((priority > 1), rank, id) where token is null;
create table tickers (symbol text primary key, ticker text not null, kind text not null);
create table served (symbol text primary key, at timestamptz);
"""
ADD_JOBS_BY_HAND = """
with symbols as (select 'T' || lpad(i::text, 7, '0') || 'USD' as symbol from generate_series(0, %(rows)s - 1) i),
jobs as (insert into jobs (symbol) select symbol from symbols),
served as (insert into served select symbol, now() from symbols)
insert into tickers select symbol, 'X:' || symbol, 'crypto' from symbols
"""
CLAIM_BY_HAND = """
with first as materialized (
  select symbol from jobs where token is null order by (priority > 1), rank, id limit %(limit)s for update skip locked
), claimed as (
  update jobs j set token = %(token)s, leased_until = now() + interval '2 minutes', attempts = j.attempts + 1
  from first f where j.symbol = f.symbol
  returning j.symbol, j.attempts
)
select c.symbol, c.attempts, a.ticker, a.kind, s.at
from claimed c
left join lateral (select ticker, kind from tickers where symbol = c.symbol limit 1) a on true
left join lateral (select at from served where symbol = c.symbol limit 1) s on true
"""
DELETE_BY_HAND = "delete from jobs where symbol = any(%(keys)b) and token = %(token)s"
PUT_BACK_BY_HAND = (
    "insert into jobs (symbol, rank) select symbol, now() + interval '1 hour' from unnest(%(symbols)s::text[]) symbol"
)

# The least that is a queue: one order, the key's, and nothing to look up.
BARE = """
create table jobs (
  id bigint generated always as identity primary key, symbol text not null, token uuid, leased_until timestamptz
);
create index jobs_waiting on jobs (id) where token is null;
"""
ADD_BARE_JOBS = """
insert into jobs (symbol)
select 'T' || i || 'USD' from generate_series(0, %(rows)s - 1) i
"""
CLAIM_BARE = """
update jobs set token = %(token)s, leased_until = now() + interval '2 minutes'
where id = any(array(select id from jobs where token is null order by id limit %(limit)s for update skip locked))
returning id, symbol
"""
DELETE_BARE = "delete from jobs where id = any(%(keys)s) and token = %(token)s"
PUT_BACK_BARE = "insert into jobs (symbol) select unnest(%(symbols)s::text[])"


@dataclass(frozen=True)
class Bench(harness.Bench):
    """The server, and numbered databases on it."""

    numbers: Iterator[int] = field(default_factory=count)

    def database(self, template: str | None = None) -> str:
        """Make a database with the tool's schema, or a copy of another one; return its name."""
        name = f"bench_{next(self.numbers)}"
        if template is None:
            harness.open_migrated(self.create(name)).close()
        else:
            statement = sql.SQL("create database {} template {} strategy file_copy")
            with self.open("postgres") as connection:
                connection.plain.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        with self.open("postgres") as connection:
            connection.plain.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def symbols(number: int) -> list[str]:
    return [f"T{i:06}USD" for i in range(number)]


# --- drain ---


@dataclass(frozen=True)
class Outcome:
    """Seconds, and the memory of the process that did it."""

    took: Took
    peak_mib: float


def settings(folder: Path, database: str, url: str, batch_size: int) -> config.Config:
    file = folder / f"{database}.yaml"
    file.write_text(CONFIG.format(url=url, workers=WORKERS, batch_size=batch_size, database=database))
    return config.load(file=file, environ={"POLYGON_API_KEY": "sandbox"}, cwd=folder)


def by_jobs(folder: Path, database: str, url: str, batch_size: int) -> Outcome:
    """Run enqueue-secondary and drain-queue."""
    configured = settings(folder, database, url, batch_size)

    def reconnect() -> Connection:
        return connect(configured.database, folder / "data", job="bench")

    with reconnect() as connection:
        began = time.perf_counter()
        start = Start(configured, connection, "bench", Stop(KeyboardInterrupt))
        enqueue_secondary(start, source="database")
        enqueued = time.perf_counter()
        drain_queue(start, bounds=Bounds(3600), shared=False, reconnect=reconnect)
        return Outcome(Took(enqueued - began, time.perf_counter() - enqueued), peak_mib())


def by_peer(peer: Callable[[Task], Took], task: Task) -> Outcome:
    return Outcome(peer(task), peak_mib())


def measure_drain(bench: Bench, options: argparse.Namespace) -> None:
    items = symbols(options.items)

    def jobs(batch_size: int) -> Callable[[str, str], Outcome]:
        return lambda database, url: in_a_process(by_jobs, bench.folder, database, url, batch_size)

    def peer(work: Callable[[Task], Took]) -> Callable[[str, str], Outcome]:
        return lambda database, url: in_a_process(
            by_peer, work, Task(bench.server.conninfo(database), items, url, workers=WORKERS, batch=100)
        )

    competitors = {
        f"assetbatch, batches of {BATCH}": jobs(BATCH),
        "assetbatch, single calls": jobs(1),
        "procrastinate": peer(by_procrastinate),
        "pgqueuer": peer(by_pgqueuer),
    }
    outcomes: dict[str, list[Outcome]] = {name: [] for name in competitors}
    for _ in range(options.repeat):
        for name, compete in competitors.items():
            database = bench.database()
            with bench.open(database) as connection, closing(SandboxProcess(CannedQuotes)) as vendor:
                connection.execute(ADD_ASSETS, {"rows": len(items)})
                connection.execute("vacuum analyze")
                outcomes[name].append(compete(database, vendor.url))
                stored = connection.execute("select count(*) from assetbatch.sync_state where succeeded_at is not null")
                if (row := stored.fetchone()) is None or row["count"] != len(items):
                    raise SystemExit(f"{name} stored {row} of {len(items)} symbols")
            bench.drop(database)

    print(f"\ndrain: {options.items} symbols, {WORKERS} calls at once, medians of {options.repeat}")
    print(f"{'':34}{'items/s':>10}{'of drain':>10}{'enqueue s':>11}{'drain s':>9}{'peak MiB':>10}")
    rates = {}
    for name, of_it in outcomes.items():
        enqueue_s = statistics.median(outcome.took.enqueue for outcome in of_it)
        drain_s = statistics.median(outcome.took.drain for outcome in of_it)
        rates[name] = options.items / statistics.median(outcome.took.enqueue + outcome.took.drain for outcome in of_it)
        print(
            f"{name:34}{rates[name]:10.0f}{options.items / drain_s:10.0f}{enqueue_s:11.3f}{drain_s:9.2f}"
            f"{max(outcome.peak_mib for outcome in of_it):10.0f}"
        )
    batches, single, *peers = rates.values()
    peak = max(outcome.peak_mib for name in list(outcomes)[:2] for outcome in outcomes[name])
    goal(f"batches {batches / max(peers):.1f} x the better peer: at least 10", batches >= 10 * max(peers))
    goal(f"single calls {single / max(peers):.2f} x the better peer: ahead", single > max(peers))
    goal(f"memory at most {peak:.0f} MiB: under 120", peak < 120)


# --- claim ---


class Turns:
    """Claims and completions on one table, timed one by one; what was taken off is put back at the end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.claims: list[float] = []
        self.completions: list[float] = []

    @property
    def ms(self) -> float:
        return statistics.median(a + b for a, b in zip(self.claims, self.completions, strict=True)) * 1000

    def take(self) -> list[str]:
        """Claim and complete a batch; return its symbols."""
        began = time.perf_counter()
        items = queue.claim(
            self.connection,
            limit=BATCH,
            alone=False,
            max_length=planner.MAX_TICKERS_LENGTH,
            added_length=planner.ADDED_LENGTH,
            lease_seconds=120,
        )
        claimed = time.perf_counter()
        taken = queue.complete(self.connection, items)
        self._note(began, claimed)
        return sorted(taken)

    def put_back(self, taken: list[str]) -> None:
        self.connection.execute(PUT_BACK, {"symbols": taken})

    def _note(self, began: float, claimed: float) -> None:
        self.claims.append(claimed - began)
        self.completions.append(time.perf_counter() - claimed)


class TurnsByHand(Turns):
    """The same by a loop and a table written by hand for the same use."""

    claim, delete, add, key = CLAIM_BY_HAND, DELETE_BY_HAND, PUT_BACK_BY_HAND, "symbol"

    def take(self) -> list[str]:
        token = uuid4()
        began = time.perf_counter()
        rows = self.connection.execute(self.claim, {"token": token, "limit": BATCH}).fetchall()
        claimed = time.perf_counter()
        self.connection.execute(self.delete, {"keys": [row[self.key] for row in rows], "token": token})
        self._note(began, claimed)
        return [row["symbol"] for row in rows]

    def put_back(self, taken: list[str]) -> None:
        self.connection.execute(self.add, {"symbols": taken})


class TurnsBare(TurnsByHand):
    """The same by the least that is a queue."""

    claim, delete, add, key = CLAIM_BARE, DELETE_BARE, PUT_BACK_BARE, "id"


def measure_claim(bench: Bench, options: argparse.Namespace) -> None:
    rows, some = options.rows, max(FEW, options.rows // 10)
    with ExitStack() as stack:
        tables: dict[str, Turns] = {}

        def filled(assets: int, queued: int, others: str = "queued", template: str | None = None) -> str:
            database = bench.database(template)
            with bench.open(database) as connection:
                if template is None:
                    connection.execute(ADD_ASSETS, {"rows": assets})
                    connection.execute(SERVE)
                if queued:
                    connection.execute(ADD_ITEMS, {"queued": queued, "others": others})
                connection.execute("vacuum freeze analyze")
            return database

        def table(name: str, database: str, turns: type[Turns] = Turns) -> Turns:
            tables[name] = turns(stack.enter_context(bench.open(database)))
            return tables[name]

        catalogue = filled(rows + FEW, 0)
        full = filled(0, rows + FEW, template=catalogue)
        passed = bench.database(full)
        plain = by_hand_database(bench, rows + FEW, BY_HAND, ADD_JOBS_BY_HAND)
        plain_passed = bench.database(plain)
        table(f"{FEW:,} queued", filled(FEW, FEW))
        table(f"{some:,} queued", filled(some, some))
        table(f"{rows:,} queued", full)
        table(f"{FEW:,}, {rows:,} delayed beside", filled(0, FEW, "delayed", catalogue))
        table(f"{FEW:,}, {rows:,} dead beside", filled(0, FEW, "dead", catalogue))
        through = table(f"{FEW:,}, {rows:,} gone through", passed)
        table(f"by hand, {rows:,}", plain, TurnsByHand)
        table(f"bare, {rows:,}", by_hand_database(bench, rows + FEW, BARE, ADD_BARE_JOBS), TurnsBare)
        through_by_hand = table(f"by hand, {FEW:,}, {rows:,} gone through", plain_passed, TurnsByHand)
        sustained = pass_through({"assetbatch": through, "by hand": through_by_hand}, rows)
        peers = no_ops(bench, options.jobs)
        for turns in tables.values():
            turns.claims, turns.completions = [], []
        through.connection.execute("checkpoint")
        for number in range(options.rounds):
            # Each time another one begins: nobody always follows the same neighbour.
            order = list(tables.values())
            for turns in order[number % len(order) :] + order[: number % len(order)]:
                turns.put_back(turns.take())

    report_claim(tables, sustained | peers, options)


def report_claim(tables: dict[str, Turns], rates: dict[str, float], options: argparse.Namespace) -> None:
    print(f"\nclaim: batches of {BATCH}, medians of {options.rounds} rounds")
    print(f"{'':42}{'claim ms':>10}{'complete ms':>13}{'both ms':>10}{'items/s':>10}{'x the first':>13}")
    (first, smallest), *others = tables.items()
    for name, turns in tables.items():
        claim_ms, complete_ms = (statistics.median(times) * 1000 for times in (turns.claims, turns.completions))
        print(
            f"{name:42}{claim_ms:10.2f}{complete_ms:13.2f}{turns.ms:10.2f}{BATCH / turns.ms * 1000:10.0f}"
            f"{turns.ms / smallest.ms:13.2f}"
        )
    for name, rate in rates.items():
        print(f"{name:72}{rate:10.0f}")
    for name, turns in others:
        if not isinstance(turns, TurnsByHand):
            ratio = turns.ms / smallest.ms
            goal(f"{name}: {ratio:.2f} x {first}: at most 1.3", ratio <= 1.3)
    million, by_hand = f"{options.rows:,} queued", f"by hand, {options.rows:,}"
    ratio = tables[million].ms / tables[by_hand].ms
    goal(f"{million}: {ratio:.2f} x the loop by hand: at most 1.5", ratio <= 1.5)
    ahead = BATCH / tables[million].ms * 1000 / max(rate for name, rate in rates.items() if "no-op" in name)
    goal(f"{million}: {ahead:.2f} x the items/s of the better peer: ahead", ahead > 1)


def by_hand_database(bench: Bench, rows: int, tables: str, jobs: str) -> str:
    database = bench.database()
    with bench.open(database) as connection:
        connection.execute(tables)
        connection.execute(jobs, {"rows": rows})
        connection.execute("vacuum freeze analyze")
    return database


def pass_through(tables: dict[str, Turns], rows: int) -> dict[str, float]:
    """Let so many rows go through each table, a batch at a time in turns; tell the items a second of each."""
    for _ in range(rows // BATCH):
        for turns in tables.values():
            turns.take()
    return {
        f"{name}, {rows:,} items one batch after another": rows / (sum(turns.claims) + sum(turns.completions))
        for name, turns in tables.items()
    }


def no_ops(bench: Bench, jobs: int) -> dict[str, float]:
    """Run the peers, one process each, with jobs that do nothing; tell the items a second of their best settings."""
    best: dict[str, float] = {}
    trials: list[tuple[str, Callable[[Task], Took], int, int, int]] = [
        *(("procrastinate", by_procrastinate, workers, 1, jobs // FEWER_JOBS) for workers in PROCRASTINATE_WORKERS),
        *(("pgqueuer", by_pgqueuer, 1, batch, jobs) for batch in PGQUEUER_BATCHES),
    ]
    for name, peer, workers, batch, number in trials:
        database = bench.database()
        task = Task(bench.server.conninfo(database), symbols(number), None, workers=workers, batch=batch)
        rate = number / in_a_process(peer, task).drain
        best[name] = max(best.get(name, 0), rate)
        bench.drop(database)
    return {f"{name}, {jobs if name == 'pgqueuer' else jobs // FEWER_JOBS:,} no-op jobs": best[name] for name in best}


# --- enqueue ---


def measure_enqueue(bench: Bench, options: argparse.Namespace) -> None:
    names = symbols(options.symbols)
    took: dict[str, list[float]] = {}
    database = bench.database()
    configured = settings(bench.folder, database, "http://127.0.0.1:1", BATCH)

    def statement(connection: Connection) -> object:
        now = datetime.now(UTC)
        return enqueue.enqueue(
            connection,
            lambda seconds, market: planner.served_before(seconds, market, now, configured.delays),
            origins=None,
            symbols=None,
            due_or_not=False,
            days={},
            max_size=10_000_000,
            step_seconds=1800,
            plan="starter",
            frequencies=connection.answer(catalogue.frequencies()),
            key="bench",
        ).enqueued

    def job(connection: Connection) -> object:
        start = Start(configured, connection, "bench", Stop(KeyboardInterrupt))
        result = enqueue_secondary(start, source="database")
        return result.enqueued and result.enqueued.enqueued

    def timed(name: str, work: Callable[[Connection], object], connection: Connection) -> None:
        connection.execute("truncate assetbatch.queue")
        began = time.perf_counter()
        enqueued = work(connection)
        took.setdefault(name, []).append(time.perf_counter() - began)
        if enqueued != len(names):
            raise SystemExit(f"{name} enqueued {enqueued} of {len(names)} symbols")

    def timed_peers() -> None:
        for name, peer in (("procrastinate", by_procrastinate), ("pgqueuer", by_pgqueuer)):
            theirs = bench.database()
            task = Task(bench.server.conninfo(theirs), names, None, workers=1, batch=1)
            took.setdefault(name, []).append(in_a_process(enqueue_by, peer, task))
            bench.drop(theirs)

    with bench.open(database) as connection:
        connection.execute(ADD_ASSETS, {"rows": len(names)})
        connection.execute("vacuum analyze")
        for _ in range(options.repeat):
            timed("one statement, never served", statement, connection)
            timed("the job, never served", job, connection)
        connection.execute(SERVE)
        connection.execute(MAP)
        connection.execute("vacuum analyze")
        for _ in range(options.repeat):
            timed("one statement, due again", statement, connection)
            timed("the job, due again", job, connection)
            timed_peers()
    bench.drop(database)

    print(f"\nenqueue: {options.symbols:,} symbols, medians of {options.repeat}")
    print(f"{'':34}{'seconds':>10}{'symbols/s':>11}")
    rates = {name: len(names) / statistics.median(seconds) for name, seconds in took.items()}
    for name, rate in rates.items():
        print(f"{name:34}{len(names) / rate:10.2f}{rate:11.0f}")
    best = max(rates["procrastinate"], rates["pgqueuer"])
    slowest = min(rate for name, rate in rates.items() if name not in {"procrastinate", "pgqueuer"})
    goal(f"the slowest of ours {slowest / best:.2f} x the better peer: ahead", slowest > best)


def enqueue_by(peer: Callable[..., Took], task: Task) -> float:
    return peer(task, drain=False).enqueue


PARTS = {"drain": measure_drain, "claim": measure_claim, "enqueue": measure_enqueue}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="not all parts")
    parser.add_argument("--items", type=int, default=10_000, help="drain: symbols")
    parser.add_argument("--rows", type=int, default=1_000_000, help="claim: rows of the largest tables")
    parser.add_argument("--rounds", type=int, default=60, help="claim: batches from each table")
    parser.add_argument("--jobs", type=int, default=20_000, help="claim: the peers' jobs that do nothing")
    parser.add_argument("--symbols", type=int, default=100_000, help="enqueue: symbols")
    parser.add_argument("--repeat", type=int, default=3, help="drain, enqueue: how often")
    options = parser.parse_args()
    with Bench.start() as bench:
        for name, measure in PARTS.items():
            if not options.only or name in options.only:
                measure(bench, options)


if __name__ == "__main__":
    main()
