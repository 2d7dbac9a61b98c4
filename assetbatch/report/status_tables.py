"""What `status` shows: the whole, the runs that were not well (`--since`), or one asset's history (`--asset`)."""

from __future__ import annotations

from datetime import UTC, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.model import Priority, Role
from assetbatch.plans import Mode
from assetbatch.report.documents import priority_name
from assetbatch.report.freshness import GONE, Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.pictures import bar, sparkline
from assetbatch.report.sentences import calls_now, sentences
from assetbatch.report.streams import LIVE
from assetbatch.report.tables import CELL_FRAME, NARROW_WIDTH, PLAIN_WIDTH, fitted_table, new_table
from assetbatch.words import ago, counted, duration, moment, until, utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.connection import Row
    from assetbatch.database.read.history import AssetHistory
    from assetbatch.report.freshness import AssetStatus
    from assetbatch.report.health import Alert
    from assetbatch.report.status import Budget, Status

HEALTH_STYLES = {Health.HEALTHY: "bold green", Health.DEGRADED: "bold yellow", Health.UNHEALTHY: "bold red"}
LEVEL_STYLES = {Level.WARNING: "yellow", Level.CRITICAL: "bold red"}
STATE_STYLES = {
    Freshness.FRESH: "green",
    Freshness.SILENT: "yellow",
    Freshness.CLOSED: "dim",
    Freshness.END_OF_DAY: "dim",
    **dict.fromkeys(GONE, "dim"),
}
# Of the other assets, those that somebody should look at are shown.
NOT_WELL = {Freshness.FAILING, Freshness.STALE, Freshness.NEVER, Freshness.NOT_ENTITLED, Freshness.SILENT}
# How runs ended that were not well.
NOT_WELL_RUNS = {"partial": "partly failed", "failed": "failed"}
# Why there are no bars.
NO_BAR = {
    "closed": "while the market was closed",
    "nothing": "that the vendor does not have",
    "nothing_told_once": "that the vendor did not have when asked once",
    "failed": "that could not be read",
    "refused": "that the table refused",
    "not_entitled": "that the plan does not have",
}
# How calls of the last hour are drawn: used, refused, free; for a terminal with Unicode, and for any.
BAR = ("\N{FULL BLOCK}", "\N{MULTIPLICATION SIGN}", "\N{LIGHT SHADE}")
PLAIN_BAR = ("#", "x", ".")
BAR_STYLES = ("cyan", "bold red", "dim")
WIDEST_BAR, NARROWEST_BAR = 30, 10
# A character an hour, or, where there is less room, one for two.
SPARKLINE_WIDTHS = (24, 12)
SPARKLINE = "last 24 h"
# Words of the lines below the tables, all as wide.
LABEL_WIDTH = 8


def status_view(status: Status, *, width: int, ascii_only: bool = False) -> RenderableType:
    """Lay out what was asked for; each view begins with is all well, what is wrong, what to do."""
    if status.subject is not None:
        return _history_view(status, status.subject, width=width)
    if status.not_well is not None:
        return _not_well_view(status, width=width)
    return _whole_view(status, width=width, ascii_only=ascii_only)


def _whole_view(status: Status, *, width: int, ascii_only: bool) -> RenderableType:
    parts: list[RenderableType] = [_headline(status)]
    if status.alerts[1:]:
        parts.append(_alerts(status.alerts[1:]))
    closes = {} if ascii_only else status.closes
    parts += [_jobs(status, width=width), _assets("Priority assets", status, status.assets, closes, width=width)]
    if others := [one for one in status.others if status.others_are_all or one.state in NOT_WELL]:
        title = "Other assets" if status.others_are_all else "Other assets that are not well"
        parts.append(_assets(title, status, others, {}, width=width))
    if status.streams:
        parts.append(_streams(status, width=width))
    figures = ({"data": status.database} if status.alerts else {}) | sentences(status)
    drawn = _calls_bar(status.budget, PLAIN_BAR if ascii_only else BAR, width=width - LABEL_WIDTH)
    for label, words in figures.items():
        parts.append(_line(label.capitalize(), calls_now(status) if label == "calls" and drawn else words))
        if label == "calls" and drawn:
            parts.append(Text(" " * LABEL_WIDTH).append_text(drawn))
    return Group(*parts)


