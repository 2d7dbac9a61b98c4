"""A plan that is said to be unlimited, at a server that counts all the same: all stop, wait, and go on spaced."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import pytest

from assetbatch.sandbox.server import Sandbox
from tests import world as worlds
from tests.conftest import API_KEY, wait_until
from tests.world import NO_ASSETS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.window import Arrival

SYMBOLS = tuple(f"T{number}USD" for number in range(1, 121))
WINDOW_SECONDS = 5.0
LIMIT = 10
LANES = 8
# On a busy machine a thread may wake up late.
A_MOMENT = 0.3


class World(worlds.World):
    """A world whose plan is unlimited by its word."""

    KEYS: ClassVar = {
        "batch": NO_ASSETS,
        "rate_limiting": f"{{window_seconds: {WINDOW_SECONDS}, margin_seconds: 0.1}}",
        "provider": f"{{plan: starter, batch_size: 1, concurrency: {LANES}}}",
        "bars": "{enabled: false}",
        "queue": "{retry_max_attempts: 0}",
    }


@pytest.fixture
def counting() -> Iterator[Sandbox]:
    with Sandbox(key=API_KEY, plan="starter", limit=LIMIT, window_seconds=WINDOW_SECONDS) as server:
        yield server


@pytest.fixture
def world(connection: Connection, database: str, counting: Sandbox, tmp_path: Path) -> World:
    world = World(connection, database, counting, tmp_path)
    world.add(*SYMBOLS)
    world.enqueue(SYMBOLS)
    return world


def refused(arrivals: list[Arrival]) -> list[Arrival]:
    return [one for one in arrivals if one.status == 429]


@pytest.mark.parametrize(("pace", "processes"), [(100, 2), (20, 1), (None, 2)])
def test_after_the_first_refusal_no_call_leaves_until_its_time_has_come_and_then_one_by_one(
    world: World, pace: int | None, processes: int
) -> None:
    shown = "null" if pace is None else pace
    provider = f"{{plan: starter, batch_size: 1, concurrency: {LANES}, max_calls_per_second: {shown}}}"
    with ThreadPoolExecutor(processes) as pool:
        runs = [pool.submit(partial(world.drain, max_seconds=16, provider=provider)) for _ in range(processes)]
        results = [run.result(60) for run in runs]

    arrivals = world.sandbox.arrivals
    first = refused(arrivals)[0].at
    # What was on its way just then, and nothing later.
    assert len(refused(arrivals)) <= LANES * processes
    assert refused(arrivals)[-1].at - first < A_MOMENT
    later = [one.at for one in arrivals if one.at - first > A_MOMENT]
    assert len(later) >= 5
    assert later[0] - first >= WINDOW_SECONDS
    assert min(after - before for before, after in pairwise(later)) > WINDOW_SECONDS / 5 - 0.1
    assert {result.exit_code for result in results} == {0}
    assert any("says unlimited, the server counts all the same" in one for run in results for one in run.warnings)
    rows = world.connection.execute("select distinct state, attempts from assetbatch.queue").fetchall()
    assert rows == [{"state": "queued", "attempts": 0}]


@pytest.mark.parametrize("word", ["429-retry-after:/range/", "429-retry-after:/grouped/"])
def test_a_refusal_of_bars_or_of_a_day_stops_the_others_and_the_run_goes_on(
    world: World, counting: Sandbox, pool: ThreadPoolExecutor, word: str
) -> None:
    world.connection.execute("insert into trading.symbols (symbol) select symbol from assetbatch.assets")
    counting.fail = [word]
    mode = "end_of_day" if "grouped" in word else "live"
    run = pool.submit(
        partial(
            world.drain,
            max_seconds=6,
            bars="{backfill_days: 1}",
            provider=f"{{plan: starter, mode: {mode}, concurrency: {LANES}}}",
            queue="{retry_max_attempts: 0}",
        )
    )
    wait_until(lambda: refused(counting.arrivals))
    counting.fail = []

    result = run.result(60)

    assert (result.exit_code, result.dead, result.remaining) == (0, (), 0)
    first = refused(counting.arrivals)[0].at
    assert min(one.at for one in counting.arrivals if one.at > first + A_MOMENT) >= first + 2


def test_status_says_so_until_it_is_mended(world: World) -> None:
    world.drain(max_seconds=4)

    found = json.loads(world.commands()("status", "--json").stdout)

    (alert,) = (one for one in found["alerts"] if one["metric"] == "api.refusals")
    assert "counts all the same" in json.dumps(alert)
