"""The queue drained in process, against a real database and a server that misbehaves."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from assetbatch import market_hours, planner
from assetbatch.database.errors import translated_errors
from assetbatch.database.queue import items as queue
from assetbatch.errors import DatabaseUnavailableError, Interrupted, SourceMismatchError
from assetbatch.jobs.clock import Stop
from assetbatch.markets import Market
from tests import world as worlds
from tests.conftest import free_port, open_database, wait_until
from tests.world import NO_ASSETS, QUICK, UNLIMITED, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import Enqueued
    from assetbatch.sandbox.server import Sandbox

SOON = 20


class World(worlds.World):
    """A world without assets and bars, but for those that a test puts on the queue."""

    KEYS: ClassVar = {"batch": NO_ASSETS, "rate_limiting": QUICK, "bars": "{enabled: false}"}

    def put(self, *symbols: str, **sections: str) -> Enqueued:
        """Put assets on the queue, behind those that are there; those that are not in the catalogue, there too."""
        known = {row["symbol"] for row in self.connection.execute("select symbol from assetbatch.assets")}
        self.add(*(symbol for symbol in symbols if symbol not in known))
        result = self.enqueue(symbols, **sections)
        assert result.enqueued is not None
        return result.enqueued

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Read the queue by symbol."""
        rows = self.connection.execute("select * from assetbatch.queue order by symbol").fetchall()
        return [tuple(row[column] for column in columns) for row in rows]

    def stored(self) -> set[str]:
        rows = self.connection.execute("select symbol from trading.symbols where metadata ? 'last_update'")
        return {row["symbol"] for row in rows}

    def make_due(self) -> None:
        self.connection.execute("update assetbatch.queue set available_at = clock_timestamp() where state = 'delayed'")

    def asked(self) -> list[set[str]]:
        """Tell for each request which tickers it asked for."""
        return [
            {ticker for ticker in symbols(400) if f"X%3A{ticker}" in one.path or f"X:{ticker}" in one.path}
            for one in self.sandbox.arrivals
        ]


def symbols(count: int) -> tuple[str, ...]:
    return tuple(f"T{number}USD" for number in range(1, count + 1))


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


@pytest.fixture
def gate(pool: ThreadPoolExecutor) -> Iterator[Event]:
    """What answers wait for; it opens before the pool waits for its threads."""
    gate = Event()
    yield gate
    gate.set()


@pytest.fixture
def held(world: World, gate: Event) -> World:
    """A world whose server answers nothing until the gate is open."""
    world.before = lambda: gate.wait(SOON)
    return world


def test_what_waits_is_stored_announced_and_off_the_queue(world: World) -> None:
    assert world.put(*symbols(10)).enqueued == 10

    result = world.drain(shared=False, provider="{batch_size: 4}")

    assert (result.exit_code, result.status, result.remaining) == (0, "ok", 0)
    assert set(result.updated) == world.stored() == set(symbols(10))
    assert result.api_calls_used == len(world.sandbox.arrivals) == 3
    assert world.rows("symbol") == []
    events = world.connection.execute("select symbol from assetbatch.outbox where published_at is not null").fetchall()
    assert sorted(row["symbol"] for row in events) == sorted(symbols(10))
    assert world.connection.execute("select * from assetbatch.leases where name <> 'pruning'").fetchall() == []


@pytest.mark.parametrize(
    ("ticker", "kind"),
    [("NOPEUSD", "unknown_ticker"), ("AAPL", "not_entitled")],
)
def test_a_ticker_that_the_vendor_does_not_serve_is_dead_at_once_and_alone(
    world: World, ticker: str, kind: str
) -> None:
    world.put(*symbols(49), ticker)
    if ticker == "AAPL":
        world.connection.execute("update assetbatch.assets set polygon_ticker = 'AAPL' where symbol = 'AAPL'")

    result = world.drain()

    assert (result.exit_code, result.status, result.dead) == (3, "partial", (ticker,))
    assert (set(result.updated), result.requeued) == (set(symbols(49)), ())
    assert world.rows("symbol", "state", "attempts", "error_kind") == [(ticker, "dead", 1, kind)]
    assert world.put(ticker).dead == 1
    again = world.drain()
    assert (again.exit_code, again.api_calls_used, len(world.sandbox.arrivals)) == (0, 0, 1)


