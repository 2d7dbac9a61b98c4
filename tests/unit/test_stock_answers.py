"""Snapshots of stocks and indices, written by hand after the vendor's documents: which price counts, and of when."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.failures import FailureKind
from assetbatch.model import AssetType, Call, CallKind, Quote
from assetbatch.provider import endpoints
from tests.unit.test_answers import (
    BITCOIN,
    GOLD,
    QUOTED_AT,
    QUOTED_MS,
    QUOTED_NS,
    UNIFIED_BITCOIN,
    UNIFIED_GOLD,
    asset,
    failure,
    read,
    unified,
)

# Stocks of nobody; lower case is of preferred shares, a dot of a class of shares.
ACME = asset("ACME", "ACME", AssetType.STOCKS)
PREFERRED = asset("ACMpB", "ACMpB", AssetType.STOCKS)
CLASS_B = asset("ACM.B", "ACM.B", AssetType.STOCKS)
BROAD = asset("BROAD", "I:BROAD", AssetType.INDICES)
MIXED = Call(CallKind.SNAPSHOT, (GOLD, ACME, BITCOIN, BROAD))
ONE_ACME = Call(CallKind.SNAPSHOT_SINGLE, (ACME,))
MINUTE_AT = QUOTED_AT.replace(second=0, microsecond=0)
MINUTE_NS = 1_795_175_940_000_000_000
MINUTE_MS = MINUTE_NS // 10**6

UNIFIED_ACME = f"""{{
  "ticker": "ACME", "type": "stocks", "name": "Acme Corp.", "market_status": "open", "fmv": 0.05,
  "session": {{"open": 41.10, "high": 42.5, "low": 40.875, "close": 41.9, "price": 7, "volume": 9099.618093,
               "previous_close": 40.5, "last_updated": {QUOTED_NS}}},
  "last_quote": {{"ask": 41.93, "bid": 41.90, "ask_size": 4, "bid_size": 8, "last_updated": {QUOTED_NS + 7}}},
  "last_trade": {{"price": 41.9150, "size": 100, "conditions": [14, 41], "exchange": 10, "id": "4064",
                  "sip_timestamp": {QUOTED_NS}, "timeframe": "REAL-TIME"}},
  "last_minute": {{"open": 41.8, "high": 42, "low": 41.8, "close": 41.880, "volume": 610, "vwap": 41.8881,
                   "transactions": 26, "last_updated": {MINUTE_NS}}}
}}"""
UNIFIED_BROAD = f"""{{
  "ticker": "I:BROAD", "type": "indices", "name": "Broad Market Index", "market_status": "open",
  "value": 3822.390, "last_updated": {QUOTED_NS}, "timeframe": "DELAYED",
  "session": {{"open": 3827.38, "high": 3834.41, "low": 3817.11, "close": 3822.3, "previous_close": 3812.19}}
}}"""
SINGLE_ACME = f"""{{"request_id": "x", "status": "OK", "ticker": {{
  "ticker": "ACME", "todaysChange": 0.98, "todaysChangePerc": 0.82, "updated": {QUOTED_NS + 10**12},
  "day": {{"o": 41.10, "h": 42.5, "l": 40.875, "c": 41.9, "v": 28727868, "dv": "28727868.0", "vw": 41.7}},
  "lastQuote": {{"P": 41.93, "S": 4, "p": 41.90, "s": 8, "t": {QUOTED_NS + 7}}},
  "lastTrade": {{"c": [14, 41], "ds": "236.0", "i": "4046", "p": 41.9150, "s": 236, "t": {QUOTED_NS}, "x": 10}},
  "min": {{"av": 28724441, "dav": "28724441.0", "dv": "270796.0", "o": 41.8, "h": 42, "l": 41.8, "c": 41.880,
           "n": 762, "t": {MINUTE_MS}, "v": 270796, "vw": 41.8881}},
  "prevDay": {{"o": 40, "h": 41, "l": 39, "c": 40.5, "v": 110597265, "vw": 40.3}}}}}}"""


def changed(row: str, **changes: Any) -> str:
    """Change members of a row; its digits stay as they are written."""
    parts = json.loads(row, parse_float=Digits, parse_int=Digits) | changes
    return (
        json.dumps({key: value for key, value in parts.items() if value != "absent"})
        .replace('"#', "")
        .replace('#"', "")
    )


class Digits(str):
    """A number as it is written."""

    __slots__ = ()

    def __new__(cls, digits: str) -> Digits:
        return super().__new__(cls, f"#{digits}#")


def single(**changes: Any) -> str:
    row = json.dumps(json.loads(SINGLE_ACME)["ticker"])
    return f'{{"status": "OK", "ticker": {changed(row, **changes)}}}'


ABSENT = ["absent", None, {}, {"price": 0, "p": 0, "size": 0, "sip_timestamp": 0, "t": 0}]


@pytest.mark.parametrize(("call", "document"), [(MIXED, unified(UNIFIED_ACME)), (ONE_ACME, SINGLE_ACME)])
def test_of_stocks_the_last_trade_is_the_price_between_bid_and_ask(call: Call, document: str) -> None:
    quote = read(call, document).quotes["ACME"]

    assert quote == Quote(
        Decimal("41.9150"),
        QUOTED_AT,
        bid=Decimal("41.90"),
        ask=Decimal("41.93"),
        daily_open=Decimal("41.10"),
        daily_high=Decimal("42.5"),
        daily_low=Decimal("40.875"),
        daily_close=Decimal("41.9"),
    )
    assert [str(number) for number in (quote.last_price, quote.bid, quote.daily_open)] == ["41.9150", "41.90", "41.10"]


@pytest.mark.parametrize("trade", ABSENT, ids=str)
def test_where_a_plan_has_no_trades_the_last_minutes_close_is_the_price_and_its_time_counts(trade: object) -> None:
    quote = read(MIXED, unified(changed(UNIFIED_ACME, last_trade=trade, last_quote="absent"))).quotes["ACME"]
    one = read(ONE_ACME, single(lastTrade=trade, lastQuote="absent")).quotes["ACME"]

    for found in (quote, one):
        assert (str(found.last_price).rstrip("0"), found.timestamp) == ("41.88", MINUTE_AT)
        assert (found.bid, found.ask) == (None, None)
    assert str(quote.last_price) == "41.880"


@pytest.mark.parametrize("seconds", [-600, -1, 0, 1, 600])
def test_a_minute_never_wins_against_a_trade_be_it_older_or_newer(seconds: int) -> None:
    minute = {"close": 5, "last_updated": QUOTED_NS + seconds * 10**9}

    quote = read(MIXED, unified(changed(UNIFIED_ACME, last_minute=minute))).quotes["ACME"]

    assert (quote.last_price, quote.timestamp) == (Decimal("41.915"), QUOTED_AT)


def test_before_the_session_its_zeros_are_no_figures_and_the_last_trade_is_still_the_price() -> None:
    zeros = {"open": 0, "high": 0, "low": 0.0, "close": 0, "volume": 0}
    quote = read(MIXED, unified(changed(UNIFIED_ACME, session=zeros))).quotes["ACME"]
    one = read(ONE_ACME, single(day={"o": 0, "h": 0, "l": 0, "c": 0, "v": 0, "vw": 0})).quotes["ACME"]

    for found in (quote, one):
        assert found.last_price == Decimal("41.915")
        assert [found.daily_open, found.daily_high, found.daily_low, found.daily_close] == [None] * 4


def test_after_the_vendor_has_cleared_the_day_there_is_no_price_at_all() -> None:
    nothing = {"c": 0, "p": 0, "P": 0, "t": 0}
    found = read(ONE_ACME, single(day=nothing, lastQuote=nothing, lastTrade=nothing, min=nothing, updated=0))

    assert failure(found, "ACME") == (
        FailureKind.INVALID,
        "ACME: no trade price or minute's close (zero or absent)",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"last_trade": "absent", "last_minute": "absent"},
        {"last_trade": {"price": 0}, "last_minute": {"close": 0, "last_updated": MINUTE_NS}},
        {"last_trade": None, "last_minute": None},
    ],
    ids=str,
)
def test_neither_sessions_price_nor_quote_is_a_stocks_price(changes: dict[str, Any]) -> None:
    found = read(MIXED, unified(changed(UNIFIED_ACME, **changes), UNIFIED_GOLD))

    assert failure(found, "ACME")[0] is FailureKind.INVALID
    assert found.quotes.keys() == {"XAUUSD"}


@pytest.mark.parametrize(
    "changes",
    [
        {"last_trade": {"price": 41.9}},
        {"last_trade": {"price": 41.9, "sip_timestamp": 0}},
        {"last_trade": "absent", "last_minute": {"close": 41.88}},
        {"last_trade": "absent", "last_minute": {"close": 41.88, "last_updated": QUOTED_NS + 10**15}},
        {"last_trade": {"price": "41.9", "sip_timestamp": QUOTED_NS}},
        {"last_trade": {"price": -1, "sip_timestamp": QUOTED_NS}},
        {"last_minute": [], "last_trade": "absent"},
    ],
    ids=str,
)
def test_what_is_no_price_of_a_stock_condemns_its_row_alone(changes: dict[str, Any]) -> None:
    found = read(MIXED, unified(changed(UNIFIED_ACME, **changes), UNIFIED_BROAD))

    assert failure(found, "ACME")[0] is FailureKind.INVALID
    assert found.quotes.keys() == {"BROAD"}


def test_of_indices_the_value_is_the_price_and_the_rows_time_its_time() -> None:
    quote = read(MIXED, unified(UNIFIED_BROAD)).quotes["BROAD"]

    assert quote == Quote(
        Decimal("3822.390"),
        QUOTED_AT,
        daily_open=Decimal("3827.38"),
        daily_high=Decimal("3834.41"),
        daily_low=Decimal("3817.11"),
        daily_close=Decimal("3822.3"),
    )
    assert str(quote.last_price) == "3822.390"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": "absent"}, "no value (zero or absent)"),
        ({"value": 0}, "no value (zero or absent)"),
        ({"value": "3822.39"}, "`value` is no number: 3822.39"),
        ({"value": -3822.39}, "`value` is negative: -3822.39"),
        ({"value": {"price": 1}}, "`value` is no number: a dict"),
        ({"last_updated": "absent"}, "no time of its price: None"),
        ({"last_updated": 0}, "no time of its price: None"),
    ],
)
def test_an_index_without_its_value_has_no_price(changes: dict[str, Any], words: str) -> None:
    found = read(MIXED, unified(changed(UNIFIED_BROAD, **changes), UNIFIED_ACME))

    assert failure(found, "BROAD") == (FailureKind.INVALID, f"I:BROAD: {words}")
    assert found.quotes.keys() == {"ACME"}


def test_there_is_no_snapshot_of_a_single_index_but_the_unified_one_of_one_ticker() -> None:
    request = endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (BROAD,)))

    assert request.path == "/v3/snapshot?ticker.any_of=I%3ABROAD&limit=250"
    assert request.parse(unified(UNIFIED_BROAD).encode())(QUOTED_AT).quotes.keys() == {"BROAD"}


@pytest.mark.parametrize(
    ("one", "path"), [(PREFERRED, "/ACMpB"), (CLASS_B, "/ACM.B"), (ACME, "/ACME")], ids=lambda one: str(one)[-8:]
)
def test_a_stocks_ticker_goes_into_the_path_as_it_is_written(one: Any, path: str) -> None:
    request = endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (one,)))

    assert request.path == f"/v2/snapshot/locale/us/markets/stocks/tickers{path}"


def test_tickers_that_differ_in_case_are_two() -> None:
    upper = asset("ACMPB", "ACMPB", AssetType.STOCKS)
    rows = (UNIFIED_ACME.replace('"ACME"', '"ACMpB"'), UNIFIED_ACME.replace('"ACME"', '"ACM.B"'))

    found = read(Call(CallKind.SNAPSHOT, (PREFERRED, upper, CLASS_B)), unified(*rows))

    assert found.quotes.keys() == {"ACMpB", "ACM.B"}
    assert failure(found, "ACMPB")[0] is FailureKind.MISSING


def test_four_types_come_in_one_answer_each_with_its_own_price() -> None:
    rows = (UNIFIED_BROAD, UNIFIED_ACME, UNIFIED_GOLD, UNIFIED_BITCOIN)
    request = endpoints.prices(MIXED)

    assert request.plain(unified(*rows).encode()) is not None
    prices = {symbol: str(quote.last_price) for symbol, quote in read(MIXED, unified(*rows)).quotes.items()}
    assert prices == {"XAUUSD": "2104.9", "ACME": "41.9150", "BTCUSD": "51500.25", "BROAD": "3822.390"}


def test_an_index_that_the_plan_lacks_is_refused_alone() -> None:
    refused = '{"ticker": "I:BROAD", "error": "NOT_ENTITLED", "message": "Not entitled to this ticker."}'

    found = read(MIXED, unified(UNIFIED_ACME, refused))

    assert failure(found, "BROAD") == (FailureKind.NOT_ENTITLED, "NOT_ENTITLED: Not entitled to this ticker.")
    assert found.quotes.keys() == {"ACME"}


@pytest.mark.parametrize(
    ("row", "is_plain"),
    [
        (UNIFIED_ACME, True),
        (changed(UNIFIED_ACME, last_trade="absent"), True),
        (changed(UNIFIED_ACME, last_trade={"price": 0, "sip_timestamp": 0}), True),
        (changed(UNIFIED_ACME, last_minute=None), True),
        (changed(UNIFIED_ACME, last_minute={"close": -1}), False),
        (changed(UNIFIED_ACME, last_minute={"close": 1, "last_updated": 1.5}), False),
        (changed(UNIFIED_ACME, last_trade="absent", last_minute={"close": 1}), False),
        (changed(UNIFIED_ACME, last_trade={"price": 5}), False),
    ],
)
def test_a_stock_is_read_by_itself_where_nothing_is_odd(row: str, is_plain: bool) -> None:
    call = Call(CallKind.SNAPSHOT, (ACME,))
    body = unified(row).encode()

    assert (endpoints.prices(call).plain(body) is not None) is is_plain
    assert read(call, body)


digits = st.decimals(min_value="1e-12", max_value="1e12", allow_nan=False, allow_infinity=False, places=12)
late = st.integers(0, 900)


@given(trade=st.none() | digits, minute=st.none() | digits, value=digits, seconds=late)
def test_prices_of_stocks_and_indices_are_the_texts_digits(
    trade: Decimal | None, minute: Decimal | None, value: Decimal, seconds: int
) -> None:
    at_ns = QUOTED_NS - seconds * 10**9
    last_trade = "absent" if trade is None else {"price": f"#{trade:f}#", "sip_timestamp": at_ns}
    last_minute = "absent" if minute is None else {"close": f"#{minute:f}#", "last_updated": MINUTE_NS}
    rows = (
        changed(UNIFIED_ACME, last_trade=last_trade, last_minute=last_minute),
        changed(UNIFIED_BROAD, value=f"#{value:f}#"),
    )

    found = read(MIXED, unified(*rows))

    assert found.quotes["BROAD"].last_price.as_tuple() == value.as_tuple()
    expected = minute if trade is None else trade
    if expected is None:
        assert failure(found, "ACME")[0] is FailureKind.INVALID
    else:
        quote = found.quotes["ACME"]
        assert quote.last_price.as_tuple() == expected.as_tuple()
        at = MINUTE_AT if trade is None else QUOTED_AT - timedelta(seconds=seconds)
        assert quote.timestamp == at


def test_times_of_stocks_are_nano_and_milliseconds() -> None:
    assert datetime.fromtimestamp(QUOTED_MS / 1000, UTC).replace(microsecond=123456) == QUOTED_AT
    one = read(ONE_ACME, single(lastTrade={"p": 5, "t": QUOTED_MS})).quotes["ACME"]
    assert one.timestamp == QUOTED_AT.replace(microsecond=123000)
