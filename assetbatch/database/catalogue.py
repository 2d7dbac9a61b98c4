"""The catalogue: which assets there are, and what is known of the last attempt to update each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from assetbatch.database.connection import LOCK_TIMEOUT
from assetbatch.database.query import Query, command
from assetbatch.database.retries import repeated
from assetbatch.database.rows import columns, value
from assetbatch.failures import FailureKind, kind_of
from assetbatch.markets import TRAITS
from assetbatch.model import Asset, AssetType, Failure, Role
from assetbatch.planner import Candidate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from assetbatch.database.connection import Connection, Row

# Assets that left config.yaml are kept, disabled: their history stays readable.
SYNC_WITH_CONFIG = """
with listed as (
  select * from unnest(
    %(symbol)s::text[], %(polygon_ticker)s::text[], %(asset_type)s::text[], %(role)s::text[], %(rank)s::int[],
    %(update_frequency_seconds)s::int[], %(name)s::text[]
  ) as l (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name)
), gone as (
  update assetbatch.assets a set enabled = false
  where a.origin = 'config' and a.enabled and a.symbol not in (select symbol from listed)
)
insert into assetbatch.assets as a
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, enabled, origin)
select symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, true, 'config' from listed
on conflict (symbol) do update
set polygon_ticker = excluded.polygon_ticker, asset_type = excluded.asset_type, role = excluded.role,
    rank = excluded.rank, update_frequency_seconds = excluded.update_frequency_seconds, name = excluded.name,
    enabled = excluded.enabled, origin = excluded.origin,
    enabled_at = case when a.enabled then a.enabled_at else excluded.enabled_at end
where (a.polygon_ticker, a.asset_type, a.role, a.rank, a.update_frequency_seconds, a.name, a.enabled, a.origin)
        is distinct from (excluded.polygon_ticker, excluded.asset_type, excluded.role, excluded.rank,
                          excluded.update_frequency_seconds, excluded.name, excluded.enabled, excluded.origin)
"""

IS_AS_CONFIGURED = """
with listed as (
  select * from unnest(
    %(symbol)s::text[], %(polygon_ticker)s::text[], %(asset_type)s::text[], %(role)s::text[], %(rank)s::int[],
    %(update_frequency_seconds)s::int[], %(name)s::text[]
  ) as l (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name)
)
select not exists (
  select from assetbatch.assets where origin = 'config' and enabled and symbol not in (select symbol from listed)
) and not exists (
  select from listed l left join assetbatch.assets a using (symbol)
  where (a.polygon_ticker, a.asset_type, a.role, a.rank, a.update_frequency_seconds, a.name, a.enabled, a.origin)
          is distinct from (l.polygon_ticker, l.asset_type, l.role, l.rank, l.update_frequency_seconds, l.name, true,
                            'config')
) as yes
"""

READ_SYNC_STATE = """
select s.symbol, greatest(s.served_at, t.served_at) as served_at, s.succeeded_at, s.error_kind, s.error, s.day,
       s.missing_since, s.symbol in (select symbol from assetbatch.gone_tickers) as is_gone
from assetbatch.sync_state s left join assetbatch.streamed t using (symbol)
where s.symbol = any(%(symbols)s)
"""

READ_UNKNOWN = """
select symbol, case when g.symbol is null then u.error_kind else 'unknown_ticker' end as error_kind,
       coalesce(g.words, u.error) as error
from assetbatch.unknown_tickers u full join assetbatch.gone_tickers g using (symbol)
join assetbatch.assets a using (symbol)
where a.enabled and symbol = any(coalesce(%(symbols)s, array[symbol]))
order by a.role, a.rank, symbol
"""

READ_FREQUENCIES = "select distinct update_frequency_seconds as seconds from assetbatch.assets"

READ_ENABLED = """
select symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name
from assetbatch.assets
where enabled and symbol = any(coalesce(%(symbols)s, array[symbol]))
order by role, rank, symbol
"""

READ_MARKET = """
select a.symbol, a.polygon_ticker, a.asset_type, a.role, a.rank, a.update_frequency_seconds, a.name,
       s.served_at is not null and a.role = 'secondary' as served,
       s.succeeded_at is not null or (a.market = any(%(rests_alone)s) and s.missing_since is null)
         or a.symbol in (select symbol from assetbatch.gone_tickers) as believed,
       coalesce(a.market = any(%(rests_alone)s) and s.missing_since = s.day, false) as paused
