"""Against the calendars that the exchange has published, by hand."""

from datetime import date, time

import pytest

from assetbatch.calendars import easter, learn, new_york_stock_exchange

PUBLISHED = {
    2021: ("01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24", "11-26"),
    2022: ("01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26", "11-25"),
    2023: ("01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25", "07-03 11-24"),
    2024: ("01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25", "07-03 11-29 12-24"),
    2025: ("01-01 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25", "07-03 11-28 12-24"),
    2026: ("01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25", "11-27 12-24"),
    2027: ("01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24", "11-26"),
    2028: ("01-17 02-21 04-14 05-29 06-19 07-04 09-04 11-23 12-25", "07-03 11-24"),
}


@pytest.mark.parametrize("year", PUBLISHED)
def test_holidays_and_half_days_are_those_that_were_published(year: int) -> None:
    closed, early = ({date.fromisoformat(f"{year}-{day}") for day in days.split()} for days in PUBLISHED[year])

    found = new_york_stock_exchange(year)

    assert {day for day, closes in found.items() if closes is None} == closed
    assert {day for day, closes in found.items() if closes == time(13)} == early


def test_easter() -> None:
    assert [easter(year) for year in (1818, 2000, 2019, 2024, 2038)] == [
        date(1818, 3, 22),
        date(2000, 4, 23),
        date(2019, 4, 21),
        date(2024, 3, 31),
        date(2038, 4, 25),
    ]


def test_what_was_learnt_takes_precedence_until_something_else_is() -> None:
    by_rule = dict(new_york_stock_exchange(2026))
    mourning, christmas_eve, new_year = date(2026, 12, 1), date(2026, 12, 24), date(2027, 1, 1)

    learn({mourning: None, christmas_eve: None, new_year: time(13)})

    assert new_york_stock_exchange(2026) == by_rule | {mourning: None, christmas_eve: None}
    assert new_york_stock_exchange(2027)[new_year] == time(13)
    learn({})
    assert new_york_stock_exchange(2026) == by_rule
