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
    """Read which markets are open. Every field is optional with the vendor."""
    currencies = document.get("currencies")
    words = currencies if isinstance(currencies, dict) else {}
    return {
        market: words[traits.reference_name] == "open"
        for market, traits in TRAITS.items()
        if isinstance(words.get(traits.reference_name), str)
    }
