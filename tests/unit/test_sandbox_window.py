"""The strict sliding window, on a clock of its own, and the words of failure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from assetbatch.sandbox.faults import KINDS, Fault, Faults, read_word
from assetbatch.sandbox.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_clock(now: float) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now)

    return set_clock


def asked(window: Window, at: Callable[[float], None], *times: float) -> list[bool]:
    accepted = []
    for now in times:
        at(now)
        accepted.append(window.arrive(f"/{now}")[1])
    return accepted


def test_the_sixth_in_a_minute_is_refused_and_let_in_when_the_first_is_a_minute_old(
    at: Callable[[float], None],
) -> None:
    window = Window(5, 60.0, keep_arrivals=True)
    assert asked(window, at, 0, 1, 2, 3, 59) == [True] * 5
    assert asked(window, at, 59, 59.999) == [False, False]
    assert asked(window, at, 60, 60.5, 61) == [True, False, True]  # (0, 60] does not hold the one at 0
    assert [arrival.status for arrival in window.arrivals] == [0, 0, 0, 0, 0, 429, 429, 0, 429, 0]


def test_refusals_are_not_counted(at: Callable[[float], None]) -> None:
    window = Window(1, 10.0, keep_arrivals=True)
    assert asked(window, at, 0, *range(1, 10), 10) == [True, *[False] * 9, True]


def test_no_limit_refuses_nothing(at: Callable[[float], None]) -> None:
    window = Window(None, 60.0, keep_arrivals=True)
    assert all(asked(window, at, *[5.0] * 1000))
    assert len(window.arrivals) == 1000


def test_the_status_is_noted_though_others_arrived_meanwhile() -> None:
    window = Window(None, 60.0, keep_arrivals=True)
    first, _ = window.arrive("/first")
    second, _ = window.arrive("/second")
    window.answered(first, 200)
    assert [(arrival.path, arrival.status) for arrival in window.arrivals] == [("/first", 200), ("/second", 0)]
    window.arrivals.clear()
    window.answered(second, 404)
    assert window.arrivals == []


def test_arrivals_are_not_kept_when_not_asked_for() -> None:
    window = Window(2, 60.0, keep_arrivals=False)
    kept = [window.arrive("/")[1] for _ in range(3)]
    window.answered(window.arrive("/")[0], 429)
    assert kept == [True, True, False]
    assert window.arrivals == []


@pytest.mark.parametrize(("limit", "seconds"), [(0, 60.0), (-1, 60.0), (5, 0.0), (5, -1.0)])
def test_a_window_that_makes_no_sense_is_refused(limit: int, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"lets nothing in|is no window"):
        Window(limit, seconds, keep_arrivals=True)


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("500", Fault("500")),
        ("zero:C:XAUUSD", Fault("zero", "C:XAUUSD")),
        ("timeout@0.25", Fault("timeout", "", 0.25)),
        ("403-today:/grouped/@0.5", Fault("403-today", "/grouped/", 0.5)),
    ],
)
def test_words_are_read(word: str, fault: Fault) -> None:
    assert read_word(word) == fault


@pytest.mark.parametrize("word", ["", "5oo", "zero@2", "zero@x", "zero@nan", "zero@-0.1", ":C:XAUUSD", "@1"])
def test_an_unknown_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"unknown failure|no probability"):
        Faults(["500", word], seed=0)


def test_the_refusal_names_the_words_that_exist() -> None:
    with pytest.raises(ValueError, match="unknown failure") as caught:
        read_word("nonsense")
    assert all(kind in str(caught.value) for kind in KINDS)


def test_chance_is_repeatable_and_about_as_likely_as_asked() -> None:
    def draws() -> list[bool]:
        faults = Faults(["delayed@0.3"], seed=5)
        return [faults.document("delayed", "/v3/snapshot") for _ in range(1000)]

    assert draws() == draws()
    assert 230 < sum(draws()) < 370


def test_a_match_is_looked_for_in_the_path_as_sent_and_as_meant() -> None:
    faults = Faults(["delayed:C:EURUSD"], seed=0)
    assert faults.document("delayed", "/v3/snapshot?ticker.any_of=C%3AEURUSD")
    assert faults.document("delayed", "/v2/aggs/ticker/C:EURUSD/prev")
    assert not faults.document("delayed", "/v2/aggs/ticker/C:GBPUSD/prev")
