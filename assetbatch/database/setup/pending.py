"""What `init` would do: read in a transaction that cannot write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch.database import catalogue
from assetbatch.database.bars import state as bars
from assetbatch.database.rows import one, value
from assetbatch.database.setup import schema
from assetbatch.database.setup.platform import guards, lacks, volume_lacks
from assetbatch.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.model import Asset

READ_ONLY = "set transaction read only"

WHAT_IS_THERE = """
select to_regclass('assetbatch.assets') is not null as catalogue,
       to_regclass('assetbatch.meta') is not null as meta,
       to_regclass('market_data.ohlcv_5m') is not null as bars,
       clock_timestamp() as now
"""

OWNS_BARS = "select exists (select from assetbatch.meta where key = 'bars') as yes"

READ_CATALOGUE = """
select symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, enabled, origin
from assetbatch.assets
where origin = 'config' or symbol = any(%(symbols)s)
"""

MISSING_TABLES = "select name from unnest(%(names)s::text[]) as v (name) where to_regclass(name) is null order by name"

# Whoever owns nothing yet must at least be allowed to create it.
MISSING_RIGHTS = """
select format('GRANT CREATE ON DATABASE %I TO %I;', current_database(), current_user) as statement
where not has_database_privilege(current_database(), 'create')
  and exists (
    select from unnest(array['trading', 'data_sources', 'market_data', 'assetbatch']) as needed (name)
    where to_regnamespace(name) is null
  )
union
select format('GRANT USAGE, CREATE ON SCHEMA %I TO %I;', n.nspname, current_user)
from pg_namespace n
join (values
  ('trading', 'trading.symbols'), ('data_sources', 'data_sources.api_providers'),
  ('data_sources', 'data_sources.data_sync_status'), ('market_data', 'market_data.ohlcv_5m'),
  ('assetbatch', 'assetbatch.migrations')
) as needed (schema, relation) on needed.schema = n.nspname
where not has_schema_privilege(n.oid, 'create')
  and (not has_schema_privilege(n.oid, 'usage') or to_regclass(needed.relation) is null)
order by 1
"""

# What is there already only its owner may change.
OWNER = """
select pg_get_userbyid(relowner) as name, pg_has_role(relowner, 'usage') as is_us
from pg_class where oid = to_regclass('assetbatch.migrations')
"""

MONTHS_AHEAD = 3


class Pending(Struct, frozen=True):
    """What is left for `init` to do, by name. With `owner_statements`, which it needs first, it would fail.

    `lacks` says what of the platform's tables they are about, `row_security` which policies decide what whom is shown.
    `schema_version` is the one that is there; None: none is.
    """

    schema_version: int | None = None
    create_database: bool = False
    migrations: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)
    partitions: list[str] = field(default_factory=list)
    owner_statements: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    row_security: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        """Whether there is something to do."""
        return self.create_database or any(
            (self.migrations, self.added, self.changed, self.disabled, self.partitions, self.owner_statements)
        )


def from_nothing(assets: Sequence[Asset], *, partition_bars: bool, now: datetime) -> Pending:
    """Return what `init` would do where there is no database yet."""
    return Pending(
        create_database=True,
        migrations=[migration.full_name for migration in schema.migrations()],
        added=[asset.symbol for asset in assets],
        partitions=_months(now) if partition_bars else [],
    )


def read(connection: Connection, assets: Sequence[Asset], *, partition_bars: bool) -> Pending:
    """Return what `init` would do here.

    Raises SchemaError when the schema is too new for this program, or may not be read.
    """
    with connection.transaction():
        connection.execute(READ_ONLY)
        there = one(connection.execute(WHAT_IS_THERE))
        rights = [row["statement"] for row in connection.execute(MISSING_RIGHTS)]
        missing = schema.missing_migrations(connection)
        owner = connection.execute(OWNER).fetchone()
        if missing and owner is not None and not owner["is_us"]:
            raise SchemaError(
                f"migrations are missing, and the schema belongs to another role: {owner['name']}",
                hint=f"run `assetbatch init` as {owner['name']}",
            )
        added, changed, disabled = _catalogue(connection if there["catalogue"] else None, assets)
        if there["bars"]:
            partition_bars = bool(there["meta"]) and bars.are_partitioned(connection)
        months = {"names": _months(there["now"]) if partition_bars else []}
        lacking = lacks(connection)
        # A migration makes a table of our own ready; what became of it afterwards, none does.
        if not (missing and there["meta"] and value(connection.execute(OWNS_BARS))):
            lacking += volume_lacks(connection, assets)
        return Pending(
            schema_version=schema.version(connection),
            migrations=[migration.full_name for migration in missing],
            added=added,
            changed=changed,
            disabled=disabled,
            partitions=[row["name"] for row in connection.execute(MISSING_TABLES, months)],
            owner_statements=rights + [one.statement for one in lacking],
            lacks=[one.what for one in lacking],
            row_security=[guard.sentence for guard in guards(connection)],
        )


def _catalogue(connection: Connection | None, assets: Sequence[Asset]) -> tuple[list[str], list[str], list[str]]:
    """Hold the catalogue against config.yaml: symbols that would be added, changed, disabled."""
    symbols = [asset.symbol for asset in assets]
    if connection is None:
        return symbols, [], []
    rows = {row["symbol"]: row for row in connection.execute(READ_CATALOGUE, {"symbols": symbols})}
    kept = {
        symbol
        for symbol, row in rows.items()
        if row["enabled"] and row["origin"] == "config" and catalogue.asset_of(row) in assets
    }
    return (
        [symbol for symbol in symbols if symbol not in rows],
        [symbol for symbol in symbols if symbol in rows and symbol not in kept],
        sorted(symbol for symbol, row in rows.items() if row["enabled"] and symbol not in symbols),
    )


def _months(now: datetime) -> list[str]:
    """Name the partitions from this month on that `assetbatch.keep_partitions` makes."""
    first = now.year * 12 + now.month - 1
    return [
        f"market_data.ohlcv_5m_{month // 12:04}{month % 12 + 1:02}" for month in range(first, first + MONTHS_AHEAD + 1)
    ]
