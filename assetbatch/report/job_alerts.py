"""Alerts about jobs: those that do not run though they should, those whose runs fail, and what stops all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.database.errors import mend_of
from assetbatch.errors import EXIT_KEY_REFUSED
from assetbatch.failures import FailureKind, hint_of
from assetbatch.provider.addresses import source_of
from assetbatch.report.freshness import asks_for_bars
from assetbatch.report.health import Alert, Level
from assetbatch.schedule import DRAIN_QUEUE, ENQUEUE_SECONDARY, JOBS, RUN_PRIORITY
from assetbatch.words import counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.read.overview import Overview
    from assetbatch.report.freshness import Outlook
    from assetbatch.schedule import Job

# A job whose runs have all failed for so many intervals does not do its work.
INTERVALS_FAILING_AT_MOST = 2
INSTALL = "have it started: `assetbatch install cron --write`, or `assetbatch install systemd`"


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
    """Report that the last run of a job met a refused key."""
    if any(row["exit_code"] == EXIT_KEY_REFUSED for row in overview.jobs):
        yield Alert(Level.CRITICAL, "api.key", "the API refused the key", hint_of(FailureKind.KEY_REFUSED))


def of_silence(config: Config, overview: Overview, outlook: Outlook) -> Iterator[Alert]:
    """Report jobs that have work and do not run: nothing else notices a cron that stopped."""
    for job in JOBS.values():
        if work := _work(job, config, overview, outlook):
            yield from _silence(job, config, overview, *work)


def _work(job: Job, config: Config, overview: Overview, outlook: Outlook) -> tuple[datetime | None, str] | None:
    """Return since when a job should have run (None: it never did), and what waits for it; None: it has no work."""
    if job is RUN_PRIORITY:
        return (overview.job(job.name)["last_run"], "") if config.priority_assets else None
    if job is DRAIN_QUEUE:
        waiting = [row["oldest"] for row in overview.queue if row["state"] in {"queued", "leased"}]
        bars = any(asks_for_bars(config, outlook, asset.asset_type) for asset in config.assets)
        if waiting:
            return min(waiting), "though items wait"
        return (overview.first_run_at, "though bars are wanted") if bars else None
    if job is ENQUEUE_SECONDARY and not (
        config.secondary_assets or config.settings.batch.secondary_source == "database"
    ):
        return None
    return overview.first_run_at, ""


def _silence(
    job: Job, config: Config, overview: Overview, expected_since: datetime | None, though: str
) -> Iterator[Alert]:
    """Hold a job's last run against how long it may be silent; before its first run it has as long as between two."""
    row, metric = overview.job(job.name), f"jobs.{job.name}"
    level = Level.CRITICAL if job.is_vital else Level.WARNING
    at_most, last_run = job.intervals_silent * job.every(config.settings.batch), row["last_run"]
    if last_run is None and level is Level.CRITICAL:
        yield Alert(level, metric, f"{job.name} has never run", INSTALL)
    if expected_since is None or (level is Level.WARNING and row["last_status"] == "running"):
        return
    silent = overview.now - max(expected_since, last_run or expected_since)
    if silent > at_most:
        words, hint = "has never run", INSTALL
        if last_run:
            words = f"has not run for {duration(overview.now - last_run)}"
            hint = f"is cron, or the timer, running on {row['host']}, and has it this job?"
        message = " ".join(part for part in (job.name, words, though) if part)
        yield Alert(level, metric, message, hint, round(silent.total_seconds()), at_most.total_seconds())


def of_failures(config: Config, overview: Overview) -> Iterator[Alert]:
    """Report jobs whose last runs failed: critical once none has gone well for two of their intervals."""
    for row in overview.jobs:
        if not row["in_a_row"]:
            continue
        lasts = overview.now - row["failing_since"]
        at_most = INTERVALS_FAILING_AT_MOST * JOBS[row["job"]].every(config.settings.batch)
        level = Level.CRITICAL if lasts >= at_most else Level.WARNING
        job, kind = row["job"], row["failing_error_kind"]
        runs = "the last run" if row["in_a_row"] == 1 else f"the last {counted(row['in_a_row'], 'run')}"
        message = f"{runs} of {job} failed, for {duration(lasts)}: {row['failing_error'] or 'it was killed'}"
        hint = hint_of(kind) or mend_of(kind) or f"`assetbatch -v {job}` tells more"
        yield Alert(level, f"jobs.{job}", message, hint, row["in_a_row"], 0)
