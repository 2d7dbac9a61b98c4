"""Which commands there are; what a command needs is imported when it runs: each starts fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.cli.commands import (
    bars,
    configuration,
    database,
    doctor,
    events,
    installation,
    metrics,
    outlook,
    priority,
    queue,
    sandbox,
    status,
    stream,
    symbols,
)

if TYPE_CHECKING:
    import typer

# In the order of `--help`.
COMMANDS = {
    "run-priority": priority.run_priority,
    "drain-queue": queue.drain_queue,
    "enqueue-secondary": queue.enqueue_secondary,
    "backfill": bars.backfill,
    "stream": stream.stream,
    "status": status.status,
    "metrics": metrics.metrics,
    "doctor": doctor.doctor,
    "probe": outlook.probe,
    "forecast": outlook.forecast,
    "init": installation.init,
    "sandbox": sandbox.sandbox,
}
GROUPS = {
    "queue": queue.queue_app,
    "symbols": symbols.symbols_app,
    "events": events.events_app,
    "database": database.database_app,
    "config": configuration.config_app,
}


def register(app: typer.Typer) -> None:
    """Add all commands to the command line."""
    for name, command in COMMANDS.items():
        app.command(name)(command)
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)
