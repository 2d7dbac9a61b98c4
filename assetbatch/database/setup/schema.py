"""The schema: migrations, the check that it fits this program, whose prices it holds, and what a role must be granted.

Migrations are the numbered files of `migrations/`, applied in order, all in one transaction under a lock, so that
several hosts may run `init` at once, and jobs meanwhile. After them the functions of `functions/` are made anew: one
that changes is edited where it stands, and comes with a migration, if only an empty one. Migrations add before they
remove, a release apart: a program works with a newer schema for as long as `assetbatch.meta.oldest_program` allows it.
"""

from __future__ import annotations

import re
import time
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg
from msgspec import Struct
from psycopg import sql

from assetbatch import __version__
from assetbatch.database.query import Query
from assetbatch.database.rows import one, value
from assetbatch.database.setup.platform import Lack, PlatformTablesError, keep_provider, lacks, volume_lacks
from assetbatch.errors import SchemaError, SourceMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from importlib.resources.abc import Traversable

    from assetbatch.database.connection import Connection, Row
    from assetbatch.model import Asset

# Changed together with a migration that older programs cannot work with.
OLDEST_PROGRAM = "0.1.0"

LOCK_SECONDS = 60
PATIENT_AFTER_SECONDS = 10

# Names the lock of all who migrate this database; any constant will do.
LOCK_MIGRATIONS = "select pg_advisory_xact_lock(hashtextextended('assetbatch.migrations', 0))"

SET_LOCK_TIMEOUT = "select set_config('lock_timeout', %(timeout)s, true)"

LOCK_OWN_TABLES = """
do $$
begin
  execute (
    select format('lock table %s in access exclusive mode', string_agg(format('%I.%I', schemaname, tablename), ', '))
    from pg_tables where schemaname = 'assetbatch'
  );
end
$$
"""

CREATE_MIGRATIONS_TABLE = """
do $$
begin
  if to_regnamespace('assetbatch') is null then
    create schema assetbatch;
  end if;
  if to_regclass('assetbatch.migrations') is null then
    create table assetbatch.migrations (
      version    int primary key,
      name       text not null,
      program    text not null,
      applied_at timestamptz not null default clock_timestamp()
    );
    create table assetbatch.meta (key text primary key, value text not null);
  end if;
end
$$
"""

IS_MADE = "select to_regclass('assetbatch.migrations') is not null as made"

APPLIED_MIGRATIONS = "select version from assetbatch.migrations"

RECORD_MIGRATION = """
insert into assetbatch.migrations (version, name, program) values (%(version)s, %(name)s, %(program)s)
"""

SET_OLDEST_PROGRAM = """
insert into assetbatch.meta (key, value) values ('oldest_program', %(oldest_program)s)
on conflict (key) do update set value = excluded.value
"""

# Read by the migration that makes the table.
SET_PARTITION_BARS = "select set_config('assetbatch.partition_bars', %(value)s, true)"

READ_STATE = """
select (select max(version) from assetbatch.migrations) as version,
       (select value from assetbatch.meta where key = 'oldest_program') as oldest_program,
       clock_timestamp() as now
"""

# An update of nothing, since `do nothing` would return no row.
CLAIM_SOURCE = """
insert into assetbatch.meta as m (key, value) values ('source', %(source)s)
on conflict (key) do update set value = m.value
returning value
"""

READ_SOURCE = "select value from assetbatch.meta where key = 'source'"


class Migration(Struct, frozen=True):
    """One numbered file of `migrations/`."""

    version: int
    name: str
    file: Traversable

    @property
    def full_name(self) -> str:
        """Its name with its number, as in its file's."""
        return f"{self.version:04}_{self.name}"

    @property
    def text(self) -> str:
        """Its SQL."""
        return self.file.read_text("utf-8")


