"""`doctor`."""

from __future__ import annotations

import os
import sys

import typer
from msgspec.structs import replace

from assetbatch import config as configuration
from assetbatch.cli.invocation import current, print_json, working_folder
from assetbatch.errors import EXIT_CONFIGURATION, EXIT_PARTIAL

# Its own steps are bounded; starting an embedded server may take this long.
MAX_SECONDS = 60.0


def doctor() -> None:
    """Look at everything that the jobs rely on: a line each, with what fixes it. Makes no call to the API.

    Exits with 0 when nothing fails, warnings or not; 3 when something does; 78 when the configuration has faults.

    Example: assetbatch doctor
    """
    from assetbatch.cli import lifecycle
    from assetbatch.config.loading import survey
    from assetbatch.report import doctor as report

    lifecycle.end_by(MAX_SECONDS)
    surveyed = survey(file=current.config_file, environ=os.environ, cwd=working_folder())
    current.secrets = surveyed.secrets
    findings = report.examine(surveyed, configuration.data_folder(os.environ))
    if current.json:
        print_json(current.mask(report.document(findings)))
    elif sys.stdout.isatty():
        from assetbatch.report import tables

        shown = [replace(one, found=current.mask(one.found), hint=current.mask(one.hint)) for one in findings]
        tables.console().print(tables.findings_view(shown))
    else:
        sys.stdout.writelines(current.mask(one.line) + "\n" for one in findings)
    if surveyed.config is None:
        raise typer.Exit(EXIT_CONFIGURATION)
    if report.worst(findings) is report.Level.FAIL:
        raise typer.Exit(EXIT_PARTIAL)
