"""A role with exactly what `init --grants` prints: it can do all that the jobs do, and what it lacks is named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from assetbatch.errors import AssetbatchError, SchemaError
from assetbatch.report.doctor import database as examination
from assetbatch.report.doctor.findings import Level
from tests.conftest import Commands, open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from assetbatch.report.doctor.findings import Finding

ROLE = 'jobs\'% of :role "x"'
# A platform's own tables: with serial ids, a sequence and functions elsewhere, and nothing that everybody may do.
PLATFORM = """
create schema trading; create schema data_sources; create schema market_data; create schema platform;
create sequence platform."audit ids";
create function platform.tenant(text) returns text language sql as 'select ''a''';
create function platform.is_fine(text) returns boolean language sql immutable as 'select true';
create table trading.symbols (
  id serial primary key, symbol text not null unique check (platform.is_fine(symbol)), metadata jsonb,
  updated_at timestamptz, audit bigint not null default nextval('platform."audit ids"'),
  tenant text not null default platform.tenant('x')
);
create table data_sources.api_providers (id serial primary key, code text not null unique);
create table data_sources.data_sync_status (
  id bigserial primary key, ticker_id int not null, provider_id int not null, last_sync_timestamp timestamptz,
  sync_status text, updated_at timestamptz, unique (ticker_id, provider_id)
);
create table market_data.ohlcv_5m (
  id bigserial, symbol_id int not null, ts timestamptz not null, open numeric, high numeric, low numeric, close numeric,
  volume numeric, vwap numeric, trades int, is_final boolean, fetched_at timestamptz, primary key (symbol_id, ts)
);
revoke all on all functions in schema platform from public;
"""
AUDIT = """
create table platform.audit (n int);
create function platform.note() returns trigger language plpgsql as
  'begin insert into platform.audit values (1); return new; end';
create trigger note before insert or update on trading.symbols for each row execute function platform.note();
"""

# All that the role was given here, each as the statement that takes it away.
READ_GRANTED = """
with us as (select oid from pg_roles where rolname = %(role)s)
select format('revoke %%s on database %%I from %%I', a.privilege_type, d.datname, %(role)s) as statement
from pg_database d cross join aclexplode(d.datacl) a where d.datname = current_database() and a.grantee in (table us)
  and a.privilege_type <> 'CONNECT'
union all
select format('revoke %%s on schema %%I from %%I', a.privilege_type, n.nspname, %(role)s)
from pg_namespace n cross join aclexplode(n.nspacl) a where a.grantee in (table us)
union all
select format('revoke %%s on %%s %%s from %%I', a.privilege_type,
              case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass, %(role)s)
from pg_class c cross join aclexplode(c.relacl) a where a.grantee in (table us)
union all
select format('revoke %%s (%%I) on %%s from %%I', a.privilege_type, t.attname, t.attrelid::regclass, %(role)s)
from pg_attribute t cross join aclexplode(t.attacl) a where a.grantee in (table us)
union all
select format('revoke %%s on function %%s from %%I', a.privilege_type, p.oid::regprocedure, %(role)s)
from pg_proc p cross join aclexplode(p.proacl) a where a.grantee in (table us)
order by 1
"""


@pytest.fixture
def owner(empty_database: str) -> Iterator[Connection]:
    """The owner of a platform's tables, and a role that can do nothing."""
    with open_database(empty_database) as connection:
        connection.execute(PLATFORM)
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("create role {} login").format(sql.Identifier(ROLE)))
        connection.execute(sql.SQL("revoke all on database {} from public").format(name))
        yield connection
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(ROLE)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(ROLE)))


@pytest.fixture
def jobs(commands: Commands, owner: Connection, empty_database: str) -> Commands:
    """The commands as the role that was granted what `init --grants` prints, and no more."""
    commands.environment |= {"DATABASE_URL": empty_database, "POLYGON_RATE_LIMIT": "unlimited"}
    (commands.folder / "config.yaml").write_text("bars: {backfill_days: 2}\n")
    assert commands("init").returncode == 0
    # What everybody may do by itself.
    owner.execute("revoke all on all functions in schema assetbatch from public")
    owner.execute(commands("init", "--grants", ROLE).stdout.encode())
    commands.environment["DATABASE_URL"] = psycopg.conninfo.make_conninfo(empty_database, user=ROLE)
    return commands


def privileges(jobs: Commands) -> Finding:
    with open_database(jobs.environment["DATABASE_URL"]) as connection:
        (found,) = examination.privileges(connection)
    return found


