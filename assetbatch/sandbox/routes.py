"""Which path is answered by which document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.sandbox import aggregates, bodies, market_snapshots, reference, snapshots, splits
from assetbatch.sandbox.bodies import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.sandbox.bodies import Answer, Document
    from assetbatch.sandbox.request import Request

LONGEST_TARGET = 8_000
"""Bytes of path and query that the proxy in front lets through."""

_LOCALES = "|".join({traits.locale: None for traits in TRAITS.values()})
_SNAPSHOTS = f"/v2/snapshot/locale/({_LOCALES})/markets/([a-z]+)/tickers"
_ROUTES: tuple[tuple[re.Pattern[str], Callable[..., Document | list[Document]]], ...] = tuple(
    (re.compile(pattern), document)
    for pattern, document in (
        ("/v3/snapshot", snapshots.unified),
        ("/v3/snapshot/indices", snapshots.indices),
        (f"{_SNAPSHOTS}/([^/]+)", market_snapshots.single),
        (_SNAPSHOTS, market_snapshots.whole_market),
        ("/v1/last_quote/currencies/([^/]+)/([^/]+)", market_snapshots.last_quote),
        ("/v1/last/crypto/([^/]+)/([^/]+)", market_snapshots.last_trade),
        ("/v2/aggs/ticker/([^/]+)/prev", aggregates.previous_day),
        (f"/v2/aggs/grouped/locale/({_LOCALES})/market/([a-z]+)/([^/]+)", aggregates.grouped_day),
        (r"/v2/aggs/ticker/([^/]+)/range/(\d+/[a-z]+)/([^/]+)/([^/]+)", aggregates.custom_range),
        ("/v1/marketstatus/now", reference.market_status),
        ("/v1/marketstatus/upcoming", reference.holidays),
        ("/stocks/v1/splits", splits.splits),
        ("/v3/reference/tickers", reference.tickers),
        ("/v3/reference/tickers/([^/]+)", reference.ticker_details),
    )
)


def answer(request: Request) -> Answer:
    """Answer a request that was let in, as its plan allows."""
    if len(request.target) > LONGEST_TARGET:
        return bodies.nginx(414, "Request-URI Too Large")
    for pattern, document in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match is None:
            continue
        try:
            return bodies.documented(document(request, *match.groups()))
        except Refused as refused:
            return refused.answer
    return bodies.plain(404, "404 page not found\n")
