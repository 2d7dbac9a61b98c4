"""Which markets are open now: https://massive.com/docs/rest/forex/market-operations/market-status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.model import AssetType, Call, CallKind
from assetbatch.provider.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.provider.documents import Document

# Which part of the answer tells of a type, and who there trades it: some group of indices rests without the others.
TOLD_BY: Mapping[AssetType, tuple[str, tuple[str, ...]]] = {
    AssetType.FOREX: ("currencies", ("fx",)),
    AssetType.CRYPTO: ("currencies", ("crypto",)),
    AssetType.STOCKS: ("exchanges", ("nyse", "nasdaq")),
    AssetType.INDICES: ("indicesGroups", ("s_and_p", "dow_jones", "nasdaq")),
}
TRADING = ("open", "extended-hours")


def request() -> Request[dict[AssetType, bool]]:
    """Return the request for which markets are open; one that is not mentioned is not there.

    Its good answer has no status of its own.
    """
    return Request(Call(CallKind.MARKET_STATUS), "/v1/marketstatus/now", _read, has_status=False)


def _read(document: Document, _now: datetime) -> dict[AssetType, bool]:
    """Read which markets are open. Every field is optional with the vendor."""
    found = {}
    for market, (part, names) in TOLD_BY.items():
        told = document.get(part)
        words = [told[name] for name in names if isinstance(told.get(name), str)] if isinstance(told, dict) else []
        if words:
            found[market] = any(word in TRADING for word in words)
    return found
