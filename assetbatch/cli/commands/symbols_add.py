"""`symbols add` and `symbols import`: assets of the command line, of a CSV, or of the vendor's reference list."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

from assetbatch.cli import lifecycle
from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host, print_json
from assetbatch.cli.options import YesOption, agreed
from assetbatch.cli.trouble import MOST_NAMED, named, tell, tell_failures
from assetbatch.errors import EXIT_PARTIAL, EXIT_USAGE
from assetbatch.markets import TICKERS_DESCRIBED, TRAITS
from assetbatch.model import AssetType
from assetbatch.words import counted, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.symbols import Added
    from assetbatch.errors import Fault
    from assetbatch.jobs.clock import Stop
    from assetbatch.jobs.symbols import Reference, Selection

STDIN = Path("-")
# By what the vendor's reference list calls them.
MARKETS = {traits.reference_name: asset_type for asset_type, traits in TRAITS.items()}
PREFIXES = " or ".join(filter(None, (traits.prefix for traits in TRAITS.values())))


class PriorityWord(StrEnum):
    """How soon an asset of the queue gets its turn."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


def _market(word: str) -> AssetType:
    if word not in MARKETS:
        raise typer.BadParameter(f"'{word}' is not one of {', '.join(map(repr, MARKETS))}.")
    return MARKETS[word]


PriorityOption: TypeAlias = Annotated[
    PriorityWord, typer.Option("--priority", case_sensitive=False, help="Its place in the queue.")
]
FrequencyOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--update-frequency-seconds", min=1, max=86_400, help="How often; else batch.enqueue_interval_minutes."
    ),
]
CheckOption: TypeAlias = Annotated[
    bool, typer.Option("--check/--no-check", help="Ask the vendor's reference list; costs calls, waits for its turn.")
]


def add(
    symbol: Annotated[str, typer.Argument(help="Its name in trading.symbols.")],
    ticker: Annotated[str, typer.Argument(help=f"The vendor's name: {TICKERS_DESCRIBED}.")],
    priority: PriorityOption = PriorityWord.MEDIUM,
    frequency: FrequencyOption = None,
    name: Annotated[str, typer.Option(help="For people; else the vendor's.")] = "",
    check: CheckOption = True,
) -> None:
    """Add one asset to the catalogue; one that is there already stays as it is.

    Example: assetbatch symbols add SOLUSD X:SOLUSD --priority HIGH
    """
    config = current.load_config()

    from assetbatch.config.assets import Row, read_row
    from assetbatch.database import symbols
    from assetbatch.jobs import symbols as job

    row = read_row(
        "",
        {"symbol": symbol, "polygon_ticker": ticker, "name": name},
        priority=priority.value,
        frequency_seconds=frequency or config.secondary_frequency_seconds,
    )
    if not isinstance(row, Row):
        _refuse(row)
    asset, reference = row.asset, None
    with _at_work(config) as (connection, stop):
        faults = job.faults_of(config, connection, [row])
        if not faults and check and config.api_key:
            reference = job.read_reference(config, connection, host=host(), stop=stop, asset=asset)
            faults = job.unheard_of([row], reference.names)
            (asset,) = job.named([asset], reference.names)
        added = None if faults else symbols.add(connection, [asset])
    if added is None:
        _refuse(faults)
    if check and not config.api_key:
        tell("no API key is given, so the ticker was not held against the vendor's reference list")
    _tell_added(config, added, reference=reference)


def import_(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="CSV: symbol,polygon_ticker[,priority,update_frequency_seconds,name], or ticker in place of the first"
            " two; - is stdin.",
            exists=True,
            dir_okay=False,
            readable=True,
            allow_dash=True,
        ),
    ] = None,
    market: Annotated[
        AssetType | None,
        typer.Option(
            parser=_market,
            metavar=f"<{'|'.join(MARKETS)}>",
            autocompletion=lambda: list(MARKETS),
            help="In place of a file: the vendor's tickers of a market,",
        ),
    ] = None,
    match: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help=f"those whose name without {PREFIXES} matches, case and all, as '*USD'."),
    ] = None,
    priority: PriorityOption = PriorityWord.MEDIUM,
    frequency: FrequencyOption = None,
    check: CheckOption = True,
    yes: YesOption = False,
) -> None:
    """Add many assets: those of a CSV, all or none of them, or all tickers of a market that match.

    A CSV may be as spreadsheets write it: commas, semicolons or tabs; UTF-8 or Excel's Unicode text. A line that is
    there twice counts once. --market costs a call for each 1,000 tickers of the market, shows how many match, and asks.

    Example: assetbatch symbols import --market crypto --match '*USD' --yes
    """
    if (file is None) == (market is None) or (market is None) != (match is None):
        raise typer.BadParameter("name a file, or give --market and --match")
    if market and not check:
        raise typer.BadParameter("--market asks the vendor: --no-check is for files")
    if market and not yes and not sys.stdin.isatty():
        raise typer.BadParameter("Nobody is there to ask whether so many are wanted: say --yes")
    config = current.load_config()

    if check:
        config.require_api_key()
    seconds = frequency or config.secondary_frequency_seconds
    if file is not None:
        _import_file(config, file, priority.value, seconds, check=check)
    elif market is not None and match is not None:
        _import_matching(config, market, match, priority.value, seconds, yes=yes)


