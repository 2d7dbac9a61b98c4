"""`bars coverage`."""

from __future__ import annotations

import typer

from assetbatch.cli.commands import bars_coverage

bars_app = typer.Typer(help="Look at the bars that are stored.", no_args_is_help=True)

bars_app.command("coverage")(bars_coverage.coverage)
