"""What an operator sees of the queue, and does with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from assetbatch.database.queue import admin as queue_desk
from assetbatch.database.queue import items as queue
from assetbatch.database.queue.items import Ending, State
from assetbatch.failures import FailureKind
from assetbatch.model import Failure, Priority
from tests.conftest import open_database
from tests.integration.test_queue import (
    RETRIES,
    STEP,
    add,
    claim,
    claimed,
    end,
    enqueue_now,
    pass_time,
    put,
    row,
    states,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection


def finish(
    connection: Connection, symbol: str, state: State, *, kind: FailureKind = FailureKind.INVALID, delay: float = 60.0
) -> None:
    """End what waits alone with a failure."""
    (item,) = claim(connection)
    failure = Failure(symbol, kind, f"{symbol} is no good")
    end(connection, Ending(item, state, spent=True, delay_seconds=delay, failure=failure))


def dead(connection: Connection, symbol: str, kind: FailureKind = FailureKind.INVALID) -> None:
    put(connection, symbol)
    finish(connection, symbol, State.DEAD, kind=kind)


def delayed(connection: Connection, symbol: str, delay: float = 60.0) -> None:
    put(connection, symbol)
    finish(connection, symbol, State.DELAYED, delay=delay)


def of_each_state(connection: Connection) -> None:
    """Two items of each state, the later one first in the order of names."""
    dead(connection, "DEAD2")
    dead(connection, "DEAD1", FailureKind.NOT_ENTITLED)
    delayed(connection, "DELAYED2", 60)
    delayed(connection, "DELAYED1", 600)
    put(connection, "LEASED2")
    claim(connection)
    pass_time(connection, 10)
    put(connection, "LEASED1")
    claim(connection)
    put(connection, "LOW", priority=Priority.LOW)
    put(connection, "HIGH", priority=Priority.HIGH)
    put(connection, "CRITICAL", priority=Priority.CRITICAL)


IN_ORDER = ["CRITICAL", "HIGH", "LOW", "LEASED2", "LEASED1", "DELAYED2", "DELAYED1", "DEAD2", "DEAD1"]


def listed(connection: Connection, *chosen: State, limit: int | None = None) -> list[str]:
    return [item.symbol for item in queue_desk.listing(connection, chosen or list(State), limit=limit).items]


def retry(
    connection: Connection, symbols: Sequence[str] | None = None, *, kind: str | None = None, max_size: int = 1000
) -> tuple[list[str], list[str]]:
    return queue_desk.retry(connection, symbols, kind=kind, max_size=max_size, step_seconds=STEP)


# --- Looking


def test_items_are_listed_in_the_order_in_which_they_get_their_turn(connection: Connection) -> None:
    of_each_state(connection)

    assert listed(connection) == IN_ORDER
    assert listed(connection, State.QUEUED) == IN_ORDER[:3] == claimed(connection)


def test_a_short_listing_tells_how_many_there_are(connection: Connection) -> None:
    of_each_state(connection)

    found = queue_desk.listing(connection, list(State), limit=4)

    assert ([item.symbol for item in found.items], found.total) == (IN_ORDER[:4], 9)
    assert queue_desk.listing(connection, [State.DEAD, State.DELAYED], limit=1).total == 4
    assert listed(connection, State.DEAD, State.LEASED) == ["LEASED2", "LEASED1", "DEAD2", "DEAD1"]
    assert queue_desk.listing(connection, [], limit=None).total == 0


def test_a_listed_item_tells_its_story(connection: Connection) -> None:
    delayed(connection, "A", 500)

    found = queue_desk.listing(connection, [State.DELAYED], limit=None)

    (item,) = found.items
    assert (item.symbol, item.priority, item.state, item.attempts) == ("A", Priority.LOW, State.DELAYED, 1)
    assert (item.error_kind, item.error) == ("invalid", "A is no good")
    assert item.enqueued_at < found.now < item.available_at
    assert item.available_at - item.enqueued_at >= timedelta(seconds=500)


# --- Retrying


def test_a_dead_letter_comes_back_with_all_its_attempts_and_its_own_priority_behind_what_waits(
    connection: Connection,
) -> None:
    put(connection, "A", priority=Priority.HIGH)
    for _ in range(RETRIES):
        finish(connection, "A", State.DELAYED, delay=0)
        queue.bring_back(connection, retries=RETRIES)
    assert row(connection, "A")["priority"] == Priority.LOW
    connection.execute("update assetbatch.queue set largest_call = 1")
    finish(connection, "A", State.DEAD)
    pass_time(connection, 3600)
    put(connection, "B", priority=Priority.HIGH)

    assert retry(connection) == (["A"], [])

    found = row(connection, "A")
    assert (found["state"], found["priority"], found["attempts"], found["largest_call"]) == ("queued", 2, 0, None)
    assert (found["died_at"], found["died_on_plan"], found["died_with_key"]) == (None, None, None)
    assert found["rank"] - found["waiting_since"] == timedelta(seconds=STEP)
    assert [(item.asset.symbol, item.attempts) for item in claim(connection)] == [("B", 1), ("A", 1)]


def test_all_means_dead_letters_and_a_name_means_delayed_items_too(connection: Connection) -> None:
    of_each_state(connection)

    assert retry(connection) == (["DEAD1", "DEAD2"], [])
    assert retry(connection) == ([], [])
    assert retry(connection, ["DELAYED1", "LEASED1", "HIGH", "NONE", "DELAYED1"]) == (["DELAYED1"], [])
    assert {symbol for symbol, state in states(connection).items() if state == "delayed"} == {"DELAYED2"}
    assert row(connection, "DELAYED1")["attempts"] == 0
    assert row(connection, "DELAYED1")["priority"] == Priority.MEDIUM


def test_a_kind_chooses_among_them(connection: Connection) -> None:
    of_each_state(connection)

    assert retry(connection, kind="unknown_ticker") == ([], [])
    assert retry(connection, ["DEAD1", "DELAYED1"], kind="invalid") == (["DELAYED1"], [])
    assert retry(connection, kind="not_entitled") == (["DEAD1"], [])
    assert states(connection)["DEAD2"] == "dead"


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_as_many_dead_letters_come_back_as_there_is_room_the_oldest_first(connection: Connection, room: int) -> None:
    for symbol in ("C", "A", "B"):
        dead(connection, symbol)
    put(connection, "X", "Y")

    retried, dropped = retry(connection, max_size=2 + room)

    assert (retried, dropped) == (sorted(["C", "A", "B"][:room]), sorted(["C", "A", "B"][room:]))
    assert queue.size(connection) == 2 + room


def test_a_delayed_item_has_its_room_even_in_a_queue_that_is_too_full(connection: Connection) -> None:
    dead(connection, "DEAD")
    delayed(connection, "DELAYED")
    put(connection, "X", "Y")

    assert retry(connection, ["DEAD", "DELAYED"], max_size=1) == (["DELAYED"], ["DEAD"])
    assert retry(connection, ["DEAD"], max_size=3) == ([], ["DEAD"])
    assert retry(connection, ["DEAD"], max_size=4) == (["DEAD"], [])


def test_what_left_the_catalogue_comes_back_at_low_and_is_dropped_at_the_claim(connection: Connection) -> None:
    dead(connection, "GONE")
    dead(connection, "GOLD")
    connection.execute("delete from assetbatch.assets where symbol = 'GONE'")
    connection.execute("update assetbatch.assets set role = 'priority', rank = 17 where symbol = 'GOLD'")

    assert retry(connection) == (["GOLD", "GONE"], [])
    assert {row(connection, symbol)["priority"] for symbol in ("GONE", "GOLD")} == {4}
    assert claim(connection) == []
    assert states(connection) == {}


def test_room_is_exact_while_others_enqueue_and_retry(database: str, connection: Connection) -> None:
    for number in range(20):
        dead(connection, f"D{number}")
    add(connection, *(f"S{number}" for number in range(20)))

    def work(number: int) -> int:
        with open_database(database) as own:
            if number % 2:
                return len(retry(own, max_size=25)[0])
            return enqueue_now(own, [f"S{n}" for n in range(20)], max_size=25).enqueued

    with ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(work, range(16)))

    assert sum(counts) == queue.size(connection) == 25


# --- Removing


def test_items_are_removed_whatever_their_state_and_who_held_them_ends_nothing(connection: Connection) -> None:
    dead(connection, "DEAD")
    delayed(connection, "DELAYED")
    put(connection, "LEASED")
    items = claim(connection)
    put(connection, "QUEUED", "STAYS")

    removed = queue_desk.remove(connection, ["QUEUED", "LEASED", "DEAD", "NONE", "DELAYED", "DEAD"])

    assert removed == ["DEAD", "DELAYED", "LEASED", "QUEUED"]
    assert states(connection) == {"STAYS": "queued"}
    assert queue.complete(connection, items) == set()
    assert queue_desk.remove(connection, []) == []
    assert enqueue_now(connection, ["DEAD"]).enqueued == 1


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ([State.DEAD], {"queued", "leased", "delayed"}),
        ([State.QUEUED, State.DELAYED, State.DEAD], {"leased"}),
        (list(State), set()),
        ([], {"queued", "leased", "delayed", "dead"}),
    ],
)
def test_clear_takes_off_what_is_in_these_states_and_count_foretells_it(
    connection: Connection, chosen: list[State], left: set[str]
) -> None:
    of_each_state(connection)
    foretold = queue_desk.count(connection, chosen)

    assert queue_desk.clear(connection, chosen) == foretold == 9 - len(states(connection))
    assert set(states(connection).values()) == left
