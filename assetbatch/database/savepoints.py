"""Refusals: of rows that a table does not take together, those are found that it refuses, and the others are stored."""

from __future__ import annotations

from functools import partial
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Generic, TypeVar

import psycopg
from msgspec import Struct, field

from assetbatch.database.retries import in_transaction
from assetbatch.database.sqlstates import OWN_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.database.connection import Connection

R = TypeVar("R")
T = TypeVar("T")

# Not about what is stored, whoever raises it: connection, transaction, conflicts, memory and disk, locks, time-outs,
# the system.
TROUBLE = ("08", "25", "40", "53", "55P03", "57", "58030")
# What a constraint, a column's type or a trigger of the platform raises of a row.
OF_ROWS = ("22", "23", "44", "45", "P0")
# What a constraint would say at the commit it says at once, and of the rows that it is about; but not in between, when
# a row of another table may still be missing.
DEFER_CONSTRAINTS = "set constraints all deferred"
CHECK_CONSTRAINTS = "set constraints all immediate"

# Of these rows tried alone, the first and the last among them, one that is taken shows that the table takes some.
PROBES = 8


class Sifted(Struct, Generic[R, T]):
    """What became of rows: what `put` gave for those that were taken, part by part; the others, each with its error.

    `statements`: how often it was tried.
    """

    taken: list[T] = field(default_factory=list)
    refused: list[tuple[R, psycopg.Error]] = field(default_factory=list)
    statements: int = 0


def refuses(error: psycopg.Error) -> bool:
    """Return whether an error is about what was to be stored, or where; any other is trouble of the server or ours.

    What the platform raises has no list of classes: whatever is no trouble is worth trying the rows apart.
    """
    return error.diag.schema_name != OWN_SCHEMA and not (error.sqlstate or "08").startswith(TROUBLE)


def refuses_row(error: psycopg.Error) -> bool:
    """Return whether a row is refused for what it is: by a constraint, a type, a policy, or a function of a trigger."""
    by_policy = error.diag.source_function == "ExecWithCheckOptions"
    of_rows = (error.sqlstate or "").startswith(OF_ROWS)
    return refuses(error) and (of_rows or by_policy or error.diag.context is not None)


def refuses_table(error: psycopg.Error) -> bool:
    """Return whether a table refuses whatever it is given: a privilege is missing, a partition, a way to write at all.

    PostgreSQL tells a missing partition as a violated check, but of a constraint without a name.
    """
    if isinstance(error, psycopg.errors.CheckViolation):
        return error.diag.constraint_name is None and error.diag.context is None
    is_there = error.sqlstate not in {psycopg.errors.UndefinedTable.sqlstate, psycopg.errors.InvalidSchemaName.sqlstate}
    return is_there and refuses(error) and not refuses_row(error)


def carefully(connection: Connection, work: Callable[..., T], *, lock_timeout: str | None = None) -> T:
    """Do some work in a transaction of its own; where something was refused in it, or at its end, do it carefully.

    `work` is told which by `carefully`. So what is careful costs nothing where nothing is refused. Deadlocks and
    serialisation failures repeat either. A row that another transaction holds is refused, too.
    """
    try:
        return in_transaction(connection, partial(work, carefully=False), lock_timeout=lock_timeout)
    except psycopg.Error as error:
        if not (refuses(error) or isinstance(error, psycopg.errors.LockNotAvailable)):
            raise
        return in_transaction(connection, partial(work, carefully=True), lock_timeout=lock_timeout)


def sift(
    connection: Connection,
    rows: Sequence[R],
    put: Callable[[Sequence[R]], T],
    *,
    is_refusal: Callable[[psycopg.Error], bool] = refuses,
    most_statements: int | None = None,
) -> Sifted[R, T]:
    """Put rows into a table, inside the caller's transaction: together, else in halves, down to those that are refused.

    `put` writes some of them; each time it has a savepoint of its own, at whose end deferred constraints are looked at.
    Halves that lie beside rows that were taken come first: what is refused often lies together. With
    `most_statements`, rows that are not tried by then count as refused for the first one's reason. So do all, where
    the table may refuse whatever comes, or statements are bounded, and each of some that are tried alone is refused.
    Raises what is no refusal.
    """
    sieve = _Sieve(connection, rows, put, is_refusal)
    found = sieve.found
    if not rows or sieve.takes(0, len(rows)) or len(rows) == 1:
        return found
    first = sieve.errors[0]
    parts = _halves(0, len(rows))
    if most_statements is not None or not refuses_row(first):
        probes = _probes(len(rows))
        for at in probes:
            sieve.takes(at, at + 1)
        if not found.taken:
            found.refused = [(row, first) for row in rows]
            return found
        parts = [(before + 1, after) for before, after in pairwise(probes) if before + 1 < after]
    sieve.look_into(parts)
    while sieve.waiting:
        _, _, start, end = heappop(sieve.waiting)
        if most_statements is not None and found.statements + 2 > most_statements:
            found.refused += [(row, first) for row in rows[start:end]]
        else:
            sieve.look_into(_halves(start, end))
    return found


def _probes(rows: int) -> list[int]:
    """Choose which of so many rows are tried alone."""
    return sorted({number * (rows - 1) // (PROBES - 1) for number in range(PROBES)})


def _halves(start: int, end: int) -> list[tuple[int, int]]:
    middle = (start + end) // 2
    return [(start, middle), (middle, end)]


class _Sieve(Generic[R, T]):
    """What was found so far, and the parts, from one row to just before another, that are to be looked into."""

    def __init__(
        self,
        connection: Connection,
        rows: Sequence[R],
        put: Callable[[Sequence[R]], T],
        is_refusal: Callable[[psycopg.Error], bool],
    ) -> None:
        self._connection = connection
        self._rows = rows
        self._put = put
        self._is_refusal = is_refusal
        self._is_taken = bytearray(len(rows) + 1)
        self.found: Sifted[R, T] = Sifted()
        self.errors: list[psycopg.Error] = []
        # First those beside a row that was taken, of these the longest.
        self.waiting: list[tuple[bool, int, int, int]] = []

    def takes(self, start: int, end: int) -> bool:
        self.found.statements += 1
        try:
            with self._connection.transaction():
                self._connection.execute(DEFER_CONSTRAINTS)
                taken = self._put(self._rows[start:end])
                self._connection.execute(CHECK_CONSTRAINTS)
        except psycopg.Error as error:
            if not self._is_refusal(error):
                raise
            self.errors.append(error)
            if end - start == 1:
                self.found.refused.append((self._rows[start], error))
            return False
        self.found.taken.append(taken)
        self._is_taken[start:end] = b"\1" * (end - start)
        return True

    def look_into(self, parts: Sequence[tuple[int, int]]) -> None:
        for start, end in [part for part in parts if not self.takes(*part)]:
            if end - start > 1:
                # Before the first row comes the one after the last: none, that is not taken.
                beside = self._is_taken[start - 1] or self._is_taken[end]
                heappush(self.waiting, (not beside, start - end, start, end))
