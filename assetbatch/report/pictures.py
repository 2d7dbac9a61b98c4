"""Small pictures made of characters: a line of prices, and a bar of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

LEVELS = "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(prices: Sequence[Decimal | None], width: int) -> str:
    """Return a line of `width` characters, each as high as the last price of its share; without one it is a gap.

    The lowest price is at the bottom, the highest at the top; what never moved is in the middle.
    """
    shares = [prices[number * len(prices) // width : (number + 1) * len(prices) // width] for number in range(width)]
    shown = [next((price for price in reversed(share) if price is not None), None) for share in shares]
    there = [price for price in shown if price is not None]
    if not there:
        return GAP * width
    lowest, span = min(there), max(there) - min(there)
    steps = len(LEVELS) - 1

    def level(price: Decimal) -> int:
        return round((price - lowest) / span * steps) if span else steps // 2

    return "".join(GAP if price is None else LEVELS[level(price)] for price in shown)


def bar(counts: Sequence[int], width: int) -> list[int]:
    """Share the `width` cells of a bar among counts, in their proportion; what is there at all has a cell.

    `width` has to be at least as many as there are counts.
    """
    total = sum(counts)
    cells = [max(1, round(count * width / total)) if count else 0 for count in counts]
    if total:
        # What rounding gave or took is the widest one's.
        cells[cells.index(max(cells))] += width - sum(cells)
    return cells