def _calls_bar(budget: Budget, signs: Sequence[str], *, width: int) -> Text | None:
    """Draw the calls of the last hour that count against the limit; None: there is none, or too little room."""
    if budget.allowed_an_hour is None:
        return None
    calls = budget.limited_calls_last_hour
    refused = min(budget.refusals_last_hour, calls)
    counts = (calls - refused, refused, max(0, budget.allowed_an_hour - calls))
    legend = Text.assemble("last hour: ")
    for number, (word, count) in enumerate(zip(("used", "refused", "free"), counts, strict=True)):
        legend.append(", " if number else "").append(signs[number], style=BAR_STYLES[number])
        legend.append(f" {count:,} {word}")
    if more := budget.calls_last_hour - calls:
        legend.append(f"; {more:,} without limit")
    room = min(WIDEST_BAR, width - 1 - legend.cell_len)
    if room < NARROWEST_BAR:
        return None
    drawn = Text()
    for cells, sign, style in zip(bar(counts, room), signs, BAR_STYLES, strict=True):
        drawn.append(sign * cells, style=style)
    return drawn.append(" ").append_text(legend)


def _headline(status: Status) -> Text:
    """Name the health, the worst cause and what fixes it."""
    worst = next(iter(status.alerts), None)
    words = f"{worst.message} ({worst.hint})" if worst else status.database
    return Text.assemble((status.health.value.upper(), HEALTH_STYLES[status.health]), f"  {words}")


def _line(label: str, words: str) -> Text:
    return Text.assemble((label.ljust(LABEL_WIDTH), "bold"), words)


def _alerts(alerts: Sequence[Alert]) -> Table:
    table = Table.grid(padding=(0, 1))
    for alert in alerts:
        table.add_row(Text(alert.level.name, style=LEVEL_STYLES[alert.level]), Text(f"{alert.message} ({alert.hint})"))
    return table


def _jobs(status: Status, *, width: int) -> Table:
    columns = ["job", "last run", "result", "next run", "last 24 h", "longest pause"]
    less = columns[3 if width < NARROW_WIDTH else 5 if width < PLAIN_WIDTH else 6 :]
    rows = []
    for job in status.jobs:
        gap = job.day["longest_gap_seconds"]
        ill = (f", {job.day[status]:,} {words}" for status, words in NOT_WELL_RUNS.items() if job.day[status])
        row = (
            job.id,
            ago(job.last_run, status.now),
            NOT_WELL_RUNS.get(job.last_status or "", job.last_status),
            until(job.next_run, status.now),
            "".join([counted(job.day["runs"], "run"), *ill]),
            None if gap is None else duration(timedelta(seconds=gap)),
        )
        rows.append(row)
    return new_table("Jobs", columns, rows, less=less)


def _assets(
    title: str,
    status: Status,
    assets: Sequence[AssetStatus],
    closes: Mapping[str, Sequence[Decimal | None]],
    *,
    width: int,
) -> Table:
    """Lay out assets; prices of finished days by their day, since nothing about them is of today.

    With `closes`, and where there is room, their last day is drawn.
    """
    prices = status.prices
    modes = {prices.mode_of(one.asset.asset_type) for one in assets} or {prices.mode}
    daily = modes == {Mode.END_OF_DAY}
    columns = ["symbol", "price", "change", "of day" if daily else "price from", "updated", "of which open", "state"]
    less = {"of which open"} if daily or width < PLAIN_WIDTH else set()
    less |= {"change", "of which open", "updated" if daily else "price from"} if width < NARROW_WIDTH else set()
    rows: list[tuple[Text | str | None, ...]] = [
        (
            one.asset.symbol,
            one.last_price or None,
            _change(one),
            _day(one) if daily else ago(one.priced_at, status.now),
            ago(one.last_sync, status.now),
            None if one.market_age is None else duration(one.market_age),
            Text(one.state.value, style=STATE_STYLES.get(one.state, "red")),
        )
        for one in assets
    ]
    shown = [number for number, column in enumerate(columns) if column not in less]
    taken = sum(CELL_FRAME + max(cell_len(str(cells[number] or "-")) for cells in (columns, *rows)) for number in shown)
    room = width - taken - CELL_FRAME - 1
    drawn = next((wide for wide in SPARKLINE_WIDTHS if wide <= room), None)
    if drawn is not None and any(closes.values()):
        columns.append(SPARKLINE)
        lines = (Text(sparkline(closes.get(one.asset.symbol, ()), drawn), style="cyan") for one in assets)
        rows = [(*row, line) for row, line in zip(rows, lines, strict=True)]
    return new_table(title, columns, rows, numbers={"price", "change"}, less=less)


