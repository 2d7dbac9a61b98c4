"""`doctor`: everything that the jobs rely on, a line each, with what fixes it. No call is made.

It looks at this host and at the database; how things go it has from `status`, which alone judges that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from assetbatch.config.settings import Stream
from assetbatch.database.errors import translated_errors
from assetbatch.database.opening import connect
from assetbatch.database.read.doctor import server
from assetbatch.report import health, reading
from assetbatch.report.doctor import cron, database, host
from assetbatch.report.doctor.findings import Examination, Finding, Level, by_urgency, fail, folded, ok, summary, worst
from assetbatch.report.sentences import sentences
from assetbatch.words import ago

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from assetbatch.config import Config, Database
    from assetbatch.config.loading import Survey
    from assetbatch.database.connection import Connection
    from assetbatch.report.status import Status

__all__ = ["Finding", "Level", "by_urgency", "document", "examine", "folded", "of_status", "summary", "worst"]

# A table that somebody holds is one line that failed, not a doctor that hangs.
LOCK_TIMEOUT = "1s"
STATEMENT_TIMEOUT = "3s"
LEVELS = {health.Level.WARNING: Level.WARN, health.Level.CRITICAL: Level.FAIL}


def examine(
    survey: Survey, data_folder: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Finding]:
    """Look at everything that can be looked at; what cannot be is told, and hides nothing else.

    A time-out bounds every step: with the database and Redis away it ends within some 5 seconds.
    """
    here, there = Examination(), Examination()
    config = survey.config
    redis = _redis(config)
    named = survey.database
    # An embedded server that is not there, or is somebody else's, has been told of by then.
    if named is not None and (not named.embedded or there.look("embedded server", partial(host.embedded, data_folder))):
        there.look("database", partial(_database, there, named, config, data_folder, clock))
    here.look("program", host.program)
    here.look("configuration", partial(host.configuration, survey))
    here.look("files", partial(host.files, survey))
    here.look("key", partial(host.key, survey, is_needed=not there.reads_only))
    if config is not None:
        here.look("plan", partial(host.plan_of, config))
        if config.settings.stream != Stream():
            here.look("stream addresses", partial(host.stream_of, config))
    here.look("mail", cron.mail)
    if redis is not None:
        there.look("redis", redis.findings)
    return here.findings + there.findings


def _redis(config: Config | None) -> host.RedisCheck | None:
    if config is None or config.redis_url is None or config.settings.events.backend not in {"auto", "redis"}:
        return None
    return host.RedisCheck(config.redis_url.reveal(), stream=config.settings.events.stream)


def _database(
    done: Examination, named: Database, config: Config | None, data_folder: Path, clock: Callable[[], datetime]
) -> Iterable[Finding]:
    """Make all checks that need a connection; each is a transaction of its own, so that none spoils another."""
    with connect(named, data_folder, job="doctor") as connection:

        def look(name: str, check: Callable[[], Iterable[Finding]]) -> bool:
            return not connection.closed and done.look(name, partial(_bounded, connection, check, named.described))

        look("database", partial(_server, done, connection, named))
        look("clock", partial(database.clock, connection, clock))
        fits = look("schema", partial(database.fits, connection))
        if look("privileges", partial(database.privileges, connection)) and fits:
            look("row security", partial(database.row_security, connection))
        look("numbers", partial(database.numbers, connection))
        if fits and config is not None and not connection.closed:
            done.look("status", lambda: of_status(reading.read(config, connection)))
        if connection.closed:
            return [fail("database", "the connection broke off", "is PostgreSQL restarting? See its log")]
    return []


def _server(done: Examination, connection: Connection, named: Database) -> Iterator[Finding]:
    found = server(connection)
    done.reads_only = found.reads_only
    yield from database.server(found, named)


def _bounded(connection: Connection, check: Callable[[], Iterable[Finding]], described: str) -> list[Finding]:
    with (
        translated_errors(described),
        connection.transaction(lock_timeout=LOCK_TIMEOUT, statement_timeout=STATEMENT_TIMEOUT),
    ):
        return list(check())


def of_status(status: Status) -> Iterator[Finding]:
    """Return the alerts as findings, each by the name of its area; then the areas without any."""
    for alert in status.alerts:
        yield Finding(LEVELS[alert.level], alert.area, alert.message, alert.hint)
    told = {alert.area for alert in status.alerts}
    jobs = {job.id: f"{job.last_status or 'never ran'}, {ago(job.last_run, status.now)}" for job in status.jobs}
    for area, words in (jobs | sentences(status)).items():
        if area not in told:
            yield ok(area, words)


def document(findings: list[Finding]) -> dict[str, Any]:
    """Make the document of `doctor --json`."""
    return {"status": worst(findings), "findings": [asdict(one) for one in findings]}
