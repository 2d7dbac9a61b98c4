"""Bars as Arrow tables and Parquet files. Owns pyarrow, of the extra `export`, and is imported by who needs that."""

from __future__ import annotations

import csv
import os
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from functools import partial
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from assetbatch import config as configuration
from assetbatch import threads
from assetbatch.database import errors, opening
from assetbatch.database.bars.export import COLUMNS, Export, Selection
from assetbatch.database.setup import schema
from assetbatch.errors import UnfitNumberError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

NUMBERS = ("open", "high", "low", "close", "volume", "vwap")
# 20 digits before the point, 18 behind it: one type for all exports, so that files of several make one data set.
PRECISION, SCALE = 38, 18
DECIMAL = pa.decimal128(PRECISION, SCALE)
DIGITS_OF_A_DECIMAL = f"decimals have {PRECISION - SCALE} digits before the point and {SCALE} behind it"
TIME = pa.timestamp("us", tz="UTC")
CURSOR_KEY = b"assetbatch.cursor"
# Of blocks one after another, Arrow's own allocators keep twice as much.
POOL = pa.system_memory_pool()

# Arrow takes more digits before the point than the type has, unnoticed: where there may be such, written out or, by a
# platform's doubles, as 1e+25, the block is read with care.
DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
TOO_MANY = b"0" * (PRECISION - SCALE + 1)
EXPONENT = b"e+"


def bars_schema(*, floats: bool = False) -> pa.Schema:
    """Return the columns of exported bars: numbers as decimal128(38, 18), or as doubles; times in UTC."""
    types: dict[str, Any] = dict.fromkeys(COLUMNS, pa.float64() if floats else DECIMAL)
    types |= {"symbol": pa.string(), "ts": TIME, "trades": pa.int64(), "is_final": pa.bool_(), "fetched_at": TIME}
    return pa.schema([(name, types[name]) for name in COLUMNS])


def table_of(block: bytes, *, floats: bool = False) -> pa.Table:
    """Return lines of `Export.blocks` as a table. Raises UnfitNumberError, with symbol, time and column."""
    wanted = bars_schema(floats=floats)
    if floats or (TOO_MANY not in block.translate(DIGITS) and EXPONENT not in block):
        try:
            return arrow_csv.read_csv(
                pa.py_buffer(block),
                memory_pool=POOL,
                read_options=arrow_csv.ReadOptions(
                    column_names=wanted.names, use_threads=False, block_size=len(block) + 1
                ),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=wanted, null_values=[""], true_values=["true"], false_values=["false"]
                ),
            )
        except pa.ArrowInvalid:
            pass
    return _exactly(block, wanted, floats=floats)


def _exactly(block: bytes, wanted: pa.Schema, *, floats: bool) -> pa.Table:
    """Read what Arrow does not by itself: zeros behind the last digit, whole numbers of a platform's numeric or double.

    Raises UnfitNumberError for other digits.
    """
    rows = list(csv.DictReader(StringIO(block.decode(), newline=""), fieldnames=COLUMNS))
    read: dict[str, Callable[[str], object]] = dict.fromkeys(NUMBERS, float if floats else _number)
    read |= {"symbol": str, "ts": datetime.fromisoformat, "fetched_at": datetime.fromisoformat}
    read |= {"trades": _whole, "is_final": "true".__eq__}
    for row in rows:
        for name in () if floats else NUMBERS:
            if row[name] and not _fits(_number(row[name])):
                raise _unfit(row, name, DIGITS_OF_A_DECIMAL)
        if row["trades"] and not _is_whole(_number(row["trades"])):
            raise _unfit(row, "trades", "it is no whole number of 64 bits")
    return pa.table(
        {name: [read[name](row[name]) if row[name] else None for row in rows] for name in COLUMNS}, schema=wanted
    )


def _unfit(row: dict[str, str], name: str, rule: str) -> UnfitNumberError:
    others = "as CSV" if name == "trades" else "with --float (floats=True), or as CSV"
    return UnfitNumberError(
        f"{row['symbol']} {row['ts']}: {name} {row[name]} does not fit: {rule}",
        hint=f"export {others}, which keeps every digit",
    )


def _number(text: str) -> Decimal:
    """Read a number, and leave out zeros behind its last digit."""
    number = Decimal(text)
    return number.normalize(Context(prec=len(text))) if number.is_finite() else number


def _whole(text: str) -> int:
    return int(Decimal(text))


def _is_whole(number: Decimal) -> bool:
    return number.is_finite() and number == number.to_integral_value() and -(2**63) <= number < 2**63


