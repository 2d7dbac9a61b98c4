"""A file that a command writes: all of it in the file's place at once, or nothing."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(file: Path, *, mode: int, option: str = "--output") -> Iterator[IO[bytes]]:
    """Open what takes the file's place when the block ends well: who reads meanwhile sees the old one or the new one.

    A device or a pipe is written to as it is. Raises BadParameter, of the option, where the file cannot be written.
    """
    made: Path | None = None
    try:
        target = file.resolve()
        if target.exists() and not target.is_file():
            with target.open("wb") as opened:
                yield opened
            return
        # No name that whoever collects such files takes for one of them.
        number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        made = Path(name)
        with os.fdopen(number, "wb") as opened:
            os.fchmod(opened.fileno(), mode)
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        made.replace(target)
        made = None
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint=option) from None
    finally:
        if made is not None:
            with suppress(OSError):
                made.unlink()
