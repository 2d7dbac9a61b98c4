"""`status`."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import answer, current, print_json
from assetbatch.cli.options import duration
from assetbatch.errors import AssetbatchError, ConfigurationError

if TYPE_CHECKING:
    from assetbatch.report.reading import Wanted
    from assetbatch.report.status import Status

log = logging.getLogger(__name__)

CHECK_CRITICAL = 2
CHECK_UNKNOWN = 3


def status(
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit as a Nagios plug-in does: 0 ok, 1 warning, 2 critical, 3 unknown."),
    ] = False,
    since: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="TIME", help="The runs that were not well since so long ago: 90m, 24h, 7d."
        ),
    ] = None,
    asset: Annotated[str | None, typer.Option(metavar="SYMBOL", help="One asset's story.")] = None,
    all_assets: Annotated[bool, typer.Option("--all-assets", help="All assets, not only the worst.")] = False,
) -> None:
    """Show whether all is well: alerts, jobs, priority assets, the budget of calls, the queue, bars and events.

    Example: assetbatch status --since 24h
    """
    if since is not None and asset is not None:
        raise typer.BadParameter("--since and --asset are two questions: ask one")
    try:
        report = _read(since=since, asset=asset, all_assets=all_assets)
    except (typer.BadParameter, typer.Exit):
        raise
    except Exception as error:
        if not check:
            raise
        raise typer.Exit(_tell_unreadable(error)) from None
    if current.json:
        from assetbatch.report.documents import status_document

        print_json(status_document(report))
    elif check:
        sys.stdout.write(check_text(report))
    else:
        from assetbatch.report import tables
        from assetbatch.report.status_tables import status_view

        console = tables.console()
        console.print(status_view(report, width=console.width))
    if check:
        raise typer.Exit(report.health.check_code)


def _read(*, since: timedelta | None, asset: str | None, all_assets: bool) -> Status:
    config = current.load_config()

    from assetbatch.report import reading

    wanted: Wanted = reading.Wanted(all_assets=all_assets, since=since, asset=asset)
    with current.connected(config) as connection:
        try:
            return reading.read(config, connection, wanted)
        except reading.UnknownAssetError:
            raise typer.BadParameter(f"no asset is called {asset}: `assetbatch symbols list` shows all") from None


def _tell_unreadable(error: Exception) -> int:
    """Tell a monitoring system why there is no status; return the exit code."""
    known, unknown = isinstance(error, AssetbatchError), isinstance(error, ConfigurationError)
    reason = f"unexpected: {error!r}"
    if isinstance(error, AssetbatchError):
        reason = f"{error.reason} ({error.hint})" if error.hint else error.reason
    if not known:
        log.error("an unexpected error: this is a bug", exc_info=error)
    reason = current.mask(reason)
    answer({"status": "unhealthy", "reason": reason}, f"{'UNKNOWN' if unknown else 'CRITICAL'} - {reason}")
    return CHECK_UNKNOWN if unknown else CHECK_CRITICAL


def check_text(report: Status) -> str:
    """Write the worst on the first line, as monitoring systems show it, and everything else below."""
    word = ("OK", "WARNING", "CRITICAL")[report.health.check_code]
    lines = [f"{alert.message} ({alert.hint})" for alert in report.alerts] or [report.health.value]
    return f"{word} - " + "\n".join(lines) + "\n"
