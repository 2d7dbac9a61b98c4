"""Threads, which the system may have none left to give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.errors import NoThreadError

if TYPE_CHECKING:
    import threading


def start(thread: threading.Thread) -> None:
    """Start a thread. Raises NoThreadError where a limit of the system stands against it."""
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(error) from None
