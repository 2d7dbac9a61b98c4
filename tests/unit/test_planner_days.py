"""Which finished day is wanted of a market, and when a newer one can exist."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetbatch import market_hours, planner
from assetbatch.calendars import new_york_stock_exchange
from assetbatch.model import Asset, AssetType, CallKind, Role
from assetbatch.planner import AskedDay, Candidate, DayOutcome
from assetbatch.plans import Mode
from tests.world import PROMPT

NEW_YORK = ZoneInfo("America/New_York")
FOREX, CRYPTO = AssetType.FOREX, AssetType.CRYPTO
TUESDAY = datetime(2026, 11, 17, 12, tzinfo=UTC)
MONDAYS_DAY = date(2026, 11, 16)
HOUR = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)
NOON = time(12)

times = st.datetimes(datetime(2025, 12, 15), datetime(2027, 1, 10), timezones=st.just(UTC))
# Around the changes of the clock in March and November, Christmas and New Year.
eves = st.sampled_from([date(2026, 3, 6), date(2026, 10, 30), date(2025, 12, 22), date(2025, 12, 30)])
moments = times | st.builds(
    lambda day, hours: datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours),
    eves,
    st.floats(0, 120),
)
markets = st.sampled_from(AssetType)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def is_over(day: date, now: datetime) -> bool:
    return now.astimezone(UTC).date() > day and now.astimezone(NEW_YORK).date() > day


def trades(market: AssetType, day: date) -> bool:
    if market in {AssetType.STOCKS, AssetType.INDICES}:
        return day.isoweekday() <= 5 and new_york_stock_exchange(day.year).get(day, NOON) is not None
    return market is CRYPTO or (day.isoweekday() <= 5 and (day.month, day.day) not in {(12, 25), (1, 1)})


def newest_days(market: AssetType, now: datetime, count: int) -> list[date]:
    """The finished days with trade, the newest first, found the long way."""
    today = now.date() + timedelta(days=2)
    candidates = (today - timedelta(days=back) for back in range(60))
    return [day for day in candidates if is_over(day, now) and trades(market, day)][:count]


def is_held(asked: AskedDay | None, now: datetime) -> bool:
    if asked is None or asked.outcome is DayOutcome.STORED:
        return False
    hours = 2 ** (asked.times - 1) if asked.outcome is DayOutcome.EMPTY else 1
    return now < asked.asked_at + hours * HOUR


@st.composite
def asked_days(draw: st.DrawFn) -> tuple[AssetType, datetime, dict[tuple[AssetType, date], AskedDay]]:
    """A market, a time, and what the vendor may have answered for the days before."""
    market, now = draw(markets), draw(moments)
    days = {}
    for day in newest_days(market, now, 8):
        outcome = draw(st.none() | st.sampled_from(DayOutcome))
        if outcome is not None:
            over_at = market_hours.day_over_at(day)
            ago = draw(st.floats(0, 1)) * min(now - over_at, timedelta(hours=20))
            days[market, day] = AskedDay(outcome, now - ago, draw(st.integers(1, 5)))
    return market, now, days


@pytest.mark.parametrize(
    ("day", "over_at"),
    [
        ("2026-07-14", "2026-07-15T04:00"),
        ("2026-01-14", "2026-01-15T05:00"),
        # In March the clock changes at 2 o'clock of the 8th, in November of the 1st.
        ("2026-03-07", "2026-03-08T05:00"),
        ("2026-03-08", "2026-03-09T04:00"),
        ("2026-10-31", "2026-11-01T04:00"),
        ("2026-11-01", "2026-11-02T05:00"),
    ],
)
def test_a_day_is_over_when_it_is_in_both_calendars(day: str, over_at: str) -> None:
    over, finished = at(over_at), date.fromisoformat(day)

    assert market_hours.day_over_at(finished) == over
    assert planner.wanted_day(CRYPTO, {}, over - INSTANT) == finished - timedelta(days=1)
    assert planner.wanted_day(CRYPTO, {}, over) == finished
    assert planner.newer_day_at(CRYPTO, {}, over - INSTANT) == over


@pytest.mark.parametrize(
    ("now", "day", "newer_at"),
    [
        # A Monday's figures, on Tuesday, at either side of the boundary.
        ("2026-07-14T03:59:59", "2026-07-10", "2026-07-14T04:00"),
        ("2026-07-14T04:00", "2026-07-13", "2026-07-15T04:00"),
        ("2026-01-13T04:59:59", "2026-01-09", "2026-01-13T05:00"),
        ("2026-01-13T05:00", "2026-01-12", "2026-01-14T05:00"),
        # From Saturday to Monday it is Friday's; the clock changes on the Sunday between.
        ("2026-03-07T04:59:59", "2026-03-05", "2026-03-07T05:00"),
        ("2026-03-07T05:00", "2026-03-06", "2026-03-10T04:00"),
        ("2026-03-09T12:00", "2026-03-06", "2026-03-10T04:00"),
        ("2026-03-10T04:00", "2026-03-09", "2026-03-11T04:00"),
        ("2026-10-31T03:59:59", "2026-10-29", "2026-10-31T04:00"),
        ("2026-10-31T04:00", "2026-10-30", "2026-11-03T05:00"),
        ("2026-11-03T04:59:59", "2026-10-30", "2026-11-03T05:00"),
        ("2026-11-03T05:00", "2026-11-02", "2026-11-04T05:00"),
        # Christmas is on a Friday in 2026, and so is the New Year after it.
        ("2026-12-25T05:00", "2026-12-24", "2026-12-29T05:00"),
        ("2026-12-28T12:00", "2026-12-24", "2026-12-29T05:00"),
        ("2027-01-01T12:00", "2026-12-31", "2027-01-05T05:00"),
    ],
)
def test_forex_has_the_days_from_monday_to_friday_but_for_two_holidays(now: str, day: str, newer_at: str) -> None:
    assert planner.wanted_day(FOREX, {}, at(now)) == date.fromisoformat(day)
    assert planner.newer_day_at(FOREX, {}, at(now)) == at(newer_at)


@pytest.mark.parametrize("day", ["2026-12-25", "2027-01-01", "2026-11-21", "2026-11-22"])
def test_crypto_has_every_day(day: str) -> None:
    finished = date.fromisoformat(day)

    assert planner.wanted_day(CRYPTO, {}, market_hours.day_over_at(finished)) == finished


@settings(max_examples=50)
@given(asked_days())
def test_the_wanted_day_is_the_newest_that_is_over_and_traded_and_is_not_held(
    case: tuple[AssetType, datetime, dict[tuple[AssetType, date], AskedDay]],
) -> None:
    market, now, days = case
    steps = newest_days(market, now, planner.MOST_STEPS_BACK + 1)
    expected = next((day for day in steps if not is_held(days.get((market, day)), now)), None)

    assert list(islice(market_hours.finished_days(market, now), 5)) == steps
    assert planner.wanted_day(market, days, now) == expected


@settings(max_examples=50)
@given(asked_days())
def test_a_newer_day_is_wanted_when_one_can_exist_and_not_before(
    case: tuple[AssetType, datetime, dict[tuple[AssetType, date], AskedDay]],
) -> None:
    market, now, days = case
    wanted, newer_at = planner.wanted_day(market, days, now), planner.newer_day_at(market, days, now)

    assert newer_at > now
    for before in (now + (newer_at - now) / 2, newer_at - INSTANT):
        assert planner.wanted_day(market, days, before) == wanted
    then = planner.wanted_day(market, days, newer_at)
    assert then is not None
    assert wanted is None or then > wanted


def test_what_is_known_of_one_market_says_nothing_about_the_other() -> None:
    days = {(CRYPTO, MONDAYS_DAY): AskedDay(DayOutcome.NOT_YET, TUESDAY)}

    assert planner.wanted_day(FOREX, days, TUESDAY) == MONDAYS_DAY
    assert planner.wanted_day(CRYPTO, days, TUESDAY) == MONDAYS_DAY - timedelta(days=1)
    assert planner.newer_day_at(FOREX, days, TUESDAY) == at("2026-11-18T05:00")
    assert planner.newer_day_at(CRYPTO, days, TUESDAY) == TUESDAY + HOUR


@pytest.mark.parametrize(
    ("outcome", "times", "hours"),
    [
        (DayOutcome.NOT_YET, 1, 1),
        (DayOutcome.NOT_YET, 7, 1),
        (DayOutcome.EMPTY, 1, 1),
        (DayOutcome.EMPTY, 2, 2),
        (DayOutcome.EMPTY, 3, 4),
        (DayOutcome.EMPTY, 4, 8),
    ],
)
def test_a_refused_day_is_held_for_an_hour_and_an_empty_one_ever_longer(
    outcome: DayOutcome, times: int, hours: int
) -> None:
    days = {(FOREX, MONDAYS_DAY): AskedDay(outcome, TUESDAY, times)}
    again = TUESDAY + hours * HOUR

    assert planner.wanted_day(FOREX, days, again - INSTANT) == date(2026, 11, 13)
    assert planner.wanted_day(FOREX, days, again) == MONDAYS_DAY
    assert planner.newer_day_at(FOREX, days, TUESDAY) == again


def test_four_days_are_stepped_back_and_no_fifth() -> None:
    newest = newest_days(FOREX, TUESDAY, 5)
    days = {(FOREX, day): AskedDay(DayOutcome.NOT_YET, TUESDAY) for day in newest[:4]}
    assert planner.wanted_day(FOREX, days, TUESDAY) == newest[4]

    days[FOREX, newest[4]] = AskedDay(DayOutcome.NOT_YET, TUESDAY)
    assert planner.wanted_day(FOREX, days, TUESDAY) is None
    assert planner.newer_day_at(FOREX, days, TUESDAY) == TUESDAY + HOUR


def asset(symbol: str, market: AssetType = FOREX) -> Asset:
    prefix = "X:" if market is CRYPTO else "C:"
    return Asset(symbol, prefix + symbol, market, Role.PRIORITY, 1, 300)


GOLD, EURO, BITCOIN = asset("XAUUSD"), asset("EURUSD"), asset("BTCUSD", CRYPTO)


def plan(*candidates: Candidate, days: planner.Days | None = None, now: datetime = TUESDAY) -> planner.Plan:
    return planner.plan(
        candidates,
        modes=dict.fromkeys(AssetType, Mode.END_OF_DAY),
        delays=PROMPT,
        batch_size=250,
        now=now,
        days=days or {},
    )


def test_one_call_a_market_in_the_order_of_its_first_asset() -> None:
    made = plan(Candidate(GOLD), Candidate(BITCOIN), Candidate(EURO))

    assert [(call.kind, call.market, call.day, call.symbols) for call in made.calls] == [
        (CallKind.DAILY, FOREX, MONDAYS_DAY, ["XAUUSD", "EURUSD"]),
        (CallKind.DAILY, CRYPTO, MONDAYS_DAY, ["BTCUSD"]),
    ]
    assert (made.unchanged, made.not_due) == ((), ())


def test_who_has_the_wanted_day_needs_no_call_however_often_it_is_due() -> None:
    made = plan(Candidate(GOLD, day=MONDAYS_DAY), Candidate(EURO, day=MONDAYS_DAY - timedelta(days=3)))

    assert [call.symbols for call in made.calls] == [["EURUSD"]]
    assert made.unchanged == (GOLD,)


def test_what_was_no_price_is_asked_for_again_after_an_hour() -> None:
    failed = Candidate(GOLD, day=MONDAYS_DAY, failed=True)
    days = {(FOREX, MONDAYS_DAY): AskedDay(DayOutcome.STORED, TUESDAY)}

    assert plan(failed, days=days, now=TUESDAY + HOUR - INSTANT).unchanged == (GOLD,)
    assert len(plan(failed, days=days, now=TUESDAY + HOUR).calls) == 1


def test_a_market_without_a_day_to_ask_for_is_left_alone() -> None:
    days = {(FOREX, day): AskedDay(DayOutcome.NOT_YET, TUESDAY) for day in newest_days(FOREX, TUESDAY, 5)}

    made = plan(Candidate(GOLD), Candidate(BITCOIN), days=days)

    assert (made.unchanged, [call.market for call in made.calls]) == ((GOLD,), [CRYPTO])


@pytest.mark.parametrize(
    ("market", "day", "ends"),
    [
        (FOREX, "2026-03-06", "2026-03-06T22:00"),
        (FOREX, "2026-03-13", "2026-03-13T21:00"),
        (FOREX, "2026-11-19", "2026-11-19T23:59:59.999"),
        (CRYPTO, "2026-11-20", "2026-11-20T23:59:59.999"),
        (AssetType.STOCKS, "2026-11-20", "2026-11-20T21:00"),
        (AssetType.STOCKS, "2026-07-14", "2026-07-14T20:00"),
        (AssetType.INDICES, "2026-11-27", "2026-11-27T18:00"),
    ],
)
def test_a_days_last_price_is_of_its_end_and_on_friday_of_the_end_of_trade(
    market: AssetType, day: str, ends: str
) -> None:
    assert market_hours.end_of_day(market, date.fromisoformat(day)) == at(ends)


def test_days_that_were_refused_long_ago_do_not_make_newer_ones_possible() -> None:
    newest = newest_days(CRYPTO, TUESDAY, 7)
    days = {(CRYPTO, day): AskedDay(DayOutcome.NOT_YET, TUESDAY - INSTANT) for day in newest[:5]}
    days |= {(CRYPTO, day): AskedDay(DayOutcome.NOT_YET, TUESDAY - timedelta(days=1)) for day in newest[5:]}

    assert planner.wanted_day(CRYPTO, days, TUESDAY) is None
    assert planner.newer_day_at(CRYPTO, days, TUESDAY) == TUESDAY - INSTANT + HOUR


def test_a_day_that_stays_empty_is_asked_for_every_64_hours_at_last() -> None:
    asked = AskedDay(DayOutcome.EMPTY, datetime(2026, 11, 17, 12, tzinfo=UTC), times=1000)

    assert planner.ask_again_at(asked) - asked.asked_at == timedelta(hours=64)
