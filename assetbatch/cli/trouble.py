"""Trouble, told in one block on stderr: what failed, for which assets, why, and what to do next."""

from __future__ import annotations

import logging
import re
import traceback
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from assetbatch.cli.invocation import current
from assetbatch.cli.telling import cause, say, weigh
from assetbatch.errors import EXIT_BUG, EXIT_KEY_REFUSED, Interrupted
from assetbatch.failures import POLICIES
from assetbatch.model import RunStatus
from assetbatch.words import counted
from assetbatch.words import named as first_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.cli.trouble_state import Cause
    from assetbatch.errors import AssetbatchError
    from assetbatch.failures import FailureKind
    from assetbatch.model import RunResult

log = logging.getLogger(__name__)

# More would bury the cause.
MOST_NAMED = 10
named = partial(first_named, most=MOST_NAMED)
# What makes one and the same trouble read otherwise in the next run: counts, times, ports, processes, requests.
VARYING = r"[\w.:+-]*\d[\w.:+-]*( times)?|\bonce\b"


def tell_error(error: AssetbatchError | Interrupted) -> None:
    """Report an error that ended the command."""
    key = f"{type(error).__name__} {error.exit_code} {_constant(error.reason)}"
    met = cause(key, error.reason.partition("\n")[0], lasts=not isinstance(error, Interrupted))
    if not all(weigh([met], well=False, exit_code=error.exit_code)):
        return
    command = f"assetbatch {current.command}".strip()
    say(
        [f"{command}: {_indented(error.reason)}", f"Next: {_indented(error.hint)}" if error.hint else ""],
        {"exit_code": error.exit_code, "reason": error.reason, "hint": error.hint},
    )


def tell_bug(error: Exception) -> None:
    """Report an error that nobody foresaw, with its traceback."""
    name = type(error).__name__
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    met = cause(" ".join([name, *places]), f"an unexpected error ({name}): this is a bug")
    if all(weigh([met], well=False, exit_code=EXIT_BUG)):
        log.error("an unexpected error: this is a bug", exc_info=error)


def tell(reason: str, *, exit_code: int = 0, hint: str = "") -> None:
    """Report something that did not go as it was asked."""
    level = logging.ERROR if exit_code else logging.WARNING
    facts = {"exit_code": exit_code, "reason": reason, "hint": hint}
    say([f"assetbatch {current.command}: {reason}", f"Next: {hint}" if hint else ""], facts, level=level)


def tell_failures(result: RunResult) -> None:
    """Report the assets that a run could not update, those of one cause together, and of what else went wrong.

    A run that went well tells that earlier trouble has ended.
    """
    by_cause: dict[tuple[FailureKind, str], list[str]] = {}
    for failure in result.failed:
        by_cause.setdefault((failure.kind, failure.error), []).append(failure.symbol)
    kinds = [*([result.ended_by.kind] if result.ended_by else []), *(kind for kind, _ in by_cause)]
    warnings = result.warnings
    if current.quiet and not result.exit_code:
        kinds, warnings = [], ()
    causes = [cause(_constant(warning), warning, fails=False) for warning in warnings]
    causes += [_cause_of(result, kinds)] if kinds else []
    well = not result.exit_code and result.status is not RunStatus.SKIPPED
    in_full = weigh(causes, well=well, exit_code=result.exit_code)
    if not any(in_full):
        return
    lines = [f"assetbatch {result.job}: {_summary(result)}"]
    if kinds and in_full[-1]:
        if result.ended_by:
            lines.append(f"{result.ended_by.kind}: {result.ended_by.error}")
        lines += [f"{named(symbols)}: {kind}: {error}" for (kind, error), symbols in by_cause.items()]
        lines += [f"Next: {hint}" for hint in dict.fromkeys(POLICIES[kind].hint for kind in kinds)]
        lines += [f"Next: `assetbatch queue retry {result.dead[0]}` once that is fixed"] if result.dead else []
    lines += [warning for warning, told in zip(warnings, in_full, strict=False) if told]
    say(
        lines,
        {
            "exit_code": result.exit_code,
            "failed": [{"symbol": one.symbol, "kind": one.kind, "error": one.error} for one in result.failed],
            "ended_by": None if result.ended_by is None else asdict(result.ended_by),
            "warnings": list(warnings),
        },
        level=logging.ERROR if result.exit_code else logging.WARNING,
    )


def _cause_of(result: RunResult, kinds: Sequence[FailureKind]) -> Cause:
    """Return what a run's failures have in common with those of the next, be it about fewer assets or more."""
    ended_by = "" if result.ended_by is None else result.ended_by.kind
    failed = sorted({failure.kind for failure in result.failed})
    words = _summary(result) if result.ended_by is None else result.ended_by.error
    return cause(
        f"{result.exit_code} {ended_by}: {' '.join(failed)}",
        f"{', '.join(dict.fromkeys(kinds))}: {words}",
        fails=bool(result.exit_code),
        lasts=not result.dead,
    )


def _constant(text: str) -> str:
    return re.sub(VARYING, "#", text)


def _summary(result: RunResult) -> str:
    if result.exit_code == EXIT_KEY_REFUSED:
        return "the API refused the key"
    if result.status is RunStatus.SKIPPED:
        return "left to another run"
    good = len(result.updated) + len(result.unchanged)
    if result.ended_by:
        waiting = "" if result.remaining is None else f"; {result.remaining:,} on the queue"
        return f"ended early, after {counted(good, 'asset')}{waiting}"
    if not result.failed:
        return "done, but"
    what = "are dead letters now" if result.dead else "failed"
    return f"{len(result.failed):,} of {len(result.failed) + good:,} assets {what}" + (
        ", the others are up to date" if good else ""
    )


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
