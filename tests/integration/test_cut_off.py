"""Connections that break in the middle of a run: what it held is given back, and no item pays for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest

from assetbatch.database import queue
from assetbatch.errors import AssetbatchError
from assetbatch.sandbox.server import Sandbox
from tests import world as worlds
from tests.conftest import API_KEY
from tests.proxy import Cut, Proxy
from tests.world import NO_ASSETS, QUICK, UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection

CLAIM = b"set state = 'leased'"
SYMBOLS = tuple(f"T{number}USD" for number in range(1, 61))


class World(worlds.World):
    """A world whose runs reach the database through a proxy."""

    KEYS: ClassVar = {"batch": NO_ASSETS, "rate_limiting": QUICK, "bars": "{enabled: false}"}

    def rows(self, *columns: str) -> set[tuple[Any, ...]]:
        rows = self.connection.execute("select * from assetbatch.queue").fetchall()
        return {tuple(row[column] for column in columns) for row in rows}

    def held(self) -> dict[str, Any]:
        """Count what is held by a token."""
        found = self.connection.execute(
            """
            select (select count(*) from assetbatch.queue where state = 'leased') as items,
                   (select count(*) from assetbatch.bar_state where token is not null) as bars,
                   (select count(*) from assetbatch.daily_figures where token is not null) as days,
                   (select count(*) from assetbatch.leases where name <> 'pruning') as leases
            """
        ).fetchone()
        assert found is not None
        return found


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    with Proxy(database) as proxy:
        yield proxy


@pytest.fixture
def world(connection: Connection, proxy: Proxy, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, proxy.conninfo, sandbox, tmp_path)


def once(words: bytes, where: Cut) -> Any:
    """Cut at the first request that has these words in it."""
    seen: list[int] = []

    def cut(number: int, request: bytes) -> Cut | None:
        if words not in request or seen:
            return None
        seen.append(number)
        return where

    return cut


@pytest.mark.parametrize("where", list(Cut))
@pytest.mark.parametrize("sections", [{}, {"rate_limiting": UNLIMITED, "provider": "{batch_size: 1}"}])
def test_a_claim_whose_answer_is_lost_is_given_back_with_its_attempt(
    world: World, proxy: Proxy, where: Cut, sections: dict[str, Any]
) -> None:
    world.add(*SYMBOLS)
    world.enqueue(SYMBOLS)
    proxy.cut = once(CLAIM, where)

    with pytest.raises(psycopg.OperationalError):
        world.drain(queue="{retry_max_attempts: 0}", shared=False, **sections)

    assert world.rows("state", "attempts", "error") == {("queued", 0, None)}
    assert not any(world.held().values())
    row = world.connection.execute("select status, exit_code from assetbatch.runs order by id desc limit 1").fetchone()
    assert row == {"status": "failed", "exit_code": 69}
    result = world.drain(queue="{retry_max_attempts: 0}", **sections)
    assert (len(result.updated), result.dead, result.remaining) == (60, (), 0)


def test_a_claim_that_arrives_after_its_run_has_ended_comes_to_nothing(world: World) -> None:
    world.add(*SYMBOLS[:2])
    world.enqueue(SYMBOLS[:2])
    rows = world.connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, status, finished_at)"
        " values ('drain-queue', 'a', '1', 'free', 'running', null),"
        " ('drain-queue', 'a', '1', 'free', 'failed', now()) returning id"
    ).fetchall()
    lives, ended = (row["id"] for row in rows)

    def claim(run_id: int) -> list[queue.Item]:
        return queue.claim(
            world.connection, limit=1, alone=False, max_length=600, added_length=5, lease_seconds=60, run_id=run_id
        )

    assert (len(claim(ended)), len(claim(lives))) == (0, 1)


@pytest.mark.parametrize(("exit_code", "attempts"), [(None, 1), (1, 1), (69, 0), (143, 0)])
def test_only_a_run_that_was_killed_or_met_a_bug_costs_an_attempt(
    world: World, exit_code: int | None, attempts: int
) -> None:
    world.add("T1USD")
    world.enqueue(("T1USD",))
    row = world.connection.execute(
        "insert into assetbatch.runs (job, host, version, plan) values ('drain-queue', 'a', '1', 'free') returning id"
    ).fetchone()
    assert row is not None
    assert queue.claim(
        world.connection, limit=1, alone=False, max_length=600, added_length=5, lease_seconds=0, run_id=row["id"]
    )
    if exit_code is not None:
        ended = "update assetbatch.runs set status = 'failed', finished_at = now(), exit_code = %s where id = %s"
        world.connection.execute(ended, [exit_code, row["id"]])

    found = queue.bring_back(world.connection, retries=0)

    assert (found.dead, found.expired) == ((["T1USD"], []) if attempts else ([], ["T1USD"]))
    assert world.rows("attempts", "error_kind") == {(attempts, "worker_lost" if attempts else None)}


@pytest.mark.parametrize("where", list(Cut))
@pytest.mark.parametrize("words", [b"insert into assetbatch.bar_state", b"insert into assetbatch.daily_figures"])
def test_the_right_to_ask_for_bars_or_a_day_is_given_back_too(
    world: World, proxy: Proxy, where: Cut, words: bytes
) -> None:
    world.add(*SYMBOLS[:2])
    world.enqueue(SYMBOLS[:2])
    sections: dict[str, Any] = (
        {"bars": "{enabled: true}"} if b"bar_state" in words else {"provider": "{mode: end_of_day}"}
    )
    proxy.cut = once(words, where)

    with pytest.raises(psycopg.OperationalError):
        world.drain(queue="{retry_max_attempts: 0}", **sections)

    assert not any(world.held().values())


# --- Every message of a run


FOUR = SYMBOLS[:4]
MODES: dict[str, dict[str, Any]] = {
    "limited": {
        "provider": "{batch_size: 2}",
        "rate_limiting": "{calls_per_minute: 5, window_seconds: 0.2, margin_seconds: 0.05}",
    },
    "unlimited": {"provider": "{batch_size: 1}", "rate_limiting": UNLIMITED},
}

FORGET = """
truncate trading.symbols, data_sources.data_sync_status, assetbatch.assets, assetbatch.sync_state, assetbatch.queue,
         assetbatch.outbox, assetbatch.runs, assetbatch.api_calls, assetbatch.leases, assetbatch.rate_limits,
         assetbatch.rate_limit_slots, assetbatch.rate_limit_waiters, assetbatch.rate_limit_hosts cascade
