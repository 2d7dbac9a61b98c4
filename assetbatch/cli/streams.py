"""stdout and stderr as they are, but that they may fail: on a full disk, without a reader, or closed from the start."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from assetbatch.errors import AnswerLostError

LEGIBLE = "assetbatch.legible"


class _Answer(io.FileIO):
    """stdout: that it cannot be written ends the command, once; whatever is still flushed then goes nowhere."""

    _is_lost = False

    def write(self, data: Any, /) -> int:
        """Raise AnswerLostError at the first failure."""
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            raise AnswerLostError(error) from None


class _Log(io.FileIO):
    """stderr: nobody can be told that it cannot be written; the exit code says how the command went."""

    def write(self, data: Any, /) -> int:
        """Never fail."""
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def prepare() -> None:
    """Put them in the place of Python's own. One that was closed (`2>&-`) becomes the null device: that is no error."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    codecs.register_error(LEGIBLE, _legible)
    # Line by line as Python's own: a log that is followed is up to date, whatever it is written to.
    sys.stdout, sys.stderr = _over(_Answer, sys.stdout, LEGIBLE), _over(_Log, sys.stderr, sys.stderr.errors)


def _over(kind: type[io.FileIO], stream: TextIO, errors: str | None) -> TextIO:
    raw = kind(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, errors, line_buffering=bool(stream.line_buffering))


def _legible(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write a file's name as its bytes are, and a question mark for a letter that the terminal does not have."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)
