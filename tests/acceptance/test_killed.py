"""Runs that die, and those that come after them: what a dead process held is free at once on its host."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.database import entitlements, runs
from assetbatch.database.leases import Lease, new_token, release_dead
from assetbatch.model import AssetType
from assetbatch.processes import Process, is_gone, this_process
from tests.conftest import ran, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

DAYS = ("--symbol", "BTCUSD", "--since", "2026-01-01", "--until", "2026-01-03")
# A short window, so that nothing waits for calls; no bars but those that are asked for.
KEYS = "rate_limiting: {window_seconds: 0.5, margin_seconds: 0}\nbars: {enabled: false}\n"
# What a command takes that waits for nobody, on a machine that is busy; leases last 35 s.
AT_ONCE_SECONDS = 15.0


@pytest.fixture(autouse=True)
def configured(commands: Commands) -> None:
    (commands.folder / "config.yaml").write_text(KEYS)
    assert commands("init").returncode == 0


@pytest.fixture
def hanging(commands: Commands, sandbox: Sandbox) -> Iterator[Any]:
    """Start a command, and have it wait for an answer that does not come."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        known = len(sandbox.arrivals)
        sandbox.fail = ["timeout"]
        started.append(commands.start(*arguments))
        wait_until(lambda: len(sandbox.arrivals) > known)
        sandbox.fail = []
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def run_of(connection: Connection, job: str) -> dict[str, Any]:
    row = connection.execute("select * from assetbatch.runs where job = %s order by id limit 1", [job]).fetchone()
    assert row is not None
    return row


def test_what_a_killed_run_said_beforehand_was_said(hanging: Any) -> None:
    killed = hanging("backfill", *DAYS)
    killed.kill()

    _, said = killed.communicate()

    assert "1 call for the bars of BTCUSD" in said


@pytest.mark.parametrize("is_zombie", [False, True])
def test_a_backfill_after_one_that_was_killed_goes_on_at_once(
    commands: Commands, connection: Connection, hanging: Any, *, is_zombie: bool
) -> None:
    killed = hanging("backfill", *DAYS)
    killed.kill()
    if not is_zombie:
        killed.wait()

    began = time.monotonic()
    again = commands("backfill", *DAYS, "--json")

    assert time.monotonic() - began < AT_ONCE_SECONDS
    document = json.loads(again.stdout)
    assert (again.returncode, document["status"], document["bars"]) == (0, "ok", {"assets": 1, "stored": 576})
    assert connection.execute("select from assetbatch.leases").rowcount == 0


@pytest.mark.parametrize("job", ["run-priority", "drain-queue"])
def test_a_job_after_one_that_was_killed_begins_at_once(commands: Commands, hanging: Any, job: str) -> None:
    assert commands("enqueue-secondary").returncode == 0
    killed = hanging(job)
    killed.kill()
    killed.wait()

    again = commands(job, "--json")

    document = json.loads(again.stdout)
    assert (again.returncode, document["status"]) == (0, "ok")
    assert len(document["updated"]) == {"run-priority": 3, "drain-queue": 4}[job]


def test_what_a_killed_drain_held_of_the_queue_is_taken_up_by_its_living_neighbour(
    commands: Commands, connection: Connection, hanging: Any
) -> None:
    assert commands("enqueue-secondary").returncode == 0
    killed = hanging("drain-queue", "--shared")
    killed.kill()
    killed.wait()

    assert commands("drain-queue", "--shared").returncode == 0

    assert connection.execute("select from assetbatch.queue").rowcount == 0
    assert run_of(connection, "drain-queue")["gone_at"] is not None


def test_status_and_doctor_tell_at_once_that_a_run_was_killed(
    commands: Commands, connection: Connection, hanging: Any
) -> None:
    running = hanging("run-priority")
    before = json.loads(commands("status", "--json").stdout)
    running.kill()
    running.wait()
    after = json.loads(commands("status", "--json").stdout)

    assert [one["jobs"][0]["last_status"] for one in (before, after)] == ["running", "failed"]
    told = commands("status", "--since", "1h").stdout
    assert ("run-priority" in told, "killed" in told) == (True, True)
    assert "killed" in commands("doctor").stdout
    assert connection.execute("select from assetbatch.leases").rowcount == 0


def test_a_run_that_lives_keeps_what_it_holds(commands: Commands, connection: Connection, hanging: Any) -> None:
    running = hanging("backfill", *DAYS)
    token = "select token from assetbatch.bar_state where symbol = 'BTCUSD'"
    held = connection.execute(token).fetchone()

    assert not release_dead(connection)
    os.kill(running.pid, signal.SIGSTOP)
    assert not release_dead(connection)

    assert held != {"token": None}
    assert connection.execute(token).fetchone() == held


