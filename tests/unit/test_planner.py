from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch import planner, plans
from assetbatch.model import Asset, AssetType, CallKind, Product, Role
from assetbatch.planner import Candidate
from assetbatch.plans import PLANS, Entitlement, Mode
from tests.world import PROMPT

TUESDAY = datetime(2026, 11, 17, 12, 0, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


def asset(symbol: str = "EURUSD", *, frequency: int = 300) -> Asset:
    crypto = symbol.startswith("BTC")
    kind = AssetType.CRYPTO if crypto else AssetType.FOREX
    return Asset(symbol, f"{'X' if crypto else 'C'}:{symbol}", kind, Role.PRIORITY, 1, frequency)


GOLD, EURO, BITCOIN = asset("XAUUSD"), asset("EURUSD"), asset("BTCUSD")


def plan(
    *candidates: Candidate,
    now: datetime = TUESDAY,
    mode: Mode = Mode.LIVE,
    batch_size: int = 250,
    closed: frozenset[AssetType] = frozenset(),
) -> planner.Plan:
    return planner.plan(
        candidates,
        modes=dict.fromkeys(AssetType, mode),
        delays=PROMPT,
        batch_size=batch_size,
        now=now,
        days={},
        closed=closed,
    )


def test_one_call_for_all_in_their_order() -> None:
    (call,) = plan(Candidate(GOLD), Candidate(EURO), Candidate(BITCOIN)).calls

    assert (call.kind, call.symbols) == (CallKind.SNAPSHOT, ["XAUUSD", "EURUSD", "BTCUSD"])


def test_batch_size_1_means_a_single_ticker_call_each() -> None:
    calls = plan(Candidate(GOLD), Candidate(BITCOIN), batch_size=1).calls

    assert [(call.kind, call.symbols) for call in calls] == [
        (CallKind.SNAPSHOT_SINGLE, ["XAUUSD"]),
        (CallKind.SNAPSHOT_SINGLE, ["BTCUSD"]),
    ]


def test_a_thousand_assets_are_four_calls() -> None:
    assert len(planner.snapshots([asset(f"T{number}USD") for number in range(1000)], 250)) == 4


@given(st.lists(st.text("ABCDEFGHIJ", min_size=3, max_size=200), max_size=400), st.integers(2, 250))
def test_calls_cover_each_asset_once_and_fit_into_a_request_line(names: list[str], batch_size: int) -> None:
    assets = [asset(name) for name in names]

    calls = planner.snapshots(assets, batch_size)

    assert [one for call in calls for one in call.assets] == assets
    for call in calls:
        assert 1 <= len(call.assets) <= batch_size
        encoded = sum(len(one.polygon_ticker) + 5 for one in call.assets)
        assert encoded <= planner.MAX_TICKERS_LENGTH or len(call.assets) == 1


@pytest.mark.parametrize(
    ("configured", "of_plan", "snapshots", "expected"),
    [
        ("auto", "free", None, Mode.END_OF_DAY),
        ("auto", "starter", None, Mode.LIVE),
        ("live", "free", None, Mode.LIVE),
        ("end_of_day", "business", None, Mode.END_OF_DAY),
        ("auto", "starter", Entitlement(allowed=False, asked_at=TUESDAY - HOUR + INSTANT), Mode.END_OF_DAY),
        ("auto", "starter", Entitlement(allowed=False, asked_at=TUESDAY - HOUR), Mode.LIVE),
        ("live", "free", Entitlement(allowed=False, asked_at=TUESDAY - HOUR + INSTANT), Mode.END_OF_DAY),
        ("live", "free", Entitlement(allowed=False, asked_at=TUESDAY - HOUR), Mode.LIVE),
        ("auto", "free", Entitlement(allowed=False, asked_at=TUESDAY - 100 * HOUR), Mode.END_OF_DAY),
        ("auto", "free", Entitlement(allowed=True, asked_at=TUESDAY - 100 * HOUR), Mode.LIVE),
        ("end_of_day", "starter", Entitlement(allowed=True, asked_at=TUESDAY), Mode.END_OF_DAY),
    ],
)
def test_the_plan_is_believed_until_the_key_is_refused_and_for_an_hour_after_that_it_is_not(
    configured: str, of_plan: str, snapshots: Entitlement | None, expected: Mode
) -> None:
    assert plans.mode(PLANS[Product.CURRENCIES][of_plan], configured, snapshots, TUESDAY) is expected


def test_an_asset_is_due_once_in_a_slot() -> None:
    served = Candidate(BITCOIN, served_at=TUESDAY + timedelta(seconds=2))

    assert not planner.is_due(served, TUESDAY + timedelta(seconds=40))
    assert planner.is_due(served, TUESDAY + timedelta(minutes=5))


def test_a_failed_asset_is_due_again_in_the_same_slot() -> None:
    assert planner.is_due(Candidate(BITCOIN, served_at=None), TUESDAY)


@given(
    phase=st.floats(0, 299.9),
    jitters=st.lists(st.floats(-3, 3), min_size=12, max_size=12),
)
def test_twelve_starts_five_minutes_apart_with_jitter_are_all_due(phase: float, jitters: list[float]) -> None:
    served_at = None
    for number, jitter in enumerate(jitters):
        start = TUESDAY + timedelta(seconds=phase + 300 * number + jitter)
        assert planner.is_due(Candidate(BITCOIN, served_at=served_at), start)
        served_at = start


@given(
    started=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    minutes=st.sampled_from([0.5, 1.0, 5.0, 15.0, 60.0]),
)
def test_the_next_due_time_is_a_multiple_of_the_interval_and_not_the_one_of_this_run(
    started: datetime, minutes: float
) -> None:
    every = timedelta(minutes=minutes)

    due = planner.next_due(started, every)

    assert (due - planner.EPOCH) % every == timedelta(0)
    # A start just before its due time belongs to it: the next one is a whole interval later.
    early = min(planner.JITTER, every / 10)
    assert early < due - started <= every + early


def test_nothing_is_asked_of_a_closed_market_once_a_run_after_it_closed_was_answered() -> None:
    friday_night = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)

    made = plan(
        Candidate(EURO, served_at=friday_night),
        Candidate(BITCOIN, served_at=friday_night),
        now=SATURDAY,
    )

    assert made.unchanged == (EURO,)
    assert [call.symbols for call in made.calls] == [["BTCUSD"]]


