"""`status` as one value: what the database says, held against what the configuration expects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from assetbatch import planner
from assetbatch.database.catalogue import SyncState
from assetbatch.model import Access, Priority
from assetbatch.report.alerts import Alert, Health, all_alerts, worst
from assetbatch.report.freshness import Freshness, Outlook, freshness, market_age

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from assetbatch.config import Config
    from assetbatch.database.overview import Overview
    from assetbatch.errors import FailureKind
    from assetbatch.model import Asset

JOBS = {
    "run-priority": "Priority assets",
    "drain-queue": "Queued assets",
    "enqueue-secondary": "Secondary assets",
}


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
    day: date | None
    """The newest finished day that the vendor was asked for it."""
    error_kind: FailureKind | None
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
class QueueStatus:
    """The queue: `total_items` and `by_priority` count all but dead letters."""

    total_items: int
    by_priority: dict[str, int]
    leased: int
    delayed: int
    dead: int
    oldest_item_age_seconds: float | None


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
    queue: QueueStatus
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
    batch = config.settings.batch
    interval = timedelta(minutes=batch.interval_minutes)
    every = {
        "run-priority": interval,
        "drain-queue": planner.DRAIN_EVERY,
        "enqueue-secondary": timedelta(minutes=batch.enqueue_interval_minutes),
    }
    outlook = _outlook(config, overview)
    assets = tuple(
        _asset_status(asset, states.get(asset.symbol, SyncState()), overview, outlook)
        for asset in config.priority_assets
    )
    budget = _budget(config, overview)
    queue = _queue(overview)
    metrics = _metrics(overview, assets, budget, queue)
    return Status(
        now=overview.now,
        database=config.database.described,
        source=source,
        alerts=all_alerts(config, overview, outlook=outlook, assets=assets, budget=budget, metrics=metrics),
        jobs=tuple(_job_status(row, overview.now, every[row["job"]]) for row in overview.jobs),
        assets=assets,
        budget=budget,
        queue=queue,
        metrics=metrics,
        events_pending=overview.hour["events_pending"],
    )


def _outlook(config: Config, overview: Overview) -> Outlook:
    mode = planner.mode(
        config.plan, config.settings.provider.mode, overview.entitlements.get(Access.SNAPSHOTS), overview.now
    )
    return Outlook(
        overview.now,
        timedelta(minutes=config.settings.batch.interval_minutes),
        mode=mode,
        days=overview.days,
        closed=overview.closed,
    )


def _asset_status(asset: Asset, state: SyncState, overview: Overview, outlook: Outlook) -> AssetStatus:
    price = overview.prices.get(asset.symbol, {})
    return AssetStatus(
        asset=asset,
        state=freshness(asset, state, outlook),
        last_price=price.get("last_price"),
        daily_open=price.get("daily_open"),
        data_timestamp=price.get("data_timestamp"),
        last_sync=state.succeeded_at,
        market_age=market_age(asset, state, overview.now),
        day=state.day,
        error_kind=state.error_kind,
        error=state.error,
    )


def _job_status(row: Mapping[str, Any], now: datetime, every: timedelta) -> JobStatus:
    return JobStatus(
        id=row["job"],
        name=JOBS[row["job"]],
        last_run=row["last_run"],
        last_status=row["last_status"],
        next_run=planner.next_due(now, every),
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


def _queue(overview: Overview) -> QueueStatus:
    waiting = [row for row in overview.queue if row["state"] != "dead"]

    def count(state: str) -> int:
        return sum(row["items"] for row in overview.queue if row["state"] == state)

    oldest = min((row["oldest"] for row in waiting), default=None)
    return QueueStatus(
        total_items=sum(row["items"] for row in waiting),
        by_priority={
            priority.name: sum(row["items"] for row in waiting if row["priority"] == priority) for priority in Priority
        },
        leased=count("leased"),
        delayed=count("delayed"),
        dead=count("dead"),
        oldest_item_age_seconds=None if oldest is None else round((overview.now - oldest).total_seconds(), 3),
    )


def _metrics(
    overview: Overview, assets: tuple[AssetStatus, ...], budget: Budget, queue: QueueStatus
) -> dict[str, float | int | None]:
    hour = overview.hour
    allowed = None if budget.limit is None else budget.limit * 3600 / budget.window_seconds
    return {
        "batch.priority.success_rate": (
            round(hour["priority_ok"] / hour["priority_finished"], 4) if hour["priority_finished"] else None
        ),
        "batch.priority.latency_ms": round(hour["priority_latency_ms"]) if hour["priority_latency_ms"] else None,
        "queue.size": queue.total_items,
        "api.rate_limit_waits": hour["rate_limit_waits"],
        "api.calls": hour["calls"],
        "api.budget_used_ratio": None if allowed is None else round(hour["calls"] / allowed, 4),
        "assets.stale": sum(one.state is Freshness.STALE for one in assets),
        "events.pending": hour["events_pending"],
    }
