"""`status`."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.options import AsJson
from assetbatch.errors import AssetbatchError, ConfigurationError

if TYPE_CHECKING:
    from assetbatch.report.status import Status

log = logging.getLogger(__name__)

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
    except Exception as error:
        if not check:
            raise
        raise typer.Exit(_tell_unreadable(error)) from None
    if as_json:
        from assetbatch.report.documents import status_document

        print_json(status_document(report))
    elif check:
        sys.stdout.write(_check_text(report))
    else:
        from assetbatch.report import tables

        console = tables.console()
        console.print(tables.status_view(report, width=console.width))
    if check:
        raise typer.Exit(report.health.check_code)


def _read() -> Status:
    config = current.load_config()

    from assetbatch.database import catalogue, overview, schema
    from assetbatch.database.connection import transaction
    from assetbatch.database.rate_limit import key_fingerprint
    from assetbatch.report import status as report

    symbols = [asset.symbol for asset in config.priority_assets]
    key = key_fingerprint(config.api_key.reveal()) if config.api_key else None
    with current.connected(config) as connection, transaction(connection):
        schema.check(connection)
        return report.build(
            config,
            overview.read(
                connection,
                symbols=symbols,
                jobs=list(report.JOBS),
                key=key,
                plan=config.plan,
                enqueued_every_seconds=config.settings.batch.enqueue_interval_minutes * 60,
            ),
            catalogue.sync_states(connection, symbols),
            source=schema.source(connection) or "nowhere yet",
        )


def _tell_unreadable(error: Exception) -> int:
    """Tell a monitoring system why there is no status; return the exit code."""
    known = isinstance(error, AssetbatchError)
    unknown = not known or isinstance(error, ConfigurationError)
    reason = f"{error.reason} ({error.hint})" if isinstance(error, AssetbatchError) else f"unexpected: {error!r}"
    if not known:
        log.error("an unexpected error: this is a bug", exc_info=error)
    if current.json:
        print_json({"status": "unhealthy", "reason": current.mask(reason)})
    else:
        sys.stdout.write(f"{'UNKNOWN' if unknown else 'CRITICAL'} - {current.mask(reason)}\n")
    return CHECK_UNKNOWN if unknown else CHECK_CRITICAL


def _check_text(report: Status) -> str:
    """Write the worst on the first line, as monitoring systems show it, and everything else below."""
    word = ("OK", "WARNING", "CRITICAL")[report.health.check_code]
    lines = [f"{alert.message} ({alert.hint})" for alert in report.alerts] or [report.health.value]
    return f"{word} - " + "\n".join(lines) + "\n"
