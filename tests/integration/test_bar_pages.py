"""Pages of bars stored and read back, the leases on them, and the holes that are left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from msgspec.structs import replace

from assetbatch.bar_series import BarSeries
from assetbatch.bars import LENGTH, JudgedPage
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars import pages as bar_pages
from assetbatch.database.bars import state as bars
from assetbatch.database.setup import schema
from assetbatch.failures import FailureKind
from assetbatch.markets import Market
from assetbatch.model import Asset, AssetType, Bar, Role, Span
from tests.conftest import open_database, wait_until
from tests.world import DAY, HOUR, TUESDAY, add_assets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.database.bars.pages import StoredBars
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

ASSET = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.SECONDARY, 3, 1800)
BEGIN = TUESDAY
ASKED = BEGIN + DAY
ADD_SYMBOL = "insert into trading.symbols (symbol, metadata) values (%s, '{}')"


def at(window: int) -> datetime:
    return BEGIN + window * LENGTH


def span(since: int, until: int) -> Span:
    return Span(at(since), at(until))


def bar(window: int, price: str = "1.5") -> Bar:
    one = Decimal(price)
    return Bar(at(window), one, one, one, one, volume=Decimal("12.5"), vwap=Decimal("1.25"), trades=7)


def finals(*found: Bar) -> list[tuple[Bar, bool]]:
    return [(one, True) for one in found]


def write(
    connection: Connection,
    page: Sequence[tuple[Bar, bool]],
    *,
    asked_at: datetime = ASKED,
    carefully: bool = False,
    is_new: bool = False,
) -> StoredBars | None:
    final_until = max((one.ts + LENGTH for one, is_final in page if is_final), default=BEGIN)
    assert all(is_final == (one.ts + LENGTH <= final_until) for one, is_final in page)
    with connection.transaction():
        return bar_pages.write(
            connection,
            ASSET,
            BarSeries.of(one for one, _ in page),
            final_until=final_until,
            is_new=is_new,
            has_finality=bar_holes.has_finality(connection),
            asked_at=asked_at,
            fetched_at=asked_at + LENGTH / 300,
            carefully=carefully,
        )


def rows(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("select *, xmin::text as written_by from market_data.ohlcv_5m order by ts").fetchall()


def closes(connection: Connection) -> dict[datetime, tuple[Decimal, bool]]:
    return {row["ts"]: (row["close"], row["is_final"]) for row in rows(connection)}


def stored_bars(connection: Connection, within: Span) -> dict[datetime, Bar]:
    return {ts: one for ts, (one, _) in bar_pages.read(connection, "BTCUSD", within).items()}


def wal_bytes(connection: Connection, since: str | None = None) -> Any:
    query = "select pg_current_wal_insert_lsn()::text as lsn, pg_current_wal_insert_lsn() - %s::pg_lsn as bytes"
    row = connection.execute(query, [since]).fetchone()
    assert row is not None
    return row["lsn"] if since is None else int(row["bytes"])


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedServer) -> Iterator[Connection]:
    """A database for this module, which keeps nothing of its tests."""
    postgres.create_database("bar_pages")
    with open_database(postgres.conninfo("bar_pages")) as connection:
        schema.migrate(connection)
        yield connection


def add(connection: Connection, symbol: str, role: str = "secondary", rank: int = 3) -> None:
    add_assets(connection, f"X:{symbol}", role=role, rank=rank)
    connection.execute(ADD_SYMBOL, [symbol])


@pytest.fixture
def market(shared: Connection) -> Iterator[Connection]:
    """One asset in the catalogue and in the platform's table; all is undone at the end."""
    with shared.transaction(force_rollback=True):
        add(shared, ASSET.symbol)
        yield shared


INDEX = Asset("BROAD", "I:BROAD", AssetType.INDICES, Role.PRIORITY, 1, 300)


