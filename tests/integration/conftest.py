"""What tests of the stream share, and those of the sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.stream import cluster, pacing, streamer
from assetbatch.stream import connection as connections
from assetbatch.stream import session as handshakes
from tests.sandbox_client import BEARER
from tests.stream_runs import StreamWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox


@pytest.fixture
def world(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StreamWorld:
    """A world that streams, in which no trouble takes its whole time."""
    for module, name, seconds in [
        (handshakes, "STEP_SECONDS", 1.0),
        (handshakes, "CONFIRM_SECONDS", 0.5),
        (connections, "OPEN_SECONDS", 1.0),
        (connections, "SILENT_SECONDS", 2.0),
        (connections, "PING_SECONDS", 1.0),
        (pacing, "FIRST_SECONDS", 0.1),
        (pacing, "LONGEST_SECONDS", 0.5),
        (pacing, "REST_SECONDS", 2.0),
        (pacing, "REFUSED_SECONDS", 1.0),
        (cluster, "TELL_SECONDS", 0.3),
        (streamer, "LOOK_SECONDS", 0.5),
    ]:
        monkeypatch.setattr(module, name, seconds)
    sandbox.stream.rate = 5
    return StreamWorld(connection, database, sandbox, tmp_path)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """A client of the sandbox that keeps its connection."""
    import requests

    with requests.Session() as session:
        session.headers.update(BEARER)
        session.trust_env = False
        yield session
