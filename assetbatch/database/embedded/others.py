"""Embedded servers of other users, as root can see them: those that run, and those in the usual place of a home.

Root's commands look at a server of root's own. Where another user's jobs fill theirs, root looks at nothing, or at
something else: that is said.
"""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.config import sources
from assetbatch.database.embedded.place import SERVICE_ACCOUNT, Place
from assetbatch.database.embedded.process import arguments_of, is_embedded_server
from assetbatch.processes import user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

USUAL = Path(".local/share/assetbatch")


class Other(Struct, frozen=True):
    """An embedded server and the user whose it is; `folder` is its base folder."""

    user: str
    folder: Path

    @property
    def described(self) -> str:
        """Say to people whose it is, and where."""
        return f"{self.user}'s is in {self.folder}"

    @property
    def hint(self) -> str:
        """Say what to do, where that one is meant."""
        return f"if the jobs run as {self.user}, run this as {self.user}, too: su - {self.user}"


def find(folder: Path) -> Other | None:
    """Return the first there is, one that runs before others; None where nobody else has one.

    None also where `folder` is not the one that root's commands look at by themselves: then somebody has named it.
    """
    if os.geteuid() != 0 or folder != sources.ROOT_FOLDER:
        return None
    own = {0}
    with suppress(KeyError):
        own.add(pwd.getpwnam(SERVICE_ACCOUNT).pw_uid)
    found = ((uid, base) for uid, base in chain(_running(), _in_homes()) if uid not in own)
    return next((Other(user_name(uid), base) for uid, base in found), None)


def _running() -> Iterator[tuple[int, Path]]:
    here = Path("/").stat()
    for process in sorted(Path("/proc").glob("[0-9]*")):
        if not is_embedded_server(arguments_of(int(process.name)) or []):
            continue
        with suppress(OSError):  # it has ended
            root = (process / "root").stat()
            # Not one of a container, whose paths and users are others.
            if (root.st_dev, root.st_ino) == (here.st_dev, here.st_ino):
                # Its working folder is its data directory.
                yield process.stat().st_uid, (process / "cwd").readlink().parents[1]


def _in_homes() -> Iterator[tuple[int, Path]]:
    for entry in pwd.getpwall():
        folder = Path(entry.pw_dir) / USUAL
        if Place.below(folder).is_set_up:
            yield entry.pw_uid, folder
