"""The command line: parsing of options and printing; no decisions."""

from __future__ import annotations

import atexit
import gc

COLLECT_AFTER_ALLOCATIONS = 50_000


def main() -> None:
    """Run the command line.

    Imports make many objects and no garbage, and what is there at the end goes with the process: looking for garbage
    then takes a fifth of a short command's time.
    """
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS)
    atexit.register(gc.freeze)

    from assetbatch.cli.main import main as run

    run()
