"""The queue's items and their life: order, claims, endings, and what killed workers leave behind."""

from __future__ import annotations

import logging
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from assetbatch import planner
from assetbatch.database import catalogue
from assetbatch.database.queue import items as queue
from assetbatch.database.queue.enqueue import enqueue
from assetbatch.database.queue.items import BroughtBack, Ending, Item, State
from assetbatch.errors import EXIT_BUG
from assetbatch.failures import FailureKind
from assetbatch.model import Asset, AssetType, Failure, Priority, Role
from tests.conftest import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.database.connection import Connection, Row
    from assetbatch.model import Enqueued

PLAN, KEY = "starter", "key"
STEP = 1800.0
STRICT = 100 * 365.25 * 86400
LEASE = 120.0
RETRIES = 3

ADD_ASSETS = """
insert into assetbatch.assets
  (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, enabled, origin)
select symbol, ticker, %(asset_type)s, %(role)s, %(rank)s, %(frequency)s, %(enabled)s, %(origin)s
from unnest(%(symbols)s::text[], %(tickers)s::text[]) as v (symbol, ticker)
on conflict (symbol) do update set rank = excluded.rank
"""

# Not `claimed_at`: it is compared with the start of the server, which no test can shift.
PASS_TIME = """
update assetbatch.queue
set waiting_since = waiting_since - s, rank = rank - s, enqueued_at = enqueued_at - s, available_at = available_at - s,
    leased_until = leased_until - s, died_at = died_at - s
from make_interval(secs => %(seconds)s) as s
"""


# Never waits, so that it takes part in no deadlock.
LOSE_SOME = """
with lost as materialized (
  select symbol from assetbatch.queue where state = 'leased' and random() < 0.2 for update skip locked
)
update assetbatch.queue q set leased_until = statement_timestamp() from lost where q.symbol = lost.symbol
"""


def add(connection: Connection, *symbols: str, tickers: Sequence[str] | None = None, **changed: object) -> None:
    """Put assets into the catalogue."""
    columns = {"asset_type": "crypto", "role": "secondary", "rank": 3, "frequency": 1800, "enabled": True}
    chosen = {"symbols": list(symbols), "tickers": list(tickers or (f"X:{symbol}" for symbol in symbols))}
    connection.execute(ADD_ASSETS, columns | {"origin": "config"} | chosen | changed)


def enqueue_now(connection: Connection, symbols: Sequence[str] | None = None, **changed: Any) -> Enqueued:
    """Put assets of the catalogue on the queue, due or not."""

    arguments: dict[str, Any] = {"origins": None, "symbols": symbols, "due_or_not": True, "max_size": 1_000_000}
    arguments |= {"days": {}}
    arguments |= {"step_seconds": STEP, "plan": PLAN, "key": KEY}
    arguments |= {"frequencies": connection.answer(catalogue.frequencies())} | changed
    served_before = arguments.pop("served_before", lambda _seconds, _market: planner.EPOCH)
    return enqueue(connection, served_before, **arguments)


def put(connection: Connection, *symbols: str, priority: Priority = Priority.MEDIUM, step: float = STEP) -> None:
    """Make assets, and put them on the queue."""
    add(connection, *symbols, rank=priority)
    assert enqueue_now(connection, symbols, step_seconds=step).enqueued == len(symbols)


def pass_time(connection: Connection, seconds: float) -> None:
    """Let time pass for the queue."""
    connection.execute(PASS_TIME, {"seconds": seconds})


def claim(connection: Connection, limit: int = 250, *, alone: bool = False, lease: float = LEASE) -> list[Item]:
    """Claim as the drain does."""
    return queue.claim(
        connection,
        limit=limit,
        alone=alone,
        max_length=planner.MAX_TICKERS_LENGTH,
        added_length=planner.ADDED_LENGTH,
        lease_seconds=lease,
    )