@pytest.mark.parametrize(
    "change",
    [
        "place = regexp_replace(place, '^\\S+', 'another-host')",
        "place = regexp_replace(place, ' \\S+ ', ' another-boot ')",
        "place = regexp_replace(place, 'pid:.*', 'pid:[4242]')",
        "place = null, pid = null, pid_started = null",
    ],
)
def test_a_process_of_another_place_is_never_taken_for_dead(
    commands: Commands, connection: Connection, hanging: Any, change: str
) -> None:
    killed = hanging("backfill", *DAYS)
    killed.kill()
    killed.wait()
    assert connection.execute("update assetbatch.runs set " + change).rowcount == 1

    assert not release_dead(connection)
    waited = commands("backfill", *DAYS, "--wait", "0", "--json")

    assert (waited.returncode, json.loads(waited.stdout)["status"]) == (75, "skipped")
    assert run_of(connection, "backfill")["gone_at"] is None


def test_what_an_older_program_holds_runs_out_as_ever(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.leases values ('run-priority', gen_random_uuid(), clock_timestamp() + interval '3 s')"
    )

    began = time.monotonic()
    assert not release_dead(connection)
    done = commands("run-priority", "--json")

    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "ok")
    assert time.monotonic() - began > 2


def begin(connection: Connection) -> int:
    begin = runs.begin(job="test", host="here", version="0", plan="free", calls_per_window=5, longest_seconds=60)
    return connection.answer(begin).run_id


def test_one_mend_frees_all_that_a_dead_run_held_and_nothing_of_others(connection: Connection) -> None:
    dead, alive = begin(connection), begin(connection)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    connection.execute("update assetbatch.runs set pid = %s where id = %s", [ended.pid, dead])
    day = (datetime.now(UTC) - timedelta(days=1)).date()
    for run_id, name, market in ((dead, "A", AssetType.FOREX), (alive, "B", AssetType.CRYPTO), (None, "C", None)):
        assert Lease(connection, name, seconds=600, run_id=run_id).take()
        if market is not None:
            assert entitlements.DayLease(connection, market, day, seconds=600, run_id=run_id).take()
        connection.execute(
            "insert into assetbatch.bar_state (symbol, wanted_since, token, leased_until)"
            " values (%s, now(), %s, now() + interval '10 min')",
            [name, new_token(run_id)],
        )
        connection.execute(
            "insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at, state,"
            " token, claimed_at, leased_until)"
            " values (%s, 3, now(), now(), now(), now(), 'leased', %s, now(), now() + interval '10 min')",
            [name, new_token(run_id)],
        )

    assert release_dead(connection)
    assert not release_dead(connection)

    def held(query: str) -> list[str]:
        return [row["name"] for row in connection.execute(query)]

    assert held("select name from assetbatch.leases order by 1") == ["B", "C"]
    assert held("select symbol as name from assetbatch.bar_state where token is not null order by 1") == ["B", "C"]
    assert held("select symbol as name from assetbatch.queue where leased_until > now() order by 1") == ["B", "C"]
    assert held("select market as name from assetbatch.daily_figures where token is not null") == ["crypto"]
    assert held("select id::text as name from assetbatch.runs where ends_by <= now()") == [str(dead)]


def test_what_the_dead_were_just_asking_for_is_found_a_moment_later(connection: Connection) -> None:
    dead = begin(connection)
    connection.execute("update assetbatch.runs set pid_started = pid_started + 1 where id = %s", [dead])
    assert not release_dead(connection)
    assert run_of(connection, "test")["gone_at"] is not None
    # The server finishes what it was told before it notices that nobody waits for the answer.
    assert connection.answer(Lease(connection, "late", run_id=dead).taking())

    assert Lease(connection, "late", run_id=begin(connection)).take()


def test_a_run_killed_after_its_record_was_written_keeps_nobody_waiting(connection: Connection) -> None:
    dead = begin(connection)
    assert Lease(connection, "backfill", run_id=dead).take()
    connection.execute(
        "update assetbatch.runs set status = 'ok', finished_at = now(), pid_started = pid_started + 1 where id = %s",
        [dead],
    )

    assert Lease(connection, "backfill", run_id=begin(connection)).take()
    assert run_of(connection, "test")["status"] == "ok"


def test_a_process_is_told_from_a_later_one_with_its_pid_and_from_one_that_only_waits_to_be_reaped() -> None:
    here = this_process()
    assert here is not None
    assert here.pid == os.getpid()
    assert not is_gone(here)
    assert is_gone(Process(here.place, here.pid, here.started + 1))
    # Nobody may signal it, but it is there.
    began = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    assert not is_gone(Process(here.place, 1, began))
    child = subprocess.Popen(["/bin/sh", "-c", "exit 0"])
    wait_until(lambda: is_gone(Process(here.place, child.pid, here.started)))
    child.wait()


def test_a_process_that_sees_the_pids_of_another_namespace_looks_nobody_up() -> None:
    program = "from assetbatch.processes import this_process; print(this_process())"
    done = ran(["unshare", "--pid", "--fork", sys.executable, "-c", program])
    if done.returncode:
        pytest.skip("no right to make a namespace")
    assert done.stdout == "None\n"


