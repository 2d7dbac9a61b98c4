"""`status` as one value: what the database says, held against what the configuration expects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from assetbatch import planner
from assetbatch.database.catalogue import asset_of
from assetbatch.model import Access
from assetbatch.report import figures
from assetbatch.report.alerts import all_alerts
from assetbatch.report.freshness import AssetStatus, Outlook, asset_status
from assetbatch.report.health import Alert, Health, worst
from assetbatch.schedule import JOBS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Row
    from assetbatch.database.read.freshness import Judged
    from assetbatch.database.read.history import AssetHistory
    from assetbatch.database.read.overview import Overview
    from assetbatch.report.figures import BarsStatus, Budget, EventsStatus, PricesStatus, QueueStatus
    from assetbatch.report.streams import StreamStatus


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job: its last run, the next that is expected, when one last went well, and the last 24 hours."""

    id: str
    name: str
    last_run: datetime | None
    last_status: str | None
    last_success: datetime | None
    next_run: datetime
    day: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """All that `status` tells. `assets` are the priority assets; `others` those that are worst off, or all."""

    now: datetime
    database: str
    alerts: tuple[Alert, ...]
    jobs: tuple[JobStatus, ...]
    assets: tuple[AssetStatus, ...]
    others: tuple[AssetStatus, ...]
    others_are_all: bool
    asset_states: Mapping[str, int]
    prices: PricesStatus
    budget: Budget
    queue: QueueStatus
    bars: BarsStatus
    events: EventsStatus
    metrics: Mapping[str, float | int | None]
    streams: tuple[StreamStatus, ...] = ()
    """The clusters of the stream, where one was ever used."""
    not_well: Sequence[Row] | None = None
    """Runs that were not well, where they were asked for."""
    history: AssetHistory | None = None
    subject: AssetStatus | None = None
    """The asset whose story was asked for."""

    @property
    def health(self) -> Health:
        """The worst of all alerts decides."""
        return worst(self.alerts)

    @property
    def last_priority_update(self) -> datetime | None:
        """When a priority asset was last updated."""
        return max((one.last_sync for one in self.assets if one.last_sync), default=None)


def outlook_of(config: Config, overview: Overview) -> Outlook:
    """Return what freshness is held against now."""
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


def build(
    config: Config,
    overview: Overview,
    judged: Judged,
    *,
    source: str | None,
    others_are_all: bool = False,
    bars: BarsStatus | None = None,
) -> Status:
    """Put together what was read; pure, so that text, JSON and exit code tell the same.

    `source`: whose prices the database has, None: nobody's yet.
    """
    outlook = outlook_of(config, overview)
    bars = bars or figures.BarsStatus({}, sum(row["total"] for row in overview.failing_bars[:1]), 0)
    assets = tuple(asset_status(one, judged.named.get(one.symbol), overview.now) for one in config.priority_assets)
    others = tuple(asset_status(asset_of(row), row, overview.now) for row in judged.others)
    counts: Counter[str] = Counter()
    for group in judged.groups:
        counts[group.state] += group.assets
    budget = figures.budget_of(config, overview)
    queue = figures.queue_of(overview)
    metrics = figures.metrics_of(overview, counts, budget, queue)
    markets = sorted({one.asset.asset_type for one in assets} | {one.asset.asset_type for one in others})
    return Status(
        now=overview.now,
        database=config.database.described,
        alerts=all_alerts(
            config,
            overview,
            outlook=outlook,
            assets=assets,
            others=others,
            groups=judged.groups,
            bars=bars,
            budget=budget,
            metrics=metrics,
            source=source,
        ),
        jobs=tuple(_job_status(row, overview.now, config) for row in overview.jobs),
        assets=assets,
        others=others,
        others_are_all=others_are_all,
        asset_states=dict(counts),
        prices=figures.prices_of(outlook, markets, [one.day for one in assets if one.day], source),
        budget=budget,
        queue=queue,
        bars=bars,
        events=figures.events_of(config, overview),
        metrics=metrics,
        streams=_streams(overview),
    )


def _streams(overview: Overview) -> tuple[StreamStatus, ...]:
    if not overview.streams:
        return ()
    from assetbatch.report.streams import stream_status

    return tuple(stream_status(one) for one in overview.streams)


def _job_status(row: Mapping[str, Any], now: datetime, config: Config) -> JobStatus:
    job = JOBS[row["job"]]
    day = {key: row[key] for key in ("runs", "ok", "partial", "failed", "longest_gap_seconds", "last_failure")}
    return JobStatus(
        id=job.name,
        name=job.title,
        last_run=row["last_run"],
        last_status=row["last_status"],
        last_success=row["last_success"],
        next_run=planner.next_start(now, job.every(config.settings.batch)),
        day=day,
    )
