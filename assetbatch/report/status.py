"""`status` as one value: what the database says, held against what the configuration expects."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from assetbatch import planner
from assetbatch.database.asset_states import Judged
from assetbatch.database.catalogue import SyncState
from assetbatch.model import Access
from assetbatch.report import figures
from assetbatch.report.alerts import all_alerts
from assetbatch.report.freshness import Freshness, Outlook, freshness, market_age
from assetbatch.report.health import Alert, Health, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from assetbatch.config import Config
    from assetbatch.database.connection import Row
    from assetbatch.database.overview import Overview
    from assetbatch.database.story import Story
    from assetbatch.errors import FailureKind
    from assetbatch.model import Asset
    from assetbatch.report.figures import BarsStatus, Budget, EventsStatus, PricesStatus, QueueStatus

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

    @property
    def priced_at(self) -> datetime | None:
        """When the market made the price; None also where somebody else wrote what is no time."""
        return moment(self.data_timestamp)


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
class Others:
    """Assets beside the priority assets: how many are in which state, and those that are shown."""

    judged: Judged = field(default_factory=Judged)
    shown: tuple[Asset, ...] = ()
    states: Mapping[str, SyncState] | None = None
    prices: Mapping[str, Row] | None = None
    are_all: bool = False


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
    not_well: Sequence[Row] | None = None
    """Runs that were not well, where they were asked for."""
    story: Story | None = None
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


def moment(text: str | None) -> datetime | None:
    """Read an aware time; None where there is none, or what is there is none."""
    try:
        read = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read is None or read.tzinfo else None


def outlook_of(config: Config, overview: Overview) -> Outlook:
    """Tell what freshness is held against now."""
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
    states: Mapping[str, SyncState],
    *,
    source: str | None,
    others: Others | None = None,
    bars: BarsStatus | None = None,
) -> Status:
    """Put together what was read; pure, so that text, JSON and exit code tell the same.

    `states` are those of the priority assets; `source`: whose prices the database has, None: nobody's yet.
    """
    others = others or Others()
    outlook = outlook_of(config, overview)
    assets = tuple(
        asset_status(asset, states.get(asset.symbol, SyncState()), overview.prices.get(asset.symbol), outlook)
        for asset in config.priority_assets
    )
    counts = Counter(one.state.value for one in assets) + Counter(others.judged.counts)
    budget = figures.budget_of(config, overview)
    queue = figures.queue_of(overview)
    metrics = figures.metrics_of(overview, counts, budget, queue)
    markets = sorted({one.asset.asset_type for one in assets} | {one.asset_type for one in others.shown})
    return Status(
        now=overview.now,
        database=config.database.described,
        alerts=all_alerts(
            config, overview, outlook=outlook, assets=assets, budget=budget, metrics=metrics, source=source
        ),
        jobs=tuple(_job_status(row, overview.now, _every(config)[row["job"]]) for row in overview.jobs),
        assets=assets,
        others=tuple(
            asset_status(
                asset,
                (others.states or {}).get(asset.symbol, SyncState()),
                (others.prices or {}).get(asset.symbol),
                outlook,
            )
            for asset in others.shown
        ),
        others_are_all=others.are_all,
        asset_states=dict(counts),
        prices=figures.prices_of(outlook, markets, [one.day for one in assets if one.day], source),
        budget=budget,
        queue=queue,
        bars=bars or figures.BarsStatus({}, overview.bars_failing, 0),
        events=figures.events_of(config, overview),
        metrics=metrics,
    )


def asset_status(asset: Asset, state: SyncState, price: Mapping[str, Any] | None, outlook: Outlook) -> AssetStatus:
    """Tell how one asset stands; `price` None: there is none."""
    price = price or {}
    return AssetStatus(
        asset=asset,
        state=freshness(asset, state, outlook),
        last_price=price.get("last_price"),
        daily_open=price.get("daily_open"),
        data_timestamp=price.get("data_timestamp"),
        last_sync=state.succeeded_at,
        market_age=market_age(asset, state, outlook.now),
        day=state.day,
        error_kind=state.error_kind,
        error=state.error,
    )


def _every(config: Config) -> dict[str, timedelta]:
    """Tell how often cron is expected to start each job."""
    batch = config.settings.batch
    return {
        "run-priority": timedelta(minutes=batch.interval_minutes),
        "drain-queue": planner.DRAIN_EVERY,
        "enqueue-secondary": timedelta(minutes=batch.enqueue_interval_minutes),
    }


def _job_status(row: Mapping[str, Any], now: datetime, every: timedelta) -> JobStatus:
    day = {key: row[key] for key in ("runs", "ok", "partial", "failed", "longest_gap_seconds", "last_failure")}
    return JobStatus(
        id=row["job"],
        name=JOBS[row["job"]],
        last_run=row["last_run"],
        last_status=row["last_status"],
        last_success=row["last_success"],
        next_run=planner.next_due(now, every),
        day=day,
    )
