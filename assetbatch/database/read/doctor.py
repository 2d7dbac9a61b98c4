"""What `doctor` reads: the server, the role's privileges, columns that round. Writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.rows import filled, one, value
from assetbatch.database.setup.platform import lacks, volume_lacks

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.database.connection import Connection

# Who only reads may see what the tool keeps, and change none of it.
READ_SERVER = """
select current_setting('server_version') as version, current_setting('server_version_num')::int as version_number,
       current_user as role, rolsuper as superuser, pg_is_in_recovery() as standby,
       current_setting('default_transaction_read_only')::bool as read_only, pg_backend_pid() as backend,
       (select coalesce(bool_or(has_table_privilege(c.oid, 'select')), false)
               and not coalesce(bool_or(has_table_privilege(c.oid, 'insert, update, delete')), false)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'assetbatch' and c.relkind in ('r', 'p')) as reads_only
from pg_roles where rolname = current_user
"""

READ_CLOCK = "select clock_timestamp() as now"

# What grants.sql grants, or of that what grants_reader.sql does; looked up in the catalogue: a name is not resolved in
# a schema that the role may not use. In the words of GRANT, so that `grant …` and `to` the role make a statement.
READ_MISSING_PRIVILEGES = """
with schemas as (
  select oid, nspname from pg_namespace where nspname in ('trading', 'market_data', 'data_sources', 'assetbatch')
),
tables as (
  select c.oid, n.nspname, c.relname
  from pg_class c join schemas n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'f')
),
written as (
  select oid from tables
  where (nspname, relname)
        in (('trading', 'symbols'), ('data_sources', 'data_sync_status'), ('market_data', 'ohlcv_5m'))
),
by_column (nspname, relname, privilege, columns) as (
  values
    ('trading', 'symbols', 'select', array['id', 'symbol', 'metadata', 'updated_at']),
    ('trading', 'symbols', 'insert', array['symbol', 'metadata', 'updated_at']),
    ('trading', 'symbols', 'update', array['metadata', 'updated_at']),
    ('data_sources', 'api_providers', 'select', array['id', 'code']),
    ('data_sources', 'data_sync_status', 'select',
     array['ticker_id', 'provider_id', 'last_sync_timestamp', 'sync_status', 'updated_at']),
    ('data_sources', 'data_sync_status', 'insert',
     array['ticker_id', 'provider_id', 'last_sync_timestamp', 'sync_status', 'updated_at']),
    ('data_sources', 'data_sync_status', 'update', array['last_sync_timestamp', 'sync_status', 'updated_at'])
),
by_table (nspname, relname, privilege) as (
  values
    ('data_sources', 'data_sync_status', 'delete'),
    ('market_data', 'ohlcv_5m', 'select'), ('market_data', 'ohlcv_5m', 'insert'), ('market_data', 'ohlcv_5m', 'update')
  union all
  select 'assetbatch', t.relname, p.privilege
  from tables t cross join unnest(array['select', 'insert', 'update', 'delete']) as p (privilege)
  where t.nspname = 'assetbatch' and (t.relname <> 'migrations' or p.privilege = 'select')
),
-- What new rows of the platform's tables take without being told: sequences, functions in defaults and in checks.
rules (classid, oid) as (
  select 'pg_attrdef'::regclass, d.oid from pg_attrdef d join written w on w.oid = d.adrelid
  union all
  select 'pg_constraint'::regclass, c.oid from pg_constraint c join written w on w.oid = c.conrelid
),
needed as (
  select d.refclassid, d.refobjid as oid from rules r join pg_depend d on d.classid = r.classid and d.objid = r.oid
)
select 1 as position, format('usage on schema %%s', nspname) as missing
from schemas where not has_schema_privilege(oid, 'usage')
union all
select 2, format('%%s (%%s) on %%s.%%s',
                 b.privilege, string_agg(a.attname, ', ' order by a.attnum), t.nspname, t.relname)
