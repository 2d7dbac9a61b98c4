"""The vendor's pages of bars, as they come and as they go wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from assetbatch.bar_series import BarSeries
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Bar, Call, CallKind, Role, Span
from assetbatch.provider import endpoints
from assetbatch.provider.results import Page

ASSET = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300)
ACME = Asset("ACMpB", "ACMpB", AssetType.STOCKS, Role.PRIORITY, 1, 300)
BROAD = Asset("BROAD", "I:BROAD", AssetType.INDICES, Role.PRIORITY, 1, 300)
BEGIN = datetime(2026, 11, 17, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOW = BEGIN + timedelta(days=1)
# What JSON cannot say in Python's own words, put in as it stands.
RAW = {'"@NaN"': "NaN", '"@huge"': "1e400", '"@digits"': "96512.12345678901234567890", '"@exponent"': "9.65e4"}


def call(minutes: int = 5, length: timedelta = timedelta(hours=1), asset: Asset = ASSET) -> Call:
    return Call(CallKind.BARS, (asset,), span=Span(BEGIN, BEGIN + length), minutes=minutes)


def row(minute: int = 0, **changes: Any) -> dict[str, Any]:
    ms = int((BEGIN + minute * MINUTE).timestamp() * 1000)
    good = {"v": 1.5, "vw": 96510.5, "o": 96500, "c": 96512.25, "h": 96520.5, "l": 96499, "t": ms, "n": 37}
    return {key: value for key, value in (good | changes).items() if value != "absent"}


def written(rows: object, **changes: Any) -> bytes:
    document = {"ticker": "X:BTCUSD", "queryCount": 5, "adjusted": True, "status": "OK"}
    text = json.dumps(document | ({} if rows is None else {"results": rows}) | changes)
    for word, raw in RAW.items():
        text = text.replace(word, raw)
    return text.encode()


def read(rows: object, asked: Call | None = None, **changes: Any) -> Page:
    body, request = written(rows, **changes), endpoints.bars(asked or call())
    found = request.parse(body)(NOW)
    # Taken by columns or row by row, it is the same page.
    by_row = replace(request, plain=lambda _: None).parse(body)(NOW)
    assert by_row == replace(found, bars=by_row.bars)
    assert list(by_row.bars) == list(found.bars)
    return found


def test_a_page_is_read_digit_by_digit() -> None:
    page = read([row(), row(5, o="@digits", h="@exponent")])

    first, second = page.bars
    assert first == Bar(
        BEGIN,
        Decimal(96500),
        Decimal("96520.5"),
        Decimal(96499),
        Decimal("96512.25"),
        Decimal("1.5"),
        Decimal("96510.5"),
        37,
    )
    assert (str(second.open), second.high) == ("96512.12345678901234567890", Decimal(96500))
    assert (page.more, page.invalid) == (False, ())


@pytest.mark.parametrize("rows", [None, []])
def test_an_answer_without_rows_is_an_empty_page(rows: object) -> None:
    assert read(rows) == Page(BarSeries(), more=False)
    assert read(None, results=None) == Page(BarSeries(), more=False)


@pytest.mark.parametrize("count", [0, 1, "@NaN", "@huge", "7", None, [], True, -1])
def test_a_count_that_claims_no_more_rows_than_there_are_says_nothing(count: object) -> None:
    if count == "@huge":
        with pytest.raises(CallError, match=r"the page has 1 rows and says that they are 1E\+400"):
            read([row()], resultsCount=count)
    else:
        assert len(read([row()], resultsCount=count).bars) == 1


@pytest.mark.parametrize("rows", [None, [], [row()], [row(), row()]])
def test_a_page_with_fewer_rows_than_it_counts_is_none(rows: object) -> None:
    with pytest.raises(CallError, match="and says that they are 3") as raised:
        read(rows, resultsCount=3)
    assert raised.value.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("minutes", [1, 5])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ({"n": 38, "c": 1, "v": 1}, {"n": 37, "c": 2, "v": 9}),
        ({"n": 37, "v": 2.5, "c": 1}, {"n": 37, "v": 2.25, "c": 2}),
        ({"n": 1, "v": 1, "c": 1}, {"n": "absent", "v": 9, "c": 2}),
        ({"n": 0, "v": 1, "c": 1}, {"n": "absent", "v": 9, "c": 2}),
        ({"n": "absent", "v": 9, "c": 1}, {"n": "absent", "v": 1, "c": 2}),
        ({"n": "absent", "v": 9, "c": 1}, {"n": "absent", "v": "absent", "c": 2}),
    ],
)
def test_of_two_bars_of_one_time_that_of_more_trades_is_taken(
    taken: dict[str, Any], left: dict[str, Any], turn: int, minutes: int
) -> None:
    page = read([*[row(5, **taken), row(5, **left)][::turn], row()], call(minutes))

    assert [(bar.ts, bar.close) for bar in page.bars] == [(BEGIN, Decimal("96512.25")), (BEGIN + 5 * MINUTE, 1)]
    assert (page.contradicted, page.invalid) == ((BEGIN + 5 * MINUTE,), ())


def test_of_three_the_one_of_most_trades_is_taken_and_counted_once() -> None:
    page = read([row(n=3, c=1), row(5), row(n=9, c=2), row(n=5, c=3), row(n=9, c=2)])

    assert [bar.close for bar in page.bars] == [2, Decimal("96512.25")]
    assert page.contradicted == (BEGIN,)


@pytest.mark.parametrize("other", [{}, {"o": 96500.0}, {"more": 1}])
def test_the_same_bar_twice_contradicts_nothing(other: dict[str, Any]) -> None:
    page = read([row(5), row(), row(**other), row(5)])

    assert (len(page.bars), page.contradicted) == (2, ())


def test_a_row_that_is_no_bar_contradicts_none() -> None:
    for rows in ([row(), row(c=0, n=99)], [row(c=0, n=99), row()]):
        assert read(rows) == read([row()])


def test_of_the_next_page_it_counts_only_that_it_is_there() -> None:
    assert read([row()], next_url="https://elsewhere.example/steal?cursor=1").more
    assert not read([row()], next_url="").more
    assert not read([row()], next_url=None).more


@pytest.mark.parametrize("rows", [None, [], [row(o=0)], [row(-5)]])
def test_a_page_without_bars_cannot_have_further_ones(rows: object) -> None:
    with pytest.raises(CallError) as raised:
        read(rows, next_url="https://api.massive.com/v2/aggs?cursor=1")

    assert raised.value.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("ticker", ["X:ETHUSD", "", None, 5, "C:BTCUSD"])
def test_an_answer_about_another_ticker_is_none(ticker: object) -> None:
    with pytest.raises(CallError) as raised:
        read([row()], ticker=ticker)

    assert raised.value.kind is FailureKind.INVALID
    assert "X:BTCUSD" in raised.value.reason


@pytest.mark.parametrize("status", ["ERROR", "", None, "NOT_AUTHORIZED"])
def test_a_refusal_inside_a_good_answer_is_one(status: object) -> None:
    with pytest.raises(CallError):
        read([row()], status=status)


def test_results_that_are_no_list_are_no_answer() -> None:
    with pytest.raises(CallError) as raised:
        read({"t": 1})

    assert raised.value.kind is FailureKind.MALFORMED


def test_delayed_data_are_good_data() -> None:
    assert len(read([row()], status="DELAYED").bars) == 1


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=6))
@settings(max_examples=50)
def test_order_and_repetition_do_not_matter(order: list[int], again: list[int]) -> None:
    page = read([row(5 * number) for number in [*order, *again]])

    assert [bar.ts for bar in page.bars] == [BEGIN + 5 * number * MINUTE for number in range(12)]


@pytest.mark.parametrize("key", ["o", "h", "l", "c"])
@pytest.mark.parametrize("value", [0, -1, "@NaN", "@huge", "96500", None, "absent", [], True, 1e19, 1e-19])
def test_a_row_without_a_price_condemns_itself_alone(key: str, value: object) -> None:
    page = read([row(), row(5, **{key: value}), row(10)])

    assert [bar.ts for bar in page.bars] == [BEGIN, BEGIN + 10 * MINUTE]
    ((ts, why),) = page.invalid
    assert ts == BEGIN + 5 * MINUTE
    assert f"`{key}`" in why


def test_a_good_row_makes_up_for_a_bad_one_of_the_same_time() -> None:
    for rows in ([row(), row(o=0)], [row(o=0), row()]):
        page = read(rows)
        assert (len(page.bars), page.invalid) == (1, ())


@pytest.mark.parametrize(("value", "expected"), [(0, Decimal(0)), ("absent", Decimal(0)), (0.25, Decimal("0.25"))])
def test_there_are_bars_without_volume(value: object, expected: Decimal) -> None:
    assert read([row(v=value)]).bars[0].volume == expected


@pytest.mark.parametrize("value", [-1, "@NaN", "@huge", "1", None, True, 1e19])
def test_what_is_no_volume_spoils_its_row(value: object) -> None:
    page = read([row(v=value), row(5)])

    assert (len(page.bars), len(page.invalid)) == (1, 1)


@pytest.mark.parametrize("value", ["absent", None, 0])
def test_average_and_count_may_be_absent(value: object) -> None:
    (bar,) = read([row(vw=value, n=value)]).bars

    assert bar.vwap is None
    assert bar.trades == (0 if value == 0 else None)


@pytest.mark.parametrize("changes", [{"n": 1.5}, {"n": -1}, {"n": 2**31}, {"n": "@NaN"}, {"n": "3"}, {"vw": -1}])
def test_what_is_no_average_or_count_spoils_its_row(changes: dict[str, Any]) -> None:
    page = read([row(**changes), row(5)])

    assert (len(page.bars), len(page.invalid)) == (1, 1)


@pytest.mark.parametrize("minute", [-5, -1, 3, 60, 65, 24 * 60, 48 * 60, 10**7])
def test_rows_off_the_grid_or_outside_of_what_was_asked_are_left_out(minute: int) -> None:
    assert read([row(), row(minute)]) == read([row()])


@pytest.mark.parametrize("time", [None, "absent", "x", 0, -1, "@NaN", "@huge", 1.5, []])
def test_rows_of_no_time_are_left_out(time: object) -> None:
    assert read([row(), row(5, t=time)]) == read([row()])


@pytest.mark.parametrize("junk", [None, 5, "row", [], [[]]])
def test_what_is_no_row_is_left_out(junk: object) -> None:
    assert read([junk, row()]) == read([row()])


def test_a_bar_of_the_future_is_none() -> None:
    ahead = call(length=timedelta(days=2))

    page = read([row(), row(24 * 60), row(24 * 60 + 10)], ahead)

    assert [bar.ts for bar in page.bars] == [BEGIN, NOW]


def test_minutes_have_a_grid_of_their_own() -> None:
    page = read([row(), row(1), row(59), row(60)], call(minutes=1))

    assert [bar.ts for bar in page.bars] == [BEGIN, BEGIN + MINUTE, BEGIN + 59 * MINUTE]


@given(
    st.dictionaries(
        st.sampled_from("ohlcvtn"),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]),
    )
)
@settings(max_examples=50)
def test_whatever_a_row_holds_its_neighbours_are_read(changes: dict[str, Any]) -> None:
    page = read([row(), row(5, **changes), row(10)])

    assert {BEGIN, BEGIN + 10 * MINUTE} <= {bar.ts for bar in page.bars}
    for bar in page.bars:
        assert all(0 < price < 10**18 + 1 for price in (bar.open, bar.high, bar.low, bar.close))


@pytest.mark.parametrize("volume", [9099.618093, 0.000001, 28727868, 0])
def test_parts_of_shares_are_volume_digit_by_digit(volume: float) -> None:
    document = {"ticker": "ACMpB", "results": [row(v=volume, dv=str(volume)), row(5)]}
    request = endpoints.bars(call(asset=ACME))

    assert request.path.startswith("/v2/aggs/ticker/ACMpB/range/5/minute/")
    assert read([row(v=volume)]).bars[0].volume == Decimal(str(volume))
    assert read([], call(asset=ACME), **document).bars[0].volume == Decimal(str(volume))


def test_a_stock_without_its_volume_has_no_bar() -> None:
    page = read([], call(asset=ACME), ticker="ACMpB", results=[row(v=None), row(5)])

    assert (len(page.bars), [ts for ts, _ in page.invalid]) == (1, [BEGIN])


INDEX_ROWS = [{}, {"v": None, "vw": None, "n": None}, {"v": 0, "vw": 0, "n": 0}, {"v": "-1", "vw": -1, "n": 1.5}]


@pytest.mark.parametrize("changes", INDEX_ROWS, ids=str)
@pytest.mark.parametrize("minutes", [1, 5])
def test_bars_of_indices_tell_of_no_trade_whatever_stands_there(changes: dict[str, Any], minutes: int) -> None:
    nothing = {"v": "absent", "vw": "absent", "n": "absent"}
    rows = [row(**nothing | changes), row(5, **nothing)]
    asked = call(minutes, asset=BROAD)

    page = read(rows, asked, ticker="I:BROAD")

    prices = (Decimal(96500), Decimal("96520.5"), Decimal(96499), Decimal("96512.25"))
    assert list(page.bars) == [Bar(BEGIN, *prices, None), Bar(BEGIN + 5 * MINUTE, *prices, None)]
    assert endpoints.bars(asked).plain(written(rows, ticker="I:BROAD")) is not None


def test_of_two_bars_of_an_index_the_first_is_taken() -> None:
    page = read([row(n="absent", c=1), row(n="absent", c=2)], call(asset=BROAD), ticker="I:BROAD")

    assert ([bar.close for bar in page.bars], page.contradicted) == ([Decimal(1)], (BEGIN,))


PLAIN = [
    {},
    {"vw": "absent", "n": "absent"},
    {"vw": None, "n": None},
    {"v": "absent"},
    {"v": 0},
    {"v": 9.5e-7},
    {"o": 1.5e-7, "l": 0.000000000000000001},
    {"h": 999_999_999_999_999_999},
    {"more": {"of": ["what", {"nobody": "knows"}]}},
]
ODD = [
    {"o": 0},
    {"c": -1},
    {"h": 10**18},
    {"l": 1e-19},
    {"o": "@exponent"},
    {"o": "@NaN"},
    {"o": "@huge"},
    {"o": "1"},
    {"v": None},
    {"v": -1},
    {"v": 1e19},
    {"vw": 0},
    {"n": 1.5},
    {"n": 2**31},
    {"t": 0},
    {"t": 1.5},
    {"t": 1_795_000_000_000_000},
    {"c": "absent"},
]


def plain(body: bytes) -> Page | None:
    """Take a page by columns, if nothing in it is odd."""
    read = endpoints.bars(call()).plain(body)
    return None if read is None else read(NOW)


@pytest.mark.parametrize("changes", PLAIN, ids=str)
def test_a_page_in_which_nothing_is_odd_is_taken_by_columns(changes: dict[str, Any]) -> None:
    page = plain(written([row(), row(5, **changes), row(10)]))

    assert page is not None
    assert page == read([row(), row(5, **changes), row(10)])
    assert len(page.bars) == 3


@pytest.mark.parametrize("changes", ODD, ids=str)
def test_a_page_with_an_odd_row_is_read_row_by_row(changes: dict[str, Any]) -> None:
    assert plain(written([row(), row(5, **changes), row(10)])) is None


@pytest.mark.parametrize(
    "rows", [None, [], [row(5), row()], [row(), row()], [row(), row(3)], [row(-5), row()], [row(), row(60)], [row(), 1]]
)
def test_a_page_whose_rows_lie_oddly_is_read_row_by_row(rows: object) -> None:
    assert plain(written(rows)) is None


@pytest.mark.parametrize(
    "changes", [{"status": "ERROR"}, {"status": None}, {"ticker": "X:ETHUSD"}, {"resultsCount": 2}, {"next_url": 1}]
)
def test_a_document_that_is_odd_is_read_by_its_parts(changes: dict[str, Any]) -> None:
    assert plain(written([row()], **changes)) is None
    assert plain(written([row()])) is not None


@given(st.decimals(0, 10**18, allow_nan=False), st.sampled_from("ohlcvn"))
@settings(max_examples=100)
def test_what_is_taken_by_columns_is_what_reading_row_by_row_takes(value: Decimal, key: str) -> None:
    body = written([row()]).replace(f'"{key}": {row()[key]}'.encode(), f'"{key}": {value}'.encode())

    if (page := plain(body)) is not None:
        by_row = replace(endpoints.bars(call()), plain=lambda _: None).parse(body)(NOW)
        assert (list(page.bars), by_row.invalid) == (list(by_row.bars), ())
