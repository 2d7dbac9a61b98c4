"""Many processes at once, and processes that die."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, open_database
from tests.integration.test_rate_limit import World, ask, migrated_database

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.database.embedded import EmbeddedServer

# Takes a slot, sends its request, and never gets to the answer.
SENDS_AND_HANGS = """
import sys, time, urllib.request
from assetbatch.database.rate_limit import Lane, RateLimiter, Rules
from tests.conftest import open_database
database, url = sys.argv[1:]
rules = Rules(3, 60, 0, 0, None, 1)
RateLimiter(
    open_database(database), key="key", host="host", rules=rules, lane=Lane.QUEUE, pause=time.sleep
).acquire()
urllib.request.urlopen(url)
print("sent", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def database(postgres: EmbeddedServer) -> str:
    return migrated_database(postgres, "rate_limit_processes")


def test_eight_that_hammer_get_exactly_the_limit(database: str, connection: Connection) -> None:
    World(connection)
    barrier = Barrier(8)
    rules = Rules(50, 3600, 1, 0, None, 25)

    def hammer(number: int) -> Counter[str]:
        with open_database(database) as own:
            limiter = RateLimiter(
                own, key="key", host="host", rules=rules, lane=list(Lane)[number % 2], pause=time.sleep
            )
            barrier.wait()
            return Counter(ask(limiter, max_wait=0)["verdict"] for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        found = sum(pool.map(hammer, range(8)), Counter[str]())

    assert found == {"granted": 50, "refused": 110}


def test_eight_that_take_and_give_back_never_hold_more_than_the_limit(database: str, connection: Connection) -> None:
    World(connection)
    barrier = Barrier(8)
    rules = Rules(3, 3600, 1, 0, None, 25)
    held: Counter[str] = Counter()

    def hammer(_: int) -> tuple[int, int]:
        most = calls = 0
        with open_database(database) as own:
            limiter = RateLimiter(own, key="key", host="host", rules=rules, lane=Lane.QUEUE, pause=lambda _: None)
            barrier.wait()
            for _ in range(60):
                answer = ask(limiter, max_wait=0)
                if answer["verdict"] != "granted":
                    continue
                # Threads of one process: the count goes up after the grant and down before the release.
                held.update([str(answer["token"])])
                most = max(most, len(held))
                calls += 1
                del held[str(answer["token"])]
                own.execute("select assetbatch.release_slot('key', %s, %s, null)", [answer["token"], Outcome.UNSENT])
        return most, calls

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hammer, range(8)))

    assert max(most for most, _ in found) <= 3
    assert sum(calls for _, calls in found) > 50


def test_a_kill_loses_one_slot_and_brings_no_refusal(database: str, connection: Connection) -> None:
    world = World(connection)
    rules = Rules(3, 60, 0, 0, None, 1)
    limiter = RateLimiter(connection, key="key", host="host", rules=rules, lane=Lane.QUEUE, pause=world.sleep)
    verdicts = []
    with Sandbox(key=API_KEY, plan="starter", limit=3, window_seconds=60) as server:
        url = f"{server.url}/v1/marketstatus/now?apiKey={API_KEY}"
        victim = subprocess.Popen(
            [sys.executable, "-c", SENDS_AND_HANGS, database, url], stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        with victim:
            assert victim.stdout.readline() == "sent\n"
            victim.kill()
        for _ in range(3):
            verdicts.append(ask(limiter, max_wait=0)["verdict"])
            if verdicts[-1] == "granted":
                urllib.request.urlopen(url).close()

    # The server counts the victim's request, and so do we; the two other slots are there.
    assert [arrival.status for arrival in server.arrivals] == [200] * 3
    assert verdicts == ["granted", "granted", "refused"]
    world.advance(rules.window_seconds + rules.hold_seconds)
    assert [ask(limiter, max_wait=0)["verdict"] for _ in range(4)] == ["granted"] * 3 + ["refused"]
