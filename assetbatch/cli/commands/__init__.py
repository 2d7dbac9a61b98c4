"""A group of commands is registered by one module; what a command needs is imported when it runs: each starts fast."""

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
    symbols,
)

if TYPE_CHECKING:
    import typer


def register(app: typer.Typer) -> None:
    """Add all commands to the command line, in the order of `--help`."""
    for module in (
        priority,
        queue,
        bars,
        symbols,
        status,
        events,
        metrics,
        doctor,
        outlook,
        installation,
        database,
        configuration,
        sandbox,
    ):
        module.register(app)