"""

SEEN = """
select s.symbol, s.metadata #>> '{last_update,timestamp}' as stored,
       array_agg(o.payload ->> 'timestamp' order by o.seq) filter (where o.seq is not null) as told,
       count(*) filter (where o.published_at is null and o.seq is not null) as pending
from trading.symbols s left join assetbatch.outbox o using (symbol)
group by s.symbol, s.metadata order by s.symbol
"""


def seen(world: World) -> list[tuple[str, str | None, list[str], int]]:
    """Read for each symbol the time of its price, those of its events in order, and how many of these wait."""
    return [(row["symbol"], row["stored"], row["told"] or [], row["pending"]) for row in world.connection.execute(SEEN)]


def is_whole(world: World) -> bool:
    """Return whether each price is the newest that was told, and each was told once."""
    return all(
        told == sorted(set(told)) and (told[-1] if told else None) == stored for _, stored, told, _ in seen(world)
    )


def run_cut_at(world: World, proxy: Proxy, number: int, where: Cut, sections: dict[str, Any]) -> bool:
    """Drain the queue with the connection cut at a request; return whether there was such a request."""
    before = len(proxy.requests)
    proxy.cut = lambda count, _request: where if count == before + number else None
    with suppress(psycopg.OperationalError, AssetbatchError):
        world.drain(queue="{retry_max_attempts: 0}", **sections)
    proxy.cut = lambda _count, _request: None
    return len(proxy.requests) >= before + number


@pytest.mark.slow
@pytest.mark.parametrize("where", list(Cut))
@pytest.mark.parametrize("mode", MODES)
def test_wherever_a_drain_is_cut_off_nothing_is_lost_or_told_twice_and_no_attempt_is_charged(
    connection: Connection, proxy: Proxy, tmp_path: Path, mode: str, where: Cut
) -> None:
    sections, limit = MODES[mode], 5 if mode == "limited" else None
    number, is_there = 0, True
    while is_there:
        number += 1
        connection.execute(FORGET)
        with Sandbox(key=API_KEY, plan="starter", limit=limit, window_seconds=0.2) as server:
            world = World(connection, proxy.conninfo, server, tmp_path)
            world.add(*FOUR)
            world.enqueue(FOUR)

            is_there = run_cut_at(world, proxy, number, where, sections)

            # What is stored is told, what is not waits, and nothing else.
            point = f"request {number} of {sections}"
            assert is_whole(world), point
            rows = connection.execute("select symbol, state, attempts from assetbatch.queue").fetchall()
            assert {(row["state"], row["attempts"]) for row in rows} <= {("queued", 0)}, point
            done = {symbol for symbol, stored, _, _ in seen(world) if stored}
            assert sorted([*done, *(row["symbol"] for row in rows)]) == sorted(FOUR), point
            # Its process is gone by now.
            connection.execute("update assetbatch.runs set pid_started = 0")
            result = world.drain(queue="{retry_max_attempts: 0}", **sections)
            assert (result.exit_code, result.dead, result.remaining) == (0, (), 0), point
            assert is_whole(world), point
            assert {(symbol, pending) for symbol, stored, _, pending in seen(world) if stored} == {
                (symbol, 0) for symbol in FOUR
            }, point
            assert not any(world.held().values()), point
            assert 429 not in {one.status for one in server.arrivals}, point
    assert number > 20
