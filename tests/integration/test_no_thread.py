"""A system that gives no thread, as in a container whose limit is reached: nothing is lost, and a sentence says why."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from assetbatch import pings
from assetbatch.events.delivery import DeliveryError
from assetbatch.events.redis import RedisPublisher
from assetbatch.report.doctor.host import RedisCheck
from assetbatch.report.progress import ProgressBar
from tests import world as worlds
from tests.conftest import free_port, ran
from tests.world import NO_ASSETS, QUICK, UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

SYMBOLS = tuple(f"T{number}USD" for number in range(1, 31))
# More than any system has: the thread is refused by the system itself.
TOO_LARGE = 1 << 46


class World(worlds.World):
    """A world with items on the queue alone."""

    KEYS: ClassVar = {"batch": NO_ASSETS, "rate_limiting": QUICK, "bars": "{enabled: false}"}


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


@pytest.fixture
def no_thread(world: World) -> Iterator[None]:
    """Let no thread be started from now on; the world's own are there."""
    del world
    before = threading.stack_size(TOO_LARGE)
    yield
    threading.stack_size(before)


@pytest.mark.usefixtures("no_thread")
@pytest.mark.parametrize("sections", [{}, {"rate_limiting": UNLIMITED, "provider": "{batch_size: 1}"}])
def test_what_was_claimed_is_given_back_with_its_attempt_and_the_slot_is_free(
    world: World, sections: dict[str, Any]
) -> None:
    world.add(*SYMBOLS)
    world.enqueue(SYMBOLS)

    for _ in range(3):
        result = world.drain(queue="{retry_max_attempts: 0}", **sections)
        assert (result.exit_code, result.status, result.dead, result.remaining) == (69, "failed", (), 30)
        assert (result.ended_by and result.ended_by.kind, result.api_calls_used) == ("no_thread", 0)

    rows = world.connection.execute("select distinct state, attempts, error from assetbatch.queue").fetchall()
    assert rows == [{"state": "queued", "attempts": 0, "error": None}]
    assert world.connection.execute("select from assetbatch.rate_limit_slots where token is not null").rowcount == 0


@pytest.mark.usefixtures("no_thread")
def test_a_priority_run_ends_at_once_and_says_so(world: World) -> None:
    result = world.prioritise(batch="{secondary_assets: []}")

    assert (result.exit_code, {one.kind for one in result.failed}) == (69, {"no_thread"})
    assert (len(result.failed), result.api_calls_used) == (3, 0)
    assert world.connection.execute("select from assetbatch.rate_limit_slots where token is not null").rowcount == 0


@pytest.mark.parametrize("job", ["run-priority", "drain-queue", "enqueue-secondary"])
def test_a_job_that_gets_no_thread_at_all_ends_in_a_sentence(
    commands: Commands, connection: Connection, job: str
) -> None:
    assert commands("init").returncode == 0
    assert commands("enqueue-secondary").returncode == 0

    limited = ran(
        ["bash", "-c", f'ulimit -s 8000000; ulimit -v 4000000; exec "$0" -m assetbatch {job} --json', sys.executable],
        cwd=commands.folder,
        env=commands.environment | {"XDG_STATE_HOME": str(commands.folder / "state")},
    )

    assert (limited.returncode, limited.stdout) == (69, "")
    told = json.loads(limited.stderr)
    assert "no thread could be started" in told["reason"]
    assert "pids" in told["hint"]
    rows = connection.execute("select distinct state, attempts from assetbatch.queue").fetchall()
    assert rows == [{"state": "queued", "attempts": 0}]


@pytest.mark.usefixtures("no_thread")
def test_what_only_goes_along_with_a_run_does_not_end_it(
    world: World, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = world.configure(pings=f"{{drain_queue: 'http://127.0.0.1:{free_port()}/'}}")
    url = f"redis://127.0.0.1:{free_port()}/0"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    pings.ping(config, "drain-queue", failed=False, seconds=1)
    with ProgressBar.for_terminal("test") as bar:
        assert bar is not None
        bar(1, 2)
    with pytest.raises(DeliveryError, match="no thread"):
        RedisPublisher(url, stream=False).publish([], seconds=1, leave_by=float("inf"))
    check = RedisCheck(url, stream=False)
    (finding,) = check.findings()

    assert "no thread" in finding.found
    assert capfd.readouterr().err == ""
