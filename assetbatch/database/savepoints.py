"""Refusals: of rows that a table does not take together, those are found that it refuses, and the others are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, pairwise
from typing import TYPE_CHECKING, Generic, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.database.connection import Connection

R = TypeVar("R")
T = TypeVar("T")

# Not about the rows, wherever it is raised: connection, transaction, memory and disk, locks, time-outs, the system.
TROUBLE = ("08", "25", "40", "53", "55", "57", "58")
# What a constraint, a column's type or a trigger of the platform raises of a row.
OF_ROWS = ("22", "23", "44", "P0")
# Of these rows tried alone, the first and the last among them, one that is taken shows that the table takes some.
PROBES = 8


@dataclass(slots=True)
class Sifted(Generic[R, T]):
    """What became of rows: what `put` gave for those that were taken, part by part; the others, each with its error.

    `statements`: how often it was tried.
    """

    taken: list[T] = field(default_factory=list)
    refused: list[tuple[R, psycopg.Error]] = field(default_factory=list)
    statements: int = 0


def refuses_row(error: psycopg.Error) -> bool:
    """Return whether a row is refused for what it is: by a constraint, a type, a policy, or a trigger's function."""
    code = error.sqlstate or "08"
    if code.startswith(TROUBLE) and code != "55000":
        return False
    by_policy = error.diag.source_function == "ExecWithCheckOptions"
    return code.startswith(OF_ROWS) or by_policy or error.diag.context is not None


def refuses_table(error: psycopg.Error) -> bool:
    """Return whether a table refuses whatever it is given: a privilege is missing, a partition, a way to write at all.

    PostgreSQL tells a missing partition as a violated check, but of a constraint without a name.
    """
    if isinstance(error, psycopg.errors.CheckViolation):
        return error.diag.constraint_name is None and error.diag.context is None
    code = error.sqlstate or "08"
    is_there = code not in {psycopg.errors.UndefinedTable.sqlstate, psycopg.errors.InvalidSchemaName.sqlstate}
    return is_there and not refuses_row(error) and (code.startswith(("42", "0A")) or code == "55000")


def refuses(error: psycopg.Error) -> bool:
    """Return whether an error is about what was to be stored, or where; any other is trouble of the server or ours."""
    return refuses_row(error) or refuses_table(error)


def sift(
    connection: Connection,
    rows: Sequence[R],
    put: Callable[[Sequence[R]], T],
    *,
    is_refusal: Callable[[psycopg.Error], bool] = refuses_row,
    most_statements: int | None = None,
) -> Sifted[R, T]:
    """Put rows into a table, inside the caller's transaction: together, else in halves, down to those that are refused.

    `put` writes some of them; each time it has a savepoint of its own. Where halves bring nothing to light others are
    tried first. With `most_statements`, rows that are not tried by then count as refused for the first one's reason;
    so do all where each of some that are tried alone is refused, or the table cannot be written at all. Raises what is
    no refusal.
    """
    sieve = _Sieve(connection, put, is_refusal)
    found = sieve.found
    if not rows or sieve.takes(rows) or len(rows) == 1:
        return found
    first = sieve.errors[0]
    middle = len(rows) // 2
    parts = [rows[:middle], rows[middle:]]
    if most_statements is not None:
        probes = _probes(len(rows)) if refuses_row(first) else []
        for at in probes:
            sieve.takes(rows[at : at + 1])
        if not found.taken:
            found.refused = [(row, first) for row in rows]
            return found
        parts = [rows[before + 1 : after] for before, after in pairwise(probes)]
    sieve.look_into(parts, 0)
    while sieve.waiting:
        barren, _, _, part = heappop(sieve.waiting)
        if most_statements is not None and found.statements + 2 > most_statements:
            found.refused += [(row, first) for row in part]
        else:
            middle = len(part) // 2
            sieve.look_into([part[:middle], part[middle:]], barren)
    return found


def _probes(rows: int) -> list[int]:
    """Choose which of so many rows are tried alone."""
    return sorted({number * (rows - 1) // (PROBES - 1) for number in range(PROBES)})


class _Sieve(Generic[R, T]):
    """What was found so far, and the parts that were refused and are to be looked into."""

    def __init__(
        self,
        connection: Connection,
        put: Callable[[Sequence[R]], T],
        is_refusal: Callable[[psycopg.Error], bool],
    ) -> None:
        self._connection = connection
        self._put = put
        self._is_refusal = is_refusal
        self._order = count()
        self.found: Sifted[R, T] = Sifted()
        self.errors: list[psycopg.Error] = []
        # First those with the fewest halvings in a row that have shown nothing that is taken, of these the longest.
        self.waiting: list[tuple[int, int, int, Sequence[R]]] = []

    def takes(self, part: Sequence[R]) -> bool:
        self.found.statements += 1
        try:
            with self._connection.transaction():
                self.found.taken.append(self._put(part))
        except psycopg.Error as error:
            if not self._is_refusal(error):
                raise
            self.errors.append(error)
            if len(part) == 1:
                self.found.refused.append((part[0], error))
            return False
        return True

    def look_into(self, parts: Sequence[Sequence[R]], barren: int) -> None:
        refused = [part for part in parts if part and not self.takes(part)]
        fruitless = barren + 1 if len(refused) == len(parts) else 0
        for part in refused:
            if len(part) > 1:
                heappush(self.waiting, (fruitless, -len(part), next(self._order), part))