def migrations() -> list[Migration]:
    """All migrations that this program knows, in order."""
    found = []
    for file in files("assetbatch.database.migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file))
    return sorted(found, key=lambda migration: migration.version)


def functions() -> list[str]:
    """All functions of the newest schema, as the SQL that makes or replaces them."""
    found = [file for file in files("assetbatch.database.functions").iterdir() if file.name.endswith(".sql")]
    return [file.read_text("utf-8") for file in sorted(found, key=lambda file: file.name)]


def migrate(connection: Connection, *, assets: Sequence[Asset] = (), partition_bars: bool = False) -> list[Migration]:
    """Bring the schema up to date in one transaction; return the migrations that were applied, in order.

    `assets` are those that the catalogue is going to have, too. `partition_bars`: should the table of the bars
    be missing, it is made with a partition for each month.

    Raises PlatformTablesError where tables of the platform lack what is relied on, and SchemaError when the schema is
    too new for this program.
    """
    with connection.transaction(lock_timeout=f"{LOCK_SECONDS}s", statement_timeout="10min"):
        connection.execute(LOCK_MIGRATIONS)
        connection.execute(SET_PARTITION_BARS, {"value": "on" if partition_bars else "off"})
        _refuse(lacks(connection))
        connection.execute(CREATE_MIGRATIONS_TABLE)
        missing = missing_migrations(connection)
        if missing:
            _lock_own_tables(connection)
        for migration in missing:
            connection.execute(sql.SQL(migration.text))
            connection.execute(
                RECORD_MIGRATION,
                {"version": migration.version, "name": migration.name, "program": __version__},
            )
        keep_provider(connection)
        if missing:
            for text in functions():
                connection.execute(sql.SQL(text))
            connection.execute(SET_OLDEST_PROGRAM, {"oldest_program": OLDEST_PROGRAM})
        # By now, a table of our own is as it has to be.
        _refuse(volume_lacks(connection, assets))
    return missing


def _refuse(found: Sequence[Lack]) -> None:
    if found:
        raise PlatformTablesError([one.what for one in found], [one.statement for one in found])


def _lock_own_tables(connection: Connection) -> None:
    """Keep the jobs off the tool's tables while they change: they wait, and none of them becomes a deadlock's victim.

    All tables are taken before the first one changes, or none: PostgreSQL looks for deadlocks after a second of
    waiting, and by then they have been let go. Only who still has not got them after some seconds waits for longer:
    that ends an autovacuum.
    """
    import tenacity

    began = time.monotonic()

    def attempt() -> None:
        patient = time.monotonic() - began > PATIENT_AFTER_SECONDS
        with connection.transaction():
            connection.execute(SET_LOCK_TIMEOUT, {"timeout": "2s" if patient else "100ms"})
            connection.execute(LOCK_OWN_TABLES)
            connection.execute(SET_LOCK_TIMEOUT, {"timeout": f"{LOCK_SECONDS}s"})

    tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        stop=tenacity.stop_after_delay(LOCK_SECONDS),
        wait=tenacity.wait_random(0.01, 0.1),
        reraise=True,
    )(attempt)


def missing_migrations(connection: Connection) -> list[Migration]:
    """Return which migrations are yet to be applied, in order; all, where there is no schema.

    Raises SchemaError when the schema is too new for this program.
    """
    if not value(connection.execute(IS_MADE)):
        return migrations()
    _refuse_newer(one(connection.execute(READ_STATE)))
    applied = {row["version"] for row in connection.execute(APPLIED_MIGRATIONS)}
    return [migration for migration in migrations() if migration.version not in applied]


def version(connection: Connection) -> int | None:
    """Return the version of the schema, which may be newer than this program; None: there is none."""
    number: int | None = value(connection.execute(READ_STATE)) if value(connection.execute(IS_MADE)) else None
    return number


def check(connection: Connection) -> datetime:
    """Check that the schema fits this program; return the database's time.

    Raises SchemaError when there is none, or when it is too old or too new.
    """
    try:
        row = connection.execute(READ_STATE).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    newest = migrations()[-1].version
    if row is None or row["version"] is None:
        raise SchemaError("the database has no schema for assetbatch", hint="run `assetbatch init`")
    if row["version"] < newest:
        raise SchemaError(
            f"the database's schema has version {row['version']}, this program needs {newest}",
            hint="run `assetbatch init`",
        )
    _refuse_newer(row)
    now: datetime = row["now"]
    return now


def _refuse_newer(state: Row) -> None:
    """Raise SchemaError when the schema, whose state was read, has changed beyond what this program works with."""
    if state["oldest_program"] is not None and _numbers(state["oldest_program"]) > _numbers(__version__):
        raise SchemaError(
            f"the database's schema, version {state['version']}, needs assetbatch {state['oldest_program']} or newer,"
            f" this is {__version__}",
            hint="upgrade this host",
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def claim_source(connection: Connection, source: str) -> None:
    """Make the database that of `source`; the first run decides.

    Raises SourceMismatchError when it belongs to another one: invented prices must never mix with real ones.
    """
    found = value(connection.execute(CLAIM_SOURCE, {"source": source}))
    if found != source:
        raise SourceMismatchError(
            f"this database holds prices of {found}, but provider.base_url is of {source}",
            hint="name another, empty database for the other source (`database: {embedded: true, name: ...}`, or"
            " DATABASE_URL) and run `assetbatch init` there, or set provider.base_url (POLYGON_BASE_URL) back",
        )


def source() -> Query[str | None]:
    """Ask for the name of the source that the database belongs to; None before the first run."""
    return Query(READ_SOURCE, None, value)


def grants(role: str, *, reads_only: bool = False) -> str:
    """Return the SQL that grants `role` the least that the jobs need, or reading; for the tables' owner to run."""
    name = "grants_reader.sql" if reads_only else "grants.sql"
    template = files("assetbatch.database.setup").joinpath(name).read_text("utf-8")
    texts = {":role": sql.Identifier(role).as_string(), ":'role'": sql.Literal(role).as_string().lstrip()}
    # At once: a role may be called as one of them.
    return re.sub(":role|:'role'", lambda found: texts[found[0]], template)
