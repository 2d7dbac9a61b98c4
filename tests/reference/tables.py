"""docs/reference/tables.md, from the catalogue of a database as `init` makes it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, LiteralString

from tests.reference.markdown import code, head, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from assetbatch.database.connection import Connection, Row

INTRODUCTION = """\
What `init` makes in an empty database. The tables of the schemas `trading`, `data_sources` and `market_data` are your
platform's where they are there already: then they are used as they are, with more columns or other types that do.

Read all of them; write to none of the schema `assetbatch`. The first group is for you. The second are inner tables,
which may change with any version."""
# What people and programs may build on; all others are inner ones.
FOR_USERS = {
    "trading.symbols": "The assets, with the newest price of each in `metadata.last_update`.",
    "data_sources.data_sync_status": "How the last update of each asset went, one row a symbol.",
    "data_sources.api_providers": "Where prices come from: the row of the vendor.",
    "market_data.ohlcv_5m": "The 5-minute bars.",
    "assetbatch.assets": "The catalogue: what is kept fresh, from config.yaml or from `symbols add`.",
    "assetbatch.queue": "What waits for an update, one row a symbol.",
    "assetbatch.runs": "Every run of a job.",
    "assetbatch.api_calls": "Every call to the API.",
    "assetbatch.bar_absences": "Why there is no bar.",
    "assetbatch.bar_changes": "Which bars were stored or changed, a row a page.",
    "assetbatch.coverage": "How much of each asset's bars is there.",
    "assetbatch.splits": "Splits of stocks.",
    "assetbatch.ticker_lives": "What the vendor says of tickers that are not traded any more.",
    "assetbatch.gone_tickers": "Assets that are delisted or renamed.",
    "assetbatch.unknown_tickers": "Assets whose tickers the vendor does not know.",
    "assetbatch.market_holidays": "Days on which exchanges rest, as the vendor lists them.",
}
READ: LiteralString = """
select n.nspname || '.' || c.relname as relation, c.relkind in ('v', 'm') as is_view,
       obj_description(c.oid, 'pg_class') as about, a.attname as column, format_type(a.atttypid, a.atttypmod) as type,
       not a.attnotnull and c.relkind not in ('v', 'm') as nullable, col_description(c.oid, a.attnum) as comment,
       coalesce(a.attnum = any (i.indkey), false) as is_key
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where n.nspname in ('assetbatch', 'data_sources', 'market_data', 'trading')
  and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
order by n.nspname collate "C", c.relname collate "C", a.attnum
"""


def page(connection: Connection) -> str:
    """Return the whole page, from a database that was just made."""
    found = connection.execute(READ).fetchall()
    columns = {name: list(rows) for name, rows in groupby(found, key=lambda row: str(row["relation"]))}
    parts = [head("Tables", "a database that `init` made", INTRODUCTION), "## To read\n"]
    parts += [part for name in FOR_USERS if name in columns for part in _relation(name, columns[name])]
    parts.append("## Inner tables\n")
    parts += [part for name in columns if name not in FOR_USERS for part in _relation(name, columns[name])]
    return "\n".join(parts)


def _relation(name: str, columns: list[Row]) -> Iterator[str]:
    first = columns[0]
    yield f"### {name}\n"
    if about := ("A view. " if first["is_view"] else "") + (FOR_USERS.get(name) or _sentence(first["about"])):
        yield about.strip() + "\n"
    yield table(["column", "type", "is"], _rows(columns))


def _sentence(text: str | None) -> str:
    return f"{prose(text[0].upper() + text[1:])}." if text else ""


def _rows(columns: Iterable[Row]) -> Iterator[list[str]]:
    for row in columns:
        notes = ["key"] if row["is_key"] else ["or null"] if row["nullable"] else []
        yield [code(str(row["column"])), ", ".join([str(row["type"]), *notes]), prose(row["comment"] or "")]
