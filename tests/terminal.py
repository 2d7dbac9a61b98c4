"""Commands whose stderr is a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def run_at_terminal(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    columns: int = 100,
    is_whole: bool = False,
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run a command; give its exit code and stdout, and what somebody at the terminal got to see.

    `is_whole`: stdout goes to the terminal, too.
    """
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def look() -> None:
        with suppress(OSError):  # what the last writer's end is to a reader of a pty
            while written := os.read(ours, 65536):
                seen.append(written)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": str(columns)},
            stdin=subprocess.DEVNULL,
            stdout=theirs if is_whole else subprocess.PIPE,
            stderr=theirs,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return done, b"".join(seen).decode()
