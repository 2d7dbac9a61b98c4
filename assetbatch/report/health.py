"""Alerts, and the health that the worst of them makes."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.schedule import RUN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable


AREAS = {"api.key": "key", "api.plan": "plan", "api.hosts_disagree": "hosts", "database.provider": "provider"}


class Level(IntEnum):
    """How bad it is; also the exit code of `status --check`, as Nagios has them."""

    WARNING = 1
    CRITICAL = 2


class Health(StrEnum):
    """The one word for everything."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def check_code(self) -> int:
        """The exit code of `status --check`."""
        return list(Health).index(self)


class Alert(Struct, frozen=True):
    """Something is wrong: what to say, what fixes it, and the metric with its threshold, where there is a number."""

    level: Level
    metric: str
    message: str
    hint: str
    value: float | None = None
    threshold: float | None = None

    @property
    def area(self) -> str:
        """What it is about: a job by its name, key, plan, calls, hosts, assets, queue, bars, events or the database."""
        if self.metric in AREAS:
            return AREAS[self.metric]
        area, _, name = self.metric.partition(".")
        return {"jobs": name, "batch": RUN_PRIORITY.name, "api": "calls"}.get(area, area)


def worst(alerts: Iterable[Alert]) -> Health:
    """Return the health of the whole from its alerts."""
    return list(Health)[max((alert.level for alert in alerts), default=0)]
