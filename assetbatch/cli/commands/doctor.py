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
    """Look at everything that the jobs rely on: what fails first, with what fixes it. Makes no call to the API.

    What is well stands in one line, with -v in a line each.
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
    else:
        masked = [replace(one, found=current.mask(one.found), hint=current.mask(one.hint)) for one in findings]
        shown = report.by_urgency(masked) if current.verbosity else report.folded(masked)
        if sys.stdout.isatty():
            from assetbatch.report import tables

            tables.console().print(tables.findings_view(shown))
        else:
            sys.stdout.writelines(one.line + "\n" for one in shown)
        more = "" if current.verbosity else "; `assetbatch -v doctor` tells what is well"
        sys.stdout.write(f"{report.summary(findings)}{more}\n")
    if surveyed.config is None:
        raise typer.Exit(EXIT_CONFIGURATION)
    if report.worst(findings) is report.Level.FAIL:
        raise typer.Exit(EXIT_PARTIAL)
