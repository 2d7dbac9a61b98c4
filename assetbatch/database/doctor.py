"""What `doctor` reads: the server, the role's privileges, columns that round, and signs of trouble. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assetbatch.database import overview
from assetbatch.database.platform import MISSING_COLUMNS, MISSING_KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row

READ_SERVER = """
select current_setting('server_version') as version, current_setting('server_version_num')::int as version_number,
       current_user as role, rolsuper as superuser, pg_is_in_recovery() as standby,
       current_setting('default_transaction_read_only')::bool as read_only, pg_backend_pid() as backend
from pg_roles where rolname = current_user
"""

READ_CLOCK = "select clock_timestamp() as now"

# What grants.sql grants, looked up in the catalogue: a name is not resolved in a schema that the role may not use.
READ_MISSING_PRIVILEGES = """
with schemas as (
  select oid, nspname from pg_namespace where nspname in ('trading', 'market_data', 'data_sources', 'assetbatch')
),
tables as (
  select c.oid, n.nspname, c.relname
  from pg_class c join schemas n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'f')
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
)
select 1 as position, format('usage on schema %s', nspname) as missing
from schemas where not has_schema_privilege(oid, 'usage')
union all
select 2, format('%s (%s) on %s.%s', b.privilege, string_agg(a.attname, ', ' order by a.attnum), t.nspname, t.relname)
from by_column b
join tables t using (nspname, relname)
join pg_attribute a on a.attrelid = t.oid and a.attname = any(b.columns) and not a.attisdropped
where not has_column_privilege(t.oid, a.attnum, b.privilege)
group by b.privilege, t.nspname, t.relname
union all
select 2, format('%s on %s.%s', string_agg(b.privilege, ', ' order by b.privilege), t.nspname, t.relname)
from by_table b join tables t using (nspname, relname)
where not has_table_privilege(t.oid, b.privilege)
group by t.nspname, t.relname
union all
-- Ids that are serial; identity columns need no privilege.
select 3, format('usage on sequence %s.%s', n.nspname, s.relname)
from pg_class s
join schemas n on n.oid = s.relnamespace
join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype = 'a' and d.refobjsubid > 0
where n.nspname in ('trading', 'data_sources')
  -- `case`, since conditions have no order, and another relation than a sequence is an error there.
  and case s.relkind when 'S' then not has_sequence_privilege(s.oid, 'usage') else false end
union all
select 4, format('execute on function assetbatch.%s', p.proname)
from pg_proc p join schemas n on n.oid = p.pronamespace
where n.nspname = 'assetbatch' and not has_function_privilege(p.oid, 'execute')
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

# The last run decides whether cron is there, the last that has ended how things go. One that was killed never says so.
READ_JOBS = """
select j.job, last.started_at, last.host, ended.status, ended.exit_code, ended.error_kind, ended.error,
       ended.at as ended_at, clock_timestamp() as now
from unnest(%(jobs)s::text[]) with ordinality as j (job, position)
left join lateral (
  select started_at, host from assetbatch.runs r
  where r.job = j.job and status <> 'skipped' order by started_at desc limit 1
) last on true
left join lateral (
  select case when status = 'running' then 'killed' else status end as status, exit_code, error_kind, error,
         coalesce(finished_at, ends_by) as at
  from assetbatch.runs r
  where r.job = j.job and status <> 'skipped' and (status <> 'running' or ends_by < clock_timestamp())
  order by started_at desc limit 1
) ended on true
order by j.position
"""

READ_WORK = """
select (select count(*) from assetbatch.queue
        where state = 'queued' or (state = 'delayed' and available_at < clock_timestamp())
           or (state = 'leased' and leased_until < clock_timestamp())) as due,
       (select count(*) from assetbatch.queue where state = 'dead') as dead,
       (select count(*) from assetbatch.assets where enabled and role = 'secondary') as secondary,
       (select count(*) from assetbatch.assets where enabled) as assets
"""

