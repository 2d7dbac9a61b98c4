"""Events by PostgreSQL's own NOTIFY, for who has no Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from assetbatch.database import outbox
from assetbatch.database.sqlstates import Meaning, meaning_of
from assetbatch.events import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection


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
            outbox.notify(self._connection, events, seconds=seconds)
        except psycopg.Error as error:
            if meaning_of(error) is Meaning.OURS:
                raise
            raise DeliveryError(f"NOTIFY: {error}") from None

    def close(self) -> None:
        """Do nothing: the connection is the run's."""
