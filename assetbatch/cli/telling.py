"""How trouble gets to stderr: in full, or, where nobody looks and it was told before, in one line now and then."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch import config as configuration
from assetbatch.cli.invocation import SYSLOG_PRIORITIES, LogFormat, current
from assetbatch.cli.trouble_state import Cause, End, Telling, Verdict, review
from assetbatch.schedule import JOBS
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

# What cron or a timer starts again and again. Others are started by somebody, or by a script that wants the answer.
SCHEDULED = frozenset({*JOBS, "metrics"})


class _Gathered(logging.Filter):
    """Keeps a handler's warnings back until the run has ended: then it is known which were told before."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._kept: dict[str, tuple[Cause, list[str]]] = {}
        self._is_released = False

    def release(self) -> list[tuple[Cause, list[str]]]:
        """Return the warnings, those of one cause together, and keep nothing from now on."""
        kept, self._kept, self._is_released = [*self._kept.values()], {}, True
        return kept

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a warning, let all else pass."""
        if self._is_released or record.levelno != logging.WARNING:
            return True
        # The words before anything was put into them: about another asset it is the same warning.
        key = f"{record.name} {record.msg}"
        _, lines = self._kept.setdefault(key, (cause(key, record.getMessage(), fails=False), []))
        lines.append(self._handler.format(record))
        return False


class _State(Struct):
    """What this process has gathered, and whether that was told."""

    gathered: list[_Gathered] = field(default_factory=list)
    is_weighed: bool = False


_state = _State()


def begin() -> None:
    """Keep the log's warnings for the end of the run, where they may have been told before."""
    _state.gathered, _state.is_weighed = [], False
    if is_kept_in_mind():
        for handler in logging.getLogger("assetbatch").handlers:
            _state.gathered.append(_Gathered(handler))
            handler.addFilter(_state.gathered[-1])


def finish(*, well: bool) -> None:
    """Report what nobody has told yet: warnings of the log, and that earlier trouble has ended."""
    if not _state.is_weighed:
        weigh([], well=well, exit_code=0)


def is_kept_in_mind() -> bool:
    """Return whether earlier runs count: a person who looks, or who asked for the story, is told everything."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    attended = any(stream is not None and stream.isatty() for stream in streams)
    return current.command in SCHEDULED and not current.verbosity and not attended


def cause(key: str, about: str, *, fails: bool = True, lasts: bool = True) -> Cause:
    """Make a cause; of its key only a digest is kept, and no secret of its words."""
    digest = hashlib.sha256(f"{fails} {key}".encode(errors="replace")).hexdigest()[:16]
    return Cause(digest, current.mask(" ".join(about.split())), fails, lasts)


def weigh(causes: Sequence[Cause], *, well: bool, exit_code: int) -> list[bool]:
    """Decide which causes are to be told in full; what takes one line is told here, as are the log's warnings.

    `well`: what this run does not meet has ended.
    """
    _state.is_weighed = True
    kept = [warning for gathered in _state.gathered for warning in gathered.release()]
    everything = [*causes, *(one for one, _ in kept)]
    verdicts, ends = _review(everything, well=well)
    in_full = [verdict.telling is Telling.FULL for verdict in verdicts]
    for end in ends:
        if end.fails or not current.quiet:
            _say_ended(end)
    for (_, lines), is_told in zip(kept, in_full[len(causes) :], strict=True):
        if is_told:
            sys.stderr.write("".join(line + "\n" for line in lines))
    for one, verdict in zip(everything, verdicts, strict=True):
        if verdict.telling is Telling.STILL:
            _say_still(one, verdict, exit_code)
    return in_full[: len(causes)]


def _review(causes: Sequence[Cause], *, well: bool) -> tuple[Sequence[Verdict], Sequence[End]]:
    if is_kept_in_mind():
        try:
            folder, who = configuration.state_folder(os.environ), f"{current.whereabouts()} {current.command}"
            return review(folder, who, causes, well=well, now=time.time())
        except OSError as error:
            log.info("what was told is not known, so all of it is told: %s", error)
    return [Verdict(Telling.FULL)] * len(causes), []


def _say_still(one: Cause, verdict: Verdict, exit_code: int) -> None:
    lasted = f"{_lasting(verdict.seconds)}, {counted(verdict.runs, 'run')}"
    line = f"assetbatch {current.command}: still: {one.about}, for {lasted}"
    facts = {"exit_code": exit_code, "repeated": True, "reason": one.about}
    facts |= {"seconds": round(verdict.seconds), "runs": verdict.runs}
    say([line], facts, level=logging.ERROR if one.fails else logging.WARNING)


def _say_ended(end: End) -> None:
    lasted = f"after {_lasting(end.seconds)}, {counted(end.runs, 'run')}"
    words = f"well again {lasted} failed" if end.fails else f"ended {lasted}: {end.about}"
    facts = {"exit_code": 0, "ended": True, "reason": end.about, "seconds": round(end.seconds), "runs": end.runs}
    say([f"assetbatch {current.command}: {words}"], facts, level=logging.INFO)


def say(lines: Sequence[str], facts: Mapping[str, object], *, level: int = logging.ERROR) -> None:
    """Write a block, or with --json its facts in one line."""
    if sys.stderr is None:
        return
    if current.json or current.log_format is LogFormat.JSON:
        document = {"schema": "assetbatch.trouble/1", "command": current.command} | dict(facts)
        text = json.dumps(current.mask(document))
    else:
        text = current.mask("\n  ".join(line for line in lines if line))
        if current.log_format is LogFormat.JOURNALD:
            text = "\n".join(f"<{SYSLOG_PRIORITIES[level]}>{line}" for line in text.splitlines())
    sys.stderr.write(text + "\n")


def _lasting(seconds: float) -> str:
    minutes = int(seconds // 60)
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        # 90 minutes say more than 1 hour.
        if minutes >= (2 * size if size > 1 else size):
            return counted(minutes // size, unit)
    return "less than a minute"
