"""The system's own cron, for tests of minutes; an embedded server of a test's own; the wheel."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, ran

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

CRONTAB = Path(__file__).parents[2] / "crontab.example"
# In a namespace of its own: neither the machine's crontabs nor its mail are touched.
CRON = """
set -e
# Where no cron has run since the start there is no file to put another one over.
[ -e /run/crond.pid ] || : >/run/crond.pid
for place in spool:/var/spool/cron/crontabs none:/etc/cron.d sbin:/usr/sbin crontab:/etc/crontab pid:/run/crond.pid; do
  mount --bind "$1/${place%%:*}" "${place##*:}"
done
exec /usr/sbin/cron -f
"""
SENDMAIL = """#!/bin/sh
name=$(date +%s%N).$$
cat > "MAILBOX/.$name" && mv "MAILBOX/.$name" "MAILBOX/$name"
"""


@dataclass
class Cron:
    """A cron of one's own, a crontab, and the mailbox of who reads it."""

    folder: Path
    url: str
    database: str

    def configure(self, key: str) -> None:
        text = f"POLYGON_API_KEY={key}\nPOLYGON_BASE_URL={self.url}\nPOLYGON_TIER=starter\nPOLYGON_RATE_LIMIT=5\n"
        new = self.folder / ".env.new"
        new.touch(mode=0o600)
        new.write_text(text + f'DATABASE_URL="{self.database}"\n')
        new.replace(self.folder / ".env")

    def install(self) -> None:
        """Install crontab.example; what it starts every five minutes or half hour, every minute.

        There is one priority asset, and one other.
        """
        text = CRONTAB.read_text()
        text = text.replace("/opt/assetbatch/.venv/bin/assetbatch", f"{sys.executable} -m assetbatch")
        text = text.replace("/etc/assetbatch/config.yaml", str(self.folder / "config.yaml"))
        text = re.sub(r"^\*/\d+ ", "* ", text, flags=re.MULTILINE)
        (self.folder / "config.yaml").write_text(
            "batch:\n  interval_minutes: 1\n  enqueue_interval_minutes: 1\n  priority_assets:\n"
            "    - {symbol: BTCUSD, polygon_ticker: X:BTCUSD, asset_type: crypto, update_frequency_seconds: 60}\n"
            "  secondary_assets:\n"
            "    - {symbol: ETHUSD, polygon_ticker: X:ETHUSD, asset_type: crypto, update_frequency_seconds: 60}\n"
            "events: {backend: none}\n"
        )
        crontab = self.folder / "spool" / "root"
        crontab.write_text(f"XDG_STATE_HOME={self.folder}/state\nPATH={os.environ['PATH']}\n{text}")
        crontab.chmod(0o600)

    def mails(self, about: str = "") -> list[str]:
        """What came, each without its headers: all, or those that name this."""
        return mails(self.folder, about)


def mails(folder: Path, about: str = "") -> list[str]:
    """What `running_cron` has mailed, each without its headers: all, or those that name this."""
    texts = [mail.read_text() for mail in sorted(folder.glob("mailbox/[!.]*"))]
    return [found for text in texts if about in (found := text.partition("\n\n")[2].strip())]


@contextmanager
def running_cron(folder: Path) -> Iterator[int]:
    """Debian's cron in a mount namespace, with its spool and its mailbox below the folder; gives its process's id."""
    shutil.copytree("/usr/sbin", folder / "sbin", symlinks=True)
    for name, mode in (("spool", 0o1730), ("none", 0o755), ("mailbox", 0o1777)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    shutil.chown(folder / "spool", group="crontab")
    for name in ("crontab", "pid"):
        (folder / name).touch()
    sendmail = folder / "sbin" / "sendmail"
    sendmail.unlink(missing_ok=True)
    sendmail.write_text(SENDMAIL.replace("MAILBOX", str(folder / "mailbox")))
    sendmail.chmod(0o755)
    # cron tells by the second whether a crontab has come since it has looked.
    os.utime(folder / "spool", (0, 0))
    process = subprocess.Popen(["unshare", "--mount", "sh", "-c", CRON, "cron", str(folder)])
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def require_cron() -> None:
    """Skip where there is no cron to be had."""
    if os.geteuid() != 0 or not Path("/usr/sbin/cron").exists() or not shutil.which("unshare"):
        pytest.skip("needs Debian's cron, and root")


@pytest.fixture
def cron(tmp_path: Path, database: str) -> Iterator[Cron]:
    """Debian's cron, with a crontab that starts the jobs every minute."""
    require_cron()
    for name in ("spool", "state"):
        (tmp_path / name).mkdir()
    with Sandbox(key=API_KEY, plan="starter", limit=5) as sandbox:
        found = Cron(tmp_path, sandbox.url, database)
        found.configure(API_KEY)
        found.install()
        with running_cron(tmp_path):
            yield found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    done = ran([sys.executable, *words, folder, CRONTAB.parent], timeout=None)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def runs(connection: Connection, job: str, *, exit_code: int) -> int:
    """How many runs of the job have ended so."""
    query = "select count(*) as count from assetbatch.runs where job = %s and exit_code = %s"
    row = connection.execute(query, [job, exit_code]).fetchone()
    assert row is not None
    return int(row["count"])


@pytest.fixture
def own_embedded(commands: Commands) -> Iterator[Commands]:
    """The commands with an embedded server of their own in place of the tests' database."""
    with tempfile.TemporaryDirectory(prefix="assetbatch-data-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        commands.environment["XDG_DATA_HOME"] = folder
        del commands.environment["DATABASE_URL"]
        (commands.folder / "config.yaml").write_text("database: {embedded: true}\n")
        yield commands
        commands("database", "stop")
