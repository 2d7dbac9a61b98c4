"""The JSON documents of the commands: a contract, whose fields are only ever added to."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assetbatch.model import Enqueued

if TYPE_CHECKING:
    from assetbatch.database.queue_desk import Listing
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.jobs.probe import Probed
    from assetbatch.model import RunResult
    from assetbatch.report.status import Status


def run_document(result: RunResult) -> dict[str, Any]:
    """Lay out what a run did; which job it was decides what belongs to it."""
    document: dict[str, Any] = {
        "job": result.job,
        "run_id": result.run_id,
        "status": result.status,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "latency_ms": result.latency_ms,
    }
    if result.job == "enqueue-secondary":
        return document | asdict(result.enqueued or Enqueued()) | {"remaining": result.remaining}
    document |= {
        "updated": list(result.updated),
        "unchanged": list(result.unchanged),
        "deferred": list(result.deferred),
        "failed": [{"symbol": one.symbol, "kind": one.kind, "error": one.error} for one in result.failed],
        "api_calls_used": result.api_calls_used,
        "rate_limit_waits": result.rate_limit_waits,
        "waited_seconds": result.waited_seconds,
        "bars": asdict(result.bars),
        "newer_data_at": result.newer_at,
        "ended_by": None if result.ended_by is None else asdict(result.ended_by),
    }
    if result.job == "backfill":
        changed = [{"symbol": one.symbol, "old": asdict(one.old), "new": asdict(one.new)} for one in result.changed]
        return document | {"calls_foreseen": result.calls_foreseen, "changed": changed}
    if result.job == "run-priority":
        return document | {"not_due": list(result.not_due), "others_updated": result.others_updated}
    return document | {
        "requeued": list(result.requeued),
        "dead": list(result.dead),
        "remaining": result.remaining,
    }


def queue_document(listing: Listing) -> dict[str, Any]:
    """Lay out `queue list`."""
    return {
        "total": listing.total,
        "items": [
            {
                "symbol": item.symbol,
                "priority": item.priority.name,
                "state": item.state,
                "attempts": item.attempts,
                "enqueued_at": item.enqueued_at,
                "available_at": item.available_at,
                "last_error": item.error,
                "last_error_kind": item.error_kind,
            }
            for item in listing.items
        ],
    }


def status_document(status: Status) -> dict[str, Any]:
    """Lay out `status`."""
    return {
        "status": status.health,
        "now": status.now,
        "database": status.database,
        "source": status.source,
        "jobs": [
            {
                "id": job.id,
                "name": job.name,
                "last_run": job.last_run,
                "last_status": job.last_status,
                "next_run": job.next_run,
                "day": job.day,
            }
            for job in status.jobs
        ],
        "queue": asdict(status.queue),
        "last_priority_update": status.last_priority_update,
        "api_calls_remaining": status.budget.remaining,
        "assets": [
            {
                "symbol": one.asset.symbol,
                "last_price": one.last_price,
                "data_timestamp": one.data_timestamp,
                "last_sync": one.last_sync,
                "state": one.state,
                "market_age_seconds": None if one.market_age is None else round(one.market_age.total_seconds(), 3),
                "error": one.error or None,
            }
            for one in status.assets
        ],
        "asset_states": dict(Counter(one.state.value for one in status.assets)),
        "metrics": dict(status.metrics),
        "alerts": [
            {
                "metric": alert.metric,
                "value": alert.value,
                "threshold": alert.threshold,
                "level": alert.level.name.lower(),
                "message": alert.message,
                "hint": alert.hint,
            }
            for alert in status.alerts
        ],
        "events": {"pending": status.events_pending},
    }


def forecast_document(forecast: Forecast) -> dict[str, Any]:
    """Lay out `forecast`."""
    return {
        "now": forecast.now,
        "mode": forecast.mode,
        "limit": forecast.limit,
        "window_seconds": forecast.window_seconds,
        "total_calls": forecast.total,
        "calls": [
            {"job": one.job, "at": one.at, "kind": one.kind, "calls": one.calls, "assets": one.assets}
            for one in forecast.calls
        ],
        "bars": [asdict(one) for one in forecast.bars],
        "fresh_at": forecast.fresh_at,
        "complete_at": forecast.complete_at,
        "newer_data_at": forecast.newer_at,
        "unscanned": forecast.unscanned,
    }


def probe_document(probed: Probed) -> dict[str, Any]:
    """Lay out `probe`."""
    return {
        "plan": probed.plan,
        "markets": [
            {
                "market": one.market,
                "quotes": one.quotes,
                "todays_bars": one.todays_bars,
                "history": one.history,
                "recency": one.recency,
            }
            for one in probed.markets
        ],
        "verdict": probed.verdict or None,
        "api_calls_used": probed.calls_used,
    }
