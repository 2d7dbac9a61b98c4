"""What waits in the queue, as a drain finds it: whether anything does, and the calls for what is first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database import queue
from assetbatch.database.queue import Ending, State
from assetbatch.jobs.sight import Turn
from assetbatch.model import Call, CallKind
from assetbatch.planner import Mode

if TYPE_CHECKING:
    from assetbatch.database.queue import BroughtBack, Item
    from assetbatch.jobs.claims import Claims
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.sight import Sight

# What a killed worker held, and what is due again, is looked for this often, and whenever nothing waits.
UPKEEP_SECONDS = 10.0
# Calls that are allowed at once leave within this time: what another process is told meanwhile does not reach them.
AT_ONCE_SECONDS = 0.1
# After a claim that found nothing, though something waits.
DRY_PAUSE_SECONDS = 0.05
# After a claim that another run's call is going to serve.
SERVED_PAUSE_SECONDS = 1.0


class Backlog:
    """The items that wait, claimed as calls are free for them."""

    def __init__(self, run: Run, sight: Sight, claims: Claims) -> None:
        self._run = run
        self._sight = sight
        self._claims = claims
        self._batch_size = run.config.settings.provider.batch_size
        self._upkeep_at = time.monotonic()
        # Whether something waits, as far as that was seen.
        self._waits = False

    def is_waiting(self, brought_back: BroughtBack | None = None) -> bool:
        """Return whether an item waits for a call, once what is due again has been brought back, as it was just now.

        What the last look or claim has seen to wait is taken for a yes: once, where calls are few.
        """
        if self._waits and self._sight.mode is Mode.LIVE:
            self._waits = self._run.config.calls_per_window is None
            return True
        brought_back = brought_back or self._keep_up()
        self._waits = brought_back.is_waiting
        if self._sight.mode is Mode.LIVE or not self._waits:
            return self._waits
        self._complete_served()
        return queue.is_waiting(self._run.connection)

    def _complete_served(self) -> None:
        """End the items whose newest finished day is there; where it brought no price, let them wait for an hour."""
        if self._sight.mode is Mode.END_OF_DAY:
            self._run.trip.unchanged += queue.complete_served(
                self._run.connection, self._sight.wanted_days(), self._sight.held_seconds()
            )

    def keep(self) -> None:
        """Look after what is claimed, in good time, and after what other workers lost."""
        self._claims.keep()
        if time.monotonic() - self._upkeep_at > UPKEEP_SECONDS:
            self._keep_up()

    def _keep_up(self) -> BroughtBack:
        self._upkeep_at = time.monotonic()
        self._claims.keep()
        return self._claims.bring_back()

    def calls_at_once(self, free: int) -> float:
        """Tell how many calls one claim may serve: where it is for one call, or the pace is slow, no more than used."""
        if self._batch_size > 1:
            return 1
        pace = self._run.config.settings.provider.max_calls_per_second
        return free if pace is None else min(free, max(1.0, pace * AT_ONCE_SECONDS))

    def claim(self, calls: int, items_left: float) -> list[tuple[Call, tuple[Item, ...]]]:
        """Claim what so many calls cover; what rests is done without one."""
        if self._sight.mode is Mode.END_OF_DAY:
            return self._claim_market()
        alone = self._batch_size == 1
        limit = int(min(calls if alone else self._batch_size, items_left))
        items = self._claims.take(limit=limit, alone=alone)
        now = self._run.clock.now()
        resting = {
            item
            for item in items
            if planner.rests(planner.Candidate(item.asset, item.served_at), now, self._sight.closed)
        }
        self._waits = items.more
        if not items:
            # Gone meanwhile, or another transaction has its hands on what waits.
            self._run.stop.pause(DRY_PAUSE_SECONDS)
        if resting:
            self._claims.complete(list(resting))
        self._run.trip.unchanged += [item.asset.symbol for item in resting]
        by_symbol = {item.asset.symbol: item for item in items if item not in resting}
        return [
            (call, tuple(by_symbol[symbol] for symbol in call.symbols))
            for call in planner.snapshots([item.asset for item in by_symbol.values()], self._batch_size)
        ]

    def _claim_market(self) -> list[tuple[Call, tuple[Item, ...]]]:
        """Claim the first item; its call serves all of its market."""
        items = tuple(self._claims.take(limit=1, alone=True))
        if not items:
            self._run.stop.pause(DRY_PAUSE_SECONDS)
            return []
        market = items[0].asset.asset_type
        call = Call(CallKind.DAILY, market=market, day=self._sight.wanted_days()[market])
        if call.day is None or self._sight.take_day(call, self._sight.days) is not Turn.OURS:
            # Another run is asking for it: its answer serves this item, too.
            self._claims.give_back([Ending(item, State.QUEUED) for item in items])
            self._run.stop.pause(SERVED_PAUSE_SECONDS)
            self._sight.look()
            return []
        return [(self._sight.widened(call), items)]
