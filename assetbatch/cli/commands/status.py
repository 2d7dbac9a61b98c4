"""`status`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.options import AsJson
from assetbatch.errors import AssetbatchError, ConfigurationError

if TYPE_CHECKING:
    from assetbatch.report.status import Status

CHECK_CRITICAL = 2
CHECK_UNKNOWN = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    as_json: AsJson = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit as a Nagios plug-in does: 0 ok, 1 warning, 2 critical, 3 unknown."),
    ] = False,
) -> None:
    """Show whether all is well: alerts, jobs, priority assets and the budget of calls.

    Example: assetbatch status --check
    """
    current.json = as_json
    try:
        report = _read()
    except AssetbatchError as error:
        if not check:
            raise
        unknown = isinstance(error, ConfigurationError)
        sys.stdout.write(
            f"{'UNKNOWN' if unknown else 'CRITICAL'} - {current.mask(error.reason)}"
            f"{f' ({error.hint})' if error.hint else ''}\n"
        )
        raise typer.Exit(CHECK_UNKNOWN if unknown else CHECK_CRITICAL) from None
    if as_json:
        from assetbatch.report.documents import status_document

        print_json(status_document(report))
    elif check:
        sys.stdout.write(_check_line(report) + "\n")
    else:
        from assetbatch.report import tables

        tables.console().print(tables.status_view(report))
    if check:
        raise typer.Exit(report.health.check_code)


def _read() -> Status:
    config = current.load_config()

    from assetbatch.database import catalogue, overview, schema
    from assetbatch.database.rate_limit import key_fingerprint
    from assetbatch.report import status as report

    symbols = [asset.symbol for asset in config.priority_assets]
    key = key_fingerprint(config.api_key.reveal()) if config.api_key else None
    with current.connected(config) as connection:
        schema.check(connection)
        return report.build(
            config,
            overview.read(connection, symbols=symbols, jobs=list(report.JOBS), key=key),
            catalogue.sync_states(connection, symbols),
            source=schema.source(connection) or "nowhere yet",
        )


def _check_line(report: Status) -> str:
    word = ("OK", "WARNING", "CRITICAL")[report.health.check_code]
    if not report.alerts:
        return f"{word} - {report.health}"
    first = report.alerts[0]
    others = f", and {len(report.alerts) - 1} more" if len(report.alerts) > 1 else ""
    return f"{word} - {first.message} ({first.hint}){others}"
