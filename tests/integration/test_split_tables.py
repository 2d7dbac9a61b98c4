"""Splits in the database: what the list says of day to day, and which stored bars are of before."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.database import splits
from assetbatch.database.bars import unadjusted
from assetbatch.database.bars.unadjusted import Fetched
from assetbatch.model import AssetType, Span, Split

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.database.splits import SplitsState

STOCKS = AssetType.STOCKS
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# Tuesday, 24 November 2026, begins in New York.
TUESDAY = datetime(2026, 11, 24, 5, tzinfo=UTC)
ADJUSTED = TUESDAY + 4 * HOUR
MONDAY_NOON = TUESDAY - 12 * HOUR
SINCE = date(2026, 11, 16)
AAPL = Split("AAPL", date(2026, 11, 24), Decimal(1), Decimal(4))
OTHER = Split("OTHR", date(2026, 11, 20), Decimal(10), Decimal(1))

ADD_STOCK = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
values (%(symbol)s, %(ticker)s, 'stocks', 'secondary', 3, 1800, 'symbols')
"""
ADD_BARS = """
insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume, is_final, fetched_at)
select s.id, ts, 400, 400, 400, 400, 100, true, %(fetched_at)s
from trading.symbols s, unnest(%(ts)s::timestamptz[]) ts where s.symbol = %(symbol)s
"""
FETCH = """
update market_data.ohlcv_5m b set close = close / 4, fetched_at = %(at)s
from trading.symbols s where s.id = b.symbol_id and s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s
"""
READ = "select ticker, execution_date, adjusted_from, withdrawn_at is not null as is_withdrawn from assetbatch.splits"
WAITING = "select lower(ranges) as since, upper(ranges) as until from assetbatch.unadjusted_bars where symbol = %s"


def add(connection: Connection, symbol: str = "AAPL", ticker: str | None = None) -> None:
    """Put a stock into the catalogue and into the platform's table."""
    connection.execute(ADD_STOCK, {"symbol": symbol, "ticker": ticker or symbol})
    connection.execute("insert into trading.symbols (symbol) values (%s) on conflict do nothing", [symbol])


def store(connection: Connection, *moments: datetime, at: datetime, symbol: str = "AAPL") -> None:
    """Put bars into the table as if they had been fetched at a time."""
    connection.execute(ADD_BARS, {"symbol": symbol, "ts": list(moments), "fetched_at": at})


def state(connection: Connection, now: datetime) -> SplitsState:
    return connection.answer(splits.state(STOCKS, now=now))


def listed(connection: Connection, now: datetime, *found: Split, since: date = SINCE) -> None:
    """Let the vendor's list come at a time, once it is due."""
    assert splits.take(connection, STOCKS, now=now)
    splits.note(connection, STOCKS, found, since=since, now=now)


def applied(connection: Connection, now: datetime) -> dict[str, int]:
    """Apply what has come; tell of whose bars how many change."""
    return {one.symbol: one.bars for one in unadjusted.apply(connection, reach=None, now=now)}


def waiting(connection: Connection, symbol: str = "AAPL") -> Span | None:
    row = connection.execute(WAITING, [symbol]).fetchone()
    return None if row is None else Span(**row)


def known(connection: Connection) -> dict[tuple[str, date], dict[str, Any]]:
    rows = connection.execute(READ).fetchall()
    return {(row.pop("ticker"), row.pop("execution_date")): row for row in rows}


def test_the_list_is_due_once_a_day_of_new_york_where_stocks_are_in_the_catalogue(connection: Connection) -> None:
    before = state(connection, MONDAY_NOON).is_due
    add(connection)
    first = state(connection, MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)

    assert not before
    assert first.is_due
    assert first.since == date(2026, 11, 16)
    assert not state(connection, TUESDAY - HOUR).is_due
    assert state(connection, TUESDAY).is_due
    assert state(connection, TUESDAY + 20 * DAY).since == date(2026, 11, 16)


def test_one_run_asks_for_the_list_and_after_a_failure_it_is_asked_for_in_an_hour(connection: Connection) -> None:
    add(connection)
    taken = [splits.take(connection, STOCKS, now=MONDAY_NOON) for _ in range(2)]

    assert taken == [True, False]
    assert not state(connection, MONDAY_NOON + HOUR / 2).is_due
    assert state(connection, MONDAY_NOON + HOUR).is_due
    assert splits.take(connection, STOCKS, now=MONDAY_NOON + HOUR)
    splits.give_back(connection, STOCKS, now=MONDAY_NOON + HOUR)
    assert splits.take(connection, STOCKS, now=MONDAY_NOON + HOUR)