def write_index(connection: Connection, *found: Bar) -> StoredBars:
    with connection.transaction():
        stored = bar_pages.write(
            connection,
            INDEX,
            BarSeries.of(found),
            final_until=at(9),
            is_new=True,
            has_finality=True,
            asked_at=ASKED,
            fetched_at=ASKED,
            carefully=True,
        )
    assert stored is not None
    return stored


def test_bars_of_nothing_that_was_traded_are_stored_and_read_so(market: Connection) -> None:
    page = [replace(bar(window, "3822.390"), volume=None, vwap=None, trades=None) for window in range(3)]

    assert write_index(market, *page) == bar_pages.StoredBars(3)
    stored = bar_pages.read(market, INDEX.symbol, span(0, 3))
    assert [one for one, _ in stored.values()] == page
    assert str(stored[at(0)][0].close) == "3822.390"
    assert write_index(market, *page) == bar_pages.StoredBars(0)


def test_a_table_that_insists_on_volume_refuses_bars_of_indices_with_a_way_out(market: Connection) -> None:
    market.execute("alter table market_data.ohlcv_5m alter volume set not null")
    page = [replace(bar(window), volume=None, vwap=None, trades=None) for window in range(30)]

    stored = write_index(market, *page)

    assert (stored.written, stored.kind, len(stored.refused)) == (0, FailureKind.REFUSED_BY_DATABASE, 30)
    (words,) = {words for _, words in stored.refused}
    assert 'null value in column "volume"' in words
    assert "indices have none, and `assetbatch init` prints the statement" in words
    # Others have what it insists on.
    assert write(market, finals(bar(0))) == bar_pages.StoredBars(1)


@pytest.mark.parametrize("carefully", [False, True])
def test_bars_are_stored_digit_by_digit(market: Connection, carefully: bool) -> None:
    page = [
        (bar(0, "0.000000000000000001"), True),
        (bar(1, "123456789012345678.10"), True),
        (replace(bar(2, "9.65E+4"), volume=Decimal(0), vwap=None, trades=None), False),
    ]

    assert write(market, page, carefully=carefully) == bar_pages.StoredBars(3)

    stored = stored_bars(market, span(0, 3))
    assert stored == {one.ts: one for one, _ in page}
    assert str(stored[at(1)].open) == "123456789012345678.10"
    assert [row["is_final"] for row in rows(market)] == [True, True, False]
    assert {row["fetched_at"] for row in rows(market)} == {ASKED + LENGTH / 300}
    assert list(stored_bars(market, span(1, 2))) == [at(1)]


def test_an_empty_page_writes_nothing(market: Connection) -> None:
    assert write(market, []) == write(market, [], carefully=True) == bar_pages.StoredBars(0)


def test_of_a_symbol_that_the_platform_has_deleted_nothing_is_stored(market: Connection) -> None:
    market.execute("delete from trading.symbols")

    assert write(market, finals(bar(0))) is None
    assert rows(market) == []
    assert market.execute("select * from trading.symbols").fetchall() == []


def test_an_asset_whose_bars_come_before_its_price_gets_its_row(market: Connection) -> None:
    market.execute("delete from trading.symbols")

    assert write(market, finals(bar(0)), is_new=True) == bar_pages.StoredBars(1)
    assert stored_bars(market, span(0, 1)) == {at(0): bar(0)}


def test_an_older_fetch_changes_nothing(market: Connection) -> None:
    write(market, finals(bar(0, "2")), asked_at=ASKED)

    stored = write(market, finals(bar(0, "1"), bar(1, "1")), asked_at=ASKED - HOUR)

    assert stored == bar_pages.StoredBars(1)
    assert closes(market) == {at(0): (Decimal(2), True), at(1): (Decimal(1), True)}


def test_an_open_bar_never_takes_the_place_of_a_final_one(market: Connection) -> None:
    write(market, finals(bar(0, "2")), asked_at=ASKED)

    assert write(market, [(bar(0, "1"), False)], asked_at=ASKED + HOUR) == bar_pages.StoredBars(0)
    assert closes(market) == {at(0): (Decimal(2), True)}


