"""Which path is answered by which document, and which of them the plan allows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from assetbatch.markets import TRAITS
from assetbatch.sandbox import aggregates, bodies, reference, snapshots
from assetbatch.sandbox.bodies import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.sandbox.bodies import Answer, Document
    from assetbatch.sandbox.request import Request

LONGEST_TARGET = 8_000
"""Bytes of path and query that the proxy in front lets through."""

_ALL_PLANS, _PAID, _NEVER = range(3)


def _nothing(*_: Any) -> Document:
    raise Refused(bodies.not_authorized(bodies.NOT_ENTITLED))


_MARKETS = f"/v2/snapshot/locale/global/markets/({'|'.join(one.snapshot_name for one in TRAITS.values())})/tickers"
_DAYS = f"/v2/aggs/grouped/locale/global/market/({'|'.join(one.reference_name for one in TRAITS.values())})/([^/]+)"
_ROUTES: tuple[tuple[re.Pattern[str], int, Callable[..., Document]], ...] = tuple(
    (re.compile(pattern), plan, document)
    for pattern, plan, document in (
        ("/v3/snapshot", _PAID, snapshots.unified),
        (f"{_MARKETS}/([^/]+)", _PAID, snapshots.single),
        (_MARKETS, _PAID, snapshots.whole_market),
        ("/v1/last_quote/currencies/([^/]+)/([^/]+)", _PAID, snapshots.last_quote),
        ("/v1/last/crypto/([^/]+)/([^/]+)", _PAID, snapshots.last_trade),
        ("/v2/aggs/ticker/([^/]+)/prev", _ALL_PLANS, aggregates.previous_day),
        (_DAYS, _ALL_PLANS, aggregates.grouped_day),
        (r"/v2/aggs/ticker/([^/]+)/range/(\d+/[a-z]+)/([^/]+)/([^/]+)", _ALL_PLANS, aggregates.custom_range),
        ("/v1/marketstatus/now", _ALL_PLANS, reference.market_status),
        ("/v3/reference/tickers", _ALL_PLANS, reference.tickers),
        ("/v3/reference/tickers/([^/]+)", _ALL_PLANS, reference.ticker_details),
        # Stocks and indices are other products: no currencies plan includes them.
        ("/v3/snapshot/indices|/v2/(snapshot|aggs/grouped)/locale/us/.+", _NEVER, _nothing),
    )
)


def answer(request: Request) -> Answer:
    """Answer a request that was let in, as its plan allows."""
    if len(request.target) > LONGEST_TARGET:
        return bodies.nginx(414, "Request-URI Too Large")
    for pattern, plan, document in _ROUTES:
        match = pattern.fullmatch(request.path)
        if match is None:
            continue
        try:
            if plan == _PAID:
                request.require_entitlement()
            return bodies.documented(document(request, *match.groups()))
        except Refused as refused:
            return refused.answer
    return bodies.plain(404, "404 page not found\n")
