"""The life of an installation: looked at before, upgraded while jobs run, brought back from a backup."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from assetbatch import __version__
from assetbatch import config as configuration
from assetbatch.cli.trouble import named
from assetbatch.database.setup import schema
from assetbatch.errors import Interrupted
from assetbatch.jobs import priority
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.run import Start
from assetbatch.model import RunStatus
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, Commands, open_database, wait_until

if TYPE_CHECKING:
    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

NOTHING: dict[str, Any] = {
    "pending": False,
    "create_database": False,
    "migrations": [],
    "added": [],
    "changed": [],
    "disabled": [],
    "partitions": [],
    "owner_statements": [],
    "lacks": [],
    "row_security": [],
}
NAMES = [migration.full_name for migration in schema.migrations()]
NEWEST = schema.migrations()[-1].version
DEFAULT_ASSETS = ["XAUUSD", "EURUSD", "BTCUSD", "ETHUSDT", "GBPUSD", "USDJPY", "XAGUSD"]


def at(commands: Commands, database: str) -> Commands:
    return replace(commands, environment=commands.environment | {"DATABASE_URL": database})


def document(commands: Commands, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = commands(*arguments, "--json")
    assert done.returncode == code, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def months(now: datetime) -> list[str]:
    first = now.year * 12 + now.month - 1
    return [f"market_data.ohlcv_5m_{month // 12}{month % 12 + 1:02}" for month in range(first, first + 4)]


def test_the_check_shows_all_that_init_would_do_and_does_none_of_it(commands: Commands, empty_database: str) -> None:
    commands.environment["DATABASE_URL"] = empty_database
    (commands.folder / "config.yaml").write_text("bars: {retention_months: 12}\n")

    before = document(commands, "init", "--check")
    with open_database(empty_database) as connection:
        schemas = connection.execute("select from pg_namespace where nspname in ('assetbatch', 'trading')").fetchall()
    said = commands("init", "--check")
    done = document(commands, "init")
    after = document(commands, "init", "--check")

    assert schemas == []
    assert before.pop("database") == after.pop("database")
    assert before == NOTHING | {
        "schema": "assetbatch.init/1",
        "schema_version": None,
        "pending": True,
        "migrations": NAMES,
        "added": DEFAULT_ASSETS,
        "partitions": months(datetime.now(UTC)),
    }
    assert (said.returncode, said.stderr) == (0, "")
    assert f"apply {named(NAMES)}" in said.stdout
    assert done["applied"] == NAMES
    assert after == NOTHING | {"schema": "assetbatch.init/1", "schema_version": NEWEST}
    assert commands("init", "--check").stdout.endswith(f"schema version {NEWEST}, nothing to do\n")


def test_the_check_names_what_differs(commands: Commands, connection: Connection) -> None:
    assert commands("init").returncode == 0
    connection.execute(
        """
        delete from assetbatch.assets where symbol = 'GBPUSD';
        update assetbatch.assets set enabled = false where symbol = 'USDJPY';
        update assetbatch.assets set origin = 'symbols' where symbol = 'XAGUSD';
        update assetbatch.assets set rank = 9 where symbol = 'XAUUSD';
        insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
        values ('OLDUSD', 'C:OLDUSD', 'forex', 'secondary', 3, 1800, 'config'),
               ('OWNUSD', 'C:OWNUSD', 'forex', 'secondary', 3, 1800, 'symbols');
        """
    )
    catalogue = "select * from assetbatch.assets order by symbol"
    rows = connection.execute(catalogue).fetchall()

    found = document(commands, "init", "--check")

    assert connection.execute(catalogue).fetchall() == rows
    assert (found["added"], found["changed"], found["disabled"]) == (
        ["GBPUSD"],
        ["XAUUSD", "USDJPY", "XAGUSD"],
        ["OLDUSD"],
    )
    assert (found["pending"], found["migrations"]) == (True, [])
    assert commands("init").returncode == 0
    assert document(commands, "init", "--check")["pending"] is False


def test_the_check_fails_where_init_would_and_its_statements_mend_that(
    commands: Commands, empty_database: str, postgres: EmbeddedServer
) -> None:
    with open_database(empty_database) as owner:
        owner.execute(
            """
            create schema trading;
            create table trading.symbols (id uuid, symbol text, updated_at timestamptz);
            drop role if exists installer;
            create role installer login;
            grant usage on schema trading to installer;
            revoke create on database {} from public;
            """.replace("{}", owner.info.dbname)
        )
        installer = psycopg.conninfo.make_conninfo(empty_database, user="installer")

        found = document(at(commands, installer), "init", "--check", code=78)
        for statement in found["owner_statements"]:
            owner.execute(statement)
        again = document(at(commands, installer), "init", "--check")

        assert found["owner_statements"] == [
            f"GRANT CREATE ON DATABASE {owner.info.dbname} TO installer;",
            "ALTER TABLE trading.symbols ADD COLUMN metadata jsonb not null default '{}';",
            "ALTER TABLE trading.symbols ADD UNIQUE (symbol);",
        ]
        assert (again["owner_statements"], again["migrations"]) == ([], NAMES)
        assert owner.execute("select to_regnamespace('assetbatch') as made").fetchone() == {"made": None}
        owner.execute("grant select, insert, update, references on trading.symbols to installer")
        assert at(commands, installer)("init").returncode == 0


def test_the_check_of_an_embedded_server_makes_none(commands: Commands) -> None:
    folder = tempfile.mkdtemp(prefix="assetbatch-data-", dir="/tmp")
    try:
        del commands.environment["DATABASE_URL"]
        (commands.folder / "config.yaml").write_text("database: {embedded: true}\n")

        commands.environment["XDG_DATA_HOME"] = folder

        found = document(commands, "init", "--check")

        assert (found["create_database"], found["migrations"], found["added"]) == (True, NAMES, DEFAULT_ASSETS)
        assert list(Path(folder).iterdir()) == []
    finally:
        shutil.rmtree(folder)


def test_a_mixture_of_options_is_wrong_usage(commands: Commands) -> None:
    assert commands("init", "--check", "--restored").returncode == 2


def copy_of(postgres: EmbeddedServer, database: str, name: str) -> str:
    """Make a backup and bring it back under another name."""
    source = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(str(source)))
        )
    return postgres.conninfo(name)


def test_a_backup_that_came_back_repeats_no_call_no_price_and_no_number(
    commands: Commands, database: str, postgres: EmbeddedServer
) -> None:
    seqs = "select symbol, max(seq) as seq from assetbatch.outbox group by symbol order by symbol"
    window = 3
    commands.environment["POLYGON_RATE_LIMIT"] = "2"
    (commands.folder / "config.yaml").write_text(
        "batch:\n  priority_assets:\n"
        '    - {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto, update_frequency_seconds: 1}\n'
        '    - {symbol: ETHUSD, polygon_ticker: "X:ETHUSD", asset_type: crypto, update_frequency_seconds: 1}\n'
        f"rate_limiting: {{window_seconds: {window}, margin_seconds: 0}}\n"
    )
    with Sandbox(key=API_KEY, plan="starter", limit=2, window_seconds=window) as sandbox:
        commands.environment["POLYGON_BASE_URL"] = sandbox.url
        assert commands("run-priority").returncode == 0
        with psycopg.connect(database, autocommit=True) as connection:
            # What was pending when the backup was made was told long ago, and newer prices since.
            connection.execute("update assetbatch.outbox set published_at = null, created_at = now() - interval '2 h'")
            # And it is due again, however soon after the first run the next ones start.
            connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 minute'")
        backup = copy_of(postgres, database, "restored")
        assert commands("run-priority").returncode == 0
        with psycopg.connect(database) as connection:
            told = connection.execute(seqs).fetchall()
        assert len(sandbox.arrivals) == 2

        first = document(at(commands, backup), "init", "--restored")
        second = document(at(commands, backup), "init", "--restored")
        assert at(commands, backup)("run-priority").returncode == 0

        assert [arrival.status for arrival in sandbox.arrivals] == [200] * 3
    assert first["restored"]["events_dropped"] == 2
    assert second["restored"]["events_dropped"] == 0
    assert second["restored"]["blocked_until"] > first["restored"]["blocked_until"]
    with psycopg.connect(backup) as connection:
        now = connection.execute(seqs).fetchall()
        pending = connection.execute("select from assetbatch.outbox where published_at is null").fetchall()
    assert [symbol for symbol, _ in now] == [symbol for symbol, _ in told]
    assert all(new > old for (_, new), (_, old) in zip(now, told, strict=True))
    assert pending == []


# What a later release may do to every table: a column more.
LATER = """
do $$
declare
  name text;
