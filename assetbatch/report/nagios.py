"""`status --check` as Monitoring Plugins write it: the worst first, with performance data, then everything else.

The form: https://www.monitoring-plugins.org/doc/guidelines.html, "Plugin Output for Nagios" and "Performance data".
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from assetbatch.plans import Mode
from assetbatch.report.freshness import Freshness, oldest_priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config import Config
    from assetbatch.report.status import Status

WORDS = ("OK", "WARNING", "CRITICAL")


class Figure(NamedTuple):
    """One figure: its value (None: there is none now), its unit, and from where on it warns or is critical.

    `warning` and `critical` are ranges as plug-ins write them: `500` is well from 0 to 500, `90:` from 90 on.
    """

    label: str
    value: float | None
    unit: str = ""
    warning: str = ""
    critical: str = ""
    least: str = "0"
    most: str = ""

    def __str__(self) -> str:
        # U says that it could not be determined: a graph has a gap there.
        value = "U" if self.value is None else f"{self.value:.10g}{self.unit}"
        ranges = f"{value};{self.warning};{self.critical};{self.least};{self.most}".rstrip(";")
        return f"'{self.label}'={ranges}"


def output(status: Status, config: Config) -> str:
    """Return what the plug-in prints; no text of it has the sign that performance data begins with."""
    lines = [f"{alert.message} ({alert.hint})" for alert in status.alerts] or [status.health.value]
    first, *others = (" ".join(line.replace("|", "/").split()) for line in lines)
    figures = " ".join(map(str, _figures(status, config)))
    return "\n".join([f"{WORDS[status.health.check_code]} - {first} | {figures}", *others]) + "\n"


def _figures(status: Status, config: Config) -> Iterator[Figure]:
    """Yield the figures, each under a label that stays, whatever there is to tell."""
    limits, settings = config.settings.alerts, config.settings
    budget, states, metrics = status.budget, status.asset_states, status.metrics
    rate, latency = metrics["batch.priority.success_rate"], metrics["batch.priority.latency_ms"]
    well_from = f"{limits.priority_success_rate_min * 100:g}:"
    yield Figure(
        "queue_size", status.queue.total_items, "", f"{limits.queue_size_max}", most=f"{settings.queue.max_size}"
    )
    yield Figure("queue_dead", status.queue.dead)
    yield Figure("calls_remaining", budget.remaining, most="" if budget.limit is None else f"{budget.limit}")
    allowed = budget.allowed_an_hour
    yield Figure(
        "calls_last_hour", budget.calls_last_hour, most="" if allowed is None or budget.exempt else f"{allowed}"
    )
    yield Figure("refusals_last_hour", budget.refusals_last_hour, "", "0")
    waits = metrics["api.rate_limit_waits"]
    yield Figure("waits_last_hour", waits, "", f"{limits.rate_limit_waits_per_hour_max}")
    yield Figure("priority_success", None if rate is None else rate * 100, "%", well_from, most="100")
    yield Figure(
        "priority_latency",
        None if latency is None else latency / 1000,
        "s",
        f"{limits.priority_latency_ms_max / 1000:g}",
    )
    yield _oldest(status, config)
    for state in (Freshness.STALE, Freshness.FAILING, Freshness.NEVER):
        yield Figure(f"assets_{state}", states.get(state, 0))
    yield Figure("bars_missing", status.bars.holes)
    yield Figure("events_pending", status.events.pending)
    yield Figure("events_oldest_age", status.events.oldest_age_seconds or 0, "s", "300")


def _oldest(status: Status, config: Config) -> Figure:
    """Return for how long the market of a priority asset was open since its last update, of the one that waits longest.

    It is critical where prices are live; of finished days it may be a day.
    """
    ages = [(one.market_age, one.asset) for one in status.assets if one.market_age is not None]
    if not ages:
        return Figure("oldest_priority_age", None, "s")
    age, asset = max(ages, key=lambda found: found[0])
    interval = timedelta(minutes=config.settings.batch.interval_minutes)
    at_most = oldest_priority(asset.update_frequency_seconds, interval)
    is_live = status.prices.mode_of(asset.asset_type) is Mode.LIVE
    critical = f"{at_most.total_seconds():g}" if is_live else ""
    return Figure("oldest_priority_age", age.total_seconds(), "s", critical=critical)