def test_an_open_bar_grows_and_becomes_final(market: Connection) -> None:
    write(market, [(bar(0, "1"), False)], asked_at=ASKED)
    write(market, [(bar(0, "2"), False)], asked_at=ASKED + HOUR)
    assert closes(market) == {at(0): (Decimal(2), False)}

    # The same numbers, and final now: that is a change.
    assert write(market, finals(bar(0, "2")), asked_at=ASKED + 2 * HOUR) == bar_pages.StoredBars(1)

    assert closes(market) == {at(0): (Decimal(2), True)}
    assert rows(market)[0]["fetched_at"] == ASKED + 2 * HOUR + LENGTH / 300


@pytest.mark.parametrize("key", ["open", "high", "low", "close", "volume", "vwap", "trades"])
def test_a_correction_of_any_number_is_stored_and_told(market: Connection, key: str) -> None:
    write(market, finals(bar(0), bar(1), bar(2)))
    changes: dict[str, Any] = {key: None if key in {"vwap", "trades"} else Decimal("1.75")}
    corrected = replace(bar(1), **changes)

    assert write(market, finals(bar(0), corrected, bar(2)), asked_at=ASKED + DAY) == bar_pages.StoredBars(1)

    assert stored_bars(market, span(0, 3))[at(1)] == corrected
    learned = market.execute(
        "select ts from market_data.ohlcv_5m where is_final and fetched_at > %s", [ASKED + HOUR]
    ).fetchall()
    assert learned == [{"ts": at(1)}]


def test_a_bar_of_nobody_knows_when_gives_way(market: Connection) -> None:
    market.execute("alter table market_data.ohlcv_5m alter is_final drop not null, alter fetched_at drop not null")
    market.execute("insert into market_data.ohlcv_5m select id, %s, 9, 9, 9, 9, 9 from trading.symbols", [at(0)])

    write(market, finals(bar(0)))

    assert closes(market) == {at(0): (Decimal("1.5"), True)}


def test_what_does_not_change_costs_little(market: Connection) -> None:
    page = finals(*map(bar, range(2000)))
    begun = wal_bytes(market)
    write(market, page)
    first = wal_bytes(market, begun)
    market.execute("checkpoint")  # else the first change of a page would be paid for once more
    before = rows(market)
    write(market, page, asked_at=ASKED + HOUR)  # pays for the pages' images
    begun = wal_bytes(market)

    assert write(market, page, asked_at=ASKED + DAY) == bar_pages.StoredBars(0)

    assert rows(market) == before
    assert wal_bytes(market, begun) < first / 2


def test_a_table_without_finality_is_written_too(market: Connection) -> None:
    market.execute("alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at")

    assert write(market, [(bar(0), True), (bar(1), False)]) == bar_pages.StoredBars(2)
    assert write(market, [(bar(0), True), (bar(1, "2"), True)]) == bar_pages.StoredBars(1)

    assert stored_bars(market, span(0, 2)) == {at(0): bar(0), at(1): bar(1, "2")}


@pytest.mark.parametrize("bad", [{3}, {0, 9}, {4, 5, 6}, set(range(10)), set()], ids=str)
def test_what_the_platform_refuses_spoils_no_other_bar(market: Connection, bad: set[int]) -> None:
    market.execute("alter table market_data.ohlcv_5m add constraint sane check (close < 1000)")
    page = finals(*(bar(number, "1000" if number in bad else "1") for number in range(10)))

    if bad:
        with pytest.raises(psycopg.errors.CheckViolation):
            write(market, page)
        assert rows(market) == []
    stored = write(market, page, carefully=True)

    assert stored is not None
    assert stored.written == 10 - len(bad)
    assert [ts for ts, _ in stored.refused] == [at(number) for number in sorted(bad)]
    assert all("sane" in why for _, why in stored.refused)
    assert list(closes(market)) == [at(number) for number in range(10) if number not in bad]


