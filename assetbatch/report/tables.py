"""What commands show on a terminal; `status`: alerts first, then jobs, priority assets and the budget of calls."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.database.queue import State
from assetbatch.report.alerts import Health, Level
from assetbatch.report.freshness import Freshness

if TYPE_CHECKING:
    from assetbatch.database.queue_desk import Listing
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.jobs.probe import Probed
    from assetbatch.report.status import AssetStatus, JobStatus, Status

HEALTH_STYLES = {Health.HEALTHY: "bold green", Health.DEGRADED: "bold yellow", Health.UNHEALTHY: "bold red"}
LEVEL_STYLES = {Level.WARNING: "yellow", Level.CRITICAL: "bold red"}
ITEM_STYLES = {State.DEAD: "red", State.DELAYED: "yellow", State.LEASED: "green"}
STATE_STYLES = {Freshness.FRESH: "green", Freshness.CLOSED: "dim", Freshness.END_OF_DAY: "dim"}
# Where output is no terminal, its lines are for a pipe or a mail: wide enough not to break.
PLAIN_WIDTH = 100
# On a narrower terminal only what matters most is shown of an asset.
NARROW_WIDTH = 76
MOST_BARS_SHOWN = 20


def console() -> Console:
    """Make a console on stdout that knows a pipe from a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=PLAIN_WIDTH)


def ago(moment: datetime | None, now: datetime) -> str:
    """Tell an age as people do: 12 s, 4 min, 3 h, 2 d."""
    return "never" if moment is None else f"{duration(now - moment)} ago"


