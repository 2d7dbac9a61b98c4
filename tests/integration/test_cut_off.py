"""Connections that break in the middle of a run: what it held is given back, and no item pays for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest

from assetbatch.database.queue import items as queue
from tests import world as worlds
from tests.relay import Relay, Where
from tests.world import NO_ASSETS, QUICK, UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox

CLAIM = b"set state = 'leased'"
SYMBOLS = tuple(f"T{number}USD" for number in range(1, 61))


class World(worlds.World):
    """A world whose runs reach the database through a relay."""

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
def relay(database: str) -> Iterator[Relay]:
    with Relay(database) as relay:
        yield relay


@pytest.fixture
def world(connection: Connection, relay: Relay, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, relay.conninfo, sandbox, tmp_path)


def once(words: bytes, where: Where) -> Any:
    """Where at the first request that has these words in it."""
    seen: list[int] = []

    def cut(number: int, request: bytes) -> Where | None:
        if words not in request or seen:
            return None
        seen.append(number)
        return where

    return cut


@pytest.mark.parametrize("where", list(Where))
@pytest.mark.parametrize("sections", [{}, {"rate_limiting": UNLIMITED, "provider": "{batch_size: 1}"}])
def test_a_claim_whose_answer_is_lost_is_given_back_with_its_attempt(
    world: World, relay: Relay, where: Where, sections: dict[str, Any]
) -> None:
    world.add(*SYMBOLS)
    world.enqueue(SYMBOLS)
    relay.cut = once(CLAIM, where)

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


@pytest.mark.parametrize("where", list(Where))
@pytest.mark.parametrize("words", [b"insert into assetbatch.bar_state", b"insert into assetbatch.daily_figures"])
def test_the_right_to_ask_for_bars_or_a_day_is_given_back_too(
    world: World, relay: Relay, where: Where, words: bytes
) -> None:
    world.add(*SYMBOLS[:2])
    world.enqueue(SYMBOLS[:2])
    sections: dict[str, Any] = (
        {"bars": "{enabled: true}"} if b"bar_state" in words else {"provider": "{mode: end_of_day}"}
    )
    relay.cut = once(words, where)

    with pytest.raises(psycopg.OperationalError):
        world.drain(queue="{retry_max_attempts: 0}", **sections)

    assert not any(world.held().values())
