"""`queue list`, `retry`, `remove` and `clear`: exit code, stdout, stderr, and the table afterwards."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_until
from tests.integration.test_drain_job import World

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

FIELDS = {"symbol", "priority", "state", "attempts", "enqueued_at", "available_at", "last_error"}


@pytest.fixture
def world(commands: Commands, connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    """A queue with an item in each state: two queued, one delayed, one leased, two dead of different causes."""
    commands.environment["POLYGON_RATE_LIMIT"] = ""
    world = World(connection, database, sandbox, tmp_path)
    for symbol, priority in {"MIDDLE": 3, "FIRST": 1, "DELAYED": 2, "LEASED": 3, "DEAD": 2, "DENIED": 4}.items():
        world.add(symbol, priority=priority)
        world.put(symbol)
    connection.execute(
        """
        update assetbatch.queue set state = 'delayed', attempts = 2, priority = 4, error_kind = 'invalid',
          error = 'no bid price', available_at = now() + interval '1 hour' where symbol = 'DELAYED';
        update assetbatch.queue set state = 'leased', attempts = 1, token = gen_random_uuid(), claimed_at = now(),
          leased_until = now() + interval '1 hour' where symbol = 'LEASED';
        update assetbatch.queue set state = 'dead', attempts = 4, error_kind = 'invalid', error = 'no trade price',
          died_at = now() - interval '1 minute' where symbol = 'DEAD';
        update assetbatch.queue set state = 'dead', attempts = 1, error_kind = 'not_entitled', died_at = now(),
          error = 'Not entitled to this ticker.', died_on_plan = 'starter', died_with_key = 'another'
          where symbol = 'DENIED';
        """
    )
    return world


def states(world: World) -> dict[str, str]:
    return dict(world.rows("symbol", "state"))


def listed(commands: Commands, *arguments: str) -> list[dict[str, Any]]:
    done = commands("queue", "list", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.queue-list/1"
    items: list[dict[str, Any]] = document["items"]
    return items


def test_the_list_is_in_the_order_in_which_items_get_their_turn(commands: Commands, world: World) -> None:
    items = listed(commands)

    assert [(one["symbol"], one["state"], one["attempts"]) for one in items] == [
        ("FIRST", "queued", 0), ("MIDDLE", "queued", 0), ("LEASED", "leased", 1), ("DELAYED", "delayed", 2),
        ("DEAD", "dead", 4), ("DENIED", "dead", 1),
    ]  # fmt: skip
    assert [one["priority"] for one in items] == ["CRITICAL", "MEDIUM", "MEDIUM", "LOW", "HIGH", "LOW"]
    assert all(set(one) >= FIELDS for one in items)
    assert items[0]["last_error"] is None
    assert items[4]["last_error"] == "no trade price"
    for one in items:
        assert one["enqueued_at"].endswith("Z")
        assert datetime.fromisoformat(one["available_at"])
    some = listed(commands, "--state", "dead", "--state", "delayed", "--limit", "2")
    assert [one["symbol"] for one in some] == ["DELAYED", "DEAD"]


def test_a_person_sees_a_table(commands: Commands, world: World) -> None:
    done = commands("queue", "list", COLUMNS="160")

    assert (done.returncode, done.stderr) == (0, "")
    for words in ("FIRST", "CRITICAL", "delayed", "no trade price", "Not entitled to this ticker."):
        assert words in done.stdout
    world.connection.execute("delete from assetbatch.queue")
    assert listed(commands) == []
    world.put(*(f"T{number}USD" for number in range(60)))
    assert "and 10 more" in commands("queue", "list").stdout


def test_what_is_retried_has_all_its_attempts_again(commands: Commands, world: World) -> None:
    done = commands("queue", "retry", "DEAD", "DELAYED", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document == {
        "schema": "assetbatch.queue-retry/1", "retried": ["DEAD", "DELAYED"], "dropped": [], "missing": []
    }  # fmt: skip
    rows = {row[0]: row[1:] for row in world.rows("symbol", "state", "attempts", "priority", "died_at")}
    assert rows["DEAD"] == rows["DELAYED"] == ("queued", 0, 2, None)
    assert rows["DENIED"][0] == "dead"
    result = world.drain()
    assert {"DEAD", "DELAYED"} <= {*result.dead, *result.updated}  # they had their turn


def test_dead_letters_are_retried_by_their_cause_or_all_at_once(commands: Commands, world: World) -> None:
    of_a_kind = commands("queue", "retry", "--all", "--kind", "not_entitled")
    rest = commands("queue", "retry", "--all")
    nothing = commands("queue", "retry", "--all")

    assert [done.returncode for done in (of_a_kind, rest, nothing)] == [0, 0, 0]
    assert of_a_kind.stdout == "1 back on the queue: DENIED\n"
    assert rest.stdout == "1 back on the queue: DEAD\n"
    assert nothing.stdout == "nothing back on the queue\n"
    assert states(world)["DELAYED"] == "delayed"


def test_what_is_removed_is_gone_whatever_its_state(commands: Commands, world: World) -> None:
    done = commands("queue", "remove", "FIRST", "LEASED", "DEAD", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["removed"] == ["DEAD", "FIRST", "LEASED"]
    assert set(states(world)) == {"MIDDLE", "DELAYED", "DENIED"}
    count = world.connection.execute("select count(*) as count from assetbatch.assets").fetchone()
    assert count == {"count": 6}


@pytest.mark.parametrize(
    ("arguments", "done", "missing"),
    [
        (["retry", "DEAD", "NOSUCH", "MIDDLE"], "DEAD", ["MIDDLE", "NOSUCH"]),
        (["remove", "DEAD", "NOSUCH"], "DEAD", ["NOSUCH"]),
    ],
)
def test_what_is_named_and_not_there_is_told_and_the_others_are_done(
    commands: Commands, world: World, arguments: list[str], done: str, missing: list[str]
) -> None:
    run = commands("queue", *arguments, "--json")

    assert run.returncode == 2
    assert json.loads(run.stdout)["missing"] == missing
    assert ", ".join(missing) in run.stderr
    assert states(world).get(done) != "dead"


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "DEAD", "--all"], ["remove"], ["list", "--state", "odd"]])
def test_wrong_usage_is_told_and_changes_nothing(commands: Commands, world: World, arguments: list[str]) -> None:
    before = world.rows("symbol", "state", "attempts")

    done = commands("queue", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr
    assert world.rows("symbol", "state", "attempts") == before


def test_clearing_needs_a_word_and_spares_what_is_worked_on(commands: Commands, world: World) -> None:
    refused = commands("queue", "clear")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert len(states(world)) == 6

    dead = commands("queue", "clear", "--state", "dead", "--yes", "--json")
    assert (dead.returncode, json.loads(dead.stdout)["removed"]) == (0, 2)
    assert set(states(world)) == {"FIRST", "MIDDLE", "DELAYED", "LEASED"}

    rest = commands("queue", "clear", "--yes")
    assert (rest.returncode, rest.stdout, rest.stderr) == (0, "3 removed\n", "")
    assert set(states(world)) == {"LEASED"}


@pytest.mark.parametrize(("answer", "left"), [("y", {"LEASED"}), ("n", {"LEASED", "FIRST", "MIDDLE", "DELAYED"})])
def test_at_a_terminal_clearing_asks(commands: Commands, world: World, answer: str, left: set[str]) -> None:
    world.connection.execute("delete from assetbatch.queue where state = 'dead'")

    run = commands.answering(answer, "queue", "clear")

    assert "Remove 3 items" in run.stderr
    assert set(states(world)) == left
    assert run.returncode == 0
    assert "Traceback" not in run.stdout + run.stderr


def test_an_item_removed_while_it_is_worked_on_stays_away(commands: Commands, world: World) -> None:
    world.connection.execute("delete from assetbatch.queue where symbol <> 'MIDDLE'")
    world.configure(provider="{timeout_seconds: 4}", queue="{retry_delay_seconds: 0}")
    world.sandbox.fail = ["timeout"]
    run = commands.start("drain-queue", "--json")
    wait_until(lambda: world.sandbox.arrivals, seconds=20)

    assert commands("queue", "remove", "MIDDLE").returncode == 0
    stdout, stderr = run.communicate(timeout=30)

    assert (run.returncode, "Traceback" in stderr) == (0, False)
    document = json.loads(stdout)
    assert (document["dead"], document["requeued"], document["remaining"]) == ([], [], 0)
    assert states(world) == {}
