"""docs/reference/metrics.md, from what `metrics` writes of a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from assetbatch.config import load
from assetbatch.report import reading
from assetbatch.report.prometheus import metrics
from tests.reference.markdown import code, head, prose, table

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

NOTHING = Path(os.devnull)
INTRODUCTION = """\
`assetbatch metrics --output FILE` writes them for the textfile collector of the node exporter, all at once. Every
series has the label `installation`: its host and database, or what `instance` in `config.yaml` calls it. So two
installations may write two files behind one node exporter, which drops the second of two equal series.

All are gauges. One without a value has no sample. `assetbatch_build_info` has the label `version`, and is always 1.
When the database could not be read, `assetbatch_up` is 0 and `assetbatch_health` 2, and nothing else is there."""


def page(connection: Connection) -> str:
    """Return the whole page, from a database that was just made."""
    config = load(file=NOTHING, environ={"DATABASE_URL": "postgresql://localhost/reference"}, cwd=NOTHING.parent)
    status = reading.read(config, connection, reading.Wanted())
    rows = (
        [code(f"assetbatch_{one.name}"), ", ".join(map(code, one.labels)) or "none", prose(one.help)]
        for one in metrics(status)
    )
    return head("Metrics", "what prometheus.py writes", INTRODUCTION) + "\n" + table(["name", "labels", "is"], rows)
