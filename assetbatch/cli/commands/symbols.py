"""`symbols add`, `import`, `list`, `remove`: the catalogue beside config.yaml."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

from assetbatch.cli import lifecycle
from assetbatch.cli.asking import agreed
from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host, print_json
from assetbatch.cli.options import AsJson
from assetbatch.cli.trouble import MOST_NAMED, named, tell, tell_failures
from assetbatch.errors import EXIT_PARTIAL, EXIT_USAGE
from assetbatch.model import AssetType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.symbols import Added
    from assetbatch.errors import Fault
    from assetbatch.jobs.clock import Stop
    from assetbatch.jobs.symbols import Reference, Selection
    from assetbatch.model import Asset

TABLE_LIMIT = 50
STDIN = Path("-")

symbols_app = typer.Typer(no_args_is_help=True)


class PriorityWord(StrEnum):
    """How soon an asset of the queue gets its turn."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class Market(StrEnum):
    """What the vendor's reference list calls the markets."""

    FX = "fx"
    CRYPTO = "crypto"


ASSET_TYPES = {Market.FX: AssetType.FOREX, Market.CRYPTO: AssetType.CRYPTO}

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
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@symbols_app.callback()
def name_command(context: typer.Context) -> None:
    """Add assets to the catalogue, list them, remove them; those of config.yaml are changed there."""
    current.command = f"symbols {context.invoked_subcommand}"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    symbols_app.command("add")(add)
    symbols_app.command("import")(import_)
    symbols_app.command("list")(list_assets)
    symbols_app.command("remove")(remove)
    app.add_typer(symbols_app, name="symbols")


def add(
    symbol: Annotated[str, typer.Argument(help="Its name in trading.symbols.")],
    ticker: Annotated[str, typer.Argument(help="The vendor's name: C:… for forex and metals, X:… for crypto.")],
    priority: PriorityOption = PriorityWord.MEDIUM,
    frequency: FrequencyOption = None,
    name: Annotated[str, typer.Option(help="For people; else the vendor's.")] = "",
    check: CheckOption = True,
    as_json: AsJson = False,
) -> None:
    """Add one asset to the catalogue; one that is there already stays as it is.

    Example: assetbatch symbols add SOLUSD X:SOLUSD --priority HIGH
    """
    current.json = as_json
    config = current.load_config()

    from assetbatch.jobs import symbols as job
    from assetbatch.jobs.wishes import Wish, read_wish

    wish = read_wish(
        "",
        {"symbol": symbol, "polygon_ticker": ticker, "name": name},
        priority=priority.value,
        frequency_seconds=frequency or job.default_frequency_seconds(config),
    )
    if not isinstance(wish, Wish):
        _refuse(wish)
    asset, reference = wish.asset, None
    with _at_work(config) as (connection, stop):
        faults = job.faults_of(config, connection, [wish])
        if not faults and check and config.api_key:
            reference = job.read_reference(config, connection, host=host(), stop=stop, asset=asset)
            faults = job.unheard_of([wish], reference.names)
            (asset,) = job.named([asset], reference.names)
        if faults:
            _refuse(faults)
        added = _store(connection, [asset])
    if check and not config.api_key:
        tell("no API key is given, so the ticker was not held against the vendor's reference list")
    _tell_added(config, added, reference=reference)


def import_(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="CSV: symbol,polygon_ticker[,priority,update_frequency_seconds]; - is stdin.",
            exists=True,
            dir_okay=False,
            readable=True,
            allow_dash=True,
        ),
    ] = None,
    market: Annotated[Market | None, typer.Option(help="In place of a file: the vendor's tickers of a market,")] = None,
    match: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="those whose name without C: or X: matches, as '*USD'.")
    ] = None,
    priority: PriorityOption = PriorityWord.MEDIUM,
    frequency: FrequencyOption = None,
    check: CheckOption = True,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Add many assets: those of a CSV, all or none of them, or all tickers of a market that match.

    Example: assetbatch symbols import --market crypto --match '*USD' --yes
    """
    current.json = as_json
    if (file is None) == (market is None) or (market is None) != (match is None):
        raise typer.BadParameter("name a file, or give --market and --match")
    if market and not check:
        raise typer.BadParameter("--market asks the vendor: --no-check is for files")
    if market and not yes and not sys.stdin.isatty():
        raise typer.BadParameter("Nobody is there to ask whether so many are wanted: say --yes")
    config = current.load_config()

    from assetbatch.jobs import symbols as job

    if check:
        config.require_api_key()
    seconds = frequency or job.default_frequency_seconds(config)
    if file is not None:
        _import_file(config, file, priority.value, seconds, check=check)
    elif market is not None and match is not None:
        _import_matching(config, ASSET_TYPES[market], match, priority.value, seconds, yes=yes)


def _import_file(config: Config, file: Path, priority: str, seconds: int, *, check: bool) -> None:
    from assetbatch.jobs import symbols as job
    from assetbatch.jobs.wishes import read_csv

    with _lines(file) as lines:
        found = read_csv(
            lines, name="stdin" if file == STDIN else file.name, priority=priority, frequency_seconds=seconds
        )
    wishes, faults, reference = found.wishes, found.faults, None
    assets = [wish.asset for wish in wishes]
    with _at_work(config) as (connection, stop):
        faults += job.faults_of(config, connection, wishes)
        if check and wishes:
            markets = sorted({asset.asset_type for asset in assets})
            _tell_cost(config, markets)
            reference = job.read_reference(config, connection, host=host(), stop=stop, markets=markets)
            faults += job.unheard_of(wishes, reference.names)
            assets = job.named(assets, reference.names)
        if faults:
            _refuse(faults, reference=reference)
        added = _store(connection, assets)
    _tell_added(config, added, reference=reference)


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
            if not agreed(f"Add {len(chosen.assets)} assets ({what})?"):
                raise typer.Exit
        # Nobody knows how long the answer took.
        with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection:
            added = _store(connection, chosen.assets)
    added.already_there = sorted({*added.already_there, *chosen.already_there})
    _tell_added(config, added, reference=reference, chosen=chosen)


def list_assets(
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; a table shows 50 without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the catalogue: priority assets in their order, then the others by name.

    Example: assetbatch symbols list --limit 200
    """
    current.json = as_json
    config = current.load_config()

    from assetbatch.database import schema, symbols
    from assetbatch.report import symbols_view

    with current.connected(config) as connection:
        schema.check(connection)
        found = symbols.listing(connection, limit=limit if limit or as_json else TABLE_LIMIT)
    if as_json:
        print_json(symbols_view.document(found))
    else:
        from assetbatch.report import tables

        console = tables.console()
        console.print(symbols_view.view(found, width=console.width))


