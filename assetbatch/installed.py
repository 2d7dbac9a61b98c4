"""How this program was installed, and so by which command a package is put beside it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
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


def requirement(distribution: str) -> str:
    """Return what pyproject.toml asks of an optional distribution, e.g. `name>=1`; its bare name without that file."""
    try:
        asked = importlib.metadata.requires("assetbatch") or []
    except importlib.metadata.PackageNotFoundError:
        asked = []
    words = (line.partition(";")[0].strip() for line in asked)
    return next((word for word in words if word.startswith(distribution)), distribution)


def command_to_add(package: str, installation: Installation) -> str:
    """Return the shell's command that puts a package, e.g. `name>=1`, where this program finds it."""
    prefix, python = installation.prefix, str(installation.python)
    receipt = prefix / "uv-receipt.toml"
    if (prefix / "pipx_metadata.json").exists():
        words = ["pipx", "inject", *(["--global"] if prefix.is_relative_to(PIPX_GLOBAL) else []), prefix.name, package]
    elif receipt.exists() and (tool := _uv_tool(receipt.read_text("utf-8"), package)):
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


def _uv_tool(receipt: str, package: str) -> list[str] | None:
    """Install the tool again as it was, and the package with it: uv forgets what is not named. None: too special."""
    try:
        own, *others = tomllib.loads(receipt)["tool"]["requirements"]
    except (KeyError, ValueError):
        return None
    if set(own) - {"name", "specifier", "directory", "editable"} or any(
        set(other) - {"name", "specifier"} for other in others
    ):
        return None
    source = own.get("directory") or own.get("editable") or own["name"] + own.get("specifier", "")
    with_these = [package, *(other["name"] + other.get("specifier", "") for other in others)]
    return [
        *("uv", "tool", "install"),
        *(word for one in with_these for word in ("--with", one)),
        *(["--editable"] if "editable" in own else []),
        source,
    ]