def end(connection: Connection, *endings: Ending, step: float = STEP) -> set[str]:
    """End claims as the drain does."""
    return connection.answer(queue.ending(endings, step_seconds=step, plan=PLAN, key=KEY))


def symbols_of(items: Sequence[Item]) -> list[str]:
    return [item.asset.symbol for item in items]


def claimed(connection: Connection, limit: int = 250) -> list[str]:
    return symbols_of(claim(connection, limit))


def order(connection: Connection) -> list[str]:
    """Tell in which order items would be claimed."""
    items = claim(connection, alone=True)
    end(connection, *(Ending(item, State.QUEUED) for item in items))
    return symbols_of(items)


def row(connection: Connection, symbol: str) -> Row:
    found = connection.execute("select * from assetbatch.queue where symbol = %s", [symbol]).fetchone()
    assert found is not None
    return found


def states(connection: Connection) -> dict[str, str]:
    found = connection.execute("select symbol, state from assetbatch.queue order by symbol")
    return {one["symbol"]: one["state"] for one in found}


def expire(connection: Connection, *, retries: int = RETRIES) -> BroughtBack:
    """Let all leases run out, and bring back what they held."""
    pass_time(connection, 2 * LEASE)
    return queue.bring_back(connection, retries=retries)


def failure(symbol: str, kind: FailureKind = FailureKind.INVALID) -> Failure:
    return Failure(symbol, kind, f"{symbol} is no good")


# --- Order


def test_critical_comes_first_and_the_others_by_priority_when_enqueued_together(connection: Connection) -> None:
    for priority in (Priority.LOW, Priority.HIGH, Priority.MEDIUM, Priority.CRITICAL):
        put(connection, priority.name, priority=priority)

    assert [claimed(connection, 1) for _ in range(5)] == [["CRITICAL"], ["HIGH"], ["MEDIUM"], ["LOW"], []]


def test_within_a_priority_who_came_first_goes_first(connection: Connection) -> None:
    for symbol in "CADB":
        put(connection, symbol)

    assert claimed(connection) == ["C", "A", "D", "B"]


def test_a_critical_item_overtakes_whatever_has_waited_for_years(connection: Connection) -> None:
    put(connection, "OLD", priority=Priority.HIGH)
    pass_time(connection, 10 * 365 * 86400)
    put(connection, "NEW", priority=Priority.CRITICAL)

    assert [claimed(connection, 1), claimed(connection, 1)] == [["NEW"], ["OLD"]]


@pytest.mark.parametrize("step", [600.0, 1800.0, 7200.0])
def test_in_an_endless_stream_a_low_item_waits_for_a_step_of_aging_and_no_longer(
    connection: Connection, step: float
) -> None:
    """Each tenth of a step two MEDIUM items come and one is claimed: of them alone there is always an older one."""
    put(connection, "LOW", priority=Priority.LOW, step=step)
    before: list[str] = []
    for tenth in range(100):
        pass_time(connection, step / 10)
        put(connection, f"M{tenth:02}A", f"M{tenth:02}B", step=step)
        before += claimed(connection, 1)
        if "LOW" in before:
            break

    # Those of the first nine tenths are less than a step younger than it, those of the tenth are as old as that.
    assert len(before) in {19, 20, 21}
    assert before[:18] == [f"M{tenth:02}{which}" for tenth in range(9) for which in "AB"]
    assert before[-1] == "LOW"


def test_without_aging_the_order_is_strict(connection: Connection) -> None:
    put(connection, "LOW", priority=Priority.LOW, step=STRICT)
    pass_time(connection, 365 * 86400)
    put(connection, "MEDIUM", step=STRICT)
    put(connection, "HIGH", priority=Priority.HIGH, step=STRICT)

    assert claimed(connection) == ["HIGH", "MEDIUM", "LOW"]


