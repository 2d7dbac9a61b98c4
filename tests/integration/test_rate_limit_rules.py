"""Rules that change: the limit, the window, the plan, hosts, the key, and a clock that is set back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter
from tests.conftest import open_database
from tests.integration.test_rate_limit import COOLDOWN, HOLD, RULES, YEAR, World, ask, migrated_database, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

UNLIMITED: dict[str, Any] = {"max_calls": None}


@pytest.fixture(scope="module")
def database(postgres: EmbeddedServer) -> str:
    return migrated_database(postgres, "rate_limit_rules")


def spend(world: World, calls: int, outcome: Outcome | None = Outcome.OK, **rules: Any) -> None:
    """Make so many calls at once; None: crash."""
    limiter = world.limiter(**rules)
    for slot in [limiter.acquire(max_wait_seconds=2) for _ in range(calls)]:
        if outcome is not None:
            limiter.release(slot, outcome)


def test_a_smaller_limit_counts_what_was_sent_under_the_larger(connection: Connection) -> None:
    world = World(connection)
    spend(world, 2)
    world.advance(20)
    spend(world, 3)

    assert verdicts(world.limiter(max_calls=3), 1) == ["refused"]
    world.advance(COOLDOWN - 20)  # three still count
    assert verdicts(world.limiter(max_calls=3), 1) == ["refused"]
    world.advance(20)
    assert verdicts(world.limiter(max_calls=3), 4) == ["granted"] * 3 + ["refused"]


def test_slots_beyond_a_smaller_limit_go_as_they_come_free(connection: Connection) -> None:
    world = World(connection)
    spend(world, 4)
    world.limiter().acquire()

    verdicts(world.limiter(max_calls=2), 1)
    assert world.count("rate_limit_slots") == 5
    world.advance(COOLDOWN)
    verdicts(world.limiter(max_calls=2), 3)
    assert 2 <= world.count("rate_limit_slots") <= 3
    world.advance(HOLD + COOLDOWN)
    assert verdicts(world.limiter(max_calls=2), 3) == ["granted"] * 2 + ["refused"]
    assert world.count("rate_limit_slots") == 2


def test_a_limit_that_shrinks_and_grows_again_gives_nothing_away(connection: Connection) -> None:
    world = World(connection)
    spend(world, 4)

    assert verdicts(world.limiter(max_calls=3), 1) == ["refused"]
    assert verdicts(world.limiter(), 2) == ["granted", "refused"]
    world.advance(HOLD + COOLDOWN)
    assert verdicts(world.limiter(max_calls=3), 4) == ["granted"] * 3 + ["refused"]
    assert verdicts(world.limiter(), 3) == ["granted"] * 2 + ["refused"]


def test_a_larger_limit_adds_what_was_not_used(connection: Connection) -> None:
    world = World(connection)
    spend(world, 3, max_calls=3)

    assert verdicts(world.limiter(), 3) == ["granted"] * 2 + ["refused"]


def test_a_limit_after_none_begins_with_a_full_window(connection: Connection) -> None:
    world = World(connection)
    spend(world, 20, **UNLIMITED)
    last = world.key()["next_call_at"]

    answer = ask(world.limiter())

    assert answer["verdict"] == "wait"
    # The last of them may be on its way for its whole hold.
    ready = world.key()["full_by"]
    assert HOLD - 1 <= (ready - last).total_seconds() <= HOLD
    world.advance(HOLD + COOLDOWN - 10)
    assert verdicts(world.limiter(), 1) == ["refused"]
    world.advance(10)
    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]


def test_a_limit_after_an_unlimited_time_without_calls_begins_at_once(connection: Connection) -> None:
    world = World(connection)
    spend(world, 3, **UNLIMITED)
    world.advance(HOLD + COOLDOWN)

    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]


def test_no_limit_any_more_lets_who_waits_go(connection: Connection) -> None:
    world = World(connection)
    world.limiter(max_calls=1).acquire()
    tickets = [ask(world.limiter(max_calls=1))["ticket"] for _ in range(2)]

    assert ask(world.limiter(**UNLIMITED), tickets[1])["verdict"] == "granted"
    assert world.count("rate_limit_waiters") == 0


def test_a_longer_window_begins_full(connection: Connection) -> None:
    world = World(connection)
    for _ in range(3):
        spend(world, 2, window_seconds=2, margin_seconds=0)
        world.advance(3)

    assert verdicts(world.limiter(), 1) == ["refused"]
    world.advance(COOLDOWN - 10)
    assert verdicts(world.limiter(), 1) == ["refused"]
    world.advance(10)
    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]


def test_a_longer_window_is_full_even_for_slots_that_are_given_back(connection: Connection) -> None:
    world = World(connection)
    short = world.limiter(window_seconds=2, margin_seconds=0)
    for _ in range(3):
        slots = [short.acquire() for _ in range(5)]
        for slot in slots:
            short.release(slot, Outcome.OK)
        world.advance(3)
    slots = [short.acquire() for _ in range(5)]
    ask(world.limiter(), max_wait=0)

    for slot in slots:
        short.release(slot, Outcome.UNSENT)

    assert verdicts(world.limiter(), 1) == ["refused"]


def test_a_longer_window_is_full_even_for_slots_of_a_larger_limit(connection: Connection) -> None:
    world = World(connection)
    for _ in range(3):
        spend(world, 3, max_calls=3, window_seconds=2)
        world.advance(4)
    assert verdicts(world.limiter(max_calls=3), 1) == ["refused"]

    assert verdicts(world.limiter(max_calls=50), 1) == ["refused"]


def test_a_shorter_window_holds_at_once(connection: Connection) -> None:
    world = World(connection)
    spend(world, 5)
    world.advance(10)

    assert verdicts(world.limiter(window_seconds=5), 6) == ["granted"] * 5 + ["refused"]


def test_while_hosts_disagree_the_strictest_rules_hold(connection: Connection) -> None:
    world = World(connection)
    strict = world.limiter(host="strict", max_calls=2, min_spacing_seconds=0)
    strict.release(strict.acquire(), Outcome.UNSENT)
    longer = world.limiter(host="longer", window_seconds=100, margin_seconds=3, **UNLIMITED)
    ask(longer, max_wait=0)

    answer = ask(world.limiter(host="other", max_calls=50), max_wait=0)

    key = world.key()
    assert answer["verdict"] == "refused"  # the window has grown
    assert (key["max_calls"], key["window_length"].total_seconds(), key["margin"].total_seconds()) == (2, 100, 3)
    world.advance(110)
    assert verdicts(world.limiter(host="other", max_calls=50), 3) == ["granted"] * 2 + ["refused"]


def test_a_host_that_is_gone_for_10_minutes_rules_no_more_and_leaves_no_row(connection: Connection) -> None:
    world = World(connection)
    spend(world, 1, Outcome.UNSENT, host="gone", max_calls=2)
    world.advance(300)
    assert verdicts(world.limiter(), 3) == ["granted"] * 2 + ["refused"]
    world.advance(310)

    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]
    assert [row["host"] for row in connection.execute("select host from assetbatch.rate_limit_hosts")] == ["host"]


def test_a_new_key_inherits_the_busy_slots_of_the_old(connection: Connection) -> None:
    world = World(connection)
    spend(world, 2)
    world.advance(30)
    world.limiter().acquire()  # on its way

    new = world.limiter(key="new")

    assert verdicts(new, 3) == ["granted"] * 2 + ["refused"]
    world.advance(COOLDOWN - 30)
    assert verdicts(new, 3) == ["granted"] * 2 + ["refused"]
    world.advance(HOLD)
    assert verdicts(new, 1) == ["refused"]
    world.advance(30)
    assert verdicts(new, 4) == ["granted"] * 3 + ["refused"]


def test_a_new_key_inherits_answers_that_came_after_their_hold(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    slots = [limiter.acquire() for _ in range(5)]
    world.advance(HOLD + COOLDOWN)
    for slot in slots:
        limiter.release(slot, Outcome.OK)

    assert verdicts(world.limiter(key="new"), 1) == ["refused"]
    world.advance(COOLDOWN - 10)
    assert verdicts(world.limiter(key="new"), 1) == ["refused"]
    world.advance(10)
    assert verdicts(world.limiter(key="new"), 6) == ["granted"] * 5 + ["refused"]


def test_a_new_key_that_has_asked_is_not_held_up_by_late_answers_to_the_old(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    slots = [limiter.acquire() for _ in range(5)]
    assert verdicts(world.limiter(key="new"), 1) == ["refused"]
    world.advance(HOLD + COOLDOWN)

    for slot in slots:
        limiter.release(slot, Outcome.OK)

    assert verdicts(world.limiter(key="new"), 6) == ["granted"] * 5 + ["refused"]


def test_a_new_key_inherits_from_the_key_used_last_even_when_its_slots_are_gone(connection: Connection) -> None:
    world = World(connection)
    spend(world, 1, None)
    for _ in range(2):
        second = world.limiter(key="second", window_seconds=2)
        for slot in [second.acquire(max_wait_seconds=0) for _ in range(4)]:
            second.release(slot, Outcome.OK)
        world.advance(3)
    verdicts(world.limiter(key="second", max_calls=1, window_seconds=2), 1)
    left = world.row("select count(*) as n from assetbatch.rate_limit_slots where key_fingerprint = 'second'")
    assert left["n"] == 1

    assert verdicts(world.limiter(key="third"), 1) == ["refused"]
    world.advance(HOLD + COOLDOWN)
    assert verdicts(world.limiter(key="third"), 6) == ["granted"] * 5 + ["refused"]


def test_a_new_key_inherits_a_refusal(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=60)

    answer = ask(world.limiter(key="new"))

    assert answer["verdict"] == "wait"
    assert world.key("new")["blocked_until"] == world.key()["blocked_until"]
    assert world.key("new")["spaced_until"] == world.key()["spaced_until"]


@pytest.mark.parametrize("rules", [UNLIMITED, {"window_seconds": 2.0, "margin_seconds": 0.0}])
def test_a_new_key_with_stricter_rules_begins_full(connection: Connection, rules: dict[str, Any]) -> None:
    world = World(connection)
    spend(world, 1)
    world.advance(700)  # the slot of a limited past is no excuse
    for _ in range(3):
        spend(world, 2, **rules)
        world.advance(3)

    assert verdicts(world.limiter(key="new"), 1) == ["refused"]
    world.advance(HOLD + COOLDOWN)
    assert verdicts(world.limiter(key="new"), 6) == ["granted"] * 5 + ["refused"]


def test_keys_that_are_new_at_the_same_time_do_not_lock_each_other_out(database: str, connection: Connection) -> None:
    spend(World(connection), 5)
    barrier = Barrier(6)

    def begin(number: int) -> list[str]:
        with open_database(database) as own:
            keys = [f"key{number % 3}", f"key{(number + 1) % 3}", "key"]
            limiters = [
                RateLimiter(own, key=key, host="host", rules=RULES, lane=Lane.QUEUE, pause=time.sleep) for key in keys
            ]
            barrier.wait()
            return [verdict for limiter in limiters for verdict in verdicts(limiter, 2)]

    with ThreadPoolExecutor(6) as pool:
        assert [set(found) for found in pool.map(begin, range(6))] == [{"refused"}] * 6


def blocked(world: World) -> None:
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.LIMITED)


def spaced(world: World) -> None:
    limiter = world.limiter(min_spacing_seconds=12)
    limiter.release(limiter.acquire(), Outcome.UNKNOWN)


def queued(world: World) -> None:
    spend(world, 5)
    for lane in Lane:
        ask(world.limiter(lane))


def running(world: World) -> None:
    world.limiter(Lane.PRIORITY).acquire(calls_after=4)


def foreseen(world: World) -> None:
    spend(world, 1)
    foreseeing = world.limiter(Lane.PRIORITY).foreseeing(calls=4, due=world.now(), every_seconds=300, grace_seconds=10)
    world.connection.ask(foreseeing)


def stricter_host(world: World) -> None:
    spend(world, 1, host="gone", max_calls=1)


def crashed(world: World) -> None:
    spend(world, 5, None)


def unlimited(world: World) -> None:
    spend(world, 50, max_calls=None, max_calls_per_second=1000)


@pytest.mark.parametrize(
    "before",
    [blocked, spaced, queued, running, foreseen, stricter_host, crashed, unlimited],
    ids=lambda each: each.__name__,
)
def test_a_clock_that_is_set_back_heals(connection: Connection, before: Callable[[World], None]) -> None:
    world = World(connection)
    before(world)

    world.advance(-YEAR)
    ask(world.limiter(), max_wait=0)
    # The longest that anything is remembered: spacing, for an hour. Two due times have passed as well.
    for seconds in (700, 3600):
        world.advance(seconds)
        ask(world.limiter(), max_wait=0)
    world.advance(HOLD + COOLDOWN)

    assert verdicts(world.limiter(), 6) == ["granted"] * 5 + ["refused"]
    assert world.count("rate_limit_waiters") == 0
    assert world.count("rate_limit_hosts") == 1


@pytest.mark.parametrize("before", [blocked, queued, running, crashed], ids=lambda each: each.__name__)
def test_a_clock_that_is_set_back_costs_no_more_than_a_hold_and_a_window(
    connection: Connection, before: Callable[[World], None]
) -> None:
    world = World(connection)
    before(world)
    world.advance(-YEAR)
    ask(world.limiter(Lane.PRIORITY), max_wait=0)

    world.advance(HOLD + COOLDOWN)

    assert verdicts(world.limiter(Lane.PRIORITY), 1) == ["granted"]


def test_a_clock_that_is_set_back_gives_no_slot_away(connection: Connection) -> None:
    world = World(connection)
    spend(world, 2)
    spend(world, 3, None)

    world.advance(-YEAR)

    assert verdicts(world.limiter(), 1) == ["refused"]
    world.advance(COOLDOWN - 10)
    assert verdicts(world.limiter(), 1) == ["refused"]


def test_an_unlimited_plan_takes_no_slots(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(**UNLIMITED)

    slots = [limiter.acquire() for _ in range(10)]

    assert {(slot.token, slot.calls_in_window) for slot in slots} == {(None, None)}
    assert world.count("rate_limit_slots") == world.count("rate_limit_waiters") == 0
    assert all(limiter.release(slot, Outcome.OK) for slot in slots)


def test_an_unlimited_plan_is_polite(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=None, max_calls_per_second=0.5)
    limiter.release(limiter.acquire(), Outcome.OK)

    # The next turn is in 2 s: no place is given out more than a moment ahead, nor two for the same time.
    assert ask(limiter, max_wait=0)["verdict"] == "refused"
    answer = ask(limiter)
    assert answer["verdict"] == "wait"
    assert 1 < answer["wait_seconds"] <= 2
    turns = []
    for _ in range(5):
        limiter.acquire()
        turns.append(world.key()["next_call_at"])
        assert (turns[-1] - world.now()).total_seconds() <= 2.1
    assert len(world.pauses) >= 5
    assert max(world.pauses) <= 2


def test_an_unlimited_plan_without_bound_never_waits(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=None, max_calls_per_second=None)

    for _ in range(10):
        limiter.acquire(max_wait_seconds=0)

    assert world.pauses == []


def test_a_refusal_blocks_an_unlimited_plan(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(**UNLIMITED)
    limiter.release(limiter.acquire(), Outcome.LIMITED)

    with_patience = ask(limiter)
    assert (with_patience["verdict"], with_patience["wait_seconds"], with_patience["ticket"]) == ("wait", 15, None)
    refused = ask(limiter, max_wait=50)
    assert refused["verdict"] == "refused"
    assert 50 < refused["wait_seconds"] <= COOLDOWN
    world.advance(COOLDOWN)
    assert ask(limiter, max_wait=0)["verdict"] == "granted"


def test_an_unlimited_plan_that_was_refused_goes_on_one_call_at_a_time_for_an_hour(connection: Connection) -> None:
    world = World(connection)
    limiter, other = world.limiter(**UNLIMITED), world.limiter(Lane.PRIORITY, **UNLIMITED)
    in_flight = [limiter.acquire() for _ in range(3)]
    # The first one nobody foresaw; the others were on their way.
    assert [limiter.release(slot, Outcome.LIMITED) for slot in in_flight] == [False, True, True]
    world.advance(COOLDOWN)

    for _ in range(12):
        slot = limiter.acquire(calls=8)
        assert (slot.calls, slot.token is None) == (1, False)
        assert ask(other, max_wait=5)["verdict"] == "refused"
        assert limiter.release(slot, Outcome.OK)
        assert ask(other, max_wait=11)["verdict"] == "refused"
        world.advance(12)
    assert world.count("rate_limit_waiters") == 0
    world.advance(3600)
    assert {limiter.acquire().token for _ in range(10)} == {None}


def test_an_unlimited_plan_that_is_refused_while_it_is_spaced_waits_anew(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(**UNLIMITED)
    limiter.release(limiter.acquire(), Outcome.LIMITED)
    world.advance(COOLDOWN)

    assert not limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=30)

    assert 29 < ask(limiter, max_wait=0)["wait_seconds"] <= 30
    world.advance(3590)
    assert limiter.acquire().token is not None


def test_a_limit_after_a_refusal_without_one_still_waits_for_what_no_slot_remembers(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(**UNLIMITED)
    limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=1)
    world.advance(1)
    limiter.release(limiter.acquire(), Outcome.OK)

    assert ask(world.limiter(), max_wait=HOLD + COOLDOWN - 5)["verdict"] == "refused"


def test_what_was_granted_for_later_is_void_after_a_refusal_meanwhile(connection: Connection) -> None:
    world = World(connection)

    def refused_meanwhile(seconds: float) -> None:
        if not world.pauses:
            limiter.release(first, Outcome.LIMITED)
        world.sleep(seconds)

    limiter = world.limiter(max_calls=None, max_calls_per_second=20, pause=refused_meanwhile)
    first = limiter.acquire()

    assert limiter.acquire().token is not None

    assert sum(world.pauses) > COOLDOWN - 1


def test_rules_have_a_hold_that_bounds_the_request() -> None:
    assert RULES.hold_seconds == RULES.request_seconds + 10 == HOLD
