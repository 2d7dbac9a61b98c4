"""Run the crontab's schedule for hours in scaled time, against a strict server, and tell what became of the budget.

    python scripts/bench/schedule.py                            2 hours in 12 minutes, both batch sizes side by side
    python scripts/bench/schedule.py --hours 0.1                6 minutes of schedule in 36 s, for a look
    python scripts/bench/schedule.py --scale 1 --hours 1 --batch-size 1 --drain cron        in real time
    python scripts/bench/schedule.py --enqueue schedule         the secondary assets every half hour, not all the time

Each batch size has a database and a server of its own; the server refuses what would be one request too many in any
window. One process makes the priority runs at their due times, one drains without a pause, one keeps the queue full.
Everything that has a duration is divided by the scale but the machine's own work, so what that costs counts so many
times as much as in real time; the start of processes is left out. Durations are printed as they would be in real
time. Used is measured at the server: (calls - L) * W / (L * (last arrival - first arrival)). Needs the extra
`embedded`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import harness
from harness import Bench, SandboxProcess

from assetbatch import planner
from assetbatch.config import Config, Secret
from assetbatch.config.settings import Batch, PriorityAsset, Provider, Queue, RateLimiting, SecondaryAsset, Settings
from assetbatch.database import rate_limit
from assetbatch.database.queue import items as queue
from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Slot
from assetbatch.jobs import calls, drain, queue_work, run, worker
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.enqueue import enqueue_secondary
from assetbatch.jobs.priority import run_priority
from assetbatch.sandbox.server import Sandbox

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection as Pipe

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from assetbatch.sandbox.bodies import Answer
    from assetbatch.sandbox.server import Arrival

PRIORITY = ("BTC", "ETH", "SOL")
LIMIT, WINDOW, MARGIN, GRACE, EVERY = 5, 60.0, 1.0, 10.0, 300.0
WAKING = 0.2
MINUTE, DRAIN_SECONDS, ENQUEUE_EVERY = 60.0, 55.0, 1800.0
# The package's own constants that are durations and are met with on this schedule.
DURATIONS: tuple[tuple[Any, str], ...] = (
    (drain, "LAST_CALL_SECONDS"),
    (calls, "PATIENCE_SECONDS"),
    (queue_work, "PATIENCE_SECONDS"),
    (worker, "PATIENCE_SECONDS"),
    (queue_work, "UPKEEP_SECONDS"),
    (queue_work, "SERVED_PAUSE_SECONDS"),
    (worker, "STRIKE_PAUSE_SECONDS"),
    (run, "LEASE_PATIENCE_SECONDS"),
    (run, "LEASE_POLL_SECONDS"),
    (rate_limit, "LEAVE_SECONDS"),
    (planner, "JITTER"),
)

# How long an item was on the queue, written down when it is taken off.
WATCH_QUEUE = """
create table public.waits (symbol text, seconds float8);
create function public.note_wait() returns trigger language plpgsql as $$
begin
  insert into public.waits values (old.symbol, extract(epoch from clock_timestamp() - old.enqueued_at));
  return old;
