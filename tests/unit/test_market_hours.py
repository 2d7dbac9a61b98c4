from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch import market_hours
from assetbatch.markets import Market
from assetbatch.model import Asset, AssetType, Role

NEW_YORK = ZoneInfo("America/New_York")
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))
MARKETS = st.sampled_from(list(Market))


def new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("ticker", "kind", "market"),
    [
        ("C:EURUSD", AssetType.FOREX, Market.FOREX),
        ("C:XAUUSD", AssetType.FOREX, Market.METALS),
        ("C:XPDUSD", AssetType.FOREX, Market.METALS),
        ("X:XAUTUSD", AssetType.CRYPTO, Market.CRYPTO),
    ],
)
def test_metals_trade_at_hours_of_their_own(ticker: str, kind: AssetType, market: Market) -> None:
    assert market_hours.market_of(Asset("S", ticker, kind, Role.PRIORITY, 1, 300)) is market


@pytest.mark.parametrize(
    ("moment", "forex", "metals"),
    [
        ("2026-11-20 16:59", True, True),
        ("2026-11-20 17:00", False, False),  # Friday
        ("2026-11-22 16:59", False, False),
        ("2026-11-22 17:00", True, False),  # Sunday
        ("2026-11-22 18:00", True, True),
        ("2026-11-18 17:30", True, False),  # the metals' hour of rest
        ("2026-12-25 12:00", False, False),
        ("2026-12-24 12:00", True, True),
        ("2027-01-01 12:00", False, False),
        ("2026-03-08 16:30", False, False),  # Sunday of the change to summer time
        ("2026-03-08 17:30", True, False),
        ("2026-11-01 16:30", False, False),  # Sunday of the change back
        ("2026-11-01 17:30", True, False),
    ],
)
def test_hours_in_new_york_time(moment: str, *, forex: bool, metals: bool) -> None:
    now = new_york(moment)

    assert market_hours.is_open(Market.FOREX, now) is forex
    assert market_hours.is_open(Market.METALS, now) is metals
    assert market_hours.is_open(Market.CRYPTO, now)


@pytest.mark.parametrize("sunday", ["2026-11-22 12:00", "2026-03-08 12:00", "2026-11-01 12:00"])
def test_a_weekend_closed_on_friday_at_17(sunday: str) -> None:
    now = new_york(sunday)
    friday = datetime.combine(now.date() - timedelta(days=2), datetime.min.time(), NEW_YORK).replace(hour=17)

    assert market_hours.last_close(Market.FOREX, now) == friday


def test_new_year_on_a_friday_joins_the_weekend() -> None:
    assert market_hours.last_close(Market.FOREX, new_york("2027-01-03 12:00")) == new_york("2026-12-31 17:00")


def test_a_week_has_120_hours_of_forex() -> None:
    for start in ("2026-11-15 12:00", "2026-03-01 12:00", "2026-10-25 12:00"):
        begin = new_york(start)
        end = (begin.astimezone(NEW_YORK) + timedelta(days=7)).astimezone(UTC)
        assert market_hours.open_time(Market.FOREX, begin.astimezone(UTC), end) == timedelta(hours=120)


@given(MARKETS, MOMENTS)
def test_a_closed_market_closed_and_has_not_opened_since(market: Market, now: datetime) -> None:
    closed_at = market_hours.last_close(market, now)

    assert (closed_at is None) == market_hours.is_open(market, now)
    if closed_at is not None:
        assert closed_at <= now
        assert market_hours.is_open(market, closed_at - timedelta(seconds=1))
        assert market_hours.open_time(market, closed_at, now) == timedelta(0)


@given(
    MARKETS, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=20)), st.timedeltas(timedelta(0), timedelta(days=20))
)
def test_market_time_adds_up_and_never_runs_faster_than_time(
    market: Market, start: datetime, first: timedelta, second: timedelta
) -> None:
    middle, end = start + first, start + first + second

    whole = market_hours.open_time(market, start, end)

    assert whole == market_hours.open_time(market, start, middle) + market_hours.open_time(market, middle, end)
    assert timedelta(0) <= whole <= end - start
