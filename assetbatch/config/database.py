"""Which database: it is named, and once, so that cron writes into the one that the operator looks at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.config.secret import ENCODE, USERINFO, Secret
from assetbatch.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assetbatch.config.given import Given, Values

DEFAULT_NAME = "assetbatch"
DEFAULT_PORT = 5432
_NAMES = ("DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")
NAMING = frozenset(_NAMES) - {"DB_PASSWORD"} | {"DATABASE_URL_FILE"}
"""Variables that name a database; a password alone does not."""
_MEND = (
    "set DATABASE_URL, or DB_HOST and DB_NAME, or write into config.yaml database: {host: …, name: …} "
    "or database: {embedded: true}"
)
_URL_FORM = "expected postgresql://user:password@host:5432/name"
# Hosts may be several, in brackets or with % codes; libpq looks for the @ of a user behind a ?, too, but for a /.
_URI = rf"postgres(?:ql)?://{USERINFO}[^\s@/?#]*(?:/[^\s@?#]*(?:\?\S*)?|\?[^\s@]*)?"


class Database(Struct, frozen=True):
    """Where the database is.

    `conninfo` is libpq's connection string, password inside, and None for the embedded server; `described` is
    for people and has no password.
    """

    embedded: bool
    name: str
    conninfo: Secret | None
    described: str


def resolve(
    values: Values,
    variables: Mapping[str, Given],
    secrets: Mapping[str, Given],
    faults: list[Fault],
    *,
    absent_at: str,
    doubtful: bool,
) -> tuple[Database | None, str]:
    """Return the database and where it was named; None when `faults` says why not.

    DATABASE_URL stands alone; DB_* and `database:` of config.yaml, name by name, come in `values`. Of `variables` it
    counts that one is set, even when its value was refused. `absent_at` is the place for saying that none is named;
    it is not said when something that may name one was refused (`doubtful`).
    """
    parts = {key.removeprefix("database."): given for key, given in values.items() if key.startswith("database.")}
    url, password = secrets.get("DATABASE_URL"), secrets.get("DB_PASSWORD")
    places = {name: given.place for given_by in (variables, secrets) for name, given in given_by.items()}
    named = [name if places[name] == name else f"{name} ({places[name]})" for name in _NAMES if name in places]
    if url and len(named) > 1:
        which = f"by {named[0]} and by {named[1]}"
        message = f"two databases are named: {which}: keep DATABASE_URL or the DB_ names, not both"
        faults.append(Fault(url.place, "database", message))
        return None, ""
    if "embedded" in parts and parts["embedded"].value:
        rival = next((name for name in named if name.split()[0] in NAMING), None)
        return _embedded(parts, rival, faults), parts["embedded"].place
    if url:
        return _from_url(url, faults), url.place
    missing = [name for name in ("host", "name") if name not in parts]
    if missing and not doubtful:
        ways = " and ".join(f"DB_{name.upper()} or database.{name}" for name in missing)
        given = next((parts[name] for name in ("host", "name", "user", "port") if name in parts), None)
        message = (
            f"a database is named without its {missing[0]}: set {ways}" if given else f"no database is named: {_MEND}"
        )
        faults.append(Fault(given.place if given else absent_at, "database", message))
    return (None, "") if missing else (_from_parts(parts, password), parts["host"].place)


def names(variable: str) -> bool:
    """Return whether a variable is about which database it is."""
    return variable.startswith(("DB_", "DATABASE_"))


def about(fault: Fault) -> bool:
    """Return whether a fault concerns something that may name a database."""
    return fault.key.startswith(("database", "DB_", "DATABASE_")) or fault.place.startswith(("DB_", "DATABASE_"))


def _embedded(parts: Mapping[str, Given], rival: str | None, faults: list[Fault]) -> Database | None:
    chosen = parts["embedded"].place
    beside = [name for name in ("host", "port", "user") if name in parts]
    if rival:
        message = (
            f"the embedded server is chosen here, and {rival} names another database: "
            f"remove embedded: true ({chosen}), or unset {rival}"
        )
    elif beside:
        message = (
            f"the embedded server has no {beside[0]} ({parts[beside[0]].place}): "
            f"remove embedded: true, or {' and '.join(beside)}"
        )
    else:
        name = parts["name"].value if "name" in parts else DEFAULT_NAME
        return Database(embedded=True, name=name, conninfo=None, described=f"embedded PostgreSQL, database {name}")
    faults.append(Fault(chosen, "database.embedded", message))
    return None


def _from_parts(parts: Mapping[str, Given], password: Given | None) -> Database:
    from psycopg.conninfo import make_conninfo

    words = {"port": DEFAULT_PORT} | {name: given.value for name, given in parts.items() if name != "embedded"}
    name, host = words.pop("name"), words["host"]
    conninfo = make_conninfo(dbname=name, password=password.value if password else None, **words)
    described = _described(name, host, str(words["port"]), parts["host"].place)
    return Database(embedded=False, name=name, conninfo=Secret(conninfo), described=described)


def _described(name: str, host: str, port: str, place: str) -> str:
    address = host if host.startswith("/") or "," in host else f"{host}:{port or DEFAULT_PORT}"
    return f"{name} on {address} ({place})"


def of(conninfo: str) -> Database:
    """Return the database of a URL that a program gives, or of another connection string. Raises ConfigurationError."""
    faults: list[Fault] = []
    if _parsed(conninfo, "", faults) is None:
        raise ConfigurationError(faults)
    return Database(embedded=False, name="", conninfo=Secret(conninfo), described="the database")


def _parsed(conninfo: str, place: str, faults: list[Fault]) -> dict[str, str] | None:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if re.match("postgres(ql)?://", conninfo) and not re.fullmatch(_URI, conninfo):
        faults.append(Fault(place, "database", f"can be read in more than one way: {ENCODE}; {_URL_FORM}"))
        return None
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except (psycopg.Error, ValueError):  # what they say repeats parts of it
        message = f"is no connection string that PostgreSQL's library understands: {_URL_FORM}; {ENCODE}"
        faults.append(Fault(place, "database", message))
        return None


def _from_url(url: Given, faults: list[Fault]) -> Database | None:
    parsed = _parsed(url.value, url.place, faults)
    if parsed is None:
        return None
    name, port = parsed.get("dbname"), parsed.get("port", "")
    host = parsed.get("host") or parsed.get("hostaddr")
    if not name or not host:
        lacking = " and no ".join(what for what, there in (("host", host), ("database", name)) if not there)
        faults.append(Fault(url.place, "database", f"names no {lacking}: {_URL_FORM}"))
        return None
    # As many ports as hosts, an empty one standing for the default.
    if not all(re.fullmatch("[0-9]{0,5}", part) and 0 < int(part or DEFAULT_PORT) < 65_536 for part in port.split(",")):
        faults.append(Fault(url.place, "database", "its port is no number from 1 to 65535"))
        return None
    described = _described(name, host, port, url.place)
    return Database(embedded=False, name=name, conninfo=Secret(url.value), described=described)


def passwords(conninfo: str) -> set[str]:
    """Return the passwords in a connection string, decoded."""
    from psycopg.conninfo import conninfo_to_dict

    parsed = conninfo_to_dict(conninfo)
    return {str(parsed[name]) for name in ("password", "sslpassword") if name in parsed}


def uri(conninfo: str) -> str:
    """Return a connection string as a URI, without what libpq takes for a secret.

    psql, psycopg and SQLAlchemy read the same out of it: one host of the network stands where a URL has it, a socket's
    folder or several hosts in the query.
    """
    from urllib.parse import quote, urlencode

    from psycopg import pq

    # Passwords have a mark, and so have the keys that stand for one.
    options = pq.Conninfo.parse(conninfo.encode())
    parts = {option.keyword.decode(): option.val.decode() for option in options if option.val and not option.dispchar}
    user, name, host = parts.pop("user", ""), parts.pop("dbname", ""), parts.get("host", "")
    address = f"{quote(user, safe='')}@" if user else ""
    if re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:]+", host, re.ASCII):
        del parts["host"]
        address += f"[{host}]" if ":" in host else host
        address += f":{port}" if (port := parts.pop("port", "")) else ""
    return f"postgresql://{address}/{quote(name, safe='')}" + (
        f"?{urlencode(parts, safe='/,', quote_via=quote)}" if parts else ""
    )
