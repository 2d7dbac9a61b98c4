"""Assets as rows, of config.yaml, of a CSV or of a command line: what is wrong with them, and what they stand for."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from itertools import zip_longest
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Struct

from assetbatch.config.given import Given, Values, printable
from assetbatch.config.keys import fields
from assetbatch.config.settings import PRIORITY_ASSETS, SecondaryAsset
from assetbatch.config.wording import Refusal, did_you_mean, typed
from assetbatch.errors import Fault
from assetbatch.markets import TRAITS, type_of, without_prefix
from assetbatch.model import Asset, AssetType, Priority, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from assetbatch.config.settings import AssetSection, Batch

REQUIRED_COLUMNS = ("symbol", "polygon_ticker")
# In place of both: the vendor's tickers, which are symbols, too, without their prefix.
TICKER_COLUMN = "ticker"
COLUMNS = (*REQUIRED_COLUMNS, "priority", "update_frequency_seconds", "name")
DELIMITERS = ",;\t"


class Row(Struct, frozen=True):
    """An asset of the catalogue to be, and where that stands: `assets.csv:3`; empty: on the command line."""

    place: str
    asset: Asset


class Table(Struct, frozen=True):
    """What a CSV says: the rows that are well-formed, and the faults of the others.

    `repeated`: the places of lines that say once more what a line before them says; each counts once.
    """

    rows: list[Row]
    faults: list[Fault]
    repeated: list[str]


def seconds_of(interval_minutes: float) -> int:
    """Return an interval as an update frequency: whole seconds, at least one."""
    return max(1, round(interval_minutes * 60))


def asset_of(row: AssetSection, role: Role, rank: int, frequency_seconds: int) -> Asset:
    """Return the asset that a row stands for; one that does not say how often is updated each `frequency_seconds`."""
    frequency = row.update_frequency_seconds
    return Asset(
        symbol=row.symbol,
        polygon_ticker=row.polygon_ticker,
        asset_type=AssetType(row.asset_type),
        role=role,
        rank=rank,
        update_frequency_seconds=frequency_seconds if frequency is UNSET else frequency,
        name=row.name,
    )


# --- Rows among one another


def check_config(values: Values, faults: list[Fault]) -> None:
    """Add what is wrong with the well-formed rows of config.yaml, and beside the priority assets by default."""
    keys = [key for key in ("batch.priority_assets", "batch.secondary_assets") if key in values]
    rows = ((f"{key}[{number}]", row) for key in keys for number, row in enumerate(values[key].value))
    check(rows, faults, defaults=() if "batch.priority_assets" in values else PRIORITY_ASSETS)


def check(rows: Iterable[tuple[str, Values]], faults: list[Fault], *, defaults: Iterable[AssetSection] = ()) -> None:
    """Add the faults of rows: ticker against type; a symbol or a ticker twice.

    A symbol is there twice in whatever case, but for types whose tickers may differ by case alone (AMPB, AMpB): both of
    them have to find a name. Each row has its dotted path, where it has one, and its cells, as many as are well-formed.
    """
    seen = {
        key: _Seen(row.symbol, "")
        for row in defaults
        for key in (("symbol", row.symbol), ("polygon_ticker", row.polygon_ticker))
    }
    for path, row in rows:
        key = f"{path}." if path else ""
        symbol, ticker, asset_type = (row.get(name) for name in ("symbol", "polygon_ticker", "asset_type"))
        if ticker and asset_type and (market := type_of(ticker.value)) != asset_type.value:
            message = f"{asset_type.value} does not go with {ticker.value}, which is {market}"
            prefix = TRAITS[AssetType(asset_type.value)].prefix
            if prefix and not TRAITS[market].prefix:
                message += f": did you mean {prefix}{ticker.value}?"
            faults.append(Fault(asset_type.place, f"{key}asset_type", message))
        is_exact = ticker is not None and TRAITS[type_of(ticker.value)].is_case_sensitive
        named = [(("symbol", symbol.value if is_exact else symbol.value.upper()), symbol)] if symbol else []
        named += [(("polygon_ticker", ticker.value), ticker)] if ticker else []
        twice = next(((cell, given, seen[cell]) for cell, given in named if cell in seen), None)
        if twice:
            (name, _), given, first = twice
            faults.append(Fault(given.place, key + name, _twice(given.value, first)))
        else:
            called = symbol.value if symbol else ""
            seen |= {cell: _Seen(called, given.place + (f" ({path})" if path else "")) for cell, given in named}


class _Seen(Struct, frozen=True):
    """Where an asset was named before; an empty place: by the defaults."""

    symbol: str
    place: str


def _twice(word: str, first: _Seen) -> str:
    called = "" if word == first.symbol else f", as {first.symbol}"
    if first.place:
        return f"{word} is there twice; the first one is at {first.place}{called}"
    return (
        f"{word} is a priority asset by default{called}: give batch.priority_assets, too, with those that shall come"
        " first ([]: none), or leave it out here"
    )


def give_way(batch: Batch) -> Batch:
    """Leave out of the default secondary assets those that have become priority assets: that is one change, not two."""
    taken = {word for row in batch.priority_assets for word in (row.symbol.upper(), row.polygon_ticker)}
    left = tuple(row for row in batch.secondary_assets if taken.isdisjoint({row.symbol, row.polygon_ticker}))
    return msgspec.structs.replace(batch, secondary_assets=left)


# --- Rows of texts


def read_row(place: str, cells: Mapping[str, str], *, priority: str, frequency_seconds: int) -> Row | list[Fault]:
    """Return one asset out of texts by column name; `priority` and `frequency_seconds` stand for what is not given."""
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
    row = msgspec.convert({**values, "asset_type": type_of(values["polygon_ticker"])}, SecondaryAsset)
    return Row(place, asset_of(row, Role.SECONDARY, Priority[row.priority], frequency_seconds))


def read_csv(data: bytes, *, name: str, priority: str, frequency_seconds: int) -> Table:
    """Return what a CSV with a header says, as spreadsheets write it: of every line, so that all faults are told.

    A column `ticker` stands for `polygon_ticker`, and for `symbol` where there is none.
    """
    faults: list[Fault] = []
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"is not {error.encoding.upper()}: save it as CSV in UTF-8"
        return Table([], [Fault(f"{name}:{line}", "", message)], [])
    lines = _lines(text, name, faults)
    place, header = next(lines, (f"{name}:1", []))
    columns = [re.sub("[^a-z0-9]+", "_", cell.lower()).strip("_") for cell in header]
    is_of_tickers = TICKER_COLUMN in columns and "polygon_ticker" not in columns
    if is_of_tickers:
        columns[columns.index(TICKER_COLUMN)] = "polygon_ticker"
    names_symbols = "symbol" in columns or not is_of_tickers
    if not faults:
        faults += _header_faults(place, columns if names_symbols else ["symbol", *columns])
    if faults:
        return Table([], faults, [])
    read: list[Row] = []
    for place, texts in lines:
        if len(texts) > len(columns):
            faults.append(Fault(place, "", f"has {len(texts)} columns, the header has {len(columns)}"))
            continue
        # Spreadsheets may leave out what is empty at the end of a line.
        cells = dict(zip_longest(columns, texts, fillvalue=""))
        cells["priority"] = cells.get("priority", "").upper()
        if not names_symbols:
            cells["symbol"] = without_prefix(cells["polygon_ticker"])
        row = read_row(place, cells, priority=priority, frequency_seconds=frequency_seconds)
        if isinstance(row, Row):
            read.append(row)
        else:
            faults += row
    first = {row.asset: row.place for row in reversed(read)}
    rows = [row for row in read if row.place == first[row.asset]]
    check((("", {key: Given(getattr(row.asset, key), row.place) for key in REQUIRED_COLUMNS}) for row in rows), faults)
    return Table(rows, faults, [row.place for row in read if row.place != first[row.asset]])


def _lines(text: str, name: str, faults: list[Fault]) -> Iterator[tuple[str, list[str]]]:
    """Yield each line that is not empty, and its place, without the empty cells at its end."""
    import csv
    import io

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
