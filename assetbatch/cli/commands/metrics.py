"""`metrics`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assetbatch import config as configuration
from assetbatch.cli.files import replacing
from assetbatch.cli.invocation import current, host, print_json
from assetbatch.errors import ConfigurationError

if TYPE_CHECKING:
    from assetbatch.report.status import Status

# Whoever collects the files is another user.
MODE = 0o644


def metrics(
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, metavar="FILE", help="Write into a file, all at once, as the textfile collector wants it."
        ),
    ] = None,
) -> None:
    """Print metrics as Prometheus text, healthy or not; --json: those of `status` as one JSON document.

    With the database away a file is written all the same: it says assetbatch_up 0, and the exit code is 69.

    Example: assetbatch metrics --output /var/lib/node_exporter/assetbatch.prom
    """
    if current.json and output is not None:
        raise typer.BadParameter("--output is for Prometheus text")
    try:
        report = _read()
    except Exception as error:
        # A file of yesterday would go on telling that all is well.
        if output is not None:
            from assetbatch.report.prometheus import nothing_to_tell

            unhealthy = not isinstance(error, ConfigurationError)
            _write(output, nothing_to_tell(_installation(), unhealthy=unhealthy))
        raise
    if current.json:
        from assetbatch.report.documents import metrics_document

        print_json(metrics_document(report))
        return
    from assetbatch.report.prometheus import exposition

    text = exposition(report, _installation())
    if output is None:
        sys.stdout.write(text)
    else:
        _write(output, text)


def _read() -> Status:
    config = current.load_config()

    from assetbatch.report import reading

    with current.connected(config) as connection:
        return reading.read(config, connection)


def _installation() -> str:
    """Return what tells this installation from others: as it is called, else its host and database.

    Where the configuration does not say, its place does.
    """
    try:
        config = current.load_config()
    except ConfigurationError:
        return f"{host()}: {current.whereabouts()}"
    if config.settings.instance is not None:
        return config.settings.instance
    database = config.database
    # An embedded server is known by its folder: each user has one.
    where = f" in {configuration.data_folder(os.environ)}" if database.embedded else ""
    return f"{host()}: {database.described}{where}"


def _write(file: Path, text: str) -> None:
    with replacing(file, mode=MODE) as opened:
        opened.write(text.encode())
