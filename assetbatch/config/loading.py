"""From all sources to one `Config`, or to all faults: environment, .env, config.yaml, default."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from assetbatch.config import assets, database, document, lookalikes, secret, sources, validation
from assetbatch.config.configuration import Config
from assetbatch.config.keys import leaves
from assetbatch.config.settings import Settings
from assetbatch.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from assetbatch.config.given import Given, Values

MAX_FAULTS = 100
_SECRET_KEYS = {"POLYGON_API_KEY": "api_key", "DB_PASSWORD": "database.password", "REDIS_URL": "redis_url"}
"""What `config show` calls the secrets."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration, or its faults and what they leave standing.

    `file` is the config.yaml that was found, `dotenv` the `.env` beside it, `key_place` where the key was given, and
    `key_file` the file that holds it, should it be one of its own. `secrets` is every text that nothing may show,
    `doubts` are variables that nothing reads, but that look like ours.
    """

    config: Config | None
    faults: tuple[Fault, ...]
    file: Path | None
    dotenv: Path | None
    api_key: secret.Secret | None
    key_place: str
    key_file: Path | None
    database: database.Database | None
    secrets: tuple[str, ...]
    doubts: tuple[lookalikes.Doubt, ...]

    def __repr__(self) -> str:
        return f"Survey({self.file})"


def load(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> Config:
    """Return the effective configuration. Raises `ConfigurationError` with every fault of every source.

    `file` is the value of `--config`; relative paths start at `cwd`.
    """
    surveyed = survey(file=file, environ=environ, cwd=cwd)
    if surveyed.config is None:
        raise ConfigurationError(surveyed.faults)
    return surveyed.config


def survey(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> Survey:
    """Return what can be told of the configuration, whatever is wrong with it."""
    faults: list[Fault] = []
    found = sources.find(file, environ, cwd, faults)
    root = document.read(found.text, found.display, faults) if found and found.text is not None else None
    unreadable = bool(faults) and root is None
    in_file = validation.from_document(root, faults)
    process, dotenv = sources.process_variables(environ), sources.dotenv_variables(found, faults)
    credentials = sources.credentials(environ)
    layers = (process, cwd), (credentials, cwd), (dotenv, found.path.parent if found else cwd)
    secrets = secret.read(layers, faults)
    variables = dotenv | process
    values = in_file | validation.from_variables(variables, faults)
    assets.check_config(values, faults)
    _check_redis(values, secrets, faults)
    where, named_at = database.resolve(
        values,
        variables,
        secrets,
        faults,
        absent_at=found.display if found else "no config.yaml was found",
        doubtful=unreadable or any(map(database.about, faults)),
    )
    doubts = tuple(lookalikes.that_count(lookalikes.find(environ, dotenv, credentials), where, named_at))
    # Refused ones, too: they are secrets as well.
    texts = {given.value for given in secrets.values()}
    texts |= {variables[name].value for name in secret.NAMES if name in variables}
    texts |= {given.value for key, given in values.items() if key.startswith("pings.") and given.value}
    passwords = database.passwords(where.conninfo.reveal()) if where and where.conninfo else set()
    if where and where.conninfo:
        texts |= {where.conninfo.reveal()} | passwords
    hidden = secret.hidden(texts)
    config = None
    if where is not None and not faults:
        origins = {key: values[key].place if key in values else "default" for key, _ in leaves()}
        origins |= {_SECRET_KEYS[name]: given.place for name, given in secrets.items() if name in _SECRET_KEYS}
        if passwords:  # one inside DATABASE_URL is as present as DB_PASSWORD
            origins.setdefault("database.password", named_at)
        config = Config(
            settings=_settings(values),
            api_key=_secret(secrets, "POLYGON_API_KEY"),
            database=where,
            redis_url=_secret(secrets, "REDIS_URL"),
            file=found.path if found else None,
            origins=origins | {"database": named_at},
            secrets=hidden,
            doubts=doubts,
        )
    names = "\n".join(doubt.told for doubt in doubts if database.names(doubt.meant)) if where is None else ""
    key = secrets.get("POLYGON_API_KEY")
    beside = found.path.with_name(".env") if found else None
    return Survey(
        config=config,
        faults=tuple(
            replace(fault, hint=names) if fault.key == "database" else fault for fault in _presented(faults, hidden)
        ),
        file=found.path if found else None,
        dotenv=beside if beside is not None and os.access(beside, os.F_OK) else None,
        api_key=_secret(secrets, "POLYGON_API_KEY"),
        key_place=key.place if key else "",
        key_file=_key_file(key, layers),
        database=where,
        secrets=hidden,
        doubts=doubts,
    )


def environment_names_database(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> bool:
    """Return whether a variable, a credential or .env names a database: then config.yaml must not choose embedded."""
    found = sources.find(file, environ, cwd, [])
    variables = sources.dotenv_variables(found, []) | sources.credentials(environ) | sources.process_variables(environ)
    return not database.NAMING.isdisjoint(variables)


def names_lost(*, file: Path | None, environ: Mapping[str, str], cwd: Path) -> list[str]:
    """Return the variables that configure this process, and that no `.env` gives to one that cron or systemd starts."""
    dotenv = sources.dotenv_variables(sources.find(file, environ, cwd, []), [])
    return sorted(sources.process_variables(environ).keys() - dotenv.keys())


def _key_file(key: Given | None, layers: Iterable[tuple[Mapping[str, Given], Path]]) -> Path | None:
    """Return the file that the key was read from; None where a variable or `.env` itself holds it."""
    for variables, folder in layers:
        twin = variables.get("POLYGON_API_KEY_FILE")
        if key is not None and twin is not None and twin.place == key.place:
            return folder / str(twin.value)
    return None


def _secret(secrets: Mapping[str, Given], name: str) -> secret.Secret | None:
    return secret.Secret(secrets[name].value) if name in secrets else None


def _settings(values: Values) -> Settings:
    tree: dict[str, Any] = {}
    for key, given in values.items():
        *sections, name = key.split(".")
        value = given.value
        if isinstance(value, list):
            value = [{column: cell.value for column, cell in row.items()} for row in value]
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    settings = msgspec.convert(tree, Settings)
    if "batch.secondary_assets" in values:
        return settings
    return msgspec.structs.replace(settings, batch=assets.give_way(settings.batch))


def _check_redis(values: Values, secrets: Mapping[str, Given], faults: list[Fault]) -> None:
    for key, demanding in (("events.backend", "redis"), ("events.stream", True)):
        given = values.get(key)
        if given and given.value == demanding and "REDIS_URL" not in secrets:
            word = "true" if demanding is True else demanding
            faults.append(Fault(given.place, key, f"{word} needs Redis: give {secret.ways('REDIS_URL')}"))
            return


def _presented(faults: Iterable[Fault], secrets: Sequence[str]) -> list[Fault]:
    """Return the faults in the order of their lines and, whatever put it there, without a secret's text."""
    ordered = sorted(dict.fromkeys(faults), key=_line)
    shown = [
        replace(
            fault,
            key=secret.masked(fault.key, secrets, shortest=4),
            message=secret.masked(fault.message, secrets, shortest=4),
        )
        for fault in ordered[:MAX_FAULTS]
    ]
    if len(ordered) > MAX_FAULTS:
        shown.append(Fault("", "", f"and {len(ordered) - MAX_FAULTS} more"))
    return shown


def _line(fault: Fault) -> tuple[int, str, int]:
    file, _, line = fault.place.rpartition(":")
    return (0, file, int(line)) if file and line.isdecimal() else (1, "", 0)
