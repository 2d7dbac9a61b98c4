"""What `bars coverage` shows: a heat map of the days, a table of the assets, what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assetbatch.jobs.coverage import NOT_WANTED
from assetbatch.report.tables import NARROW_WIDTH, new_table
from assetbatch.words import counted, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from assetbatch.database.bars.coverage import Day
    from assetbatch.jobs.coverage import AssetCoverage, Coverage

# What is no map: headings, scale, totals, what to do.
OTHER_LINES = 14
FEWEST_SHOWN = 5
# Where there is no terminal.
PLAIN_SHOWN = 20
LONGEST_NAME = 14
# "100.0 %" and two spaces.
SHARE_WIDTH = 9
WEEK = 7
DAYS_OF_A_YEAR = 366
LABEL_WIDTH = 8

REASONS = {
    "open": "open",
    "nothing": "the vendor had none",
    "not_entitled": "not in the plan",
    "failed": "what came was no bar",
    "refused": "refused by the table",
}
IDLE = {
    "disabled": "disabled",
    "removed": "deleted by the platform",
    "delisted": "delisted",
    "renamed": "renamed",
    "unknown": "unknown to the vendor",
    "not_entitled": "not in the plan",
    NOT_WANTED: "jobs ask for no bars",
}


class Level(Struct, frozen=True):
    """How some days look in the map: with Unicode, without, and in colour; `words` of the scale."""

    sign: str
    plain: str
    style: str
    words: str


WHOLE = Level("█", "#", "green", "all there")
MOST = Level("▓", "+", "yellow", "1 in 10 missing at most")
SOME = Level("▒", "=", "dark_orange", "up to half")
FEW = Level("░", "-", "red", "more")
NONE = Level("×", "x", "bold red", "all missing")
ABSENT = Level("o", "o", "blue", "none to be had")
REST = Level("·", ".", "dim", "market at rest, or not due")
LEVELS = (WHOLE, MOST, SOME, FEW, NONE, ABSENT, REST)


def level_of(days: Sequence[Day]) -> Level:
    """Return how some days of an asset look together: by the share of the bars to be had that is missing."""
    there = sum(day.final + day.open for day in days)
    missing = sum(day.missing + day.refused for day in days)
    if not missing:
        return WHOLE if there else ABSENT if any(day.expected for day in days) else REST
    share = missing / (there + missing)
    return MOST if share <= 0.1 else SOME if share <= 0.5 else FEW if there else NONE


def coverage_view(
    found: Coverage, *, width: int, height: int | None, is_all: bool, has_unicode: bool
) -> RenderableType:
    """Lay out `bars coverage`: of the assets so many as fit into `height` lines (None: no terminal), or all."""
    if not found.assets:
        return Text("the catalogue has no assets: `assetbatch init` puts those of config.yaml there")
    most = PLAIN_SHOWN if height is None else max(FEWEST_SHOWN, (height - OTHER_LINES) // 2)
    shown = found.assets if is_all else found.assets[:most]
    parts: list[RenderableType] = [
        Text.assemble(("Bars by day", "bold"), f"  {found.since} to {found.until}, UTC"),
        _map(found, shown, width=width, has_unicode=has_unicode),
        _table(shown, width=width),
    ]
    if rest := found.assets[len(shown) :]:
        lacking = sum(one.lacking for one in rest)
        words = f"{lacking:,} bars missing among them" if lacking else "none of them lacks a bar that could be had"
        parts.append(Text(f"and {counted(len(rest), 'more asset')}, {words}: --all-assets"))
    parts.append(_line("In all", _in_all(found)))
    for words, command in to_do(found):
        parts.append(_line("To do", words))
        # In one line, however long, to be copied.
        parts.append(Text(" " * LABEL_WIDTH + command, style="bold", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _line(label: str, words: str) -> Table:
    line = Table.grid()
    line.add_column(width=LABEL_WIDTH, style="bold")
    line.add_column()
    line.add_row(label, Text(words))
    return line


def _map(found: Coverage, shown: Sequence[AssetCoverage], *, width: int, has_unicode: bool) -> RenderableType:
    number = (found.until - found.since).days + 1
    label = min(LONGEST_NAME, max(len(one.symbol) for one in shown))
    a_cell = -(-number // max(1, width - label - SHARE_WIDTH - 2))
    cells = -(-number // a_cell)
    parts: list[RenderableType] = [Text(" " * (label + 1) + _marks(found.since, cells, a_cell), style="dim")]
    for one in shown:
        by_cell: list[list[Day]] = [[] for _ in range(cells)]
        for day in one.days:
            by_cell[(day.day - found.since).days // a_cell].append(day)
        line = Text(one.symbol[:label].ljust(label + 1))
        for days in by_cell:
            level = level_of(days)
            line.append(level.sign if has_unicode else level.plain, style=level.style)
        line.append(_share(one.total).rjust(SHARE_WIDTH))
        parts.append(line)
    scale = [Text("a cell: a day" if a_cell == 1 else f"a cell: {a_cell} days")]
    for level in LEVELS:
        sign = (level.sign if has_unicode else level.plain, level.style)
        entry = Text.assemble("  ", sign, f" {level.words}")
        if scale[-1].cell_len + entry.cell_len > width:
            scale.append(Text(""))
        scale[-1].append_text(entry)
    return Group(*parts, *scale)


def _marks(since: date, cells: int, a_cell: int) -> str:
    """Return the days above the cells: each week's first, beyond a year months, as far as there is room."""
    line = ""
    form, step = ("%m-%d", WEEK) if cells * a_cell <= DAYS_OF_A_YEAR else ("%Y-%m", 2 * WEEK)
    for cell in range(0, cells, step):
        mark = f"{since + timedelta(days=cell * a_cell):{form}}"
        line = line.ljust(cell) + (mark if cell + len(mark) <= cells else "")
    return line


