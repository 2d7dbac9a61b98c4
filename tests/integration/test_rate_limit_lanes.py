"""Tickets and lanes: who goes first, and what is kept for the priority job."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from assetbatch.database.rate_limit import WITHDRAW, Lane, Outcome
from tests.integration.test_rate_limit import COOLDOWN, HOLD, World, ask, migrated_database, verdicts

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

EVERY = 300
GRACE = 10


@pytest.fixture(scope="module")
def database(postgres: EmbeddedServer) -> str:
    return migrated_database(postgres, "rate_limit_lanes")


def foresee(world: World, calls: int, *, due_in: float, grace: float = GRACE) -> None:
    """End a priority run that expects to make so many calls when it is due next."""
    foreseeing = world.limiter(Lane.PRIORITY).foreseeing(
        calls=calls, due=world.now() + timedelta(seconds=due_in), every_seconds=EVERY, grace_seconds=grace
    )
    world.connection.ask(foreseeing)


def made_known(connection: Connection) -> World:
    """A key that has been used, long ago."""
    world = World(connection)
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.UNSENT)
    world.advance(3600)
    return world


def test_first_come_first_served_within_a_lane(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=2)
    for _ in range(2):
        limiter.release(limiter.acquire(), Outcome.OK)
    world.advance(50)
    tickets = [ask(limiter)["ticket"] for _ in range(3)]

    world.advance(13)

    # Whoever asks first: the two slots are the first two's.
    assert ask(limiter)["verdict"] == "wait"
    assert ask(limiter, tickets[2])["verdict"] == "wait"
    assert ask(limiter, tickets[1])["verdict"] == "granted"
    assert ask(limiter, tickets[2])["verdict"] == "wait"
    assert ask(limiter, tickets[0])["verdict"] == "granted"


def test_each_waits_for_its_own_turn(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=2, window_seconds=10, margin_seconds=0)
    slots = [limiter.acquire() for _ in range(2)]
    for slot in slots:
        limiter.release(slot, Outcome.OK)
        world.advance(4)
    stamps = connection.execute("select counted_by from assetbatch.rate_limit_slots order by 1").fetchall()

    tickets = [ask(limiter)["ticket"] for _ in range(3)]

    assert world.wakes_after(tickets[0], stamps[0]["counted_by"]) == 10
    assert world.wakes_after(tickets[1], stamps[1]["counted_by"]) == 10
    # More waiters than slots: the third has the first slot once more, a cooldown later.
    assert world.wakes_after(tickets[2], stamps[0]["counted_by"]) == 20


def test_priority_goes_before_queue(connection: Connection) -> None:
    world = World(connection)
    queue, priority = world.limiter(max_calls=1), world.limiter(Lane.PRIORITY, max_calls=1)
    queue.release(queue.acquire(), Outcome.OK)
    world.advance(50)
    waiting, first = ask(queue)["ticket"], ask(priority)["ticket"]
    assert first > waiting

    world.advance(COOLDOWN - 50)

    assert ask(queue, waiting)["verdict"] == "wait"
    assert ask(priority, first)["verdict"] == "granted"


def test_a_dead_waiters_ticket_expires(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.release(limiter.acquire(), Outcome.OK)
    world.advance(50)
    ask(limiter)
    alive = ask(limiter)["ticket"]

    world.advance(12)
    assert ask(limiter, alive)["verdict"] == "wait"
    world.advance(8)
    assert ask(limiter, alive)["verdict"] == "granted"
    assert world.count("rate_limit_waiters") == 0


def test_a_slow_waiter_keeps_its_place(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.release(limiter.acquire(), Outcome.OK)
    world.advance(15)
    slow = ask(limiter)["ticket"]
    world.advance(22)
    later = ask(limiter)["ticket"]
    assert world.count("rate_limit_waiters") == 1  # taken for dead

    world.advance(12)
    assert ask(limiter, slow)["ticket"] == slow
    assert ask(limiter, later)["ticket"] == later
    world.advance(12.5)

    assert ask(limiter, later)["verdict"] == "wait"
    assert ask(limiter, slow)["verdict"] == "granted"


def test_what_another_gives_back_is_had_at_the_next_look(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    slot = limiter.acquire()
    answer = ask(limiter)
    assert 0 < answer["wait_seconds"] <= 15

    limiter.release(slot, Outcome.UNSENT)

    assert ask(limiter, answer["ticket"])["verdict"] == "granted"


def test_with_nothing_foreseen_the_queue_has_every_slot(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 0, due_in=20)

    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]


def test_within_a_window_of_the_due_time_what_is_foreseen_is_left(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 3, due_in=40)
    queue = world.limiter()

    assert verdicts(queue, 3) == ["granted", "granted", "refused"]
    assert ask(queue)["wait_seconds"] == 15

    world.advance(40)
    assert verdicts(world.limiter(Lane.PRIORITY), 4) == ["granted"] * 3 + ["refused"]


def test_more_than_a_window_ahead_nothing_is_kept(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 3, due_in=100)

    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]


def test_slots_that_come_free_by_the_due_time_are_not_kept_now(connection: Connection) -> None:
    world = made_known(connection)
    queue = world.limiter()
    for _ in range(3):
        queue.release(queue.acquire(), Outcome.OK)
    world.advance(35)
    foresee(world, 3, due_in=30)

    assert verdicts(queue, 3) == ["granted", "granted", "refused"]


def test_slots_that_come_free_after_the_grace_do_not_help(connection: Connection) -> None:
    world = made_known(connection)
    queue = world.limiter()
    for _ in range(2):
        queue.release(queue.acquire(), Outcome.OK)
    foresee(world, 3, due_in=30)

    assert verdicts(queue, 1) == ["refused"]


def test_what_is_kept_is_free_again_when_the_grace_is_over(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 3, due_in=40)
    queue = world.limiter()
    assert verdicts(queue, 3) == ["granted", "granted", "refused"]

    world.advance(40 - 14)
    answer = ask(queue)
    assert world.wakes_after(answer["ticket"], world.key()["foreseen_due"]) == 0
    world.advance(14)
    answer = ask(queue, answer["ticket"])
    assert (answer["verdict"], answer["wait_seconds"]) == ("wait", GRACE / 10)
    world.advance(GRACE)
    assert ask(queue, answer["ticket"])["verdict"] == "granted"


def test_one_slot_at_least_is_the_queues(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 7, due_in=40)

    assert verdicts(world.limiter(), 2) == ["granted", "refused"]


def test_the_next_due_times_are_kept_until_the_job_has_not_run_for_two_intervals(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 4, due_in=EVERY)
    queue = world.limiter()

    for seconds in (EVERY - 30, EVERY):  # 30 s before the first due time, and before the second
        world.advance(seconds)
        assert verdicts(queue, 2) == ["granted", "refused"]
    world.advance(EVERY)
    assert verdicts(queue, 6) == ["granted"] * 5 + ["refused"]


def test_a_run_that_is_going_keeps_what_it_still_means_to_call(connection: Connection) -> None:
    world = made_known(connection)
    queue, priority = world.limiter(), world.limiter(Lane.PRIORITY)
    priority.release(priority.acquire(calls_after=2), Outcome.OK)

    assert verdicts(queue, 3) == ["granted", "granted", "refused"]
    assert ask(priority, calls_after=1)["verdict"] == "granted"
    assert verdicts(queue, 1) == ["refused"]
    assert ask(priority, calls_after=0)["verdict"] == "granted"


def test_what_comes_free_after_the_grace_is_no_substitute_while_a_run_is_going(connection: Connection) -> None:
    world = made_known(connection)
    queue, priority = world.limiter(), world.limiter(Lane.PRIORITY)
    for _ in range(2):
        queue.release(queue.acquire(), Outcome.OK)
    foresee(world, 3, due_in=COOLDOWN - GRACE - 1)
    world.advance(COOLDOWN - GRACE)

    # A second late, with three free slots; the other two come free a second after its grace.
    for calls_after in (2, 1):
        assert ask(priority, calls_after=calls_after)["verdict"] == "granted"
        assert verdicts(queue, 1) == ["refused"]
    assert ask(priority, calls_after=0)["verdict"] == "granted"


def test_a_run_that_has_ended_keeps_nothing(connection: Connection) -> None:
    world = made_known(connection)
    priority = world.limiter(Lane.PRIORITY)
    priority.release(priority.acquire(calls_after=3), Outcome.OK)
    assert verdicts(world.limiter(), 2) == ["granted", "refused"]

    foresee(world, 0, due_in=EVERY)

    assert verdicts(world.limiter(), 4) == ["granted"] * 3 + ["refused"]


def test_a_run_that_waits_for_its_first_slot_keeps_the_others_too(connection: Connection) -> None:
    world = made_known(connection)
    queue, priority = world.limiter(), world.limiter(Lane.PRIORITY)
    slots = [queue.acquire() for _ in range(5)]
    waiting = ask(priority, calls_after=2)
    assert waiting["verdict"] == "wait"

    for slot in slots:
        queue.release(slot, Outcome.UNSENT)

    # Five are free at once: three are the run's, though it still sleeps.
    assert verdicts(queue, 3) == ["granted", "granted", "refused"]
    assert ask(priority, waiting["ticket"], calls_after=2)["verdict"] == "granted"
    assert verdicts(queue, 1) == ["refused"]
    assert [ask(priority, calls_after=left)["verdict"] for left in (1, 0)] == ["granted"] * 2


@pytest.mark.parametrize("waiting", [False, True])
def test_a_killed_run_keeps_the_queue_waiting_for_its_hold_and_no_longer(
    connection: Connection, *, waiting: bool
) -> None:
    world = made_known(connection)
    queue = world.limiter()
    slots = [queue.acquire() for _ in range(5)] if waiting else []
    killed = ask(world.limiter(Lane.PRIORITY), calls_after=4)
    assert killed["verdict"] == ("wait" if waiting else "granted")
    for slot in slots:
        queue.release(slot, Outcome.UNSENT)

    # Killed while it slept, its own place is one more.
    assert verdicts(queue, 1) == ["refused"]
    world.advance(HOLD)
    assert verdicts(queue, 4) == ["granted"] * 4
    assert world.count("rate_limit_waiters") == 0


def test_without_a_grace_nobody_spins(connection: Connection) -> None:
    world = made_known(connection)
    foresee(world, 0, due_in=EVERY, grace=0)
    priority = world.limiter(Lane.PRIORITY)
    priority.release(priority.acquire(calls_after=4), Outcome.OK)

    answer = ask(world.limiter())

    assert answer["verdict"] == "wait"
    assert answer["wait_seconds"] == 0.1


def test_a_withdrawn_ticket_makes_way(connection: Connection) -> None:
    world = made_known(connection)
    queue, priority = world.limiter(max_calls=1), world.limiter(Lane.PRIORITY, max_calls=1)
    queue.release(queue.acquire(), Outcome.OK)
    world.advance(50)
    ticket = ask(priority)["ticket"]
    world.advance(COOLDOWN - 50)
    assert verdicts(queue, 1) == ["refused"]

    connection.execute(WITHDRAW, {"key": "key", "ticket": ticket})

    assert verdicts(queue, 1) == ["granted"]
