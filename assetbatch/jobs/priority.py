"""`run-priority`: the priority assets, in order, before anything else may spend the budget."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import __version__, events, planner
from assetbatch.database import catalogue, runs, schema
from assetbatch.database.leases import LEASE_SECONDS, Lease
from assetbatch.database.rate_limit import Lane, RateLimiter, Rules, key_fingerprint
from assetbatch.errors import EXIT_KEY_REFUSED, EXIT_PARTIAL, EXIT_UNAVAILABLE, KINDS, FailureKind
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.update import Road, Trip
from assetbatch.model import RunResult, RunStatus
from assetbatch.provider.addresses import source_of
from assetbatch.provider.client import Client

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.jobs.clock import Stop
    from assetbatch.model import Failure

log = logging.getLogger(__name__)

JOB = "run-priority"
# A run that finds another of its job going waits this long for it.
LEASE_PATIENCE_SECONDS = 10.0
LEASE_POLL_SECONDS = 0.25


def run_priority(
    config: Config, connection: Connection, *, host: str, stop: Stop, started_at: datetime | None = None
) -> RunResult:
    """Update the priority assets that are due; store and announce what came.

    `started_at` stands for the database's time where time is simulated. Failures of assets are in the result. Raises
    ConfigurationError without a key, SourceMismatchError on a database of another source.
    """
    api_key = config.require_api_key().reveal()
    run_id, began_at = runs.begin(
        connection,
        job=JOB,
        host=host,
        version=__version__,
        plan=config.plan,
        calls_per_window=config.calls_per_window,
        started_at=started_at,
    )
    clock = Clock(began_at)
    rules = rules_of(config)
    # Renewed before each call: it must not run out while one is on its way.
    lease = Lease(connection, JOB, seconds=max(LEASE_SECONDS, rules.hold_seconds))

    def pause(seconds: float) -> None:
        lease.keep()
        stop.pause(seconds)

    try:
        if _take(lease, stop):
            limiter = RateLimiter(
                connection,
                key=key_fingerprint(api_key),
                host=host,
                rules=rules,
                lane=Lane.PRIORITY,
                pause=pause,
            )
            result = _update(config, connection, api_key, limiter, clock=clock, stop=stop, run_id=run_id, lease=lease)
        else:
            log.info("another %s is still going", JOB)
            result = RunResult(JOB, run_id, RunStatus.SKIPPED, 0, began_at, clock.now())
        runs.finish(connection, result)
        events.publish_pending(config, connection)
    except BaseException as error:
        runs.abandon(connection, run_id, error)
        raise
    finally:
        lease.give_up()
    return result


def _take(lease: Lease, stop: Stop) -> bool:
    end = time.monotonic() + LEASE_PATIENCE_SECONDS
    while not lease.take():
        if time.monotonic() > end:
            return False
        stop.pause(LEASE_POLL_SECONDS)
    return True


def _update(
    config: Config,
    connection: Connection,
    api_key: str,
    limiter: RateLimiter,
    *,
    clock: Clock,
    stop: Stop,
    run_id: int,
    lease: Lease,
) -> RunResult:
    settings = config.settings
    assets = config.priority_assets
    states = catalogue.sync_states(connection, [asset.symbol for asset in assets])
    mode = planner.mode(config.plan, settings.provider.mode)
    plan = planner.plan(
        [planner.Candidate(asset, states[asset.symbol].served_at) for asset in assets],
        mode=mode,
        batch_size=settings.provider.batch_size,
        now=clock.started_at,
    )
    log.info(
        "assets due: %d; calls planned on plan %s (%s): %d",
        len(assets) - len(plan.not_due),
        config.plan,
        mode,
        len(plan.calls),
    )
    client = Client(
        base_url=settings.provider.base_url,
        api_key=api_key,
        connect_timeout_seconds=settings.provider.connect_timeout_seconds,
        timeout_seconds=settings.provider.timeout_seconds,
    )
    if plan.calls:
        schema.claim_source(connection, source_of(settings.provider.base_url))
    catalogue.sync_with_config(connection, [*assets, *config.secondary_assets])
    road = Road(
        connection=connection,
        limiter=limiter,
        client=client,
        clock=clock,
        stop=stop,
        lease=lease,
        run_id=run_id,
        no_call_after=time.monotonic() + settings.batch.max_cycle_seconds,
        long_wait_seconds=settings.rate_limiting.reservation_grace_seconds,
        max_calls=None if config.calls_per_window is None else len(assets),
    )
    trip = road.travel(plan.calls)
    if plan.not_entitled:
        road.fail(plan.not_entitled, FailureKind.NOT_ENTITLED, _no_live_prices(config))
    _foresee(config, limiter, mode, clock)
    warnings = (_give_way(trip, config, runs.refusals_in_last_hour(connection)),) if trip.unforeseen else ()
    return _result(plan, trip, run_id, clock, warnings)


def rules_of(config: Config) -> Rules:
    """Tell the limit that the configuration asks for."""
    provider, limits = config.settings.provider, config.settings.rate_limiting
    return Rules(
        max_calls=config.calls_per_window,
        window_seconds=limits.window_seconds,
        margin_seconds=limits.margin_seconds,
        min_spacing_seconds=limits.min_spacing_seconds,
        max_calls_per_second=provider.max_calls_per_second,
        request_seconds=provider.connect_timeout_seconds + provider.timeout_seconds,
    )


def _foresee(config: Config, limiter: RateLimiter, mode: planner.Mode, clock: Clock) -> None:
    """Keep slots for the next run: other work leaves it those that it is going to need."""
    batch = config.settings.batch
    every = timedelta(minutes=batch.interval_minutes)
    due = planner.next_due(clock.started_at, every)
    calls = planner.foresee(
        config.priority_assets,
        mode=mode,
        batch_size=config.settings.provider.batch_size,
        due=due,
        now=clock.started_at,
    )
    limiter.foresee(
        calls=calls,
        due=due,
        every_seconds=every.total_seconds(),
        grace_seconds=config.settings.rate_limiting.reservation_grace_seconds,
    )


def _give_way(trip: Trip, config: Config, refusals: int) -> str:
    ours, limit = min(trip.unforeseen), config.calls_per_window
    return (
        f"refused with {ours}{'' if limit is None else f' of {limit}'} calls of ours in the window,"
        f" {'once' if refusals == 1 else f'{refusals} times'} in the last hour: another program uses this key,"
        f" or the server counts otherwise. Give way: rate_limiting.calls_per_minute: {max(1, ours)}"
    )


def _no_live_prices(config: Config) -> str:
    provider = config.settings.provider
    return (
        f"plan {config.plan} has no live prices, and end-of-day prices are not fetched yet by this version:"
        f" set provider.plan (POLYGON_TIER) to the plan that you pay for ({provider.upgrade_url}),"
        " or try everything with `assetbatch sandbox`"
    )


def _result(plan: planner.Plan, trip: Trip, run_id: int, clock: Clock, warnings: tuple[str, ...]) -> RunResult:
    failed = tuple(trip.failed)
    stored = [*trip.updated, *trip.unchanged]
    return RunResult(
        job=JOB,
        run_id=run_id,
        status=RunStatus.OK if not failed else RunStatus.PARTIAL if stored else RunStatus.FAILED,
        exit_code=exit_code(failed, anything_stored=bool(stored)),
        started_at=clock.started_at,
        finished_at=clock.now(),
        updated=tuple(trip.updated),
        unchanged=(*trip.unchanged, *(asset.symbol for asset in plan.unchanged)),
        not_due=tuple(asset.symbol for asset in plan.not_due),
        failed=failed,
        api_calls_used=trip.calls_used,
        rate_limit_waits=trip.long_waits + trip.refusals,
        waited_seconds=round(trip.waited_seconds, 3),
        warnings=warnings,
    )


def exit_code(failed: Sequence[Failure], *, anything_stored: bool) -> int:
    """Tell how a run ends that had these failures."""
    if not failed:
        return 0
    if any(failure.kind is FailureKind.KEY_REFUSED for failure in failed):
        return EXIT_KEY_REFUSED
    if not anything_stored and all(KINDS[failure.kind].outage for failure in failed):
        return EXIT_UNAVAILABLE
    return EXIT_PARTIAL
