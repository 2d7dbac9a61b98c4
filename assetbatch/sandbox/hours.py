"""When which market has bars: the days of a market, and the minutes of a day. Written from the vendor's side.

A day is a number, counted from 1970-01-01. Days of forex and crypto are those of UTC, those of stocks and indices New
York's; on days with bars they have 1,440 minutes, since clocks change on Sundays.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from assetbatch import calendars
from assetbatch.model import AssetType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MINUTE_MS = 60_000
DAY_MINUTES = 1440
DAY_MS = DAY_MINUTES * MINUTE_MS
NEW_YORK = ZoneInfo("America/New_York")
EPOCH = date(1970, 1, 1)
HISTORY_BEGINS = (date(2010, 1, 1) - EPOCH).days
"""Before this day there is nothing."""

EXCHANGES = frozenset({AssetType.STOCKS, AssetType.INDICES})
"""What keeps the hours of New York's stock exchanges."""
EARLY, OPENS, CLOSES, LATE_MINUTES = 4 * 60, 9 * 60 + 30, 16 * 60, 4 * 60
"""Minutes of a day in New York: stocks trade from `EARLY` on, and so many minutes after the close."""
_EARLIEST_OFFSET_MS = 5 * 60 * MINUTE_MS


class Session(NamedTuple):
    """Minutes of a day: there are bars in [begins, ends); what happens in [opens, closes) makes the day's prices."""

    begins: int
    ends: int
    opens: int
    closes: int


REST = Session(0, 0, 0, 0)
_WHOLE_DAY = Session(0, DAY_MINUTES, 0, DAY_MINUTES)


def date_of(day: int) -> date:
    """Return the date of a day's number."""
    return EPOCH + timedelta(days=day)


class Hours:
    """The hours of all markets; on `holidays` the exchanges rest, though no rule says so."""

    def __init__(self, holidays: Iterable[date] = ()) -> None:
        self.holidays = frozenset(holidays)
        self._of: Mapping[AssetType, Callable[[int], Session]] = {
            AssetType.FOREX: _forex,
            AssetType.CRYPTO: lambda _: _WHOLE_DAY,
            AssetType.STOCKS: lru_cache(maxsize=10_000)(self._stocks),
            AssetType.INDICES: lru_cache(maxsize=10_000)(self._indices),
        }

    def session(self, market: AssetType, day: int) -> Session:
        """Return when a market has bars on one of its days; `REST`: not at all."""
        return self._of[market](day)

    def is_open(self, market: AssetType, at_ms: int) -> bool:
        """Return whether the market may have a bar for this minute: stocks before and after the session, too."""
        day, rest_ms = moment(market, at_ms)
        session = self.session(market, day)
        return session.begins <= rest_ms // MINUTE_MS < session.ends

    def closing(self, day: date) -> time | None:
        """Return when the exchanges of New York close on a day; None: they rest."""
        if day.isoweekday() > 5 or day in self.holidays:
            return None
        return calendars.by_rule(day.year).get(day, time(CLOSES // 60))

    def _indices(self, day: int) -> Session:
        closing = self.closing(date_of(day))
        if closing is None:
            return REST
        closes = closing.hour * 60 + closing.minute
        return Session(OPENS, closes, OPENS, closes)

    def _stocks(self, day: int) -> Session:
        session = self._indices(day)
        return session if session == REST else session._replace(begins=EARLY, ends=session.closes + LATE_MINUTES)


@lru_cache(maxsize=10_000)
def _forex(day: int) -> Session:
    weekday = date_of(day).isoweekday()
    if weekday not in {5, 6, 7}:
        return _WHOLE_DAY
    turn = datetime.combine(date_of(day), time(17), NEW_YORK).astimezone(UTC)
    minute = turn.hour * 60 + turn.minute
    begin, end = {5: (0, minute), 6: (0, 0), 7: (minute, DAY_MINUTES)}[weekday]
    return Session(begin, end, begin, end)


def midnight_ms(market: AssetType, day: int) -> int:
    """Return when a market's day begins, in milliseconds since 1970."""
    return _new_york_midnight_ms(day) if market in EXCHANGES else day * DAY_MS


def moment(market: AssetType, at_ms: int) -> tuple[int, int]:
    """Return the market's day at a time, and how many milliseconds of it have passed."""
    if market not in EXCHANGES:
        return divmod(at_ms, DAY_MS)
    day = (at_ms - _EARLIEST_OFFSET_MS) // DAY_MS
    # In summer New York's day begins an hour earlier.
    day += at_ms >= _new_york_midnight_ms(day + 1)
    return day, at_ms - _new_york_midnight_ms(day)


@lru_cache(maxsize=20_000)
def _new_york_midnight_ms(day: int) -> int:
    return int(datetime.combine(date_of(day), time(0), NEW_YORK).timestamp()) * 1000
