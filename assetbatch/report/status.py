"""`status` as one value: what the database says, held against what the configuration expects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from assetbatch import planner
from assetbatch.database.catalogue import SyncState
from assetbatch.errors import EXIT_KEY_REFUSED, FailureKind
from assetbatch.report.alerts import Alert, Health, Level, worst
from assetbatch.report.freshness import Freshness, freshness, market_age

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.overview import Overview
    from assetbatch.model import Asset

JOBS = {"run-priority": "Priority assets"}


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """One asset: its newest price (the vendor's digits), when the market made it, when it was last asked for."""

    asset: Asset
    state: Freshness
    last_price: str | None
    daily_open: str | None
    data_timestamp: str | None
    last_sync: datetime | None
    market_age: timedelta | None
    error: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job: its last run, the next that is expected, and the last 24 hours."""

    id: str
    name: str
    last_run: datetime | None
    last_status: str | None
    next_run: datetime
    day: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """The calls of this moment; `limit` None means unlimited. `next_free_at` is set when no call is free now."""

    limit: int | None
    window_seconds: float
    remaining: int | None
    next_free_at: datetime | None
    calls_last_hour: int
    refusals_last_hour: int


@dataclass(frozen=True, slots=True)
class Status:
    """All that `status` tells."""

    now: datetime
    database: str
    source: str
    alerts: tuple[Alert, ...]
    jobs: tuple[JobStatus, ...]
    assets: tuple[AssetStatus, ...]
    budget: Budget
    metrics: Mapping[str, float | int | None]
    events_pending: int

    @property
    def health(self) -> Health:
        """The worst of all alerts decides."""
        return worst(self.alerts)

    @property
    def last_priority_update(self) -> datetime | None:
        """When a priority asset was last updated."""
        return max((one.last_sync for one in self.assets if one.last_sync), default=None)


def build(config: Config, overview: Overview, states: Mapping[str, SyncState], *, source: str) -> Status:
    """Put together what was read; pure, so that text, JSON and exit code tell the same."""
    interval = timedelta(minutes=config.settings.batch.interval_minutes)
    assets = tuple(
        _asset_status(asset, states.get(asset.symbol, SyncState()), overview, interval)
        for asset in config.priority_assets
    )
    budget = _budget(config, overview)
    metrics = _metrics(overview, assets, budget)
    alerts = [
        *_threshold_alerts(config, metrics),
        *_run_alerts(config, overview, interval),
        *_asset_alerts(assets, interval),
        *_limit_alerts(overview, budget),
    ]
    return Status(
        now=overview.now,
        database=config.database.described,
        source=source,
        alerts=tuple(sorted(alerts, key=lambda alert: alert.level, reverse=True)),
        jobs=tuple(_job_status(row, overview.now, interval) for row in overview.jobs),
        assets=assets,
        budget=budget,
        metrics=metrics,
        events_pending=overview.hour["events_pending"],
    )


def _asset_status(asset: Asset, state: SyncState, overview: Overview, interval: timedelta) -> AssetStatus:
    price = overview.prices.get(asset.symbol, {})
    return AssetStatus(
        asset=asset,
        state=freshness(asset, state, interval=interval, now=overview.now),
        last_price=price.get("last_price"),
        daily_open=price.get("daily_open"),
        data_timestamp=price.get("data_timestamp"),
        last_sync=state.succeeded_at,
        market_age=market_age(asset, state, overview.now),
        error=state.error,
    )


def _job_status(row: Mapping[str, Any], now: datetime, interval: timedelta) -> JobStatus:
    return JobStatus(
        id=row["job"],
        name=JOBS[row["job"]],
        last_run=row["last_run"],
        last_status=row["last_status"],
        next_run=planner.next_due(now, interval),
        day={key: row[key] for key in ("runs", "partial", "failed", "longest_gap_seconds", "last_failure")},
    )


def _budget(config: Config, overview: Overview) -> Budget:
    row = overview.budget
    limit = config.calls_per_window if row is None else row["max_calls"]
    remaining = None if limit is None else max(0, limit - (row["busy"] if row else 0))
    next_free_at = None
    if row is not None:
        if row["blocked_until"] > overview.now:
            remaining, next_free_at = 0, row["blocked_until"]
        elif remaining == 0:
            next_free_at = row["next_free_at"]
    return Budget(
        limit=limit,
        window_seconds=config.window_seconds if row is None else row["window_seconds"],
        remaining=remaining,
        next_free_at=next_free_at,
        calls_last_hour=overview.hour["calls"],
        refusals_last_hour=overview.hour["refusals"],
    )


def _metrics(overview: Overview, assets: tuple[AssetStatus, ...], budget: Budget) -> dict[str, float | int | None]:
    hour = overview.hour
    allowed = None if budget.limit is None else budget.limit * 3600 / budget.window_seconds
    return {
        "batch.priority.success_rate": (
            round(hour["priority_ok"] / hour["priority_finished"], 4) if hour["priority_finished"] else None
        ),
        "batch.priority.latency_ms": round(hour["priority_latency_ms"]) if hour["priority_latency_ms"] else None,
        "queue.size": 0,
        "api.rate_limit_waits": hour["rate_limit_waits"],
        "api.calls": hour["calls"],
        "api.budget_used_ratio": None if allowed is None else round(hour["calls"] / allowed, 4),
        "assets.stale": sum(one.state is Freshness.STALE for one in assets),
        "events.pending": hour["events_pending"],
    }


def _threshold_alerts(config: Config, metrics: Mapping[str, float | int | None]) -> list[Alert]:
    limits = config.settings.alerts
    alerts = []
    rate = metrics["batch.priority.success_rate"]
    if rate is not None and rate < limits.priority_success_rate_min:
        alerts.append(
            Alert(
                "batch.priority.success_rate",
                rate,
                limits.priority_success_rate_min,
                Level.WARNING,
                f"{rate:.0%} of the priority runs of the last hour went well",
                "look at the last failure below",
            )
        )
    latency = metrics["batch.priority.latency_ms"]
    if latency is not None and latency > limits.priority_latency_ms_max:
        alerts.append(
            Alert(
                "batch.priority.latency_ms",
                latency,
                limits.priority_latency_ms_max,
                Level.WARNING,
                f"priority runs take {latency / 1000:.0f} s",
                "is the API slow, or the budget used up?",
            )
        )
    waits = metrics["api.rate_limit_waits"]
    if waits is not None and waits > limits.rate_limit_waits_per_hour_max:
        alerts.append(
            Alert(
                "api.rate_limit_waits",
                waits,
                limits.rate_limit_waits_per_hour_max,
                Level.WARNING,
                f"priority calls had to wait or were refused {waits} times in the last hour",
                "does another program use this key?",
            )
        )
    return alerts


def _run_alerts(config: Config, overview: Overview, interval: timedelta) -> list[Alert]:
    alerts = []
    priority = next(row for row in overview.jobs if row["job"] == "run-priority")
    if config.priority_assets:
        if priority["last_run"] is None:
            alerts.append(
                Alert(
                    "jobs.run-priority",
                    None,
                    None,
                    Level.CRITICAL,
                    "run-priority has never run",
                    "install crontab.example",
                )
            )
        elif (silent := overview.now - priority["last_run"]) > 2 * interval:
            minutes = silent.total_seconds() / 60
            alerts.append(
                Alert(
                    "jobs.run-priority",
                    round(minutes * 60),
                    round(2 * interval.total_seconds()),
                    Level.CRITICAL,
                    f"run-priority has not run for {minutes:.0f} minutes",
                    "is cron running?",
                )
            )
    if priority["exit_code"] == EXIT_KEY_REFUSED:
        alerts.append(Alert("api.key", None, None, Level.CRITICAL, "the API refused the key", "check POLYGON_API_KEY"))
    if priority["error_kind"] == FailureKind.NOT_ENTITLED:
        contradicted = config.plan != "free"
        alerts.append(
            Alert(
                "api.plan",
                None,
                None,
                Level.CRITICAL if contradicted else Level.WARNING,
                f"plan says {config.plan}, the key is refused live prices"
                if contradicted
                else f"plan {config.plan} has no live prices",
                "lapsed payment?" if contradicted else f"see {config.settings.provider.upgrade_url}",
            )
        )
    oldest = overview.hour["oldest_event_at"]
    if oldest is not None and overview.now - oldest > timedelta(minutes=5):
        pending = overview.hour["events_pending"]
        alerts.append(
            Alert(
                "events.pending",
                pending,
                0,
                Level.WARNING,
                f"{pending} events wait for more than 5 minutes",
                "is Redis running?",
            )
        )
    return alerts


def _asset_alerts(assets: tuple[AssetStatus, ...], interval: timedelta) -> list[Alert]:
    alerts = []
    for one in assets:
        if one.market_age is not None and one.market_age > 3 * interval:
            minutes = one.market_age.total_seconds() / 60
            alerts.append(
                Alert(
                    f"assets.{one.asset.symbol}",
                    round(minutes * 60),
                    round(3 * interval.total_seconds()),
                    Level.CRITICAL,
                    f"{one.asset.symbol} is {minutes:.0f} minutes of market time old",
                    one.error or "see the last run",
                )
            )
        elif one.state is Freshness.FAILING:
            alerts.append(
                Alert(
                    f"assets.{one.asset.symbol}",
                    None,
                    None,
                    Level.WARNING,
                    f"{one.asset.symbol} failed: {one.error}",
                    "the next run tries again",
                )
            )
    return alerts


def _limit_alerts(overview: Overview, budget: Budget) -> list[Alert]:
    alerts = []
    if budget.refusals_last_hour:
        alerts.append(
            Alert(
                "api.refusals",
                budget.refusals_last_hour,
                0,
                Level.WARNING,
                f"the API refused {budget.refusals_last_hour} calls as too many in the last hour",
                "another program uses this key, or the server counts otherwise: lower rate_limiting.calls_per_minute",
            )
        )
    if overview.disagreeing_hosts:
        rules = ", ".join(
            f"{row['host']} {row['max_calls'] or 'unlimited'} in {row['window_seconds']:g} s"
            for row in overview.disagreeing_hosts
        )
        alerts.append(
            Alert(
                "api.hosts_disagree",
                len(overview.disagreeing_hosts),
                0,
                Level.WARNING,
                f"hosts have different limits, the strictest holds: {rules}",
                "make their config.yaml the same",
            )
        )
    return alerts
