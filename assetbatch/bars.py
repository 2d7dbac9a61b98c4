"""Bars: which stretch to ask for next, and what a page of the vendor's means. Pure.

What is there is read off the bars themselves, and what is missing for a reason off the reasons; all else between the
beginning that is wanted and the last settled bar is a hole, and holes are asked for. So a bar that somebody deleted
comes back, and a run that was killed between two pages goes on where it was.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import market_hours, planner
from assetbatch.bar_series import BarSeries
from assetbatch.model import Bar, Span
from assetbatch.planner import EPOCH
from assetbatch.plans import MOST_BASE_MINUTES, Mode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from assetbatch.markets import Market
    from assetbatch.model import Asset
    from assetbatch.planner import Days

LENGTH = timedelta(minutes=5)
ONE_PAGE = timedelta(minutes=MOST_BASE_MINUTES)
# Once a day, though a day's first run is a little earlier than that of the day before.
RECHECK_EVERY = timedelta(hours=23)
# A ticker without a bar in so much time of regular sessions has no 5-minute bars: it may have 1-minute bars.
SILENT = timedelta(hours=12)
# What the vendor has no bar for is believed when it says so twice, so long apart.
TOLD_AGAIN = timedelta(hours=1)
# Sums and products of the vendor's longest numbers.
EXACT_DIGITS = 120


class Track(Struct, frozen=True):
    """What is known of one asset's bars.

    They are wanted since `wanted_since`, and asked for until `asked_until`; the newest final one begins at `watermark`
    (of bars that a platform stored itself: the newest). `source_minutes` is the length of the bars that the vendor has:
    5, or 1 where they are built here; since `source_told_at` it seems to be 1, but was told so once only. `served`: its
    price was stored before; `is_unknown`: the vendor does not know its ticker. `silent`: the vendor was asked before,
    and had no bars at some time of an open market; what it has not said twice, and may be asked again, begins at
    `silent_since`, within a page. `unadjusted` is where bars are as they were before a split, the newest ones of them,
    within a page.
    """

    asset: Asset
    wanted_since: datetime
    asked_until: datetime | None = None
    rechecked_at: datetime | None = None
    watermark: datetime | None = None
    source_minutes: int = 5
    source_told_at: datetime | None = None
    served: bool = False
    is_unknown: bool = False
    silent: bool = False
    silent_since: datetime | None = None
    unadjusted: Span | None = None

    @property
    def minutes(self) -> int:
        """The length of the bars to ask for."""
        # Of an asset of which none ever came, the second time of 1 minute: there are such wherever there are others.
        never_came = self.watermark is None and self.silent_since is not None
        return 1 if never_came or self.source_told_at is not None else self.source_minutes

    def is_doubtful(self, now: datetime) -> bool:
        """Return whether the vendor is to be asked a second time if it has no 5-minute bars."""
        return self.source_told_at is not None and now - self.source_told_at >= TOLD_AGAIN


class JudgedPage(Struct, frozen=True):
    """What a page is good for: bars, and where in what it covers there is none.

    `until` is how far it covers: bars that end by then are final. `whole`: there is no further page; `refused`: where
    the table did not take its bars.
    """

    bars: BarSeries
    absent: tuple[Span, ...]
    invalid: tuple[Span, ...]
    until: datetime
    whole: bool
    refused: tuple[Span, ...] = ()

    @property
    def has_final(self) -> bool:
        """Whether any of the bars is final."""
        return len(self.bars) > 0 and self.bars.times[0] + LENGTH <= self.until


def floor(moment: datetime) -> datetime:
    """Return when the bar began that `moment` is in."""
    return moment - (moment - EPOCH) % LENGTH


def reach(market: Market, *, mode: Mode, days: Days, now: datetime, settle: timedelta) -> datetime | None:
    """Return until when a market's bars are settled; None: no finished day can be had.

    `settle`: so long after its end. `days` are those that the vendor was asked for, where days have to be finished.
    """
    if mode is Mode.END_OF_DAY:
        day = planner.wanted_day(market.asset_type, days, now)
        return None if day is None else market_hours.day_begins_at(market.asset_type, day + timedelta(days=1))
    settled = now - settle
    return floor(market_hours.last_close(market, settled) or settled)


def tail(track: Track, *, until: datetime, now: datetime, recheck: timedelta) -> Span | None:
    """Return what to ask for to have an asset's newest bars up to `until`; None: nothing.

    From the newest final bar on, inclusive; once a day from `recheck` before it, so that corrections arrive with no
    further call; and from where the vendor had no bars once, so that it says so twice with no further call. What a
    split has changed comes along, as far as it fits: the newest bars and those before them are of one scale. What does
    not fit into one page is a hole, for later: the newest bars come first.
    """
    if track.asked_until is not None and track.asked_until >= until:
        return None
    since = track.watermark or track.asked_until or track.wanted_since
    if track.watermark and (track.rechecked_at is None or now - track.rechecked_at >= RECHECK_EVERY):
        since -= recheck
    if track.silent_since is not None:
        since = min(since, track.silent_since)
    if track.unadjusted is not None and track.unadjusted.until > until - ONE_PAGE:
        since = min(since, track.unadjusted.since)
    if track.is_doubtful(now):
        since = track.wanted_since
    since = max(since, track.wanted_since, until - ONE_PAGE)
    return Span(floor(since), until) if since < until else None


def next_hole(holes: Sequence[Span]) -> Span | None:
    """Choose the stretch of the next call: the newest hole, with as many before it as one page covers.

    One that is longer than a page is asked for from its beginning, page by page.
    """
    if not holes:
        return None
    since, until = holes[-1].since, holes[-1].until
    for hole in reversed(holes[:-1]):
        if until - hole.since > ONE_PAGE:
            break
        since = hole.since
    return Span(since, until)


def judge(
    span: Span,
    bars: BarSeries,
    *,
    more: bool,
    invalid: Iterable[datetime] = (),
    asked_at: datetime,
    settle: timedelta,
) -> JudgedPage:
    """Return what a page is good for that was asked for at `asked_at`.

    A bar is final when it was asked for `settle` after its end. The last one of a page that is not the last may have
    been cut: it is left to the next page, which has it whole.
    """
    until = min(span.until, floor(asked_at - settle))
    if more:
        last = bars.times[-1]
        until = min(until, last if last > span.since else last + LENGTH)
        bars = bars[: bisect_left(bars.times, until)]
    # Of a window that lacks a minute, no bar is built.
    spoilt = {floor(ts) for ts in invalid}
    bars = bars.without(spoilt)
    settled = bars.times[: bisect_left(bars.times, until)]
    ends = [span.since - LENGTH, *settled, until]
    return JudgedPage(
        bars,
        tuple(Span(before + LENGTH, ts) for before, ts in pairwise(ends) if before + LENGTH < ts),
        tuple(Span(ts, ts + LENGTH) for ts in sorted(spoilt)),
        until=max(until, span.since),
        whole=not more,
    )


def without(found: JudgedPage, refused: Collection[datetime]) -> JudgedPage:
    """Return what a page is good for of which the bars of these times could not be stored."""
    spans = tuple(Span(ts, ts + LENGTH) for ts in sorted(refused))
    return replace(found, bars=found.bars.without(refused), refused=spans)


def built(minutes: Iterable[Bar]) -> BarSeries:
    """Build 5-minute bars from 1-minute bars, in the order of time.

    The average price is weighted by volume, as each minute's own is; rounded to the most decimals that those have.
    """
    return BarSeries.of(_joined(ts, list(group)) for ts, group in groupby(minutes, key=lambda bar: floor(bar.ts)))


def _joined(ts: datetime, parts: Sequence[Bar]) -> Bar:
    volumes = [bar.volume for bar in parts if bar.volume is not None]
    trades = [bar.trades for bar in parts if bar.trades is not None]
    with localcontext(prec=EXACT_DIGITS):
        return Bar(
            ts=ts,
            open=parts[0].open,
            high=max(bar.high for bar in parts),
            low=min(bar.low for bar in parts),
            close=parts[-1].close,
            volume=sum(volumes, Decimal(0)) if volumes else None,
            vwap=_average(parts),
            trades=sum(trades) if trades else None,
        )


def _average(parts: Sequence[Bar]) -> Decimal | None:
    priced = [(bar.vwap, bar.volume) for bar in parts if bar.vwap is not None and bar.volume]
    if not priced:
        return None
    finest = min((price for price, _ in priced), key=lambda price: price.as_tuple().exponent)
    worth = sum((price * volume for price, volume in priced), Decimal(0))
    return (worth / sum((volume for _, volume in priced), Decimal(0))).quantize(finest)


def calls_for(holes: Sequence[Span], market: Market) -> int:
    """Return how many calls bring the bars of these holes at most: as `next_hole` packs them, page by page."""
    calls, left = 0, list(holes)
    while left:
        span = next_hole(left)
        assert span is not None  # noqa: S101 - there is a hole
        rest = market_hours.open_time(market, span.since, span.until) - ONE_PAGE
        # The last bar of a page that is not the last is left to the next one.
        calls += 1 + max(0, -(-rest // (ONE_PAGE - LENGTH)))
        left = [hole for hole in left if hole.since < span.since]
    return calls
