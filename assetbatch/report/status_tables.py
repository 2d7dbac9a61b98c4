"""The screen of `status`: is all well, what is wrong, what to do; then jobs, assets and figures."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.database.bar_holes import sentences
from assetbatch.planner import Mode
from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.tables import NARROW_WIDTH, new_table
from assetbatch.report.words import ago, counted, duration

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
    lines = {
        "Assets": _asset_states(status),
        "Prices": _prices(status),
        "Calls": _budget(status),
        "Queue": _queue(status),
        "Bars": _bars(status),
        "Events": _events(status),
    }
    if status.alerts:
        lines = {"Data": status.database} | lines
    return [line(label, words) for label, words in lines.items()]


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


def _asset_states(status: Status) -> str:
    order = [state.value for state in Freshness]
    counts = sorted(status.asset_states.items(), key=lambda item: order.index(item[0]))
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts if count) or "none"


def _prices(status: Status) -> str:
    prices = status.prices
    source = prices.source or "nowhere yet"
    if prices.mode is Mode.LIVE:
        return f"live, from {source}"
    if prices.day is None:
        return f"end of day, none yet, from {source}"
    newer = "" if prices.newer_at is None else f", newer ones from {prices.newer_at:%Y-%m-%d %H:%M} UTC on"
    return f"end of day of {prices.day}, from {source}{newer}"


def _budget(status: Status) -> str:
    budget = status.budget
    if budget.limit is None or budget.remaining is None:
        free = "unlimited"
    else:
        used = budget.limit - budget.remaining
        free = f"{used} of {budget.limit} used in this window of {budget.window_seconds:g} s, {budget.remaining} free"
        if budget.next_free_at is not None:
            free += f", the next in {duration(budget.next_free_at - status.now)}"
    return f"{free}; {budget.calls_last_hour} in the last hour, {budget.refusals_last_hour} refused"


def _queue(status: Status) -> str:
    queue = status.queue
    words = [f"{queue.total_items} waiting"]
    if queue.total_items:
        ages = queue.oldest_age_seconds_by_priority
        each = (
            f"{count} {name} for {duration(timedelta(seconds=ages[name]))}"
            for name, count in queue.by_priority.items()
            if count
        )
        words[0] += f" ({', '.join(each)})"
    words += [f"{count} {word}" for word, count in (("leased", queue.leased), ("delayed", queue.delayed)) if count]
    return ", ".join([*words, f"{queue.dead} dead"])


def _bars(status: Status) -> str:
    bars = status.bars
    newest = [
        f"{one.asset.symbol} {bars.newest[one.asset.symbol]:%m-%d %H:%M}"
        for one in status.assets
        if one.asset.symbol in bars.newest
    ]
    words = [f"newest final {', '.join(newest)} UTC" if newest else "none yet"]
    if bars.holes is None:
        words += ["none are asked for"] if newest else []
    elif newest or bars.holes:
        words.append(f"{bars.holes} missing in 7 days")
    if bars.failing:
        words.append(f"those of {counted(bars.failing, 'asset')} fail")
    return "; ".join([*words, *sentences(bars.refused)])


def _events(status: Status) -> str:
    events = status.events
    age = events.oldest_age_seconds
    since = "" if age is None else f", the oldest for {duration(timedelta(seconds=age))}"
    by = "nobody publishes them" if events.published_by == "none" else f"published by {events.published_by}"
    if events.refused is not None:
        by = f"refused: {events.refused}"
    dropped = f"; {events.dropped} dropped so far, overtaken while they waited" if events.dropped else ""
    return f"{events.pending} waiting{since}; {by}{dropped}"
