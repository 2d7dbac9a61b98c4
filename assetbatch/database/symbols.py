"""The part of the catalogue that commands fill: assets put there, listed, and taken out again.

Rows of config.yaml are left to config.yaml; one that has left it is disabled, and may be added as one of these.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import psycopg
from msgspec import Struct, field

from assetbatch.database.catalogue import asset_of
from assetbatch.database.errors import words_of
from assetbatch.database.prices import ADD_SYMBOLS, LOCK_SYMBOLS, why_not_there
from assetbatch.database.query import command
from assetbatch.database.queue.enqueue import ENTRANCE_TIMEOUT, LOCK_ENTRANCE
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import columns, value
from assetbatch.database.savepoints import Sifted, carefully, refuses_row, sift
from assetbatch.errors import SchemaError
from assetbatch.model import Asset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query

# In the order of names, so that two who add the same assets do not lock each other out.
ADD = """
insert into assetbatch.assets as a
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, enabled, origin)
select symbol, polygon_ticker, asset_type, 'secondary', rank, update_frequency_seconds, name, true, 'symbols'
from unnest(
  %(symbol)b::text[], %(polygon_ticker)b::text[], %(asset_type)b::text[], %(rank)s::int[],
  %(update_frequency_seconds)s::int[], %(name)b::text[]
) as v (symbol, polygon_ticker, asset_type, rank, update_frequency_seconds, name)
order by symbol
on conflict (symbol) do update
set polygon_ticker = excluded.polygon_ticker, asset_type = excluded.asset_type, role = excluded.role,
    rank = excluded.rank, update_frequency_seconds = excluded.update_frequency_seconds, name = excluded.name,
    enabled = true, enabled_at = excluded.enabled_at, origin = excluded.origin
where a.origin = 'config' and not a.enabled
returning symbol
"""

COUNT_SYMBOLS = "select count(*) as count from trading.symbols where symbol = any(%(symbols)b)"

READ_KNOWN = """
select symbol, polygon_ticker from assetbatch.assets
where (symbol = any(%(symbols)b) or polygon_ticker = any(%(tickers)b)) and not (origin = 'config' and not enabled)
"""

LIST = """
select *, count(*) over () as total from assetbatch.assets
order by role, case when role = 'priority' then rank end, symbol
limit %(limit)s
"""

READ_ORIGINS = """
select symbol, origin from assetbatch.assets
where symbol = any(%(symbols)s) and not (origin = 'config' and not enabled)
"""

# What is known of an asset goes with it. Its row in the platform's table of symbols is the platform's. Bars that no
# `is_final` tells of, as of none in a platform's own table without the column, count as final from now on, open ones,
# too: who asks for changes hears of those.
REMOVE = """
with gone as (
  delete from assetbatch.assets where symbol = any(%(symbols)s) and origin = 'symbols' returning symbol
), status as (
  delete from data_sources.data_sync_status d
  using trading.symbols s, data_sources.api_providers p
  where s.symbol in (select symbol from gone) and d.ticker_id = s.id and d.provider_id = p.id and p.code = 'polygon'
), queue as (
  delete from assetbatch.queue where symbol in (select symbol from gone)
), state as (
  delete from assetbatch.sync_state where symbol in (select symbol from gone)
), settled as (
  insert into assetbatch.bar_changes (symbol, ranges, bars)
  select k.symbol, range_agg(tstzrange(o.ts, o.ts + interval '5 minutes')), count(*)
  from assetbatch.bar_state k
  join trading.symbols s using (symbol)
  cross join (values (null::boolean)) as bare (is_final)
  cross join lateral (
    select b.ts from market_data.ohlcv_5m b where b.symbol_id = s.id and b.ts >= k.asked_until and is_final is null
  ) o
  where k.symbol in (select symbol from gone)
  group by k.symbol
), bar_state as (
  delete from assetbatch.bar_state where symbol in (select symbol from gone)
), absences as (
  delete from assetbatch.bar_absences where symbol in (select symbol from gone)
), silences as (
  delete from assetbatch.bar_silences where symbol in (select symbol from gone)
), unadjusted as (
  delete from assetbatch.unadjusted_bars where symbol in (select symbol from gone)
), lives as (
  delete from assetbatch.ticker_lives where symbol in (select symbol from gone)
)
select array(select symbol from gone order by symbol) as removed
"""

# What a stream put there, which had not heard of it yet. One that is in the catalogue again keeps it.
FORGET = """
with gone as (
  select symbol from unnest(%(symbols)s::text[]) as v (symbol)
  where not exists (select from assetbatch.assets a where a.symbol = v.symbol)
), status as (
  delete from data_sources.data_sync_status d
  using trading.symbols s, data_sources.api_providers p
  where s.symbol in (select symbol from gone) and d.ticker_id = s.id and d.provider_id = p.id and p.code = 'polygon'
)
delete from assetbatch.sync_state where symbol in (select symbol from gone)
"""

# So many at a time: years of bars are more than one statement may take.
REMOVE_BARS = """
with asked as materialized (
  select id from trading.symbols where symbol = %(symbol)s
), last as materialized (
  select max(ts) as ts from (
    select b.ts from market_data.ohlcv_5m b where b.symbol_id = (select id from asked) order by b.ts limit %(limit)s
  ) oldest
)
delete from market_data.ohlcv_5m b using last
where b.symbol_id = (select id from asked) and b.ts <= last.ts
"""

BARS_AT_ONCE = 50_000
# Where more are refused, it is not for their own sake; so many are found in some 700 statements.
MOST_REFUSALS = 20
MOST_STATEMENTS = 1_000


class Listed(Struct, frozen=True):
    """An asset of the catalogue as it stands; `origin` is config or symbols."""

    asset: Asset
    enabled: bool
    origin: str


class Listing(Struct, frozen=True):
    """Assets, priority assets first; `total` counts those beyond the limit, too."""

    items: tuple[Listed, ...]
    total: int


class Added(Struct):
    """What became of assets: symbols that are new, that were there, that the platform's table refused, and why."""

    added: list[str] = field(default_factory=list)
    already_there: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class Removed(Struct, frozen=True):
    """What became of symbols: removed, not in the catalogue, or left alone since they come from config.yaml."""

    removed: list[str]
    missing: list[str]
    configured: list[str]
    bars: int = 0


