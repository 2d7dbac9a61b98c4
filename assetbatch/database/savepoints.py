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
    found: Sifted[R, T] = Sifted()

    def is_taken(part: Sequence[R]) -> bool:
        found.statements += 1
        try:
            with connection.transaction():
                found.taken.append(put(part))
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            errors.append(error)
            if len(part) == 1:
                found.refused.append((part[0], error))
            return False
        return True

    errors: list[psycopg.Error] = []
    if not rows or is_taken(rows) or len(rows) == 1:
        return found
    middle = len(rows) // 2
    parts = [rows[:middle], rows[middle:]]
    if most_statements is not None:
        last = len(rows) - 1
        is_hopeless = refuses_table(errors[0]) and not isinstance(errors[0], psycopg.errors.CheckViolation)
        probes = [] if is_hopeless else sorted({number * last // (PROBES - 1) for number in range(PROBES)})
        if not any([is_taken(rows[at : at + 1]) for at in probes]):
            found.refused = [(row, errors[0]) for row in rows]
            return found
        parts = [rows[before + 1 : after] for before, after in pairwise(probes)]
    order = count()
    # Refused parts: how many halvings in a row have shown nothing that is taken, the longest first, and a tie-breaker.
    waiting: list[tuple[int, int, int, Sequence[R]]] = []

    def look_into(parts: Sequence[Sequence[R]], barren: int) -> None:
        refused = [part for part in parts if part and not is_taken(part)]
        for part in refused:
            if len(part) > 1:
                fruitless = barren + 1 if len(refused) == len(parts) else 0
                heappush(waiting, (fruitless, -len(part), next(order), part))

    look_into(parts, 0)
    while waiting:
        barren, _, _, part = heappop(waiting)
        if most_statements is not None and found.statements + 2 > most_statements:
            found.refused += [(row, errors[0]) for row in part]
        else:
            middle = len(part) // 2
            look_into([part[:middle], part[middle:]], barren)
    return found
