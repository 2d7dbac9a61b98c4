"""What is asked in one piece reaches the server whole, however much it is."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

from assetbatch.database.pipeline import pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection

# Many times what a socket takes before the server has read any of it.
MUCH = "x" * 4_000_000


@contextmanager
def ended_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Let a block that waits for ever fail: the connection is lost then."""
    timer = Timer(seconds, connection.plain.pgconn.finish)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_more_than_the_socket_takes_at_once_is_sent_to_its_end(connection: Connection) -> None:
    plain = connection.plain
    with ended_after(connection, 30), pipeline(plain):
        first = plain.execute("select length(%s) as length", [MUCH])
        second = plain.execute("select length(%s) as length", [MUCH])
    assert [first.fetchall(), second.fetchall()] == [[{"length": len(MUCH)}], [{"length": len(MUCH)}]]
