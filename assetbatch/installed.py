"""How this program was installed: what starts it from anywhere, and by which command a package is put beside it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import site
import sys
import sysconfig
import tomllib
from pathlib import Path

from msgspec import Struct

from assetbatch.processes import user_name

# pipx's own folder for who installs for all users.
PIPX_GLOBAL = Path("/opt/pipx")


class Installation(Struct, frozen=True):
    """Where the program is: its interpreter, the environment's folder, and what is true of it."""

    python: Path
    prefix: Path
    has_pip: bool
    is_virtual: bool
    """An environment of its own, and not the system's Python."""
    is_managed: bool
    """A Python of the system's that pip is kept from (PEP 668)."""
    is_users: bool
    """Installed into the user's own folder beside the system's Python."""
    owner: str
    """Who may change it; empty: whoever runs this."""

    @property
    def is_of_pipx(self) -> bool:
        """Whether pipx keeps the environment."""
        return (self.prefix / "pipx_metadata.json").exists()

    @property
    def receipt(self) -> Path:
        """The file in which `uv tool` keeps what it was asked for."""
        return self.prefix / "uv-receipt.toml"

    @property
    def kind(self) -> str:
        """What installed it, for people and programs: pipx, uv tool, virtual environment, user, or system."""
        if self.is_of_pipx:
            return "pipx"
        if self.receipt.exists():
            return "uv tool"
        return "virtual environment" if self.is_virtual else "user" if self.is_users else "system"

    @classmethod
    def here(cls) -> Installation:
        """Look at the running interpreter."""
        packages = Path(sysconfig.get_path("purelib"))
        own = Path(__file__).parents[1]
        is_users = own == Path(site.getusersitepackages())
        return cls(
            python=Path(sys.executable),
            prefix=Path(sys.prefix),
            has_pip=importlib.util.find_spec("pip") is not None,
            is_virtual=sys.prefix != sys.base_prefix,
            is_managed=Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists(),
            is_users=is_users,
            owner="" if is_users or os.access(packages, os.W_OK) else user_name(packages.stat().st_uid),
        )


def program() -> list[str]:
    """Return the words that start this program from anywhere.

    A link on the way to it, as to the folder of a release, stays one: it will lead to the next.
    """
    scripts = Path(sysconfig.get_path("scripts"))
    for named in (sys.argv[0], str(scripts / "assetbatch")):
        if Path(named).name == "assetbatch" and (found := shutil.which(named)) is not None:
            return [str(Path(found).absolute())]
    return [sys.executable, "-m", "assetbatch"]


def is_editable() -> bool:
    """Return whether what runs is a clone's own files, as `pip install --editable` leaves them (PEP 610)."""
    try:
        told = importlib.metadata.distribution("assetbatch").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(json.loads(told or "{}").get("dir_info", {}).get("editable"))


def extras() -> dict[str, str | None]:
    """Return the optional parts by their names, with the version of what each brings; None: it is not there."""
    found: dict[str, str | None] = {}
    for line in _requirements():
        if of_extra := re.fullmatch(r"([\w.-]+)[^;]*; *extra *== *['\"]([\w-]+)['\"]", line):
            distribution, extra = of_extra.groups()
            try:
                found[extra] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found[extra] = None
    return found


def requirement(distribution: str) -> str:
    """Return what pyproject.toml asks of an optional distribution, e.g. `name>=1`; its bare name without that file."""
    words = (line.partition(";")[0].strip() for line in _requirements())
    return next((word for word in words if word.startswith(distribution)), distribution)


def command_to_add(package: str, installation: Installation) -> str:
    """Return the shell's command that puts a package, e.g. `name>=1`, where this program finds it."""
    prefix, python = installation.prefix, str(installation.python)
    if installation.is_of_pipx:
        words = ["pipx", "inject", *(["--global"] if prefix.is_relative_to(PIPX_GLOBAL) else []), prefix.name, package]
    elif installation.receipt.exists() and (tool := _uv_tool(installation.receipt.read_text("utf-8"), package)):
        words = tool
    elif installation.has_pip:
        words = [python, "-m", "pip", "install"]
        words += ["--user"] if installation.is_users else []
        words += ["--break-system-packages"] if installation.is_managed and not installation.is_virtual else []
        words += [package]
    else:
        words = ["uv", "pip", "install", "--python", python, package]
    return shlex.join(words)


def how_to_add(distribution: str) -> str:
    """Return the hint for a distribution that is missing: a command that works as it stands, and whose it is to run."""
    installation = Installation.here()
    command = command_to_add(requirement(distribution), installation)
    return f"{command}   (as {installation.owner})" if installation.owner else command


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("assetbatch") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _uv_tool(receipt: str, package: str) -> list[str] | None:
    """Install the tool again as it was, and the package with it: uv forgets what is not named. None: too special."""
    try:
        own, *others = tomllib.loads(receipt)["tool"]["requirements"]
    except (KeyError, ValueError):
        return None
    if set(own) - {"name", "extras", "specifier", "directory", "editable", "path"} or any(
        set(other) - {"name", "specifier"} for other in others
    ):
        return None
    place = own.get("directory") or own.get("editable") or own.get("path")
    extras = f"[{','.join(own['extras'])}]" if "extras" in own else ""
    source = f"{place or own['name']}{extras}{own.get('specifier', '')}"
    with_these = [package, *(other["name"] + other.get("specifier", "") for other in others)]
    return [
        *("uv", "tool", "install"),
        *(word for one in with_these for word in ("--with", one)),
        *(["--editable"] if "editable" in own else []),
        source,
    ]
