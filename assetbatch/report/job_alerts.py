"""Alerts about jobs: those that do not run though they should, those whose runs fail, and what stops all of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database.errors import mend_of
from assetbatch.errors import EXIT_KEY_REFUSED, FailureKind, hint_of
from assetbatch.provider.addresses import source_of
from assetbatch.report.health import Alert, Level
from assetbatch.report.words import counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Row
    from assetbatch.database.overview import Overview
    from assetbatch.planner import Mode

# The queue is looked at every minute; a crontab may say less often.
DRAIN_SILENT_AT_MOST = 5 * planner.DRAIN_EVERY
# Runs that are due this often are expected again after so many intervals at the latest.
INTERVALS_SILENT_AT_MOST = 2
# A job whose runs have all failed for so many intervals does not do its work.
INTERVALS_FAILING_AT_MOST = 2
INSTALL = "install crontab.example, or enable the timers of scripts/systemd"


def every(config: Config) -> dict[str, timedelta]:
    """Return how often cron is expected to start each job."""
    batch = config.settings.batch
    return {
        "run-priority": timedelta(minutes=batch.interval_minutes),
        "drain-queue": planner.DRAIN_EVERY,
        "enqueue-secondary": timedelta(minutes=batch.enqueue_interval_minutes),
    }


def of_source(config: Config, source: str | None) -> Iterator[Alert]:
    """Hold the source of the prices in the database against the one that is configured."""
    asked = source_of(config.settings.provider.base_url)
    if source is not None and source != asked:
        message = f"the database holds prices of {source}, but provider.base_url is of {asked}: no job runs"
        hint = (
            "name another, empty database and run `assetbatch init`, or set provider.base_url (POLYGON_BASE_URL) back"
        )
        yield Alert(Level.CRITICAL, "database.source", message, hint)


def of_key(overview: Overview) -> Iterator[Alert]:
    """Tell that the last run of a job met a refused key."""
    if any(row["exit_code"] == EXIT_KEY_REFUSED for row in overview.jobs):
        yield Alert(Level.CRITICAL, "api.key", "the API refused the key", hint_of(FailureKind.KEY_REFUSED))


def of_silence(config: Config, overview: Overview, mode: Mode) -> Iterator[Alert]:
    """Tell of jobs that have work and do not run: nothing else notices a cron that stopped."""
    intervals = every(config)
    if config.priority_assets:
        row, at_most = overview.job("run-priority"), INTERVALS_SILENT_AT_MOST * intervals["run-priority"]
        yield from _silence(overview, row, row["last_run"], at_most, level=Level.CRITICAL)
    row = overview.job("drain-queue")
    waiting = [row["oldest"] for row in overview.queue if row["state"] in {"queued", "leased"}]
    if waiting:
        yield from _silence(overview, row, min(waiting), DRAIN_SILENT_AT_MOST, though="though items wait")
    elif config.assets and planner.asks_for_bars(config.settings.bars.enabled, config.calls_per_window, mode):
        yield from _silence(overview, row, overview.first_run_at, DRAIN_SILENT_AT_MOST, though="though bars are wanted")
    if config.secondary_assets or config.settings.batch.secondary_source == "database":
        at_most = INTERVALS_SILENT_AT_MOST * intervals["enqueue-secondary"]
        yield from _silence(overview, overview.job("enqueue-secondary"), overview.first_run_at, at_most)


def _silence(
    overview: Overview,
    row: Row,
    expected_since: datetime | None,
    at_most: timedelta,
    *,
    level: Level = Level.WARNING,
    though: str = "",
) -> Iterator[Alert]:
    """Hold a job's last run against how long it may be silent; before its first run it has as long as between two."""
    last_run = row["last_run"]
    if last_run is None and level is Level.CRITICAL:
        yield Alert(level, f"jobs.{row['job']}", f"{row['job']} has never run", INSTALL)
    if expected_since is None or (level is Level.WARNING and row["last_status"] == "running"):
        return
    silent = overview.now - max(expected_since, last_run or expected_since)
    if silent > at_most:
        words = f"has not run for {duration(overview.now - last_run)}" if last_run else "has never run"
        yield Alert(
            level,
            f"jobs.{row['job']}",
            " ".join(part for part in (row["job"], words, though) if part),
            f"is cron, or the timer, running on {row['host']}, and has it this job?" if last_run else INSTALL,
            round(silent.total_seconds()),
            at_most.total_seconds(),
        )


def of_failures(config: Config, overview: Overview) -> Iterator[Alert]:
    """Tell of jobs whose last runs failed: critical once none has gone well for two of their intervals."""
    for row in overview.jobs:
        if not row["in_a_row"]:
            continue
        lasts, at_most = overview.now - row["failing_since"], INTERVALS_FAILING_AT_MOST * every(config)[row["job"]]
        kind = row["failing_error_kind"]
        runs = "the last run" if row["in_a_row"] == 1 else f"the last {counted(row['in_a_row'], 'run')}"
        yield Alert(
            Level.CRITICAL if lasts >= at_most else Level.WARNING,
            f"jobs.{row['job']}",
            f"{runs} of {row['job']} failed, for {duration(lasts)}: {row['failing_error'] or 'it was killed'}",
            hint_of(kind) or mend_of(kind) or f"`assetbatch -v {row['job']}` tells more",
            row["in_a_row"],
            0,
        )
