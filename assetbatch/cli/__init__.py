"""The command line: parsing of options and printing; no decisions."""

from __future__ import annotations

import atexit
import gc
import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

COLLECT_AFTER_ALLOCATIONS = 50_000


def main() -> None:
    """Run the command line.

    Imports make many objects and no garbage, and what is there at the end goes with the process: looking for garbage
    then takes a fifth of a short command's time.
    """
    answer_signals(_exit)
    from assetbatch.cli import streams

    streams.prepare()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS)
    atexit.register(gc.freeze)

    from assetbatch.cli.main import main as run

    run()


def answer_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let a handler answer the signals that end a command."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # Started by nohup, it is to outlive its terminal.
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)


def _exit(signum: int, _frame: FrameType | None) -> NoReturn:
    """End as shells expect, without a traceback, while the rest is still being imported: there is nothing to tidy up.

    An exception could come up in one of the import system's own callbacks, and be told of and forgotten there.
    """
    os._exit(128 + signum)
