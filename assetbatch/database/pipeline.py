"""What goes to the server in one round trip goes in one piece, and is the last word until there is an answer.

psycopg's own pipeline sends each statement as it comes, and a flush behind the last one's end. Should this process be
frozen in between, the server waits in the midst of what it was asked, or has turned its clock off: for neither does
idle_in_transaction_session_timeout count, and all locks are kept from others until the process goes on.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import generators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.abc import PQGen


@contextmanager
def pipeline(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Let what the block executes go in one round trip, at its end; none is answered before."""
    # psycopg has no other way to give it one; within another one, that goes on.
    connection._pipeline = connection._pipeline or _AtOnce(connection)  # noqa: SLF001
    with connection.pipeline():
        yield


class _AtOnce(psycopg.Pipeline):
    def _communicate_gen(self) -> PQGen[None]:
        """Send nothing yet."""
        return
        yield

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        """Send all that was executed, and read the answers."""
        while self.command_queue:
            self.command_queue.popleft()()
        try:
            yield from super()._communicate_gen()
            # psycopg flushes once: of more than the socket takes it would leave the rest, and wait for answers.
            yield from generators.send(self.pgconn)
        finally:
            # Of a lost connection an older libpq would tell in other words.
            if self.pgconn.status != psycopg.pq.ConnStatus.BAD:
                yield from super()._fetch_gen(flush=flush)

    def _exit_gen(self) -> PQGen[None]:
        """Send it with the end behind it, and nothing more."""
        yield from self._sync_gen()
