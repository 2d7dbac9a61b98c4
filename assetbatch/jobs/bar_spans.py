"""Bars within some spans, asset by asset: the holes, or all of them once more."""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import TYPE_CHECKING

from msgspec.structs import replace

from assetbatch import bars as core
from assetbatch.database import catalogue
from assetbatch.database.bars import pages as bar_pages
from assetbatch.failures import Covers, FailureKind, Then, decide
from assetbatch.jobs.bar_calls import BarWork
from assetbatch.jobs.calls import ATTEMPTS
from assetbatch.model import Access, ChangedBar, Failure, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.bars import JudgedPage
    from assetbatch.database.bars.pages import StoredBars
    from assetbatch.failures import CallError
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.calls import Calls
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Bar, Span

log = logging.getLogger(__name__)

# How long at a time to wait for another run that asks for bars of the same asset.
WAIT_SECONDS = 0.5
SPARE_WAIT_SECONDS = 10.0


class SpanBars(BarWork):
    """The calls for what is missing within the span of each symbol; with `refetch`, for what is there, too.

    `kinds` has the type of each asset, beside others. `known_refused` are the symbols of which the platform's table has
    refused some before.
    """

    def __init__(
        self,
        run: Run,
        calls: Calls,
        spans: Mapping[str, Span],
        kinds: Mapping[str, AssetType],
        *,
        refetch: bool,
        known_refused: set[str],
    ) -> None:
        super().__init__(run)
        self._calls = calls
        self._spans = dict(spans)
        self._kinds = kinds
        self._refetch = refetch
        self._known_refused = known_refused
        self._waiting = deque(spans)
        # Where the first hole of each begins: a page from there on leaves nothing to look for.
        self._oldest: dict[str, datetime | None] = {}
        self._tries: Counter[str] = Counter()
        self._waits: Counter[str] = Counter()
        self._changed: dict[tuple[str, datetime], ChangedBar] = {}
        self.given_up: list[Failure] = []
        self.unknown: list[Failure] = []

    @property
    def todo(self) -> list[str]:
        """The symbols that are not done, nor under way: the next one first."""
        return list(self._waiting)

    @property
    def changed(self) -> list[ChangedBar]:
        """The bars that were stored otherwise before."""
        return list(self._changed.values())

    @property
    def types(self) -> frozenset[AssetType]:
        """The type of the next asset."""
        return frozenset({self._kinds[self._waiting[0]]})

    def has_work(self) -> bool:
        """Return whether anything is missing, before a slot is waited for: a wait may be a window long."""
        while self._waiting and self._missing(self._waiting[0]) is None:
            self._waiting.popleft()
        if self._waiting and self.ended_by is None:
            self._leave_out_refused()
        return bool(self._waiting) and self.ended_by is None

    def _leave_out_refused(self) -> None:
        """Go on with assets of types whose bars the key may see; end where there are none."""
        entitlements = self._run.entitlements
        refusals = {one: entitlements.refusal(Access.BARS, one) for one in {self._kinds[one] for one in self._waiting}}
        if all(refusals.values()):
            self.ended_by = refusals[self._kinds[self._waiting[0]]]
            return
        while (refusal := refusals[self._kinds[self._waiting[0]]]) is not None:
            self.given_up.append(Failure(self._waiting.popleft(), refusal.kind, refusal.error))

    def _missing(self, symbol: str) -> Span | None:
        """Return what the next call for an asset is to bring; None: all is there that can be had."""
        span = self._spans[symbol]
        if self._refetch:
            found = span if span.since < span.until else None
        else:
            holes = self.wanted.holes(symbol, self._kinds[symbol], span.since, span.until, at_once=True)
            found = core.next_hole(holes)
            self._oldest[symbol] = holes[0].since if holes else None
        # A hole that its call has left as it was stays as it is.
        return None if not self._tries[symbol] and found == self._last_holes.get(symbol) else found

    def begin(self) -> BarCall | None:
        """Choose the next call: for the first asset that is not under way."""
        symbol = self._waiting.popleft()
        claimed = self._leases.claim(symbol, self._spans[symbol].since)
        if claimed is None:
            self._wait(symbol)
            return None
        span = None
        if claimed.track.is_unknown:
            # As a price call has learned meanwhile.
            self.unknown += catalogue.unknown_tickers(self._run.connection, [symbol])
        elif (span := self._missing(symbol)) is not None:
            self._last_holes[symbol] = span
        return self._leases.call(claimed, span, newest=False)

    def _wait(self, symbol: str) -> None:
        """Wait for the run that has the lease: one that was killed holds on to it until it runs out."""
        self._waits[symbol] += 1
        if self._waits[symbol] * WAIT_SECONDS > self._leases.seconds + SPARE_WAIT_SECONDS:
            log.warning("%s was removed from the catalogue", symbol)
            return
        log.info("another run asks for bars of %s", symbol)
        self._waiting.appendleft(symbol)
        self._calls.pause(WAIT_SECONDS)

    def known(self, one: BarCall) -> Mapping[datetime, tuple[Bar, bool]]:
        """Read what is there of what is asked for once more."""
        return bar_pages.read(self._run.connection, one.symbol, one.span) if self._refetch else {}

    def written(self, one: BarCall, found: JudgedPage, known: Mapping[datetime, tuple[Bar, bool]]) -> None:
        """Find the bars that have changed; leave out what was asked for once more."""
        if not self._refetch:
            return
        symbol = one.symbol
        # Read again: the platform's columns may round, and its constraints refuse.
        for ts, (new, _) in bar_pages.read(self._run.connection, symbol, one.span).items():
            old, was_final = known.get(ts, (new, True))
            if was_final and old != new:
                self._changed[symbol, ts] = ChangedBar(symbol, old, new)
        self._spans[symbol] = replace(self._spans[symbol], since=one.span.until if found.whole else found.until)

    def stored(self, one: BarCall, found: JudgedPage) -> None:
        """Go on with the asset until nothing is missing."""
        if not (found.whole and found.until >= one.span.until and one.span.since == self._oldest.get(one.symbol)):
            self._again(one)

    def _again(self, one: BarCall) -> None:
        del self._tries[one.symbol], self._waits[one.symbol]
        self._waiting.appendleft(one.symbol)

    def refused(self, one: BarCall, stored: StoredBars) -> None:
        """Give the asset up; where it is the table that takes none, all of them."""
        kind, words = stored.kind or FailureKind.REFUSED_BY_DATABASE, stored.refused[0][1]
        # What it refuses for good is a warning: else no backfill after the first one would end well.
        if kind is FailureKind.REFUSED_BY_DATABASE and one.symbol in self._known_refused:
            return
        self.given_up.append(Failure(one.symbol, kind, words))
        if kind is FailureKind.REFUSED_BY_TABLE:
            self.ended_by = Trouble(kind, words)

    def removed(self, one: BarCall) -> None:
        """Look whether anything of it can be had."""
        self._waiting.appendleft(one.symbol)

    def lost(self, one: BarCall) -> None:
        """Find out by claiming it anew whether another run has it now, or nobody."""
        self._last_holes.pop(one.symbol, None)
        self._waiting.appendleft(one.symbol)

    def skipped(self, one: BarCall, span: Span) -> None:
        """Go on behind it."""
        self._spans[one.symbol] = replace(self._spans[one.symbol], since=span.until)
        self._again(one)

    def failed(self, one: BarCall, error: CallError) -> None:
        """Try again after a while what may fare better then; give up what may not."""
        symbol = one.symbol
        if self.ended_by is not None:
            self._waiting.appendleft(symbol)
            return
        self._tries[symbol] += 1
        decision = decide(error.kind, Covers.OLD_BARS, tries_left=ATTEMPTS - self._tries[symbol])
        if decision.then is not Then.AGAIN:
            self.given_up.append(Failure(symbol, error.kind, error.reason))
            return
        self._waiting.appendleft(symbol)
        self._calls.pause(WAIT_SECONDS * 2 ** self._tries[symbol])