@pytest.mark.parametrize("word", ["400", "404", "404-text", "413"])
@pytest.mark.parametrize("max_items", [None, 16])
def test_a_call_refused_as_a_whole_is_halved_until_the_bad_one_stands_alone(
    world: World, word: str, max_items: int | None
) -> None:
    world.put(*symbols(16))
    world.sandbox.fail = [f"{word}:T7USD"]

    runs = 0
    while not (result := world.drain(max_items=max_items, queue="{retry_max_attempts: 0}")).dead:
        runs += 1
        assert runs < 12
        assert result.exit_code == 0
        assert all(attempts == 0 for (attempts,) in world.rows("attempts"))

    assert (result.exit_code, result.dead) == (3, ("T7USD",))
    assert (runs > 0) == (max_items is not None)
    while result.remaining:
        result = world.drain()
    assert world.stored() == {*symbols(16)} - {"T7USD"}
    assert world.rows("symbol", "state", "attempts") == [("T7USD", "dead", 1)]
    # One call each for 16, 8, 4, 2 and the bad one, and at most one for each good rest.
    assert len(world.sandbox.arrivals) <= 5 + 5


@pytest.mark.parametrize("batch_size", [250, 1])
def test_what_fails_alone_goes_back_later_and_later_and_dies_with_its_last_error(world: World, batch_size: int) -> None:
    sections: dict[str, Any] = {
        "queue": "{retry_max_attempts: 2, retry_delay_seconds: 60}",
        "provider": f"{{batch_size: {batch_size}}}",
    }
    world.put("T1USD", "T2USD")
    world.sandbox.fail = ["zero:T1USD"]

    for attempts in (1, 2):
        result = world.drain(**sections)
        assert (result.exit_code, result.status, result.requeued, result.dead) == (0, "ok", ("T1USD",), ())
        ((state, spent, priority, available_at),) = world.rows("state", "attempts", "priority", "available_at")
        assert (state, spent, priority) == ("delayed", attempts, 4)
        delay = (available_at - result.finished_at).total_seconds()
        assert 60 * 2 ** (attempts - 1) - 10 < delay < 60 * 2 ** (attempts - 1) + 25
        calls = len(world.sandbox.arrivals)
        assert world.drain(**sections).remaining == 1
        assert len(world.sandbox.arrivals) == calls  # it is not due yet
        world.make_due()
    world.sandbox.fail = ["negative:T1USD"]
    result = world.drain(**sections)

    assert (result.exit_code, result.dead, result.remaining) == (3, ("T1USD",), 0)
    ((state, attempts, error),) = world.rows("state", "attempts", "error")
    assert (state, attempts) == ("dead", 3)
    assert "negative" in error
    assert world.stored() == {"T2USD"}


@pytest.mark.parametrize("word", ["500", "timeout", "garbage", "refused", "html"])
def test_an_outage_ends_the_run_after_three_calls_and_blames_nobody(world: World, word: str) -> None:
    world.put(*symbols(12))
    world.sandbox.fail = [] if word == "refused" else [word]
    url = f", base_url: 'http://127.0.0.1:{free_port()}'" if word == "refused" else ""
    if url:
        world.environment["POLYGON_BASE_URL"] = ""
    sections: dict[str, Any] = {
        "provider": f"{{batch_size: 2, timeout_seconds: 0.3, connect_timeout_seconds: 0.3{url}}}",
        "queue": "{retry_max_attempts: 0, retry_delay_seconds: 0}",
    }

    result = world.drain(**sections)

    # What answers, but is not the API, was reached.
    code = 3 if word in {"garbage", "html"} else 69
    assert (result.exit_code, result.status, result.dead, result.remaining) == (code, "failed", (), 12)
    assert result.ended_by is not None
    calls = world.connection.execute("select sent from assetbatch.api_calls").fetchall()
    assert [row["sent"] for row in calls] == [word != "refused"] * 3
    for _ in range(3):
        again = world.drain(**sections)
        assert (again.exit_code, again.dead, again.remaining) == (code, (), 12)
    assert world.rows("state", "attempts") == [("queued", 0)] * 12
    world.sandbox.fail = []
    world.environment.clear()
    assert world.drain().remaining == 0
    assert world.stored() == {*symbols(12)}


