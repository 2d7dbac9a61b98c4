"""The window holds whatever happens, for hypothesis to refute."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from assetbatch.database.rate_limit import WITHDRAW, Lane, Outcome, RateLimiter, Rules
from tests.integration.test_rate_limit import RULES, World, ask, migrated_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.embedded import EmbeddedServer

# A host's row is written once a minute, so a host may be forgotten a minute before the 10 are over.
HOSTS_REMEMBERED_SECONDS = 9 * 60
DAY = 86400

# What can be done must not depend on what was granted: that is a matter of milliseconds now and then, and hypothesis
# repeats what it has found.
WHICH = st.integers(0, 9)

T = TypeVar("T")


def taken_out(of: list[T], which: int) -> list[T]:
    """Take one thing out, if there is any."""
    return [of.pop(which % len(of))] if of else []


@pytest.fixture(scope="module")
def database(postgres: EmbeddedServer) -> str:
    return migrated_database(postgres, "rate_limit_window")


@dataclass
class Request:
    """One that was allowed, in the adversary's books. Times are seconds of the true time."""

    slot: Row
    limiter: RateLimiter
    counted_by: float
    """The latest instant at which the adversary may still count it."""
    busy_by: dict[str, float]
    """By key: the latest instant at which its books may still have to reckon with it."""


