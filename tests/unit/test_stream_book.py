"""What came and is not stored yet: the newest of each asset, whole bars only, in bounded memory, from two threads."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from assetbatch import bars
from assetbatch.model import Bar, Quote
from assetbatch.provider.stream import Frame
from assetbatch.stream.book import KEPT, MOST_LAGS, Book, Taken

NOON = datetime(2026, 9, 3, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NAMES = {"EUR/USD": "EURUSD", "GBP/USD": "GBPUSD"}


def quote(price: int, at: datetime = NOON) -> Quote:
    return Quote(Decimal(price), at, has_daily=False)


def minute(at: datetime, price: int = 1) -> Bar:
    figure = Decimal(price)
    return Bar(at, figure, figure, figure, figure, Decimal(1))


def quotes(*found: tuple[str, Quote]) -> Frame:
    return Frame(quotes=list(found))


def minutes(*found: Bar, name: str = "EUR/USD") -> Frame:
    return Frame(minutes=[(name, one) for one in found])


def begun(at: datetime = NOON) -> Book:
    book = Book(NAMES)
    book.begin(at)
    return book


@given(st.lists(st.tuples(st.sampled_from(list(NAMES)), st.integers(0, 5), st.integers(1, 9)), max_size=30))
def test_the_newest_quote_of_each_asset_is_kept_whatever_the_order(came: list[tuple[str, int, int]]) -> None:
    book, newest = Book(NAMES), dict[str, Quote]()
    for name, second, price in came:
        one = quote(price, NOON + second * SECOND)
        book.take(quotes((name, one)), NOON)
        # Of the same time, the one that came last.
        if NAMES[name] not in newest or newest[NAMES[name]].timestamp <= one.timestamp:
            newest[NAMES[name]] = one

    assert book.drain(NOON).quotes == newest
    assert book.drain(NOON).quotes == {}
    assert book.newest() == {symbol: one.timestamp for symbol, one in newest.items()}


def test_an_older_quote_does_not_come_back_once_a_newer_one_was_taken_out() -> None:
    book = Book(NAMES)
    book.take(quotes(("EUR/USD", quote(2, NOON + SECOND))), NOON)
    book.drain(NOON)
    book.take(quotes(("EUR/USD", quote(1))), NOON)

    assert book.drain(NOON).quotes == {}


def test_what_could_not_be_stored_waits_unless_something_newer_came() -> None:
    book = begun()
    book.take(quotes(("EUR/USD", quote(1)), ("GBP/USD", quote(1))), NOON)
    book.take(minutes(minute(NOON)), NOON)
    taken = book.drain(NOON)
    book.take(quotes(("EUR/USD", quote(2, NOON + SECOND))), NOON)
    book.take(minutes(minute(NOON + MINUTE, 7)), NOON)
    book.put_back(taken)

    again = book.drain(NOON)
    assert again.quotes == {"EURUSD": quote(2, NOON + SECOND), "GBPUSD": quote(1)}
    # The bar as it is now, not as it was.
    (series,) = again.bars.values()
    assert list(series) == list(bars.built([minute(NOON), minute(NOON + MINUTE, 7)]))


def test_what_nobody_asked_for_is_counted_and_dropped() -> None:
    book = begun()
    book.take(Frame(quotes=[("X/Y", quote(1))], minutes=[("X/Y", minute(NOON))], dropped=3, oddest="odd"), NOON)

    counts = book.counts()
    assert (counts.events, counts.dropped, counts.oddest) == (2, 5, "odd")
    assert book.drain(NOON) == Taken()
    assert book.counts().oddest == ""


def test_a_bar_is_built_only_if_all_its_minutes_are_still_to_come() -> None:
    for connected, whole in [
        (NOON, NOON),
        (NOON + 30 * SECOND, NOON),  # its first minute comes at 12:01, whole
        (NOON + MINUTE, NOON + 5 * MINUTE),
        (NOON + 4 * MINUTE + 59 * SECOND, NOON + 5 * MINUTE),
    ]:
        book = begun(connected)
        book.take(minutes(*(minute(NOON + number * MINUTE) for number in range(10))), NOON + 5 * MINUTE)

        built = book.drain(NOON + 5 * MINUTE).bars
        assert min(begins for _, begins in built) == whole


def test_before_the_connection_is_live_no_bar_is_built() -> None:
    book = Book(NAMES)
    book.take(minutes(minute(NOON)), NOON)
    assert book.drain(NOON).bars == {}


def test_a_clock_that_was_ahead_as_it_connected_keeps_no_bar_once_it_is_set_right() -> None:
    book = begun(NOON + timedelta(hours=5))
    for number in range(6):
        book.take(minutes(minute(NOON + number * MINUTE)), NOON + (number + 1) * MINUTE)
    assert list(book.drain(NOON + 6 * MINUTE).bars) == [("EURUSD", NOON + 5 * MINUTE)]


def test_a_minute_sent_again_replaces_itself_and_one_that_is_the_same_is_no_news() -> None:
    book = begun()
    book.take(minutes(minute(NOON + MINUTE, 3), minute(NOON, 1)), NOON)
    book.drain(NOON)
    book.take(minutes(minute(NOON, 1)), NOON)
    assert book.drain(NOON).bars == {}

    book.take(minutes(minute(NOON, 2)), NOON)
    ((key, series),) = book.drain(NOON).bars.items()
    assert key == ("EURUSD", NOON)
    assert list(series) == list(bars.built([minute(NOON, 2), minute(NOON + MINUTE, 3)]))


def test_after_a_break_a_bar_whose_minutes_may_lack_is_left_to_a_call() -> None:
    book = begun()
    book.take(minutes(minute(NOON)), NOON)
    book.begin(NOON + 3 * MINUTE)
    book.take(minutes(minute(NOON + 3 * MINUTE)), NOON + 4 * MINUTE)
    # What had come whole until then is stored all the same.
    ((key, series),) = book.drain(NOON + 4 * MINUTE).bars.items()
    assert (key, list(series)) == (("EURUSD", NOON), [minute(NOON)])


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20)), max_size=100))
def test_memory_is_bounded_though_nothing_is_taken_out(came: list[tuple[int, int]]) -> None:
    book = begun()
    for ahead, behind in sorted(came):
        now = NOON + ahead * MINUTE
        book.take(minutes(minute(now - behind * MINUTE)), now)
        book.take(quotes(("EUR/USD", quote(1, now))), now)

    most = KEPT // MINUTE + 5
    assert all(len(found) <= most for found in book._minutes.values())
    assert len(book._changed) <= len(came)
    assert len(book._quotes) <= 1
    assert len(book._lags) <= MOST_LAGS


def test_days_of_an_outage_leave_a_handful_of_minutes() -> None:
    book = begun()
    for number in range(3 * 1440):
        now = NOON + number * MINUTE
        book.take(minutes(minute(now - MINUTE)), now)
        if number % 7 == 0:
            book.put_back(book.drain(now))

    assert len(book._minutes["EURUSD"]) <= 15
    assert len(book._changed) <= 4
    assert len(book.drain(now).bars) <= 3


def test_assets_that_are_not_listed_any_more_are_forgotten_and_the_others_stay() -> None:
    book = begun()
    book.take(quotes(("EUR/USD", quote(1)), ("GBP/USD", quote(2))), NOON)
    book.take(minutes(minute(NOON)), NOON)
    taken = book.drain(NOON)
    book.relist({"GBP/USD": "GBPUSD", "USD/JPY": "USDJPY"})
    book.put_back(taken)
    book.take(quotes(("EUR/USD", quote(3, NOON + SECOND)), ("USD/JPY", quote(4))), NOON)

    assert set(book.drain(NOON).quotes) == {"GBPUSD", "USDJPY"}


def test_counts_are_of_all_that_came_and_lags_of_the_last() -> None:
    book = Book(NAMES)
    for second in range(100):
        book.take(quotes(("EUR/USD", quote(1, NOON + second * SECOND))), NOON + (second + second / 100) * SECOND)
    counts = book.counts()

    assert counts.events == 100
    assert (counts.lag_ms(0.5), counts.lag_ms(0.95), counts.lag_ms(1)) == (500, 950, 990)
    assert (book.counts().events, book.counts().lag_ms(0.5)) == (100, None)


def test_nothing_is_lost_between_the_thread_that_fills_it_and_the_one_that_empties_it() -> None:
    book, last, stored = begun(), 20_000, dict[str, Quote]()

    def fill() -> None:
        for number in range(1, last + 1):
            book.take(quotes(("EUR/USD", quote(number, NOON + timedelta(milliseconds=number)))), NOON)

    thread = threading.Thread(target=fill)
    thread.start()
    turns = 0
    while thread.is_alive() or turns == 0:
        taken = book.drain(NOON)
        turns += 1
        if turns % 2:
            book.put_back(taken)
        elif taken.quotes:
            assert "EURUSD" not in stored or stored["EURUSD"].timestamp < taken.quotes["EURUSD"].timestamp
            stored.update(taken.quotes)
    thread.join()
    stored.update(book.drain(NOON).quotes)

    assert stored["EURUSD"].last_price == last
    assert book.counts().events == last
