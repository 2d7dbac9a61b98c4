"""Cursors: what has changed since an export is told once, and nothing is missed, whatever was under way."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from decimal import Decimal
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.range import Range

from assetbatch.arrow import CURSOR_KEY, bars_table
from assetbatch.bar_series import BarSeries
from assetbatch.bars import LENGTH
from assetbatch.database import retention, symbols
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars import pages
from assetbatch.database.bars import state as bars
from assetbatch.database.setup import restore
from assetbatch.errors import CursorError, UnfitNumberError
from assetbatch.jobs.storing import write_with_records
from assetbatch.model import Asset, AssetType, Bar, Role
from tests.conftest import open_database, wait_until
from tests.world import RULES, TUESDAY, add_assets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.synchronize import Event

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

SYMBOLS = ("BTCUSD", "ETHUSD", "ethUSD")
ADD_SYMBOL = "insert into trading.symbols (symbol, metadata) values (%s, '{}')"
READ_TABLE = "select s.symbol, b.* from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"

Told = dict[tuple[str, datetime], Decimal]


def asset(symbol: str) -> Asset:
    return Asset(symbol, f"X:{symbol}", AssetType.CRYPTO, Role.SECONDARY, 3, 1800)


def at(window: int) -> datetime:
    return TUESDAY + window * LENGTH


def bar(window: int, price: Decimal | str | int = "1.5") -> Bar:
    one = Decimal(price)
    return Bar(at(window), one, one, one, one, volume=Decimal("12.5"), vwap=None, trades=7)


def write(
    connection: Connection, symbol: str, page: Sequence[Bar], *, until: int | None = None, carefully: bool = False
) -> None:
    """Store a page as the jobs do, in the caller's transaction, or one of its own; final are bars before `until`."""
    final_until = page[-1].ts + LENGTH if until is None else at(until)
    now = connection.execute("select clock_timestamp() as now").fetchone()
    assert now is not None
    with connection.transaction():
        stored = pages.write(
            connection,
            asset(symbol),
            BarSeries.of(page),
            final_until=final_until,
            is_new=False,
            has_finality=bar_holes.has_finality(connection),
            asked_at=now["now"],
            fetched_at=now["now"],
            carefully=carefully,
        )
    assert stored is not None
    assert not stored.refused


def settle(connection: Connection, symbol: str, page: Sequence[Bar], *, until: int) -> None:
    """Store a page of the newest bars with the end of its lease, as the jobs do."""
    claimed = bars.claim(connection, symbol, wanted_since=at(0), kept_since=None, seconds=60, now=at(999))
    assert claimed is not None
    with connection.transaction():
        write(connection, symbol, page, until=until)
        learned = bars.Learned(5, asked_since=at(0), asked_until=at(until), asked_at=at(999))
        bars.finish(connection, claimed, learned, has_finality=bar_holes.has_finality(connection))


def export(database: str, cursor: str | None = None, **options: Any) -> tuple[list[dict[str, Any]], str]:
    table = bars_table(options.pop("symbols", None), database=database, changed_since=cursor, **options)
    return table.to_pylist(), table.schema.metadata[CURSOR_KEY].decode()


def told(database: str, cursor: str, **options: Any) -> tuple[list[tuple[str, datetime, str]], str]:
    rows, cursor = export(database, cursor, **options)
    return [(row["symbol"], row["ts"], f"{row['close'].normalize():f}") for row in rows], cursor


@pytest.fixture
def stored(connection: Connection) -> Connection:
    """A database with three symbols, two of which differ by case alone."""
    add_assets(connection, *(f"X:{symbol}" for symbol in SYMBOLS))
    for symbol in SYMBOLS:
        connection.execute(ADD_SYMBOL, [symbol])
    return connection


@pytest.fixture
def bare(stored: Connection) -> Connection:
    """The same with a platform's own table, that does not tell which bars are final."""
    stored.execute("alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at")
    return stored