def _fits(number: Decimal) -> bool:
    _, digits, exponent = number.as_tuple()
    return isinstance(exponent, int) and -exponent <= SCALE and len(digits) + exponent <= PRECISION - SCALE


def write_parquet(file: IO[bytes], blocks: Iterable[bytes], *, floats: bool = False) -> None:
    """Write blocks of lines into a Parquet file, a row group each, in as much memory as two blocks take.

    Raises UnfitNumberError, NoThreadError.
    """
    with pq.ParquetWriter(file, bars_schema(floats=floats), compression="zstd", compression_level=1) as writer:
        under_way: Future[None] | None = None
        try:
            for block in blocks:
                if under_way is not None:
                    under_way.result()
                # While one block is written, the next one comes.
                write = partial(_write, writer, block, floats=floats)
                under_way = threads.begin(write, name="parquet")
            if under_way is not None:
                under_way.result()
        finally:
            # It writes into a file that is closed next.
            if under_way is not None:
                under_way.exception()


def _write(writer: Any, block: bytes, *, floats: bool) -> None:
    writer.write_table(table_of(block, floats=floats))


def bars_table(
    symbols: str | Sequence[str] | None = None,
    *,
    since: date | str | None = None,
    until: date | str | None = None,
    changed_since: str | bytes | None = None,
    with_open: bool = False,
    floats: bool = False,
    database: str | None = None,
    config: str | Path | None = None,
) -> pa.Table:
    """Return 5-minute bars as a table: a row a bar, by symbol and time, as `assetbatch bars export` writes them.

    Columns: symbol (string); ts, the bar's open (timestamp[us, UTC]); open, high, low, close, volume, vwap
    (decimal128(38, 18), every digit as the vendor sent it; with `floats` double); trades (int64); is_final (bool);
    fetched_at (timestamp[us, UTC]). Prices are in the quote currency, volume in units of what is traded, as the vendor
    counts them (see Bars). What the vendor does not have is null.

    `symbols` are those of trading.symbols, one or several; None: all that have bars. `since` and `until` (not
    included) bound ts: a datetime, a date, or a text such as 2026-01-31, in UTC where it has no zone. Bars that are
    still open come only `with_open`. The table is as large as what it holds: some 150 bytes a bar.

    `table.schema.metadata[b"assetbatch.cursor"]` is the cursor of this moment: with it as `changed_since` the next
    call brings exactly the bars that were added or changed by then, each once, as it is by then. Bars that were
    deleted are not told. A standby gives no cursor.

    `database` is a URL, postgresql://…; else the configuration names it: `config`, else the file and the variables
    that the commands go by. The role may be one that only reads. Needs pyarrow (`assetbatch[export]`).

    Raises assetbatch.errors.UnknownSymbolsError; CursorError for a cursor of another database, of before a restore or
    a failover, or older than bars.changes_retention_days; UnfitNumberError for a number of more than 20 digits before
    the point or 18 behind it; SchemaError, ConfigurationError, DatabaseUnavailableError. ValueError for a text that is
    no time, and for times of which `since` is not before `until`.
    """
    begin, end = _moment(since), _moment(until)
    if begin is not None and end is not None and begin >= end:
        raise ValueError("since is not before until")
    selection = Selection(
        symbols=[symbols] if isinstance(symbols, str) else symbols,
        since=begin,
        until=end,
        changed_since=changed_since.decode() if isinstance(changed_since, bytes) else changed_since,
        with_open=with_open,
    )
    if database is None:
        file = None if config is None else Path(config)
        named = configuration.load(file=file, environ=os.environ, cwd=Path.cwd()).database
    else:
        named = configuration.database_of(database)
    folder = configuration.data_folder(os.environ)
    with (
        errors.translated_errors(named.described),
        opening.connect(named, folder, job="bars_table") as connection,
    ):
        schema.check(connection)
        with connection.moment():
            export = Export(connection, selection)
            tables = [table_of(block, floats=floats) for block in export.blocks()]
    wanted = bars_schema(floats=floats)
    cursor = export.done.cursor
    return pa.concat_tables([wanted.empty_table(), *tables]).replace_schema_metadata(
        None if cursor is None else {CURSOR_KEY: cursor}
    )


def _moment(given: date | str | None) -> datetime | None:
    found = datetime.fromisoformat(given) if isinstance(given, str) else given
    if found is None:
        return None
    if not isinstance(found, datetime):
        return datetime(found.year, found.month, found.day, tzinfo=UTC)
    # Two times of one zone are compared by their wall clocks, which show an hour twice when they are set back.
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
