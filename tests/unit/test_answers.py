"""Reading the vendor's answers: whatever comes, each asset of a call ends up as a good quote or as a failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Call, CallKind, Quote, Role
from assetbatch.provider import answers, documents, endpoints, values
from assetbatch.provider.results import Answers

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
QUOTED_AT = datetime(2026, 11, 20, 11, 59, 58, 123456, tzinfo=UTC)
QUOTED_NS = 1_795_175_998_123_456_789
QUOTED_MS = 1_795_175_998_123


def asset(symbol: str, ticker: str, asset_type: AssetType) -> Asset:
    return Asset(symbol, ticker, asset_type, Role.PRIORITY, 1, 300)


GOLD = asset("XAUUSD", "C:XAUUSD", AssetType.FOREX)
EURO = asset("EURUSD", "C:EURUSD", AssetType.FOREX)
BITCOIN = asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO)
SNAPSHOT = Call(CallKind.SNAPSHOT, (GOLD, BITCOIN))
SINGLE_GOLD = Call(CallKind.SNAPSHOT_SINGLE, (GOLD,))
SINGLE_BITCOIN = Call(CallKind.SNAPSHOT_SINGLE, (BITCOIN,))

# The vendor's shapes, invented numbers; text, since digits are what it is about.
UNIFIED_GOLD = f"""{{
  "ticker": "C:XAUUSD", "type": "fx", "name": "Gold Spot", "market_status": "open",
  "session": {{"open": 2101.5, "high": 2110.250, "low": 2099, "close": 2104.75, "change": 3.25}},
  "last_quote": {{"ask": 2105.10, "bid": 2104.9, "midpoint": 2105.0, "last_updated": {QUOTED_NS}}},
  "last_minute": {{"open": 2104.1, "high": 2105.2, "low": 2104, "close": 2104.75, "volume": 31, "transactions": 31}}
}}"""
UNIFIED_BITCOIN = f"""{{
  "ticker": "X:BTCUSD", "type": "crypto", "name": "Bitcoin - United States Dollar", "market_status": "open",
  "session": {{"open": 51000, "high": 52000.125, "low": 50500.5, "close": 51500.25, "volume": 1.2345678e+04}},
  "last_trade": {{"price": 51500.25, "size": 0.001933, "exchange": 1, "conditions": [2], "id": "464",
                  "participant_timestamp": {QUOTED_NS}, "timeframe": "REAL-TIME"}}
}}"""
ONE_GOLD = f"""{{"request_id": "x", "status": "OK", "ticker": {{
  "ticker": "C:XAUUSD", "todaysChange": 3.4, "todaysChangePerc": 0.16, "updated": {QUOTED_MS + 58_000_000},
  "day": {{"o": 2101.5, "h": 2110.250, "l": 2099, "c": 2104.75, "v": 4769}},
  "lastQuote": {{"a": 2105.10, "b": 2104.9, "i": 0, "t": {QUOTED_MS}, "x": 48}},
  "min": {{"o": 2104.1, "h": 2105.2, "l": 2104, "c": 2104.75, "v": 31, "n": 31, "t": 1795175940000}},
  "prevDay": {{"o": 2101.5, "h": 2101.4, "l": 2101.5, "c": 2101.4, "v": 5, "vw": 0}}}}}}"""
ONE_BITCOIN = f"""{{"request_id": "x", "status": "OK", "ticker": {{
  "ticker": "X:BTCUSD", "updated": {QUOTED_MS + 58_000_000},
  "day": {{"o": 51000, "h": 52000.125, "l": 50500.5, "c": 51500.25, "v": 12345.678, "vw": 0}},
  "lastTrade": {{"c": [2], "i": "464", "p": 51500.25, "s": 0.001933, "t": {QUOTED_MS}, "x": 4}}}}}}"""


def unified(*rows: str) -> str:
    return f'{{"request_id": "x", "status": "OK", "results": [{", ".join(rows)}]}}'


def read(call: Call, document: str | bytes) -> Answers:
    """Do what the client does with a body."""
    body, request = document.encode() if isinstance(document, str) else document, endpoints.prices(call)
    found = request.parse(body)(NOW)
    # Where nothing is odd it is read in another way, with the same digits.
    assert repr(found) == repr(replace(request, plain=lambda _: None).parse(body)(NOW))
    return found


def refused(body: bytes) -> CallError:
    with pytest.raises(CallError) as caught:
        documents.parse(body)
    assert (caught.value.sent, caught.value.answered) == (True, True)
    return caught.value


def tried(call: Call, document: bytes) -> Answers | CallError:
    try:
        return read(call, document)
    except CallError as error:
        return error


def failure(found: Answers, symbol: str) -> tuple[FailureKind, str]:
    assert symbol not in found.quotes
    return found.failures[symbol]


def assert_good(quote: Quote) -> None:
    assert quote.timestamp.utcoffset() == timedelta(0)
    assert values.OLDEST_TIME <= quote.timestamp <= NOW + timedelta(minutes=5)
    numbers = (quote.bid, quote.ask, quote.daily_open, quote.daily_high, quote.daily_low, quote.daily_close)
    for number in (quote.last_price, *(number for number in numbers if number is not None)):
        assert isinstance(number, Decimal)
        assert number.is_finite()
        assert number > 0


def assert_whole(call: Call, found: Answers) -> None:
    assert not found.quotes.keys() & found.failures.keys()
    assert found.quotes.keys() | found.failures.keys() == set(call.symbols)
    for quote in found.quotes.values():
        assert_good(quote)
    for _, words in found.failures.values():
        assert words
        assert words.isprintable()
        assert len(words) < 1500


# Good answers


@pytest.mark.parametrize(
    ("call", "document"), [(SNAPSHOT, unified(UNIFIED_GOLD, UNIFIED_BITCOIN)), (SINGLE_GOLD, ONE_GOLD)]
)
def test_of_forex_the_bid_is_the_price_and_its_time_the_quotes(call: Call, document: str) -> None:
    quote = read(call, document).quotes["XAUUSD"]

    at = QUOTED_AT if call is SNAPSHOT else QUOTED_AT.replace(microsecond=123000)
    assert quote == Quote(
        Decimal("2104.9"),
        at,
        bid=Decimal("2104.9"),
        ask=Decimal("2105.10"),
        daily_open=Decimal("2101.5"),
        daily_high=Decimal("2110.250"),
        daily_low=Decimal(2099),
        daily_close=Decimal("2104.75"),
    )
    # Equal is not the same: the vendor's digits are kept.
    assert (str(quote.ask), str(quote.daily_high), str(quote.daily_low)) == ("2105.10", "2110.250", "2099")


@pytest.mark.parametrize(
    ("call", "document"), [(SNAPSHOT, unified(UNIFIED_GOLD, UNIFIED_BITCOIN)), (SINGLE_BITCOIN, ONE_BITCOIN)]
)
def test_of_crypto_the_last_trade_is_the_price(call: Call, document: str) -> None:
    quote = read(call, document).quotes["BTCUSD"]

    at = QUOTED_AT if call is SNAPSHOT else QUOTED_AT.replace(microsecond=123000)
    assert quote == Quote(
        Decimal("51500.25"),
        at,
        daily_open=Decimal(51000),
        daily_high=Decimal("52000.125"),
        daily_low=Decimal("50500.5"),
        daily_close=Decimal("51500.25"),
    )


def test_the_order_of_rows_and_others_among_them_do_not_matter() -> None:
    other = UNIFIED_GOLD.replace("C:XAUUSD", "C:XAGUSD")

    found = read(SNAPSHOT, unified(UNIFIED_BITCOIN, other, '{"ticker": "I:SPX", "value": 1}', UNIFIED_GOLD))

    assert (sorted(found.quotes), found.failures) == (["BTCUSD", "XAUUSD"], {})


@pytest.mark.parametrize("key", ["participant_timestamp", "sip_timestamp", "last_updated"])
def test_a_trades_time_has_three_names(key: str) -> None:
    row = UNIFIED_BITCOIN.replace("participant_timestamp", key)

    assert read(SNAPSHOT, unified(row)).quotes["BTCUSD"].timestamp == QUOTED_AT


@pytest.mark.parametrize("status", ["OK", "DELAYED", "success"])
def test_good_words_of_status(status: str) -> None:
    answers.check_status({"status": status})


# Bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b'[{"status": "OK"}]',
        b"{",
        b'{"status": "OK"',
        b'{"status": "OK"}}',
        b'{"status": "OK"} {"status": "OK"}',
        b"{'status': 'OK'}",
        b'{"status": "OK", }',
        b'{"status": OK}',
        b'{"status": "O\nK"}',
        b'{"status": "OK" /* good */}',
        b'{"status": 01}',
        b'{"status": +1}',
        b'{"status": 1.}',
        b'{"status": -}',
        b"\x00",
        b"\xff\xfe\x00",
        b'{"status": "\xff"}',
        b"\x1f\x8b\x08\x00",
        b"<!DOCTYPE html><html><body>Guest network</body></html>",
        b'{"status":"OK","results":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 150_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    error = refused(body)

    assert error.kind is FailureKind.MALFORMED
    assert "no JSON" in error.reason or "no object" in error.reason
    assert len(error.reason) < 100


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_unicode_in_any_dress_is_read(encoding: str) -> None:
    document = unified(UNIFIED_GOLD, UNIFIED_BITCOIN.replace("Bitcoin", "Bitcöin"))

    assert read(SNAPSHOT, document.encode(encoding)) == read(SNAPSHOT, document)


def test_latin_1_is_no_unicode() -> None:
    assert refused('{"status": "ö"}'.encode("latin-1")).kind is FailureKind.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":0' + b" " * documents.MAX_BYTES + b"}",
        b'{"a":"' + b"x" * (4 * documents.MAX_PART_BYTES) + b'"}',
        b'{"a":"' + b"x" * documents.MAX_PART_BYTES + '😀"}'.encode(),
        b'{"a":[' + b"0," * documents.MAX_VALUES + b"0]}",
        b'{"a":[' + b"{}," * documents.MAX_ROWS + b"{}]}",
        b'{"a":[[' + b"0," * documents.MAX_PART_VALUES + b"0]]}",
        b'{"a":{"b":[' + b"{}," * documents.MAX_PART_VALUES + b"0]}}",
        b'{"results":[' + b'{"o":0,"h":0,"l":0,"c":0,"v":0,"vw":0,"n":0,"t":0,"a":0},' * 60_000 + b"0]}",
    ],
    ids=lambda body: repr(body[:10]),
)
def test_what_would_take_too_much_memory_is_not_parsed(body: bytes) -> None:
    assert refused(body).kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize(
    "more",
    [
        b"",
        b"".join(b',"unknown%d":303067.65623321' % number for number in range(20)),
        ',"name":"Bitcöin €😀 \\u20ac \\ud83d\\ude00 \\" ]}"'.encode(),
        b',"x":{"y":[[{"z":{"o":1,"results":[]}}],"}",{}]},"w":[1,2,3]',
        b',"x":"' + b"x" * 500 + b'"',
    ],
    ids=["known", "twenty more", "characters", "nested", "long"],
)
def test_fifty_thousand_bars_of_a_minute_are_not_too_large(more: bytes) -> None:
    bar = b'{"v":303067.65623321,"vw":987.45529,"o":955.79,"c":1009.475,"h":1042.926,"l":949,"t":1590984000000,"n":1251'

    document = documents.parse(b'{"status":"OK","results":[' + b",".join([bar + more + b"}"] * 50_000) + b"]}")

    assert len(document["results"]) == 50_000
    good = {"v": "303067.65623321", "vw": "987.45529", "o": "955.79", "c": "1009.475", "h": "1042.926", "l": "949"}
    expected = {key: Decimal(value) for key, value in (good | {"t": "1590984000000", "n": "1251"}).items()}
    for row in (document["results"][0], document["results"][-1]):
        assert {key: row[key] for key in expected} == expected
        assert row.keys() - expected.keys() <= {"name"}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
names = st.sampled_from(["results", "ticker", "o", "t", "last_quote", "unknown", "x"])
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(names, inner, max_size=6), max_leaves=60
)


def known(value: Any, *, rows: bool = False) -> Any:
    """What is kept of a value: its known fields; of a list of rows, those that are objects."""
    if isinstance(value, dict):
        return {key: known(one) for key, one in value.items() if key in documents.KNOWN}
    if isinstance(value, list):
        return [known(one) if isinstance(one, dict) else None for one in value] if rows else []
    return value


@example(tree={"results": 1.0000000000000002e16}, ascii_only=False, indent=None, first_part_bytes=19)
@given(st.dictionaries(names, trees, max_size=6), st.booleans(), st.sampled_from([None, 2]), st.integers(1, 40))
def test_what_is_read_part_by_part_is_what_json_says(
    tree: dict[str, Any], ascii_only: bool, indent: int | None, first_part_bytes: int
) -> None:
    body = json.dumps(tree, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    whole = json.loads(body, parse_float=documents.decimal_of, parse_int=documents.decimal_of, parse_constant=Decimal)
    with pytest.MonkeyPatch.context() as patch:
        # However the parts are cut.
        patch.setattr(documents, "FIRST_PART_BYTES", first_part_bytes)
        found = documents.parse(body)
        # Cut short or with something behind it, it is none.
        for broken in (body[:-1], body + b"}", body[: len(body) // 2]):
            with pytest.raises(CallError) as raised:
                documents.parse(broken)
            assert raised.value.kind is FailureKind.MALFORMED

    expected = {key: known(value, rows=True) for key, value in whole.items() if key in documents.KNOWN}
    assert repr(found) == repr(expected)


def test_a_page_that_is_broken_in_its_middle_is_malformed_however_long_it_is() -> None:
    row = b'{"v":1,"vw":1,"o":1,"c":1,"h":1,"l":1,"t":1590984000000,"n":1},'
    for broken in (b'{"v":1 "vw":1},', b"nul,", b"{]},", b'{"v":"\\x"},', b'{"v":"\n"},', b'{"v":"\xff"},'):
        body = b'{"status":"OK","results":[' + row * 30_000 + broken + row * 30_000 + b"0]}"
        assert refused(body).kind is FailureKind.MALFORMED


@pytest.mark.parametrize(
    "number", ["1e99999999999999999999", "-1e-99999999999999999999", "9" * 5_000, "0." + "1" * 200]
)
def test_a_number_that_nothing_can_hold_spoils_its_row_only(number: str) -> None:
    found = read(SNAPSHOT, unified(UNIFIED_GOLD.replace("2104.9,", f"{number},"), UNIFIED_BITCOIN))

    kind, words = failure(found, "XAUUSD")
    assert kind is FailureKind.INVALID
    assert words == "C:XAUUSD: `bid` is no number: NaN"
    assert found.quotes.keys() == {"BTCUSD"}


def test_of_a_key_twice_the_last_counts() -> None:
    assert documents.parse(b'{"status": "ERROR", "status": "OK"}') == {"status": "OK"}
    rows = unified(UNIFIED_GOLD, UNIFIED_GOLD.replace("2104.9,", "2104.8,"))
    assert read(SNAPSHOT, rows).quotes["XAUUSD"].bid == Decimal("2104.8")


def test_lone_surrogates_reach_no_message() -> None:
    document = documents.parse(b'{"status": "ERROR", "message": "a \\ud800 b", "x": "\xed\xa0\x80"}')

    assert answers.message(document) == "a ? b"


# Refusals


@pytest.mark.parametrize(
    "status", ["ERROR", "ok", "NOT_FOUND", "", None, True, Decimal(5), Decimal("NaN"), {}, {"status": "OK"}, [], ["OK"]]
)
def test_any_other_status_is_malformed(status: object) -> None:
    with pytest.raises(CallError, match=r"^the answer's status is ") as caught:
        answers.check_status({"status": status, "error": "words of the vendor"})

    assert caught.value.kind is FailureKind.MALFORMED
    assert caught.value.answered
    assert caught.value.reason.endswith(": words of the vendor")


def test_no_status_is_malformed() -> None:
    with pytest.raises(CallError, match="status is None: no message"):
        answers.check_status({})


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("You are not entitled to this data. Please upgrade your plan", FailureKind.NOT_ENTITLED),
        ("Attempted to request today's data before end of day. Please upgrade", FailureKind.NOT_YET),
    ],
)
def test_a_refusal_may_come_with_200(message: str, kind: FailureKind) -> None:
    with pytest.raises(CallError) as caught:
        answers.check_status({"status": "NOT_AUTHORIZED", "message": message})

    assert caught.value.kind is kind
    assert message in caught.value.reason


@pytest.mark.parametrize("status", ["ERROR", "error", None, "NOT_AUTHORIZED"])
@pytest.mark.parametrize("key", ["message", "error"])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("You've exceeded the maximum requests per minute, please wait", FailureKind.RATE_LIMITED),
        ("you've EXCEEDED the Maximum Requests per minute", FailureKind.RATE_LIMITED),
        ("Unknown API Key", FailureKind.KEY_REFUSED),
        ("unknown api key", FailureKind.KEY_REFUSED),
        ("API Key was not provided", FailureKind.KEY_REFUSED),
    ],
)
def test_what_a_refusal_with_200_says_counts(status: str | None, key: str, words: str, kind: FailureKind) -> None:
    with pytest.raises(CallError) as caught:
        answers.check_status({"status": status, key: words})

    error = caught.value
    assert (error.kind, error.http_status, error.answered) == (kind, 200, True)
    assert error.reason == f"HTTP 200: {words}"


@pytest.mark.parametrize("status", ["OK", "DELAYED"])
def test_words_in_a_good_answer_refuse_nothing(status: str) -> None:
    answers.check_status({"status": status, "message": "Unknown API Key"})


def test_the_one_answer_without_a_status_may_be_a_refusal_too() -> None:
    with pytest.raises(CallError) as caught:
        endpoints.markets_open().parse(b'{"status": "ERROR", "error": "Unknown API Key"}')

    assert caught.value.kind is FailureKind.KEY_REFUSED


ENTITLED = "You are not entitled to this data. Please upgrade your plan at https://massive.com/pricing"
TIMEFRAME = "Your plan doesn't include this data timeframe. Please upgrade your plan"
EXCEEDED = "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to continue."
TODAY = "Attempted to request today's data before end of day. Please upgrade your plan"


@pytest.mark.parametrize(
    ("status", "document", "kind", "words"),
    [
        (401, {"status": "ERROR", "error": "Unknown API Key"}, FailureKind.KEY_REFUSED, "Unknown API Key"),
        (
            401,
            {"status": "ERROR", "error": "API Key was not provided"},
            FailureKind.KEY_REFUSED,
            "API Key was not provided",
        ),
        (401, None, FailureKind.KEY_REFUSED, "no message"),
        (403, {"status": "NOT_AUTHORIZED", "message": ENTITLED}, FailureKind.NOT_ENTITLED, ENTITLED),
        (403, {"status": "NOT_AUTHORIZED", "message": TIMEFRAME}, FailureKind.TIMEFRAME, TIMEFRAME),
        (403, {"status": "NOT_AUTHORIZED", "message": TODAY}, FailureKind.NOT_YET, TODAY),
        (403, {"status": "NOT_AUTHORIZED", "message": TODAY.upper()}, FailureKind.NOT_YET, TODAY.upper()),
        (403, {"status": "ERROR", "error": ENTITLED}, FailureKind.NOT_ENTITLED, ENTITLED),
        (403, {"status": "ERROR", "error": TODAY}, FailureKind.NOT_YET, TODAY),
        (403, {}, FailureKind.NOT_ENTITLED, "no message"),
        (403, None, FailureKind.MALFORMED, "no message"),
        (400, {"status": "ERROR", "error": "Failed to parse"}, FailureKind.BAD_REQUEST, "Failed to parse"),
        (404, {"status": "NOT_FOUND", "message": "Ticker not found."}, FailureKind.UNKNOWN_TICKER, "Ticker not found."),
        (404, {"status": "NotFound", "request_id": "x"}, FailureKind.NOT_FOUND, "no message"),
        (404, None, FailureKind.NOT_FOUND, "no message"),
        (414, None, FailureKind.BAD_REQUEST, "no message"),
        (418, None, FailureKind.BAD_REQUEST, "no message"),
        (402, {"error": "Payment required"}, FailureKind.NOT_ENTITLED, "Payment required"),
        (407, None, FailureKind.MALFORMED, "no message"),
        *((status, None, FailureKind.SERVER_ERROR, "no message") for status in (408, 413, 425, 499)),
        (422, None, FailureKind.BAD_REQUEST, "no message"),
        (431, None, FailureKind.BAD_REQUEST, "no message"),
        (404, {"error": EXCEEDED.upper()}, FailureKind.RATE_LIMITED, EXCEEDED.upper()),
        (503, {"message": EXCEEDED}, FailureKind.RATE_LIMITED, EXCEEDED),
        (403, {"message": "", "error": EXCEEDED}, FailureKind.RATE_LIMITED, EXCEEDED),
        (400, {"message": "Sorry", "error": "unknown API key"}, FailureKind.KEY_REFUSED, "Sorry"),
        (500, {"message": "Unknown API Key"}, FailureKind.KEY_REFUSED, "Unknown API Key"),
        (500, {"error": ["Unknown API Key"]}, FailureKind.KEY_REFUSED, "no message"),
        (429, {"status": "ERROR", "error": "You've exceeded"}, FailureKind.RATE_LIMITED, "You've exceeded"),
        (429, None, FailureKind.RATE_LIMITED, "no message"),
        (500, None, FailureKind.SERVER_ERROR, "no message"),
        (504, {"error": {"code": 1}, "message": None}, FailureKind.SERVER_ERROR, "no message"),
        (599, [], FailureKind.SERVER_ERROR, "no message"),
        (103, None, FailureKind.MALFORMED, "no message"),
        (204, None, FailureKind.MALFORMED, "no message"),
        (206, {"status": "OK"}, FailureKind.MALFORMED, "no message"),
        (999, None, FailureKind.MALFORMED, "no message"),
    ],
)
def test_refusals(status: int, document: object, kind: FailureKind, words: str) -> None:
    error = answers.refusal(status, document, retry_after_seconds=7)

    assert (error.kind, error.reason) == (kind, f"HTTP {status}: {words}")
    assert (error.http_status, error.sent, error.answered, error.retry_after_seconds) == (status, True, True, 7)


def test_a_call_for_several_may_be_too_large_and_one_for_one_may_not() -> None:
    assert answers.refusal(413, None, several=True).kind is FailureKind.TOO_MANY
    assert answers.refusal(408, None, several=True).kind is FailureKind.SERVER_ERROR


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("two\r\nlines\tand  tabs", "two lines and tabs"),
        ("\x1b[31mred\x1b]0;title\x07\x9b2J", "?[31mred?]0;title??2J"),
        ("nul\0 bidi\u202e zero\u200bwidth \ud800", "nul? bidi? zero?width ?"),
        ("Grüße 黄金", "Grüße 黄金"),
        (None, "None"),
        (True, "True"),
        (Decimal("1E+400"), "1E+400"),
        ({"a": 1}, "a dict"),
        ([], "a list"),
    ],
)
def test_what_is_shown_of_the_vendors_words(value: object, shown: str) -> None:
    assert answers.text(value) == shown


@given(
    st.text() | st.text(min_size=250, max_size=900) | st.none() | st.booleans() | st.decimals() | st.lists(st.none())
)
@example("x" * 10_000_000)
@example("x " * 5_000_000)
def test_what_is_shown_is_one_bounded_printable_line(value: object) -> None:
    shown = answers.text(value)

    assert shown.isprintable()
    assert len(shown) <= 302


@pytest.mark.parametrize("before", range(250, 310, 7))
def test_a_long_message_is_never_cut_inside_a_key(before: int) -> None:
    key = "7Qk_Zp/4+T%x9mB2"

    shown = answers.text(("w " * 200)[:before] + f" Bearer {key}" * 9)

    assert shown.endswith(" …")
    assert "7Qk" not in shown.replace(key, "")


# Rows


@pytest.mark.parametrize("results", ["{}", '""', "0", "false", '"x"', '{"C:XAUUSD": {}}', "1.5", "NaN", "true"])
def test_results_of_a_wrong_type_are_malformed(results: str) -> None:
    with pytest.raises(CallError, match="`results` is no list") as caught:
        read(SNAPSHOT, f'{{"status": "OK", "results": {results}}}')

    assert caught.value.kind is FailureKind.MALFORMED


@pytest.mark.parametrize("document", ['{"status": "OK"}', '{"status": "OK", "results": null}', unified()])
def test_without_results_every_asset_is_missing(document: str) -> None:
    found = read(SNAPSHOT, document)

    assert found.failures == {
        "XAUUSD": (FailureKind.MISSING, "asked for C:XAUUSD, the answer has nothing"),
        "BTCUSD": (FailureKind.MISSING, "asked for X:BTCUSD, the answer has nothing"),
    }


@pytest.mark.parametrize(
    "row",
    [
        *("null", "5", '"C:XAUUSD"', "[]", '["C:XAUUSD"]', "{}", '{"ticker": null}', '{"ticker": ["C:XAUUSD"]}'),
        *('{"ticker": {"ticker": "C:XAUUSD"}}', '{"ticker": 5}', '{"ticker": true}', '{"ticker": "c:xauusd"}'),
        *(UNIFIED_GOLD.replace("C:XAUUSD", "C:XAUEUR"), UNIFIED_GOLD.replace("C:XAUUSD", " C:XAUUSD")),
    ],
    ids=lambda row: row[:30],
)
def test_a_row_that_is_not_the_assets_leaves_it_missing_alone(row: str) -> None:
    found = read(SNAPSHOT, unified(row, UNIFIED_BITCOIN))

    kind, words = failure(found, "XAUUSD")
    assert kind is FailureKind.MISSING
    assert words.startswith("asked for C:XAUUSD, the answer has ")
    assert found.quotes.keys() == {"BTCUSD"}


@pytest.mark.parametrize("ticker", ['"C:XAUUSD"', "null", "[]", "5", '{"ticker": "C:EURUSD"}', '{"ticker": {}}'])
def test_a_single_snapshot_about_something_else_is_missing(ticker: str) -> None:
    found = read(SINGLE_GOLD, f'{{"status": "OK", "ticker": {ticker}}}')

    assert failure(found, "XAUUSD")[0] is FailureKind.MISSING


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ('"NOT_FOUND", "message": "Ticker not found."', FailureKind.UNKNOWN_TICKER),
        ('"NOT_ENTITLED", "message": "Not entitled to this ticker."', FailureKind.NOT_ENTITLED),
        ('"SOMETHING_NEW", "message": "Never seen."', FailureKind.INVALID),
        ('""', FailureKind.INVALID),
        ("5", FailureKind.INVALID),
        ("false", FailureKind.INVALID),
        ('["NOT_FOUND"]', FailureKind.INVALID),
        ('{"NOT_FOUND": 1}', FailureKind.INVALID),
    ],
)
def test_an_asset_refused_inside_a_good_answer_fails_alone(error: str, kind: FailureKind) -> None:
    found = read(SNAPSHOT, unified(f'{{"ticker": "C:XAUUSD", "error": {error}}}', UNIFIED_BITCOIN))

    assert failure(found, "XAUUSD")[0] is kind
    assert found.quotes.keys() == {"BTCUSD"}


def test_an_error_of_null_is_none() -> None:
    assert read(SNAPSHOT, unified(UNIFIED_GOLD.replace("{", '{"error": null, ', 1))).quotes.keys() == {"XAUUSD"}


@pytest.mark.parametrize("absent", ["null", "0", "-0", "0.0", "-0.000", "0e5", "0E-99", "0e999999999"])
@pytest.mark.parametrize("key", ["ask", "open", "high", "low", "close"])
def test_zero_and_null_mean_that_there_is_none(key: str, absent: str) -> None:
    row = json.loads(UNIFIED_GOLD, parse_float=str, parse_int=str)
    part = "last_quote" if key == "ask" else "session"
    text = UNIFIED_GOLD.replace(f'"{key}": {row[part][key]}', f'"{key}": {absent}', 1)

    quote = read(SNAPSHOT, unified(text)).quotes["XAUUSD"]

    assert getattr(quote, key if key == "ask" else f"daily_{key}") is None
    assert quote.bid == Decimal("2104.9")


BAD_NUMBERS = ["NaN", "Infinity", "-Infinity", "-1", "-0.001", "-1e-300", "1e400", "1e999999999", "-1e999999999"]
BAD_NUMBERS += [
    "1e-19",
    "1e-400",
    "1000000000000000001",
    "1." + "1" * 45,
    "9" * 5000,
    '"2104.9"',
    '""',
    "true",
    "false",
]
BAD_NUMBERS += ["[]", "[2104.9]", "{}", '{"value": 2104.9}', '"NaN"', '"\\u001b[31m"']


@pytest.mark.parametrize("number", BAD_NUMBERS, ids=lambda number: number[:12])
@pytest.mark.parametrize(
    "place",
    ['"bid": 2104.9', '"ask": 2105.10', '"open": 2101.5', '"high": 2110.250', '"low": 2099', '"close": 2104.75'],
)
def test_what_is_no_price_condemns_its_row_alone(place: str, number: str) -> None:
    key = place.partition(":")[0]
    assert place in UNIFIED_GOLD

    found = read(SNAPSHOT, unified(UNIFIED_GOLD.replace(place, f"{key}: {number}", 1), UNIFIED_BITCOIN))

    assert_whole(SNAPSHOT, found)
    kind, words = failure(found, "XAUUSD")
    assert kind is FailureKind.INVALID
    assert words.startswith("C:XAUUSD: `")
    assert found.quotes.keys() == {"BTCUSD"}


@pytest.mark.parametrize("number", ["0", "-0", "null", *BAD_NUMBERS], ids=lambda number: number[:12])
@pytest.mark.parametrize(
    ("call", "document", "place"),
    [
        (SINGLE_GOLD, ONE_GOLD, '"b": 2104.9'),
        (SINGLE_BITCOIN, ONE_BITCOIN, '"p": 51500.25'),
        (SNAPSHOT, unified(UNIFIED_BITCOIN), '"price": 51500.25'),
        (SNAPSHOT, unified(UNIFIED_GOLD), '"bid": 2104.9'),
    ],
)
def test_without_its_price_there_is_no_quote(call: Call, document: str, place: str, number: str) -> None:
    key = place.partition(":")[0]
    assert place in document

    found = read(call, document.replace(place, f"{key}: {number}"))

    assert not found.quotes
    assert FailureKind.INVALID in {kind for kind, _ in found.failures.values()}


@pytest.mark.parametrize("part", ["[]", "5", '"x"', "true", "false", "0", '[{"bid": 1}]'])
@pytest.mark.parametrize("key", ["session", "last_quote", "last_trade"])
def test_a_part_of_a_wrong_type_is_no_price(key: str, part: str) -> None:
    row = f'{{"ticker": "C:XAUUSD", "{key}": {part}}}'

    kind, words = failure(read(SNAPSHOT, unified(row)), "XAUUSD")

    assert (kind, words) == (FailureKind.INVALID, f"C:XAUUSD: `{key}` is no object")


@pytest.mark.parametrize("bound", [values.LARGEST_NUMBER, values.SMALLEST_NUMBER])
def test_the_bounds_of_a_price_are_prices(bound: Decimal) -> None:
    assert read(SNAPSHOT, unified(UNIFIED_GOLD.replace("2104.9,", f"{bound:f},"))).quotes["XAUUSD"].bid == bound


digits = st.decimals(min_value="1e-18", max_value="1e18", allow_nan=False, allow_infinity=False)


@given(bid=digits, ask=digits, close=digits, scientific=st.booleans())
def test_numbers_are_the_texts_digits(bid: Decimal, ask: Decimal, close: Decimal, scientific: bool) -> None:
    def written(number: Decimal) -> str:
        return f"{number:e}" if scientific else f"{number:f}"

    numbers = [bid, ask, close]
    assume(all(len(number.as_tuple().digits) <= values.MOST_DIGITS for number in numbers))
    texts = [written(number) for number in numbers]
    row = UNIFIED_GOLD.replace("2104.9,", f"{texts[0]},").replace("2105.10", texts[1])
    row = row.replace('"close": 2104.75', f'"close": {texts[2]}', 1)

    quote = read(SNAPSHOT, unified(row)).quotes["XAUUSD"]

    found = (quote.bid, quote.ask, quote.daily_close)
    assert found == tuple(map(Decimal, texts))
    assert [number.as_tuple() for number in found if number] == [Decimal(text).as_tuple() for text in texts]
    assert quote.last_price == quote.bid


# Times


def moment(text: str) -> datetime:
    row = UNIFIED_GOLD.replace(str(QUOTED_NS), text)
    found = read(SNAPSHOT, unified(row))
    if "XAUUSD" in found.failures and found.failures["XAUUSD"][0] is FailureKind.INVALID:
        raise values.InvalidRowError(found.failures["XAUUSD"][1])
    return found.quotes["XAUUSD"].timestamp


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1795175998", "2026-11-20T11:59:58+00:00"),
        ("1795175998.123456789", "2026-11-20T11:59:58.123456+00:00"),
        ("1795175998123", "2026-11-20T11:59:58.123000+00:00"),
        ("1795175998123456", "2026-11-20T11:59:58.123456+00:00"),
        ("1795175998123456999", "2026-11-20T11:59:58.123456+00:00"),
        ("1.795175998123456e18", "2026-11-20T11:59:58.123456+00:00"),
        ("86400", "1970-01-02T00:00:00+00:00"),
        ("100000000000", "1973-03-03T09:46:40+00:00"),
        ("100000000000000", "1973-03-03T09:46:40+00:00"),
        ("100000000000000000", "1973-03-03T09:46:40+00:00"),
        ("1795176300", "2026-11-20T12:05:00+00:00"),
        ("1795176300000000999", "2026-11-20T12:05:00+00:00"),
    ],
)
def test_times_in_any_unit(text: str, at: str) -> None:
    assert moment(text).isoformat() == at


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "-1", "-1795175998123456789", "null", "true", "[]", "{}", "NaN", "Infinity", "1e400", "1e-400"),
        *('"1795175998123456789"', '"2026-11-20T11:59:58Z"', "1e999999999", "9" * 5000, "86399"),
        *("100000000000000000000", "99999999999", "99999999999999", "99999999999999999"),
        # One unit more than five minutes from now.
        *("1795176300001", "1795176300000001", "1795176300000001000"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_time_of_a_price(text: str) -> None:
    with pytest.raises(values.InvalidRowError, match=r"no time of its price|is in the future"):
        moment(text)


def test_an_answer_without_a_time_is_no_price_and_updated_is_no_time() -> None:
    found = read(SINGLE_GOLD, ONE_GOLD.replace(f'"t": {QUOTED_MS}, ', ""))

    assert failure(found, "XAUUSD") == (FailureKind.INVALID, "C:XAUUSD: no time of its price: None")


@given(
    at=st.datetimes(datetime(1970, 1, 2), datetime(2040, 1, 1), timezones=st.just(UTC)), unit=st.sampled_from("smun")
)
def test_no_time_is_later_than_five_minutes_from_now(at: datetime, unit: str) -> None:
    microseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    per_unit = {"s": 10**6, "m": 10**3, "u": 1, "n": 1}[unit]
    number = microseconds * 1000 if unit == "n" else microseconds // per_unit
    # Before March 1973 a number of a small unit is taken for one of a greater.
    assume(at.year >= 1974)
    expected = at - timedelta(microseconds=at.microsecond % per_unit)

    if expected > NOW + timedelta(minutes=5):
        with pytest.raises(values.InvalidRowError, match="in the future"):
            moment(str(number))
    else:
        assert moment(str(number)) == expected


# Anything at all

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**9, 10**20)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["C:XAUUSD", "X:BTCUSD", "OK", "NOT_FOUND", 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
number = st.sampled_from([1.5, 2104.9, 0, QUOTED_MS, QUOTED_NS, 1e-9, -1]) | anything
keys = ["ask", "bid", "price", "last_updated", "participant_timestamp", "open", "high", "low", "close"]
keys += ["o", "h", "l", "c", "a", "b", "p", "P", "t"]
part = st.dictionaries(st.sampled_from(keys), number) | anything
parts = ["session", "last_quote", "last_trade", "last_minute", "day", "lastQuote", "lastTrade", "min"]
row = (
    st.dictionaries(st.sampled_from(parts), part)
    | st.dictionaries(st.sampled_from([*parts, "error", "message", "updated"]), part)
    | st.dictionaries(st.sampled_from(["value", "last_updated", "session"]), number)
    | st.dictionaries(st.text(max_size=5), anything)
)
tickers = st.sampled_from(["C:XAUUSD", "X:BTCUSD", "C:EURUSD", "ACME", "I:BROAD"]) | anything
named = st.builds(lambda ticker, rest: {**rest, "ticker": ticker}, tickers, row)
ACME, BROAD = asset("ACME", "ACME", AssetType.STOCKS), asset("BROAD", "I:BROAD", AssetType.INDICES)
calls = st.sampled_from(
    [
        *(SNAPSHOT, SINGLE_GOLD, SINGLE_BITCOIN, Call(CallKind.SNAPSHOT_SINGLE, (ACME,))),
        *(Call(CallKind.SNAPSHOT, assets) for assets in ((GOLD, EURO, BITCOIN), (ACME, BROAD), (BROAD,))),
    ]
)


@given(call=calls, rows=st.lists(named | anything, max_size=4))
def test_any_rows_give_good_quotes_or_failures(call: Call, rows: list[Any]) -> None:
    document = {"status": "OK", "results": rows, "ticker": rows[0] if rows else None}

    found = read(call, json.dumps(document))

    assert_whole(call, found)


@given(
    call=calls, document=anything | st.dictionaries(st.sampled_from(["status", "results", "ticker", "error"]), anything)
)
def test_any_document_gives_good_quotes_or_a_typed_error(call: Call, document: Any) -> None:
    found = tried(call, json.dumps(document).encode())

    if isinstance(found, CallError):
        assert found.kind in {FailureKind.MALFORMED, FailureKind.NOT_ENTITLED, FailureKind.NOT_YET}
        assert found.answered
        assert found.reason.isprintable()
    else:
        assert_whole(call, found)


@given(
    call=calls, body=st.binary() | st.text().map(str.encode) | st.from_regex(r'\{"status":"OK",.*\}').map(str.encode)
)
def test_any_bytes_give_a_typed_error_or_a_good_answer(call: Call, body: bytes) -> None:
    found = tried(call, body)

    if isinstance(found, CallError):
        assert found.kind is FailureKind.MALFORMED
        assert found.reason.isprintable()
    else:
        assert_whole(call, found)


@given(place=st.integers(0, 1200), size=st.integers(0, 40), junk=st.binary(max_size=6))
def test_a_good_answer_with_a_piece_torn_out(place: int, size: int, junk: bytes) -> None:
    body = unified(UNIFIED_GOLD, UNIFIED_BITCOIN).encode()

    found = tried(SNAPSHOT, body[:place] + junk + body[place + size :])

    if isinstance(found, CallError):
        assert found.kind is FailureKind.MALFORMED
    else:
        assert_whole(SNAPSHOT, found)


@given(status=st.integers(100, 999), document=anything)
def test_any_refusal_is_typed(status: int, document: Any) -> None:
    assume(status != 200)

    error = answers.refusal(status, document)

    assert error.http_status == status
    assert error.reason.isprintable()
    assert (error.kind is FailureKind.SERVER_ERROR) == (500 <= status < 600 or status in {408, 413, 425, 499})
    assert (error.kind is FailureKind.RATE_LIMITED) == (status == 429)
    assert (error.kind is FailureKind.KEY_REFUSED) == (status == 401)


@pytest.mark.parametrize(
    ("changes", "is_plain"),
    [
        ({}, True),
        ({"name": [{"deep": [1, "x", None]}], "fmv": 1e300}, True),
        ({"session": None}, True),
        ({"session": {"open": 0, "high": 0.0, "low": None, "close": 5.000}}, True),
        ({"last_quote": {"bid": 1e-7, "ask": 123456789.123456789}}, True),
        ({"last_quote": {"bid": -1, "ask": 2}}, False),
        ({"last_quote": {"bid": "1.5", "ask": 2}}, False),
        ({"last_quote": []}, False),
        ({"session": {"open": 1e30}}, False),
        (
            {"last_trade": {"price": 5, "participant_timestamp": 0, "sip_timestamp": None, "last_updated": QUOTED_MS}},
            True,
        ),
        ({"last_trade": {"price": 5, "participant_timestamp": QUOTED_NS + 10**18}}, True),
        ({"last_trade": {"price": 5, "participant_timestamp": 0}}, False),
        ({"last_trade": {"price": 5, "participant_timestamp": 10**20}}, False),
        ({"last_trade": {"price": 5, "participant_timestamp": 1.5}}, False),
        ({"last_trade": {"price": 0, "participant_timestamp": QUOTED_NS}}, False),
        ({"last_trade": None}, False),
        ({"error": "NOT_FOUND"}, False),
        ({"ticker": "X:ETHUSD"}, False),
        ({"ticker": None}, False),
    ],
    ids=str,
)
def test_a_snapshot_is_read_by_itself_where_nothing_is_odd(changes: dict[str, Any], is_plain: bool) -> None:
    body = unified(UNIFIED_GOLD, json.dumps(json.loads(UNIFIED_BITCOIN) | changes)).encode()

    assert (endpoints.prices(SNAPSHOT).plain(body) is not None) is is_plain
    assert tried(SNAPSHOT, body)
