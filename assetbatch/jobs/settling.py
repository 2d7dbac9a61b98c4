"""What becomes of calls that came home: what they brought is stored, what failed is judged by `errors.KINDS`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from assetbatch.database import runs
from assetbatch.database.prices import Brought
from assetbatch.database.queue import Ending, State
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind, Fate
from assetbatch.jobs.claims import Claims, verdict
from assetbatch.jobs.update import sort_out
from assetbatch.model import Failure, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.prices import Stored
    from assetbatch.database.queue import Item
    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.flights import Flights, Flying
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.update import Road
    from assetbatch.provider.quotes import Answers

log = logging.getLogger(__name__)

# After a failure that may pass.
STRIKE_PAUSE_SECONDS = 0.5


class Settling:
    """Stores and judges for one run. `ended_by` is what no further call can fare better than, once there is such."""

    def __init__(self, run: Run, road: Road, claims: Claims, flights: Flights) -> None:
        self._run = run
        self._road = road
        self._claims = claims
        self._flights = flights
        self._settings = run.config.settings.queue
        self._unstored: list[tuple[Flying, Answers, CallRecord]] = []
        # Calls that failed as if the API were away: the next answer tells whether it was the API, or they.
        self._suspects: list[tuple[tuple[Item, ...], CallError]] = []
        self.ended_by: Trouble | None = None

    @property
    def is_behind(self) -> bool:
        """Whether something came home that is not stored yet."""
        return bool(self._unstored)

    def take_in(self, landed: Sequence[tuple[Flying, Answers | CallError]]) -> None:
        """Tell the slots, at once; keep the answers for `store`; decide about what failed."""
        bad: list[tuple[Flying, CallError]] = []
        for one, answers in landed:
            if isinstance(answers, CallError):
                self._road.failed(one.call, one.slot, one.began, answers)
                bad.append((one, answers))
            else:
                self._unstored.append((one, answers, self._road.landed(one.call, one.slot, one.began, Outcome.OK)))
        if not bad:
            return
        self.store()
        for one, error in bad:
            self._call_failed(one.items, error)
        if any(KINDS[error.kind].strike for _, error in bad) and self.ended_by is None:
            self._run.stop.pause(STRIKE_PAUSE_SECONDS)

    def store(self) -> None:
        """Store what came home and end its items, in one transaction."""
        came, self._unstored = self._unstored, []
        symbols = [symbol for one, _, _ in came for symbol in one.call.symbols]
        # One that was lost and claimed again may come home twice; a transaction writes it once.
        for group in [came] if len(symbols) == len(set(symbols)) else [[one] for one in came]:
            self._store(group)

    def _store(self, came: Sequence[tuple[Flying, Answers, CallRecord]]) -> None:
        if not came:
            return
        items = [item for one, _, _ in came for item in one.items]
        known = {item.asset.symbol for item in items if item.served_at is not None}
        self._write(
            items,
            [found for one, answers, _ in came for found in sort_out(one.call.assets, answers, known)],
            [record for _, _, record in came],
            served_at=min(one.began_at for one, _, _ in came),
        )
        self.judge()
        self._run.announcer.announce()

    def _write(
        self, items: Sequence[Item], brought: Sequence[Brought], records: Sequence[CallRecord], *, served_at: datetime
    ) -> None:
        # A failure is told of what this run still answers for; another one may have had better luck meanwhile.
        failed = {found.symbol for found in brought if found.failure is not None}
        lost = failed - self._claims.still_hold([item for item in items if item.asset.symbol in failed])

        def ending(stored: Stored) -> tuple[list[Item], list[Ending], set[str]]:
            failures = {failure.symbol: failure for failure in stored.failed}
            done = [item for item in items if item.asset.symbol not in failures]
            endings = [
                verdict(item, failures[item.asset.symbol], self._settings)
                for item in items
                if item.asset.symbol in failures
            ]
            return done, endings, self._claims.write(done, endings)

        kept = [found for found in brought if found.symbol not in lost]
        self._claims.note(*self._road.store(kept, records, ending, served_at=served_at))

    def _call_failed(self, items: tuple[Item, ...], error: CallError) -> None:
        """Decide what becomes of a call's items, none of which it brought."""
        log.info("a call for %d assets failed: %s: %s", len(items), error.kind, error)
        meaning, together = KINDS[error.kind], len(items) > 1
        if meaning.strike:
            if error.kind is FailureKind.UNREACHABLE:
                self._give_back(items)  # nothing was reached, whatever was asked for
            else:
                self._suspects.append((items, error))
            if self._road.api_is_away():
                self._end(error)
        elif together and meaning.halve:
            half = (len(items) + 1) // 2
            self._claims.give_back([Ending(item, State.QUEUED, largest_call=half) for item in items])
        elif together or meaning.fate is Fate.BACK:
            # Not a word about any asset: about the key, the plan, or the pace. No other call fares better now.
            self._call_off()
            self._give_back(items)
            if not meaning.retry:
                self._end(error)
        else:
            self._fail_alone(items[0], error)

    def _give_back(self, items: Sequence[Item], *, struck: bool = False) -> None:
        self._claims.give_back([Ending(item, State.QUEUED, struck=struck) for item in items])

    def _call_off(self) -> None:
        """Keep calls from leaving that have not left yet."""
        called_off = self._flights.call_off()
        if not called_off:
            return
        self._road.given_up([one for one in called_off if one.asked.flight.sent])
        for one in called_off:
            if not one.asked.flight.sent:
                self._road.limiter.release(one.slot, Outcome.UNSENT)
        self._give_back([item for one in called_off for item in one.items])

    def _fail_alone(self, item: Item, error: CallError) -> None:
        failure = Failure(item.asset.symbol, error.kind, error.reason)
        brought = Brought(item.asset.symbol, failure=failure, known=item.served_at is not None)
        self._write([item], [brought], [], served_at=self._run.clock.now())

    def _end(self, error: CallError) -> None:
        """End the run, and blame no item, but for those that had the benefit of the doubt before."""
        self.ended_by = self.ended_by or Trouble(error.kind, error.reason)
        self._call_off()
        suspects, self._suspects = self._suspects, []
        answered_at = runs.last_answer_at(self._run.connection) if suspects else None
        for items, why in suspects:
            if answered_at and any(item.struck_at and item.struck_at < answered_at for item in items):
                self._blame(items, why)
            else:
                self._give_back(items, struck=True)

    def judge(self) -> None:
        """Blame those that failed as if the API were away for it: it answers, or was not asked often enough to tell."""
        suspects, self._suspects = self._suspects, []
        for items, error in suspects:
            self._blame(items, error)

    def _blame(self, items: tuple[Item, ...], error: CallError) -> None:
        """Let a call's items answer for its failure: one alone; several are asked again in halves, later."""
        if len(items) == 1:
            self._fail_alone(items[0], error)
            return
        self._claims.give_back(
            [
                Ending(
                    item,
                    State.DELAYED,
                    delay_seconds=self._settings.retry_delay_seconds,
                    largest_call=(len(items) + 1) // 2,
                    failure=Failure(item.asset.symbol, error.kind, error.reason),
                )
                for item in items
            ]
        )