def test_a_split_is_in_force_from_four_in_the_morning_of_its_day_in_new_york(connection: Connection) -> None:
    summer = Split("SUMM", date(2026, 7, 7), Decimal(2), Decimal(1))
    listed(connection, MONDAY_NOON, AAPL, OTHER, summer, AAPL)

    assert known(connection) == {
        ("AAPL", AAPL.execution_date): {"adjusted_from": ADJUSTED, "is_withdrawn": False},
        ("OTHR", OTHER.execution_date): {"adjusted_from": ADJUSTED - 4 * DAY, "is_withdrawn": False},
        ("SUMM", summer.execution_date): {
            "adjusted_from": datetime(2026, 7, 7, 8, tzinfo=UTC),
            "is_withdrawn": False,
        },
    }
    assert state(connection, MONDAY_NOON).has_come


def test_bars_of_before_the_day_that_were_fetched_before_it_are_to_be_fetched_again(connection: Connection) -> None:
    add(connection)
    add(connection, "MSFT")
    old, last, new = TUESDAY - 90 * DAY, TUESDAY - 4 * HOUR, TUESDAY + 9 * HOUR
    store(connection, old, last, at=MONDAY_NOON)
    store(connection, TUESDAY - 5 * HOUR, at=ADJUSTED + HOUR)
    store(connection, new, at=MONDAY_NOON)
    store(connection, old, at=MONDAY_NOON, symbol="MSFT")
    listed(connection, MONDAY_NOON, AAPL, OTHER)

    assert not [bars for symbol, bars in applied(connection, ADJUSTED - HOUR).items() if symbol == "AAPL"]
    assert waiting(connection) is None
    assert applied(connection, ADJUSTED) == {"AAPL": 2}
    assert waiting(connection) == Span(old, TUESDAY)
    assert waiting(connection, "MSFT") is None
    assert applied(connection, ADJUSTED) == {}
    assert not state(connection, ADJUSTED).has_come


def test_a_ticker_that_was_added_after_its_split_has_nothing_to_be_fetched_again(connection: Connection) -> None:
    listed(connection, MONDAY_NOON, AAPL)
    assert applied(connection, ADJUSTED) == {}
    add(connection)
    store(connection, TUESDAY - DAY, at=ADJUSTED + HOUR)

    assert applied(connection, ADJUSTED + HOUR) == {}
    assert waiting(connection) is None


def test_an_asset_that_comes_back_with_bars_of_before_a_split_has_them_fetched_again(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    connection.execute("delete from assetbatch.assets")
    listed(connection, MONDAY_NOON, AAPL)
    assert applied(connection, ADJUSTED) == {}
    add(connection)

    assert applied(connection, ADJUSTED + DAY) == {"AAPL": 1}


def test_a_split_that_is_called_off_or_moves_before_its_day_changes_nothing(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON - DAY, AAPL)
    moved = Split("AAPL", date(2026, 12, 1), Decimal(1), Decimal(4))
    listed(connection, MONDAY_NOON, moved, OTHER)

    assert set(known(connection)) == {("AAPL", moved.execution_date), ("OTHR", OTHER.execution_date)}
    assert applied(connection, ADJUSTED) == {}
    assert applied(connection, ADJUSTED + 7 * DAY) == {"AAPL": 1}


@pytest.mark.parametrize("then", ["withdrawn", "corrected", "listed again"])
def test_what_the_vendor_changes_its_mind_about_is_fetched_once_more(connection: Connection, then: str) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)
    fetch(connection, TUESDAY - DAY, TUESDAY, at=ADJUSTED + HOUR)
    assert waiting(connection) is None

    thursday = TUESDAY + 2 * DAY
    if then != "withdrawn":
        listed(connection, thursday - DAY, *([] if then == "listed again" else [AAPL]))
        applied(connection, thursday - DAY)
    now_listed = {
        "withdrawn": [OTHER],
        "corrected": [Split("AAPL", AAPL.execution_date, Decimal(1), Decimal(5))],
        "listed again": [AAPL],
    }[then]
    listed(connection, thursday, *now_listed)

    assert applied(connection, thursday)["AAPL"] == 1
    assert known(connection)["AAPL", AAPL.execution_date] == {
        "adjusted_from": thursday,
        "is_withdrawn": then == "withdrawn",
    }
    # A page that changes nothing is believed by now.
    assert note(connection, TUESDAY - DAY, TUESDAY, at=thursday + HOUR) == Fetched(1, is_adjusted=True, is_last=True)


def test_a_split_that_is_listed_late_is_in_force_from_then_on(connection: Connection) -> None:
    add(connection)
    listed(connection, TUESDAY, OTHER)
    store(connection, TUESDAY - DAY, at=ADJUSTED + HOUR)
    wednesday = TUESDAY + DAY
    listed(connection, wednesday, AAPL, OTHER)

    assert known(connection)["AAPL", AAPL.execution_date]["adjusted_from"] == wednesday
    assert applied(connection, wednesday) == {"AAPL": 1}


