from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.terminal import run_at_terminal

WORK = """
import logging, time
from assetbatch.report import progress
progress.PATIENCE_SECONDS = {patience}
with progress.ProgressBar.for_terminal("assets", mask=lambda text: text.replace("secret", "***")) as shown:
    print(shown is not None)
    if shown is not None:
        shown(250, 1000)
        shown.add("3 of 12", seconds_left=200)
        logging.getLogger("assetbatch.somewhere").info("waiting 13.0 s for a secret")
        time.sleep({seconds})
"""
# The bar takes its time to appear, while others have something to say.
HASTE = """
import logging, rich.progress, time
add_task = rich.progress.Progress.add_task
rich.progress.Progress.add_task = lambda *given, **named: (time.sleep(0.5), add_task(*given, **named))[1]
from assetbatch.report import progress
progress.PATIENCE_SECONDS = 0.1
with progress.ProgressBar.for_terminal("assets"):
    for _ in range(100):
        logging.getLogger("assetbatch.somewhere").info("something")
        time.sleep(0.01)
"""
FORCED = """
import time
from assetbatch.cli import lifecycle
from assetbatch.report import progress
progress.PATIENCE_SECONDS = 0.1
lifecycle.HARD_END_SECONDS = 1.0
lifecycle.end_by(0)
with progress.ProgressBar.for_terminal("assets"):
    time.sleep(60)
"""
WAIT = """
import logging, time
from assetbatch.report import progress
progress.PATIENCE_SECONDS = 0.1
with progress.ProgressBar.for_terminal("assets", mask=lambda text: text.replace("secret", "***")):
    logging.getLogger("assetbatch.somewhere").info("%s: waiting %.0f s", "secret", 3.4, extra={"counts_down": True})
    time.sleep(4.5)
"""
WARNING = """
import logging, sys, time
from assetbatch.report import progress
progress.PATIENCE_SECONDS = 0.1
logging.getLogger("assetbatch").addHandler(logging.StreamHandler())
with progress.ProgressBar.for_terminal("assets") as shown:
    shown.stand("12 events a second")
    time.sleep(0.5)
    logging.getLogger("assetbatch.somewhere").warning("evicted")
    time.sleep(0.5)
"""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def at_terminal(program: str) -> tuple[subprocess.CompletedProcess[str], str]:
    return run_at_terminal([sys.executable, "-c", program], environment=os.environ)


def test_at_a_terminal_a_bar_tells_how_much_is_done_and_what_the_log_says() -> None:
    done, seen = at_terminal(WORK.format(patience=0.2, seconds=0.6))

    assert (done.returncode, done.stdout) == (0, "True\n")
    assert "250/1000" in seen
    assert "waiting 13.0 s for a ***" in seen
    assert "3 of 12, 3 min or more" in seen
    assert "secret" not in seen


def test_a_wait_is_counted_down_and_no_longer_shown_when_it_is_over() -> None:
    _, seen = at_terminal(WAIT)

    shown = [place for word in ("***: waiting 3 s", "***: waiting 1 s", "assets") if (place := seen.rfind(word)) > -1]
    assert len(shown) == 3
    assert shown == sorted(shown)


def test_what_stands_is_one_line_and_a_warning_has_a_line_of_its_own() -> None:
    _, seen = at_terminal(WARNING)

    assert "━" not in seen
    assert "assets" not in seen
    before, after = seen.split("evicted")
    assert before.endswith("12 events a second\r\x1b[2K")
    assert after.startswith("\r\n\r\x1b[2K12 events a second")


def test_work_that_takes_but_a_moment_shows_none() -> None:
    done, seen = at_terminal(WORK.format(patience=3600, seconds=0))

    assert (done.stdout, seen) == ("True\n", "")


def test_nobody_is_shown_a_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-c", WORK.format(patience=0.2, seconds=0)], check=True)

    assert capfd.readouterr() == ("False\n", "")


def test_what_is_said_while_the_bar_appears_ends_nothing() -> None:
    done, seen = at_terminal(HASTE)

    assert done.returncode == 0, seen
    assert "something" in seen


def test_an_end_by_force_leaves_a_cursor() -> None:
    done, seen = at_terminal(FORCED)

    assert done.returncode == 69
    assert -1 < seen.rfind(HIDE_CURSOR) < seen.rfind(SHOW_CURSOR)
    assert "ended by force" in seen
