"""`bars coverage`."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from assetbatch.cli.invocation import current, print_json
from assetbatch.cli.options import SymbolsOption
from assetbatch.cli.trouble import named, tell
from assetbatch.errors import EXIT_PARTIAL, EXIT_USAGE


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day such as 2026-01-31") from None


def coverage(
    symbol: SymbolsOption = None,
    since: Annotated[
        date | None, typer.Option(parser=_day, metavar="DAY", help="The first day (UTC); else 30 days in all.")
    ] = None,
    until: Annotated[
        date | None, typer.Option(parser=_day, metavar="DAY", help="The last day (UTC); else today.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 3 if bars are missing that could be had, and say which.")
    ] = False,
    all_assets: Annotated[bool, typer.Option("--all-assets", help="All assets, not only the worst.")] = False,
) -> None:
    """Show day by day which bars are there, absent for a reason, or missing. Makes no call, and writes nothing.

    Example: assetbatch bars coverage --symbol BTCUSD --since 2026-01-01
    """
    if since is not None and until is not None and since > until:
        raise typer.BadParameter("--since is after --until")
    if since is not None and since > datetime.now(UTC).date():
        raise typer.BadParameter("--since is after today")
    config = current.load_config()

    from assetbatch.database.setup import schema
    from assetbatch.jobs import coverage as jobs

    with current.connected(config) as connection:
        now = schema.check(connection)
        found = jobs.read(config, connection, now=now, symbols=symbol, since=since, until=until)
    if found.unknown:
        tell(f"not in the catalogue: {named(list(found.unknown))}", exit_code=EXIT_USAGE)
        raise typer.Exit(EXIT_USAGE)
    if current.json:
        from assetbatch.report.documents import coverage_document

        print_json(coverage_document(found))
    else:
        from assetbatch.report import coverage_tables, tables

        console = tables.console()
        height = console.height if console.is_terminal else None
        console.print(
            coverage_tables.coverage_view(
                found,
                width=console.width,
                height=height,
                is_all=all_assets,
                has_unicode=console.encoding.startswith("utf"),
            ),
            crop=False,
        )
    if check and found.lacking:
        lacking = [f"{one.lacking} of {one.symbol}" if one.lacking else f"all of {one.symbol}" for one in found.lacking]
        tell(f"bars that could be had are missing: {named(lacking)}", exit_code=EXIT_PARTIAL)
        raise typer.Exit(EXIT_PARTIAL)
