"""The vendor's list of the exchanges' holidays: one call a week, where one is free and no price waits for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from assetbatch.database import holidays, runs
from assetbatch.database.retries import in_transaction
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.provider import endpoints
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.runs import CallRecord
    from assetbatch.failures import CallError
    from assetbatch.jobs.calls import Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import Call
    from assetbatch.provider.results import Holidays as Answer

log = logging.getLogger(__name__)


class Holidays(Source):
    """Asks for the list where it is old; without one, days go by rule."""

    waits = False

    def __init__(self, run: Run) -> None:
        self._run = run
        self._is_due = run.entitlements.lacks_holidays

    def is_ready(self) -> bool:
        """Return whether the list is to be asked for in this run, and was not yet."""
        return self._is_due

    def begin(self, _calls: int) -> Sequence[Planned]:
        """Ask for the list, unless another run does."""
        self._is_due = False
        is_ours = holidays.take_turn(self._run.connection, self._run.clock.now())
        return [Planned(endpoints.holidays())] if is_ours else []

    def no_slot(self, _error: CallError) -> None:
        """Leave it to the next run."""
        self._is_due = False

    def landed(self, came: Sequence[Landed]) -> None:
        """Store the list."""
        for one in came:
            if one.record is not None:
                self._store(one.answer, one.record)

    def _store(self, answer: Answer, record: CallRecord) -> None:
        for words in answer.odd:
            log.warning("the vendor's list of holidays: %s", words)
        connection = self._run.connection
        storing = holidays.storing(answer.days, self._run.clock.now())
        in_transaction(connection, lambda: connection.ask(storing, runs.recording([record])))
        self._run.entitlements.look()
        log.info("the vendor lists %s on which exchanges are not open as usual", counted(len(answer.days), "day"))

    def failed(self, _one: Landed, error: CallError) -> Aftermath:
        """Go by rule until it is asked again."""
        log.warning("no list of holidays, days go by rule: %s; it is asked for again in a day", error)
        return Aftermath.of(error.kind)

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Let it be asked for again: nobody was."""
        del works, held_up
        holidays.give_back_turn(self._run.connection)
