"""Processes of this host and whose they are: what tells this one from all others, what keeps another one out."""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
import time
from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")
# Fields of /proc/PID/stat behind the command's name, which may have spaces and parentheses of its own; see proc(5).
STATE, START_TIME = 0, 19
DEAD_STATES = frozenset("ZX")


class Process(Struct, frozen=True):
    """One process. Where `place` is the same, `pid` means the same; `started` tells it from a later one with its pid.

    `place` has the host's name, the kernel's boot and the namespace of pids: containers share a host's kernel, and may
    share its name, too.
    """

    place: str
    pid: int
    started: int
    """Clock ticks since the boot."""


def this_process() -> Process | None:
    """Return what tells this process from all others; None where the system does not say."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (PROC / "self/ns/pid").readlink()
        pid, _, started = _look("self")
    except (OSError, ValueError, IndexError):
        return None
    # Where /proc was mounted for another namespace, its pids are not those of this one.
    return Process(f"{socket.gethostname()} {boot} {namespace}", pid, started) if pid == os.getpid() else None


def is_gone(process: Process) -> bool:
    """Return whether a process of this place has ended for sure; a zombie has: it holds nothing any more."""
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # another user's
    try:
        _, state, started = _look(str(process.pid))
    except (OSError, ValueError, IndexError):
        return False  # another user's, where /proc hides those
    return state in DEAD_STATES or started != process.started


def lock_file(descriptor: int, seconds: float) -> None:
    """Lock an open file against all other processes. Raises BlockingIOError where one has held it for so long."""
    end = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(0.005)


def user_name(uid: int) -> str:
    """Return the name of an account, for people; one without has its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _look(name: str) -> tuple[int, str, int]:
    """Read a process's pid, state and start time."""
    before, _, behind = (PROC / name / "stat").read_text(errors="replace").rpartition(")")
    fields = behind.split()
    return int(before.split()[0]), fields[STATE], int(fields[START_TIME])
