"""`init`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct
from msgspec.structs import asdict

from assetbatch import config as configuration
from assetbatch.cli.invocation import JOB_PATIENCE_SECONDS, answer, current, embedded_server
from assetbatch.cli.trouble import named, tell
from assetbatch.errors import SchemaError
from assetbatch.words import counted, utc

if TYPE_CHECKING:
    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.setup.pending import Pending
    from assetbatch.database.setup.restore import Restored


class Installed(Struct, frozen=True):
    """What was done: migrations by name, and with a backup that came back what was mended."""

    schema_version: int | None
    applied: list[str]
    mended: Restored | None
    keeps_bars: bool
    """Bars are kept for good, though the configuration has them dropped after some months."""


def init(
    check: Annotated[
        bool, typer.Option("--check", help="Only show what there is to do; 78 where it could not be done.")
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="After a backup came back: pause calls for a window, drop old events, release what was held.",
        ),
    ] = False,
    grants: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Only print the SQL that grants ROLE the least that the jobs need."),
    ] = None,
    grants_reader: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Only print the SQL that lets ROLE read everything and write nothing."),
    ] = None,
) -> None:
    """Create or upgrade the schema and the catalogue; safe to run again, and from several hosts at once.

    With `database: {embedded: true}` it also creates the embedded PostgreSQL.

    Example: assetbatch init
    """
    role = grants if grants_reader is None else grants_reader
    if check + restored + (grants is not None) + (grants_reader is not None) > 1:
        raise typer.BadParameter("--check, --restored, --grants and --grants-reader exclude each other")
    if role is not None:
        from assetbatch.database.setup import schema

        sql = schema.grants(role, reads_only=grants_reader is not None)
        answer({"sql": sql}, sql.removesuffix("\n"))
    elif check:
        _check(current.load_config())
    else:
        _install(current.load_config(), restored=restored)


def _check(config: Config) -> None:
    """Show what `init` would do; raise what it would fail with."""
    from assetbatch.database.setup import pending
    from assetbatch.database.setup.platform import PlatformTablesError

    refuse_second_server(config)
    partitioned = config.settings.bars.retention_months is not None
    connected = False
    try:
        with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS) as connection:
            connected = True
            found = pending.read(connection, config.assets, partition_bars=partitioned)
    except SchemaError:
        if connected:
            raise
        # The embedded server, or its database, was never made.
        found = pending.from_nothing(config.assets, partition_bars=partitioned, now=datetime.now(UTC))
    document = {"database": config.database.described, "pending": found.anything} | asdict(found)
    answer(document, f"{config.database.described}: {_plans(found)}")
    if found.owner_statements:
        raise PlatformTablesError(found.lacks, found.owner_statements)


def _plans(found: Pending) -> str:
    """Return in words what `init` would do."""
    version = "no schema yet" if found.schema_version is None else f"schema version {found.schema_version}"
    if not found.anything:
        return "\n  ".join([f"{version}, nothing to do", *found.row_security])
    condition = "after the statements below " if found.owner_statements else ""
    lines = [f"{version}; {condition}`assetbatch init` would"]
    if found.create_database:
        lines.append("create the embedded database")
    lines += [
        f"{verb} {named(names)}"
        for verb, names in (
            ("apply", found.migrations),
            ("add to the catalogue", found.added),
            ("change in the catalogue", found.changed),
            ("disable in the catalogue", found.disabled),
            ("create", found.partitions),
        )
        if names
    ]
    lines += found.row_security
    return "\n  ".join(lines)


def refuse_second_server(config: Config) -> None:
    """Make root no server beside that of another user, whose jobs would fill the other one; raise SchemaError.

    Who means it names the folder. Where root has one already, it is only said.
    """
    if os.geteuid() != 0 or not config.database.embedded or configuration.is_data_folder_named(os.environ):
        return
    from assetbatch.database.embedded import others

    server = embedded_server()
    if (other := others.find(server.folder)) is None:
        return
    if server.is_set_up:
        tell(f"this is the {server.described}; {other.described}, and root's commands do not see it: {other.hint}")
        return
    raise SchemaError(
        f"there is no {server.described}; {other.described}, and the jobs would fill one, root look at the other",
        hint=f"{other.hint}; for a server of root's own all the same: XDG_DATA_HOME={server.folder.parent} in front",
    )


def _install(config: Config, *, restored: bool) -> None:
    refuse_second_server(config)
    with current.connected(config, patience_seconds=JOB_PATIENCE_SECONDS, create=True) as connection:
        installed = install(config, connection, restored=restored)
    print_installed(config, installed)


def install(config: Config, connection: Connection, *, restored: bool) -> Installed:
    """Create or upgrade what is in the database, and mend what a backup brought back."""
    from assetbatch.database import catalogue
    from assetbatch.database.bars import state as bars
    from assetbatch.database.setup import schema

    partitioned = config.settings.bars.retention_months is not None
    applied = schema.migrate(connection, assets=config.assets, partition_bars=partitioned)
    catalogue.sync_with_config(connection, config.assets)
    bars.keep_partitions(connection, since=schema.check(connection), kept_since=None)
    return Installed(
        schema_version=schema.version(connection),
        applied=[migration.full_name for migration in applied],
        mended=mend(config, connection) if restored else None,
        keeps_bars=partitioned and not bars.are_partitioned(connection),
    )


def print_installed(config: Config, done: Installed) -> None:
    """Report what was done."""
    mended = done.mended
    database, version = config.database.described, done.schema_version
    document = {"database": database, "schema_version": version, "applied": done.applied}
    did = f"{len(done.applied)} migrations applied" if done.applied else "nothing to do"
    lines = [f"{database}: schema version {version}, {did}", *([f"  {_mended(mended)}"] if mended else [])]
    answer(document | {"restored": mended and asdict(mended)}, "\n".join(lines))
    if mended is not None and not mended.keys_blocked:
        tell(
            "no key is known here, and none is configured: run `assetbatch init --restored` with the key that made"
            " calls since the backup"
        )
    if done.keeps_bars:
        tell("bars.retention_months drops nothing: market_data.ohlcv_5m was made without it, or by the platform")


def mend(config: Config, connection: Connection) -> Restored:
    """Make a database that a backup brought back safe to go on with."""
    from assetbatch.database.entitlements import types_in_use
    from assetbatch.database.rate_limit import key_fingerprint, rules_of
    from assetbatch.database.setup import restore

    return restore.mend(
        connection,
        key=None if config.api_key is None else key_fingerprint(config.api_key.reveal()),
        rules=rules_of(config, connection.answer(types_in_use()) | config.types),
        max_age_minutes=config.settings.events.max_age_minutes,
    )


def _mended(done: Restored) -> str:
    pause = (
        "no call has to wait"
        if done.blocked_until is None
        else f"no call before {utc(done.blocked_until, seconds=True)}"
    )
    return (
        f"restored: {pause}; {done.events_dropped:,} old events dropped,"
        f" {done.refusals_forgotten:,} refusals forgotten;"
        f" released: {counted(done.queue_items_released, 'item')} of the queue, the bars of"
        f" {counted(done.bars_released, 'asset')}, {counted(done.days_released, 'finished day')},"
        f" {counted(done.leases_released, 'lease')}; sequences set past their tables: {done.sequences_mended};"
        f" times set back that lay in the future: {done.times_set_back}"
    )
