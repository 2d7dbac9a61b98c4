"""Stocks and indices on the WebSocket: channels and hosts by plan, prices, minutes, and what is 15 minutes late."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from assetbatch import bars
from assetbatch.database.streams import Listed, Newest
from assetbatch.jobs.clock import Clock
from assetbatch.markets import Market
from assetbatch.model import Asset, AssetType, Product, Role
from assetbatch.plans import PLANS
from assetbatch.provider.massive.aggregates import bar_of
from assetbatch.provider.massive.websocket import CHANNELS, Cluster, cluster_of, read
from assetbatch.provider.stream import Frame
from assetbatch.stream.book import Book
from assetbatch.stream.cluster import ClusterStream
from assetbatch.stream.connection import SILENT_SECONDS, Feed, State
from assetbatch.stream.pacing import STEADY_SECONDS, Pacing
from assetbatch.stream.session import EndedError

if TYPE_CHECKING:
    from assetbatch.database.leases import Lease

# A Thursday, 10:00 in New York.
TEN = datetime(2026, 9, 3, 14, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LATE = 15 * MINUTE
MS = int(TEN.timestamp() * 1000)


def cluster(asset_type: AssetType, plan: str) -> Cluster:
    product = Product.STOCKS if asset_type is AssetType.STOCKS else Product.INDICES
    return cluster_of(asset_type, PLANS[product][plan])


STARTER, ADVANCED = (cluster(AssetType.STOCKS, plan) for plan in ("starter", "advanced"))
INDICES = cluster(AssetType.INDICES, "advanced")


def am(name: str, begins: int = MS - 60_000, /, **changes: Any) -> dict[str, Any]:
    """A minute of a stock, as the vendor sends it."""
    figures = {"v": 1200, "av": 99_000, "op": 10.1, "vw": 10.25, "o": 10.2, "c": 10.3, "h": 10.4, "l": 10.1, "a": 10.2}
    times = {"s": begins, "e": begins + 60_000}
    return {"ev": "AM", "sym": name, **figures, "z": 60, "dv": "1200.618093", "dav": "99000.5", **times} | changes


def frame(one: Cluster, *events: Any, now: datetime = TEN) -> Frame:
    return read(one, json.dumps(events), now)


@pytest.mark.parametrize(
    ("asset_type", "plan", "url", "channels"),
    [
        (AssetType.STOCKS, "starter", "wss://delayed.massive.com/stocks", ("AM",)),
        (AssetType.STOCKS, "developer", "wss://delayed.massive.com/stocks", ("T", "AM")),
        (AssetType.STOCKS, "advanced", "wss://socket.massive.com/stocks", ("T", "AM")),
        (AssetType.STOCKS, "business", "wss://socket.massive.com/stocks", ("T", "AM")),
        (AssetType.INDICES, "starter", "wss://delayed.massive.com/indices", ("V", "AM")),
        (AssetType.INDICES, "advanced", "wss://socket.massive.com/indices", ("V", "AM")),
    ],
)
def test_channels_and_host_are_those_of_the_plan(
    asset_type: AssetType, plan: str, url: str, channels: tuple[str, ...]
) -> None:
    one = cluster(asset_type, plan)
    assert (one.url, one.channels) == (url, channels)


def test_every_plan_with_a_websocket_has_prices_of_every_type() -> None:
    for asset_type in AssetType:
        for product, plans in PLANS.items():
            for plan in plans.values():
                assert not plan.has_websocket or cluster_of(asset_type, plan).channels, (asset_type, product)
    assert set(CHANNELS) == set(AssetType)


def test_a_trade_is_exact_and_tickers_are_told_apart_by_case_and_dots() -> None:
    trades = ",".join(
        f'{{"ev":"T","sym":"{name}","x":4,"i":"1","z":3,"p":{price},"s":0,"ds":"0.5","c":[37],"t":{MS},"q":9}}'
        for name, price in (("AMPB", "20.10"), ("AMpB", "25.1000"), ("BRK.B", "471.005"))
    )
    found = read(ADVANCED, f"[{trades}]", TEN)

    prices = {name: (str(quote.last_price), quote.bid, quote.ask) for name, quote in found.quotes}
    assert prices == {
        "AMPB": ("20.10", None, None),
        "AMpB": ("25.1000", None, None),
        "BRK.B": ("471.005", None, None),
    }
    assert {quote.timestamp for _, quote in found.quotes} == {TEN}
    assert ADVANCED.name("BRK.B", None) == "BRK.B"


def test_what_else_the_cluster_has_is_dropped_and_counted() -> None:
    luld = {"ev": "LULD", "T": "AAPL", "h": 200.1, "l": 190.1, "i": [15], "z": 3, "t": MS * 1_000_000, "q": 1}
    found = frame(ADVANCED, luld, {"ev": "NOI", "T": "AAPL"}, {"ev": "Q", "sym": "AAPL", "bp": 1}, am("AAPL"))

    assert (found.dropped, len(found.minutes), found.quotes) == (3, 1, [])


def test_a_minute_has_the_exact_volume_and_where_that_is_odd_costs_itself_alone() -> None:
    events = [am("A"), am("B", dv=None), am("C", dv="x"), am("D", dv="NaN"), am("E", dv="-1"), am("F", dv="0.25")]
    found = frame(ADVANCED, *events)

    volumes = {name: str(bar.volume) for name, bar in found.minutes}
    assert volumes == {"A": "1200.618093", "B": "1200", "F": "0.25"}
    assert found.dropped == 3
    assert found.closes == []


def test_without_trades_a_minute_is_a_price_too_of_the_time_at_which_it_ended_and_one_event() -> None:
    book = Book({"BRK.B": "BRKB"})
    book.begin(TEN - 5 * MINUTE)
    found = frame(STARTER, am("BRK.B"), am("OTHER"), {"ev": "T", "sym": "BRK.B", "p": 1, "t": MS})
    book.take(found, TEN)

    ((name, quote), _) = found.closes
    assert (name, str(quote.last_price), quote.timestamp, quote.has_daily) == ("BRK.B", "10.3", TEN, False)
    taken = book.drain(TEN)
    assert taken.quotes == {"BRKB": quote}
    assert set(taken.bars) == {("BRKB", TEN - 5 * MINUTE)}
    # One of them nobody asked for, and one is of no channel of the plan.
    assert (book.counts().events, book.counts().dropped) == (2, 2)


def test_a_minute_that_is_sent_again_replaces_bar_and_price_and_an_older_one_the_bar_alone() -> None:
    book = Book({"AAPL": "AAPL"})
    book.begin(TEN - 5 * MINUTE)
    for event in (am("AAPL"), am("AAPL", c=10.35, dv="1300"), am("AAPL", MS - 120_000, c=10.15)):
        book.take(frame(STARTER, event), TEN)

    taken = book.drain(TEN)
    assert str(taken.quotes["AAPL"].last_price) == "10.35"
    ((bar,),) = (list(series) for series in taken.bars.values())
    assert (str(bar.close), str(bar.volume)) == ("10.35", "2500.618093")


@pytest.mark.parametrize("change", [{"c": 0}, {"e": "x"}, {"e": MS + 600_000}, {"s": MS - 61_000}, {"o": None}])
def test_of_a_minute_off_its_schema_neither_bar_nor_price_is_taken(change: dict[str, Any]) -> None:
    found = frame(STARTER, am("AAPL", **change))
    assert (found.minutes, found.closes, found.dropped) == ([], [], 1)


def test_values_and_minutes_of_indices_are_those_of_their_calls() -> None:
    minute = {"ev": "AM", "sym": "I:SPX", "op": 1, "o": 6500.1, "c": 6501.25, "h": 6502, "l": 6499.5}
    times = {"s": MS - 60_000, "e": MS}
    found = frame(INDICES, {"ev": "V", "val": 6501.25, "T": "I:SPX", "t": MS - 500}, minute | times)

    ((name, quote),) = found.quotes
    assert (name, str(quote.last_price), quote.timestamp) == ("I:SPX", "6501.25", TEN - SECOND / 2)
    row = {key: Decimal(str(value)) for key, value in minute.items() if key in "ohlc"}
    assert found.minutes == [("I:SPX", bar_of(TEN - MINUTE, row, has_volume=False))]
    assert found.minutes[0][1].volume is None
    assert bars.built(bar for _, bar in found.minutes) == bars.built([bar_of(TEN - MINUTE, row, has_volume=False)])


# What is late


def listed(symbol: str, asset_type: AssetType = AssetType.STOCKS) -> Listed:
    return Listed(Asset(symbol, symbol, asset_type, Role.PRIORITY, 1, 300), known=True, pair=None)


def feed(one: Cluster, book: Book, state: State | None = None) -> Feed:
    """A feed that was never started."""
    found = Feed(
        one,
        "ws://127.0.0.1:9/stocks",
        key="key",
        names=[],
        markets=[Market.STOCKS],
        book=book,
        clock=Clock(TEN),
        pacing=Pacing(),
        stop=threading.Event(),
    )
    found.state = state or State()
    return found


def streaming(one: Cluster, state: State, *symbols: str) -> ClusterStream:
    found = ClusterStream(one, "", cast("Lease", None), Clock(TEN), threading.Event())
    found.take_list([listed(symbol) for symbol in symbols], ())
    found.book = Book(found.names)
    found.feed = feed(one, found.book, state)
    return found


def live(one: Cluster, since: datetime, *, lost_at: datetime | None = None) -> State:
    return State("live", since, lost_at, frozenset(f"{one.quotes.channel}.{name}" for name in ("AMPB", "AMpB")))


def test_a_price_that_is_as_late_as_the_plan_has_no_lag_and_its_minutes_build_bars() -> None:
    one = feed(STARTER, Book({"AAPL": "AAPL"}))
    one._book.begin(TEN - LATE - 5 * MINUTE)
    one._taken(json.dumps([am("AAPL", MS - 16 * 60_000)]), TEN + 2 * SECOND)

    assert one._book.counts().lag_ms(1) == 2000
    taken = one._book.drain(TEN - LATE)
    assert taken.quotes["AAPL"].timestamp == TEN - LATE
    assert [begins for _, begins in taken.bars] == [TEN - LATE - 5 * MINUTE]


@pytest.mark.parametrize(
    ("one", "heard_at", "now", "sound"),
    [
        # Trades come all the time, minutes once a minute.
        (ADVANCED, TEN, TEN + timedelta(seconds=SILENT_SECONDS), False),
        (STARTER, TEN, TEN + timedelta(seconds=SILENT_SECONDS + 74), True),
        (STARTER, TEN, TEN + timedelta(seconds=SILENT_SECONDS + 75), False),
        # Before 9:30 and after 16:00 many have nothing to tell; what is late tells of it later.
        (ADVANCED, TEN - 60 * MINUTE, TEN - 30 * MINUTE, True),
        (ADVANCED, TEN - 60 * MINUTE, TEN - 30 * MINUTE + timedelta(seconds=SILENT_SECONDS), False),
        (STARTER, TEN - 60 * MINUTE, TEN - 15 * MINUTE + MINUTE, True),
        (STARTER, TEN - 60 * MINUTE, TEN - 15 * MINUTE + timedelta(seconds=SILENT_SECONDS + 75), False),
        (STARTER, TEN + 365 * MINUTE, TEN + 365 * MINUTE + 5 * MINUTE, False),
        (ADVANCED, TEN + 365 * MINUTE, TEN + 600 * MINUTE, True),
    ],
)
def test_silence_counts_in_the_session_as_the_plan_tells_of_it(
    one: Cluster, heard_at: datetime, now: datetime, *, sound: bool
) -> None:
    if sound:
        feed(one, Book({}))._require_sound(heard_at, now)
    else:
        with pytest.raises(EndedError, match="stocks trades"):
            feed(one, Book({}))._require_sound(heard_at, now)


def test_a_gap_is_that_of_what_was_told_meanwhile() -> None:
    for one, delay in ((ADVANCED, timedelta(0)), (STARTER, LATE)):
        found = streaming(one, live(one, TEN, lost_at=TEN - 7 * MINUTE), "AMPB")
        missed = found.missed(TEN + STEADY_SECONDS * SECOND)
        assert set(missed) == {"AMPB"}
        assert (missed["AMPB"].since, missed["AMPB"].until) == (TEN - 10 * MINUTE - delay, TEN + 5 * MINUTE - delay)
    # It was over before there was anything to tell of today.
    opens = TEN - 360 * MINUTE
    found = streaming(STARTER, live(STARTER, opens + 14 * MINUTE, lost_at=opens - 14 * MINUTE), "AMPB")
    assert found.missed(opens + 15 * MINUTE) == {}


def test_figures_of_the_day_are_asked_for_as_long_as_there_is_something_to_tell_and_once_after_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = cluster(AssetType.INDICES, "starter")
    closes, told_of_it = TEN + 360 * MINUTE, TEN + 375 * MINUTE
    before, after = told_of_it + SECOND, told_of_it + 3 * MINUTE
    never, behind = Newest(), Newest(before, closes, closes - 4 * MINUTE)
    late, whole = Newest(after, closes, closes - 4 * MINUTE), Newest(after, closes, closes)
    passed = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: passed)
    for looks in (
        [(TEN, whole, 1), (told_of_it - MINUTE, whole, 1)],
        # The last value may still be about to come.
        [(told_of_it - SECOND, behind, 1), (told_of_it, behind, 0), (told_of_it + 5 * MINUTE, behind, 1)],
        # Who was asked for it is not asked again, until the market has traded again; who did not answer is.
        [(told_of_it + 5 * MINUTE, behind, 1), (told_of_it + 10 * MINUTE, late, 0), (TEN + 1440 * MINUTE, late, 1)],
        [
            (told_of_it + 5 * MINUTE, behind, 1),
            (told_of_it + 55 * MINUTE, behind, 0),
            (told_of_it + 65 * MINUTE, behind, 1),
        ],
        # A stream that takes over once it has closed knows by what is stored.
        [(told_of_it + 5 * MINUTE, whole, 0)],
        [(told_of_it + 5 * MINUTE, late, 1), (told_of_it + 65 * MINUTE, late, 0)],
        # On a Saturday something is added, or nobody had asked for days.
        [(TEN + 2880 * MINUTE, never, 1), (TEN + 2885 * MINUTE, never, 0)],
        [(TEN + 2880 * MINUTE, whole, 1), (TEN + 2885 * MINUTE, replace(whole, served_at=TEN + 2880 * MINUTE), 0)],
    ):
        found = streaming(one, live(one, TEN - 60 * MINUTE))
        found.take_list([listed("I:SPX", AssetType.INDICES)], ())
        for now, newest, asked in looks:
            passed = (now - TEN).total_seconds()
            assert len(found.due_for_refresh(now, {"I:SPX": newest})) == asked, now


def test_a_price_of_after_the_close_makes_no_silence_of_the_stream() -> None:
    one = cluster(AssetType.INDICES, "advanced")
    closes = TEN + 360 * MINUTE
    found = streaming(one, live(one, TEN - 60 * MINUTE))
    found.take_list([listed("I:SPX", AssetType.INDICES)], ())
    found.book.relist(found.names)
    found._clock.set(closes + 1080 * MINUTE)
    value = {"ev": "V", "val": 6501.25, "T": "I:SPX", "t": int(closes.timestamp() * 1000) - 1000}
    found.book.take(read(one, json.dumps([value]), closes), closes)
    for at, silent in ((closes + 10 * MINUTE, frozenset()), (closes + 1055 * MINUTE, {"I:SPX"})):
        found.look_for_silent({"I:SPX": Newest(priced_at=at)})
        assert found._silent == silent


def test_only_what_a_late_stream_should_have_told_by_now_makes_an_asset_a_silent_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = streaming(STARTER, live(STARTER, TEN - 60 * MINUTE), "AMPB", "AMpB")
    stored = {"AMPB": Newest(priced_at=TEN - LATE - 2 * MINUTE), "AMpB": Newest(priced_at=TEN - LATE - 30 * SECOND)}
    found.look_for_silent(stored)
    assert found.fresh() == ["AMpB"]

    # A minute is told once it is over.
    found.book.take(frame(STARTER, am("AMPB", MS - 17 * 60_000)), TEN - LATE)
    found.look_for_silent(stored)
    assert found.fresh() == ["AMPB", "AMpB"]

    # Of many one line tells.
    caplog.clear()
    names = [f"A{number}" for number in range(8)]
    streaming(STARTER, live(STARTER, TEN - 60 * MINUTE), *names).look_for_silent(dict.fromkeys(names, stored["AMPB"]))
    assert [record.getMessage().endswith(": A0, A1, A2, A3, A4 and 3 more") for record in caplog.records] == [True]


def test_a_stream_that_connected_a_moment_ago_is_not_silent_for_what_was_told_before() -> None:
    found = streaming(STARTER, live(STARTER, TEN - MINUTE), "AMPB")
    found.look_for_silent({"AMPB": Newest(priced_at=TEN - LATE - 90 * SECOND)})
    assert found.fresh() == ["AMPB"]
