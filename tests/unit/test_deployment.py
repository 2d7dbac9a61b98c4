"""What `install` makes of crontab.example and of the units: for any installation, and for any crontab that is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from assetbatch.config.settings import Batch
from assetbatch.deployment import crontab, shipped, units
from assetbatch.deployment.starts import STEPS, cron_fields, minutes_between, systemd_calendar
from assetbatch.errors import ConfigurationError
from tests.conftest import ran

ROOT = Path(__file__).parents[2]
MAILTO = "MAILTO=operator@example.com"
BLOCK = crontab.block(shipped.COMMAND, Batch(), mailto=MAILTO, mailto_below=None, with_stream=False)
ODD = '/opt/a %b/it\'s "here"/$HOME\\x/assetbatch'
SYSTEM = units.Target(
    command=shlex.split(shipped.COMMAND),
    reads=[Path("/opt/assetbatch/.venv"), Path("/usr"), Path("/etc/assetbatch/config.yaml")],
    batch=Batch(),
    user="assetbatch",
    group="assetbatch",
    data=Path("/var/lib/assetbatch"),
    environment={},
    with_server=True,
    with_stream=True,
)
OWN = replace(SYSTEM, user=None, group=None, data=Path("/home/me/.local/share/assetbatch"))
# Those of systemd.exec(5) that a user's own systemd grants without root and without a namespace.
GRANTED = {
    *("NoNewPrivileges", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    *("LockPersonality", "MemoryDenyWriteExecute", "SystemCallArchitectures", "SystemCallFilter"),
    *("SystemCallErrorNumber", "UMask", "WorkingDirectory"),
}
PLAIN = {
    *("Type", "ExecStart", "PIDFile", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "KillMode"),
    *("KillSignal", "NotifyAccess", "WatchdogSec", "SuccessExitStatus", "RestartPreventExitStatus"),
}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")


def test_the_shipped_files_are_those_at_the_top() -> None:
    assert shipped.text("config.yaml") == (ROOT / "config.yaml").read_text("utf-8")
    assert shipped.units() == {file.name: file.read_text("utf-8") for file in (ROOT / "scripts" / "systemd").iterdir()}


def test_for_the_installation_of_the_examples_nothing_is_changed() -> None:
    assert (ROOT / "crontab.example").read_text("utf-8") == BLOCK
    assert units.rendered(SYSTEM) == shipped.units()


@given(minutes=st.floats(0.1, 3000))
def test_each_slot_of_an_interval_has_a_start(minutes: float) -> None:
    step = minutes_between(timedelta(minutes=minutes))

    assert step == 1 or step <= minutes
    assert 1440 % step == 0


def test_an_interval_in_the_words_of_cron_and_systemd() -> None:
    told = {step: (cron_fields(step), systemd_calendar(step)) for step in (1, 5, 30, 60, 120, 1440)}

    assert told == {
        1: ("* * * * *", "*:* UTC"),
        5: ("*/5 * * * *", "*:0/5 UTC"),
        30: ("*/30 * * * *", "*:0/30 UTC"),
        60: ("0 * * * *", "*:00 UTC"),
        120: ("0 */2 * * *", "0/2:00 UTC"),
        1440: ("0 0 * * *", "00:00 UTC"),
    }


@needs_systemd
@pytest.mark.parametrize("step", STEPS)
def test_systemd_starts_it_as_often(step: int) -> None:
    done = ran(
        ["systemd-analyze", "calendar", "--iterations=3", systemd_calendar(step)], env=os.environ | {"TZ": "UTC"}
    )

    starts = re.findall(r"(?:Next elapse|Iter\. #\d): \w+ (\S+) (\S+)", done.stdout)
    seconds = [int(subprocess.check_output(["date", "-ud", f"{day} {time}", "+%s"])) for day, time in starts]
    assert {later - one for one, later in pairwise(seconds)} == {step * 60}


def test_the_block_follows_the_configuration() -> None:
    batch = Batch(interval_minutes=7, enqueue_interval_minutes=240)

    lines = crontab.block("it", batch, mailto=None, mailto_below=MAILTO, with_stream=True).splitlines()

    assert [line for line in lines if line and not line.startswith("#")] == [
        "*/6 * * * * it run-priority",
        "* * * * * it drain-queue --max-seconds 55",
        "0 */4 * * * it enqueue-secondary",
        "0 * * * * it stream --max-seconds 3600",
    ]


def as_cron_reads(command: str) -> str:
    """What cron hands to the shell: a backslash before a percent sign goes, a bare percent sign ends the command."""
    return re.split(r"(?<!\\)%", command)[0].replace(r"\%", "%")


@given(word=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_any_path_gets_through_cron_and_its_shell(word: str) -> None:
    line = crontab.command_line(["printf", "%s", word], {"FOLDER": word})

    read = re.sub(r"\\%", "%", line)
    assert "%" not in re.sub(r"\\%", "", line)
    assert shlex.split(read) == [f"FOLDER={word}", "printf", "%s", word]


def test_an_odd_path_gets_through_a_shell(tmp_path: Path) -> None:
    line = crontab.command_line(["printf", "%s", ODD], {})

    assert ran(["sh", "-c", as_cron_reads(line)]).stdout == ODD


LINE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).filter(
    lambda line: not line.startswith((crontab.BEGIN, crontab.END))
)


@given(before=st.lists(LINE), after=st.lists(LINE), ends=st.booleans())
def test_all_other_lines_stay_as_they_are(before: list[str], after: list[str], ends: bool) -> None:
    above, below = ("".join(f"{line}\n" for line in lines) for lines in (before, after))
    there = above if ends else above.removesuffix("\n")

    once = crontab.replaced(there, BLOCK)

    assert crontab.replaced(once, BLOCK) == once
    assert crontab.replaced(once, "").removesuffix("\n") == there.removesuffix("\n")
    assert crontab.replaced(above + BLOCK + below, "") == above + below
    assert crontab.replaced(above + BLOCK + below, BLOCK.replace("*/5", "*/2")).startswith(above + crontab.BEGIN)


def mailed(table: str) -> dict[str, str]:
    """To whom cron mails what each command prints: an address holds for all lines below it."""
    found, address = {}, "me"
    for line in table.splitlines():
        if setting := re.fullmatch(r"\s*MAILTO\s*=\s*(.*?)\s*", line):
            address = setting[1]
        elif line and not line.startswith("#"):
            found[line.split(maxsplit=5)[5]] = address
    return found


@pytest.mark.parametrize("above", ["", 'MAILTO=""\n', "MAILTO=one\n MAILTO = two \n# MAILTO=three\n"])
@pytest.mark.parametrize("mailto", [MAILTO, None])
def test_mail_of_all_other_lines_goes_where_it_went(above: str, mailto: str | None) -> None:
    table, later = f"{above}1 * * * * some\n", "2 * * * * other\n"
    below = crontab.mailto_above(table) or "MAILTO=me"
    block = crontab.block("it", Batch(), mailto=mailto, mailto_below=below, with_stream=False)

    written = crontab.replaced(table, block) + later

    before = mailed(table + later)
    ours = mailed(block) if mailto else dict.fromkeys(mailed(block), before["some"])
    assert mailed(written) == before | ours
    assert crontab.mailto_of(written) == mailto
    # Written again, it is the same.
    assert crontab.mailto_above(written) == crontab.mailto_above(table)


def test_the_block_keeps_its_address_and_jobs_beside_it_are_seen() -> None:
    other = "*/5 * * * * /opt/old/bin/assetbatch run-priority"

    assert crontab.mailto_of(f"MAILTO=root\n{BLOCK}") == MAILTO
    assert crontab.mailto_of("MAILTO=root\n") is None
    assert crontab.jobs_elsewhere(f"# {other}\n{BLOCK}{other}\n0 * * * * assetbatch metrics\n") == [other]


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no line # END assetbatch"):
        crontab.replaced(BLOCK.replace(crontab.END, "#"), BLOCK)


def settings(text: str) -> list[tuple[str, str]]:
    lines = [line.partition("=") for line in text.splitlines() if line and not line.startswith(("#", "["))]
    return [(key, value) for key, _, value in lines]


def test_a_users_own_units_ask_for_nothing_that_takes_root_or_a_namespace() -> None:
    for name, text in units.rendered(OWN).items():
        service = text.partition("[Service]")[2].partition("[Install]")[0]
        assert {key for key, _ in settings(service)} <= GRANTED | PLAIN, name
        assert ("NoNewPrivileges", "yes") in settings(text) or name.endswith(".timer")
        assert "multi-user" not in text
        assert "network-online" not in text
        assert not re.search(r"(systemctl|journalctl) (?!--user)", text)
        assert not re.search(
            r"/opt/assetbatch|/var/lib|LoadCredential|folder of memory", text.replace(shipped.COMMAND, "")
        )
    assert ("PIDFile", f"{OWN.data}/postgresql-16/data/postmaster.pid") in settings(units.rendered(OWN)[units.SERVER])


def test_folders_that_the_user_has_named_are_named_in_the_units() -> None:
    named = replace(OWN, environment={"XDG_DATA_HOME": "/data/100% mine"})

    assert ("Environment", '"XDG_DATA_HOME=/data/100%% mine"') in settings(units.rendered(named)[units.JOB])


def test_units_for_another_user_another_interval_and_a_home() -> None:
    home = Path("/home/trader/.local/share/pipx")
    target = replace(
        SYSTEM,
        user="trader",
        group="staff",
        reads=[home],
        batch=Batch(interval_minutes=1),
        with_server=False,
        with_stream=False,
    )

    found = units.rendered(target)

    assert found.keys() == {units.JOB, *units.TIMERS}
    assert units.to_enable(target) == list(units.TIMERS)
    job = settings(found[units.JOB])
    assert {("User", "trader"), ("Group", "staff"), ("ProtectHome", "read-only")} <= set(job)
    assert ("OnCalendar", "*:* UTC") in settings(found["assetbatch-run-priority.timer"])


@needs_systemd
@pytest.mark.parametrize(
    "target",
    [
        replace(SYSTEM, reads=[Path("/home/trader")], command=[sys.executable, "--config", ODD]),
        replace(OWN, command=[sys.executable, "--config", ODD], environment={"XDG_STATE_HOME": ODD.replace("$", "")}),
    ],
    ids=["system", "own"],
)
def test_systemd_finds_no_fault_in_what_is_written(tmp_path: Path, target: units.Target) -> None:
    for name, text in units.rendered(target).items():
        (tmp_path / name).write_text(text)
    own = [] if target.user else ["--user"]
    names = [name.replace("@", "@run-priority") for name in units.rendered(target)]

    done = ran(
        ["systemd-analyze", "verify", *own, *(str(tmp_path / name) for name in names)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("name", [units.JOB, units.SERVER, units.STREAM])
def test_systemd_finds_units_little_exposed_with_a_home_that_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(units.rendered(replace(SYSTEM, reads=[Path("/root/venv")]))[name])

    done = ran(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", tmp_path / name])

    assert done.returncode == 0, done.stdout + done.stderr
