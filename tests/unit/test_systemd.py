"""The shipped units: held against the commands, the configuration's defaults, and systemd's own judgement."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from assetbatch.cli.lifecycle import FORCED_AFTER_SECONDS, HARD_END_SECONDS
from assetbatch.config import data_folder, secret
from assetbatch.config.settings import Settings
from assetbatch.database.embedded.place import SERVICE_ACCOUNT, Place
from assetbatch.errors import EXIT_CONFIGURATION, EXIT_KEY_REFUSED
from assetbatch.jobs import enqueue
from assetbatch.stream import pairs
from tests.conftest import ran

FOLDER = Path(__file__).parents[2] / "scripts" / "systemd"
PROGRAM = "/opt/assetbatch/.venv/bin/assetbatch"
CONFIG = "/etc/assetbatch/config.yaml"
JOB, SERVER, STREAM = "assetbatch@.service", "assetbatch-postgresql.service", "assetbatch-stream.service"
TIMERS = {f"assetbatch-{job}.timer": job for job in ("run-priority", "drain-queue", "enqueue-secondary")}
# In tenths, as `systemd-analyze security --threshold` has them.
MOST_EXPOSED = 15
# The newest systemd that was seen to do so.
SKIPS_THE_REPEATED_HOUR = 252

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")


def settings(unit: str) -> dict[str, list[str]]:
    """Every setting of a unit with all its values, in their order."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / unit).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def systemd_version() -> int:
    told = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.split()[1])


def words(unit: str, key: str, instance: str = "") -> list[str]:
    (line,) = settings(unit)[key]
    return shlex.split(line.replace("%i", instance))


def environment(unit: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in settings(unit)["Environment"] for pair in shlex.split(line))


def test_the_folder_has_a_service_and_a_timer_for_each_job() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {JOB, SERVER, STREAM, *TIMERS}
    assert {unit: settings(unit)["Unit"] for unit in TIMERS} == {
        unit: [f"assetbatch@{job}.service"] for unit, job in TIMERS.items()
    }


@pytest.mark.parametrize(
    "command",
    [words(JOB, "ExecStart", job) for job in TIMERS.values()] + [words(unit, "ExecStart") for unit in (SERVER, STREAM)],
    ids=" ".join,
)
def test_what_a_unit_starts_is_a_command_with_these_options(command: list[str]) -> None:
    program, *arguments = command

    done = ran([sys.executable, "-m", "assetbatch", *arguments, "--help"])

    assert (done.returncode, done.stderr) == (0, "")
    assert f" {arguments[-1]} [OPTIONS]" in done.stdout
    assert (program, arguments[:2]) == (PROGRAM, ["--config", CONFIG])
    assert arguments[2:4] == ["--log-format", "journald"]


def test_timers_start_the_jobs_when_the_crontab_does() -> None:
    crontab = (FOLDER.parents[1] / "crontab.example").read_text()
    lines = re.findall(r"^\*(\S*) \* \* \* \* .* (\S+-\S+)(?: --max.*)?$", crontab, re.MULTILINE)
    expected = {job: minutes for minutes, job in lines}
    calendar = {job: settings(unit)["OnCalendar"][0] for unit, job in TIMERS.items()}

    assert calendar == {job: f"*:0{minutes} UTC" if minutes else "*:* UTC" for job, minutes in expected.items()}
    batch = Settings().batch
    assert calendar["run-priority"] == f"*:0/{batch.interval_minutes:g} UTC"
    assert calendar["enqueue-secondary"] == f"*:0/{batch.enqueue_interval_minutes:g} UTC"


# A zone, a time some hours before its clocks change, and by how much they are set back: not at all in spring.
CHANGES = [
    ("Europe/Berlin", "2026-10-24 22:00 UTC", 60),
    ("Europe/Berlin", "2027-03-27 22:00 UTC", 0),
    ("America/New_York", "2026-11-01 03:00 UTC", 60),
    ("America/New_York", "2027-03-14 03:00 UTC", 0),
    ("Australia/Lord_Howe", "2027-04-03 12:00 UTC", 30),
]


