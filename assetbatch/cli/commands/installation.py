"""`init` and `database stop`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from assetbatch import config as configuration
from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, current, print_json
from assetbatch.cli.options import AsJson
from assetbatch.cli.trouble import tell

database_app = typer.Typer(help="The embedded PostgreSQL.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.add_typer(database_app, name="database")


def init(
    as_json: AsJson = False,
    grants: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Only print the SQL that grants ROLE the least that the jobs need."),
    ] = None,
) -> None:
    """Create or upgrade the schema and the catalogue; safe to run again, and from several hosts at once.

    With `database: {embedded: true}` it also creates the embedded PostgreSQL.

    Example: assetbatch init
    """
    current.json = as_json
    if grants is not None:
        from assetbatch.database import schema

        if as_json:
            print_json({"sql": schema.grants(grants)})
        else:
            sys.stdout.write(schema.grants(grants))
        return
    config = current.load_config()

    from assetbatch.database import bars, catalogue, schema

    with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS, create=True) as connection:
        partitioned = config.settings.bars.retention_months is not None
        applied = schema.migrate(connection, partition_bars=partitioned)
        catalogue.sync_with_config(connection, config.assets)
        bars.keep_partitions(connection, since=schema.check(connection), kept_since=None)
        kept = partitioned and not bars.are_partitioned(connection)
    version = schema.migrations()[-1].version
    if as_json:
        print_json(
            {
                "database": config.database.described,
                "schema_version": version,
                "applied": [f"{migration.version:04}_{migration.name}" for migration in applied],
            }
        )
    else:
        did = f"{len(applied)} migrations applied" if applied else "nothing to do"
        sys.stdout.write(f"{config.database.described}: schema version {version}, {did}\n")
    if kept:
        tell("bars.retention_months drops nothing: market_data.ohlcv_5m was made without it, or by the platform")


@database_app.command("stop")
def stop(as_json: AsJson = False) -> None:
    """End the embedded PostgreSQL; the next command starts it again.

    Example: assetbatch database stop
    """
    current.command, current.json = "database stop", as_json

    from assetbatch.database.embedded import EmbeddedServer

    server = EmbeddedServer(configuration.data_folder(os.environ))
    stopped = server.stop()
    if as_json:
        print_json({"stopped": stopped})
    else:
        sys.stdout.write(f"{server.described}: {'stopped' if stopped else 'was not running'}\n")
