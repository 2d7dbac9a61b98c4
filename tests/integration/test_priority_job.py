from __future__ import annotations

import json
import os
import random
import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from freezegun import freeze_time

from assetbatch.failures import FailureKind
from assetbatch.jobs import priority
from assetbatch.jobs.run import exit_code
from tests.conftest import Commands, wait_until
from tests.world import ALL, MINUTE, TUESDAY, World

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox


GOLD_ALONE = "{priority_assets: [{symbol: XAUUSD, polygon_ticker: 'C:XAUUSD', asset_type: forex}]}"


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path, {"POLYGON_RATE_LIMIT": "5"}, now=TUESDAY)


@pytest.mark.parametrize("phase_seconds", [0, 2, 150, 285, 297])
def test_twelve_starts_with_jitter_are_twelve_updates(world: World, phase_seconds: float) -> None:
    jitter = random.Random(phase_seconds)
    for number in range(12):
        world.now = TUESDAY + timedelta(seconds=phase_seconds + 300 * number + jitter.uniform(-3, 3))

        # A short window, so that twelve calls need no hour: due times are simulated, the limit is not.
        result = world.prioritise(rate_limiting="{window_seconds: 0.01, margin_seconds: 0}")

        assert result.updated == ALL
    assert len(world.sandbox.arrivals) == 12


def test_the_hosts_clock_decides_nothing(world: World) -> None:
    world.now = None

    with freeze_time("2001-01-01", tick=True):
        result = world.prioritise()

    assert result.updated == ALL
    assert result.started_at.year > 2001
    row = world.connection.execute(
        "select min(served_at) > now() - interval '1 minute' as now from assetbatch.sync_state"
    ).fetchone()
    assert row == {"now": True}


def test_a_run_foresees_the_calls_of_the_next_one(world: World) -> None:
    world.prioritise(provider="{batch_size: 1}")

    row = world.connection.execute("select * from assetbatch.rate_limits").fetchone()
    assert row is not None
    assert (row["foreseen_calls"], row["running_calls"]) == (3, 0)
    assert row["foreseen_due"] == TUESDAY + 5 * MINUTE


def test_an_asset_that_failed_is_tried_again_in_the_same_slot(world: World) -> None:
    world.sandbox.fail = ["zero:EURUSD"]
    assert world.prioritise().exit_code == 3

    world.sandbox.fail = []
    world.now = TUESDAY + 4 * MINUTE
    again = world.prioritise()

    assert (again.exit_code, again.updated) == (0, ("EURUSD",))
    assert "BTCUSD" not in world.sandbox.arrivals[-1].path
    assert "EURUSD" in world.sandbox.arrivals[-1].path


