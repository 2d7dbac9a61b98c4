"""`bars export` as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import wait_until

if TYPE_CHECKING:
    import subprocess

    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

COLUMNS = ["symbol", "ts", "open", "high", "low", "close", "volume", "vwap", "trades", "is_final", "fetched_at"]
ADD = """
insert into trading.symbols (symbol, metadata) select unnest(%(symbols)s::text[]), '{}';
"""
FILL = """
insert into market_data.ohlcv_5m
select s.id, timestamptz '2026-11-17 12:00Z' + n * interval '5 minutes', 1.5, 2.25, 1, 2, 10.125, null, n,
       n < %(bars)s - 1, timestamptz '2026-11-17 13:00:00.123456Z'
from trading.symbols s cross join generate_series(0, %(bars)s - 1) n
"""
ODD = ('b,"q', "B", "b", "BTCUSD")
IN_ORDER = sorted(ODD)
FETCHED = "2026-11-17 13:00:00.123456+00"


def fill(connection: Connection, *, bars: int = 5, symbols: tuple[str, ...] = ODD) -> None:
    connection.execute(ADD.strip().rstrip(";"), {"symbols": list(symbols)})
    with connection.transaction(statement_timeout="10min"):
        connection.execute(FILL, {"bars": bars})


@pytest.fixture
def stored(connection: Connection) -> Connection:
    fill(connection)
    return connection


@pytest.fixture
def keyless(commands: Commands) -> Commands:
    for name in [name for name in commands.environment if name.startswith("POLYGON")]:
        del commands.environment[name]
    return commands


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_csv_goes_to_stdout_in_order_and_final_alone(stored: Connection, keyless: Commands) -> None:
    done = keyless("bars", "export", "--all")

    assert done.returncode == 0
    found = rows(done.stdout)
    assert list(found[0]) == COLUMNS
    assert [(row["symbol"], row["ts"]) for row in found] == [
        (symbol, f"2026-11-17 12:{5 * n:02}:00+00") for symbol in IN_ORDER for n in range(4)
    ]
    assert found[1] == dict(
        zip(
            COLUMNS,
            ("B", "2026-11-17 12:05:00+00", "1.5", "2.25", "1", "2", "10.125", "", "1", "true", FETCHED),
            strict=True,
        )
    )
    assert done.stderr.startswith("bars export: 16 bars of 4 symbols; cursor ")
    quiet = keyless("-q", "bars", "export", "--all")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")
    bounded = keyless(
        *("bars", "export", "--symbol", "B", "--with-open", "--since", "2026-11-17T12:10Z", "--until", "2026-11-18")
    )
    assert [row["is_final"] for row in rows(bounded.stdout)] == ["true", "true", "false"]


def test_parquet_files_join_and_a_cursor_file_goes_on(stored: Connection, keyless: Commands) -> None:
    def export(name: str) -> dict[str, Any]:
        done = keyless(
            "bars", "export", "--all", "--output", name, "--cursor-file", "bars.cursor", "--json", TZ="Asia/Tokyo"
        )
        assert (done.returncode, done.stderr) == (0, "")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    first = export("1.parquet")
    stored.execute("update market_data.ohlcv_5m set close = 3 where ts = '2026-11-17 12:00Z'")
    second = export("2.parquet")
    assert first == {
        "schema": "assetbatch.bars-export/1",
        "file": "1.parquet",
        "format": "parquet",
        "rows": 16,
        "symbols": IN_ORDER,
        "cursor": first["cursor"],
    }
    # The platform's own writing is not the tool's, and is not told.
    assert (second["rows"], second["symbols"]) == (0, [])
    assert (keyless.folder / "bars.cursor").read_text() == second["cursor"] + "\n"
    table = pq.ParquetDataset([keyless.folder / "1.parquet", keyless.folder / "2.parquet"]).read()
    assert table.num_rows == 16
    assert table.slice(0, 1).to_pylist()[0]["volume"] == Decimal("10.125")
    assert str(table.schema.field("close").type) == "decimal128(38, 18)"
    doubles = keyless("bars", "export", "--all", "--float", "--output", "3.parquet")
    assert doubles.returncode == 0
    assert "; cursor " in doubles.stdout
    assert str(pq.read_schema(keyless.folder / "3.parquet").field("close").type) == "double"
    again = (keyless.folder / "1.parquet").read_bytes()
    (keyless.folder / "bars.cursor").unlink()
    stored.execute("update market_data.ohlcv_5m set close = 2 where ts = '2026-11-17 12:00Z'")
    export("1.parquet")
    assert (keyless.folder / "1.parquet").read_bytes() == again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which bars"),
        (["--all", "--symbol", "B"], "which bars"),
        (["--symbol", "NOPE", "--symbol", "B", "--symbol", "ALSO"], "unknown: ALSO, NOPE"),
        (["--all", "--format", "parquet"], "Parquet needs a file"),
        (["--all", "--json"], "stdout"),
        (["--all", "--float"], "--float is for Parquet"),
        (["--all", "--since", "2026-01-02", "--until", "2026-01-01"], "not before"),
        (["--all", "--changed-since", "nonsense"], "no cursor"),
        (["--all", "--changed-since", "x", "--cursor-file", "y"], "both name a cursor"),
        (["--all", "--output", "x.csv", "--cursor-file", "./x.csv"], "name one file"),
        (["--all", "--output", "no/such/folder.csv"], "cannot be written"),
        (["--all", "--output", "circle.csv"], "Too many levels of symbolic links"),
        (["--all", "--output", "x.csv", "--cursor-file", "circle.csv"], "Too many levels of symbolic links"),
        (["--all", "--output", "x.csv", "--cursor-file", "no/such/cursor"], "--cursor-file: no/such/cursor cannot be"),
        (["--all", "--output", "x.csv", "--cursor-file", "."], "Is a directory"),
    ],
)
def test_wrong_usage(stored: Connection, keyless: Commands, arguments: list[str], words: str) -> None:
    (keyless.folder / "circle.csv").symlink_to("circle.csv")
    done = keyless("bars", "export", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.replace("│", "").split())
    assert not (keyless.folder / "x.csv").exists()


def test_a_number_that_does_not_fit_is_named_and_leaves_the_files_as_they_were(
    stored: Connection, keyless: Commands
) -> None:
    assert (
        keyless("bars", "export", "--all", "--output", "bars.parquet", "--cursor-file", "bars.cursor").returncode == 0
    )
    before = {path.name: path.read_bytes() for path in keyless.folder.iterdir() if path.is_file()}
    stored.execute(
        "update market_data.ohlcv_5m set volume = 1e20 where ts = '2026-11-17 12:05Z'"
        " and symbol_id = (select id from trading.symbols where symbol = 'B')"
    )
    done = keyless("bars", "export", "--all", "--output", "bars.parquet")
    assert done.returncode == 3
    assert "B 2026-11-17 12:05:00+00: volume 100000000000000000000 does not fit" in done.stderr
    assert {path.name: path.read_bytes() for path in keyless.folder.iterdir() if path.is_file()} == before
    assert keyless("bars", "export", "--all", "--output", "bars.csv").returncode == 0


def test_nothing_there_is_a_valid_file(connection: Connection, keyless: Commands) -> None:
    assert keyless("bars", "export", "--all", "--output", "none.parquet").returncode == 0
    assert pq.read_table(keyless.folder / "none.parquet").num_rows == 0
    assert keyless("bars", "export", "--all").stdout == ",".join(COLUMNS) + "\n"


def test_a_role_that_may_only_read_exports(stored: Connection, keyless: Commands, database: str) -> None:
    stored.execute("do $$ begin create role reading login; exception when duplicate_object then null; end $$")
    stored.execute("revoke execute on all functions in schema assetbatch from public")
    granted = keyless("init", "--grants-reader", "reading")
    assert granted.returncode == 0
    stored.execute(granted.stdout.encode())
    stored.execute("alter role reading set default_transaction_read_only = on")
    stored.execute("alter role reading set statement_timeout = '1ms'")
    url = database.replace(" options=''", "").replace("user=", "options='-c role=reading' user=")
    done = keyless("bars", "export", "--all", "--output", "x.csv", "--json", DATABASE_URL=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cursor"]


def test_what_cannot_be_written_whole_leaves_the_files_as_they_were(connection: Connection, keyless: Commands) -> None:
    fill(connection, bars=60_000, symbols=("B",))
    (keyless.folder / "bars.csv").write_text("as it was")

    def export(line: str) -> subprocess.CompletedProcess[str]:
        command = "python -m assetbatch bars export --all --cursor-file bars.cursor"
        done = keyless.run(
            ["bash", "-c", f"set -o pipefail; {line.format(command)}"],
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )
        assert sorted(path.name for path in keyless.folder.glob("[.b]*.*")) == ["bars.csv"]
        return done

    # A pipe that has no path to it but one below /dev/fd.
    for line in ("{} | head -2", "{} --output /dev/stdout | head -2", "{} --output >(head -2); wait"):
        done = export(line)
        assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 2, ""), line
    for line in ("{} > /dev/full", "{} --output /dev/full", "ulimit -f 64; {} --output bars.csv"):
        done = export(line)
        assert (done.returncode, done.stdout) == (3, ""), line
        assert "could not be written: " in done.stderr
        assert "is its disk full?" in done.stderr
    assert (keyless.folder / "bars.csv").read_text() == "as it was"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_what_is_ended_leaves_the_files_as_they_were(
    connection: Connection, keyless: Commands, signum: signal.Signals
) -> None:
    fill(connection, bars=400_000, symbols=("B",))
    (keyless.folder / "bars.parquet").write_text("as it was")
    running = keyless.start("bars", "export", "--all", "--output", "bars.parquet", "--cursor-file", "bars.cursor")

    def is_writing() -> bool:
        return any(path.stat().st_size > 4 for path in keyless.folder.glob(".bars.parquet.*.new"))

    wait_until(is_writing, seconds=60)
    began = time.monotonic()
    running.send_signal(signum)
    running.communicate(timeout=10)
    took = time.monotonic() - began

    assert (keyless.folder / "bars.parquet").read_text() == "as it was"
    assert not (keyless.folder / "bars.cursor").exists()
    if signum is signal.SIGINT:
        assert running.returncode == 130
        assert took < 2
        assert not [*keyless.folder.glob(".bars.parquet.*.new")]
    activity = "select from pg_stat_activity where application_name = 'assetbatch bars export' and state <> 'idle'"
    wait_until(lambda: not connection.execute(activity).rowcount)


def test_without_pyarrow_the_hint_adds_it(stored: Connection, keyless: Commands) -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'pyarrow' else find(name, *rest)\n"
        "from assetbatch.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    )
    done = keyless.python("-c", code, "--", "bars", "export", "--all", "--output", "x.parquet")
    assert done.returncode == 78
    assert "install" in done.stderr
    assert "pyarrow" in done.stderr


def test_importing_the_package_does_not_import_arrow(keyless: Commands) -> None:
    code = "import sys, assetbatch; assert len([m for m in sys.modules if 'arrow' in m or 'psycopg' in m]) == 0"
    done = keyless.python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
