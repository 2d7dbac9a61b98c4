"""How a connection is opened: what bounds it, what it reads, and how long a server that is away is waited for."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from assetbatch.database import sqlstates
from assetbatch.database.connection import Connection, Plain, Row
from assetbatch.database.sqlstates import Meaning
from assetbatch.errors import DatabaseUnavailableError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from psycopg.abc import Buffer
    from psycopg.abc import Query as Text

    from assetbatch import config

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5
TCP_USER_TIMEOUT_MS = 30_000
# A server that was there is waited for longer: it restarts, and what a run has in hand is worth it.
LONGER_SECONDS = 20.0
# libpq tells no error code of a connection that failed, only the server's words.
REFUSED = "authentication failed|does not exist|pg_hba.conf"
# A price's digits survive only as Decimal.
_DECODER = json.JSONDecoder(parse_float=Decimal)


def connect(
    database: config.Database,
    data_folder: Path,
    *,
    job: str,
    patience_seconds: float = 0,
    create: bool = False,
) -> Connection:
    """Open a connection for `job`; an embedded server that is not running is started.

    PostgreSQL that is away is waited for with backoff, `patience_seconds` in all, and LONGER_SECONDS where it was there
    before. With `create`, an embedded server and its database are made when they are not there yet.

    Raises DatabaseUnavailableError with PostgreSQL's own words, and SchemaError where an embedded server or its
    database was never made.
    """
    server = None
    if database.embedded:
        from assetbatch.database.embedded import EmbeddedServer

        server = EmbeddedServer(data_folder)
        conninfo = server.conninfo(database.name)
    else:
        assert database.conninfo is not None  # noqa: S101 - a database is embedded or has one
        conninfo = database.conninfo.reveal()
    opener = partial(_open, conninfo, f"assetbatch {job}")
    reopen = partial(_patiently, opener)
    patience = max(patience_seconds, LONGER_SECONDS) if patience_seconds else 0
    if server is not None:
        if not create:
            try:
                return Connection(opener(), reopen, patience_seconds=patience)
            except psycopg.OperationalError:
                # Not running, or the database is not there: starting it tells which.
                pass
        server.start(create=create)
        if create:
            server.create_database(database.name)
    try:
        plain = reopen(patience_seconds) if patience_seconds else opener()
        return Connection(plain, reopen, patience_seconds=patience)
    except psycopg.OperationalError as error:
        if database.embedded and f'"{database.name}" does not exist' in str(error):
            raise SchemaError(
                f"the embedded server has no database {database.name}", hint="run `assetbatch init`"
            ) from None
        raise DatabaseUnavailableError(
            f"{database.described}: {' '.join(str(error).split())}",
            hint=_connect_hint(str(error), database.name),
        ) from None


def _connect_hint(words: str, name: str) -> str:
    if "permission denied for database" in words:
        return f"as the database's owner: GRANT CONNECT ON DATABASE {sql.Identifier(name).as_string()} TO the role"
    return "is PostgreSQL running, does the database exist, and are host, user and password right?"


class LoggingCursor(psycopg.Cursor[Row]):
    """Logs each statement, on one line and without its parameters."""

    def execute(self, query: Text, *arguments: Any, **options: Any) -> Self:
        """Execute and log."""
        text = query if isinstance(query, str) else type(query).__name__
        log.debug("%s", " ".join(str(text).split()))
        return super().execute(query, *arguments, **options)


def _open(conninfo: str, application_name: str) -> Plain:
    connection: Plain = psycopg.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=None,
        row_factory=dict_row,
        application_name=application_name,
        client_encoding="UTF8",  # a database of SQL_ASCII would answer with bytes
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        keepalives=1,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=TCP_USER_TIMEOUT_MS,
    )
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.add_notice_handler(_pass_on)
    connection.adapters.register_loader("timestamptz", _TimeLoader)
    connection.adapters.register_loader("date", _DateLoader)
    if log.isEnabledFor(logging.DEBUG):
        connection.cursor_factory = LoggingCursor
    set_json_loads(_json, connection)
    return connection


def _json(text: str | bytes) -> Any:
    return _DECODER.decode(text if isinstance(text, str) else text.decode())


def _pass_on(notice: psycopg.errors.Diagnostic) -> None:
    """Let the log have what the server warns of; that it goes down is no news to who waits for it then."""
    if notice.severity_nonlocalized == "WARNING":
        level = logging.INFO if sqlstates.means(notice.sqlstate) is Meaning.LOST else logging.WARNING
        log.log(level, "%s", notice.message_primary)


def _patiently(opener: Callable[[], Plain], seconds: float) -> Plain:
    """Connect; a PostgreSQL that is away is tried again with backoff, for so many seconds in all.

    One that is there and refuses is not: a wrong password stays wrong.
    """
    try:
        return opener()
    except psycopg.OperationalError as error:
        if not _is_away(error):
            raise
    # Here: most starts need none of it.
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

    return Retrying(
        retry=retry_if_exception(_is_away),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.2, max=3) + wait_random(0, 0.2),
        before_sleep=lambda _state: log.info("PostgreSQL is away, trying again"),
        reraise=True,
    )(opener)


def _is_away(error: BaseException) -> bool:
    return isinstance(error, psycopg.OperationalError) and not re.search(REFUSED, str(error))


class _TimeLoader(Loader):
    """Reads a time as SETTINGS makes the server write it; psycopg's own goes by what a pool last told of DateStyle."""

    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return datetime.combine(_nearest_day(text), time(), UTC)


class _DateLoader(Loader):
    """Reads a date, likewise."""

    def load(self, data: Buffer) -> date:
        text = bytes(data).decode()
        try:
            return date.fromisoformat(text)
        except ValueError:
            return _nearest_day(text)


def _nearest_day(text: str) -> date:
    """Return the nearest day that can be told, and reckoned with, to one that Python has no value for.

    A platform's table may have such: milliseconds that were taken for seconds, so that it is the year 50000. Raises
    ValueError where the text is no time.
    """
    if text == "-infinity" or text.endswith(" BC"):
        return date(1, 1, 2)
    if text == "infinity" or re.match("[0-9]{5,}-", text):
        return date(9999, 12, 30)
    raise ValueError(f"not a time: {text}")
