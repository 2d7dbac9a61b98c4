"""Which markets are open now: https://massive.com/docs/rest/forex/market-operations/market-status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.model import AssetType, Call, CallKind
from assetbatch.provider.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.provider.documents import Document

_EXCHANGES = ("exchanges", ("nyse", "nasdaq"))
# Where an answer has the words of a market: a group, and who in it trades its assets. Indices are computed in many
# groups, most of them of stocks.
WORDS: Mapping[AssetType, tuple[str, tuple[str, ...]]] = {
    AssetType.FOREX: ("currencies", ("fx",)),
    AssetType.CRYPTO: ("currencies", ("crypto",)),
    AssetType.STOCKS: _EXCHANGES,
    AssetType.INDICES: _EXCHANGES,
}


def request() -> Request[dict[AssetType, bool]]:
    """Return the request for which markets are open; one that is not mentioned is not there.

    Its good answer has no status of its own.
    """
    return Request(Call(CallKind.MARKET_STATUS), "/v1/marketstatus/now", _read, has_status=False)


def _read(document: Document, _now: datetime) -> dict[AssetType, bool]:
    """Read which markets are open. Every field is optional with the vendor; `extended-hours` are beside the session."""
    found = {}
    for market, (group, names) in WORDS.items():
        told = document.get(group)
        words = [told[name] for name in names if isinstance(told.get(name), str)] if isinstance(told, dict) else []
        if words:
            found[market] = "open" in words
    return found