def test_a_changed_worth_of_aging_reorders_what_waits_and_what_will(connection: Connection) -> None:
    put(connection, "LATER", "LOW", priority=Priority.LOW, step=STRICT)
    later, low = claim(connection)
    end(connection, Ending(later, State.DELAYED, delay_seconds=60.0), Ending(low, State.QUEUED))
    pass_time(connection, STEP + 60)
    put(connection, "MEDIUM", step=STRICT)
    assert order(connection) == ["MEDIUM", "LOW"]

    enqueue_now(connection, [], step_seconds=STEP)
    assert order(connection) == ["LOW", "MEDIUM"]
    queue.bring_back(connection, retries=RETRIES)
    assert order(connection) == ["LATER", "LOW", "MEDIUM"]
    enqueue_now(connection, [], step_seconds=STRICT)
    assert order(connection) == ["MEDIUM", "LATER", "LOW"]


# --- Claims


def test_a_claim_tells_what_the_drain_needs_to_know(connection: Connection) -> None:
    add(connection, "XAGUSD", tickers=["C:XAGUSD"], asset_type="forex", rank=Priority.HIGH, frequency=900)
    connection.execute("insert into assetbatch.sync_state (symbol, served_at) values ('XAGUSD', '2026-01-02T03:04Z')")
    connection.execute("insert into trading.symbols (symbol) values ('XAGUSD')")
    enqueue_now(connection)

    (item,) = claim(connection)

    assert item.asset == Asset("XAGUSD", "C:XAGUSD", AssetType.FOREX, Role.SECONDARY, Priority.HIGH, 900)
    assert item.served_at is not None
    assert item.served_at.isoformat() == "2026-01-02T03:04:00+00:00"
    assert item.token == row(connection, "XAGUSD")["token"]


def test_the_attempt_is_counted_at_the_claim(connection: Connection) -> None:
    put(connection, "A")

    (item,) = claim(connection)
    assert (item.attempts, row(connection, "A")["attempts"]) == (1, 1)
    assert end(connection, Ending(item, State.QUEUED)) == {"A"}
    assert row(connection, "A")["attempts"] == 0
    (item,) = claim(connection)
    end(connection, Ending(item, State.DELAYED, spent=True))
    queue.bring_back(connection, retries=RETRIES)
    assert claim(connection)[0].attempts == 2


def test_every_item_is_done_exactly_once_though_workers_fail_and_leases_are_lost(
    database: str, connection: Connection
) -> None:
    put(connection, *(f"S{number:03}" for number in range(200)))
    over = Event()

    def sabotage() -> int:
        lost = 0
        with open_database(database) as own:
            while not over.is_set():
                own.execute(LOSE_SOME)
                lost += len(queue.bring_back(own, retries=1_000_000).expired)
        return lost

    def work(seed: int) -> list[str]:
        dice = random.Random(seed)
        done: list[str] = []
        with open_database(database) as own:
            while queue.size(own):
                assert not over.is_set()
                items = claim(own, dice.randint(1, 9))
                mine = [item for item in items if dice.random() < 0.7]
                back = [Ending(item, dice.choice([State.QUEUED, State.DELAYED])) for item in items if item not in mine]
                with own.transaction():
                    done += queue.complete(own, mine)
                    end(own, *back)
        return done

    with ThreadPoolExecutor(5) as threads:
        saboteur = threads.submit(sabotage)
        saboteur.add_done_callback(lambda _: over.set())
        try:
            done = [symbol for symbols in threads.map(work, range(4)) for symbol in symbols]
        finally:
            over.set()
            assert saboteur.result() > 0

    assert sorted(done) == [f"S{number:03}" for number in range(200)]