def test_a_closed_market_is_asked_once_more_when_the_last_run_began_before_it_closed() -> None:
    before = datetime(2026, 11, 20, 21, 55, tzinfo=UTC)

    made = plan(Candidate(EURO, served_at=before), now=SATURDAY)

    assert [call.symbols for call in made.calls] == [["EURUSD"]]


@pytest.mark.parametrize("served_at", [None, datetime(2026, 11, 20, 21, 55, tzinfo=UTC)])
def test_what_the_vendor_says_of_a_market_closed_by_its_hours_changes_nothing(served_at: datetime | None) -> None:
    said = frozenset({AssetType.FOREX})

    made = plan(Candidate(EURO, served_at=served_at), now=SATURDAY, closed=said)

    assert [call.symbols for call in made.calls] == [["EURUSD"]]


def test_a_market_that_the_vendor_says_is_closed_is_not_asked_while_its_hours_say_it_is_open() -> None:
    made = plan(Candidate(EURO), Candidate(BITCOIN), closed=frozenset({AssetType.FOREX}))

    assert made.unchanged == (EURO,)
    assert [call.symbols for call in made.calls] == [["BTCUSD"]]


@given(st.integers(2, 250))
def test_halves_cover_a_call_and_end_with_single_assets(size: int) -> None:
    (call,) = planner.snapshots([asset(f"T{number}USD") for number in range(size)], 250)
    alone = []
    waiting = [call]
    while waiting:
        one = waiting.pop(0)
        if len(one.assets) == 1:
            alone.append(one.assets[0])
        else:
            waiting = planner.halves(one) + waiting
    assert alone == list(call.assets)


@given(st.integers(0, 3 * 86_400), st.sampled_from([1, 5, 30, 60]))
def test_the_next_start_is_the_first_multiple_ahead_at_every_second(seconds: int, minutes: int) -> None:
    now, every = datetime(2026, 11, 17, tzinfo=UTC) + timedelta(seconds=seconds), timedelta(minutes=minutes)

    start = planner.next_start(now, every)

    assert now < start <= now + every
    assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % every == timedelta(0)
