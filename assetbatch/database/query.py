"""A question to the database as a value, so that several can go to it in one round trip: `Connection.ask`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, LiteralString, TypeVar

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from psycopg.abc import Params

# Until a table is analyzed, the planner takes it for almost empty, and would read and sort all of it for its first
# rows. What has to be sorted all the same costs as if it were huge then: compiling it would take longer.
IN_ORDER_OF_INDEX: LiteralString = (
    "select pg_catalog.set_config('enable_sort', 'off', true), pg_catalog.set_config('jit', 'off', true)"
)

Statement = LiteralString | bytes | sql.SQL | sql.Composed
T_co = TypeVar("T_co", covariant=True)


class Query(Generic[T_co]):
    """One statement with its parameters, and how its answer is read.

    Where it may not be done twice, `found_by` finds, with the same parameters, what it has done: rows that this finds
    are taken for its answer. Such a one may be told to read what an index has `in_order`, see IN_ORDER_OF_INDEX.
    """

    answer: T_co
    """What the last time brought that it was asked."""

    def __init__(
        self,
        statement: Statement,
        params: Params | None,
        read: Callable[[psycopg.Cursor[dict[str, Any]]], T_co],
        *,
        found_by: LiteralString | None = None,
        in_order: bool = False,
    ) -> None:
        self.statement = statement
        self.in_order = in_order
        self.params = params
        self.found_by = found_by
        self.read = read


def command(statement: Statement, params: Params | None = None) -> Query[int]:
    """Return a query whose answer is how many rows the statement changed."""
    return Query(statement, params, lambda cursor: cursor.rowcount)


def in_order_of_index() -> Query[int]:
    """Let the statements behind it in its transaction read what an index has in order in that order, row by row."""
    return command(IN_ORDER_OF_INDEX)
