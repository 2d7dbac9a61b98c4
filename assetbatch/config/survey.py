"""What can be told of the configuration even where it has faults: for who looks for what is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assetbatch.config import database, document, lookalikes, secret, sources, validation
from assetbatch.config.loading import load
from assetbatch.config.secret import Secret
from assetbatch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from assetbatch.config.configuration import Config
    from assetbatch.config.database import Database
    from assetbatch.config.given import Given
    from assetbatch.errors import Fault

    Layer = tuple[dict[str, Given], Path]


@dataclass(frozen=True, slots=True)
class Survey:
    """The configuration, or its faults and what they leave standing.

    `file` is the config.yaml that was found, `dotenv` the `.env` beside it, `key_place` where the key was given, and
    `key_file` the file that holds it, should it be one of its own. `secrets` is every text that nothing may show,
    `doubts` are variables that nothing reads, but that look like ours.
    """

    config: Config | None
    faults: tuple[Fault, ...]
    file: Path | None
    dotenv: Path | None
    api_key: Secret | None
    key_place: str
    key_file: Path | None
    database: Database | None
    secrets: tuple[str, ...] = field(repr=False)
    doubts: tuple[lookalikes.Doubt, ...]


def survey(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> Survey:
    """Look at every source of the configuration as `load` does; faults are told, and hide nothing else."""
    config: Config | None = None
    faults: tuple[Fault, ...] = ()
    try:
        config = load(file=file, environ=environ, cwd=cwd)
    except ConfigurationError as error:
        faults = error.faults
    told: list[Fault] = []  # `load` has told them already
    found = sources.find(file, environ, cwd, told)
    folder = found.path.parent if found else cwd
    credentials, variables = sources.credentials(environ), sources.dotenv_variables(found, told)
    layers: list[Layer] = [(sources.process_variables(environ), cwd), (credentials, cwd), (variables, folder)]
    doubts = tuple(lookalikes.find(environ, variables, credentials))
    secrets = secret.read(layers, told)
    key = secrets.get("POLYGON_API_KEY")
    where = config.database if config else _database(found, layers, secrets)
    hidden = config.secrets if config else secret.hidden(_texts(secrets, where))
    dotenv = found.path.with_name(".env") if found else None
    return Survey(
        config=config,
        faults=faults,
        file=found.path if found else None,
        dotenv=dotenv if dotenv is not None and os.access(dotenv, os.F_OK) else None,
        api_key=Secret(key.value) if key else None,
        key_place=key.place if key else "",
        key_file=_key_file(key, layers),
        database=where,
        secrets=hidden,
        doubts=config.doubts if config else doubts,
    )


def environment_names_database(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> bool:
    """Return whether a variable, a credential or .env names a database: then config.yaml must not choose embedded."""
    found = sources.find(file, environ, cwd, [])
    variables = sources.dotenv_variables(found, []) | sources.credentials(environ) | sources.process_variables(environ)
    return not database.NAMING.isdisjoint(variables)


def _database(found: sources.Found | None, layers: Sequence[Layer], secrets: Mapping[str, Given]) -> Database | None:
    """Return the database that is named, whatever else is wrong."""
    told: list[Fault] = []
    root = document.read(found.text, found.display, told) if found and found.text is not None else None
    process, _, dotenv = (variables for variables, _ in layers)
    variables = dotenv | process
    values = validation.from_document(root, told) | validation.from_variables(variables, told)
    where, _ = database.resolve(values, variables, secrets, told, absent_at="", doubtful=True)
    return where


def _texts(secrets: Mapping[str, Given], where: Database | None) -> set[str]:
    texts = {given.value for given in secrets.values()}
    if where and where.conninfo:
        texts |= {where.conninfo.reveal()} | database.passwords(where.conninfo.reveal())
    return texts


def _key_file(key: Given | None, layers: Sequence[Layer]) -> Path | None:
    """Return the file that the key was read from; None where a variable or `.env` itself holds it."""
    for variables, folder in layers:
        twin = variables.get("POLYGON_API_KEY_FILE")
        if key is not None and twin is not None and twin.place == key.place:
            return folder / str(twin.value)
    return None
