"""`run-priority`."""

from __future__ import annotations

from assetbatch.cli.invocation import current


def run_priority() -> None:
    """Update the priority assets, in order, before anything else may spend the budget.

    From cron, every five minutes; a run that goes well prints nothing there.

    Example: assetbatch run-priority --json
    """
    config = current.load_config()

    from assetbatch.cli import job
    from assetbatch.jobs import priority

    job.run(
        config,
        lambda start, _: priority.run_priority(start),
        max_seconds=config.settings.batch.max_cycle_seconds,
        needs_key=True,
    )
