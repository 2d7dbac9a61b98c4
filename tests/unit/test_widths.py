"""Tables on terminals of every width: no line too long, no word broken, nothing that matters left out."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from assetbatch.database.outbox import Stored
from assetbatch.database.symbols import Listed, Listing
from assetbatch.model import Asset, AssetType, Priority, Role
from assetbatch.report import events_view, tables

if TYPE_CHECKING:
    from rich.console import RenderableType

NOW = datetime(2026, 11, 17, 12, tzinfo=UTC)


def lines(view: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(view)
    printed = captured.get().splitlines()
    assert max(map(len, printed)) <= width
    return printed


def cells(printed: list[str]) -> list[list[str]]:
    """The rows of a table, the header first."""
    rows = [line.replace("┃", "│").split("│")[1:-1] for line in printed if line[:1] in {"│", "┃"}]
    return [[cell.strip() for cell in row] for row in rows]


def listed(symbol: str, ticker: str, rank: int, *, enabled: bool = True, role: Role = Role.SECONDARY) -> Listed:
    return Listed(Asset(symbol, ticker, AssetType.CRYPTO, role, rank, 1800, "Name"), enabled, "symbols")


CATALOGUE = Listing(
    (
        listed("XAUUSD", "C:XAUUSD", 1, role=Role.PRIORITY),
        listed("1000SATSUSDT", "X:1000SATSUSDT", Priority.CRITICAL),
        listed("OFF", "X:OFF", Priority.LOW, enabled=False),
    ),
    total=500,
)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["symbol", "ticker", "type", "role", "priority", "every", "origin"]),
        (100, ["symbol", "ticker", "type", "role", "priority", "every", "origin"]),
        (80, ["symbol", "ticker", "role", "priority", "every", "origin"]),
        (60, ["symbol", "ticker", "priority", "every"]),
        (40, ["symbol", "ticker"]),
    ],
)
def test_the_catalogue_leaves_out_whole_columns_where_there_is_no_room(width: int, columns: list[str]) -> None:
    printed = lines(tables.catalogue_view(CATALOGUE, width=width), width)

    header, *rows = cells(printed)
    assert header == columns
    assert [row[0] for row in rows] == ["XAUUSD", "1000SATSUSDT", "OFF"]
    if "every" in header:
        assert [row[header.index("every")] for row in rows] == ["30 min", "30 min", "disabled"]
    assert printed[-1] == "and 497 more: --limit 500"


def test_a_name_that_is_wider_than_the_terminal_is_there_in_pieces() -> None:
    name = "A" * 25 + "B" * 25
    printed = lines(tables.catalogue_view(Listing((listed(name, "X:" + name[:48], 1),), 1), width=40), 40)

    assert "".join(row[0] for row in cells(printed)[1:]) == name


def event(symbol: str, price: str, at: datetime, *, seq: int = 1795336717666085) -> Stored:
    told = {"symbol": symbol, "timestamp": at.isoformat()}
    payload = json.dumps(told)[:-1] + f', "bid": {price}, "ask": {price}, "last_price": {price}}}'
    return Stored(1, symbol, seq, payload, NOW, NOW, dropped=False)


EVENTS = [
    event("BTCUSD", "97123.45000001", NOW - timedelta(seconds=4)),
    event("1000SATSUSDT", "0.00012345", NOW - timedelta(seconds=3)),
    event("XAUUSD", "2650.123", NOW - timedelta(hours=40)),
]
WHOLE = ["symbol", "price", "bid", "ask", "priced", "age", "seq", "published"]


@pytest.mark.parametrize(
    ("width", "missing"),
    [
        (140, set()),
        (100, {"seq", "age"}),
        (80, {"seq", "age", "ask"}),
        (60, {"seq", "age", "ask", "bid"}),
        (50, {"seq", "age", "ask", "bid", "published"}),
    ],
)
def test_events_keep_symbol_price_and_time_whole_whatever_the_width(width: int, missing: set[str]) -> None:
    header, *rows = cells(lines(events_view.table(EVENTS, NOW, width=width, height=24), width))

    assert header == [column for column in WHOLE if column not in missing]
    told = [[row[header.index(column)] for column in ("symbol", "price", "priced")] for row in rows]
    assert told == [
        ["BTCUSD", "97123.45000001", "11:59:56"],
        ["1000SATSUSDT", "0.00012345", "11:59:57"],
        ["XAUUSD", "2650.123", "11-15 20:00"],
    ]


@pytest.mark.parametrize(
    ("width", "missing"),
    [
        (140, set()),
        (100, {"seq", "ask", "bid"}),
        (80, {"seq", "ask", "bid", "priced"}),
        (50, {"seq", "ask", "bid", "priced", "published"}),
    ],
)
def test_a_line_of_an_event_leaves_out_what_does_not_fit(width: int, missing: set[str]) -> None:
    line = events_view.text_line(EVENTS[0], width=width)

    assert len(line) <= width
    assert line.split()[:4] == ["12:00:00", "UTC", "BTCUSD", "97123.45000001"]
    assert len(re.split("  +", line)) == 8 - len(missing)
    assert events_view.text_line(EVENTS[0]) == events_view.text_line(EVENTS[0], width=140)


@pytest.mark.parametrize("width", range(40, 150, 7))
def test_no_table_is_wider_than_the_terminal_and_no_heading_is_broken(width: int) -> None:
    for view in (tables.catalogue_view(CATALOGUE, width=width), events_view.table(EVENTS, NOW, width=width, height=24)):
        header, *_ = cells(lines(view, width))
        assert {*header} <= {*WHOLE, "ticker", "type", "role", "priority", "every", "origin"}
