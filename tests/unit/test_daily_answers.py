"""Grouped-daily answers, written by hand after the vendor's documents: what is a price in them, and what is none."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from assetbatch import market_hours
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Call, CallKind, Quote, Role
from assetbatch.provider import endpoints
from assetbatch.provider.results import Answers

MONDAY = date(2026, 11, 16)
FRIDAY = date(2026, 11, 20)
# 2026-11-16, 23:59:59.999
END_OF_MONDAY_MS = 1_794_873_599_999
HOUR_MS = 3_600_000
GOLD = Asset("XAUUSD", "C:XAUUSD", AssetType.FOREX, Role.PRIORITY, 1, 300)
EURO = Asset("EURUSD", "C:EURUSD", AssetType.FOREX, Role.PRIORITY, 2, 300)
BITCOIN = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 3, 300)
ACME, UPPER, PREFERRED, CLASS_B = (
    Asset(ticker, ticker, AssetType.STOCKS, Role.SECONDARY, 3, 1800) for ticker in ("ACME", "ACMPB", "ACMpB", "ACM.B")
)
BROAD = Asset("BROAD", "I:BROAD", AssetType.INDICES, Role.SECONDARY, 3, 1800)
# 2026-11-16, 16:00 and 0:00 in New York
CLOSE_OF_MONDAY_MS = END_OF_MONDAY_MS + 1 - 3 * HOUR_MS
BEGIN_OF_MONDAY_MS = END_OF_MONDAY_MS + 1 - 19 * HOUR_MS


def row(ticker: str = "C:EURUSD", **changes: Any) -> dict[str, Any]:
    figures = {"o": 1.05252, "h": 1.0631, "l": 1.0505, "c": 1.06206, "v": 180300, "vw": 1.055, "n": 180300}
    return {"T": ticker} | figures | {"t": END_OF_MONDAY_MS} | changes


def answer(*rows: Any, **changes: Any) -> str:
    document = {"adjusted": True, "queryCount": len(rows), "resultsCount": len(rows), "status": "OK", "request_id": "a"}
    return json.dumps(document | {"results": list(rows)} | changes)


def read(body: str, *assets: Asset, day: date = MONDAY, now: datetime | None = None) -> Answers:
    market = assets[0].asset_type if assets else AssetType.FOREX
    call = Call(CallKind.DAILY, assets or (EURO,), market=market, day=day)
    seen_at = now or datetime(day.year, day.month, day.day, 6, tzinfo=UTC) + timedelta(days=1)
    return endpoints.prices(call).parse(body.encode())(seen_at)


def test_a_days_close_is_the_price_with_the_vendors_digits_and_the_days_end_for_a_time() -> None:
    quote = read(answer(row(c=1.10, t=END_OF_MONDAY_MS)).replace("1.1,", "1.10,")).quotes["EURUSD"]

    assert str(quote.last_price) == str(quote.daily_close) == "1.10"
    assert (quote.daily_open, quote.daily_high, quote.daily_low) == (
        Decimal("1.05252"),
        Decimal("1.0631"),
        Decimal("1.0505"),
    )
    assert (quote.bid, quote.ask) == (None, None)
    assert quote.timestamp == datetime(2026, 11, 16, 23, 59, 59, 999_000, tzinfo=UTC)


def test_forex_of_a_friday_is_of_17_in_new_york_and_crypto_of_midnight() -> None:
    end_of_friday_ms = END_OF_MONDAY_MS + 4 * 24 * HOUR_MS
    forex = read(answer(row(t=end_of_friday_ms)), EURO, day=FRIDAY)
    crypto = read(answer(row("X:BTCUSD", t=end_of_friday_ms)), BITCOIN, day=FRIDAY)

    assert forex.quotes["EURUSD"].timestamp == datetime(2026, 11, 20, 22, tzinfo=UTC)
    assert crypto.quotes["BTCUSD"].timestamp == datetime(2026, 11, 20, 23, 59, 59, 999_000, tzinfo=UTC)


def test_volume_weighted_price_and_count_may_be_absent() -> None:
    short = {key: value for key, value in row().items() if key not in {"n", "vw", "v", "t"}}

    assert read(answer(short)).quotes["EURUSD"].last_price == Decimal("1.06206")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"c": 0}, "no close price"),
        ({"c": None}, "no close price"),
        ({"c": -1.06}, "negative"),
        ({"c": "1.06206"}, "no number"),
        ({"c": True}, "no number"),
        ({"c": float("nan")}, "no number"),
        ({"c": float("inf")}, "no number"),
        ({"c": {}}, "no number"),
        ({"h": -1}, "negative"),
        ({"o": "1"}, "no number"),
        ({"t": END_OF_MONDAY_MS - 24 * HOUR_MS}, "not of 2026-11-16"),
        ({"t": END_OF_MONDAY_MS + 7 * HOUR_MS}, "future"),
        ({"t": "yesterday"}, "no time"),
        ({"t": -1}, "no time"),
    ],
)
def test_a_row_that_is_no_price_fails_alone(wrong: dict[str, Any], reason: str) -> None:
    found = read(answer(row(**wrong), row("C:XAUUSD", c=2650.5)), GOLD, EURO)

    assert set(found.quotes) == {"XAUUSD"}
    kind, error = found.failures["EURUSD"]
    assert kind is FailureKind.INVALID
    assert reason in error
    assert "C:EURUSD" in error


@pytest.mark.parametrize("hours", [-23.9, -3.2, 0.0, 5.0])
def test_a_time_within_the_day_of_either_calendar_is_of_the_day(hours: float) -> None:
    found = read(answer(row(t=END_OF_MONDAY_MS + int(hours * HOUR_MS))))

    # The sample in the documents of crypto has times of the day's last trade.
    assert found.quotes["EURUSD"].timestamp == datetime(2026, 11, 16, 23, 59, 59, 999_000, tzinfo=UTC)


def test_a_time_of_the_next_day_is_none_of_the_day() -> None:
    found = read(answer(row(t=END_OF_MONDAY_MS + 7 * HOUR_MS)), now=datetime(2026, 11, 18, tzinfo=UTC))

    assert found.failures["EURUSD"][0] is FailureKind.INVALID


@pytest.mark.parametrize("rows", [[row("C:GBPUSD")], [row("C:EURUSDX")], [row("c:eurusd")], [row("X:EURUSD")]])
def test_an_answer_about_other_tickers_has_nothing_of_this_one(rows: list[dict[str, Any]]) -> None:
    assert read(answer(*rows)).failures["EURUSD"][0] is FailureKind.MISSING


@pytest.mark.parametrize("wreck", [None, 7, [], "C:EURUSD", {"c": 1}, {"T": 5, "c": 1}, {"T": ["C:EURUSD"], "c": 1}])
def test_a_row_that_is_none_does_not_spoil_the_others(wreck: object) -> None:
    assert read(answer(wreck, row(), wreck)).quotes["EURUSD"].last_price == Decimal("1.06206")


def test_a_row_that_comes_twice_is_one_price() -> None:
    found = read(answer(row(), row(), row("C:XAUUSD")), EURO, GOLD)

    assert set(found.quotes) == {"EURUSD", "XAUUSD"}
    assert not found.failures


@pytest.mark.parametrize("status", ["OK", "DELAYED"])
def test_a_status_that_says_delayed_is_good(status: str) -> None:
    assert read(answer(row(), status=status)).quotes.keys() == {"EURUSD"}


@pytest.mark.parametrize(
    "body",
    [
        '{"adjusted":true,"queryCount":0,"resultsCount":0,"status":"OK","request_id":"a"}',
        answer(results=None),
        answer(),
        answer({"c": 1}, None),
    ],
)
def test_an_answer_without_figures_is_an_empty_day(body: str) -> None:
    with pytest.raises(CallError) as caught:
        read(body)

    assert caught.value.kind is FailureKind.EMPTY
    assert "2026-11-16" in caught.value.reason


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (answer(row(), status="ERROR"), FailureKind.MALFORMED),
        (answer(row(), status=None), FailureKind.MALFORMED),
        (answer(results={"C:EURUSD": row()}), FailureKind.MALFORMED),
        (answer(status="NOT_AUTHORIZED", message="You are not entitled to this data."), FailureKind.NOT_ENTITLED),
        (
            answer(status="NOT_AUTHORIZED", message="Attempted to request today's data before end of day."),
            FailureKind.NOT_YET,
        ),
        (answer(status="NOT_AUTHORIZED", message="Your plan doesn't include this data timeframe."), "timeframe"),
    ],
)
def test_a_refusal_inside_a_good_answer_is_one(body: str, kind: FailureKind) -> None:
    with pytest.raises(CallError) as caught:
        read(body)

    assert caught.value.kind == kind


# Stocks: a whole market in New York


def test_the_day_of_all_stocks_is_asked_for_in_their_country_without_those_traded_over_the_counter() -> None:
    call = Call(CallKind.DAILY, (ACME,), market=AssetType.STOCKS, day=MONDAY)

    assert endpoints.prices(call).path == "/v2/aggs/grouped/locale/us/market/stocks/2026-11-16?adjusted=true"


def test_tickers_of_stocks_are_those_that_are_written_so() -> None:
    rows = [row(ticker, c=price, t=CLOSE_OF_MONDAY_MS) for ticker, price in (("ACMpB", 25.5), ("ACM.B", 300), ("A", 1))]

    found = read(answer(*rows), PREFERRED, UPPER, CLASS_B)

    assert {symbol: quote.last_price for symbol, quote in found.quotes.items()} == {
        "ACMpB": Decimal("25.5"),
        "ACM.B": Decimal(300),
    }
    assert found.failures == {"ACMPB": (FailureKind.MISSING, "ACMPB is not among the 3 tickers of 2026-11-16")}


@pytest.mark.parametrize(
    ("hours", "is_good"),
    [(0.0, True), (-15.9, True), (8.0, True), (-24.0, False), (24.0, False), (9.0, False)],
)
def test_a_stocks_row_is_of_the_day_in_new_york_whose_session_it_ends(hours: float, is_good: bool) -> None:
    time = CLOSE_OF_MONDAY_MS + int(hours * HOUR_MS) - 1

    found = read(answer(row("ACME", t=time)), ACME, now=datetime(2026, 11, 18, 6, tzinfo=UTC))

    assert ("ACME" in found.quotes) is is_good
    if is_good:
        assert found.quotes["ACME"].timestamp == market_hours.end_of_day(AssetType.STOCKS, MONDAY)


# Indices: a day of each


def read_index(
    rows: list[Any] | None, *, now: datetime = datetime(2026, 11, 17, 6, tzinfo=UTC), **changes: Any
) -> Answers:
    call = Call(CallKind.DAILY_TICKER, (BROAD,), market=AssetType.INDICES, day=MONDAY)
    document = {"ticker": "I:BROAD", "queryCount": 1, "resultsCount": 1, "status": "OK", "request_id": "a", "count": 1}
    return endpoints.prices(call).parse(
        json.dumps(document | ({} if rows is None else {"results": rows}) | changes).encode()
    )(now)


def index_row(**changes: Any) -> dict[str, Any]:
    return {"o": 3827.38, "h": 3834.41, "l": 3817.11, "c": 3822.25, "t": BEGIN_OF_MONDAY_MS} | changes


def test_a_days_window_of_one_ticker_is_asked_for() -> None:
    call = Call(CallKind.DAILY_TICKER, (BROAD,), market=AssetType.INDICES, day=MONDAY)

    path = "/v2/aggs/ticker/I:BROAD/range/1/day/2026-11-16/2026-11-16?adjusted=true"
    assert endpoints.prices(call).path == path
    assert call.kind.access is CallKind.DAILY.access


def test_an_index_has_figures_without_volume_average_or_count() -> None:
    quote = read_index([index_row()]).quotes["BROAD"]

    assert quote == Quote(
        Decimal("3822.25"),
        market_hours.end_of_day(AssetType.INDICES, MONDAY),
        daily_open=Decimal("3827.38"),
        daily_high=Decimal("3834.41"),
        daily_low=Decimal("3817.11"),
        daily_close=Decimal("3822.25"),
    )


@pytest.mark.parametrize("rows", [None, []])
def test_an_index_without_a_row_is_an_empty_day(rows: list[Any] | None) -> None:
    with pytest.raises(CallError) as caught:
        read_index(rows, resultsCount=0)

    assert caught.value.kind is FailureKind.EMPTY
    assert caught.value.reason == "the vendor has no figures of I:BROAD of 2026-11-16"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c": 0}, "no close price"),
        ({"c": "3822.25"}, "no number"),
        ({"h": -1}, "negative"),
        ({"t": BEGIN_OF_MONDAY_MS + 24 * HOUR_MS}, "not of 2026-11-16"),
        ({"t": BEGIN_OF_MONDAY_MS - 24 * HOUR_MS}, "not of 2026-11-16"),
    ],
)
def test_an_index_whose_row_is_no_price_fails(changes: dict[str, Any], reason: str) -> None:
    kind, error = read_index([index_row(**changes)]).failures["BROAD"]

    assert kind is FailureKind.INVALID
    assert error.startswith("I:BROAD: ")
    assert reason in error


@pytest.mark.parametrize("ticker", ["I:OTHER", "BROAD", "i:broad", None, 5])
def test_a_day_of_another_ticker_is_none(ticker: object) -> None:
    with pytest.raises(CallError) as caught:
        read_index([index_row()], ticker=ticker)

    assert caught.value.kind is FailureKind.INVALID


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"currencies": {"fx": "open", "crypto": "open"}}, {AssetType.FOREX: True, AssetType.CRYPTO: True}),
        ({"currencies": {"fx": "closed"}}, {AssetType.FOREX: False}),
        ({"currencies": {"fx": "early-close", "crypto": 1}}, {AssetType.FOREX: False}),
        ({"currencies": None}, {}),
        ({"currencies": ["fx"]}, {}),
        ({"market": "closed"}, {}),
        (
            {"exchanges": {"nyse": "open", "nasdaq": "open", "otc": "closed"}},
            {AssetType.STOCKS: True, AssetType.INDICES: True},
        ),
        ({"exchanges": {"nyse": "closed", "nasdaq": "open"}}, {AssetType.STOCKS: True, AssetType.INDICES: True}),
        (
            {"market": "extended-hours", "exchanges": {"nyse": "extended-hours", "nasdaq": 5}},
            {AssetType.STOCKS: False, AssetType.INDICES: False},
        ),
        ({"exchanges": {"nasdaq": "closed"}}, {AssetType.STOCKS: False, AssetType.INDICES: False}),
        ({"exchanges": {"otc": "open"}, "indicesGroups": {"s_and_p": "open"}}, {}),
        ({"exchanges": "open"}, {}),
    ],
)
def test_every_field_of_the_market_status_may_be_absent(
    document: dict[str, Any], expected: dict[AssetType, bool]
) -> None:
    found = endpoints.markets_open().parse(json.dumps(document).encode())(datetime(2026, 11, 17, tzinfo=UTC))

    assert found == expected