@pytest.mark.parametrize("seed", range(5))
def test_a_claim_takes_what_the_planner_puts_into_one_call(connection: Connection, seed: int) -> None:
    dice = random.Random(seed)
    lengths = [dice.choice([3, 10, 26, 48]) for _ in range(300)]
    add(
        connection,
        *(f"S{number:03}" for number in range(300)),
        tickers=[f"X:{number:A>{length}}" for number, length in enumerate(lengths)],
    )
    enqueue_now(connection)
    found = []
    while items := claim(connection):
        found.append(tuple(item.asset for item in items))

    calls = planner.snapshots([asset for assets in found for asset in assets], 250)
    assert [call.assets for call in calls] == found
    assert len(found) > 1


@pytest.mark.parametrize(("spare", "taken"), [(0, 2), (-1, 1)])
def test_a_line_of_tickers_may_be_full_to_the_last_character(connection: Connection, spare: int, taken: int) -> None:
    add(connection, "A", "B", tickers=["X:AAAA", "X:BB"])
    enqueue_now(connection)

    items = queue.claim(
        connection, limit=250, alone=False, max_length=6 + 5 + 4 + 5 + spare, added_length=5, lease_seconds=LEASE
    )

    assert len(items) == taken


@pytest.mark.parametrize(
    ("largest_calls", "sizes"),
    [
        ([None, None, None, None], [4]),
        ([1, None, None, None], [1, 3]),
        ([None, 1, None, None], [1, 1, 2]),
        ([None, None, 2, None], [2, 2]),
        ([3, 3, 3, 3], [3, 1]),
        ([None, 3, 2, 9], [2, 2]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_a_claim_takes_no_more_than_any_of_its_items_may_be_asked_for_with(
    connection: Connection, largest_calls: list[int | None], sizes: list[int]
) -> None:
    put(connection, "A", "B", "C", "D")
    for symbol, largest in zip("ABCD", largest_calls, strict=True):
        connection.execute("update assetbatch.queue set largest_call = %s where symbol = %s", [largest, symbol])

    found = []
    while symbols := claimed(connection):
        found.append(symbols)

    assert [len(symbols) for symbols in found] == sizes
    assert [symbol for symbols in found for symbol in symbols] == list("ABCD")


def test_what_the_catalogue_does_not_list_any_more_is_dropped_at_the_claim(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    put(connection, "GONE", "OFF", "PRIORITY", "STAYS", "LATER")
    connection.execute("delete from assetbatch.assets where symbol = 'GONE'")
    connection.execute("update assetbatch.assets set enabled = false where symbol = 'OFF'")
    connection.execute("update assetbatch.assets set role = 'priority' where symbol = 'PRIORITY'")

    with caplog.at_level(logging.WARNING):
        assert claimed(connection) == ["LATER", "STAYS"]

    assert states(connection) == {"LATER": "leased", "STAYS": "leased"}
    assert caplog.messages == ["dropped from the queue, being no enabled secondary asset any more: GONE, OFF, PRIORITY"]


# --- Endings


def test_a_spent_attempt_goes_back_at_low_ranked_by_when_it_may_be_tried_again(connection: Connection) -> None:
    put(connection, "HIGH", priority=Priority.HIGH)
    (item,) = claim(connection)

    ending = Ending(item, State.DELAYED, spent=True, delay_seconds=500, failure=failure("HIGH"))
    assert end(connection, ending, step=600) == {"HIGH"}

    found = row(connection, "HIGH")
    assert (found["state"], found["priority"], found["attempts"], found["token"]) == ("delayed", 4, 1, None)
    assert (found["error_kind"], found["error"]) == ("invalid", "HIGH is no good")
    assert found["available_at"] - found["enqueued_at"] >= timedelta(seconds=500)
    assert found["waiting_since"] == found["available_at"]
    assert found["rank"] == found["available_at"] + timedelta(seconds=3 * 600)


def test_a_dead_letter_remembers_what_it_died_of_and_is_claimed_no_more(connection: Connection) -> None:
    put(connection, "A")
    (item,) = claim(connection)

    dead = Ending(item, State.DEAD, spent=True, failure=failure("A", FailureKind.NOT_ENTITLED))
    assert end(connection, dead) == {"A"}

    found = row(connection, "A")
    assert (found["state"], found["error_kind"], found["priority"]) == ("dead", "not_entitled", 3)
    assert (found["died_on_plan"], found["died_with_key"]) == (PLAN, KEY)
    assert (connection.answer(queue.waiting()), queue.size(connection)) == (False, 0)
    pass_time(connection, 365 * 86400)
    assert queue.bring_back(connection, retries=RETRIES) == BroughtBack([], [], 0, is_waiting=False)
    assert claim(connection) == []


def test_delayed_items_are_due_when_their_time_has_come_and_not_before(connection: Connection) -> None:
    put(connection, "SOON", "LATE")
    soon, late = sorted(claim(connection), key=lambda item: item.asset.symbol, reverse=True)
    end(connection, Ending(soon, State.DELAYED, delay_seconds=300), Ending(late, State.DELAYED, delay_seconds=900))

    pass_time(connection, 200)
    assert queue.bring_back(connection, retries=RETRIES).promoted == 0
    assert (connection.answer(queue.waiting()), queue.size(connection)) == (False, 2)
    pass_time(connection, 100)
    assert queue.bring_back(connection, retries=RETRIES).promoted == 1
    assert claimed(connection) == ["SOON"]


@pytest.mark.parametrize(
    "ending",
    [
        None,
        (State.QUEUED, False),
        (State.DELAYED, False),
        (State.DELAYED, True),
        (State.DEAD, True),
    ],
)
@pytest.mark.parametrize("fate", ["waits", "held by another", "gone"])
def test_who_has_lost_his_lease_ends_nothing(
    connection: Connection, ending: tuple[State, bool] | None, fate: str
) -> None:
    put(connection, "A", "B")
    lost, mine = claim(connection)
    if fate == "gone":
        connection.execute("delete from assetbatch.queue where symbol = 'A'")
    else:
        connection.execute("update assetbatch.queue set leased_until = statement_timestamp() where symbol = 'A'")
        assert queue.bring_back(connection, retries=RETRIES).expired == ["A"]
    if fate == "held by another":
        assert claimed(connection) == ["A"]
    before = connection.execute("select * from assetbatch.queue where symbol = 'A'").fetchall()

    if ending is None:
        ended = queue.complete(connection, [lost, mine])
    else:
        ended = end(connection, *(Ending(item, ending[0], spent=ending[1]) for item in (lost, mine)))
    queue.keep(connection, [lost], lease_seconds=9999)

    assert ended == {"B"}
    assert connection.execute("select * from assetbatch.queue where symbol = 'A'").fetchall() == before


# --- Leases


def test_a_lease_that_is_kept_does_not_run_out(connection: Connection) -> None:
    put(connection, "A", "B")
    items = claim(connection)

    for _ in range(3):
        pass_time(connection, LEASE - 20)
        queue.keep(connection, items[:1], lease_seconds=LEASE)

    assert queue.bring_back(connection, retries=RETRIES) == BroughtBack(["B"], [], 0, is_waiting=True)
    assert queue.complete(connection, items) == {"A"}


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 5])
def test_what_kills_its_worker_each_time_is_dead_after_its_attempts_and_was_alone_in_the_last(
    connection: Connection, retries: int
) -> None:
    symbols = [f"S{number:02}" for number in range(40)]
    put(connection, *symbols)
    sizes = []
    for _ in range(retries):
        sizes.append(len(claim(connection)))
        assert len(expire(connection, retries=retries).expired) == sizes[-1]
        # Its companions are asked for apart from it, and are fine.
        connection.execute("delete from assetbatch.queue where attempts = 0")
    sizes.append(len(claim(connection)))

    assert expire(connection, retries=retries).dead == symbols[: sizes[-1]]
    found = row(connection, "S00")
    assert (found["state"], found["attempts"], found["error_kind"]) == ("dead", retries + 1, "worker_lost")
    assert sizes[-2:] == [16, 1][-len(sizes) :] if retries > 1 else sizes == ([40], [40, 1])[retries]
    assert sizes[:-2] == [40] * (retries - 1)


@pytest.mark.parametrize("attempts", [1, RETRIES, RETRIES + 1])
def test_an_attempt_during_which_the_server_was_restarted_is_given_back(connection: Connection, attempts: int) -> None:
    put(connection, "A", "B")
    claim(connection)
    connection.execute("update assetbatch.queue set attempts = %s", [attempts])
    connection.execute(
        "update assetbatch.queue set claimed_at = pg_postmaster_start_time() - interval '1 s' where symbol = 'A'"
    )

    found = expire(connection)

    assert "A" in found.expired
    assert found.dead == (["B"] if attempts > RETRIES else [])
    assert (row(connection, "A")["attempts"], row(connection, "B")["attempts"]) == (attempts - 1, attempts)


def test_many_may_bring_back_at_once_and_each_item_is_told_of_once(database: str, connection: Connection) -> None:
    put(connection, *(f"S{number:03}" for number in range(300)))
    items = claim(connection)
    end(connection, *(Ending(item, State.DELAYED) for item in items[:100]))
    pass_time(connection, 2 * LEASE)

    def work(_number: int) -> BroughtBack:
        with open_database(database) as own:
            return queue.bring_back(own, retries=RETRIES)

    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(work, range(8)))

    assert sorted(symbol for one in found for symbol in one.expired) == sorted(symbols_of(items[100:]))
    assert sum(one.promoted for one in found) == 100


# --- Cost

FILL = """
insert into assetbatch.queue (symbol, state, priority, waiting_since, rank, enqueued_at, available_at,
                              claimed_at, leased_until, token, died_at)
select 'S' || n, state, 2 + n %% 3, now(), now() + n * interval '1 s', now(), now() + n * interval '1 s',
       case when state = 'leased' then now() end, case when state = 'leased' then now() + n * interval '1 s' end,
       case when state = 'leased' then gen_random_uuid() end, case when state = 'dead' then now() end
from (select n, (%(states)s::text[])[1 + n %% array_length(%(states)s::text[], 1)] as state
      from generate_series(1, 30000) n) numbers
"""


CLAIMING: dict[str, object] = {
    "limit": 250,
    "alone": False,
    "max_length": planner.MAX_TICKERS_LENGTH,
    "added_length": planner.ADDED_LENGTH,
    "lease_seconds": LEASE,
    "token": "00000000-0000-0000-0000-000000000000",
    "run_id": 1,
    "types": None,
    "daily": [],
}


def scans(connection: Connection, statement: str, parameters: dict[str, object]) -> set[tuple[str, str]]:
    """Tell how a statement reads tables: pairs of a node's type and its table or index."""

    def walk(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
        if "Relation Name" in node or "Index Name" in node:
            yield node["Node Type"], node.get("Index Name") or node["Relation Name"]
        for child in node.get("Plans", ()):
            yield from walk(child)

    found = connection.execute("explain (format json) " + statement, parameters).fetchone()
    assert found is not None
    return set(walk(found["QUERY PLAN"][0]["Plan"]))


@pytest.mark.parametrize(
    "mixture", [["queued"], ["delayed"], ["dead"], ["leased"], ["queued", "delayed", "leased", "dead"]]
)
@pytest.mark.parametrize("types", [None, ["forex", "crypto"]])
def test_nothing_reads_the_whole_queue_to_find_its_next_items(
    connection: Connection, mixture: list[str], types: list[str] | None
) -> None:
    connection.execute(FILL, {"states": mixture})
    connection.execute("analyze")

    found = {
        "claim": scans(connection, queue.CLAIM, CLAIMING | {"types": types}),
        "bring back": scans(
            connection,
            queue.BRING_BACK,
            {"retries": 3, "error": queue.LOST, "kind": "worker_lost", "bug": EXIT_BUG, "types": types},
        ),
        "is waiting": scans(connection, queue.IS_WAITING, {"types": types}),
    }

    whole = {name for name, read in found.items() if ("Seq Scan", "queue") in read}
    assert whole == set()
    assert "queue_order" in {index for _, index in found["claim"]}
    assert {"queue_leased", "queue_delayed"} <= {index for _, index in found["bring back"]}


@pytest.mark.parametrize("types", [None, ["forex", "crypto"]])
def test_a_claim_does_not_read_the_whole_catalogue(connection: Connection, types: list[str] | None) -> None:
    connection.execute(FILL, {"states": ["queued"]})
    add(connection, *(f"S{number}" for number in range(1, 30_001)))
    connection.execute("insert into assetbatch.sync_state (symbol) select symbol from assetbatch.queue")
    connection.execute("analyze")

    found = scans(connection, queue.CLAIM, CLAIMING | {"types": types})

    assert not {("Seq Scan", "assets"), ("Seq Scan", "sync_state")} & found


# --- All of it, for hypothesis to refute


@dataclass
class Expected:
    """An item as the books have it. Times are seconds of the books; `stamped` orders what is equal in them."""

    priority: int
    waiting_since: int
    stamped: int
    state: State = State.QUEUED
    attempts: int = 0
    largest_call: int | None = None
    token: object = None
    until: int = 0
    """When its lease runs out, or when it is due again."""

    @property
    def place(self) -> tuple[bool, float, int]:
        return (self.priority > 1, self.waiting_since + (self.priority - 1) * STEP, self.stamped)


class Life(RuleBasedStateMachine):
    """Any claims, endings, lost workers, and time, against books that are kept by the rules.

    All times are multiples of 10 s, so that the real seconds that pass meanwhile decide only what is equal in the
    books: whose time has come, and who of two was stamped first.
    """

    connection: ClassVar[Connection]

    def __init__(self) -> None:
        super().__init__()
        self.transaction = self.connection.transaction(force_rollback=True)
        self.transaction.__enter__()
        self.now = 0
        self.stamps = 0
        self.books: dict[str, Expected] = {}
        self.held: list[Item] = []

    def stamp(self) -> int:
        self.stamps += 1
        return self.stamps

    @rule(symbol=st.sampled_from("ABCDEF"), priority=st.sampled_from(Priority))
    def put(self, symbol: str, priority: Priority) -> None:
        add(self.connection, symbol, rank=priority)
        counts = enqueue_now(self.connection, [symbol])
        if symbol in self.books:
            dead = self.books[symbol].state is State.DEAD
            assert (counts.enqueued, counts.dead, counts.already_queued) == (0, dead, not dead)
        else:
            assert counts.enqueued == 1
            self.books[symbol] = Expected(priority, self.now, self.stamp())

    @rule(limit=st.integers(1, 6), lease=st.sampled_from([20, 120]), alone=st.booleans())
    def claim(self, limit: int, lease: int, *, alone: bool) -> None:
        waiting = [symbol for symbol, one in self.books.items() if one.state is State.QUEUED]
        expected: list[str] = []
        most = limit
        for symbol in sorted(waiting, key=lambda symbol: self.books[symbol].place)[:limit]:
            most = most if alone else min(most, self.books[symbol].largest_call or most)
            if len(expected) < most:
                expected.append(symbol)
            else:
                break
        items = claim(self.connection, limit, alone=alone, lease=lease)
        assert symbols_of(items) == expected
        for item in items:
            one = self.books[item.asset.symbol]
            one.state, one.token, one.until, one.attempts = State.LEASED, item.token, self.now + lease, one.attempts + 1
            assert item.attempts == one.attempts
        self.held += items

    def taken(self, which: int) -> tuple[Item, Expected | None]:
        """Take an item out of the hand, and its entry if it is still held."""
        item = self.held.pop(which % len(self.held))
        one = self.books.get(item.asset.symbol)
        return item, one if one is not None and one.token == item.token else None

    @rule(which=st.integers(0, 9))
    def complete(self, which: int) -> None:
        if self.held:
            item, one = self.taken(which)
            assert queue.complete(self.connection, [item]) == ({item.asset.symbol} if one else set())
            if one:
                del self.books[item.asset.symbol]

    @rule(
        which=st.integers(0, 9),
        how=st.sampled_from([(State.QUEUED, 0), (State.DELAYED, 0), (State.DELAYED, 1), (State.DEAD, 1)]),
        delay=st.sampled_from([0, 60, 600]),
        largest_call=st.sampled_from([None, None, 1, 2, 3]),
    )
    def end(self, which: int, how: tuple[State, int], delay: int, largest_call: int | None) -> None:
        if not self.held:
            return
        item, one = self.taken(which)
        state, spent = how
        ending = Ending(item, state, spent=bool(spent), delay_seconds=delay, largest_call=largest_call)
        assert end(self.connection, ending) == ({item.asset.symbol} if one else set())
        if one:
            one.state, one.token, one.until = state, None, self.now + delay
            one.largest_call = largest_call or one.largest_call
            one.attempts -= not spent
            if spent and state is State.DELAYED:
                one.priority, one.waiting_since, one.stamped = Priority.LOW, self.now + delay, self.stamp()

    @rule(which=st.integers(0, 9))
    def keep(self, which: int) -> None:
        if self.held:
            item, one = self.taken(which)
            self.held.append(item)
            queue.keep(self.connection, [item], lease_seconds=120)
            if one:
                one.until = self.now + 120

    @rule(seconds=st.sampled_from([10, 20, 60, 130, 600, 1800]))
    def advance(self, seconds: int) -> None:
        pass_time(self.connection, seconds)
        self.now += seconds

    @rule()
    def bring_back(self) -> None:
        found = queue.bring_back(self.connection, retries=RETRIES)
        expired: list[str] = []
        dead: list[str] = []
        promoted = 0
        for symbol, one in sorted(self.books.items()):
            if one.until > self.now or one.state not in {State.LEASED, State.DELAYED}:
                continue
            if one.state is State.DELAYED:
                promoted += 1
                one.state = State.QUEUED
                continue
            (dead if one.attempts > RETRIES else expired).append(symbol)
            one.state = State.DEAD if one.attempts > RETRIES else State.QUEUED
            one.token = None
            if one.attempts == RETRIES:
                one.largest_call = 1
            elif one.attempts == RETRIES - 1:
                one.largest_call = min(one.largest_call or 16, 16)
        is_waiting = any(one.state is State.QUEUED for one in self.books.values())
        assert found == BroughtBack(expired, dead, promoted, is_waiting)

    @invariant()
    def the_table_is_as_the_books_say(self) -> None:
        found = {one["symbol"]: one for one in self.connection.execute("select * from assetbatch.queue")}
        keys = ("state", "priority", "attempts", "largest_call", "token")
        assert {symbol: tuple(one[key] for key in keys) for symbol, one in found.items()} == {
            symbol: tuple(getattr(one, key) for key in keys) for symbol, one in self.books.items()
        }
        assert queue.size(self.connection) == sum(one.state is not State.DEAD for one in self.books.values())
        assert self.connection.answer(queue.waiting()) == any(one.state is State.QUEUED for one in self.books.values())

    def teardown(self) -> None:
        self.transaction.__exit__(None, None, None)


@pytest.mark.parametrize("lives", [15, pytest.param(40, marks=pytest.mark.slow)])
def test_whatever_happens_the_queue_is_as_the_rules_say(connection: Connection, lives: int) -> None:
    machine = cast("type[Life]", type("LifeHere", (Life,), {"connection": connection}))

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=lives,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )
