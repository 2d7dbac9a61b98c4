"""What `chart` shows: the bars of one asset, as many as there is room for, read in few round trips."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.bars import LENGTH
from assetbatch.database.bars import points as bar_points
from assetbatch.jobs import coverage
from assetbatch.market_hours import market_of
from assetbatch.model import Span
from assetbatch.report.freshness import market_time_ago

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime
    from decimal import Decimal

    from assetbatch.config import Config
    from assetbatch.database.bars.points import Charted, Point
    from assetbatch.database.connection import Connection

DAY = timedelta(days=1)
# How long a point of a chart may be: what divides a day, and weeks.
LENGTHS = [LENGTH * bars for bars in (1, 2, 3, 6, 12, 24, 48, 72, 144, 288)] + [timedelta(days=7), timedelta(days=28)]


class Chart(Struct, frozen=True):
    """Points of one asset between two times, each of `length`, and what is known beside them.

    `is_newest`: the time was not asked for, it is the newest day of market time; `span` None: there is no final bar.
    `lacking` bars of its days could be had, and are missing; `open_bars` are left out.
    """

    charted: Charted
    span: Span | None
    is_newest: bool
    length: timedelta = LENGTH
    points: Sequence[Point] = ()
    lacking: int = 0
    lacking_since: date | None = None
    open_bars: int = 0

    @property
    def price(self) -> tuple[str, datetime] | None:
        """The newest price that is known, and of when it is: that of the last update, or of the newest bar."""
        known = self.charted
        closed_at = min(self.points[-1].ts + self.length, self.span.until) if self.points and self.span else None
        if known.price is not None and known.price_at is not None and (closed_at is None or known.price_at > closed_at):
            return known.price, known.price_at
        return (f"{self.points[-1].close:f}", closed_at) if closed_at is not None else None

    @property
    def change(self) -> Decimal | None:
        """By how much the price changed from the first point's open to the last one's close."""
        first = self.points[0].open if self.points else None
        return (self.points[-1].close - first) / first if first else None

    @property
    def stretches(self) -> list[list[Point]]:
        """The points without a gap between them, in order."""
        found: list[list[Point]] = []
        for point in self.points:
            if found and point.ts == found[-1][-1].ts + self.length:
                found[-1].append(point)
            else:
                found.append([point])
        return found


def read(
    config: Config, connection: Connection, symbol: str, *, since: timedelta | None, most_points: int | None
) -> Chart | None:
    """Read the bars of an asset `since` so long ago, or those of the newest day of market time that there are.

    More than `most_points` are put together; None: none are. Return None where the catalogue has no such asset.
    """
    charted = connection.answer(bar_points.charted(symbol))
    if charted is None:
        return None
    now, newest = charted.now, charted.newest
    if newest is None:
        return Chart(charted, None, since is None)
    until = newest + LENGTH
    if since is None:
        span = Span(market_time_ago(market_of(charted.asset), DAY, until), until)
    else:
        span = Span(now - since, max(until, now - since))
    length = next(
        (one for one in LENGTHS if most_points is None or (span.until - span.since) / one <= most_points), LENGTHS[-1]
    )
    reading, opened = bar_points.points(symbol, span, length=length), bar_points.open_bars(symbol, span.since)
    connection.ask(reading, opened)
    # One meaning of what is missing, day by day.
    (asset,) = coverage.read(config, connection, now=now, symbols=[symbol], since=span.since.date()).assets
    lacking_since = next((day.day for day in asset.days if day.missing or day.refused), None)
    return Chart(charted, span, since is None, length, reading.answer, asset.lacking, lacking_since, opened.answer)
