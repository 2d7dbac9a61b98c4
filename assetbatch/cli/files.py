"""A file that a command writes: all of it in the file's place at once, or nothing."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import typer

from assetbatch.errors import AnswerLostError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(file: Path, *, mode: int, option: str = "--output") -> Iterator[IO[bytes]]:
    """Open what takes the file's place when the block ends well: who reads meanwhile sees the old one or the new one.

    A device or a pipe is written to as it is. Raises BadParameter, of the option, where nothing can be written there;
    AnswerLostError where not all of it could be, as on a full disk.
    """
    made: Path | None = None
    with _refused(file, option):
        target = _target(file)
        if target is None:
            opened = file.open("wb")
        else:
            # No name that whoever collects such files takes for one of them.
            number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
            made, opened = Path(name), os.fdopen(number, "wb")
    try:
        with opened:
            yield opened
            if made is not None:
                os.fchmod(opened.fileno(), mode)
                opened.flush()
                os.fsync(opened.fileno())
        if made is not None and target is not None:
            made.replace(target)
            made = None
    except OSError as error:
        raise AnswerLostError(error, file) from None
    finally:
        if made is not None:
            with suppress(OSError):
                made.unlink()


def require_place(file: Path, option: str) -> None:
    """Raise BadParameter, of the option, where `replacing` could not begin: before there is something to lose."""
    with _refused(file, option):
        if (target := _target(file)) is not None:
            tempfile.TemporaryFile(dir=target.parent).close()


def _target(file: Path) -> Path | None:
    """Return what is to be replaced: behind a link, what it leads to. None: a device or a pipe, perhaps without a path.

    A pipe of the shell's has no other path than one below /dev/fd.
    """
    with suppress(FileNotFoundError):
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            return None
    return Path(os.path.realpath(file))


@contextmanager
def _refused(file: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint=option) from None
