"""The invented market: the same question gets the same answer, and bars are sums of their minutes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest

from assetbatch.model import AssetType, Product
from assetbatch.sandbox.catalogue import KNOWN, Instrument, find
from assetbatch.sandbox.hours import DAY_MS, MINUTE_MS, Hours
from assetbatch.sandbox.market import Bar, Market, merge

CURRENCIES = [ticker for ticker, known in KNOWN.items() if known.traits.product is Product.CURRENCIES]


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]


def instrument(ticker: str) -> Instrument:
    found = find(ticker)
    assert found is not None
    return found


def minutes(market: Market, what: Instrument, begin_ms: int, end_ms: int, now_ms: int) -> list[Bar]:
    bars = [market.bar(what, at, at + MINUTE_MS, now_ms) for at in range(begin_ms, end_ms, MINUTE_MS)]
    return [bar for bar in bars if bar is not None]


def test_catalogue_holds_what_the_project_relies_on() -> None:
    for ticker in ("C:XAUUSD", "C:EURUSD", "X:BTCUSD", "X:ETHUSDT", "C:GBPUSD", "C:USDJPY", "C:XAGUSD"):
        assert ticker in KNOWN
    assert (KNOWN["C:NATGASUSD"].base, KNOWN["C:CORNUSD"].quote) == ("NATGAS", "USD")
    markets = [known.market for known in KNOWN.values()]
    assert markets.count(AssetType.FOREX) >= 60
    assert markets.count(AssetType.CRYPTO) >= 40
    assert list(KNOWN) == sorted(KNOWN)


@pytest.mark.parametrize("ticker", ["C:T1USD", "X:T999999USD"])
def test_synthetic_tickers_exist(ticker: str) -> None:
    assert instrument(ticker).ticker == ticker
    assert ticker not in KNOWN


@pytest.mark.parametrize(
    "ticker", ["C:TUSD", "C:T1234567USD", "c:eurusd", "EURUSD", "C:T1EUR", "X:XAUUSD", "", "C:T٣USD"]
)
def test_anything_else_is_unknown(ticker: str) -> None:
    assert find(ticker) is None


@pytest.mark.parametrize("ticker", [*CURRENCIES[::9], "X:SHIBUSD", "C:USDJPY", "X:T77USD"])
def test_every_second_brings_another_price_of_at_most_eight_decimals(ticker: str) -> None:
    market, what = Market(0), instrument(ticker)
    start = ms(2026, 9, 5, 11, 59)  # a Saturday: quotes move at weekends too
    ticks = [market.tick(what, start + 1000 * second) for second in range(150)]
    for before, after in pairwise(ticks):
        assert before.price != after.price
        assert before.at_ms < after.at_ms
    for second, tick in enumerate(ticks):
        assert 0 <= start + 1000 * second - tick.at_ms < 250
        assert 0 < tick.bid < tick.ask
        assert tick.bar.low <= tick.price <= tick.bar.high
        assert Decimal(repr(what.number(tick.price))).as_tuple().exponent >= -8  # type: ignore[operator]
        assert Decimal(repr(what.number(tick.price))) == Decimal(tick.price).scaleb(-what.decimals)


def test_prices_are_a_pure_function_of_seed_ticker_and_time() -> None:
    what, now = instrument("C:EURUSD"), ms(2026, 9, 3, 12, 0, 30)
    first, second, other = Market(7), Market(7), Market(8)
    first.tick(instrument("X:BTCUSD"), now)
    assert first.tick(what, now) == second.tick(what, now)
    assert first.tick(what, now) != other.tick(what, now)
    day = ms(2026, 9, 2)
    assert first.bar(what, day, day + DAY_MS, now) == second.bar(what, day, day + DAY_MS, now + 10 * DAY_MS)
    assert first.bar(what, day, day + DAY_MS, now) != other.bar(what, day, day + DAY_MS, now)


def test_prices_stay_near_a_plausible_level() -> None:
    market = Market(0)
    for ticker, level in {"C:XAUUSD": 2650, "C:EURUSD": 1.08, "X:BTCUSD": 97000, "X:PEPEUSD": 8.14e-05}.items():
        what = instrument(ticker)
        for day in range(0, 700, 50):
            tick = market.tick(what, ms(2025, 1, 1) + day * DAY_MS)
            assert what.number(tick.price) == pytest.approx(level, rel=0.25)


@pytest.mark.parametrize("ticker", ["C:EURUSD", "X:BTCUSD"])
@pytest.mark.parametrize("span", [5, 15, 60, 7])
def test_a_longer_bar_is_the_aggregation_of_its_minutes(ticker: str, span: int) -> None:
    market, what, now = Market(0), instrument(ticker), ms(2026, 9, 10)
    step = span * MINUTE_MS
    begin = ms(2026, 9, 1, 23) // step * step  # across midnight
    compared = 0
    for at in range(begin, begin + 30 * step, step):
        parts = minutes(market, what, at, at + step, now)
        bar = market.bar(what, at, at + step, now)
        assert bar is not None
        assert bar.open == parts[0].open
        assert bar.close == parts[-1].close
        assert bar.high == max(part.high for part in parts)
        assert bar.low == min(part.low for part in parts)
        assert bar.transactions == sum(part.transactions for part in parts)
        assert bar.low <= bar.vwap <= bar.high
        weighted = sum(part.vwap * part.transactions for part in parts) / bar.transactions
        assert abs(bar.vwap - weighted) <= 2
        compared += 1
    assert compared == 30


@pytest.mark.parametrize("ticker", ["C:XAUUSD", "X:ETHUSDT"])
@pytest.mark.parametrize("day", [(2026, 9, 3), (2026, 9, 4), (2026, 9, 6), (2026, 11, 1)])
def test_a_day_is_the_aggregation_of_its_minutes(ticker: str, day: tuple[int, int, int]) -> None:
    market, what = Market(0), instrument(ticker)
    begin = ms(*day)
    whole = market.bar(what, begin, begin + DAY_MS, begin + 30 * DAY_MS)
    parts = minutes(market, what, begin, begin + DAY_MS, begin + 30 * DAY_MS)
    joined = merge(parts)
    assert whole is not None
    assert joined is not None
    assert (whole.open, whole.high, whole.low, whole.close) == (joined.open, joined.high, joined.low, joined.close)
    assert (whole.transactions, whole.base_minutes) == (joined.transactions, len(parts))
    assert whole == market.day(what, begin // DAY_MS, begin + 30 * DAY_MS)
    assert what.volume(whole.transactions) == pytest.approx(sum(what.volume(part.transactions) for part in parts))


def test_one_day_ends_where_the_next_begins() -> None:
    market, what, begin = Market(0), instrument("X:BTCUSD"), ms(2026, 9, 1)
    days = [market.bar(what, begin + n * DAY_MS, begin + (n + 1) * DAY_MS, begin + 99 * DAY_MS) for n in range(9)]
    for before, after in pairwise(days):
        assert before is not None
        assert after is not None
        assert before.close == after.open


def test_the_open_bar_grows_into_the_finished_one() -> None:
    market, what = Market(0), instrument("X:BTCUSD")
    begin = ms(2026, 9, 3, 12)
    end = begin + 5 * MINUTE_MS
    final = market.bar(what, begin, end, end)
    seen = [market.bar(what, begin, end, at) for at in range(begin + 1000, end, 7_000)]
    assert final is not None
    highs, lows, counts = [], [], []
    for bar in seen:
        assert bar is not None
        assert bar.open == final.open
        highs.append(bar.high)
        lows.append(bar.low)
        counts.append(bar.transactions)
    assert highs == sorted(highs)
    assert lows == sorted(lows, reverse=True)
    assert counts == sorted(counts)
    assert (highs[-1] <= final.high, lows[-1] >= final.low) == (True, True)
    assert seen[-1] != final
    assert market.bar(what, end + DAY_MS, end + DAY_MS + MINUTE_MS, end) is None


def test_a_minute_without_a_quote_yet_has_no_bar() -> None:
    market, what = Market(0), instrument("X:BTCUSD")
    begin = ms(2026, 9, 3, 12)
    assert what.mark % 250 > 0
    assert market.bar(what, begin, begin + MINUTE_MS, begin) is None


def test_forex_rests_from_friday_to_sunday_five_in_new_york() -> None:
    hours = Hours()
    summer, winter, clock_changes = (ms(*day) // DAY_MS for day in ((2026, 9, 4), (2026, 1, 9), (2026, 11, 1)))
    assert hours.session(AssetType.FOREX, summer)[:2] == (0, 21 * 60)
    assert hours.session(AssetType.FOREX, winter)[:2] == (0, 22 * 60)
    assert hours.session(AssetType.FOREX, summer + 1)[:2] == (0, 0)
    assert hours.session(AssetType.FOREX, summer + 2)[:2] == (21 * 60, 1440)
    assert hours.session(AssetType.FOREX, clock_changes)[:2] == (22 * 60, 1440)
    assert hours.session(AssetType.CRYPTO, summer + 1)[:2] == (0, 1440)
    assert hours.is_open(AssetType.FOREX, ms(2026, 9, 4, 20, 59, 59))
    assert not hours.is_open(AssetType.FOREX, ms(2026, 9, 4, 21))
    assert hours.is_open(AssetType.FOREX, ms(2026, 9, 6, 21))
    market, what = Market(0), instrument("C:EURUSD")
    friday, now = ms(2026, 9, 4, 20, 58), ms(2026, 9, 30)
    assert len(minutes(market, what, friday, friday + 10 * MINUTE_MS, now)) == 2
    assert market.day(what, summer + 1, now) is None
    week = market.bar(what, ms(2026, 8, 31), ms(2026, 9, 7), now)
    assert week is not None
    assert week.base_minutes == 4 * 1440 + 21 * 60 + 3 * 60


def test_there_is_nothing_before_history_begins() -> None:
    market, what = Market(0), instrument("X:BTCUSD")
    old = ms(2009, 12, 31)
    assert market.bar(what, old, old + DAY_MS, ms(2026, 1, 1)) is None
    now = ms(2026, 1, 1)
    assert market.day(what, old // DAY_MS, now) is None
    assert market.day(what, old // DAY_MS + 1, now) is not None
