"""`status` as one value: its alerts, jobs, assets and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from assetbatch import planner
from assetbatch.database.read.overview import Gone
from assetbatch.events import backend
from assetbatch.markets import TRAITS
from assetbatch.model import Priority
from assetbatch.plans import Mode
from assetbatch.report.health import Alert, Health, worst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime
    from decimal import Decimal

    from assetbatch.config import Config
    from assetbatch.database.bars.absences import RefusedBars
    from assetbatch.database.connection import Row
    from assetbatch.database.read.history import AssetHistory
    from assetbatch.database.read.overview import Overview
    from assetbatch.model import AssetType
    from assetbatch.report.freshness import AssetStatus, Outlook
    from assetbatch.report.streams import StreamStatus

WAITING = ("queued", "leased", "delayed")
HOUR_SECONDS = 3600


class Budget(Struct, frozen=True):
    """The calls of this moment; `limit` None means unlimited. `next_free_at` is set when no call is free now.

    `spaced`: calls are spaced evenly, since one was refused that our own calls do not explain. `exempt` are the types
    whose calls are not limited beside those of the others. `limited_calls_last_hour` are the calls that were.
    """

    limit: int | None
    window_seconds: float
    remaining: int | None
    next_free_at: datetime | None
    calls_last_hour: int
    refusals_last_hour: int
    spaced: bool = False
    exempt: tuple[str, ...] = ()
    limited_calls_last_hour: int = 0

    @property
    def allowed_an_hour(self) -> int | None:
        """Return how many calls an hour may have; None: as many as there are, or its window is a longer one."""
        if self.limit is None or self.window_seconds > HOUR_SECONDS:
            return None
        return round(self.limit * HOUR_SECONDS / self.window_seconds)


class QueueStatus(Struct, frozen=True):
    """The queue: `total_items` and `by_priority` count all but dead letters; ages are of what waits, too.

    `by_state` counts all: for each state the items of each priority.
    """

    total_items: int
    by_priority: dict[str, int]
    leased: int
    delayed: int
    dead: int
    oldest_item_age_seconds: float | None
    oldest_age_seconds_by_priority: dict[str, float]
    by_state: dict[str, dict[str, int]]


class MarketPrices(Struct, frozen=True):
    """How prices of one type are asked for; of finished days, the newest one stored, and when there can be another."""

    mode: Mode
    day: date | None = None
    newer_at: datetime | None = None


class PricesStatus(Struct, frozen=True):
    """How prices are asked for, and whose they are (None: nobody's yet).

    Live, where those of any type are. Of finished days: the newest that is stored, and when a newer one can exist.
    `markets` tells it of each type that there are assets of.
    """

    mode: Mode
    source: str | None
    day: date | None = None
    newer_at: datetime | None = None
    markets: Mapping[str, MarketPrices] = field(default_factory=dict)

    def mode_of(self, kind: AssetType) -> Mode:
        """Return how prices of a type are asked for."""
        own = self.markets.get(kind.value)
        return self.mode if own is None else own.mode


class BarsStatus(Struct, frozen=True):
    """The newest final bar of each priority asset that the table has, and of all assets those whose bars fail.

    `holes` counts the bars that are missing in the last days of priority assets, up to where they ought to reach; None:
    none are asked for. `refused`: whose bars the platform's table did not take.
    """

    newest: Mapping[str, datetime]
    failing: int
    holes: int | None
    oldest_hole: datetime | None = None
    refused: Sequence[RefusedBars] = ()


class EventsStatus(Struct, frozen=True):
    """Events that wait to be published, for how long the oldest does, and what carries them.

    `dropped`: how many were overtaken before they could be published, since the database was made. `refused`: why what
    carries them does not take them; None: it does.
    """

    pending: int
    oldest_age_seconds: float | None
    dropped: int
    published_by: str
    refused: str | None = None


class JobStatus(Struct, frozen=True):
    """One job: its last run, the next that is expected, when one last went well, and the last 24 hours."""

    id: str
    name: str
    last_run: datetime | None
    last_status: str | None
    last_success: datetime | None
    next_run: datetime
    day: dict[str, Any]


class Status(Struct, frozen=True):
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
    gone: Gone = Gone()
    """What is delisted or renamed, and asked for no more."""
    streams: tuple[StreamStatus, ...] = ()
    """The clusters of the stream, where one was ever used."""
    closes: Mapping[str, Sequence[Decimal | None]] = field(default_factory=dict)
    """Of each priority asset that has bars the last close of each of the last 24 hours, where they were asked for."""
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


def budget_of(config: Config, overview: Overview) -> Budget:
    """Return how much of the budget is free, by the limit that is in force."""
    row, types = overview.budget, overview.types | config.types
    limit = config.calls_per_window(types) if row is None else row["max_calls"]
    remaining = None if limit is None else max(0, limit - (row["busy"] if row else 0))
    next_free_at = None
    if row is not None:
        if row["blocked_until"] > overview.now:
            remaining, next_free_at = 0, row["blocked_until"]
        elif remaining == 0:
            next_free_at = row["next_free_at"]
    unlimited = [one.value for one in types if config.limit_of(TRAITS[one].product) is None]
    return Budget(
        limit=limit,
        window_seconds=config.window_seconds if row is None else row["window_seconds"],
        remaining=remaining,
        next_free_at=next_free_at,
        calls_last_hour=overview.hour["calls"],
        refusals_last_hour=overview.hour["refusals"],
        spaced=bool(row and row["spaced"]),
        exempt=() if limit is None else tuple(sorted(unlimited)),
        limited_calls_last_hour=overview.hour["limited_calls"],
    )


def queue_of(overview: Overview) -> QueueStatus:
    """Sum up the queue."""
    by_state = {state: {priority.name: 0 for priority in Priority} for state in (*WAITING, "dead")}
    ages: dict[str, float] = {}
    for row in sorted(overview.queue, key=lambda row: (row["priority"], row["oldest"])):
        name = Priority(row["priority"]).name
        by_state[row["state"]][name] += row["items"]
        if row["state"] != "dead":
            age = round((overview.now - row["oldest"]).total_seconds(), 3)
            ages.setdefault(name, max(0.0, age))
    counts = {state: sum(each.values()) for state, each in by_state.items()}
    return QueueStatus(
        total_items=sum(counts[state] for state in WAITING),
        by_priority={one.name: sum(by_state[state][one.name] for state in WAITING) for one in Priority},
        leased=counts["leased"],
        delayed=counts["delayed"],
        dead=counts["dead"],
        oldest_item_age_seconds=max(ages.values(), default=None),
        oldest_age_seconds_by_priority=ages,
        by_state=by_state,
    )


def prices_of(outlook: Outlook, markets: Sequence[AssetType], days: Sequence[date], source: str | None) -> PricesStatus:
    """Return how prices of these markets are asked for; `days` are those that are stored."""
    told = {one.value: _market_prices(outlook, one) for one in sorted(outlook.types)}
    if outlook.mode is Mode.LIVE:
        return PricesStatus(outlook.mode, source, markets=told)
    return PricesStatus(
        outlook.mode,
        source,
        max(days, default=None),
        min((planner.newer_day_at(market, outlook.days, outlook.now) for market in markets), default=None),
        markets=told,
    )


def _market_prices(outlook: Outlook, kind: AssetType) -> MarketPrices:
    if outlook.modes[kind] is Mode.LIVE:
        return MarketPrices(Mode.LIVE)
    stored = (
        day for (own, day), asked in outlook.days.items() if own is kind and asked.outcome is planner.DayOutcome.STORED
    )
    newer_at = planner.newer_day_at(kind, outlook.days, outlook.now)
    return MarketPrices(Mode.END_OF_DAY, max(stored, default=None), newer_at)


def events_of(config: Config, overview: Overview) -> EventsStatus:
    """Return what waits to be published, and by what."""
    oldest = overview.hour["oldest_event_at"]
    age = None if oldest is None else round((overview.now - oldest).total_seconds(), 3)
    return EventsStatus(
        overview.hour["events_pending"],
        age,
        overview.hour["events_dropped"],
        backend(config),
        None if overview.events_refused is None else overview.events_refused.words,
    )


def metrics_of(
    overview: Overview, states: Mapping[str, int], budget: Budget, queue: QueueStatus
) -> dict[str, float | int | None]:
    """Compute the metrics, over the last hour; None: nothing happened that would tell."""
    hour = overview.hour
    allowed = None if budget.limit is None else budget.limit * HOUR_SECONDS / budget.window_seconds
    latency = hour["priority_latency_ms"]
    return {
        "batch.priority.success_rate": (
            round(hour["priority_ok"] / hour["priority_finished"], 4) if hour["priority_finished"] else None
        ),
        "batch.priority.latency_ms": None if latency is None else round(latency),
        "queue.size": queue.total_items,
        "api.rate_limit_waits": hour["rate_limit_waits"],
        "api.calls": hour["calls"],
        "api.budget_used_ratio": None if allowed is None else round(hour["calls"] / allowed, 4),
        "assets.stale": states.get("stale", 0),
        "events.pending": hour["events_pending"],
    }
