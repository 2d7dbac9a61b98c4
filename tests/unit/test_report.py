from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.market_hours import open_time
from assetbatch.markets import Market
from assetbatch.report.freshness import market_time_ago
from assetbatch.words import duration, named, until
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
