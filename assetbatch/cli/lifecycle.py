"""How a command ends: by a signal within two seconds, and in any case within its hard end."""

from __future__ import annotations

import os
import signal
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from assetbatch import threads
from assetbatch.boottime import boot_time
from assetbatch.cli import signals
from assetbatch.errors import EXIT_UNAVAILABLE, Interrupted
from assetbatch.jobs.clock import Stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# What is in flight may come home; then the main thread is interrupted wherever it is.
FORCED_AFTER_SECONDS = 1.5
HARD_END_SECONDS = 30.0


def interrupt_on_signals() -> None:
    """Answer the signals that end a command at once: for commands that leave nothing half done."""

    def interrupt(signum: int, _frame: FrameType | None) -> NoReturn:
        _leave_lost_terminal()
        raise Interrupted(signum)

    signals.answer(interrupt)


def stop_on_signals() -> Stop:
    """Answer the signals that end a command with a clean stop.

    A second one, or too long a wait, interrupts by force, and whatever takes as long after that, again.
    """
    signum = signal.SIGTERM

    def interrupt() -> Interrupted:
        return Interrupted(signum)

    stop = Stop(interrupt)

    def ask(received: int, _frame: FrameType | None) -> None:
        nonlocal signum
        signum = signal.Signals(received)
        _leave_lost_terminal()
        if stop.requested.is_set():
            force(received, _frame)
        # First: the event's own lock may be held by the very code that this has interrupted, and be waited for here.
        signal.setitimer(signal.ITIMER_REAL, FORCED_AFTER_SECONDS)
        stop.requested.set()

    def force(_signum: int, _frame: FrameType | None) -> NoReturn:
        # What is then done on the way out may wait for the very server that does not answer.
        signal.setitimer(signal.ITIMER_REAL, FORCED_AFTER_SECONDS)
        raise interrupt()

    signal.signal(signal.SIGALRM, force)
    signals.answer(ask)
    return stop


def _leave_lost_terminal() -> None:
    """Let what is still to be said go nowhere where the terminal is gone: writing there fails."""
    for descriptor in (1, 2):
        try:
            lost = stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor)
        except OSError:
            continue  # closed
        if lost:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


def end_by(seconds: float) -> Callable[[], None]:
    """End the process by force some time after its own limit of `seconds`; a laptop's sleep counts.

    Returns what calls that off. Raises NoThreadError.
    """
    called_off = threading.Event()
    limit = seconds + HARD_END_SECONDS
    end = boot_time() + limit

    def watch() -> None:
        while boot_time() < end:
            if called_off.wait(1):
                return
        # Past sys.stderr: a progress bar may have put itself there, and have hidden the cursor.
        shown = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""
        words = f"{shown}assetbatch: ended by force after {limit:.0f} s: something it waited for never came\n"
        with suppress(OSError):
            os.write(2, words.encode())
        os._exit(EXIT_UNAVAILABLE)

    threads.start(threading.Thread(target=watch, name="hard end", daemon=True))
    return called_off.set
