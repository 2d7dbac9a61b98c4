"""What the embedded server asks of the machine: an account, folders that it can reach, a lock.

PostgreSQL refuses to run as root: root's server runs under the system account `assetbatch`, anybody else's
under their own. Nothing that exists is chmodded or chowned: what stands in the way is named instead.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tenacity
from msgspec import Struct

from assetbatch.database.embedded.place import SERVICE_ACCOUNT
from assetbatch.errors import ConfigurationError, DatabaseUnavailableError, Fault
from assetbatch.processes import lock_file, user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}

_PRINT_FIRST_CLOSED = 'for folder do cd "$folder" 2>/dev/null || { printf %s "$folder"; exit 1; }; done'
_ADD_ACCOUNT = (  # shadow's, then busybox's
    ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"],
    ["adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin"],
)


class Account(Struct, frozen=True):
    """Who runs the server; `switch` when that is another than who runs the tool."""

    uid: int
    gid: int
    switch: bool


def refusal(message: str, *, hint: str = "") -> ConfigurationError:
    """Make the error for what only a person can mend."""
    return ConfigurationError([Fault(place="", key="database.embedded", message=message)], hint=hint)


def run(
    command: list[str], account: Account, *, folder: Path, timeout_seconds: float, lock: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as `account` in `folder`; its stdout and stderr come back as one text.

    It sees no variable of the user's, and no Ctrl-C: that reaches the tool, which ends the program.
    `lock`: a locked file that the program keeps locked, should the tool be killed first.
    """
    try:
        return subprocess.run(  # noqa: S603 - programs of the wheel and of the system, no shell
            command,
            cwd=folder,
            env=ENVIRONMENT,
            user=account.uid if account.switch else None,
            group=account.gid if account.switch else None,
            extra_groups=[] if account.switch else None,
            pass_fds=() if lock is None else (lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        program = Path(command[0]).name
        raise DatabaseUnavailableError(f"{program} did not end within {timeout_seconds:g} s") from error


@contextmanager
def locked(path: Path, timeout_seconds: float) -> Iterator[int]:
    """Hold the lock file `path` between processes; gives its descriptor. Raises DatabaseUnavailableError."""
    # Only to read: on a file system that became read-only, a server can still be stopped.
    lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            lock_file(lock, timeout_seconds)
        except BlockingIOError as error:
            raise DatabaseUnavailableError(f"another process has held {path} for {timeout_seconds:g} s") from error
        yield lock
    finally:
        os.close(lock)


def server_account() -> Account:
    """Find the account that the server runs under; root's is made when it is missing."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    entry = _service_entry() or _make_service_account()
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _service_entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SERVICE_ACCOUNT)
    except KeyError:
        return None


def _make_service_account() -> pwd.struct_passwd:
    found = ((shutil.which(command[0], path=ENVIRONMENT["PATH"]), command[1:]) for command in _ADD_ACCOUNT)
    program, options = next((each for each in found if each[0] is not None), (None, []))
    if program is None:
        raise _no_account("there is no useradd")

    # Another process may hold the password file's lock, or be making this very account.
    @tenacity.retry(
        stop=tenacity.stop_after_delay(5),
        wait=tenacity.wait_fixed(0.2),
        retry=tenacity.retry_if_exception_type(ConfigurationError),
        reraise=True,
    )
    def make() -> pwd.struct_passwd:
        root = Account(0, 0, switch=False)
        answer = run([program, *options, SERVICE_ACCOUNT], root, folder=Path("/"), timeout_seconds=30)
        entry = _service_entry()
        if entry is None:
            raise _no_account(answer.stdout.strip())
        return entry

    return make()


def _no_account(why: str) -> ConfigurationError:
    return refusal(
        f"PostgreSQL does not run as root, and its user {SERVICE_ACCOUNT} could not be made: {why}",
        hint=f"make it by hand (useradd --system {SERVICE_ACCOUNT}), or run assetbatch as an ordinary user",
    )


def require_reachable(folder: Path, account: Account) -> None:
    """Refuse a folder that the server's account cannot enter, naming the parent that is closed to it."""
    if not account.switch:
        return
    there = [str(each) for each in (*reversed(folder.parents), folder) if each.exists()]
    answer = run(["/bin/sh", "-c", _PRINT_FIRST_CLOSED, "sh", *there], account, folder=Path("/"), timeout_seconds=10)
    if answer.returncode:
        raise refusal(
            f"the user {SERVICE_ACCOUNT}, who runs PostgreSQL for root, cannot enter {answer.stdout.strip()}",
            hint="name a data folder elsewhere (root's is /var/lib/assetbatch), or let that user pass there",
        )


def make_base_folder(folder: Path, account: Account) -> None:
    """Make the base folder and the parents it lacks: private, or passable where the server must pass."""
    for each in (*reversed(folder.parents), folder):
        if each.is_dir():
            continue
        each.mkdir(0o700, exist_ok=True)
        if account.switch:
            each.chmod(0o711)  # whatever the umask


def make_own_folder(folder: Path, account: Account) -> None:
    """Make a folder of mode 0700 that is the server's alone, or see that the one found there is."""
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        pass
    else:
        folder.chmod(0o700)
    found = folder.lstat()
    # The second case is root's own empty folder: made by a process that was killed before this line.
    if account.switch and found.st_uid == 0 and stat.S_ISDIR(found.st_mode) and not any(folder.iterdir()):
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    require_own(folder, account)


def require_own(folder: Path, account: Account) -> None:
    """Refuse a folder that others could have put there, or could look into."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise refusal(f"{folder} is no folder, or is a symbolic link", hint="see who made it, and remove it")
    if found.st_uid != account.uid:
        raise refusal(
            f"{folder} is {user_name(found.st_uid)}'s; PostgreSQL runs as {user_name(account.uid)}",
            hint="run assetbatch as the user who made it, or name another data folder",
        )
    if found.st_mode & 0o077:
        raise refusal(f"{folder} is open to other users", hint=f"chmod 700 {folder}, once you know why")


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
