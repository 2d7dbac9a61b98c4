"""What waits in the queue: claimed as calls are free for it, stored or judged as they come home.

An item is charged for a failure only where it is its own; where the API may be in trouble, only once the API is seen
to answer others.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from assetbatch import planner
from assetbatch.database import runs
from assetbatch.database.prices import Brought, Times
from assetbatch.database.queue import items as queue
from assetbatch.database.queue.items import Ending, State
from assetbatch.failures import OF_A_TICKERS_DAY, POLICIES, CallError, Covers, Then, decide
from assetbatch.jobs.calls import PATIENCE_SECONDS
from assetbatch.jobs.entitlements import Turn
from assetbatch.jobs.storing import sort_out, write_prices
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.model import CallKind, Failure, Trouble
from assetbatch.provider import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from assetbatch.database.prices import Stored
    from assetbatch.database.query import Query
    from assetbatch.database.queue.items import BroughtBack, Item
    from assetbatch.database.runs import CallRecord
    from assetbatch.failures import FailureKind
    from assetbatch.jobs.calls import Calls, Landed
    from assetbatch.jobs.claims import Claims, Verdicts
    from assetbatch.jobs.entitlements import Entitlements
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Call

log = logging.getLogger(__name__)

# What a killed worker held, and what is due again, is looked for this often, and whenever nothing waits.
UPKEEP_SECONDS = 10.0
# Calls that are allowed at once leave within this time: what another process is told meanwhile does not reach them.
AT_ONCE_SECONDS = 0.1
# What one claim takes, and one transaction stores, for several calls: it keeps rows from others for some 50 ms.
ITEMS_AT_ONCE = 500
# After a claim that found nothing, though something waits.
DRY_PAUSE_SECONDS = 0.05
# After a claim that another run's call is going to serve.
SERVED_PAUSE_SECONDS = 1.0


class _LostError(Exception):
    """Items whose failures were to be stored are another run's by now; nothing was stored."""

    def __init__(self, symbols: set[str]) -> None:
        super().__init__(symbols)
        self.symbols = symbols


class QueueWork(Source):
    """The queue's items of some `types`, as one run works on them: `max_items` at most, None: any number.

    An item of another type is left to a run that knows of it as it begins, and how its calls are limited.
    `served_anew` is called when assets were served that never were before, `progress` after what came was stored.
    """

    def __init__(
        self,
        run: Run,
        calls: Calls,
        entitlements: Entitlements,
        claims: Claims,
        *,
        types: frozenset[AssetType],
        max_items: int | None,
        served_anew: Callable[[], None],
        progress: Callable[[], None],
    ) -> None:
        self._run = run
        self._calls = calls
        self._entitlements = entitlements
        self._claims = claims
        self._of = types
        self._max_items = max_items
        self._served_anew = served_anew
        self._progress = progress
        self._settings = run.config.settings.queue
        self._batch_size = run.config.settings.provider.batch_size
        self._upkeep_at = time.monotonic()
        # Whether something waits, as far as that was seen; where nothing does, until when that is taken for true.
        self._waits = False
        self._dry_until = 0.0
        self._unstored: list[Landed] = []
        # Calls that failed as if the API were away: the next answer tells whether it was the API, or they.
        self._suspects: list[tuple[tuple[Item, ...], CallError]] = []
        self._ended_by: Trouble | None = None

    # --- Work

    @property
    def ended_by(self) -> Trouble | None:
        """What no further call can fare better than, once there is such."""
        return self._ended_by

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of assets that the next call may be about."""
        return self._of

    @property
    def _daily(self) -> frozenset[AssetType]:
        """Those of which calls bring finished days."""
        return self._entitlements.daily_types & self._of

    @property
    def _open(self) -> frozenset[AssetType]:
        """The types of which items may be claimed."""
        return frozenset(one for one in self._of if self._entitlements.barred(one) is None)

    @property
    def _has_live(self) -> bool:
        return bool(self._of - self._daily)

    @property
    def _is_alone(self) -> bool:
        """Whether there are no assets of other types."""
        return self._entitlements.types <= self._of

    @property
    def items_left(self) -> float:
        """How many more items it may claim."""
        return float("inf") if self._max_items is None else self._max_items - self._claims.taken

    @property
    def awaits(self) -> bool:
        """Whether a finished day is under way, or not stored yet."""
        if not self._daily:
            return False
        asked = any(one.call.kind is CallKind.DAILY for one in self._calls.under_way)
        return asked or any(one.call.day is not None for one in self._unstored)

    @property
    def is_behind(self) -> bool:
        """Whether something came home that is not stored yet."""
        return bool(self._unstored)

    def is_ready(self) -> bool:
        """Return whether an item waits, and its price may be asked for."""
        if not self.is_waiting():
            return False
        if not self._of or self._open:
            return True
        if self._is_alone:
            self._ended_by = next(filter(None, map(self._entitlements.barred, self._daily)), None)
        return False

    def is_waiting(self, brought_back: BroughtBack | None = None) -> bool:
        """Return whether an item waits for a call, once what is due again has been brought back, as it was just now.

        What the last look or claim has seen to wait is taken for a yes: once, where calls are few.
        """
        if self._waits and not self._daily:
            self._waits = not self._calls.takes_slot(self.types)
            return True
        if brought_back is None and time.monotonic() < self._dry_until:
            return False
        is_of_all = brought_back is not None and not self._is_alone
        brought_back = brought_back or self._keep_up()
        self._see(is_waiting=brought_back.is_waiting)
        if not self._waits or not (self._daily or is_of_all):
            return self._waits
        self._complete_served()
        is_waiting = self._run.connection.answer(queue.waiting(self._open or self._of))
        if not is_waiting:
            self._see(is_waiting=False)
        return is_waiting

    def _see(self, *, is_waiting: bool) -> None:
        self._waits = is_waiting
        self._dry_until = 0.0 if is_waiting else time.monotonic() + PATIENCE_SECONDS

    def _complete_served(self) -> None:
        """End the items whose newest finished day is there; where it brought no price, let them wait for an hour."""
        wanted = {one: day for one, day in self._entitlements.wanted_days().items() if one in self._daily}
        if wanted:
            held = self._entitlements.held_seconds()
            self._run.stored.unchanged += queue.complete_served(self._run.connection, wanted, held)

    def _keep_up(self) -> BroughtBack:
        self._upkeep_at = time.monotonic()
        self._claims.keep()
        return self._claims.bring_back(self._of)

    def wants(self, free: int) -> tuple[int, int]:
        """Return for how many calls one claim may serve: as many as the pace lets leave at once; of days, for one."""
        if not self._has_live:
            return 1, 0
        pace = self._run.config.settings.provider.max_calls_per_second
        at_once = free if pace is None else min(free, max(1, int(pace * AT_ONCE_SECONDS)))
        return min(at_once, math.ceil(min(self.items_left, ITEMS_AT_ONCE) / self._batch_size)), 0

    def begin(self, calls: int) -> Sequence[Planned]:
        """Claim what so many calls cover, or one item whose call brings a finished day; what rests is done without."""
        alone, daily = self._batch_size == 1 or not self._has_live, self._daily
        limit = int(min(calls * self._batch_size, self.items_left)) if self._has_live else 1
        items = self._claims.take(limit=limit, calls=calls, alone=alone, types=self._open, daily=daily)
        if items and items[0].asset.asset_type in daily:
            self._see(is_waiting=items.more)
            return self._begin_day(items[0])
        now, delays, closed = self._run.clock.now(), self._run.config.delays, self._entitlements.closed
        seen = ((item, planner.Candidate(item.asset, item.served_at)) for item in items)
        resting = [item for item, candidate in seen if planner.rests(candidate, now, delays, closed)]
        self._see(is_waiting=items.more)
        if not items:
            # Gone meanwhile, or another transaction has its hands on what waits.
            self._dry_until = 0.0
            self._run.stop.pause(DRY_PAUSE_SECONDS)
        by_symbol = {item.asset.symbol: item for item in items}
        if resting:
            self._claims.complete(resting)
            self._run.stored.unchanged += [by_symbol.pop(item.asset.symbol).asset.symbol for item in resting]
        planned = [
            Planned(endpoints.prices(call), tuple(by_symbol[symbol] for symbol in call.symbols))
            for call in planner.snapshots([item.asset for item in by_symbol.values()], self._batch_size)
        ]
        if left := [(one.request.call, one.work) for one in planned[calls:]]:
            # Tickers so long that fewer of them fit into each call.
            self.take_back(left, held_up=True)
        return planned[:calls]

    def _begin_day(self, item: Item) -> Sequence[Planned]:
        """Return the call for the finished day that an item waits for: it may serve all of its market."""
        items, asset = (item,), item.asset
        day = self._entitlements.wanted_days()[asset.asset_type]
        if day is not None and asset.polygon_ticker in self._entitlements.refused_tickers:
            self._claims.complete(items)
            return []
        if day is not None and (call := planner.day_of(asset, day)).kind is CallKind.DAILY_TICKER:
            return [Planned(endpoints.prices(call), items)]
        if day is None or self._entitlements.take_day(call, self._entitlements.days) is not Turn.OURS:
            # Another run is asking for it: its answer serves this item, too.
            self._give_back(items)
            self._run.stop.pause(SERVED_PAUSE_SECONDS)
            self._entitlements.look()
            return []
        return [Planned(endpoints.prices(self._entitlements.widened(call)), items)]

    # --- What came

    def landed(self, came: Sequence[Landed]) -> None:
        """Keep answers for `store`."""
        if not came:
            # Others have used a slot, or time has passed: an item that is new goes before their next one.
            self._dry_until = 0.0
        self._unstored += came

    def store(self) -> None:
        """Store what came home and end its items, in one transaction; look after what is held."""
        came, self._unstored = self._unstored, []
        for day in [one for one in came if one.call.day is not None]:
            came.remove(day)
            self._store([day])
        for group in _transactions(came):
            self._store(group)
        self._claims.keep()
        if time.monotonic() - self._upkeep_at > UPKEEP_SECONDS:
            self._keep_up()
        self._progress()

    def _store(self, came: Sequence[Landed]) -> None:
        if not came:
            return
        call, refused = came[0].call, set[str]()
        for one in came:
            refused |= {asset.symbol for asset in self._entitlements.learn_rows(one.call, one.answer)}
        items = [item for one in came for item in one.work if item.asset.symbol not in refused]
        known = self._entitlements.known | {item.asset.symbol for item in items if item.served_at is not None}
        brought = [one for each in came for one in sort_out(each.call, each.answer, known, self._entitlements.excuses)]
        self._write(
            items,
            [one for one in brought if one.symbol not in refused],
            [one.record for one in came if one.record is not None],
            served_at=planner.served_as_of(call, min(one.began_at for one in came)),
            call=call,
        )
        if refused:
            # What the key may not see live is claimed again, for a finished day.
            self._dry_until = 0.0
            self._give_back([item for one in came for item in one.work if item.asset.symbol in refused])
        if any(item.served_at is None for item in items):
            self._served_anew()
        self._charge_suspects()
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

        def ending(stored: Stored) -> tuple[Sequence[Query[Any]], Callable[[], Verdicts]]:
            verdicts = self._claims.verdicts(items, stored, of_day=day is not None)

            def check() -> Verdicts:
                if call is not None and call.kind is CallKind.DAILY:
                    self._claims.forget(self._entitlements.note_stored(call))
                if lost := verdicts.failed - verdicts.ended:
                    raise _LostError(lost)
                return verdicts

            return verdicts.queries, check

        # A failure is told of what this run still answers for; another one may have had better luck meanwhile.
        while True:
            times = Times(served_at, self._run.clock.now(), day)
            try:
                found, verdicts = write_prices(self._run.connection, brought, times, records, ending)
            except _LostError as error:
                brought = [one for one in brought if one.symbol not in error.symbols]
            else:
                stored = self._run.stored
                stored += found
                self._claims.note(verdicts)
                return

    # --- What failed

    def failed(self, one: Landed, error: CallError) -> Aftermath:
        """Decide what becomes of a call's items, none of which it brought."""
        self._dry_until = 0.0
        items: tuple[Item, ...] = one.work
        if self._entitlements.learn(one.call, error):
            self._give_back(items)
            return Aftermath.of(error.kind, calls_off=True)
        is_day = one.call.kind is CallKind.DAILY
        if one.call.kind is CallKind.DAILY_TICKER and error.kind in OF_A_TICKERS_DAY:
            self._write_day_of_ticker(one.call, items, OF_A_TICKERS_DAY[error.kind], error)
            return Aftermath()
        if one.call.day is None and all(self._entitlements.excuses(item.asset, error.kind) for item in items):
            self._write_answers([(item, None) for item in items])
            return Aftermath.of(error.kind)
        log.info("a call for %d assets failed: %s: %s", len(items), error.kind, error)
        covers = Covers.MARKET if is_day else Covers.SEVERAL if len(items) > 1 else Covers.ONE
        is_away = POLICIES[error.kind].strike and self._calls.api_is_away()
        decision = decide(error.kind, covers, is_away=is_away)
        match decision.then:
            case Then.SUSPECT:
                self._suspects.append((items, error))
            case Then.HALVE:
                half = (len(items) + 1) // 2
                self._claims.give_back([Ending(item, State.QUEUED, largest_call=half) for item in items])
            case Then.FAIL:
                self._fail_alone(items[0], error)
            case _:
                if is_day:
                    self._entitlements.give_up_day()
                self._give_back(items)
        # What was given back would be claimed again: where it is not worth another call, nothing is.
        gives_back = decision.then is Then.GIVE_BACK
        is_barred = is_day and all(self._entitlements.barred(one) for one in one.call.types)
        if decision.ends_run or (gives_back and not is_barred and not POLICIES[error.kind].retry):
            self._ended_by = self._ended_by or Trouble(error.kind, error.reason)
        calls_off = gives_back and not is_day and not POLICIES[error.kind].strike
        return Aftermath.of(error.kind, calls_off=calls_off)

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Give items back; of calls that were held up, as if they had never been claimed."""
        self._dry_until = 0.0
        if any(call.kind is CallKind.DAILY for call, _ in works):
            # Else the run would wait for itself, until its lease of the day is over.
            self._entitlements.give_up_day()
        items = [item for _, own in works for item in own]
        self._give_back(items)
        if held_up:
            self._claims.taken -= len(items)

    def _give_back(self, items: Sequence[Item], *, struck: bool = False) -> None:
        self._claims.give_back([Ending(item, State.QUEUED, struck=struck) for item in items])

    def _fail_alone(self, item: Item, error: CallError) -> None:
        self._write_answers([(item, Failure(item.asset.symbol, error.kind, error.reason))])

    def _write_answers(self, answers: Sequence[tuple[Item, Failure | None]]) -> None:
        """Store what a call without a document said of its items: a failure, or that their market rests (None)."""
        brought = [
            Brought(item.asset.symbol, failure=failure, known=item.served_at is not None) for item, failure in answers
        ]
        self._write([item for item, _ in answers], brought, [], served_at=self._run.clock.now())

    def _write_day_of_ticker(self, call: Call, items: Sequence[Item], kind: FailureKind, error: CallError) -> None:
        """Store that the vendor has not a ticker's day, or not for this key."""
        brought = [
            Brought(one.symbol, failure=Failure(one.symbol, kind, error.reason), known=item.served_at is not None)
            for item in items
            for one in (item.asset,)
        ]
        self._write(items, brought, [], served_at=planner.served_as_of(call, self._run.clock.now()), call=call)

    def finish(self, *, has_ended: bool) -> None:
        """Charge the suspects; where the run has ended early, those alone that had the benefit of the doubt before."""
        if not has_ended:
            # The API answers, or was not asked often enough to tell.
            self._charge_suspects()
            return
        suspects, self._suspects = self._suspects, []
        answered_at = runs.last_answer_at(self._run.connection) if suspects else None
        for items, why in suspects:
            if answered_at and any(item.struck_at and item.struck_at < answered_at for item in items):
                self._charge(items, why)
            else:
                self._give_back(items, struck=True)

    def _charge_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for items, error in suspects:
            self._charge(items, error)

    def _charge(self, items: tuple[Item, ...], error: CallError) -> None:
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


def _transactions(came: Sequence[Landed]) -> list[list[Landed]]:
    """Return what is stored together; what was lost and claimed again may come home twice, and is written once each."""
    together: list[list[Landed]] = []
    symbols: set[str] = set()
    for one in came:
        own = set(one.call.symbols)
        if not together or symbols & own or len(symbols) + len(own) > ITEMS_AT_ONCE:
            together.append([])
            symbols = set()
        together[-1].append(one)
        symbols |= own
    return together
