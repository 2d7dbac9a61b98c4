"""What `config show` and `config schema` tell: values in force, defaults with comments, a JSON Schema."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from assetbatch.config.keys import fields, item_of, leaves, meta, section_of
from assetbatch.config.settings import DatabaseSection, Section, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.config.configuration import Config

MASK = "***"
ABSENT = "not given"
_COMMENTED_OUT = {
    "rate_limiting.calls_per_minute": "5",
    "rate_limiting.tier": "free",
    "database.host": "db.example.com",
    "database.port": "5432",
    "database.name": "trading",
    "database.user": "assetbatch",
}
"""Keys without a default, and the example that stands for it."""


def effective(config: Config) -> list[tuple[str, Any, str]]:
    """Return every key, its value in force and where that came from; a secret is `***`, an absent one None.

    Lists of assets are lists of mappings. The database is told as it was resolved, whatever named it.
    """
    rows: list[tuple[str, Any, str]] = []
    for key, _ in leaves():
        section = key.partition(".")[0]
        if section == "database" or key == "rate_limiting.tier":
            continue
        value, origin = _value(config.settings, key), config.origins.get(key, "default")
        if section == "pings":
            value = None if value is None else MASK
        elif key == "rate_limiting.calls_per_minute" and value is msgspec.UNSET:
            value, origin = config.calls_per_window, f"the plan, {config.plan}"
        value = msgspec.to_builtins(value)
        rows.append((key, list(value) if isinstance(value, tuple) else value, origin))
    where = config.origins.get("database") or ABSENT
    rows += [
        ("database.embedded", config.database.embedded, where),
        ("database.name", config.database.name or None, where),
        ("database.described", config.database.described, where),
        ("database.password", *_secret("database.password", config)),
        ("api_key", *_secret("api_key", config)),
        ("redis_url", *_secret("redis_url", config)),
    ]
    return rows


def effective_document(config: Config) -> dict[str, Any]:
    """Return the same for `--json`: `file` and `values`, a list of `key`, `value` and `origin`."""
    values = [{"key": key, "value": value, "origin": origin} for key, value, origin in effective(config)]
    return {"file": None if config.file is None else str(config.file), "values": values}


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _secret(key: str, config: Config) -> tuple[str | None, str]:
    origin = config.origins.get(key)
    return (None, ABSENT) if origin is None else (MASK, origin)


def defaults_yaml() -> str:
    """Return a config.yaml of all keys, each with its default and a comment. `load` accepts it as it stands."""
    lines = ["# All keys of assetbatch with their defaults. Keep the lines that you change; the rest may go."]
    lines += _section(Settings, "", 0)
    return "\n".join(lines) + "\n"


def _section(section: type[Section], prefix: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in fields(section).items():
        key = prefix + name
        if (inner := section_of(field.type)) is not None:
            yield ""
            yield f"{indent}{name}:   # {_first_line(inner)}"
            yield from _section(inner, key + ".", depth + 1)
        elif item_of(field.type) is not None:
            yield f"{indent}{name}:   # {meta(field.type).description}"
            yield from (f"{indent}  - {_flow(row)}" for row in field.default)
        elif key in _COMMENTED_OUT:
            yield f"{indent}# {name}: {_COMMENTED_OUT[key]}   # {meta(field.type).description}"
        else:
            # The one default that is not what ships: without it, no database would be named.
            value = True if section is DatabaseSection and name == "embedded" else field.default
            blank = [""] if not indent else []
            yield from [*blank, f"{indent}{name}: {_scalar(value)}   # {meta(field.type).description}"]


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").partition("\n")[0].rstrip(".")


def _flow(row: Section) -> str:
    given = {name: value for name, value in msgspec.to_builtins(row).items() if value != ""}
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in given.items()) + "}"


def _scalar(value: Any) -> str:
    """Write a scalar as a person would: whole floats without a point, text bare where YAML reads it back."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:g}" if abs(value) < 1e6 else str(value)
    bare = re.fullmatch(r"[A-Za-z][\w./:-]*( [\w./-]+)*", value) and ": " not in value and value[1:2] != ":"
    return value if bare and yaml.safe_load(value) == value else json.dumps(value, ensure_ascii=False)


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of config.yaml for editors; no key beside those that are declared."""
    schema: dict[str, Any] = msgspec.to_builtins(msgspec.json.schema(Settings))
    for definition in schema["$defs"].values():
        if not definition.get("required"):
            definition.pop("required", None)
    settings = schema["$defs"]["Settings"]["properties"]
    for name, section in settings.items():
        if "$ref" in section:  # a section whose keys are all commented out is null, and as good as absent
            settings[name] = {"anyOf": [{"$ref": section["$ref"]}, {"type": "null"}], "default": section["default"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "assetbatch config.yaml",
        **schema,
    }