@pytest.mark.parametrize(
    ("mode", "assets", "days_later", "gets_ready"),
    [("auto", "{}", 0, True), ("auto", "{}", 4, True), ("auto", GOLD_ALONE, 4, False), ("end_of_day", "{}", 0, False)],
    ids=["live", "at the weekend", "no market trades", "finished days"],
)
def test_what_a_call_needs_is_imported_early_where_one_is_expected(
    world: World, monkeypatch: pytest.MonkeyPatch, mode: str, assets: str, days_later: int, gets_ready: bool
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(priority, "get_ready", lambda: begun.append(True))
    world.now = TUESDAY + timedelta(days=days_later)

    world.prioritise(provider=f"{{mode: {mode}}}", batch=assets)

    assert bool(begun) is gets_ready


def test_priority_assets_can_be_switched_off(commands: Commands, sandbox: Sandbox) -> None:
    done = commands("run-priority", PRIORITY_ASSETS_ENABLED="false")

    assert (done.returncode, done.stderr) == (0, "")
    assert not sandbox.arrivals


def test_a_refusal_is_waited_for_and_told(commands: Commands, sandbox: Sandbox, connection: Connection) -> None:
    sandbox.fail = ["429-retry-after"]
    run = commands.start("run-priority", "--json")
    wait_until(lambda: sandbox.arrivals)
    sandbox.fail = []
    stdout, stderr = run.communicate(timeout=30)

    assert run.returncode == 0, stderr
    assert len(sandbox.arrivals) == 2
    assert sandbox.arrivals[1].at - sandbox.arrivals[0].at >= 2
    assert "another program uses this key" in stderr
    # The refusal, and the wait for the next call: they are spaced evenly from now on.
    assert '"rate_limit_waits": 2' in stdout
    row = connection.execute("select spaced_until > clock_timestamp() as spaced from assetbatch.rate_limits").fetchone()
    assert row == {"spaced": True}


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_within_two_seconds_and_leaves_nothing_held(
    commands: Commands, sandbox: Sandbox, connection: Connection, signum: signal.Signals
) -> None:
    sandbox.fail = ["timeout"]
    run = commands.start("run-priority")
    wait_until(lambda: sandbox.arrivals)
    began = time.monotonic()
    os.kill(run.pid, signum)
    _, stderr = run.communicate(timeout=10)

    assert time.monotonic() - began < 2
    assert run.returncode == 128 + signum
    assert "Traceback" not in stderr
    assert connection.execute("select * from assetbatch.leases").fetchall() == []
    row = connection.execute("select status, exit_code from assetbatch.runs").fetchone()
    assert row == {"status": "failed", "exit_code": 128 + signum}
    # No answer came, so the request may still be counted: its slot stays taken.
    busy = connection.execute(
        "select count(*) as n from assetbatch.rate_limit_slots where counted_by > now()"
    ).fetchone()
    assert busy == {"n": 1}


def test_a_signal_ends_a_run_that_stands_at_a_lock(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    assert commands("run-priority").returncode == 0
    connection.execute("update assetbatch.sync_state set served_at = served_at - interval '1 hour'")
    with connection.transaction():
        connection.execute("select from assetbatch.rate_limits for update")
        run = commands.start("run-priority")
        wait_until(lambda: connection.execute("select from pg_locks where not granted").rowcount)
        began = time.monotonic()
        os.kill(run.pid, signal.SIGTERM)
        _, stderr = run.communicate(timeout=10)
        took = time.monotonic() - began

    assert (run.returncode, "Traceback" in stderr, took < 3) == (128 + signal.SIGTERM, False, True), (took, stderr)
    assert len(sandbox.arrivals) == 1


def test_what_is_in_flight_at_a_signal_may_still_come_home(commands: Commands, sandbox: Sandbox) -> None:
    (commands.folder / "config.yaml").write_text(
        "rate_limiting: {min_spacing_seconds: 30}\nprovider: {batch_size: 1}\n"
    )
    run = commands.start("run-priority")
    wait_until(lambda: sandbox.arrivals)
    os.kill(run.pid, signal.SIGTERM)
    run.communicate(timeout=10)

    assert run.returncode == 143
    states = [asset["state"] for asset in json.loads(commands("status", "--json").stdout)["assets"]]
    assert states[:3] == ["fresh", "never", "never"]


def test_a_waiting_run_gives_its_ticket_back_at_a_signal(
    commands: Commands, sandbox: Sandbox, connection: Connection
) -> None:
    (commands.folder / "config.yaml").write_text(
        "rate_limiting: {min_spacing_seconds: 30}\nprovider: {batch_size: 1}\n"
    )
    run = commands.start("run-priority")
    wait_until(lambda: connection.execute("select * from assetbatch.rate_limit_waiters").fetchone())
    os.kill(run.pid, signal.SIGTERM)
    run.communicate(timeout=10)

    assert run.returncode == 143
    assert connection.execute("select * from assetbatch.rate_limit_waiters").fetchall() == []


def test_a_run_killed_on_another_host_leaves_a_lease_that_runs_out(
    commands: Commands, sandbox: Sandbox, connection: Connection
) -> None:
    sandbox.fail = ["timeout"]
    run = commands.start("run-priority")
    wait_until(lambda: sandbox.arrivals)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    sandbox.fail = []
    connection.execute("update assetbatch.runs set place = 'elsewhere'")
    waiting = commands.start("run-priority")
    wait_until(lambda: connection.execute("select from assetbatch.runs").rowcount == 2)
    assert waiting.poll() is None
    assert connection.execute("update assetbatch.leases set held_until = clock_timestamp()").rowcount == 1

    waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert len(sandbox.arrivals) == 2
    assert connection.execute("select from trading.symbols where metadata ? 'last_update'").rowcount == 3


@pytest.mark.parametrize(
    ("kinds", "stored", "code"),
    [
        ([], True, 0),
        ([FailureKind.INVALID], True, 3),
        ([FailureKind.KEY_REFUSED, FailureKind.INVALID], False, 77),
        ([FailureKind.UNREACHABLE, FailureKind.TIMEOUT], False, 69),
        ([FailureKind.UNREACHABLE], True, 3),
        ([FailureKind.UNREACHABLE, FailureKind.INVALID], False, 3),
    ],
)
def test_failures_decide_the_exit_code(kinds: list[FailureKind], *, stored: bool, code: int) -> None:
    assert exit_code(kinds, anything_stored=stored) == code
