"""Documents about tickers and market hours: free on every plan."""

from __future__ import annotations

from datetime import time
from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType
from assetbatch.sandbox.catalogue import KNOWN, currency_name
from assetbatch.sandbox.market import NEW_YORK, is_open

if TYPE_CHECKING:
    from assetbatch.sandbox.bodies import Document
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.request import Request

DEFAULT_ROWS = 100
MOST_ROWS = 1_000


def tickers(request: Request) -> Document:
    """`/v3/reference/tickers`: the catalogue by `market`, `ticker`, `search`, `active`; sorted, paged."""
    limit = request.number("limit", DEFAULT_ROWS, MOST_ROWS)
    found = [known.ticker for known in KNOWN.values() if _asked_for(known, request.query)]
    if request.descending("order"):
        found.reverse()
    shown, next_url = request.page(found, limit)
    rows = [_row(KNOWN[ticker]) for ticker in shown]
    document: Document = {"results": rows, "status": request.status, "request_id": None, "count": len(rows)}
    return document | ({"next_url": next_url} if next_url else {})


def ticker_details(request: Request, ticker: str) -> Document:
    """`/v3/reference/tickers/{ticker}`: the cheap way to learn whether a ticker exists; 404 if not."""
    return {"request_id": None, "results": _row(request.instrument(ticker)), "status": request.status}


def market_status(request: Request) -> Document:
    """`/v1/marketstatus/now`: which markets are open, with the server's time in New York."""
    now = request.now.astimezone(NEW_YORK).replace(microsecond=0)
    clock = now.time()
    weekday = now.isoweekday() <= 5
    regular = weekday and time(9, 30) <= clock < time(16)
    early = weekday and time(4) <= clock < time(9, 30)
    late = weekday and time(16) <= clock < time(20)
    stocks = "open" if regular else "extended-hours" if early or late else "closed"
    trading = {
        market
        for market in AssetType
        if is_open(market, request.now_ms) and not request.faults.holiday(market, request.target)
    }
    return {
        "afterHours": late,
        "currencies": {
            traits.reference_name: "open" if market in trading else "closed" for market, traits in TRAITS.items()
        },
        "earlyHours": early,
        "exchanges": {"nasdaq": stocks, "nyse": stocks, "otc": "open" if regular else "closed"},
        "market": stocks,
        "serverTime": now.isoformat(),
    }


def _asked_for(known: Instrument, query: dict[str, str]) -> bool:
    its = {"active": "true", "market": known.traits.reference_name, "ticker": known.ticker}
    fits = all(query.get(name, value) == value for name, value in its.items())
    return fits and query.get("search", "").upper() in f"{known.ticker} {known.name}".upper()


def _row(known: Instrument) -> Document:
    return {
        "ticker": known.ticker,
        "name": known.name,
        "market": known.traits.reference_name,
        "locale": known.traits.locale,
        "active": True,
        "currency_symbol": known.quote,
        "currency_name": currency_name(known.quote),
        "base_currency_symbol": known.base,
        "base_currency_name": currency_name(known.base),
        "last_updated_utc": "2017-01-01T00:00:00Z",
    }
