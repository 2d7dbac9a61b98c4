"""Events by PostgreSQL's own NOTIFY, for who has no Redis."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from assetbatch.database import outbox
from assetbatch.database.errors import words_of
from assetbatch.database.sqlstates import Meaning, meaning_of
from assetbatch.events.delivery import DeliveryError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.database.connection import Connection


LONGEST_SHOWN = 80


@contextmanager
def _as_delivery() -> Iterator[None]:
    """Let what the server cannot do now leave as DeliveryError."""
    try:
        yield
    except psycopg.Error as error:
        if meaning_of(error) is Meaning.OURS:
            raise
        raise DeliveryError(f"NOTIFY: {error}") from None


class NotifyPublisher:
    """NOTIFY on each symbol's channel and on `asset:update`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def publish(self, events: Sequence[outbox.Event], *, seconds: float, leave_by: float) -> None:
        """Deliver in one transaction: PostgreSQL sends all at its commit, in order, or none. Raises DeliveryError.

        What another publisher has delivered meanwhile it leaves out, so that `leave_by` is of no concern.
        """
        del leave_by
        try:
            with _as_delivery():
                outbox.notify(self._connection, events, seconds=seconds)
        except psycopg.DataError:
            # A channel or an event that is longer than PostgreSQL takes keeps no other back.
            with _as_delivery():
                self._publish_apart(events, seconds=seconds)

    def _publish_apart(self, events: Sequence[outbox.Event], *, seconds: float) -> None:
        found = outbox.notify_apart(self._connection, events, seconds=seconds)
        if found.refused:
            event, why = found.refused[0]
            delivered = [one for part in found.taken for one in part]
            words = f"NOTIFY: {words_of(why)}: {event.channel[:LONGEST_SHOWN]!r}"
            raise RefusedError(words, delivered)

    def close(self) -> None:
        """Do nothing: the connection is the run's."""
