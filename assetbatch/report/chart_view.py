"""A chart as text: drawn by plotext, with or without colour, in Unicode or in ASCII."""

from __future__ import annotations

import math
import textwrap
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from assetbatch.words import ago, counted, duration, utc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.bars.points import Point
    from assetbatch.report.chart import Chart

UP, DOWN = "green", "red"
PLAIN_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 20, 8, 32
# Frame, labels of prices, and a margin.
SIDE_WIDTH = 14
# Lines of text around the chart, and the prompt that comes after it.
OTHER_LINES = 6
PRICE_TICKS = 5
MOST_DECIMALS = 18
# A label of a time, and room around it.
TIME_WIDTH = 14
STEPS = [timedelta(minutes=one) for one in (15, 30, 60, 120, 180, 360, 720)] + [
    timedelta(days=one) for one in (1, 2, 7, 14, 28, 91, 182, 364)
]
DAY = timedelta(days=1)
ASCII = str.maketrans("┌┐└┘─│┤├┬┴┼█▒", "++++-|++++##o")


def most_points(width: int, *, candles: bool) -> int:
    """Return how many points there is room for: of a line two a column, of candles one in two columns."""
    room = max(10, width - SIDE_WIDTH)
    return room // 2 if candles else 2 * room


def height_of(lines: int | None) -> int:
    """Return how high a chart is on a terminal of so many lines; None: no terminal."""
    return PLAIN_HEIGHT if lines is None else min(MOST_HEIGHT, max(LEAST_HEIGHT, lines - OTHER_LINES))


def chart_text(chart: Chart, *, candles: bool, width: int, height: int, has_colour: bool, has_unicode: bool) -> str:
    """Write a chart with what is to be told of it, in lines no longer than `width`, but for a command."""
    symbol = chart.charted.asset.symbol
    if chart.span is None:
        return f"no final bar of {symbol} is there yet: `assetbatch backfill --symbol {symbol}` fetches them\n"
    if not chart.points:
        newest = chart.charted.newest
        assert newest is not None  # noqa: S101 - a span was looked at
        return (
            f"no final bar of {symbol} since {utc(chart.span.since)}: the newest is of {utc(newest)};"
            " without --since, the newest day is shown\n"
        )
    drawn = _drawn(chart, candles=candles, width=width, height=height, has_unicode=has_unicode).string(
        colorless=not has_colour
    )
    above = [*_wrapped(_headline(chart), width), *_wrapped(_span(chart, candles=candles), width)]
    text = "\n".join([*above, *(line.rstrip() for line in drawn.splitlines()), *_remarks(chart, width)]) + "\n"
    return text if has_unicode else text.translate(ASCII)


def _headline(chart: Chart) -> str:
    asset, price = chart.charted.asset, chart.price
    words = asset.symbol if not asset.name else f"{asset.symbol} ({asset.name})"
    if price is not None:
        words += f"  {price[0]} ({ago(price[1], chart.charted.now)})"
    return words if chart.change is None else f"{words}  {chart.change:+.2%} in the chart"


def _span(chart: Chart, *, candles: bool) -> str:
    span = chart.span
    assert span is not None  # noqa: S101 - there are points
    what = "candles" if candles else "closing prices"
    newest = ", the newest 24 h of market time" if chart.is_newest else ""
    since, until = utc(span.since, zone=False), utc(span.until)
    return f"{what} of {duration(chart.length)}, {since} to {until}{newest}"


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _remarks(chart: Chart, width: int) -> list[str]:
    bars, symbol = sum(point.bars for point in chart.points), chart.charted.asset.symbol
    words = [f"{counted(bars, 'final bar')}"]
    if chart.open_bars:
        words.append(f"{counted(chart.open_bars, 'open one')} left out")
    if not chart.lacking:
        return _wrapped(", ".join([*words, "none missing that could be had"]), width)
    words.append(f"{chart.lacking} missing on these days")
    # What is to be copied stays whole.
    return [
        *_wrapped(", ".join(words), width),
        f"`assetbatch bars coverage --symbol {symbol} --since {chart.lacking_since}` tells where",
    ]


def _drawn(chart: Chart, *, candles: bool, width: int, height: int, has_unicode: bool) -> Any:
    import plotext

    def marker(sign: str, colour: str) -> Any:
        return plotext.marker(sign, pixel=plotext.pixel(foreground=colour))

    span = chart.span
    assert span is not None  # noqa: S101 - there are points
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.theme("colorless")
    if candles:
        for point in chart.points:
            at, rises = _middle(point, chart.length), point.close >= point.open
            colour = UP if rises else DOWN
            figure.draw(figure.segment((at, at), (float(point.low), float(point.high)), marker=marker("│", colour)))
            body = marker("█" if rises else "▒", colour)
            figure.draw(figure.segment((at, at), (float(point.open), float(point.close)), marker=body))
    else:
        change = chart.change
        line = marker("braille" if has_unicode else "*", DOWN if change is not None and change < 0 else UP)
        for stretch in chart.stretches:
            times, closes = [_middle(one, chart.length) for one in stretch], [float(one.close) for one in stretch]
            figure.draw(figure.signal(times, closes, marker=line).lines(active=True))
    # The bars of a long point at either end may lie beside its middle, where it is drawn.
    since, until = min(span.since, chart.points[0].ts), max(span.until, chart.points[-1].ts + chart.length)
    figure.ruler("x", 0).lim(since.timestamp(), until.timestamp())
    marks = dict(_times(since, until, width=width))
    figure.ruler("x", 0).ticks(list(marks), labels=list(marks.values()))
    prices = dict(_prices(chart, candles=candles))
    if len(prices) > 1:
        figure.ruler("y", 0).lim(min(prices), max(prices))
    figure.ruler("y", 0).ticks(list(prices), labels=list(prices.values()))
    return figure.build()


def _middle(point: Point, length: timedelta) -> float:
    return (point.ts + length / 2).timestamp()


def _times(since: datetime, until: datetime, *, width: int) -> Iterator[tuple[float, str]]:
    """Return where times stand on the axis, so many as there is room for: a day at its midnight, else hours."""
    room = max(2, (width - SIDE_WIDTH) // TIME_WIDTH)
    step = next((one for one in STEPS if (until - since) / one <= room), STEPS[-1])
    epoch = datetime(1970, 1, 5, tzinfo=UTC)  # a Monday
    at = since + (epoch - since) % step
    is_first = True
    while at <= until:
        is_day = step >= DAY or at.hour == at.minute == 0
        form = "%Y-%m-%d" if is_day and until - since > 180 * DAY else "%m-%d" if is_day else "%H:%M"
        yield at.timestamp(), f"{at:%m-%d %H:%M}" if is_first and not is_day else f"{at:{form}}"
        at, is_first = at + step, False


def _prices(chart: Chart, *, candles: bool) -> Iterator[tuple[float, str]]:
    """Return where prices stand on their axis, with as many decimals as tell them apart."""
    lowest = float(min(one.low if candles else one.close for one in chart.points))
    highest = float(max(one.high if candles else one.close for one in chart.points))
    step = (highest - lowest) / (PRICE_TICKS - 1)
    if step:
        decimals = max(0, 1 - math.floor(math.log10(step)))
    else:
        decimals = max(4, 4 - math.floor(math.log10(abs(lowest)))) if lowest else 4
    decimals = min(MOST_DECIMALS, decimals)
    for number in range(PRICE_TICKS if step else 1):
        yield lowest + number * step, f"{lowest + number * step:,.{decimals}f}"
