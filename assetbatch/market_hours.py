"""When a market is open, in market time, right across the changes of the clock. Pure, given what `calendars` knows.

The hours themselves are data, in `markets`: forex and metals rest from Friday 17:00 to Sunday 17:00 New York time,
metals also until 18:00 on Sunday and from 17:00 to 18:00 each weekday; both on 25 December and 1 January. Crypto never
rests. Stocks have sessions from 9:30 to 16:00, indices too, but for the holidays and half days of `calendars`.

Where trade goes on around a session, two questions have two answers. Whether something newer may exist, or a bar, has
to do with all hours; how long a price may fail to come, with the sessions alone: around them many have no trade.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from assetbatch.markets import TRAITS
from assetbatch.model import Span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from assetbatch.markets import Hours, Market
    from assetbatch.model import Asset, AssetType

NEW_YORK = ZoneInfo("America/New_York")
MONDAY, FRIDAY = 0, 4


def market_of(asset: Asset) -> Market:
    """Return at which hours an asset trades."""
    traits = TRAITS[asset.asset_type]
    name = asset.polygon_ticker.removeprefix(traits.prefix)
    special = (one for one in traits.markets if one.hours is not None and name.startswith(one.hours.names))
    return next(special, traits.main_market)


def _session_on(hours: Hours, day: date, *, regular: bool = False) -> tuple[datetime, datetime] | None:
    """Return the session that ends on `day` in New York, as UTC; None on a weekend or a holiday.

    With what goes on around it, unless it is to be the `regular` one. Where it opens the evening before, Monday's
    begins on Sunday.
    """
    if not MONDAY <= day.weekday() <= FRIDAY:
        return None
    closes = hours.exceptions(day.year).get(day, hours.closes)
    return None if closes is None else _times(hours, day, closes, regular)


@cache
def _times(hours: Hours, day: date, closing: time, regular: bool) -> tuple[datetime, datetime]:
    opens = datetime.combine(day - timedelta(days=1) if hours.is_overnight else day, hours.opens, NEW_YORK)
    closes = datetime.combine(day, closing, NEW_YORK)
    if not regular:
        opens, closes = opens - hours.before, closes + hours.after
    return opens.astimezone(UTC), closes.astimezone(UTC)


def _sessions(
    hours: Hours, start: datetime, end: datetime, *, regular: bool = False
) -> list[tuple[datetime, datetime]]:
    """All sessions that overlap [start, end), in order."""
    day = start.astimezone(NEW_YORK).date()
    last = end.astimezone(NEW_YORK).date() + timedelta(days=1)
    found = []
    while day <= last:
        session = _session_on(hours, day, regular=regular)
        if session is not None and session[0] < end and session[1] > start:
            found.append(session)
        day += timedelta(days=1)
    return found


def sessions_before(hours: Hours, moment: datetime, *, regular: bool = False) -> Iterator[tuple[datetime, datetime]]:
    """Yield when sessions opened and closed that had begun by `moment`, the newest first."""
    day = moment.astimezone(NEW_YORK).date() + timedelta(days=1)
    while True:
        session = _session_on(hours, day, regular=regular)
        if session is not None and session[0] <= moment:
            yield session
        day -= timedelta(days=1)


def is_open(market: Market, now: datetime, *, regular: bool = False) -> bool:
    """Return whether the market trades at `now` (aware). `regular`: only such sessions count."""
    return last_close(market, now, regular=regular) is None


def last_close(market: Market, now: datetime, *, regular: bool = False) -> datetime | None:
    """Return when a market that rests at `now` closed; None while it is open. `regular`: only such sessions count."""
    if market.hours is None:
        return None
    _, closes = next(sessions_before(market.hours, now, regular=regular))
    return closes if closes <= now else None


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
    return hours is None or _session_on(hours, day) is not None


def day_begins_at(asset_type: AssetType, day: date) -> datetime:
    """Return when a day's figures and bars begin: at UTC's midnight, or New York's where sessions lie within a day."""
    hours = TRAITS[asset_type].main_market.hours
    zone = UTC if hours is None or hours.is_overnight else NEW_YORK
    return datetime.combine(day, time(0), zone).astimezone(UTC)


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
    """Return the time of a day's last price: its session's end, of forex but on Fridays the day's last millisecond."""
    hours = TRAITS[asset_type].main_market.hours
    if hours is not None and (day.weekday() == FRIDAY or not hours.is_overnight):
        return _times(hours, day, hours.exceptions(day.year).get(day) or hours.closes, regular=True)[1]
    return datetime.combine(day + timedelta(days=1), time(0), UTC) - timedelta(milliseconds=1)


def open_time(market: Market, start: datetime, end: datetime, *, regular: bool = False) -> timedelta:
    """Return how long the market was open between two times; with `regular` sessions alone: its age in market time."""
    if end <= start:
        return timedelta(0)
    if market.hours is None:
        return end - start
    sessions = _sessions(market.hours, start, end, regular=regular)
    return sum((min(end, closes) - max(start, opens) for opens, closes in sessions), timedelta(0))
