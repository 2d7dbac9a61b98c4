"""The vendor's tickers, page by page: https://massive.com/docs/rest/forex/tickers/all-tickers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from assetbatch.markets import TRAITS
from assetbatch.provider.answers import next_page, rows_of, text
from assetbatch.provider.request import Request
from assetbatch.provider.results import TickerPage

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document

PATH = "/v3/reference/tickers"
# The vendor's default, 100, would make ten times the pages.
LIMIT = 1000
LONGEST_NAME = 200


def request(call: Call) -> Request[TickerPage]:
    """Return the request for tickers of a call's market: all, or that of its one asset, from its `page` on."""
    assert call.market is not None  # noqa: S101 - such a call is of a market
    market = TRAITS[call.market].reference_name
    wanted = {"market": market, "active": "true", "limit": str(LIMIT)}
    if call.assets:
        wanted["ticker"] = call.assets[0].polygon_ticker
    return Request(call, f"{PATH}?{call.page or urlencode(wanted)}", partial(_read, market))


def _read(market: str, document: Document, _now: datetime) -> TickerPage:
    """Read a page of tickers; rows of other markets, and those without a ticker, are left out. Raises CallError."""
    rows = [row for row in rows_of(document) if isinstance(row.get("ticker"), str) and row.get("market") == market]
    names = {row["ticker"]: text(row["name"])[:LONGEST_NAME] if row.get("name") else "" for row in rows}
    pairs = {row["ticker"]: pair for row in rows if (pair := _pair(row)) is not None}
    return TickerPage(names, pairs, next_page(document, PATH))


def _pair(row: Document) -> tuple[str, str] | None:
    base, quote = row.get("base_currency_symbol"), row.get("currency_symbol")
    return (base, quote) if isinstance(base, str) and isinstance(quote, str) and base and quote else None
