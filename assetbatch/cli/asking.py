"""Questions to a person at a terminal."""

from __future__ import annotations

import sys

import typer


def agreed(question: str) -> bool:
    """Ask a question that is answered with yes or no, on stderr; no is what anything else means."""
    # typer.confirm writes a space to stdout, where only the answer belongs.
    sys.stderr.write(f"{question} [y/N]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def require_yes(question: str) -> None:
    """Ask whether something is to be done; anything but yes ends the command. Raises BadParameter where nobody is."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Nobody is there to ask: say --yes")
    if not agreed(question):
        raise typer.Exit
