from __future__ import annotations

import sys
import threading
import time

import pytest

from assetbatch.errors import Interrupted
from assetbatch.jobs.clock import Stop
from tests.conftest import ran


def test_a_command_that_waits_for_what_never_comes_is_ended_by_force() -> None:
    program = (
        "import time; from assetbatch.cli import lifecycle; lifecycle.HARD_END_SECONDS = 0.1;"
        " lifecycle.end_by(0.1); time.sleep(60)"
    )

    done = ran([sys.executable, "-c", program])

    assert done.returncode == 69
    assert "ended by force" in done.stderr


def test_a_signal_that_comes_while_the_request_itself_is_looked_at_ends_the_run_all_the_same() -> None:
    program = (
        "import os, signal; from assetbatch.cli import lifecycle; from assetbatch.errors import Interrupted;"
        " stop = lifecycle.stop_on_signals()\n"
        "try:\n with stop.requested._cond: os.kill(os.getpid(), signal.SIGTERM)\n"
        "except Interrupted as end: print(end.exit_code)"
    )

    done = ran([sys.executable, "-c", program])

    assert done.stdout == "143\n", done.stderr


def test_a_second_signal_interrupts_at_once() -> None:
    program = (
        "import os, signal, time; from assetbatch.cli import lifecycle; from assetbatch.errors import Interrupted;"
        " stop = lifecycle.stop_on_signals(); os.kill(os.getpid(), signal.SIGTERM); assert stop.requested.is_set()\n"
        "try:\n os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)\n"
        "except Interrupted as end: print(end.exit_code)"
    )

    done = ran([sys.executable, "-c", program])

    assert done.stdout == "143\n", done.stderr


def test_a_pause_ends_when_the_run_is_asked_to_end() -> None:
    stop = Stop(lambda: Interrupted(15))
    threading.Timer(0.1, stop.requested.set).start()

    with pytest.raises(Interrupted):
        stop.pause(60)


def test_waiting_for_an_answer_goes_on_for_a_moment_after_the_run_was_asked_to_end() -> None:
    stop, answer = Stop(lambda: Interrupted(15)), threading.Event()
    stop.requested.set()
    threading.Timer(0.2, answer.set).start()
    began = time.monotonic()

    stop.wait_for(answer, 60)

    assert answer.is_set()
    assert time.monotonic() - began < 5
