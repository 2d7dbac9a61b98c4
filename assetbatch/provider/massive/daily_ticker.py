"""A finished day of one ticker: https://massive.com/docs/rest/indices/aggregates/custom-bars.

For markets that the vendor has no whole days of. It is the window of a day, whose time is when it begins: 0:00 in New
York.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from assetbatch import market_hours
from assetbatch.failures import CallError, FailureKind
from assetbatch.provider.answers import rows_of, text
from assetbatch.provider.massive.grouped_daily import put_figures
from assetbatch.provider.request import Request
from assetbatch.provider.results import Answers

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document


def request(call: Call) -> Request[Answers]:
    """Return the request for the day and the one asset of a call."""
    (asset,) = call.assets
    _, day = call.market_day
    ticker = quote(asset.polygon_ticker, safe=":")
    return Request(call, f"/v2/aggs/ticker/{ticker}/range/1/day/{day}/{day}?adjusted=true", partial(_read, call))


def _read(call: Call, document: Document, now: datetime) -> Answers:
    """Read the figures of the call's day for its asset, as a quote or as a failure.

    Raises CallError: empty where the vendor has none, invalid where it tells of another ticker.
    """
    (asset,), (market, day) = call.assets, call.market_day
    ticker = document.get("ticker")
    if ticker != asset.polygon_ticker:
        reason = f"asked for {asset.polygon_ticker}, the answer is about {text(ticker)}"
        raise CallError(FailureKind.INVALID, reason, answered=True)
    rows = rows_of(document)
    if not rows:
        raise CallError(
            FailureKind.EMPTY, f"the vendor has no figures of {asset.polygon_ticker} of {day}", answered=True
        )
    answers = Answers()
    put_figures(answers, asset, rows[0], market_hours.end_of_day(market, day), day=day, now=now)
    return answers
