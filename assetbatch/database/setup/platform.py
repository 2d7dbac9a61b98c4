"""The platform's tables: what the tool relies on in them, and what their owner is to run where they lack it."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from msgspec import Struct
from psycopg import sql

from assetbatch.database.query import Query
from assetbatch.database.rows import one, value
from assetbatch.errors import SchemaError
from assetbatch.markets import TRAITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.model import Asset

# The row polygon is missing, and cannot be put there without values that nobody but the owner knows better.
READ_PROVIDER_LACK = """
select format('data_sources.api_providers has no row polygon, and needs %s for it',
              string_agg(a.attname, ', ' order by a.attnum)) as what,
       format('INSERT INTO data_sources.api_providers (code, %s) VALUES (''polygon'', %s);',
              string_agg(quote_ident(a.attname), ', ' order by a.attnum),
              string_agg(
                case
                  when a.attname = 'id' and t.typcategory = 'N' then
                    '(SELECT coalesce(max(id), 0) + 1 FROM data_sources.api_providers)'
                  when t.typcategory = 'E' then (
                    select quote_literal(e.enumlabel) from pg_enum e
                    where e.enumtypid = case t.typtype when 'd' then t.typbasetype else t.oid end
                    order by e.enumsortorder limit 1)
                  when t.typcategory = 'S' and a.atttypmod > 4 then quote_literal(left('polygon', a.atttypmod - 4))
                  when t.typcategory = 'S' then quote_literal('polygon')
                  when t.typcategory = 'N' then '0'
                  when t.typcategory = 'B' then 'true'
                  when t.typcategory = 'D' then 'now()'
                  when t.typname = 'uuid' then 'gen_random_uuid()'
                  when t.typcategory = 'T' then quote_literal('0')
                  else quote_literal('{}')
                end, ', ' order by a.attnum)) as statement
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass('data_sources.api_providers') and a.attnum > 0 and not a.attisdropped
  and (a.attnotnull or t.typnotnull) and a.attname <> 'code'
  and not a.atthasdef and a.attidentity = '' and t.typdefault is null
  and not exists (select from data_sources.api_providers where code = 'polygon')
having count(*) > 0
"""

HAS_CATALOGUE = "select to_regclass('assetbatch.assets') is not null as yes"

ANY_WITHOUT_VOLUME = (
    "select exists (select from assetbatch.assets where enabled and asset_type = any(%(types)s)) as yes"
)

READ_VOLUME_LACKS = """
select 'market_data.ohlcv_5m.' || a.attname || ' cannot be null, and indices have none' as what,
       case when a.attnotnull then 'ALTER TABLE market_data.ohlcv_5m ALTER COLUMN ' || a.attname
            else 'ALTER DOMAIN ' || format_type(t.oid, null) end || ' DROP NOT NULL;' as statement
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass('market_data.ohlcv_5m') and a.attname in ('volume', 'vwap', 'trades')
  and (a.attnotnull or t.typnotnull)
order by a.attnum
"""

MAY_READ_PROVIDERS = """
select coalesce(has_table_privilege(to_regclass('data_sources.api_providers'), 'select'), false) as yes
"""

PROVIDERS = "data_sources.api_providers"

# Policies decide which rows a role sees and may write; not for superusers, mostly not for owners, nor for BYPASSRLS.
READ_ROLE_VIEW = """
select current_user::text as role,
       exists (select from data_sources.api_providers where code = 'polygon')
         -- Who does not write needs none.
         or not has_any_column_privilege('data_sources.data_sync_status', 'insert') as has_provider,
       array(
         select format('%s.%s', n.nspname, c.relname)
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where (n.nspname, c.relname) in (('trading', 'symbols'), ('market_data', 'ohlcv_5m'),
                                          ('data_sources', 'api_providers'), ('data_sources', 'data_sync_status'))
           and c.relkind in ('r', 'p') and row_security_active(c.oid)
         order by 1
       ) as guarded
"""

# For a role that no policy binds, all of them are told, each with the roles that it binds.
READ_GUARDS = """
select format('%s.%s', n.nspname, c.relname) as relation, current_user::text as role,
       row_security_active(c.oid) as is_active,
       array(
         select format('%s (for %s to %s)', p.polname,
                       case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                                     when 'd' then 'delete' else 'all' end,
                       (select string_agg(case r.oid when 0 then 'public' else pg_get_userbyid(r.oid)::text end, ', ')
                        from unnest(p.polroles) as r (oid)))
         from pg_policy p
         where p.polrelid = c.oid
           and (not row_security_active(c.oid)
                or exists (select from unnest(p.polroles) as r (oid) where r.oid = 0 or pg_has_role(r.oid, 'usage')))
         order by p.polname
       ) as policies
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where (n.nspname, c.relname) in (('trading', 'symbols'), ('market_data', 'ohlcv_5m'),
                                 ('data_sources', 'api_providers'), ('data_sources', 'data_sync_status'))
  and c.relkind in ('r', 'p') and c.relrowsecurity
