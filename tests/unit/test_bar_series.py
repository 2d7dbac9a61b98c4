"""A series of bars by column: the same bars, whichever way they are looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from assetbatch.bar_series import BarSeries
from assetbatch.bars import LENGTH
from assetbatch.model import Bar

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
few = settings(max_examples=50)
numbers = st.decimals(0, 1000, places=8)


bars_at = st.tuples(
    st.integers(0, 50).map(lambda window: NOON + window * LENGTH),
    *(numbers for _ in range(4)),
    st.none() | numbers,
    st.none() | numbers,
    st.none() | st.integers(0, 2**31),
).map(lambda values: Bar(*values))


def series() -> st.SearchStrategy[list[Bar]]:
    in_order = st.lists(bars_at, max_size=12, unique_by=lambda bar: bar.ts)
    return in_order.map(lambda bars: sorted(bars, key=lambda bar: bar.ts))


@given(series())
@few
def test_a_series_has_the_bars_that_it_is_of_digit_by_digit(bars: list[Bar]) -> None:
    found = BarSeries.of(bars)

    assert (list(found), len(found)) == (bars, len(bars))
    assert [str(one) for one in found] == [str(one) for one in bars]
    assert [found[at] for at in range(len(bars))] == bars
    assert found.times == tuple(one.ts for one in bars)


@given(series(), st.integers(0, 12), st.integers(0, 12))
@few
def test_a_part_of_a_series_is_the_series_of_that_part(bars: list[Bar], first: int, behind: int) -> None:
    assert BarSeries.of(bars)[first:behind] == BarSeries.of(bars[first:behind])


@given(series(), st.sets(st.integers(0, 50)))
@few
def test_without_some_times_the_others_are_left(bars: list[Bar], windows: set[int]) -> None:
    times = {NOON + window * LENGTH for window in windows}

    assert BarSeries.of(bars).without(times) == BarSeries.of(one for one in bars if one.ts not in times)


def test_a_series_of_no_bars_is_empty() -> None:
    assert BarSeries.of([]) == BarSeries() == BarSeries()[:3] == BarSeries.of([]).without({NOON})
    assert not BarSeries()
    assert list(BarSeries()) == []


def test_there_are_bars_of_nothing_that_was_traded() -> None:
    one = Decimal("3822.390")

    assert list(BarSeries.of([Bar(NOON, one, one, one, one, None)])) == [Bar(NOON, one, one, one, one, None)]


def test_digits_stay_as_they_were_written() -> None:
    written = BarSeries((NOON,), ("1.50", "1.5E+1", "1.0e-7", "2", "0", "null", "null"))

    (bar,) = written
    assert str(bar.open) == "1.50"
    assert (bar.high, bar.low, bar.volume) == (Decimal(15), Decimal("0.0000001"), Decimal(0))
    assert (bar.vwap, bar.trades) == (None, None)
