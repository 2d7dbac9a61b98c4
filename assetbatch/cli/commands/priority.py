"""`run-priority`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, host
from assetbatch.cli.options import AsJson

if TYPE_CHECKING:
    import typer


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

    from assetbatch.cli import lifecycle, outcome
    from assetbatch.database import schema
    from assetbatch.jobs import priority

    stop = lifecycle.stop_on_signals()
    lifecycle.end_by(config.settings.batch.max_cycle_seconds)
    config.require_api_key()
    with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection:
        schema.check(connection)
        result = priority.run_priority(config, connection, host=host(), stop=stop)
    outcome.tell(result)
