"""Who gets onto the queue: due ones, as many as fit, each counted once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from assetbatch import planner
from assetbatch.database import streams
from assetbatch.database.connection import Row
from assetbatch.database.queue import items as queue
from assetbatch.database.queue.items import Ending, State
from assetbatch.failures import FailureKind
from assetbatch.market_hours import market_of
from assetbatch.markets import Market
from assetbatch.model import Asset, AssetType, Enqueued, Failure, Priority, Role
from tests.conftest import open_database, wait_until
from tests.integration.test_queue import KEY, PLAN, STEP, add, claim, claimed, end, enqueue_now, put, row, states
from tests.world import FRIDAYS_CLOSE, MINUTE, PROMPT, SECOND, TUESDAY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.database.connection import Connection

SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC)


def serve(connection: Connection, at: datetime | None, *symbols: str, mapped: bool = True) -> None:
    """Write down when these were last served; `mapped`: the platform has their rows."""
    connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at) select s, %s from unnest(%s::text[]) as s"
        " on conflict (symbol) do update set served_at = excluded.served_at",
        [at, list(symbols)],
    )
    if mapped:
        connection.execute(
            "insert into trading.symbols (symbol) select unnest(%s::text[]) on conflict do nothing", [list(symbols)]
        )


def at(now: datetime) -> Callable[[int, Market], datetime]:
    """Tell who is due at `now` as the job does."""
    return lambda seconds, market: planner.served_before(seconds, market, now, PROMPT)


def due(connection: Connection, now: datetime, **changed: Any) -> Enqueued:
    return enqueue_now(connection, due_or_not=False, served_before=at(now), **changed)


def die(connection: Connection, symbol: str, kind: FailureKind = FailureKind.INVALID) -> None:
    """Make a dead letter of what waits alone."""
    (item,) = claim(connection)
    failure = Failure(symbol, kind, "no good")
    assert end(connection, Ending(item, State.DEAD, spent=True, failure=failure)) == {symbol}


# --- Who is due


@pytest.mark.parametrize(
    ("served_at", "is_due"),
    [
        (None, True),
        (TUESDAY - timedelta(days=30), True),
        (TUESDAY - 15 * MINUTE, True),
        (TUESDAY - 14 * MINUTE, True),
        (TUESDAY, False),
        (TUESDAY + 5 * MINUTE, False),
    ],
)
def test_an_asset_is_due_once_in_each_slot_of_its_frequency(
    connection: Connection, served_at: datetime | None, *, is_due: bool
) -> None:
    add(connection, "A", frequency=900)
    serve(connection, served_at, "A")
    now = TUESDAY + timedelta(minutes=14, seconds=30)

    assert due(connection, now) == Enqueued(enqueued=is_due, fresh=not is_due)


@pytest.mark.parametrize(
    ("symbol", "ticker", "asset_type", "served_at", "is_due"),
    [
        ("EURUSD", "C:EURUSD", "forex", FRIDAYS_CLOSE + SECOND, False),
        ("EURUSD", "C:EURUSD", "forex", FRIDAYS_CLOSE - SECOND, True),
        ("XAGUSD", "C:XAGUSD", "forex", FRIDAYS_CLOSE + SECOND, False),
        ("BTCUSD", "X:BTCUSD", "crypto", FRIDAYS_CLOSE + SECOND, True),
    ],
)
def test_an_asset_whose_market_rests_is_due_only_until_a_run_after_its_close(
    connection: Connection, symbol: str, ticker: str, asset_type: str, served_at: datetime, *, is_due: bool
) -> None:
    add(connection, symbol, tickers=[ticker], asset_type=asset_type)
    serve(connection, served_at, symbol)

    assert due(connection, SATURDAY) == Enqueued(enqueued=is_due, fresh=not is_due)


TICKERS = [
    *("C:XAUUSD", "C:XAGEUR", "C:XPTUSD", "C:XPDUSD", "C:XAU", "C:XAUXAG", "C:XA", "C:X", "C:XAXUSD", "C:EURXAU"),
    *("C:EURUSD", "C:UXAUSD", "C:XXAUUSD", "C:0XAU", "C:XPFUSD", "X:XAUTUSD", "X:XAU", "X:X", "X:BTCUSD", "X:CXAUUSD"),
]


# Shrinking takes longer than it helps: the tickers that fail are listed anyway.
@settings(max_examples=25, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(more=st.sets(st.from_regex(r"[CX]:(XAU|XAG|XPT|XPD|X|A|U){0,12}[A-Z0-9]{1,6}", fullmatch=True), max_size=30))
def test_sql_and_market_hours_agree_on_each_assets_market(connection: Connection, more: set[str]) -> None:
    types = {"C": AssetType.FOREX, "X": AssetType.CRYPTO}
    assets = [Asset(t, t, types[t[0]], Role.SECONDARY, 3, 1800) for t in {*TICKERS, *more}]
    with connection.transaction(force_rollback=True):
        for asset_type in AssetType:
            add(connection, *(a.symbol for a in assets if a.asset_type is asset_type), asset_type=asset_type.value)
        connection.execute("update assetbatch.assets set polygon_ticker = symbol")
        serve(connection, TUESDAY, *(asset.symbol for asset in assets))
        for market in Market:

            def only_this_one(_seconds: int, other: Market, market: Market = market) -> datetime:
                return TUESDAY + SECOND if other is market else TUESDAY

            enqueue_now(connection, due_or_not=False, served_before=only_this_one)

            assert {*states(connection)} == {a.symbol for a in assets if market_of(a) is market}
            connection.execute("delete from assetbatch.queue")


# --- Which assets are looked at


def test_named_symbols_that_are_no_enabled_secondary_assets_are_unmapped(connection: Connection) -> None:
    add(connection, "A", "B")
    add(connection, "OFF", enabled=False)
    add(connection, "GOLD", role="priority", rank=1)
    add(connection, "ADDED", origin="symbols")

    named = ["A", "A", "NONE", "NONE", "OFF", "GOLD", "ADDED"]
    assert enqueue_now(connection, named, origins=["config"]) == Enqueued(enqueued=1, unmapped=4)
    assert states(connection) == {"A": "queued"}
    assert enqueue_now(connection, []) == Enqueued()


# --- One row a symbol


@pytest.mark.parametrize("state", list(State))
def test_a_symbol_that_is_there_is_counted_and_left_as_it_is(connection: Connection, state: State) -> None:
    put(connection, "A", priority=Priority.LOW)
    if state is not State.QUEUED:
        (item,) = claim(connection)
        if state is not State.LEASED:
            end(connection, Ending(item, state, spent=True, delay_seconds=60.0))
    connection.execute("update assetbatch.queue set error_kind = 'invalid'")
    before = row(connection, "A")
    add(connection, "A", rank=Priority.CRITICAL)

    counts = enqueue_now(connection)

    assert counts == (Enqueued(dead=1) if state is State.DEAD else Enqueued(already_queued=1))
    assert row(connection, "A") == before


@pytest.mark.parametrize(
    ("plan", "key", "comes_back"),
    [
        (PLAN, KEY, False),
        ("advanced", KEY, True),
        (PLAN, "other", True),
        ("advanced", "other", True),
        (PLAN, None, False),
        ("advanced", None, True),
    ],
)
def test_what_was_not_entitled_comes_back_under_another_plan_or_key_and_only_then(
    connection: Connection, plan: str, key: str | None, *, comes_back: bool
) -> None:
    put(connection, "A", priority=Priority.LOW)
    connection.execute("update assetbatch.queue set attempts = 2, largest_call = 3")
    die(connection, "A", FailureKind.NOT_ENTITLED)
    put(connection, "B")
    add(connection, "A", rank=Priority.HIGH)

    counts = enqueue_now(connection, ["A"], plan=plan, key=key)

    assert counts == (Enqueued(enqueued=1) if comes_back else Enqueued(dead=1))
    found = row(connection, "A")
    if comes_back:
        assert (found["state"], found["priority"], found["attempts"], found["largest_call"]) == ("queued", 2, 0, None)
        assert (found["died_at"], found["died_on_plan"], found["died_with_key"]) == (None, None, None)
        assert found["rank"] - found["waiting_since"] == timedelta(seconds=STEP)
        assert found["id"] > row(connection, "B")["id"]
    else:
        assert (found["state"], found["attempts"]) == ("dead", 3)


# --- When not all fit


def test_the_most_overdue_go_in_and_what_was_dropped_comes_first_next_time(connection: Connection) -> None:
    """An hourly asset that was served 65 minutes ago has been due for less than one of 5 minutes, served 12 ago."""
    now = TUESDAY + 70 * MINUTE
    add(connection, "NEVER")
    add(connection, "HOURLY", frequency=3600)
    add(connection, "QUICK", "QUICKER", "QUICKEST", frequency=300)
    serve(connection, now - 65 * MINUTE, "HOURLY")
    serve(connection, now - 12 * MINUTE, "QUICK")
    serve(connection, now - 11 * MINUTE, "QUICKER")
    serve(connection, now - 6 * MINUTE, "QUICKEST")

    served = []
    for _ in range(6):
        due(connection, now, max_size=1)
        (item,) = claim(connection)
        served.append(item.asset.symbol)
        serve(connection, now, *served[-1:])
        queue.complete(connection, [item])
        now += SECOND
        if len(served) == 5:
            assert due(connection, now, max_size=1) == Enqueued(fresh=5)
            now += 5 * MINUTE

    assert served[:5] == ["NEVER", "QUICK", "QUICKER", "HOURLY", "QUICKEST"]
    assert served[5] == "QUICK"


@pytest.mark.parametrize("same", [True, False])
def test_the_largest_size_is_exact_with_16_enqueuers_at_once(
    database: str, connection: Connection, *, same: bool
) -> None:
    lists = [[f"S{0 if same else number}-{n:02}" for n in range(40)] for number in range(16)]
    add(connection, *sorted({symbol for symbols in lists for symbol in symbols}))

    def work(symbols: Sequence[str]) -> Enqueued:
        with open_database(database) as own:
            return enqueue_now(own, symbols, max_size=30)

    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(work, lists))

    assert sum(one.enqueued for one in counts) == queue.size(connection) == 30
    assert all(sum(asdict(one).values()) == 40 for one in counts)


def test_the_largest_size_is_never_passed_while_others_take_items_off(database: str, connection: Connection) -> None:
    symbols = [f"S{number:03}" for number in range(100)]
    add(connection, *symbols)
    over = Event()

    def fill(_number: int) -> int:
        with open_database(database) as own:
            return sum(enqueue_now(own, symbols, max_size=10).enqueued for _ in range(40))

    def drain() -> int:
        done = 0
        with open_database(database) as own:
            while not over.is_set():
                done += len(queue.complete(own, claim(own, 3)))
        return done

    def watch() -> int:
        with open_database(database) as own:
            largest = 0
            while not over.is_set():
                largest = max(largest, queue.size(own))
        return largest

    with ThreadPoolExecutor(6) as threads:
        drained, watched = threads.submit(drain), threads.submit(watch)
        try:
            filled = sum(threads.map(fill, range(4)))
        finally:
            over.set()

    assert watched.result() == 10
    assert filled == drained.result() + queue.size(connection)


def test_a_changed_worth_of_aging_and_a_run_that_ends_its_items_do_not_spoil_each_other(
    database: str, connection: Connection
) -> None:
    """Who puts the queue in order waits for an item that has just ended, while the run ends one that is in order."""
    put(connection, "A", "B")
    first, second = claim(connection)
    waits = "select exists (select from pg_locks where not granted) as waits"

    def reorder() -> Enqueued:
        with open_database(database) as own:
            return enqueue_now(own, [], step_seconds=2 * STEP)

    with open_database(database) as watching, ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            assert queue.complete(connection, [second]) == {"B"}
            other = threads.submit(reorder)
            wait_until(lambda: other.done() or watching.execute(waits).fetchone() == {"waits": True})
            assert end(connection, Ending(first, State.QUEUED)) == {"A"}
        assert other.result() == Enqueued()

    # Perhaps it was under way just then: it gets its place when it waits again.
    enqueue_now(connection, [], step_seconds=2 * STEP)
    found = row(connection, "A")
    assert found["rank"] - found["waiting_since"] == timedelta(seconds=4 * STEP)


# --- Counts


WAITS = {"queued", "leased", "delayed"}


@dataclass(frozen=True)
class Drawn:
    """An asset, and what is known of it."""

    enabled: bool
    role: str
    origin: str
    served_minutes_ago: int | None
    mapped: bool
    state: str | None

    def make(self, connection: Connection, symbol: str) -> None:
        add(connection, symbol)
        if self.state is not None:
            enqueue_now(connection, [symbol])
        if self.state not in {None, "queued"}:
            (item,) = (item for item in claim(connection, alone=True) if item.asset.symbol == symbol)
            kind = FailureKind.NOT_ENTITLED if self.state == "not_entitled" else FailureKind.INVALID
            state = State.DELAYED if self.state == "delayed" else State.DEAD
            if self.state != "leased":
                end(connection, Ending(item, state, spent=True, delay_seconds=60.0, failure=Failure(symbol, kind, "")))
        if self.served_minutes_ago is not None:
            serve(connection, TUESDAY - self.served_minutes_ago * MINUTE, symbol, mapped=self.mapped)
        connection.execute(
            "update assetbatch.assets set enabled = %s, role = %s, origin = %s where symbol = %s",
            [self.enabled, self.role, self.origin, symbol],
        )

    def count(self, origins: list[str] | None, plan: str, *, due_or_not: bool, room: bool) -> str:
        """Tell as what it counts; "" when it is not looked at."""
        served = self.served_minutes_ago is not None
        fresh = served and self.served_minutes_ago <= 30 and not due_or_not  # type: ignore[operator]
        rules = {
            "": not self.enabled or self.role != "secondary" or self.origin not in (origins or [self.origin]),
            "already_queued": self.state in WAITS,
            "dead": self.state == "dead" or (self.state == "not_entitled" and plan == PLAN),
            "unmapped": served and not self.mapped,
            "fresh": fresh,
            "enqueued": room,
        }
        return next((name for name, holds in rules.items() if holds), "dropped")


DRAWN = st.builds(
    Drawn,
    enabled=st.sampled_from([True, True, True, False]),
    role=st.sampled_from(["secondary", "secondary", "secondary", "priority"]),
    origin=st.sampled_from(["config", "symbols"]),
    served_minutes_ago=st.none() | st.integers(0, 60),
    mapped=st.sampled_from([True, True, False]),
    state=st.sampled_from([None, None, None, "queued", "leased", "delayed", "dead", "not_entitled"]),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    drawn=st.lists(DRAWN, max_size=12),
    origins=st.sampled_from([None, ["config"]]),
    named=st.none() | st.sets(st.integers(0, 15)),
    due_or_not=st.booleans(),
    plan=st.sampled_from([PLAN, "advanced"]),
    max_size=st.integers(1, 12),
)
def test_each_asset_counts_once_and_as_what_it_is(
    connection: Connection,
    drawn: list[Drawn],
    origins: list[str] | None,
    named: set[int] | None,
    due_or_not: bool,
    plan: str,
    max_size: int,
) -> None:
    """Those that are named and not looked at are unmapped; the plan was PLAN when the dead letters died."""
    with connection.transaction(force_rollback=True):
        for number, one in enumerate(drawn):
            one.make(connection, f"S{number}")
        expected = dict.fromkeys(["", *asdict(Enqueued())], 0)
        size = queue.size(connection)
        for number, one in enumerate(drawn):
            if named is None or number in named:
                room = size + expected["enqueued"] < max_size
                expected[one.count(origins, plan, due_or_not=due_or_not, room=room)] += 1
        not_looked_at = expected.pop("")
        if named is not None:
            expected["unmapped"] += not_looked_at + sum(number >= len(drawn) for number in named)

        found = enqueue_now(
            connection,
            None if named is None else [f"S{number}" for number in named],
            origins=origins,
            due_or_not=due_or_not,
            served_before=lambda _seconds, _market: TUESDAY - 30 * MINUTE,
            plan=plan,
            max_size=max_size,
        )

        assert asdict(found) == expected


def test_what_is_streamed_is_not_due_at_the_end_of_its_slot_either(connection: Connection) -> None:
    """A start just before a slot counts for that: what a stream serves until now has not been served in it yet."""
    add(connection, "A", "B")
    serve(connection, TUESDAY, "A", "B")
    connection.ask(
        streams.tell(streams.Report("crypto", "live", is_alive=True), run_id=1, alive_seconds=20),
        streams.keep_fresh("crypto", ["A"]),
    )

    counts = enqueue_now(connection, due_or_not=False, served_before=lambda *_: datetime.now(UTC) + MINUTE)

    assert (states(connection), counts.fresh) == ({"B": "queued"}, 1)


def test_an_asset_whose_frequency_is_changed_meanwhile_is_counted_too(database: str, connection: Connection) -> None:
    add(connection, "A", "B")
    serve(connection, TUESDAY, "A", "B")

    def served_before(seconds: int, market: Market) -> datetime:
        with open_database(database) as own:
            own.execute("update assetbatch.assets set update_frequency_seconds = 77 where symbol = 'A'")
        return planner.served_before(seconds, market, TUESDAY + 60 * MINUTE, PROMPT)

    counts = enqueue_now(connection, due_or_not=False, served_before=served_before)

    assert sum(asdict(counts).values()) == 2


def test_a_hundred_thousand_assets_take_as_few_statements_as_one(connection: Connection) -> None:
    class Counting(psycopg.Cursor[Row]):
        statements = 0

        def execute(self, *arguments: Any, **options: Any) -> Any:
            Counting.statements += 1
            return super().execute(*arguments, **options)

    add(connection, "ONE")
    connection.plain.cursor_factory = Counting
    assert enqueue_now(connection) == Enqueued(enqueued=1)
    of_one, Counting.statements = Counting.statements, 0
    connection.plain.cursor_factory = psycopg.Cursor
    add(connection, *(f"S{number:06}" for number in range(100_000)))
    connection.plain.cursor_factory = Counting
    assert enqueue_now(connection) == Enqueued(enqueued=100_000, already_queued=1)

    assert of_one == Counting.statements > 0
    connection.plain.cursor_factory = psycopg.Cursor
    assert claimed(connection, 3) == ["ONE", "S000000", "S000001"]
