"""`bars coverage` and `chart` as a user sees them: at a terminal, in a pipe, as JSON, with holes and without."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.bars import LENGTH, floor
from tests.conftest import Commands, open_database
from tests.relay import Relay
from tests.terminal import run_at_terminal
from tests.world import add_assets

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.sandbox.server import Sandbox

DELETE = """
delete from market_data.ohlcv_5m b using trading.symbols s
where s.id = b.symbol_id and s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s
"""
CONFIG = """
bars: {backfill_days: 3}
batch:
  priority_assets:
    - {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto}
    - {symbol: EURUSD, polygon_ticker: "C:EURUSD", asset_type: forex}
  secondary_assets: []
"""


@pytest.fixture
def filled(commands: Commands) -> Commands:
    """Three days of bars of two assets."""
    del commands.environment["POLYGON_RATE_LIMIT"]
    (commands.folder / "config.yaml").write_text(CONFIG)
    assert commands("init").returncode == 0
    assert commands("backfill").returncode == 0
    return commands


def delete(connection: Connection, symbol: str, hours: int, *, ago: timedelta) -> datetime:
    """Take away the bars of some hours; return when they begin."""
    since = floor(datetime.now(UTC) - ago).replace(minute=0)
    connection.execute(DELETE, {"symbol": symbol, "since": since, "until": since + timedelta(hours=hours)})
    return since


def coverage(commands: Commands, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = commands("bars", "coverage", "--json", *arguments)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_hole_is_shown_checked_and_mended_by_what_it_says(filled: Commands, connection: Connection) -> None:
    whole = coverage(filled, "--check")
    assert whole["schema"] == "assetbatch.bars-coverage/1"
    assert (whole["complete"], whole["total"]["missing"]) == (True, 0)

    since = delete(connection, "BTCUSD", 2, ago=timedelta(hours=30))
    found = coverage(filled, "--check", "--since", f"{since:%Y-%m-%d}", code=3)
    worst, other = found["assets"]
    assert (worst["symbol"], worst["missing"], worst["oldest_missing"]) == ("BTCUSD", 24, f"{since:%Y-%m-%d}")
    assert (other["symbol"], other["missing"], other["idle"]) == ("EURUSD", 0, None)
    for counts in (found["total"], *found["assets"], *worst["days"], *other["days"]):
        parts = ("final", "open", "nothing", "not_entitled", "failed", "refused", "missing")
        assert counts["expected"] == sum(counts[name] for name in parts)

    shown = filled("bars", "coverage", "--check")
    assert shown.returncode == 3
    assert shown.stderr == "assetbatch bars coverage: bars that could be had are missing: 24 of BTCUSD\n"
    command = f"assetbatch backfill --symbol BTCUSD --since {since:%Y-%m-%d}"
    assert command in shown.stdout
    assert "\x1b" not in shown.stdout
    assert filled(*command.split()[1:]).returncode == 0
    assert filled("bars", "coverage", "--check").returncode == 0


def test_status_and_coverage_count_the_same_holes(filled: Commands, connection: Connection) -> None:
    delete(connection, "BTCUSD", 5, ago=timedelta(hours=40))
    status = json.loads(filled("status", "--json").stdout)
    found = coverage(filled, "--since", f"{datetime.now(UTC) - timedelta(days=7):%Y-%m-%d}")
    assert status["bars"]["holes"] == found["total"]["missing"] == 60


def test_the_view_says_the_same(filled: Commands, connection: Connection) -> None:
    delete(connection, "BTCUSD", 1, ago=timedelta(hours=20))
    found = coverage(filled)
    rows = connection.execute("select * from assetbatch.coverage order by symbol, day").fetchall()
    by_day = {(one["symbol"], day["day"]): day for one in found["assets"] for day in one["days"]}
    assert len(rows) == len(by_day)
    for row in rows:
        shown = by_day[row["symbol"], str(row["day"])]
        assert {name: row[name] for name in shown if name != "day"} == {
            name: count for name, count in shown.items() if name != "day"
        }


def test_the_statement_of_the_guide_finds_the_hole(filled: Commands, connection: Connection) -> None:
    since = delete(connection, "BTCUSD", 1, ago=timedelta(hours=30))
    # As if the jobs had asked for the newest bars.
    connection.execute("update assetbatch.bar_state set asked_until = watermark")
    guide = Path(__file__).parents[2].joinpath("docs/guide/charts.md").read_text("utf-8")
    (statement,) = re.findall(r"```sql\n(.*?)```", guide, re.DOTALL)
    rows = connection.execute(statement.encode()).fetchall()
    assert [(row["symbol"], row["day"], row["missing"]) for row in rows] == [("BTCUSD", since.date(), 12)]


def test_a_map_tells_without_colour_what_it_tells_with_it(filled: Commands, connection: Connection) -> None:
    delete(connection, "BTCUSD", 2, ago=timedelta(hours=30))
    command = [sys.executable, "-m", "assetbatch", "bars", "coverage", "--symbol", "BTCUSD"]
    environment = filled.environment | {"LC_ALL": "C.UTF-8"}
    shown = {}
    for name, more in (("colour", {}), ("plain", {"NO_COLOR": "1"})):
        for columns in (80, 120):
            done, text = run_at_terminal(
                command, environment=environment | more, folder=filled.folder, columns=columns, is_whole=True
            )
            assert done.returncode == 0
            shown[name, columns] = text
    for columns in (80, 120):
        assert "\x1b[32m█" in shown["colour", columns]
        assert "\x1b[3" not in shown["plain", columns]
        assert "▓" in shown["plain", columns]
        lines = (
            shown["plain", columns].replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").split("\r\n")
        )
        assert max(len(line) for line in lines if not line.lstrip().startswith("assetbatch ")) <= columns
    ascii_ = filled("bars", "coverage", LC_ALL="C")
    assert ascii_.returncode == 0
    assert ascii_.stdout.isascii()


def test_it_needs_no_key_and_writes_nothing(filled: Commands, connection: Connection) -> None:
    delete(connection, "BTCUSD", 2, ago=timedelta(hours=30))
    del filled.environment["POLYGON_API_KEY"]
    # Who writes is refused: of a role that may only read, each transaction.
    reading = f"{filled.environment['DATABASE_URL']} options='-c default_transaction_read_only=on'"
    done = filled("bars", "coverage", "--json", DATABASE_URL=reading)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"]["missing"] == 24
    assert filled("chart", "BTCUSD", DATABASE_URL=reading).returncode == 0


def test_words_that_are_wrong_end_it(filled: Commands) -> None:
    for arguments in (
        ("bars", "coverage", "--symbol", "NOPE"),
        ("bars", "coverage", "--since", "yesterday"),
        ("bars", "coverage", "--since", "2026-02-01", "--until", "2026-01-01"),
        ("bars", "coverage", "--since", f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"),
        ("chart", "NOPE"),
        ("chart", "BTCUSD", "--since", "soon"),
    ):
        done = filled(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr


def test_bars_that_nobody_asks_for_are_told_and_not_missed(filled: Commands, connection: Connection) -> None:
    delete(connection, "BTCUSD", 2, ago=timedelta(hours=30))
    connection.execute("update assetbatch.assets set enabled = false where symbol = 'BTCUSD'")
    assert [one["symbol"] for one in coverage(filled, "--check")["assets"]] == ["EURUSD"]
    (asset,) = coverage(filled, "--check", "--symbol", "BTCUSD")["assets"]
    assert (asset["idle"], asset["missing"]) == ("disabled", 24)
    assert "disabled" in filled("bars", "coverage", "--symbol", "BTCUSD").stdout


def test_an_asset_that_was_never_asked_for_is_told(filled: Commands, connection: Connection) -> None:
    add_assets(connection, "X:ETHUSD")
    found = coverage(filled, "--check", code=3)
    assert [one["symbol"] for one in found["assets"] if not one["asked_for"]] == ["ETHUSD"]
    assert "never asked for" in filled("bars", "coverage").stdout


def test_an_asset_whose_bars_nobody_will_ask_for_is_not_told_as_new(filled: Commands, connection: Connection) -> None:
    add_assets(connection, "X:ETHUSD", "X:OLDUSD")
    connection.execute("update assetbatch.assets set enabled = false where symbol = 'ETHUSD'")
    connection.execute("insert into assetbatch.sync_state (symbol, error_kind) values ('OLDUSD', 'unknown_ticker')")
    assert [one["idle"] for one in coverage(filled, "--check")["assets"]] == [None, None, "unknown"]
    found = coverage(filled, "--check", "--symbol", "ETHUSD", "--symbol", "OLDUSD")
    assert {one["symbol"]: (one["idle"], one["asked_for"]) for one in found["assets"]} == {
        "ETHUSD": ("disabled", False),
        "OLDUSD": ("unknown", False),
    }
    assert "never asked for" not in filled("bars", "coverage", "--symbol", "ETHUSD").stdout


@pytest.mark.parametrize("arguments", [("--until", "2026-02-03"), ("--since", "0001-01-01"), ("--until", "9999-12-31")])
def test_days_without_a_bar_that_is_wanted_lack_none(filled: Commands, arguments: tuple[str, str]) -> None:
    found = coverage(filled, "--check", *arguments)
    assert {one["asked_for"] for one in found["assets"]} == {True}
    if arguments[0] == "--until":
        first, last = date.fromisoformat(found["since"]), date.fromisoformat(found["until"])
        assert last == min(date.fromisoformat(arguments[1]), datetime.now(UTC).date())
        assert last - first == timedelta(days=29)
    done = filled("bars", "coverage", *arguments)
    assert done.returncode == 0, done.stderr
    assert "0 missing" in done.stdout


def test_prices_that_are_none_are_no_points(filled: Commands, connection: Connection) -> None:
    connection.execute("alter table market_data.ohlcv_5m alter close drop not null")
    for minute, value in ((0, "null"), (5, "'NaN'"), (10, "'infinity'"), (55, "'NaN'"), (50, "null")):
        connection.execute(
            f"update market_data.ohlcv_5m set close = {value}"
            f" where extract(minute from ts) = {minute} and extract(hour from ts)::int % 2 = 0".encode()
        )
    assert "228 final bars" in filled("chart", "BTCUSD").stdout
    connection.execute("update market_data.ohlcv_5m set close = 'NaN' where ts < now() - interval '12 hours'")
    for *arguments, drawn in (("chart", "BTCUSD", "┤"), ("chart", "BTCUSD", "--candles", "█"), ("status", "▁")):
        done = filled(*arguments, COLUMNS="150", LC_ALL="C.UTF-8")
        assert done.returncode == 0, done.stderr
        assert drawn in done.stdout
    assert json.loads(filled("chart", "BTCUSD", "--json").stdout)["points"]


@pytest.mark.parametrize("has_finality", [True, False])
def test_final_bars_that_a_backfill_brought_are_drawn_and_open_ones_counted(
    filled: Commands, connection: Connection, has_finality: bool
) -> None:
    # As if the jobs had stood still for an hour, or, where that is all that tells, bars were open.
    connection.execute("update assetbatch.bar_state set asked_until = watermark - interval '55 minutes'")
    if not has_finality:
        connection.execute("alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at")
    newest = connection.execute("select watermark from assetbatch.bar_state where symbol = 'BTCUSD'").fetchone()
    assert newest is not None

    found = json.loads(filled("chart", "BTCUSD", "--json").stdout)

    last = datetime.fromisoformat(found["until"]) - LENGTH
    assert last == newest["watermark"] - (timedelta(0) if has_finality else timedelta(hours=1))
    assert found["open_bars"] == (0 if has_finality else 12)


def test_how_often_it_waits_for_the_database(filled: Commands) -> None:
    with Relay(filled.environment["DATABASE_URL"]) as relay:
        for most, arguments in ((6, ("bars", "coverage")), (8, ("chart", "BTCUSD"))):
            before = relay.round_trips
            done = filled(*arguments, DATABASE_URL=relay.conninfo)
            assert (done.returncode, done.stderr) == (0, "")
            assert relay.round_trips - before <= most, arguments


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("candles", [(), ("--candles",)])
def test_a_chart_fits_the_terminal_and_has_gaps(
    filled: Commands, connection: Connection, columns: int, candles: tuple[str, ...]
) -> None:
    delete(connection, "BTCUSD", 4, ago=timedelta(hours=12))
    command = [sys.executable, "-m", "assetbatch", "chart", "BTCUSD", *candles]
    environment = filled.environment | {"LC_ALL": "C.UTF-8"}
    _, coloured = run_at_terminal(
        command, environment=environment, folder=filled.folder, columns=columns, is_whole=True
    )
    _, plain = run_at_terminal(
        command, environment=environment | {"NO_COLOR": "1"}, folder=filled.folder, columns=columns, is_whole=True
    )
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    lines = plain.split("\r\n")
    drawn = [line for line in lines if "│" in line or "┤" in line]
    assert max(map(len, lines)) <= columns
    assert "UTC, the newest 24 h of market time" in " ".join(plain.split())
    assert "48 missing on these days" in plain
    # No sign in the columns of four hours of 24, but those at their edges.
    inside = [line[line.index("│" if line[:14].count("┤") == 0 else "┤") + 1 : -1] for line in drawn]
    width = max(map(len, inside))
    filled_columns = {at for line in inside for at, sign in enumerate(line) if sign != " "}
    empty = max(b - a - 1 for a, b in zip(sorted(filled_columns)[:-1], sorted(filled_columns)[1:], strict=True))
    assert width / 6 - 4 <= empty <= width / 6 + 4


def test_a_chart_in_a_pipe_is_plain(filled: Commands) -> None:
    done = filled("chart", "BTCUSD", "--since", "6h")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert filled("chart", "BTCUSD", LC_ALL="C").stdout.isascii()


def test_a_chart_as_json_has_each_bar(filled: Commands, connection: Connection) -> None:
    found = json.loads(filled("chart", "BTCUSD", "--json").stdout)
    assert (found["schema"], found["symbol"], found["seconds"]) == ("assetbatch.chart/1", "BTCUSD", 300)
    rows = connection.execute(
        "select b.ts, b.open, b.close from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
        " where s.symbol = 'BTCUSD' and b.is_final order by ts desc limit 288"
    ).fetchall()
    told = [(one["ts"], one["open"], one["close"]) for one in found["points"]]
    assert told == [
        (row["ts"].isoformat().replace("+00:00", "Z"), f"{row['open']:f}", f"{row['close']:f}") for row in rows[::-1]
    ]
    assert found["until"] == (rows[0]["ts"] + LENGTH).isoformat().replace("+00:00", "Z")


def test_a_chart_of_no_bars_says_what_to_do(commands: Commands) -> None:
    assert commands("init").returncode == 0
    done = commands("chart", "BTCUSD")
    assert (done.returncode, done.stdout) == (
        0,
        "no final bar of BTCUSD is there yet: `assetbatch backfill --symbol BTCUSD` fetches them\n",
    )
    assert json.loads(commands("chart", "BTCUSD", "--json").stdout)["points"] == []


def test_with_finished_days_alone_the_newest_of_them_are_drawn(commands: Commands, sandbox: Sandbox) -> None:
    (commands.folder / "config.yaml").write_text(CONFIG)
    commands.environment["POLYGON_TIER"] = "free"
    del commands.environment["POLYGON_RATE_LIMIT"]
    commands.environment |= {"POLYGON_RATE_LIMIT": "50"}
    assert commands("init").returncode == 0
    assert commands("backfill").returncode == 0
    done = commands("chart", "BTCUSD")
    assert "288 final bars" in done.stdout
    assert "the newest 24 h of market time" in " ".join(done.stdout.split())
    with open_database(commands.environment["DATABASE_URL"]) as connection:
        assert connection.execute("select 1 from market_data.ohlcv_5m limit 1").fetchone()
    gone = commands("chart", "BTCUSD", "--since", "1m")
    assert "without --since, the newest day is shown" in gone.stdout
