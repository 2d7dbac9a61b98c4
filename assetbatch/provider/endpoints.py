"""What can be asked for: a function for each kind of answer, from a call to its request.

The one module that names the vendor: another one is a package beside `massive`, chosen here. Of its endpoints a run
asks few, so each is imported when it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.model import CallKind

if TYPE_CHECKING:
    from assetbatch.model import AssetType, Call
    from assetbatch.provider.request import Request
    from assetbatch.provider.results import Answers, Holidays, Page, SplitPage, TickerPage


def prices(call: Call) -> Request[Answers]:
    """Return the request of a call for prices: live ones, or those of a finished day."""
    if call.kind is CallKind.DAILY:
        from assetbatch.provider.massive import grouped_daily

        return grouped_daily.request(call)
    if call.kind is CallKind.DAILY_TICKER:
        from assetbatch.provider.massive import daily_ticker

        return daily_ticker.request(call)
    from assetbatch.provider.massive import snapshot

    return snapshot.single(call) if call.kind is CallKind.SNAPSHOT_SINGLE else snapshot.unified(call)


def bars(call: Call) -> Request[Page]:
    """Return the request for one page of the bars of a call's asset, of so many minutes each, within its span."""
    from assetbatch.provider.massive import aggregates

    return aggregates.request(call)


def holidays() -> Request[Holidays]:
    """Return the request for the days that come on which a market rests, or closes early."""
    from assetbatch.provider.massive import market_holidays

    return market_holidays.request()


def markets_open() -> Request[dict[AssetType, bool]]:
    """Return the request for which markets are open; one that is not mentioned is not there."""
    from assetbatch.provider.massive import market_status

    return market_status.request()


def tickers(call: Call) -> Request[TickerPage]:
    """Return the request for tickers of a call's market: all, or that of its one asset, from its `page` on."""
    from assetbatch.provider.massive import reference_tickers

    return reference_tickers.request(call)


def splits_since(call: Call) -> Request[SplitPage]:
    """Return the request for splits whose execution date is a call's day or later, from its `page` on."""
    from assetbatch.provider.massive import splits

    return splits.request(call)
