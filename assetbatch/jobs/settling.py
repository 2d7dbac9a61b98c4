"""What becomes of calls that came home: what they brought is stored, what failed is judged by `errors.KINDS`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database import runs
from assetbatch.database.prices import Brought
from assetbatch.database.queue import Ending, State
from assetbatch.database.rate_limit import Outcome
from assetbatch.errors import KINDS, CallError, FailureKind, Fate
from assetbatch.jobs.claims import Claims, verdict
from assetbatch.jobs.update import sort_out
from assetbatch.model import CallKind, Failure, Trouble
from assetbatch.provider.bars import Page
from assetbatch.provider.flight import HeldUpError
from assetbatch.provider.quotes import Answers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.prices import Stored
    from assetbatch.database.queue import Item
    from assetbatch.database.runs import CallRecord
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.bar_catalogue import CatalogueBars
    from assetbatch.jobs.bars import Bars
    from assetbatch.jobs.flights import Flights, Flying
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.sight import Sight
    from assetbatch.jobs.update import Road
    from assetbatch.model import Call
    from assetbatch.provider.reading import Answer

log = logging.getLogger(__name__)

# After a failure that may pass.
STRIKE_PAUSE_SECONDS = 0.5


class _LostError(Exception):
    """Items whose failures were to be stored are another run's by now; nothing was stored."""

    def __init__(self, symbols: set[str]) -> None:
        super().__init__(symbols)
        self.symbols = symbols


