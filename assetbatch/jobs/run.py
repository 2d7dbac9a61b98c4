"""What every run of a job has in common: its record, its lease, its clock, and the events at its end."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from assetbatch import __version__
from assetbatch.boottime import boot_time
from assetbatch.database import ahead, retention, runs
from assetbatch.database.entitlements import Remembered
from assetbatch.database.leases import LEASE_SECONDS, Lease, dead_runs, release
from assetbatch.database.prices import Stored
from assetbatch.database.rate_limit import Rules, key_of, rules_of
from assetbatch.database.retries import in_transaction
from assetbatch.database.setup import platform, schema
from assetbatch.errors import EXIT_KEY_REFUSED, EXIT_PARTIAL, EXIT_UNAVAILABLE
from assetbatch.events import Announcer
from assetbatch.failures import POLICIES, FailureKind
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.model import RunResult, RunStatus
from assetbatch.plans import FREE
from assetbatch.provider.addresses import source_of
from assetbatch.schedule import JOBS
from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.database.setup.platform import RoleView
    from assetbatch.jobs.clock import Stop
    from assetbatch.model import AssetType, Failure

log = logging.getLogger(__name__)

# A run that finds another of its job going waits this long for it.
LEASE_PATIENCE_SECONDS = 10.0
LEASE_POLL_SECONDS = 0.25


class Start(Struct, frozen=True):
    """What a run begins with. `started_at` stands for the database's time where time is simulated."""

    config: Config
    connection: Connection
    host: str
    stop: Stop
    started_at: datetime | None = None


class Cost(Struct):
    """What the calls of a run cost; grows as it goes."""

    calls_used: int = 0
    slots_used: int = 0
    """Those of them that are limited."""
    refusals: int = 0
    long_waits: int = 0
    waited_seconds: float = 0.0
    unforeseen: list[int] = field(default_factory=list)
    """For each refusal that our own calls do not explain: how many of them were in the window."""


class Run(Struct, frozen=True):
    """One run of a job under way. `lease` is None where runs of the job may go on side by side."""

    job: str
    id: int
    config: Config
    connection: Connection
    host: str
    clock: Clock
    stop: Stop
    lease: Lease | None
    announcer: Announcer
    entitlements: Entitlements
    """What it may ask for."""
    source: str | None
    """Whose prices the database had when the run began; None: nobody's yet."""
    platform: RoleView
    """What the role could see of the platform's tables then."""
    rules: Rules
    """The limit that its calls keep."""
    cost: Cost = field(default_factory=Cost)
    """What its calls cost so far."""
    stored: Stored = field(default_factory=Stored)
    """What became of its assets so far."""
    leaves: list[Query[int]] = field(default_factory=list)
    """What is written together with how the run ended."""

    def claim_source(self) -> None:
        """Let the database be of the configured source. Raises SourceMismatchError where it is of another."""
        source = source_of(self.config.settings.provider.base_url)
        if self.source != source:
            schema.claim_source(self.connection, source)

    def result(
        self,
        failures: Sequence[FailureKind] = (),
        *,
        anything_stored: bool = False,
        warnings: Iterable[str] = (),
        **of_job: Any,
    ) -> RunResult:
        """Return how the run ends with these failures, what its calls cost, and what is `of_job` alone."""
        cost = self.cost
        return RunResult(
            job=self.job,
            run_id=self.id,
            status=RunStatus.OK if not failures else RunStatus.PARTIAL if anything_stored else RunStatus.FAILED,
            exit_code=exit_code(failures, anything_stored=anything_stored),
            started_at=self.clock.started_at,
            finished_at=self.clock.now(),
            api_calls_used=cost.calls_used,
            rate_limit_waits=cost.long_waits + cost.refusals,
            waited_seconds=round(cost.waited_seconds, 3),
            warnings=(*_give_way(self.rules, self.connection, cost), *warnings),
            **of_job,
        )

    def platform_warnings(self) -> tuple[str, ...]:
        """Return what in the platform's tables kept this run from storing something, or looked wrong."""
        return (*self._statuses_lost(), *self._found_odd())

    def _statuses_lost(self) -> tuple[str, ...]:
        seen, lost = self.platform, self.stored.statuses_lost
        if seen.blind_spot is not None:
            return (f"{seen.blind_spot}. Next: {seen.mend}",)
        what = "data_sources.data_sync_status was not written"
        return (f"{what} for {lost} assets: a trigger or a rule keeps its rows out",) if lost else ()

    def _found_odd(self) -> Iterator[str]:
        stored = self.stored
        if stored.locked:
            names = named(sorted(set(stored.locked)))
            yield (
                f"not stored, since another transaction keeps the rows locked: {names}. The next run tries again;"
                " pg_stat_activity shows who holds them"
            )
        if stored.from_future:
            names = named(sorted(set(stored.from_future)))
            yield f"last_update had a time in the future, which another program wrote, and gave way: {names}"


