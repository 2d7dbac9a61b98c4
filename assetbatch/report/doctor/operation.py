"""How things go, as `status` judges it: a line for each alert, and for each area that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.report import health, reading
from assetbatch.report.doctor.findings import Finding, Level, ok
from assetbatch.report.sentences import sentences
from assetbatch.report.words import ago

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.report.status import Status

LEVELS = {health.Level.WARNING: Level.WARN, health.Level.CRITICAL: Level.FAIL}


def findings(connection: Connection, config: Config) -> Iterator[Finding]:
    """Return what `status` says."""
    return of_status(reading.read(config, connection))


def of_status(status: Status) -> Iterator[Finding]:
    """Return the alerts as findings, each by the name of its area; then the areas without any."""
    for alert in status.alerts:
        yield Finding(LEVELS[alert.level], alert.area, alert.message, alert.hint)
    told = {alert.area for alert in status.alerts}
    jobs = {job.id: f"{job.last_status or 'never ran'}, {ago(job.last_run, status.now)}" for job in status.jobs}
    for area, words in (jobs | sentences(status)).items():
        if area not in told:
            yield ok(area, words)