class Settling:
    """Stores and judges for one run. `ended_by` is what no further call can fare better than, once there is such."""

    def __init__(
        self, run: Run, *, road: Road, sight: Sight, claims: Claims, flights: Flights, bars: Bars[CatalogueBars]
    ) -> None:
        self._run = run
        self._road = road
        self._sight = sight
        self._claims = claims
        self._flights = flights
        self._bars = bars
        self._settings = run.config.settings.queue
        self._unstored: list[tuple[Flying, Answers, CallRecord]] = []
        # Calls that failed as if the API were away: the next answer tells whether it was the API, or they.
        self._suspects: list[tuple[tuple[Item, ...], CallError]] = []
        self.ended_by: Trouble | None = None

    @property
    def is_behind(self) -> bool:
        """Whether something came home that is not stored yet."""
        return bool(self._unstored)

    def take_in(self, landed: Sequence[tuple[Flying, Answer | CallError | HeldUpError]]) -> None:
        """Tell the slots, at once; keep the answers for `store`; decide about what failed."""
        bad: list[tuple[Flying, CallError]] = []
        pages: list[tuple[BarCall, Page, CallRecord]] = []
        for one, answer in landed:
            if isinstance(answer, HeldUpError):
                self._held_up(one)
                continue
            if isinstance(answer, CallError):
                self._failed(one, answer)
                bad.append((one, answer))
                continue
            record = self._road.landed(one.call, one.slot, one.began, Outcome.OK)
            if one.bars is not None:
                assert isinstance(answer, Page)  # noqa: S101 - such calls bring bars
                pages.append((one.bars, answer, record))
            else:
                assert isinstance(answer, Answers)  # noqa: S101 - such calls bring prices
                self._unstored.append((one, answer, record))
        if bad or pages:
            self.store()
        for bars, page, record in pages:
            self._bars.landed(bars, page, record)
        for one, error in bad:
            if one.bars is None:
                self._call_failed(one, error)
            else:
                self._bars_failed(one.bars, error)
        if any(KINDS[error.kind].strike for _, error in bad) and self.ended_by is None:
            self._run.stop.pause(STRIKE_PAUSE_SECONDS)

    def _failed(self, one: Flying, error: CallError) -> None:
        """Tell the slot of a call that failed; after one too many, none leaves that has not left yet."""
        self._road.failed(one.call, one.slot, one.began, error)
        if error.kind is FailureKind.RATE_LIMITED:
            self._call_off()

    def _held_up(self, one: Flying) -> None:
        """Give back all that a call was for that never left, as if it had not been begun."""
        self._road.held_up(one.slot)
        if one.bars is not None:
            self._bars.held_up(one.bars)
        if one.call.kind is CallKind.DAILY:
            self._sight.give_up_day()
        self._give_back(one.items)
        self._claims.taken -= len(one.items)

    def store(self) -> None:
        """Store what came home and end its items, in one transaction."""
        came, self._unstored = self._unstored, []
        for days in [one for one in came if one[0].call.day is not None]:
            came.remove(days)
            self._store([days])
        symbols = [symbol for one, _, _ in came for symbol in one.call.symbols]
        # One that was lost and claimed again may come home twice; a transaction writes it once.
        for group in [came] if len(symbols) == len(set(symbols)) else [[one] for one in came]:
            self._store(group)

    def _store(self, came: Sequence[tuple[Flying, Answers, CallRecord]]) -> None:
        if not came:
            return
        items = [item for one, _, _ in came for item in one.items]
        known = self._sight.known | {item.asset.symbol for item in items if item.served_at is not None}
        self._write(
            items,
            [found for one, answers, _ in came for found in sort_out(one.call, answers, known, self._sight.excuses)],
            [record for _, _, record in came],
            served_at=planner.served_as_of(came[0][0].call, min(one.began_at for one, _, _ in came)),
            call=came[0][0].call,
        )
        if any(item.served_at is None for item in items):
            self._bars.work.look_again()
        self._sight.learn(came[0][0].call, None)
        self.judge()
        self._run.announcer.announce()

    def _write(
        self,
        items: Sequence[Item],
        brought: Sequence[Brought],
        records: Sequence[CallRecord],
        *,
        served_at: datetime,
        call: Call | None = None,
    ) -> None:
        day = None if call is None else call.day
        claimed = {item.asset.symbol for item in items}

        def ending(stored: Stored) -> tuple[list[Item], list[Ending], set[str]]:
            failures = {failure.symbol: failure for failure in stored.failed}
            if call is not None and day is not None:
                self._claims.forget(self._sight.note_stored(call))
                # What the vendor has not of a day it will not have in a minute: that item is done, too.
                failures = {symbol: one for symbol, one in failures.items() if one.kind is not FailureKind.MISSING}
            locked = set(stored.locked)
            done = [item for item in items if item.asset.symbol not in failures.keys() | locked]
            endings = [
                self._verdict(item, failures[item.asset.symbol], of_day=day is not None)
                for item in items
                if item.asset.symbol in failures
            ]
            # Nobody's fault: it is asked for again a little later.
            delay = self._settings.retry_delay_seconds
            endings += [
                Ending(item, State.DELAYED, delay_seconds=delay) for item in items if item.asset.symbol in locked
            ]
            ended = self._claims.write(done, endings)
            if lost := claimed & failures.keys() - ended:
                raise _LostError(lost)
            return done, endings, ended

        # A failure is told of what this run still answers for; another one may have had better luck meanwhile.
        while True:
            try:
                noted = self._road.store(brought, records, ending, served_at=served_at, day=day)
            except _LostError as error:
                brought = [found for found in brought if found.symbol not in error.symbols]
            else:
                self._claims.note(*noted)
                return

    def _verdict(self, item: Item, failure: Failure, *, of_day: bool) -> Ending:
        if of_day:
            # The answer was about the whole market: no attempt is spent, and the day is asked for again in an hour.
            hour = planner.ASK_AGAIN.total_seconds()
            return Ending(item, State.DELAYED, delay_seconds=hour, failure=failure)
        return verdict(item, failure, self._settings)

    def _call_failed(self, one: Flying, error: CallError) -> None:
        """Decide what becomes of a call's items, none of which it brought."""
        items = one.items
        if self._sight.learn(one.call, error):
            self._call_off()
            self._give_back(items)
            return
        if one.call.kind is CallKind.DAILY:
            self._day_failed(items, error)
            return
        if all(self._sight.excuses(item.asset, error.kind) for item in items):
            self._write_answers([(item, None) for item in items])
            return
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

    def _bars_failed(self, bars: BarCall, error: CallError) -> None:
        self._bars.failed(bars, error)
        if self._bars.work.ended_by is not None and self.ended_by is None:
            self._end(error)

    def _day_failed(self, items: Sequence[Item], error: CallError) -> None:
        """Give back the items of a call for a whole market: it says nothing about any of them."""
        self._sight.give_up_day()
        self._give_back(items)
        if not KINDS[error.kind].retry or self._road.api_is_away():
            self._end(error)

    def _give_back(self, items: Sequence[Item], *, struck: bool = False) -> None:
        self._claims.give_back([Ending(item, State.QUEUED, struck=struck) for item in items])

    def _call_off(self) -> None:
        """Keep calls from leaving that have not left yet."""
        called_off = self._flights.call_off()
        if not called_off:
            return
        self._road.given_up([one for one in called_off if one.asked.flight.sent])
        for one in called_off:
            if one.bars is not None:
                self._bars.let_go(one.bars)
            if one.call.kind is CallKind.DAILY:
                # Else the run would wait for itself, until its lease of the day is over.
                self._sight.give_up_day()
            if not one.asked.flight.sent:
                self._road.limiter.release(one.slot, Outcome.UNSENT)
        self._give_back([item for one in called_off for item in one.items])

    def _fail_alone(self, item: Item, error: CallError) -> None:
        self._write_answers([(item, Failure(item.asset.symbol, error.kind, error.reason))])

    def _write_answers(self, answers: Sequence[tuple[Item, Failure | None]]) -> None:
        """Store what a call without a document said of its items: a failure, or that their market rests (None)."""
        brought = [
            Brought(item.asset.symbol, failure=failure, known=item.served_at is not None) for item, failure in answers
        ]
        self._write([item for item, _ in answers], brought, [], served_at=self._run.clock.now())

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
