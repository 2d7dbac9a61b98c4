"""Commands as forks of a process that has imported all they need: a start costs a tenth of that of an interpreter.

The process itself is an interpreter started as a command's is, which has imported modules and done nothing else. So a
fork is what a fresh one is at the command's first line, but for what an interpreter makes of its environment and
streams: whoever has a say there is started afresh, see `is_served`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import _lru_cache_wrapper, cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROJECT = Path(__file__).parents[1]
# What no interpreter and no import reads; the first is of coverage.py, which has the forks measured as they begin.
SERVED = re.compile(r"COVERAGE_PROCESS_CONFIG|(POLYGON|XDG|DATABASE|REDIS|QUEUE|PRIORITY|ASSETBATCH)_\w+|HOME|PATH")
MOST_BYTES = 1 << 17


def is_served(environment: Mapping[str, str]) -> bool:
    """Return whether a fork does with this environment what a fresh interpreter would."""
    return all(map(SERVED.fullmatch, environment))


def measured() -> dict[str, str]:
    """Return the variable that has an interpreter measured; nothing where this one is not."""
    return {name: value for name, value in os.environ.items() if name == "COVERAGE_PROCESS_CONFIG"}


class _Order(NamedTuple):
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]


class ForkServer:
    """A process that forks into commands; it ends with this one."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"]} | measured(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(10)

    def run(
        self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, as subprocess.run does with its output in pipes. May be called by several threads."""
        pipes = [os.pipe() for _ in range(3)]
        order = _Order(arguments, str(folder), environment)
        try:
            socket.send_fds(self._socket, [json.dumps(order).encode()], [theirs for _, theirs in pipes])
        finally:
            for _, theirs in pipes:
                os.close(theirs)
        told = [bytearray() for _ in pipes]
        try:
            is_over = _read_all([ours for ours, _ in pipes], told, seconds=timeout)
        finally:
            for ours, _ in pipes:
                os.close(ours)
        assert told[2], "the process that forks has ended"
        command = ["assetbatch", *arguments]
        pid, *exit_code = map(int, told[2].split())
        if not is_over:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout, bytes(told[0]), bytes(told[1]))
        stdout, stderr = (re.sub("\r\n?", "\n", text.decode()) for text in told[:2])
        return subprocess.CompletedProcess(command, exit_code[0], stdout, stderr)


@cache
def fork_server() -> ForkServer:
    """Return this process's own, which is started for its first command."""
    return ForkServer()


def _read_all(descriptors: Sequence[int], told: Sequence[bytearray], *, seconds: float) -> bool:
    """Read each to its end; return whether all have come to it in time."""
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as reading:
        for descriptor, into in zip(descriptors, told, strict=True):
            reading.register(descriptor, selectors.EVENT_READ, into)
        while reading.get_map():
            ready = reading.select(max(0, end - time.monotonic()))
            if not ready and time.monotonic() >= end:
                return False
            for key, _ in ready:
                if got := os.read(key.fd, 65536):
                    key.data.extend(got)
                else:
                    reading.unregister(key.fd)
    return True


def _import_all() -> None:
    import assetbatch

    for found in pkgutil.walk_packages(assetbatch.__path__, "assetbatch."):
        # As a module, `assetbatch.cli.main` takes the place of the function that begins.
        if found.name not in {"assetbatch.__main__", "assetbatch.cli.main"}:
            importlib.import_module(found.name)
    caches = [one for one in gc.get_objects() if isinstance(one, _lru_cache_wrapper)]
    filled = [one for one in caches if one.__module__.startswith("assetbatch") and one.cache_info().currsize]
    assert not filled, f"what was imported has filled {filled}"


def _serve(orders: socket.socket) -> tuple[_Order, Sequence[int]] | None:
    """Fork for each order, and tell its third pipe the fork's pid, then the exit code. Return None at the end.

    In a fork: return what it is to run, and its pipes.
    """
    with selectors.DefaultSelector() as waiting:
        waiting.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.data:
                    pid, telling = key.data
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with suppress(BrokenPipeError):  # it has taken too long for who has asked
                        os.write(telling, f" {exit_code}".encode())
                    os.close(telling)
                    continue
                text, pipes, _, _ = socket.recv_fds(orders, MOST_BYTES, 3)
                if not text:
                    return None
                if not (pid := os.fork()):
                    return _Order(*json.loads(text)), pipes
                stdout, stderr, telling = pipes
                os.close(stdout)
                os.close(stderr)
                os.write(telling, str(pid).encode())
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, telling))


def _run(order: _Order, pipes: Sequence[int]) -> None:
    """Do what `python -m assetbatch` does in a process of its own."""
    os.dup2(pipes[0], 1)
    os.dup2(pipes[1], 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # What Python itself puts there where no locale is named.
    locale = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}
    os.environ.clear()
    os.environ.update({**locale, **order.environment})
    os.chdir(order.folder)
    sys.path[0] = order.folder
    sys.argv[1:] = order.arguments
    try:
        runpy.run_module("assetbatch", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            _exit(end.code)
        raise


def _exit(code: int) -> None:
    """End as Python does, but that no object is taken apart: in a fork, that copies all there is."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    _import_all()
    # What is there is shared by all forks for as long as none of them counts who refers to it.
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        forked = _serve(orders)
    if forked:
        _run(*forked)


if __name__ == "__main__":
    _main()
