"""Alerts, and the health that the worst of them makes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong: the metric and its threshold (None where there is no number), what to say, and the mend."""

    metric: str
    value: float | None
    threshold: float | None
    level: Level
    message: str
    hint: str


def worst(alerts: Iterable[Alert]) -> Health:
    """Tell the health of the whole from its alerts."""
    level = max((alert.level for alert in alerts), default=0)
    return list(Health)[level]
