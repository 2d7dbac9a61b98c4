"""Configurations as files in a folder, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.config import Config, load
from assetbatch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EMBEDDED = "database: {embedded: true}\n"


def load_in(
    folder: Path,
    text: str | None = EMBEDDED,
    environ: Mapping[str, str] | None = None,
    *,
    dotenv: str | None = None,
    file: Path | None = None,
) -> Config:
    """Load what a config.yaml and a .env say, both as they are where None is given, and these variables."""
    for name, content in (("config.yaml", text), (".env", dotenv)):
        if content is not None:
            (folder / name).write_text(content)
    return load(file=file, environ=environ or {}, cwd=folder)


def faults_in(
    folder: Path,
    text: str | None = EMBEDDED,
    environ: Mapping[str, str] | None = None,
    *,
    dotenv: str | None = None,
    file: Path | None = None,
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_in(folder, text, environ, dotenv=dotenv, file=file)
    assert caught.value.exit_code == 78
    assert "hunter22" not in str(caught.value)
    return [str(fault) for fault in caught.value.faults]
