"""A progress bar on stderr, for a person at a terminal and for work that takes longer than a moment."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

PATIENCE_SECONDS = 1.0


class ProgressBar:
    """Shows, from a second after the start on, the log's latest line, how much is done, and for how long."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._done, self._total = 0, 0
        self._bar: Progress | None = None
        self._ended = False
        self._lock = Lock()
        self._timer = Timer(PATIENCE_SECONDS, self._appear)
        self._timer.daemon = True

    @classmethod
    @contextmanager
    def for_terminal(cls, doing: str, *, mask: Callable[[str], str] = str) -> Iterator[Self | None]:
        """Make one where somebody looks, and wipe it away after the block; not where the log tells the story anyhow.

        `mask` blots secrets out of what the log says.
        """
        package = logging.getLogger("assetbatch")
        if not sys.stderr.isatty() or package.getEffectiveLevel() <= logging.INFO:
            yield None
            return
        shown, level = cls(doing), package.level
        listener = _Listener(shown, mask)
        package.addHandler(listener)
        package.setLevel(logging.INFO)
        shown._timer.start()
        try:
            yield shown
        finally:
            package.removeHandler(listener)
            package.setLevel(level)
            shown._vanish()

    def __call__(self, done: int, total: int) -> None:
        """Show that so much is done of what there is."""
        self._done, self._total = done, max(done, total)
        self._update()

    def tell(self, doing: str) -> None:
        """Show what is done now."""
        self._doing = doing
        self._update()

    def _appear(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        with self._lock:
            if self._ended:
                return
            bar = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.add_task("", total=None, count="")
            # From here on, other threads change it.
            self._bar = bar
            self._update()
            bar.start()

    def _update(self) -> None:
        if self._bar is not None:
            count = f"{self._done}/{self._total}" if self._total else ""
            self._bar.update(
                self._bar.task_ids[0],
                description=self._doing,
                completed=self._done,
                total=self._total or None,
                count=count,
            )

    def _vanish(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._bar is not None:
                self._bar.stop()


class _Listener(logging.Handler):
    """Shows on a bar what the log says."""

    def __init__(self, bar: ProgressBar, mask: Callable[[str], str]) -> None:
        super().__init__(logging.INFO)
        self._bar = bar
        self._mask = mask

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.tell(self._mask(record.getMessage()))
