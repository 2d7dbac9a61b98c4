"""`backfill`."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import current
from assetbatch.cli.options import SymbolsOption, no_nan, span
from assetbatch.cli.trouble import named, tell
from assetbatch.errors import EXIT_USAGE
from assetbatch.words import counted, utc

if TYPE_CHECKING:
    from assetbatch.jobs.backfill import Foreseen, Progress
    from assetbatch.jobs.run import Start
    from assetbatch.model import RunResult
    from assetbatch.report.progress import ProgressBar


def backfill(
    symbol: SymbolsOption = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="A day or time (UTC); else bars.backfill_days ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="A day or time (UTC); else now.")] = None,
    refetch: Annotated[
        bool, typer.Option("--refetch", help="Ask again for what is there, and print each bar that changes.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            max=7 * 86_400,
            callback=no_nan,
            metavar="SECONDS",
            help="How long to wait for another backfill that is going on.",
        ),
    ] = 60.0,
) -> None:
    """Fetch bars of the past, telling beforehand how many calls that takes, and how long.

    What is there is not asked for again: broken off, it goes on where it was. Jobs go on beside it. One backfill at a
    time: another one is waited for, and when it is still going then, and nothing was fetched, this one exits with 75.

    Example: assetbatch backfill --symbol BTCUSD --since 2025-01-01
    """
    config = current.load_config()
    begin, end = span(since, until)

    from assetbatch.cli import job
    from assetbatch.jobs import backfill as jobs

    config.require_api_key()
    with current.connected(config) as connection:
        foreseen = jobs.foresee(config, connection, symbols=symbol, since=begin, until=end, refetch=refetch)
    if missing := sorted({*(symbol or [])} - foreseen.assets.keys()):
        tell(f"not in the catalogue: {named(missing)}", exit_code=EXIT_USAGE)
        raise typer.Exit(EXIT_USAGE)
    if not (current.json or current.quiet):
        types = {foreseen.assets[symbol].asset_type for symbol in foreseen.spans}
        sys.stderr.write(_foretold(foreseen, config.calls_per_window(types)) + "\n")

    def work(start: Start, shown: ProgressBar | None) -> RunResult:
        return jobs.backfill(
            start,
            foreseen,
            refetch=refetch,
            wait_seconds=wait,
            progress=lambda done: None if shown is None else _show(shown, done),
        )

    job.run(config, work, max_seconds=wait + jobs.longest_seconds(foreseen))


def _show(shown: ProgressBar, done: Progress) -> None:
    left = counted(done.calls_left, "call")
    shown(done.calls, done.calls + done.calls_left)
    shown.add(f"{done.symbol}: {done.bars:,} bars stored, {left} left", seconds_left=done.seconds_left)


def _foretold(foreseen: Foreseen, limit: int | None) -> str:
    if not foreseen.calls and foreseen.silences:
        bars, again = sum(one.bars for one in foreseen.silences), max(one.ask_at for one in foreseen.silences)
        words = f"no call to make now: {counted(bars, 'bar')} that the vendor did not have may be asked for again"
        return f"{words} from {utc(again)} on"
    if not foreseen.calls and foreseen.unknown:
        return f"no call to make: the vendor does not know {named([one.symbol for one in foreseen.unknown])}"
    if not foreseen.calls:
        return "nothing is missing there: no call to make"
    calls = f"{counted(foreseen.calls, 'call')} for the bars of {named(list(foreseen.spans))}"
    if limit is None:
        return calls
    minutes = max(1, math.ceil(foreseen.seconds / 60))
    return f"{calls}: about {counted(minutes, 'minute')} under the limit"
