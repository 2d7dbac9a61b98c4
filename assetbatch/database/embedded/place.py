"""Where an embedded server keeps what: names and paths, derived from the data folder alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from msgspec import Struct

MAJOR_VERSION = 16
PORT = 5432  # of no network: it names the socket's file
DATABASE_USER = "assetbatch"
SERVICE_ACCOUNT = "assetbatch"  # the system account that root's server runs under

_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SOCKET_PATH_MAX_BYTES = 107


class Place(Struct, frozen=True):
    """The paths of one embedded server; nothing of them need exist."""

    base: Path
    home: Path
    """The server's own folder, of mode 0700."""
    socket_folder: Path
    digest: str
    """Tells this folder's server from others."""

    @classmethod
    def below(cls, folder: Path) -> Place:
        """Derive all from the base folder; two spellings of one folder lead to the same socket."""
        base = Path(os.path.realpath(folder))
        home = base / f"postgresql-{MAJOR_VERSION}"
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
        return cls(base, home, _socket_folder(home, digest), digest)

    @property
    def described(self) -> str:
        """Say to people which server it is."""
        return f"embedded PostgreSQL {MAJOR_VERSION} in {self.base}"

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "data"

    @property
    def lock_file(self) -> Path:
        """The file that is locked while the server is set up, started or stopped."""
        return self.base / f"{self.home.name}.lock"

    @property
    def socket(self) -> Path:
        """The socket that clients connect to."""
        return self.socket_folder / _SOCKET_NAME

    @property
    def is_set_up(self) -> bool:
        """Whether the database was set up here, completely; False also where the caller may not look."""
        return os.access(self.data / "PG_VERSION", os.F_OK)


def _socket_folder(home: Path, digest: str) -> Path:
    """Choose the server's own folder or, where libpq could not name a socket in it, a short one.

    No variable decides: cron's environment is another than a terminal's.
    """
    path = str(home / _SOCKET_NAME)
    # libpq takes a comma for the end of a host's name.
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX_BYTES and "," not in path and path.isprintable():
        return home
    # Whoever uses the folder sees to its owner: the server at its start, clients by `requirepeer`.
    return Path(f"/tmp/assetbatch-{os.geteuid()}-{digest}")  # noqa: S108
