"""`status --watch`: the status at a terminal, again and again, until somebody ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.relay import Relay, Where
from tests.terminal import terminal

if TYPE_CHECKING:
    from tests.conftest import Commands


@pytest.mark.parametrize("lines", [12, 60])
def test_it_looks_again_tells_that_the_database_is_away_and_ends_as_it_is_asked_to(
    commands: Commands, database: str, lines: int
) -> None:
    commands("run-priority")
    is_away = False

    def cut(_number: int, _request: bytes) -> Where | None:
        return Where.BEFORE if is_away else None

    with Relay(database, cut) as relay, terminal() as shown:
        environment = commands.environment | {"DATABASE_URL": relay.conninfo, "TERM": "xterm", "LANG": "C.UTF-8"}
        watch = subprocess.Popen(
            [sys.executable, "-m", "assetbatch", "status", "--watch", "0.5"],
            cwd=commands.folder,
            env=environment | {"COLUMNS": "80", "LINES": str(lines)},
            **shown.streams,
        )
        wait_until(lambda: shown.seen.count(b"every 0.5 s") >= 3)
        is_away = True
        wait_until(lambda: b"asked again every 0.5 s" in shown.seen)
        is_away, before = False, shown.seen.count(b"Ctrl-C ends this")
        wait_until(lambda: shown.seen.count(b"Ctrl-C ends this") > before)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 130
    text = shown.seen.decode()
    assert ("make the terminal higher" in text, "Events" in text) == (lines == 12, lines == 60)
    assert "ended by" not in text
    # What was on the terminal before is there again.
    assert text.rfind("\x1b[?1049l") > text.rfind("\x1b[?1049h") >= 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--watch"], "needs a terminal"),
        (["--watch", "--json"], "leave --check and --json out"),
        (["--watch", "--check"], "leave --check and --json out"),
        (["5"], "SECONDS go with --watch"),
        (["--watch", "0"], "is not in the range"),
        (["--watch", "nan"], "nan is no number"),
    ],
    ids=str,
)
def test_it_is_for_people_at_a_terminal(commands: Commands, options: list[str], words: str) -> None:
    done = commands("status", *options, COLUMNS="200")

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