def _streams(status: Status, *, width: int) -> Table:
    """Lay out the clusters of the stream; figures of the moment only where one is live."""
    columns = ["cluster", "state", "for", "names", "events/s", "lag", "last frame", "connects", "dropped", "host"]
    rows = []
    for one in status.streams:
        report, is_live = one.report, one.state == LIVE
        row = (
            report.cluster,
            one.state,
            "-" if one.since is None else duration(status.now - one.since),
            f"{report.confirmed} of {report.asked}" if is_live else "-",
            f"{report.events_a_second:g}" if is_live else "-",
            one.lag if is_live else "-",
            ago(report.frame_at, status.now),
            str(report.connects),
            str(report.dropped),
            one.told.host or "-",
        )
        rows.append((row, None if is_live else "yellow"))
    less = ("host", "dropped", "connects", "lag", "last frame", "events/s")
    return fitted_table("Stream", columns, rows, width=width, less=less, numbers=("events/s", "connects", "dropped"))


def _day(one: AssetStatus) -> str | None:
    """Return the day that a price is of, by UTC."""
    return None if one.priced_at is None else f"{one.priced_at.astimezone(UTC):%Y-%m-%d}"


def _change(one: AssetStatus) -> str:
    """Return by how much the price has changed since the open of its day."""
    if one.last_price is None or one.daily_open is None:
        return "-"
    try:
        opened, price = Decimal(one.daily_open), Decimal(one.last_price)
    except InvalidOperation:  # a platform may write what it likes there
        return "-"
    return f"{(price - opened) / opened:+.2%}" if opened else "-"


def _not_well_view(status: Status, *, width: int) -> RenderableType:
    """Lay out the runs that were not well, the newest first."""
    if not status.not_well:
        return Group(_headline(status), Text("all runs since then went well"))
    columns = ["began (UTC)", "job", "host", "status", "exit", "error"]
    rows = (
        (
            utc(run["started_at"], seconds=True, today=status.now, zone=False),
            run["job"],
            run["host"],
            NOT_WELL_RUNS.get(run["status"], run["status"]),
            run["exit_code"],
            run["error"] or run["error_kind"] or None,
        )
        for run in status.not_well
    )
    less = {"host", "exit"} if width < NARROW_WIDTH else ()
    return Group(_headline(status), new_table("Runs that were not well", columns, rows, numbers={"exit"}, less=less))


def _history_view(status: Status, one: AssetStatus, *, width: int) -> RenderableType:
    """Lay out one asset's history: what it is, its price, its updates, its place in the queue, its bars, its calls."""
    told, now = status.history, status.now
    assert told is not None  # noqa: S101 - a subject has a history
    parts: list[RenderableType] = [
        _headline(status),
        _line("Asset", _what(one, told)),
        _line("Price", _price(one, told.price, now)),
        _line("Updates", _updates(one, now)),
        _line("Queue", _item(told.item, now)),
        _line("Bars", _bars(told, now)),
    ]
    if status.streams:
        parts.append(_line("Stream", _stream(status, one, told)))
    if told.absences:
        reasons = (f"{row['bars']:,} {NO_BAR[row['reason']]}" for row in told.absences)
        parts.append(_line("No bar", ", ".join(reasons)))
    parts += [_line("Split", _split(row, now)) for row in told.splits]
    if told.life is not None:
        parts.append(_line("Ticker", _life(told.life, now)))
    if not told.calls:
        return Group(*parts, _line("Calls", "none of late for it alone"))
    columns = ["time (UTC)", "call", "outcome", "HTTP", "ms"]
    rows = (
        (
            utc(call["at"], seconds=True, today=now, zone=False),
            call["kind"],
            call["outcome"],
            call["http_status"],
            call["latency_ms"],
        )
        for call in told.calls
    )
    less = {"HTTP", "ms"} if width < NARROW_WIDTH else ()
    return Group(*parts, new_table("Calls for it alone", columns, rows, numbers={"ms"}, less=less))


def _life(life: Row, now: datetime) -> str:
    """Tell what the reference list says of a ticker that seemed to be gone."""
    words = life["state"]
    words += f" on {life['delisted_on']}" if life["delisted_on"] else ""
    words += f" to {life['became']}" if life["became"] else ""
    words += f", another company's since {life['reused_on']} at the latest" if life["reused_on"] else ""
    return f"{words}; the reference list was asked {ago(life['asked_at'], now)}"


def _what(one: AssetStatus, told: AssetHistory) -> str:
    asset = one.asset
    name = f", {asset.name}" if asset.name else ""
    is_first = asset.role is Role.PRIORITY
    rank = f"priority asset {asset.rank}" if is_first else f"secondary, {priority_name(asset) or asset.rank}"
    every = f"every {duration(timedelta(seconds=asset.update_frequency_seconds))}"
    words = f"{asset.symbol} ({asset.polygon_ticker}, {asset.asset_type}{name}): {rank}, {every}: {one.state}"
    row = told.catalogue
    if row is None:
        return f"{words}; not in the catalogue yet"
    return f"{words}; from {row['origin']}" + ("" if row["enabled"] else ", disabled")


def _price(one: AssetStatus, last_update: object, now: datetime) -> str:
    if one.last_price is None or not isinstance(last_update, dict):
        return "none yet"
    words = [f"{one.last_price} ({_change(one)} on its day), from {ago(one.priced_at, now)}"]
    words += [f"{key} {last_update[key]}" for key in ("bid", "ask") if last_update.get(key) is not None]
    if last_update.get("updated_at"):
        words.append(f"stored {ago(moment(str(last_update['updated_at'])), now)}")
    return ", ".join(words)


def _updates(one: AssetStatus, now: datetime) -> str:
    words = [f"the last good one {ago(one.last_sync, now)}"]
    if one.market_age is not None:
        words[0] += f" (its market was open for {duration(one.market_age)} of that)"
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
        return "not on the queue"
    words = f"{item['state']}, {Priority(item['priority']).name}, enqueued {ago(item['enqueued_at'], now)}"
    words += f", {counted(item['attempts'], 'attempt')}"
    if item["state"] == "delayed":
        words += f", again in {duration(item['available_at'] - now)}"
    return words + (f"; {item['error_kind']}: {item['error']}" if item["error"] else "")


def _split(split: Mapping[str, Any], now: datetime) -> str:
    words = f"{split['split_to']:f} for {split['split_from']:f} on {split['execution_date']}"
    if split["withdrawn_at"] is not None:
        words += ", withdrawn"
    elif split["executed_at"] > now:
        return f"{words}, announced"
    if split["waiting"]:
        return f"{words}: {counted(split['waiting'], 'bar')} before it still to be fetched again"
    if split["kept"]:
        return f"{words}: {counted(split['kept'], 'bar')} before it kept as before, the vendor has no others"
    return words


def _bars(told: AssetHistory, now: datetime) -> str:
    bars = told.bars
    if bars is None:
        return "none were ever asked for"
    words = [f"{bars['stored']:,} stored", f"wanted since {utc(bars['wanted_since'])}"]
    if bars["watermark"] is not None:
        words.append(f"newest final {utc(bars['watermark'])}")
    if bars["error_kind"] is not None:
        again = "" if bars["retry_at"] is None else f", again in {duration(bars['retry_at'] - now)}"
        words.append(f"failed: {bars['error_kind']}: {bars['error']}{again}")
    return ", ".join(words)
