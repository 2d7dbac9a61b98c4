"""`status --watch`: looks again and again, and shows each look in place of the one before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from assetbatch.cli import lifecycle
from assetbatch.cli.invocation import current, without_starting
from assetbatch.errors import DatabaseUnavailableError, Interrupted
from assetbatch.words import counted, utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from assetbatch.config import Config
    from assetbatch.report.status import Status


def watch(config: Config, read: Callable[[Config], Status], *, seconds: float) -> None:
    """Show the status anew every so many seconds, until a signal ends it; raise Exit with the signal's code then.

    Each look has a connection of its own, so that nothing is held between two. A database that goes away meanwhile is
    told above the last look, and asked again; the first look raises DatabaseUnavailableError.
    """
    from rich.live import Live

    from assetbatch.report import tables
    from assetbatch.report.status_tables import status_view

    stop = lifecycle.stop_on_signals()
    console = tables.console()
    every = f"every {seconds:g} s"
    report = read(config)
    # Once it is known to be there, one that is stopped shall stay so: this does not start it again.
    config = without_starting(config)
    trouble = ""
    try:
        with Live(console=console, auto_refresh=False, screen=not console.is_dumb_terminal) as live:
            while True:
                shown = status_view(report, width=console.width, ascii_only=console.options.ascii_only)
                first = f"{utc(report.now, seconds=True)}, {every}; Ctrl-C ends this"
                live.update(_fitted(console, trouble or first, shown, is_trouble=bool(trouble)), refresh=True)
                stop.pause(seconds)
                try:
                    report, trouble = read(config), ""
                except DatabaseUnavailableError as error:
                    at = utc(datetime.now(UTC), seconds=True)
                    since = utc(report.now, seconds=True)
                    reason = current.mask(error.reason)
                    trouble = f"{at}: {reason}; asked again {every}. Below, the status of {since}"
    except Interrupted as interrupted:
        # It goes on until somebody ends it: that is no trouble to tell of.
        raise typer.Exit(interrupted.exit_code) from None


def _fitted(console: Console, first: str, shown: RenderableType, *, is_trouble: bool) -> RenderableType:
    """Return what fits on the terminal: a line about this look, then the status from its top, and what is cut off."""
    from rich.console import Group
    from rich.segment import Segments
    from rich.text import Text

    heading = Text(first, style="bold red" if is_trouble else "dim")
    height = console.height - len(heading.wrap(console, console.width))
    lines = console.render_lines(shown, pad=False, new_lines=True)
    parts: list[RenderableType] = [heading]
    rest = len(lines) - height
    if rest > 0:
        lines = lines[: max(0, height - 1)]
    parts.append(Segments([segment for line in lines for segment in line]))
    if rest > 0:
        parts.append(Text(f"and {counted(rest + 1, 'more line')}: make the terminal higher", style="dim"))
    return Group(*parts)
