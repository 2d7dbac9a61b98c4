"""A progress bar on stderr, for a person at a terminal and for work that takes longer than a moment."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Lock, Timer
from typing import TYPE_CHECKING, Self

from assetbatch import threads
from assetbatch.errors import NoThreadError
from assetbatch.words import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

PATIENCE_SECONDS = 1.0


class ProgressBar:
    """Shows, from a second after the start on, the log's latest line, how much is done, and for how long.

    Below that, in a line of its own, what else there is to say of it, and how much time is left.
    """

    def __init__(self, doing: str) -> None:
        self._name = doing
        self._words: Callable[[], str] = lambda: doing
        self._done, self._total = 0, 0
        self._more, self._ends_at = "", 0.0
        self._standing = ""
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
        clearing = _Clearing(shown)
        handlers = [*package.handlers]
        for handler in handlers:
            handler.addFilter(clearing)
        package.addHandler(listener)
        package.setLevel(logging.INFO)
        # Where no thread is left, it never appears.
        with suppress(NoThreadError):
            threads.start(shown._timer)
        try:
            yield shown
        finally:
            package.removeHandler(listener)
            for handler in handlers:
                handler.removeFilter(clearing)
            package.setLevel(level)
            shown._vanish()

    def __call__(self, done: int, total: int) -> None:
        """Show that so much is done of what there is."""
        self._done, self._total = done, max(done, total)
        self._update()

    def tell(self, words: Callable[[], str]) -> None:
        """Show what is done now, in words that may change as time goes by; none: the bar's own name."""
        self._words = words

    def add(self, words: str, *, seconds_left: float) -> None:
        """Show more of it in the second line, and for how long it is going on at the least."""
        self._more, self._ends_at = words, time.monotonic() + seconds_left

    def stand(self, words: str) -> None:
        """Show these alone, in one line: how work stands that has no end to be measured by."""
        self._standing = words

    def clear_line(self) -> None:
        """Wipe the line that it is in, where it is shown: it comes again below what is written there."""
        # Past sys.stderr: the bar has put itself there.
        if self._bar is not None and sys.__stderr__ is not None:
            sys.__stderr__.write("\r\x1b[2K")

    def _standing_words(self) -> str:
        return self._standing

    def _first_words(self) -> str:
        return self._words() or self._name

    def _more_words(self) -> str:
        left = self._ends_at - time.monotonic()
        # Others may use the budget, too.
        return f"{self._more}, {duration(timedelta(seconds=left))} or more" if left >= 1 else self._more

    def _appear(self) -> None:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column
        from rich.text import Text

        first, more, standing = self._first_words, self._more_words, self._standing_words

        class TwoLines(Progress):
            def get_renderables(self) -> Iterator[RenderableType]:
                if words := standing():
                    yield Text(words, no_wrap=True, overflow="ellipsis")
                    return
                for task in self.tasks:
                    task.description = first()
                yield from super().get_renderables()
                if second := more():
                    yield Text(second, no_wrap=True, overflow="ellipsis")

        with self._lock:
            if self._ended:
                return
            bar = TwoLines(
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
            try:
                bar.start()
            except RuntimeError:  # no thread is left for it
                bar.stop()
                self._bar = None

    def _update(self) -> None:
        if self._bar is not None:
            count = f"{self._done}/{self._total}" if self._total else ""
            self._bar.update(
                self._bar.task_ids[0],
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


class _Clearing(logging.Filter):
    """Lets what the log prints begin on a line of its own, and not behind the bar."""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._bar = bar

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass everything."""
        del record
        self._bar.clear_line()
        return True


class _Listener(logging.Handler):
    """Shows on a bar what the log says; of a wait (`counts_down`) whose seconds come last, how much of it is left."""

    def __init__(self, bar: ProgressBar, mask: Callable[[str], str]) -> None:
        super().__init__(logging.INFO)
        self._bar = bar
        self._mask = mask

    def emit(self, record: logging.LogRecord) -> None:
        words = self._mask(record.getMessage())
        if not (getattr(record, "counts_down", False) and isinstance(record.args, tuple)):
            self._bar.tell(lambda: words)
            return
        message, (*others, seconds) = record.msg, record.args
        assert isinstance(seconds, float)  # noqa: S101 - that is what `counts_down` says
        end = time.monotonic() + seconds

        def left() -> str:
            seconds_left = end - time.monotonic()
            return self._mask(message % (*others, seconds_left)) if seconds_left > 0 else ""

        self._bar.tell(left)