def skipped(run: Run) -> RunResult:
    """Return how a run ends that has left the work to another one: that is no failure."""
    return replace(run.result(), status=RunStatus.SKIPPED)


def perform(
    job: str,
    start: Start,
    work: Callable[[Run], RunResult],
    *,
    max_seconds: float,
    lease_seconds: float | None = None,
    patience_seconds: float = LEASE_PATIENCE_SECONDS,
    turned_away: Callable[[Run], RunResult] = skipped,
    needs: Sequence[Query[Any]] = (),
    types: Collection[AssetType] = (),
    looks_at_queue: bool = False,
) -> RunResult:
    """Do a job's work as one run: alone for `lease_seconds` from each renewal, None: side by side with others.

    `max_seconds` is the job's own limit. A run that finds another one going waits for it, `patience_seconds` at most;
    then `turned_away` tells how it ends. What the work `needs` to know is asked as the run begins, and once more if it
    had to wait. `types` are those that it may ask for though there are no assets of them. `looks_at_queue`: the result
    tells how many items wait at the end.
    """
    config, connection, stop = start.config, start.connection, start.stop
    hold_seconds = rules_of(config, ()).hold_seconds
    begin = runs.begin(
        job=job,
        host=start.host,
        version=__version__,
        plan=config.plan_words,
        calls_per_window=config.calls_per_window(config.types),
        longest_seconds=max_seconds + hold_seconds + patience_seconds,
        started_at=start.started_at,
        lease_seconds=lease_seconds,
    )
    dead, source, seen, asked_at = dead_runs(), schema.source(), platform.role_view(), boot_time()
    remembered = Remembered(key=key_of(config) or "", plans=config.plans, now=start.started_at)
    needs = (*remembered.queries, *needs)
    connection.ask(begin, dead, source, seen, *needs)
    begun, clock = begin.answer, Clock(begin.answer.started_at)
    lease = None if lease_seconds is None else Lease(connection, job, seconds=lease_seconds, holder=begun.token)
    if lease is not None and begun.has_lease:
        lease.granted(asked_at)
    announcer = Announcer(config, connection, run_id=begun.run_id)
    entitlements = Entitlements(connection, config, clock, run_id=begun.run_id, remembered=remembered)
    run = Run(
        job=job,
        id=begun.run_id,
        config=config,
        connection=connection,
        host=start.host,
        clock=clock,
        stop=stop,
        lease=lease,
        announcer=announcer,
        entitlements=entitlements,
        source=source.answer,
        platform=seen.answer,
        rules=rules_of(config, entitlements.types.union(types)),
    )
    try:
        if begun.is_ahead:
            in_transaction(connection, lambda: ahead.set_back(connection))
        # What those held that were killed here is free from the beginning: some of it is only looked at, never waited
        # for.
        has_changed = release(connection, dead.answer) or begun.is_ahead
        is_its_turn = lease is None or begun.has_lease
        if not is_its_turn and lease is not None:
            has_changed = is_its_turn = _take(lease, job, stop, patience_seconds)
        if has_changed:
            connection.ask(*needs)
        result = work(run) if is_its_turn else turned_away(run)
        if begun.is_ahead:
            result = replace(result, warnings=(ahead.TOLD, *result.warnings))
        remaining = runs.note_remaining(run.id) if looks_at_queue and is_its_turn else None
        opening, pruning = announcer.opening(), retention.turn(connection)
        prunes = pruning.taking()
        may_prune = (
            job in JOBS and JOBS[job].prunes and result.status is not RunStatus.SKIPPED and start.started_at is None
        )
        connection.ask(
            runs.finish(result),
            *([] if remaining is None else [remaining]),
            *([] if lease is None else [lease.giving_up()]),
            *([] if opening is None else opening.queries),
            *([prunes] if may_prune else []),
            *run.leaves,
        )
        if remaining is not None:
            result = replace(result, remaining=remaining.answer)
        announcer.announce(at_once=True, opening=opening)
        if may_prune and prunes.answer:
            settings = config.settings
            changes_days = settings.bars.changes_retention_days
            retention.prune(connection, pruning, days=settings.retention_days, bar_changes_days=changes_days)
    except BaseException as error:
        runs.abandon(connection, begun.run_id, error)
        raise
    finally:
        if lease is not None:
            lease.give_up()
    return result


