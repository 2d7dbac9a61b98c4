"""Threads, which the system may have none left to give."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from assetbatch.errors import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises NoThreadError where a limit of the system stands against it."""
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(error) from None


def begin(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begin some work in a thread of its own, which keeps no process from ending. Raises NoThreadError.

    `result(seconds)` of what is returned waits no longer than that, whatever the work waits for: then TimeoutError.
    """
    from concurrent.futures import Future

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)

    start(threading.Thread(target=run, name=name, daemon=True))
    return future
