"""A progress bar on stderr, for a person at a terminal and for work that takes longer than a moment."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

PATIENCE_SECONDS = 1.0


class ProgressBar:
    """Shows how much is done, from a second after the start on."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._began = time.monotonic()
        self._bar: Progress | None = None

    @classmethod
    @contextmanager
    def for_terminal(cls, of: str) -> Iterator[Self | None]:
        """Make one where somebody looks, and wipe it away after the block; it counts `of`."""
        if not sys.stderr.isatty():
            yield None
            return
        shown = cls(of)
        try:
            yield shown
        finally:
            if shown._bar is not None:
                shown._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that so much is done of what there is."""
        if self._bar is None:
            if time.monotonic() - self._began < PATIENCE_SECONDS:
                return
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

            columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._of)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=max(done, total))
