"""Backups of an embedded database: PostgreSQL's own pg_dump and pg_restore, and how a backup takes a database's place.

What is brought back is made whole beside the database and takes its name in one transaction: whatever ends a restore,
the database is the old one or the new one.
"""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, TypeVar

import psycopg
import tenacity
from psycopg import sql

from assetbatch.database.errors import translated_errors
from assetbatch.database.rows import one
from assetbatch.errors import AnswerLostError, DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

T = TypeVar("T")

CUSTOM_FORMAT = b"PGDMP"
"""How a file in PostgreSQL's custom format begins."""

RESTORING, REPLACED = "assetbatch: being restored", "assetbatch: replaced"
"""Names that a database has for the moment: before it takes its place, and after another has taken it."""

LOCK_WAIT_MS = 60_000
LOOK_SECONDS = 0.2

# Who owns what and who may do what is the matter of the server that it comes to: its roles are others.
_PORTABLE = ("--no-owner", "--no-privileges")

READ_CONTENT = """
select pg_size_pretty(pg_database_size(current_database())) as size,
       exists (
         select from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname not in ('information_schema', 'pg_catalog', 'pg_toast') and c.relkind <> 'i'
       ) as filled
"""

IS_THERE = "select from pg_database where datname = %(name)s"

# By the name that a command of the tool gives its connection.
IDLE_PATIENCE_SECONDS = 2.0

READ_COMMANDS = """
select distinct application_name from pg_stat_activity
where datname = %(name)s and application_name like 'assetbatch %%'
order by 1
"""

END_SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %(name)s"


def content(connection: Connection) -> str | None:
    """Return the size of the database for people; None where nobody has made anything in it."""
    found = one(connection.execute(READ_CONTENT))
    return found["size"] if found["filled"] else None


def dump(server: EmbeddedServer, database: str, output: IO[bytes], *, plain: bool, watch: Callable[[], object]) -> None:
    """Write a backup of `database`, as it is at one moment, to `output`: in the custom format, or as SQL.

    The server must run. `watch` is called now and then. Raises DatabaseUnavailableError with the program's own words.
    """
    options = [f"--format={'plain' if plain else 'custom'}", f"--lock-wait-timeout={LOCK_WAIT_MS}", *_PORTABLE]
    _run(server, "pg_dump", database, options, stdin=subprocess.DEVNULL, stdout=output, watch=watch)


def restore(
    server: EmbeddedServer,
    database: str,
    source: IO[bytes],
    *,
    prepare: Callable[[str], T],
    watch: Callable[[], object],
) -> T:
    """Put the backup in `source`, in the custom format, in the place of `database`; return what `prepare` did.

    `prepare` is called with the name under which all of it can be reached before it takes its place, and what it raises
    leaves `database` as it is. The server is set up where there is none.

    Raises DatabaseUnavailableError with the program's own words, and while commands of the tool use `database`.
    """
    server.start(create=True)
    with (
        translated_errors(server.described),
        psycopg.connect(server.conninfo("postgres"), autocommit=True, connect_timeout=5) as connection,
    ):
        _require_idle(connection, database)
        # What one that was killed has left. Another that is under way is in use, and is told so.
        _drop(connection, REPLACED)
        _drop(connection, RESTORING)
        server.create_database(RESTORING)
        try:
            options = [f"--dbname={RESTORING}", "--single-transaction", "--exit-on-error", *_PORTABLE]
            _run(server, "pg_restore", RESTORING, options, stdin=source, stdout=subprocess.DEVNULL, watch=watch)
            done = prepare(RESTORING)
            _swap(connection, database)
        except BaseException:
            with suppress(psycopg.Error):  # the next one does it
                _drop(connection, RESTORING, force=True)
            raise
        _drop(connection, REPLACED, force=True)
    return done


def _require_idle(connection: psycopg.Connection, database: str) -> None:
    """Refuse to go on while commands of the tool are at work: their calls would count in the database that goes.

    One that has just ended is waited for: the server takes a moment to see that.
    """
    end = time.monotonic() + IDLE_PATIENCE_SECONDS
    while found := [name for (name,) in connection.execute(READ_COMMANDS, {"name": database})]:
        if time.monotonic() < end:
            time.sleep(0.1)
            continue
        raise DatabaseUnavailableError(
            f"the database {database} is in use by {', '.join(found)}; nothing has changed",
            hint="stop cron's lines or the timers until this is done, and run it again once those have ended",
        )


def _drop(connection: psycopg.Connection, name: str, *, force: bool = False) -> None:
    statement = "drop database if exists {} with (force)" if force else "drop database if exists {}"
    connection.execute("set client_min_messages = warning")
    connection.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _swap(connection: psycopg.Connection, database: str) -> None:
    """Let RESTORING take the name of `database`; a program that uses it is disconnected, and connects anew to that."""

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(psycopg.errors.ObjectInUse),
        stop=tenacity.stop_after_attempt(3),
        reraise=True,
    )
    def attempt() -> None:
        _require_idle(connection, database)
        with connection.transaction():
            if connection.execute(IS_THERE, {"name": database}).rowcount:
                connection.execute(END_SESSIONS, {"name": database})
                _rename(connection, database, REPLACED)
            _rename(connection, RESTORING, database)

    attempt()


def _rename(connection: psycopg.Connection, old: str, new: str) -> None:
    connection.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(old), sql.Identifier(new)))


def _run(
    server: EmbeddedServer,
    program: str,
    database: str,
    options: Sequence[str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    watch: Callable[[], object],
) -> None:
    client = server.client(program, database)
    with subprocess.Popen(  # noqa: S603 - programs of the wheel, no shell
        [client.program, "--no-password", *options],
        env=client.environment | {"LC_ALL": "C"},
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the tool, which ends it
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            told = _wait(process, watch)
        finally:
            process.kill()
    if process.returncode == -signal.SIGPIPE:
        raise AnswerLostError(BrokenPipeError())
    if process.returncode:
        raise DatabaseUnavailableError(told.strip() or f"{program} ended with {process.returncode}")


def _wait(process: subprocess.Popen[str], watch: Callable[[], object]) -> str:
    """Return what the program has said on stderr when it has ended."""
    while True:
        watch()
        try:
            return process.communicate(timeout=LOOK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            continue