def duration(length: timedelta) -> str:
    """Tell a length of time in its largest sensible unit."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"


def status_view(status: Status, *, width: int) -> RenderableType:
    """Lay out one screen that answers, from top to bottom: is all well, what is wrong, what to do."""
    headline = Text.assemble(
        (status.health.value.upper(), HEALTH_STYLES[status.health]),
        f"  {status.database}, prices from {status.source}",
    )
    alerts = Table.grid(padding=(0, 1))
    for alert in status.alerts:
        alerts.add_row(Text(alert.level.name, style=LEVEL_STYLES[alert.level]), Text(f"{alert.message} ({alert.hint})"))
    parts: list[RenderableType] = [headline]
    if status.alerts:
        parts.append(alerts)
    parts += [_jobs(status), _assets(status, narrow=width < NARROW_WIDTH), _budget(status), _queue(status)]
    return Group(*parts)


def _table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        number = column in numbers
        # Words may break over lines on a narrow terminal; a name or a price must not.
        table.add_column(column, justify="right" if number else "left", no_wrap=number or column == columns[0])
    return table


def _jobs(status: Status) -> Table:
    table = _table("Jobs", "job", "last run", "result", "next expected", "last 24 hours")
    for job in status.jobs:
        table.add_row(
            job.id,
            ago(job.last_run, status.now),
            job.last_status or "-",
            f"in {duration(job.next_run - status.now)}",
            _day(job),
        )
    return table


def _day(job: JobStatus) -> str:
    runs = job.day["runs"]
    return f"{runs} run{'s' if runs != 1 else ''}, {job.day['partial']} partial, {job.day['failed']} failed"


def _assets(status: Status, *, narrow: bool) -> Table:
    columns = ["symbol", "price", "today", "price of", "updated", "market age", "state"]
    shown = [0, 1, 4, 6] if narrow else range(len(columns))
    table = _table("Priority assets", *(columns[number] for number in shown), numbers=("price", "today"))
    for one in status.assets:
        row: list[RenderableType] = [
            one.asset.symbol,
            one.last_price or "-",
            _change(one),
            ago(_moment(one.data_timestamp), status.now),
            ago(one.last_sync, status.now),
            "-" if one.market_age is None else duration(one.market_age),
            Text(one.state.value, style=STATE_STYLES.get(one.state, "red")),
        ]
        table.add_row(*(row[number] for number in shown))
    return table


def _change(one: AssetStatus) -> str:
    if one.last_price is None or one.daily_open is None:
        return "-"
    opened = Decimal(one.daily_open)
    return f"{(Decimal(one.last_price) - opened) / opened:+.2%}" if opened else "-"


def _moment(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None


def _budget(status: Status) -> Text:
    budget = status.budget
    if budget.limit is None:
        free = "unlimited"
    else:
        free = f"{budget.remaining} of {budget.limit} free in this window of {budget.window_seconds:g} s"
        if budget.next_free_at is not None:
            free += f", the next in {duration(budget.next_free_at - status.now)}"
    return Text.assemble(
        ("Calls  ", "bold"),
        f"{free}; {budget.calls_last_hour} in the last hour, {budget.refusals_last_hour} refused;"
        f" {status.events_pending} events wait",
    )


def _queue(status: Status) -> Text:
    queue = status.queue
    words = [f"{queue.total_items} waiting"]
    if queue.total_items:
        words[0] += f" ({', '.join(f'{count} {name}' for name, count in queue.by_priority.items() if count)})"
    words += [f"{count} {word}" for word, count in (("leased", queue.leased), ("delayed", queue.delayed)) if count]
    words.append(f"{queue.dead} dead")
    if queue.oldest_item_age_seconds is not None:
        words.append(f"the oldest for {duration(timedelta(seconds=queue.oldest_item_age_seconds))}")
    return Text.assemble(("Queue  ", "bold"), ", ".join(words))


def queue_view(listing: Listing, *, width: int) -> RenderableType:
    """Lay out `queue list`, in the order in which items get their turn."""
    if not listing.items:
        return Text("the queue is empty")
    columns = ["symbol", "priority", "state", "attempts", "enqueued", "available", "last error"]
    shown = [0, 1, 2, 6] if width < NARROW_WIDTH else range(len(columns))
    table = _table("Queue", *(columns[number] for number in shown), numbers=("attempts",))
    for item in listing.items:
        row: list[RenderableType] = [
            item.symbol,
            item.priority.name,
            Text(item.state.value, style=ITEM_STYLES.get(item.state, "")),
            str(item.attempts),
            ago(item.enqueued_at, listing.now),
            f"in {duration(item.available_at - listing.now)}" if item.state is State.DELAYED else "-",
            item.error or "-",
        ]
        table.add_row(*(row[number] for number in shown))
    more = listing.total - len(listing.items)
    return Group(table, Text(f"and {more} more: --limit {listing.total}")) if more else table


def forecast_view(forecast: Forecast) -> RenderableType:
    """Lay out `forecast`: what the next runs call, and when everything is there."""
    now = forecast.now
    parts: list[RenderableType] = []
    if forecast.calls:
        table = _table("Next calls", "job", "at", "kind", "calls", "assets", numbers=("calls", "assets"))
        for one in forecast.calls:
            table.add_row(one.job, f"in {duration(one.at - now)}", one.kind, str(one.calls), str(one.assets))
        parts.append(table)
    bars = [one for one in forecast.bars if one.calls > 1][:MOST_BARS_SHOWN]
    if bars:
        table = _table("Bars that take several calls", "symbol", "missing since", "calls", numbers=("calls",))
        for bar in bars:
            table.add_row(bar.symbol, f"{bar.since:%Y-%m-%d %H:%M} UTC", str(bar.calls))
        parts.append(table)
    limit = "unlimited" if forecast.limit is None else f"{forecast.limit} in {forecast.window_seconds:g} s"
    words = [f"{forecast.total} calls; the budget: {limit}"]
    if forecast.total:
        words.append(f"prices are fresh in {duration(forecast.fresh_at - now)}")
        words.append(f"everything is there in {duration(forecast.complete_at - now)}")
    if forecast.newer_at is not None:
        words.append(f"newer prices can exist from {forecast.newer_at:%Y-%m-%d %H:%M} UTC on")
    if forecast.unscanned:
        words.append(f"{forecast.unscanned} more assets were not looked at for holes")
    return Group(*parts, Text.assemble(("In all  ", "bold"), "; ".join(words)))


def probe_view(probed: Probed) -> RenderableType:
    """Lay out `probe`: what the key may see of each market."""
    table = _table(
        f"What this key may see (plan {probed.plan})", "market", "quotes", "today's bars", "history", "recency"
    )
    for one in probed.markets:
        table.add_row(one.market, _may(one.quotes), _may(one.todays_bars), one.history, one.recency)
    verdict = [Text(probed.verdict, style="bold red")] if probed.verdict else []
    return Group(table, *verdict, Text(f"{probed.calls_used} calls were made"))


def _may(seen: bool | None) -> Text:
    return Text("?") if seen is None else Text("yes", style="green") if seen else Text("no", style="yellow")
