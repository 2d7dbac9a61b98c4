"""What became of tickers that are not traded any more: asked of the vendor's reference list, with slots to spare.

One call for the newest of the inactive list tells of most of those that seem to be gone, however many they are. Each of
the others, and each that is gone, takes a call of its own: once, and once a week.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from assetbatch.boottime import boot_time
from assetbatch.database import lives, runs
from assetbatch.database.leases import Lease
from assetbatch.database.lives import GONE, Life, State
from assetbatch.failures import FailureKind
from assetbatch.jobs.worker import Aftermath, Planned, Source
from assetbatch.model import Call, CallKind
from assetbatch.provider import endpoints
from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.failures import CallError
    from assetbatch.jobs.calls import Calls, Landed
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType
    from assetbatch.provider.results import Listing, TickerPage

log = logging.getLogger(__name__)

LEASE = "ticker-lives"
# After a call that failed nobody asks for so long.
REST_SECONDS = 3600.0
WEEK, DAY = timedelta(days=7), timedelta(days=1)
# By how much the last day of trade may come before the first that lacks a ticker: it is not traded every day.
QUIET = timedelta(days=30)


class LifeWork(Source):
    """The questions about tickers that seemed to be gone as the run began (`due`), one call after another.

    One run at a time asks. `waits`: for slots, too; else only free ones are taken.
    """

    def __init__(self, run: Run, calls: Calls, due: Sequence[Life], *, waits: bool = True) -> None:
        self._run = run
        self.waits = waits
        self._calls = calls
        self._waiting = deque(due)
        self._before = {life.asset.symbol: life for life in due}
        self._lease = Lease(run.connection, LEASE, seconds=2 * run.rules.hold_seconds, run_id=run.id)
        # The newest of their inactive lists were read.
        self._read: set[AssetType] = set()
        self._not_inactive: set[str] = set()
        self._told: dict[str, Life] = {}
        self._reused: dict[str, Life] = {}

    @property
    def types(self) -> frozenset[AssetType]:
        """The type of the ticker that the next question is about."""
        return frozenset(life.asset.asset_type for life in list(self._waiting)[:1])

    def no_slot(self, _error: CallError) -> None:
        """Leave the rest to the next run."""
        self._waiting.clear()

    def is_ready(self) -> bool:
        """Return whether there is a question to ask, and no other run that asks."""
        if not self._waiting or any(one.source is self for one in self._calls.under_way):
            return False
        if boot_time() + self._run.rules.hold_seconds > self._lease.until and not self._lease.take():
            self._waiting.clear()
        return bool(self._waiting)

    def begin(self, _calls: int) -> Sequence[Planned]:
        """Ask the next question."""
        life = self._waiting.popleft()
        return [Planned(endpoints.tickers(self._call(life)), life)]

    def _call(self, life: Life) -> Call:
        market = life.asset.asset_type
        if life.company:
            return Call(CallKind.TICKERS, market=market, company=life.company)
        if not self._may_be_inactive(life):
            return Call(CallKind.TICKERS, (life.asset,), market=market)
        return Call(CallKind.TICKERS, (life.asset,) if market in self._read else (), market=market, active=False)

    def _may_be_inactive(self, life: Life) -> bool:
        """Return whether it is for the inactive list to say: not of what it has, nor of what is misspelt."""
        is_misspelt = life.state is State.UNKNOWN and life.missing_since is None
        return not (life.state in GONE or is_misspelt or life.asset.symbol in self._not_inactive)

    def landed(self, came: Sequence[Landed]) -> None:
        """Note what the list says."""
        for one in came:
            assert one.record is not None  # noqa: S101 - an answer has one
            self._run.connection.ask(runs.recording([one.record]))
            self._landed(one.call, one.work, one.answer)

    def _landed(self, call: Call, life: Life, page: TickerPage) -> None:
        if call.active:
            self._note([self._company(life, page) if call.company else self._active(life, page)])
            return
        listings = _newest(page.listings)
        if call.assets:
            self._inactive([life], listings, since=date.min)
            return
        self._read.add(life.asset.asset_type)
        asked, others = [life], list[Life]()
        for one in self._waiting:
            is_asked = one.asset.asset_type is call.market and self._may_be_inactive(one)
            (asked if is_asked else others).append(one)
        self._waiting = deque(others)
        self._inactive(asked, listings, since=_whole_since(page))

    def _inactive(self, asked: Iterable[Life], listings: Mapping[str, Listing], *, since: date) -> None:
        """Note who is in the inactive list, of which this is all `since` a day; ask on about the others."""
        settled = []
        for life in asked:
            found = listings.get(life.ticker)
            if found is not None and not _is_of_another(life, found):
                delisted = replace(
                    life,
                    state=State.DELISTED,
                    delisted_on=found.delisted_on,
                    figi=found.figi or None,
                    company=(found.company or None) if found.figi else None,
                )
                settled.append(delisted)
                if delisted.company:
                    self._waiting.append(delisted)
                continue
            is_not_there = since == date.min or (life.missing_since is not None and life.missing_since - QUIET > since)
            if is_not_there and life.missing_since is not None and not life.is_refused:
                # It had prices, and is not delisted: it is seldom traded.
                settled.append(replace(life, state=State.LISTED))
                continue
            if is_not_there:
                self._not_inactive.add(life.asset.symbol)
            self._waiting.append(life)
        self._note(settled)

    def _active(self, life: Life, page: TickerPage) -> Life:
        """Return what became of a ticker that is, or is not, in the list of those that are traded."""
        found = next((one for one in page.listings if one.ticker == life.ticker and one.is_active), None)
        if found is None and life.state not in GONE:
            return replace(life, state=State.UNKNOWN)
        if found is None:
            # A price says more than a list that has it not yet.
            return replace(life, state=State.LISTED) if life.is_back else life
        is_reused = bool(life.figi and found.figi and life.figi != found.figi)
        return replace(
            life,
            state=State.LISTED,
            delisted_on=None,
            became=None,
            figi=found.figi or life.figi,
            reused_on=self._run.clock.now().date() if is_reused else life.reused_on,
        )

    @staticmethod
    def _company(life: Life, page: TickerPage) -> Life:
        """Return what became of a delisted ticker: what was traded under it may be traded under another one."""
        others = [one for one in page.listings if one.is_active and one.figi == life.figi and one.ticker != life.ticker]
        if not others:
            return replace(life, company=None)
        return replace(life, state=State.RENAMED, became=others[0].ticker, company=None)

    def _note(self, settled: Sequence[Life]) -> None:
        """Note what is known now, and what of it is news."""
        if not settled:
            return
        now = self._run.clock.now()
        lives.note(self._run.connection, [(life, self._ask_at(life, now)) for life in settled], asked_at=now)
        for life in settled:
            before = self._before[life.asset.symbol]
            was_told = before.state in GONE and not before.company
            if life.state in GONE and not life.company and not was_told:
                self._told[life.asset.symbol] = life
            if life.reused_on != before.reused_on:
                self._reused[life.asset.symbol] = life

    @staticmethod
    def _ask_at(life: Life, now: datetime) -> datetime:
        if life.company:
            return now
        # The list may be some days behind prices.
        is_news = life.missing_since is not None and now.date() - life.missing_since < WEEK
        return now + (DAY if life.is_refused and is_news and life.state not in GONE else WEEK)

    def failed(self, one: Landed, error: CallError) -> Aftermath:
        """Let nobody ask for an hour; where calls were too many, ask as soon as they may be made."""
        self._waiting.appendleft(one.work)
        if error.kind is not FailureKind.RATE_LIMITED:
            log.info("what became of %d tickers is not known: %s", len(self._waiting), error)
            self._waiting.clear()
            self._lease.give_up()
            Lease(self._run.connection, LEASE, seconds=REST_SECONDS).take()
        return Aftermath.of(error.kind)

    def take_back(self, works: Sequence[tuple[Call, Any]], *, held_up: bool) -> None:
        """Ask again."""
        del held_up
        self._waiting.extendleft(work for _, work in works)

    def finish(self, *, has_ended: bool) -> None:
        """Let other runs ask."""
        del has_ended
        self._lease.give_up()

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each thing that became of tickers, which is told once."""
        days: dict[date | None, list[str]] = {}
        for symbol, life in self._told.items():
            if life.state is State.DELISTED:
                days.setdefault(life.delisted_on, []).append(symbol)
        delisted = (
            f"delisted{f' on {day}' if day else ''}: {named(sorted(symbols))}"
            for day, symbols in sorted(days.items(), key=lambda item: item[0] or date.min)
        )
        renamed = (f"renamed to {one.became}: {symbol}" for symbol, one in self._told.items() if one.became)
        reused = (
            f"{symbol}: the ticker {one.ticker} is another company's since {one.reused_on} at the latest; prices and"
            " bars of before are of the old one"
            for symbol, one in self._reused.items()
        )
        return (*delisted, *renamed, *reused)


def _is_of_another(life: Life, found: Listing) -> bool:
    """Return whether an ended life is not the ticker's own, but that of who had it before."""
    if life.figi and found.figi:
        return life.figi != found.figi
    if life.is_refused or life.missing_since is None or found.delisted_on is None:
        return False
    return found.delisted_on < life.missing_since - QUIET


def _whole_since(page: TickerPage) -> date:
    """Return since when a first page of the inactive list has all: it has the newest, if it is in that order."""
    if not page.next_page:
        return date.min
    days = [one.delisted_on or date.max for one in page.listings]
    return days[-1] if days and days == sorted(days, reverse=True) else date.max


def _newest(listings: Sequence[Listing]) -> dict[str, Listing]:
    """Return the last life of each ticker."""
    in_order = sorted(listings, key=lambda one: one.delisted_on or date.min)
    return {one.ticker: one for one in in_order if not one.is_active}