def test_what_is_older_than_the_plan_reaches_back_stays(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - 800 * DAY, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    unadjusted.apply(connection, reach=TUESDAY - 729 * DAY, now=ADJUSTED)

    assert waiting(connection) == Span(TUESDAY - DAY, TUESDAY)


def fetch(
    connection: Connection, since: datetime, until: datetime, *, at: datetime, adjusted_since: datetime | None = None
) -> Fetched | None:
    """Let a page come that has the bars of a span adjusted, or those `adjusted_since`."""
    stale = unadjusted.count_stale(connection, "AAPL", Span(since, until))
    adjusted = {"symbol": "AAPL", "since": adjusted_since or since, "until": until, "at": at}
    connection.execute(FETCH, adjusted)
    return unadjusted.note_fetched(connection, "AAPL", Span(since, until), stale=stale, asked_at=at)


def note(connection: Connection, since: datetime, until: datetime, *, at: datetime) -> Fetched | None:
    """Let a page come that has nothing new."""
    return fetch(connection, since, until, at=at, adjusted_since=until)


def test_what_a_page_covers_is_taken_away_until_nothing_is_left(connection: Connection) -> None:
    add(connection)
    days = [TUESDAY - back * DAY for back in (3, 2, 1)]
    store(connection, *days, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)

    first = fetch(connection, days[2], TUESDAY, at=ADJUSTED)
    left = waiting(connection)
    last = fetch(connection, days[0], days[2], at=ADJUSTED)

    assert first == Fetched(0, is_adjusted=True, is_last=False)
    assert left == Span(days[0], days[2])
    assert last == Fetched(0, is_adjusted=True, is_last=True)
    assert waiting(connection) is None
    assert note(connection, days[0], TUESDAY, at=ADJUSTED) is None


def test_a_page_that_changes_nothing_is_asked_for_again_in_an_hour_and_believed_after_a_day(
    connection: Connection,
) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)

    assert note(connection, TUESDAY - DAY, TUESDAY, at=ADJUSTED) == Fetched(1, is_adjusted=False, is_last=True)
    asked_again = connection.execute("select ask_at from assetbatch.unadjusted_bars").fetchone()
    assert asked_again == {"ask_at": ADJUSTED + HOUR}
    # What came first meanwhile is of the old scale, too.
    store(connection, TUESDAY - HOUR, at=ADJUSTED)
    assert note(connection, TUESDAY - DAY, TUESDAY, at=ADJUSTED + HOUR) == Fetched(2, is_adjusted=False, is_last=True)
    late = note(connection, TUESDAY - DAY, TUESDAY, at=ADJUSTED + DAY)
    assert late == Fetched(2, is_adjusted=True, is_last=True)
    assert waiting(connection) is None


def test_a_page_from_before_the_split_came_takes_nothing_away(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)

    assert note(connection, TUESDAY - DAY, TUESDAY, at=ADJUSTED - HOUR) is None
    assert waiting(connection) is not None


def test_a_bar_that_the_vendor_has_no_more_stays_and_is_told(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - 2 * DAY, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)

    found = fetch(connection, TUESDAY - 2 * DAY, TUESDAY, at=ADJUSTED, adjusted_since=TUESDAY - DAY)

    assert found == Fetched(1, is_adjusted=True, is_last=True)


def test_two_splits_of_one_ticker_have_all_bars_of_before_the_second_fetched_again(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - 9 * DAY, at=TUESDAY - 8 * DAY)
    store(connection, TUESDAY - DAY, at=MONDAY_NOON)
    first = Split("AAPL", date(2026, 11, 17), Decimal(1), Decimal(2))
    listed(connection, TUESDAY - 8 * DAY, first, AAPL)
    applied(connection, TUESDAY - 6 * DAY)
    before = waiting(connection)
    applied(connection, ADJUSTED)

    assert before == Span(TUESDAY - 9 * DAY, TUESDAY - 7 * DAY)
    assert waiting(connection) == Span(TUESDAY - 9 * DAY, TUESDAY)


def test_tables_of_a_platform_without_the_time_of_fetching_have_all_of_before_fetched_again(
    connection: Connection,
) -> None:
    add(connection)
    store(connection, TUESDAY - DAY, at=ADJUSTED + HOUR)
    connection.execute("alter table market_data.ohlcv_5m drop column fetched_at")
    listed(connection, MONDAY_NOON, AAPL)

    assert applied(connection, ADJUSTED) == {"AAPL": 1}
    page = Span(TUESDAY - DAY, TUESDAY)
    assert unadjusted.count_stale(connection, "AAPL", page) == 0
    found = unadjusted.note_fetched(connection, "AAPL", page, stale=0, asked_at=ADJUSTED)
    assert found == Fetched(0, is_adjusted=True, is_last=True)


def test_leaving_what_the_plan_does_not_reach_takes_it_away(connection: Connection) -> None:
    add(connection)
    store(connection, TUESDAY - 2 * DAY, TUESDAY - DAY, at=MONDAY_NOON)
    listed(connection, MONDAY_NOON, AAPL)
    applied(connection, ADJUSTED)
    unadjusted.leave(connection, "AAPL", Span(TUESDAY - 3 * DAY, TUESDAY - DAY))
    left = waiting(connection)
    unadjusted.leave(connection, "AAPL", Span(TUESDAY - DAY, TUESDAY))

    assert left == Span(TUESDAY - DAY, TUESDAY)
    assert waiting(connection) is None
