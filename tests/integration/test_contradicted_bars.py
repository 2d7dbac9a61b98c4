"""Several rows of one bar with different figures in a page: the one of most trades is stored, counted and told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.test_bar_silences import Document, World
from tests.integration.test_bar_silences import world as _world
from tests.world import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable

world = _world


def poorer(row: dict[str, Any]) -> dict[str, Any]:
    """The same bar, of fewer trades: told too early, or by one of the vendor's sources only."""
    return row | {"n": row["n"] - 1, "c": row["o"], "h": row["o"], "l": row["o"], "v": row["v"] * 2}


def before(page: Document) -> Document:
    return page | {"results": [one for row in page["results"] for one in (poorer(row), row)]}


def behind(page: Document) -> Document:
    return page | {"results": [one for row in page["results"] for one in (row, poorer(row))]}


def at_the_end(page: Document) -> Document:
    return page | {"results": [*page["results"], *map(poorer, reversed(page["results"]))]}


def the_same(page: Document) -> Document:
    return page | {"results": [*page["results"], *reversed(page["results"])]}


@pytest.mark.parametrize("change", [before, behind, at_the_end])
@pytest.mark.parametrize("minutes", [5, 1])
def test_the_bar_of_more_trades_is_stored_and_the_others_are_told(
    world: World, change: Callable[[Document], Document], minutes: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "assetbatch.jobs.bars")
    world.add("T1USD")
    bars = "{backfill_days: 3}"
    world.change = lambda page: change(page) if page.get("results") else page
    world.sandbox.fail = ["minutes-only"] if minutes == 1 else []
    world.asked(bars=bars)
    stored, rows = world.settled("T1USD"), len(world.calls())

    # What a page without them makes.
    world.change = None
    world.connection.execute(
        "delete from market_data.ohlcv_5m; delete from assetbatch.bar_state; delete from assetbatch.bar_silences"
    )
    world.now -= MINUTE
    world.asked(bars=bars)

    assert rows == len(world.calls()) - rows == (2 if minutes == 1 else 1)
    assert len(stored) > 800
    assert stored.items() <= world.stored("T1USD").items()
    (told,) = [one.getMessage() for one in caplog.records if "came twice" in one.getMessage()]
    number = int(told.split()[1])
    assert told.startswith(f"T1USD: {number} bars came twice with different figures, as that of 2026-11-")
    assert number >= len(stored) * 5 // minutes


def test_what_straddles_two_pages_is_the_one_of_more_trades(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("T1USD")
    monkeypatch.setattr("assetbatch.provider.massive.aggregates.MOST_BASE_MINUTES", 2000)

    # The last one of a page, too, which is the first of the next.
    world.change = behind
    world.asked(bars="{backfill_days: 3}")

    world.change = None
    assert len(world.calls()) >= 3
    assert world.is_whole("T1USD")


def test_the_same_bar_twice_is_not_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "assetbatch.jobs.bars")
    world.add("T1USD")
    world.change = the_same
    world.asked(bars="{backfill_days: 3}")
    world.change = None

    assert world.is_whole("T1USD")
    assert not [one for one in caplog.records if "came twice" in one.getMessage()]
