"""Rows: read into values, or into one; and values laid out as columns for `unnest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from assetbatch.database.connection import Row

T = TypeVar("T", bound=Struct)


def one(cursor: psycopg.Cursor[Row]) -> Row:
    """Return the row of an answer that has one."""
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - a select without from has one row, and so have aggregates
    return row


def value(cursor: psycopg.Cursor[Row]) -> Any:
    """Return the first value of an answer's first row; None where it has no row."""
    row = cursor.fetchone()
    return None if row is None else next(iter(row.values()))


def filled(kind: type[T], row: Row, **instead: Any) -> T:
    """Return a value of a kind: its fields are what the row has under their names, or what is given `instead`."""
    found = row | instead
    return kind(**{name: found[name] for name in kind.__struct_fields__ if name in found})


def columns(kind: type[Struct], rows: Sequence[Struct]) -> dict[str, list[Any]]:
    """Return the fields of values of one kind, as a list for each of its names."""
    return {name: [getattr(row, name) for row in rows] for name in kind.__struct_fields__}
