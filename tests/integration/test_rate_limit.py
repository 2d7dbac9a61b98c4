"""Slots and what becomes of them: one test a rule. `World` lets hours pass in no time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import IsolationLevel, sql

from assetbatch.database import rate_limit
from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules, Slot
from assetbatch.database.setup import schema
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Product
from tests.conftest import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.embedded import EmbeddedServer

RULES = Rules(
    max_calls=5,
    window_seconds=60,
    margin_seconds=1,
    min_spacing_seconds=0,
    max_calls_per_second=100,
    request_seconds=25,
)
HOLD = 35
COOLDOWN = 61
YEAR = 365 * 86400

TABLES = ("rate_limits", "rate_limit_slots", "rate_limit_waiters", "rate_limit_hosts")

TIMES = """
select attname as name
from pg_attribute
where attrelid = ('assetbatch.' || %s::text)::regclass and atttypid = 'timestamptz'::regtype and not attisdropped
"""


def _shift(table: str, columns: list[str]) -> sql.Composed:
    assignments = [
        sql.SQL("{0} = {0} - make_interval(secs => %(seconds)s)").format(sql.Identifier(column)) for column in columns
    ]
    return sql.SQL("update {} set {}").format(sql.Identifier("assetbatch", table), sql.SQL(", ").join(assignments))


def migrated_database(server: EmbeddedServer, name: str) -> str:
    """Make a database for all tests of a module: each begins by emptying the limiter's tables, which is quicker."""
    server.create_database(name)
    conninfo = server.conninfo(name)
    with open_database(conninfo) as connection:
        schema.migrate(connection)
    return conninfo


@pytest.fixture(scope="module")
def database(postgres: EmbeddedServer) -> str:
    return migrated_database(postgres, "rate_limit")


class World:
    """The limiter's tables, empty, and a time of their own."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.pauses: list[float] = []
        self.clear()
        updates = [_shift(table, [row["name"] for row in connection.execute(TIMES, [table])]) for table in TABLES]
        self._shift = sql.SQL("with {}select").format(
            sql.SQL(", ").join(
                sql.SQL("{} as ({})\n").format(sql.Identifier(table), update)
                for table, update in zip(TABLES, updates, strict=True)
            )
        )

    def clear(self) -> None:
        for table in TABLES:
            self.connection.execute(sql.SQL("delete from {}").format(sql.Identifier("assetbatch", table)))

    def advance(self, seconds: float) -> None:
        """Let time pass: every stamp is so much longer ago. Negative: the clock is set back."""
        self.connection.execute(self._shift, {"seconds": seconds})

    def sleep(self, seconds: float) -> None:
        """Sleep as a process is told to."""
        self.pauses.append(seconds)
        self.advance(seconds)

    def limiter(
        self,
        lane: Lane = Lane.QUEUE,
        *,
        key: str = "key",
        host: str = "host",
        pause: Callable[[float], None] | None = None,
        **rules: Any,
    ) -> RateLimiter:
        return RateLimiter(
            self.connection,
            key=key,
            host=host,
            rules=replace(RULES, **rules),
            lane=lane,
            pause=pause or self.sleep,
        )

    def row(self, query: LiteralString, **parameters: object) -> Row:
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return row

    def now(self) -> datetime:
        now: datetime = self.row("select clock_timestamp() as now")["now"]
        return now

    def key(self, key: str = "key") -> Row:
        return self.row("select * from assetbatch.rate_limits where key_fingerprint = %(key)s", key=key)

    def slot(self, slot: Slot) -> Row:
        return self.row("select * from assetbatch.rate_limit_slots where token = %(token)s", token=slot.token)

    def count(self, table: str) -> int:
        statement = sql.SQL("select count(*) as n from {}").format(sql.Identifier("assetbatch", table))
        row = self.connection.execute(statement).fetchone()
        assert row is not None
        return int(row["n"])

    def wakes_after(self, ticket: int, stamp: datetime) -> float:
        """So many seconds after `stamp` the holder of the ticket is to ask again."""
        row = self.row(
            "select extract(epoch from wake_at - %(stamp)s)::float8 as seconds"
            " from assetbatch.rate_limit_waiters where ticket = %(ticket)s",
            ticket=ticket,
            stamp=stamp,
        )
        return float(row["seconds"])


def ask(
    limiter: RateLimiter,
    ticket: int | None = None,
    *,
    max_wait: float = math.inf,
    calls_after: int = 0,
    products: Collection[Product] = (),
) -> Row:
    """Ask once; do not wait."""
    return limiter._ask(ticket, max_wait, calls_after, 1, products=products, lease=None)


def verdicts(limiter: RateLimiter, times: int) -> list[str]:
    """Ask so often without waiting."""
    return [ask(limiter, max_wait=0)["verdict"] for _ in range(times)]


def known(world: World, slot: Slot, outcome: Outcome) -> bool:
    """Release a slot and tell whether it was still this request's."""
    row = world.connection.execute(
        rate_limit.RELEASE, {"key": "key", "token": slot.token, "outcome": outcome, "retry_after": None}
    ).fetchone()
    assert row is not None
    return bool(row["known"])


