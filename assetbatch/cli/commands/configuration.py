"""`config init`, `config show`, `config check`, `config schema`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from assetbatch import config as configuration
from assetbatch.cli.files import replacing
from assetbatch.cli.invocation import answer, current, print_json, working_folder
from assetbatch.cli.trouble import tell
from assetbatch.errors import ConfigurationError

config_app = typer.Typer(help="The configuration.", no_args_is_help=True)


MODE = 0o644
DOTENV = """\
# For this program alone, and for nobody else to read. `assetbatch sandbox --help` tells how to try it without a key.
POLYGON_API_KEY=
"""


@config_app.command("init")
def init(
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, metavar="FILE", help="Write it there, in place of the folder it is looked for in."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace one that is there.")] = False,
) -> None:
    """Write a config.yaml with comments, where it is looked for, and beside it a .env for the key; asks nothing.

    That is where --config says, else the user's configuration folder, for root /etc/assetbatch. A .env that is there
    stays; for root none is written, since the jobs may be another user's.

    Example: assetbatch config init
    """
    from assetbatch.config import loading
    from assetbatch.deployment import shipped

    file = output or configuration.config_file(current.config_file, os.environ, working_folder())
    if os.access(file, os.F_OK) and not force:
        raise typer.BadParameter(f"{file} is there already: --force replaces it", param_hint="--output")
    text = shipped.text("config.yaml")
    if loading.environment_names_database(file=file, environ=os.environ, cwd=working_folder()):
        text = text.replace("\ndatabase: {embedded: true}", "\n# database: {embedded: true}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{file.parent}: {error.strerror}", param_hint="--output") from None
    with replacing(file, mode=MODE) as opened:
        opened.write(text.encode())
    dotenv = file.with_name(".env")
    if os.geteuid() != 0 and not os.access(dotenv, os.F_OK):
        with replacing(dotenv, mode=0o600) as opened:
            opened.write(DOTENV.encode())
    found = loading.survey(file=current.config_file, environ=os.environ, cwd=working_folder()).file
    named = (
        "" if found is not None and found.exists() and found.samefile(file) else f" --config {shlex.quote(str(file))}"
    )
    steps = [
        f"write the key into {dotenv}: POLYGON_API_KEY=…, and your plan into {file.name}",
        f"assetbatch{named} init",
        f"assetbatch{named} install cron, or install systemd",
    ]
    answer(
        {"path": str(file), "dotenv": str(dotenv) if os.access(dotenv, os.F_OK) else None, "next": steps},
        "\n  ".join([f"wrote {file}; next:", *steps]),
    )
    if named and output is None and found is not None:
        tell(f"{found} is found first: that one counts here")


@config_app.command("show")
def show(
    defaults: Annotated[
        bool, typer.Option("--defaults", help="All keys with their defaults, as a config.yaml.")
    ] = False,
) -> None:
    """Show the effective configuration as a config.yaml, secrets masked, and where each value came from.

    Example: assetbatch config show --defaults
    """
    from assetbatch.config import loading, show

    if defaults and current.json:
        raise typer.BadParameter("--defaults prints YAML: leave --json out")
    if defaults:
        named = loading.environment_names_database(file=current.config_file, environ=os.environ, cwd=working_folder())
        sys.stdout.write(show.defaults_yaml(embedded=not named))
        return
    config = current.load_config()
    if current.json:
        print_json(show.effective_document(config))
        return
    sys.stdout.write(show.effective_yaml(config))


@config_app.command("check")
def check() -> None:
    """Check the configuration; every fault at once, with file, line and key.

    Example: assetbatch config check
    """
    try:
        config = current.load_config()
    except ConfigurationError as error:
        if not current.json:
            raise
        faults = [{"place": fault.place, "key": fault.key, "message": fault.message} for fault in error.faults]
        print_json({"ok": False, "faults": faults, "warnings": []})
        raise typer.Exit(error.exit_code) from None
    document = {"ok": True, "faults": [], "warnings": [doubt.told for doubt in config.doubts]}
    answer(document, f"{config.file or 'no config.yaml, defaults only'}: no faults; {config.database.described}")


@config_app.command("schema")
def schema() -> None:
    """Print a JSON Schema of config.yaml, for editors.

    Example: assetbatch config schema > config.schema.json
    """
    from assetbatch.config import show

    sys.stdout.write(json.dumps(show.json_schema(), indent=2) + "\n")