@pytest.mark.parametrize("word", ["408", "413", "425", "499"])
def test_what_says_nothing_about_an_asset_is_asked_again_before_it_is_dead(world: World, word: str) -> None:
    world.put(*symbols(3))
    world.sandbox.fail = [f"{word}:T2USD"]
    sections: dict[str, Any] = {
        "provider": "{batch_size: 1}",
        "queue": "{retry_max_attempts: 1, retry_delay_seconds: 3600}",
    }

    result = world.drain(**sections)

    assert (result.exit_code, result.dead, result.requeued) == (0, (), ("T2USD",))
    assert world.rows("symbol", "state", "attempts", "error_kind") == [("T2USD", "delayed", 1, "server_error")]
    world.make_due()
    world.put("T4USD")
    assert world.drain(**sections).dead == ("T2USD",)


def test_a_call_that_is_too_large_is_made_for_fewer_at_once_and_no_attempt_is_spent(world: World) -> None:
    world.put(*symbols(8))
    world.sandbox.fail = ["413:T7USD,", "413:,X:T7USD"]

    result = world.drain(queue="{retry_max_attempts: 0}")

    assert (result.exit_code, set(result.updated), result.requeued) == (0, set(symbols(8)), ())
    assert [one.status for one in world.sandbox.arrivals].count(413) == 3
    assert len(world.sandbox.arrivals) <= 3 + 4


@pytest.mark.parametrize(("word", "exit_code"), [("401-in-200", 77), ("429-in-200", 0)])
def test_a_refusal_that_comes_with_200_blames_nobody(world: World, word: str, exit_code: int) -> None:
    world.put(*symbols(3))
    world.sandbox.fail = [word]

    result = world.drain(
        provider="{batch_size: 1}",
        queue="{retry_max_attempts: 0}",
        max_seconds=3,
        rate_limiting="{calls_per_minute: 5, window_seconds: 9}",
    )

    assert (result.exit_code, result.dead, result.remaining) == (exit_code, (), 3)
    assert len(world.sandbox.arrivals) == 1
    assert world.rows("state", "attempts") == [("queued", 0)] * 3


def test_an_outage_that_begins_meanwhile_ends_the_run_and_is_no_success(world: World) -> None:
    for symbol in symbols(6):
        world.put(symbol)
    world.sandbox.fail = [f"500:{symbol}" for symbol in symbols(6)[2:]]

    result = world.drain(provider="{batch_size: 1}", queue="{retry_max_attempts: 0}")

    assert (result.status, len(world.sandbox.arrivals), result.dead) == ("partial", 5, ())
    assert world.stored() == {"T1USD", "T2USD"}
    assert world.rows("state", "attempts") == [("queued", 0)] * 4
    assert result.exit_code == 3


def test_an_outage_with_many_calls_under_way_blames_nobody(world: World) -> None:
    world.put(*symbols(40))
    world.sandbox.fail = ["500"]

    result = world.drain(
        rate_limiting=UNLIMITED, provider="{batch_size: 1, concurrency: 8}", queue="{retry_max_attempts: 0}"
    )

    assert (result.exit_code, result.dead, result.remaining) == (69, (), 40)
    assert len(world.sandbox.arrivals) < 3 + 8
    assert set(world.rows("state", "attempts")) == {("queued", 0)}


