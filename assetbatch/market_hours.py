"""When a market is open, in market time: pure, and right across the changes of the clock.

Forex and metals rest from Friday 17:00 to Sunday 17:00 New York time, metals also until 18:00 on Sunday and from 17:00
to 18:00 each weekday; both on 25 December and 1 January. Crypto never rests. Other holidays are not known here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from assetbatch.model import AssetType, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.model import Asset

NEW_YORK = ZoneInfo("America/New_York")
METALS = ("XAU", "XAG", "XPT", "XPD")
HOLIDAYS = ((12, 25), (1, 1))
DAY_ENDS = time(17)
METALS_BEGIN = time(18)
MONDAY, FRIDAY = 0, 4
# The longest rest is a weekend with a holiday at its side; a week holds the end of any.
LOOK_BACK_DAYS = 7


class Market(Enum):
    """Assets that trade at the same hours."""

    FOREX = "forex"
    METALS = "metals"
    CRYPTO = "crypto"

    @property
    def asset_type(self) -> AssetType:
        """The type of the assets that trade at these hours."""
        return AssetType.CRYPTO if self is Market.CRYPTO else AssetType.FOREX


def market_of(asset: Asset) -> Market:
    """Tell at which hours an asset trades."""
    if asset.asset_type is AssetType.CRYPTO:
        return Market.CRYPTO
    if asset.polygon_ticker.removeprefix("C:").startswith(METALS):
        return Market.METALS
    return Market.FOREX


@cache
def _trading_day(market: Market, day: date) -> tuple[datetime, datetime] | None:
    """Give the session that ends at 17:00 New York time of `day`, as UTC; None on a weekend or a holiday.

    A trading day begins the evening before it, so that Monday's begins on Sunday.
    """
    if not MONDAY <= day.weekday() <= FRIDAY or (day.month, day.day) in HOLIDAYS:
        return None
    begin = METALS_BEGIN if market is Market.METALS else DAY_ENDS
    opens = datetime.combine(day - timedelta(days=1), begin, NEW_YORK)
    closes = datetime.combine(day, DAY_ENDS, NEW_YORK)
    return opens.astimezone(UTC), closes.astimezone(UTC)


def _sessions(market: Market, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """All sessions that overlap [start, end), in order."""
    day = start.astimezone(NEW_YORK).date()
    last = end.astimezone(NEW_YORK).date() + timedelta(days=1)
    found = []
    while day <= last:
        session = _trading_day(market, day)
        if session is not None and session[0] < end and session[1] > start:
            found.append(session)
        day += timedelta(days=1)
    return found


def is_open(market: Market, now: datetime) -> bool:
    """Tell whether the market trades at `now` (aware)."""
    return market is Market.CRYPTO or bool(_sessions(market, now, now + timedelta(microseconds=1)))


def last_close(market: Market, now: datetime) -> datetime | None:
    """Tell when a market that rests at `now` closed; None while it is open."""
    if is_open(market, now):
        return None
    sessions = _sessions(market, now - timedelta(days=LOOK_BACK_DAYS), now)
    return sessions[-1][1]


def closed_spans(market: Market, since: datetime, until: datetime) -> list[Span]:
    """Tell when the market rested between two times, in order."""
    if market is Market.CRYPTO:
        return []
    spans = []
    for opens, closes in _sessions(market, since, until):
        if since < opens:
            spans.append(Span(since, opens))
        since = max(since, closes)
    return [*spans, Span(since, until)] if since < until else spans


def trades_on(asset_type: AssetType, day: date) -> bool:
    """Tell whether a day has figures worth asking for: of forex, Sundays have two hours, Saturdays outliers."""
    return asset_type is AssetType.CRYPTO or _trading_day(Market.FOREX, day) is not None


def day_over_at(day: date) -> datetime:
    """Tell when a day is over in both calendars, UTC's and New York's: the vendor gives it then, at the latest."""
    midnight = datetime.combine(day + timedelta(days=1), time(0))
    return max(midnight.replace(tzinfo=UTC), midnight.replace(tzinfo=NEW_YORK).astimezone(UTC))


def finished_days(asset_type: AssetType, now: datetime) -> Iterator[date]:
    """Tell the days that are over and had trade, the newest first."""
    day = now.astimezone(UTC).date()
    while True:
        day -= timedelta(days=1)
        if day_over_at(day) <= now and trades_on(asset_type, day):
            yield day


def end_of_day(asset_type: AssetType, day: date) -> datetime:
    """Tell the time of a day's last price: its last millisecond, on a Friday the end of forex trade."""
    if asset_type is AssetType.FOREX and day.weekday() == FRIDAY:
        return datetime.combine(day, DAY_ENDS, NEW_YORK).astimezone(UTC)
    return datetime.combine(day + timedelta(days=1), time(0), UTC) - timedelta(milliseconds=1)


def open_time(market: Market, start: datetime, end: datetime) -> timedelta:
    """How long the market was open between two times: age in market time."""
    if end <= start:
        return timedelta(0)
    if market is Market.CRYPTO:
        return end - start
    overlaps = (min(end, closes) - max(start, opens) for opens, closes in _sessions(market, start, end))
    return sum(overlaps, timedelta(0))
