"""The JSON documents of `status` and `metrics`: a contract, whose fields are only ever added to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assetbatch.report.freshness import AssetStatus
    from assetbatch.report.status import Status


def status_document(status: Status) -> dict[str, Any]:
    """Lay out `status`; `runs_not_well` and `asset` are there where they were asked for."""
    document: dict[str, Any] = {
        "status": status.health,
        "now": status.now,
        "database": status.database,
        "source": status.prices.source,
        "prices": {
            "mode": status.prices.mode,
            "day": _day(status.prices.day),
            "newer_data_at": status.prices.newer_at,
        },
        "jobs": [asdict(job) for job in status.jobs],
        "queue": asdict(status.queue),
        "last_priority_update": status.last_priority_update,
        "api_calls_remaining": status.budget.remaining,
        "budget": asdict(status.budget),
        "assets": [_asset(one) for one in (*status.assets, *status.others)],
        "asset_states": dict(status.asset_states),
        "bars": asdict(status.bars),
        "metrics": dict(status.metrics),
        "alerts": [asdict(alert) | {"level": alert.level.name.lower()} for alert in status.alerts],
        "events": asdict(status.events),
        "stream": _streams(status),
    }
    if status.not_well is not None:
        document["runs_not_well"] = [dict(row) for row in status.not_well]
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
        "last_price": one.last_price,
        "data_timestamp": one.data_timestamp,
        "last_sync": one.last_sync,
        "state": one.state,
        "market_age_seconds": None if one.market_age is None else round(one.market_age.total_seconds(), 3),
        "error": one.error or None,
    }


def _history(status: Status, subject: AssetStatus) -> dict[str, Any]:
    told = status.history
    assert told is not None  # noqa: S101 - a subject has a history
    return _asset(subject) | {
        "day": _day(subject.day),
        "error_kind": subject.error_kind,
        "catalogue": _row(told.catalogue),
        "last_update": _prices(told.price),
        "queue_item": _row(told.item),
        "is_streamed": told.is_streamed,
        "bars": None if told.bars is None else dict(told.bars) | {"absent": [dict(row) for row in told.absences]},
        "calls": [dict(row) for row in told.calls],
    }


def _prices(last_update: Any) -> Any:
    """Write prices as strings; of a whole number, JSON's reader makes an int."""
    if not isinstance(last_update, dict):
        return last_update
    return {key: str(value) if type(value) is int else value for key, value in last_update.items()}


def _row(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else dict(row)


def _day(day: object) -> str | None:
    return None if day is None else str(day)
