"""Commands at a terminal, and what somebody gets to see there."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass
class Terminal:
    """The two ends of a terminal, `theirs` for a command's streams, and all that was `seen` so far."""

    ours: int
    theirs: int
    seen: bytearray = field(default_factory=bytearray)

    @property
    def streams(self) -> dict[str, Any]:
        return dict.fromkeys(("stdin", "stdout", "stderr"), self.theirs)

    def look(self) -> None:
        with suppress(OSError):  # what the last writer's end is to a reader of a pty
            while written := os.read(self.ours, 65536):
                self.seen += written


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal at which somebody looks; all is seen once the block is over."""
    found = Terminal(*pty.openpty())
    reader = threading.Thread(target=found.look, daemon=True)
    reader.start()
    try:
        yield found
    finally:
        os.close(found.theirs)
        reader.join(timeout=10)
        os.close(found.ours)


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
    with terminal() as shown:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": str(columns)},
            stdin=subprocess.DEVNULL,
            stdout=shown.theirs if is_whole else subprocess.PIPE,
            stderr=shown.theirs,
            text=True,
            timeout=60,
            check=False,
        )
    return done, shown.seen.decode()