begin
  for name in select format('%%I.%%I', schemaname, tablename) from pg_tables where schemaname = 'assetbatch' loop
    execute format('alter table %%s add column added_later_{version} int not null default 0', name);
  end loop;
end
$$;
create table assetbatch.later_{version} (id bigint generated always as identity primary key);
create index concurrently_not_{version} on assetbatch.api_calls (kind, at);
"""


def later(folder: Path, version: int) -> schema.Migration:
    file = folder / f"{version}.sql"
    file.write_text(LATER.replace("%%", "%").replace("{version}", str(version)))
    return schema.Migration(version, f"later_{version}", file)


def test_a_program_works_with_a_newer_schema_as_long_as_that_allows_it(
    commands: Commands, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [*schema.migrations(), later(commands.folder, NEWEST + 1)]
    with monkeypatch.context() as newer_program:
        newer_program.setattr(schema, "migrations", lambda: known)
        newer_program.setattr(schema, "OLDEST_PROGRAM", __version__)
        assert schema.migrate(connection) == known[-1:]

    assert document(commands, "run-priority")["updated"] == ["XAUUSD", "EURUSD", "BTCUSD"]
    assert document(commands, "enqueue-secondary")["enqueued"] == 4
    assert len(document(commands, "drain-queue")["updated"]) == 4
    assert document(commands, "status")["asset_states"]["fresh"] >= 3
    assert document(commands, "init")["schema_version"] == NEWEST + 1
    assert document(commands, "init", "--restored")["restored"]["keys_blocked"] == 1

    connection.execute("update assetbatch.meta set value = '99.1.0' where key = 'oldest_program'")
    for command in (["run-priority"], ["init"]):
        refused = commands(*command)
        assert (refused.returncode, refused.stdout) == (78, "")
        for word in (f"version {NEWEST + 1}", "99.1.0 or newer", f"this is {__version__}", "upgrade"):
            assert word in refused.stderr


@pytest.mark.parametrize("limit", ["unlimited", "1000"])
def test_an_upgrade_while_jobs_run_fails_no_run(
    limit: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 11, 17, 12, tzinfo=UTC)
    runs: list[RunStatus] = []
    upgraded = threading.Event()
    failures: list[BaseException] = []

    def loop(config: Config) -> None:
        nonlocal now
        stop = Stop(lambda: Interrupted(signal.SIGTERM))
        try:
            with open_database(database) as connection:
                while not upgraded.is_set():
                    now += timedelta(minutes=5)
                    result = priority.run_priority(Start(config, connection, "test", stop, now))
                    runs.append(result.status)
        except BaseException as error:
            failures.append(error)
            raise

    with Sandbox(key=API_KEY, clock=lambda: now) as sandbox, open_database(database) as connection:
        (tmp_path / "config.yaml").write_text("{}")
        environment = {
            "DATABASE_URL": database,
            "POLYGON_API_KEY": API_KEY,
            "POLYGON_BASE_URL": sandbox.url,
            "POLYGON_TIER": "starter",
            "POLYGON_RATE_LIMIT": limit,
        }
        config = configuration.load(file=tmp_path / "config.yaml", environ=environment, cwd=tmp_path)
        jobs = threading.Thread(target=loop, args=[config])
        jobs.start()
        try:
            wait_until(lambda: runs or failures)
            known = schema.migrations()
            monkeypatch.setattr(schema, "migrations", lambda: known)
            for version in range(NEWEST + 1, NEWEST + 4):
                known = [*known, later(tmp_path, version)]
                before = len(runs)
                assert schema.migrate(connection) == known[-1:]
                wait_until(lambda before=before: len(runs) > before or failures)  # type: ignore[misc]
        finally:
            upgraded.set()
            jobs.join(timeout=30)

    assert failures == []
    assert set(runs) == {RunStatus.OK}


def partitions(connection: Connection) -> list[str]:
    rows = connection.execute("select inhrelid::regclass::text as name from pg_inherits order by 1")
    return [row["name"] for row in rows if "." in row["name"] and "pkey" not in row["name"]]


def test_bars_that_are_kept_for_so_long_and_for_ever_and_for_so_long_again(
    commands: Commands, empty_database: str
) -> None:
    commands.environment["DATABASE_URL"] = empty_database

    def init(months: str, *, complaint: bool = False) -> None:
        (commands.folder / "config.yaml").write_text(f"bars: {{retention_months: {months}}}\n")
        done = commands("init")
        assert done.returncode == 0, done.stderr
        assert ("retention_months drops nothing" in done.stderr) is complaint

    with open_database(empty_database) as connection:
        init("12")
        now = datetime.now(UTC)
        assert partitions(connection) == months(now)
        # As it is three months after the last init, or a month's table was dropped by hand.
        connection.execute(f"drop table {months(now)[-1]}, {months(now)[-2]}")

        init("null")

        assert partitions(connection) == months(now)
        init("6")
        assert partitions(connection) == months(now)
        connection.execute(
            """
            insert into market_data.ohlcv_5m
            values (1, clock_timestamp() + interval '1 month', 1, 1, 1, 1, 1, 1, 1, true, now())
            """
        )


def test_a_plain_table_stays_plain_and_that_is_told(commands: Commands, connection: Connection) -> None:
    for text, complaint in (("12", True), ("null", False)):
        (commands.folder / "config.yaml").write_text(f"bars: {{retention_months: {text}}}\n")
        done = commands("init")
        assert done.returncode == 0
        assert ("retention_months drops nothing" in done.stderr) is complaint
        assert partitions(connection) == []
