"""The program as cron or systemd starts it, without a terminal and its environment: its words, its user, its view."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from msgspec import Struct

from assetbatch import installed
from assetbatch.cli.invocation import current, working_folder
from assetbatch.cli.trouble import tell
from assetbatch.config import loading
from assetbatch.errors import ConfigurationError, Fault
from assetbatch.processes import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assetbatch.config import Config


class Doubts(Struct):
    """What stands in the way, and the hints: told where it is only shown, refused where it is to be written."""

    faults: list[Fault] = []

    def add(self, message: str, hint: str) -> None:
        """Add one, with what mends it."""
        self.faults.append(Fault("", "", message, hint))

    def settle(self, *, write: bool) -> None:
        """Raise ConfigurationError with all of them, or tell them."""
        if write and self.faults:
            raise ConfigurationError(self.faults)
        for fault in self.faults:
            tell(f"{fault.message}\nNext: {fault.hint}")


def configuration_of(environ: Mapping[str, str], who: str) -> Config:
    """Return the configuration as a job without this terminal will see it. Raises ConfigurationError."""
    place: dict[str, Any] = {"file": current.config_file, "cwd": working_folder()}
    surveyed = loading.survey(environ=environ, **place)
    current.secrets = surveyed.secrets
    if surveyed.file is None:
        raise ConfigurationError([Fault("", "", "there is no config.yaml")], hint="`assetbatch config init` writes one")
    lost = [name for name in loading.names_lost(environ=os.environ, **place) if name not in environ]
    seen = f"{who} sees nothing of this terminal's {', '.join(lost)}" if lost else ""
    if surveyed.config is None:
        hint = f"{seen}: write what it needs into {surveyed.file.with_name('.env')}" if lost else ""
        raise ConfigurationError(surveyed.faults, hint=hint)
    current.is_configured = True
    if lost:
        tell(f"{seen}: what it needs of that goes into {surveyed.file.with_name('.env')}")
    return surveyed.config


def command(config: Config) -> list[str]:
    """Return the words that start this program, with this configuration, from anywhere."""
    words = [*installed.program(), "--config", os.path.abspath(config.file or "")]  # noqa: PTH100 - links stay
    if not all(word.isprintable() for word in words):
        raise ConfigurationError([Fault("", "", "a path with a line's end or the like in it fits into no crontab")])
    return words


def dotenv(config: Config) -> Path:
    """Return the file beside config.yaml that the key may be in."""
    return (config.file or Path("config.yaml")).with_name(".env")


def account_of(user: str | None) -> pwd.struct_passwd:
    """Return the account of --user, or of who asks. Raises BadParameter where there is none, or it is not theirs."""
    try:
        found = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise typer.BadParameter(f"there is no user {user or user_name(os.geteuid())}", param_hint="--user") from None
    if os.geteuid() not in {0, found.pw_uid}:
        raise typer.BadParameter("only root may name another user", param_hint="--user")
    return found


def look(account: pwd.struct_passwd, words: Sequence[str], doubts: Doubts) -> None:
    """Look, as the user who is to run the command, whether its program and its configuration can be reached."""
    if os.geteuid() != 0 or account.pw_uid == 0:
        return
    config = Path(words[-1])
    dotenv = config.with_name(".env")
    mine = f"chown {account.pw_name} {dotenv}; or, under systemd, give the key as a credential, and delete this file"
    for verb, flag, path, hint in (
        ("run", "-x", Path(words[0]), "install it for all: `pipx install --global`, or a virtual environment in /opt"),
        ("run", "-x", Path(sys.executable), "install it with a Python that all users may run"),
        ("read", "-r", config, "see whose it is, and its folder; or name another one: --config FILE"),
        ("read", "-r", dotenv, mine),
    ):
        if path.exists() and _fails(["/usr/bin/test", flag, str(path)], account):
            doubts.add(f"{account.pw_name} may not {verb} {path}", hint)


def _fails(words: Sequence[str], account: pwd.struct_passwd) -> bool:
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    done = subprocess.run(  # noqa: S603 - for root, as the user
        words, user=account.pw_uid, group=account.pw_gid, extra_groups=groups, check=False
    )
    return done.returncode != 0
