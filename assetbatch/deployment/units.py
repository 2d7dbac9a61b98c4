"""Units of systemd that start the jobs: those of scripts/systemd, with the paths and the user of this installation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.config import secret
from assetbatch.deployment import shipped
from assetbatch.deployment.starts import minutes_between, systemd_calendar
from assetbatch.schedule import JOBS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from assetbatch.config.settings import Batch

SYSTEM_FOLDER = Path("/etc/systemd/system")
KEY_FILE = Path("/etc/assetbatch/credentials/POLYGON_API_KEY")
ENVIRONMENT_FILE = Path("/etc/assetbatch/environment")
CREDENTIAL_STORE = Path("/etc/credstore")
JOB, SERVER, STREAM = "assetbatch@.service", "assetbatch-postgresql.service", "assetbatch-stream.service"
TIMERS = {f"assetbatch-{name}.timer": job for name, job in JOBS.items()}
# What ProtectHome= closes.
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# What a user's own systemd cannot give: it takes root, or namespaces, which many systems keep from users, so that the
# unit would not start. What is left needs neither: the filters of system calls, and what a process gives up by itself.
OF_THE_SYSTEM = frozenset(
    {
        *("User", "Group", "StateDirectory", "StateDirectoryMode", "LoadCredential", "EnvironmentFile", "Environment"),
        *("Wants", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "ProtectHome", "ProtectClock"),
        *("ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "DevicePolicy"),
        *("ProtectKernelTunables", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers", "PrivateNetwork"),
        *("ProcSubset", "IPAddressDeny", "KeyringMode", "RemoveIPC"),
    }
)


class Target(Struct, frozen=True, kw_only=True):
    """What the units are for.

    `command` are the words that start the program with its configuration, `reads` the folders that it needs for that.
    `user` and `group` are those of a system's units, None: the units are a user's own, for the server below `data` and
    with the variables of `environment`.
    """

    command: Sequence[str]
    reads: Sequence[Path]
    batch: Batch
    user: str | None
    group: str | None
    data: Path
    environment: Mapping[str, str]
    with_server: bool
    with_stream: bool


def rendered(target: Target) -> dict[str, str]:
    """Return the units by their names."""
    left_out = {name for name, wanted in ((SERVER, target.with_server), (STREAM, target.with_stream)) if not wanted}
    return {name: _unit(name, text, target) for name, text in sorted(shipped.units().items()) if name not in left_out}


def environment_of_the_system() -> dict[str, str]:
    """Return what the system's units give to their jobs: the file of variables, and the secrets that are there."""
    from dotenv import dotenv_values

    given = {name: value or "" for name, value in dotenv_values(ENVIRONMENT_FILE, interpolate=False).items()}
    files = {name: CREDENTIAL_STORE / f"assetbatch.{name}" for name in secret.NAMES} | {"POLYGON_API_KEY": KEY_FILE}
    return given | {f"{name}_FILE": str(file) for name, file in files.items() if file.exists()}


def to_enable(target: Target) -> list[str]:
    """Return the names of the units that are to be enabled, the embedded server before what needs it."""
    return [*([SERVER] if target.with_server else []), *TIMERS, *([STREAM] if target.with_stream else [])]


def enabled(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the units that something in the folder starts: those that `systemctl enable` has linked."""
    return [name for name in names if any(folder.glob(f"*.wants/{name}"))]


def _unit(name: str, text: str, target: Target) -> str:
    changes: dict[str, str | None]
    if target.user is None:
        changes = dict.fromkeys(OF_THE_SYSTEM)
        changes["PIDFile"] = _escaped(str(target.data / _server_file(text)))
        if target.environment:
            changes["Environment"] = " ".join(_quoted(f"{one}={value}") for one, value in target.environment.items())
        for of_the_system, own in (
            ("After=network-online.target ", "After="),
            ("multi-user.target", "default.target"),
            ("systemctl ", "systemctl --user "),
            ("journalctl ", "journalctl --user "),
        ):
            text = text.replace(of_the_system, own)
    else:
        changes = {"User": target.user, "Group": target.group}
        if any(folder.is_relative_to(home) for folder in target.reads for home in HOMES):
            changes["ProtectHome"] = "read-only"
    if name in TIMERS:
        changes["OnCalendar"] = systemd_calendar(minutes_between(TIMERS[name].every(target.batch)))
    return _changed(text.replace(shipped.COMMAND, _command(target.command)), changes)


def _server_file(text: str) -> str:
    """Return the server's PID file within its folder, empty for a unit without."""
    found = re.search(r"^PIDFile=/var/lib/assetbatch/(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def _changed(text: str, changes: Mapping[str, str | None]) -> str:
    """Return a unit with values changed; a setting that is None goes, and the comment above it with it."""
    lines: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line)
            continue
        key, is_setting, _ = line.partition("=")
        if is_setting and key in changes:
            if (value := changes[key]) is None:
                comment = []
                continue
            line = f"{key}={value}"  # noqa: PLW2901 - the same line, with another value
        lines += [*comment, line]
        comment = []
    return re.sub(r"\n{3,}", "\n\n", "\n".join([*lines, *comment]) + "\n")


def _command(words: Sequence[str]) -> str:
    """Return the words of an ExecStart=, where a dollar sign in an argument is a variable's."""
    program, *arguments = words
    return " ".join(map(_quoted, [program, *(word.replace("$", "$$") for word in arguments)]))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word in the quotes of systemd.syntax(7), where it needs them."""
    word = _escaped(word)
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
