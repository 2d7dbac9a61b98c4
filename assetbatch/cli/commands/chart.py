"""`chart`."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.options import SymbolArgument, duration


def chart(
    symbol: SymbolArgument,
    since: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="TIME", help="Since so long ago: 24h, 7d; else the newest day there is."),
    ] = None,
    candles: Annotated[
        bool, typer.Option("--candles", help="Open, high, low and close, not only closing prices.")
    ] = False,
) -> None:
    """Draw the bars of one asset in the terminal, with gaps where there are none.

    Example: assetbatch chart BTCUSD --since 24h --candles
    """
    config = current.load_config()

    from assetbatch.report import chart as reading
    from assetbatch.report import chart_view, tables

    console = tables.console()
    most = None if current.json else chart_view.most_points(console.width, candles=candles)
    with current.installed(config) as connection:
        found = reading.read(config, connection, symbol, since=since, most_points=most)
    if found is None:
        raise typer.BadParameter(f"no asset is called {symbol}: `assetbatch symbols list` shows all")
    if current.json:
        from assetbatch.report.documents import chart_document

        print_json(chart_document(found))
        return
    sys.stdout.write(
        chart_view.chart_text(
            found,
            candles=candles,
            width=console.width,
            height=chart_view.height_of(console.height if console.is_terminal else None),
            has_colour=console.is_terminal and not console.no_color,
            has_unicode=console.encoding.startswith("utf"),
        )
    )
