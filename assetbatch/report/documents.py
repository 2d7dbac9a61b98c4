"""The JSON documents of the commands: a contract, whose fields are only ever added to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from assetbatch.model import Enqueued, Priority, Role
from assetbatch.schedule import ENQUEUE_SECONDARY, RUN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database import symbols
    from assetbatch.database.queue.admin import Listing
    from assetbatch.errors import Fault
    from assetbatch.jobs.coverage import Coverage
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.jobs.probe import Probed
    from assetbatch.model import Asset, RunResult
    from assetbatch.report.chart import Chart
    from assetbatch.report.freshness import AssetStatus
    from assetbatch.report.status import MarketPrices, PricesStatus, Status


def picked(value: object, *names: str) -> dict[str, Any]:
    """Return some fields of a value, under their own names and in this order."""
    return {name: getattr(value, name) for name in names}


def priority_name(asset: Asset) -> str | None:
    """Return the priority of a secondary asset; others, and a rank that somebody wrote by hand, have none."""
    is_one = asset.role is Role.SECONDARY and asset.rank in {*Priority}
    return Priority(asset.rank).name if is_one else None


def run_document(result: RunResult) -> dict[str, Any]:
    """Lay out what a run did; which job it was decides what belongs to it."""
    document = picked(result, "job", "run_id", "status", "started_at", "finished_at", "latency_ms")
    if result.job == ENQUEUE_SECONDARY.name:
        return document | asdict(result.enqueued or Enqueued()) | {"remaining": result.remaining}
    document |= picked(result, "updated", "unchanged", "deferred")
    document |= {"failed": [asdict(one) for one in result.failed]}
    document |= picked(result, "api_calls_used", "rate_limit_waits", "waited_seconds")
    document |= {
        "bars": asdict(result.bars),
        "newer_data_at": result.newer_at,
        "ended_by": None if result.ended_by is None else asdict(result.ended_by),
    }
    if result.job == "backfill":
        changed = [{"symbol": one.symbol, "old": asdict(one.old), "new": asdict(one.new)} for one in result.changed]
        return document | {"calls_foreseen": result.calls_foreseen, "changed": changed}
    if result.job == "stream":
        return document | {"clusters": [asdict(one) for one in result.streamed]}
    if result.job == RUN_PRIORITY.name:
        return document | picked(result, "not_due", "others_updated")
    return document | picked(result, "requeued", "dead", "remaining")


def queue_document(listing: Listing) -> dict[str, Any]:
    """Lay out `queue list`."""
    return {
        "total": listing.total,
        "items": [
            {"symbol": item.symbol, "priority": item.priority.name}
            | picked(item, "state", "attempts", "enqueued_at", "available_at")
            | {"last_error": item.error, "last_error_kind": item.error_kind}
            for item in listing.items
        ],
    }


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """Lay out `forecast`."""
    return picked(forecast, "now", "mode", "limit", "window_seconds") | {
        "total_calls": forecast.total,
        "calls": [picked(one, "job", "at", "kind", "calls", "assets") for one in forecast.calls],
        "bars": [asdict(one) for one in forecast.bars],
        "fresh_at": forecast.fresh_at,
        "complete_at": forecast.complete_at,
        "newer_data_at": forecast.newer_at,
        "unscanned": forecast.unscanned,
        "streamed": forecast.streamed,
    }


def probe_document(probed: Probed) -> dict[str, Any]:
    """Lay out `probe`."""
    return {
        "plan": probed.plan,
        "markets": [picked(one, "market", "quotes", "todays_bars", "history", "recency") for one in probed.markets],
        "verdict": probed.verdict or None,
        "api_calls_used": probed.calls_used,
    }


def catalogue_document(listing: symbols.Listing) -> dict[str, Any]:
    """Lay out `symbols list`."""
    return {
        "total": listing.total,
        "items": [
            picked(item.asset, "symbol", "polygon_ticker", "asset_type", "name", "role", "rank")
            | {"priority": priority_name(item.asset), "update_frequency_seconds": item.asset.update_frequency_seconds}
            | picked(item, "enabled", "origin")
            for item in listing.items
        ],
    }


def added_document(
    added: symbols.Added,
    *,
    calls: int | None,
    skipped: Sequence[tuple[str, str]] = (),
    faults: Sequence[Fault] = (),
) -> dict[str, Any]:
    """Lay out `symbols add` and `symbols import`; `calls` None: nothing was held against the reference list."""
    lists: dict[str, list[Any]] = {
        "added": added.added,
        "already_there": added.already_there,
        "skipped": [{"polygon_ticker": ticker, "reason": reason} for ticker, reason in skipped],
        "refused": [{"symbol": symbol, "error": error} for symbol, error in added.refused],
        "faults": [picked(fault, "place", "key", "message") for fault in faults],
    }
    counts = {name: len(found) for name, found in lists.items()}
    return lists | {"counts": counts, "checked": calls is not None, "api_calls_used": calls or 0}


def _asked_for(prices: PricesStatus | MarketPrices) -> dict[str, Any]:
    return {"mode": prices.mode, "day": prices.day and str(prices.day), "newer_data_at": prices.newer_at}


def coverage_document(found: Coverage) -> dict[str, Any]:
    """Lay out `bars coverage --json`."""
    return {
        "now": found.now,
        "since": str(found.since),
        "until": str(found.until),
        "complete": not found.lacking,
        "total": dict(found.total),
        "assets": [
            {
                "symbol": one.symbol,
                "asset_type": one.asset_type,
                "idle": one.idle,
                "asked_for": one.is_known,
                "oldest_missing": one.oldest_missing and str(one.oldest_missing),
                **one.total,
                "days": [{"day": str(day.day)} | {name: getattr(day, name) for name in one.total} for day in one.days],
            }
            for one in found.assets
        ],
    }


def chart_document(chart: Chart) -> dict[str, Any]:
    """Lay out `chart --json`: the points, each a bar."""
    asset, span, price = chart.charted.asset, chart.span, chart.price
    return picked(asset, "symbol", "polygon_ticker", "asset_type") | {
        "now": chart.charted.now,
        "since": span and span.since,
        "until": span and span.until,
        "price": price and price[0],
        "price_at": price and price[1],
        "seconds": chart.length.total_seconds(),
        "missing": chart.lacking,
        "open_bars": chart.open_bars,
        "points": [asdict(point) for point in chart.points],
    }


def status_document(status: Status) -> dict[str, Any]:
    """Lay out `status`; `runs_not_well` and `asset` are there where they were asked for."""
    prices = status.prices
    document: dict[str, Any] = {
        "status": status.health,
        "now": status.now,
        "database": status.database,
        "source": prices.source,
        "prices": _asked_for(prices) | {"markets": {name: _asked_for(one) for name, one in prices.markets.items()}},
        "jobs": [asdict(job) for job in status.jobs],
        "queue": asdict(status.queue),
        "last_priority_update": status.last_priority_update,
        "api_calls_remaining": status.budget.remaining,
        "budget": asdict(status.budget),
        "assets": [_asset(one) for one in (*status.assets, *status.others)],
        "asset_states": dict(status.asset_states),
        "gone": {
            "total": status.gone.total,
            "newest": [{"symbol": symbol, "error": words} for symbol, words in status.gone.named],
        },
        "bars": asdict(status.bars) | {"refused": [asdict(one) for one in status.bars.refused]},
        "metrics": dict(status.metrics),
        "stream": _streams(status),
        "alerts": [asdict(alert) | {"level": alert.level.name.lower()} for alert in status.alerts],
        "events": asdict(status.events),
    }
    if status.not_well is not None:
        document["runs_not_well"] = status.not_well
    if status.subject is not None:
        document["asset"] = _history(status, status.subject)
    return document


def metrics_document(status: Status) -> dict[str, Any]:
    """Lay out `metrics --json`: those of `status`."""
    return {"status": status.health, "now": status.now, "metrics": dict(status.metrics)}


def _streams(status: Status) -> list[dict[str, Any]]:
    if not status.streams:
        return []
    from assetbatch.report.streams import stream_document

    return [stream_document(one) for one in status.streams]


def _asset(one: AssetStatus) -> dict[str, Any]:
    return {
        "symbol": one.asset.symbol,
        "role": one.asset.role,
        **picked(one, "last_price", "data_timestamp", "last_sync", "state"),
        "market_age_seconds": None if one.market_age is None else round(one.market_age.total_seconds(), 3),
        "error": one.error or None,
    }


def _history(status: Status, subject: AssetStatus) -> dict[str, Any]:
    told = status.history
    assert told is not None  # noqa: S101 - a subject has a history
    return _asset(subject) | {
        "day": subject.day and str(subject.day),
        "error_kind": subject.error_kind,
        "catalogue": told.catalogue,
        "last_update": _prices(told.price),
        "queue_item": told.item,
        "bars": told.bars and told.bars | {"absent": told.absences},
        "splits": [row | {"execution_date": str(row["execution_date"])} for row in told.splits],
        "calls": told.calls,
        "is_streamed": told.is_streamed,
        "life": told.life,
    }


def _prices(last_update: Any) -> Any:
    """Write prices as strings; of a whole number, JSON's reader makes an int."""
    if not isinstance(last_update, dict):
        return last_update
    return {key: str(value) if type(value) is int else value for key, value in last_update.items()}
