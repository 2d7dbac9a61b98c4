"""`sandbox`."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from assetbatch import config as configuration
from assetbatch.cli import completion
from assetbatch.cli.invocation import answer
from assetbatch.cli.options import no_nan
from assetbatch.model import Product
from assetbatch.plans import FREE, PLANS


def _plan_option(what: str, product: Product) -> Any:
    words = f"The plan that the key has for {what}: {', '.join(PLANS[product])}."
    return typer.Option(help=words, autocompletion=completion.plans(product))


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
    ws_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the WebSocket; without it 1000 above --port, or a free one."),
    ] = None,
    ws_rate: Annotated[
        float, typer.Option(min=0, callback=no_nan, help="Quotes a second of each pair that it streams.")
    ] = 1.0,
    plan: Annotated[str, _plan_option("forex and crypto", Product.CURRENCIES)] = "starter",
    stocks_plan: Annotated[str, _plan_option("stocks", Product.STOCKS)] = FREE.name,
    indices_plan: Annotated[str, _plan_option("indices", Product.INDICES)] = FREE.name,
    limit: Annotated[int | None, typer.Option(min=1, help="Calls in any window; without it no limit.")] = None,
    paid_unlimited: Annotated[
        bool, typer.Option("--paid-unlimited", help="What is on a paid plan does not count against --limit.")
    ] = False,
    window: Annotated[float, typer.Option(min=0.01, callback=no_nan, help="Seconds of that window.")] = 60.0,
    holiday: Annotated[
        list[datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day on which stocks and indices rest, too; may be repeated."),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TICKER:FACTOR:DATE",
            help="Split a stock, e.g. AAPL:2:2026-12-01, or 0.125 for a reverse split; may be repeated.",
        ),
    ] = None,
    delist: Annotated[
        list[str] | None, typer.Option(metavar="TICKER:DATE", help="Delist a stock; may be repeated.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="OLD:NEW:DATE", help="Rename a stock; may be repeated.")
    ] = None,
    stocks: Annotated[
        int, typer.Option(min=0, max=999_999, help="List so many invented stocks (ZZT1, ZZT2, …) beside the others.")
    ] = 0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:MATCH][@P]",
            autocompletion=completion.faults,
            help="Misbehave, e.g. 500, timeout, zero:XAU, 502@0.1, ws-drop@0.1, ws-silent:EUR; may be repeated.",
        ),
    ] = None,
) -> None:
    """Answer as the API does, with invented prices, for trying things out without a key.

    The key that it accepts is $SANDBOX_KEY, or the word sandbox. It prints its address and that of its WebSocket, and
    answers until it is ended.

    Other commands ask it with POLYGON_API_KEY=sandbox, and a config.yaml of three lines:
    `provider: {base_url: "http://127.0.0.1:8765", plan: starter}`,
    `rate_limiting: {calls_per_minute: 5}` and
    `database: {embedded: true, name: sandbox}`.

    Example: assetbatch sandbox --plan starter --limit 5
    """
    from assetbatch.sandbox.actions import Listing
    from assetbatch.sandbox.server import Sandbox

    try:
        server = Sandbox(
            port=port,
            key=configuration.sandbox_key(os.environ),
            plan=plan,
            stocks_plan=stocks_plan,
            indices_plan=indices_plan,
            holidays=[day.date() for day in holiday or ()],
            listing=Listing(split or (), delist or (), rename or (), stocks),
            limit=limit,
            paid_unlimited=paid_unlimited,
            window_seconds=window,
            fail=fail or (),
            keep_arrivals=False,
            stream_port=_stream_port(port) if ws_port is None else ws_port,
            stream_rate=ws_rate,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        hint = "another sandbox may have it; --port 0 takes a free one"
        raise typer.BadParameter(f"port {port}: {error.strerror} ({hint})") from None
    try:
        stream_url = server.stream.url
    except OSError as error:
        raise typer.BadParameter(f"the WebSocket's port: {error.strerror} (--ws-port 0 takes a free one)") from None
    plans = {"plan": plan, "stocks_plan": stocks_plan, "indices_plan": indices_plan}
    document = {"url": server.url, "stream_url": stream_url, **plans, "limit": limit}
    answer({**document, "window_seconds": window, "ws_rate": ws_rate}, f"{server.url}\n{stream_url}")
    sys.stdout.flush()
    server.serve_forever()


def _stream_port(port: int) -> int:
    return port + 1_000 if 0 < port <= 64_535 else 0
