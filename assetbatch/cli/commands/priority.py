"""`run-priority`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import typer

from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host, print_json
from assetbatch.cli.options import AsJson

if TYPE_CHECKING:
    from assetbatch.model import RunResult

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run-priority")(run_priority)


def run_priority(as_json: AsJson = False) -> None:
    """Update the priority assets, in order, before anything else may spend the budget.

    From cron, every five minutes; a run that goes well prints nothing there.

    Example: assetbatch run-priority --json
    """
    current.json = as_json
    config = current.load_config()

    from assetbatch.cli import lifecycle, trouble
    from assetbatch.database import schema
    from assetbatch.jobs import priority
    from assetbatch.report.documents import run_document

    stop = lifecycle.stop_on_signals()
    lifecycle.end_by(config.settings.batch.max_cycle_seconds)
    config.require_api_key()
    with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection:
        schema.check(connection)
        result = priority.run_priority(config, connection, host=host(), stop=stop)
    if as_json:
        print_json(run_document(result))
    elif sys.stdout.isatty():
        sys.stdout.write(_summary(result) + "\n")
    else:
        log.info("%s", _summary(result))
    trouble.tell_failures(result)
    raise typer.Exit(result.exit_code)


def _summary(result: RunResult) -> str:
    parts = [
        f"{len(symbols)} {word} ({', '.join(symbols)})"
        for word, symbols in (
            ("updated", result.updated),
            ("unchanged", result.unchanged),
            ("not due", result.not_due),
            ("failed", [failure.symbol for failure in result.failed]),
        )
        if symbols
    ]
    calls = f"{result.api_calls_used} call{'s' if result.api_calls_used != 1 else ''}"
    did = "; ".join(parts) or ("another run is still going" if result.status == "skipped" else "nothing to do")
    return f"{result.job}: {did}; {calls}, {result.latency_ms / 1000:.1f} s"
