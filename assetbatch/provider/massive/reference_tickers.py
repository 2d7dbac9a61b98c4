"""The vendor's tickers, page by page: https://massive.com/docs/rest/forex/tickers/all-tickers."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from assetbatch.markets import TRAITS
from assetbatch.provider.answers import next_page, rows_of, text
from assetbatch.provider.request import Request
from assetbatch.provider.results import Listing, TickerPage

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document

PATH = "/v3/reference/tickers"
# The vendor's default, 100, would make ten times the pages.
LIMIT = 1000
LONGEST_NAME = 200
LONGEST_WORD = 50


def request(call: Call) -> Request[TickerPage]:
    """Return the request for tickers of a call's market: all, or that of its one asset, from its `page` on."""
    assert call.market is not None  # noqa: S101 - such a call is of a market
    market = TRAITS[call.market].reference_name
    wanted = {"market": market, "active": "true" if call.active else "false", "limit": str(LIMIT)}
    if call.assets:
        wanted["ticker"] = call.assets[0].polygon_ticker
    if call.company:
        wanted["cik"] = call.company
    if not call.active:
        wanted |= {"sort": "delisted_utc", "order": "desc"}
    return Request(call, f"{PATH}?{call.page or urlencode(wanted)}", partial(_read, market))


def _read(market: str, document: Document, _now: datetime) -> TickerPage:
    """Read a page of tickers; rows of other markets, and those without a ticker, are left out. Raises CallError."""
    rows = [row for row in rows_of(document) if isinstance(row.get("ticker"), str) and row.get("market") == market]
    names = {row["ticker"]: text(row["name"])[:LONGEST_NAME] if row.get("name") else "" for row in rows}
    pairs = {row["ticker"]: pair for row in rows if (pair := _pair(row)) is not None}
    return TickerPage(names, pairs, next_page(document, PATH), tuple(_listing(row) for row in rows))


def _listing(row: Document) -> Listing:
    # `delisted_utc` is midnight of New York, or of UTC: the day is right as it is written.
    written = row.get("delisted_utc")
    try:
        delisted_on = date.fromisoformat(written[:10]) if isinstance(written, str) else None
    except ValueError:
        delisted_on = None
    # Lists of those that are traded may leave the word out.
    is_active = row.get("active") is not False
    return Listing(row["ticker"], is_active, delisted_on, _word(row.get("composite_figi")), _word(row.get("cik")))


def _word(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= LONGEST_WORD and value.isalnum() else ""


def _pair(row: Document) -> tuple[str, str] | None:
    base, quote = row.get("base_currency_symbol"), row.get("currency_symbol")
    return (base, quote) if isinstance(base, str) and isinstance(quote, str) and base and quote else None
