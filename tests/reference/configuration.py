"""docs/reference/configuration.md, from the declaration in settings.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from assetbatch.config.keys import fields, item_of, meta, section_of
from assetbatch.config.secret import NAMES
from assetbatch.config.settings import Section, Settings
from assetbatch.config.sources import VARIABLES
from assetbatch.config.wording import expected
from tests.reference.markdown import code, head, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec.structs import FieldInfo

INTRODUCTION = """
`config.yaml` as shipped is all that most need: each key has a default. `assetbatch config show` prints what is in force
and where each value came from; `config show --defaults` prints every key as a `config.yaml`, and `config schema` a JSON
Schema for editors.

A value comes from the environment, else from the file `.env` beside the `config.yaml` that was found, else from
`config.yaml`, else from the defaults. `config.yaml` is looked for at `--config`, `$ASSETBATCH_CONFIG`, `./config.yaml`,
`~/.config/assetbatch/`, `/etc/assetbatch/`; the first that is there counts. An unknown key, a wrong type or a value out
of range is refused, and all faults are told at once:

```text
$ assetbatch config check
assetbatch config check: config.yaml:2: provider.plann: unknown key; did you mean plan?
```

The database is always named, so that cron never writes into another one than you look at: either by the environment, or
by `database:` in `config.yaml`. None named, or two at once, is refused. An embedded one is each user's own.

## Environment
"""
SECRETS = {
    "POLYGON_API_KEY": "the key",
    "DATABASE_URL": "the database, in place of the `DB_…` variables: a URI or a connection string of libpq",
    "DB_PASSWORD": "the password beside `DB_HOST`, `DB_NAME` and `DB_USER`",
    "REDIS_URL": "where events go: `redis://…`, `rediss://…` or `unix:///path`",
}
MORE = """
A variable that is set but empty counts as unset. One of another name is not read; one that was plainly meant, such as
`POLYGON_APIKEY` or `DB_PASS`, is told of where the right one is missing. `POLYGON_RATE_LIMIT` is a number, or
`unlimited`.

Four more variables say where things are: `ASSETBATCH_CONFIG` the configuration file, `XDG_DATA_HOME` the data of the
embedded PostgreSQL, `XDG_STATE_HOME` what was told of trouble, `SANDBOX_KEY` the key that the sandbox accepts.

### Secrets

Each may be given in three ways, here for the key:

- as a variable: `POLYGON_API_KEY=…` in the environment or in `.env`;
- as a file: `POLYGON_API_KEY_FILE=/run/secrets/key`, whose first line it is;
- as a credential of systemd named `POLYGON_API_KEY`, in capitals or small letters (`LoadCredential=`).

Keys and passwords are never in `config.yaml`, in a URL of the API, a log line, an error or the database, nor in the
list of processes. In a URL's user and password `@ / ? # % :` and spaces are written as % codes (`%40` for `@`); one
that could be read in more than one way is refused before anything is looked up.
"""


def page() -> str:
    """Return the whole page."""
    variables = ([code(name), code(key), prose(_description(key))] for name, key in VARIABLES.items())
    secrets = ([code(name), "a secret", SECRETS[name]] for name in NAMES)
    parts = [
        head("Configuration", "the declaration in settings.py"),
        INTRODUCTION,
        table(["variable", "stands for", "which is"], [*secrets, *variables]),
        MORE,
        "## The file itself",
        *_section(Settings, ""),
    ]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _description(key: str) -> str:
    section: type[Section] = Settings
    *sections, name = key.split(".")
    for one in sections:
        section = section_of(fields(section)[one].type) or section
    return meta(fields(section)[name].type).description or ""


def _section(section: type[Section], prefix: str) -> Iterator[str]:
    """Yield the keys of a section that hold values, as a table, and then each section and list within it."""
    inner = {name: found for name, field in fields(section).items() if (found := section_of(field.type))}
    values = {name: field for name, field in fields(section).items() if name not in inner}
    if values:
        yield table(["key", "holds", "default", "is"], (_row(prefix + name, field) for name, field in values.items()))
    for name, found in inner.items():
        yield f"## {prefix}{name}" if not prefix else f"### {prefix}{name}"
        yield prose(found.__doc__ or "")
        yield from _section(found, f"{prefix}{name}.")
    for name, field in values.items():
        if (item := item_of(field.type)) is not None and issubclass(item, Section):
            yield f"### An item of {prefix}{name}"
            yield prose(item.__doc__ or "")
            yield from _section(item, "")


def _row(key: str, field: FieldInfo) -> list[str]:
    item = item_of(field.type)
    holds = "a list, see below" if item is not None and issubclass(item, Section) else prose(expected(field.type))
    return [code(key), holds, _default(field), prose(meta(field.type).description or "")]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        return "needed"
    if value is UNSET:
        return "absent"
    if isinstance(value, tuple):
        return ", ".join(one.symbol for one in value)
    if isinstance(value, float):
        return code(f"{value:.10g}")
    if isinstance(value, str):
        return code(value) if value else "empty"
    return code(msgspec.json.encode(value).decode())
