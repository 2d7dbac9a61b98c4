"""The metrics of `status` and more as Prometheus text: a registry of its own, filled once and written.

Each series has the label `installation`: of equal ones in several files the node exporter drops all but the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from assetbatch import __version__
from assetbatch.model import Priority, RunStatus
from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.streams import LIVE, STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from assetbatch.report.status import Status

HOUR = "in the last hour"
HEALTH = "0 healthy, 1 degraded, 2 unhealthy."
STATUSES = ("running", *(word.value for word in RunStatus if word is not RunStatus.SKIPPED))


class Metric(NamedTuple):
    """A gauge, its name without `assetbatch_`: one value, or values by those of its `labels`; None is no sample."""

    name: str
    help: str
    value: float | Mapping[str, float | None] | Mapping[tuple[str, str], float] | None
    labels: tuple[str, ...] = ()


def nothing_to_tell(installation: str, *, unhealthy: bool) -> str:
    """Return what is told when nothing could be read: that, and for all but a faulty configuration what it means."""
    return _written(installation, [_up(0), _health(Health.UNHEALTHY if unhealthy else None)])


def exposition(status: Status, installation: str) -> str:
    """Write everything about an installation so called; a metric without a value has no sample."""
    return _written(installation, metrics(status))


def metrics(status: Status) -> list[Metric]:
    """Return everything that is told of an installation, but for the version of the program."""
    events = status.events
    return [
        _up(1),
        _health(status.health),
        *_of_alerts(status),
        *_of_jobs(status),
        *_of_calls(status),
        *_of_queue(status),
        *_of_assets(status),
        *_of_stream(status),
        Metric("events_pending", "Events that wait to be published.", events.pending),
        Metric("events_dropped", "Events overtaken before they could be published, ever.", events.dropped),
    ]


def _written(installation: str, told: Iterable[Metric]) -> str:
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    build = "The version of the program; always 1."
    for name, text, value, labels in (Metric("build_info", build, {__version__: 1}, ("version",)), *told):
        gauge = Gauge(f"assetbatch_{name}", text, ["installation", *labels], registry=registry)
        for key, one in value.items() if isinstance(value, Mapping) else [((), value)]:
            if one is not None:
                gauge.labels(installation, *((key,) if isinstance(key, str) else key)).set(one)
    return generate_latest(registry).decode("utf-8")


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _up(value: int) -> Metric:
    return Metric("up", "Whether the database could be read.", value)


def _health(health: Health | None) -> Metric:
    return Metric("health", HEALTH, None if health is None else health.check_code)


def _of_alerts(status: Status) -> Iterator[Metric]:
    alerts = Counter((alert.metric, alert.level.name.lower()) for alert in status.alerts)
    yield Metric("alerts", "What is wrong now, by metric and level.", alerts, ("metric", "level"))
    # There with 0, so that a rule may wait for it.
    levels = {level.name.lower(): sum(one.level is level for one in status.alerts) for level in Level}
    yield Metric("alerts_by_level", "What is wrong now, by level.", levels, ("level",))


def _of_jobs(status: Status) -> Iterator[Metric]:
    began = {job.id: _timestamp(job.last_run) for job in status.jobs}
    yield Metric("job_last_run_timestamp_seconds", "When the last run began.", began, ("job",))
    ended = {job.id: _timestamp(job.last_success) for job in status.jobs}
    yield Metric("job_last_success_timestamp_seconds", "When the last run that went well ended.", ended, ("job",))
    last = {(job.id, word): int(job.last_status == word) for job in status.jobs for word in STATUSES}
    yield Metric("job_last_run_status", "1 for the status of the last run.", last, ("job", "status"))
    day = {(job.id, word): job.day[word] for job in status.jobs for word in ("ok", "partial", "failed")}
    yield Metric("job_runs_last_day", "Runs of the last 24 hours by how they ended.", day, ("job", "status"))
    rate, latency = status.metrics["batch.priority.success_rate"], status.metrics["batch.priority.latency_ms"]
    yield Metric("priority_success_ratio", f"Share of the priority runs that went well {HOUR}.", rate)
    seconds = None if latency is None else latency / 1000
    yield Metric("priority_latency_seconds", f"Mean time that a priority run took {HOUR}.", seconds)


def _of_calls(status: Status) -> Iterator[Metric]:
    budget, waits = status.budget, status.metrics["api.rate_limit_waits"]
    yield Metric("api_calls_last_hour", f"Calls to the API {HOUR}.", budget.calls_last_hour)
    yield Metric("api_refusals_last_hour", f"Calls that the API refused as too many {HOUR}.", budget.refusals_last_hour)
    yield Metric("api_rate_limit_waits_last_hour", f"Long waits of priority calls, and refusals, {HOUR}.", waits)
    yield Metric("api_budget_limit_calls", "Calls that a window allows; absent: unlimited.", budget.limit)
    yield Metric("api_budget_window_seconds", "Length of that window.", budget.window_seconds)
    yield Metric("api_budget_free_calls", "Calls that are free now; absent: unlimited.", budget.remaining)


def _of_queue(status: Status) -> Iterator[Metric]:
    queue = status.queue
    items = {(name, state): count for state, counts in queue.by_state.items() for name, count in counts.items()}
    yield Metric("queue_items", "Items of the queue by priority and state.", items, ("priority", "state"))
    yield Metric("queue_dead_letters", "Items that wait for somebody to retry or remove them.", queue.dead)
    ages = {priority.name: queue.oldest_age_seconds_by_priority.get(priority.name, 0.0) for priority in Priority}
    text = "For how long the oldest item waits, by priority."
    yield Metric("queue_oldest_item_age_seconds", text, ages, ("priority",))


def _of_assets(status: Status) -> Iterator[Metric]:
    states = {state.value: status.asset_states.get(state.value, 0) for state in Freshness}
    yield Metric("assets", "Enabled assets by state.", states, ("state",))
    told, bars = status.assets, status.bars
    ages = {one.asset.symbol: (status.now - one.priced_at).total_seconds() for one in told if one.priced_at is not None}
    text = "Age of the newest price of a priority asset by the vendor's own time."
    yield Metric("price_age_seconds", text, ages, ("symbol",))
    open_for = {one.asset.symbol: one.market_age.total_seconds() for one in told if one.market_age is not None}
    text = "For how long a priority asset's market was open since its last update."
    yield Metric("market_age_seconds", text, open_for, ("symbol",))
    newest = {symbol: at.timestamp() for symbol, at in sorted(bars.newest.items())}
    text = "Open of the newest final bar of a priority asset."
    yield Metric("bars_newest_timestamp_seconds", text, newest, ("symbol",))
    yield Metric("bars_failing_assets", "Assets whose bars fail.", bars.failing)
    yield Metric("bars_missing", "Bars of the first priority assets that are missing in 7 days.", bars.holes)


def _of_stream(status: Status) -> Iterator[Metric]:
    """Yield what is told of each cluster of the stream; figures of the moment only of one that is live."""
    every = {one.report.cluster: one for one in status.streams}
    live = {name: one.report for name, one in every.items() if one.state == LIVE}
    by = ("cluster",)
    up = {name: float(one.state == LIVE) for name, one in every.items()}
    yield Metric("stream_up", "Whether the stream of a cluster is live.", up, by)
    states = {(name, word): float(one.state == word) for name, one in every.items() for word in STATES}
    yield Metric("stream_state", "1 for the state of a cluster's stream.", states, ("cluster", "state"))
    ages = {name: (status.now - one.told.told_at).total_seconds() for name, one in every.items()}
    yield Metric("stream_told_age_seconds", "For how long a cluster's stream has told nothing of itself.", ages, by)
    heard = {name: _timestamp(one.report.frame_at) for name, one in every.items()}
    yield Metric("stream_last_frame_timestamp_seconds", "When the vendor was last heard of.", heard, by)
    asked = {name: float(one.asked) for name, one in live.items()}
    yield Metric("stream_assets_asked", "Assets that a cluster is to stream.", asked, by)
    confirmed = {name: float(one.confirmed) for name, one in live.items()}
    yield Metric("stream_assets_confirmed", "Those that the vendor confirmed.", confirmed, by)
    unconfirmed = {name: float(len(one.unconfirmed)) for name, one in live.items()}
    yield Metric("stream_names_unconfirmed", "Names it did not confirm.", unconfirmed, by)
    silent = {name: float(len(one.silent)) for name, one in live.items()}
    yield Metric("stream_assets_silent", "Assets that are confirmed, and silent.", silent, by)
    rates = {name: one.events_a_second for name, one in live.items()}
    yield Metric("stream_events_per_second", "Quotes and minutes a second.", rates, by)
    lags = {
        (name, quantile): lag / 1000
        for name, one in live.items()
        for quantile, lag in (("0.5", one.lag_p50_ms), ("0.95", one.lag_p95_ms))
        if lag is not None
    }
    text = "How far behind the vendor's times quotes come, by quantile."
    yield Metric("stream_lag_seconds", text, lags, ("cluster", "quantile"))
    events = {name: float(one.report.events) for name, one in every.items()}
    yield Metric("stream_events", "Quotes and minutes, ever.", events, by)
    dropped = {name: float(one.report.dropped) for name, one in every.items()}
    yield Metric("stream_dropped", "Events that were no prices, or not asked for, ever.", dropped, by)
    connects = {name: float(one.report.connects) for name, one in every.items()}
    yield Metric("stream_connects", "Attempts to connect, ever.", connects, by)