from by_column b
join tables t using (nspname, relname)
join pg_attribute a on a.attrelid = t.oid and a.attname = any(b.columns) and not a.attisdropped
where (%(writes)s or b.privilege = 'select') and not has_column_privilege(t.oid, a.attnum, b.privilege)
group by b.privilege, t.nspname, t.relname
union all
select 2, format('%%s on %%s.%%s', string_agg(b.privilege, ', ' order by b.privilege), t.nspname, t.relname)
from by_table b join tables t using (nspname, relname)
where (%(writes)s or b.privilege = 'select') and not has_table_privilege(t.oid, b.privilege)
group by t.nspname, t.relname
union
select 3, format('usage on sequence %%I.%%I', sn.nspname, s.relname)
from needed n
join pg_class s on n.refclassid = 'pg_class'::regclass and s.oid = n.oid
join pg_namespace sn on sn.oid = s.relnamespace
-- `case`, since conditions have no order, and another relation than a sequence is an error there.
where %(writes)s and case s.relkind when 'S' then not has_sequence_privilege(s.oid, 'usage') else false end
union
select 4, format('execute on function assetbatch.%%I', p.proname)
from pg_proc p join schemas n on n.oid = p.pronamespace
where n.nspname = 'assetbatch' and (%(writes)s or (p.provolatile <> 'v' and not p.prosecdef))
  and not has_function_privilege(p.oid, 'execute')
union
select 4, format('execute on function %%I.%%I(%%s)', fn.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
from needed n
join pg_proc p on n.refclassid = 'pg_proc'::regclass and p.oid = n.oid
join pg_namespace fn on fn.oid = p.pronamespace
where %(writes)s and not has_function_privilege(p.oid, 'execute')
order by 1, 2
"""

# A plain numeric keeps every digit. A domain rounds as the type below it does.
READ_ROUNDING_COLUMNS = """
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type
from pg_attribute a
join pg_class c on c.oid = a.attrelid and c.relname = 'ohlcv_5m'
join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'market_data'
join pg_type t on t.oid = a.atttypid
cross join lateral (
  select case when t.typtype = 'd' then t.typbasetype else t.oid end as id,
         case when t.typtype = 'd' then t.typtypmod else a.atttypmod end as modifier
) base
where a.attname in ('open', 'high', 'low', 'close', 'volume', 'vwap') and not a.attisdropped
  and not (base.id in ('numeric'::regtype, 'double precision'::regtype) and base.modifier = -1)
order by a.attnum
"""


class Server(Struct, frozen=True):
    """The server that answers, and who we are there; `pooled`: somebody stands between it and us."""

    version: str
    version_number: int
    role: str
    superuser: bool
    reads_only: bool
    writable: bool
    pooled: bool


def server(connection: Connection) -> Server:
    """Return which server answers.

    A pooler gives each client a process id of its own making, since any backend may answer.
    """
    row = one(connection.execute(READ_SERVER))
    writable = not (row["standby"] or row["read_only"])
    return filled(Server, row, writable=writable, pooled=row["backend"] != connection.info.backend_pid)


def clock(connection: Connection) -> datetime:
    """Return the database's time."""
    now: datetime = value(connection.execute(READ_CLOCK))
    return now


def missing_privileges(connection: Connection, *, writes: bool) -> list[str]:
    """List what the jobs need, or reading, and the role lacks, in the words of GRANT."""
    return [row["missing"] for row in connection.execute(READ_MISSING_PRIVILEGES, {"writes": writes})]


def platform_lacks(connection: Connection) -> list[str]:
    """Return what in the platform's tables is not (any more) as the tool needs it."""
    return [one.what for one in [*lacks(connection), *volume_lacks(connection)]]


def rounding_columns(connection: Connection) -> list[tuple[str, str]]:
    """List columns of the bars that do not keep the vendor's digits, each with its type."""
    return [(row["name"], row["type"]) for row in connection.execute(READ_ROUNDING_COLUMNS)]
