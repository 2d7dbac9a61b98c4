"""Storing: what calls brought, with their records and whatever ends with them, in one transaction.

It needs a connection and nothing of a run, so that whoever has prices can store them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from assetbatch.database import prices, runs
from assetbatch.database.savepoints import carefully
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.failures import FailureKind
    from assetbatch.model import Asset, Call
    from assetbatch.provider.results import Answers

T = TypeVar("T")


def write_prices(
    connection: Connection,
    brought: Sequence[prices.Brought],
    times: prices.Times,
    records: Sequence[runs.CallRecord],
    ending: Callable[[prices.Stored], tuple[Sequence[Query[Any]], Callable[[], T]]],
    *,
    lock_timeout: str | None = None,
) -> tuple[prices.Stored, T]:
    """Store what calls brought, with their records and what `ending` writes; return what became of it, and of that.

    `ending` is told what becomes of the assets; it returns what is written with that, and what follows from it, before
    the transaction ends. A deadlock repeats it. Rows that others keep locked are waited for, `lock_timeout` at most,
    before the other ones are stored without them.
    """

    def write(*, carefully: bool) -> tuple[prices.Stored, T]:
        follows: list[Callable[[], T]] = []

        def along(stored: prices.Stored) -> Sequence[Query[Any]]:
            queries, then = ending(stored)
            follows.append(then)
            return [*queries, *([runs.recording(records)] if records else [])]

        stored = prices.write(connection, brought, times, carefully=carefully, along=along)
        return stored, follows[-1]()

    return carefully(connection, write, lock_timeout=lock_timeout)


def write_with_records(connection: Connection, write: Callable[..., T], records: Sequence[runs.CallRecord]) -> T:
    """Write something with the records of its calls, in one transaction; what gets in its way repeats it.

    `write` is told whether to go about it `carefully`: the platform's tables refused something before, or a row was
    locked.
    """

    def work(*, carefully: bool) -> T:
        written = write(carefully=carefully)
        if records:
            connection.ask(runs.recording(records))
        return written

    return carefully(connection, work)


def sort_out(
    call: Call, answers: Answers, known: Collection[str], excuses: Callable[[Asset, FailureKind], bool]
) -> list[prices.Brought]:
    """Return for each asset of a call what the answer has for it; `known` had rows in the platform's table before.

    `excuses` tells of which assets a live answer without a price is no failure.
    """
    failures = {
        asset.symbol: Failure(asset.symbol, *failed)
        for asset in call.assets
        if (failed := answers.failures.get(asset.symbol)) and (call.day is not None or not excuses(asset, failed[0]))
    }
    return [
        prices.Brought(
            asset.symbol,
            answers.quotes.get(asset.symbol),
            failures.get(asset.symbol),
            known=asset.symbol in known,
        )
        for asset in call.assets
    ]
