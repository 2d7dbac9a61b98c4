"""A finished day of a whole market: https://massive.com/docs/rest/forex/aggregates/daily-market-summary.

A row that is no price condemns itself alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.failures import CallError, FailureKind
from assetbatch.markets import TRAITS
from assetbatch.model import Quote
from assetbatch.provider.answers import rows_of
from assetbatch.provider.request import Request
from assetbatch.provider.results import Answers
from assetbatch.provider.values import InvalidRowError, number, time_of

if TYPE_CHECKING:
    from datetime import date, datetime

    from assetbatch.model import Asset, Call
    from assetbatch.provider.documents import Document


def request(call: Call) -> Request[Answers]:
    """Return the request for the day and the market of a call."""
    market, day = call.market_day
    traits = TRAITS[market]
    path = f"/v2/aggs/grouped/locale/{traits.locale}/market/{traits.reference_name}/{day}?adjusted=true"
    return Request(call, path, partial(_read, call))


def _read(call: Call, document: Document, now: datetime) -> Answers:
    """Read the figures of the call's day for each of its assets, as a quote or as a failure.

    Raises CallError (empty) where the vendor has none for any ticker: it rested, or does not have them yet.
    """
    market, day = call.market_day
    rows = {row["T"]: row for row in rows_of(document) if isinstance(row.get("T"), str)}
    if not rows:
        raise CallError(FailureKind.EMPTY, f"the vendor has no figures of {day}", answered=True)
    answers, ends_at = Answers(), market_hours.end_of_day(market, day)
    for asset in call.assets:
        row = rows.get(asset.polygon_ticker)
        if row is None:
            reason = f"{asset.polygon_ticker} is not among the {len(rows)} tickers of {day}"
            answers.failures[asset.symbol] = (FailureKind.MISSING, reason)
        else:
            put_figures(answers, asset, row, ends_at, day=day, now=now)
    return answers


def put_figures(answers: Answers, asset: Asset, row: Document, ends_at: datetime, *, day: date, now: datetime) -> None:
    """Put the figures that a row has of a day among the answers, as a quote of when it ends or as a failure."""
    try:
        answers.quotes[asset.symbol] = _figures(row, ends_at, day=day, now=now)
    except InvalidRowError as error:
        answers.failures[asset.symbol] = (FailureKind.INVALID, f"{asset.polygon_ticker}: {error}")


def _figures(row: Document, ends_at: datetime, *, day: date, now: datetime) -> Quote:
    close = number(row, "c")
    if close is None:
        raise InvalidRowError("no close price (zero or absent)")
    if row.get("t") is not None:
        # Its end, its last trade or its beginning; some days of the vendor's are New York's.
        moment = time_of(row["t"], now)
        if day != moment.date() and day != moment.astimezone(market_hours.NEW_YORK).date():
            raise InvalidRowError(f"its time is not of {day}")
    return Quote(
        last_price=close,
        timestamp=ends_at,
        daily_open=number(row, "o"),
        daily_high=number(row, "h"),
        daily_low=number(row, "l"),
        daily_close=close,
    )
