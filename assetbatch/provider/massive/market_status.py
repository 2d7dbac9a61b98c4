"""Which markets are open now: https://massive.com/docs/rest/forex/market-operations/market-status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.model import Call, CallKind
from assetbatch.provider.request import Request

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import AssetType
    from assetbatch.provider.documents import Document


def request() -> Request[dict[AssetType, bool]]:
    """Return the request for which markets are open; one that is not mentioned is not there.

    Its good answer has no status of its own.
    """
    return Request(Call(CallKind.MARKET_STATUS), "/v1/marketstatus/now", _read, has_status=False)


def _read(document: Document, _now: datetime) -> dict[AssetType, bool]:
    """Read which markets are open. Every field is optional with the vendor; `extended-hours` are beside the session."""
    found = {}
    for market, traits in TRAITS.items():
        group, names = traits.status
        told = document.get(group)
        words = [told[name] for name in names if isinstance(told.get(name), str)] if isinstance(told, dict) else []
        if words:
            found[market] = "open" in words
    return found