def test_what_a_column_cannot_hold_is_refused_alone(market: Connection) -> None:
    market.execute("alter table market_data.ohlcv_5m alter close type numeric(20,8)")

    stored = write(market, finals(bar(0), bar(1, "123456789012345678")), carefully=True)

    assert stored is not None
    assert (stored.written, [ts for ts, _ in stored.refused]) == (1, [at(1)])
    market.execute("update market_data.ohlcv_5m set close = 1.23456789")
    # What the column rounds off is no change.
    assert write(market, finals(replace(bar(0), close=Decimal("1.234567891"))), asked_at=ASKED + DAY) == (
        bar_pages.StoredBars(0)
    )


def test_bars_that_have_no_table_at_all_are_not_refused_one_by_one(market: Connection) -> None:
    market.execute("alter table market_data.ohlcv_5m rename to elsewhere")

    with pytest.raises(psycopg.errors.UndefinedTable):
        write(market, finals(*map(bar, range(20))), carefully=True)


class CountingCursor(psycopg.Cursor[Any]):
    """Counts what is put into the table of the bars."""

    inserts = 0

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        CountingCursor.inserts += "insert into market_data.ohlcv_5m" in str(query)
        return super().execute(query, *arguments, **options)


@pytest.fixture
def counted(market: Connection) -> Iterator[Connection]:
    CountingCursor.inserts = 0
    market.plain.cursor_factory = CountingCursor
    yield market
    market.plain.cursor_factory = psycopg.Cursor


@pytest.mark.parametrize(
    ("rule", "taken", "statements"),
    [
        # A boundary anywhere, from either side, and a stretch in the middle.
        ("ts < '{begin}'::timestamptz + 5000 * interval '5 minutes'", 5000, bar_pages.MOST_STATEMENTS),
        ("ts >= '{begin}'::timestamptz + 7777 * interval '5 minutes'", 2223, bar_pages.MOST_STATEMENTS),
        ("(ts - '{begin}'::timestamptz) / 300 not between '3001 s' and '9990 s'", 3010, bar_pages.MOST_STATEMENTS),
        ("ts <> '{begin}'::timestamptz + 4321 * interval '5 minutes'", 9999, 60),
        ("ts is null", 0, 10),
    ],
    ids=["newest", "oldest", "middle", "one", "all"],
)
def test_of_a_long_page_all_is_stored_that_is_taken_in_a_bounded_number_of_statements(
    counted: Connection, rule: str, taken: int, statements: int
) -> None:
    counted.execute(f"alter table market_data.ohlcv_5m add constraint sane check ({rule.format(begin=BEGIN)})")
    page = finals(*map(bar, range(10_000)))

    stored = write(counted, page, carefully=True)

    assert stored is not None
    assert (stored.written, len(stored.refused), stored.is_any_taken) == (taken, 10_000 - taken, taken > 0)
    assert len(rows(counted)) == taken
    assert CountingCursor.inserts <= statements


def test_what_is_not_tried_any_more_counts_as_refused(counted: Connection) -> None:
    counted.execute(
        "alter table market_data.ohlcv_5m add constraint sane check (extract(hour from ts at time zone 'UTC') <> 3)"
    )

    stored = write(counted, finals(*map(bar, range(10_000))), carefully=True)

    assert stored is not None
    assert stored.written + len(stored.refused) == 10_000
    assert stored.written == len(rows(counted)) > 1_500
    assert CountingCursor.inserts <= bar_pages.MOST_STATEMENTS


def test_an_asset_whose_row_is_refused_has_its_bars_refused(market: Connection) -> None:
    market.execute("delete from trading.symbols")
    market.execute("alter table trading.symbols add constraint none check (symbol <> 'BTCUSD')")

    stored = write(market, finals(bar(0), bar(1)), is_new=True, carefully=True)

    assert stored is not None
    assert (stored.is_any_taken, stored.kind, len(stored.refused)) == (False, FailureKind.REFUSED_BY_DATABASE, 2)


def judged(
    until: int, absent: Sequence[tuple[int, int]] = (), invalid: Sequence[tuple[int, int]] = (), *, whole: bool = True
) -> JudgedPage:
    return JudgedPage(
        BarSeries(),
        tuple(span(*one) for one in absent),
        tuple(span(*one) for one in invalid),
        until=at(until),
        whole=whole,
    )


