"""Reading what `status` and `metrics` tell, some twenty statements in three round trips, and putting it together.

What only some questions need is imported when they are asked: `status` starts often.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import bars as core
from assetbatch import market_hours, planner
from assetbatch.database import catalogue, entitlements
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.leases import dead_runs, release
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.database.read import freshness, overview
from assetbatch.database.setup import schema
from assetbatch.report.alerts import all_alerts
from assetbatch.report.freshness import SEEN_WITHIN, asks_for_bars, asset_status, limits, outlook_of
from assetbatch.report.status import (
    BarsStatus,
    JobStatus,
    Status,
    budget_of,
    events_of,
    metrics_of,
    prices_of,
    queue_of,
)
from assetbatch.schedule import JOBS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.read.freshness import Judged
    from assetbatch.database.read.overview import Overview
    from assetbatch.report.streams import StreamStatus

WORST_SHOWN = 20
MOST_RUNS = 50
# Holes are counted where it is cheap: a few thousand bars.
HOLES_BACK = timedelta(days=7)
HOLES_OF_ASSETS = 10


class UnknownAssetError(LookupError):
    """Neither the catalogue nor the configuration has an asset of this name."""


class Wanted(Struct, frozen=True):
    """What is told beside what always is: all assets, runs since so long ago, one asset's history.

    `closes`: those of the last day, of priority assets.
    """

    all_assets: bool = False
    since: timedelta | None = None
    asset: str | None = None
    closes: bool = False


def read(config: Config, connection: Connection, wanted: Wanted | None = None) -> Status:
    """Read how everything stands. Raises SchemaError, and UnknownAssetError for a history of nobody."""
    wanted = wanted or Wanted()
    priority = config.priority_assets
    symbols = [asset.symbol for asset in priority]
    schema.check(connection)
    overviewing = overview.Reading(
        jobs=list(JOBS),
        key=key_fingerprint(config.api_key.reveal()) if config.api_key else None,
        plans=config.plans,
        enqueued_every_seconds=config.settings.batch.enqueue_interval_minutes * 60,
    )
    dead, frequencies, source = dead_runs(), catalogue.frequencies(), schema.source()
    connection.ask(dead, frequencies, source, *overviewing.queries)
    # Else a run that was killed would look as if it were going on.
    if release(connection, dead.answer):
        connection.ask(*overviewing.queries)
    found = overviewing.overview(connection)
    outlook = outlook_of(config, found)
    judging = freshness.judge(
        limits(frequencies.answer, outlook),
        seen_since=found.now - SEEN_WITHIN,
        named=symbols if wanted.asset is None else [*symbols, wanted.asset],
        most_others=None if wanted.all_assets else WORST_SHOWN,
    )
    bars = _Bars(config, found)
    closes = None
    if wanted.closes:
        from assetbatch.database.read.closes import hourly

        closes = hourly(symbols, found.now)
    connection.ask(judging, *bars.queries, *filter(None, [closes]))
    status = build(
        config,
        found,
        judging.answer,
        source=source.answer,
        others_are_all=wanted.all_assets,
        bars=bars.status,
    )
    if closes is not None:
        status = replace(status, closes=closes.answer)
    if wanted.since is not None:
        runs = connection.answer(overview.not_well(seconds=wanted.since.total_seconds(), limit=MOST_RUNS))
        status = replace(status, not_well=runs)
    if wanted.asset is not None:
        status = _with_history(config, connection, status, judging.answer.named.get(wanted.asset), wanted.asset)
    return status


class _Bars:
    """What the table has of the priority assets' bars; those that are missing, of the first of them."""

    def __init__(self, config: Config, found: Overview) -> None:
        outlook, settle = outlook_of(config, found), timedelta(seconds=config.settings.bars.settle_seconds)
        self._failing = sum(row["total"] for row in found.failing_bars[:1])
        since = core.floor(found.now - HOLES_BACK)
        reaches, closed = {}, {}
        for asset in config.priority_assets:
            market, kind = market_hours.market_of(asset), asset.asset_type
            # A bar may take its asset's period to be asked for, and a run to come.
            by = found.now - 2 * timedelta(seconds=asset.update_frequency_seconds)
            until = core.reach(
                market,
                mode=outlook.modes[kind],
                days=found.days,
                now=by,
                settle=settle + config.plan_of(kind).delay,
            )
            if until is not None:
                reaches[asset.symbol] = until
                closed[asset.symbol] = market_hours.closed_spans(market, since, until)
        asked = [one.symbol for one in config.priority_assets if asks_for_bars(config, outlook, one.asset_type)]
        counted = [symbol for symbol in asked if symbol in reaches][:HOLES_OF_ASSETS]
        self._asked = bool(asked) or not config.priority_assets
        self._coverage = bar_holes.coverage(
            reaches,
            counted=counted,
            closed=closed,
            since=since,
            now=found.now,
            told={
                one.symbol: entitlements.told_to(config.plan_of(one.asset_type).name, found.key or "")
                for one in config.priority_assets
            },
        )
        self._refused = bar_absences.refused()
        self.queries = self._coverage, self._refused

    @property
    def status(self) -> BarsStatus:
        """What was read."""
        coverage = self._coverage.answer
        return BarsStatus(
            {symbol: one.newest for symbol, one in coverage.items() if one.newest is not None},
            self._failing,
            sum(one.missing for one in coverage.values()) if self._asked else None,
            min((one.oldest_missing for one in coverage.values() if one.oldest_missing is not None), default=None),
            self._refused.answer,
        )