order by 1
"""

# As migration 1 does; somebody may have deleted it since. Who has no need to insert needs no privilege for it.
KEEP_PROVIDER = """
do $$
begin
  if not exists (select from data_sources.api_providers where code = 'polygon') then
    insert into data_sources.api_providers (code) values ('polygon');
  end if;
end
$$
"""


class RoleView(Struct, frozen=True):
    """What a role may see of the platform's tables: is the provider's row, and which tables have policies for it."""

    role: str
    has_provider: bool
    guarded: list[str]

    @property
    def blind_spot(self) -> str | None:
        """What is not written for what the role does not see; None: nothing."""
        if self.has_provider:
            return None
        what = "data_sources.data_sync_status is not written: "
        if PROVIDERS in self.guarded:
            return what + f"row-level security hides the row polygon of {PROVIDERS} from role {self.role}"
        return what + f"{PROVIDERS} has no row polygon"

    @property
    def mend(self) -> str:
        """What mends the blind spot."""
        if PROVIDERS in self.guarded:
            return f"as the owner of {PROVIDERS}, let a policy for select show the row to {self.role}"
        return "`assetbatch init` puts it there"


def role_view() -> Query[RoleView]:
    """Ask what the role that asks may see of the platform's tables."""
    return Query(READ_ROLE_VIEW, None, lambda cursor: RoleView(**one(cursor)))


class Guard(Struct, frozen=True):
    """Row-level security of a table of the platform's; `is_active` for `role`, whose policies these are, else all."""

    relation: str
    role: str
    is_active: bool
    policies: list[str]

    @property
    def sentence(self) -> str:
        """What it means for the role that asks."""
        if not self.is_active:
            what = f"row-level security of {self.relation} does not bind {self.role}, but others"
            return f"{what}: {', '.join(self.policies) or 'without a policy they see no row of it'}"
        if not self.policies:
            return f"row-level security of {self.relation} has no policy for {self.role}, which sees and writes no row"
        return f"row-level security of {self.relation} decides what {self.role} sees and writes: " + ", ".join(
            self.policies
        )

    @property
    def mend(self) -> str:
        """The statement with which the table's owner lets the role see and write every row."""
        role = sql.Identifier(self.role).as_string()
        return f"CREATE POLICY assetbatch ON {self.relation} TO {role} USING (true) WITH CHECK (true);"


def guards(connection: Connection) -> list[Guard]:
    """Return the platform's tables that have row-level security, and its policies."""
    return [Guard(**row) for row in connection.execute(READ_GUARDS)]


def keep_provider(connection: Connection) -> None:
    """Put the provider's row where it is not."""
    connection.execute(KEEP_PROVIDER)


class Lack(Struct, frozen=True):
    """What is not in the platform's tables as the tool needs it, and the statement with which their owner mends it."""

    what: str
    statement: str


def lacks(connection: Connection) -> list[Lack]:
    """Return what the platform's tables lack: tables, columns, their types, then keys over them."""
    statement = files("assetbatch.database.setup").joinpath("platform_lacks.sql").read_text("utf-8")
    found = [Lack(**row) for row in connection.execute(sql.SQL(statement))]
    may_read = value(connection.execute(MAY_READ_PROVIDERS))
    if may_read and not any(PROVIDERS in lack.statement for lack in found):
        found += [Lack(**row) for row in connection.execute(READ_PROVIDER_LACK)]
    return found


def volume_lacks(connection: Connection, assets: Sequence[Asset] = ()) -> list[Lack]:
    """Return what the table of the bars lacks where bars have no volume: that figures of trade may be null.

    It need not, where neither these assets nor any of the catalogue are of such a type.
    """
    types = [asset_type for asset_type, traits in TRAITS.items() if not traits.has_volume]
    are_there = any(asset.asset_type in types for asset in assets)
    if not are_there and value(connection.execute(HAS_CATALOGUE)):
        are_there = value(connection.execute(ANY_WITHOUT_VOLUME, {"types": [one.value for one in types]}))
    return [Lack(**row) for row in connection.execute(READ_VOLUME_LACKS)] if are_there else []


class PlatformTablesError(SchemaError):
    """The platform's tables lack what is relied on; the hint has the statements for their owner."""

    def __init__(self, lacks: Sequence[str], statements: Sequence[str]) -> None:
        what = f": {'; '.join(lacks)}" if lacks else ""
        super().__init__(
            f"tables of the platform lack what assetbatch relies on{what}",
            hint="as their owner, run these, then `assetbatch init` again:\n" + "\n".join(statements),
        )
