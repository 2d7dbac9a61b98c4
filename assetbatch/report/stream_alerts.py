"""Alerts about the stream: one that is meant to run and does not, and what keeps a cluster from bringing prices."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.database.read.overview import STREAM_AWAY_SECONDS
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType
from assetbatch.plans import KEYS, plan_words
from assetbatch.report.health import Alert, Level
from assetbatch.report.streams import ENDED, LIVE, stream_status
from assetbatch.schedule import RUN_PRIORITY
from assetbatch.words import counted, duration, joined, named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from assetbatch.config import Config
    from assetbatch.database.read.overview import Overview
    from assetbatch.report.streams import StreamStatus

# A connection is made anew within a minute: one that is not there for longer will not come by itself.
UNREACHABLE_AT_MOST = timedelta(seconds=STREAM_AWAY_SECONDS)
START = "start it: `systemctl enable --now assetbatch-stream`, or `assetbatch install cron --with-stream --write`"


def of_stream(config: Config, overview: Overview, types: Collection[AssetType]) -> Iterator[Alert]:
    """Report what is wrong with the stream; `types` are those of all enabled assets.

    Only one that is meant to run (`stream.enabled`) can be missed; one that runs is told of in any case.
    """
    found = [stream_status(one) for one in overview.streams]
    if config.settings.stream.enabled:
        yield from _of_absence(config, overview, types, found)
    for one in found:
        if one.told.is_told:
            yield from _of_cluster(config, overview, one)


def _of_absence(
    config: Config, overview: Overview, types: Collection[AssetType], found: Sequence[StreamStatus]
) -> Iterator[Alert]:
    clusters = config.settings.stream.clusters
    meant = [one for one in types if clusters == "auto" or one.value in clusters]
    wanted = sorted(one.value for one in meant if config.plan_of(one).has_websocket)
    if meant and not wanted:
        first = min(meant)
        message = f"stream.enabled is true, but the {config.plan_of(first).name} plan has no WebSocket"
        key = KEYS[TRAITS[first].product]
        hint = f"set {key} to what the key has ({config.settings.provider.upgrade_url}), or stream.enabled back"
        yield Alert(Level.WARNING, "stream.plan", message, hint)
        return
    known = {one.report.cluster: one for one in found}
    away = [name for name in wanted if name not in known or not known[name].told.is_told]
    if not away:
        return
    level = Level.CRITICAL if _stands_alone(config, overview) else Level.WARNING
    told = [known[name] for name in away if name in known]
    if not told:
        yield Alert(level, "stream.away", f"stream.enabled is true, but no stream of {joined(away)} ever ran", START)
        return
    last = max(told, key=lambda one: one.told.told_at)
    silent = overview.now - last.told.told_at
    did = "ended" if last.state == ENDED else "fell silent"
    why = f": {last.report.words}" if last.report.words else ""
    yield Alert(
        level,
        "stream.away",
        f"the stream of {joined(away)} is away: it {did} {duration(silent)} ago{why}",
        f"does `assetbatch stream` run on {last.told.host or 'its host'}? See journalctl -u assetbatch-stream",
        round(silent.total_seconds()),
        STREAM_AWAY_SECONDS,
    )


def _stands_alone(config: Config, overview: Overview) -> bool:
    """Return whether nothing else keeps the priority assets fresh."""
    last_run = overview.job(RUN_PRIORITY.name)["last_run"]
    at_most = RUN_PRIORITY.intervals_silent * RUN_PRIORITY.every(config.settings.batch)
    return bool(config.priority_assets) and (last_run is None or overview.now - last_run > at_most)


def _of_cluster(config: Config, overview: Overview, one: StreamStatus) -> Iterator[Alert]:
    report, cluster = one.report, one.report.cluster
    asset_type = AssetType(cluster)
    plan = config.plan_of(asset_type)
    match one.state:
        case "refused":
            says = plan_words(TRAITS[asset_type].product, plan)
            message = f"plan says {says}, the stream of {cluster} is refused: {report.words}"
            hint = "lapsed payment, or a plan for another market? It asks again hourly, and when it is started anew"
            yield Alert(Level.CRITICAL, "stream.refused", message, hint)
        case "resting":
            message = f"the stream of {cluster} rests: another connection of this account took its place"
            hint = (
                f"an account has one connection of {cluster}, whatever the key: end the other program that streams, or"
                " leave this one out of stream.clusters; until then the jobs ask for its quotes"
            )
            yield Alert(Level.WARNING, "stream.resting", message, hint)
        case "connecting" | "waiting":
            yield from _of_connection(overview, one, delay=plan.delay)
    if report.unconfirmed and one.state == LIVE:
        message = f"{counted(len(report.unconfirmed), 'name')} of {cluster} not streamed: {named(report.unconfirmed)}"
        hint = "is the ticker right, and the channel in the plan? The jobs ask for these quotes"
        yield Alert(Level.WARNING, "stream.unconfirmed", message, hint, len(report.unconfirmed), 0)
    if report.silent and one.state == LIVE:
        message = f"confirmed by the stream, but silent, while calls bring newer quotes: {named(report.silent)}"
        hint = "misspelt, or delisted? See polygon_ticker; the jobs ask for these quotes"
        yield Alert(Level.WARNING, "stream.silent", message, hint, len(report.silent), 0)


def _of_connection(overview: Overview, one: StreamStatus, *, delay: timedelta) -> Iterator[Alert]:
    """Report a cluster that has no connection though its market trades, of which the plan tells so much later."""
    known = [at for at in (one.report.frame_at, one.told.started_at) if at is not None]
    if not known:
        return
    since, until = max(known) - delay, overview.now - delay
    markets = TRAITS[AssetType(one.report.cluster)].markets
    missed = max(market_hours.open_time(market, since, until) for market in markets)
    if missed > UNREACHABLE_AT_MOST:
        message = f"the stream of {one.report.cluster} has no connection for {duration(missed)}"
        message += f": {one.report.words}" if one.report.words else ""
        hint = "is the vendor reachable from there, and the address right (stream.urls)? The jobs ask for its quotes"
        yield Alert(
            Level.WARNING, "stream.unreachable", message, hint, round(missed.total_seconds()), STREAM_AWAY_SECONDS
        )
