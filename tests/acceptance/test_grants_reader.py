"""A role with exactly what `init --grants-reader` prints: it reads everything, without a key, and writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from assetbatch.errors import EXIT_USAGE, SchemaError
from tests.conftest import API_KEY, Commands, open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection

ROLE = "a reader's :role"
READING = (
    "status", "status --check", "status --all-assets", "status --since 24h", "status --asset XAUUSD", "status --json",
    "metrics", "metrics --json", "metrics --output all.prom", "events tail --no-follow", "events tail --max-seconds 0",
    "queue list", "queue list --json", "symbols list", "symbols list --json", "forecast", "forecast --json",
    "config show", "config show --json", "config check", "config schema", "database url", "doctor", "doctor --json",
    "bars export --all", "bars export --symbol BTCUSD --json --output bars.parquet",
    "bars export --all --cursor-file cursor --output bars.csv", "bars export --all --cursor-file cursor",
    "bars coverage", "bars coverage --symbol BTCUSD --json", "chart BTCUSD",
    "chart BTCUSD --candles", "chart BTCUSD --json",
    "init --check", "init --grants jobs", "init --grants-reader colleague",
)  # fmt: skip
WRITING = (
    "run-priority", "drain-queue", "enqueue-secondary", "backfill --since 2026-11-20", "probe",
    "symbols add ADAUSD X:ADAUSD --no-check", "symbols remove SOLUSD", "queue remove ETHUSDT", "queue retry --all",
    "queue clear --yes", "init --restored",
)  # fmt: skip
# Whatever the role could change, be it by a table, a column, a sequence or a function that writes.
READ_WRITABLE = """
select c.oid::regclass::text as what
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('trading', 'market_data', 'data_sources', 'assetbatch') and c.relkind in ('r', 'p', 'v')
  and (has_table_privilege(c.oid, 'insert, update, delete, truncate, references, trigger')
       or has_any_column_privilege(c.oid, 'insert, update'))
union all
select c.oid::regclass::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('trading', 'market_data', 'data_sources', 'assetbatch')
  and case c.relkind when 'S' then has_sequence_privilege(c.oid, 'usage, update') else false end
union all
select p.oid::regprocedure::text
from pg_proc p where p.pronamespace = 'assetbatch'::regnamespace and p.provolatile = 'v'
  and has_function_privilege(p.oid, 'execute')
