"""Which database: it is named, and once, so that cron writes into the one that the operator looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from assetbatch.config.secret import Secret
from assetbatch.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assetbatch.config.given import Given
    from assetbatch.config.validation import Values

DEFAULT_NAME = "assetbatch"
DEFAULT_PORT = 5432
_NAMES = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")
_MEND = (
    "set DATABASE_URL, or DB_HOST and DB_NAME, or write into config.yaml database: {host: …, name: …} "
    "or database: {embedded: true}"
)


@dataclass(frozen=True, slots=True)
class Database:
    """Where the database is.

    `conninfo` is libpq's connection string, password inside, and None for the embedded server; `described` is
    for people and has no password. `name` is empty when none is named and none was needed.
    """

    embedded: bool
    name: str
    conninfo: Secret | None
    described: str


UNNAMED = Database(embedded=False, name="", conninfo=None, described="none is named")


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that may name a database, by source."""

    file: Values
    variables: Mapping[str, Given]
    """As written, DB_* and all: that one is set counts, even when its value is refused."""
    environment: Values
    options: Values
    secrets: Mapping[str, Given]
    doubtful: bool
    """Something that may name a database was refused: what is missing is then no fault of its own."""


def resolve(named: Named, faults: list[Fault]) -> tuple[Database | None, str]:
    """Return the database and where it was named; None when nothing names one, or when `faults` says why.

    An option names the whole database, and nothing else is then asked. Otherwise DATABASE_URL stands alone,
    and DB_* goes before `database:` in config.yaml, name by name.
    """
    options = _parts(named.options)
    if options:
        return _from_parts(options, named.secrets.get("DB_PASSWORD"), faults)
    url = named.secrets.get("DATABASE_URL")
    variables = {name: given.place for name, given in named.variables.items() if name in _NAMES}
    if "DB_PASSWORD" in named.secrets:
        variables["DB_PASSWORD"] = named.secrets["DB_PASSWORD"].place
    file = _parts(named.file)
    if url is not None and variables:
        name, place = next((name, variables[name]) for name in _NAMES if name in variables)
        message = (
            f"two databases are named: by {_where('DATABASE_URL', url.place)} and by {_where(name, place)}: "
            "keep DATABASE_URL or the DB_ names, not both"
        )
        faults.append(Fault(url.place, "database", message))
        return None, ""
    if _embedded(file):
        rival = _rival(url, variables)
        if rival:
            chosen = file["embedded"].place
            message = (
                f"the embedded server is chosen here, and {rival} names another database: "
                f"remove embedded: true ({chosen}), or unset {rival}"
            )
            faults.append(Fault(chosen, "database.embedded", message))
            return None, ""
    if url is not None:
        return _from_url(url, faults), url.place
    parts = file | _parts(named.environment)
    if named.doubtful and not {"host", "name"} <= parts.keys() and not _embedded(parts):
        return None, ""
    return _from_parts(parts, named.secrets.get("DB_PASSWORD"), faults)


def nameless(place: str) -> Fault:
    """Return the fault of a configuration that names no database."""
    return Fault(place, "database", f"no database is named: {_MEND}")


def _parts(values: Values) -> dict[str, Given]:
    return {key.partition(".")[2]: given for key, given in values.items() if key.startswith("database.")}


def _embedded(parts: Mapping[str, Given]) -> bool:
    return "embedded" in parts and parts["embedded"].value is True


def _where(name: str, place: str) -> str:
    return name if place == name else f"{name} ({place})"


def _rival(url: Given | None, variables: Mapping[str, str]) -> str:
    """Return what in the environment names a database; a password alone names none."""
    if url is not None:
        return _where("DATABASE_URL", url.place)
    return next((_where(name, variables[name]) for name in _NAMES[:-1] if name in variables), "")


def _from_parts(parts: Mapping[str, Given], password: Given | None, faults: list[Fault]) -> tuple[Database | None, str]:
    if _embedded(parts):
        beside = [name for name in ("host", "port", "user") if name in parts]
        if beside:
            message = (
                f"the embedded server has no {beside[0]} ({parts[beside[0]].place}): "
                f"remove embedded: true, or {' and '.join(beside)}"
            )
            faults.append(Fault(parts["embedded"].place, "database.embedded", message))
            return None, ""
        name = parts["name"].value if "name" in parts else DEFAULT_NAME
        described = f"embedded, database {name}"
        return Database(embedded=True, name=name, conninfo=None, described=described), parts["embedded"].place
    given = [parts[name] for name in ("host", "name", "user", "port") if name in parts]
    if not given:
        return None, ""
    missing = [name for name in ("host", "name") if name not in parts]
    if missing:
        ways = " and ".join(f"DB_{name.upper()} or database.{name}" for name in missing)
        faults.append(Fault(given[0].place, "database", f"a database is named without its {missing[0]}: set {ways}"))
        return None, ""
    values: dict[str, Any] = {
        "host": parts["host"].value,
        "port": DEFAULT_PORT,
        "dbname": parts["name"].value,
    }
    values |= {name: parts[name].value for name in ("port", "user") if name in parts}
    if password is not None:
        values["password"] = password.value.reveal()
    place = parts["host"].place
    conninfo = " ".join(f"{word}={_quoted(str(value))}" for word, value in values.items())
    described = _described(values["dbname"], values["host"], str(values["port"]), place)
    return Database(embedded=False, name=values["dbname"], conninfo=Secret(conninfo), described=described), place


def _quoted(value: str) -> str:
    """Quote a value as libpq wants it in a keyword/value string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _described(name: str, host: str, port: str, place: str) -> str:
    address = host if host.startswith("/") or "," in host else f"{host}:{port or DEFAULT_PORT}"
    return f"{name} on {address} ({place})"


def _from_url(url: Given, faults: list[Fault]) -> Database | None:
    text = url.value.reveal()
    try:
        parsed = parse(text)
    except ValueError:
        message = (
            "is no connection string that PostgreSQL's library understands: expected "
            "postgresql://user:password@host:5432/name, with % codes for special characters in the password"
        )
        faults.append(Fault(url.place, "database", message))
        return None
    host = parsed.get("host") or parsed.get("hostaddr") or ""
    port = parsed.get("port") or ""
    lacking = [what for what, there in (("host", host), ("database", parsed.get("dbname"))) if not there]
    if lacking:
        message = f"names no {' and no '.join(lacking)}: expected postgresql://user:password@host:5432/name"
        faults.append(Fault(url.place, "database", message))
        return None
    if not all(
        re.fullmatch("[0-9]{0,5}", part) and int(part or DEFAULT_PORT) in range(1, 65_536) for part in port.split(",")
    ):
        faults.append(Fault(url.place, "database", "its port is no number from 1 to 65535"))
        return None
    name = parsed["dbname"]
    return Database(embedded=False, name=name, conninfo=url.value, described=_described(name, host, port, url.place))


def parse(conninfo: str) -> dict[str, str]:
    """Return a connection string's parts, decoded. Raises `ValueError`, which repeats no part of it."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value is not None}
    except (psycopg.Error, ValueError):
        raise ValueError("not a connection string") from None


def passwords(conninfo: Secret) -> set[str]:
    """Return the passwords in a connection string, as they are and as they are written in it."""
    text = conninfo.reveal()
    found = set(re.findall(r"//[^/?#\s]*?:([^/?#\s]*)@", text))
    found |= set(re.findall(r"[?&](?:ssl)?password=([^&#\s]*)", text))
    try:
        parsed = parse(text)
    except ValueError:
        parsed = {}
    return found | {parsed[name] for name in ("password", "sslpassword") if name in parsed}
