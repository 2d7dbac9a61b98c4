"""`bars export`."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.files import replacing, require_place
from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.options import complete_symbols, span
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.bars.export import Export, Exported
    from assetbatch.report.progress import ProgressBar

log = logging.getLogger(__name__)


class Format(StrEnum):
    """How bars are written."""

    CSV = "csv"
    PARQUET = "parquet"


def export(
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            "--symbol", autocompletion=complete_symbols, help="The bars of this one; may be given several times."
        ),
    ] = None,
    all_symbols: Annotated[bool, typer.Option("--all", help="The bars of all symbols.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From a day or time (UTC) on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before a day or time (UTC).")] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="A file, replaced once all is in it; -: stdout, as CSV.")
    ] = Path("-"),
    data_format: Annotated[
        Format | None, typer.Option("--format", help="Else what the file's name ends in, or csv.")
    ] = None,
    with_open: Annotated[bool, typer.Option("--with-open", help="Bars that are not final, too.")] = False,
    floats: Annotated[
        bool, typer.Option("--float", help="Parquet: numbers as doubles, not as exact decimals.")
    ] = False,
    changed_since: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Only bars that were added or changed since an export gave this cursor."),
    ] = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="As --changed-since with what is in it, once it is there; then the next cursor is."
        ),
    ] = None,
) -> None:
    """Write bars into a file for those who train on them: all of some symbols, or what has changed since a cursor.

    By symbol and time, final bars only. Every export gives a cursor; the next one with that brings each bar once that
    was added or changed meanwhile, as it is then, and misses none. Bars that were deleted are not told. Needs no key,
    and nothing but the right to read.

    Example: assetbatch bars export --all --output bars.parquet --cursor-file bars.cursor
    """
    to_stdout = str(output) == "-"
    if data_format is None:
        data_format = Format.PARQUET if output.suffix.lower() == ".parquet" else Format.CSV
    _refuse(
        ("which bars: give --symbol, or --all", bool(symbol) == all_symbols),
        ("--changed-since and --cursor-file both name a cursor", changed_since is not None and cursor_file is not None),
        (
            "--output and --cursor-file name one file",
            cursor_file is not None and os.path.realpath(cursor_file) == os.path.realpath(output),
        ),
        ("Parquet needs a file: give --output", to_stdout and data_format is Format.PARQUET),
        ("--json has stdout for itself: give --output", to_stdout and current.json),
        ("--float is for Parquet: in CSV numbers have every digit", floats and data_format is Format.CSV),
    )
    begin, end = span(since, until)
    if cursor_file is not None:
        require_place(cursor_file, "--cursor-file")
    if data_format is Format.PARQUET:
        _require_arrow()
    config = current.load_config()

    from assetbatch.database.bars.export import Export, Selection
    from assetbatch.report.progress import ProgressBar

    selection = Selection(
        symbols=symbol,
        since=begin,
        until=end,
        changed_since=changed_since if cursor_file is None else _read_cursor(cursor_file),
        with_open=with_open,
    )
    with (
        ProgressBar.for_terminal(current.command, mask=current.mask) as progress,
        current.installed(config) as connection,
        connection.moment(),
    ):
        exporting = Export(connection, selection)
        if cursor_file is not None and exporting.done.cursor is None:
            raise _no_cursor()
        blocks = _shown(exporting, progress)
        with nullcontext(sys.stdout.buffer) if to_stdout else replacing(output, mode=_mode()) as file:
            _write(file, blocks, data_format, floats=floats)
            file.flush()
    done = exporting.done
    if cursor_file is not None:
        with replacing(cursor_file, mode=_mode(), option="--cursor-file") as file:
            file.write(f"{done.cursor}\n".encode())
    _tell(done, None if to_stdout else output, data_format, is_cursor_kept=cursor_file is not None)


def _refuse(*faults: tuple[str, bool]) -> None:
    for words, is_one in faults:
        if is_one:
            raise typer.BadParameter(words)


def _require_arrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        from assetbatch.errors import ConfigurationError, Fault
        from assetbatch.installed import how_to_add

        raise ConfigurationError([Fault("", "", "Parquet needs the package pyarrow")], hint=how_to_add("pyarrow"))


def _no_cursor() -> Exception:
    from assetbatch.errors import DatabaseUnavailableError

    return DatabaseUnavailableError("a standby gives no cursor", hint="name the primary server, not a standby")


def _read_cursor(file: Path) -> str | None:
    try:
        return file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="--cursor-file") from None


def _mode() -> int:
    """Return the mode of files that this user makes."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _shown(exporting: Export, progress: ProgressBar | None) -> Iterator[bytes]:
    for block in exporting.blocks():
        if progress is not None:
            progress(exporting.done.rows, exporting.done.most)
        yield block


def _write(file: IO[bytes], blocks: Iterator[bytes], data_format: Format, *, floats: bool) -> None:
    if data_format is Format.PARQUET:
        from assetbatch.arrow import write_parquet

        write_parquet(file, blocks, floats=floats)
        return
    from assetbatch.database.bars.export import COLUMNS

    file.write(f"{','.join(COLUMNS)}\n".encode())
    for block in blocks:
        file.write(block)


def _tell(done: Exported, file: Path | None, data_format: Format, *, is_cursor_kept: bool) -> None:
    """Tell what was written: the document, or a line, where somebody looks or has to know the cursor."""
    if current.json:
        print_json(
            {
                "file": str(file),
                "format": data_format.value,
                "rows": done.rows,
                "symbols": done.symbols,
                "cursor": done.cursor,
            }
        )
        return
    where = "" if file is None else f" in {file}"
    words = f"bars export: {counted(done.rows, 'bar')} of {counted(len(done.symbols), 'symbol')}{where}"
    shown = sys.stderr if file is None else sys.stdout
    if current.quiet and file is None:
        return
    if not is_cursor_kept and done.cursor is not None:
        shown.write(f"{words}; cursor {done.cursor}\n")
    elif shown.isatty():
        shown.write(f"{words}\n")
    else:
        log.info("%s", words)
