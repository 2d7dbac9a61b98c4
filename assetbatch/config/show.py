"""What `config show` and `config schema` tell: values in force, defaults with comments, a JSON Schema."""

from __future__ import annotations

import json
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from assetbatch.config.keys import fields, item_of, leaves, meta, section_of
from assetbatch.config.settings import DatabaseSection, Section, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config.configuration import Config

MASK = "***"
ABSENT = "not given"


def effective(config: Config) -> list[tuple[str, Any, str]]:
    """Return every key, its value in force and where that came from; a secret is `***`, an absent one None.

    Lists of assets are lists of mappings. The database is told as it was resolved, whatever named it.
    """
    rows: list[tuple[str, Any, str]] = []
    for key, _ in leaves():
        if key.startswith("database.") or key == "rate_limiting.tier":
            continue
        value, origin = attrgetter(key)(config.settings), config.origins[key]
        if key.startswith("pings."):
            value = value and MASK
        elif value is UNSET:  # calls_per_minute: the one key whose default is another key's matter
            value, origin = config.calls_per_window, f"the plan, {config.plan}"
        value = msgspec.to_builtins(value)
        rows.append((key, list(value) if isinstance(value, tuple) else value, origin))
    where = config.origins["database"]
    rows += [
        ("database.embedded", config.database.embedded, where),
        ("database.name", config.database.name, where),
        ("database.described", config.database.described, where),
    ]
    for key in ("database.password", "api_key", "redis_url"):
        rows.append((key, MASK if key in config.origins else None, config.origins.get(key, ABSENT)))
    return rows


def effective_document(config: Config) -> dict[str, Any]:
    """Return the same for `--json`: `file` and `values`, a list of `key`, `value` and `origin`."""
    values = [{"key": key, "value": value, "origin": origin} for key, value, origin in effective(config)]
    return {"file": None if config.file is None else str(config.file), "values": values}


def defaults_yaml() -> str:
    """Return a config.yaml of all keys, each with its default and a comment. `load` accepts it as it stands."""
    lines = ["# All keys of assetbatch with their defaults. Keep the lines that you change; the rest may go."]
    lines += _section(Settings, "")
    return "\n".join(lines) + "\n"


def _section(section: type[Section], indent: str) -> Iterator[str]:
    for name, field in fields(section).items():
        if section is Settings:
            yield ""
        if (inner := section_of(field.type)) is not None:
            yield f"{name}:   # {(inner.__doc__ or '').rstrip('.')}"
            yield from _section(inner, "  ")
            continue
        declared, value = meta(field.type), field.default
        if item_of(field.type) is not None:
            yield f"{indent}{name}:   # {declared.description}"
            yield from (f"{indent}  - {_flow(row)}" for row in value)
        elif value is UNSET:
            example = _scalar((declared.examples or [None])[0])
            yield f"{indent}# {name}: {example}   # {declared.description}"
        else:
            # The one default that is not what ships: without it, no database would be named.
            value = True if section is DatabaseSection else value
            yield f"{indent}{name}: {_scalar(value)}   # {declared.description}"


def _flow(row: Section) -> str:
    given = {name: value for name, value in msgspec.to_builtins(row).items() if value != ""}
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in given.items()) + "}"


def _scalar(value: Any) -> str:
    """Write a scalar as a person would: whole floats without a point, plain words without quotes."""
    if isinstance(value, float):
        return f"{value:g}"
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2}[\w ./:-]*", value)
    return value if bare else json.dumps(value)


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of config.yaml for editors; no key beside those that are declared."""
    schema: dict[str, Any] = msgspec.json.schema(Settings)
    settings = schema["$defs"]["Settings"]["properties"]
    for name, section in settings.items():
        if "$ref" in section:  # a section whose keys are all commented out is null, and as good as absent
            settings[name] = {"anyOf": [{"$ref": section["$ref"]}, {"type": "null"}], "default": section["default"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "assetbatch config.yaml", **schema}
