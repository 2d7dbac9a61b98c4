"""The files that are shipped beside the program: config.yaml, crontab.example, scripts/systemd.

A wheel has them inside the package (`force-include` in pyproject.toml); a clone, and what was installed from one as
editable, has them where they are written, at the top of the project.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import assetbatch

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# The installation that crontab.example and the units are written for.
COMMAND = "/opt/assetbatch/.venv/bin/assetbatch --config /etc/assetbatch/config.yaml"


def folder() -> Traversable:
    """Return the folder with the shipped files, named as in the project."""
    packaged = resources.files(assetbatch) / "shipped"
    return packaged if packaged.is_dir() else Path(assetbatch.__file__).parents[1]


def text(name: str) -> str:
    """Return one of the files, e.g. `crontab.example`."""
    return folder().joinpath(*name.split("/")).read_text("utf-8")


def units() -> dict[str, str]:
    """Return the units of scripts/systemd by their names."""
    return {one.name: one.read_text("utf-8") for one in (folder() / "scripts" / "systemd").iterdir()}
