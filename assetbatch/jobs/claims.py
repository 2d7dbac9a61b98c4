"""What a drain has claimed: held while a call works on it, ended or given back, whatever happens to the run."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch import planner, plans
from assetbatch.boottime import boot_time
from assetbatch.database.queue import items as queue
from assetbatch.database.queue.items import Ending, State
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.database.retries import in_transaction
from assetbatch.failures import POLICIES, FailureKind, Fate, backoff_seconds
from assetbatch.markets import TRAITS
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from assetbatch.config import Config
    from assetbatch.config.settings import Queue
    from assetbatch.database.connection import Connection
    from assetbatch.database.prices import Stored
    from assetbatch.database.query import Query
    from assetbatch.database.queue.items import Batch, BroughtBack, Item
    from assetbatch.model import AssetType

log = logging.getLogger(__name__)

# What the vendor says of an asset and a day, and will say again.
NOT_OF_THE_DAY = frozenset({FailureKind.MISSING, FailureKind.NOT_ENTITLED})
# Without aging a step of priority is worth more than anybody waits.
STRICT_STEP = timedelta(days=36_525)


def step_seconds(config: Config) -> float:
    """Return what a step of priority is worth in waiting."""
    minutes = config.settings.queue.aging_minutes
    return (timedelta(minutes=minutes) if minutes else STRICT_STEP).total_seconds()


def verdict(item: Item, failure: Failure, settings: Queue, *, of_day: bool = False) -> Ending:
    """Return how an item ends whose asset failed alone; `of_day`: in the answer for its whole market."""
    if of_day:
        # No attempt is spent, and the day is asked for again in an hour.
        hour = plans.ASK_AGAIN.total_seconds()
        return Ending(item, State.DELAYED, delay_seconds=hour, failure=failure)
    fate = POLICIES[failure.kind].fate
    if failure.kind is FailureKind.UNKNOWN_TICKER and TRAITS[item.asset.asset_type].lists_inactive:
        # It may be delisted: meanwhile the reference list is asked.
        fate = Fate.RETRY
    match fate:
        case Fate.BACK:
            return Ending(item, State.DELAYED, delay_seconds=settings.retry_delay_seconds, failure=failure)
        case Fate.RETRY if item.attempts <= settings.retry_max_attempts:
            delay = backoff_seconds(item.attempts, settings.retry_delay_seconds)
            return Ending(item, State.DELAYED, spent=True, delay_seconds=delay, failure=failure)
    return Ending(item, State.DEAD, spent=True, failure=failure)


class Verdicts(Struct, frozen=True):
    """Items that are done, and how the others end; `queries` write it, fenced by their claims."""

    done: Sequence[Item]
    endings: Sequence[Ending]
    queries: Sequence[Query[set[str]]]

    @property
    def failed(self) -> set[str]:
        """Symbols of items that end by a failure."""
        return {ending.item.asset.symbol for ending in self.endings if ending.failure is not None}

    @property
    def ended(self) -> set[str]:
        """Symbols of items whose claim was still held, once the queries are answered."""
        return {symbol for query in self.queries for symbol in query.answer}


class Claims:
    """The items that one run holds, and what became of those that it held."""

    def __init__(self, config: Config, connection: Connection, api_key: str, *, run_id: int) -> None:
        self._run_id = run_id
        self._settings = config.settings.queue
        self._connection = connection
        self._ending = partial(
            queue.ending, step_seconds=step_seconds(config), plan=config.plan_words, key=key_fingerprint(api_key)
        )
        self._held: set[Item] = set()
        self._kept_at = boot_time()
        self.taken = 0
        self.requeued: dict[str, None] = {}
        self.dead: list[Failure] = []

    def bring_back(self, types: Collection[AssetType]) -> BroughtBack:
        """Bring back what killed workers held, and what is due again; look whether an item of these types waits."""
        found = queue.bring_back(self._connection, retries=self._settings.retry_max_attempts, types=types)
        self.brought_back(found)
        return found

    def brought_back(self, found: BroughtBack) -> None:
        """Note what was brought back."""
        if found.expired or found.dead:
            log.info("workers were lost: %d items are back, %d are dead", len(found.expired), len(found.dead))
        self.dead += [Failure(symbol, FailureKind.WORKER_LOST, queue.LOST) for symbol in found.dead]

    def take(
        self, *, limit: int, calls: int, alone: bool, types: Collection[AssetType], daily: Collection[AssetType] = ()
    ) -> Batch:
        """Claim the first items that so many calls cover, `limit` at most; `alone`: each is to have a call of its own.

        Of these `types` only; an item of `daily` types alone.
        """
        asked_at = boot_time()
        items = queue.claim(
            self._connection,
            limit=limit,
            alone=alone,
            max_length=calls * planner.MAX_TICKERS_LENGTH,
            added_length=planner.ADDED_LENGTH,
            lease_seconds=self._settings.lease_seconds,
            run_id=self._run_id,
            types=types,
            daily=daily,
        )
        self.taken += len(items)
        for item in items:
            self.requeued.pop(item.asset.symbol, None)
        if not self._held:
            self._kept_at = asked_at
        self._held.update(items)
        return items

    def keep(self) -> None:
        """Renew the leases of what is held, in good time."""
        if self._held and boot_time() - self._kept_at > self._settings.lease_seconds / 3:
            self._kept_at = boot_time()
            seconds = self._settings.lease_seconds
            in_transaction(
                self._connection, lambda: queue.keep(self._connection, list(self._held), lease_seconds=seconds)
            )

    def verdicts(self, items: Sequence[Item], stored: Stored, *, of_day: bool) -> Verdicts:
        """Return how items end of which that was stored; `of_day`: it came for their whole market."""
        failures = {failure.symbol: failure for failure in stored.failed}
        if of_day:
            # What the vendor has not of a day, or not for this key, it will not have in a minute: that is done, too.
            failures = {symbol: one for symbol, one in failures.items() if one.kind not in NOT_OF_THE_DAY}
        locked = set(stored.locked)
        done: list[Item] = []
        endings: list[Ending] = []
        for item in items:
            symbol = item.asset.symbol
            if symbol in locked:
                # Nobody's fault: it is asked for again a little later.
                endings.append(Ending(item, State.DELAYED, delay_seconds=self._settings.retry_delay_seconds))
            elif symbol in failures:
                endings.append(verdict(item, failures[symbol], self._settings, of_day=of_day))
            else:
                done.append(item)
        return self._of(done, endings)

    def _of(self, done: Sequence[Item], endings: Sequence[Ending]) -> Verdicts:
        queries = [*([queue.completing(done)] if done else []), *([self._ending(endings)] if endings else [])]
        return Verdicts(done, endings, queries)

    def note(self, verdicts: Verdicts) -> None:
        """Hold these no longer: they have ended, or their lease was lost to another run."""
        ended = verdicts.ended
        for item in (*verdicts.done, *(ending.item for ending in verdicts.endings)):
            self._held.discard(item)
            if item.asset.symbol not in ended:
                log.warning("%s is off this run's hands: removed, or held for too long", item.asset.symbol)
        for ending in verdicts.endings:
            if ending.item.asset.symbol not in ended:
                continue
            if ending.state is State.DEAD and ending.failure is not None:
                self.dead.append(ending.failure)
            else:
                self.requeued[ending.item.asset.symbol] = None

    def forget(self, symbols: Iterable[str]) -> None:
        """Take it that these items have ended after all: their market's call served them."""
        for symbol in symbols:
            self.requeued.pop(symbol, None)

    def complete(self, items: Sequence[Item]) -> None:
        """End items that need nothing stored."""
        self._end(self._of(items, ()))

    def give_back(self, endings: Sequence[Ending]) -> None:
        """End claims of which nothing is to be stored."""
        if endings:
            self._end(self._of((), endings))

    def _end(self, verdicts: Verdicts) -> None:
        in_transaction(self._connection, lambda: self._connection.ask(*verdicts.queries))
        self.note(verdicts)
