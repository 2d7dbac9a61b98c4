"""Setting up, starting and stopping the embedded server: what is done under its lock."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import tenacity

from assetbatch.database.embedded import others, system
from assetbatch.database.embedded.place import DATABASE_USER, PORT, Place
from assetbatch.database.embedded.process import Postmaster
from assetbatch.database.embedded.programs import find_programs
from assetbatch.errors import DatabaseUnavailableError, SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS = 60
INITDB_SECONDS = 120
START_SECONDS = 30
STOP_SECONDS = 30
START_LOG = "start.log"

_SETTINGS = (  # an operator may change these in data/postgresql.conf
    "max_connections=60",
    "shared_buffers=64MB",
    "timezone=UTC",
    "log_timezone=UTC",
    # systemd-logind removes what a user has in /dev/shm when they log out (RemoveIPC).
    "dynamic_shared_memory_type=mmap",
    # The log is bounded: a file a weekday, without the texts of failed statements.
    "logging_collector=on",
    "log_filename=server-%a.log",
    "log_rotation_size=0",
    "log_truncate_on_rotation=on",
    "log_checkpoints=off",
    "log_min_error_statement=panic",
)
_INIT = "run `assetbatch init` as the user who runs the jobs"


class _NotYetError(DatabaseUnavailableError):
    """The server is on its way up or down: look again."""


def start(place: Place, *, create: bool) -> None:
    """Do what `EmbeddedServer.start` promises, the server not being ready."""
    with _errors_told(place):
        if not create and not place.home.exists():
            raise absent(place)
        account = system.server_account()
        system.require_reachable(place.base, account)
        system.make_base_folder(place.base, account)
        _refuse_others(place, account)
        with system.locked(place.lock_file, LOCK_SECONDS) as lock:
            if not create and not place.is_set_up:
                raise absent(place)
            programs = find_programs(place.base, account)
            system.make_own_folder(place.home, account)
            system.make_own_folder(place.socket_folder, account)
            if not place.is_set_up:
                _set_up(place, programs, account, lock)
            _bring_up(place, programs, account)


def stop(place: Place) -> bool:
    """Do what `EmbeddedServer.stop` promises, there being a server's folder."""
    with _errors_told(place):
        account = system.server_account()
        _refuse_others(place, account)
        with system.locked(place.lock_file, LOCK_SECONDS):
            system.make_own_folder(place.home, account)
            if Postmaster(place).pid() is None:
                return False
            _bring_down(place, find_programs(place.base, account), account)
            return True


def require(place: Place) -> None:
    """Do what `EmbeddedServer.require` promises."""
    with _errors_told(place):
        if os.geteuid() != 0:
            _refuse_others(place, system.server_account())
        if not place.is_set_up:
            raise absent(place)


def _refuse_others(place: Place, account: system.Account) -> None:
    """Say whose the folder is, rather than that its lock cannot be had; for root, the lock comes first."""
    if not account.switch and place.home.exists():
        system.require_own(place.home, account)


def absent(place: Place) -> SchemaError:
    """Make the error for a server that was never set up."""
    if (other := others.find(place.base)) is not None:
        return SchemaError(f"there is no {place.described}; {other.described}", hint=f"{other.hint}; else {_INIT}")
    return SchemaError(f"there is no {place.described}", hint=_INIT)


@contextmanager
def _errors_told(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "is there room, and may this user write there? XDG_DATA_HOME names another folder"
        raise DatabaseUnavailableError(f"{place.described}: {error}", hint=hint) from error


def _set_up(place: Place, programs: Path, account: system.Account, lock: int) -> None:
    unfinished = place.home / "data.new"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    command = [str(programs / "initdb"), f"--pgdata={unfinished.name}", f"--username={DATABASE_USER}"]
    command += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--data-checksums"]
    command += [f"--set={setting}" for setting in _SETTINGS]
    # The lock goes along: an initdb that outlives this process keeps it, and its folder.
    answer = system.run(command, account, folder=place.home, timeout_seconds=INITDB_SECONDS, lock=lock)
    if answer.returncode:
        raise DatabaseUnavailableError(f"{place.described} could not be set up:\n{_last_lines(answer.stdout)}")
    unfinished.rename(place.data)
    system.sync_folder(place.home)


def _bring_down(place: Place, programs: Path, account: system.Account) -> None:
    command = [str(programs / "pg_ctl"), "stop", "-D", "data", "-m", "fast", "-w", "-t", str(STOP_SECONDS)]
    answer = system.run(command, account, folder=place.home, timeout_seconds=STOP_SECONDS + 10)
    if answer.returncode and Postmaster(place).pid() is not None:
        raise DatabaseUnavailableError(f"{place.described} does not stop:\n{_last_lines(answer.stdout)}")


def _bring_up(place: Place, programs: Path, account: system.Account) -> None:
    """Start the server, or wait for one that is on its way up or down; one without its programs is ended first."""
    postmaster = Postmaster(place)
    if postmaster.lost_its_programs():
        _bring_down(place, programs, account)
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_delay(START_SECONDS),
        wait=tenacity.wait_fixed(0.05),
        retry=tenacity.retry_if_exception_type(_NotYetError),
        reraise=True,
    ):
        with attempt:
            if postmaster.pid() is None:
                _launch(place, programs, account)
            if not postmaster.ready():
                raise _NotYetError(
                    f"{place.described} runs as process {postmaster.pid()}, but accepted no connection at "
                    f"{place.socket} for {START_SECONDS} s:\n{_log_tail(place)}",
                    hint="run `assetbatch database stop`, then try again",
                )


def _launch(place: Place, programs: Path, account: system.Account) -> None:
    postmaster = Postmaster(place)
    postmaster.clear_recycled()
    (place.home / START_LOG).unlink(missing_ok=True)
    settings = (
        "listen_addresses=",
        # Relative to the data folder, as other paths are to the working folder: pg_ctl hands them to a shell.
        f"unix_socket_directories={'..' if place.socket_folder == place.home else place.socket_folder}",
        "unix_socket_permissions=0700",
        f"port={PORT}",
        postmaster.name_setting,
    )
    options = " ".join(f"-c {setting}" for setting in settings)
    command = [str(programs / "pg_ctl"), "start", "-D", "data", "-l", START_LOG, "-o", options]
    command += ["-w", "-t", str(START_SECONDS)]
    answer = system.run(command, account, folder=place.home, timeout_seconds=START_SECONDS + 10)
    if answer.returncode == 0 or postmaster.pid() is not None:
        return
    told = _log_tail(place) or _last_lines(answer.stdout)
    # After a kill -9 of the server its children need a moment to notice.
    kind = _NotYetError if "is still in use" in told else DatabaseUnavailableError
    raise kind(f"{place.described} does not start:\n{told}")


def _log_tail(place: Place) -> str:
    """Read what the last start said, wherever PostgreSQL said it last."""
    start_log = place.home / START_LOG
    if not start_log.exists():
        return ""
    told = start_log.read_text(errors="replace")
    logs = sorted(place.data.glob("log/*.log"), key=lambda log: log.stat().st_mtime)
    if "redirecting log output" in told and logs:
        told = logs[-1].read_text(errors="replace")
    return _last_lines(told)


def _last_lines(text: str, count: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
