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
# Of columns that have no comment in the database; what stands here says its name alone.
MEANINGS = {
    "trading.symbols.updated_at": "when the row was last written",
    "data_sources.data_sync_status.ticker_id": "trading.symbols.id",
    "data_sources.data_sync_status.provider_id": "data_sources.api_providers.id",
    "data_sources.data_sync_status.last_sync_timestamp": "when that was",
    "data_sources.data_sync_status.sync_status": "success, failed, no_data or not_entitled",
    "data_sources.api_providers.code": "polygon",
    "market_data.ohlcv_5m.symbol_id": "trading.symbols.id",
    "market_data.ohlcv_5m.volume": "as the vendor counts it",
    "market_data.ohlcv_5m.vwap": "mean price, weighted by volume",
    "market_data.ohlcv_5m.trades": "as the vendor counts them",
    "assetbatch.assets.polygon_ticker": "the vendor's name",
    "assetbatch.assets.asset_type": "forex, crypto, stocks or indices",
    "assetbatch.assets.role": "priority or secondary",
    "assetbatch.assets.enabled": "false: it is left alone",
    "assetbatch.queue.state": "queued, delayed, leased or dead",
    "assetbatch.queue.rank": "its place: the smallest comes first",
    "assetbatch.queue.attempts": "how often it was tried",
    "assetbatch.queue.available_at": "not before",
    "assetbatch.queue.claimed_at": "leased: since when",
    "assetbatch.queue.leased_until": "leased: after that it is taken over",
    "assetbatch.queue.token": "leased: by whom",
    "assetbatch.queue.error_kind": "how it failed the last time: see failures",
    "assetbatch.queue.died_on_plan": "dead: under which plan",
    "assetbatch.runs.plan": "the plan that the configuration said",
    "assetbatch.runs.calls_per_window": "the limit of calls; null: none",
    "assetbatch.runs.status": "running, ok, partial, failed or skipped",
    "assetbatch.runs.updated": "assets whose prices were stored",
    "assetbatch.runs.unchanged": "assets for which nothing newer exists",
    "assetbatch.runs.deferred": "assets whose bars were left for spare calls",
    "assetbatch.runs.requeued": "items that are back on the queue",
    "assetbatch.runs.dead": "items that became dead letters",
    "assetbatch.runs.rate_limit_waits": "waits beyond the grace, and refusals",
    "assetbatch.runs.error_kind": "what ended it early: see failures, or the name of an error",
    "assetbatch.api_calls.run_id": "assetbatch.runs.id",
    "assetbatch.api_calls.at": "when it began",
    "assetbatch.api_calls.kind": "what was asked for",
    "assetbatch.api_calls.latency_ms": "how long the answer took",
    "assetbatch.api_calls.waited_ms": "how long it waited for its turn",
    "assetbatch.api_calls.assets": "how many it covered",
    "assetbatch.bar_absences.reason": "closed, nothing, not_entitled, failed or refused",
    "assetbatch.bar_absences.month": "its first day",
    "assetbatch.bar_absences.ranges": "when there is no bar",
    "assetbatch.ticker_lives.asked_at": "when the vendor was asked",
    "assetbatch.gone_tickers.words": "delisted or renamed, as it is told",
    "assetbatch.unknown_tickers.error_kind": "what the vendor answered: see failures",
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
    parts += [part for name in FOR_USERS for part in _relation(name, columns[name])]
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
        yield [code(str(row["column"])), ", ".join([str(row["type"]), *notes]), prose(_meaning(row))]


def _meaning(row: Row) -> str:
    return str(row["comment"] or MEANINGS.get(f"{row['relation']}.{row['column']}", ""))