def test_no_more_than_the_limit_is_granted(connection: Connection) -> None:
    world = World(connection)

    assert verdicts(world.limiter(), 7) == ["granted"] * 5 + ["refused"] * 2


def test_a_slot_is_stamped_at_the_answer(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    slot = limiter.acquire()
    world.advance(20)
    before = world.now()
    limiter.release(slot, Outcome.OK)
    stamps = world.row("select counted_by, clock_timestamp() as after from assetbatch.rate_limit_slots")
    assert before <= stamps["counted_by"] <= stamps["after"]

    world.advance(50)
    answer = ask(limiter)

    assert answer["verdict"] == "wait"
    counted_by = world.row("select counted_by from assetbatch.rate_limit_slots")["counted_by"]
    assert world.wakes_after(answer["ticket"], counted_by) == COOLDOWN


def test_an_unsent_request_gives_its_slot_back(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)

    for _ in range(5):
        limiter.release(limiter.acquire(max_wait_seconds=0), Outcome.UNSENT)

    assert verdicts(limiter, 2) == ["granted", "refused"]


def test_an_unknown_outcome_keeps_the_hold(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    slot = limiter.acquire()
    granted = world.slot(slot)

    limiter.release(slot, Outcome.UNKNOWN)

    row = world.row("select * from assetbatch.rate_limit_slots")
    assert row["token"] is None
    assert row["counted_by"] == granted["counted_by"]
    assert (row["counted_by"] - row["granted_at"]).total_seconds() == HOLD
    world.advance(HOLD + COOLDOWN - 10)
    assert verdicts(limiter, 1) == ["refused"]
    world.advance(10)
    assert verdicts(limiter, 1) == ["granted"]


def test_a_crash_keeps_one_slot_for_hold_window_and_margin_and_no_longer(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    crashed = limiter.acquire()
    for _ in range(4):
        limiter.release(limiter.acquire(max_wait_seconds=0), Outcome.OK)

    world.advance(HOLD + COOLDOWN - 10)
    assert verdicts(limiter, 4) == ["granted"] * 4
    answer = ask(limiter)
    assert answer["verdict"] == "wait"
    assert world.wakes_after(answer["ticket"], world.slot(crashed)["granted_at"]) == HOLD + COOLDOWN

    world.advance(10)
    assert ask(limiter, answer["ticket"])["verdict"] == "granted"
    assert not known(world, crashed, Outcome.OK)


def test_a_late_answer_counts_from_when_it_came(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    slot = limiter.acquire()
    world.advance(HOLD + 20)

    assert known(world, slot, Outcome.OK)

    world.advance(COOLDOWN - 15)
    assert verdicts(limiter, 1) == ["refused"]


@pytest.mark.parametrize(
    ("retry_after", "blocked"),
    [(None, COOLDOWN), (30, 30), (0.2, 1), (-5, 1), (3600, 90), (math.inf, 90), (math.nan, 90)],
)
def test_a_refusal_blocks_all_processes_for_retry_after_or_a_window(
    connection: Connection, retry_after: float | None, blocked: float
) -> None:
    world = World(connection)
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=retry_after)

    key = world.key()
    assert (key["blocked_until"] - key["refused_at"]).total_seconds() == blocked
    world.advance(-5)  # so that a second's block outlasts a slow machine; no stamp is beyond what is possible
    for lane in Lane:
        assert ask(world.limiter(lane, host="another"), max_wait=0)["verdict"] == "refused"
    world.advance(blocked + 5)
    assert ask(world.limiter(Lane.PRIORITY, host="another", min_spacing_seconds=0), max_wait=12)["verdict"] != "refused"


def test_an_unforeseen_refusal_starts_spacing_from_the_answer(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()

    assert not limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=1)

    world.advance(30)
    slot = limiter.acquire(max_wait_seconds=0)
    assert ask(limiter, max_wait=11)["verdict"] == "refused"  # in flight: 12 s from its answer, which is not before now
    world.advance(5)
    limiter.release(slot, Outcome.OK)
    answer = ask(limiter)
    assert answer["verdict"] == "wait"
    assert world.wakes_after(answer["ticket"], world.key()["last_answer_at"]) == 12


def test_a_refusal_of_a_call_granted_before_the_last_refusal_was_foreseen(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    first, second = limiter.acquire(), limiter.acquire()
    limiter.release(first, Outcome.LIMITED, retry_after_seconds=1)
    spaced_until = world.key()["spaced_until"]

    assert limiter.release(second, Outcome.LIMITED, retry_after_seconds=1)
    assert world.key()["spaced_until"] == spaced_until

    world.advance(30)
    third = limiter.acquire()
    assert not limiter.release(third, Outcome.LIMITED, retry_after_seconds=1)


def test_a_refused_request_counts(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=1)
    world.advance(COOLDOWN - 10)

    assert verdicts(limiter, 1) == ["refused"]


def test_spacing_ends_after_an_hour(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.LIMITED, retry_after_seconds=1)

    world.advance(3500)
    slot = limiter.acquire(max_wait_seconds=0)
    assert verdicts(limiter, 1) == ["refused"]
    limiter.release(slot, Outcome.UNSENT)
    world.advance(100)
    assert verdicts(limiter, 6) == ["granted"] * 5 + ["refused"]


def test_min_spacing_is_kept_from_the_answer(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(min_spacing_seconds=13)
    slot = limiter.acquire()
    assert ask(limiter, max_wait=12)["verdict"] == "refused"
    limiter.release(slot, Outcome.OK)

    answer = ask(limiter)

    assert answer["verdict"] == "wait"
    assert world.wakes_after(answer["ticket"], world.key()["last_answer_at"]) == 13


def test_a_crash_does_not_end_spacing_for_good(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(min_spacing_seconds=13)
    limiter.acquire()

    world.advance(HOLD)
    assert verdicts(limiter, 1) == ["refused"]
    world.advance(13)
    assert verdicts(limiter, 1) == ["granted"]


def test_max_wait_refuses_at_once_and_leaves_nothing_behind(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.acquire()

    with pytest.raises(CallError) as caught:
        limiter.acquire(max_wait_seconds=40)

    assert caught.value.kind is FailureKind.NO_SLOT
    assert not caught.value.sent
    assert world.pauses == []
    assert world.count("rate_limit_waiters") == 0


def test_max_wait_that_runs_out_takes_the_ticket_along(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.acquire()
    ticket = ask(limiter)["ticket"]
    assert world.count("rate_limit_waiters") == 1

    assert ask(limiter, ticket, max_wait=5)["verdict"] == "refused"
    assert world.count("rate_limit_waiters") == 0


def test_a_free_slot_is_given_however_short_the_patience(connection: Connection) -> None:
    world = World(connection)

    assert ask(world.limiter(), max_wait=-3)["verdict"] == "granted"
    assert ask(world.limiter(key="other", max_calls=None), max_wait=-3)["verdict"] == "granted"


def test_acquire_sleeps_for_as_long_as_told_and_15_seconds_at_most(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter(max_calls=1)
    limiter.release(limiter.acquire(), Outcome.OK)

    slot = limiter.acquire()

    assert slot.token is not None
    assert len(world.pauses) == 5
    assert all(pause == 15 for pause in world.pauses[:4])
    assert 0 < world.pauses[4] <= 1
    assert world.count("rate_limit_waiters") == 0


def test_a_ticket_is_withdrawn_when_the_pause_is_cut_short(connection: Connection) -> None:
    def interrupted(_: float) -> None:
        assert world.count("rate_limit_waiters") == 1
        raise KeyboardInterrupt

    world = World(connection)
    world.limiter(max_calls=1).acquire()

    with pytest.raises(KeyboardInterrupt):
        world.limiter(max_calls=1, pause=interrupted).acquire()

    assert world.count("rate_limit_waiters") == 0


def test_after_a_pause_of_the_machine_the_slot_goes_back_and_another_is_asked_for(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first two looks at the clock are before and after the first grant; 10 s of the hold are for the way.
    boot_times = iter([0.0, 11.0])
    monkeypatch.setattr(rate_limit, "boot_time", lambda: next(boot_times, 11.0))
    outcomes: list[tuple[Any, Outcome]] = []

    class Observed(RateLimiter):
        def release(self, slot: Slot, outcome: Outcome, *, retry_after_seconds: float | None = None) -> bool:
            outcomes.append((slot.token, outcome))
            return super().release(slot, outcome, retry_after_seconds=retry_after_seconds)

    world = World(connection)
    limiter = Observed(connection, key="key", host="host", rules=RULES, lane=Lane.QUEUE, pause=world.sleep)

    slot = limiter.acquire()

    assert [outcome for _, outcome in outcomes] == [Outcome.UNSENT]
    assert slot.token not in {token for token, _ in outcomes}
    assert slot.send_by == 11 + 10
    assert world.row("select count(*) from assetbatch.rate_limit_slots where counted_by > 'epoch'")["count"] == 1


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_an_isolation_level_that_sees_old_slots_raises(connection: Connection, level: IsolationLevel) -> None:
    world = World(connection)
    connection.plain.isolation_level = level
    limiter = world.limiter()

    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"), connection.transaction():
        limiter.acquire()


def test_a_grant_is_durable_whatever_the_database_is_set_to(connection: Connection) -> None:
    world = World(connection)
    connection.execute("set synchronous_commit = off")

    with connection.transaction():
        world.limiter().acquire()
        assert world.row("show synchronous_commit")["synchronous_commit"] == "local"

    connection.execute("set synchronous_commit = remote_write")
    with connection.transaction():
        world.limiter().acquire()
        assert world.row("show synchronous_commit")["synchronous_commit"] == "remote_write"


def test_no_name_is_looked_up_in_the_search_path(connection: Connection) -> None:
    world = World(connection)
    connection.execute("set search_path = ''")
    limiter = world.limiter(max_calls=1)

    assert verdicts(limiter, 2) == ["granted", "refused"]
    assert ask(limiter)["verdict"] == "wait"
    assert verdicts(world.limiter(key="another"), 1) == ["granted"]


def test_calls_in_the_window_are_told(connection: Connection) -> None:
    world = World(connection)
    limiter = world.limiter()
    limiter.release(limiter.acquire(), Outcome.OK)
    limiter.acquire()

    assert limiter.acquire().calls_in_window == 2


# --- Products without limit beside others


def mixed(world: World, **rules: Any) -> RateLimiter:
    """A host whose currencies are without limit, and whose stocks are not."""
    return world.limiter(**({"exempts": ["currencies"], "max_calls_per_second": None} | rules))


def test_exempt_calls_take_no_slot_and_are_not_counted(connection: Connection) -> None:
    world = World(connection)
    limiter = mixed(world)

    free = [ask(limiter, max_wait=0, products={Product.CURRENCIES}) for _ in range(20)]
    slots = [ask(limiter, max_wait=0, products={Product.STOCKS}) for _ in range(6)]

    assert [(row["verdict"], row["token"]) for row in free] == [("granted", None)] * 20
    assert [row["verdict"] for row in slots] == ["granted"] * 5 + ["refused"]
    assert ask(limiter, max_wait=0, products={Product.CURRENCIES})["verdict"] == "granted"
    # One for both is counted with those that are; so is one that may be about anything.
    assert ask(limiter, max_wait=0, products={Product.CURRENCIES, Product.STOCKS})["verdict"] == "refused"
    assert ask(limiter, max_wait=0)["verdict"] == "refused"


@pytest.mark.parametrize("refused", [Product.CURRENCIES, Product.STOCKS])
def test_after_a_refusal_all_calls_wait_and_take_slots_for_an_hour(connection: Connection, refused: Product) -> None:
    world = World(connection)
    limiter = mixed(world)
    slot = limiter.acquire(products={refused})
    limiter.release(slot, Outcome.LIMITED, retry_after_seconds=20)

    for product in (Product.CURRENCIES, Product.STOCKS):
        row = ask(limiter, max_wait=0, products={product})
        assert (row["verdict"], round(row["wait_seconds"])) == ("refused", 20)
    world.advance(COOLDOWN)
    assert limiter.acquire(max_wait_seconds=0, products={Product.CURRENCIES}).token is not None
    # Spaced evenly, whatever it is about.
    assert ask(limiter, max_wait=0, products={Product.STOCKS})["verdict"] == "refused"
    world.advance(3600)
    assert limiter.acquire(max_wait_seconds=0, products={Product.CURRENCIES}).token is None


@pytest.mark.parametrize("other", [{"exempts": [], "max_calls": 5}, {"exempts": ["stocks"]}])
def test_a_product_is_exempt_where_all_hosts_say_so(connection: Connection, other: dict[str, Any]) -> None:
    world = World(connection)
    paid = world.limiter(max_calls=None, exempts=["currencies", "stocks"], max_calls_per_second=None)
    assert paid.acquire(products={Product.CURRENCIES}).token is None

    verdicts(mixed(world, host="other", **other), 1)

    # What went without a slot may be counted; from then on there is one for each.
    world.advance(HOLD + COOLDOWN)
    assert paid.acquire(products={Product.CURRENCIES}).token is not None
    world.advance(600)
    assert paid.acquire(products={Product.CURRENCIES}).token is None


def test_what_went_without_a_slot_counts_for_the_longest_hold_of_any_host(connection: Connection) -> None:
    world = World(connection)
    mixed(world, request_seconds=115).acquire(products={Product.CURRENCIES})
    mixed(world, request_seconds=25).acquire(products={Product.CURRENCIES})

    row = ask(mixed(world, exempts=[]), max_wait=0, products={Product.CURRENCIES})

    assert 125 < row["wait_seconds"] <= 125 + COOLDOWN


def test_another_key_knows_what_the_old_one_called_without_a_slot(connection: Connection) -> None:
    world = World(connection)
    ask(mixed(world), max_wait=0, products={Product.STOCKS})
    mixed(world).acquire(products={Product.CURRENCIES})

    row = ask(mixed(world, key="new", exempts=[]), max_wait=0, products={Product.CURRENCIES})

    assert row["verdict"] == "refused"
    assert HOLD < row["wait_seconds"] <= HOLD + COOLDOWN


def test_what_is_exempt_no_longer_is_taken_as_counted(connection: Connection) -> None:
    world = World(connection)
    for _ in range(5):
        mixed(world).acquire(products={Product.CURRENCIES})

    row = ask(mixed(world, exempts=[]), max_wait=0, products={Product.CURRENCIES})

    assert row["verdict"] == "refused"
    assert HOLD < row["wait_seconds"] <= HOLD + COOLDOWN
    world.advance(HOLD + COOLDOWN)
    assert verdicts(mixed(world, exempts=[]), 6) == ["granted"] * 5 + ["refused"]
