"""`symbols list` and `symbols remove`, and the group with `add` and `import`: the catalogue beside config.yaml."""

from __future__ import annotations

from typing import Annotated

import typer

from assetbatch.cli.commands.symbols_add import add, import_, summary
from assetbatch.cli.invocation import answer, current, print_json
from assetbatch.cli.options import TABLE_LIMIT, LimitOption, YesOption, complete_symbols, require_yes
from assetbatch.cli.trouble import named, tell
from assetbatch.errors import EXIT_USAGE
from assetbatch.words import counted

symbols_app = typer.Typer(
    help="Add assets to the catalogue, list them, remove them; those of config.yaml are changed there.",
    no_args_is_help=True,
)
symbols_app.command("add")(add)
symbols_app.command("import")(import_)


@symbols_app.command("list")
def list_assets(limit: LimitOption = None) -> None:
    """List the catalogue: priority assets in their order, then the others by name.

    Example: assetbatch symbols list --limit 200
    """
    config = current.load_config()

    from assetbatch.database import symbols

    with current.installed(config) as connection:
        found = symbols.listing(connection, limit=limit if limit or current.json else TABLE_LIMIT)
    if current.json:
        from assetbatch.report.documents import catalogue_document

        print_json(catalogue_document(found))
    else:
        from assetbatch.report import tables

        console = tables.console()
        console.print(tables.catalogue_view(found, width=console.width))


@symbols_app.command("remove")
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            autocompletion=complete_symbols,
            metavar="SYMBOLS...",
            help="Symbols, as in the first column of `symbols list`.",
        ),
    ],
    with_bars: Annotated[bool, typer.Option("--with-bars", help="Their bars, too; asks first.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove assets from the catalogue, with their queue items and status lines; bars and prices stay.

    Example: assetbatch symbols remove SOLUSD --with-bars --yes
    """
    config = current.load_config()

    from assetbatch.database import symbols

    with current.installed(config) as connection:
        own = [symbol for symbol, origin in symbols.origins(connection, names).items() if origin == "symbols"]
    if with_bars and own and not yes:
        require_yes(f"Remove {counted(len(own), 'asset')} with all bars ({named(sorted(own))})?")
    with current.connected(config) as connection:
        done = symbols.remove(connection, names, with_bars=with_bars)
    bars = f", with {counted(done.bars, 'bar')}" if with_bars else ""
    document = {"removed": done.removed, "missing": done.missing, "configured": done.configured}
    answer(document | {"bars_removed": done.bars}, summary("removed", done.removed) + bars)
    if done.configured:
        tell(f"{named(done.configured)}: from config.yaml: remove it there", exit_code=EXIT_USAGE)
    if done.missing:
        tell(f"not in the catalogue: {named(done.missing)}", exit_code=EXIT_USAGE)
    if done.configured or done.missing:
        raise typer.Exit(EXIT_USAGE)
