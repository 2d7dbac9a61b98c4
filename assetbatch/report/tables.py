"""What commands show on a terminal or in a pipe, and the words that their tables share."""

from __future__ import annotations

import locale
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.database.queue.items import State
from assetbatch.report.documents import priority_name
from assetbatch.words import ago, counted, duration, until, utc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from assetbatch.database import symbols
    from assetbatch.database.queue.admin import Listing
    from assetbatch.jobs.forecast import Forecast
    from assetbatch.jobs.probe import Probed
    from assetbatch.report.doctor.findings import Finding

ITEM_STYLES = {State.DEAD: "red", State.DELAYED: "yellow", State.LEASED: "green"}
FINDING_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
# Where output is no terminal, its lines are for a pipe or a mail: wide enough not to break.
PLAIN_WIDTH = 100
# On a narrower terminal only what matters most is shown of an asset.
NARROW_WIDTH = 76
MOST_BARS_SHOWN = 20
# A border and a space on either side.
CELL_FRAME = 3


class _AsciiConsole(Console):
    """Draws tables with what every terminal has."""

    @property
    def encoding(self) -> str:
        """Not the stream's own: Python writes UTF-8 where the locale is C, too."""
        return "ascii"


def console() -> Console:
    """Make a console on stdout that knows a pipe from a terminal, and one without Unicode."""
    kind = Console if _has_unicode() else _AsciiConsole
    plain = kind()
    return plain if plain.is_terminal else kind(width=shutil.get_terminal_size((PLAIN_WIDTH, 0)).columns)


def _has_unicode() -> bool:
    """Return whether the terminal's language says more than C, which says nothing of what the terminal can show."""
    before = locale.setlocale(locale.LC_MESSAGES)
    try:
        return locale.setlocale(locale.LC_MESSAGES, "") not in {"C", "POSIX"}
    except locale.Error:
        return True
    finally:
        locale.setlocale(locale.LC_MESSAGES, before)