def _import_file(config: Config, file: Path, priority: str, seconds: int, *, check: bool) -> None:
    from assetbatch.config.assets import read_csv
    from assetbatch.database import symbols
    from assetbatch.jobs import symbols as job

    if file == STDIN:
        name, data = "stdin", sys.stdin.buffer.read()
    else:
        name, data = file.name, file.read_bytes()
    found = read_csv(data, name=name, priority=priority, frequency_seconds=seconds)
    rows, faults, reference = found.rows, found.faults, None
    assets = [row.asset for row in rows]
    with _at_work(config) as (connection, stop):
        faults += job.faults_of(config, connection, rows)
        if check and rows:
            markets = sorted({asset.asset_type for asset in assets})
            _tell_cost(config, markets)
            reference = job.read_reference(config, connection, host=host(), stop=stop, markets=markets)
            faults += job.unheard_of(rows, reference.names)
            assets = job.named(assets, reference.names)
        added = None if faults else symbols.add(connection, assets)
    if added is None:
        _refuse(faults, reference=reference)
    _tell_added(config, added, reference=reference)
    if found.repeated:
        tell(f"say the same as a line before them, and count once: {named(found.repeated)}")


def _import_matching(
    config: Config, market: AssetType, pattern: str, priority: str, seconds: int, *, yes: bool
) -> None:
    from assetbatch.database import symbols
    from assetbatch.jobs import symbols as job

    with _at_work(config) as (connection, stop):
        _tell_cost(config, [market])
        reference = job.read_reference(config, connection, host=host(), stop=stop, markets=[market])
        chosen = job.select(config, connection, reference.names, pattern, priority=priority, frequency_seconds=seconds)
    added = symbols.Added()
    if chosen.assets:
        if not yes:
            what = named([asset.symbol for asset in chosen.assets])
            if not agreed(f"Add {counted(len(chosen.assets), 'asset')} ({what})?"):
                raise typer.Exit
        with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection:
            added = symbols.add(connection, chosen.assets)
    added.already_there = sorted({*added.already_there, *chosen.already_there})
    _tell_added(config, added, reference=reference, chosen=chosen)


@contextmanager
def _at_work(config: Config) -> Iterator[tuple[Connection, Stop]]:
    """Open the database for work that may make calls: it ends by a signal and in bounded time."""
    from assetbatch.jobs import symbols as job
    from assetbatch.report.progress import ProgressBar

    stop = lifecycle.stop_on_signals()
    provider = config.settings.provider
    call_off_end = lifecycle.end_by(job.MAX_SECONDS + provider.connect_timeout_seconds + provider.timeout_seconds)
    with (
        ProgressBar.for_terminal(current.command, mask=current.mask),
        current.installed(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection,
    ):
        yield connection, stop
    # What comes now may be a question, and nobody knows how long the answer takes.
    call_off_end()
    lifecycle.interrupt_on_signals()


def _tell_cost(config: Config, markets: Sequence[AssetType]) -> None:
    """Tell somebody at a terminal, before the first call, that each 1,000 tickers of a market cost one."""
    if sys.stderr.isatty():
        limit = config.calls_per_window(markets)
        budget = "" if limit is None else f"; the budget is {limit} in {config.window_seconds:g} s"
        words = joined([market.value for market in markets])
        sys.stderr.write(f"asking for the vendor's tickers of {words}: a call for each 1,000{budget}\n")


def _refuse(faults: Sequence[Fault], *, reference: Reference | None = None) -> NoReturn:
    """Tell all faults at once, in the order of lines; nothing was stored."""
    from assetbatch.database import symbols
    from assetbatch.report.documents import added_document

    in_order = sorted(faults, key=_line_number)
    if current.json:
        calls = reference.result.api_calls_used if reference else None
        print_json(added_document(symbols.Added(), calls=calls, faults=in_order))
    tell("nothing was added:\n  " + "\n  ".join(map(str, in_order)), exit_code=EXIT_USAGE)
    if reference is not None:
        tell_failures(reference.result)
    raise typer.Exit(EXIT_USAGE)


def _line_number(fault: Fault) -> int:
    number = fault.place.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _tell_added(
    config: Config, added: Added, *, reference: Reference | None = None, chosen: Selection | None = None
) -> None:
    """Report what was stored, and what was not and why; raise Exit where the platform's table refused an asset."""
    if current.json:
        from assetbatch.report.documents import added_document

        calls, skipped = reference.result.api_calls_used if reference else None, chosen.skipped if chosen else ()
        print_json(added_document(added, calls=calls, skipped=skipped))
    else:
        lines = [summary("added", added.added)]
        lines += [summary("already there, left as they are", added.already_there)] if added.already_there else []
        sys.stdout.write("\n".join(lines) + "\n")
    if chosen and chosen.skipped:
        tell("left out: " + "; ".join(f"{ticker}: {why}" for ticker, why in chosen.skipped[:MOST_NAMED]))
    if reference is not None:
        tell_failures(reference.result)
    if added.added and config.settings.batch.secondary_source == "config":
        tell("they are not put on the queue while batch.secondary_source is config: set it to database in config.yaml")
    if added.refused:
        causes: dict[str, list[str]] = {}
        for symbol, reason in added.refused:
            causes.setdefault(reason, []).append(symbol)
        words = "; ".join(f"{named(refused)}: {reason}" for reason, refused in causes.items())
        tell(f"trading.symbols refused {counted(len(added.refused), 'asset')}: {words}", exit_code=EXIT_PARTIAL)
        raise typer.Exit(EXIT_PARTIAL)


def summary(what: str, symbols: Sequence[str]) -> str:
    """Write what became of so many symbols, the first of them named: `2 added: ADAUSD, SOLUSD`."""
    return f"{len(symbols):,} {what}: {named(symbols)}" if symbols else f"nothing {what}"
