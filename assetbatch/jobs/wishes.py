"""What somebody wants in the catalogue, read from a CSV or a command line: all faults at once, each with its line."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assetbatch.config.given import Given, printable
from assetbatch.config.keys import fields
from assetbatch.config.settings import SecondaryAsset
from assetbatch.config.wording import Refusal, typed
from assetbatch.errors import Fault
from assetbatch.model import Asset, AssetType, Priority, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TYPE_OF_PREFIX = {"C": AssetType.FOREX, "X": AssetType.CRYPTO}
REQUIRED_COLUMNS = ("symbol", "polygon_ticker")
COLUMNS = (*REQUIRED_COLUMNS, "priority", "update_frequency_seconds")


@dataclass(frozen=True, slots=True)
class Wish:
    """An asset that somebody wants in the catalogue, and where that stands: `assets.csv:3`."""

    place: str
    asset: Asset


@dataclass(slots=True)
class Reading:
    """What was read of wishes: those that are well-formed, and the faults of the others."""

    wishes: list[Wish] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_wish(place: str, cells: Mapping[str, str], *, priority: str, frequency_seconds: int) -> Wish | list[Fault]:
    """Read one asset out of texts by column name; `priority` and `frequency_seconds` stand for what is not given."""
    declared, values, faults = fields(SecondaryAsset), {"priority": priority}, []
    for name, text in cells.items():
        if not text and name not in REQUIRED_COLUMNS:
            continue
        try:
            values[name] = typed(declared[name].type, Given(text, place, text), hidden=False, variable=True)
        except Refusal as refusal:
            faults.append(Fault(place, name, str(refusal)))
    if faults:
        return faults
    return Wish(place, _asset(values, frequency_seconds))


def _asset(values: Mapping[str, Any], frequency_seconds: int) -> Asset:
    return Asset(
        symbol=values["symbol"],
        polygon_ticker=values["polygon_ticker"],
        asset_type=TYPE_OF_PREFIX[values["polygon_ticker"][0]],
        role=Role.SECONDARY,
        rank=Priority[values["priority"]],
        update_frequency_seconds=values.get("update_frequency_seconds", frequency_seconds),
        name=values.get("name", ""),
    )


def read_csv(lines: Iterable[str], *, name: str, priority: str, frequency_seconds: int) -> Reading:
    """Read a CSV with a header; every line is read, so that all faults are told."""
    found = Reading()
    rows = csv.reader(lines, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for row in rows:
            place, line = f"{name}:{line}", rows.line_num + 1
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if header is None:
                header = cells
                found.faults += _header_faults(place, header)
                if found.faults:
                    return found
            elif len(cells) != len(header):
                message = f"has {len(cells)} columns, the header has {len(header)}"
                found.faults.append(Fault(place, "", message))
            else:
                wish = read_wish(
                    place,
                    dict(zip(header, cells, strict=True)),
                    priority=priority,
                    frequency_seconds=frequency_seconds,
                )
                if isinstance(wish, Wish):
                    found.wishes.append(wish)
                else:
                    found.faults += wish
    except csv.Error as error:
        found.faults.append(Fault(f"{name}:{max(line, rows.line_num)}", "", f"is no CSV: {error}"))
    except UnicodeDecodeError:
        found.faults.append(Fault(name, "", "is not UTF-8"))
    if header is None and not found.faults:
        found.faults.append(Fault(f"{name}:1", "", f"is empty; its first line is {','.join(COLUMNS)}"))
    found.faults += repetitions(found.wishes)
    return found


def _header_faults(place: str, header: Sequence[str]) -> Iterator[Fault]:
    for name in REQUIRED_COLUMNS:
        if name not in header:
            yield Fault(place, name, f"is missing: the first line is {','.join(REQUIRED_COLUMNS)}, or has more columns")
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            yield Fault(place, printable(name), f"unknown column; known are {', '.join(COLUMNS)}")
        elif header.count(name) > 1:
            yield Fault(place, name, "is there twice")


def repetitions(wishes: Sequence[Wish]) -> Iterator[Fault]:
    """Find symbols and tickers that are named more than once."""
    seen: dict[str, str] = {}
    for wish in wishes:
        # A ticker has a colon, a symbol has none: they do not meet.
        for column, value in (("symbol", wish.asset.symbol), ("polygon_ticker", wish.asset.polygon_ticker)):
            if value in seen:
                yield Fault(wish.place, column, f"{value} is there twice; the first one is at {seen[value]}")
            else:
                seen[value] = wish.place
