"""What the database is: server, role, clock, schema, privileges, columns."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from psycopg import sql

from assetbatch.database.read import doctor
from assetbatch.database.setup import platform, schema
from assetbatch.report.doctor.findings import Finding, fail, ok, warn
from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from assetbatch.config import Database
    from assetbatch.database.connection import Connection
    from assetbatch.database.read.doctor import Server

OLDEST_SERVER = 14
CLOCK_WARN_SECONDS = 5.0
CLOCK_FAIL_SECONDS = 60.0
MOST_NAMED = 8
MOST_GRANTED = 3


def server(found: Server, database: Database) -> Iterator[Finding]:
    """Report which server answers, whether it is new enough and may be written to, and as whom we are there."""
    major = found.version_number // 10_000
    pooled = ", through a pooler" if found.pooled else ""
    described = f"{database.described}, PostgreSQL {found.version}{pooled}"
    if major < OLDEST_SERVER:
        yield fail("database", described, f"PostgreSQL {OLDEST_SERVER} or newer is needed")
    elif not (found.writable or found.reads_only):
        yield fail("database", f"{described}: read only", "name the primary server, not a standby")
    else:
        yield ok("database", described)
    if found.superuser and not database.embedded:
        hint = "give the jobs a role of their own: `assetbatch init --grants ROLE` prints the SQL"
        yield warn("role", f"{found.role} is a superuser", hint)
    else:
        yield ok("role", found.role + (", of the embedded server alone" if database.embedded else ""))


def clock(connection: Connection, here: Callable[[], datetime]) -> Iterator[Finding]:
    """Hold the database's clock, which decides everything between hosts, against this host's."""
    before = here()
    there = doctor.clock(connection)
    after = here()
    # Half of the way is as good as any guess; what it may be wrong by counts in favour of the clocks.
    way = (after - before) / 2
    off = (there - before - way).total_seconds()
    beyond = max(0.0, abs(off) - way.total_seconds())
    found = f"the database's is {abs(off):.1f} s {'ahead of' if off > 0 else 'behind'} this host's"
    hint = "have both set by NTP (`timedatectl`): the vendor's times are held against the database's clock"
    if beyond > CLOCK_FAIL_SECONDS:
        yield fail("clock", found, hint)
    elif beyond > CLOCK_WARN_SECONDS:
        yield warn("clock", found, hint)
    else:
        yield ok("clock", f"the database's and this host's are within {abs(off):.1f} s of each other")


def fits(connection: Connection) -> Iterator[Finding]:
    """Report whether the schema fits this program, and the platform's tables what is relied on."""
    schema.check(connection)
    yield ok("schema", f"version {schema.migrations()[-1].version}")
    if lacks := doctor.platform_lacks(connection):
        hint = "`assetbatch init` prints the statements for the tables' owner"
        yield fail("tables", f"the platform's tables lack {named(lacks, most=MOST_NAMED)}", hint)


def row_security(connection: Connection) -> Iterator[Finding]:
    """Return where policies decide what the role sees, and which."""
    if active := [guard for guard in platform.guards(connection) if guard.is_active]:
        found = "; ".join(guard.sentence for guard in active)
        statements = " ".join(guard.mend for guard in active)
        yield warn("row security", found, f"let it see and write every row, as the tables' owner: {statements}")


def privileges(connection: Connection) -> Iterator[Finding]:
    """Report what the role lacks for the jobs, or for reading where it may not write at all."""
    found = doctor.server(connection)
    role, reads_only = found.role, found.reads_only
    option = f"assetbatch init --grants{'-reader' if reads_only else ''} {shlex.quote(role)}"
    if missing := doctor.missing_privileges(connection, writes=not reads_only):
        statements = "; ".join(f"GRANT {one} TO {sql.Identifier(role).as_string()}" for one in missing)
        hint = f"as the tables' owner: {statements}"
        if len(missing) > MOST_GRANTED:
            hint = f"as the tables' owner, run what `{option}` prints"
        yield fail("privileges", f"missing: {named(missing, most=MOST_NAMED, separator='; ')}", hint)
    elif reads_only:
        yield ok("privileges", f"{role} may read everything and write nothing: no job runs as this role")
    else:
        yield ok("privileges", "all that the jobs need")


def numbers(connection: Connection) -> Iterator[Finding]:
    """Report columns that round what the vendor sends."""
    if columns := doctor.rounding_columns(connection):
        each = ", ".join(f"{name} {kind}" for name, kind in columns)
        hint = f"if that matters, as its owner: ALTER TABLE market_data.ohlcv_5m ALTER {columns[0][0]} TYPE numeric, …"
        yield warn("numbers", f"market_data.ohlcv_5m may round prices: {each}", hint)
    else:
        yield ok("numbers", "prices and bars are stored as the vendor sends them: no column rounds")
