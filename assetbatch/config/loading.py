"""From all sources to one `Config`, or to all faults: option, environment, .env, config.yaml, default."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from assetbatch.config import assets, database, document, secret, sources, validation
from assetbatch.config.configuration import Config, url_passwords
from assetbatch.config.given import Given, plain
from assetbatch.config.keys import leaves
from assetbatch.config.settings import Settings
from assetbatch.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from assetbatch.config.validation import Values

MAX_FAULTS = 100
HINT = "`assetbatch config show --defaults` lists all keys"
_REDIS = re.compile(r"(redis|rediss|unix)://\S+")


def load(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    cwd: Path,
    overrides: Mapping[str, Any] = MappingProxyType({}),
    needs_database: bool = True,
) -> Config:
    """Return the effective configuration. Raises `ConfigurationError` with every fault of every source.

    `file` is the value of `--config`; `overrides` are options by dotted key (`{"provider.plan": "starter"}`),
    None meaning not given. Without `needs_database` none need be named, while two still clash.
    """
    faults: list[Fault] = []
    found = sources.find(file, environ, cwd, faults)
    root = document.read(found.text, found.display, faults) if found and found.text is not None else None
    unreadable = bool(faults) and root is None
    in_file = validation.from_document(root, faults)
    process = sources.process_variables(environ)
    dotenv = sources.dotenv_variables(found, faults)
    layers = [secret.Layer(process, cwd)]
    if found is not None:
        layers.append(secret.Layer(dotenv, found.path.parent))
    secrets = secret.read(layers, sources.credentials_folder(environ), faults)
    variables = dotenv | process
    in_environment = validation.from_variables(variables, faults)
    in_options = validation.from_options(overrides, faults)
    values = in_file | in_environment | in_options
    assets.check(values, faults)
    _check_key(secrets.get("POLYGON_API_KEY"), faults)
    _check_redis(values, secrets.get("REDIS_URL"), faults)

    # A value that was refused may be what names the database: then it is not said that none is named.
    doubtful = unreadable or any(_about_database(fault) for fault in faults)
    named = database.Named(
        file=in_file,
        variables=variables,
        environment=in_environment,
        options=in_options,
        secrets=secrets,
        doubtful=doubtful,
    )
    where, named_at = database.resolve(named, faults)
    if where is None and needs_database and not doubtful and not any(map(_about_database, faults)):
        faults.append(database.nameless(found.display if found else "config.yaml"))
    if faults:
        raise ConfigurationError(_presented(faults, _texts(secrets, variables, values)), hint=HINT)

    origins = {key: values[key].place if key in values else "default" for key, _ in leaves()}
    del origins["rate_limiting.tier"]
    origins |= {"database": named_at, **{_KEYS[name]: given.place for name, given in secrets.items()}}
    return Config(
        settings=_settings(assets.yielding_defaults(values) | values),
        api_key=_secret(secrets, "POLYGON_API_KEY"),
        database=where or database.UNNAMED,
        redis_url=_secret(secrets, "REDIS_URL"),
        file=found.path if found else None,
        origins=MappingProxyType(origins),
    )


_KEYS = {
    "POLYGON_API_KEY": "api_key",
    "DATABASE_URL": "database.url",
    "DB_PASSWORD": "database.password",
    "REDIS_URL": "redis_url",
}


def _secret(secrets: Mapping[str, Given], name: str) -> secret.Secret | None:
    return secrets[name].value if name in secrets else None


def _settings(values: Values) -> Settings:
    tree: dict[str, Any] = {}
    for key, given in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = plain(given)
    return msgspec.convert(tree, Settings)


def _about_database(fault: Fault) -> bool:
    return fault.key.startswith(("database", "DB_", "DATABASE_")) or fault.place.startswith(("DB_", "DATABASE_"))


def _check_key(given: Given | None, faults: list[Fault]) -> None:
    if given is not None and not re.fullmatch(r"[!-~]+", given.value.reveal()):
        key = secret.key_of("POLYGON_API_KEY", given)
        faults.append(Fault(given.place, key, "has a space or a letter that no key has"))


def _check_redis(values: Values, url: Given | None, faults: list[Fault]) -> None:
    if url is not None and not _REDIS.fullmatch(url.value.reveal()):
        key = secret.key_of("REDIS_URL", url)
        faults.append(Fault(url.place, key, "expected redis://host:6379/0, rediss://… or unix://…"))
    if url is not None:
        return
    backend, stream = values.get("events.backend"), values.get("events.stream")
    mend = f"needs Redis: give {secret.ways('REDIS_URL')}"
    if backend is not None and backend.value == "redis":
        faults.append(Fault(backend.place, "events.backend", f"redis {mend}"))
    elif stream is not None and stream.value:
        faults.append(Fault(stream.place, "events.stream", f"true {mend}"))


def _texts(secrets: Mapping[str, Given], variables: Mapping[str, Given], values: Values) -> list[str]:
    """Return every secret's text, the refused ones' too, the longest first."""
    texts = {given.value.reveal() for given in secrets.values()}
    texts |= {variables[name].value for name in secret.NAMES if name in variables}
    texts |= {given.value for key, given in values.items() if key.startswith("pings.") and given.value}
    for text in tuple(texts):
        texts |= url_passwords(text)
    return sorted(texts, key=len, reverse=True)


def _presented(faults: Iterable[Fault], secrets: Iterable[str]) -> list[Fault]:
    """Return the faults in the order of their lines and, whatever put it there, without a secret's text."""
    long_enough = [text for text in secrets if len(text) >= 4]

    def masked(text: str) -> str:
        for hidden in long_enough:
            text = text.replace(hidden, "***")
        return text

    ordered = sorted(dict.fromkeys(faults), key=_line)
    shown = [Fault(fault.place, masked(fault.key), masked(fault.message)) for fault in ordered[:MAX_FAULTS]]
    if len(ordered) > MAX_FAULTS:
        shown.append(Fault("", "", f"and {len(ordered) - MAX_FAULTS} more"))
    return shown


def _line(fault: Fault) -> tuple[int, str, int]:
    file, _, line = fault.place.rpartition(":")
    return (0, file, int(line)) if file and line.isdecimal() else (1, "", 0)