class Window(RuleBasedStateMachine):
    """Several processes, hosts and keys, and an adversary who counts each request when it hurts most.

    A request may be counted at any instant from its grant S to R: when its answer was read, or S + hold if none was (it
    crashed, timed out, or is still on its way). `unsent` ones are never counted.

    Claim. Take any request that is granted under a limit of L calls in W, at S. No half-open window of length W that it
    is counted in holds more than L requests granted up to then, whatever rules those were granted under: another limit
    or window, none at all, an old key. The worst such window ends right after S, so the claim is the same as: of the
    requests granted before S, at most L - 1 have R > S - W.

    A change of rules therefore holds from the first request after it, and looks back over its own whole window. What it
    does not undo is what is on its way: requests granted under laxer rules may be counted after a change to stricter
    ones, beside each other, but never beside a request that was granted under the stricter ones if those make it too
    many. L and W are the strictest of the hosts that have asked with this key during 9 minutes. Requests made with the
    old key after the new one was first used are nobody's: the tool cannot know that two keys are one account. Which key
    was used last is told by the clock alone, so a new key and a clock that was set back do not go together.

    Conversely no allowed call is refused: with nobody ahead, nothing reserved, no block, no spacing, and as many of L
    requests past R + W + margin as it takes, a slot is granted. And nothing is stuck for good: a day later, all L are.
    """

    connection: ClassVar[Connection]

    def __init__(self) -> None:
        super().__init__()
        # Never committed, so that nothing waits for the disk; the clock goes on in a transaction.
        self.transaction = self.connection.transaction(force_rollback=True)
        self.transaction.__enter__()
        self.world = World(self.connection)
        self.configured = {"a": RULES, "b": RULES}
        self.passed = 0.0
        self.generation = 0
        self.keys_with_books: set[str] = set()
        self.key_used_last = ""
        self.in_flight: list[Request] = []
        self.ended: list[Request] = []
        self.waiters: list[tuple[RateLimiter, int]] = []
        self.seen: dict[str, tuple[Rules, float]] = {}
        self.clock_was_set_back = False

    def true_time(self) -> float:
        """Seconds that pass for the vendor, whatever the database's clock is set to."""
        return self._seconds(self.world.now()) + self.passed

    @staticmethod
    def _seconds(stamp: datetime) -> float:
        return stamp.timestamp()

    @rule(seconds=st.one_of(st.floats(0, 100), st.sampled_from([1, 9.5, 35, 60.5, 61, 90, 301, 601, 3601])))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)
        self.passed += seconds

    @rule(seconds=st.sampled_from([20, 1000, 365 * DAY]))
    def set_the_clock_back(self, seconds: float) -> None:
        # The stamps stay where they are while the clock shows less: the same as all of them being later.
        self.world.advance(-seconds)
        self.clock_was_set_back = True

    @rule(
        host=st.sampled_from("ab"),
        max_calls=st.sampled_from([1, 2, 3, 5, None]),
        window=st.sampled_from([2, 20, 60]),
        margin=st.sampled_from([0, 1]),
        spacing=st.sampled_from([0, 0, 0, 4]),
        request_seconds=st.sampled_from([5, 25]),
    )
    def change_rules(
        self, host: str, max_calls: int | None, window: float, margin: float, spacing: float, request_seconds: float
    ) -> None:
        self.configured[host] = Rules(max_calls, window, margin, spacing, 100, request_seconds)

    @rule()
    def rotate_key(self) -> None:
        if self.clock_was_set_back:
            return
        self.generation += 1
        self.waiters.clear()
        self.seen.clear()

    @rule(host=st.sampled_from("ab"), lane=st.sampled_from(Lane), calls_after=st.integers(0, 2), wait=st.booleans())
    def acquire(self, host: str, lane: Lane, calls_after: int, *, wait: bool) -> None:
        self._ask(host, self._limiter(host, lane), None, calls_after, wait=wait)

    @rule(host=st.sampled_from("ab"), calls=st.integers(1, 6))
    def acquire_several(self, host: str, calls: int) -> None:
        for _ in range(calls):
            self._ask(host, self._limiter(host, Lane.QUEUE), None, 0, wait=False)

    @rule(which=WHICH, host=st.sampled_from("ab"))
    def ask_again(self, which: int, host: str) -> None:
        for limiter, ticket in taken_out(self.waiters, which):
            self._ask(host, self._limiter(host, limiter._lane), ticket, 0, wait=True)

    @rule(which=WHICH)
    def withdraw(self, which: int) -> None:
        for _, ticket in taken_out(self.waiters, which):
            self.connection.execute(WITHDRAW, {"key": self._key, "ticket": ticket})

    @rule()
    def kill_waiters(self) -> None:
        self.waiters.clear()

    @rule(which=WHICH, outcome=st.sampled_from([Outcome.OK, Outcome.OK, *Outcome]))
    def release(self, which: int, outcome: Outcome) -> None:
        for request in taken_out(self.in_flight, which):
            self._release(request, outcome)

    @rule()
    def release_all(self) -> None:
        while self.in_flight:
            self._release(self.in_flight.pop(), Outcome.OK)

    @rule(which=WHICH)
    def crash(self, which: int) -> None:
        self.ended += taken_out(self.in_flight, which)

    @rule(calls=st.integers(0, 4), due_in=st.floats(0, 300))
    def foresee(self, calls: int, due_in: float) -> None:
        self.connection.execute(
            "update assetbatch.rate_limits set running_calls = 0, running_until = 'epoch',"
            " foreseen_calls = %s, foreseen_due = clock_timestamp() + make_interval(secs => %s),"
            " priority_seen_at = clock_timestamp() where key_fingerprint = %s",
            [calls, due_in, self._key],
        )

    def teardown(self) -> None:
        """Check that nothing is stuck: a day later all calls are allowed, and no more."""
        try:
            self._check_that_nothing_is_stuck()
        finally:
            self.transaction.__exit__(None, None, None)

    def _check_that_nothing_is_stuck(self) -> None:
        for seconds in (700, DAY):
            ask(self._limiter("a", Lane.QUEUE), max_wait=0)
            self.advance(seconds)
        limiter = self._limiter("a", Lane.QUEUE)
        rules = self.configured["a"]
        first = ask(limiter, max_wait=0)
        assert first["verdict"] == "granted"
        assert self.world.count("rate_limit_waiters") == 0 or self.generation
        if rules.max_calls is not None and not rules.min_spacing_seconds:
            found = [ask(limiter, max_wait=0)["verdict"] for _ in range(rules.max_calls)]
            busy = self._busy(rules)
            assert found[:-1] == ["granted"] * (rules.max_calls - 1)
            assert busy <= rules.max_calls

    def _busy(self, rules: Rules) -> int:
        row = self.world.row(
            "select count(*) as busy from assetbatch.rate_limit_slots"
            " where key_fingerprint = %(key)s and counted_by + make_interval(secs => %(seconds)s) > clock_timestamp()",
            key=self._key,
            seconds=rules.window_seconds + rules.margin_seconds,
        )
        return int(row["busy"])

    @property
    def _key(self) -> str:
        return f"key{self.generation}"

    def _limiter(self, host: str, lane: Lane) -> RateLimiter:
        return RateLimiter(
            self.connection, key=self._key, host=host, rules=self.configured[host], lane=lane, pause=lambda _: None
        )

    def _ask(self, host: str, limiter: RateLimiter, ticket: int | None, calls_after: int, *, wait: bool) -> None:
        self._open_books()
        before = self.true_time()
        answer = ask(limiter, ticket, max_wait=float("inf") if wait else 0, calls_after=calls_after)
        rules = self.configured[host]
        self.seen[host] = (rules, before)
        in_force = [rules for rules, at in self.seen.values() if at > before - HOSTS_REMEMBERED_SECONDS]
        if answer["verdict"] == "granted":
            self._granted(answer, limiter, in_force, before)
            return
        assert answer["wait_seconds"] > 0
        if answer["verdict"] == "wait":
            assert answer["wait_seconds"] <= 15
            if answer["ticket"] is not None:
                self.waiters.append((limiter, answer["ticket"]))
        self._check_that_it_had_to_wait(limiter, answer["ticket"], before)

    def _open_books(self) -> None:
        """Let a key that asks for the first time have the requests as the key used last has them now.

        How they end after that is told to the key that they were made with.
        """
        if self._key in self.keys_with_books:
            return
        self.keys_with_books.add(self._key)
        for request in self.ended + self.in_flight:
            if self.key_used_last in request.busy_by:
                request.busy_by[self._key] = request.busy_by[self.key_used_last]

    def _granted(self, answer: Row, limiter: RateLimiter, in_force: list[Rules], before: float) -> None:
        granted_at = before + answer["wait_seconds"]
        limits = [rules.max_calls for rules in in_force if rules.max_calls is not None]
        if limits:
            assert answer["token"] is not None
            row = self.world.row(
                "select granted_at from assetbatch.rate_limit_slots where token = %(token)s", token=answer["token"]
            )
            granted_at = self._seconds(row["granted_at"]) + self.passed
            window = max(rules.window_seconds for rules in in_force)
            # Stamps have microseconds, these sums some less.
            beside = [each for each in self.ended + self.in_flight if each.counted_by > granted_at - window + 1e-4]
            assert len(beside) < min(limits), f"{len(beside) + 1} requests, of {min(limits)} allowed in {window} s"
        hold = granted_at + limiter.rules.hold_seconds
        self.in_flight.append(Request(answer, limiter, hold, {self._key: hold}))
        self.key_used_last = self._key

    def _check_that_it_had_to_wait(self, limiter: RateLimiter, ticket: int | None, before: float) -> None:
        """Nobody was ahead, nothing blocked, nothing reserved: then all slots were taken."""
        key = self.world.key(self._key)
        now = self.world.now()
        cooldown = key["window_length"].total_seconds() + key["margin"].total_seconds()
        waiting = self.world.row(
            "select count(*) as others from assetbatch.rate_limit_waiters"
            " where key_fingerprint = %(key)s and ticket <> %(ticket)s",
            key=self._key,
            ticket=ticket or 0,
        )
        if (
            self.clock_was_set_back
            or key["max_calls"] is None
            or waiting["others"]
            or (limiter._lane is Lane.QUEUE and (key["foreseen_calls"] or key["running_until"] > now))
            or key["min_spacing"]
            or max(key["blocked_until"], key["spaced_until"]).timestamp() > before - self.passed
            or key["full_by"].timestamp() + cooldown > before - self.passed
        ):
            return
        busy = [
            each for each in self.ended + self.in_flight if each.busy_by.get(self._key, 0) + cooldown > before - 1e-4
        ]
        assert len(busy) >= key["max_calls"]

    def _release(self, request: Request, outcome: Outcome) -> None:
        """Release as a client does: when it has read the answer."""
        row = request.slot
        read_at = self.true_time()
        known = self.connection.execute(
            "select known from assetbatch.release_slot(%s, %s::uuid, %s, %s::float8)",
            [request.limiter._key, row["token"], outcome, None],
        ).fetchone()
        assert known is not None
        released_at = self.true_time()
        if outcome is Outcome.UNSENT:
            request.counted_by = 0
            request.busy_by[request.limiter._key] = 0
        elif outcome is not Outcome.UNKNOWN:
            request.counted_by = min(request.counted_by, read_at)
            if known["known"]:
                request.busy_by[request.limiter._key] = released_at
        self.ended.append(request)


@pytest.mark.parametrize("days", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_no_window_ever_holds_more_than_the_limit(connection: Connection, days: int) -> None:
    Window.connection = connection
    run_state_machine_as_test(
        Window,
        settings=settings(
            max_examples=days,
            stateful_step_count=40,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@contextmanager
def played(connection: Connection) -> Iterator[Window]:
    """Play some steps by hand; the end is checked as always."""
    Window.connection = connection
    window = Window()
    try:
        yield window
    finally:
        window.teardown()


def test_a_key_that_never_got_a_slot_hands_no_books_down(connection: Connection) -> None:
    with played(connection) as window:
        window.acquire_several(calls=5, host="a")
        window.rotate_key()
        window.acquire(host="a", lane=Lane.QUEUE, calls_after=0, wait=False)
        window.advance(seconds=90)
        window.release_all()
        window.rotate_key()
        window.advance(seconds=10)
        window.acquire(host="a", lane=Lane.PRIORITY, calls_after=0, wait=False)

        assert window.in_flight == []
