"""Frames of the WebSocket: each event stands alone, numbers are exact, and nothing that comes does any harm."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch import bars
from assetbatch.model import AssetType, Product
from assetbatch.plans import PLANS
from assetbatch.provider.massive.aggregates import bar_of
from assetbatch.provider.massive.websocket import authentication, cluster_of, read, subscription
from assetbatch.provider.stream import Status, Word

NOW = datetime(2026, 9, 3, 12, 0, 30, 500_000, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
FOREX, CRYPTO = (cluster_of(one, PLANS[Product.CURRENCIES]["starter"]) for one in (AssetType.FOREX, AssetType.CRYPTO))
GOOD = f'{{"ev":"C","p":"EUR/USD","x":48,"a":1.10,"b":1.0900,"t":{MS}}}'
MINUTE = f'{{"ev":"CA","pair":"EUR/USD","o":1.1,"h":1.20,"l":1.0,"c":1.1,"v":7,"s":{MS - 30_500},"e":{MS + 29_500}}}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
# Such as are nearly right.
KEYS = ("ev", "p", "pair", "a", "b", "t", "o", "h", "l", "c", "v", "vw", "s", "e", "status", "message", "n")
near_events = st.fixed_dictionaries(
    {"ev": st.sampled_from(["C", "CA", "XT", "XA", "status", "ZZ"])},
    optional={key: json_values | st.just(MS) | st.sampled_from(["EUR/USD", 1.5, "1.5"]) for key in KEYS if key != "ev"},
)


def forex(*events: str) -> Any:
    return read(FOREX, f"[{','.join(events)}]", NOW)


def test_a_quote_is_exact_to_the_digit_and_forex_has_its_bid_for_a_price() -> None:
    frame = forex(GOOD)

    ((name, quote),) = frame.quotes
    assert name == "EUR/USD"
    assert (str(quote.bid), str(quote.ask), str(quote.last_price)) == ("1.0900", "1.10", "1.0900")
    assert quote.timestamp == NOW
    assert not quote.has_daily
    assert (frame.dropped, frame.minutes, frame.statuses) == (0, [], [])


def test_a_trade_of_crypto_has_neither_bid_nor_ask() -> None:
    event = f'{{"ev":"XT","pair":"BTC-USD","p":97000.123456789012345678,"s":1,"c":[2],"i":"1","x":1,"t":{MS},"r":{MS}}}'
    ((name, quote),) = read(CRYPTO, f"[{event}]", NOW).quotes

    assert (name, str(quote.last_price), quote.bid, quote.ask) == ("BTC-USD", "97000.123456789012345678", None, None)


@given(st.decimals(min_value="0.000001", max_value="1000000000000", allow_nan=False, allow_infinity=False, places=9))
def test_numbers_keep_the_digits_that_came(number: Decimal) -> None:
    ((_, quote),) = forex(f'{{"ev":"C","p":"EUR/USD","a":{number},"b":{number},"t":{MS}}}').quotes

    assert str(quote.last_price) == str(Decimal(str(number)))


def test_a_mixed_frame_is_taken_apart_and_one_bad_event_costs_itself_alone() -> None:
    confirmation = '{"ev":"status","status":"success","message":"subscribed to: C.EUR/USD"}'
    bad = f'{{"ev":"C","p":"EUR/USD","a":"1.1","b":1,"t":{MS}}}'
    frame = forex(confirmation, bad, GOOD, '{"ev":"XT"}', MINUTE, "7", "null", "[]")

    assert frame.statuses == [Status(Word.CONFIRMED, "C.EUR/USD")]
    assert len(frame.quotes) == len(frame.minutes) == 1
    assert frame.dropped == 5
    assert frame.oddest


BAD = {
    "NaN": "NaN",
    "infinite": "-Infinity",
    "endless exponent": "1e999999999",
    "5,000 digits": "1" * 5000,
    "5,000 decimals": "0." + "1" * 5000,
    "negative": "-1.1",
    "zero": "0",
    "tiny": "1e-300",
    "true": "true",
    "false": "false",
    "text": '"1.1"',
    "null": "null",
    "object": '{"value":1.1}',
    "list": "[1.1]",
}


@pytest.mark.parametrize("key", ["b", "t", "p"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_a_field_off_its_schema_costs_one_event(key: str, value: str) -> None:
    event = {"ev": '"C"', "p": '"EUR/USD"', "x": "48", "a": "1.2", "b": "1.1", "t": str(MS)} | {key: value}
    text = "{" + ",".join(f'"{name}":{found}' for name, found in event.items()) + "}"
    frame = forex(text, GOOD)

    is_a_name = key == "p" and value == '"1.1"'
    assert len(frame.quotes) == (2 if is_a_name else 1)
    assert frame.dropped == (0 if is_a_name else 1)


@pytest.mark.parametrize("key", ["o", "h", "l", "c", "v", "s"])
@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_a_minute_off_its_schema_costs_one_event(key: str, value: str) -> None:
    event = json.loads(MINUTE)
    event = {name: json.dumps(found) for name, found in event.items()} | {key: value}
    text = "{" + ",".join(f'"{name}":{found}' for name, found in event.items()) + "}"
    frame = forex(text, MINUTE)

    is_a_volume = key == "v" and value in {"0", "1e-300"}
    assert len(frame.minutes) == (2 if is_a_volume else 1)


def test_a_number_is_a_number_whether_or_not_it_was_declared_whole() -> None:
    figures = f'"o":1,"h":2.0,"l":1e0,"c":1,"v":12.0,"z":12.0,"s":{MS - 30_500}.0'
    frame = read(CRYPTO, f'[{{"ev":"XA","pair":"BTC-USD",{figures}}}]', NOW)

    ((_, bar),) = frame.minutes
    assert (bar.volume, bar.vwap, bar.ts) == (Decimal("12.0"), None, NOW.replace(second=0, microsecond=0))


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=400)])
def test_times_of_the_future_and_minutes_that_begin_in_between_are_none(ahead: timedelta) -> None:
    moment = MS + int(ahead.total_seconds() * 1000)
    assert forex(GOOD.replace(str(MS), str(moment))).dropped == 1
    assert forex(MINUTE.replace(f'"s":{MS - 30_500}', f'"s":{MS - 30_000}')).dropped == 1


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_what_is_no_frame_does_no_harm(frame: str | bytes) -> None:
    found = read(FOREX, frame, NOW)
    assert found.quotes == []


@given(json_values)
def test_any_json_does_no_harm(value: Any) -> None:
    found = read(FOREX, json.dumps(value), NOW)

    events = value if isinstance(value, list) else [value]
    assert len(found.statuses) + len(found.quotes) + len(found.minutes) + found.dropped == len(events)


@given(st.lists(near_events, max_size=5), st.sampled_from([FOREX, CRYPTO]))
def test_any_events_do_no_harm_and_each_counts_once(events: list[dict[str, Any]], cluster: Any) -> None:
    found = read(cluster, json.dumps(events), NOW)

    assert len(found.statuses) + len(found.quotes) + len(found.minutes) + found.dropped == len(events)
    for _, quote in found.quotes:
        assert quote.last_price > 0
        assert quote.timestamp <= NOW + timedelta(minutes=5)


def test_a_quote_that_is_ahead_of_the_clock_is_dropped_before_it_keeps_others_out() -> None:
    for ahead_ms, taken in ((29_000, 1), (31_000, 0)):
        found = forex(f'{{"ev":"C","p":"EUR/USD","a":1.1,"b":1.09,"t":{MS + ahead_ms}}}')
        assert (len(found.quotes), found.dropped) == (taken, 1 - taken)


def test_deep_nesting_does_no_harm_at_whatever_depth() -> None:
    for depth in (*range(800, 1010), 5_000, 200_000):
        for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            found = forex(f'{{"ev":"ZZ","x":{nested}}}', GOOD)
            assert (len(found.quotes), found.dropped) in {(1, 1), (0, 1)}
            forex(f'{{"ev":"C","p":{nested},"b":1,"t":{MS}}}')
            forex(f'{{"ev":"status","status":{nested},"message":{nested}}}')


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_frame_of_more_values_than_any_has_is_one_event_and_no_memory(*, as_bytes: bool) -> None:
    frame = "[" + "0," * 8_000_000 + "0]"
    tracemalloc.start()
    try:
        found = read(FOREX, frame.encode() if as_bytes else frame, NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (found.dropped, found.quotes) == (1, [])
    assert peak < 40 * 2**20


def test_what_is_told_of_an_odd_event_is_short_and_one_line() -> None:
    words = "x" * 1_000_000
    frame = forex(f'{{"ev":"C","p":"EUR/USD","b":"{words}\\n","t":{MS}}}')
    status = forex(f'{{"ev":"status","status":"error","message":"a \\n b {words}"}}').statuses[0]

    assert len(frame.oddest) < 1_000
    assert len(status.about) < 1_000
    assert "\n" not in frame.oddest + status.about


@pytest.mark.parametrize(
    ("status", "message", "word"),
    [
        ("connected", "Connected Successfully", Word.CONNECTED),
        ("auth_success", "authenticated", Word.AUTHENTICATED),
        ("success", "subscribed to: C.EUR/USD", Word.CONFIRMED),
        ("success", "unsubscribed to: C.EUR/USD", Word.OTHER),
        ("error", "not authorized", Word.NOT_ENTITLED),
        ("error", "something else", Word.OTHER),
        ("auth_failed", "authentication failed", Word.REFUSED_KEY),
        ("auth_failed", "Your plan doesn't include websocket access.", Word.REFUSED_PLAN),
        ("auth_timeout", "No authentication request received.", Word.ENDED),
        ("max_connections", "Maximum number of websocket connections exceeded.", Word.TOO_MANY),
        ("slow_consumer", "", Word.ENDED),
        ("force_disconnect", "", Word.ENDED),
        ("brand_new", "", Word.OTHER),
    ],
)
def test_what_a_status_is_about(status: str, message: str, word: Word) -> None:
    (found,) = read(FOREX, json.dumps([{"ev": "status", "status": status, "message": message}]), NOW).statuses
    assert found.word is word


def test_what_goes_out_is_one_object() -> None:
    assert json.loads(authentication('a"key')) == {"action": "auth", "params": 'a"key'}
    assert json.loads(subscription(["C.EUR/USD", "CA.EUR/USD"]))["params"] == "C.EUR/USD,CA.EUR/USD"


@given(st.lists(st.tuples(*[st.integers(1, 10**6)] * 5), min_size=1, max_size=5))
def test_five_minutes_of_the_stream_are_the_bar_that_a_call_builds_of_the_same(rows: list[tuple[int, ...]]) -> None:
    begins = MS - MS % 300_000 - 300_000
    given = [
        {"s": begins + 60_000 * minute, "o": o, "h": max(o, h, low, c), "l": min(o, h, low, c), "c": c, "v": v, "vw": h}
        for minute, (o, h, low, c, v) in enumerate(rows)
    ]
    streamed = read(CRYPTO, json.dumps([{"ev": "XA", "pair": "BTC-USD", **row} for row in given]), NOW)
    called = [
        bar_of(datetime.fromtimestamp(row["s"] / 1000, UTC), {key: Decimal(value) for key, value in row.items()})
        for row in given
    ]

    assert streamed.dropped == 0
    assert bars.built(bar for _, bar in streamed.minutes) == bars.built(called)