@pytest.mark.parametrize("word", ["500", "timeout"])
def test_one_that_always_breaks_the_answer_dies_and_holds_nobody_up(world: World, word: str) -> None:
    for symbol in symbols(6):
        world.put(symbol)
    world.sandbox.fail = [f"{word}:T1USD"]
    sections: dict[str, Any] = {
        "provider": "{batch_size: 1, timeout_seconds: 0.3}",
        "queue": "{retry_max_attempts: 1, retry_delay_seconds: 3600}",
    }

    result = world.drain(**sections)

    assert (set(result.updated), result.requeued) == ({*symbols(6)} - {"T1USD"}, ("T1USD",))
    assert world.rows("symbol", "state", "attempts", "priority") == [("T1USD", "delayed", 1, 4)]
    world.put("T7USD")
    world.make_due()
    result = world.drain(**sections)
    assert (result.exit_code, result.dead) == (3, ("T1USD",))
    assert "T7USD" in world.stored()


def test_a_batch_that_always_times_out_holds_nobody_up(world: World) -> None:
    for symbol in symbols(12):
        world.put(symbol)
    world.sandbox.fail = ["timeout:T2USD"]
    sections: dict[str, Any] = {
        "provider": "{batch_size: 4, timeout_seconds: 0.4}",
        "queue": "{retry_max_attempts: 1, retry_delay_seconds: 3600}",
    }

    first = world.drain(**sections)

    assert set(first.updated) == {*symbols(12)[4:]}
    assert set(first.requeued) == {*symbols(12)[:4]}
    assert world.rows("state", "attempts", "largest_call") == [("delayed", 0, 2)] * 4
    for _ in range(6):
        world.make_due()
        last = world.drain(**sections)
        if last.dead:
            break
    assert last.dead == ("T2USD",)
    assert world.stored() == {*symbols(12)} - {"T2USD"}


def test_several_that_always_break_the_answer_do_not_starve_those_behind_them(world: World) -> None:
    for symbol in symbols(6):
        world.put(symbol)
    world.sandbox.fail = ["500:T1USD", "500:T2USD", "500:T3USD"]
    sections: dict[str, Any] = {"provider": "{batch_size: 1}", "queue": "{retry_delay_seconds: 0}"}

    for _ in range(5):
        world.drain(**sections)
        world.make_due()

    assert world.stored() == {"T4USD", "T5USD", "T6USD"}


