"""`events tail`."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from assetbatch.cli.invocation import current, without_starting
from assetbatch.cli.options import SymbolsOption, duration, no_nan
from assetbatch.errors import AnswerLostError, DatabaseUnavailableError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.outbox import Stored
    from assetbatch.events.tail import Tail
    from assetbatch.jobs.clock import Stop

POLL_SECONDS = 0.5
# A database that is gone while events are followed may be restarting.
AWAY_SECONDS = 30.0
MOST_SHOWN = 200

events_app = typer.Typer(help="Look at the events that announce what was stored.", no_args_is_help=True)


@events_app.command("tail")
def tail(
    symbol: SymbolsOption = None,
    since: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="TIME", help="Begin with the events of the last 90s, 10m, 24h."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on with what comes, or end with what is there.")
    ] = True,
    max_seconds: Annotated[
        float | None, typer.Option(min=0, callback=no_nan, help="End after so many seconds.")
    ] = None,
) -> None:
    """Show events as they come: a table at a terminal, else a line for each, with --json in JSON. Needs no Redis.

    Without --since it begins now, with --no-follow at the oldest that is kept. A line is: when the price was stored,
    symbol, price, bid, ask, the vendor's time of it, seq, when it was published. What does not fit a terminal is left
    out.

    Example: assetbatch events tail --symbol EURUSD --since 10m
    """
    config = current.load_config()

    from assetbatch.cli import lifecycle
    from assetbatch.events.tail import Tail

    stop = lifecycle.stop_on_signals()
    beginning = 0.0 if follow else None
    following = Tail(since_seconds=beginning if since is None else since.total_seconds(), symbols=symbol or ())
    end = time.monotonic() + max_seconds if max_seconds is not None else float("inf")

    def at_end() -> bool:
        return time.monotonic() >= end or not (follow or following.behind)

    try:
        with ExitStack() as stack:
            shown = _Table(stack) if not current.json and _is_live(follow) else _Lines(current.json)
            _follow(config, following, shown, stop, at_end)
    except Interrupted as interrupted:
        # It goes on until somebody ends it: that is no trouble to tell of.
        raise typer.Exit(interrupted.exit_code) from None


def _follow(config: Config, following: Tail, shown: _Table | _Lines, stop: Stop, at_end: Callable[[], bool]) -> None:
    """Read and show until it is time to end; a database that goes away is waited for.

    Raises DatabaseUnavailableError when it stays away, AnswerLostError when nobody reads any more.
    """
    patience_seconds = 0.0
    while True:
        was_there = False
        try:
            with current.installed(config, patience_seconds=patience_seconds) as connection:
                # Once it is known to be there, one that is stopped shall stay so: this does not start it again.
                config, patience_seconds, was_there = without_starting(config), AWAY_SECONDS, True
                while True:
                    now, events = following.read(connection)
                    shown.show(connection, events, now)
                    if at_end():
                        return
                    stop.pause(0 if following.behind else POLL_SECONDS)
        except DatabaseUnavailableError:
            if not was_there or at_end():
                raise
        stop.pause(POLL_SECONDS)


def _is_live(follow: bool) -> bool:
    """Return whether what is shown may be shown anew."""
    if not follow or not sys.stdout.isatty():
        return False
    from assetbatch.report import tables

    return not tables.console().is_dumb_terminal


class _Lines:
    """Each event on a line of its own, as it was when it was first seen."""

    def __init__(self, as_json: bool) -> None:
        from assetbatch.report import events_view, tables

        self._line = events_view.json_line
        if not as_json:
            width = tables.console().width if sys.stdout.isatty() else None
            self._line = partial(events_view.text_line, width=width)
        self._poll = select.poll()
        self._is_pipe = False
        with suppress(OSError):  # stdout may be no file
            self._is_pipe = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
            self._poll.register(sys.stdout.fileno(), 0)

    def show(self, _connection: Connection, events: Sequence[Stored], _now: datetime) -> None:
        sys.stdout.writelines(self._line(event) + "\n" for event in events)
        sys.stdout.flush()
        # Without events nothing is written, and a reader that has gone would not be noticed.
        if self._is_pipe and any(flags & select.POLLERR for _, flags in self._poll.poll(0)):
            raise AnswerLostError(BrokenPipeError())


class _Table:
    """A table of the newest events, the newest at the bottom, that says of each what became of it since."""

    def __init__(self, stack: ExitStack) -> None:
        from rich.live import Live

        from assetbatch.report import tables

        self._console = tables.console()
        self._live = stack.enter_context(Live(console=self._console, auto_refresh=False))
        self._events: deque[Stored] = deque(maxlen=MOST_SHOWN)

    def show(self, connection: Connection, events: Sequence[Stored], now: datetime) -> None:
        from assetbatch.database import outbox
        from assetbatch.report import events_view

        self._events.extend(events)
        waiting = [event.id for event in self._events if event.published_at is None]
        fates = outbox.read_fates(connection, waiting)
        for number, event in enumerate(self._events):
            if event.id in fates:
                published_at, dropped = fates[event.id]
                self._events[number] = replace(event, published_at=published_at, dropped=dropped)
        width, height = self._console.size
        self._live.update(events_view.table(list(self._events), now, width=width, height=height), refresh=True)