def test_exactly_what_has_changed_is_told_once_as_it_is_now(stored: Connection, database: str) -> None:
    write(stored, "BTCUSD", [bar(n) for n in range(10)])
    write(stored, "ETHUSD", [bar(n) for n in range(3)])
    _, cursor = export(database)
    assert told(database, cursor)[0] == []

    write(stored, "BTCUSD", [bar(n, "2.5" if n in (3, 4, 7) else "1.5") for n in range(12)])
    write(stored, "BTCUSD", [bar(4, "3.5")])
    write(stored, "ethUSD", [bar(1)])

    changes, later = told(database, cursor)
    assert changes == [
        *(("BTCUSD", at(n), close) for n, close in ((3, "2.5"), (4, "3.5"), (7, "2.5"), (10, "1.5"), (11, "1.5"))),
        ("ethUSD", at(1), "1.5"),
    ]
    assert told(database, later)[0] == []
    # The same question has the same answer, and filters hold.
    assert told(database, cursor)[0] == changes
    assert [ts for _, ts, _ in told(database, cursor, symbols="BTCUSD", since=at(4), until=at(11))[0]] == [
        at(4),
        at(7),
        at(10),
    ]
    assert stored.execute("select symbol, bars, span from assetbatch.bar_changes order by id").fetchall()[2] == {
        "symbol": "BTCUSD",
        "bars": 5,
        "span": Range(at(3), at(12), "[)"),
    }


def test_bars_are_told_once_they_are_final(stored: Connection, database: str) -> None:
    _, cursor = export(database)
    write(stored, "BTCUSD", [bar(0), bar(1)], until=1)
    changes, cursor = told(database, cursor)
    assert [ts for _, ts, _ in changes] == [at(0)]
    stored.ask(pages.upserting([("BTCUSD", BarSeries.of([bar(1, "9")]))], has_finality=True, now=at(999)))
    assert told(database, cursor, with_open=True)[0] == []

    # With the same figures.
    write(stored, "BTCUSD", [bar(1, "9")])
    assert told(database, cursor)[0] == [("BTCUSD", at(1), "9")]


def test_what_was_written_late_and_committed_later_is_told_where_times_miss_it(
    stored: Connection, database: str
) -> None:
    newest = "select coalesce(max(fetched_at), '-infinity')::text as at from market_data.ohlcv_5m where is_final"
    by_time = READ_TABLE + " where b.is_final and b.fetched_at > %s::timestamptz"
    _, cursor = export(database)
    with open_database(database) as late, late.transaction():
        write(late, "BTCUSD", [bar(0)])
        write(stored, "ETHUSD", [bar(0)])
        changes, cursor = told(database, cursor)
        assert [symbol for symbol, _, _ in changes] == ["ETHUSD"]
        last = stored.execute(newest).fetchone()
    assert last is not None
    assert stored.execute(by_time, [last["at"]]).fetchall() == []
    assert told(database, cursor)[0] == [("BTCUSD", at(0), "1.5")]


def test_parts_that_were_stored_apart_count_by_their_whole_transaction(stored: Connection, database: str) -> None:
    stored.execute("alter table market_data.ohlcv_5m add constraint small check (close < 100)")
    _, cursor = export(database)
    with open_database(database) as late, late.transaction():
        page = [bar(n, 1000 if n == 5 else 1) for n in range(20)]
        with late.transaction():
            found = pages.write(
                late,
                asset("BTCUSD"),
                BarSeries.of(page),
                final_until=at(20),
                is_new=False,
                has_finality=True,
                asked_at=at(999),
                fetched_at=at(999),
                carefully=True,
            )
        assert found is not None
        assert (found.written, len(found.refused)) == (19, 1)
        changes, cursor = told(database, cursor)
        assert changes == []
    changes, cursor = told(database, cursor)
    assert [ts for _, ts, _ in changes] == [at(n) for n in range(20) if n != 5]
    assert told(database, cursor)[0] == []


