"""Reading what `status` and `metrics` tell: one transaction, some twenty statements.

What only some questions need is imported when they are asked: `status` starts often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch.database import catalogue, freshness, overview, schema
from assetbatch.database.connection import transaction
from assetbatch.database.leases import release_dead
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.model import Span
from assetbatch.planner import Mode
from assetbatch.report import status as report
from assetbatch.report.freshness import SEEN_WITHIN, limits

if TYPE_CHECKING:
    from assetbatch.config import Config
    from assetbatch.database.connection import Connection, Row
    from assetbatch.database.overview import Overview
    from assetbatch.report.status import Status

WORST_SHOWN = 20
MOST_RUNS = 50
# Holes are counted where it is cheap: a few thousand bars.
HOLES_BACK = timedelta(days=7)
HOLES_OF_ASSETS = 10


class UnknownAssetError(LookupError):
    """Neither the catalogue nor the configuration has an asset of this name."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is told beside what always is: all assets, runs since so long ago, one asset's story."""

    all_assets: bool = False
    since: timedelta | None = None
    asset: str | None = None


def read(config: Config, connection: Connection, wanted: Wanted | None = None) -> Status:
    """Read how everything stands. Raises SchemaError, and UnknownAssetError for a story of nobody."""
    wanted = wanted or Wanted()
    priority = config.priority_assets
    symbols = [asset.symbol for asset in priority]
    schema.check(connection)
    # Else a run that was killed would look as if it were going on.
    release_dead(connection)
    with transaction(connection):
        found = overview.read(
            connection,
            symbols=symbols,
            jobs=list(report.JOBS),
            key=key_fingerprint(config.api_key.reveal()) if config.api_key else None,
            plan=config.plan,
            enqueued_every_seconds=config.settings.batch.enqueue_interval_minutes * 60,
        )
        outlook = report.outlook_of(config, found)
        judged = freshness.judge(
            connection,
            limits(catalogue.frequencies(connection), outlook),
            daily=outlook.mode is Mode.END_OF_DAY,
            seen_since=found.now - SEEN_WITHIN,
            named=symbols if wanted.asset is None else [*symbols, wanted.asset],
            most_others=None if wanted.all_assets else WORST_SHOWN,
        )
        status = report.build(
            config,
            found,
            judged,
            source=schema.source(connection),
            others_are_all=wanted.all_assets,
            bar_holes=_holes(config, connection, found),
        )
        if wanted.since is not None:
            runs = overview.not_well(connection, seconds=wanted.since.total_seconds(), limit=MOST_RUNS)
            status = replace(status, not_well=runs)
        if wanted.asset is not None:
            status = _with_story(config, connection, status, judged.named.get(wanted.asset), wanted.asset)
    return status


def _holes(config: Config, connection: Connection, found: Overview) -> int:
    """Count the bars that are missing, of the first priority assets in their last days."""
    if not found.watermarks:
        return 0
    from assetbatch.bars import LENGTH
    from assetbatch.database import bar_holes, bars
    from assetbatch.database.entitlements import told_to

    symbols = [asset.symbol for asset in config.priority_assets[:HOLES_OF_ASSETS]]
    asked = {symbol: known for symbol, known in bars.states(connection, symbols).items() if known[1] is not None}
    has_finality = bar_holes.has_finality(connection)
    missing = timedelta(0)
    for symbol, (since, until) in asked.items():
        if until is not None and until > since:
            span = Span(max(since, until - HOLES_BACK), until)
            told = told_to(config.plan, found.key or "")
            for hole in bar_holes.holes(connection, symbol, span, now=found.now, told=told, has_finality=has_finality):
                missing += hole.until - hole.since
    return missing // LENGTH


def _with_story(config: Config, connection: Connection, status: Status, row: Row | None, symbol: str) -> Status:
    from assetbatch.database import story

    told = story.read(connection, symbol)
    asset = next((asset for asset in config.assets if asset.symbol == symbol), None)
    if told.catalogue is not None:
        asset = catalogue.asset_of(told.catalogue)
    if asset is None:
        raise UnknownAssetError(symbol)
    return replace(status, story=told, subject=report.asset_status(asset, row, status.now))