from assetbatch.assets a left join assetbatch.sync_state s using (symbol)
where a.enabled and a.asset_type = %(market)s
order by a.role, a.rank, a.symbol
"""


def asset_of(row: Mapping[str, Any]) -> Asset:
    """Read an asset out of a row of the catalogue."""
    return Asset(
        row["symbol"],
        row["polygon_ticker"],
        AssetType(row["asset_type"]),
        Role(row["role"]),
        row["rank"],
        row["update_frequency_seconds"],
        row["name"],
    )


def frequencies() -> Query[list[int]]:
    """Ask which update frequencies there are, in seconds."""
    return Query(READ_FREQUENCIES, None, lambda rows: [row["seconds"] for row in rows])


def enabled_assets(connection: Connection, symbols: Sequence[str] | None = None) -> list[Asset]:
    """Read the enabled assets, or those of them that are named; the most important first."""
    rows = connection.execute(READ_ENABLED, {"symbols": None if symbols is None else list(symbols)})
    return [asset_of(row) for row in rows]


def unknown_tickers(connection: Connection, symbols: Sequence[str] | None = None) -> list[Failure]:
    """Return of which enabled assets (None: all) the vendor does not know the ticker, and how it said so."""
    rows = connection.execute(READ_UNKNOWN, {"symbols": None if symbols is None else list(symbols)})
    return [Failure(row["symbol"], FailureKind(row["error_kind"]), row["error"] or "") for row in rows]


class OfMarket(Struct, frozen=True):
    """All enabled assets of a market, and the symbols of some of them.

    `served`: secondary ones that were served before; `believed`: those that exist, or may rest on a day that lacks
    them, or are known to be gone; `paused`: those that may have rested on the newest day.
    """

    assets: tuple[Asset, ...]
    served: frozenset[str]
    believed: frozenset[str]
    paused: frozenset[str]


def assets_of_market(connection: Connection, market: AssetType) -> OfMarket:
    """Return what the catalogue has of a market."""
    rests_alone = [one.value for one in TRAITS[market].markets if one.rests_alone]
    rows = connection.execute(READ_MARKET, {"market": market.value, "rests_alone": rests_alone}).fetchall()
    return OfMarket(
        tuple(asset_of(row) for row in rows),
        frozenset(row["symbol"] for row in rows if row["served"]),
        frozenset(row["symbol"] for row in rows if row["believed"]),
        frozenset(row["symbol"] for row in rows if row["paused"]),
    )


def is_as_configured(assets: Sequence[Asset]) -> Query[bool]:
    """Ask whether the catalogue's part that comes from config.yaml is what that says."""
    return Query(IS_AS_CONFIGURED, columns(Asset, assets), value)


def sync_with_config(connection: Connection, assets: Sequence[Asset]) -> None:
    """Make the catalogue's part that comes from config.yaml what config.yaml says."""
    repeated(lambda: connection.ask(command(SYNC_WITH_CONFIG, columns(Asset, assets)), lock_timeout=LOCK_TIMEOUT))


def candidates(assets: Sequence[Asset]) -> Query[list[Candidate]]:
    """Ask what the planner has to know of assets, in their order; one that was never tried has an empty state."""

    def read(cursor: psycopg.Cursor[Row]) -> list[Candidate]:
        known = {row["symbol"]: row for row in cursor}
        return [
            _candidate(asset, known[asset.symbol]) if asset.symbol in known else Candidate(asset) for asset in assets
        ]

    return Query(READ_SYNC_STATE, {"symbols": [asset.symbol for asset in assets]}, read)


def _candidate(asset: Asset, row: Row) -> Candidate:
    kind = kind_of(row["error_kind"])
    return Candidate(
        asset,
        served_at=row["served_at"],
        day=row["day"],
        failed=kind not in {None, FailureKind.MISSING},
        missing=(row["error"] or "") if kind is FailureKind.MISSING else "",
        missing_since=row["missing_since"],
        succeeded_at=row["succeeded_at"],
        is_gone=row["is_gone"],
    )
