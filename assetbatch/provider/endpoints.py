"""What can be asked for: a function for each kind of answer, from a call to its request.

The one module that names the vendor: another one is a package beside `massive`, chosen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.model import CallKind
from assetbatch.provider.massive import (
    aggregates,
    daily_ticker,
    grouped_daily,
    market_holidays,
    market_status,
    reference_tickers,
    snapshot,
    splits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from assetbatch.model import Call
    from assetbatch.provider.request import Request
    from assetbatch.provider.results import Answers

PRICES: Mapping[CallKind, Callable[[Call], Request[Answers]]] = {
    CallKind.SNAPSHOT: snapshot.unified,
    CallKind.SNAPSHOT_SINGLE: snapshot.single,
    CallKind.DAILY: grouped_daily.request,
    CallKind.DAILY_TICKER: daily_ticker.request,
}


def prices(call: Call) -> Request[Answers]:
    """Return the request of a call for prices: live ones, or those of a finished day."""
    return PRICES[call.kind](call)


bars = aggregates.request
holidays = market_holidays.request
markets_open = market_status.request
tickers = reference_tickers.request
splits_since = splits.request
