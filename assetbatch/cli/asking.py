"""Questions to a person at a terminal."""

from __future__ import annotations

import sys


def agreed(question: str) -> bool:
    """Ask a question that is answered with yes or no, on stderr; no is what anything else means."""
    # typer.confirm writes a space to stdout, where only the answer belongs.
    sys.stderr.write(f"{question} [y/N]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