union all
select nspname from pg_namespace where has_schema_privilege(oid, 'create') and nspname <> 'public'
"""


READ_CHANGES = """
select relid::regclass::text as name, n_tup_ins, n_tup_upd, n_tup_del
from pg_stat_user_tables order by 1
"""


@pytest.fixture
def owner(commands: Commands, connection: Connection) -> Iterator[Connection]:
    """The owner of tables that have seen some runs, of which everybody may do nothing by themselves."""
    (commands.folder / "config.yaml").write_text("bars: {enabled: true, backfill_days: 1}\n")
    for command in ("init", "run-priority", "enqueue-secondary", "symbols add SOLUSD X:SOLUSD"):
        assert commands(*command.split()).returncode == 0, command
    connection.execute("revoke all on all functions in schema assetbatch from public")
    name = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("create role {} login").format(sql.Identifier(ROLE)))
    connection.execute(sql.SQL("revoke all on database {} from public").format(name))
    yield connection
    connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(ROLE)))
    connection.execute(sql.SQL("drop role {}").format(sql.Identifier(ROLE)))


@pytest.fixture
def reader(commands: Commands, owner: Connection, database: str) -> Commands:
    """The commands as a role that was granted what `init --grants-reader` prints, without a key."""
    owner.execute(commands("init", "--grants-reader", ROLE).stdout.encode())
    commands.environment["DATABASE_URL"] = psycopg.conninfo.make_conninfo(database, user=ROLE)
    del commands.environment["POLYGON_API_KEY"]
    return commands


def quoted(role: str) -> str:
    return sql.Identifier(role).as_string()


def told(done: Any) -> str:
    return " ".join((done.stdout + done.stderr).split())


def changes(connection: Connection) -> list[Any]:
    """Return how many rows were ever inserted, updated and deleted, by table."""
    return connection.execute(READ_CHANGES).fetchall()


def test_a_reader_reads_everything_without_a_key_and_changes_nothing(reader: Commands, owner: Connection) -> None:
    owner.execute(sql.SQL("alter role {} set default_transaction_read_only = on").format(sql.Identifier(ROLE)))
    before = changes(owner)

    for command in READING:
        done = reader(*command.split())
        assert done.returncode in ({0, 1} if "--check" in command else {0}), (command, told(done))
        assert "permission denied" not in told(done), command
        assert done.stderr == "" or done.stderr.startswith("bars export: "), (command, done.stderr)

    assert changes(owner) == before


def test_it_sees_what_the_jobs_see(reader: Commands, database: str) -> None:
    seen = ("schema", "status", "alerts", "metrics", "prices", "asset_states", "items", "mode", "limit", "total_calls")

    for command in ("status --json --all-assets", "queue list --json", "symbols list --json", "forecast --json"):
        as_reader = json.loads(reader(*command.split()).stdout)
        as_jobs = json.loads(reader(*command.split(), DATABASE_URL=database, POLYGON_API_KEY=API_KEY).stdout)
        assert as_reader.keys() == as_jobs.keys()
        assert {name: as_reader.get(name) for name in seen} == {name: as_jobs.get(name) for name in seen}, command


def test_it_may_write_nothing_and_whatever_writes_says_so(reader: Commands, owner: Connection) -> None:
    with open_database(reader.environment["DATABASE_URL"]) as connection:
        assert connection.execute(READ_WRITABLE).fetchall() == []
    before = changes(owner)

    for command in WRITING:
        done = reader(*command.split(), "-v", POLYGON_API_KEY=API_KEY)
        again = reader(*command.split(), "-v")
        assert (done.returncode, again.returncode) == (SchemaError.exit_code, SchemaError.exit_code), command
        assert "permission denied for" in told(done), command
        assert "`assetbatch doctor` says whether this role may only read" in told(done), command
        assert "permission denied for" in told(again) or "no API key is given" in told(again), command

    assert changes(owner) == before


def test_doctor_says_in_one_line_that_it_only_reads(reader: Commands, owner: Connection) -> None:
    def findings() -> dict[str, Any]:
        return {one["name"]: one for one in json.loads(reader("doctor", "--json").stdout)["findings"]}

    found = findings()
    owner.execute(sql.SQL("revoke select on assetbatch.queue from {}").format(sql.Identifier(ROLE)))
    lacks = findings()["privileges"]

    assert found["key"]["found"] == "no API key is given, and reading needs none"
    assert found["privileges"]["found"] == f"{ROLE} may read everything and write nothing: no job runs as this role"
    assert (lacks["level"], lacks["found"]) == ("fail", "missing: select on assetbatch.queue")
    assert lacks["hint"] == f"as the tables' owner: GRANT select on assetbatch.queue TO {quoted(ROLE)}"


def test_tables_of_later_versions_are_readable_at_once(reader: Commands, owner: Connection) -> None:
    owner.execute("create table assetbatch.of_a_later_version (n int)")
    owner.execute("create view assetbatch.view_of_it as select * from assetbatch.of_a_later_version")

    with open_database(reader.environment["DATABASE_URL"]) as connection:
        assert connection.execute("select n from assetbatch.view_of_it, assetbatch.runs limit 1").fetchall() == []
        assert connection.execute(READ_WRITABLE).fetchall() == []


def test_a_killed_run_of_its_own_host_is_left_to_others(reader: Commands, owner: Connection) -> None:
    owner.execute(
        "update assetbatch.runs set status = 'running', finished_at = null, pid = 2147483647,"
        " ends_by = clock_timestamp() + interval '1 minute'"
    )

    done = reader("status")

    assert (done.returncode, done.stderr) == (0, "")
    assert owner.execute("select count(*) as n from assetbatch.runs where gone_at is not null").fetchall() == [{"n": 0}]


def test_modes_of_init_exclude_each_other_and_json_is_of_one_shape(commands: Commands) -> None:
    text, document = (commands("init", "--grants-reader", "a", *more) for more in ((), ("--json",)))

    assert json.loads(document.stdout) == {"schema": "assetbatch.init/1", "sql": text.stdout}
    for other in (("--check",), ("--restored",), ("--grants", "b")):
        assert commands("init", "--grants-reader", "a", *other).returncode == EXIT_USAGE