def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="SYMBOLS...", help="Symbols, as in the first column of `symbols list`.")
    ],
    with_bars: Annotated[bool, typer.Option("--with-bars", help="Their bars, too; asks first.")] = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Remove assets from the catalogue, with their queue items and status lines; bars and prices stay.

    Example: assetbatch symbols remove SOLUSD --with-bars --yes
    """
    current.json = as_json
    config = current.load_config()

    from assetbatch.database import schema, symbols

    with current.connected(config) as connection:
        schema.check(connection)
        own = [symbol for symbol, origin in symbols.origins(connection, names).items() if origin == "symbols"]
    if with_bars and own and not yes:
        question = f"Remove {len(own)} assets and all their bars ({named(sorted(own))})?"
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"{question} Nobody is there to ask: say --yes")
        if not agreed(question):
            raise typer.Exit
    with current.connected(config) as connection:
        done = symbols.remove(connection, names, with_bars=with_bars)
    if as_json:
        print_json(
            {
                "removed": done.removed,
                "missing": done.missing,
                "configured": done.configured,
                "bars_removed": done.bars,
            }
        )
    else:
        bars = f", with {done.bars} bars" if with_bars else ""
        sys.stdout.write(_line("removed", done.removed) + bars + "\n")
    if done.configured:
        tell(f"{named(done.configured)}: from config.yaml: remove it there", exit_code=EXIT_USAGE)
    if done.missing:
        tell(f"not in the catalogue: {named(done.missing)}", exit_code=EXIT_USAGE)
    if done.configured or done.missing:
        raise typer.Exit(EXIT_USAGE)


@contextmanager
def _at_work(config: Config) -> Iterator[tuple[Connection, Stop]]:
    """Open the database for work that may make calls: it ends by a signal and in bounded time."""
    from assetbatch.database import schema
    from assetbatch.jobs import symbols as job
    from assetbatch.report.progress import ProgressBar

    stop = lifecycle.stop_on_signals()
    provider = config.settings.provider
    lifecycle.end_by(job.MAX_SECONDS + provider.connect_timeout_seconds + provider.timeout_seconds)
    with (
        ProgressBar.for_terminal(current.command),
        current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection,
    ):
        schema.check(connection)
        yield connection, stop
    lifecycle.interrupt_on_signals()


@contextmanager
def _lines(file: Path) -> Iterator[Iterable[str]]:
    if file == STDIN:
        yield io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
    else:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            yield opened


def _store(connection: Connection, assets: Sequence[Asset]) -> Added:
    from assetbatch.database import symbols

    return symbols.add(connection, assets)


def _tell_cost(config: Config, markets: Sequence[AssetType]) -> None:
    if sys.stderr.isatty():
        limit = config.calls_per_window
        budget = "" if limit is None else f"; the budget is {limit} in {config.window_seconds:g} s"
        words = " and ".join(market.value for market in markets)
        sys.stderr.write(f"asking for the vendor's tickers of {words}: a call for each 1,000{budget}\n")


def _refuse(faults: Sequence[Fault], *, reference: Reference | None = None) -> NoReturn:
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


def _tell_added(
    config: Config, added: Added, *, reference: Reference | None = None, chosen: Selection | None = None
) -> None:
    if current.json:
        from assetbatch.report import symbols_view

        calls, skipped = reference.result.api_calls_used if reference else None, chosen.skipped if chosen else ()
        print_json(symbols_view.added_document(added, calls=calls, skipped=skipped))
    else:
        lines = [_line("added", added.added)]
        lines += [_line("already there, left as they are", added.already_there)] if added.already_there else []
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
        tell(f"trading.symbols refused {len(added.refused)} assets: {words}", exit_code=EXIT_PARTIAL)
        raise typer.Exit(EXIT_PARTIAL)


def _tell_run(reference: Reference | None) -> None:
    if reference is not None:
        tell_failures(reference.result)


def _line(what: str, symbols: Sequence[str]) -> str:
    return f"{len(symbols)} {what}: {named(symbols)}" if symbols else f"nothing {what}"
