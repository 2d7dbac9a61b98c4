from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

WORK = """
import logging, time
from assetbatch.report import progress
progress.PATIENCE_SECONDS = {patience}
with progress.ProgressBar.for_terminal("assets") as shown:
    print(shown is not None)
    if shown is not None:
        shown(250, 1000)
        logging.getLogger("assetbatch.somewhere").info("waiting 13.0 s for a call")
        time.sleep(3 * {patience} if {patience} < 1 else 0)
"""


def written_to_a_terminal(patience: float) -> bytes:
    """Run a second's work with stderr on a terminal; return what its reader gets to see."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", WORK.format(patience=patience)],
            env=os.environ | {"TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=True,
        )
        assert done.stdout == b"True\n"
        os.write(theirs, b"end")
        return os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_at_a_terminal_a_bar_tells_how_much_is_done_and_what_the_log_says() -> None:
    written = written_to_a_terminal(0.2)

    assert b"250/1000" in written
    assert b"waiting 13.0 s for a call" in written


def test_work_that_takes_but_a_moment_shows_none() -> None:
    assert written_to_a_terminal(3600.0) == b"end"


def test_nobody_is_shown_a_bar_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-c", WORK.format(patience=0.2)], check=True)

    assert capfd.readouterr() == ("False\n", "")
