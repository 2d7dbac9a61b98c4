"""Bars: which call comes next, and what becomes of its answer.

The newest bars of each asset come first, in the order of importance; then holes, for as long as nothing else wants the
slot. A page is stored with its record, with the reasons for what it has not, and with the end of the lease on the
asset's bars, in one transaction.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg

from assetbatch import bars as core
from assetbatch import market_hours, planner
from assetbatch.database import bar_pages, bars, catalogue
from assetbatch.errors import KINDS, FailureKind, Fate
from assetbatch.jobs.run import rules_of
from assetbatch.jobs.wanted import HORIZONS, Wanted
from assetbatch.model import Access, Call, CallKind, Span, Trouble
from assetbatch.planner import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.bars import Harvest
    from assetbatch.database.bar_pages import StoredBars
    from assetbatch.database.bars import Claimed
    from assetbatch.database.runs import CallRecord
    from assetbatch.errors import CallError
    from assetbatch.jobs.run import Run
    from assetbatch.jobs.sight import Sight
    from assetbatch.jobs.update import Road
    from assetbatch.model import AssetType, Bar
    from assetbatch.provider.bars import Page

log = logging.getLogger(__name__)

# How many assets a list of those that are due names at most, and how soon the next list is made.
LIST_SIZE = 500
LOOK_AGAIN_SECONDS = 5.0
# Looking for holes reads all bars of an asset: so many at once, and for so long in a run.
SCAN_SIZE = 20
SCAN_SECONDS = 1.0
# By how much calendars may differ about how far back a plan reaches.
A_FEW_DAYS = timedelta(days=3)
# After a call that can hardly fare better soon.
HOPELESS_SECONDS = 6 * 3600.0


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


class Bars:
    """The bars that one run asks for. `symbols`: only the newest of these; None: of all, and holes, too.

    `ended_by` is what no further call can fare better than, once there is such.
    """

    def __init__(self, run: Run, road: Road, sight: Sight, *, symbols: list[str] | None = None) -> None:
        self._run = run
        self._road = road
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
        self._has_finality = bar_pages.has_finality(run.connection)
        self.assets: set[str] = set()
        self.stored = 0
        self.ended_by: Trouble | None = None

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
            symbols = bars.next_to_scan(
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
                    bars.mark_scanned(run.connection, symbol, run.clock.now())
        self._scan_seconds -= time.monotonic() - began

    def _holes(self, symbol: str, since: datetime, until: datetime | None) -> list[Span]:
        since = max(since, self.wanted.kept_since() or since)
        if until is None or until <= since:
            return []
        return bars.holes(
            self._run.connection,
            symbol,
            Span(since, until),
            now=self._run.clock.now(),
            told=self._sight.told,
            has_finality=self._has_finality,
        )

    def begin(self) -> BarCall | None:
        """Choose the next call, and take the lease for it; None where there is none after all."""
        symbol, newest = self._next()
        claimed = bars.claim(
            self._run.connection,
            symbol,
            wanted_since=self._since(symbol),
            kept_since=self.wanted.kept_since(),
            seconds=self._lease_seconds,
        )
        if claimed is None:
            self._taken(symbol)
            return None
        self._keep_partitions(claimed)
        span = self._newest(claimed) if newest else self._hole(claimed)
        if span is None:
            bars.release(self._run.connection, claimed)
            return None
        call = Call(CallKind.BARS, (claimed.track.asset,), span=span, minutes=claimed.track.minutes)
        return BarCall(call, claimed, newest, self._run.clock.now())

    def _next(self) -> tuple[str, bool]:
        """Choose whose bars come next: the newest of somebody, or else a hole."""
        newest = bool(self._due)
        return (self._due if newest else self._holed).popleft(), newest

    def _since(self, symbol: str) -> datetime:
        """Tell since when bars of this asset are wanted."""
        del symbol
        return self.wanted.since()

    def _taken(self, symbol: str) -> None:
        """Leave it to the other run that has just begun to ask."""

    def _again(self, one: BarCall) -> None:
        """Let the next call be for the same asset."""
        (self._due if one.newest else self._holed).appendleft(one.claimed.track.asset.symbol)

    def _keep_partitions(self, claimed: Claimed) -> None:
        since = claimed.track.wanted_since
        if self._partitions is None or since < self._partitions:
            bars.keep_partitions(self._run.connection, since=since, kept_since=self.wanted.kept_since())
            self._partitions = since

    def _newest(self, claimed: Claimed) -> Span | None:
        until = self.wanted.until(market_hours.market_of(claimed.track.asset))
        if until is None:
            return None
        recheck = timedelta(hours=self._settings.recheck_hours)
        now = self._run.clock.now()
        span = core.tail(claimed.track, until=until, now=now, recheck=recheck)
        if span is None:
            # The platform itself has stored them: what is missing before them is a hole.
            bars.finish(self._run.connection, claimed, asked_until=until, asked_at=now, minutes=claimed.track.minutes)
        if span is None or self._sight.mode is Mode.END_OF_DAY:
            return span
        # The bars that are open now come along; they are fetched again.
        until = core.floor(now) + core.LENGTH
        return Span(max(span.since, until - core.ONE_PAGE), until)

    def _hole(self, claimed: Claimed) -> Span | None:
        track = claimed.track
        span = core.next_hole(self._holes(track.asset.symbol, track.wanted_since, track.asked_until))
        # A hole that its call has left as it was is left to the next run, whatever the cause.
        if span is None or span == self._last_holes.get(track.asset.symbol):
            bars.mark_scanned(self._run.connection, track.asset.symbol, self._run.clock.now())
            return None
        self._last_holes[track.asset.symbol] = span
        return span

    def landed(self, one: BarCall, page: Page, record: CallRecord) -> None:
        """Store what a page brought."""
        self._sight.learn(one.call, None)
        asset, minutes = one.claimed.track.asset, one.call.minutes
        if self._has_minutes_only(one, page):
            log.info("%s has no 5-minute bars: asking for 1-minute bars", asset.symbol)
            self._last_holes.pop(asset.symbol, None)
            self._road.write(lambda **_: bars.finish(self._run.connection, one.claimed, minutes=1), [record])
            self._again(one)
            return
        found = core.harvest(
            one.span,
            core.built(page.bars) if minutes == 1 else page.bars,
            more=page.more,
            invalid=[ts for ts, _ in page.invalid],
            asked_at=one.asked_at,
            settle=self.wanted.settle,
        )
        for ts, why in page.invalid[:1]:
            log.warning("%s: %d rows are no bars, as that of %s: %s", asset.symbol, len(page.invalid), ts, why)
        stored = self._road.write(lambda *, carefully: self._write(one, found, carefully=carefully), [record])
        if stored is None:
            log.warning("bars of %s are not stored: it was removed, or held for too long", asset.symbol)
            return
        for ts, why in stored.refused[:1]:
            log.warning("%s: %d bars were refused, as that of %s: %s", asset.symbol, len(stored.refused), ts, why)
        self.assets.add(asset.symbol)
        self.stored += stored.written
        if page.more or not one.newest:
            self._again(one)

    def _has_minutes_only(self, one: BarCall, page: Page) -> bool:
        """Tell whether a ticker that never had a 5-minute bar should have had one by now."""
        if one.call.minutes == 1 or page.bars or page.invalid or one.claimed.track.watermark is not None:
            return False
        market = market_hours.market_of(one.claimed.track.asset)
        until = min(one.span.until, one.asked_at)
        return market_hours.open_time(market, one.span.since, until) >= core.SILENT

    def _write(self, one: BarCall, found: Harvest, *, carefully: bool) -> StoredBars | None:
        """Write a page, if this run still has the right to; the record of its call stays in any case."""
        connection, track = self._run.connection, one.claimed.track
        symbol, market = track.asset.symbol, market_hours.market_of(track.asset)
        stored, known = None, self._known(one)
        with connection.transaction():
            stored = bar_pages.write(
                connection,
                track.asset,
                found.bars,
                known=known,
                is_new=track.asked_until is None and not track.served,
                has_finality=self._has_finality,
                asked_at=one.asked_at,
                fetched_at=self._run.clock.now(),
                carefully=carefully,
            )
            found = core.without(found, [ts for ts, _ in stored.refused] if stored else [])
            closed = market_hours.closed_spans(market, one.span.since, found.until)
            bar_pages.note_absences(connection, symbol, found, span=one.span, closed=closed, noted_at=one.asked_at)
            if not self._finish(one, found):
                stored = None
                raise psycopg.Rollback
        return stored

    def _known(self, one: BarCall) -> Mapping[datetime, tuple[Bar, bool]]:
        """Read the bars that the page may have again: of those that are no news, not even a lock is to be written."""
        track = one.claimed.track
        if not one.newest or track.watermark is None:
            return {}
        span = Span(one.span.since, track.watermark + core.LENGTH)
        return bar_pages.read(self._run.connection, track.asset.symbol, span)

    def _finish(self, one: BarCall, found: Harvest) -> bool:
        track = one.claimed.track
        final = [bar.ts for bar, is_final in found.bars if is_final]
        rechecked = track.watermark is None or one.span.since < track.watermark
        return bars.finish(
            self._run.connection,
            one.claimed,
            asked_until=found.until if one.newest else None,
            asked_at=one.asked_at if one.newest and found.whole else None,
            rechecked_at=one.asked_at if one.newest and rechecked else None,
            watermark=max([*final, *([track.watermark] if track.watermark else [])], default=None),
            # Remembered as soon as one was found.
            minutes=one.call.minutes if final or track.watermark else 5,
        )

    def failed(self, one: BarCall, error: CallError) -> None:
        """Decide what follows from a call that brought nothing."""
        connection, track, meaning = self._run.connection, one.claimed.track, KINDS[error.kind]
        symbol, now = track.asset.symbol, self._run.clock.now()
        log.info("bars of %s failed: %s: %s", symbol, error.kind, error)
        if error.kind is FailureKind.NOT_YET:
            if self._sight.mode is Mode.END_OF_DAY:
                self._sight.not_yet(track.asset.asset_type)
            self._not_yet.add(track.asset.asset_type)
            hour = planner.ASK_AGAIN.total_seconds()
            bars.fail(connection, one.claimed, kind=error.kind.value, error=error.reason, first_seconds=hour, now=now)
            self._list_due()
        elif error.kind is FailureKind.NOT_ENTITLED:
            self._sight.learn(one.call, error)
            bars.release(connection, one.claimed)
        elif error.kind is FailureKind.TIMEFRAME and not one.newest:
            self._skip(one)
        elif meaning.ends_run or error.kind is FailureKind.RATE_LIMITED:
            bars.release(connection, one.claimed)
            if meaning.ends_run:
                self.ended_by = Trouble(error.kind, error.reason)
        else:
            self._put_off(one, error)
            if meaning.strike and self._road.api_is_away():
                self.ended_by = Trouble(error.kind, error.reason)

    def _skip(self, one: BarCall) -> Span:
        """Leave out what the plan does not reach back to; what comes after it is asked for next.

        Which plan the key really has is not known, and what it does see must not be noted as refused: so up to where
        the next smaller plan reaches back, and there a day at a time. No plan that is sold shows less than the last.
        """
        connection, since, now = self._run.connection, one.span.since, self._run.clock.now()
        reaches = (core.floor(now - back) for back in HORIZONS)
        seen = next((moment for moment in reaches if moment > since - A_FEW_DAYS), since + timedelta(days=365))
        span = Span(since, min(one.span.until, max(since + timedelta(days=1), seen)))
        symbol = one.claimed.track.asset.symbol
        bar_pages.note_not_entitled(connection, symbol, span, told=self._sight.told, noted_at=now)
        bars.release(connection, one.claimed)
        self._again(one)
        return span

    def _put_off(self, one: BarCall, error: CallError) -> None:
        """Put an asset's bars off, longer each time that its call fails."""
        connection, now = self._run.connection, self._run.clock.now()
        usual = self._run.config.settings.queue.retry_delay_seconds
        first = HOPELESS_SECONDS if KINDS[error.kind].fate is Fate.DEAD else usual
        bars.fail(connection, one.claimed, kind=error.kind.value, error=error.reason, first_seconds=first, now=now)

    def let_go(self, one: BarCall) -> None:
        """Let another run ask: this one ends."""
        bars.release(self._run.connection, one.claimed)
