"""Alerts about jobs: those that do not run though they should, and what stops all of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch.errors import EXIT_KEY_REFUSED, KINDS, FailureKind
from assetbatch.planner import DRAIN_EVERY
from assetbatch.provider.addresses import source_of
from assetbatch.report.health import Alert, Level

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.overview import Overview

# The queue is looked at every minute; a crontab may say less often.
DRAIN_SILENT_AT_MOST = 5 * DRAIN_EVERY
# Runs that are due this often are expected again after so many intervals at the latest.
INTERVALS_SILENT_AT_MOST = 2


def of_source(config: Config, source: str | None) -> Iterator[Alert]:
    """Hold the source of the prices in the database against the one that is configured."""
    asked = source_of(config.settings.provider.base_url)
    if source is not None and source != asked:
        message = f"the database holds prices of {source}, but provider.base_url is of {asked}: no job runs"
        yield Alert(Level.CRITICAL, "database.source", message, "name another database, or set provider.base_url back")


def of_key(overview: Overview) -> Iterator[Alert]:
    """Tell that the last run of a job met a refused key."""
    if any(row["exit_code"] == EXIT_KEY_REFUSED for row in overview.jobs):
        yield Alert(Level.CRITICAL, "api.key", "the API refused the key", KINDS[FailureKind.KEY_REFUSED].hint)


def of_priority_runs(config: Config, overview: Overview) -> Iterator[Alert]:
    """Tell of a priority job that does not run: nothing else notices a cron that stopped."""
    row = overview.job("run-priority")
    silent_at_most = INTERVALS_SILENT_AT_MOST * timedelta(minutes=config.settings.batch.interval_minutes)
    if not config.priority_assets:
        return
    if row["last_run"] is None:
        message = "run-priority has never run"
        yield Alert(Level.CRITICAL, "jobs.run-priority", message, "install crontab.example or the systemd timers")
    elif (silent := overview.now - row["last_run"]) > silent_at_most:
        yield Alert(
            Level.CRITICAL,
            "jobs.run-priority",
            f"run-priority has not run for {minutes(silent)} minutes",
            "is cron running?",
            round(silent.total_seconds()),
            silent_at_most.total_seconds(),
        )


def of_other_runs(config: Config, overview: Overview) -> Iterator[Alert]:
    """Tell of jobs that have work and do not run; before its first run a job has as long as between two."""
    waiting = [row["oldest"] for row in overview.queue if row["state"] in {"queued", "leased"}]
    if waiting:
        yield from _of_silence(overview, "drain-queue", min(waiting), DRAIN_SILENT_AT_MOST, "though items wait")
    if config.secondary_assets or config.settings.batch.secondary_source == "database":
        every = timedelta(minutes=config.settings.batch.enqueue_interval_minutes)
        began = overview.first_run_at
        yield from _of_silence(overview, "enqueue-secondary", began, INTERVALS_SILENT_AT_MOST * every)


def _of_silence(
    overview: Overview, job: str, expected_since: datetime | None, at_most: timedelta, though: str = ""
) -> Iterator[Alert]:
    row = overview.job(job)
    if expected_since is None or row["last_status"] == "running":
        return
    last_run = row["last_run"]
    silent = overview.now - max(expected_since, last_run or expected_since)
    if silent > at_most:
        words = f"has not run for {minutes(overview.now - last_run)} minutes" if last_run else "has never run"
        yield Alert(
            Level.WARNING,
            f"jobs.{job}",
            " ".join(part for part in (job, words, though) if part),
            "is cron running, and has it this job?",
            round(silent.total_seconds()),
            at_most.total_seconds(),
        )


def minutes(age: timedelta) -> str:
    """Tell an age in minutes."""
    return f"{age.total_seconds() / 60:.0f}"
