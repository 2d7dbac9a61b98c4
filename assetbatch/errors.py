"""Every error that can end a command or a call, in one tree; those that never leave their room stand there.

    AssetbatchError                 1
    ├── ConfigurationError         78   one or more faults, each with its place
    ├── SchemaError                78   the database's schema is absent, too old or too new
    ├── SourceMismatchError        78   the database belongs to another source of prices
    ├── DatabaseUnavailableError   69
    ├── LeaseLostError             69   another run of the job has taken over
    ├── NoThreadError              69   the system gives the process no further thread
    ├── failures.CallError  3, 69, 77   one call to the vendor; its kind says the rest
    ├── UnknownSymbolsError         2   neither the platform nor the catalogue has a symbol that was asked for
    ├── CursorError                 2   what has changed since a cursor cannot be told
    ├── UnfitNumberError            3   a number has more digits than the type that it is to be exported as
    └── AnswerLostError             3   stdout, or the file that was named for it, could not be written

    Interrupted         129, 130, 143   SIGHUP, SIGINT, SIGTERM; no Exception: who handles those lets it pass

Each carries a `reason` (what happened), a `hint` (what to do next) and the exit code of the command that it ends.
What a failed call means is decided elsewhere: see `failures`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_KEY_REFUSED = 77
EXIT_CONFIGURATION = 78


class ExitCode(Struct, frozen=True):
    """What an exit code means; `more` is for who looks it up."""

    code: str
    meaning: str
    more: str = ""


EXIT_CODES = (
    ExitCode(
        "0",
        "done (also when nothing was due, or another run of the same job is going on)",
        "Another run of the same job is waited for, 10 seconds long; of `backfill` see 75.",
    ),
    ExitCode(f"{EXIT_BUG}", "an unexpected error", "This is a bug; the log has its traceback."),
    ExitCode(
        f"{EXIT_USAGE}", "wrong usage", "Nothing was done: an option, an argument, a symbol or a cursor is not known."
    ),
    ExitCode(
        f"{EXIT_PARTIAL}",
        "done in part: a priority asset failed, an item became a dead letter, an outage ended the run early, or stdout"
        " or a file could not be written",
        "All other assets are up to date. Of `doctor`: something fails. Of `bars export`: a number does not fit, and no"
        " file was written.",
    ),
    ExitCode(
        f"{EXIT_UNAVAILABLE}",
        "the database, or the API for anything at all, could not be reached",
        "That is so after retries. A database that is read only, a run that stood still until another one took over,"
        " and a process that gets no further thread end so, too.",
    ),
    ExitCode(
        f"{EXIT_BUSY}",
        "nothing was fetched by `backfill`, another one was still going",
        "It was waited for as long as `--wait` says.",
    ),
    ExitCode(f"{EXIT_KEY_REFUSED}", "the API refused the key", "It is wrong, expired or revoked."),
    ExitCode(
        f"{EXIT_CONFIGURATION}",
        "the configuration or the schema is wrong",
        "Every fault of the configuration is named at once; a schema is absent, or of a version that this program does"
        " not work with, or the database has another source of prices.",
    ),
    ExitCode(
        ", ".join(str(128 + one) for one in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)),
        "ended by a signal",
        "SIGHUP (a lost terminal; not under `nohup`), SIGINT, SIGTERM: a clean stop, within 2 seconds.",
    ),
)

NO_THREAD_HINT = (
    "raise the limit that is reached: pids of the container, TasksMax= of the unit, or processes of the user"
)


class AssetbatchError(Exception):
    """Something went wrong that the tool knows of."""

    exit_code = EXIT_BUG

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Fault(Struct, frozen=True):
    """One thing that is wrong with the configuration, and where: `place` is `config.yaml:12` or an environment name.

    `hint`: what to do next, where the message has not said it.
    """

    place: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.message) if part)


class ConfigurationError(AssetbatchError):
    """The configuration is wrong; carries all faults at once, one line each."""

    exit_code = EXIT_CONFIGURATION

    def __init__(self, faults: Sequence[Fault], *, hint: str = "") -> None:
        hints = dict.fromkeys(fault.hint for fault in faults if fault.hint)
        super().__init__("\n".join(map(str, faults)), hint=hint or "\n".join(hints))
        self.faults = tuple(faults)


class SchemaError(AssetbatchError):
    """The database's schema is absent, or of a version that this program does not work with."""

    exit_code = EXIT_CONFIGURATION


class SourceMismatchError(AssetbatchError):
    """The database was filled from another source: prices of two sources never mix."""

    exit_code = EXIT_CONFIGURATION


class DatabaseUnavailableError(AssetbatchError):
    """PostgreSQL could not be reached, after waiting for it."""

    exit_code = EXIT_UNAVAILABLE


class LeaseLostError(AssetbatchError):
    """The run stood still for so long that another one has taken over."""

    exit_code = EXIT_UNAVAILABLE


class NoThreadError(AssetbatchError):
    """The system gives the process no further thread: a limit of the user, the unit or the container is reached."""

    exit_code = EXIT_UNAVAILABLE

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(f"no thread could be started: {error}", hint=NO_THREAD_HINT)


class UnknownSymbolsError(AssetbatchError):
    """Symbols were asked for that are neither in trading.symbols nor in the catalogue."""

    exit_code = EXIT_USAGE

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(f"unknown: {named(symbols, most=10)}", hint="`assetbatch symbols list` shows the catalogue")
        self.symbols = tuple(symbols)


class CursorError(AssetbatchError):
    """A cursor is none, of another database or another history, or too old: what has changed since cannot be told."""

    exit_code = EXIT_USAGE


class UnfitNumberError(AssetbatchError):
    """A bar's number has more digits than the type that it is to be exported as."""

    exit_code = EXIT_PARTIAL


class AnswerLostError(AssetbatchError):
    """What a command had to print, or to write into a `file`, could not be; what it did before that is done."""

    exit_code = EXIT_PARTIAL

    def __init__(self, error: OSError, file: Path | None = None) -> None:
        super().__init__(
            f"{file or 'the answer'} could not be written: {error.strerror or error}",
            hint=f"{'see where stdout goes: ' if file is None else ''}is its disk full?",
        )
        self.is_unread = isinstance(error, BrokenPipeError)


class Interrupted(BaseException):
    """A signal asked the run to end."""

    hint = ""

    def __init__(self, signum: int) -> None:
        self.reason = f"ended by {signal.Signals(signum).name}"
        self.exit_code = 128 + signum
        super().__init__(self.reason)
