"""The invented stocks and indices: sessions of New York, minutes in which nothing happens, days made of the session."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from assetbatch import market_hours
from assetbatch.markets import TRAITS, type_of
from assetbatch.model import AssetType
from assetbatch.sandbox.catalogue import KNOWN, Instrument, find
from assetbatch.sandbox.hours import EPOCH, MINUTE_MS, REST, Hours, midnight_ms, moment
from assetbatch.sandbox.market import Bar, Market

NEW_YORK = ZoneInfo("America/New_York")
LATER = (2026, 12, 31)


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=NEW_YORK).timestamp() * 1000)  # type: ignore[misc, arg-type]


def day(*parts: int) -> int:
    return (date(*parts) - EPOCH).days


def minutes(market: Market, what: Instrument, begin_ms: int, end_ms: int) -> dict[datetime, Bar]:
    now_ms = ms(*LATER)
    bars = {at: market.bar(what, at, at + MINUTE_MS, now_ms) for at in range(begin_ms, end_ms, MINUTE_MS)}
    return {datetime.fromtimestamp(at / 1000, NEW_YORK): bar for at, bar in bars.items() if bar is not None}


def test_the_catalogue_holds_what_is_odd_about_stocks() -> None:
    stocks = {ticker: known for ticker, known in KNOWN.items() if known.market is AssetType.STOCKS}
    indices = [ticker for ticker, known in KNOWN.items() if known.market is AssetType.INDICES]
    assert len(stocks) >= 40
    assert indices == ["I:COMP", "I:DJI", "I:NDX", "I:RUT", "I:SPX", "I:VIX"]
    for ticker in ("AAPL", "BRK.B", "KIM", "KIMpL", "CKX", TRAITS[AssetType.STOCKS].example):
        assert ticker in stocks
    assert stocks["ZVZZT"].kind == "TEST"
    assert find("KIMPL") is None
    assert find("brk.b") is None


def test_synthetic_stocks_are_no_other_tickers() -> None:
    one = find("ZZT12500")
    assert one is not None
    assert (one.ticker, one.market, one.kind) == ("ZZT12500", AssetType.STOCKS, "CS")
    assert [find(ticker) for ticker in ("ZZT", "zzt1", "T1USD", "T1", "I:ZZT1", "ZZT1234567")] == [None] * 6
    assert type_of("ZZT1") is AssetType.STOCKS


@pytest.mark.parametrize(
    ("on", "stocks", "indices"),
    [
        ((2026, 9, 3), (240, 1200), (570, 960)),
        ((2026, 9, 5), (0, 0), (0, 0)),  # a Saturday
        ((2026, 11, 26), (0, 0), (0, 0)),  # Thanksgiving
        ((2026, 11, 27), (240, 1020), (570, 780)),  # the half day after it
        ((2026, 12, 1), (0, 0), (0, 0)),  # asked for
    ],
)
def test_exchanges_keep_their_calendar(on: tuple[int, int, int], stocks: object, indices: object) -> None:
    hours = Hours([date(2026, 12, 1)])
    assert hours.session(AssetType.STOCKS, day(*on))[:2] == stocks
    assert hours.session(AssetType.INDICES, day(*on))[:2] == indices


@pytest.mark.parametrize("on", [(2026, 3, 8), (2026, 3, 9), (2026, 9, 3), (2026, 11, 1), (2026, 11, 2)])
def test_days_begin_at_midnight_in_new_york(on: tuple[int, int, int]) -> None:
    begins = midnight_ms(AssetType.STOCKS, day(*on))
    assert begins == ms(*on)
    assert moment(AssetType.STOCKS, begins) == (day(*on), 0)
    before, passed_ms = moment(AssetType.STOCKS, begins - 1)
    assert before == day(*on) - 1
    assert passed_ms == begins - 1 - midnight_ms(AssetType.STOCKS, before)


@pytest.mark.parametrize("market", [AssetType.STOCKS, AssetType.INDICES])
def test_sessions_are_those_that_the_tool_reckons_with(market: AssetType) -> None:
    hours, tool = Hours(), TRAITS[market].main_market
    for number in range(day(2026, 1, 1), day(2028, 1, 1)):
        begins, ends = (datetime.fromtimestamp(midnight_ms(market, n) / 1000, UTC) for n in (number, number + 1))
        session = hours.session(market, number)
        around = [
            (begins, begins + timedelta(minutes=session.begins)),
            (begins + timedelta(minutes=session.ends), ends),
        ]
        expected = [(begins, ends)] if session == REST else around
        assert [(span.since, span.until) for span in market_hours.closed_spans(tool, begins, ends)] == expected


@pytest.mark.parametrize("on", [(2026, 1, 8), (2026, 9, 3)])
def test_minutes_outside_the_session_are_thinner(on: tuple[int, int, int]) -> None:
    bars = minutes(Market(0), KNOWN["AAPL"], ms(*on), ms(*on, 23, 59))
    session = [at for at in bars if (9, 30) <= (at.hour, at.minute) < (16, 0)]
    around = [at for at in bars if at not in session]
    assert len(session) == 390
    assert 570 * 0.15 < len(around) < 570 * 0.35
    assert min(bars).hour >= 4
    assert max(bars).hour < 20


def test_who_trades_rarely_has_five_bars_a_day() -> None:
    bars = minutes(Market(0), KNOWN["CKX"], ms(2026, 9, 3), ms(2026, 9, 4))
    assert len(bars) == 5
    ordered = list(bars.values())
    assert all(after.open == before.close for before, after in pairwise(ordered))


@pytest.mark.parametrize("ticker", ["AAPL", "BF.B", "CKX", "I:SPX", "ZZT7"])
@pytest.mark.parametrize("on", [(2026, 9, 3), (2026, 11, 27)])
def test_a_day_has_the_prices_of_the_session_and_all_volume(ticker: str, on: tuple[int, int, int]) -> None:
    market, what = Market(0), find(ticker)
    assert what is not None
    whole = market.day(what, day(*on), ms(*LATER))
    bars = minutes(market, what, ms(*on), ms(*on, 23, 59))
    closes = (13, 0) if on[1] == 11 else (16, 0)
    session = [bar for at, bar in bars.items() if (9, 30) <= (at.hour, at.minute) < closes]
    assert whole is not None
    assert whole.open == session[0].open
    assert whole.close == session[-1].close
    assert whole.high == max(bar.high for bar in session)
    assert whole.low == min(bar.low for bar in session)
    assert whole.transactions == sum(bar.transactions for bar in bars.values())


@pytest.mark.parametrize("ticker", ["AAPL", "BF.B"])
def test_a_longer_bar_is_the_aggregation_of_the_minutes_that_are_there(ticker: str) -> None:
    market, what, step = Market(0), KNOWN[ticker], 5 * MINUTE_MS
    compared = 0
    for begin in range(ms(2026, 9, 3, 8), ms(2026, 9, 3, 11), step):
        parts = list(minutes(market, what, begin, begin + step).values())
        bar = market.bar(what, begin, begin + step, ms(*LATER))
        assert (bar is None) == (not parts)
        if bar is None:
            continue
        assert (bar.open, bar.close) == (parts[0].open, parts[-1].close)
        assert (bar.high, bar.low) == (max(part.high for part in parts), min(part.low for part in parts))
        assert (bar.transactions, bar.base_minutes) == (sum(part.transactions for part in parts), len(parts))
        compared += 1
    assert compared > 5


@pytest.mark.parametrize("ticker", ["AAPL", "I:SPX"])
def test_prices_move_in_the_session_and_stand_still_after_it(ticker: str) -> None:
    market, what = Market(0), KNOWN[ticker]
    opens = [market.tick(what, ms(2026, 9, 3, 9, 30) + 500 + 1000 * second) for second in range(90)]
    assert all(before.price != after.price and before.at_ms < after.at_ms for before, after in pairwise(opens))
    friday = market.tick(what, ms(2026, 9, 4, 20, 30))
    monday = market.tick(what, ms(2026, 9, 8, 3, 59))  # Labor Day is the day before
    assert friday == monday
    closed = datetime.fromtimestamp(friday.at_ms / 1000, NEW_YORK)
    assert (closed.day, closed.hour) == (4, 19 if ticker == "AAPL" else 15)
    last = list(minutes(market, what, ms(2026, 9, 4), ms(2026, 9, 5)).values())[-1]
    assert friday.price == last.close
    assert friday.bar == last