def note(
    connection: Connection,
    found: JudgedPage,
    since: int = 0,
    closed: Sequence[tuple[int, int]] = (),
    noted_at: datetime = ASKED,
) -> None:
    with connection.transaction():
        bar_absences.note_absences(
            connection,
            "BTCUSD",
            found,
            span=span(since, 100),
            closed=[span(*one) for one in closed],
            noted_at=noted_at,
        )


def absences(connection: Connection) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for row in connection.execute(
        "select reason, lower(r) as since, upper(r) as until"
        " from (select reason, ranges from assetbatch.bar_absences"
        "       union all select 'once', ranges from assetbatch.bar_silences) a, unnest(ranges) r order by 1, 2"
    ):
        ends = (row["since"] - BEGIN) // LENGTH, (row["until"] - BEGIN) // LENGTH
        found.setdefault(row["reason"], []).append(ends)
    return found


def holes(
    connection: Connection, since: int = 0, until: int = 20, *, now: datetime = ASKED, told: str = "free key"
) -> list[tuple[int, int]]:
    found = bar_holes.holes(connection, "BTCUSD", span(since, until), now=now, told=told)
    return [((one.since - BEGIN) // LENGTH, (one.until - BEGIN) // LENGTH) for one in found]


def test_where_there_is_no_bar_and_no_reason_there_is_a_hole(market: Connection) -> None:
    assert holes(market) == [(0, 20)]
    write(market, finals(*map(bar, (2, 3, 5, 19))))

    assert holes(market) == [(0, 2), (4, 5), (6, 19)]
    assert holes(market, 2, 4) == []
    assert holes(market, 3, 5) == [(4, 5)]
    assert holes(market, 5, 5) == holes(market, 5, 3) == []


def test_what_a_page_has_not_is_absent_for_a_reason(market: Connection) -> None:
    note(market, judged(20, absent=[(0, 2), (4, 12)], invalid=[(5, 6)]), closed=[(1, 3), (8, 10)])

    # Closed is what the vendor has nothing for while the market rests; what was spoilt is neither.
    assert absences(market) == {
        "closed": [(1, 2), (8, 10)],
        "once": [(0, 1), (4, 5), (6, 8), (10, 12)],
        "failed": [(5, 6)],
    }
    assert holes(market) == [(2, 4), (12, 20)]


def test_a_later_page_takes_back_the_reasons_of_what_it_covers(market: Connection) -> None:
    note(market, judged(20, absent=[(0, 20)]))
    note(market, judged(10, absent=[(6, 7)]), since=5)
    assert absences(market) == {"once": [(0, 5), (6, 7), (10, 20)]}
    note(market, judged(15, absent=[(0, 15)]), noted_at=ASKED + HOUR)
    assert absences(market) == {"nothing": [(0, 5), (6, 7), (10, 15)], "once": [(5, 6), (7, 10), (15, 20)]}

    note(market, judged(20, invalid=[(3, 4)]), noted_at=ASKED + HOUR)
    assert absences(market) == {"failed": [(3, 4)]}
    note(market, judged(20))
    assert absences(market) == {}


def test_that_there_is_nothing_is_believed_when_it_is_told_twice_an_hour_apart(market: Connection) -> None:
    for minutes in (0, 10, 59):
        note(market, judged(20, absent=[(2, 4)]), noted_at=ASKED + timedelta(minutes=minutes))
        assert absences(market) == {"once": [(2, 4)]}
        assert holes(market, 2, 4, now=ASKED + timedelta(minutes=59)) == []
    # What is not told again is a hole again, and what is told a second time is none.
    assert holes(market, 2, 4, now=ASKED + HOUR) == [(2, 4)]
    note(market, judged(20, absent=[(3, 6)]), noted_at=ASKED + HOUR)
    assert absences(market) == {"nothing": [(3, 4)], "once": [(4, 6)]}
    note(market, judged(20, absent=[(3, 6)]), noted_at=ASKED + 2 * HOUR)
    assert absences(market) == {"nothing": [(3, 6)]}
    assert holes(market, 3, 6, now=ASKED + 400 * DAY) == []


def test_what_calls_for_the_newest_bars_may_ask_for_in_passing_is_a_hole_after_days(market: Connection) -> None:
    with market.transaction():
        found, asked = judged(20, absent=[(2, 4)]), span(0, 100)
        bar_absences.note_absences(market, "BTCUSD", found, span=asked, closed=[], noted_at=ASKED, in_passing=True)

    assert holes(market, 2, 4, now=ASKED + 2 * DAY) == []
    assert holes(market, 2, 4, now=ASKED + 3 * DAY) == [(2, 4)]
    # For who wants it at once, as soon as asking can tell.
    for hours, expected in ((0, []), (1, [span(2, 4)])):
        now = ASKED + hours * HOUR
        assert bar_holes.holes(market, "BTCUSD", span(2, 4), now=now, told="", at_once=True) == expected


def test_a_page_that_covers_nothing_says_nothing(market: Connection) -> None:
    note(market, judged(20, absent=[(0, 20)]))
    note(market, judged(5), since=5)

    assert absences(market) == {"once": [(0, 20)]}


def test_the_same_reason_twice_is_written_once(market: Connection) -> None:
    for noted_at in (ASKED - HOUR, ASKED):
        note(market, judged(20, absent=[(0, 4)]), closed=[(0, 2)], noted_at=noted_at)
    before = market.execute("select *, xmin::text from assetbatch.bar_absences order by reason").fetchall()

    note(market, judged(20, absent=[(0, 4)]), closed=[(0, 2)], noted_at=ASKED + HOUR)

    assert market.execute("select *, xmin::text from assetbatch.bar_absences order by reason").fetchall() == before


def test_what_failed_is_a_hole_again_after_a_day_each_time(market: Connection) -> None:
    now = ASKED
    for _ in range(3):
        note(market, judged(20, invalid=[(3, 5)]), noted_at=now)
        assert holes(market, now=now + timedelta(hours=23)) == [(0, 3), (5, 20)]
        now += timedelta(hours=25)
        assert holes(market, now=now) == [(0, 20)]


def test_what_fails_every_day_puts_off_nothing_else(market: Connection) -> None:
    note(market, judged(20, invalid=[(3, 5)]))
    note(market, judged(20, invalid=[(12, 13)]), since=10, noted_at=ASKED + timedelta(hours=23))

    assert holes(market, 3, 5, now=ASKED + timedelta(hours=25)) == [(3, 5)]


def test_what_a_plan_does_not_show_is_a_hole_for_another_one(market: Connection) -> None:
    def tell(since: int, until: int, told: str) -> None:
        bar_absences.note_not_entitled(market, "BTCUSD", span(since, until), told=told, noted_at=ASKED)

    tell(0, 5, "free key")
    tell(5, 8, "free key")
    assert holes(market) == [(8, 20)]
    assert holes(market, told="starter key") == holes(market, told="free other") == [(0, 20)]

    tell(2, 3, "starter key")
    assert holes(market, told="starter key") == [(0, 2), (3, 20)]
    assert holes(market) == [(0, 20)]


@pytest.mark.parametrize(("since", "until", "months"), [(5, 1, 1), (1, 1, 1), (5, 2, 2)])
def test_what_a_plan_does_not_show_is_noted_in_the_months_it_touches(
    market: Connection, since: int, until: int, months: int
) -> None:
    refused = Span(datetime(2026, 1, since, tzinfo=UTC), datetime(2026, 2, until, tzinfo=UTC))

    bar_absences.note_not_entitled(market, "BTCUSD", refused, told="free key", noted_at=ASKED)

    rows = market.execute("select isempty(ranges) as empty from assetbatch.bar_absences").fetchall()
    assert rows == [{"empty": False}] * months


def test_reasons_of_one_asset_are_no_others(market: Connection) -> None:
    add(market, "ETHUSD")
    note(market, judged(20, absent=[(0, 20)]))
    write(market, finals(bar(3)))

    found = bar_holes.holes(market, "ETHUSD", span(0, 20), now=ASKED, told="")
    assert found == [span(0, 20)]


def test_an_open_bar_below_what_was_asked_for_is_a_hole(market: Connection) -> None:
    write(market, finals(bar(3)))
    write(market, [(bar(4), False)])
    write(market, finals(bar(5)))

    assert holes(market, 3, 6) == [(4, 5)]


def claim(connection: Connection, *, since: int = 0, kept: int | None = None, seconds: float = 60) -> Any:
    return bars.claim(
        connection,
        "BTCUSD",
        wanted_since=at(since),
        kept_since=None if kept is None else at(kept),
        seconds=seconds,
        now=ASKED,
    )


def test_one_run_at_a_time_asks_for_the_bars_of_an_asset(connection: Connection, database: str) -> None:
    market = connection
    add(market, ASSET.symbol)
    first = claim(market)
    with open_database(database) as other:
        assert claim(other) is None
        bars.release(market, first)
        second = claim(other)
        assert second.track.asset == ASSET

    # What the first run brings now is late: it must not end the other's lease.
    bars.release(market, first)
    bars.finish(market, first, bars.Learned(1, asked_until=at(9)))
    bars.fail(market, first, kind=FailureKind.TIMEOUT, error="", first_seconds=60, now=ASKED)
    assert claim(market) is None
    row = market.execute("select asked_until, failures, source_minutes from assetbatch.bar_state").fetchone()
    assert row == {"asked_until": None, "failures": 0, "source_minutes": 5}


def test_the_lease_of_a_run_that_was_killed_runs_out(market: Connection) -> None:
    assert claim(market, seconds=0.2) is not None
    assert claim(market) is None

    assert wait_until(lambda: claim(market))


def test_bars_are_wanted_since_the_earliest_time_that_is_kept(market: Connection) -> None:
    def wanted(since: int, kept: int | None = None) -> int:
        claimed = claim(market, since=since, kept=kept)
        bars.release(market, claimed)
        return int((claimed.track.wanted_since - BEGIN) // LENGTH)

    assert [wanted(5), wanted(9), wanted(2), wanted(9, kept=4), wanted(9)] == [5, 5, 2, 4, 4]


def test_an_asset_that_is_in_no_catalogue_cannot_be_claimed(market: Connection) -> None:
    market.execute("delete from assetbatch.assets")

    assert claim(market) is None


def test_the_newest_bar_below_what_was_asked_for_is_final(market: Connection) -> None:
    write(market, [*finals(bar(0), bar(1)), (bar(2), False)])
    claimed = claim(market)
    assert claimed.track.watermark == at(2)  # of a platform's own bars, the newest

    bars.finish(market, claimed, bars.Learned(5, asked_until=at(2), asked_at=ASKED))

    track = claim(market).track
    assert (track.watermark, track.asked_until, track.minutes) == (at(1), at(2), 5)


def test_an_asset_that_fails_is_put_off_ever_longer(market: Connection) -> None:
    waits = []
    for _ in range(13):
        bars.fail(market, claim(market), kind=FailureKind.TIMEOUT, error="late", first_seconds=60, now=ASKED)
        row = market.execute("select retry_at - %s as wait from assetbatch.bar_state", [ASKED]).fetchone()
        assert row is not None
        waits.append(row["wait"])
    assert waits[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
    assert waits[-1] == DAY

    bars.finish(market, claim(market), bars.Learned(5))
    row = market.execute("select failures, retry_at, error_kind, error from assetbatch.bar_state").fetchone()
    assert row == {"failures": 0, "retry_at": None, "error_kind": None, "error": None}


def due(connection: Connection, **changes: Any) -> list[str]:
    given = {"symbols": None, "now": ASKED, "limit": 10} | changes
    limits = [(1800, market, ASKED - HOUR / 2, ASKED) for market in Market]
    return [symbol for symbol, _ in bars.due(connection, limits, **given)]


def test_priority_assets_come_first_and_then_the_oldest_watermark(market: Connection) -> None:
    market.execute("delete from assetbatch.assets")
    ranks = {"A": 3, "B": 1, "C": 4, "D": 2, "E": 1, "F": 3}
    for symbol, rank in ranks.items():
        role = "priority" if symbol in "DE" else "secondary"
        add(market, symbol, role, rank)
    state = "insert into assetbatch.bar_state (symbol, wanted_since, watermark) values (%s, %s, %s)"
    for symbol, window in (("A", 5), ("B", 6), ("F", 4)):
        market.execute(state, [symbol, at(0), at(window)])

    assert due(market) == ["E", "D", "C", "F", "A", "B"]
    assert due(market, limit=2) == ["E", "D"]
    assert due(market, symbols=["A", "E"]) == ["E", "A"]
    assert bar_holes.next_to_scan(market, types=set(AssetType), scanned_before=ASKED, now=ASKED, limit=9) == {}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("asked_at = %(asked)s - interval '31 minutes'", True),
        ("asked_at = %(asked)s - interval '30 minutes'", False),
        ("asked_until = %(asked)s - interval '5 minutes'", True),
        ("asked_until = %(asked)s", False),
        ("retry_at = %(asked)s", True),
        ("retry_at = %(asked)s + interval '1 second'", False),
        ("leased_until = clock_timestamp() + interval '1 minute'", False),
        ("leased_until = clock_timestamp() - interval '1 second'", True),
    ],
)
def test_whose_bars_are_due(market: Connection, state: str, expected: bool) -> None:
    market.execute("insert into assetbatch.bar_state (symbol, wanted_since) values ('BTCUSD', %s)", [at(0)])
    market.execute(f"update assetbatch.bar_state set {state}", {"asked": ASKED})

    assert (due(market) == ["BTCUSD"]) is expected


@pytest.mark.parametrize("what", ["update assetbatch.assets set enabled = false", "delete from trading.symbols"])
def test_bars_of_what_is_not_there_are_never_due(market: Connection, what: str) -> None:
    market.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, asked_until) values ('BTCUSD', %s, %s)", [at(0), at(9)]
    )
    assert due(market) == ["BTCUSD"]
    assert bar_holes.next_to_scan(market, types=set(AssetType), scanned_before=ASKED, now=ASKED, limit=9) == {
        "BTCUSD": AssetType.CRYPTO
    }

    market.execute(what)

    assert due(market) == []
    assert bar_holes.next_to_scan(market, types=set(AssetType), scanned_before=ASKED, now=ASKED, limit=9) == {}


