"""The pure core of the bars: what to ask for, and what a page is good for, for all inputs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetbatch import bars as core
from assetbatch.bar_series import BarSeries
from assetbatch.bars import LENGTH, ONE_PAGE, Track
from assetbatch.model import Asset, AssetType, Bar, Role, Span

ASSET = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
SETTLE = timedelta(seconds=90)
RECHECK = timedelta(hours=48)

few = settings(max_examples=50)
windows = st.sets(st.integers(0, 40), max_size=40).map(sorted)
prices = st.decimals("0.00000001", "100000", places=8)
volumes = st.decimals(0, 1000, places=3)


def bar(ts: datetime, price: str = "1") -> Bar:
    one = Decimal(price)
    return Bar(ts, one, one, one, one, volume=Decimal(1))


def at(window: int) -> datetime:
    return NOON + window * LENGTH


def span(since: int, until: int) -> Span:
    return Span(at(since), at(until))


@given(st.integers(0, 10**10))
@few
def test_a_moment_is_in_the_window_that_it_is_said_to_be_in(seconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)

    begin = core.floor(moment)

    assert begin <= moment < begin + LENGTH
    assert (begin.minute % 5, begin.second, begin.microsecond) == (0, 0, 0)


def test_a_new_asset_is_asked_for_since_it_is_wanted() -> None:
    track = Track(ASSET, wanted_since=NOON - 2 * DAY)

    assert core.tail(track, until=NOON, now=NOON, recheck=RECHECK) == Span(NOON - 2 * DAY, NOON)


def test_of_a_long_time_the_newest_page_comes_first() -> None:
    track = Track(ASSET, wanted_since=NOON - 730 * DAY)

    assert core.tail(track, until=NOON, now=NOON, recheck=RECHECK) == Span(NOON - ONE_PAGE, NOON)


def test_the_newest_final_bar_is_asked_for_again_and_once_a_day_what_may_be_corrected() -> None:
    track = Track(
        ASSET,
        wanted_since=NOON - 30 * DAY,
        asked_until=NOON,
        watermark=NOON - LENGTH,
        rechecked_at=NOON - timedelta(hours=22),
    )
    until = NOON + 3 * LENGTH

    assert core.tail(track, until=until, now=NOON, recheck=RECHECK) == Span(NOON - LENGTH, until)
    later = NOON + timedelta(hours=1)
    assert core.tail(track, until=until, now=later, recheck=RECHECK) == Span(NOON - LENGTH - RECHECK, until)


def test_what_was_asked_for_already_needs_no_call() -> None:
    track = Track(ASSET, wanted_since=NOON - DAY, asked_until=NOON, watermark=NOON - LENGTH)

    assert core.tail(track, until=NOON, now=NOON, recheck=RECHECK) is None
    assert core.tail(track, until=NOON - LENGTH, now=NOON, recheck=RECHECK) is None


def test_a_ticker_without_bars_is_asked_only_for_what_is_new() -> None:
    track = Track(ASSET, wanted_since=NOON - 30 * DAY, asked_until=NOON)

    assert core.tail(track, until=at(6), now=at(7), recheck=RECHECK) == span(0, 6)


@pytest.mark.parametrize(
    ("unadjusted", "since"),
    [
        # All of it fits: whatever else is asked for comes along with it.
        (Span(NOON - 20 * DAY, NOON - DAY), NOON - 20 * DAY),
        # As much as fits; it is the newest part.
        (Span(NOON - 35 * DAY, NOON - DAY), NOON - ONE_PAGE),
        # None of it would fit: that is left to spare slots, and the call is as short as ever.
        (Span(NOON - 60 * DAY, NOON - ONE_PAGE), NOON - LENGTH),
    ],
)
def test_what_a_split_has_changed_comes_along_with_the_newest_bars_as_far_as_it_fits(
    unadjusted: Span, since: datetime
) -> None:
    track = Track(
        ASSET,
        wanted_since=NOON - 90 * DAY,
        asked_until=NOON - LENGTH,
        rechecked_at=NOON,
        watermark=NOON - LENGTH,
        unadjusted=unadjusted,
    )

    assert core.tail(track, until=NOON, now=NOON, recheck=RECHECK) == Span(since, NOON)


@given(
    st.integers(0, 300_000),
    st.none() | st.integers(-300_000, 1000),
    st.none() | st.integers(-300_000, 1000),
    st.integers(0, 9000),
    st.booleans(),
)
@few
def test_a_tail_is_one_page_of_what_is_wanted_up_to_the_end(
    wanted: int, asked: int | None, watermark: int | None, recheck_hours: int, rechecked: bool
) -> None:
    track = Track(
        ASSET,
        wanted_since=at(-wanted),
        asked_until=None if asked is None else at(asked),
        watermark=None if watermark is None else at(watermark),
        rechecked_at=NOON if rechecked else None,
    )

    found = core.tail(track, until=NOON, now=NOON, recheck=timedelta(hours=recheck_hours))

    begun = track.watermark or track.asked_until or track.wanted_since
    if found is None:
        assert NOON in {min(NOON, moment) for moment in (track.asked_until, begun, track.wanted_since) if moment}
    else:
        assert track.asked_until is None or track.asked_until < NOON
        assert found.until == NOON
        assert track.wanted_since <= found.since < NOON
        assert NOON - found.since <= ONE_PAGE
        assert found.since <= max(begun, track.wanted_since, NOON - ONE_PAGE)


@given(st.lists(st.integers(1, 20_000), max_size=12))
@few
def test_every_hole_is_asked_for_in_the_end_and_calls_are_not_wasted(steps: list[int]) -> None:
    # Gaps and holes in turns.
    edges = [0]
    for step in steps:
        edges.append(edges[-1] + step)
    holes = [span(since, until) for since, until in zip(edges[1::2], edges[2::2], strict=False)]
    left, asked = list(holes), []

    while left:
        found = core.next_hole(left)
        assert found is not None
        assert found.until == left[-1].until
        covered = [hole for hole in left if hole.since >= found.since]
        assert len(covered) == 1 or found.until - found.since <= ONE_PAGE
        asked.append(found)
        left = left[: -len(covered)]

    assert core.next_hole([]) is None
    for later, earlier in pairwise(asked):
        # A call that could have taken the hole before it, too, would have.
        last = next(hole for hole in holes if hole.until == earlier.until)
        assert later.until - last.since > ONE_PAGE


@given(windows, st.integers(0, 40), st.integers(0, 45))
@few
def test_each_window_that_a_page_covers_has_a_bar_or_is_absent(found: list[int], since: int, asked: int) -> None:
    wanted = span(since, 41)
    page = BarSeries.of(bar(at(window)) for window in found if window >= since)

    judged = core.judge(wanted, page, more=False, asked_at=at(asked) + SETTLE, settle=SETTLE)

    assert judged.whole
    assert judged.until == at(max(since, min(41, asked)))
    absent = {at(number) for number in range(41) for one in judged.absent if one.since <= at(number) < one.until}
    kept = set(judged.bars.times)
    assert kept == {one.ts for one in page}
    assert absent.isdisjoint(kept)
    assert absent | {ts for ts in kept if ts < judged.until} == {
        at(n) for n in range(since, max(since, min(41, asked)))
    }
    for one in judged.bars:
        assert (one.ts + LENGTH <= judged.until) == (one.ts + LENGTH <= min(at(asked), wanted.until))
    assert judged.has_final == any(ts + LENGTH <= judged.until for ts in kept)
    assert all(first.until < second.since for first, second in pairwise(judged.absent))


@given(windows.filter(bool))
@few
def test_of_a_page_that_is_cut_the_last_bar_is_left_to_the_next(found: list[int]) -> None:
    page = BarSeries.of(bar(at(window)) for window in found)

    judged = core.judge(span(found[0], 900), page, more=True, asked_at=at(1000), settle=SETTLE)

    assert not judged.whole
    if len(found) == 1:
        # Else the next call would be the same one.
        assert judged.until == at(found[0] + 1)
        assert list(judged.bars.times) == [at(found[0])]
    else:
        assert judged.until == at(found[-1])
        assert list(judged.bars.times) == [at(window) for window in found[:-1]]
    assert all(ts + LENGTH <= judged.until for ts in judged.bars.times)
    assert all(one.until <= judged.until for one in judged.absent)


def test_a_bar_is_final_once_it_was_asked_for_after_it_had_settled() -> None:
    page = BarSeries.of([bar(at(0))])

    for late, expected in ((SETTLE - MINUTE / 60, False), (SETTLE, True)):
        judged = core.judge(span(0, 1), page, more=False, asked_at=at(1) + late, settle=SETTLE)
        assert judged.has_final == expected
        assert judged.until == (at(1) if expected else at(0))


def test_rows_that_are_no_bars_are_told_by_the_windows_they_are_in() -> None:
    judged = core.judge(
        span(0, 4),
        BarSeries.of([bar(at(0))]),
        more=False,
        invalid=[at(2) + MINUTE, at(2) + 3 * MINUTE, at(1)],
        asked_at=at(9),
        settle=SETTLE,
    )

    assert judged.invalid == (span(1, 2), span(2, 3))
    assert judged.absent == (span(1, 4),)


def test_a_window_that_lacks_a_minute_has_no_bar() -> None:
    minutes = [bar(at(0) + number * MINUTE) for number in (0, 1, 3, 4, 5, 6)]

    judged = core.judge(
        span(0, 2), core.built(minutes), more=False, invalid=[at(0) + 2 * MINUTE], asked_at=at(9), settle=SETTLE
    )

    assert list(judged.bars.times) == [at(1)]
    assert judged.invalid == (span(0, 1),)


@st.composite
def minute_bars(draw: st.DrawFn) -> list[Bar]:
    times = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    # Of an index nothing is traded.
    traded = draw(st.just(volumes) | st.just(st.none()))
    made = []
    for time in times:
        low, opened, closed, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        average = draw(st.none() | prices)
        count = draw(st.none() | st.integers(0, 1000))
        made.append(Bar(NOON + time * MINUTE, opened, high, low, closed, draw(traded), average, count))
    return made


@given(minute_bars())
@few
def test_bars_are_built_as_aggregation_says(minutes: list[Bar]) -> None:
    found = core.built(minutes)

    assert [one.ts for one in found] == sorted({core.floor(one.ts) for one in minutes})
    for one in found:
        parts = [part for part in minutes if one.ts <= part.ts < one.ts + LENGTH]
        assert (one.open, one.close) == (parts[0].open, parts[-1].close)
        assert (one.high, one.low) == (max(part.high for part in parts), min(part.low for part in parts))
        amounts = [part.volume for part in parts if part.volume is not None]
        assert one.volume == (sum(amounts) if amounts else None)
        counts = [part.trades for part in parts if part.trades is not None]
        assert one.trades == (sum(counts) if counts else None)
        weighted = [(part.vwap, part.volume) for part in parts if part.vwap is not None and part.volume]
        if not weighted:
            assert one.vwap is None
            continue
        assert one.vwap is not None
        worth = sum((price * volume for price, volume in weighted), Decimal(0))
        whole = sum((volume for _, volume in weighted), Decimal(0))
        # Half a unit of the finest digit, as rounding leaves.
        assert abs(one.vwap - worth / whole) <= Decimal("0.000000006")


@pytest.mark.parametrize("digits", ["0.1", "123456789012345678.123456789012345678", "0.000000000000000001"])
def test_sums_of_the_longest_numbers_are_exact(digits: str) -> None:
    amount = Decimal(digits)
    minutes = [Bar(NOON + number * MINUTE, amount, amount, amount, amount, amount, amount) for number in range(5)]

    (found,) = core.built(minutes)

    with localcontext(prec=100):
        assert (found.vwap, found.volume) == (amount, 5 * amount)
