"""A year of stocks and indices in runs every five minutes: what is asked for, and expected, and what raises an alarm.

The hours are written here a second time, with the exchange's published calendar of 2026.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from assetbatch import bars, market_hours, planner
from assetbatch.markets import Market
from assetbatch.model import Asset, AssetType, Role
from assetbatch.planner import AskedDay, Candidate, DayOutcome
from assetbatch.plans import Mode
from assetbatch.report.freshness import Outlook, limits
from tests.world import PROMPT

NEW_YORK = ZoneInfo("America/New_York")
INTERVAL, HOUR, DAY = timedelta(minutes=5), timedelta(hours=1), timedelta(days=1)
# Cron starts a moment late.
JITTER = timedelta(seconds=2)
BEGIN, END = datetime(2026, 1, 1, 5, tzinfo=UTC), datetime(2027, 1, 1, 5, tzinfo=UTC)
# Its last three months have holidays, days that close at 13:00, and the end of summer time.
AUTUMN = datetime(2026, 10, 1, 4, tzinfo=UTC)
CLOSED = "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25"
UNTIL_13 = "11-27 12-24"
APPLE = Asset("AAPL", "AAPL", AssetType.STOCKS, Role.PRIORITY, 1, 300)
LIVE, DAILY = dict.fromkeys(AssetType, Mode.LIVE), dict.fromkeys(AssetType, Mode.END_OF_DAY)
SP500 = Asset("SPX", "I:SPX", AssetType.INDICES, Role.PRIORITY, 2, 300)


def has_session(day: date) -> bool:
    return day.isoweekday() <= 5 and f"{day:%m-%d}" not in CLOSED.split()


def closing(day: date) -> time:
    return time(13 if f"{day:%m-%d}" in UNTIL_13.split() else 16)


def trades(asset: Asset, now: datetime, *, regular: bool = False) -> bool:
    """Tell by the clock on a wall in New York whether there may be a new price of an asset."""
    local = now.astimezone(NEW_YORK)
    opens, closes = time(9, 30), closing(local.date())
    if asset is APPLE and not regular:
        opens, closes = time(4), closes.replace(hour=closes.hour + 4)
    return has_session(local.date()) and opens <= local.time() < closes


def sessions(begin: datetime = BEGIN) -> list[date]:
    days = [begin.date() + number * DAY for number in range((END - begin) // DAY + 1)]
    return [day for day in days if day.year == BEGIN.year and has_session(day)]


def runs(begin: datetime = BEGIN) -> list[datetime]:
    return [begin + number * INTERVAL + JITTER for number in range((END - begin) // INTERVAL)]


since = pytest.mark.parametrize(
    "begin", [pytest.param(AUTUMN, id="autumn"), pytest.param(BEGIN, id="year", marks=pytest.mark.slow)]
)


@since
@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=15)], ids=["prompt", "late"])
def test_a_closed_market_costs_one_look_and_an_open_one_is_asked_in_each_run(late: timedelta, begin: datetime) -> None:
    """Prices that are late show a market as it was: the last ones come so long after it closed."""
    delays = dict.fromkeys(AssetType, late)
    served: dict[Asset, datetime] = {APPLE: begin, SP500: begin}
    closed_looks: Counter[tuple[str, date]] = Counter()
    open_runs: Counter[str] = Counter()
    for now in runs(begin):
        known = [Candidate(asset, served_at) for asset, served_at in served.items()]
        made = planner.plan(known, modes=LIVE, delays=delays, batch_size=250, now=now, days={})
        asked = {asset for call in made.calls for asset in call.assets}
        for asset in served:
            if trades(asset, now - late):
                assert asset in asked, now
                open_runs[asset.symbol] += 1
            elif asset in asked:
                closed_looks[asset.symbol, now.astimezone(NEW_YORK).date()] += 1
        served |= dict.fromkeys(asked, now)

    assert closed_looks == Counter({(asset.symbol, day): 1 for asset in served for day in sessions(begin)})
    halves = len(UNTIL_13.split())
    days = len(sessions(begin))
    assert open_runs == {"AAPL": 192 * days - 36 * halves, "SPX": 78 * days - 36 * halves}


@since
@pytest.mark.parametrize("asset", [APPLE, SP500], ids=["stock", "index"])
def test_finished_days_cost_a_call_for_each_session_and_no_other(asset: Asset, begin: datetime) -> None:
    days: dict[tuple[AssetType, date], AskedDay] = {}
    stored: date | None = begin.date() - DAY
    called: list[tuple[date, datetime]] = []
    for now in runs(begin):
        made = planner.plan(
            [Candidate(asset, day=stored)], modes=DAILY, delays=PROMPT, batch_size=250, now=now, days=days
        )
        for call in made.calls:
            stored = call.day
            assert stored is not None
            days[asset.asset_type, stored] = AskedDay(DayOutcome.STORED, now)
            called.append((stored, now))
        # As soon as it can be had: nothing is overdue.
        assert stored is not None
        assert stored >= Outlook(now, INTERVAL, DAILY, PROMPT, days=days).overdue_day(asset.asset_type)

    assert [day for day, _ in called] == sessions(begin)[:-1]
    for day, now in called:
        assert now - JITTER == datetime.combine(day + DAY, time(0), NEW_YORK)


@since
@pytest.mark.parametrize(
    ("asset", "late"),
    [(APPLE, timedelta(0)), (SP500, timedelta(0)), (SP500, timedelta(minutes=15))],
    ids=["stock", "index", "late-index"],
)
def test_no_alarm_is_raised_though_nothing_comes_but_in_sessions(
    asset: Asset, late: timedelta, begin: datetime
) -> None:
    """An illiquid stock has no price before 9:30, nor after 16:00; an index none at all."""
    market, delays = market_hours.market_of(asset), dict.fromkeys(AssetType, late)
    came_at = None
    for now in runs(begin):
        if trades(asset, now - late, regular=True):
            came_at = now
        # At the runs around an opening or a closing, and a few times a day.
        near = {trades(asset, now - late + offset * INTERVAL, regular=True) for offset in (-3, 3)}
        if came_at is None or (len(near) == 1 and (now.minute or now.hour % 6)):
            continue
        for limit in limits([300], Outlook(now, INTERVAL, LIVE, delays)):
            if limit.market is market:
                assert came_at >= limit.stale_before, now
                assert came_at >= limit.late_before, now


def test_what_fails_to_come_in_a_session_is_stale_a_quarter_of_an_hour_after_it_opened() -> None:
    for before, day in pairwise(sessions()):
        came_at = datetime.combine(before, closing(before), NEW_YORK) - INTERVAL
        opens = datetime.combine(day, time(9, 30), NEW_YORK)
        for now, is_stale in [(opens + 2 * INTERVAL, False), (opens + 2 * INTERVAL + JITTER, True)]:
            (limit,) = (
                one for one in limits([300], Outlook(now, INTERVAL, LIVE, PROMPT)) if one.market is Market.STOCKS
            )
            assert (came_at < limit.stale_before) is is_stale, now


@pytest.mark.parametrize("asset", [APPLE, SP500], ids=["stock", "index"])
def test_bars_are_expected_where_there_can_be_trade_and_nowhere_else(asset: Asset) -> None:
    market = market_hours.market_of(asset)
    rests = market_hours.closed_spans(market, BEGIN, END)
    moments = [now - JITTER for now in runs()]

    closed = {
        ts for rest in rests for ts in moments[(rest.since - BEGIN) // INTERVAL : (rest.until - BEGIN) // INTERVAL]
    }

    assert {ts for ts in moments if not trades(asset, ts)} == closed


@pytest.mark.parametrize("asset", [APPLE, SP500], ids=["stock", "index"])
def test_bars_reach_to_the_last_trade_or_with_finished_days_to_their_midnight(asset: Asset) -> None:
    market = market_hours.market_of(asset)
    settle = timedelta(seconds=90)
    asked: set[datetime] = set()
    # At any distance from the hours at which something opens or closes.
    for now in runs()[::7]:
        until = bars.reach(market, mode=Mode.LIVE, days={}, now=now, settle=settle)
        assert until is not None
        assert trades(asset, until - INTERVAL) or trades(asset, until) or until < BEGIN
        assert until <= now - settle
        if trades(asset, until):
            assert now - settle - INTERVAL < until
        finished = bars.reach(market, mode=Mode.END_OF_DAY, days={}, now=now, settle=settle)
        assert finished is not None
        asked.add(finished)

    assert sorted(asked)[1:] == [datetime.combine(day + DAY, time(0), NEW_YORK) for day in sessions()[:-1]]
