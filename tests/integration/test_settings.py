"""Whatever a database, a role or a pool has set: what a statement needs is asked for, and that costs no round trip."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from assetbatch.database.query import command
from tests.conftest import open_database
from tests.relay import Relay

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

# What breaks the tool where it is not asked for otherwise, each for itself.
HOSTILE = {
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kathmandu",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "row_security": "off",
    "statement_timeout": "10ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "700ms",
}
STYLES = ["German", "SQL, DMY", "Postgres, MDY"]
READ = """
select name, setting from pg_settings
where name = any(%(names)s) or name in ('transaction_isolation', 'search_path')
"""
# Whose body is read when it is called, by whatever path the caller has. But for the one that is put into the statement
# of its caller, and reads the tables as that does: a path of its own would keep it from that.
UNPINNED = """
select proname from pg_proc
where pronamespace = 'assetbatch'::regnamespace and prosqlbody is null and proname <> 'bar_coverage'
  and array_position(proconfig, 'search_path=pg_catalog, pg_temp') is null
"""
SHADOWS = """
create schema shadow;
create function shadow.clock_timestamp() returns timestamptz language sql as $$ select timestamptz '1999-01-01' $$;
create function shadow.now() returns timestamptz language sql as $$ select timestamptz '1999-01-01' $$;
create function shadow.current_setting(text) returns text language sql as $$ select 'mine' $$;
create function shadow.current_setting(text, boolean) returns text language sql as $$ select 'mine' $$;
create function shadow.set_config(text, text, boolean) returns text language sql as $$ select 'mine' $$;
create function shadow.pg_backend_pid() returns int language sql as $$ select 1 $$;
create function shadow.make_interval(secs float8) returns interval language sql as $$ select interval '1 year' $$;
create function shadow.greatest_of(int, int) returns boolean language sql as $$ select false $$;
create operator shadow.= (function = shadow.greatest_of, leftarg = int, rightarg = int);
create operator shadow.<> (function = shadow.greatest_of, leftarg = int, rightarg = int);
create function shadow.gen_random_uuid() returns uuid language sql as $$ select null::uuid $$;
"""


def set_for_database(database: str, settings: dict[str, str]) -> None:
    """Let all who come after find these settings."""
    with psycopg.connect(database, autocommit=True) as owner:
        for name, value in settings.items():
            statement = sql.SQL("alter database {} set {} = {}")
            # A path is a list of names.
            to = sql.Literal(value) if name != "search_path" else sql.SQL(value)
            owner.execute(statement.format(sql.Identifier(owner.info.dbname), sql.Identifier(name), to))


def health(commands: Commands, **environment: Any) -> str:
    """Run each job, none of which may meet any trouble; return what `status` says then."""
    for line in (("run-priority",), ("enqueue-secondary",), ("drain-queue", "--max-seconds=5"), ("doctor",)):
        done = commands(*line, **environment)
        assert (done.returncode, done.stderr) == (0, ""), line
    seen = commands("status", "--json", **environment)
    assert (seen.returncode, seen.stderr) == (0, "")
    status: str = json.loads(seen.stdout)["status"]
    return status


@pytest.mark.parametrize(("name", "value"), HOSTILE.items())
def test_a_setting_of_the_database_does_no_harm(commands: Commands, database: str, name: str, value: str) -> None:
    set_for_database(database, {name: value})

    run = commands("run-priority", "--json")
    seen = commands("status", "--json")

    assert (run.returncode, run.stderr, json.loads(run.stdout)["status"]) == (0, "", "ok")
    assert (seen.returncode, seen.stderr, json.loads(seen.stdout)["status"]) == (0, "", "healthy")


def test_all_of_them_at_once_do_none_to_any_job(commands: Commands, database: str) -> None:
    set_for_database(database, HOSTILE)

    assert health(commands) == "healthy"


def test_those_of_a_role_do_none(commands: Commands, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        for name, value in HOSTILE.items():
            statement = sql.SQL("alter role {} in database {} set {} = {}")
            parts = map(sql.Identifier, (owner.info.user, owner.info.dbname, name))
            owner.execute(statement.format(*parts, sql.Literal(value)))

    assert health(commands) == "healthy"


@pytest.mark.parametrize("style", STYLES)
def test_times_are_read_as_they_are_whatever_the_style(database: str, style: str) -> None:
    set_for_database(database, {"DateStyle": style, "TimeZone": "Asia/Kathmandu"})
    query = "select timestamptz '2026-11-03 04:05:06.7Z' as at, date '2026-11-03' as day, array[now()] as many"

    with open_database(database) as connection:
        # The first statement brings what it needs with it; then a transaction, and another statement.
        rows = [connection.execute(query).fetchone()]
        with connection.transaction():
            rows.append(connection.execute(query).fetchone())
        rows.append(connection.execute(query).fetchone())

    for row in rows:
        assert row is not None
        assert (row["at"], row["day"]) == (datetime(2026, 11, 3, 4, 5, 6, 700_000, tzinfo=UTC), date(2026, 11, 3))
        assert row["many"][0].utcoffset().total_seconds() == 0


def test_a_transaction_that_is_rolled_back_leaves_nothing_unasked_for(database: str) -> None:
    # An aborted transaction has its settings no more, until it is rolled back.
    set_for_database(database, HOSTILE | {"idle_in_transaction_session_timeout": "1s"})
    with open_database(database) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("select 1/0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")
        with connection.transaction():
            raise psycopg.Rollback

        found = {row["name"]: row["setting"] for row in connection.execute(READ, {"names": list(HOSTILE)})}

    assert found == {
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "default_transaction_isolation": "read committed",
        "transaction_isolation": "read committed",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "standard_conforming_strings": "on",
        "row_security": "on",
        "statement_timeout": "30000",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "15000",
        "idle_session_timeout": "0",
        "search_path": '"$user", public',
    }


def test_a_schema_before_pg_catalog_is_not_asked(commands: Commands, database: str, connection: Connection) -> None:
    with connection.transaction():
        connection.execute(SHADOWS)
    set_for_database(database, {"search_path": "shadow, pg_catalog, public"})

    assert health(commands) == "healthy"

    with open_database(database) as other:
        found = other.execute("select now() > '2020-01-01' as is_now, current_setting('search_path') as path")
        assert found.fetchone() == {"is_now": True, "path": "shadow, public"}


def test_the_platform_keeps_its_own_path(database: str) -> None:
    set_for_database(database, {"search_path": "platform, public"})

    with open_database(database) as connection:
        found = connection.execute("select current_setting('search_path') as path").fetchone()

    assert found == {"path": "platform, public"}


def test_what_is_asked_for_costs_no_round_trip(database: str) -> None:
    with Relay(database) as relay, open_database(relay.conninfo) as connection:
        counts = []
        for _ in range(2):
            before = relay.round_trips
            connection.execute("select 1")
            counts.append(relay.round_trips - before)
        before = relay.round_trips
        with connection.transaction():
            connection.execute("select 1")
        counts.append(relay.round_trips - before)
        before = relay.round_trips
        with connection.transaction():
            connection.execute("select %(n)s::int", {"n": 1})
        counts.append(relay.round_trips - before)
        before = relay.round_trips
        connection.ask(command("select 1"), command("select 2"), command("select %(n)s::int", {"n": 3}))
        counts.append(relay.round_trips - before)

    # The beginning of a transaction goes with a statement that is sure to be one alone.
    assert counts == [1, 1, 3, 2, 1]


def test_functions_call_nothing_of_a_schema_before_pg_catalog(connection: Connection) -> None:
    found = connection.execute(UNPINNED).fetchall()

    assert found == []
