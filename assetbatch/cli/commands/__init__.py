"""Which commands there are; one is imported and made when it is asked for, and imports what it needs when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer

from assetbatch.cli import global_options
from assetbatch.cli.invocation import current

# In the order of `--help`; each by its module and its function, or its Typer of several commands.
COMMANDS = {
    "run-priority": "priority:run_priority",
    "drain-queue": "queue:drain_queue",
    "enqueue-secondary": "queue:enqueue_secondary",
    "backfill": "backfill:backfill",
    "stream": "stream:stream",
    "status": "status:status",
    "metrics": "metrics:metrics",
    "doctor": "doctor:doctor",
    "probe": "outlook:probe",
    "forecast": "outlook:forecast",
    "init": "installation:init",
    "sandbox": "sandbox:sandbox",
    "bars": "bars:bars_app",
    "chart": "chart:chart",
    "queue": "queue:queue_app",
    "symbols": "symbols:symbols_app",
    "events": "events:events_app",
    "database": "database:database_app",
    "config": "configuration:config_app",
    "install": "install:install_app",
}


class Commands(Mapping[str, Any]):
    """The commands by their names, each with the global options."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return a command, made at most once."""
        if name not in self._made:
            self._made[name] = _make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _make(name: str) -> Any:
    module, _, function = COMMANDS[name].partition(":")
    found = getattr(import_module(f"{__name__}.{module}"), function)
    app = typer.Typer()
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
    else:
        app.command(name)(found)
    command = typer.main.get_group(app).commands[name]
    if current.json:
        # Its help is no JSON: that a command of it is missing is told as any other wrong usage.
        command.no_args_is_help = False
    global_options.add_to(command, name)
    return command
