"""Holidays as the vendor lists them: asked for once a week, kept, and known to whoever looks at a clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from assetbatch import market_hours
from assetbatch.database import holidays
from assetbatch.markets import Market
from tests.conftest import open_database
from tests.world import DAY, HOUR, TUESDAY

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

NEW_YORK = ZoneInfo("America/New_York")
THANKSGIVING, FRIDAY, CHRISTMAS = date(2026, 11, 26), date(2026, 11, 27), date(2026, 12, 25)
# No rule knows it.
MOURNING = date(2026, 11, 30)


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), NEW_YORK).astimezone(UTC)


def listed(connection: Connection, now: datetime = TUESDAY) -> holidays.Listed:
    return connection.answer(holidays.listed(now))


def store(connection: Connection, days: dict[date, time | None], now: datetime = TUESDAY) -> None:
    connection.answer(holidays.storing(days, now))


def test_the_list_is_asked_for_a_week_after_it_was_had_and_a_day_after_it_was_not(connection: Connection) -> None:
    assert listed(connection) == holidays.Listed({}, is_due=True)
    assert holidays.take_turn(connection, TUESDAY)
    assert not listed(connection, TUESDAY + DAY - HOUR).is_due
    assert listed(connection, TUESDAY + DAY).is_due
    assert holidays.take_turn(connection, TUESDAY + DAY)
    store(connection, {THANKSGIVING: None}, TUESDAY + DAY)
    assert not listed(connection, TUESDAY + 8 * DAY - HOUR).is_due
    assert listed(connection, TUESDAY + 8 * DAY).is_due


def test_what_a_clock_wrote_that_was_ahead_does_not_hold_the_list_up(connection: Connection) -> None:
    holidays.take_turn(connection, TUESDAY + HOUR)
    store(connection, {THANKSGIVING: None}, TUESDAY + HOUR)

    assert listed(connection).is_due
    assert holidays.take_turn(connection, TUESDAY)


def test_one_of_two_runs_asks_and_another_one_once_its_call_did_not_leave(
    connection: Connection, database: str
) -> None:
    with open_database(database) as other:
        assert holidays.take_turn(connection, TUESDAY)
        assert not holidays.take_turn(other, TUESDAY + timedelta(seconds=1))
        holidays.give_back_turn(connection)
        assert holidays.take_turn(other, TUESDAY + timedelta(seconds=2))


def test_what_is_listed_takes_precedence_over_the_rule(connection: Connection) -> None:
    assert market_hours.is_open(Market.STOCKS, noon(MOURNING))
    store(connection, {MOURNING: None, FRIDAY: None, CHRISTMAS: time(13)})
    assert market_hours.is_open(Market.STOCKS, noon(MOURNING))

    # Whoever reads it knows it from then on.
    assert listed(connection).days == {MOURNING: None, FRIDAY: None, CHRISTMAS: time(13)}

    assert not market_hours.is_open(Market.STOCKS, noon(MOURNING))
    assert not market_hours.is_open(Market.STOCKS, noon(FRIDAY))
    assert market_hours.is_open(Market.INDICES, noon(CHRISTMAS))
    assert not market_hours.is_open(Market.INDICES, noon(THANKSGIVING))
    assert market_hours.is_open(Market.FOREX, noon(MOURNING))


def test_a_day_that_is_listed_no_more_is_as_others_and_one_that_is_over_stays(connection: Connection) -> None:
    store(connection, {THANKSGIVING: None, MOURNING: None, CHRISTMAS: None})
    # The list of a holiday itself may have it, or not.
    on_thanksgiving = noon(THANKSGIVING)
    store(connection, {CHRISTMAS: None}, on_thanksgiving)

    assert listed(connection, on_thanksgiving).days == {THANKSGIVING: None, CHRISTMAS: None}


def test_days_of_a_list_may_change(connection: Connection) -> None:
    store(connection, {FRIDAY: None, CHRISTMAS: time(13)})
    store(connection, {FRIDAY: time(13), CHRISTMAS: None}, TUESDAY + HOUR)

    assert listed(connection).days == {FRIDAY: time(13), CHRISTMAS: None}
