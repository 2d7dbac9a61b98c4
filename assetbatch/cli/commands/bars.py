"""`bars`: what is stored of bars, for those who use them."""

from __future__ import annotations

import typer

from assetbatch.cli.commands import bars_coverage, bars_export

bars_app = typer.Typer(help="Take bars out of the database, and see which are there.", no_args_is_help=True)
bars_app.command("export")(bars_export.export)
bars_app.command("coverage")(bars_coverage.coverage)
