"""Of which markets a request is: what is sold by itself has a limit by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from assetbatch.markets import TRAITS, type_of
from assetbatch.model import AssetType
from assetbatch.sandbox.bodies import Refused
from assetbatch.sandbox.request import read_query

if TYPE_CHECKING:
    from collections.abc import Collection

_OF_A_TICKER = re.compile("/v2/aggs/ticker/([^/]+)/.+|/v3/reference/tickers/([^/]+)")
_OF_A_MARKET = re.compile("/v2/(?:snapshot/locale/[a-z]+/markets|aggs/grouped/locale/[a-z]+/market)/([a-z]+)/.+")
_NAMED = {name: market for market, traits in TRAITS.items() for name in (traits.reference_name, traits.snapshot_name)}
_ALL = tuple(AssetType)
_BEGINNINGS = {
    "/stocks/": AssetType.STOCKS,
    "/v3/snapshot/indices": AssetType.INDICES,
    "/v1/last_quote/currencies/": AssetType.FOREX,
    "/v1/last/crypto/": AssetType.CRYPTO,
}


def markets(target: str) -> Collection[AssetType]:
    """Return the markets of a request by path and query as they came; all where it names none."""
    path, _, text = target.partition("?")
    path = unquote(path)
    if match := _OF_A_TICKER.fullmatch(path):
        return [type_of(match[1] or match[2])]
    if match := _OF_A_MARKET.fullmatch(path):
        return [_NAMED[match[1]]] if match[1] in _NAMED else _ALL
    for beginning, market in _BEGINNINGS.items():
        if path.startswith(beginning):
            return [market]
    try:
        query = read_query(text)
    except Refused:
        return _ALL
    if tickers := query.get("ticker.any_of", query.get("ticker")):
        return {type_of(ticker) for ticker in tickers.split(",") if ticker}
    named = _NAMED.get(query.get("market", query.get("type", "")))
    return _ALL if named is None else [named]
