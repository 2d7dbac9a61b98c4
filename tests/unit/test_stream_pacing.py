"""How long to wait between connections: never in a hot loop, never in a war for the account's one place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assetbatch.stream.pacing import (
    FIRST_SECONDS,
    LONGEST_REST_SECONDS,
    LONGEST_SECONDS,
    REFUSED,
    REFUSED_SECONDS,
    REST_SECONDS,
    STEADY_SECONDS,
    Cause,
    Ending,
    Pacing,
)

# What is waited for longer and longer.
FAILING = sorted(set(Cause) - REFUSED - {Cause.TOO_MANY, Cause.HALTED})
endings = st.builds(
    Ending,
    st.sampled_from(FAILING),
    st.just(""),
    st.floats(0, 3 * STEADY_SECONDS),
    st.booleans(),
)


@given(st.lists(endings, max_size=50))
def test_each_pause_is_within_its_bounds_and_begins_anew_only_after_a_good_connection(found: list[Ending]) -> None:
    pacing, failures = Pacing(), 0
    for ending in found:
        is_good = ending.had_data and ending.lasted_seconds >= STEADY_SECONDS
        failures = 1 if is_good else failures + 1
        longest = min(FIRST_SECONDS * 2 ** (failures - 1), LONGEST_SECONDS)
        assert longest / 2 <= pacing.pause(ending) <= longest


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_attempts_in_any_time_are_what_the_backoff_allows(data: list[bool]) -> None:
    """Drops as quick as they can be, with and without data: authenticated is not well."""
    pacing = Pacing()
    pauses = [pacing.pause(Ending(Cause.DROPPED, "", 0.1, had)) for had in data]
    assert all(pause >= LONGEST_SECONDS / 2 for pause in pauses[7:])


@given(st.lists(st.floats(0, 2 * LONGEST_REST_SECONDS), min_size=1, max_size=30))
def test_who_was_evicted_rests_a_minute_at_least_and_longer_each_time(lasted: list[float]) -> None:
    pacing, row = Pacing(), 0
    for seconds in lasted:
        row = 1 if seconds > LONGEST_REST_SECONDS else row + 1
        rest = pacing.pause(Ending(Cause.TOO_MANY, "", seconds, had_data=True))
        least = min(REST_SECONDS * 2 ** (row - 1), LONGEST_REST_SECONDS)
        assert rest >= REST_SECONDS
        assert least <= rest <= least * 1.25


def test_a_good_connection_before_an_eviction_does_not_shorten_the_rest() -> None:
    pacing = Pacing()
    first = pacing.pause(Ending(Cause.TOO_MANY, "", 60, had_data=True))
    pacing.pause(Ending(Cause.DROPPED, "", 60, had_data=True))
    assert pacing.pause(Ending(Cause.TOO_MANY, "", 60, had_data=True)) > first


def test_what_was_refused_is_asked_for_again_hourly_however_often() -> None:
    pacing = Pacing()
    for cause in REFUSED:
        assert [pacing.pause(Ending(cause, "")) for _ in range(3)] == [REFUSED_SECONDS] * 3


def test_pauses_of_many_hosts_differ() -> None:
    pauses = {Pacing().pause(Ending(Cause.DROPPED, "")) for _ in range(50)}
    assert len(pauses) > 40
