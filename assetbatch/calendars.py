"""Days on which markets rest, or close early; exchanges by rule: https://www.nyse.com/markets/hours-calendars.

What the vendor says of the days that come takes precedence, where that is known: a day of mourning follows no rule.
"""

from __future__ import annotations

from datetime import date, time, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

MONDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 3, 4, 5, 6
HALF_DAY = time(13)
FIRST_JUNETEENTH = 2022

Exceptions = dict[date, "time | None"]
"""Days that are not as others: when the session closes then; None: there is none."""


class _Listed(Struct, frozen=True, eq=False):
    days: Mapping[date, time | None]


_listed = _Listed({})


def learn(listed: Mapping[date, time | None]) -> None:
    """Let these days of New York's exchanges take precedence over the rule, in all of this process from now on."""
    global _listed  # noqa: PLW0603 - what is known of the world is one for all of a process
    if listed != _listed.days:
        _listed = _Listed(dict(listed))


@cache
def christmas_and_new_year(year: int) -> Mapping[date, time | None]:
    """Return the days on which currencies rest."""
    return {date(year, 12, 25): None, date(year, 1, 1): None}


def new_york_stock_exchange(year: int) -> Mapping[date, time | None]:
    """Return the holidays of a year, and its half days: as the vendor lists them, as far as that is known."""
    return _new_york_stock_exchange(year, _listed)


@lru_cache
def _new_york_stock_exchange(year: int, listed: _Listed) -> Mapping[date, time | None]:
    return {**by_rule(year), **{day: closes for day, closes in listed.days.items() if day.year == year}}


@cache
def by_rule(year: int) -> Mapping[date, time | None]:
    """Return the holidays of a year of New York's exchanges, and its half days, by their own rules."""
    thanksgiving = _nth(year, 11, THURSDAY, 4)
    holidays = [
        _nth(year, 1, MONDAY, 3),  # Martin Luther King
        _nth(year, 2, MONDAY, 3),  # Washington
        easter(year) - timedelta(days=2),
        _nth(year, 6, MONDAY, 1) - timedelta(days=7),  # Memorial Day, the last Monday of May
        _observed(date(year, 7, 4)),
        _nth(year, 9, MONDAY, 1),  # Labor Day
        thanksgiving,
        _observed(date(year, 12, 25)),
    ]
    new_year = date(year, 1, 1)
    # On a Saturday nobody rests for it: the Friday before ends a year.
    holidays += [] if new_year.weekday() == SATURDAY else [_observed(new_year)]
    holidays += [_observed(date(year, 6, 19))] if year >= FIRST_JUNETEENTH else []
    half_days = [date(year, 7, 3), thanksgiving + timedelta(days=1), date(year, 12, 24)]
    # On a Friday the day before a holiday is the holiday, on a weekend it is none at all.
    early: Exceptions = {day: HALF_DAY for day in half_days if day.weekday() < FRIDAY or day == half_days[1]}
    return early | dict.fromkeys(holidays)


def _nth(year: int, month: int, weekday: int, number: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (number - 1))


def _observed(day: date) -> date:
    """Return when a holiday is kept: on the Friday before a Saturday, on the Monday after a Sunday."""
    return day + timedelta(days={SATURDAY: -1, SUNDAY: 1}.get(day.weekday(), 0))


def easter(year: int) -> date:
    """Return Easter Sunday of the Gregorian calendar, by the rule of Meeus, Jones and Butcher."""
    golden, (century, rest) = year % 19, divmod(year, 100)
    leaps, left = divmod(century, 4)
    moon = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leaps - moon + 15) % 30
    quads, ones = divmod(rest, 4)
    sunday = (32 + 2 * left + 2 * quads - epact - ones) % 7
    late = (golden + 11 * epact + 22 * sunday) // 451
    month, day = divmod(epact + sunday - 7 * late + 114, 31)
    return date(year, month, day + 1)
