"""`--version --json`: which program this is, and how it came here."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import assetbatch
from assetbatch import installed
from assetbatch.database.setup import schema


def document() -> dict[str, Any]:
    """Return what a report of a fault needs.

    `schema_version` is the newest that this program brings, `oldest_program` the oldest that works with that; `extras`
    has the version of what each optional part brings, null where it is not there.
    """
    return {
        "version": assetbatch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "installed_by": installed.Installation.here().kind,
        "editable": installed.is_editable(),
        "program": shlex.join(installed.program()),
        "prefix": sys.prefix,
        "location": str(Path(assetbatch.__file__).parent),
        "extras": installed.extras(),
        "schema_version": schema.migrations()[-1].version,
        "oldest_program": schema.OLDEST_PROGRAM,
    }
