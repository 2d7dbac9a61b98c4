"""Trouble, told in one block on stderr: what failed, for which assets, why, and what to do next."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from assetbatch.cli.invocation import current
from assetbatch.errors import EXIT_KEY_REFUSED, KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.errors import AssetbatchError, FailureKind
    from assetbatch.model import RunResult


# More would bury the cause.
MOST_NAMED = 10


def _print(lines: Sequence[str], facts: dict[str, object]) -> None:
    if current.json:
        document = {"schema": "assetbatch.trouble/1", "command": current.command} | facts
        text = json.dumps(current.mask(document))
    else:
        text = current.mask("\n  ".join(line for line in lines if line))
    sys.stderr.write(text + "\n")


def tell_error(error: AssetbatchError) -> None:
    """Tell of an error that ended the command."""
    command = f"assetbatch {current.command}".strip()
    _print(
        [f"{command}: {_indented(error.reason)}", f"Next: {_indented(error.hint)}" if error.hint else ""],
        {"exit_code": error.exit_code, "reason": error.reason, "hint": error.hint},
    )


def tell(reason: str, *, exit_code: int = 0) -> None:
    """Tell of something that did not go as it was asked."""
    _print([f"assetbatch {current.command}: {reason}"], {"exit_code": exit_code, "reason": reason, "hint": ""})


def tell_failures(result: RunResult) -> None:
    """Tell of the assets that a run could not update, those of one cause together, and of what else went wrong."""
    if not result.failed and not result.ended_by and not result.warnings:
        return
    causes: dict[tuple[FailureKind, str], list[str]] = {}
    for failure in result.failed:
        causes.setdefault((failure.kind, failure.error), []).append(failure.symbol)
    lines = [f"assetbatch {result.job}: {_summary(result)}"]
    if result.ended_by:
        lines.append(f"{result.ended_by.kind}: {result.ended_by.error}")
    lines += [f"{named(symbols)}: {kind}: {error}" for (kind, error), symbols in causes.items()]
    kinds = [*([result.ended_by.kind] if result.ended_by else []), *(kind for kind, _ in causes)]
    lines += [f"Next: {hint}" for hint in dict.fromkeys(KINDS[kind].hint for kind in kinds)]
    lines += [f"Next: `assetbatch queue retry {result.dead[0]}` once that is mended"] if result.dead else []
    lines += result.warnings
    _print(
        lines,
        {
            "exit_code": result.exit_code,
            "failed": [{"symbol": one.symbol, "kind": one.kind, "error": one.error} for one in result.failed],
            "ended_by": None if result.ended_by is None else asdict(result.ended_by),
            "warnings": list(result.warnings),
        },
    )


def named(symbols: Sequence[str]) -> str:
    """Name the first of them."""
    more = len(symbols) - MOST_NAMED
    return ", ".join(symbols[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _summary(result: RunResult) -> str:
    if result.exit_code == EXIT_KEY_REFUSED:
        return "the API refused the key"
    good = len(result.updated) + len(result.unchanged)
    if result.ended_by:
        return f"ended early, after {good} assets; {result.remaining} wait on the queue"
    if not result.failed:
        return "done, but"
    what = "are dead letters now" if result.dead else "failed"
    return f"{len(result.failed)} of {len(result.failed) + good} assets {what}" + (
        ", the others are stored" if good else ""
    )


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")