def _share(total: Mapping[str, int]) -> str:
    """Return how many of the bars to be had are there, in percent, never rounded up to all of them."""
    there = total["final"] + total["open"]
    could = there + total["missing"] + total["refused"]
    return f"{1000 * there // could / 10:.1f} %" if could else "-"


def _table(shown: Sequence[AssetCoverage], *, width: int) -> Table:
    columns = ["symbol", "expected", "final", "missing", "oldest hole", "absent"]
    rows = (
        (
            one.symbol,
            f"{one.total['expected']:,}",
            f"{one.total['final']:,}",
            Text(f"{one.total['missing']:,}", style="red" if one.lacking else ""),
            None if one.oldest_missing is None else str(one.oldest_missing),
            absent(one),
        )
        for one in shown
    )
    less = {"expected", "oldest hole"} if width < NARROW_WIDTH else ()
    return new_table("By asset", columns, rows, numbers={"expected", "final", "missing"}, less=less)


def absent(one: AssetCoverage) -> str | None:
    """Return in words why bars of an asset are not there, or are not final, and why nobody asks for them."""
    words = [f"{one.total[name]:,} {why}" for name, why in REASONS.items() if one.total[name]]
    if one.idle is not None:
        words.insert(0, IDLE[one.idle])
    elif one.is_new:
        words = ["never asked for yet"]
    return ", ".join(words) or None


def _in_all(found: Coverage) -> str:
    total = found.total
    words = [f"{total['final']:,} final", *(f"{total[name]:,} {why}" for name, why in REASONS.items() if total[name])]
    return f"{total['expected']:,} expected: {', '.join(words)}, {total['missing']:,} missing"


def to_do(found: Coverage) -> list[tuple[str, str]]:
    """Return why bars that could be had are not there, a sentence for each cause, each with the command that helps."""
    holed = [one for one in found.assets if one.lacking and one.total["missing"]]
    refused = [one.symbol for one in found.assets if one.lacking and one.total["refused"]]
    new = [one.symbol for one in found.assets if one.is_new]
    told = []
    if holed:
        since = min(day for one in holed if (day := one.oldest_missing) is not None)
        which = "" if len(holed) > FEWEST_SHOWN else "".join(f"--symbol {one.symbol} " for one in holed)
        bars = sum(one.total["missing"] for one in holed)
        words = f"{bars:,} bars of {named([one.symbol for one in holed])} are missing:"
        asked = any(one.idle is None for one in holed)
        words += " `drain-queue` fetches them with calls to spare; at once:" if asked else " what fetches them:"
        told.append((words, f"assetbatch backfill {which}--since {since}"))
    if refused:
        told.append((f"the table of the bars refused some of {named(refused)}; what it said:", "assetbatch status"))
    if new:
        told.append((f"bars of {named(new)} were never asked for; `drain-queue` does:", "assetbatch drain-queue"))
    return told
