"""How often a command waits for PostgreSQL: with a database that is far away, that is what a run costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.relay import Relay
from tests.world import add_assets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
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


def updated(connection: Connection, job: str) -> int:
    row = connection.execute(
        "select updated + unchanged as n from assetbatch.runs where job = %(job)s order by id desc limit 1",
        {"job": job},
    ).fetchone()
    assert row is not None
    return int(row["n"])
