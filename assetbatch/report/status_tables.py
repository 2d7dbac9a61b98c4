"""The screen of `status`: is all well, what is wrong, what to do; then jobs, assets and figures."""

from __future__ import annotations

from datetime import UTC, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.planner import Mode
from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.sentences import sentences
from assetbatch.report.streams import LIVE
from assetbatch.report.tables import NARROW_WIDTH, PLAIN_WIDTH, fitted_table, new_table
from assetbatch.report.words import ago, counted, duration, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.report.freshness import AssetStatus
    from assetbatch.report.health import Alert
    from assetbatch.report.status import Status

HEALTH_STYLES = {Health.HEALTHY: "bold green", Health.DEGRADED: "bold yellow", Health.UNHEALTHY: "bold red"}
LEVEL_STYLES = {Level.WARNING: "yellow", Level.CRITICAL: "bold red"}
STATE_STYLES = {
    Freshness.FRESH: "green",
    Freshness.SILENT: "yellow",
    Freshness.CLOSED: "dim",
    Freshness.END_OF_DAY: "dim",
}
# Of the other assets, those that somebody should look at are shown.
NOT_WELL = {Freshness.FAILING, Freshness.STALE, Freshness.NEVER, Freshness.NOT_ENTITLED, Freshness.SILENT}
# Words of the lines below the tables, all as wide.
LABEL_WIDTH = 8


def status_view(status: Status, *, width: int) -> RenderableType:
    """Lay out one screen that answers, from top to bottom: is all well, what is wrong, what to do."""
    parts: list[RenderableType] = [headline(status)]
    if status.alerts[1:]:
        parts.append(_alerts(status.alerts[1:]))
    parts += [_jobs(status, width=width), _assets("Priority assets", status, status.assets, width=width)]
    if others := [one for one in status.others if status.others_are_all or one.state in NOT_WELL]:
        title = "Other assets" if status.others_are_all else "Other assets, the worst"
        parts.append(_assets(title, status, others, width=width))
    if status.streams:
        parts.append(_streams(status, width=width))
    return Group(*parts, *figures(status))


def headline(status: Status) -> Text:
    """Name the health, the worst cause and what fixes it."""
    worst = next(iter(status.alerts), None)
    words = f"{worst.message} ({worst.hint})" if worst else status.database
    return Text.assemble((status.health.value.upper(), HEALTH_STYLES[status.health]), f"  {words}")


def figures(status: Status) -> list[Text]:
    """Write the lines below the tables: a label and a sentence each."""
    lines = {"data": status.database} if status.alerts else {}
    return [line(label.capitalize(), words) for label, words in (lines | sentences(status)).items()]


def line(label: str, words: str) -> Text:
    """Write one line with its label."""
    return Text.assemble((label.ljust(LABEL_WIDTH), "bold"), words)


def _alerts(alerts: Sequence[Alert]) -> Table:
    table = Table.grid(padding=(0, 1))
    for alert in alerts:
        table.add_row(Text(alert.level.name, style=LEVEL_STYLES[alert.level]), Text(f"{alert.message} ({alert.hint})"))
    return table


def _jobs(status: Status, *, width: int) -> Table:
    columns = ["job", "last run", "result", "expected", "in 24 h", "max gap"]
    less = columns[3 if width < NARROW_WIDTH else 5 if width < PLAIN_WIDTH else 6 :]
    rows = []
    for job in status.jobs:
        gap = job.day["longest_gap_seconds"]
        ill = (f", {job.day[word]} {word}" for word in ("partial", "failed") if job.day[word])
        row = (
            job.id,
            ago(job.last_run, status.now),
            job.last_status or "-",
            until(job.next_run, status.now),
            "".join([counted(job.day["runs"], "run"), *ill]),
            "-" if gap is None else duration(timedelta(seconds=gap)),
        )
        rows.append(row)
    return new_table("Jobs", columns, rows, less=less)


def _assets(title: str, status: Status, assets: Sequence[AssetStatus], *, width: int) -> Table:
    """Lay out assets; prices of finished days by their day, since nothing about them is of today."""
    daily = status.prices.mode is Mode.END_OF_DAY
    columns = ["symbol", "price", "change", "of day" if daily else "price of", "updated", "market age", "state"]
    less = {"market age"} if daily or width < PLAIN_WIDTH else set()
    less |= {"change", "market age", "updated" if daily else "price of"} if width < NARROW_WIDTH else set()
    rows = (
        (
            one.asset.symbol,
            one.last_price or "-",
            change(one),
            of_day(one) if daily else ago(one.priced_at, status.now),
            ago(one.last_sync, status.now),
            "-" if one.market_age is None else duration(one.market_age),
            Text(one.state.value, style=STATE_STYLES.get(one.state, "red")),
        )
        for one in assets
    )
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


def of_day(one: AssetStatus) -> str:
    """Return the day that a price is of, by UTC."""
    return "-" if one.priced_at is None else f"{one.priced_at.astimezone(UTC):%Y-%m-%d}"


def change(one: AssetStatus) -> str:
    """Return by how much the price has changed since the open of its day."""
    if one.last_price is None or one.daily_open is None:
        return "-"
    try:
        opened, price = Decimal(one.daily_open), Decimal(one.last_price)
    except InvalidOperation:  # a platform may write what it likes there
        return "-"
    return f"{(price - opened) / opened:+.2%}" if opened else "-"
