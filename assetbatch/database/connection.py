"""Connections: how one is opened, what bounds it, and what its errors mean.

Nothing here depends on a session, so that PgBouncer in transaction mode will do: no prepared statements, no LISTEN, no
session advisory locks; what a transaction needs is set locally in it.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from assetbatch.database.embedded import EmbeddedServer
from assetbatch.errors import DatabaseUnavailableError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg.abc import Query

    from assetbatch import config
    from assetbatch.errors import AssetbatchError

log = logging.getLogger(__name__)

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

CONNECT_TIMEOUT_SECONDS = 5
TCP_USER_TIMEOUT_MS = 30_000

# What statements meet that were written for columns of other types: since the schema's version fits, the platform's.
OTHERWISE_SHAPED = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.InvalidColumnReference,
    psycopg.errors.GeneratedAlways,
    psycopg.errors.WrongObjectType,
)

# The last one is for a process that is frozen: the server lets go of its locks.
LIMIT_TRANSACTION = """
select set_config('lock_timeout', %(lock_timeout)s, true), set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', '30s', true)
"""

# Of errors that no further run mends by itself.
MENDS = {
    "ReadOnlySqlTransaction": "name the primary server, not a standby",
    "DiskFull": (
        "make room where PostgreSQL keeps its data; then the next run carries on, and no item has lost an attempt"
    ),
}


class LoggingCursor(psycopg.Cursor[Row]):
    """Logs each statement, on one line and without its parameters."""

    def execute(self, query: Query, *arguments: Any, **options: Any) -> Self:
        """Execute and log."""
        text = query if isinstance(query, str) else type(query).__name__
        log.debug("%s", " ".join(str(text).split()))
        return super().execute(query, *arguments, **options)


def _open(conninfo: str, application_name: str) -> Connection:
    connection: Connection = psycopg.connect(
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
    connection.add_notice_handler(_pass_on)
    if log.isEnabledFor(logging.DEBUG):
        connection.cursor_factory = LoggingCursor
    # A price's digits survive only as Decimal.
    set_json_loads(partial(json.loads, parse_float=Decimal), connection)
    return connection


def _pass_on(notice: psycopg.errors.Diagnostic) -> None:
    """Let the log have what the server warns of."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def connect(
    database: config.Database,
    data_folder: Path,
    *,
    job: str,
    patience_seconds: float = 0,
    create: bool = False,
) -> Connection:
    """Open a connection for `job`; an embedded server that is not running is started.

    PostgreSQL that is away is waited for with backoff, `patience_seconds` in all. With `create`, an embedded server and
    its database are made when they are not there yet.

    Raises DatabaseUnavailableError with PostgreSQL's own words, and SchemaError where an embedded server or its
    database was never made.
    """
    application_name = f"assetbatch {job}"
    if database.embedded:
        server = EmbeddedServer(data_folder)
        conninfo = server.conninfo(database.name)
        if not create:
            try:
                return _open(conninfo, application_name)
            except psycopg.OperationalError:
                # Not running, or the database is not there: starting it tells which.
                pass
        server.start(create=create)
        if create:
            server.create_database(database.name)
    else:
        assert database.conninfo is not None  # noqa: S101 - a database is embedded or has one
        conninfo = database.conninfo.reveal()
    try:
        if not patience_seconds:
            return _open(conninfo, application_name)
        # Costs an import that a command at a terminal does without.
        from assetbatch.database.retries import patiently

        return patiently(partial(_open, conninfo, application_name), patience_seconds)
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


@contextmanager
def translated_errors(described: str) -> Iterator[None]:
    """Let psycopg's errors leave as the tool's own: lost connections, missing schema, missing privileges."""
    try:
        yield
    except psycopg.Error as error:
        own = meaning_of(error, described)
        if own is None:
            raise
        raise own from error


def meaning_of(error: psycopg.Error, described: str) -> AssetbatchError | None:
    """Return what an error of the database so `described` means for who runs a command; None: it is a bug."""
    words = words_of(error)
    if shaped := _schema_hint(error):
        return SchemaError(f"{described}: {words}", hint=shaped)
    hint = mend_of(type(error).__name__)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return DatabaseUnavailableError(f"{described} is read only: {words}", hint=hint)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return DatabaseUnavailableError(f"{described}: {words}", hint=hint or "the next run carries on")
    return None


def mend_of(name: str | None) -> str:
    """Return what mends an error of the database, by the name of its class, as a run keeps it; empty: nobody knows."""
    return MENDS.get(name or "", "")


def _schema_hint(error: psycopg.Error) -> str:
    """Return what helps where the database is not as it has to be; nothing where it is."""
    if error.diag.context is not None and not isinstance(error, psycopg.OperationalError):
        place = " ".join(error.diag.context.split())
        return f"a trigger or a function of the platform's own tables raised it ({place}): their owner has to mend that"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return "it has no schema for assetbatch, or not all of it: run `assetbatch init`"
    if isinstance(error, OTHERWISE_SHAPED):
        return "a table is not as it has to be: `assetbatch doctor` says what differs"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return _privilege_hint(words_of(error))
    return ""


def _privilege_hint(words: str) -> str:
    """Return what helps a role that was refused; PostgreSQL names the object, not what it was wanted for."""
    if "row-level security" in words:
        return "as the table's owner, make a policy that lets this role see and write all rows, or give it BYPASSRLS"
    if "must be owner" in words:
        return "run this as the owner of the tables"
    return (
        "`assetbatch doctor` prints what to grant for the jobs; what it does not name, a trigger of the platform's"
        " needs. `init` is for the tables' owner: `assetbatch init --check` prints what that lacks"
    )


def words_of(error: psycopg.Error) -> str:
    """Tell what PostgreSQL, or its library, said."""
    return (error.diag.message_primary or str(error)).strip()


@contextmanager
def transaction(connection: Connection, *, lock_timeout: str = "5s", statement_timeout: str = "30s") -> Iterator[None]:
    """Run the block as one transaction whose locks and statements end in bounded time."""
    with connection.transaction():
        connection.execute(LIMIT_TRANSACTION, {"lock_timeout": lock_timeout, "statement_timeout": statement_timeout})
        yield