def _with_history(config: Config, connection: Connection, status: Status, row: Row | None, symbol: str) -> Status:
    from assetbatch.database.read import history

    told = history.read(connection, symbol)
    asset = next((asset for asset in config.assets if asset.symbol == symbol), None)
    if told.catalogue is not None:
        asset = catalogue.asset_of(told.catalogue)
    if asset is None:
        raise UnknownAssetError(symbol)
    return replace(status, history=told, subject=asset_status(asset, row, status.now))


def build(
    config: Config,
    overview: Overview,
    judged: Judged,
    *,
    source: str | None,
    others_are_all: bool = False,
    bars: BarsStatus | None = None,
) -> Status:
    """Put together what was read; pure, so that text, JSON and exit code tell the same.

    `source`: whose prices the database has, None: nobody's yet.
    """
    outlook = outlook_of(config, overview)
    bars = bars or BarsStatus({}, sum(row["total"] for row in overview.failing_bars[:1]), 0)
    assets = tuple(asset_status(one, judged.named.get(one.symbol), overview.now) for one in config.priority_assets)
    others = tuple(asset_status(catalogue.asset_of(row), row, overview.now) for row in judged.others)
    counts: Counter[str] = Counter()
    for group in judged.groups:
        counts[group.state] += group.assets
    budget = budget_of(config, overview)
    queue = queue_of(overview)
    metrics = metrics_of(overview, counts, budget, queue)
    markets = sorted({one.asset.asset_type for one in assets} | {one.asset.asset_type for one in others})
    status = Status(
        now=overview.now,
        database=config.database.described,
        alerts=(),
        jobs=tuple(_job_status(row, overview.now, config) for row in overview.jobs),
        assets=assets,
        others=others,
        others_are_all=others_are_all,
        asset_states=dict(counts),
        prices=prices_of(outlook, markets, [one.day for one in assets if one.day], source),
        budget=budget,
        queue=queue,
        bars=bars,
        events=events_of(config, overview),
        metrics=metrics,
        gone=overview.gone,
        streams=_streams(overview),
    )
    return replace(status, alerts=all_alerts(config, overview, outlook, judged.groups, status))


def _streams(overview: Overview) -> tuple[StreamStatus, ...]:
    if not overview.streams:
        return ()
    from assetbatch.report.streams import stream_status

    return tuple(stream_status(one) for one in overview.streams)


def _job_status(row: Mapping[str, Any], now: datetime, config: Config) -> JobStatus:
    job = JOBS[row["job"]]
    day = {key: row[key] for key in ("runs", "ok", "partial", "failed", "longest_gap_seconds", "last_failure")}
    return JobStatus(
        id=job.name,
        name=job.title,
        last_run=row["last_run"],
        last_status=row["last_status"],
        last_success=row["last_success"],
        next_run=planner.next_start(now, job.every(config.settings.batch)),
        day=day,
    )
