"""When stocks and indices trade: two years of sessions against a list by hand of what the exchanges have published."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from assetbatch import market_hours
from assetbatch.markets import Market
from assetbatch.model import AssetType, Span

NEW_YORK = ZoneInfo("America/New_York")
STOCKS, INDICES = Market.STOCKS, Market.INDICES
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

# https://www.nyse.com/markets/hours-calendars and https://www.nasdaq.com/market-activity/stock-market-holiday-schedule
CLOSED = {
    date(2026, 1, 1): "New Year",
    date(2026, 1, 19): "Martin Luther King",
    date(2026, 2, 16): "Washington",
    date(2026, 4, 3): "Good Friday",
    date(2026, 5, 25): "Memorial Day",
    date(2026, 6, 19): "Juneteenth",
    date(2026, 7, 3): "Independence Day, a Saturday",
    date(2026, 9, 7): "Labor Day",
    date(2026, 11, 26): "Thanksgiving",
    date(2026, 12, 25): "Christmas",
    date(2027, 1, 1): "New Year",
    date(2027, 1, 18): "Martin Luther King",
    date(2027, 2, 15): "Washington",
    date(2027, 3, 26): "Good Friday",
    date(2027, 5, 31): "Memorial Day",
    date(2027, 6, 18): "Juneteenth, a Saturday",
    date(2027, 7, 5): "Independence Day, a Sunday",
    date(2027, 9, 6): "Labor Day",
    date(2027, 11, 25): "Thanksgiving",
    date(2027, 12, 24): "Christmas, a Saturday",
}
UNTIL_13 = {
    date(2026, 11, 27): "the day after Thanksgiving",
    date(2026, 12, 24): "Christmas Eve",
    date(2027, 11, 26): "the day after Thanksgiving",
}
DAYS = [date(2026, 1, 1) + number * DAY for number in range(730)]
SESSIONS = [day for day in DAYS if day.isoweekday() <= 5 and day not in CLOSED]

# Greenwich is ahead of New York by 4 hours from the second Sunday of March to the first of November, else by 5; on the
# Sundays themselves from 2 o'clock on: only their midnights matter here.
SUMMERS = [(date(2026, 3, 8), date(2026, 11, 1)), (date(2027, 3, 14), date(2027, 11, 7))]


def utc(day: date, hours: int, minutes: int = 0) -> datetime:
    """A time of New York's, by hand."""
    ahead = 4 if any(begin < day <= end for begin, end in SUMMERS) else 5
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours + ahead, minutes=minutes)


def sessions(market: Market, *, regular: bool) -> list[Span]:
    """All sessions of the two years, by hand: with what goes on around those of stocks, unless they are `regular`."""
    found = []
    for day in SESSIONS:
        closes = 13 if day in UNTIL_13 else 16
        is_whole = regular or market is INDICES
        found.append(Span(utc(day, 9, 30), utc(day, closes)) if is_whole else Span(utc(day, 4), utc(day, closes + 4)))
    return found


BOTH = pytest.mark.parametrize(("market", "regular"), [(STOCKS, False), (STOCKS, True), (INDICES, False)])


@BOTH
def test_two_years_of_sessions_open_and_close_to_the_minute(market: Market, *, regular: bool) -> None:
    before = None
    for span in sessions(market, regular=regular):
        opens, closes = span.since, span.until
        edges = {opens - MINUTE: False, opens: True, opens + MINUTE: True}
        edges |= {closes - MINUTE: True, closes: False, closes + MINUTE: False}
        for moment, is_open in edges.items():
            assert market_hours.is_open(market, moment, regular=regular) is is_open, moment
            closed_at = market_hours.last_close(market, moment, regular=regular)
            assert closed_at == (None if is_open else closes if moment >= closes else closed_at)
            if before is not None and moment < opens:
                assert closed_at == before
        before = closes


@BOTH
def test_nothing_is_open_between_the_sessions_of_two_years(market: Market, *, regular: bool) -> None:
    spans = sessions(market, regular=regular)
    begin, end = utc(DAYS[0], 0), utc(DAYS[-1] + DAY, 0)
    ends = [begin, *(moment for span in spans for moment in (span.since, span.until)), end]
    rests = [Span(since, until) for since, until in zip(ends[::2], ends[1::2], strict=True)]

    assert not any(market_hours.open_time(market, one.since, one.until, regular=regular) for one in rests)
    whole = market_hours.open_time(market, begin, end, regular=regular)
    assert whole == sum((span.until - span.since for span in spans), timedelta(0))
    if not regular:
        assert market_hours.closed_spans(market, begin, end) == rests


@pytest.mark.parametrize("asset_type", [AssetType.STOCKS, AssetType.INDICES])
def test_days_with_figures_are_those_with_a_session_and_end_with_it(asset_type: AssetType) -> None:
    assert [day for day in DAYS if market_hours.trades_on(asset_type, day)] == SESSIONS
    for day in SESSIONS:
        assert market_hours.end_of_day(asset_type, day) == utc(day, 13 if day in UNTIL_13 else 16)
        assert market_hours.day_begins_at(asset_type, day) == utc(day, 0)


@pytest.mark.parametrize("asset_type", [AssetType.STOCKS, AssetType.INDICES])
def test_a_day_is_finished_at_midnight_in_new_york(asset_type: AssetType) -> None:
    done = date(2025, 12, 31)
    for day in DAYS:
        over = utc(day + DAY, 0)
        assert market_hours.day_over_at(day) == over
        assert next(market_hours.finished_days(asset_type, over - MINUTE)) == done
        done = day if day in SESSIONS else done
        assert next(market_hours.finished_days(asset_type, over)) == done
