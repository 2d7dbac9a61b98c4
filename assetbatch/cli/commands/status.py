"""`status`."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch.cli.invocation import answer, current, print_json
from assetbatch.cli.options import complete_symbols, duration, no_nan
from assetbatch.errors import AssetbatchError, ConfigurationError

if TYPE_CHECKING:
    from assetbatch.config import Config
    from assetbatch.report.reading import Wanted
    from assetbatch.report.status import Status

log = logging.getLogger(__name__)

CHECK_CRITICAL = 2
CHECK_UNKNOWN = 3
WATCHED_EVERY_SECONDS = 5.0


def status(
    seconds: Annotated[
        float | None,
        typer.Argument(
            min=0.5,
            max=86_400,
            callback=no_nan,
            metavar="[SECONDS]",
            show_default=False,
            help="With --watch: how often, else every 5 s.",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="At a terminal: look again every SECONDS, until Ctrl-C ends it.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Exit as a Nagios plug-in does, with performance data: 0 ok, 1 warning, 2 critical, 3 unknown.",
        ),
    ] = False,
    since: Annotated[
        timedelta | None,
        typer.Option(
            parser=duration, metavar="TIME", help="The runs that were not well since so long ago: 90m, 24h, 7d."
        ),
    ] = None,
    asset: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="One asset's story.", autocompletion=complete_symbols)
    ] = None,
    all_assets: Annotated[bool, typer.Option("--all-assets", help="All assets, not only the worst.")] = False,
) -> None:
    """Show whether all is well: alerts, jobs, priority assets, the budget of calls, the queue, bars and events.

    Example: assetbatch status --since 24h
    """
    if since is not None and asset is not None:
        raise typer.BadParameter("--since and --asset are two questions: ask one")
    if seconds is not None and not watch:
        raise typer.BadParameter("SECONDS go with --watch: `assetbatch status --watch 5`")
    if watch:
        _watch(seconds or WATCHED_EVERY_SECONDS, check=check, since=since, asset=asset, all_assets=all_assets)
        return
    is_drawn = not (check or current.json)
    try:
        config = current.load_config()
        report = _read(config, since=since, asset=asset, all_assets=all_assets, closes=is_drawn)
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
        from assetbatch.report.nagios import output

        sys.stdout.write(output(report, config))
    else:
        from assetbatch.report import tables
        from assetbatch.report.status_tables import status_view

        console = tables.console()
        console.print(status_view(report, width=console.width, ascii_only=console.options.ascii_only))
    if check:
        raise typer.Exit(report.health.check_code)


def _watch(seconds: float, *, check: bool, since: timedelta | None, asset: str | None, all_assets: bool) -> None:
    if check or current.json:
        raise typer.BadParameter("--watch is for people at a terminal: leave --check and --json out")
    if not sys.stdout.isatty():
        raise typer.BadParameter("--watch needs a terminal: without one, have cron or a loop call `assetbatch status`")
    config = current.load_config()

    from assetbatch.cli import watching

    def read(config: Config) -> Status:
        return _read(config, since=since, asset=asset, all_assets=all_assets, closes=True)

    watching.watch(config, read, seconds=seconds)


def _read(
    config: Config, *, since: timedelta | None, asset: str | None, all_assets: bool, closes: bool = False
) -> Status:
    from assetbatch.report import reading

    wanted: Wanted = reading.Wanted(all_assets=all_assets, since=since, asset=asset, closes=closes)
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
    # Behind the sign, plug-ins write performance data.
    reason = current.mask(reason).replace("|", "/")
    answer({"status": "unhealthy", "reason": reason}, f"{'UNKNOWN' if unknown else 'CRITICAL'} - {reason}")
    return CHECK_UNKNOWN if unknown else CHECK_CRITICAL
