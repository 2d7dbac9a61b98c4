"""The examples of docs/guide/training.md, run exactly as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from assetbatch.arrow import bars_table
from tests.integration.test_bar_changes import ADD_SYMBOL, bar, write

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

PAGE = Path(__file__).parents[2].joinpath("docs/guide/training.md").read_text("utf-8")
EXAMPLES = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_every_example_of_the_page_runs(commands: Commands, connection: Connection, database: str) -> None:
    for name in ("EURUSD", "XAUUSD"):
        connection.execute(ADD_SYMBOL, [name])
        write(connection, name, [bar(n, 100 + n) for n in range(30)])
    path = f"{Path(sys.executable).parent}:{commands.environment['PATH']}"
    printed = []
    assert len(EXAMPLES) == 7
    for kind, text in EXAMPLES:
        lines = text.splitlines(keepends=True) if "changes-1" in text and kind == "sh" else [text]
        for number, line in enumerate(lines):
            program = ["sh", "-ec", line] if kind == "sh" else [sys.executable, "-W", "error", "-c", line]
            done = commands.run(program, PATH=path)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            printed.append(done.stdout)
            if len(lines) > 1:
                write(connection, "EURUSD", [bar(0, 900 + number), bar(30 + number, 130)])

    assert "63 bars; 0 have changed since" in "".join(printed)
    assert [pq.read_metadata(commands.folder / f"changes-{n}.parquet").num_rows for n in (1, 2)] == [2, 2]
    assert bars_table(database=database).num_rows == 63