def test_a_refusal_for_being_too_fast_is_waited_for_and_costs_no_attempt(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.put(*symbols(3))
    world.sandbox.fail = ["429-retry-after"]
    run = pool.submit(partial(world.drain, queue="{retry_max_attempts: 0}"))
    wait_until(lambda: world.sandbox.arrivals)
    world.sandbox.fail = []
    wait_until(lambda: world.rows("state", "attempts") == [("queued", 0)] * 3)

    result = run.result(SOON)

    assert (result.exit_code, set(result.updated), result.dead) == (0, set(symbols(3)), ())
    first, second = world.sandbox.arrivals
    assert second.at - first.at >= 2
    assert result.rate_limit_waits >= 1


def test_a_refusal_stops_calls_that_have_not_left_yet(world: World, pool: ThreadPoolExecutor) -> None:
    world.put(*symbols(20))
    world.sandbox.fail = ["429-retry-after"]
    stop = no_stop()
    run = pool.submit(
        partial(
            world.drain,
            stop=stop,
            rate_limiting=UNLIMITED,
            provider="{batch_size: 1, concurrency: 8, max_calls_per_second: 4}",
        )
    )
    wait_until(lambda: world.sandbox.arrivals)
    refused = wait_until(lambda: [one for one in world.sandbox.arrivals if one.status == 429])[0]
    wait_until(lambda: time.monotonic() > refused.at + 1.9)
    stop.requested.set()
    with pytest.raises(Interrupted):
        run.result(SOON)

    # One more may have been leaving just then.
    assert len([one for one in world.sandbox.arrivals if one.at < refused.at + 1.9]) <= 2


@pytest.mark.parametrize("count", [1, 9])
def test_a_refused_key_blames_nobody(world: World, count: int) -> None:
    world.put(*symbols(count))
    world.environment["POLYGON_API_KEY"] = "wrong-key-1234567"

    result = world.drain(provider="{batch_size: 2}", queue="{retry_max_attempts: 0}")

    assert (result.exit_code, result.status, len(world.sandbox.arrivals)) == (77, "failed", 1)
    assert world.rows("state", "attempts") == [("queued", 0)] * count


def test_a_database_of_another_source_is_left_alone(world: World) -> None:
    world.put("T1USD")
    world.connection.execute("insert into assetbatch.meta values ('source', 'api.massive.com')")

    with pytest.raises(SourceMismatchError):
        world.drain()

    assert world.rows("state", "attempts") == [("queued", 0)]
    assert not world.sandbox.arrivals


@pytest.mark.parametrize("table", ["trading.symbols", "assetbatch.outbox"])
def test_a_full_disk_blames_nobody(world: World, table: str) -> None:
    world.put(*symbols(3))
    world.connection.execute(
        f"""
        create function full_disk() returns trigger language plpgsql as
        $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
        create trigger full_disk before insert or update on {table} execute function full_disk()
        """
    )

    with pytest.raises(DatabaseUnavailableError, match="No space left on device"), translated_errors("test"):
        world.drain(queue="{retry_max_attempts: 0}")

    assert world.rows("state", "attempts") == [("queued", 0)] * 3
    world.connection.execute(f"drop trigger full_disk on {table}")
    assert world.drain().remaining == 0
    assert world.stored() == {*symbols(3)}


def test_the_number_of_items_is_kept(world: World) -> None:
    world.put(*symbols(10))

    result = world.drain(max_items=6, provider="{batch_size: 4}")

    assert (len(result.updated), result.remaining, result.exit_code) == (6, 4, 0)
    assert [len(asked) for asked in world.asked()] == [4, 2]


def test_no_call_begins_in_the_last_two_seconds(world: World) -> None:
    world.put(*symbols(40))
    began = time.monotonic()

    result = world.drain(
        max_seconds=4.0,
        provider="{batch_size: 1}",
        rate_limiting="{window_seconds: 0.05, margin_seconds: 0, calls_per_minute: 50, min_spacing_seconds: 0.2}",
    )

    assert result.exit_code == 0
    assert len(result.updated) == len(world.sandbox.arrivals) >= 2
    assert result.remaining == 40 - len(result.updated) > 0
    assert world.sandbox.arrivals[-1].at - began < 3
    assert set(world.rows("state", "attempts")) == {("queued", 0)}


def test_without_a_limit_as_many_calls_are_under_way_as_may_be(held: World, pool: ThreadPoolExecutor) -> None:
    held.put(*symbols(30))
    stop = no_stop()
    run = pool.submit(
        partial(held.drain, stop=stop, rate_limiting=UNLIMITED, provider="{batch_size: 1, concurrency: 8}")
    )
    wait_until(lambda: len(held.sandbox.arrivals) == 8, seconds=SOON)
    assert sum(state == "leased" for (state,) in held.rows("state")) == 8
    stop.requested.set()

    with pytest.raises(Interrupted):
        run.result(SOON)

    assert len(held.sandbox.arrivals) == 8
    assert held.rows("state", "attempts") == [("queued", 0)] * 30


def test_without_a_limit_calls_keep_their_pace(world: World) -> None:
    world.put(*symbols(70))

    result = world.drain(rate_limiting=UNLIMITED, provider="{batch_size: 1, concurrency: 16, max_calls_per_second: 20}")

    assert len(result.updated) == 70
    at = [one.at for one in world.sandbox.arrivals]
    busiest = max(sum(start <= one < start + 1 for one in at) for start in at)
    # Threads wake a little late, so that two calls may be nearer than they left.
    assert busiest <= 20 + 4


def test_a_slow_pace_is_used_up_by_large_calls_too(world: World) -> None:
    world.put(*symbols(10))

    result = world.drain(
        rate_limiting=UNLIMITED,
        provider="{batch_size: 2, concurrency: 8, max_calls_per_second: 2}",
        max_seconds=9,
    )

    # Five calls at two a second take two seconds, and there are seven.
    assert (len(result.updated), result.remaining, len(world.sandbox.arrivals)) == (10, 0, 5)


def test_one_claim_serves_several_large_calls_and_gives_back_what_they_do_not_cover(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two tickers of eight characters fit into a line, of the three that a call may ask for.
    monkeypatch.setattr(planner, "MAX_TICKERS_LENGTH", 35)
    claimed: list[int] = []
    claim = queue.claim

    def noted(*args: Any, **given: Any) -> queue.Batch:
        claimed.append(len(found := claim(*args, **given)))
        return found

    monkeypatch.setattr(queue, "claim", noted)
    world.put(*symbols(7))

    result = world.drain(rate_limiting=UNLIMITED, provider="{batch_size: 3, concurrency: 2}", max_items=7)

    assert (set(result.updated), result.requeued, result.remaining) == (set(symbols(7)), (), 0)
    assert claimed[0] == 5
    assert sorted(len(asked) for asked in world.asked()) == [1, 2, 2, 2]


def test_what_rests_is_done_without_a_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("C:EURGBP", "C:EURCHF")
    world.connection.execute("insert into trading.symbols (symbol) values ('EURGBP')")
    world.connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at, succeeded_at)"
        " values ('EURGBP', clock_timestamp(), clock_timestamp())"
    )
    world.put("T1USD", "EURGBP", "EURCHF")

    def closed_an_hour_ago(market: Market, now: datetime) -> datetime | None:
        return None if market is Market.CRYPTO else now - timedelta(hours=1)

    monkeypatch.setattr(market_hours, "last_close", closed_an_hour_ago)
    result = world.drain()

    assert (result.unchanged, result.remaining, result.exit_code) == (("EURGBP",), 0, 0)
    assert set(result.updated) == {"T1USD", "EURCHF"}
    assert len(world.sandbox.arrivals) == 1
    assert "EURGBP" not in world.sandbox.arrivals[0].path
    world.connection.execute(
        "insert into assetbatch.queue (symbol, priority, waiting_since, rank, served_at, enqueued_at, available_at)"
        " values ('EURGBP', 3, now(), now(), now(), now(), now())"
    )
    assert world.drain(rate_limiting=UNLIMITED).unchanged == ("EURGBP",)
    assert len(world.sandbox.arrivals) == 1


