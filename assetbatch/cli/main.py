"""The `assetbatch` command: global options, the list of commands, and how a command's errors leave."""

import signal
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from assetbatch import __version__
from assetbatch.cli import commands, global_options, lifecycle, telling, trouble
from assetbatch.cli.invocation import current, format_for_stderr, print_json
from assetbatch.errors import EXIT_BUG, EXIT_CODES, EXIT_PARTIAL, AnswerLostError, AssetbatchError, Interrupted

# Typer brings a click of its own, and names those alone that are derived from this one.
USAGE_ERROR: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="assetbatch",
    help="Keeps a PostgreSQL trading database fresh from the Polygon.io (Massive.com) REST API on a small call budget.",
    epilog=f"Exit codes: {'; '.join(f'{one.code} {one.meaning}' for one in EXIT_CODES)}. `status --check` has its own.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def begin(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit; with --json how it was installed, too."),
    ] = False,
) -> None:
    """Prepare what every command relies on."""
    if version:
        _print_version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")
    current.command = context.invoked_subcommand
    global_options.begin()
    lifecycle.interrupt_on_signals()


def _print_version() -> None:
    text = f"assetbatch {__version__}"
    if not current.json:
        sys.stdout.write(f"{text}\n")
        return
    from assetbatch.cli import version

    current.command = "version"
    print_json(version.document())


def new_command() -> Any:
    """Return the whole tree of commands, each with the global options; a command is made when it is asked for."""
    root: Any = typer.main.get_command(app)
    global_options.add_to(root)
    root.commands = commands.Commands()
    return root


def _tell_usage(error: Any) -> None:
    """Report wrong usage as JSON, also where it was found before the options were read."""
    current.json = True
    words: list[str] = []
    context = error.ctx
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name)
        context = context.parent
    current.command = " ".join(words)
    hint = f"`{' '.join(['assetbatch', *words])} --help` tells how it is used"
    trouble.tell(error.format_message(), exit_code=error.exit_code, hint=hint)


def main() -> None:
    """Run the command line; the exit code says how it went."""
    current.log_format = format_for_stderr()
    exit_code = _run()
    # What would end it by force has nothing to end any more; and while Python itself ends, it would kill.
    signal.setitimer(signal.ITIMER_REAL, 0)
    with suppress(AnswerLostError):
        sys.stdout.flush()
    sys.exit(exit_code)


def _run() -> int:
    """Run the command line and tell what ended it; return the exit code."""
    exit_code = 0
    try:
        try:
            # By itself typer draws a box, of whatever is wrong with the command line, and leaves by SystemExit.
            ended = new_command()(standalone_mode="--json" not in sys.argv)
            exit_code = ended if isinstance(ended, int) else 0
        except USAGE_ERROR as error:
            exit_code = error.exit_code
            _tell_usage(error)
        except SystemExit as end:
            exit_code = int(end.code or 0)
        sys.stdout.flush()
        telling.finish(well=not exit_code and current.is_configured)
    except AnswerLostError as error:
        # Who reads but the first lines is content with them; and a job has stored what it had to.
        if error.is_unread:
            return exit_code or current.job_exit_code or 0
        error.exit_code = exit_code or (EXIT_PARTIAL if current.job_exit_code is None else current.job_exit_code)
        trouble.tell_error(error)
        return error.exit_code
    except (AssetbatchError, Interrupted) as error:
        # What ends a run by force is on its way still, perhaps: it shall not interrupt the telling of it.
        signal.setitimer(signal.ITIMER_REAL, 0)
        trouble.tell_error(error)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last place where it can be told
        trouble.tell_bug(error)
        return EXIT_BUG
    return exit_code