def test_holes_are_looked_for_where_nobody_has_looked_for_longest(market: Connection) -> None:
    add(market, "A")
    add(market, "B")
    for symbol in ("BTCUSD", "A", "B"):
        market.execute(
            "insert into assetbatch.bar_state (symbol, wanted_since, asked_until) values (%s, %s, %s)",
            [symbol, at(0), at(9)],
        )
    bar_holes.mark_scanned(market, "A", ASKED - HOUR)
    bar_holes.mark_scanned(market, "BTCUSD", ASKED - 2 * HOUR)

    def scan(before: datetime) -> list[str]:
        return list(bar_holes.next_to_scan(market, types=set(AssetType), scanned_before=before, now=ASKED, limit=9))

    assert scan(ASKED) == ["B", "BTCUSD", "A"]
    assert scan(ASKED - HOUR) == ["B", "BTCUSD"]
    assert bars.states(market, ["A", "NONE"]) == {"A": (at(0), at(9))}


def test_a_fetch_of_a_clock_that_was_set_back_since_gives_way(market: Connection) -> None:
    write(market, finals(bar(0, "1")))
    market.execute("update market_data.ohlcv_5m set fetched_at = clock_timestamp() + interval '5 hours'")

    write(market, finals(bar(0, "2")))

    assert closes(market) == {at(0): (Decimal(2), True)}
