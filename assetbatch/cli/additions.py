"""What `symbols add` and `symbols import` tell: the cost beforehand, and what became of the assets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import typer

from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.trouble import MOST_NAMED, named, tell, tell_failures
from assetbatch.errors import EXIT_PARTIAL, EXIT_USAGE
from assetbatch.report.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.config import Config
    from assetbatch.database.symbols import Added
    from assetbatch.errors import Fault
    from assetbatch.jobs.symbols import Reference, Selection
    from assetbatch.model import AssetType


def tell_cost(config: Config, markets: Sequence[AssetType]) -> None:
    """Tell somebody at a terminal, before the first call, that each 1,000 tickers of a market cost one."""
    if sys.stderr.isatty():
        limit = config.calls_per_window
        budget = "" if limit is None else f"; the budget is {limit} in {config.window_seconds:g} s"
        words = " and ".join(market.value for market in markets)
        sys.stderr.write(f"asking for the vendor's tickers of {words}: a call for each 1,000{budget}\n")


def refuse(faults: Sequence[Fault], *, reference: Reference | None = None) -> NoReturn:
    """Tell all faults at once, in the order of lines; nothing was stored."""
    from assetbatch.database import symbols
    from assetbatch.report import symbols_view

    in_order = sorted(faults, key=_line_number)
    if current.json:
        calls = reference.result.api_calls_used if reference else None
        print_json(symbols_view.added_document(symbols.Added(), calls=calls, faults=in_order))
    tell("nothing was added:\n  " + "\n  ".join(map(str, in_order)), exit_code=EXIT_USAGE)
    _tell_run(reference)
    raise typer.Exit(EXIT_USAGE)


def _line_number(fault: Fault) -> int:
    number = fault.place.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def tell_added(
    config: Config, added: Added, *, reference: Reference | None = None, chosen: Selection | None = None
) -> None:
    """Report what was stored, and what was not and why; raise Exit where the platform's table refused an asset."""
    if current.json:
        from assetbatch.report import symbols_view

        calls, skipped = reference.result.api_calls_used if reference else None, chosen.skipped if chosen else ()
        print_json(symbols_view.added_document(added, calls=calls, skipped=skipped))
    else:
        lines = [summary("added", added.added)]
        lines += [summary("already there, left as they are", added.already_there)] if added.already_there else []
        sys.stdout.write("\n".join(lines) + "\n")
    if chosen and chosen.skipped:
        tell("left out: " + "; ".join(f"{ticker}: {why}" for ticker, why in chosen.skipped[:MOST_NAMED]))
    _tell_run(reference)
    if added.added and config.settings.batch.secondary_source == "config":
        tell("they are not put on the queue while batch.secondary_source is config: set it to database in config.yaml")
    if added.refused:
        causes: dict[str, list[str]] = {}
        for symbol, reason in added.refused:
            causes.setdefault(reason, []).append(symbol)
        words = "; ".join(f"{named(refused)}: {reason}" for reason, refused in causes.items())
        tell(f"trading.symbols refused {counted(len(added.refused), 'asset')}: {words}", exit_code=EXIT_PARTIAL)
        raise typer.Exit(EXIT_PARTIAL)


def _tell_run(reference: Reference | None) -> None:
    if reference is not None:
        tell_failures(reference.result)


def summary(what: str, symbols: Sequence[str]) -> str:
    """Write what became of so many symbols, the first of them named: `2 added: ADAUSD, SOLUSD`."""
    return f"{len(symbols)} {what}: {named(symbols)}" if symbols else f"nothing {what}"