def test_what_was_rolled_back_is_not_told(stored: Connection, database: str) -> None:
    _, cursor = export(database)
    with stored.transaction(force_rollback=True):
        write(stored, "BTCUSD", [bar(0)])
    assert told(database, cursor)[0] == []


def test_on_a_table_without_finality_bars_are_told_when_they_settle(bare: Connection, database: str) -> None:
    settle(bare, "BTCUSD", [bar(0), bar(1)], until=2)
    rows, cursor = export(database)
    assert [(row["ts"], row["is_final"], row["fetched_at"]) for row in rows] == [
        (at(0), True, None),
        (at(1), True, None),
    ]
    open_bars = BarSeries.of([bar(2), bar(3), bar(4)])
    bare.ask(pages.upserting([("BTCUSD", open_bars)], has_finality=False, now=at(999)))
    assert told(database, cursor)[0] == []
    assert [(row["ts"], row["is_final"]) for row in export(database, with_open=True)[0]][2:] == [
        (at(2), False),
        (at(3), False),
        (at(4), False),
    ]

    # One as it was, one with other figures, one that is open still.
    settle(bare, "BTCUSD", [bar(2), bar(3, "7")], until=4)

    changes, cursor = told(database, cursor)
    assert changes == [("BTCUSD", at(2), "1.5"), ("BTCUSD", at(3), "7")]
    assert [row["ts"] for row in export(database)[0]] == [at(n) for n in range(4)]
    settle(bare, "BTCUSD", [bar(4)], until=5)
    changes, cursor = told(database, cursor)
    assert changes == [("BTCUSD", at(4), "1.5")]
    # A correction of the vendor.
    write(bare, "BTCUSD", [bar(1, "8")])
    changes, cursor = told(database, cursor)
    assert changes == [("BTCUSD", at(1), "8")]
    # One that is open when its asset is removed stays as it is.
    settle(bare, "BTCUSD", [bar(4), bar(5)], until=5)
    assert told(database, cursor)[0] == []
    symbols.remove(bare, ["BTCUSD"])
    assert told(database, cursor)[0] == [("BTCUSD", at(5), "1.5")]
    assert [row["ts"] for row in export(database)[0]] == [at(n) for n in range(6)]


def test_a_cursor_of_before_what_was_forgotten_is_refused(stored: Connection, database: str) -> None:
    _, oldest = export(database)
    write(stored, "BTCUSD", [bar(0)])
    with open_database(database) as late, late.transaction():
        # Under way at the cursor, and older than what is seen.
        write(late, "ETHUSD", [bar(0)])
        write(stored, "BTCUSD", [bar(1)])
        _, beside = export(database)
    _, newest = export(database)
    write(stored, "BTCUSD", [bar(2)])
    stored.execute("update assetbatch.bar_changes set changed_at = changed_at - interval '31 days' where bars = 1")
    stored.execute(
        "update assetbatch.bar_changes set changed_at = now() where id = (select max(id) from assetbatch.bar_changes)"
    )
    assert retention.prune(stored, retention.turn(stored), days=30, bar_changes_days=30, budget_seconds=60) == 3

    for cursor in (oldest, beside):
        with pytest.raises(CursorError, match="too old"):
            told(database, cursor)
    assert [ts for _, ts, _ in told(database, newest)[0]] == [at(2)]


def test_after_a_restore_cursors_of_before_are_refused(stored: Connection, database: str) -> None:
    _, cursor = export(database)
    restore.mend(stored, key="key", rules=RULES, max_age_minutes=60)
    with pytest.raises(CursorError, match="before a backup was restored"):
        told(database, cursor)
    _, cursor = export(database)
    write(stored, "BTCUSD", [bar(0)])
    assert len(told(database, cursor)[0]) == 1


