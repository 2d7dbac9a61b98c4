"""What the benchmarks share: a PostgreSQL of their own, a sandbox and work in other processes, how goals are told."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from assetbatch.config import Database, Secret
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.opening import connect
from assetbatch.database.setup import schema
from assetbatch.sandbox.server import Arrival, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection as Pipe

    from assetbatch.database.connection import Connection
    from assetbatch.provider.client import Client
    from assetbatch.provider.request import Request

T = TypeVar("T")

STATUS = [str(Path(sys.executable).with_name("assetbatch")), "status", "--json"]

# A forked process would begin with its parent's memory and connections.
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Bench:
    """A temporary folder, an embedded server in it, and the databases on that."""

    folder: Path
    server: EmbeddedServer

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Self]:
        """Create the server and run it; at the end stop it and remove the folder."""
        # The embedded server of root runs as another user, who must be able to pass.
        folder = Path(tempfile.mkdtemp(prefix="assetbatch-bench-"))
        folder.chmod(0o755)
        server = EmbeddedServer(folder / "data")
        try:
            server.start(create=True)
            yield cls(folder, server)
        finally:
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)

    def create(self, name: str = "bench") -> str:
        """Create an empty database; return its connection string."""
        self.server.create_database(name)
        return self.server.conninfo(name)

    def open(self, name: str) -> Connection:
        return open_database(self.server.conninfo(name))

    def environment(self, conninfo: str) -> dict[str, str]:
        """Give the least that a command needs to work on this database."""
        # Else a configuration of this machine would count.
        file = self.folder / "config.yaml"
        file.touch()
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DATABASE_URL": conninfo,
            "ASSETBATCH_CONFIG": str(file),
        }

    def run(self, arguments: Sequence[str], environment: dict[str, str]) -> tuple[float, str]:
        """Run a command; return how long it took in ms, and what it wrote to stderr."""
        began = time.perf_counter()
        done = subprocess.run(arguments, env=environment, cwd=self.folder, capture_output=True, text=True, check=True)
        return (time.perf_counter() - began) * 1000, done.stderr


def database_at(conninfo: str) -> Database:
    return Database(embedded=False, name="bench", conninfo=Secret(conninfo), described="bench")


def open_database(conninfo: str) -> Connection:
    """Connect as the commands do."""
    return connect(database_at(conninfo), Path(), job="bench")


def open_migrated(conninfo: str) -> Connection:
    """Connect, and make the tool's schema where it is missing."""
    connection = open_database(conninfo)
    schema.migrate(connection)
    return connection


def ask(client: Client, request: Request[T]) -> T:
    """Send a request by itself, and read its answer."""
    landed = threading.Event()
    asked = client.begin(request, landed.set)
    landed.wait(client.request_seconds)
    return client.finish(asked, now=datetime.now(UTC))


class SandboxProcess:
    """A sandbox of this kind in a process of its own, until it is closed."""

    def __init__(self, kind: Callable[..., Any] = Sandbox, **options: Any) -> None:
        self._control, other = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(kind, options, other), daemon=True)
        self._process.start()
        # Held open here, its end of the pipe would hide its death.
        other.close()
        self.url: str = self._control.recv()

    def close(self) -> list[Arrival]:
        """End it; return what arrived, where that is kept."""
        self._control.send("end")
        arrivals: list[Arrival] = self._control.recv()
        self._process.join()
        return arrivals


def _serve(kind: Callable[..., Any], options: dict[str, Any], control: Pipe) -> None:
    # Ctrl-C reaches every process: this one is ended by the one that it serves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with kind(**options) as server:
        control.send(server.url)
        control.recv()
        control.send(server.arrivals)


def in_a_process(work: Callable[..., T], *arguments: object) -> T:
    """Do it in a fresh process, whose memory is its own; return what it returns."""
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        return pool.submit(work, *arguments).result()


def peak_mib() -> float:
    """Tell this process's largest resident size so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def goal(words: str, met: bool) -> None:
    print(f"  {'met   ' if met else 'MISSED'}  {words}")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser that shows a script's docstring as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
