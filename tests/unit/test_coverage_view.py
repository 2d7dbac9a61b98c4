"""The heat map and the chart at all widths: no line too long, nothing that looks better than it is."""

from __future__ import annotations

import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from rich.console import Console

from assetbatch.bars import LENGTH
from assetbatch.database.bars.coverage import Day
from assetbatch.database.bars.points import Charted, Point
from assetbatch.jobs.coverage import COUNTS, AssetCoverage, Coverage
from assetbatch.model import Asset, AssetType, Role, Span
from assetbatch.report import chart_view
from assetbatch.report import coverage_tables as view
from assetbatch.report.chart import Chart

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
FIRST = date(2026, 10, 30)
WIDTHS = [40, 60, 80, 100, 120, 200]


def day(number: int = 0, **counts: int) -> Day:
    found = dict.fromkeys(COUNTS, 0) | counts
    found["expected"] = sum(count for name, count in found.items() if name not in {"expected", "closed"})
    return Day(FIRST + timedelta(days=number), **found)


@pytest.mark.parametrize(
    ("days", "level"),
    [
        ([day(final=288)], view.WHOLE),
        ([day(final=280, nothing=8)], view.WHOLE),
        ([day(final=280, open=8)], view.WHOLE),
        ([day(final=287, missing=1)], view.MOST),
        ([day(final=144, missing=144)], view.SOME),
        ([day(final=1, refused=287)], view.FEW),
        ([day(missing=288)], view.NONE),
        ([day(nothing=100, missing=1)], view.NONE),
        ([day(not_entitled=288)], view.ABSENT),
        ([day(closed=288)], view.REST),
        ([], view.REST),
        ([day(final=288), day(missing=1)], view.MOST),
        ([day(closed=288), day(final=288)], view.WHOLE),
    ],
)
def test_a_cell_is_whole_only_where_nothing_is_missing(days: list[Day], level: view.Level) -> None:
    assert view.level_of(days) == level


def test_the_levels_are_told_apart_without_colour() -> None:
    assert len({one.sign for one in view.LEVELS}) == len({one.plain for one in view.LEVELS}) == len(view.LEVELS)


def covered(symbol: str, days: list[Day], idle: str | None = None) -> AssetCoverage:
    total = {name: sum(getattr(one, name) for one in days) for name in COUNTS}
    return AssetCoverage(symbol, "crypto", idle, tuple(days), total, is_known=bool(days))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("number", [1, 30, 400])
def test_no_line_of_the_map_is_too_long_but_a_command(width: int, number: int) -> None:
    holed = covered("BTCUSD", [day(one, final=287, missing=one % 2) for one in range(number)])
    gone = covered("A" * 40, [day(one, missing=288) for one in range(number)], "delisted")
    new = covered("NEW", [])
    found = Coverage(NOW, FIRST, FIRST + timedelta(days=number - 1), (holed, gone, new))
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    with console.capture() as captured:
        shown = view.coverage_view(found, width=width, height=24, is_all=False, has_unicode=True)
        console.print(shown, crop=False)
    lines = captured.get().splitlines()
    assert max(len(line.rstrip()) for line in lines if not line.lstrip().startswith("assetbatch ")) <= width
    assert sum("BTCUSD" in line for line in lines) >= 2
    assert found.lacking == ([holed, new] if number > 1 else [new])


@pytest.mark.parametrize(("number", "marks"), [(30, ["10-30", "11-06"]), (1000, ["2026-10", "2027-04"])])
def test_days_of_several_years_are_told_apart(number: int, marks: list[str]) -> None:
    found = Coverage(NOW, FIRST, FIRST + timedelta(days=number - 1), (covered("A", [day(final=288)]),))
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(view.coverage_view(found, width=100, height=24, is_all=False, has_unicode=True))
    assert captured.get().splitlines()[1].split()[:2] == marks


def test_what_does_not_fit_is_counted() -> None:
    many = tuple(covered(f"T{one}", [day(final=287, missing=1)]) for one in range(50))
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        found = Coverage(NOW, FIRST, FIRST, many)
        console.print(view.coverage_view(found, width=100, height=24, is_all=False, has_unicode=True))
    assert "and 45 more assets, 45 bars missing among them: --all-assets" in captured.get()
    assert "assetbatch backfill --since 2026-10-30" in captured.get()


