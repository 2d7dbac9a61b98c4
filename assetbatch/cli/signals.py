"""Which signals end a command, and who answers them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


def answer(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let a handler answer the signals that end a command."""
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        # Started by nohup, it is to outlive its terminal.
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, handler)
