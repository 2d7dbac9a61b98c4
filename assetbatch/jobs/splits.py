"""Splits: the vendor's list, asked for once a day behind prices, and what those that have come mean for stored bars."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from assetbatch.database import runs
from assetbatch.database import splits as database_splits
from assetbatch.database.bars import unadjusted
from assetbatch.database.retries import in_transaction
from assetbatch.jobs.storing import write_with_records
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.markets import TRAITS
from assetbatch.model import Call, CallKind
from assetbatch.provider import endpoints
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from assetbatch.database.query import Query
    from assetbatch.database.runs import CallRecord
    from assetbatch.database.splits import SplitsState
    from assetbatch.failures import CallError
    from assetbatch.jobs.calls import Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Split
    from assetbatch.provider.results import SplitPage

log = logging.getLogger(__name__)

# Whose list it is.
MARKET = next(asset_type for asset_type, traits in TRAITS.items() if traits.has_splits)
# A list without an end would use up the budget: all splits of decades have fewer.
MOST_PAGES = 20


class Splits(Source):
    """The list of splits, for a run whose `state` is what was to be done about it as the run began.

    What has come is applied at once, before any bars are asked for; `applied` are told when some comes later. It
    `waits` for a slot where bars would, which it goes before.
    """

    def __init__(self, run: Run, state: SplitsState, *, applied: Sequence[Callable[[], object]], waits: bool) -> None:
        self._run = run
        self.waits = waits
        self._since = state.since
        self._applied = applied
        self._first = Call(CallKind.SPLITS, market=MARKET, day=state.since)
        self._next: Call | None = self._first if state.is_due else None
        self._asked_at: datetime | None = None
        self._found: list[Split] = []
        self._pages = 0
        if state.has_come:
            self._apply()

    @staticmethod
    def state(now: datetime | None) -> Query[SplitsState]:
        """Ask what is to be done about splits; `now` None: it is now."""
        return database_splits.state(MARKET, now=now)

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of assets that the list is about."""
        return frozenset({MARKET})

    def is_ready(self) -> bool:
        """Return whether a page is to be asked for, and none is under way."""
        return self._next is not None

    def begin(self, _calls: int) -> Sequence[Planned]:
        """Choose the next page; the first one, if no other run asks for the list."""
        call, self._next = self._next, None
        if call is None:
            return []
        if self._asked_at is None:
            now = self._run.clock.now()
            if not database_splits.take(self._run.connection, MARKET, now=now):
                return []
            self._asked_at = now
        return [Planned(endpoints.splits_since(call))]

    def no_slot(self, _error: CallError) -> None:
        """Leave the list, or the rest of it, to the next run."""
        if self._asked_at is not None:
            database_splits.give_back(self._run.connection, MARKET, now=self._run.clock.now())
        self._next = None

    def landed(self, came: Sequence[Landed]) -> None:
        """Keep a page; store the list once it is whole."""
        for one in came:
            assert one.record is not None  # noqa: S101 - an answer has one
            self._landed(one.call, one.answer, one.record)

    def _landed(self, call: Call, page: SplitPage, record: CallRecord) -> None:
        for why in page.invalid[:1]:
            log.info("%d rows of the list of splits are none, as that of %s", len(page.invalid), why)
        self._found += page.splits
        self._pages += 1
        if page.next_page:
            self._run.connection.ask(runs.recording([record]))
            if page.next_page == call.page or self._pages >= MOST_PAGES:
                log.warning("the vendor's list of splits does not come to an end: it is asked for again in an hour")
            else:
                self._next = replace(call, page=page.next_page)
            return
        connection, found, since, now = self._run.connection, self._found, self._since, self._asked_at
        assert now is not None  # noqa: S101 - what has landed was asked for
        write_with_records(
            connection,
            lambda **_: database_splits.note(connection, MARKET, found, since=since, now=now),
            [record],
        )
        log.info("the vendor lists %s since %s", counted(len(self._found), "split"), self._since)
        self._apply()
        for tell in self._applied:
            tell()

    def _apply(self) -> None:
        """Note which bars are to be fetched again, as far back as the plan shows them."""
        run, now = self._run, self._run.clock.now()
        history = run.config.plan_of(MARKET).history
        applied = in_transaction(
            run.connection,
            lambda: unadjusted.apply(run.connection, reach=None if history is None else now - history, now=now),
        )
        for one in applied:
            words = "%s: the split %s for %s of %s %s: %d bars before it are fetched again"
            verb = "was withdrawn" if one.is_withdrawn else "has come"
            log.info(words, one.symbol, one.split_to, one.split_from, one.execution_date, verb, one.bars)

    def failed(self, _one: Landed, error: CallError) -> Aftermath:
        """Leave it for an hour: what is wrong with the key or the API, the other calls tell."""
        log.warning("the list of splits did not come, and is asked for again in an hour: %s", error)
        return Aftermath.of(error.kind)

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Begin anew, in this run or another one."""
        del works, held_up
        database_splits.give_back(self._run.connection, MARKET, now=self._run.clock.now())
        self._next, self._asked_at, self._found, self._pages = self._first, None, [], 0
