"""The JSON documents of the commands: a contract, whose fields are only ever added to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assetbatch.model import Enqueued
from assetbatch.schedule import ENQUEUE_SECONDARY, RUN_PRIORITY

if TYPE_CHECKING:
    from assetbatch.database.queue.admin import Listing
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.jobs.probe import Probed
    from assetbatch.model import RunResult


def picked(value: object, *names: str) -> dict[str, Any]:
    """Return some fields of a value, under their own names and in this order."""
    return {name: getattr(value, name) for name in names}


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
