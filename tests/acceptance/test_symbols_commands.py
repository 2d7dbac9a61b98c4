"""`symbols add`, `import`, `list` and `remove`: exit code, stdout, stderr, and the catalogue afterwards."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.terminal import run_at_terminal

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

CONFIG = """
batch:
  priority_assets: [{symbol: BTCUSD, polygon_ticker: X:BTCUSD, asset_type: crypto}]
  secondary_assets: []
  secondary_source: %s
bars: {enabled: false}
"""


@pytest.fixture
def user(commands: Commands) -> Commands:
    (commands.folder / "config.yaml").write_text(CONFIG % "database")
    return commands


def own(connection: Connection) -> dict[str, tuple[Any, ...]]:
    rows = connection.execute(
        "select symbol, polygon_ticker, rank, update_frequency_seconds, name from assetbatch.assets"
        " where origin = 'symbols'"
    )
    return {row["symbol"]: (*row.values(),)[1:] for row in rows}


def test_an_asset_is_added_listed_and_removed(user: Commands, connection: Connection) -> None:
    (user.folder / "config.yaml").write_text(CONFIG % "config")
    added = user("symbols", "add", "SOL/USD", "X:SOLUSD", "--priority", "high", "--json")

    assert added.returncode == 0
    document = json.loads(added.stdout)
    assert document == {
        "schema": "assetbatch.symbols-add/1", "added": ["SOL/USD"], "already_there": [], "skipped": [], "refused": [],
        "faults": [], "counts": {"added": 1, "already_there": 0, "skipped": 0, "refused": 0, "faults": 0},
        "checked": True, "api_calls_used": 1,
    }  # fmt: skip
    assert "set it to database" in added.stderr
    assert len(added.stderr.splitlines()) == 1
    assert own(connection) == {"SOL/USD": ("X:SOLUSD", 2, 1800, "SOL - United States dollar")}

    listed = json.loads(user("symbols", "list", "--json").stdout)
    assert (listed["schema"], listed["total"]) == ("assetbatch.symbols-list/1", 2)
    assert [item["symbol"] for item in listed["items"]] == ["BTCUSD", "SOL/USD"]
    assert listed["items"][1] == {
        "symbol": "SOL/USD", "polygon_ticker": "X:SOLUSD", "asset_type": "crypto",
        "name": "SOL - United States dollar", "role": "secondary", "rank": 2, "priority": "HIGH",
        "update_frequency_seconds": 1800, "enabled": True, "origin": "symbols",
    }  # fmt: skip
    table = user("symbols", "list", "--limit", "1").stdout
    assert "X:BTCUSD" in table
    assert "and 1 more: --limit 2" in table

    removed = user("symbols", "remove", "SOL/USD", "BTCUSD", "NOSUCH", "--json")
    assert removed.returncode == 2
    assert json.loads(removed.stdout) == {
        "schema": "assetbatch.symbols-remove/1", "removed": ["SOL/USD"], "missing": ["NOSUCH"],
        "configured": ["BTCUSD"], "bars_removed": 0,
    }  # fmt: skip
    assert [json.loads(line)["exit_code"] for line in removed.stderr.splitlines()] == [2, 2]
    assert own(connection) == {}
    assert connection.execute("select symbol from trading.symbols").fetchall() == [{"symbol": "SOL/USD"}]


def test_what_cannot_be_added_is_refused(user: Commands, connection: Connection, sandbox: Sandbox) -> None:
    for arguments, words, calls in (
        (("APPLE", "aapl"), "as the vendor writes it: case matters", 0),
        (("EURUSD", "EURUSD"), "is not in the vendor's reference list; did you mean C:EURUSD or X:EURUSD?", 1),
        (("NOSUCH", "X:NOSUCH"), "X:NOSUCH is not in the vendor's reference list", 2),
    ):
        done = user("symbols", "add", *arguments)

        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert own(connection) == {}
        assert len(sandbox.arrivals) == calls


def test_without_a_key_or_without_check_no_call_is_made_and_a_wrong_key_is_77(
    user: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    unchecked = user("symbols", "add", "NEW", "X:NEWUSD", "--no-check")
    keyless = user("symbols", "add", "NEWER", "X:NEWERUSD", POLYGON_API_KEY="")
    needed = user("symbols", "import", "-", POLYGON_API_KEY="")
    assert sandbox.arrivals == []
    wrong = user("symbols", "add", "SOLUSD", "X:SOLUSD", POLYGON_API_KEY="another-key-of-mine")

    assert (unchecked.returncode, unchecked.stdout, unchecked.stderr) == (0, "1 added: NEW\n", "")
    assert keyless.returncode == 0
    assert "no API key" in keyless.stderr
    assert needed.returncode == 78
    assert set(own(connection)) == {"NEW", "NEWER"}
    assert (wrong.returncode, wrong.stdout) == (77, "")
    assert "POLYGON_API_KEY" in wrong.stderr


def test_a_csv_is_stored_whole_or_not_at_all(user: Commands, connection: Connection, sandbox: Sandbox) -> None:
    file = user.folder / "some.csv"
    good = "symbol,polygon_ticker,priority,update_frequency_seconds\nSOLUSD,X:SOLUSD,HIGH,60\nEURJPY,C:EURJPY,,\n"
    file.write_text("\ufeff" + good + "NOSUCH,X:NOSUCH,,\nBTCUSD,X:BTCEUR,,\nA B,X:ADAUSD,,\n", encoding="utf-8")

    refused = user("symbols", "import", str(file), "--json")

    assert refused.returncode == 2
    document = json.loads(refused.stdout)
    assert [(fault["place"], fault["key"]) for fault in document["faults"]] == [
        ("some.csv:4", "polygon_ticker"), ("some.csv:5", "symbol"), ("some.csv:6", "symbol"),
    ]  # fmt: skip
    assert document["counts"]["faults"] == 3
    assert json.loads(refused.stderr)["exit_code"] == 2
    assert own(connection) == {}

    file.write_text(good)
    done = user("symbols", "import", str(file), "--priority", "LOW", "--update-frequency-seconds", "300")

    assert (done.returncode, done.stdout, done.stderr) == (0, "2 added: EURJPY, SOLUSD\n", "")
    assert own(connection) == {
        "EURJPY": ("C:EURJPY", 4, 300, "Euro - Japanese yen"),
        "SOLUSD": ("X:SOLUSD", 2, 60, "SOL - United States dollar"),
    }
    assert len(sandbox.arrivals) == 4  # a page of each market, twice

    piped = {"stdin": None, "input": "symbol,polygon_ticker\nADAUSD,X:ADAUSD\nX,y\n"}
    run = user("symbols", "import", "-", "--no-check", "--json", streams=piped)
    assert run.returncode == 2
    assert [fault["place"] for fault in json.loads(run.stdout)["faults"]] == ["stdin:3"]


def test_a_pattern_without_a_word_and_a_terminal_makes_no_call(user: Commands, sandbox: Sandbox) -> None:
    done = user("symbols", "import", "--market", "fx", "--match", "*USD")

    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert sandbox.arrivals == []


def test_a_pattern_asks_and_adds_all_that_match(user: Commands, connection: Connection) -> None:
    refused = user.answering("n", "symbols", "import", "--market", "crypto", "--match", "*EUR")
    assert (refused.returncode, refused.stdout) == (0, "")
    assert "Add 2 assets (BTCEUR, ETHEUR)?" in refused.stderr
    assert own(connection) == {}

    user("symbols", "add", "ETHEREUM", "X:ETHEUR", "--no-check")
    done = user("symbols", "import", "--market", "crypto", "--match", "*EUR", "--yes")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 added: BTCEUR\n1 already there, left as they are: ETHEREUM\n"
    assert set(own(connection)) == {"BTCEUR", "ETHEREUM"}


def test_removing_bars_needs_a_word(user: Commands, connection: Connection) -> None:
    user("symbols", "add", "SOLUSD", "X:SOLUSD", "--no-check")
    connection.execute(
        "insert into market_data.ohlcv_5m select id, now(), 1, 1, 1, 1, 1, null, null, true, now() from trading.symbols"
    )

    refused = user("symbols", "remove", "SOLUSD", "--with-bars")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert set(own(connection)) == {"SOLUSD"}

    done = user.answering("y", "symbols", "remove", "SOLUSD", "--with-bars")
    assert done.returncode == 0
    assert "Remove 1 asset with all bars (SOLUSD)?" in done.stderr
    assert done.stdout == "1 removed: SOLUSD, with 1 bar\n"
    assert own(connection) == {}
    assert connection.execute("select from market_data.ohlcv_5m").fetchall() == []


def test_faults_are_json_on_stdout_while_a_bar_is_at_the_terminal(user: Commands, sandbox: Sandbox) -> None:
    now = sandbox.clock

    def slowly() -> datetime:
        time.sleep(1.5)
        return now()

    sandbox.clock = slowly

    done, seen = run_at_terminal(
        [sys.executable, "-m", "assetbatch", "symbols", "add", "NOSUCH", "X:NOSUCH", "--json"],
        environment=user.environment | {"XDG_STATE_HOME": str(user.folder / "state")},
        folder=user.folder,
    )

    assert "\x1b[?25l" in seen
    assert json.loads(done.stdout)["faults"]


@pytest.mark.parametrize("place", ["file", "stdin"])
def test_a_spreadsheet_is_imported_and_what_it_says_twice_is_told(
    user: Commands, connection: Connection, place: str
) -> None:
    rows = (
        "Symbol;Polygon Ticker;Priority;Name;",
        "SOLUSD;X:SOLUSD;high;Sölana;",
        "ADAUSD;X:ADAUSD;;;",
        "ADAUSD;X:ADAUSD",
    )
    file = user.folder / "Mappe 1.csv"
    file.write_bytes("\r\n".join(rows).encode("utf-16"))

    with file.open("rb") as stdin:
        done = user("symbols", "import", "-" if place == "stdin" else file.name, streams={"stdin": stdin})

    assert (done.returncode, done.stdout) == (0, "2 added: ADAUSD, SOLUSD\n")
    named = "stdin" if place == "stdin" else file.name
    assert done.stderr.splitlines() == [
        f"assetbatch symbols import: say the same as a line before them, and count once: {named}:4"
    ]
    assert own(connection) == {
        "SOLUSD": ("X:SOLUSD", 2, 1800, "Sölana"),
        "ADAUSD": ("X:ADAUSD", 3, 1800, "ADA - United States dollar"),
    }


def test_a_trigger_of_the_platform_that_forbids_a_removal_is_told_in_its_words(
    user: Commands, connection: Connection
) -> None:
    assert user("symbols", "add", "SOLUSD", "X:SOLUSD").returncode == 0
    connection.execute(
        """
        insert into data_sources.data_sync_status (ticker_id, provider_id, sync_status)
        select s.id, p.id, 'success' from trading.symbols s, data_sources.api_providers p where s.symbol = 'SOLUSD';
        create function data_sources.keep() returns trigger language plpgsql as $$
        begin raise exception 'statuses are kept' using errcode = '45000'; end $$;
        create trigger keep before delete on data_sources.data_sync_status for each row
          execute function data_sources.keep();
        """
    )

    done = user("symbols", "remove", "SOLUSD", "--yes")

    assert done.returncode == 78
    assert "statuses are kept" in done.stderr
    assert "a trigger or a function of the platform's own tables raised it" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