def test_containers_of_one_host_never_take_each_others_leases_for_dead(
    commands: Commands, connection: Connection, hanging: Any
) -> None:
    running = hanging("backfill", *DAYS)
    # The same host's name and boot; its pids are not to be seen from there.
    alone = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "assetbatch"]
    done = ran([*alone, "backfill", *DAYS, "--wait", "1", "--json"], cwd=commands.folder, env=commands._whole({}))
    if "unshare" in done.stderr:
        pytest.skip("no right to make a namespace")

    assert (done.returncode, json.loads(done.stdout)["status"]) == (75, "skipped"), done.stderr
    assert running.poll() is None
    places = [row["place"] for row in connection.execute("select place from assetbatch.runs order by id")]
    assert len(set(places)) == 2
    assert len({place.rpartition(" ")[0] for place in places}) == 1


def test_a_backfill_beside_a_living_one_waits_and_gives_up_with_75(
    commands: Commands, sandbox: Sandbox, hanging: Any
) -> None:
    running = hanging("backfill", *DAYS)
    calls = len(sandbox.arrivals)

    began = time.monotonic()
    done = commands("-v", "backfill", *DAYS, "--wait", "2")
    took = time.monotonic() - began
    at_once = commands("backfill", *DAYS, "--wait", "0", "--json")

    assert (done.returncode, took > 2) == (75, True)
    assert f"process {running.pid}" in done.stderr
    assert "another backfill" in done.stderr.splitlines()[-1]
    assert "nothing was fetched" in done.stderr
    document = json.loads(at_once.stdout)
    assert (at_once.returncode, document["status"], document["api_calls_used"]) == (75, "skipped", 0)
    assert len(sandbox.arrivals) == calls


def test_a_backfill_that_waited_has_what_another_one_has_fetched_meanwhile(
    commands: Commands, connection: Connection, sandbox: Sandbox, hanging: Any
) -> None:
    hanging("backfill", "--symbol", "EURUSD", "--since", "2026-01-05", "--until", "2026-01-06")
    waiting = commands.start("backfill", *DAYS, "--wait", "4", "--json")
    wait_until(lambda: connection.execute("select from assetbatch.runs where job = 'backfill'").rowcount == 2)
    connection.execute(
        "insert into assetbatch.bar_absences select 'BTCUSD', 'nothing', '2026-01-01',"
        " '{[2026-01-01 00:00+00, 2026-01-04 00:00+00)}', now()"
    )
    stdout, stderr = waiting.communicate(timeout=30)

    document = json.loads(stdout)
    assert (waiting.returncode, document["status"], document["api_calls_used"]) == (0, "ok", 0), stderr
    assert len(sandbox.arrivals) == 1


def test_a_backfill_of_which_nothing_is_missing_waits_for_nobody(commands: Commands, hanging: Any) -> None:
    assert commands("backfill", *DAYS).returncode == 0
    hanging("backfill", "--symbol", "EURUSD", "--since", "2026-01-05", "--until", "2026-01-06")

    began = time.monotonic()
    done = commands("backfill", *DAYS, "--json")

    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "ok")
    assert time.monotonic() - began < AT_ONCE_SECONDS


def test_a_backfill_takes_its_turn_when_the_other_one_ends(
    commands: Commands, connection: Connection, hanging: Any
) -> None:
    running = hanging("backfill", "--symbol", "EURUSD", "--since", "2026-01-05", "--until", "2026-01-06")
    waiting = commands.start("backfill", *DAYS, "--json")
    wait_until(lambda: connection.execute("select from assetbatch.runs where job = 'backfill'").rowcount == 2)
    running.terminate()

    stdout, stderr = waiting.communicate(timeout=30)

    assert (waiting.returncode, json.loads(stdout)["bars"]["stored"]) == (0, 576), stderr


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_another_backfill_at_once(
    commands: Commands, connection: Connection, hanging: Any, signum: signal.Signals
) -> None:
    hanging("backfill", *DAYS)
    waiting = commands.start("backfill", *DAYS)
    wait_until(lambda: connection.execute("select from assetbatch.runs where job = 'backfill'").rowcount == 2)

    waiting.send_signal(signum)
    began = time.monotonic()
    _, stderr = waiting.communicate(timeout=10)

    assert (waiting.returncode, time.monotonic() - began < 2) == (128 + signum, True), stderr
    assert "Traceback" not in stderr


def test_nohup_outlives_its_terminal(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["timeout"]
    run = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$0" -m assetbatch run-priority', sys.executable],
        cwd=commands.folder,
        env=commands._whole({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: sandbox.arrivals)
    sandbox.fail = []

    run.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(timeout=2)
    run.terminate()
    run.communicate(timeout=10)

    assert run.returncode == 143


def test_a_lost_terminal_ends_a_backfill_as_a_signal_does(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    sandbox.fail = ["timeout"]
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "assetbatch", "backfill", *DAYS],
        cwd=commands.folder,
        env=commands._whole({"TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    wait_until(lambda: sandbox.arrivals)
    time.sleep(1.5)  # until the progress bar is there
    began = time.monotonic()
    os.close(ours)

    assert run.wait(timeout=10) == 129
    assert time.monotonic() - began < 3
    assert connection.execute("select from assetbatch.leases").rowcount == 0
    row = run_of(connection, "backfill")
    assert (row["status"], row["exit_code"], row["error"]) == ("failed", 129, "ended by SIGHUP")
