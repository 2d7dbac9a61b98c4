"""When exchanges rest or close early: https://massive.com/docs/rest/stocks/market-operations/market-holidays.

The list has the days that come, a row for each exchange; a row that makes no sense condemns itself alone.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from assetbatch.failures import CallError, FailureKind
from assetbatch.market_hours import NEW_YORK
from assetbatch.markets import HOURS, Market
from assetbatch.model import Call, CallKind
from assetbatch.provider.answers import rows_of, text
from assetbatch.provider.request import Request
from assetbatch.provider.results import Holidays
from assetbatch.provider.values import InvalidRowError

if TYPE_CHECKING:
    from datetime import time

    from assetbatch.provider.documents import Document

EXCHANGES = ("NYSE", "NASDAQ")
# The list reaches a year or two ahead; a day that is just over elsewhere may still be on it.
AHEAD, BEHIND = timedelta(days=3 * 365), timedelta(days=2)
# No three years have so many: what says more would close the market for good.
MOST_DAYS = 60


def request() -> Request[Holidays]:
    """Return the request for the days that come on which a market rests, or closes early."""
    return Request(Call(CallKind.MARKET_HOLIDAYS), "/v1/marketstatus/upcoming", _read, has_status=False, is_list=True)


def _read(document: Document, now: datetime) -> Holidays:
    """Read the days on which an exchange is not open as usual. Raises CallError (malformed) where there are none."""
    days: dict[date, time | None] = {}
    odd: list[str] = []
    for row in rows_of(document):
        if row.get("exchange") not in EXCHANGES:
            continue
        try:
            day, closes_at = _day(row, now)
        except InvalidRowError as error:
            odd.append(str(error))
            continue
        # Where they differ, the one counts that has less trade.
        known = days.get(day, closes_at)
        days[day] = None if known is None or closes_at is None else min(known, closes_at)
    if not days or len(days) > MOST_DAYS:
        words = f"the list of holidays has {len(days)} days" + (f", but: {odd[0]}" if odd else "")
        raise CallError(FailureKind.MALFORMED, words, answered=True)
    return Holidays(days, tuple(odd))


def _day(row: Document, now: datetime) -> tuple[date, time | None]:
    day = _date(row.get("date"))
    today = now.astimezone(NEW_YORK).date()
    if not today - BEHIND <= day <= today + AHEAD:
        raise InvalidRowError(f"a holiday is not of the days that come: {day}")
    match row.get("status"):
        case "closed":
            return day, None
        case "early-close":
            return day, _closing(row.get("close"), day)
    raise InvalidRowError(f"the market's status on {day} is {text(row.get('status'))}")


def _date(value: object) -> date:
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type] # what is no text raises, too
    except (TypeError, ValueError):
        raise InvalidRowError(f"a holiday has no date: {text(value)}") from None


def _closing(value: object, day: date) -> time:
    """Return when a session that ends early does, by the clock of New York: within usual hours, on its day."""
    hours = HOURS[Market.STOCKS]
    try:
        closes = datetime.fromisoformat(value).astimezone(NEW_YORK)  # type: ignore[arg-type] # what is no text raises
    except (TypeError, ValueError, OverflowError):
        closes = None
    if closes is None or closes.date() != day or not hours.opens < closes.time() < hours.closes:
        raise InvalidRowError(f"no time at which the market closes on {day}: {text(value)}")
    return closes.time()
