"""`run-priority`: the priority assets, in order, before anything else may spend the budget."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database import catalogue, schema
from assetbatch.database.leases import LEASE_SECONDS
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import FailureKind
from assetbatch.jobs.cycle import Cycle
from assetbatch.jobs.run import exit_code, give_way, new_client, no_live_prices, perform, rules_of
from assetbatch.model import RunResult, RunStatus
from assetbatch.provider.addresses import source_of

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.rate_limit import RateLimiter
    from assetbatch.jobs.clock import Clock, Stop
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.update import Trip

log = logging.getLogger(__name__)

JOB = "run-priority"


def run_priority(
    config: Config, connection: Connection, *, host: str, stop: Stop, started_at: datetime | None = None
) -> RunResult:
    """Update the priority assets that are due; store and announce what came.

    `started_at` stands for the database's time where time is simulated. Failures of assets are in the result. Raises
    ConfigurationError without a key, SourceMismatchError on a database of another source.
    """
    api_key = config.require_api_key().reveal()
    return perform(
        JOB,
        config,
        connection,
        lambda run: _update(run, api_key),
        host=host,
        stop=stop,
        # Renewed before each call: it must not run out while one is on its way.
        lease_seconds=max(LEASE_SECONDS, rules_of(config).hold_seconds),
        max_seconds=config.settings.batch.max_cycle_seconds,
        started_at=started_at,
    )


def _update(run: Run, api_key: str) -> RunResult:
    config, clock, settings = run.config, run.clock, run.config.settings
    assets = config.priority_assets
    states = catalogue.sync_states(run.connection, [asset.symbol for asset in assets])
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
    if plan.calls:
        schema.claim_source(run.connection, source_of(settings.provider.base_url))
    catalogue.sync_with_config(run.connection, config.assets)

    def pause(seconds: float) -> None:
        assert run.lease is not None  # noqa: S101 - this job runs alone
        run.lease.keep()
        run.stop.pause(seconds)

    road = run.road(api_key, Lane.PRIORITY, pause)
    client = new_client(config, api_key)
    if plan.calls:
        client.warm_up()
    cycle = Cycle(
        road,
        client,
        no_call_after=time.monotonic() + settings.batch.max_cycle_seconds,
        max_calls=None if config.calls_per_window is None else len(assets),
    )
    cycle.make(plan.calls)
    cycle.fail(plan.not_entitled, FailureKind.NOT_ENTITLED, no_live_prices(config))
    _foresee(config, road.limiter, mode, clock)
    return _result(run, plan, road.trip, give_way(config, run.connection, road.trip.unforeseen))


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


def _result(run: Run, plan: planner.Plan, trip: Trip, warnings: tuple[str, ...]) -> RunResult:
    failed = tuple(trip.failed)
    stored = [*trip.updated, *trip.unchanged]
    return RunResult(
        job=JOB,
        run_id=run.id,
        status=RunStatus.OK if not failed else RunStatus.PARTIAL if stored else RunStatus.FAILED,
        exit_code=exit_code([failure.kind for failure in failed], anything_stored=bool(stored)),
        started_at=run.clock.started_at,
        finished_at=run.clock.now(),
        updated=tuple(trip.updated),
        unchanged=(*trip.unchanged, *(asset.symbol for asset in plan.unchanged)),
        not_due=tuple(asset.symbol for asset in plan.not_due),
        failed=failed,
        api_calls_used=trip.calls_used,
        rate_limit_waits=trip.long_waits + trip.refusals,
        waited_seconds=round(trip.waited_seconds, 3),
        warnings=warnings,
    )
