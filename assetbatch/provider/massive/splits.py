"""Splits of stocks, page by page: https://massive.com/docs/rest/stocks/corporate-actions/splits.

Past ones and those that are announced. A row that is no split condemns itself alone.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from assetbatch.model import Split
from assetbatch.provider.answers import next_page, rows_of, text
from assetbatch.provider.request import Request
from assetbatch.provider.results import SplitPage
from assetbatch.provider.values import InvalidRowError, number

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document

PATH = "/stocks/v1/splits"
# The vendor's default, 100, would make fifty times the pages.
LIMIT = 5000
LONGEST_TICKER = 50


def request(call: Call) -> Request[SplitPage]:
    """Return the request for splits whose execution date is a call's day or later, from its `page` on."""
    wanted = {"execution_date.gte": str(call.day), "sort": "execution_date.asc", "limit": str(LIMIT)}
    return Request(call, f"{PATH}?{call.page or urlencode(wanted)}", _read)


def _read(document: Document, _now: datetime) -> SplitPage:
    """Read a page of splits. Raises CallError (malformed)."""
    splits, invalid = [], []
    for row in rows_of(document):
        try:
            splits.append(_split(row))
        except InvalidRowError as error:
            invalid.append(f"{text(row.get('ticker'))}: {error}")
    return SplitPage(tuple(splits), tuple(invalid), next_page(document, PATH))


def _split(row: Document) -> Split:
    ticker = row.get("ticker")
    if not isinstance(ticker, str) or not 0 < len(ticker) <= LONGEST_TICKER or not ticker.isprintable():
        raise InvalidRowError("no ticker")
    split_from, split_to = (_shares(row, key) for key in ("split_from", "split_to"))
    if split_from == split_to:
        raise InvalidRowError(f"{split_to} for {split_from} is no split")
    return Split(ticker, _day(row.get("execution_date")), split_from, split_to)


def _shares(row: Document, key: str) -> Decimal:
    shares = number(row, key)
    if shares is None:
        raise InvalidRowError(f"no `{key}` (zero or absent)")
    return shares


def _day(value: object) -> date:
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidRowError(f"`execution_date` is no day: {text(value)}") from None