def test_a_role_with_the_printed_grants_runs_every_job_and_command(jobs: Commands, owner: Connection) -> None:
    (jobs.folder / "assets.csv").write_text("symbol,polygon_ticker\nSOLUSD,X:SOLUSD\nLTCUSD,X:LTCUSD\n")
    for command in (
        "run-priority", "enqueue-secondary", "drain-queue", "enqueue-secondary --all", "drain-queue --shared",
        "backfill --since 2026-11-20 --symbol XAUUSD", "backfill --refetch --symbol BTCUSD --since 2026-11-26", "probe",
        "forecast", "symbols add ADAUSD X:ADAUSD", "symbols import assets.csv", "symbols list",
        "symbols remove ADAUSD", "enqueue-secondary --all --source database", "queue list", "queue remove SOLUSD",
        "queue retry --all", "queue clear --yes", "status", "status --asset XAUUSD", "status --since 24h", "metrics",
        "events tail --no-follow --since 10m", "doctor --json", "init --check",
    ):  # fmt: skip
        done = jobs(*command.split())
        told = done.stdout if command.startswith("doctor") else done.stderr
        assert done.returncode == 0 or command.startswith("doctor"), (command, told)
        assert "permission denied" not in done.stdout + done.stderr
        assert "privilege" not in done.stderr, command
    stored = owner.execute("select count(*) as n from market_data.ohlcv_5m").fetchone()
    assert stored is not None
    assert stored["n"] > 0


def test_whatever_is_taken_away_is_named_with_the_statement_that_gives_it_back(
    jobs: Commands, owner: Connection
) -> None:
    assert privileges(jobs).level is Level.OK
    statements = [row["statement"] for row in owner.execute(READ_GRANTED, {"role": ROLE})]
    assert len(statements) > 80
    assert sum("on sequence" in one for one in statements) == 4
    assert sum("platform." in one and "function" in one for one in statements) == 2

    for statement in statements:
        owner.execute(statement)
        found = privileges(jobs)
        assert found.level is Level.FAIL, statement
        assert found.hint.startswith("as the tables' owner: GRANT "), statement
        owner.execute(found.hint.partition(": ")[2].encode())
        assert privileges(jobs).level is Level.OK, statement


def test_many_that_are_missing_are_what_init_prints(jobs: Commands, owner: Connection) -> None:
    owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(ROLE)))
    owner.execute(sql.SQL("grant connect on database {} to public").format(sql.Identifier(owner.info.dbname)))

    found = privileges(jobs)

    (line,) = re.findall(r"`assetbatch (.*)`", found.hint)
    assert found.level is Level.FAIL
    printed = jobs.python("-c", f"import shlex, subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m',"
                          f" 'assetbatch', *shlex.split({line!r})]))")  # fmt: skip
    owner.execute(printed.stdout.encode())
    assert privileges(jobs).level is Level.OK


def test_a_role_that_may_not_connect_is_told_the_statement(jobs: Commands, owner: Connection) -> None:
    owner.execute(
        sql.SQL("revoke connect on database {} from {}").format(sql.Identifier(owner.info.dbname), sql.Identifier(ROLE))
    )
    with pytest.raises(AssetbatchError) as caught:
        open_database(jobs.environment["DATABASE_URL"])

    assert caught.value.hint.startswith("as the database's owner: GRANT CONNECT ON DATABASE")


@pytest.mark.parametrize(
    ("change", "words", "hint"),
    [
        ("alter table trading.symbols enable row level security", "row-level security", "policy"),
        (
            AUDIT,
            "permission denied for schema platform",
            "trigger of the platform's",
        ),
    ],
)
def test_what_no_grant_of_ours_mends_is_not_sent_to_the_grants(
    jobs: Commands, owner: Connection, change: str, words: str, hint: str
) -> None:
    owner.execute(change.encode())

    done = jobs("run-priority")

    assert words in done.stderr
    assert hint in done.stderr
    assert "--grants" not in done.stderr


def test_bars_are_for_their_owner_to_remove(jobs: Commands, owner: Connection) -> None:
    assert jobs("symbols", "add", "ADAUSD", "X:ADAUSD").returncode == 0

    refused = jobs("symbols", "remove", "ADAUSD", "--with-bars", "--yes")
    owner.execute(sql.SQL("grant delete on market_data.ohlcv_5m to {}").format(sql.Identifier(ROLE)))
    done = jobs("symbols", "remove", "ADAUSD", "--with-bars", "--yes")

    assert refused.returncode == SchemaError.exit_code
    assert "granted DELETE" in " ".join(refused.stderr.split())
    assert (done.returncode, done.stderr) == (0, "")
