"""What an error of PostgreSQL means, by its SQLSTATE: psycopg's classes divide them otherwise.

psycopg has 25P04 (transaction_timeout) for an InternalError, as it has what a program does wrong within a transaction.
The classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from enum import Enum, auto

import psycopg


class Meaning(Enum):
    """What becomes of the transaction that met an error."""

    LOST = auto()
    """The connection is gone, or on its way: another one may do it."""
    IN_THE_WAY = auto()
    """Another transaction got in the way: it is worth another attempt, at once."""
    AWAY = auto()
    """The server cannot do it now, whatever it is asked for: no memory, no disk, no lock, out of time, out of order."""
    READ_ONLY = auto()
    """It is a standby, or was made read only."""
    OURS = auto()
    """It is about what was asked: a row, a table, a privilege, or a bug."""


# What our own tables refuse is no fault of the platform's rows.
OWN_SCHEMA = "assetbatch"

# The first that fits, the whole code or the beginning of it.
_MEANINGS = {
    "25006": Meaning.READ_ONLY,
    "25P03": Meaning.LOST,  # idle_in_transaction_session_timeout
    "25P04": Meaning.LOST,  # transaction_timeout
    "57P": Meaning.LOST,  # a server that is shut down or starts, or an idle session
    "08": Meaning.LOST,
    "40": Meaning.IN_THE_WAY,
    "53": Meaning.AWAY,
    "55": Meaning.AWAY,  # lock_timeout, among others
    "57": Meaning.AWAY,  # statement_timeout, among others
    "58": Meaning.AWAY,
    "XX": Meaning.AWAY,
}


class AwayError(psycopg.OperationalError):
    """The connection is lost, and the server was waited for in vain, or is not waited for."""


def meaning_of(error: BaseException) -> Meaning:
    """Return what an error means for its transaction; libpq tells no SQLSTATE of a connection that broke."""
    if not isinstance(error, psycopg.Error):
        return Meaning.OURS
    if isinstance(error, AwayError):
        return Meaning.AWAY
    code = error.sqlstate
    if code is None:
        broke = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Meaning.LOST if broke else Meaning.OURS
    return means(code)


def means(code: str | None) -> Meaning:
    """Return what an SQLSTATE means."""
    return next((meaning for known, meaning in _MEANINGS.items() if (code or "").startswith(known)), Meaning.OURS)