def test_a_copy_from_a_dump_refuses_the_cursor_and_has_none_of_its_changes(
    stored: Connection, database: str, empty_database: str, postgres: EmbeddedServer
) -> None:
    write(stored, "BTCUSD", [bar(0)])
    _, before = export(database)
    write(stored, "BTCUSD", [bar(1)])
    from assetbatch.database.embedded.programs import find_client

    dumped = subprocess.run([find_client("pg_dump"), database], capture_output=True, text=True, check=True)
    subprocess.run(
        [find_client("psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", empty_database],
        input=dumped.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    with pytest.raises(CursorError, match="another database"):
        told(empty_database, before)
    _, cursor = export(empty_database)
    assert told(empty_database, cursor)[0] == []
    with open_database(empty_database) as copy:
        # As if the numbers of transactions began anew there.
        copy.execute("update assetbatch.bar_changes set xid = '123456789' where made_in <> 0")
        assert told(empty_database, cursor)[0] == []
        write(copy, "BTCUSD", [bar(2)])
    assert [ts for _, ts, _ in told(empty_database, cursor)[0]] == [at(2)]


@pytest.mark.parametrize("text", ["", "x", "npAyD1siNzcxMzI3NzkwNjIxMzczNjIwOC8", "é", "A" * 5000])
def test_what_is_no_cursor_is_refused(database: str, text: str) -> None:
    with pytest.raises(CursorError, match="no cursor"):
        told(database, text)


# --- writers all the time ---

MANY = ("BTCUSD", "ETHUSD", "ethUSD", "S1", "S2", "S3")
WINDOWS = 400


def keep_storing(database: str, number: int, ends: Event) -> None:
    """Store pages all the time, each with other prices for some bars, some parts apart, some committed late."""
    chance = random.Random(number)
    price = number
    with open_database(database) as connection:
        while not ends.is_set():
            begin, length = chance.randrange(WINDOWS), chance.randrange(1, 60)
            page = []
            for window in range(begin, begin + length):
                # A price that no bar had before.
                price += 4
                page.append(bar(window, price) if chance.random() < 0.7 else bar(window))
            store(connection, chance.choice(MANY), page, chance)


def store(connection: Connection, symbol: str, page: Sequence[Bar], chance: random.Random) -> None:
    """Store a page in a transaction of its own, as a run does: what gets in its way repeats it, with care."""
    in_parts, pause = chance.random() < 0.3, max(0.0, chance.random() - 0.7)

    def work(*, carefully: bool) -> None:
        write(connection, symbol, page, carefully=carefully or in_parts)
        time.sleep(pause)

    write_with_records(connection, work, [])


@contextmanager
def writers(database: str, count: int) -> Iterator[None]:
    spawn = get_context("spawn")
    ends = spawn.Event()
    processes = [spawn.Process(target=keep_storing, args=(database, number, ends)) for number in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        ends.set()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * count


class Reader:
    """Follows the table by a cursor, and beside it by the time at which bars were fetched."""

    def __init__(self, database: str, connection: Connection) -> None:
        self._database, self._connection = database, connection
        self._cursor: str | None = None
        self._last: datetime | None = None
        self.by_cursor: dict[tuple[str, datetime], dict[str, Any]] = {}
        self.by_time: dict[tuple[str, datetime], dict[str, Any]] = {}
        self.changes = 0

    def read(self) -> None:
        rows, self._cursor = export(self._database, self._cursor)
        keys = [(row["symbol"], row["ts"]) for row in rows]
        assert keys == sorted(set(keys))
        for key, row in zip(keys, rows, strict=True):
            # Each time a bar is written it has a price that it never had before: else it was told twice.
            assert self.by_cursor.get(key) != row, f"told twice: {row}"
            self.by_cursor[key] = row
        self.changes += len(rows)
        since = self._connection.execute(
            READ_TABLE + " where b.is_final and b.fetched_at > coalesce(%s, '-infinity'::timestamptz)", [self._last]
        )
        for row in since:
            self.by_time[row["symbol"], row["ts"]] = row
            self._last = row["fetched_at"] if self._last is None else max(self._last, row["fetched_at"])


@pytest.mark.parametrize("seconds", [8, pytest.param(120, marks=pytest.mark.slow)])
def test_a_reader_beside_four_writers_misses_nothing_and_is_told_nothing_twice(
    database: str, connection: Connection, seconds: float
) -> None:
    for symbol in MANY:
        connection.execute(ADD_SYMBOL, [symbol])
    reader = Reader(database, connection)
    with writers(database, 4), ExitStack() as stack:
        reader.read()
        wait_until(lambda: connection.execute("select from assetbatch.bar_changes").rowcount > 10, seconds=60)
        end = time.monotonic() + seconds
        late = stack.enter_context(open_database(database))
        held = stack.enter_context(ExitStack())
        held.enter_context(late.transaction())
        late.execute(ADD_SYMBOL, ["LATE"])
        write(late, "LATE", [bar(n, 10**9 + n) for n in range(5)])
        rounds = 0
        while time.monotonic() < end:
            reader.read()
            rounds += 1
            if rounds == 5:
                held.close()
            time.sleep(0.05)
        held.close()
    reader.read()

    there = {
        (row["symbol"], row["ts"]): (row["close"], row["trades"], row["fetched_at"])
        for row in connection.execute(READ_TABLE + " where b.is_final")
    }
    found = {key: (row["close"], row["trades"], row["fetched_at"]) for key, row in reader.by_cursor.items()}
    assert found == there
    assert reader.changes > len(there)
    missed = {key for key, (close, *_) in there.items() if (reader.by_time.get(key) or {}).get("close") != close}
    assert {("LATE", at(n)) for n in range(5)} <= missed
    sys.stdout.write(
        f"{rounds} rounds, {reader.changes} changes of {len(there)} bars; by fetched_at {len(missed)} are missed\n"
    )


def test_deleted_bars_are_not_told(stored: Connection, database: str) -> None:
    write(stored, "BTCUSD", [bar(0), bar(1)])
    _, cursor = export(database)
    write(stored, "BTCUSD", [bar(2)])
    stored.execute("delete from market_data.ohlcv_5m where ts >= %s", [at(1)])
    assert told(database, cursor)[0] == []


def export_with(connection: Connection, column: str, number: str, database: str) -> None:
    """Export with another number in a bar, and take it back."""
    change = f"update market_data.ohlcv_5m set {column} = %s::numeric where ts = %s"
    connection.execute(change, [number, at(1)])
    try:
        export(database)
    finally:
        connection.execute(change, ["1", at(1)])


def test_numbers_keep_every_digit(stored: Connection, database: str) -> None:
    numbers = ("1E-18", "12345678901234567890.123456789012345678", "0", "99999999999999999999", "1.50")
    page = [bar(n, number) for n, number in enumerate(numbers)]
    write(stored, "BTCUSD", page)
    stored.execute("update market_data.ohlcv_5m set high = high + 0.00000000000000000000000000000000000000000")
    rows, _ = export(database)
    assert [row["close"] for row in rows] == [Decimal(number) for number in numbers]
    assert [row["high"] for row in rows] == [Decimal(number) for number in numbers]
    assert {row["vwap"] for row in rows} == {None}

    with pytest.raises(
        UnfitNumberError, match=r"BTCUSD 2026-11-17 12:05:00\+00: low 100000000000000000000 does not fit"
    ):
        export_with(stored, "low", "100000000000000000000", database)
    with pytest.raises(UnfitNumberError, match=r"volume 0\.0000000000000000001 does not fit"):
        export_with(stored, "volume", "0.0000000000000000001", database)
    with pytest.raises(UnfitNumberError, match="vwap NaN does not fit"):
        export_with(stored, "vwap", "NaN", database)
