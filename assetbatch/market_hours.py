"""When a market is open, in market time: pure, and right across the changes of the clock.

The hours themselves are data, in `markets`: forex and metals rest from Friday 17:00 to Sunday 17:00 New York time,
metals also until 18:00 on Sunday and from 17:00 to 18:00 each weekday; both on 25 December and 1 January. Crypto never
rests. Other holidays are not known here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from assetbatch.markets import TRAITS
from assetbatch.model import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.markets import Hours, Market
    from assetbatch.model import Asset, AssetType

NEW_YORK = ZoneInfo("America/New_York")
MONDAY, FRIDAY = 0, 4
# The longest rest is a weekend with a holiday at its side; a week holds the end of any.
LOOK_BACK_DAYS = 7


def market_of(asset: Asset) -> Market:
    """Return at which hours an asset trades."""
    traits = TRAITS[asset.asset_type]
    name = asset.polygon_ticker.removeprefix(traits.prefix)
    special = (one for one in traits.markets if one.hours is not None and name.startswith(one.hours.names))
    return next(special, traits.main_market)


@cache
def _trading_day(hours: Hours, day: date) -> tuple[datetime, datetime] | None:
    """Return the session that ends on `day` in New York, as UTC; None on a weekend or a holiday.

    Where it opens the evening before, Monday's begins on Sunday.
    """
    if not MONDAY <= day.weekday() <= FRIDAY or (day.month, day.day) in hours.holidays:
        return None
    opens_on = day - timedelta(days=1) if hours.opens >= hours.closes else day
    opens = datetime.combine(opens_on, hours.opens, NEW_YORK)
    closes = datetime.combine(day, hours.closes, NEW_YORK)
    return opens.astimezone(UTC), closes.astimezone(UTC)


def _sessions(hours: Hours, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """All sessions that overlap [start, end), in order."""
    day = start.astimezone(NEW_YORK).date()
    last = end.astimezone(NEW_YORK).date() + timedelta(days=1)
    found = []
    while day <= last:
        session = _trading_day(hours, day)
        if session is not None and session[0] < end and session[1] > start:
            found.append(session)
        day += timedelta(days=1)
    return found


def is_open(market: Market, now: datetime) -> bool:
    """Return whether the market trades at `now` (aware)."""
    return market.hours is None or bool(_sessions(market.hours, now, now + timedelta(microseconds=1)))


def last_close(market: Market, now: datetime) -> datetime | None:
    """Return when a market that rests at `now` closed; None while it is open."""
    if market.hours is None or is_open(market, now):
        return None
    sessions = _sessions(market.hours, now - timedelta(days=LOOK_BACK_DAYS), now)
    return sessions[-1][1]


def closed_spans(market: Market, since: datetime, until: datetime) -> list[Span]:
    """Return when the market rested between two times, in order."""
    if market.hours is None:
        return []
    spans = []
    for opens, closes in _sessions(market.hours, since, until):
        if since < opens:
            spans.append(Span(since, opens))
        since = max(since, closes)
    return [*spans, Span(since, until)] if since < until else spans


def trades_on(asset_type: AssetType, day: date) -> bool:
    """Return whether a day has figures worth asking for: of forex, Sundays have two hours, Saturdays outliers."""
    hours = TRAITS[asset_type].main_market.hours
    return hours is None or _trading_day(hours, day) is not None


def day_over_at(day: date) -> datetime:
    """Return when a day is over in both calendars, UTC's and New York's: the vendor gives it then, at the latest."""
    midnight = datetime.combine(day + timedelta(days=1), time(0))
    return max(midnight.replace(tzinfo=UTC), midnight.replace(tzinfo=NEW_YORK).astimezone(UTC))


def finished_days(asset_type: AssetType, now: datetime) -> Iterator[date]:
    """Yield the days that are over and had trade, the newest first."""
    day = now.astimezone(UTC).date()
    while True:
        day -= timedelta(days=1)
        if day_over_at(day) <= now and trades_on(asset_type, day):
            yield day


def end_of_day(asset_type: AssetType, day: date) -> datetime:
    """Return the time of a day's last price: its last millisecond, on a Friday the end of forex trade."""
    hours = TRAITS[asset_type].main_market.hours
    if hours is not None and day.weekday() == FRIDAY:
        return datetime.combine(day, hours.closes, NEW_YORK).astimezone(UTC)
    return datetime.combine(day + timedelta(days=1), time(0), UTC) - timedelta(milliseconds=1)


def open_time(market: Market, start: datetime, end: datetime) -> timedelta:
    """Return how long the market was open between two times: age in market time."""
    if end <= start:
        return timedelta(0)
    if market.hours is None:
        return end - start
    overlaps = (min(end, closes) - max(start, opens) for opens, closes in _sessions(market.hours, start, end))
    return sum(overlaps, timedelta(0))
