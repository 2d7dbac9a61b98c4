from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.market_hours import open_time
from assetbatch.markets import Market
from assetbatch.report.freshness import market_time_ago
from assetbatch.words import counted, duration, named, until, utc
from tests.world import TUESDAY


@given(
    market=st.sampled_from(Market),
    seconds=st.integers(1, 3 * 86_400),
    now=st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_so_much_market_time_ago_is_that_much_open_time_and_no_less(
    market: Market, seconds: int, now: datetime
) -> None:
    length = timedelta(seconds=seconds)

    since = market_time_ago(market, length, now)

    assert open_time(market, since, now, regular=True) == length
    assert open_time(market, since + timedelta(seconds=1), now, regular=True) < length


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (-5, "0 s")]
)
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("names", "total", "words"),
    [([], 2, "2 assets"), (["A"], 1, "A"), (list("ABCDEF"), 6, "A, B, C, D, E and 1 more"), (["A"], 9, "A and 8 more")],
)
def test_the_first_of_many_are_named(names: list[str], total: int, words: str) -> None:
    assert named(names, total) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(3599, "in 59 min 59 s"), (3600, "in 60 min"), (7200, "in 2 h"), (-1, "in 0 s")]
)
def test_what_is_expected_is_told_to_the_second_within_the_hour(seconds: int, words: str) -> None:
    assert until(TUESDAY + timedelta(seconds=seconds), TUESDAY) == words


def test_thousands_are_told_apart() -> None:
    assert (counted(1, "bar"), counted(12_345, "bar")) == ("1 bar", "12,345 bars")
    assert named(["A"], 2_001) == "A and 2,000 more"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "2026-11-17 13:04 UTC"),
        ({"seconds": True}, "2026-11-17 13:04:05 UTC"),
        ({"seconds": True, "today": TUESDAY}, "13:04:05 UTC"),
        ({"seconds": True, "today": TUESDAY + timedelta(days=1)}, "11-17 13:04 UTC"),
        ({"seconds": True, "today": TUESDAY + timedelta(days=60)}, "2026-11-17 13:04:05 UTC"),
        ({"today": TUESDAY, "zone": False}, "13:04"),
    ],
)
def test_a_time_says_that_it_is_of_utc_and_no_more_than_it_has_to(options: dict[str, Any], words: str) -> None:
    at = datetime(2026, 11, 17, 14, 4, 5, tzinfo=timezone(timedelta(hours=1)))

    assert utc(at, **options) == words
