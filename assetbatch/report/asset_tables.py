"""What `status --asset` and `status --since` show: one asset's history, and the runs that were not well."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from assetbatch.model import Priority, Role
from assetbatch.report.status_tables import change, headline, line
from assetbatch.report.streams import LIVE
from assetbatch.report.tables import NARROW_WIDTH, new_table
from assetbatch.report.words import ago, counted, duration, moment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from assetbatch.database.read.history import AssetHistory
    from assetbatch.report.freshness import AssetStatus
    from assetbatch.report.status import Status


def not_well_view(status: Status, *, width: int) -> RenderableType:
    """Lay out the runs that were not well, the newest first."""
    if not status.not_well:
        return Group(headline(status), Text("all runs since then went well"))
    columns = ["time", "job", "host", "status", "exit", "error"]
    rows = (
        (
            f"{run['started_at']:%m-%d %H:%M:%S}",
            run["job"],
            run["host"],
            run["status"],
            "-" if run["exit_code"] is None else str(run["exit_code"]),
            run["error"] or run["error_kind"] or "-",
        )
        for run in status.not_well
    )
    less = {"host", "exit"} if width < NARROW_WIDTH else ()
    return Group(headline(status), new_table("Runs that were not well", columns, rows, numbers={"exit"}, less=less))


def story_view(status: Status, *, width: int) -> RenderableType:
    """Lay out one asset's history: what it is, its price, its updates, its place in the queue, its bars, its calls."""
    one, told, now = status.subject, status.history, status.now
    assert one is not None  # noqa: S101 - a history is of somebody
    assert told is not None  # noqa: S101 - and told
    parts: list[RenderableType] = [
        headline(status),
        line("Asset", _what(one, told)),
        line("Price", _price(one, told.price, now)),
        line("Updates", _updates(one, now)),
        line("Queue", _item(told.item, now)),
        line("Bars", _bars(told, now)),
    ]
    if status.streams:
        parts.append(line("Stream", _stream(status, one, told)))
    if told.absences:
        reasons = (f"{row['bars']} {row['reason'].replace('_', ' ')}" for row in told.absences)
        parts.append(line("Absent", ", ".join(reasons)))
    if not told.calls:
        return Group(*parts, line("Calls", "none of late that covered it alone"))
    columns = ["time", "call", "outcome", "status", "ms"]
    rows = (
        (
            f"{call['at']:%m-%d %H:%M:%S}",
            call["kind"],
            call["outcome"],
            "-" if call["http_status"] is None else str(call["http_status"]),
            str(call["latency_ms"]),
        )
        for call in told.calls
    )
    less = {"status", "ms"} if width < NARROW_WIDTH else ()
    return Group(*parts, new_table("Calls that covered it alone", columns, rows, numbers={"ms"}, less=less))


def _what(one: AssetStatus, told: AssetHistory) -> str:
    asset = one.asset
    name = f", {asset.name}" if asset.name else ""
    if asset.role is Role.PRIORITY:
        rank = f"priority asset {asset.rank}"
    else:
        known = asset.rank in {priority.value for priority in Priority}
        rank = f"secondary, {Priority(asset.rank).name if known else asset.rank}"
    every = f"every {duration(timedelta(seconds=asset.update_frequency_seconds))}"
    words = f"{asset.symbol} ({asset.polygon_ticker}, {asset.asset_type}{name}): {rank}, {every}: {one.state}"
    row = told.catalogue
    if row is None:
        return f"{words}; not in the catalogue yet"
    return f"{words}; from {row['origin']}" + ("" if row["enabled"] else ", disabled")


def _price(one: AssetStatus, last_update: object, now: datetime) -> str:
    if one.last_price is None or not isinstance(last_update, dict):
        return "none yet"
    words = [f"{one.last_price} ({change(one)} on its day), of {ago(one.priced_at, now)}"]
    words += [f"{key} {last_update[key]}" for key in ("bid", "ask") if last_update.get(key) is not None]
    if last_update.get("updated_at"):
        words.append(f"stored {ago(moment(str(last_update['updated_at'])), now)}")
    return ", ".join(words)


def _updates(one: AssetStatus, now: datetime) -> str:
    words = [f"the last good one {ago(one.last_sync, now)}"]
    if one.market_age is not None:
        words[0] += f" ({duration(one.market_age)} of market time)"
    if one.day is not None:
        words.append(f"finished day {one.day}")
    if one.error_kind is not None:
        words.append(f"failed since: {one.error_kind}: {one.error}")
    return "; ".join(words)


def _stream(status: Status, one: AssetStatus, told: AssetHistory) -> str:
    cluster = one.asset.asset_type.value
    found = next((found for found in status.streams if found.report.cluster == cluster), None)
    if told.is_streamed:
        return f"by {cluster}: no call asks for its quote"
    if found is None:
        return f"not by any: none of {cluster} ever ran"
    if one.asset.symbol in found.report.silent:
        return f"confirmed by {cluster}, but silent: calls ask for its quote"
    if found.state == LIVE:
        return f"not by {cluster}: the vendor has not confirmed it; calls ask for its quote"
    return f"not now, {cluster} is {found.state}: calls ask for its quote"


def _item(item: Mapping[str, Any] | None, now: datetime) -> str:
    if item is None:
        return "not on it"
    words = f"{item['state']}, {Priority(item['priority']).name}, enqueued {ago(item['enqueued_at'], now)}"
    words += f", {counted(item['attempts'], 'attempt')}"
    if item["state"] == "delayed":
        words += f", again in {duration(item['available_at'] - now)}"
    return words + (f"; {item['error_kind']}: {item['error']}" if item["error"] else "")


def _bars(told: AssetHistory, now: datetime) -> str:
    bars = told.bars
    if bars is None:
        return "none were asked for"
    words = [f"{bars['stored']} stored", f"wanted since {bars['wanted_since']:%Y-%m-%d %H:%M} UTC"]
    if bars["watermark"] is not None:
        words.append(f"newest final {bars['watermark']:%Y-%m-%d %H:%M} UTC")
    if bars["error_kind"] is not None:
        again = "" if bars["retry_at"] is None else f", again in {duration(bars['retry_at'] - now)}"
        words.append(f"failed: {bars['error_kind']}: {bars['error']}{again}")
    return ", ".join(words)
