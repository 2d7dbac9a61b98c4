"""Pictures made of characters: what stands for what, and that each share is as wide as it has to be."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.report.pictures import bar, sparkline


def decimals(*prices: float | None) -> list[Decimal | None]:
    return [None if price is None else Decimal(str(price)) for price in prices]


@pytest.mark.parametrize(
    ("prices", "width", "line"),
    [
        (decimals(1, 2, 3, 4, 5, 6, 7, 8), 8, "▁▂▃▄▅▆▇█"),
        (decimals(8, None, None, 1), 4, "█  ▁"),
        (decimals(8, None, None, 1), 2, "█▁"),
        (decimals(5, 5, 5), 3, "▄▄▄"),
        (decimals(None, None, 2, None), 4, "  ▄ "),
        (decimals(None, None), 2, "  "),
        ([], 3, "   "),
        (decimals(-1, 0, 1), 3, "▁▅█"),
    ],
)
def test_a_line_of_prices_is_as_high_as_they_are_and_a_gap_is_a_gap(
    prices: list[Decimal | None], width: int, line: str
) -> None:
    assert sparkline(prices, width) == line


@given(counts=st.lists(st.integers(0, 10**6), min_size=3, max_size=3), width=st.integers(3, 60))
def test_a_bar_is_full_and_what_there_is_has_a_cell(counts: list[int], width: int) -> None:
    cells = bar(counts, width)

    assert sum(cells) == (width if any(counts) else 0)
    assert [bool(count) for count in counts] == [bool(cell) for cell in cells]
    total = sum(counts)
    assert all(abs(cell - count * width / total) < 3 for cell, count in zip(cells, counts, strict=True) if total)
