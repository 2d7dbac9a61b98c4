"""Alerts: what is wrong, and what mends it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import market_hours, planner
from assetbatch.errors import KINDS, FailureKind
from assetbatch.model import Access
from assetbatch.planner import Mode
from assetbatch.report import job_alerts
from assetbatch.report.freshness import DAY_PATIENCE, Freshness, oldest_fresh
from assetbatch.report.health import Alert, Level
from assetbatch.report.job_alerts import minutes
from assetbatch.report.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Row
    from assetbatch.database.overview import Overview
    from assetbatch.report.figures import Budget
    from assetbatch.report.freshness import Outlook
    from assetbatch.report.status import AssetStatus

# Events are published at the end of the run that made them: what waits for longer has no carrier.
EVENTS_PENDING_AT_MOST = timedelta(minutes=5)
# One that fails from the first run on has no age that could grow beyond a limit.
NEVER_UPDATED = {Freshness.NEVER, Freshness.FAILING}


def all_alerts(
    config: Config,
    overview: Overview,
    *,
    outlook: Outlook,
    assets: Sequence[AssetStatus],
    budget: Budget,
    metrics: Mapping[str, float | None],
    source: str | None,
) -> tuple[Alert, ...]:
    """Find everything that is wrong, the worst first, and causes before their consequences.

    `source` names whose prices the database has; None: nobody's yet.
    """
    found = [
        *job_alerts.of_source(config, source),
        *job_alerts.of_key(overview),
        *job_alerts.of_priority_runs(config, overview),
        *job_alerts.of_other_runs(config, overview),
        *_of_plan(config, overview, outlook, assets),
        *_of_ages(outlook, assets),
        *_of_assets(config, assets, overview),
        *_of_limit(overview, budget),
        *_of_queue(config, overview, metrics),
        *_of_events(overview),
        *_of_thresholds(config, metrics, overview),
    ]
    return tuple(sorted(found, key=lambda alert: alert.level, reverse=True))


def _of_thresholds(config: Config, metrics: Mapping[str, float | None], overview: Overview) -> Iterator[Alert]:
    limits = config.settings.alerts

    def beyond(metric: str, threshold: float, message: str, hint: str, *, at_least: bool = False) -> Iterator[Alert]:
        value = metrics[metric]
        if value is not None and (value < threshold if at_least else value > threshold):
            yield Alert(Level.WARNING, metric, message.format(value), hint, value, threshold)

    yield from beyond(
        "batch.priority.success_rate",
        limits.priority_success_rate_min,
        "{:.0%} of the priority runs of the last hour went well",
        f"the last that did not: {overview.job('run-priority')['last_error'] or 'it was killed'}",
        at_least=True,
    )
    yield from beyond(
        "batch.priority.latency_ms",
        limits.priority_latency_ms_max,
        "priority runs take {:.0f} ms",
        "is the API slow, or the budget used up?",
    )
    yield from beyond(
        "api.rate_limit_waits",
        limits.rate_limit_waits_per_hour_max,
        "priority calls had to wait or were refused {} times in the last hour",
        "does another program use this key?",
    )


def _of_plan(config: Config, overview: Overview, outlook: Outlook, assets: Sequence[AssetStatus]) -> Iterator[Alert]:
    """Hold the word of the plan against what the key was refused, as far as that matters now."""
    refused = {access for access, found in overview.entitlements.items() if not found.allowed}
    refused = planner.contradictions(refused, config.plan, config.settings.provider.mode, outlook.mode)
    if not refused:
        return
    days = [one.day for one in assets if one.day]
    message = f"plan says {config.plan}, the key is refused {', '.join(sorted(refused))}"
    if Access.SNAPSHOTS in refused:
        message += f": prices are of {max(days)}" if days else ": no price of a finished day is stored"
    hint = "lapsed payment? `assetbatch probe` asks again at once"
    yield Alert(Level.CRITICAL, "api.plan", message, hint)


def _of_ages(outlook: Outlook, assets: Sequence[AssetStatus]) -> Iterator[Alert]:
    for one in assets:
        # Where an asset is updated more seldom than the job runs, it may be as old as that makes it.
        old = max(3 * outlook.interval, oldest_fresh(one.asset.update_frequency_seconds, outlook.interval))
        if one.state is Freshness.CLOSED or one.market_age is None:
            continue
        if outlook.mode is Mode.END_OF_DAY:
            # Whatever the cause: an asset whose calls fail is called failing, and may lack the day all the same.
            expected = outlook.overdue_day(one.asset.asset_type)
            if expected is not None and (one.day is None or one.day < expected):
                late = outlook.now - market_hours.day_over_at(expected)
                yield Alert(
                    Level.CRITICAL,
                    f"assets.{one.asset.symbol}",
                    f"{one.asset.symbol} has no price of {expected}, {_hours(late)} hours after there could be one",
                    one.error or "see the last run",
                    round(late.total_seconds()),
                    DAY_PATIENCE.total_seconds(),
                )
        elif one.market_age > old:
            yield Alert(
                Level.CRITICAL,
                f"assets.{one.asset.symbol}",
                f"{one.asset.symbol} is {minutes(one.market_age)} minutes of market time old",
                one.error or "see the last run",
                round(one.market_age.total_seconds()),
                old.total_seconds(),
            )


def _of_assets(config: Config, assets: Sequence[AssetStatus], overview: Overview) -> Iterator[Alert]:
    if not_entitled := [one.asset.symbol for one in assets if one.state is Freshness.NOT_ENTITLED]:
        message = f"plan says {config.plan}, the key is refused {', '.join(not_entitled)}"
        hint = f"see {config.settings.provider.upgrade_url}" if config.plan == "free" else "lapsed payment?"
        yield Alert(Level.CRITICAL, "api.plan", message, hint)
    never = [one.asset.symbol for one in assets if one.last_sync is None and one.state in NEVER_UPDATED]
    last_run = overview.job("run-priority")["last_run"]
    if never and last_run is not None and overview.job("run-priority")["runs"] > 1:
        message = f"{', '.join(never)}: never updated, though run-priority runs"
        yield Alert(Level.CRITICAL, "assets.never", message, "is it killed? `assetbatch -v run-priority` tells more")
    causes: dict[tuple[FailureKind, str], list[str]] = {}
    for one in assets:
        if one.state is Freshness.FAILING and one.error_kind is not None:
            causes.setdefault((one.error_kind, one.error), []).append(one.asset.symbol)
    for (kind, error), symbols in causes.items():
        message = f"{', '.join(symbols)} failed: {error}"
        yield Alert(Level.WARNING, "assets.failing", message, KINDS[kind].hint, len(symbols), 0)


def _of_limit(overview: Overview, budget: Budget) -> Iterator[Alert]:
    if refusals := budget.refusals_last_hour:
        yield Alert(
            Level.WARNING,
            "api.refusals",
            f"the API refused {counted(refusals, 'call')} as too many in the last hour",
            "another program uses this key, or the server counts otherwise: lower rate_limiting.calls_per_minute",
            refusals,
            0,
        )
    if overview.disagreeing_hosts:
        yield Alert(
            Level.WARNING,
            "api.hosts_disagree",
            f"hosts have different limits, the strictest holds: {limits_of(overview.disagreeing_hosts)}",
            "make their config.yaml the same",
        )


def limits_of(hosts: Iterable[Row]) -> str:
    """Name hosts with their limits."""
    return ", ".join(f"{row['host']} {row['max_calls'] or 'unlimited'} in {row['window_seconds']:g} s" for row in hosts)


def _of_queue(config: Config, overview: Overview, metrics: Mapping[str, float | None]) -> Iterator[Alert]:
    size, most = metrics["queue.size"] or 0, config.settings.alerts.queue_size_max
    # A queue that drains is no trouble.
    if size > most and (overview.queue_size_before or 0) > most:
        yield Alert(
            Level.WARNING,
            "queue.size",
            f"{size:.0f} items wait in the queue, for more than an interval",
            "does drain-queue run, and is the budget of calls large enough?",
            size,
            most,
        )
    dead = sum(row["items"] for row in overview.queue if row["state"] == "dead")
    died_at = max((row["died_at"] for row in overview.queue if row["died_at"]), default=None)
    if died_at is not None and overview.now - died_at < timedelta(days=1):
        message = f"{counted(dead, 'dead letter')} in the queue, the last one within a day"
        yield Alert(Level.WARNING, "queue.dead", message, "`assetbatch queue list --state dead` says why", dead, 0)


def _of_events(overview: Overview) -> Iterator[Alert]:
    oldest, pending = overview.hour["oldest_event_at"], overview.hour["events_pending"]
    if oldest is not None and overview.now - oldest > EVENTS_PENDING_AT_MOST:
        yield Alert(
            Level.WARNING,
            "events.pending",
            f"{counted(pending, 'event')} waiting for more than 5 minutes",
            "is Redis running, and do jobs run?",
            pending,
            0,
        )


def _hours(age: timedelta) -> str:
    return f"{age.total_seconds() / 3600:.0f}"