def chart(points: list[Point], *, length: timedelta = LENGTH) -> Chart:
    asset = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300, "Bitcoin")
    span = Span(points[0].ts, points[-1].ts + length)
    return Chart(Charted(NOW, asset, None, None, points[-1].ts), span, True, length, points)


def point(number: int, price: str, *, high: str | None = None) -> Point:
    value = Decimal(price)
    return Point(NOW - timedelta(days=1) + number * LENGTH, value, Decimal(high or price), value, value, 1)


CHARTS = {
    "one point": [point(0, "1.5")],
    "flat": [point(one, "1.5") for one in range(200)],
    "flat and tiny": [point(one, "0.00000842") for one in range(200)],
    "flat at nothing": [point(one, "0") for one in range(200)],
    "tiny": [point(one, f"0.0000000{one % 7 + 1}") for one in range(200)],
    "huge": [point(one, f"{one}23456789012.5") for one in range(1, 200)],
    "zero": [point(one, f"{one % 2}") for one in range(200)],
    "gap": [point(one, f"{one}") for one in range(200) if not 50 <= one < 150],
}


@pytest.mark.parametrize("candles", [False, True])
@pytest.mark.parametrize("width", [40, 120])
@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_of_anything_fits(name: str, width: int, *, candles: bool) -> None:
    text = chart_view.chart_text(
        chart(CHARTS[name]), candles=candles, width=width, height=15, has_colour=False, has_unicode=True
    )
    drawn = [line for line in text.splitlines() if line[-1:] == "│"]
    assert len(drawn) >= 10
    assert max(map(len, text.splitlines())) <= width
    assert any(set(line.split("┤")[-1].split("│")[0]) - {" "} or line.count("│") > 2 for line in drawn)
    assert "\x1b" not in text
    # Prices stand on their axis with the digits that tell them, one that has no other beside it, too.
    labels = [line.split("┤")[0].strip() for line in drawn if "┤" in line]
    assert len(set(labels)) == len(labels)
    assert name == "flat at nothing" or any(float(label.replace(",", "")) for label in labels)


@pytest.mark.parametrize("candles", [False, True])
def test_points_at_either_end_are_drawn_and_the_newest_price_is_of_the_newest_bar(*, candles: bool) -> None:
    begin, end = NOW - timedelta(days=400), NOW - timedelta(minutes=10)
    length = timedelta(days=28)
    first, last = begin - timedelta(days=27), end - timedelta(days=1)
    asset = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 1, 300)
    for number, at in enumerate((first, last), 1):
        points = [Point(at, Decimal(number), Decimal(4), Decimal(1), Decimal(3), 288)]
        found = Chart(Charted(NOW, asset, None, None, end - LENGTH), Span(begin, end), False, length, points)
        text = chart_view.chart_text(found, candles=candles, width=80, height=15, has_colour=False, has_unicode=False)
        inside = "".join(re.split(r"[|+]", line, maxsplit=1)[-1][:-1] for line in text.splitlines() if line[-1:] == "|")
        assert inside.strip()
    assert found.price == ("3", end)
    assert "(10 min ago)" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_drawn_across_a_gap(width: int) -> None:
    text = chart_view.chart_text(
        chart(CHARTS["gap"]), candles=False, width=width, height=20, has_colour=False, has_unicode=True
    )
    inside = [
        line[line.index("│" if "┤" not in line else "┤") + 1 : -1] for line in text.splitlines() if line[-1:] == "│"
    ]
    used = {at for line in inside for at, sign in enumerate(line) if sign != " "}
    size = len(inside[0])
    assert used
    assert not used & set(range(int(size * 0.3), int(size * 0.7)))


def test_in_ascii_a_chart_is_ascii() -> None:
    for candles in (False, True):
        text = chart_view.chart_text(
            chart(CHARTS["gap"]), candles=candles, width=80, height=20, has_colour=False, has_unicode=False
        )
        assert text.isascii()
