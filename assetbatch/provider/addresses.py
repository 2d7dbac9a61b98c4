"""Where requests go, and which source of prices that is."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from assetbatch.bars import MOST_BASE_MINUTES
from assetbatch.markets import TRAITS
from assetbatch.model import Call, CallKind
from assetbatch.planner import EPOCH

if TYPE_CHECKING:
    from datetime import datetime

TICKERS_PATH = "/v3/reference/tickers"
# One vendor, renamed: both names answer with the same data.
SAME_SOURCE = {"api.polygon.io": "api.massive.com"}
SANDBOX_SOURCE = "sandbox"
# The vendor's defaults, 10 and 100, would cut the answers.
SNAPSHOT_LIMIT = 250
TICKERS_LIMIT = 1000


def source_of(base_url: str) -> str:
    """Name the source of prices behind a base URL: the vendor by its new name, any loopback address as the sandbox."""
    host = (urlsplit(base_url).hostname or "").lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
        # An IPv4 address may be written as an IPv6 one: ::ffff:127.0.0.1.
        loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return SANDBOX_SOURCE if loopback else SAME_SOURCE.get(host, host)


def target(call: Call) -> str:
    """Write the path and query of a call."""
    match call.kind:
        case CallKind.SNAPSHOT:
            tickers = ",".join(asset.polygon_ticker for asset in call.assets)
            return f"/v3/snapshot?{urlencode({'ticker.any_of': tickers, 'limit': SNAPSHOT_LIMIT})}"
        case CallKind.SNAPSHOT_SINGLE:
            asset = call.assets[0]
            traits = TRAITS[asset.asset_type]
            market = f"{traits.locale}/markets/{traits.snapshot_name}"
            return f"/v2/snapshot/locale/{market}/tickers/{quote(asset.polygon_ticker, safe=':')}"
        case CallKind.DAILY:
            assert call.market is not None  # noqa: S101 - such a call is of a market
            traits = TRAITS[call.market]
            market = f"{traits.locale}/market/{traits.reference_name}"
            return f"/v2/aggs/grouped/locale/{market}/{call.day}?adjusted=true"
        case CallKind.BARS:
            assert call.span is not None  # noqa: S101 - such a call has a span
            ticker = quote(call.assets[0].polygon_ticker, safe=":")
            since, until = (_milliseconds(moment) for moment in (call.span.since, call.span.until))
            query = urlencode({"adjusted": "true", "sort": "asc", "limit": MOST_BASE_MINUTES})
            return f"/v2/aggs/ticker/{ticker}/range/{call.minutes}/minute/{since}/{until - 1}?{query}"
        case CallKind.MARKET_STATUS:
            return "/v1/marketstatus/now"
        case CallKind.TICKERS:
            assert call.market is not None  # noqa: S101 - such a call is of a market
            wanted = {"market": TRAITS[call.market].reference_name, "active": "true", "limit": str(TICKERS_LIMIT)}
            if call.assets:
                wanted["ticker"] = call.assets[0].polygon_ticker
            return f"{TICKERS_PATH}?{call.page or urlencode(wanted)}"


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
