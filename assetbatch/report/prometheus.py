"""The metrics of `status` and more as Prometheus text: a registry of its own, filled once and written.

Each series has the label `installation`: of equal ones in several files the node exporter drops all but the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch import __version__
from assetbatch.model import Priority, RunStatus
from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.streams import LIVE, STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from prometheus_client import CollectorRegistry

    from assetbatch.report.status import Status

    Labels = Mapping[str, str]
    Samples = Iterable[tuple[Labels, float | None]]
    Add = Callable[[str, str, Samples], None]

HOUR = "in the last hour"
HEALTH = "0 healthy, 1 degraded, 2 unhealthy."


def nothing_to_tell(installation: str, *, unhealthy: bool) -> str:
    """Return what is told when nothing could be read: that, and for all but a faulty configuration what it means."""
    registry = _registry(installation)
    add = _gauge(registry, installation)
    add("up", "Whether the database could be read.", [({}, 0)])
    add("health", HEALTH, [({}, Health.UNHEALTHY.check_code if unhealthy else None)])
    return _written(registry)


def exposition(status: Status, installation: str) -> str:
    """Write everything about an installation so called; a metric without a value has no sample."""
    registry = _registry(installation)
    add = _gauge(registry, installation)
    add("up", "Whether the database could be read.", [({}, 1)])
    _add_health(status, add)
    _add_jobs(status, add)
    _add_calls(status, add)
    _add_queue(status, add)
    _add_assets(status, add)
    add("events_pending", "Events that wait to be published.", [({}, status.events.pending)])
    add("events_dropped", "Events overtaken before they could be published, ever.", [({}, status.events.dropped)])
    _add_stream(status, add)
    return _written(registry)


def _registry(installation: str) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    labels = ["installation", "version"]
    info = Gauge("assetbatch_build_info", "The version of the program; always 1.", labels, registry=registry)
    info.labels(installation, __version__).set(1)
    return registry


def _written(registry: CollectorRegistry) -> str:
    from prometheus_client import generate_latest

    return generate_latest(registry).decode("utf-8")


def _gauge(registry: CollectorRegistry, installation: str) -> Add:
    from prometheus_client import Gauge

    def add(name: str, help_text: str, samples: Samples) -> None:
        present = [({"installation": installation, **labels}, value) for labels, value in samples if value is not None]
        names = list(present[0][0]) if present else ["none"]
        gauge = Gauge(f"assetbatch_{name}", help_text, names, registry=registry)
        for labels, value in present:
            gauge.labels(**labels).set(value)

    return add


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _add_health(status: Status, add: Add) -> None:
    add("health", HEALTH, [({}, status.health.check_code)])
    add(
        "alerts",
        "What is wrong now, by metric and level.",
        [
            (
                {"metric": metric, "level": level.name.lower()},
                sum(alert.metric == metric and alert.level is level for alert in status.alerts),
            )
            for metric, level in dict.fromkeys((alert.metric, alert.level) for alert in status.alerts)
        ],
    )
    # There with 0, so that a rule may wait for it.
    add(
        "alerts_by_level",
        "What is wrong now, by level.",
        [({"level": level.name.lower()}, sum(one.level is level for one in status.alerts)) for level in Level],
    )


def _add_jobs(status: Status, add: Add) -> None:
    jobs = status.jobs
    add(
        "job_last_run_timestamp_seconds",
        "When the last run began.",
        [({"job": job.id}, _timestamp(job.last_run)) for job in jobs],
    )
    add(
        "job_last_success_timestamp_seconds",
        "When the last run that went well ended.",
        [({"job": job.id}, _timestamp(job.last_success)) for job in jobs],
    )
    add(
        "job_last_run_status",
        "1 for the status of the last run.",
        [
            ({"job": job.id, "status": word}, int(job.last_status == word))
            for job in jobs
            for word in ("running", *(word.value for word in RunStatus if word is not RunStatus.SKIPPED))
        ],
    )
    add(
        "job_runs_last_day",
        "Runs of the last 24 hours by how they ended.",
        [({"job": job.id, "status": word}, job.day[word]) for job in jobs for word in ("ok", "partial", "failed")],
    )
    add(
        "priority_success_ratio",
        f"Share of the priority runs that went well {HOUR}.",
        [({}, status.metrics["batch.priority.success_rate"])],
    )
    latency = status.metrics["batch.priority.latency_ms"]
    add(
        "priority_latency_seconds",
        f"Mean time that a priority run took {HOUR}.",
        [({}, None if latency is None else latency / 1000)],
    )


def _add_calls(status: Status, add: Add) -> None:
    budget = status.budget
    add("api_calls_last_hour", f"Calls to the API {HOUR}.", [({}, budget.calls_last_hour)])
    add("api_refusals_last_hour", f"Calls that the API refused as too many {HOUR}.", [({}, budget.refusals_last_hour)])
    waits = status.metrics["api.rate_limit_waits"]
    add("api_rate_limit_waits_last_hour", f"Long waits of priority calls, and refusals, {HOUR}.", [({}, waits)])
    add("api_budget_limit_calls", "Calls that a window allows; absent: unlimited.", [({}, budget.limit)])
    add("api_budget_window_seconds", "Length of that window.", [({}, budget.window_seconds)])
    add("api_budget_free_calls", "Calls that are free now; absent: unlimited.", [({}, budget.remaining)])


def _add_queue(status: Status, add: Add) -> None:
    queue = status.queue
    add(
        "queue_items",
        "Items of the queue by priority and state.",
        [
            ({"priority": name, "state": state}, count)
            for state, counts in queue.by_state.items()
            for name, count in counts.items()
        ],
    )
    add("queue_dead_letters", "Items that wait for somebody to retry or remove them.", [({}, queue.dead)])
    add(
        "queue_oldest_item_age_seconds",
        "For how long the oldest item waits, by priority.",
        [
            ({"priority": priority.name}, queue.oldest_age_seconds_by_priority.get(priority.name, 0))
            for priority in Priority
        ],
    )


def _add_assets(status: Status, add: Add) -> None:
    add(
        "assets",
        "Enabled assets by state.",
        [({"state": state.value}, status.asset_states.get(state.value, 0)) for state in Freshness],
    )
    add(
        "price_age_seconds",
        "Age of the newest price of a priority asset by the vendor's own time.",
        [
            ({"symbol": one.asset.symbol}, (status.now - one.priced_at).total_seconds())
            for one in status.assets
            if one.priced_at is not None
        ],
    )
    add(
        "market_age_seconds",
        "For how long a priority asset's market was open since its last update.",
        [
            ({"symbol": one.asset.symbol}, None if one.market_age is None else one.market_age.total_seconds())
            for one in status.assets
        ],
    )
    add(
        "bars_newest_timestamp_seconds",
        "Open of the newest final bar of a priority asset.",
        [({"symbol": symbol}, at.timestamp()) for symbol, at in sorted(status.bars.newest.items())],
    )
    add("bars_failing_assets", "Assets whose bars fail.", [({}, status.bars.failing)])
    add("bars_missing", "Bars of the first priority assets that are missing in 7 days.", [({}, status.bars.holes)])


def _add_stream(status: Status, add: Add) -> None:
    """Tell of each cluster of the stream; figures of the moment only where one is live."""
    every = [({"cluster": one.report.cluster}, one) for one in status.streams]
    live = [(labels, one.report) for labels, one in every if one.state == LIVE]
    add("stream_up", "Whether the stream of a cluster is live.", [(by, int(one.state == LIVE)) for by, one in every])
    add(
        "stream_state",
        "1 for the state of a cluster's stream.",
        [({**by, "state": word}, int(one.state == word)) for by, one in every for word in STATES],
    )
    add(
        "stream_told_age_seconds",
        "For how long a cluster's stream has told nothing of itself.",
        [(by, (status.now - one.told.told_at).total_seconds()) for by, one in every],
    )
    add(
        "stream_last_frame_timestamp_seconds",
        "When the vendor was last heard of.",
        [(by, _timestamp(one.report.frame_at)) for by, one in every],
    )
    add("stream_assets_asked", "Assets that a cluster is to stream.", [(by, one.asked) for by, one in live])
    add("stream_assets_confirmed", "Those that the vendor confirmed.", [(by, one.confirmed) for by, one in live])
    add("stream_names_unconfirmed", "Names it did not confirm.", [(by, len(one.unconfirmed)) for by, one in live])
    add("stream_assets_silent", "Assets that are confirmed, and silent.", [(by, len(one.silent)) for by, one in live])
    add("stream_events_per_second", "Quotes and minutes a second.", [(by, one.events_a_second) for by, one in live])
    add(
        "stream_lag_seconds",
        "How far behind the vendor's times quotes come, by quantile.",
        [
            ({**by, "quantile": quantile}, None if lag is None else lag / 1000)
            for by, one in live
            for quantile, lag in (("0.5", one.lag_p50_ms), ("0.95", one.lag_p95_ms))
        ],
    )
    add("stream_events", "Quotes and minutes, ever.", [(by, one.report.events) for by, one in every])
    add(
        "stream_dropped",
        "Events that were no prices, or not asked for, ever.",
        [(by, one.report.dropped) for by, one in every],
    )
    add("stream_connects", "Attempts to connect, ever.", [(by, one.report.connects) for by, one in every])
