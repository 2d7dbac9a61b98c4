"""Where requests go, and which source of prices that is."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from assetbatch.model import AssetType, Call, CallKind

if TYPE_CHECKING:
    from collections.abc import Mapping

# One vendor, renamed: both names answer with the same data.
SAME_SOURCE = {"api.polygon.io": "api.massive.com"}
SANDBOX_SOURCE = "sandbox"
MARKETS: Mapping[AssetType, str] = {AssetType.FOREX: "forex", AssetType.CRYPTO: "crypto"}
# The vendor's default of 10 would cut the answer.
SNAPSHOT_LIMIT = 250


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
            market = MARKETS[asset.asset_type]
            return f"/v2/snapshot/locale/global/markets/{market}/tickers/{quote(asset.polygon_ticker, safe=':')}"
