"""Bars: what becomes of the calls for them.

A page is stored with its record, with the reasons for what it has not, and with the end of the lease on the asset's
bars, in one transaction.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import psycopg

from assetbatch import bars as core
from assetbatch import market_hours, plans
from assetbatch.database import runs
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars import pages as bar_pages
from assetbatch.database.bars import state as bars
from assetbatch.database.bars import unadjusted
from assetbatch.database.bars.pages import StoredBars
from assetbatch.database.errors import words_of
from assetbatch.database.pipeline import pipeline
from assetbatch.failures import POLICIES, Covers, FailureKind, Fate, Then, decide
from assetbatch.jobs.bar_calls import BarWork
from assetbatch.jobs.storing import write_with_records
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.model import Access, BarsResult, Span, Trouble
from assetbatch.provider import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.bars import JudgedPage
    from assetbatch.database.runs import CallRecord
    from assetbatch.failures import CallError
    from assetbatch.jobs.bar_calls import BarCall
    from assetbatch.jobs.calls import Calls, Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Call
    from assetbatch.provider.results import Page

log = logging.getLogger(__name__)
W = TypeVar("W", bound=BarWork)

# While one page is stored the next ones come and are read: so many, of which any may wait in memory.
MOST_AT_ONCE = 3
# By how much calendars may differ about how far back a plan reaches.
A_FEW_DAYS = timedelta(days=3)
# After a call that can hardly fare better soon.
HOPELESS_SECONDS = 6 * 3600.0
# At most, until one asset's bars are asked for again to see whether the table takes any now.
TABLE_SECONDS = 3600.0


def total(some: Sequence[Bars[Any]]) -> BarsResult:
    """Sum up what several have stored."""
    return BarsResult(sum(len(one.assets) for one in some), sum(one.stored for one in some))


class Bars(Source, Generic[W]):
    """The bars that one run asks for, stored as they come; `work` is where its calls come from.

    `progress` is told before each call.
    """

    def __init__(
        self,
        run: Run,
        calls: Calls,
        work: W,
        *,
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._run = run
        self._calls = calls
        self._entitlements = run.entitlements
        self._progress = progress
        self.work = work
        self.assets: set[str] = set()
        self.stored = 0

    @cached_property
    def _has_finality(self) -> bool:
        return bar_holes.has_finality(self._run.connection)

    @property
    def ended_by(self) -> Trouble | None:
        """What no further call can fare better than."""
        return self.work.ended_by

    @property
    def types(self) -> frozenset[AssetType]:
        """The types of assets that the next page may be of."""
        return self.work.types

    def is_ready(self) -> bool:
        """Return whether a call would be of use now: one after another, until the table has taken bars."""
        under_way = sum(one.source is self for one in self._calls.under_way)
        if under_way >= (MOST_AT_ONCE if self.assets else 1) or not self.work.has_work():
            return False
        self._progress()
        return True

    def begin(self, _calls: int) -> Sequence[Planned]:
        """Choose the next page."""
        one = self.work.begin()
        return [] if one is None else [Planned(endpoints.bars(one.call), one)]

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Let another run ask, and choose anew: another run may be asking for it by now."""
        del held_up
        for _, one in works:
            bars.release(self._run.connection, one.claimed)
            self.work.anew(one)

    def landed(self, came: Sequence[Landed]) -> None:
        """Store pages, one after another."""
        for one in came:
            assert one.record is not None  # noqa: S101 - an answer has one
            self._landed(one.work, one.answer, one.record)

    def _landed(self, one: BarCall, page: Page, record: CallRecord) -> None:
        self._entitlements.learn(one.call, None)
        asset, minutes = one.claimed.track.asset, one.call.minutes
        if self._has_minutes_only(one, page):
            log.info("%s has no 5-minute bars: asking for 1-minute bars", asset.symbol)
            told_twice = one.claimed.track.source_told_at is not None
            learned = bars.Learned(1) if told_twice else bars.Learned(5, one.asked_at)
            write_with_records(
                self._run.connection,
                lambda **_: bars.finish(self._run.connection, one.claimed, learned),
                [record],
            )
            self.work.anew(one)
            return
        found = core.judge(
            one.span,
            core.built(page.bars) if minutes == 1 else page.bars,
            more=page.more,
            invalid=[ts for ts, _ in page.invalid],
            asked_at=one.asked_at,
            settle=self.work.wanted.settle(asset.asset_type),
        )
        for ts, why in page.invalid[:1]:
            log.warning("%s: %d rows are no bars, as that of %s: %s", asset.symbol, len(page.invalid), ts, why)
        for ts in page.contradicted[:1]:
            words = "%s: %d bars came twice with different figures, as that of %s: the one of more trades is taken"
            log.info(words, asset.symbol, len(page.contradicted), ts)
        try:
            stored, is_ours = write_with_records(
                self._run.connection, lambda *, carefully: self._write(one, found, carefully=carefully), [record]
            )
        except psycopg.errors.LockNotAvailable as error:
            self._locked(one, record, words_of(error))
            return
        if stored is None:
            log.warning("bars of %s are not stored: it was removed, or held for too long", asset.symbol)
            (self.work.removed if is_ours else self.work.lost)(one)
            return
        for ts, why in stored.refused[:1]:
            log.info("%s: %d bars were refused, as that of %s: %s", asset.symbol, len(stored.refused), ts, why)
        if not stored.is_any_taken:
            self.work.refused(one, stored)
            return
        self.assets.add(asset.symbol)
        self.stored += stored.written
        self.work.stored(one, found)

    def _locked(self, one: BarCall, record: CallRecord, words: str) -> None:
        """Ask for the bars of an asset again later whose rows another transaction keeps."""
        self._run.connection.ask(runs.recording([record]))
        log.info("bars of %s are not stored: %s", one.claimed.track.asset.symbol, words)
        self._put_off(one, FailureKind.LOCKED, words)
        self.work.refused(one, StoredBars(0, ((one.span.since, words),), FailureKind.LOCKED, is_any_taken=False))

    def _has_minutes_only(self, one: BarCall, page: Page) -> bool:
        """Return whether a ticker should have had a 5-minute bar by now.

        That is looked at the first time that it has none, and the second, if it had 1-minute bars after the first.
        """
        track = one.claimed.track
        if one.call.minutes == 1 or page.bars or page.invalid:
            return False
        if track.source_told_at is None and (track.silent or track.watermark is not None):
            return False
        market = market_hours.market_of(track.asset)
        until = min(one.span.until, one.asked_at)
        return market_hours.open_time(market, one.span.since, until, regular=True) >= core.SILENT

    def _write(self, one: BarCall, found: JudgedPage, *, carefully: bool) -> tuple[StoredBars | None, bool]:
        """Write a page, if this run still has the right to; the record of its call stays in any case.

        Return what was stored, None: nothing; and whether the right was ours.
        """
        connection, track = self._run.connection, one.claimed.track
        if not bars.hold(connection, one.claimed):
            return None, False
        before = self.work.known(one)
        covered = Span(one.span.since, found.until)
        stale = 0 if track.unadjusted is None else unadjusted.count_stale(connection, one.symbol, covered)
        stored = bar_pages.write(
            connection,
            track.asset,
            found.bars,
            # What is there is no news to the table, either: only the others are tried.
            known=bar_pages.read(connection, one.symbol, one.span) if carefully else before,
            final_until=found.until,
            is_new=track.asked_until is None and not track.served,
            has_finality=self._has_finality,
            asked_at=one.asked_at,
            fetched_at=self._run.clock.now(),
            carefully=carefully,
        )
        if stored is not None:
            found = core.without(found, {ts for ts, _ in stored.refused})
        with pipeline(connection.plain):
            bar_absences.note_absences(
                connection,
                one.symbol,
                found,
                span=one.span,
                closed=market_hours.closed_spans(market_hours.market_of(track.asset), one.span.since, found.until),
                noted_at=one.asked_at,
                in_passing=one.newest and (track.silent or track.watermark is not None),
                words=stored.refused[0][1] if stored is not None and stored.refused else "",
            )
            if stored is not None and one.newest and not stored.is_any_taken:
                # Told as far as the table has them, and asked for again from there.
                self._put_off(one, stored.kind or FailureKind.REFUSED_BY_DATABASE, stored.refused[0][1])
            else:
                self._finish(one, found)
        if stored is not None:
            if track.unadjusted is not None and stored.is_any_taken:
                self._note_fetched(one, covered, stale)
            self.work.written(one, found, before)
        return stored, True

    def _note_fetched(self, one: BarCall, covered: Span, stale: int) -> None:
        """Note that bars of before a split were fetched again, `stale` of them there, and tell what has come of it."""
        connection, at = self._run.connection, one.asked_at
        fetched = unadjusted.note_fetched(connection, one.symbol, covered, stale=stale, asked_at=at)
        if fetched is None:
            return
        if not fetched.is_adjusted:
            log.info("%s: the vendor has not adjusted its bars yet: they are asked for again in an hour", one.symbol)
        elif fetched.kept:
            words = "%s: %d bars of before a split stay as they are: the vendor has none for them, or the same"
            log.info(words, one.symbol, fetched.kept)
        if fetched.is_last:
            log.info("%s: all bars of before its split were fetched again", one.symbol)

    def _finish(self, one: BarCall, found: JudgedPage) -> None:
        track = one.claimed.track
        has_any = track.watermark is not None or found.has_final
        is_built = has_any and one.call.minutes == 1
        rechecked = track.watermark is None or one.span.since < track.watermark
        learned = bars.Learned(
            # Remembered as soon as one was found.
            source_minutes=track.source_minutes if has_any else 5,
            source_told_at=track.source_told_at or one.asked_at if is_built and track.source_minutes == 5 else None,
            asked_since=one.span.since,
            asked_until=found.until if one.newest else None,
            asked_at=one.asked_at if one.newest and found.whole else None,
            rechecked_at=one.asked_at if one.newest and rechecked else None,
        )
        bars.finish(self._run.connection, one.claimed, learned, has_finality=self._has_finality)

    def failed(self, one: Landed, error: CallError) -> Aftermath:
        """Decide what follows from a page that did not come."""
        self._failed(one.work, error)
        return Aftermath.of(error.kind)

    def _failed(self, one: BarCall, error: CallError) -> None:
        connection, asset, kind = self._run.connection, one.claimed.track.asset, error.kind
        log.info("bars of %s failed: %s: %s", asset.symbol, kind, error)
        covers = Covers.NEWEST_BARS if one.newest else Covers.OLD_BARS
        decision = decide(kind, covers, is_away=POLICIES[kind].strike and self._calls.api_is_away())
        match decision.then:
            case Then.SKIP:
                self.work.skipped(one, self._skip(one))
                return
            case Then.POSTPONE:
                if asset.asset_type in self._entitlements.daily_types:
                    self._entitlements.not_yet(asset.asset_type)
                hour, now = plans.ASK_AGAIN.total_seconds(), self._run.clock.now()
                bars.fail(connection, one.claimed, kind=kind, error=error.reason, first_seconds=hour, now=now)
            case Then.GIVE_BACK:
                self._entitlements.learn(one.call, error)
                if kind is FailureKind.NOT_ENTITLED and self._entitlements.may(Access.BARS, asset.asset_type):
                    # It is this ticker that the plan does not have.
                    self._put_off(one, kind, error.reason)
                else:
                    bars.release(connection, one.claimed)
            case _:
                self._put_off(one, kind, error.reason)
        if decision.ends_run:
            self.work.ended_by = Trouble(kind, error.reason)
        self.work.failed(one, error)

    def _skip(self, one: BarCall) -> Span:
        """Leave out what the plan does not reach back to, and return it.

        Which plan the key really has is not known, and what it does see must not be noted as refused: so up to where
        the next smaller plan reaches back, and there a day at a time. No plan that is sold shows less than the last.
        """
        connection, since, now = self._run.connection, one.span.since, self._run.clock.now()
        told = self._entitlements.told_of(one.claimed.track.asset.asset_type)
        reaches = (core.floor(now - plans.reach(years)) for years in plans.HISTORY_YEARS)
        seen = next((moment for moment in reaches if moment > since - A_FEW_DAYS), since + timedelta(days=365))
        span = Span(since, min(one.span.until, max(since + timedelta(days=1), seen)))
        bar_absences.note_not_entitled(connection, one.symbol, span, told=told, noted_at=now)
        unadjusted.leave(connection, one.symbol, span)
        bars.release(connection, one.claimed)
        return span

    def _put_off(self, one: BarCall, kind: FailureKind, error: str) -> None:
        """Put an asset's bars off, longer each time that its call fails."""
        connection, now = self._run.connection, self._run.clock.now()
        usual = self._run.config.settings.queue.retry_delay_seconds
        first = HOPELESS_SECONDS if POLICIES[kind].fate is Fate.DEAD else usual
        # All others wait for the table as well.
        longest = TABLE_SECONDS if kind is FailureKind.REFUSED_BY_TABLE else bars.LONGEST_SECONDS
        bars.fail(
            connection,
            one.claimed,
            kind=kind,
            error=error,
            first_seconds=first,
            longest_seconds=longest,
            now=now,
        )
