"""Bars of the catalogue: the newest of each asset first, in the order of importance; then holes, with spare slots."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from assetbatch import bars as core
from assetbatch import market_hours
from assetbatch.database import catalogue
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars import pages as bar_pages
from assetbatch.database.bars import state as bars
from assetbatch.failures import FailureKind
from assetbatch.jobs.bar_calls import BarWork
from assetbatch.model import Access, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from assetbatch.bars import JudgedPage
    from assetbatch.database.bars.pages import StoredBars
    from assetbatch.database.bars.state import Claimed
    from assetbatch.failures import CallError
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Bar

# How many assets a list of those that are due names at most, and how soon the next list is made.
LIST_SIZE = 500
LOOK_AGAIN_SECONDS = 5.0
# Looking for holes reads all bars of an asset: so many at once, and for so long in a run.
SCAN_SIZE = 20
SCAN_SECONDS = 1.0


class CatalogueBars(BarWork):
    """The calls for bars of some types that a run may make.

    `symbols`: only for the newest of these; None: of all, and for holes.
    """

    def __init__(self, run: Run, *, types: Collection[AssetType], symbols: list[str] | None = None) -> None:
        super().__init__(run)
        self._entitlements = run.entitlements
        self._symbols = symbols
        self._of = frozenset(types)
        self._due: deque[tuple[str, AssetType]] = deque()
        self._holed: deque[tuple[str, AssetType]] = deque()
        self._listed_at: float | None = None
        self._listed_types: frozenset[AssetType] = frozenset()
        self._scan_seconds = SCAN_SECONDS if symbols is None else 0.0
        # Markets whose day is not over for the vendor: what one asset was told holds for all.
        self._not_yet: set[AssetType] = set()

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of which bars may be asked for now."""
        return frozenset(one for one in self._of if self.wanted.asks(one) and self._entitlements.may(Access.BARS, one))

    def waiting(self) -> list[str]:
        """Return whose newest bars are due and are not asked for by this run."""
        if not self.types:
            return []
        self._list_due()
        return [symbol for symbol, _ in self._due]

    def has_work(self) -> bool:
        """Return whether a call would be of use now."""
        types = self.types
        if self.ended_by or not types:
            return False
        if types != self._listed_types:
            # What was listed may be refused by now.
            self._due.clear()
            self._holed.clear()
            self._listed_at = None
        if self._due or self._holed:
            return True
        if self._listed_at is None or time.monotonic() - self._listed_at > LOOK_AGAIN_SECONDS:
            self._list_due()
        if not self._due and self._scan_seconds > 0:
            self._scan()
        return bool(self._due or self._holed)

    def look_again(self) -> None:
        """Make the next list at once: assets were served for the first time, and their bars waited for that."""
        self._listed_at = None

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each reason for which the platform's table did not take bars, in this run or before."""
        if not any(self.wanted.asks(one) for one in self._of):
            return ()
        return tuple(bar_absences.sentences(self._run.connection.answer(bar_absences.refused(self._symbols))))

    def _list_due(self) -> None:
        limits = [
            limit
            for limit in self.wanted.limits(self._run.connection.answer(catalogue.frequencies()), self.types)
            if limit[1].asset_type not in self._not_yet
        ]
        self._listed_types = self.types
        now = self._run.clock.now()
        found = bars.due(self._run.connection, limits, symbols=self._symbols, now=now, limit=LIST_SIZE)
        self._due = deque(found)
        # A full list has cut others off: the next one is made as soon as it is done.
        self._listed_at = time.monotonic() if len(found) < LIST_SIZE else None

    def _scan(self) -> None:
        """Look for holes, for a while."""
        run = self._run
        began = time.monotonic()
        while not self._holed and time.monotonic() - began < self._scan_seconds:
            symbols = bar_holes.next_to_scan(
                run.connection,
                types=self.types,
                scanned_before=run.clock.started_at,
                now=run.clock.now(),
                limit=SCAN_SIZE,
            )
            if not symbols:
                break
            known = bars.states(run.connection, list(symbols))
            for symbol, asset_type in symbols.items():
                if time.monotonic() - began >= self._scan_seconds:
                    break
                if symbol in known and self.wanted.holes(symbol, asset_type, *known[symbol]):
                    self._holed.append((symbol, asset_type))
                else:
                    bar_holes.mark_scanned(run.connection, symbol, run.clock.now())
        self._scan_seconds -= time.monotonic() - began

    def begin(self) -> BarCall | None:
        """Choose the next call: for the newest bars of somebody, or else for a hole."""
        newest = bool(self._due)
        symbol, asset_type = (self._due if newest else self._holed).popleft()
        claimed = self._leases.claim(symbol, self.wanted.since(asset_type))
        if claimed is None:
            return None  # left to the other run that has just begun to ask
        span = None
        if not claimed.track.is_unknown:  # else a price call has learned so meanwhile
            span = self._newest(claimed) if newest else self._hole(claimed)
        return self._leases.call(claimed, span, newest=newest)

    def _newest(self, claimed: Claimed) -> Span | None:
        track = claimed.track
        span, until = self.wanted.newest(track), self.wanted.until(market_hours.market_of(track.asset))
        if span is None and until is not None:
            # The platform itself has stored them: what is missing before them is a hole.
            learned = bars.Learned(track.source_minutes, track.source_told_at, until, asked_at=self._run.clock.now())
            bars.finish(self._run.connection, claimed, learned)
        return span

    def _hole(self, claimed: Claimed) -> Span | None:
        track = claimed.track
        # What a split has changed page by page, the newest first: what is adjusted has one end only.
        span = track.unadjusted or core.next_hole(
            self.wanted.holes(track.asset.symbol, track.asset.asset_type, track.wanted_since, track.asked_until)
        )
        # A hole that its call has left as it was is left to the next run, whatever the cause.
        if span is None or span == self._last_holes.get(track.asset.symbol):
            bar_holes.mark_scanned(self._run.connection, track.asset.symbol, self._run.clock.now())
            return None
        self._last_holes[track.asset.symbol] = span
        return span

    def known(self, one: BarCall) -> Mapping[datetime, tuple[Bar, bool]]:
        """Read the bars that a page of the newest has again."""
        track = one.claimed.track
        if not one.newest or track.watermark is None:
            return {}
        span = Span(one.span.since, track.watermark + core.LENGTH)
        return bar_pages.read(self._run.connection, one.symbol, span)

    def stored(self, one: BarCall, found: JudgedPage) -> None:
        """Ask for the rest of it, or look whether that was the last hole."""
        if not (found.whole and one.newest):
            self._again(one)

    def _again(self, one: BarCall) -> None:
        asset = one.claimed.track.asset
        (self._due if one.newest else self._holed).appendleft((asset.symbol, asset.asset_type))

    def refused(self, one: BarCall, stored: StoredBars) -> None:
        """Ask for no further bars of the asset in this run, nor of any where it is the table that takes none."""
        bar_holes.mark_scanned(self._run.connection, one.symbol, self._run.clock.now())
        if stored.kind is FailureKind.REFUSED_BY_TABLE:
            self._holed.clear()
            self._scan_seconds = 0.0
            self._list_due()

    def skipped(self, one: BarCall, _span: Span) -> None:
        """Ask for what comes behind it: it is no hole any more."""
        self._again(one)

    def failed(self, one: BarCall, error: CallError) -> None:
        """Leave out the assets of a market whose day is not over for the vendor."""
        if error.kind is FailureKind.NOT_YET:
            self._not_yet.add(one.claimed.track.asset.asset_type)
            self._list_due()
