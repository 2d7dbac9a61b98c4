from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

FIELDS = {
    "schema", "status", "jobs", "queue", "last_priority_update", "api_calls_remaining", "assets", "asset_states",
    "metrics", "alerts", "events",
}  # fmt: skip
METRICS = {
    "batch.priority.success_rate", "batch.priority.latency_ms", "queue.size", "api.rate_limit_waits", "api.calls",
    "api.budget_used_ratio", "assets.stale", "events.pending",
}  # fmt: skip
# What importing psycopg and typer costs is most of it; `requests`, `rich` and `redis` alone would go beyond.
MOST_MODULES = 450


def test_after_a_run_all_is_well(commands: Commands) -> None:
    commands("run-priority")

    done = commands("status", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.status/1"
    assert set(document) >= FIELDS
    assert set(document["metrics"]) == METRICS
    assert (document["status"], document["alerts"]) == ("healthy", [])
    assert document["asset_states"] == {"fresh": 3}
    assert document["api_calls_remaining"] == 4
    assert document["queue"]["by_priority"] == {"CRITICAL": 0, "HIGH": 0, "MEDIUM": 0, "LOW": 0}
    assert [(job["id"], job["last_status"], job["day"]["runs"]) for job in document["jobs"]] == [
        ("run-priority", "ok", 1),
        ("drain-queue", None, 0),
        ("enqueue-secondary", None, 0),
    ]
    assert all(job["next_run"].endswith("Z") for job in document["jobs"])
    assert [asset["symbol"] for asset in document["assets"]] == ["XAUUSD", "EURUSD", "BTCUSD"]
    assert all(float(asset["last_price"]) > 0 and isinstance(asset["last_price"], str) for asset in document["assets"])


def test_the_table_has_the_prices_and_no_colour_in_a_pipe(commands: Commands) -> None:
    commands("run-priority")

    shown = commands("status").stdout

    assert "\x1b" not in shown
    assert shown.startswith("HEALTHY")
    assert all(word in shown for word in ("XAUUSD", "EURUSD", "BTCUSD", "fresh", "4 of 5 free"))
    assert max(map(len, shown.splitlines())) <= 100


def test_check_is_ok_after_a_run(commands: Commands) -> None:
    commands("run-priority")

    done = commands("status", "--check")

    assert (done.returncode, done.stdout) == (0, "OK - healthy\n")


def test_check_is_critical_before_the_first_run(commands: Commands) -> None:
    done = commands("status", "--check")

    assert done.returncode == 2
    assert "run-priority has never run" in done.stdout


def test_check_tells_a_machine_whose_cron_stopped(commands: Commands, connection: Connection) -> None:
    commands("run-priority")
    connection.execute("update assetbatch.runs set started_at = started_at - interval '11 minutes'")

    done = commands("status", "--check")

    assert done.returncode == 2
    assert "is cron running?" in done.stdout


def test_check_tells_a_refused_key(commands: Commands) -> None:
    commands("run-priority", POLYGON_API_KEY="wrong")

    done = commands("status", "--check")

    assert done.returncode == 2
    assert "the API refused the key" in done.stdout


def test_check_is_critical_when_the_database_is_away_and_unknown_without_configuration(commands: Commands) -> None:
    away = commands("status", "--check", DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")
    unknown = commands("status", "--check", DATABASE_URL="")

    assert (away.returncode, away.stdout[:8]) == (2, "CRITICAL")
    assert (unknown.returncode, unknown.stdout[:7]) == (3, "UNKNOWN")


def test_check_is_unknown_after_an_unexpected_error(commands: Commands, connection: Connection) -> None:
    connection.execute("alter table assetbatch.sync_state rename column error to fault")

    done = commands("status", "--check")

    assert (done.returncode, done.stdout[:7]) == (3, "UNKNOWN")
    assert "this is a bug" in done.stderr


def test_a_run_that_was_killed_counts_as_failed(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by)"
        " select 'run-priority', 'h', '0', 'starter', clock_timestamp() - interval '6 minutes' * n, clock_timestamp()"
        " from generate_series(1, 2) n"
    )

    document = json.loads(commands("status", "--json").stdout)

    assert document["jobs"][0]["day"]["failed"] == 2
    assert document["jobs"][0]["last_status"] == "failed"
    assert "assets.never" in [alert["metric"] for alert in document["alerts"]]


def test_a_narrow_terminal_keeps_name_price_and_state(commands: Commands) -> None:
    commands("run-priority")

    shown = commands("status", COLUMNS="50", TTY_COMPATIBLE="1", NO_COLOR="1").stdout

    assert "EURUSD" in shown
    assert shown.count("fresh") == 3
    assert "market age" not in shown


def test_a_locked_table_ends_status_in_bounded_time(commands: Commands, connection: Connection) -> None:
    with connection.transaction():
        connection.execute("lock table trading.symbols in access exclusive mode")
        done = commands("status", "--check", timeout=30)

    assert (done.returncode, done.stdout[:8]) == (2, "CRITICAL")


def test_a_refusal_degrades(commands: Commands, connection: Connection) -> None:
    commands("run-priority")
    connection.execute(
        "insert into assetbatch.api_calls (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets)"
        " values (1, 'snapshot', 'rate_limited', 429, true, 1, 1, 1)"
    )

    done = commands("status", "--check")

    assert done.returncode == 1
    assert "refused 1 call" in done.stdout


@pytest.mark.parametrize("command", [["status", "--json"]])
def test_status_starts_with_few_modules(commands: Commands, command: list[str]) -> None:
    commands("run-priority")
    probe = (
        "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
        f" sys.argv[1:] = {command!r}; from assetbatch.cli import main; main()"
    )
    counted = commands.python("-c", probe)

    assert counted.returncode == 0
    assert int(counted.stderr) <= MOST_MODULES


def test_the_queue_is_told_by_state_and_priority(commands: Commands) -> None:
    commands("run-priority")
    (commands.folder / "config.yaml").write_text(
        "batch:\n  secondary_assets:\n"
        "    - {symbol: ETHUSDT, polygon_ticker: 'X:ETHUSDT', asset_type: crypto, priority: HIGH}\n"
        "    - {symbol: SOLUSD, polygon_ticker: 'X:SOLUSD', asset_type: crypto}\n"
        "    - {symbol: NONE, polygon_ticker: 'X:NONEUSD', asset_type: crypto, priority: CRITICAL}\n"
    )
    assert commands("enqueue-secondary").returncode == 0
    queued = json.loads(commands("status", "--json").stdout)["queue"]
    assert commands("drain-queue", "--max-items", "1").returncode == 3

    document = json.loads(commands("status", "--json").stdout)

    assert (queued["total_items"], queued["dead"]) == (3, 0)
    assert queued["by_priority"] == {"CRITICAL": 1, "HIGH": 1, "MEDIUM": 1, "LOW": 0}
    assert queued["oldest_item_age_seconds"] >= 0
    assert (document["queue"]["total_items"], document["queue"]["dead"]) == (2, 1)
    assert document["metrics"]["queue.size"] == 2
    assert [alert["metric"] for alert in document["alerts"]] == ["queue.dead"]
    assert "1 dead" in commands("status").stdout