def minutes_between(calendar: str, zone: str, since: str) -> set[float]:
    """How many minutes pass between the starts of seven hours, by systemd's own reckoning."""
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=420", f"--base-time={since}", calendar],
        env={"TZ": zone, "PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    starts = [
        datetime.strptime(found, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        for found in re.findall(r"(?:Next elapse|\(in UTC\)): \w+ (\S+ \S+) UTC$", done.stdout, re.MULTILINE)
    ]
    assert len(starts) > 2
    end = starts[0] + timedelta(hours=7)
    return {(later - one).total_seconds() / 60 for one, later in pairwise(starts) if later <= end}


@needs_systemd
@pytest.mark.parametrize(("zone", "since", "set_back"), CHANGES)
@pytest.mark.parametrize("unit", TIMERS)
def test_no_start_is_lost_when_the_clock_is_changed(unit: str, zone: str, since: str, set_back: int) -> None:
    (calendar,) = settings(unit)["OnCalendar"]
    interval = int(calendar.removesuffix(" UTC").rpartition("/")[2].replace("*:*", "1"))

    assert minutes_between(calendar, zone, since) == {interval}
    # That is what the zone is for.
    if set_back and systemd_version() <= SKIPS_THE_REPEATED_HOUR:
        local = calendar.removesuffix(" UTC")
        assert minutes_between(local, zone, since) == {interval, interval + set_back}


@pytest.mark.parametrize("unit", TIMERS)
def test_a_timer_is_exact_and_makes_up_for_nothing(unit: str) -> None:
    found = settings(unit)

    assert (found["AccuracySec"], found["RandomizedDelaySec"], found["Persistent"]) == (["1s"], ["0"], ["no"])
    assert found["WantedBy"] == ["timers.target"]


def test_a_run_ends_itself_before_systemd_does() -> None:
    provider, batch = Settings().provider, Settings().batch
    drain_seconds = 55.0
    longest = max(batch.max_cycle_seconds, enqueue.MAX_SECONDS, drain_seconds)
    longest += provider.connect_timeout_seconds + provider.timeout_seconds + HARD_END_SECONDS

    assert float(settings(JOB)["TimeoutStartSec"][0]) > longest
    assert settings(JOB)["Type"] == ["oneshot"]
    assert "SuccessExitStatus" not in settings(JOB)


def test_the_stream_is_started_again_but_where_that_mends_nothing() -> None:
    found = settings(STREAM)

    assert (found["Type"], found["NotifyAccess"], found["Restart"]) == (["notify"], ["main"], ["always"])
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["SuccessExitStatus"] == [str(128 + signal.SIGTERM)]
    assert found["RestartPreventExitStatus"] == [f"{EXIT_KEY_REFUSED} {EXIT_CONFIGURATION}"]
    assert float(found["TimeoutStopSec"][0]) > FORCED_AFTER_SECONDS
    # It tells nothing while it waits for a call.
    provider = Settings().provider
    longest = pairs.MAX_SECONDS + provider.connect_timeout_seconds + provider.timeout_seconds
    assert float(found["WatchdogSec"][0]) > longest
    assert float(found["TimeoutStartSec"][0]) > longest


@pytest.mark.parametrize("key", ["Environment", "EnvironmentFile", "SystemCallFilter", "RestrictAddressFamilies"])
def test_the_stream_may_what_a_job_may(key: str) -> None:
    assert settings(STREAM)[key] == settings(JOB)[key]


@pytest.mark.parametrize("unit", [JOB, STREAM])
def test_every_secret_can_be_a_credential(unit: str) -> None:
    credentials = dict(line.split(":", 1) for line in settings(unit)["LoadCredential"])

    assert set(credentials) == set(secret.NAMES)
    # Without the key no job runs: a file that is missing is an error; of the others it is none.
    assert {name for name, path in credentials.items() if path.startswith("/")} == {"POLYGON_API_KEY"}


@pytest.mark.parametrize("unit", [JOB, SERVER, STREAM])
def test_units_find_the_embedded_server_where_it_is_and_leave_it_its_memory(unit: str) -> None:
    found = settings(unit)
    folder = Path("/var/lib") / found["StateDirectory"][0]

    assert found["User"] == [SERVICE_ACCOUNT]
    assert data_folder(environment(unit)) == folder
    assert found["RemoveIPC"] == ["no"]
    assert settings(SERVER)["PIDFile"] == [str(Place.below(folder).data / "postmaster.pid")]


@needs_systemd
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        # verify wants a program that is there.
        (tmp_path / file.name).write_text(file.read_text().replace(PROGRAM, sys.executable))
    units = [tmp_path / unit for unit in (SERVER, STREAM, *TIMERS)] + [
        tmp_path / JOB.replace("@", f"@{job}") for job in TIMERS.values()
    ]

    done = ran(["systemd-analyze", "verify", *map(str, units)])

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", [JOB, SERVER, STREAM])
def test_systemd_finds_units_little_exposed(unit: str) -> None:
    done = ran(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", FOLDER / unit]
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout
