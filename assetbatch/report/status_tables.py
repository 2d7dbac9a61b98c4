"""The screen of `status`: is all well, what is wrong, what to do; then jobs, assets and figures."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.sentences import sentences
from assetbatch.report.tables import NARROW_WIDTH, new_table
from assetbatch.report.words import ago, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.report.health import Alert
    from assetbatch.report.status import AssetStatus, Status

HEALTH_STYLES = {Health.HEALTHY: "bold green", Health.DEGRADED: "bold yellow", Health.UNHEALTHY: "bold red"}
LEVEL_STYLES = {Level.WARNING: "yellow", Level.CRITICAL: "bold red"}
STATE_STYLES = {Freshness.FRESH: "green", Freshness.CLOSED: "dim", Freshness.END_OF_DAY: "dim"}
# Words of the lines below the tables, all as wide.
LABEL_WIDTH = 8


def status_view(status: Status, *, width: int) -> RenderableType:
    """Lay out one screen that answers, from top to bottom: is all well, what is wrong, what to do."""
    narrow = width < NARROW_WIDTH
    parts: list[RenderableType] = [headline(status)]
    if status.alerts[1:]:
        parts.append(_alerts(status.alerts[1:]))
    parts += [_jobs(status, narrow=narrow), _assets("Priority assets", status, status.assets, narrow=narrow)]
    if status.others:
        title = "Other assets" if status.others_are_all else "Other assets, the worst"
        parts.append(_assets(title, status, status.others, narrow=narrow))
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


def _jobs(status: Status, *, narrow: bool) -> Table:
    columns = ["job", "last run", "result", "expected", "24 h: runs", "partial", "failed", "max gap"]
    shown = [0, 1, 2] if narrow else range(len(columns))
    names = [columns[number] for number in shown]
    table = new_table("Jobs", *names, numbers=("24 h: runs", "partial", "failed"))
    for job in status.jobs:
        gap = job.day["longest_gap_seconds"]
        row = [
            job.id,
            ago(job.last_run, status.now),
            job.last_status or "-",
            f"in {duration(job.next_run - status.now)}",
            str(job.day["runs"]),
            str(job.day["partial"]),
            str(job.day["failed"]),
            "-" if gap is None else duration(timedelta(seconds=gap)),
        ]
        table.add_row(*(row[number] for number in shown))
    return table


def _assets(title: str, status: Status, assets: Sequence[AssetStatus], *, narrow: bool) -> Table:
    columns = ["symbol", "price", "today", "price of", "updated", "market age", "state"]
    shown = [0, 1, 4, 6] if narrow else range(len(columns))
    table = new_table(title, *(columns[number] for number in shown), numbers=("price", "today"))
    for one in assets:
        row: list[RenderableType] = [
            Text(one.asset.symbol),
            Text(one.last_price or "-"),
            change(one),
            ago(one.priced_at, status.now),
            ago(one.last_sync, status.now),
            "-" if one.market_age is None else duration(one.market_age),
            Text(one.state.value, style=STATE_STYLES.get(one.state, "red")),
        ]
        table.add_row(*(row[number] for number in shown))
    return table


def change(one: AssetStatus) -> str:
    """Tell by how much the price has changed since the day's open."""
    if one.last_price is None or one.daily_open is None:
        return "-"
    try:
        opened, price = Decimal(one.daily_open), Decimal(one.last_price)
    except InvalidOperation:  # a platform may write what it likes there
        return "-"
    return f"{(price - opened) / opened:+.2%}" if opened else "-"
