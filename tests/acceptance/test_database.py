"""`database psql`, `dump`, `restore`, `url`, `path`: the embedded PostgreSQL with its own programs."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch.config.database import uri
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.setup import schema
from assetbatch.database.setup.backup import REPLACED, RESTORING
from tests.conftest import Commands, open_database, wait_until
from tests.terminal import terminal

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

# In any of these a change would be a loss.
TABLES = (
    "trading.symbols", "market_data.ohlcv_5m", "data_sources.api_providers", "data_sources.data_sync_status",
    "assetbatch.assets", "assetbatch.sync_state", "assetbatch.queue", "assetbatch.outbox", "assetbatch.runs",
    "assetbatch.api_calls", "assetbatch.bar_state", "assetbatch.bar_absences", "assetbatch.daily_figures",
    "assetbatch.meta", "assetbatch.migrations",
)  # fmt: skip
MAY_BE_EMPTY = ("assetbatch.bar_absences", "assetbatch.daily_figures")
DATABASES = "select datname from pg_database where not datistemplate order by 1"


@pytest.fixture
def embedded(own_embedded: Commands) -> Commands:
    """The commands with an embedded server that `init` has made."""
    done = own_embedded("init")
    assert done.returncode == 0, done.stderr
    return own_embedded


def server_of(commands: Commands) -> EmbeddedServer:
    return EmbeddedServer(Path(commands.environment["XDG_DATA_HOME"]) / "assetbatch")


def open_own(commands: Commands, name: str = "assetbatch") -> Connection:
    return open_database(server_of(commands).conninfo(name))


def rows(commands: Commands) -> dict[str, list[str]]:
    """All rows of the tables, as exact as their text."""
    with open_own(commands) as connection:
        return {
            table: [
                row["text"] for row in connection.execute(f"select t::text as text from {table} t order by 1".encode())
            ]
            for table in TABLES
        }


def databases(commands: Commands) -> list[str]:
    with open_own(commands, "postgres") as connection:
        return [row["datname"] for row in connection.execute(DATABASES)]


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def fill(commands: Commands) -> None:
    """Prices, bars, events, a dead letter and an item that a worker holds."""
    (commands.folder / "config.yaml").write_text("database: {embedded: true}\nbars: {enabled: true}\n")
    for command in ("run-priority", "enqueue-secondary", "drain-queue", "enqueue-secondary --all"):
        done = commands(*command.split(), POLYGON_RATE_LIMIT="unlimited")
        assert done.returncode == 0, done.stderr
    with open_own(commands) as connection:
        connection.execute(
            """
            update assetbatch.queue
            set state = 'dead', died_at = now(), error_kind = 'unknown_ticker', error = 'é''\n\\'
            where symbol = 'GBPUSD'
            """
        )


def test_what_was_dumped_comes_back_with_every_digit(embedded: Commands) -> None:
    fill(embedded)
    before = rows(embedded)
    assert all(before[table] for table in TABLES if table not in MAY_BE_EMPTY)

    dumped = document(embedded("database", "dump", "--output", "a.dump", "--json"))
    with open_own(embedded) as connection:
        connection.execute(
            """
            delete from market_data.ohlcv_5m; delete from assetbatch.queue; create table assetbatch.later (id int);
            update trading.symbols set metadata = '{}'; update assetbatch.meta set value = 'elsewhere';
            """
        )
    restored = document(embedded("database", "restore", "a.dump", "--yes", "--json"))

    file = embedded.folder / "a.dump"
    assert (dumped["file"], dumped["bytes"], dumped["format"]) == ("a.dump", file.stat().st_size, "custom")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert rows(embedded) == before
    assert databases(embedded) == ["assetbatch", "postgres"]
    assert (restored["schema_version"], restored["applied"]) == (schema.migrations()[-1].version, [])
    # The limiter's window and what a worker held, as after `init --restored`.
    assert restored["restored"]["keys_blocked"] == 1
    assert embedded("enqueue-secondary").returncode == 0


def test_a_restore_blocks_the_key_for_a_window_and_releases_what_was_held(embedded: Commands) -> None:
    assert embedded("run-priority", POLYGON_RATE_LIMIT="5").returncode == 0
    assert embedded("enqueue-secondary").returncode == 0
    with open_own(embedded) as connection:
        connection.execute(
            """
            update assetbatch.queue
            set state = 'leased', attempts = 1, token = gen_random_uuid(), claimed_at = now(), leased_until = now()
            where symbol = 'GBPUSD'
            """
        )
    assert embedded("database", "dump", "--output", "a.dump").returncode == 0
    with open_own(embedded) as connection:
        before = connection.execute("select clock_timestamp() as now").fetchone()

    done = embedded("database", "restore", "a.dump", "--yes")

    assert (done.returncode, done.stderr) == (0, "")
    assert "no call before" in done.stdout
    assert "1 item of the queue" in done.stdout
    with open_own(embedded) as connection:
        row = connection.execute("select full_by from assetbatch.rate_limits").fetchone()
        held = connection.execute("select from assetbatch.queue where state = 'leased'").rowcount
    assert row is not None
    assert before is not None
    assert (row["full_by"] > before["now"], held) == (True, 0)


def test_a_backup_goes_through_a_pipe_and_onto_a_new_machine(embedded: Commands) -> None:
    fill(embedded)
    before = rows(embedded)
    with (embedded.folder / "a.dump").open("wb") as file:
        assert embedded("database", "dump", streams={"stdout": file}).returncode == 0
    assert embedded("database", "stop").returncode == 0
    elsewhere = {"XDG_DATA_HOME": f"{embedded.environment['XDG_DATA_HOME']}/elsewhere"}
    new = replace(embedded, environment=embedded.environment | elsewhere)
    try:
        # Nothing is there that could be lost, so nothing is asked.
        done = new("database", "restore", "a.dump")

        assert (done.returncode, done.stderr) == (0, "")
        assert rows(new) == before
    finally:
        new("database", "stop")


def test_sql_for_any_postgresql(embedded: Commands, empty_database: str) -> None:
    fill(embedded)
    before = rows(embedded)

    done = embedded("database", "dump", "--format", "plain", "--output", "a.sql")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # Fed by the embedded server's psql to another server, as another owner.
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("drop role if exists mover; create role mover login")
        connection.execute(f"alter database {connection.info.dbname} owner to mover")
        host, name = connection.info.host, connection.info.dbname
    into = ["database", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", host, "-U", "mover", "-f", "a.sql", name]
    fed = embedded(*into, PGOPTIONS="-c nonsense=1")
    assert (fed.returncode, fed.stderr) == (0, "")
    with open_database(empty_database) as connection:
        for table in TABLES:
            found = connection.execute(f"select t::text as text from {table} t order by 1".encode()).fetchall()
            assert [row["text"] for row in found] == before[table], table


def test_nothing_is_replaced_unasked_and_a_bad_backup_replaces_nothing(embedded: Commands) -> None:
    fill(embedded)
    before = rows(embedded)
    assert embedded("database", "dump", "--output", "a.dump").returncode == 0
    whole = (embedded.folder / "a.dump").read_bytes()
    (embedded.folder / "half.dump").write_bytes(whole[: len(whole) // 2])
    (embedded.folder / "text.dump").write_text("select 1;")
    with open_own(embedded, "postgres") as connection:
        connection.plain.execute("create database strange")
    assert embedded("database", "psql", "-q", "-c", "create table t ()", "strange").returncode == 0
    config = embedded.folder / "strange.yaml"
    config.write_text("database: {embedded: true, name: strange}\n")
    assert embedded("--config", str(config), "database", "dump", "--output", "strange.dump").returncode == 0

    unasked = embedded("database", "restore", "a.dump")
    half = embedded("database", "restore", "half.dump", "--yes")
    text = embedded("database", "restore", "text.dump", "--yes")
    absent = embedded("database", "restore", "absent.dump", "--yes")
    strange = embedded("database", "restore", "strange.dump", "--yes")

    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    assert (half.returncode, "pg_restore: error" in half.stderr) == (69, True)
    assert (text.returncode, "database psql" in " ".join(text.stderr.split())) == (2, True)
    assert absent.returncode == 2
    assert (strange.returncode, "no backup of a database of assetbatch" in strange.stderr) == (78, True)
    assert rows(embedded) == before
    assert databases(embedded) == ["assetbatch", "postgres", "strange"]


def test_a_restore_waits_for_no_job_and_sends_others_away(embedded: Commands) -> None:
    assert embedded("database", "dump", "--output", "a.dump").returncode == 0
    with psycopg.connect(server_of(embedded).conninfo("assetbatch"), application_name="assetbatch drain-queue"):
        refused = embedded("database", "restore", "a.dump", "--yes")
    with closing(psycopg.connect(server_of(embedded).conninfo("assetbatch"))) as consumer:
        done = embedded("database", "restore", "a.dump", "--yes")
        with pytest.raises(psycopg.OperationalError):
            consumer.execute("select 1")

    assert (refused.returncode, "assetbatch drain-queue" in refused.stderr) == (69, True)
    assert "timers" in refused.stderr
    assert done.returncode == 0


def test_what_a_killed_restore_leaves_is_cleared_away_by_the_next(embedded: Commands) -> None:
    assert embedded("run-priority").returncode == 0
    before = rows(embedded)
    assert embedded("database", "dump", "--output", "a.dump").returncode == 0
    with open_own(embedded, "postgres") as connection:
        for name in (RESTORING, REPLACED):
            connection.plain.execute(f'create database "{name}"')

    assert embedded("database", "restore", "a.dump", "--yes").returncode == 0

    assert databases(embedded) == ["assetbatch", "postgres"]
    assert rows(embedded) == before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_dump_that_is_ended_leaves_no_half_file(embedded: Commands, signum: signal.Signals, code: int) -> None:
    (embedded.folder / "a.dump").write_text("the one of yesterday")
    with open_own(embedded) as connection, open_own(embedded) as holder, holder.transaction():
        holder.execute("lock table trading.symbols in access exclusive mode")
        run = embedded.start("database", "dump", "--output", "a.dump")
        waiting = "select pid from pg_stat_activity where application_name = 'pg_dump' and wait_event_type = 'Lock'"
        wait_until(lambda: connection.execute(waiting).fetchone())
        run.send_signal(signum)
        stdout, stderr = run.communicate(timeout=10)

        assert (run.returncode, stdout) == (code, "")
        assert "Traceback" not in stderr
        assert (embedded.folder / "a.dump").read_text() == "the one of yesterday"
        assert not list(embedded.folder.glob(".*.new"))
    with open_own(embedded) as connection:
        gone = "select from pg_stat_activity where application_name = 'pg_dump'"
        wait_until(lambda: not connection.execute(gone).fetchall())


@pytest.mark.parametrize("output", ["/dev/full", "nowhere/a.dump"])
def test_a_dump_that_cannot_be_written_says_so(embedded: Commands, output: str) -> None:
    done = embedded("database", "dump", "--output", output)

    assert done.returncode in {2, 69}
    assert "No space left" in done.stderr or "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_the_link_stays_and_the_file_behind_it_is_replaced(embedded: Commands) -> None:
    (embedded.folder / "real").mkdir()
    link = embedded.folder / "a.dump"
    link.symlink_to("real/b.dump")

    assert embedded("database", "dump", "--output", "a.dump").returncode == 0

    assert link.is_symlink()
    assert (embedded.folder / "real/b.dump").read_bytes().startswith(b"PGDMP")


def test_psql_has_its_own_options_exit_code_and_no_variable_of_others(embedded: Commands) -> None:
    assert embedded("database", "stop").returncode == 0
    odd: Any = {
        "PGHOST": "192.0.2.1",
        "PGDATABASE": "nothing",
        "PGOPTIONS": "-c nonsense=1",
        "PGUSER": "nobody",
        "PGPORT": "1",
    }

    found = embedded("database", "psql", "-At", "-v", "n=6", "-c", "select current_user, 7", **odd)
    fails = embedded("database", "psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", "nothing.sql")
    wrong = embedded("database", "psql", "-c", "select nonsense")
    other = embedded("database", "psql", "-Atc", "select current_database()", "postgres")
    own_help = embedded("database", "psql", "--", "--help")
    plan = document(embedded("database", "psql", "--json"))

    assert (found.returncode, found.stdout) == (0, "assetbatch|7\n"), found.stderr
    assert (fails.returncode, wrong.returncode) == (1, 1)
    assert 'column "nonsense" does not exist' in wrong.stderr
    assert other.stdout == "postgres\n"
    assert own_help.stdout.startswith("psql is the PostgreSQL interactive terminal")
    started = subprocess.run(
        [plan["program"], "-Atc", "select 8"], env=plan["environment"], capture_output=True, text=True, check=True
    )
    assert started.stdout == "8\n"


def test_psql_has_the_terminal(embedded: Commands) -> None:
    with terminal() as shown:
        process = subprocess.Popen(
            [sys.executable, "-m", "assetbatch", "database", "psql", "-X", "-P", "pager=off"],
            cwd=embedded.folder,
            env=embedded.environment | {"TERM": "xterm"},
            start_new_session=True,
            **shown.streams,
        )
        wait_until(lambda: b"assetbatch=# " in shown.seen)
        # Ctrl-A, as the line's editor understands it, which knows how the terminal makes room.
        os.write(shown.ours, b"as n;\x01select 4 \n")
        wait_until(lambda: b"(1 row)" in shown.seen)
        assert b"\x1b[9@select 4 " in shown.seen
        os.write(shown.ours, b"\\q\n")

        assert process.wait(timeout=10) == 0


def test_url_and_path_start_nothing_and_work_as_they_are(embedded: Commands) -> None:
    url = embedded("database", "url").stdout
    with psycopg.connect(url.strip()) as connection:
        found = connection.execute("select current_user, current_database()").fetchone()
        folder = connection.execute("show data_directory").fetchone()
    assert embedded("database", "stop").returncode == 0

    assert found == ("assetbatch", "assetbatch")
    assert embedded("database", "url").stdout == url
    assert document(embedded("database", "url", "--json"))["url"] == url.strip()
    assert folder == (embedded("database", "path").stdout.strip(),)
    assert document(embedded("database", "path", "--json"))["path"] == folder[0]
    assert "was not running" in embedded("database", "stop").stdout


def test_without_an_embedded_server_each_says_so(own_embedded: Commands) -> None:
    for command in ("url", "path", "psql", "dump"):
        done = own_embedded("database", command)
        assert (done.returncode, done.stdout) == (78, ""), command
        assert "assetbatch init" in done.stderr
    assert not Path(own_embedded.environment["XDG_DATA_HOME"], "assetbatch").exists()


def test_another_database_is_named_without_its_password_and_left_to_its_own_programs(commands: Commands) -> None:
    named: Any = {"DATABASE_URL": "postgresql://trader:s%40cret-word@db.example:6432/prices?sslmode=require"}

    url = commands("database", "url", **named)
    assert (url.returncode, url.stdout) == (0, "postgresql://trader@db.example:6432/prices?sslmode=require\n")
    (commands.folder / "a.dump").write_bytes(b"PGDMP")
    for command in ("psql", "dump", "path", "restore a.dump"):
        done = commands("database", *command.split(), **named)
        assert (done.returncode, done.stdout) == (78, "")
        assert "prices on db.example:6432" in done.stderr
        assert "cret" not in done.stderr + url.stderr


def test_a_reader_of_a_dump_that_has_seen_enough_is_no_trouble(embedded: Commands) -> None:
    ours, theirs = os.pipe()
    os.close(ours)

    done = embedded("database", "dump", streams={"stdout": theirs})

    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("postgresql://u%40x:p%40w@db:5433/na%2Fme?sslpassword=x", "postgresql://u%40x@db:5433/na%2Fme"),
        ("host=/var/run/postgresql dbname=x password='a b'", "postgresql:///x?host=/var/run/postgresql"),
        ("host=a,b port=1,2 dbname=x user=u", "postgresql://u@/x?host=a,b&port=1,2"),
        ("host=::1 dbname=x", "postgresql://[::1]/x"),
        ("hostaddr=10.0.0.1 host=h dbname=x", "postgresql://h/x?hostaddr=10.0.0.1"),
        (
            EmbeddedServer(Path("/tmp/it's \\ odd ü?&=%+")).address("d'b"),
            "postgresql://assetbatch@/d%27b?host=/tmp/it%27s%20%5C%20odd%20%C3%BC%3F%26%3D%25%2B/postgresql-16&port=5432",
        ),
    ],
)
def test_a_uri_leads_where_the_connection_string_does(conninfo: str, expected: str) -> None:
    assert uri(conninfo) == expected
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    assert psycopg.conninfo.conninfo_to_dict(expected) == {
        name: value for name, value in parts.items() if "password" not in name
    }


def test_a_locked_row_and_a_price_of_the_future_are_told_once(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata) values ('XAUUSD', '{}'), ('EURUSD', '{}'), ('BTCUSD',"
        ' \'{"last_update": {"last_price": 9, "timestamp": "2099-01-01T00:00:00Z"}}\')'
    )
    with connection.transaction():
        connection.execute("select from trading.symbols where symbol = 'EURUSD' for update")

        first = commands("run-priority", "--json")

    document = json.loads(first.stdout)
    assert (first.returncode, document["failed"]) == (0, [])
    assert set(document["updated"]) == {"XAUUSD", "BTCUSD"}
    assert "another transaction keeps the rows locked: EURUSD" in first.stderr
    assert "last_update had a time in the future, which another program wrote, and gave way: BTCUSD" in first.stderr

    again = commands("run-priority", "--json")
    assert "EURUSD" in json.loads(again.stdout)["updated"]
    assert "future" not in again.stderr
