"""The command line: parsing of options and printing; no decisions."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

# A short command makes 60,000 objects in all.
COLLECT_AFTER_ALLOCATIONS = 100_000
# Before anything is imported that only Linux has; the exit code is that of a host that is not as it has to be.
ELSEWHERE = (
    "assetbatch: this runs on Linux only: it needs a clock that goes on while the machine sleeps, a bound on how long a"
    " request may still be delivered, and /proc, which tells a killed run from a slow one\n"
)
EXIT_ELSEWHERE = 78


def main() -> None:
    """Run the command line.

    Imports make many objects and no garbage, and what is there at the end goes with the process: looking for garbage
    then takes a fifth of a short command's time.
    """
    if sys.platform != "linux":
        sys.stderr.write(ELSEWHERE)
        sys.exit(EXIT_ELSEWHERE)
    from assetbatch.cli import signals

    signals.answer(_exit)
    from assetbatch.cli import streams

    streams.prepare()
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS)
    atexit.register(gc.freeze)

    from assetbatch.cli.main import main as run

    run()


def _exit(signum: int, _frame: FrameType | None) -> NoReturn:
    """End as shells expect, without a traceback, while the rest is still being imported: there is nothing to tidy up.

    An exception could come up in one of the import system's own callbacks, and be told of and forgotten there.
    """
    os._exit(128 + signum)