def new_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Text | str | int | None]],
    *,
    numbers: Collection[str] = (),
    less: Collection[str] = (),
) -> Table:
    """Return a table of rows, but for the columns `less`; columns of numbers stand to the right.

    A text is shown as it stands, whatever rich would read out of it, None as a dash.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    shown = [number for number, column in enumerate(columns) if column not in less]
    for column in (columns[number] for number in shown):
        number = column in numbers
        # Words may break over lines on a narrow terminal; a name or a price must not.
        table.add_column(column, justify="right" if number else "left", no_wrap=number or column == columns[0])
    for row in rows:
        table.add_row(*(_cell(row[number]) for number in shown))
    return table


def _cell(value: Text | str | int | None) -> Text:
    if isinstance(value, int):
        return Text(f"{value:,}")
    return value if isinstance(value, Text) else Text("-" if value is None else value)


def fitted_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[str], str | None]],
    *,
    width: int,
    less: Sequence[str],
    numbers: Sequence[str] = (),
) -> Table:
    """Make a table of rows, each with its style, that breaks no word: what does not fit is left out, whole columns.

    `less` names the columns that may go, the first one first. Only a cell that is too wide by itself is folded.
    """
    cells = [list(columns), *(list(row) for row, _ in rows)]
    widths = [max(cell_len(line[number]) for line in cells) for number in range(len(columns))]
    shown = list(range(len(columns)))
    for column in less:
        if sum(widths[number] + CELL_FRAME for number in shown) < width:
            break
        shown.remove(columns.index(column))
    table = Table(title=title, title_justify="left", title_style="bold")
    for number in shown:
        justify: JustifyMethod = "right" if columns[number] in numbers else "left"
        table.add_column(columns[number], justify=justify, overflow="fold")
    for row, style in rows:
        table.add_row(*(Text(row[number]) for number in shown), style=style)
    return table


def queue_view(listing: Listing, *, width: int) -> RenderableType:
    """Lay out `queue list`, in the order in which items get their turn."""
    if not listing.items:
        return Text("the queue is empty")
    columns = ["symbol", "priority", "state", "attempts", "enqueued", "again", "last error"]
    rows = (
        (
            item.symbol,
            item.priority.name,
            Text(item.state.value, style=ITEM_STYLES.get(item.state, "")),
            item.attempts,
            ago(item.enqueued_at, listing.now),
            f"in {duration(item.available_at - listing.now)}" if item.state is State.DELAYED else None,
            item.error or None,
        )
        for item in listing.items
    )
    less = {"attempts", "enqueued", "again"} if width < NARROW_WIDTH else ()
    return _with_rest(new_table("Queue", columns, rows, numbers={"attempts"}, less=less), listing)


def catalogue_view(listing: symbols.Listing, *, width: int) -> RenderableType:
    """Lay out `symbols list`."""
    if not listing.items:
        return Text("the catalogue is empty: `assetbatch init` puts the assets of config.yaml there")
    columns = ("symbol", "ticker", "type", "role", "priority", "every", "origin")
    rows = []
    for item in listing.items:
        asset, style = item.asset, None if item.enabled else "dim"
        every = duration(timedelta(seconds=asset.update_frequency_seconds)) if item.enabled else "disabled"
        rank = priority_name(asset) or str(asset.rank)
        kind, role = asset.asset_type.value, asset.role.value
        rows.append(((asset.symbol, asset.polygon_ticker, kind, role, rank, every, item.origin), style))
    less = ("type", "origin", "role", "priority", "every")
    return _with_rest(fitted_table("Catalogue", columns, rows, width=width, less=less), listing)


def _with_rest(table: Table, listing: Listing | symbols.Listing) -> RenderableType:
    """Add below a table how many more there are than it shows."""
    more = listing.total - len(listing.items)
    return Group(table, Text(f"and {more:,} more: --limit {listing.total}")) if more else table


def forecast_view(forecast: Forecast) -> RenderableType:
    """Lay out `forecast`: what the next runs call, and when everything is there."""
    now = forecast.now
    parts: list[RenderableType] = []
    if forecast.calls:
        columns = ("job", "at", "kind", "calls", "assets")
        calls = ((one.job, until(one.at, now), one.kind, one.calls, one.assets) for one in forecast.calls)
        parts.append(new_table("Next calls", columns, calls, numbers={"calls", "assets"}))
    bars = [one for one in forecast.bars if one.calls > 1][:MOST_BARS_SHOWN]
    if bars:
        holes = ((one.symbol, utc(one.since), one.calls) for one in bars)
        title = "Bars that take several calls"
        parts.append(new_table(title, ("symbol", "missing since", "calls"), holes, numbers={"calls"}))
    limit = "unlimited" if forecast.limit is None else f"{forecast.limit:,} in {forecast.window_seconds:g} s"
    words = [f"{counted(forecast.total, 'call')}; the budget: {limit}"]
    if forecast.total:
        words.append(f"prices are fresh {until(forecast.fresh_at, now)}")
        words.append(f"everything is there {until(forecast.complete_at, now)}")
    if forecast.newer_at is not None:
        words.append(f"newer prices can exist from {utc(forecast.newer_at)} on")
    if forecast.streamed:
        words.append(f"{counted(forecast.streamed, 'asset')} streamed: while that lasts, no call asks for the quotes")
    if forecast.unscanned:
        words.append(f"{counted(forecast.unscanned, 'more asset')} not looked at for missing bars")
    return Group(*parts, Text.assemble(("In all  ", "bold"), "; ".join(words)))


def probe_view(probed: Probed) -> RenderableType:
    """Lay out `probe`: what the key may see of each market."""
    rows = ((one.market, _may(one.quotes), _may(one.todays_bars), one.history, one.recency) for one in probed.markets)
    columns = ("market", "quotes", "today's bars", "history", "recency")
    table = new_table(f"What this key may see (plan {probed.plan})", columns, rows)
    verdict = [Text(probed.verdict, style="bold red")] if probed.verdict else []
    return Group(table, *verdict, Text(f"{counted(probed.calls_used, 'call')} made"))


def findings_view(findings: Sequence[Finding]) -> Table:
    """Lay out `doctor`: what was found, and below it what fixes that."""
    table = Table.grid(padding=(0, 1))
    # A name must not break over lines; what was found and its hint share what is left of the width.
    for no_wrap in (True, True, False):
        table.add_column(no_wrap=no_wrap, overflow="fold")
    for one in findings:
        text = Text(one.found)
        if one.hint:
            text.append(f"\n→ {one.hint}", style="bold")
        table.add_row(Text(one.level.value, style=FINDING_STYLES[one.level]), one.name, text)
    return table


def _may(seen: bool | None) -> Text:
    return Text("?") if seen is None else Text("yes", style="green") if seen else Text("no", style="yellow")
