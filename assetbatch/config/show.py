"""What `config show` and `config schema` tell: values in force, defaults with comments, a JSON Schema."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import yaml
from msgspec import UNSET

from assetbatch.config.keys import fields, item_of, leaves, meta, section_of
from assetbatch.config.settings import Section, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from msgspec.structs import FieldInfo

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
        elif key.startswith("stream.urls."):
            value = None if value is UNSET else value
        elif value is UNSET:  # calls_per_minute: the one key whose default is another key's matter
            value, origin = config.calls_per_window(config.types), f"the plan, {config.plan_words}"
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


def defaults_yaml(*, embedded: bool) -> str:
    """Return a config.yaml of all keys, each with its default and a comment. `load` accepts it as it stands.

    `embedded`: it names the embedded server, as what ships does; nothing in the environment may name another one then.
    """

    def line(key: str, field: FieldInfo) -> _Line:
        declared, value = meta(field.type), field.default
        if key == "database.embedded" and embedded:
            value = True
        if value is UNSET:
            return _Line((declared.examples or [None])[0], f"{declared.description}", is_comment=True)
        return _Line(value, f"{declared.description}", is_comment=key == "database.embedded" and not embedded)

    title = "# All keys of assetbatch with their defaults. Keep the lines that you change; the rest may go."
    return "\n".join([title, *_section(Settings, "", line)]) + "\n"


def effective_yaml(config: Config) -> str:
    """Return a config.yaml of what is in force, each value with where it came from; `load` makes the same of it.

    What has no place there is a comment: secrets, what another key decides, a database that a URL names.
    """
    rows = {key: (value, origin) for key, value, origin in effective(config)}

    def line(key: str, field: FieldInfo) -> _Line:
        given = attrgetter(key)(config.settings)
        value, origin = rows.get(key, (given, config.origins[key]))
        if value is UNSET:
            value, origin = (meta(field.type).examples or [None])[0], ABSENT
        return _Line(value, origin, is_comment=given is UNSET or value == MASK)

    title = f"# What is in force, and where each value came from; {config.file or 'no config.yaml was found'}"
    elsewhere = ("database.described", "database.password", "api_key", "redis_url")
    secrets = [f"# {key}: {rows[key][0]}   # {rows[key][1]}" for key in elsewhere if rows[key][0]]
    return "\n".join([title, *secrets, *_section(Settings, "", line)]) + "\n"


class _Line(NamedTuple):
    """What stands behind a key: its value, a comment; and whether the whole line is one."""

    value: Any
    comment: str
    is_comment: bool


def _section(section: type[Section], prefix: str, line: Callable[[str, FieldInfo], _Line]) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, field in fields(section).items():
        if section is Settings:
            yield ""
        if (inner := section_of(field.type)) is not None:
            yield f"{indent}{name}:   # {(inner.__doc__ or '').rstrip('.')}"
            yield from _section(inner, f"{prefix}{name}.", line)
            continue
        value, comment, is_comment = line(prefix + name, field)
        if item_of(field.type) is not None:
            yield f"{indent}{name}:{'' if value else ' []'}   # {comment}"
            yield from (f"{indent}  - {_flow(row)}" for row in value)
        else:
            yield f"{indent}{'# ' if is_comment else ''}{name}: {_scalar(value)}   # {comment}"


def _flow(row: Any) -> str:
    given = {name: value for name, value in msgspec.to_builtins(row).items() if value != ""}
    return "{" + ", ".join(f"{name}: {_scalar(value)}" for name, value in given.items()) + "}"


def _scalar(value: Any) -> str:
    """Write a scalar as a person would: whole floats without a point, plain words without quotes."""
    if isinstance(value, float):
        # All digits, and no exponent, which YAML takes for text where it has no point.
        return f"{Decimal(repr(value)).normalize():f}"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./:-]+( [\w./-]+)*", value):
        # NO, null and the like are words of YAML's own.
        return value if yaml.safe_load(value) == value else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of config.yaml for editors; no key beside those that are declared."""
    schema: dict[str, Any] = msgspec.json.schema(Settings)
    settings = schema["$defs"]["Settings"]["properties"]
    for name, section in settings.items():
        if "$ref" in section:  # a section whose keys are all commented out is null, and as good as absent
            settings[name] = {"anyOf": [{"$ref": section["$ref"]}, {"type": "null"}], "default": section["default"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "assetbatch config.yaml", **schema}
