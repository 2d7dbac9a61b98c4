"""What tests of the stream share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.stream import cluster, pacing, session, streamer
from assetbatch.stream import connection as connections
from tests.stream_runs import StreamWorld

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox


@pytest.fixture
def world(
    connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StreamWorld:
    """A world that streams, in which no trouble takes its whole time."""
    for module, name, seconds in [
        (session, "STEP_SECONDS", 1.0),
        (session, "CONFIRM_SECONDS", 0.5),
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