end $$;
create trigger note_wait after delete on assetbatch.queue for each row execute function public.note_wait();
"""

# Those that wait still, too: one that starves would not be seen otherwise.
WAITS = """
select seconds from public.waits
union all
select extract(epoch from clock_timestamp() - enqueued_at)::float8 from assetbatch.queue
"""


@dataclass(frozen=True)
class Setting:
    """One batch size: its database and its server; `begin` and `end` are monotonic times, `begin` is a due time."""

    conninfo: str
    url: str
    batch_size: int
    begin: float
    end: float
    options: argparse.Namespace

    def config(self) -> Config:
        """Make the configuration as it would be shipped, all durations divided."""
        scale = self.options.scale
        return Config(
            settings=Settings(
                provider=Provider(
                    base_url=self.url,
                    plan="starter",
                    batch_size=self.batch_size,
                    connect_timeout_seconds=5 / scale,
                    timeout_seconds=20 / scale,
                ),
                rate_limiting=RateLimiting(
                    calls_per_minute=LIMIT,
                    window_seconds=WINDOW / scale,
                    margin_seconds=MARGIN / scale,
                    reservation_grace_seconds=GRACE / scale,
                ),
                batch=Batch(
                    interval_minutes=EVERY / 60 / scale,
                    max_cycle_seconds=60 / scale,
                    priority_assets=tuple(
                        PriorityAsset(symbol=name, polygon_ticker=f"X:{name}USD", asset_type="crypto")
                        for name in PRIORITY
                    ),
                    # Crypto, since the clock of the market hours is the real one, and other markets rest.
                    secondary_assets=tuple(
                        SecondaryAsset(symbol=f"T{number}", polygon_ticker=f"X:T{number}USD", asset_type="crypto")
                        for number in range(self.options.assets)
                    ),
                    enqueue_interval_minutes=ENQUEUE_EVERY / 60 / scale,
                ),
                queue=Queue(
                    max_size=max(1000, self.options.assets),
                    retry_delay_seconds=60 / scale,
                    lease_seconds=120 / scale,
                    aging_minutes=30 / scale,
                ),
            ),
            api_key=Secret("sandbox"),
            database=harness.database_at(self.conninfo),
            redis_url=None,
            file=None,
            origins={},
            secrets=(),
        )

    def connect(self) -> Connection:
        return harness.open_database(self.conninfo)

    def scaled(self) -> ExitStack:
        """Divide the package's own durations, too."""
        stack = ExitStack()
        for module, name in DURATIONS:
            stack.enter_context(patch.object(module, name, getattr(module, name) / self.options.scale))
        return stack


@dataclass
class Grant:
    """A slot's use, in monotonic time; `sent` is None until it is released."""

    lane: Lane
    granted: float
    released: float = 0.0
    sent: bool | None = None


