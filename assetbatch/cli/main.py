"""The `assetbatch` command: global options, the list of commands, and how a command's errors leave."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from assetbatch import __version__
from assetbatch.cli import commands, lifecycle, telling, trouble
from assetbatch.cli.invocation import LogFormat, configure_log, current, format_for_stderr
from assetbatch.errors import EXIT_BUG, AssetbatchError, Interrupted

EXIT_CODES = (
    "Exit codes: 0 done (also when nothing was due, or another run of the same job is going on); 1 an unexpected error;"
    " 2 wrong usage; 3 done in part: a priority asset failed, an item became a dead letter, or an outage ended the run"
    " early; 69 the database, or the API for anything at all, could not be reached; 75 nothing was fetched by"
    " `backfill`, another one was still going; 77 the API refused the key; 78 the configuration or the schema is wrong;"
    " 129, 130, 143 ended by a signal. `status --check` has its own."
)

app = typer.Typer(
    name="assetbatch",
    help="Keeps a PostgreSQL trading database fresh from the Polygon.io (Massive.com) REST API on a small call budget.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
commands.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"assetbatch {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Configuration file; else $ASSETBATCH_CONFIG, ./config.yaml, the user's and the system's folder."
        ),
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            show_default=False,
            help="Tell the story; twice: every call and statement.",
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No warnings on stderr, errors only.")] = False,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How lines on stderr look; by itself journald under systemd, and plain elsewhere."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Read the global options."""
    del version
    current.config_file = config
    current.verbosity = verbose
    current.quiet = quiet
    current.log_format = log_format or format_for_stderr()
    current.command = context.invoked_subcommand or ""
    configure_log()
    telling.begin()
    lifecycle.interrupt_on_signals()


def main() -> None:
    """Run the command line; the exit code says how it went."""
    try:
        app()
    except SystemExit as end:
        telling.finish(well=not end.code and "--help" not in sys.argv)
        raise
    except (AssetbatchError, Interrupted) as error:
        # What ends a run by force is on its way still, perhaps: it shall not interrupt the telling of it.
        signal.setitimer(signal.ITIMER_REAL, 0)
        trouble.tell_error(error)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        trouble.tell_bug(error)
        sys.exit(EXIT_BUG)
