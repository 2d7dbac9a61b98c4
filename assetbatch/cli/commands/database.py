"""`database`: the embedded PostgreSQL, with its own programs."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from assetbatch import config as configuration
from assetbatch.cli.asking import require_yes
from assetbatch.cli.files import replacing
from assetbatch.cli.invocation import current, print_json
from assetbatch.errors import ConfigurationError, Fault, SchemaError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from assetbatch.cli.commands.installation import Installed
    from assetbatch.config import Config
    from assetbatch.database.embedded import EmbeddedServer

database_app = typer.Typer(help="The embedded PostgreSQL, with its own programs.", no_args_is_help=True)

# What follows the first word that is not ours is psql's, whatever it looks like.
HANDED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
# A backup has everything: its owner's alone.
MODE = 0o600
MEGABYTE = 1 << 20


class Format(StrEnum):
    """What a backup is written as."""

    CUSTOM = "custom"
    PLAIN = "plain"


@database_app.command("psql", context_settings=HANDED_ON)
def psql(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGUMENT]...", help="Options and arguments of psql's own.")
    ] = None,
) -> None:
    """Open psql on the database; its options follow as they stand, and its exit code is the command's.

    --json, given first, prints the program and the variables that it is started with instead.

    Example: assetbatch database psql -c 'select count(*) from trading.symbols'
    """
    config, server = _embedded()
    client = server.client("psql", config.database.name)
    # Starts the server, and says what is missing better than psql would.
    with current.connected(config):
        pass
    if current.json:
        print_json({"program": str(client.program), "environment": client.address})
        return
    sys.stdout.flush()
    os.execve(client.program, ["psql", *(arguments or [])], client.environment)  # noqa: S606 - the wheel's own program


@database_app.command("dump")
def dump(
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, metavar="FILE", help="Write into a file, all at once; else to stdout, a pipe."),
    ] = None,
    written_as: Annotated[
        Format, typer.Option("--format", help="custom is for `database restore`; plain is SQL, for any PostgreSQL.")
    ] = Format.CUSTOM,
) -> None:
    """Write a backup of the database, as it is at one moment; jobs go on meanwhile.

    Example: assetbatch database dump --output assetbatch.dump
    """
    config, server = _embedded()
    if current.json and output is None:
        raise typer.BadParameter("--json is for what was done, and stdout has the backup: name an --output")
    if output is None and written_as is Format.CUSTOM and sys.stdout.isatty():
        raise typer.BadParameter("a backup is nothing to look at: name an --output, or send it into a pipe")

    from assetbatch.database.setup import backup
    from assetbatch.report.progress import ProgressBar

    with current.connected(config):
        pass
    target: AbstractContextManager[IO[bytes]]
    target = nullcontext(sys.stdout.buffer) if output is None else replacing(output, mode=MODE)
    doing = f"backing up {config.database.name}"
    with ProgressBar.for_terminal(doing) as bar, target as opened:

        def watch() -> None:
            if bar is not None and output is not None:
                bar.tell(lambda: f"{doing}: {os.fstat(opened.fileno()).st_size // MEGABYTE} MB")

        backup.dump(server, config.database.name, opened, plain=written_as is Format.PLAIN, watch=watch)
    if current.json and output is not None:
        print_json(
            {
                "database": config.database.described,
                "file": str(output),
                "format": written_as,
                "bytes": output.stat().st_size,
            }
        )


@database_app.command("restore")
def restore(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="What `database dump` has written.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Replace what is there without asking.")] = False,
) -> None:
    """Bring a backup back in the place of the database, and make it safe to go on with, as `init --restored` does.

    All of it takes the database's place at once, or none does. It stays away while jobs run. Owners and grants are not
    brought back: run what `init --grants` prints again.

    Example: assetbatch database restore assetbatch.dump
    """
    config, server = _embedded()

    from assetbatch.cli.commands import installation
    from assetbatch.database.setup import backup
    from assetbatch.report.progress import ProgressBar

    installation.refuse_second_server(config)
    name = config.database.name
    with _opened(file) as source:
        size = _content(config)
        if size is not None and not yes:
            require_yes(f"Replace the database {name} ({size}) by what is in {file}?")
        total = os.fstat(source.fileno()).st_size
        with ProgressBar.for_terminal(f"restoring {name}") as bar:

            def watch() -> None:
                if bar is not None:
                    # The program reads by the same place in the file.
                    bar(os.lseek(source.fileno(), 0, os.SEEK_CUR) // MEGABYTE, total // MEGABYTE)

            installed = backup.restore(
                server, name, source, prepare=lambda beside: _prepared(config, beside, file), watch=watch
            )
        # Calls of the moment before it took its place count as well.
        with current.connected(config) as connection:
            blocked_until = installation.mend(config, connection).blocked_until
    assert installed.mended is not None  # noqa: S101 - what `_prepared` asked for
    installation.print_installed(
        config, replace(installed, mended=replace(installed.mended, blocked_until=blocked_until))
    )


def _opened(file: Path) -> IO[bytes]:
    """Open a backup. Raises BadParameter where it is none that pg_restore reads from a file."""
    from assetbatch.database.setup import backup

    try:
        source = file.open("rb", buffering=0)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
    if source.read(len(backup.CUSTOM_FORMAT)) != backup.CUSTOM_FORMAT:
        source.close()
        raise typer.BadParameter(
            f"{file} is no backup in PostgreSQL's custom format; SQL goes in by `assetbatch database psql -f FILE`"
        )
    source.seek(0)
    return source


def _content(config: Config) -> str | None:
    """Return the size of what would be replaced; None: nothing would."""
    from assetbatch.database.setup import backup

    try:
        with current.connected(config) as connection:
            return backup.content(connection)
    except SchemaError:  # the server, or the database, was never made
        return None


def _prepared(config: Config, beside: str, file: Path) -> Installed:
    """Bring a backup up to date that has not yet taken its place."""
    from assetbatch.cli.commands import installation
    from assetbatch.database.setup import schema

    there = replace(config, database=replace(config.database, name=beside))
    with current.connected(there) as connection:
        if schema.version(connection) is None:
            raise SchemaError(f"{file} is no backup of a database of assetbatch; nothing has changed")
        return installation.install(there, connection, restored=True)


@database_app.command("url")
def url() -> None:
    """Print the URI of the database, as in psql "$(assetbatch database url)"; no password is in it.

    psycopg takes it as well, and SQLAlchemy with postgresql+psycopg:// in front.

    Example: assetbatch database url
    """
    config = current.load_config()

    from assetbatch.config.database import uri

    database = config.database
    if database.embedded:
        server = _server()
        server.require()
        found = uri(server.address(database.name))
    else:
        assert database.conninfo is not None  # noqa: S101 - a database is embedded or has one
        found = uri(database.conninfo.reveal())
    if current.json:
        print_json({"url": found})
    else:
        sys.stdout.write(f"{found}\n")


@database_app.command("path")
def path() -> None:
    """Print the folder of the embedded server's data, with its postgresql.conf and its log.

    Example: assetbatch database path
    """
    _, server = _embedded()
    server.require()
    if current.json:
        print_json({"path": str(server.data)})
    else:
        sys.stdout.write(f"{server.data}\n")


@database_app.command("stop")
def stop() -> None:
    """End the embedded PostgreSQL; the next command starts it again.

    Example: assetbatch database stop
    """
    server = _server()
    stopped = server.stop()
    if current.json:
        print_json({"stopped": stopped})
    else:
        sys.stdout.write(f"{server.described}: {'stopped' if stopped else 'was not running'}\n")


def _server() -> EmbeddedServer:
    from assetbatch.database.embedded import EmbeddedServer

    return EmbeddedServer(configuration.data_folder(os.environ))


def _embedded() -> tuple[Config, EmbeddedServer]:
    """Begin a command that is for the embedded server alone. Raises ConfigurationError where another is configured."""
    config = current.load_config()
    if not config.database.embedded:
        message = f"this is for the embedded PostgreSQL; the database is {config.database.described}"
        # The wheel's programs know no TLS, and fit no server but their own.
        raise ConfigurationError(
            [Fault("", "database.embedded", message)],
            hint="use the psql, pg_dump and pg_restore of that server, at the address that `assetbatch database url` "
            "prints; after pg_restore run `assetbatch init --restored`",
        )
    return config, _server()