def known(connection: Connection, symbols: Sequence[str], tickers: Sequence[str]) -> dict[str, str]:
    """Read which of these the catalogue has: tickers by symbol. Those that have left config.yaml do not count."""
    if not symbols:
        return {}
    rows = connection.execute(READ_KNOWN, {"symbols": list(symbols), "tickers": list(tickers)})
    return {row["symbol"]: row["polygon_ticker"] for row in rows}


def listing(connection: Connection, *, limit: int | None) -> Listing:
    """Read the catalogue."""
    rows = connection.execute(LIST, {"limit": limit}).fetchall()
    items = tuple(Listed(asset_of(row), row["enabled"], row["origin"]) for row in rows)
    return Listing(items, rows[0]["total"] if rows else 0)


def add(connection: Connection, assets: Sequence[Asset]) -> Added:
    """Put secondary assets into the catalogue, and their rows into the platform's table; those there stay as they are.

    What the platform's table refuses is left out, alone. Raises SchemaError when it refuses whatever comes.
    """
    return carefully(connection, partial(_add, connection, assets)) if assets else Added()


def _add(connection: Connection, assets: Sequence[Asset], *, carefully: bool) -> Added:
    def put(part: Sequence[Asset]) -> tuple[set[str], set[str]]:
        return _add_together(connection, part), {asset.symbol for asset in part}

    found = sift(connection, assets, put, most_statements=MOST_STATEMENTS) if carefully else Sifted([put(assets)])
    if found.refused and not found.taken and not refuses_row(found.refused[0][1]):
        # Not for what any of them is: a privilege is missing, or a table.
        raise found.refused[0][1]
    refused = sorted((asset.symbol, words_of(error)) for asset, error in found.refused)
    if len(refused) > MOST_REFUSALS:
        raise SchemaError(
            f"trading.symbols refuses new rows: {refused[0][1]}",
            hint="nothing was added: let its columns beside symbol and metadata have defaults, or add its rows as"
            " the platform does; then again",
        ) from found.refused[0][1]
    return Added(
        sorted(symbol for added, _ in found.taken for symbol in added),
        sorted(symbol for added, asked in found.taken for symbol in asked - added),
        refused,
    )


def _add_together(connection: Connection, assets: Sequence[Asset]) -> set[str]:
    added = {row["symbol"] for row in connection.execute(ADD, columns(Asset, assets))}
    if not added:
        return added
    connection.execute(ADD_SYMBOLS, {"symbols": list(added)})
    if value(connection.execute(COUNT_SYMBOLS, {"symbols": list(added)})) < len(added):
        raise psycopg.errors.RaiseException(why_not_there(connection, list(added)))
    return added


def origins(connection: Connection, symbols: Sequence[str]) -> dict[str, str]:
    """Read where assets come from: config or symbols; what is not in the catalogue is not there."""
    return {row["symbol"]: row["origin"] for row in connection.execute(READ_ORIGINS, {"symbols": list(symbols)})}


def remove(connection: Connection, symbols: Sequence[str], *, with_bars: bool = False) -> Removed:
    """Take assets out of the catalogue, with all that is known of them; their bars only `with_bars`.

    Bars go first, so that what is interrupted can be asked for again.
    """
    found = origins(connection, symbols)
    own = sorted(symbol for symbol, origin in found.items() if origin == "symbols")
    bars = sum(_remove_bars(connection, symbol) for symbol in own) if with_bars else 0

    def work() -> list[str]:
        # Nobody enqueues them meanwhile; and the same order of locks as of all who write prices.
        connection.execute(LOCK_ENTRANCE)
        connection.execute(LOCK_SYMBOLS, {"symbols": own})
        removed: list[str] = value(connection.execute(REMOVE, {"symbols": own}))
        return removed

    removed = in_transaction(connection, work, lock_timeout=ENTRANCE_TIMEOUT) if own else []
    if with_bars:
        # What a run stored in between.
        bars += sum(_remove_bars(connection, symbol) for symbol in removed)
    configured = sorted(found.keys() - set(own))
    return Removed(removed, sorted({*symbols} - {*removed, *configured}), configured, bars)


def forgetting(symbols: Sequence[str]) -> Query[int]:
    """Take out what is known of the prices of those of these that are not in the catalogue any more."""
    return command(FORGET, {"symbols": list(symbols)})


def _remove_bars(connection: Connection, symbol: str) -> int:
    total = 0
    while True:
        try:
            with connection.transaction():
                count = connection.execute(REMOVE_BARS, {"symbol": symbol, "limit": BARS_AT_ONCE}).rowcount
        except psycopg.errors.InsufficientPrivilege as error:
            raise SchemaError(
                f"bars cannot be removed: {words_of(error)}",
                hint="no job deletes bars, so no role of theirs may: run this as the owner of market_data.ohlcv_5m, or"
                " as a role that was granted DELETE on it",
            ) from error
        total += count
        if count < BARS_AT_ONCE:
            return total
