"""The tables of facts: each has a row for all that there is, and what is made of them agrees."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import msgspec
import pytest

from assetbatch import market_hours
from assetbatch.config.settings import Pings
from assetbatch.markets import HOURS, TRAITS, Hours, Market, type_of, without_prefix
from assetbatch.model import ACCESS, AssetType, CallKind, Product
from assetbatch.plans import ALIASES, FREE, HISTORY_YEARS, KEYS, PLANS
from assetbatch.schedule import JOBS


def test_every_asset_type_and_every_market_has_its_row() -> None:
    assert list(TRAITS) == list(AssetType)
    assert [market for traits in TRAITS.values() for market in traits.markets] == list(Market)
    assert all(type_of(traits.example) is asset_type for asset_type, traits in TRAITS.items())
    assert all(HOURS[market].names for traits in TRAITS.values() for market in traits.markets[1:])


@pytest.mark.parametrize(
    ("ticker", "bare"), [("C:XAUUSD", "XAUUSD"), ("X:BTCUSD", "BTCUSD"), ("AAPL", "AAPL"), ("", "")]
)
def test_a_ticker_without_a_known_prefix_stays_whole(ticker: str, bare: str) -> None:
    assert without_prefix(ticker) == bare


def test_every_call_says_what_a_plan_must_allow_for_it() -> None:
    assert list(ACCESS) == list(CallKind)


def test_words_for_plans_lead_to_plans_and_no_plan_shows_less_than_the_smallest() -> None:
    assert list(PLANS) == list(Product) == list(KEYS)
    assert all(set(ALIASES.values()) <= set(plans) for plans in PLANS.values())
    assert FREE.history_years == min(HISTORY_YEARS)


def test_every_key_of_pings_is_that_of_a_job() -> None:
    assert {field.name for field in msgspec.structs.fields(Pings)} <= {job.pings_key for job in JOBS.values()}


def test_a_market_that_opens_before_it_closes_opens_on_the_same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOURS, Market.FOREX, Hours(opens=time(9, 30), closes=time(16)))

    assert not market_hours.is_open(Market.FOREX, datetime(2026, 11, 17, 14, 29, tzinfo=UTC))
    assert market_hours.is_open(Market.FOREX, datetime(2026, 11, 17, 14, 30, tzinfo=UTC))
    assert market_hours.last_close(Market.FOREX, datetime(2026, 11, 18, 3, tzinfo=UTC)) == datetime(
        2026, 11, 17, 21, tzinfo=UTC
    )
    assert not market_hours.trades_on(AssetType.FOREX, date(2026, 11, 21))
