"""Following the outbox: each event once, as soon as it can be seen, also where commits come out of order."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch.database import outbox

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.database.outbox import Stored

LIMIT = 5_000
LAST_ID = 2**63 - 1
# A transaction that was under way when following began may have given its events their ids this long ago, and commit
# them now: no transaction of ours lasts so long, by its time-outs.
LONGEST_TRANSACTION_SECONDS = 120.0


class Tail:
    """Reads events as they come, from now on or from some time ago; it may go on with another connection.

    An id is given at the insert and seen at the commit, so that of two transactions at once the one with the smaller
    ids may come later. What was not seen yet is therefore kept as ranges of ids: the gaps below the newest, and all
    above it. A gap is given up when all transactions that were under way when it was found have ended: what is still
    missing then was rolled back, or has been deleted.
    """

    def __init__(self, *, since_seconds: float | None = 0.0, symbols: Collection[str] = ()) -> None:
        """Follow from so long ago on, None: from the first that is kept; of these symbols only, none: of all."""
        self._since_seconds = since_seconds
        self._symbols = frozenset(symbols)
        self._from: datetime | None = None
        self._gaps: list[tuple[int, int, int]] = []
        self._next_id: int | None = None
        self.behind = False
        """More is there than the last `read` brought."""

    @property
    def gaps(self) -> int:
        """How many ranges of ids below the newest may still be filled."""
        return len(self._gaps)

    def read(self, connection: Connection) -> tuple[datetime, list[Stored]]:
        """Read what has come since the last time, in order of its ids, and the database's time."""
        if self._next_id is None:
            self._next_id = self._begin(connection)
        ranges = [(first, last) for first, last, _ in self._gaps] + [(self._next_id, LAST_ID)]
        stretch = outbox.read_ranges(connection, ranges, limit=LIMIT)
        self.behind = len(stretch.events) == LIMIT
        self._note(stretch)
        begun = self._from
        if not self.behind:
            # Whatever is seen from now on was not there when following began, however old it says it is.
            self._from = None
        return stretch.now, [
            event
            for event in stretch.events
            if (begun is None or event.created_at >= begun) and (not self._symbols or event.symbol in self._symbols)
        ]

    def _begin(self, connection: Connection) -> int:
        if self._since_seconds is None:
            return 1
        before, now = outbox.read_before(connection, seconds=self._since_seconds + LONGEST_TRANSACTION_SECONDS)
        self._from = now - timedelta(seconds=self._since_seconds)
        return before + 1

    def _note(self, stretch: outbox.Stretch) -> None:
        """Take the ids that were seen out of the ranges, and give up gaps that nothing can fill any more."""
        assert self._next_id is not None  # noqa: S101 - it was set before anything was read
        gaps: list[tuple[int, int, int]] = []
        seen = iter([event.id for event in stretch.events])
        id_ = next(seen, None)
        for first, last, found_at in [*self._gaps, (self._next_id, LAST_ID, stretch.next_transaction)]:
            begin = first
            while id_ is not None and id_ <= last:
                if begin < id_:
                    gaps.append((begin, id_ - 1, found_at))
                begin, id_ = id_ + 1, next(seen, None)
            if last == LAST_ID:
                self._next_id = begin
            elif begin <= last:
                gaps.append((begin, last, found_at))
        self._gaps = gaps if self.behind else [gap for gap in gaps if gap[2] > stretch.oldest_running]
