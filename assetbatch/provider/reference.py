"""What the vendor says about its markets and its tickers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from assetbatch.errors import CallError, FailureKind
from assetbatch.markets import TRAITS
from assetbatch.provider.addresses import TICKERS_PATH
from assetbatch.provider.answers import rows_of, text

if TYPE_CHECKING:
    from assetbatch.model import AssetType, Call
    from assetbatch.provider.answers import Document

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class MarketsOpen:
    """Which markets the vendor says are open; one that it does not mention is not there."""

    markets: dict[AssetType, bool]


@dataclass(frozen=True, slots=True)
class Ticker:
    """One ticker of the reference list."""

    ticker: str
    name: str


@dataclass(frozen=True, slots=True)
class TickerPage:
    """A page of the reference list; `next_page` is empty on the last."""

    tickers: tuple[Ticker, ...]
    next_page: str


def read_status(document: Document) -> MarketsOpen:
    """Read which markets are open. Every field is optional with the vendor."""
    currencies = document.get("currencies")
    words = currencies if isinstance(currencies, dict) else {}
    return MarketsOpen(
        {
            market: words[traits.reference_name] == "open"
            for market, traits in TRAITS.items()
            if isinstance(words.get(traits.reference_name), str)
        }
    )


def read_tickers(call: Call, document: Document) -> TickerPage:
    """Read a page of tickers; rows of other markets, and those without a ticker, are left out. Raises CallError."""
    assert call.market is not None  # noqa: S101 - such a call is of a market
    found = [
        Ticker(row["ticker"], text(row["name"])[:LONGEST_NAME] if row.get("name") else "")
        for row in rows_of(document)
        if isinstance(row.get("ticker"), str) and row.get("market") == TRAITS[call.market].reference_name
    ]
    return TickerPage(tuple(found), _next_page(document.get("next_url")))


def _next_page(next_url: object) -> str:
    """Keep the query of the address of the next page, without any key: its host is not to be trusted."""
    if not isinstance(next_url, str) or not next_url:
        return ""
    parts = urlsplit(next_url)
    if parts.path != TICKERS_PATH:
        raise CallError(FailureKind.MALFORMED, f"the next page is elsewhere: {text(parts.path)}", answered=True)
    return urlencode([(key, value) for key, value in parse_qsl(parts.query) if key != "apiKey"])
