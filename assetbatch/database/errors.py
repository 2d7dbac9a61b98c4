"""What the database's errors mean for who runs a command, and what mends them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from assetbatch.database import sqlstates
from assetbatch.database.sqlstates import Meaning
from assetbatch.errors import DatabaseUnavailableError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.errors import AssetbatchError

# What statements meet that were written for columns of other types: since the schema's version fits, the platform's.
OTHERWISE_SHAPED = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.DatatypeMismatch,
    psycopg.errors.InvalidColumnReference,
    psycopg.errors.GeneratedAlways,
    psycopg.errors.WrongObjectType,
)

# Of errors that no further run mends by itself.
MENDS = {
    "ReadOnlySqlTransaction": "name the primary server, not a standby",
    "DiskFull": (
        "make room where PostgreSQL keeps its data; then the next run carries on, and no item has lost an attempt"
    ),
}


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
    meaning = sqlstates.meaning_of(error)
    if meaning is Meaning.OURS:
        return None
    hint = mend_of(type(error).__name__)
    if meaning is Meaning.READ_ONLY:
        return DatabaseUnavailableError(f"{described} is read only: {words}", hint=hint)
    return DatabaseUnavailableError(f"{described}: {words}", hint=hint or "the next run carries on")


def mend_of(name: str | None) -> str:
    """Return what mends an error of the database, by the name of its class, as a run keeps it; empty: nobody knows."""
    return MENDS.get(name or "", "")


def _schema_hint(error: psycopg.Error) -> str:
    """Return what helps where the database is not as it has to be; nothing where it is."""
    if error.diag.context is not None and sqlstates.meaning_of(error) is Meaning.OURS:
        place = " ".join(error.diag.context.split())
        return f"a trigger or a function of the platform's own tables raised it ({place}): their owner has to mend that"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return "it has no schema for assetbatch, or not all of it: run `assetbatch init`"
    if isinstance(error, psycopg.errors.UniqueViolation) and error.diag.schema_name == sqlstates.OWN_SCHEMA:
        # The tool gives no number twice.
        return (
            "the sequences are behind their tables, as after a load of the data alone: run `assetbatch init --restored`"
        )
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
        "`assetbatch doctor` says whether this role may only read, and prints what to grant for the jobs; what it does"
        " not name, a trigger of the platform's needs. `init` is for the tables' owner: `assetbatch init --check`"
        " prints what that lacks"
    )


def words_of(error: psycopg.Error) -> str:
    """Return what PostgreSQL, or its library, said."""
    return (error.diag.message_primary or str(error)).strip()
