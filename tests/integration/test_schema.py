from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from assetbatch import __version__
from assetbatch.database.errors import translated_errors
from assetbatch.database.setup import schema
from assetbatch.errors import SchemaError, SourceMismatchError
from tests.conftest import open_database, wait_until


def test_init_twice_does_nothing_the_second_time(empty_database: str) -> None:
    with open_database(empty_database) as connection:
        first, second = schema.migrate(connection), schema.migrate(connection)
        schema.check(connection)

    assert [migration.version for migration in first] == [migration.version for migration in schema.migrations()]
    assert second == []


def test_several_hosts_may_init_at_once(empty_database: str) -> None:
    def init(_number: int) -> int:
        with open_database(empty_database) as connection:
            return len(schema.migrate(connection))

    with ThreadPoolExecutor(8) as hosts:
        applied = list(hosts.map(init, range(8)))

    assert sorted(applied) == [0] * 7 + [len(schema.migrations())]


def test_tables_of_the_platform_stay_as_they_are(empty_database: str) -> None:
    with open_database(empty_database) as connection:
        connection.execute(
            """
            create schema trading;
            create table trading.symbols (
              id uuid primary key default gen_random_uuid(), symbol varchar(20) unique, metadata jsonb,
              updated_at timestamptz, sector text not null default 'none'
            );
            insert into trading.symbols (symbol, metadata) values ('EURUSD', '{"kept": 1}');
            """
        )
        columns = (
            "select array_agg(attname::text order by attnum) as names from pg_attribute where attrelid = %s::regclass"
        )
        before = connection.execute(columns, ["trading.symbols"]).fetchone()
        schema.migrate(connection)
        after = connection.execute(columns, ["trading.symbols"]).fetchone()
        key_type = connection.execute(
            "select format_type(atttypid, atttypmod) as type from pg_attribute"
            " where attrelid = 'data_sources.data_sync_status'::regclass and attname = 'ticker_id'"
        ).fetchone()
        row = connection.execute("select metadata from trading.symbols").fetchone()

    assert before == after
    assert key_type == {"type": "uuid"}
    assert row == {"metadata": {"kept": 1}}


def test_a_missing_column_is_told_with_the_statement_for_the_owner(empty_database: str) -> None:
    with open_database(empty_database) as connection:
        connection.execute("create schema trading; create table trading.symbols (id bigint, symbol text)")
        with pytest.raises(SchemaError) as caught:
            schema.migrate(connection)
        left = connection.execute("select to_regnamespace('assetbatch') as found").fetchone()

    assert "ALTER TABLE trading.symbols ADD COLUMN metadata jsonb" in caught.value.hint
    assert "ALTER TABLE trading.symbols ADD COLUMN updated_at" in caught.value.hint
    assert left == {"found": None}


def test_a_missing_unique_key_is_told(empty_database: str) -> None:
    with open_database(empty_database) as connection:
        connection.execute(
            "create schema trading;"
            "create table trading.symbols (id bigint, symbol text, metadata jsonb, updated_at timestamptz)"
        )
        with pytest.raises(SchemaError) as caught:
            schema.migrate(connection)

    assert "ALTER TABLE trading.symbols ADD UNIQUE (symbol);" in caught.value.hint


def test_missing_columns_and_keys_are_told_at_once_and_their_statements_mend_them(empty_database: str) -> None:
    with open_database(empty_database) as connection:
        connection.execute(
            "create schema trading; create table trading.symbols (id uuid, metadata jsonb, updated_at timestamptz)"
        )
        with pytest.raises(SchemaError) as caught:
            schema.migrate(connection)
        _, *statements = caught.value.hint.splitlines()
        for statement in statements:
            connection.execute(statement)

        schema.migrate(connection)

    assert statements == [
        "ALTER TABLE trading.symbols ADD COLUMN symbol text;",
        "ALTER TABLE trading.symbols ADD UNIQUE (symbol);",
    ]


def test_a_program_that_is_too_old_for_the_schema_leaves_it_alone(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "migration.sql"
    file.write_text("create table assetbatch.never_made ()")
    known = [*schema.migrations(), schema.Migration(schema.migrations()[-1].version + 1, "never", file)]
    monkeypatch.setattr(schema, "migrations", lambda: known)
    with open_database(database) as connection:
        connection.execute("update assetbatch.meta set value = '99.0.0' where key = 'oldest_program'")
        with pytest.raises(SchemaError, match=r"needs assetbatch 99\.0\.0"):
            schema.migrate(connection)
        left = connection.execute("select to_regclass('assetbatch.never_made') as found").fetchone()

    assert left == {"found": None}


def test_the_version_is_the_databases_own(database: str, empty_database: str) -> None:
    with open_database(empty_database) as connection:
        assert schema.version(connection) is None
    with open_database(database) as connection:
        assert schema.version(connection) == schema.migrations()[-1].version
        connection.execute("insert into assetbatch.migrations (version, name, program) values (9999, 'later', '99')")
        assert schema.version(connection) == 9999


def test_a_program_refuses_a_schema_that_is_too_old_or_too_new_for_it(database: str) -> None:
    with open_database(database) as connection:
        connection.execute("update assetbatch.meta set value = '99.0.0' where key = 'oldest_program'")
        with pytest.raises(SchemaError, match=r"needs assetbatch 99\.0\.0"):
            schema.check(connection)
        connection.execute("update assetbatch.meta set value = %s where key = 'oldest_program'", [__version__])
        connection.execute("insert into assetbatch.migrations (version, name, program) values (9999, 'later', '99')")
        schema.check(connection)
        connection.execute("delete from assetbatch.migrations where version > 1")
        with pytest.raises(SchemaError, match="has version 1"):
            schema.check(connection)


def test_the_first_run_decides_the_source(database: str) -> None:
    with open_database(database) as connection:
        assert connection.answer(schema.source()) is None
        schema.claim_source(connection, "sandbox")
        schema.claim_source(connection, "sandbox")
        with pytest.raises(SourceMismatchError, match=r"sandbox.*api\.massive\.com"):
            schema.claim_source(connection, "api.massive.com")
        assert connection.answer(schema.source()) == "sandbox"


def test_two_sources_at_once_cannot_both_have_the_database(database: str) -> None:
    with open_database(database) as first, open_database(database) as second, ThreadPoolExecutor(1) as other_host:
        with first.transaction():
            schema.claim_source(first, "sandbox")
            refused = other_host.submit(schema.claim_source, second, "api.massive.com")
            waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            wait_until(lambda: first.execute(waiting).fetchone() is not None)
        with pytest.raises(SourceMismatchError):
            refused.result(timeout=10)


def test_the_grants_are_all_that_a_role_needs_and_no_more(database: str) -> None:
    with open_database(database) as owner:
        owner.execute('drop role if exists "Bare Role"; create role "Bare Role" login')
        owner.execute(schema.grants("Bare Role"))
    role = psycopg.conninfo.make_conninfo(database, user="Bare Role")
    with open_database(role) as connection:
        schema.check(connection)
        schema.claim_source(connection, "sandbox")
        connection.execute("select verdict from assetbatch.acquire_slot('k','h',5,60,1,0,null,35,'queue',null,60,0,1)")
        connection.execute("select symbol from trading.symbols for update")
        for forbidden in (
            "delete from trading.symbols",
            "update trading.symbols set symbol = 'X'",
            "delete from assetbatch.migrations",
            "insert into data_sources.api_providers (code) values ('x')",
        ):
            with pytest.raises(SchemaError, match="permission denied"), translated_errors("here"):
                connection.execute(forbidden)
