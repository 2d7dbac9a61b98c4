"""Bars: a call for one page, the lease that it needs, and where such calls come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.bars import state as bars
from assetbatch.jobs.wanted import Wanted
from assetbatch.model import Call, CallKind, Span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.bars import JudgedPage
    from assetbatch.database.bars.pages import StoredBars
    from assetbatch.database.bars.state import Claimed
    from assetbatch.failures import CallError
    from assetbatch.jobs.run import Run
    from assetbatch.model import AssetType, Bar, Trouble


class BarCall(Struct, frozen=True):
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

    @property
    def symbol(self) -> str:
        """Whose bars are asked for."""
        return self.claimed.track.asset.symbol


class BarWork(ABC):
    """Where calls for bars come from, one after another; it is told what became of each, and decides what comes next.

    `ended_by` is what no further call can fare better than, once there is such.
    """

    ended_by: Trouble | None = None

    def __init__(self, run: Run) -> None:
        self._run = run
        self.wanted = Wanted(run.entitlements)
        self._leases = BarLeases(run, self.wanted)
        self._last_holes: dict[str, Span] = {}

    @property
    @abstractmethod
    def types(self) -> frozenset[AssetType]:
        """The types of assets that the next call may be about."""

    @abstractmethod
    def has_work(self) -> bool:
        """Return whether a call would be of use now."""

    @abstractmethod
    def begin(self) -> BarCall | None:
        """Choose the next call, and take the lease for it; None where there is none after all."""

    @abstractmethod
    def known(self, one: BarCall) -> Mapping[datetime, tuple[Bar, bool]]:
        """Read the bars that the page may have again: of those that are no news, not even a lock is to be written."""

    def written(self, one: BarCall, found: JudgedPage, known: Mapping[datetime, tuple[Bar, bool]]) -> None:  # noqa: B027 - not every source has to
        """Look at what was written, within its transaction, which may be repeated."""

    @abstractmethod
    def stored(self, one: BarCall, found: JudgedPage) -> None:
        """Go on after a page that is stored."""

    @abstractmethod
    def refused(self, one: BarCall, stored: StoredBars) -> None:
        """Ask for no further bars of an asset of which the table took none, nor of others where that is the table's."""

    def removed(self, one: BarCall) -> None:  # noqa: B027
        """Go on after a page whose asset the platform has deleted."""

    def lost(self, one: BarCall) -> None:  # noqa: B027
        """Leave an asset's bars to the run that holds the lease now."""

    def anew(self, one: BarCall) -> None:
        """Ask for the same asset next, and choose anew what for: this call told nothing."""
        self._last_holes.pop(one.symbol, None)
        self._again(one)

    @abstractmethod
    def _again(self, one: BarCall) -> None:
        """Ask for the same asset next."""

    @abstractmethod
    def skipped(self, one: BarCall, span: Span) -> None:
        """Go on behind a span that the plan does not reach back to."""

    @abstractmethod
    def failed(self, one: BarCall, error: CallError) -> None:
        """Go on after a call that brought nothing."""


class BarLeases:
    """The leases that one run takes on assets' bars."""

    def __init__(self, run: Run, wanted: Wanted) -> None:
        self._run = run
        self._wanted = wanted
        self.seconds = run.rules.hold_seconds
        # Since when there are partitions.
        self._partitions: datetime | None = None

    def claim(self, symbol: str, since: datetime) -> Claimed | None:
        """Take the lease on bars that are wanted since a time; None where another run has it, or the asset is gone."""
        kept_since = self._wanted.kept_since()
        claimed = bars.claim(
            self._run.connection,
            symbol,
            wanted_since=since,
            kept_since=kept_since,
            seconds=self.seconds,
            now=self._run.clock.now(),
            run_id=self._run.id,
        )
        if claimed is not None and not claimed.track.is_unknown:
            since = claimed.track.wanted_since
            if self._partitions is None or since < self._partitions:
                bars.keep_partitions(self._run.connection, since=since, kept_since=kept_since)
                self._partitions = since
        return claimed

    def call(self, claimed: Claimed, span: Span | None, *, newest: bool) -> BarCall | None:
        """Return the call for a span; None, and let another run ask, where there is nothing to ask for."""
        if span is None:
            bars.release(self._run.connection, claimed)
            return None
        track, now = claimed.track, self._run.clock.now()
        minutes = 5 if newest and track.is_doubtful(now) else track.minutes
        return BarCall(Call(CallKind.BARS, (track.asset,), span=span, minutes=minutes), claimed, newest, now)
