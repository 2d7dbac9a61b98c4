"""`drain-queue`, `enqueue-secondary`, and `queue list`, `retry`, `remove`, `clear`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from assetbatch.cli.invocation import answer, current, print_json
from assetbatch.cli.options import (
    TABLE_LIMIT,
    LimitOption,
    SymbolsOption,
    YesOption,
    complete_symbols,
    no_nan,
    require_yes,
)
from assetbatch.cli.trouble import named, tell
from assetbatch.database.queue.items import State
from assetbatch.errors import EXIT_USAGE
from assetbatch.failures import FailureKind
from assetbatch.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

StatesOption: TypeAlias = Annotated[
    list[State] | None, typer.Option("--state", help="Only items in this state; may be given several times.")
]

queue_app = typer.Typer(help="Look at the queue and its dead letters, and mend them.", no_args_is_help=True)


class Source(StrEnum):
    """Where the secondary assets are listed."""

    CONFIG = "config"
    DATABASE = "database"


def drain_queue(
    max_items: Annotated[int | None, typer.Option(min=1, help="End after so many items.")] = None,
    max_seconds: Annotated[
        float,
        typer.Option(min=0, max=86_400, callback=no_nan, help="Begin no call later than 2 s before so many seconds."),
    ] = 55.0,
    shared: Annotated[bool, typer.Option("--shared", help="Run beside other drains, on this host or others.")] = False,
) -> None:
    """Update queued assets with the calls that the priority job leaves, until nothing is due.

    From cron, every minute: with the default of 55 seconds that makes it continuous.

    Example: assetbatch drain-queue --max-items 100 --json
    """
    config = current.load_config()

    from assetbatch.cli import job
    from assetbatch.jobs import drain

    job.run(
        config,
        lambda start, progress: drain.drain_queue(
            start,
            bounds=drain.Bounds(max_seconds, max_items),
            shared=shared,
            reconnect=lambda: current.connected(config),
            progress=progress,
        ),
        max_seconds=max_seconds,
        needs_key=True,
    )


def enqueue_secondary(
    due_or_not: Annotated[bool, typer.Option("--all", help="All of them, due or not.")] = False,
    symbol: SymbolsOption = None,
    source: Annotated[
        Source | None, typer.Option(help="Where they are listed; else batch.secondary_source of config.yaml.")
    ] = None,
) -> None:
    """Put the secondary assets that are due on the queue, the most overdue first.

    From cron, every batch.enqueue_interval_minutes. Makes no call.

    Example: assetbatch enqueue-secondary --symbol GBPUSD --all
    """
    config = current.load_config()

    from assetbatch.cli import job
    from assetbatch.jobs import enqueue

    job.run(
        config,
        lambda start, _: enqueue.enqueue_secondary(
            start,
            source=source or config.settings.batch.secondary_source,
            symbols=symbol or None,
            due_or_not=due_or_not,
        ),
        max_seconds=enqueue.MAX_SECONDS,
    )


@queue_app.command("list")
def list_items(state: StatesOption = None, limit: LimitOption = None) -> None:
    """List the items of the queue, in the order in which they get their turn.

    Example: assetbatch queue list --state dead
    """
    config = current.load_config()

    from assetbatch.database.queue import admin as queue_desk

    with current.installed(config) as connection:
        most = limit if limit or current.json else TABLE_LIMIT
        found = queue_desk.listing(connection, state or list(State), limit=most)
    if current.json:
        from assetbatch.report.documents import queue_document

        print_json(queue_document(found))
    else:
        from assetbatch.report import tables

        console = tables.console()
        console.print(tables.queue_view(found, width=console.width))


@queue_app.command("retry")
def retry(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(autocompletion=complete_symbols, help="Dead letters, or delayed items; else --all."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    kind: Annotated[
        FailureKind | None, typer.Option(metavar="KIND", help="Only what failed so, as in the JSON list.")
    ] = None,
) -> None:
    """Bring dead letters back on the queue, with all their attempts.

    Example: assetbatch queue retry --kind not_entitled
    """
    if (symbols and everything) or not (symbols or everything or kind):
        raise typer.BadParameter("name symbols, or give --all or --kind")
    config = current.load_config()

    from assetbatch.database.queue import admin as queue_desk
    from assetbatch.jobs.claims import step_seconds

    with current.installed(config) as connection:
        retried, dropped = queue_desk.retry(
            connection,
            symbols or None,
            kind=kind,
            max_size=config.settings.queue.max_size,
            step_seconds=step_seconds(config),
        )
    missing = sorted({*(symbols or [])} - {*retried, *dropped})
    _tell("back on the queue", retried, {"retried": retried, "dropped": dropped, "missing": missing})
    if dropped:
        tell(f"the queue is full: {named(dropped)} stay dead letters")
    _miss(missing, "no dead letter or delayed item" if kind is None else f"no {kind} item")


@queue_app.command("remove")
def remove(
    symbols: Annotated[
        list[str],
        typer.Argument(autocompletion=complete_symbols, help="Symbols, as in the first column of `queue list`."),
    ],
) -> None:
    """Take items off the queue, whatever their state; the catalogue keeps the assets.

    Example: assetbatch queue remove ETHUSDT
    """
    config = current.load_config()

    from assetbatch.database.queue import admin as queue_desk

    with current.installed(config) as connection:
        removed = queue_desk.remove(connection, symbols)
    missing = sorted({*symbols} - {*removed})
    _tell("removed", removed, {"removed": removed, "missing": missing})
    _miss(missing, "not on the queue")


@queue_app.command("clear")
def clear(state: StatesOption = None, yes: YesOption = False) -> None:
    """Empty the queue: all items but those that a run is working on, or those of one state.

    Example: assetbatch queue clear --state dead --yes
    """
    config = current.load_config()

    from assetbatch.database.queue import admin as queue_desk

    states = state or [one for one in State if one is not State.LEASED]
    with current.installed(config) as connection:
        count = queue_desk.count(connection, states)
    if not yes:
        require_yes(f"Remove {counted(count, 'item')} ({', '.join(states)})?")
    with current.connected(config) as connection:
        removed = queue_desk.clear(connection, states)
    answer({"removed": removed}, f"{removed:,} removed")


def _tell(what: str, symbols: Sequence[str], document: dict[str, object]) -> None:
    answer(document, f"{len(symbols):,} {what}: {', '.join(symbols)}" if symbols else f"nothing {what}")


def _miss(symbols: Sequence[str], words: str) -> None:
    if symbols:
        tell(f"{words}: {named(symbols)}", exit_code=EXIT_USAGE)
        raise typer.Exit(EXIT_USAGE)
