"""The process that runs a data folder: whether it is there, is ours, and accepts connections."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from assetbatch.database.embedded.place import Place

_PID, _STATUS = 0, 7  # lines of postmaster.pid (PostgreSQL's miscadmin.h)
_NAME_PREFIX = "cluster_name=assetbatch-"
_DELETED = " (deleted)"


class Postmaster(Struct, frozen=True):
    """PostgreSQL's first process in one place."""

    place: Place

    @property
    def name_setting(self) -> str:
        """The setting that stands on the server's command line, so that /proc tells whose process it is."""
        return f"{_NAME_PREFIX}{self.place.digest}"

    def ready(self) -> bool:
        """Whether it accepts connections, and can do all it should. No subprocess, nothing in the server's log."""
        lines = _lines(self._pid_file)
        if len(lines) <= _STATUS or lines[_STATUS].strip() != "ready":
            return False
        # A killed one's socket takes connections for a moment longer, to nobody.
        if self.pid() is None or self.lost_its_programs():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.place.socket))
            except OSError:
                return False
        return True

    def pid(self) -> int | None:
        """Find the process that runs the folder, also one that an operator started by hand."""
        pid = _recorded_pid(self._pid_file)
        return pid if pid is not None and self._is_server(arguments_of(pid)) else None

    def lost_its_programs(self) -> bool:
        """Whether it runs from a folder that was deleted, as with the environment that started it.

        It still takes connections, and fails at whatever it has not loaded by then, such as PL/pgSQL. One whose
        programs were only replaced goes on.
        """
        pid = self.pid()
        try:
            program = str(Path(f"/proc/{pid}/exe").readlink())  # as the kernel sees it for the server
        except OSError:
            return False
        return program.endswith(_DELETED) and not Path(program.removesuffix(_DELETED)).exists()

    def clear_recycled(self) -> None:
        """Remove lock files whose process id belongs to an unrelated process now. Call it under the lock.

        PostgreSQL takes any living process of its own user for its predecessor and would, after a reboot,
        refuse to start for good. A file whose process is gone is left to it: it checks the shared memory.
        """
        socket_lock = self.place.socket.with_name(f"{self.place.socket.name}.lock")
        for file in (self._pid_file, socket_lock):
            pid = _recorded_pid(file)
            arguments = None if pid is None else arguments_of(pid)
            if arguments is not None and not self._is_server(arguments):
                file.unlink(missing_ok=True)

    @property
    def _pid_file(self) -> Path:
        return self.place.data / "postmaster.pid"

    def _is_server(self, arguments: list[str] | None) -> bool:
        if not arguments or Path(arguments[0]).name != "postgres":
            return False
        return self.name_setting in arguments or not any(each.startswith(_NAME_PREFIX) for each in arguments)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _recorded_pid(file: Path) -> int | None:
    with suppress(ValueError, IndexError):
        return abs(int(_lines(file)[_PID]))  # negative: a server in single-user mode
    return None


def is_embedded_server(arguments: list[str]) -> bool:
    """Return whether a command line is that of an embedded server's first process, whoever's."""
    program = Path(arguments[0]).name if arguments else ""
    return program == "postgres" and any(each.startswith(_NAME_PREFIX) for each in arguments)


def arguments_of(pid: int) -> list[str] | None:
    """Read a process's command line; it is empty for a zombie, None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
