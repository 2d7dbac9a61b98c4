"""What `symbols add` and `symbols import` bring: held against the catalogue and the vendor's reference list.

All that is wrong is found before anything is stored. Reading the reference list is a run with calls, as any other;
storing needs none.
"""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch.config.assets import Row, read_row
from assetbatch.config.given import printable
from assetbatch.database import catalogue, symbols
from assetbatch.database.rate_limit import Lane
from assetbatch.errors import Fault
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.run import Start, perform
from assetbatch.markets import is_for_tests, with_prefix, without_prefix
from assetbatch.model import Asset, AssetType, Call, CallKind
from assetbatch.provider import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.jobs.clock import Stop
    from assetbatch.jobs.run import Run
    from assetbatch.model import RunResult
    from assetbatch.provider.results import TickerPage

JOB = "symbols"
# Under a limit it waits its turn behind the priority job, and pages are few.
MAX_SECONDS = 600.0
# The vendor has a few thousand tickers of each market, at 1,000 a page.
MOST_PAGES = 50


class Selection(Struct, frozen=True):
    """What a pattern chose: assets to add; symbols that are there already; tickers left out, and why."""

    assets: list[Asset]
    already_there: list[str]
    skipped: list[tuple[str, str]]


class Reference(Struct, frozen=True):
    """The names of the vendor's tickers, and the run that asked for them."""

    names: Mapping[str, str]
    result: RunResult


def faults_of(config: Config, connection: Connection, rows: Sequence[Row]) -> list[Fault]:
    """Return the faults of rows that do not go with config.yaml or the catalogue; what is there as they say is none."""
    listed = _listed(config)
    known = _known(config, connection, [row.asset for row in rows])
    symbol_of = {ticker: symbol for symbol, ticker in known.items()}
    found = []
    for row in rows:
        symbol, ticker = row.asset.symbol, row.asset.polygon_ticker
        if listed.get(symbol, ticker) != ticker:
            message = f"{symbol} is listed in config.yaml with {listed[symbol]}: change it there"
            found.append(Fault(row.place, "symbol", message))
        elif known.get(symbol, ticker) != ticker:
            message = f"{symbol} is in the catalogue with {known[symbol]}; `assetbatch symbols remove {symbol}` first"
            found.append(Fault(row.place, "symbol", message))
        elif symbol_of.get(ticker, symbol) != symbol:
            message = f"{ticker} is in the catalogue already, as {symbol_of[ticker]}"
            found.append(Fault(row.place, "polygon_ticker", message))
    return found


def unheard_of(rows: Sequence[Row], names: Mapping[str, str]) -> list[Fault]:
    """Return the faults of rows whose tickers the vendor does not list, with what they may have been meant for."""
    found = []
    for row in rows:
        if (ticker := row.asset.polygon_ticker) not in names:
            message = f"{ticker} is not in the vendor's reference list"
            if others := with_prefix(ticker):
                message += f"; did you mean {' or '.join(others)}?"
            found.append(Fault(row.place, "polygon_ticker", message))
    return found


def _listed(config: Config) -> dict[str, str]:
    batch = config.settings.batch
    return {row.symbol: row.polygon_ticker for row in (*batch.priority_assets, *batch.secondary_assets)}


def _known(config: Config, connection: Connection, assets: Sequence[Asset]) -> dict[str, str]:
    catalogue.sync_with_config(connection, config.assets)
    there = symbols.known(connection, [asset.symbol for asset in assets], [asset.polygon_ticker for asset in assets])
    return there | _listed(config)


def select(
    config: Config,
    connection: Connection,
    names: Mapping[str, str],
    pattern: str,
    *,
    priority: str,
    frequency_seconds: int,
) -> Selection:
    """Choose the tickers that match a pattern, without their prefix; that is also what they are called here.

    Those that exchanges test with are left out.
    """
    matching, skipped = [], []
    for ticker in sorted(ticker for ticker in names if fnmatchcase(without_prefix(ticker), pattern)):
        cells = {"symbol": without_prefix(ticker), "polygon_ticker": ticker}
        row = read_row("", cells, priority=priority, frequency_seconds=frequency_seconds)
        if not isinstance(row, Row):
            skipped.append((printable(ticker), row[0].message))
        elif is_for_tests(ticker):
            skipped.append((ticker, "exchanges test with it: its prices mean nothing"))
        else:
            matching.append(row.asset)
    known = _known(config, connection, matching)
    symbol_of = {ticker: symbol for symbol, ticker in known.items()}
    chosen = Selection([], [], skipped)
    for asset in named(matching, names):
        if asset.polygon_ticker in symbol_of:
            chosen.already_there.append(symbol_of[asset.polygon_ticker])
        elif asset.symbol in known:
            chosen.skipped.append((asset.polygon_ticker, f"{asset.symbol} is in use for {known[asset.symbol]}"))
        else:
            chosen.assets.append(asset)
    return chosen


def named(assets: Sequence[Asset], names: Mapping[str, str]) -> list[Asset]:
    """Give assets without a name the vendor's."""
    return [
        asset if asset.name else replace(asset, name=printable(names.get(asset.polygon_ticker, ""), 200))
        for asset in assets
    ]


# --- The vendor's reference list


def read_reference(
    config: Config,
    connection: Connection,
    *,
    host: str,
    stop: Stop,
    markets: Sequence[AssetType] = (),
    asset: Asset | None = None,
) -> Reference:
    """Ask the vendor for its tickers: of whole markets, or whether it has that of one asset.

    Raises ConfigurationError without a key, SourceMismatchError on a database of another source, and CallError when a
    call fails for good.
    """
    config.require_api_key()
    names: dict[str, str] = {}
    types = [asset.asset_type] if asset else markets

    def work(run: Run) -> RunResult:
        run.claim_source()
        calls = Calls(run, Lane.QUEUE)
        calls.warm_up()
        no_call_after = time.monotonic() + MAX_SECONDS
        for market in types:
            call = Call(CallKind.TICKERS, (asset,) if asset else (), market=market)
            for page in pages(calls, call, no_call_after):
                names.update(page.names)
        return run.result()

    result = perform(JOB, Start(config, connection, host, stop), work, max_seconds=MAX_SECONDS, types=types)
    return Reference(names, result)


def pages(calls: Calls, call: Call, no_call_after: float) -> Iterator[TickerPage]:
    """Ask for page after page; one that failed is asked for again where that may help."""

    def ask(call: Call) -> TickerPage:
        return calls.ask(endpoints.tickers(call), max_wait_seconds=no_call_after - time.monotonic())

    asked = set()
    for _ in range(MOST_PAGES):
        page: TickerPage = calls.patiently()(ask, call)
        yield page
        if not page.next_page:
            return
        if page.next_page in asked:
            break
        asked.add(page.next_page)
        call = replace(call, page=page.next_page)
    raise CallError(FailureKind.MALFORMED, "the vendor's reference list does not come to an end", answered=True)
