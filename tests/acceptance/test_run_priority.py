from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import free_port, wait_until

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

ALL = ["XAUUSD", "EURUSD", "BTCUSD"]


def test_updates_all_three_in_order_with_one_call(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    done = commands("run-priority", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.run-priority/1"
    assert (document["status"], document["updated"], document["failed"]) == ("ok", ALL, [])
    assert document["api_calls_used"] == len(sandbox.arrivals) == 1
    rows = connection.execute(
        """
        select s.symbol, s.metadata -> 'last_update' as last_update, d.sync_status, o.payload, o.published_at
        from trading.symbols s
        join data_sources.data_sync_status d on d.ticker_id = s.id
        join assetbatch.outbox o using (symbol)
        """
    ).fetchall()
    assert {row["symbol"] for row in rows} == set(ALL)
    for row in rows:
        assert row["sync_status"] == "success"
        assert row["published_at"] is not None
        assert row["payload"]["last_price"] == row["last_update"]["last_price"] > 0
        assert set(row["payload"]) == {"symbol", "bid", "ask", "last_price", "timestamp", "seq"}
    by_symbol = {row["symbol"]: row["last_update"] for row in rows}
    assert by_symbol["EURUSD"]["last_price"] == by_symbol["EURUSD"]["bid"]


def test_a_run_without_trouble_prints_nothing(commands: Commands) -> None:
    done = commands("run-priority")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_run_in_the_same_slot_makes_no_call(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at, succeeded_at)"
        " select unnest(%s::text[]), clock_timestamp(), clock_timestamp()",
        [ALL],
    )

    document = json.loads(commands("run-priority", "--json").stdout)

    assert document["not_due"] == ALL
    assert document["api_calls_used"] == len(sandbox.arrivals) == 0


def test_with_single_calls_there_are_three_and_in_order(commands: Commands, sandbox: Sandbox) -> None:
    (commands.folder / "config.yaml").write_text("provider: {batch_size: 1}\n")

    document = json.loads(commands("run-priority", "--json").stdout)

    assert document["updated"] == ALL
    tickers = [arrival.path.rpartition("/")[2] for arrival in sandbox.arrivals]
    assert tickers == ["C:XAUUSD", "C:EURUSD", "X:BTCUSD"]


def test_a_wrong_key_ends_with_77_one_block_and_no_retry(commands: Commands, sandbox: Sandbox) -> None:
    done = commands("run-priority", POLYGON_API_KEY="wrong-key-1234567")

    assert done.returncode == 77
    assert "the API refused the key" in done.stderr
    assert "POLYGON_API_KEY" in done.stderr
    assert "wrong-key-1234567" not in done.stderr
    assert done.stderr.count("assetbatch run-priority:") == 1
    assert len(sandbox.arrivals) == 1


def test_no_key_ends_with_78_and_the_ways_to_give_one(commands: Commands, sandbox: Sandbox) -> None:
    done = commands("run-priority", POLYGON_API_KEY="")

    assert done.returncode == 78
    assert "POLYGON_API_KEY_FILE" in done.stderr
    assert "sandbox" in done.stderr
    assert not sandbox.arrivals


def test_no_network_ends_with_69_and_gives_the_slots_back(commands: Commands, connection: Connection) -> None:
    done = commands("run-priority", POLYGON_BASE_URL="http://127.0.0.1:9")

    assert done.returncode == 69
    assert "127.0.0.1:9 could not be reached" in done.stderr
    row = connection.execute(
        "select count(*) as busy from assetbatch.rate_limit_slots where counted_by > 'epoch'"
    ).fetchone()
    assert row == {"busy": 0}


@pytest.mark.parametrize("status", ["403-entitled", "403-in-200"])
def test_a_key_that_lost_its_plan_is_not_entitled(
    commands: Commands, connection: Connection, sandbox: Sandbox, status: str
) -> None:
    sandbox.fail = [status]

    done = commands("run-priority", "--json")

    assert done.returncode == 3
    assert {failure["kind"] for failure in json.loads(done.stdout)["failed"]} == {"not_entitled"}
    # Neither live prices, nor finished days, nor bars: what is refused once is not asked for twice.
    assert [arrival.path[:12] for arrival in sandbox.arrivals] == ["/v3/snapshot", "/v2/aggs/gro", "/v2/aggs/tic"]
    assert commands("run-priority").returncode == 3
    assert len(sandbox.arrivals) == 3
    rows = connection.execute("select distinct sync_status from data_sources.data_sync_status").fetchall()
    assert rows == [{"sync_status": "not_entitled"}]


def test_never_more_calls_than_assets_under_a_limit(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["500"]

    done = commands("run-priority", "--json")

    assert done.returncode == 69
    assert json.loads(done.stdout)["api_calls_used"] == len(sandbox.arrivals) == 3


def test_a_batch_refused_whole_is_halved_within_the_budget(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["400:any_of"]

    done = commands("run-priority", "--json")

    assert len(sandbox.arrivals) <= 3
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["failed"]) == 3


def test_a_database_of_another_source_is_refused_before_any_call(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    connection.execute("insert into assetbatch.meta values ('source', 'api.massive.com')")

    done = commands("run-priority")

    assert done.returncode == 78
    assert "api.massive.com" in done.stderr
    assert "sandbox" in done.stderr
    assert not sandbox.arrivals


def test_a_run_without_a_call_leaves_the_source_open(commands: Commands) -> None:
    done = commands("run-priority", PRIORITY_ASSETS_ENABLED="false", POLYGON_BASE_URL="https://api.massive.com")
    assert done.returncode == 0

    assert commands("run-priority").returncode == 0


def test_a_refusal_without_a_word_when_to_come_back_is_told_as_such(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["429"]

    done = commands("run-priority", "--json")

    assert done.returncode == 3
    assert {failure["kind"] for failure in json.loads(done.stdout)["failed"]} == {"rate_limited"}
    assert len(sandbox.arrivals) == 1
    assert "refused with 0 of 5 calls of ours in the window, once in the last hour" in done.stderr


def test_a_database_of_sql_ascii_does(commands: Commands, postgres: EmbeddedServer) -> None:
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("create database ascii encoding 'SQL_ASCII' template template0")
    own = postgres.conninfo("ascii").replace("client_encoding='UTF8'", "")

    assert commands("init", DATABASE_URL=own).returncode == 0
    assert commands("run-priority", DATABASE_URL=own).returncode == 0
    assert commands("status", "--check", DATABASE_URL=own).returncode == 0


def test_the_machines_own_postgresql_does_as_it_is_set_and_when_it_restarts(
    commands: Commands, short_folder: Path, sandbox: Sandbox
) -> None:
    programs = next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), Path("/nowhere")).parent
    root = os.geteuid() == 0
    if not programs.exists() or (root and not any(entry.pw_name == "postgres" for entry in pwd.getpwall())):
        pytest.skip("no PostgreSQL of Debian's packages on this machine")
    account = {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
    folder = short_folder / "own"
    folder.mkdir()
    if root:
        shutil.chown(folder, "postgres", "postgres")

    def run(*arguments: str) -> None:
        subprocess.run(arguments, cwd=folder, check=True, stdout=subprocess.DEVNULL, **account)  # type: ignore[call-overload]

    run(str(programs / "initdb"), "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync")
    port = str(free_port())
    settings = "datestyle=German timezone=Asia/Kathmandu default_transaction_isolation=serializable row_security=off"
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    options += "".join(f" -c {one}" for one in settings.split())
    run(str(programs / "pg_ctl"), "-D", "data", "-w", "-l", "log", "-o", options, "start")
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        assert commands("init", DATABASE_URL=url).returncode == 0
        done = commands("run-priority", DATABASE_URL=url)
        assert (done.returncode, done.stderr) == (0, "")
        assert commands("status", "--check", DATABASE_URL=url).returncode == 0

        assert commands("enqueue-secondary", DATABASE_URL=url).returncode == 0
        asked = len(sandbox.arrivals)
        hold = threading.Event()
        sandbox.clock = lambda: (hold.wait(20), datetime.now(UTC))[1]
        drain = commands.start("drain-queue", "--json", DATABASE_URL=url)
        wait_until(lambda: len(sandbox.arrivals) > asked)
        run(str(programs / "pg_ctl"), "-D", "data", "-w", "-l", "log", "-o", options, "-m", "immediate", "restart")
        hold.set()
        stdout, stderr = drain.communicate(timeout=60)
        assert (drain.returncode, stderr) == (0, "")
        assert len(json.loads(stdout)["updated"]) == 4
        assert len(sandbox.arrivals) == asked + 1
    finally:
        run(str(programs / "pg_ctl"), "-D", "data", "-m", "immediate", "stop")


def test_a_run_that_finds_another_going_is_skipped(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    connection.execute(
        "insert into assetbatch.leases"
        " values ('run-priority', gen_random_uuid(), clock_timestamp() + interval '1 minute')"
    )

    done = commands("run-priority", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "skipped"
    assert not sandbox.arrivals


def test_an_unlimited_plan_needs_no_slots(commands: Commands, connection: Connection, sandbox: Sandbox) -> None:
    done = commands("run-priority", "--json", POLYGON_RATE_LIMIT="")

    assert json.loads(done.stdout)["updated"] == ALL
    assert [arrival.path[:13] for arrival in sandbox.arrivals] == ["/v3/snapshot?"] + 3 * ["/v2/aggs/tick"]
    assert connection.execute("select * from assetbatch.rate_limit_slots").fetchall() == []
    assert json.loads(commands("status", "--json").stdout)["api_calls_remaining"] is None


def test_one_row_that_the_platform_refuses_fails_alone(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "alter table trading.symbols add check (symbol <> 'EURUSD' or metadata -> 'last_update' is null)"
    )

    done = commands("run-priority", "--json")

    document = json.loads(done.stdout)
    assert done.returncode == 3
    assert document["updated"] == ["XAUUSD", "BTCUSD"]
    assert [(failure["symbol"], failure["kind"]) for failure in document["failed"]] == [
        ("EURUSD", "refused_by_database")
    ]
    stored = connection.execute(
        "select symbol from trading.symbols where metadata ? 'last_update' order by 1"
    ).fetchall()
    assert [row["symbol"] for row in stored] == ["BTCUSD", "XAUUSD"]


def test_a_database_without_schema_says_init(commands: Commands, empty_database: str) -> None:
    done = commands("run-priority", DATABASE_URL=empty_database)

    assert done.returncode == 78
    assert "run `assetbatch init`" in done.stderr


def test_a_database_that_is_away_ends_with_69(commands: Commands) -> None:
    done = commands("status", DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")

    assert done.returncode == 69
    assert "Connection refused" in done.stderr
