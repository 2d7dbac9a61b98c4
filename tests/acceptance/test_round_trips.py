"""How often a command waits for PostgreSQL: with a database that is far away, that is what a run costs."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from assetbatch.bars import LENGTH, floor
from tests.asking import utc_now
from tests.conftest import wait_until
from tests.relay import Relay
from tests.world import add_assets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

# Everything is due again.
PASS_TIME = "update assetbatch.sync_state set served_at = served_at - interval '1 hour'"
TICKERS = [f"X:T{number}USD" for number in range(700)]
BATCH = 200
UPDATED = "select updated + unchanged as n from assetbatch.runs where job = %(job)s order by id desc limit 1"
LEAVE = """
delete from assetbatch.queue
where symbol not in (select symbol from assetbatch.queue order by symbol limit %(items)s)
"""


@pytest.fixture(params=["unlimited", "limited"])
def counted(
    request: pytest.FixtureRequest, commands: Commands, connection: Connection, database: str
) -> Iterator[Counted]:
    """The commands through a relay, in a steady state: each has run before, and no plan but a limit differs."""
    del commands.environment["POLYGON_RATE_LIMIT"]
    limit = "  calls_per_minute: 50\n" if request.param == "limited" else "  margin_seconds: 1\n"
    (commands.folder / "config.yaml").write_text(
        f"bars: {{enabled: false}}\nprovider: {{batch_size: {BATCH}}}\nrate_limiting:\n{limit}"
    )
    for name in ("run-priority", "enqueue-secondary", "drain-queue"):
        assert commands(name).returncode == 0
    connection.execute(PASS_TIME)
    with Relay(database) as relay:
        yield Counted(commands, relay, 50 if request.param == "limited" else None)


class Counted:
    """Runs a command, and tells how many round trips it made."""

    def __init__(self, commands: Commands, relay: Relay, limit: int | None) -> None:
        self._commands = commands
        self._relay = relay
        self.limit = limit
        self.announcements = 0

    def __call__(self, *arguments: str) -> int:
        before = self._relay.round_trips
        self._relay.requests.clear()
        done = self._commands(*arguments, DATABASE_URL=self._relay.conninfo)
        assert (done.returncode, done.stderr) == (0, "")
        self.announcements = sum(b"pg_notify" in request for request in self._relay.requests)
        return self._relay.round_trips - before


def test_a_priority_run_with_one_call(counted: Counted, connection: Connection) -> None:
    assert counted("run-priority") <= (11 if counted.limit is None else 12)
    assert updated(connection, "run-priority") == 3


def test_enqueueing(counted: Counted) -> None:
    assert counted("enqueue-secondary") <= 9


def test_status(counted: Counted) -> None:
    assert counted("status", "--json") <= 8


def test_a_drain_with_nothing_to_do(counted: Counted) -> None:
    assert counted("drain-queue") <= 8


def test_a_drain_with_one_call_and_with_more(counted: Counted, connection: Connection) -> None:
    add_assets(connection, *TICKERS)
    assert counted("enqueue-secondary", "--source", "database") <= 9
    assert counted("drain-queue") > 0
    found: dict[object, int] = {}
    for calls in (1, 3):
        connection.execute(PASS_TIME)
        counted("enqueue-secondary", "--source", "database")
        connection.execute(LEAVE, {"items": calls * BATCH})
        found[calls] = counted("drain-queue")
        found["announced", calls] = counted.announcements
        assert updated(connection, "drain-queue") == calls * BATCH

    assert found[1] <= 16
    # How often a run announces is a matter of time.
    announcing = 3 * (found["announced", 3] - found["announced", 1])
    assert found[3] - found[1] - announcing <= 2 * (5 if counted.limit is None else 6)


NOTE_PAIRS = """
insert into assetbatch.pairs (polygon_ticker, base, quote)
select polygon_ticker, substr(polygon_ticker, 3, length(polygon_ticker) - 5), 'USD' from assetbatch.assets
where polygon_ticker like 'X:T%'
"""
READ_LIVE = "select 1 from assetbatch.streams where state = 'live' and confirmed = asked"
COUNT_STORED = """
select count(*) as n from trading.symbols s join market_data.ohlcv_5m b on b.symbol_id = s.id
where s.metadata -> 'last_update' ->> 'last_price' = %(price)s and b.close = %(price)s::numeric
"""


@pytest.mark.parametrize("assets", [3, 700])
def test_a_flush_of_the_stream_however_many_assets(
    assets: int, commands: Commands, connection: Connection, database: str, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text(
        "batch: {priority_assets_enabled: false, secondary_assets: []}\n"
        f"stream: {{flush_seconds: 0.2, clusters: [crypto], urls: {{crypto: '{sandbox.stream.url}/crypto'}}}}\n"
    )
    add_assets(connection, *TICKERS[:assets])
    connection.execute(NOTE_PAIRS)
    # It sends what it is told to, and nothing of itself but a minute's bars.
    sandbox.stream.rate = 0
    begins = int((floor(utc_now()) + LENGTH).timestamp() * 1000)
    found = []
    with Relay(database) as relay:
        streaming = commands.start("stream", DATABASE_URL=relay.conninfo)
        wait_until(lambda: connection.execute(READ_LIVE).fetchone(), seconds=30)
        for price in ("1.25", "1.5", "1.75"):
            before = at_rest(relay)
            # In one frame, and so in one flush: a price of each, and a minute of each.
            sandbox.stream.send(json.dumps([event for n in range(assets) for event in events(n, price, begins)]))
            wait_until(partial(stored, connection, price, assets))
            found.append(at_rest(relay) - before)
        streaming.send_signal(signal.SIGTERM)
        streaming.communicate(timeout=20)
    # What it tells of itself every few seconds may come in between.
    assert min(found) <= 6, found


def at_rest(relay: Relay) -> int:
    """Return how many round trips there were, once there are no more for a while."""
    seen = -1
    while seen != relay.round_trips:
        seen = relay.round_trips
        time.sleep(0.6)
    return seen


def events(number: int, price: str, begins: int) -> list[dict[str, object]]:
    pair, now = f"T{number}-USD", int(utc_now().timestamp() * 1000)
    bar = dict.fromkeys("ohlc", float(price))
    return [
        {"ev": "XT", "pair": pair, "p": float(price), "t": now},
        {"ev": "XA", "pair": pair, **bar, "v": 1, "s": begins, "e": begins + 60_000},
    ]


def stored(connection: Connection, price: str, assets: int) -> bool:
    row = connection.execute(COUNT_STORED, {"price": price}).fetchone()
    assert row is not None
    return bool(row["n"] == assets)


def updated(connection: Connection, job: str) -> int:
    row = connection.execute(
        "select updated + unchanged as n from assetbatch.runs where job = %(job)s order by id desc limit 1",
        {"job": job},
    ).fetchone()
    assert row is not None
    return int(row["n"])
