"""Bars: which call comes next.

The newest bars of each asset come first, in the order of importance; then holes, for as long as nothing else wants the
slot.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from assetbatch import bars as core
from assetbatch import market_hours
from assetbatch.database import bar_holes, bars, catalogue
from assetbatch.database.rate_limit import rules_of
from assetbatch.jobs.wanted import Wanted
from assetbatch.model import Access, Call, CallKind, Span

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.database.bars import Claimed
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.sight import Sight
    from assetbatch.model import AssetType, Trouble

# How many assets a list of those that are due names at most, and how soon the next list is made.
LIST_SIZE = 500
LOOK_AGAIN_SECONDS = 5.0
# Looking for holes reads all bars of an asset: so many at once, and for so long in a run.
SCAN_SIZE = 20
SCAN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BarCall:
    """A call for one page, and the lease on its asset's bars. `newest`: it is for the newest bars, not for a hole."""

    call: Call
    claimed: Claimed
    newest: bool
    asked_at: datetime

    @property
    def span(self) -> Span:
        """What is asked for."""
        assert self.call.span is not None  # noqa: S101 - such a call has a span
        return self.call.span


class BarCalls:
    """The calls for bars that one run may make. `symbols`: only for the newest of these; None: of all, and for holes.

    `ended_by` is what no further call can fare better than, once there is such.
    """

    # Whether what the vendor had no bar for once is asked for again as soon as that can tell.
    _at_once = False

    def __init__(self, run: Run, sight: Sight, *, symbols: list[str] | None = None) -> None:
        self._run = run
        self._sight = sight
        self._symbols = symbols
        self._settings = run.config.settings.bars
        self.wanted = Wanted(run.config, sight, run.clock)
        self._due: deque[str] = deque()
        self._holed: deque[str] = deque()
        self._listed_at: float | None = None
        self._scan_seconds = SCAN_SECONDS if symbols is None else 0.0
        self._lease_seconds = rules_of(run.config).hold_seconds
        # Since when there are partitions.
        self._partitions: datetime | None = None
        self._last_holes: dict[str, Span] = {}
        # Markets whose day is not over for the vendor: what one asset was told holds for all.
        self._not_yet: set[AssetType] = set()
        self.ended_by: Trouble | None = None

    @cached_property
    def _has_finality(self) -> bool:
        return bar_holes.has_finality(self._run.connection)

    def waiting(self) -> list[str]:
        """Tell whose newest bars are due and are not asked for by this run."""
        if not self.wanted.enabled or not self._sight.may(Access.BARS):
            return []
        self._list_due()
        return list(self._due)

    def has_work(self) -> bool:
        """Tell whether a call would be of use now."""
        if self.ended_by or not self.wanted.enabled or not self._sight.may(Access.BARS):
            return False
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

    def _list_due(self) -> None:
        limits = [
            limit
            for limit in self.wanted.limits(catalogue.frequencies(self._run.connection))
            if limit[1].asset_type not in self._not_yet
        ]
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
                run.connection, scanned_before=run.clock.started_at, now=run.clock.now(), limit=SCAN_SIZE
            )
            if not symbols:
                break
            known = bars.states(run.connection, symbols)
            for symbol in symbols:
                if time.monotonic() - began >= self._scan_seconds:
                    break
                if symbol in known and self._holes(symbol, *known[symbol]):
                    self._holed.append(symbol)
                else:
                    bar_holes.mark_scanned(run.connection, symbol, run.clock.now())
        self._scan_seconds -= time.monotonic() - began

    def _holes(self, symbol: str, since: datetime, until: datetime | None) -> list[Span]:
        since = max(since, self.wanted.kept_since() or since)
        if until is None or until <= since:
            return []
        return bar_holes.holes(
            self._run.connection,
            symbol,
            Span(since, until),
            now=self._run.clock.now(),
            told=self._sight.told,
            at_once=self._at_once,
        )

    def choose(self) -> BarCall | None:
        """Choose the next call, and take the lease for it; None where there is none after all."""
        found = self._next()
        if found is None:
            return None
        symbol, newest = found
        claimed = bars.claim(
            self._run.connection,
            symbol,
            wanted_since=self._since(symbol),
            kept_since=self.wanted.kept_since(),
            seconds=self._lease_seconds,
            now=self._run.clock.now(),
            run_id=self._run.id,
        )
        if claimed is None:
            self._taken(symbol)
            return None
        span = None
        if claimed.track.is_unknown:
            self._unknown(symbol)
        else:
            self._keep_partitions(claimed)
            span = self._newest(claimed) if newest else self._hole(claimed)
        if span is None:
            bars.release(self._run.connection, claimed)
            return None
        track, now = claimed.track, self._run.clock.now()
        minutes = 5 if newest and track.is_doubtful(now) else track.minutes
        return BarCall(Call(CallKind.BARS, (track.asset,), span=span, minutes=minutes), claimed, newest, now)

    def _next(self) -> tuple[str, bool] | None:
        """Choose whose bars come next: the newest of somebody, or else a hole; None: nobody's after all."""
        if not self._due and not self._holed:
            return None
        newest = bool(self._due)
        return (self._due if newest else self._holed).popleft(), newest

    def _since(self, symbol: str) -> datetime:
        """Tell since when bars of this asset are wanted."""
        del symbol
        return self.wanted.since()

    def _taken(self, symbol: str) -> None:
        """Leave it to the other run that has just begun to ask."""

    def _unknown(self, symbol: str) -> None:
        """Leave out an asset of which a price call has learned meanwhile that the vendor does not know its ticker."""

    def _again(self, one: BarCall) -> None:
        """Let the next call be for the same asset."""
        (self._due if one.newest else self._holed).appendleft(one.claimed.track.asset.symbol)

    def _keep_partitions(self, claimed: Claimed) -> None:
        since = claimed.track.wanted_since
        if self._partitions is None or since < self._partitions:
            bars.keep_partitions(self._run.connection, since=since, kept_since=self.wanted.kept_since())
            self._partitions = since

    def _newest(self, claimed: Claimed) -> Span | None:
        track = claimed.track
        span, until = self.wanted.newest(track), self.wanted.until(market_hours.market_of(track.asset))
        if span is None and until is not None:
            # The platform itself has stored them: what is missing before them is a hole.
            now = self._run.clock.now()
            bars.finish(
                self._run.connection,
                claimed,
                asked_until=until,
                asked_at=now,
                source_minutes=track.source_minutes,
                source_told_at=track.source_told_at,
            )
        return span

    def _hole(self, claimed: Claimed) -> Span | None:
        track = claimed.track
        span = core.next_hole(self._holes(track.asset.symbol, track.wanted_since, track.asked_until))
        # A hole that its call has left as it was is left to the next run, whatever the cause.
        if span is None or span == self._last_holes.get(track.asset.symbol):
            bar_holes.mark_scanned(self._run.connection, track.asset.symbol, self._run.clock.now())
            return None
        self._last_holes[track.asset.symbol] = span
        return span
