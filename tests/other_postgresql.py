"""Another PostgreSQL than the wheel's for the tests' server.

ASSETBATCH_TEST_POSTGRESQL names the folder of its programs, e.g. /usr/lib/postgresql/15/bin.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.database.embedded import control, system
from assetbatch.database.embedded.place import DATABASE_USER, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "ASSETBATCH_TEST_POSTGRESQL"


@contextmanager
def other_programs(base: Path) -> Iterator[None]:
    """Let this process's server below `base` be of the programs that the environment names, if it names any."""
    if not (folder := os.environ.get(VARIABLE)):
        yield
        return
    programs = Path(folder).resolve(strict=True)
    _set_up(Place.below(base), programs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "find_programs", lambda _base, _account: programs)
        yield


def _set_up(place: Place, programs: Path) -> None:
    """Do what the product does, with an initdb that may be too old for `--set`, which came with 16."""
    account = system.server_account()
    system.make_base_folder(place.base, account)
    system.make_own_folder(place.home, account)
    command = [str(programs / "initdb"), "-D", "data", f"--username={DATABASE_USER}", "--auth=trust"]
    command += ["--encoding=UTF8", "--no-locale", "--data-checksums", "--no-sync"]
    answer = system.run(command, account, folder=place.home, timeout_seconds=60)
    assert answer.returncode == 0, answer.stdout
    with (place.data / "postgresql.conf").open("a") as configuration:
        configuration.writelines("{} = '{}'\n".format(*setting.split("=", 1)) for setting in control._SETTINGS)