@dataclass
class Tally:
    """What one process saw."""

    grants: list[Grant] = field(default_factory=list)
    asking: list[tuple[float, float]] = field(default_factory=list)
    """From wanting a slot to having it, or to hearing that none comes free in time."""
    told_to_wait: list[tuple[float, float]] = field(default_factory=list)
    """When a question for a slot was sent that was not answered with one, and until when to wait."""
    runs: list[tuple[float, float]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    def time_run(self, job: Callable[[], RunResult]) -> RunResult:
        began = time.monotonic()
        result = job()
        self.runs.append((began, time.monotonic()))
        self.statuses[result.status.value] += 1
        return result


class WatchedLimiter(RateLimiter):
    """Writes down when slots were asked for, granted and released."""

    tally: Tally

    def __init__(self, *arguments: Any, lane: Lane, **options: Any) -> None:
        super().__init__(*arguments, lane=lane, **options)
        self._watched_lane = lane
        self._uses: dict[Any, Grant] = {}

    def acquire(self, **options: Any) -> Slot:
        asked = time.monotonic()
        try:
            slot = super().acquire(**options)
        finally:
            self.tally.asking.append((asked, time.monotonic()))
        use = self._uses[slot.token] = Grant(self._watched_lane, time.monotonic())
        self.tally.grants.append(use)
        return slot

    def release(self, slot: Slot, outcome: Outcome, **options: Any) -> bool:
        known = super().release(slot, outcome, **options)
        use = self._uses.pop(slot.token)
        use.released, use.sent = time.monotonic(), outcome is not Outcome.UNSENT
        return known

    def _ask(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        asked = time.monotonic()
        answer = super()._ask(*arguments, **options)
        if answer["verdict"] != "granted":
            self.tally.told_to_wait.append((asked, time.monotonic() + answer["wait_seconds"]))
        return answer


class DistantSandbox(Sandbox):
    """The server at the end of a long line: `seconds` there and back on the average, each way at random."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._seconds = seconds

    def _respond(self, method: str, target: str, authorization: str | None) -> Answer:
        time.sleep(random.uniform(0, self._seconds))
        answer = super()._respond(method, target, authorization)
        time.sleep(random.uniform(0, self._seconds))
        return answer


def begin_run(config: Config, connection: Connection) -> run.Start:
    return run.Start(config, connection, "bench", Stop(KeyboardInterrupt))


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def keep_priority(setting: Setting, tally: Tally, begun: Any) -> None:
    """Start the priority job at each due time, as cron would."""
    config, due = setting.config(), setting.begin
    with setting.connect() as connection:
        while due < setting.end:
            sleep_until(due)
            tally.time_run(lambda: run_priority(begin_run(config, connection)))
            begun.set()
            due += EVERY / setting.options.scale


def keep_draining(setting: Setting, tally: Tally, begun: Any) -> None:
    """Drain, one run after another; with `--drain cron`, one a minute."""
    config, scale = setting.config(), setting.options.scale
    minute = setting.begin
    begun.wait()
    with setting.connect() as connection:
        while time.monotonic() < setting.end:
            seconds = min(DRAIN_SECONDS / scale, setting.end - time.monotonic())
            result = tally.time_run(
                partial(
                    drain.drain_queue,
                    begin_run(config, connection),
                    bounds=drain.Bounds(seconds),
                    shared=False,
                    reconnect=setting.connect,
                )
            )
            if setting.options.drain == "cron":
                while minute <= time.monotonic():
                    minute += MINUTE / scale
                sleep_until(minute)
            elif not result.api_calls_used:
                # Nothing waits, or no call is free before its end: not to spin.
                time.sleep(0.02)


def keep_supplying(setting: Setting, tally: Tally, begun: Any) -> None:  # noqa: ARG001
    """Put all secondary assets back on the queue as soon as they are off; with `--enqueue schedule`, when due."""
    config, options = setting.config(), setting.options
    always, due = options.enqueue == "always", setting.begin - EVERY
    sleep_until(setting.begin)
    with setting.connect() as connection:
        while time.monotonic() < setting.end:
            if queue.size(connection) < options.assets if always else time.monotonic() >= due:
                tally.time_run(
                    lambda: enqueue_secondary(begin_run(config, connection), source="config", due_or_not=always)
                )
                due = max(due, setting.begin) + (0 if always else ENQUEUE_EVERY / options.scale)
            time.sleep(0.01)
        tally.waits = [row["seconds"] for row in connection.execute(WAITS)]


def work(job: Callable[[Setting, Tally, Any], None], setting: Setting, begun: Any, out: Pipe) -> None:
    """Do one process's part, and send what it saw."""
    # Imported by the first call of a process, while it has its slot: part of the start that is left out.
    import_module("assetbatch.provider.transport")

    tally = WatchedLimiter.tally = Tally()
    with setting.scaled(), patch.object(calls, "RateLimiter", WatchedLimiter):
        job(setting, tally, begun)
    out.send(tally)


class Contest:
    """All processes of one batch size."""

    def __init__(self, bench: Bench, batch_size: int, options: argparse.Namespace) -> None:
        self._batch_size = batch_size
        self._options = options
        self._conninfo = bench.create(f"bench_{batch_size}")
        self._sandbox = SandboxProcess(
            DistantSandbox,
            seconds=options.latency / options.scale,
            limit=LIMIT,
            window_seconds=WINDOW / options.scale,
        )

    def start(self, begin: float, end: float) -> None:
        """Start the processes; nothing is called before `begin`."""
        self.setting = Setting(self._conninfo, self._sandbox.url, self._batch_size, begin, end, self._options)
        with harness.open_migrated(self._conninfo) as connection:
            connection.execute(WATCH_QUEUE)
        begun = multiprocessing.Event()
        self._pipes = []
        for job in (keep_priority, keep_draining, keep_supplying):
            mine, others = multiprocessing.Pipe()
            multiprocessing.Process(target=work, args=(job, self.setting, begun, others), daemon=True).start()
            others.close()
            self._pipes.append(mine)

    def report(self) -> str:
        """Wait for the end; return the lines of the report."""
        priority, drains, supply = (pipe.recv() for pipe in self._pipes)
        return "\n".join(report(self.setting, priority, drains, supply, self._sandbox.close()))


def report(
    setting: Setting, priority: Tally, drains: Tally, supply: Tally, arrivals: Sequence[Arrival]
) -> Iterator[str]:
    options, times = setting.options, sorted(arrival.at for arrival in arrivals)
    scale, window = options.scale, WINDOW / options.scale
    refused = sum(arrival.status == 429 for arrival in arrivals)
    over = sum(b - a <= window for a, b in zip(times, times[LIMIT:], strict=False))
    yield (
        f"batch {setting.batch_size}: {len(times)} calls, {refused} refused, {over} windows over the limit;"
        f" run-priority {said(priority)}, drain-queue {said(drains)}, enqueue-secondary {said(supply)}"
    )

    calls = -(-len(PRIORITY) // setting.batch_size)
    if options.enqueue == "always" and options.drain == "always":
        yield (
            f"  used {used(times, window):.1%}; these rules, done without any delay,"
            f" {rules_alone(calls, options):.1%}; no reservation either, {ideal(options):.1%}"
        )
    else:
        yield f"  used {used(times, window):.1%} of what the limit allows"
    yield f"  not used: {', '.join(f'{share:.2%} {what}' for what, share in losses(setting, priority, drains, times))}"

    sent = sorted(one.granted for one in priority.grants if one.sent)
    at_server = sorted(arrival.at for arrival in arrivals if any(name in arrival.path for name in PRIORITY))
    for which, which_of in (("first", 0), ("last", -1)):
        granted, arrived = (
            [scale * (of_run[which_of] - due) for due, of_run in by_due_time(setting, moments)]
            for moments in (sent, at_server)
        )
        yield (
            f"  {which} call of run-priority, from its due time: median {statistics.median(granted):.2f},"
            f" worst {max(granted):.2f} s, {sum(x > GRACE for x in granted)} of {len(granted)} beyond the grace of"
            f" {GRACE:g} s; at the server worst {max(arrived):.2f} s"
        )

    left = LIMIT / (WINDOW + MARGIN + options.latency) - calls / EVERY
    best: float = -(-options.assets // setting.batch_size) / left
    waits = [seconds * scale for seconds in supply.waits] or [0.0]
    yield (
        f"  from enqueue to store: median {statistics.median(waits):.0f}, worst {max(waits):.0f} s"
        f" of {len(waits)}; with calls spread evenly it would be {best:.0f} s"
    )


def by_due_time(setting: Setting, moments: Sequence[float]) -> Iterator[tuple[float, list[float]]]:
    """Yield each due time that was followed by any of these moments, with those before the next one."""
    every = EVERY / setting.options.scale
    due = setting.begin
    while due < setting.end:
        if inside := [moment for moment in moments if due <= moment < due + every]:
            yield due, inside
        due += every


def said(tally: Tally) -> str:
    return " ".join(f"{count} {status}" for status, count in tally.statuses.items()) or "none"


def used(times: Sequence[float], window: float) -> float:
    return (len(times) - LIMIT) * window / (LIMIT * (times[-1] - times[0]))


def ideal(options: argparse.Namespace) -> float:
    """Tell what any safe client can use at most: a slot is busy until a window after its answer."""
    latency: float = options.latency
    return WINDOW / (WINDOW + MARGIN + latency)


def rules_alone(priority_calls: int, options: argparse.Namespace) -> float:
    """Simulate the lanes' rules with clients that lose no time: what the reservation costs is in it."""
    cooldown, tick = WINDOW + MARGIN, 0.01
    slots, times = [0.0] * LIMIT, []
    due, left, flies, queue_flies = 0.0, 0, 0.0, 0.0
    for number in range(round(options.hours * 3600 / tick)):
        now = number * tick
        if now >= due:
            due, left = due + EVERY, priority_calls
        slots.sort()
        if slots[0] > now:
            continue
        if left and flies <= now:
            left -= 1
            flies = now + options.latency
        elif queue_flies <= now:
            runs = left or flies > now
            deadline, keep = (now if runs else due) + GRACE, left if runs else min(priority_calls, LIMIT - 1)
            in_time = sum(at <= deadline for at in slots)
            if now + cooldown + GRACE / 2 > deadline and in_time - 1 < keep:
                continue
            queue_flies = now + options.latency
        else:
            continue
        slots[0] = now + options.latency + cooldown
        times.append(now)
    return used(times, WINDOW)


def losses(setting: Setting, priority: Tally, drains: Tally, times: Sequence[float]) -> list[tuple[str, float]]:
    """Tell what slots did from one call's arrival to the next one's, but for the window itself.

    The grant takes the slot that has been free for longest, so the n-th grant has the slot of the (n - L)-th release.
    """
    scale = setting.options.scale
    cooldown = (WINDOW + MARGIN) / scale
    grants = sorted((one for one in [*priority.grants, *drains.grants] if one.sent), key=lambda one: one.granted)
    releases = sorted(one.released for one in grants)
    flights = [(one.granted, one.released) for one in drains.grants]
    gaps = [(a, b) for (_, a), (b, _) in zip(drains.runs, drains.runs[1:], strict=False)]
    spent: dict[str, float] = defaultdict(float)
    for arrived, released, use, arrives in zip(times, releases, grants[LIMIT:], times[LIMIT:], strict=False):
        free = released + cooldown
        spent["margin"] += MARGIN / scale
        spent["from the server to the slot's stamp"] += released - arrived
        spent["from the grant to the server"] += arrives - use.granted
        # Who is told to wait for longer than until the slot is free hears of the reservation.
        told = next(
            (max(at, free) for at, until in drains.told_to_wait if until > free + WAKING / scale and at < use.granted),
            use.granted,
        )
        if use.lane is Lane.PRIORITY:
            spent["kept for run-priority"] += use.granted - free
            continue
        spent["kept for run-priority"] += use.granted - told
        idle = told - free
        parts = {
            "another call in flight": overlap(flights, free, told),
            "asleep, or asking": overlap(drains.asking, free, told),
            "between two drains": overlap(gaps, free, told),
        }
        for what, seconds in parts.items():
            spent[what] += seconds
        spent["the drain's other work"] += idle - sum(parts.values())
    whole = sum(b - a for a, b in zip(times, times[LIMIT:], strict=False))
    return [(what, seconds / whole) for what, seconds in spent.items()]


def overlap(spans: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(b, end) - max(a, begin)) for a, b in spans)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="of the real schedule")
    parser.add_argument(
        "--scale", type=float, default=10.0, help="how much faster; beyond 10, the limiter's shortest sleep tells"
    )
    parser.add_argument("--batch-size", type=int, action="append", help="may be given several times; else 250 and 1")
    parser.add_argument("--assets", type=int, default=40, help="secondary ones")
    parser.add_argument("--latency", type=float, default=0.3, help="mean seconds to the server and back, in real time")
    parser.add_argument("--drain", choices=["always", "cron"], default="always", help="cron: one a minute")
    parser.add_argument("--enqueue", choices=["always", "schedule"], default="always", help="schedule: every 30 min")
    options = parser.parse_args()
    sizes = options.batch_size or [250, 1]

    with Bench.start() as bench:
        contests = [Contest(bench, size, options) for size in sizes]
        every = EVERY / options.scale
        # Due times are multiples of the interval since the epoch.
        first = ((time.time() + 5) // every + 1) * every
        begin = first - time.time() + time.monotonic()
        for contest in contests:
            contest.start(begin, begin + options.hours * 3600 / options.scale)
        print(
            f"{LIMIT} calls in any {WINDOW:g} s, margin {MARGIN:g} s, {options.latency:g} s there and back;"
            f" {options.assets} assets on the queue; {options.hours:g} h at {options.scale:g} times the pace",
            flush=True,
        )
        for contest in contests:
            print(contest.report(), flush=True)
        print("load of the machine at the end, over 1, 5 and 15 minutes: {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