READ_DEAD = """
select symbol, error_kind, error, died_at from assetbatch.queue
where state = 'dead' order by died_at desc limit %(limit)s
"""

READ_EVENTS = """
select count(*) as pending, min(created_at) as oldest, clock_timestamp() as now
from assetbatch.outbox where published_at is null
"""

READ_FAILED_BARS = """
select symbol, b.error_kind, b.error, count(*) over () as total
from assetbatch.bar_state b join assetbatch.assets a using (symbol)
where b.error_kind is not null and a.enabled
order by b.asked_at desc nulls last, symbol limit %(limit)s
"""

READ_HOSTS = """
select distinct on (host) host, version, plan, started_at
from assetbatch.runs
where started_at > clock_timestamp() - interval '1 day'
order by host, started_at desc
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The server that answers, and who we are there; `pooled`: somebody stands between it and us."""

    version: str
    version_number: int
    role: str
    superuser: bool
    writable: bool
    pooled: bool


def server(connection: Connection) -> Server:
    """Tell which server answers.

    A pooler gives each client a process id of its own making, since any backend may answer.
    """
    row = _one(connection, READ_SERVER)
    return Server(
        version=row["version"],
        version_number=row["version_number"],
        role=row["role"],
        superuser=row["superuser"],
        writable=not (row["standby"] or row["read_only"]),
        pooled=row["backend"] != connection.info.backend_pid,
    )


def clock(connection: Connection) -> datetime:
    """Tell the database's time."""
    now: datetime = _one(connection, READ_CLOCK)["now"]
    return now


def missing_privileges(connection: Connection) -> list[str]:
    """List what the jobs need and the role lacks, in the words of GRANT."""
    return [row["missing"] for row in connection.execute(READ_MISSING_PRIVILEGES)]


def platform_lacks(connection: Connection) -> list[str]:
    """List columns and keys of the platform's tables that are relied on and are not there (any more)."""
    lacks = [f"{row['relation']}.{row['name']}" for row in connection.execute(MISSING_COLUMNS)]
    return lacks or [
        f"a unique key of {row['relation']} ({', '.join(row['columns'])})" for row in connection.execute(MISSING_KEYS)
    ]


def rounding_columns(connection: Connection) -> list[tuple[str, str]]:
    """List columns of the bars that do not keep the vendor's digits, each with its type."""
    return [(row["name"], row["type"]) for row in connection.execute(READ_ROUNDING_COLUMNS)]


def jobs(connection: Connection, names: Sequence[str]) -> list[Row]:
    """Read for each job its last run, and how the last that has ended went."""
    return connection.execute(READ_JOBS, {"jobs": list(names)}).fetchall()


def work(connection: Connection) -> Row:
    """Count what is there to do: due items, dead letters, assets."""
    return _one(connection, READ_WORK)


def dead_letters(connection: Connection, *, limit: int) -> list[Row]:
    """Read the newest dead letters."""
    return connection.execute(READ_DEAD, {"limit": limit}).fetchall()


def events(connection: Connection) -> Row:
    """Count the events that wait, and since when."""
    return _one(connection, READ_EVENTS)


def failed_bars(connection: Connection, *, limit: int) -> list[Row]:
    """Read the assets whose last call for bars failed; `total` counts all of them."""
    return connection.execute(READ_FAILED_BARS, {"limit": limit}).fetchall()


def hosts(connection: Connection) -> list[Row]:
    """Read what each host of the last day ran."""
    return connection.execute(READ_HOSTS).fetchall()


def disagreeing_hosts(connection: Connection) -> list[Row]:
    """Read the hosts whose rules of the rate limit differ."""
    return connection.execute(overview.READ_DISAGREEING_HOSTS).fetchall()


def _one(connection: Connection, statement: str) -> dict[str, Any]:
    row = connection.execute(statement).fetchone()
    assert row is not None  # noqa: S101 - each of these statements has one row
    return row