def _take(lease: Lease, job: str, stop: Stop, patience_seconds: float) -> bool:
    end = time.monotonic() + patience_seconds
    waits = False
    while not lease.take():
        left = end - time.monotonic()
        if left <= 0:
            log.info("another %s is still going", job)
            return False
        if not waits:
            who = f" ({holder})" if (holder := lease.holder()) else ""
            log.info("another %s%s is going on: waiting up to %.0f s", job, who, left, extra={"counts_down": True})
        waits = True
        stop.pause(min(LEASE_POLL_SECONDS, left))
    if waits:
        log.info("the other %s has ended", job)
    return True


def renewal_seconds(config: Config) -> float:
    """Return for how long a run that makes calls has its job alone: renewed before each, it outlasts any of them."""
    return max(LEASE_SECONDS, rules_of(config, ()).hold_seconds)


def _give_way(rules: Rules, connection: Connection, cost: Cost) -> tuple[str, ...]:
    """Warn of refusals that our own calls do not explain."""
    limit = rules.max_calls
    if not (cost.unforeseen or (limit is None and cost.refusals)):
        return ()
    refusals = runs.refusals_in_last_hour(connection)
    often = "once" if refusals == 1 else f"{refusals} times"
    if limit is None:
        words = (
            f"the configuration says unlimited, the server counts all the same: it refused {often} in the last hour."
            " Calls are spaced for an hour. Check provider.plan, or set rate_limiting.calls_per_minute"
            f" ({FREE.calls_per_minute} on the free plan)"
        )
        return (words,)
    ours = min(cost.unforeseen)
    words = (
        f"refused with {ours} of {limit} calls of ours in the window,"
        f" {often} in the last hour: another program uses this key,"
        f" or the server counts otherwise. Give way: rate_limiting.calls_per_minute: {max(1, ours)}"
    )
    return (words,)


def unknown_tickers(failures: Sequence[Failure]) -> tuple[str, ...]:
    """Return a warning of tickers that the vendor does not know, if there are any."""
    if not failures:
        return ()
    names = named([one.symbol for one in failures])
    return (f"the vendor does not know {names}: {failures[0].error}. Check polygon_ticker",)


def exit_code(kinds: Sequence[FailureKind], *, anything_stored: bool) -> int:
    """Return how a run ends that had these failures; an item that goes back on the queue is none."""
    if not kinds:
        return 0
    if FailureKind.KEY_REFUSED in kinds:
        return EXIT_KEY_REFUSED
    if not anything_stored and all(POLICIES[kind].outage for kind in kinds):
        return EXIT_UNAVAILABLE
    return EXIT_PARTIAL