def test_a_row_that_the_platform_deleted_is_not_put_there_again(world: World) -> None:
    world.put("T1USD", "T2USD")
    assert world.drain().remaining == 0
    world.put("T1USD", "T2USD")
    world.connection.execute("delete from data_sources.data_sync_status")
    world.connection.execute("delete from trading.symbols where symbol = 'T1USD'")

    result = world.drain()

    # The price may not have moved since.
    assert (result.exit_code, result.updated + result.unchanged, result.remaining) == (0, ("T2USD",), 0)
    (warning,) = result.warnings
    assert "T1USD" in warning
    assert world.stored() == {"T2USD"}
    assert world.put("T1USD").unmapped == 1


def take_away(world: World) -> None:
    """Let leases run out, and another run bring the items back."""
    world.connection.execute("update assetbatch.queue set leased_until = clock_timestamp() where state = 'leased'")
    assert queue.bring_back(world.connection, retries=3).expired


def claim_all(world: World) -> list[queue.Item]:
    return queue.claim(world.connection, limit=100, alone=False, max_length=6000, added_length=5, lease_seconds=600)


def test_a_failure_is_not_told_of_what_another_run_has_served_just_before_it_is_written(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.put("T1USD")
    world.connection.execute("insert into trading.symbols (symbol, metadata) values ('T1USD', '{}')")
    world.sandbox.fail = ["drop:X:T1USD"]
    with open_database(world.database) as other, other.transaction():
        other.execute("select from trading.symbols for update")
        run = pool.submit(world.drain)
        wait_until(lambda: other.execute("select from pg_locks where not granted").fetchone() is not None)
        other.execute("update assetbatch.queue set token = gen_random_uuid()")
        other.execute(
            "insert into assetbatch.sync_state (symbol, served_at, succeeded_at) values ('T1USD', now(), now())"
        )
    result = run.result(timeout=20)

    assert (result.requeued, result.dead, result.remaining) == ((), (), 1)
    row = world.connection.execute("select error_kind from assetbatch.sync_state").fetchone()
    assert row == {"error_kind": None}
    assert world.rows("state", "error_kind") == [("leased", None)]


def test_nobody_ends_an_item_that_another_run_has_taken_over(
    held: World, pool: ThreadPoolExecutor, gate: Event
) -> None:
    held.put("T1USD", "T2USD", "NOPEUSD")
    run = pool.submit(held.drain)
    wait_until(lambda: held.sandbox.arrivals)
    take_away(held)
    theirs = {(item.asset.symbol, item.token) for item in claim_all(held)}
    gate.set()

    result = run.result(SOON)

    assert {*held.rows("symbol", "token")} == theirs
    assert (result.dead, result.requeued, result.exit_code) == ((), (), 0)
    # What came is as good as if it had come from the other run.
    assert held.stored() == {"T1USD", "T2USD"}


class Sluggish(Stop):
    """Comes back from waiting late, as on a busy machine: what landed meanwhile is seen together."""

    def wait_for(self, event: Event, seconds: float) -> None:
        super().wait_for(event, seconds)
        if event.is_set():
            time.sleep(0.3)


@pytest.mark.parametrize("stop", [Stop, Sluggish])
def test_a_run_outlives_taking_over_what_it_has_lost_itself(
    held: World, pool: ThreadPoolExecutor, gate: Event, stop: type[Stop]
) -> None:
    held.put("T1USD", "T2USD")
    run = pool.submit(
        partial(
            held.drain,
            stop=stop(lambda: Interrupted(signal.SIGTERM)),
            rate_limiting=UNLIMITED,
            provider="{batch_size: 2, concurrency: 2}",
        )
    )
    wait_until(lambda: held.sandbox.arrivals)
    take_away(held)
    wait_until(lambda: len(held.sandbox.arrivals) == 2)
    gate.set()

    result = run.result(SOON)

    assert (result.exit_code, held.rows("symbol")) == (0, [])
    assert held.stored() == {"T1USD", "T2USD"}


def test_one_that_another_run_has_taken_over_is_not_blamed(world: World, pool: ThreadPoolExecutor) -> None:
    world.put("T1USD")
    world.sandbox.fail = ["timeout"]
    run = pool.submit(partial(world.drain, provider="{batch_size: 1, timeout_seconds: 2}", queue="{lease_seconds: 60}"))
    wait_until(lambda: world.sandbox.arrivals)
    take_away(world)
    world.sandbox.fail = []
    assert world.drain(provider="{batch_size: 1}").updated == ("T1USD",)

    assert run.result(SOON).dead == ()

    states = world.connection.execute("select error_kind from assetbatch.sync_state").fetchall()
    statuses = world.connection.execute("select sync_status from data_sources.data_sync_status").fetchall()
    assert (states, statuses) == ([{"error_kind": None}], [{"sync_status": "success"}])


def test_leases_shorter_than_a_call_are_renewed(held: World, pool: ThreadPoolExecutor, gate: Event) -> None:
    held.put("T1USD")
    run = pool.submit(partial(held.drain, queue="{lease_seconds: 1}"))
    (until,) = wait_until(lambda: [until for (until,) in held.rows("leased_until") if until])
    wait_until(lambda: held.rows("leased_until")[0][0] - until > timedelta(seconds=2))
    gate.set()

    assert run.result(SOON).updated == ("T1USD",)


def test_what_comes_home_right_after_a_signal_is_stored(held: World, pool: ThreadPoolExecutor, gate: Event) -> None:
    held.put(*symbols(4))
    stop = no_stop()
    run = pool.submit(partial(held.drain, stop=stop, provider="{batch_size: 2}"))
    wait_until(lambda: held.sandbox.arrivals)
    stop.requested.set()
    gate.set()

    with pytest.raises(Interrupted):
        run.result(SOON)

    assert len(held.sandbox.arrivals) == 1
    assert held.stored() == held.asked()[0]
    assert held.rows("state", "attempts") == [("queued", 0)] * 2


class StopAfterTrouble(Stop):
    """Asks the run to end during its first pause, once `ready` says so and answers have had time to come."""

    def __init__(self, ready: Callable[[], object]) -> None:
        super().__init__(lambda: Interrupted(signal.SIGTERM))
        self.ready = ready

    def pause(self, seconds: float) -> None:
        if not self.requested.is_set():
            wait_until(self.ready)
            time.sleep(seconds)
            self.requested.set()
        super().pause(seconds)


def test_what_came_home_beside_a_failure_is_stored_at_a_signal(world: World) -> None:
    world.put(*symbols(3))
    world.sandbox.fail = ["500:T1USD", "500:T3USD"]
    stop = StopAfterTrouble(lambda: len(world.sandbox.arrivals) == 3)

    with pytest.raises(Interrupted):
        # A moment apart, so that the first has failed before the others have an answer.
        world.drain(
            stop=stop,
            rate_limiting=UNLIMITED,
            provider="{batch_size: 1, concurrency: 3, max_calls_per_second: 30}",
        )

    assert world.stored() == {"T2USD"}
    # The good answer may tell that the first failure was its own fault.
    assert {symbol for symbol, state in world.rows("symbol", "state") if state != "leased"} == {"T1USD", "T3USD"}


def test_a_ticker_too_long_for_any_request_holds_nobody_up(world: World) -> None:
    world.put("T1USD")
    world.put("T2USD")
    world.connection.execute(
        "update assetbatch.assets set polygon_ticker = 'X:' || repeat('T', 7000) where symbol = 'T1USD'"
    )

    world.drain(max_seconds=5)

    assert world.stored() == {"T2USD"}


def test_a_second_run_waits_for_the_first_and_then_has_its_turn(
    held: World, pool: ThreadPoolExecutor, gate: Event
) -> None:
    held.put("T1USD")
    first = pool.submit(partial(held.drain, shared=False))
    wait_until(lambda: held.sandbox.arrivals)
    second = pool.submit(partial(held.drain, shared=False))
    wait_until(lambda: held.connection.execute("select from assetbatch.runs where job = 'drain-queue'").rowcount == 2)
    gate.set()

    assert first.result(SOON).updated == ("T1USD",)
    assert (second.result(SOON).status, second.result().updated) == ("ok", ())
    assert len(held.sandbox.arrivals) == 1


def test_an_asset_whose_row_another_transaction_keeps_goes_back_and_the_others_are_stored(world: World) -> None:
    names = symbols(4)
    world.put(*names)
    world.connection.execute("insert into trading.symbols (symbol) select unnest(%s::text[])", [list(names)])
    with open_database(world.database) as platform, platform.transaction():
        platform.execute("select from trading.symbols where symbol = 'T2USD' for update")

        result = world.drain()

    assert (result.exit_code, result.failed, result.dead) == (0, (), ())
    assert (set(result.updated), result.requeued) == ({"T1USD", "T3USD", "T4USD"}, ("T2USD",))
    assert result.api_calls_used == 1
    (warning,) = result.warnings
    assert "another transaction keeps the rows locked: T2USD" in warning
    assert world.rows("symbol", "state", "attempts", "error") == [("T2USD", "delayed", 0, None)]

    world.make_due()
    assert world.drain().updated == ("T2USD",)
