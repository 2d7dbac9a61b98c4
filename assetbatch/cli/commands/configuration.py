"""`config show`, `config check`, `config schema`."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from assetbatch.cli.invocation import answer, current, print_json, working_folder
from assetbatch.errors import ConfigurationError

config_app = typer.Typer(help="The configuration.", no_args_is_help=True)


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
