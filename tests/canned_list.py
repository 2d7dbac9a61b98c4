"""A vendor's reference list as data: what it answers to a path, by the vendor's own rules, and what it was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PATH = "/v3/reference/tickers"


def listed(ticker: str, figi: str = "", *, cik: str = "", delisted: str = "", market: str = "stocks") -> dict[str, Any]:
    """A row of the list; `delisted` is the last day that the ticker was traded on."""
    row: dict[str, Any] = {"ticker": ticker, "name": f"{ticker} Inc.", "market": market, "active": not delisted}
    row |= {"composite_figi": figi} if figi else {}
    row |= {"cik": cik} if cik else {}
    return row | ({"delisted_utc": f"{delisted}T05:00:00Z"} if delisted else {})


@dataclass
class CannedList:
    """Rows of the reference list; `page_size` is what a page has at most, `is_sorted`: it does as `sort` says."""

    rows: list[dict[str, Any]]
    page_size: int = 1_000
    is_sorted: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, path: str) -> dict[str, Any]:
        query = dict(parse_qsl(urlsplit(path).query))
        self.asked.append(query)
        active = query.get("active", "true") == "true"
        found = [
            row
            for row in sorted(self.rows, key=lambda row: row["ticker"])
            if row["market"] == query["market"] and row["active"] is active
            if row["ticker"] == query.get("ticker", row["ticker"])
            and row.get("cik") == query.get("cik", row.get("cik"))
        ]
        if self.is_sorted and (name := query.get("sort")):
            found.sort(key=lambda row: row.get(name, ""), reverse=query.get("order") == "desc")
        offset = int(query.get("cursor", "0"))
        more = offset + self.page_size < len(found)
        document: dict[str, Any] = {"status": "OK", "results": found[offset : offset + self.page_size]}
        next_url = f"https://api.massive.com{PATH}?cursor={offset + self.page_size}&market={query['market']}"
        return document | ({"next_url": next_url} if more else {})
