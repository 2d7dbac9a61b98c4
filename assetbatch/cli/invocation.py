"""What every command shares: the global options, the log, the configuration, the connection."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import config as configuration
from assetbatch.words import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

# A job that cron started waits for a PostgreSQL that is just restarting; a person at a terminal wants to be told.
JOB_PATIENCE_SECONDS = 10.0
T = TypeVar("T")


class LogFormat(StrEnum):
    """How lines of the log look."""

    PLAIN = "plain"
    JSON = "json"
    JOURNALD = "journald"


# Priorities of syslog, which journald reads at the beginning of a line.
SYSLOG_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Invocation(Struct):
    """The global options of this command line, and the secrets that nothing it prints may contain.

    `job_exit_code`: a job has done its work, and ends so whatever becomes of what it prints.
    """

    config_file: Path | None = None
    verbosity: int = 0
    quiet: bool = False
    log_format: LogFormat = LogFormat.PLAIN
    command: str = ""
    json: bool = False
    is_configured: bool = False
    job_exit_code: int | None = None
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Invocation({self.command})"

    def mask(self, value: T) -> T:
        """Blot out secrets in a text, or in all texts of a document. None should get here; this is the net below."""
        masked: Any = value
        if isinstance(value, str):
            masked = configuration.masked(value, self.secrets)
        elif isinstance(value, dict):
            masked = {key: self.mask(one) for key, one in value.items()}
        elif isinstance(value, list):
            masked = [self.mask(one) for one in value]
        return cast("T", masked)

    def load_config(self) -> Config:
        """Read the configuration. Raises ConfigurationError with all faults."""
        config = configuration.load(file=self.config_file, environ=os.environ, cwd=working_folder())
        self.secrets, self.is_configured = config.secrets, True
        for doubt in config.doubts:
            # Who needs the key is told of its name where it is missed.
            if doubt.meant != "POLYGON_API_KEY":
                log.warning("%s", doubt.told)
        return config

    def whereabouts(self) -> str:
        """Return what tells the place that this command line is pointed at from others, be it readable or not."""
        return configuration.whereabouts(self.config_file, os.environ, working_folder())

    @contextmanager
    def connected(self, config: Config, *, patience_seconds: float = 0, create: bool = False) -> Iterator[Connection]:
        """Open the database for the block, and let its errors leave as ours."""
        from assetbatch.database import errors, opening

        with (
            errors.translated_errors(config.database.described),
            opening.connect(
                config.database,
                configuration.data_folder(os.environ),
                job=self.command,
                patience_seconds=patience_seconds,
                create=create,
            ) as opened,
        ):
            yield opened

    @contextmanager
    def installed(self, config: Config, *, patience_seconds: float = 0) -> Iterator[Connection]:
        """Open the database for the block. Raises SchemaError where its schema does not fit this program."""
        from assetbatch.database.setup import schema

        with self.connected(config, patience_seconds=patience_seconds) as connection:
            schema.check(connection)
            yield connection


log = logging.getLogger(__name__)
current = Invocation()


def working_folder() -> Path:
    """Return where relative paths begin; one that was deleted, or is closed to this user, has nothing in it."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def embedded_server() -> EmbeddedServer:
    """Return the embedded server of this user, be it there or not."""
    from assetbatch.database.embedded import EmbeddedServer

    return EmbeddedServer(configuration.data_folder(os.environ))


def without_starting(config: Config) -> Config:
    """Return a configuration whose embedded server stays as it is: one that somebody has stopped is not started."""
    if not config.database.embedded:
        return config
    conninfo = configuration.Secret(embedded_server().conninfo(config.database.name))
    return replace(config, database=replace(config.database, embedded=False, conninfo=conninfo))


def host() -> str:
    """Name this machine in the records."""
    return socket.gethostname()


def answer(document: dict[str, Any], text: str) -> None:
    """Print a command's answer: with --json its document, else its text."""
    if current.json:
        print_json(document)
    else:
        sys.stdout.write(f"{text}\n")


def print_json(document: dict[str, Any]) -> None:
    """Print a command's document, in the form of its contract: times RFC 3339 UTC, prices as strings."""
    sys.stdout.write(
        json.dumps({"schema": f"assetbatch.{current.command.replace(' ', '-')}/1"} | document, default=_jsonable) + "\n"
    )


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"no JSON for {type(value).__name__}")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = current.mask(super().format(record))
        match LogFormat.JSON if current.json else current.log_format:
            case LogFormat.JSON:
                moment = datetime.fromtimestamp(record.created, UTC)
                facts = {"time": moment.isoformat(), "level": record.levelname.lower(), "logger": record.name}
                return json.dumps(facts | {"message": text})
            case LogFormat.JOURNALD:
                prefix = f"<{SYSLOG_PRIORITIES.get(record.levelno, 6)}>"
                return "\n".join(prefix + line for line in text.splitlines())
        return f"assetbatch: {text}"


def format_for_stderr() -> LogFormat:
    """Return how lines look best where they go: systemd's journal reads a priority off each line."""
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return LogFormat.PLAIN
    return LogFormat.JOURNALD if configuration.is_journal(os.environ, stream) else LogFormat.PLAIN


def configure_log() -> None:
    """Send the log to stderr, as loud as the options say; a run that goes well says nothing."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    level = {0: logging.WARNING, 1: logging.INFO}.get(current.verbosity, logging.DEBUG)
    handler.setLevel(logging.ERROR if current.quiet else level)
    package = logging.getLogger("assetbatch")
    package.handlers = [handler]
    package.setLevel(handler.level)
    package.propagate = False
    # What psycopg could not do any more on a lost connection, in libpq's several lines; the loss itself is told by us.
    library = logging.getLogger("psycopg")
    library.handlers = [handler if current.verbosity > 1 else logging.NullHandler()]
    library.propagate = False
