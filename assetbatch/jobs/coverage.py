"""Which bars are there of those that are expected: looked at, and nothing written."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch import market_hours
from assetbatch.database import catalogue
from assetbatch.database.bars import coverage
from assetbatch.database.bars.coverage import Day
from assetbatch.database.entitlements import Remembered
from assetbatch.database.rate_limit import key_of
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.jobs.wanted import Wanted
from assetbatch.markets import Market
from assetbatch.model import Access, AssetType
from assetbatch.planner import EPOCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.config import Config
    from assetbatch.database.bars.coverage import Covered
    from assetbatch.database.connection import Connection

DEFAULT_DAYS = 30
LONGEST = "10min"
# Why nobody asks for bars of a type: the configuration does not want them, or they were refused.
NOT_WANTED = "not_wanted"
NOT_ENTITLED = "not_entitled"

COUNTS = Day.__struct_fields__[1:]


class AssetCoverage(Struct, frozen=True):
    """An asset's days, what they sum up to, and why nobody asks for its bars (None: they are asked for).

    `is_known` is as in `Covered`.
    """

    symbol: str
    asset_type: str
    idle: str | None
    days: tuple[Day, ...]
    total: dict[str, int]
    is_known: bool

    @property
    def is_new(self) -> bool:
        """Whether its bars are to be asked for, and never were."""
        return self.idle is None and not self.is_known

    @property
    def lacking(self) -> int:
        """How many bars could be had and are not there: `backfill` asks for those that the configuration leaves."""
        return self.total["missing"] + self.total["refused"] if self.idle in {None, NOT_WANTED} else 0

    @property
    def oldest_missing(self) -> date | None:
        """The first day that has a hole."""
        return next((one.day for one in self.days if one.missing), None)


class Coverage(Struct, frozen=True):
    """What was found at `now` of the days `since` to `until`, the worst asset first; `unknown`: in no catalogue."""

    now: datetime
    since: date
    until: date
    assets: tuple[AssetCoverage, ...]
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> dict[str, int]:
        """What the days of all assets sum up to."""
        return {name: sum(one.total[name] for one in self.assets) for name in COUNTS}

    @property
    def lacking(self) -> list[AssetCoverage]:
        """The assets of which bars are missing that could be had."""
        return [one for one in self.assets if one.lacking or one.is_new]


def read(
    config: Config,
    connection: Connection,
    *,
    now: datetime,
    symbols: Sequence[str] | None = None,
    since: date | None = None,
    until: date | None = None,
) -> Coverage:
    """Look at the bars of these assets, or of all that are enabled, day by day (UTC), both ends included.

    Days that have not begun at `now`, by the database's clock, are left out.
    """
    until = min(until or now.date(), now.date())
    since = min(since or until - timedelta(days=DEFAULT_DAYS - 1), until)
    remembered = Remembered(key=key_of(config) or "", plans=config.plans, now=now)
    frequencies = catalogue.frequencies()
    connection.ask(frequencies, *remembered.queries)
    entitlements = Entitlements(connection, config, Clock(now), remembered=remembered)
    wanted = Wanted(entitlements)
    kept_since, begin = wanted.kept_since(), datetime.combine(since, time(0), UTC)
    begin = max(begin, kept_since or EPOCH, EPOCH)
    found = coverage.covered(
        symbols,
        since=begin,
        until=until,
        now=now,
        reaches={
            (market, seconds): reach
            for market in Market
            if _refusal(wanted, entitlements, market.asset_type) is None
            for seconds in frequencies.answer
            # A bar may take its asset's period to be asked for, and a run to come.
            if (reach := wanted.until(market, now - 2 * timedelta(seconds=seconds))) is not None
        },
        closed={market: market_hours.closed_spans(market, begin, now) for market in Market},
        # What a plan does not show was told to a key: without one, whoever was told it last is believed.
        told={one: entitlements.told_of(one) for one in AssetType} if config.api_key else {},
    )
    # Years of thousands of assets are many bars.
    connection.ask(coverage.uncompiled(), found, statement_timeout=LONGEST)
    refused = {kind: _refusal(wanted, entitlements, kind) for kind in AssetType}
    assets = [_summed(one, refused[AssetType(one.asset_type)]) for one in found.answer]
    assets.sort(key=lambda one: (-one.lacking, not one.is_new, -one.total["missing"], one.symbol))
    unknown = sorted({*(symbols or ())} - {one.symbol for one in assets})
    return Coverage(now, since, until, tuple(assets), tuple(unknown))


def _refusal(wanted: Wanted, entitlements: Entitlements, kind: AssetType) -> str | None:
    """Return why nobody asks for bars of a type; None: they are asked for."""
    if not wanted.asks(kind):
        return NOT_WANTED
    return None if entitlements.may(Access.BARS, kind) else NOT_ENTITLED


def _summed(one: Covered, refusal: str | None) -> AssetCoverage:
    total = {name: sum(getattr(day, name) for day in one.days) for name in COUNTS}
    return AssetCoverage(one.symbol, one.asset_type, one.idle or refusal, one.days, total, one.is_known)
