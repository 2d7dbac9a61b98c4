"""What somebody wants in the catalogue, read from a CSV or a command line: all faults at once, each with its line."""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from assetbatch.config.given import Given, printable
from assetbatch.config.keys import fields
from assetbatch.config.settings import SecondaryAsset
from assetbatch.config.wording import Refusal, did_you_mean, typed
from assetbatch.errors import Fault
from assetbatch.markets import type_of
from assetbatch.model import Asset, Priority, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REQUIRED_COLUMNS = ("symbol", "polygon_ticker")
COLUMNS = (*REQUIRED_COLUMNS, "priority", "update_frequency_seconds", "name")
DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Wish:
    """An asset that somebody wants in the catalogue, and where that stands: `assets.csv:3`."""

    place: str
    asset: Asset


@dataclass(slots=True)
class Reading:
    """What was read of wishes: those that are well-formed, and the faults of the others.

    `repeated`: the places of lines that say once more what a line before them says; each counts once.
    """

    wishes: list[Wish] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


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
        asset_type=type_of(values["polygon_ticker"]),
        role=Role.SECONDARY,
        rank=Priority[values["priority"]],
        update_frequency_seconds=values.get("update_frequency_seconds", frequency_seconds),
        name=values.get("name", ""),
    )


def read_csv(data: bytes, *, name: str, priority: str, frequency_seconds: int) -> Reading:
    """Read a CSV with a header, as spreadsheets write it; every line is read, so that all faults are told."""
    found = Reading()
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found.faults.append(Fault(f"{name}:{line}", "", f"is not {error.encoding.upper()}: save it as CSV in UTF-8"))
        return found
    rows = _rows(text, name, found.faults)
    place, header = next(rows, (f"{name}:1", []))
    columns = [re.sub("[^a-z0-9]+", "_", cell.lower()).strip("_") for cell in header]
    if not found.faults:
        found.faults += _header_faults(place, columns)
    if found.faults:
        return found
    wishes: list[Wish] = []
    for place, row in rows:
        if len(row) > len(columns):
            found.faults.append(Fault(place, "", f"has {len(row)} columns, the header has {len(columns)}"))
            continue
        # Spreadsheets may leave out what is empty at the end of a line.
        cells = dict(zip_longest(columns, row, fillvalue=""))
        cells["priority"] = cells.get("priority", "").upper()
        wish = read_wish(place, cells, priority=priority, frequency_seconds=frequency_seconds)
        if isinstance(wish, Wish):
            wishes.append(wish)
        else:
            found.faults += wish
    first = {wish.asset: wish.place for wish in reversed(wishes)}
    found.wishes = [wish for wish in wishes if wish.place == first[wish.asset]]
    found.repeated = [wish.place for wish in wishes if wish.place != first[wish.asset]]
    found.faults += repetitions(found.wishes)
    return found


def _rows(text: str, name: str, faults: list[Fault]) -> Iterator[tuple[str, list[str]]]:
    """Yield each line that is not empty, and its place, without the empty cells at its end."""
    text = re.sub("\r\n?", "\n", text)
    # Excel's own way to name the delimiter; an empty line stays, so that those behind it keep their numbers.
    named = re.match("sep=([,;\t])(?=\n)", text, re.IGNORECASE)
    text = text[named.end() :] if named else text
    header = next(filter(str.strip, text.split("\n")), "")
    delimiter = named[1] if named else max(DELIMITERS, key=header.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in rows:
            place, line = f"{name}:{line}", rows.line_num + 1
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                yield place, cells
    except csv.Error as error:
        faults.append(Fault(f"{name}:{max(line, rows.line_num)}", "", f"is no CSV: {error}"))


def _header_faults(place: str, columns: Sequence[str]) -> Iterator[Fault]:
    if not columns:
        yield Fault(place, "", f"is empty; its first line is {','.join(COLUMNS)}")
        return
    for name in REQUIRED_COLUMNS:
        if name not in columns:
            yield Fault(place, name, f"is missing: the first line is {','.join(REQUIRED_COLUMNS)}, or has more columns")
    for name in dict.fromkeys(columns):
        if name not in COLUMNS:
            close = did_you_mean(name, COLUMNS)
            known = f"did you mean {close}?" if close else f"known are {', '.join(COLUMNS)}"
            yield Fault(place, printable(name), f"unknown column; {known}")
        elif columns.count(name) > 1:
            yield Fault(place, name, "is there twice")


def repetitions(wishes: Sequence[Wish]) -> Iterator[Fault]:
    """Find symbols, in whatever case, and tickers that are named more than once."""
    seen: dict[str, str] = {}
    for wish in wishes:
        # A ticker has a colon, a symbol has none: they do not meet.
        named = (("symbol", wish.asset.symbol.upper()), ("polygon_ticker", wish.asset.polygon_ticker))
        twice = next((pair for pair in named if pair[1] in seen), None)
        if twice:
            yield Fault(wish.place, twice[0], f"{twice[1]} is there twice; the first one is at {seen[twice[1]]}")
        else:
            seen |= dict.fromkeys((value for _, value in named), wish.place)
