"""The catalogue beside config.yaml: what is read, what is refused, what is stored and what is removed."""

from __future__ import annotations

import csv
import io
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from assetbatch.config import Config
from assetbatch.config.assets import Row, Table, read_csv
from assetbatch.config.given import has_control
from assetbatch.database import catalogue, symbols
from assetbatch.database.connection import Connection
from assetbatch.database.embedded import EmbeddedServer
from assetbatch.database.setup import schema
from assetbatch.errors import ConfigurationError, Interrupted, SchemaError, SourceMismatchError
from assetbatch.failures import CallError
from assetbatch.jobs import drain, enqueue
from assetbatch.jobs import symbols as job
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.clock import Stop
from assetbatch.jobs.run import Start
from assetbatch.model import Asset, AssetType, Priority, Role
from assetbatch.provider.massive import reference_tickers
from assetbatch.provider.results import TickerPage
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, open_database, variables, wait_until
from tests.world import load_config, no_stop

HEADER = "symbol,polygon_ticker,priority,update_frequency_seconds\n"


@dataclass
class World:
    """A configuration, a database and a server; BTCUSD is the priority asset, GBPUSD the secondary one."""

    folder: Path
    database: str
    connection: Connection
    sandbox: Sandbox

    def config(self, key: str = API_KEY, **sections: str) -> Config:
        lists = (
            "{priority_assets: [{symbol: BTCUSD, polygon_ticker: X:BTCUSD, asset_type: crypto}], secondary_assets: ["
            "{symbol: GBPUSD, polygon_ticker: C:GBPUSD, asset_type: forex},"
            " {symbol: IDLE, polygon_ticker: C:USDCHF, asset_type: forex, enabled: false}]}"
        )
        text = "".join(f"{name}: {value}\n" for name, value in ({"batch": lists} | sections).items())
        environment = variables(self.database, self.sandbox.url) | {"POLYGON_API_KEY": key}
        return load_config(self.folder, text, **environment)

    def reference(self, config: Config, *markets: AssetType, stop: Stop | None = None) -> job.Reference:
        return job.read_reference(config, self.connection, host="test", stop=stop or no_stop(), markets=markets)

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.connection.execute(statement, parameters)]


@pytest.fixture(scope="module")
def shared(postgres: EmbeddedServer) -> str:
    """One database for the tests that leave the schema as it is: each empties its tables afterwards."""
    postgres.create_database("symbols")
    with open_database(postgres.conninfo("symbols")) as connection:
        schema.migrate(connection)
    return postgres.conninfo("symbols")


EMPTY = """
do $$ declare name text; begin
  for name in select format('%I.%I', table_schema, table_name) from information_schema.tables
              where table_schema in ('assetbatch', 'trading', 'data_sources', 'market_data')
                and table_type = 'BASE TABLE' and table_name not in ('migrations', 'api_providers', 'meta')
  loop execute 'delete from ' || name; end loop;
  delete from data_sources.api_providers where code <> 'polygon';
  delete from assetbatch.meta where key = 'source';
end $$
"""


@pytest.fixture
def world(tmp_path: Path, shared: str, sandbox: Sandbox) -> Iterator[World]:
    with open_database(shared) as connection:
        yield World(tmp_path, shared, connection, sandbox)
        connection.execute(EMPTY)


@pytest.fixture
def platform(tmp_path: Path, database: str, connection: Connection, sandbox: Sandbox) -> World:
    """A database of one's own, whose tables have rules of the platform."""
    return World(tmp_path, database, connection, sandbox)


def read(text: str) -> Table:
    return read_csv(text.encode(), name="some.csv", priority="MEDIUM", frequency_seconds=1800)


def asset(symbol: str, ticker: str = "", priority: Priority = Priority.MEDIUM, seconds: int = 1800) -> Asset:
    ticker = ticker or f"X:{symbol}"
    market = AssetType.CRYPTO if ticker[0] == "X" else AssetType.FOREX
    return Asset(symbol, ticker, market, Role.SECONDARY, priority, seconds)


def wanted(*assets: Asset) -> list[Row]:
    return [Row(f"some.csv:{line}", one) for line, one in enumerate(assets, start=2)]


ROWS = """
select symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, enabled, origin
from assetbatch.assets order by symbol
"""

# --- Reading a CSV


def test_a_csv_is_read_whatever_the_order_of_its_columns() -> None:
    found = read('polygon_ticker,symbol,priority\r\nX:SOLUSD, SOL/USD ,HIGH\r\n\r\nC:EURJPY,"EURJPY",\r\n')

    assert found.faults == []
    assert [(row.place, row.asset) for row in found.rows] == [
        ("some.csv:2", asset("SOL/USD", "X:SOLUSD", Priority.HIGH)),
        ("some.csv:4", asset("EURJPY", "C:EURJPY")),
    ]
    times = read(HEADER + "A,X:A,,60\nB,X:B,lo,86400\n").faults
    assert [(fault.place, fault.key) for fault in times] == [("some.csv:3", "priority")]


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    found = read(
        HEADER
        + "GOOD,X:GOOD,LOW,60\n"
        + "bad symbol,X:A,,\n"
        + "APPLE,aapl,,\n"
        + "GOOD,X:B,,\n"
        + "C,X:GOOD,,\n"
        + "D,X:D,URGENT,0\n"
        + "E,X:E,,86401\n"
        + "F,X:F,,,more\n"
        + "G\n"
        + ",X:H,,often\n"
    )

    assert next(row.asset.symbol for row in found.rows) == "GOOD"
    assert sorted((int(fault.place.removeprefix("some.csv:")), fault.key) for fault in found.faults) == [
        (3, "symbol"), (4, "polygon_ticker"), (5, "symbol"), (6, "polygon_ticker"), (7, "priority"),
        (7, "update_frequency_seconds"), (8, "update_frequency_seconds"), (9, ""), (10, "polygon_ticker"),
        (11, "symbol"), (11, "update_frequency_seconds"),
    ]  # fmt: skip
    twice = next(fault for fault in found.faults if fault.place == "some.csv:5")
    assert "some.csv:2" in twice.message


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "some.csv:1", "empty"),
        ("\n\n", "some.csv:1", "empty"),
        ("SOLUSD,X:SOLUSD\n", "some.csv:1", "is missing"),
        ("symbol|polygon_ticker\nA|X:A\n", "some.csv:1", "unknown column"),
        ("symbol,polygon_ticker,priorty\nA,X:A,LOW\n", "some.csv:1", "did you mean priority?"),
        ("symbol,,polygon_ticker\nA,,X:A\n", "some.csv:1", "unknown column"),
        ("symbol,Symbol,polygon_ticker\nA,A,X:A\n", "some.csv:1", "twice"),
        ("symbol,polygon_ticker,colour\nA,X:A,red\n", "some.csv:1", "unknown column"),
        ("symbol,polygon_ticker,symbol\nA,X:A,A\n", "some.csv:1", "twice"),
        ('symbol,polygon_ticker\nA,"X:A\n', "some.csv:2", "no CSV"),
        ('symbol,polygon_ticker\nA,"X:A"B\n', "some.csv:2", "no CSV"),
    ],
)
def test_what_is_no_such_csv_is_told(text: str, place: str, words: str) -> None:
    found = read(text)

    assert any(fault.place == place and words in fault.message for fault in found.faults), found.faults
    assert found.rows == []


def test_other_encodings_are_told() -> None:
    for data in (HEADER.encode() + "Ä,X:A,,\n".encode("latin-1"), b"\xff\xfe" + HEADER.encode("utf-16-le") + b"A"):
        found = read_csv(data, name="some.csv", priority="LOW", frequency_seconds=60)

        (fault,) = found.faults
        assert fault.place == "some.csv:2"
        assert re.fullmatch(r"is not UTF-(8|16-LE): save it as CSV in UTF-8", fault.message)


SPREADSHEET = '''Symbol;Polygon Ticker;PRIORITY;Update Frequency (seconds);Name;;
SOLUSD;X:SOLUSD;high;60;"Sol; the ""coin""";;

;;;;;;
 EURJPY ;C:EURJPY;;;;;
GBPJPY;C:GBPJPY;Low
EURJPY;C:EURJPY;medium;;;;
'''


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("named", [False, True])
def test_a_csv_is_read_as_spreadsheets_write_it(delimiter: str, ending: str, encoding: str, named: bool) -> None:
    text = SPREADSHEET.replace("Sol;", "Sol\v").replace(";", delimiter).replace("\v", ";")
    # Excel says so itself in a first line of its own, which then counts.
    text = (f"sep={delimiter}\n" if named else "") + text
    data = text.replace("\n", ending).encode(encoding)
    data = b"\xfe\xff" + data if encoding == "utf-16-be" else data

    found = read_csv(data, name="some.csv", priority="MEDIUM", frequency_seconds=1800)

    assert found.faults == []
    assert [(row.place, row.asset) for row in found.rows] == [
        (f"some.csv:{2 + named}", replace(asset("SOLUSD", priority=Priority.HIGH, seconds=60), name='Sol; the "coin"')),
        (f"some.csv:{5 + named}", asset("EURJPY", "C:EURJPY")),
        (f"some.csv:{6 + named}", asset("GBPJPY", "C:GBPJPY", Priority.LOW)),
    ]
    assert found.repeated == [f"some.csv:{7 + named}"]


def test_lines_that_contradict_each_other_are_faults_and_those_that_do_not_count_once() -> None:
    found = read(HEADER + "A,X:A,LOW,60\nA,X:A,low,60\nA,X:A,HIGH,60\na,X:B,,\nA,X:A,LOW,60\n")

    assert [row.place for row in found.rows] == ["some.csv:2", "some.csv:4", "some.csv:5"]
    assert found.repeated == ["some.csv:3", "some.csv:6"]
    assert [(fault.place, fault.key) for fault in found.faults] == [("some.csv:4", "symbol"), ("some.csv:5", "symbol")]
    assert all("the first one is at some.csv:2" in fault.message for fault in found.faults)


@pytest.mark.parametrize("seconds", ["1.800", "1,800", "1 800", "1800,5", "0,5", "1800.5", "half an hour", "-60"])
def test_a_frequency_that_is_no_whole_number_is_a_fault_of_its_column(seconds: str) -> None:
    found = read("symbol;polygon_ticker;update_frequency_seconds\nA;X:A;" + seconds + "\n")

    assert [(fault.place, fault.key) for fault in found.faults] == [("some.csv:2", "update_frequency_seconds")]


CELLS = st.one_of(st.text(max_size=8), st.sampled_from(["A", "B1", "X:A", "C:B", "LOW", "", "60", "0", "-1", "1e3"]))
# Rows as they should be, or nearly.
LIKELY = st.tuples(
    st.sampled_from(["A", "B1", "C"]),
    st.sampled_from(["X:A", "C:B", ""]),
    st.sampled_from(["LOW", "high", ""]),
    st.sampled_from(["", "0", "1", "60", "86400", "86401"]),
)


@examples(max_examples=50)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=5) | LIKELY, max_size=6))
def test_every_line_is_a_row_or_a_fault(rows: list[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["symbol", "polygon_ticker", "priority", "update_frequency_seconds"], *rows])

    found = read_csv(text.getvalue().encode(errors="replace"), name="some.csv", priority="MEDIUM", frequency_seconds=60)

    places = [row.place for row in found.rows] + [fault.place for fault in found.faults]
    assert len({*places, *found.repeated}) == sum(any(cell.strip() for cell in row) for row in rows)
    assert all(1 <= row.asset.update_frequency_seconds <= 86_400 for row in found.rows)
    assert all(len(str(fault)) < 300 and not has_control(str(fault)) for fault in found.faults)


# --- Against config.yaml, the catalogue and the reference list


def test_rows_that_do_not_go_with_what_is_there_are_faults(world: World) -> None:
    config = world.config()
    symbols.add(world.connection, [asset("SOLUSD"), asset("ETHER", "X:ETHUSD")])

    faults = job.faults_of(
        config,
        world.connection,
        wanted(
            asset("SOLUSD", priority=Priority.LOW),
            asset("NEW", "X:ADAUSD"),
            asset("GBPUSD", "C:GBPJPY"),
            asset("IDLE", "C:EURUSD"),
            asset("SOLUSD", "X:SOLEUR"),
            asset("ETHUSD"),
            asset("BITCOIN", "X:BTCUSD"),
            asset("FRANC", "C:USDCHF"),
        ),
    )

    assert [(fault.place, fault.key) for fault in faults] == [
        ("some.csv:4", "symbol"), ("some.csv:5", "symbol"), ("some.csv:6", "symbol"),
        ("some.csv:7", "polygon_ticker"), ("some.csv:8", "polygon_ticker"), ("some.csv:9", "polygon_ticker"),
    ]  # fmt: skip
    assert "config.yaml" in faults[0].message
    assert "X:SOLUSD" in faults[2].message
    assert "as ETHER" in faults[3].message


def test_what_config_yaml_lists_as_a_row_says_is_there_already(world: World) -> None:
    config, rows = world.config(), wanted(asset("GBPUSD", "C:GBPUSD"), asset("SOLUSD"))

    assert job.faults_of(config, world.connection, rows) == []
    added = symbols.add(world.connection, [row.asset for row in rows])
    assert (added.added, added.already_there) == (["SOLUSD"], ["GBPUSD"])


def test_what_has_left_config_yaml_may_be_added(world: World) -> None:
    gone = replace(asset("GONE", "X:SOLUSD", seconds=60), name="old")
    catalogue.sync_with_config(world.connection, [gone])
    config = world.config()

    assert job.faults_of(config, world.connection, wanted(asset("GONE", "X:SOLEUR"))) == []
    added = symbols.add(world.connection, [asset("GONE", "X:SOLEUR"), asset("GBPUSD", "X:SOLEUR")])

    assert (added.added, added.already_there) == (["GONE"], ["GBPUSD"])
    rows = {row[0]: row[1:] for row in world.rows(ROWS)}
    assert rows["GONE"] == ("X:SOLEUR", "crypto", "secondary", 3, 1800, "", True, "symbols")
    assert rows["GBPUSD"][0] == "C:GBPUSD"
    catalogue.sync_with_config(world.connection, config.assets)
    assert world.rows("select enabled from assetbatch.assets where symbol = 'GONE'") == [(True,)]


def test_a_pattern_chooses_tickers_of_one_market_by_their_names(world: World) -> None:
    config = world.config()
    symbols.add(world.connection, [asset("ETHER", "X:ETHUSD"), asset("ADAUSD", "C:EURUSD")])
    names = {f"X:{name}": name.lower() for name in ("BTCUSD", "ETHUSD", "ADAUSD", "SOLUSD", "SOLEUR", "1INCHUSD")}
    names["X:bad-USD"] = "odd"

    chosen = job.select(config, world.connection, names, "*USD", priority="HIGH", frequency_seconds=60)
    none = job.select(config, world.connection, names, "*usd", priority="HIGH", frequency_seconds=60)

    assert chosen.assets == [
        replace(asset(symbol, priority=Priority.HIGH, seconds=60), name=symbol.lower())
        for symbol in ("1INCHUSD", "SOLUSD")
    ]
    assert sorted(chosen.already_there) == ["BTCUSD", "ETHER"]
    assert [ticker for ticker, _ in chosen.skipped] == ["X:bad-USD", "X:ADAUSD"]
    assert none.assets == []


def test_stocks_that_match_are_added_by_their_tickers_but_for_those_of_tests(world: World) -> None:
    config = world.config()
    names = world.reference(config, AssetType.STOCKS).names

    chosen = job.select(config, world.connection, names, "*", priority="LOW", frequency_seconds=60)
    lower = job.select(config, world.connection, names, "*p?", priority="LOW", frequency_seconds=60)

    assert {"AAPL", "BRK.B", "KIM", "KIMpL"} <= {one.symbol for one in chosen.assets}
    assert all(one.symbol == one.polygon_ticker and one.asset_type is AssetType.STOCKS for one in chosen.assets)
    assert [ticker for ticker, _ in chosen.skipped] == ["ZVZZT"]
    assert [one.symbol for one in lower.assets] == ["JPMpC", "KIMpL"]
    added = symbols.add(world.connection, chosen.assets)
    assert (len(added.added), added.refused) == (len(chosen.assets), [])


def test_each_page_of_the_reference_list_is_a_call_of_the_budget(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_tickers, "LIMIT", 20)
    config = world.config(rate_limiting="{calls_per_minute: 9, window_seconds: 30}")

    found = world.reference(config, AssetType.FOREX, AssetType.CRYPTO)

    assert found.names["C:XAUUSD"]
    assert found.names["X:SOLUSD"]
    pages = [one.path for one in world.sandbox.arrivals]
    assert len(pages) == found.result.api_calls_used == 7
    assert {one.status for one in world.sandbox.arrivals} == {200}
    calls = "select kind, outcome, count(*), count(distinct run_id) as runs from assetbatch.api_calls group by 1, 2"
    assert world.rows(calls) == [("tickers", "ok", 7, 1)]
    runs = "select job, status, exit_code, api_calls from assetbatch.runs"
    assert world.rows(runs) == [("symbols", "ok", 0, 7)]
    assert world.rows(
        "select count(*) from assetbatch.rate_limit_slots where counted_by > now() - interval '25 s'"
    ) == [(7,)]
    unknown = job.unheard_of(wanted(asset("A", "X:SOLUSD"), asset("B", "X:NOSUCH")), found.names)
    assert [fault.place for fault in unknown] == ["some.csv:3"]


def test_one_asset_is_looked_for_with_one_call(world: World) -> None:
    asked = asset("BTCUSD", "X:BTCUSD")

    found = job.read_reference(world.config(), world.connection, host="test", stop=no_stop(), asset=asked)

    assert set(found.names) == {"X:BTCUSD"}
    (arrival,) = world.sandbox.arrivals
    assert "ticker=X%3ABTCUSD" in arrival.path


def test_a_reference_list_without_end_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for word, expected in {"same": 2, "endless": job.MOST_PAGES}.items():
        calls.clear()

        def ask(self: Calls, request: Any, *, word: str = word, **_: Any) -> TickerPage:
            calls.append(request.call.page)
            return TickerPage({}, {}, "page" if word == "same" else f"page={len(calls)}")

        monkeypatch.setattr(Calls, "ask", ask)
        with pytest.raises(CallError, match="does not come to an end") as caught:
            world.reference(world.config(), AssetType.CRYPTO)

        assert caught.value.exit_code == 3
        assert len(calls) == expected


def test_a_call_that_fails_ends_the_run_with_its_exit_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config, stop = world.config(), no_stop()
    for word, code, calls in [("401", 77, 1), ("500", 69, 3), ("garbage", 3, 1)]:
        world.sandbox.fail = [word]
        before, pauses = len(world.sandbox.arrivals), list[float]()
        monkeypatch.setattr(stop, "pause", pauses.append)

        with pytest.raises(CallError) as caught:
            world.reference(config, AssetType.CRYPTO, stop=stop)

        assert caught.value.exit_code == code
        assert len(world.sandbox.arrivals) - before == calls == 1 + sum(seconds > 0.4 for seconds in pauses)
        last = "select status, exit_code from assetbatch.runs order by id desc limit 1"
        assert world.rows(last) == [("failed", code)]
    assert world.rows("select count(*) from assetbatch.api_calls") == [(5,)]


def test_a_database_of_another_source_and_a_missing_key_make_no_call(world: World) -> None:
    with pytest.raises(ConfigurationError):
        world.reference(world.config(key=""), AssetType.CRYPTO)
    schema.claim_source(world.connection, "api.massive.com")
    with pytest.raises(SourceMismatchError):
        world.reference(world.config(), AssetType.CRYPTO)

    assert world.sandbox.arrivals == []


def test_who_waits_for_a_slot_can_be_asked_to_end(world: World) -> None:
    config = world.config(rate_limiting="{calls_per_minute: 1, window_seconds: 60}")
    world.reference(config, AssetType.CRYPTO)
    stop = no_stop()
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool, open_database(world.database) as other:
        run = pool.submit(job.read_reference, config, other, host="test", stop=stop, markets=[AssetType.CRYPTO])
        wait_until(lambda: run.done() or world.rows("select 1 from assetbatch.rate_limit_waiters"))
        stop.requested.set()
        with pytest.raises(Interrupted):
            run.result(timeout=5)

    assert time.monotonic() - began < 5
    assert world.rows("select count(*) from assetbatch.rate_limit_waiters") == [(0,)]
    assert len(world.sandbox.arrivals) == 1


# --- Storing


def test_what_is_added_is_in_both_tables_and_what_was_there_stays_as_it_was(world: World) -> None:
    world.connection.execute("insert into trading.symbols (symbol, metadata) values ('PRESENT', '{\"own\": 1}')")

    first = symbols.add(
        world.connection,
        [asset("XAGEUR", "C:XAGEUR", Priority.CRITICAL, 60), replace(asset("PRESENT"), name="Here"), asset("C")],
    )
    again = symbols.add(world.connection, [asset("C", "X:OTHER", Priority.LOW, 5), asset("D")])

    assert (first.added, first.already_there, first.refused) == (["C", "PRESENT", "XAGEUR"], [], [])
    assert (again.added, again.already_there) == (["D"], ["C"])
    assert world.rows(ROWS) == [
        ("C", "X:C", "crypto", "secondary", 3, 1800, "", True, "symbols"),
        ("D", "X:D", "crypto", "secondary", 3, 1800, "", True, "symbols"),
        ("PRESENT", "X:PRESENT", "crypto", "secondary", 3, 1800, "Here", True, "symbols"),
        ("XAGEUR", "C:XAGEUR", "forex", "secondary", 1, 60, "", True, "symbols"),
    ]
    assert world.rows("select symbol, metadata from trading.symbols order by symbol") == [
        ("C", {}), ("D", {}), ("PRESENT", {"own": 1}), ("XAGEUR", {}),
    ]  # fmt: skip
    assert symbols.add(world.connection, []).added == []


@pytest.mark.parametrize(
    "rule",
    [
        "alter table trading.symbols add check (symbol not like '%BAD%')",
        """
        create function quiet() returns trigger language plpgsql as
          $$ begin if new.symbol like '%BAD%' then return null; end if; return new; end $$;
        create trigger quiet before insert on trading.symbols for each row execute function quiet()
        """,
        """
        create function late() returns trigger language plpgsql as $$
        begin if new.symbol like '%BAD%' then raise 'no' using errcode = '45000'; end if; return null; end $$;
        create constraint trigger late after insert on trading.symbols deferrable initially deferred
          for each row execute function late()
        """,
        """
        create function broken() returns trigger language plpgsql as $$
        begin if new.symbol like '%BAD%' then perform trading.none_such(); end if; return new; end $$;
        create trigger broken before insert on trading.symbols for each row execute function broken()
        """,
    ],
)
def test_what_the_platform_refuses_is_left_out_alone(platform: World, rule: str) -> None:
    platform.connection.execute(rule)
    many = [asset(f"T{number}") for number in range(20)]

    added = symbols.add(platform.connection, [*many[:7], asset("BAD1"), *many[7:], asset("BAD2")])

    assert [symbol for symbol, _ in added.refused] == ["BAD1", "BAD2"]
    assert all(reason for _, reason in added.refused)
    assert len(added.added) == 20
    for table in ("assetbatch.assets", "trading.symbols"):
        assert {row[0] for row in platform.rows(f"select symbol from {table}")} == {one.symbol for one in many}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("revoke insert on trading.symbols from adds", psycopg.errors.InsufficientPrivilege),
        ("drop table trading.symbols cascade", psycopg.errors.UndefinedTable),
    ],
)
def test_what_is_missing_for_all_is_no_assets_fault(platform: World, change: str, error: type[psycopg.Error]) -> None:
    platform.connection.execute(
        "create role adds; grant usage on schema trading, assetbatch to adds;"
        " grant all on trading.symbols, assetbatch.assets to adds"
    )
    platform.connection.execute(change.encode())
    platform.connection.execute("set role adds")
    try:
        with pytest.raises(error):
            symbols.add(platform.connection, [asset("T1"), asset("T2")])
    finally:
        platform.connection.execute("reset role; drop owned by adds; drop role adds")


def test_assets_that_nothing_refuses_are_added_without_a_savepoint(
    platform: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sift(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(symbols, "sift", sift)

    assert symbols.add(platform.connection, [asset("T1")]).added == ["T1"]


def test_a_platform_that_refuses_every_row_ends_it_and_nothing_is_stored(platform: World) -> None:
    platform.connection.execute("alter table trading.symbols add exchange text not null")
    platform.connection.execute("insert into trading.symbols (symbol, exchange) values ('T3', 'X')")

    with pytest.raises(SchemaError, match="exchange"):
        symbols.add(platform.connection, [asset(f"T{number}") for number in range(200)])

    assert platform.rows(ROWS) == []
    assert symbols.add(platform.connection, [asset("T3")]).added == ["T3"]


def test_two_who_add_the_same_assets_at_once_add_each_once(world: World) -> None:
    some = [asset(f"T{number}") for number in range(300)]

    def add(assets: list[Asset]) -> list[str]:
        with open_database(world.database) as connection:
            return symbols.add(connection, assets).added

    with ThreadPoolExecutor(2) as pool:
        added = [symbol for result in pool.map(add, [some, some[::-1]]) for symbol in result]

    assert sorted(added) == sorted(one.symbol for one in some)


def test_the_list_is_in_the_order_of_importance_and_of_names(world: World) -> None:
    symbols.add(world.connection, [asset("ZZZ", priority=Priority.CRITICAL), asset("AAA")])
    catalogue.sync_with_config(world.connection, world.config().assets)
    world.connection.execute("update assetbatch.assets set enabled = false where symbol = 'AAA'")

    whole = symbols.listing(world.connection, limit=None)
    part = symbols.listing(world.connection, limit=2)

    assert [(item.asset.symbol, item.origin, item.enabled) for item in whole.items] == [
        ("BTCUSD", "config", True), ("AAA", "symbols", False), ("GBPUSD", "config", True), ("ZZZ", "symbols", True),
    ]  # fmt: skip
    assert ([item.asset.symbol for item in part.items], part.total) == (["BTCUSD", "AAA"], 4)


def test_an_asset_that_was_added_is_updated(world: World) -> None:
    start = Start(world.config(bars="{enabled: false}"), world.connection, "test", no_stop())
    symbols.add(world.connection, [asset("SOL/USD", "X:SOLUSD")])

    enqueue.enqueue_secondary(start, source="database", symbols=["SOL/USD"])
    done = drain.drain_queue(
        start, bounds=drain.Bounds(5.0), shared=True, reconnect=lambda: open_database(world.database)
    )

    assert done.updated == ("SOL/USD",)


# --- Removing

TABLES = ("queue", "sync_state", "bar_state", "bar_absences")


@pytest.fixture
def lived(world: World) -> World:
    """GONE and KEPT, each with all that there can be of an asset, and GBPUSD of config.yaml."""
    symbols.add(world.connection, [asset("GONE"), asset("KEPT")])
    catalogue.sync_with_config(world.connection, world.config().assets)
    world.connection.execute(
        """
        insert into data_sources.api_providers (code) values ('another');
        insert into data_sources.data_sync_status (ticker_id, provider_id, sync_status)
          select s.id, p.id, 'success' from trading.symbols s, data_sources.api_providers p;
        update trading.symbols set metadata = '{"last_update": {"last_price": 1}}';
        insert into assetbatch.queue (symbol, state, priority, waiting_since, rank, enqueued_at, available_at,
                                      token, leased_until, claimed_at)
          select symbol, 'leased', 3, now(), now(), now(), now(), gen_random_uuid(), now(), now()
          from trading.symbols;
        insert into assetbatch.sync_state (symbol, served_at) select symbol, now() from trading.symbols;
        insert into assetbatch.bar_state (symbol, wanted_since) select symbol, now() from trading.symbols;
        insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at)
          select symbol, 'nothing', '2026-11-01', '{}', now() from trading.symbols;
        insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume, is_final, fetched_at)
          select id, '2026-11-16'::timestamptz + number * interval '5 minutes', 1, 1, 1, 1, 1, true, now()
          from trading.symbols, generate_series(1, 5) number;
        """
    )
    return world


def bars_of(world: World) -> dict[str, int]:
    statement = (
        "select s.symbol, count(b.ts) from trading.symbols s left join market_data.ohlcv_5m b on b.symbol_id = s.id"
        " group by s.symbol"
    )
    return dict(world.rows(statement))


@pytest.mark.parametrize("with_bars", [False, True])
def test_what_is_removed_takes_all_that_is_known_of_it_along(
    lived: World, monkeypatch: pytest.MonkeyPatch, with_bars: bool
) -> None:
    monkeypatch.setattr(symbols, "BARS_AT_ONCE", 2)

    done = symbols.remove(lived.connection, ["GONE", "GBPUSD", "NOSUCH", "GONE"], with_bars=with_bars)

    assert done == symbols.Removed(["GONE"], ["NOSUCH"], ["GBPUSD"], 5 if with_bars else 0)
    for table in TABLES:
        assert lived.rows(f"select symbol from assetbatch.{table}") == [("KEPT",)], table
    assert {row[0] for row in lived.rows(ROWS)} == {"BTCUSD", "GBPUSD", "KEPT"}
    statuses = """
        select s.symbol, p.code from data_sources.data_sync_status d
        join trading.symbols s on s.id = d.ticker_id join data_sources.api_providers p on p.id = d.provider_id
        order by 1, 2
    """
    assert lived.rows(statuses) == [("GONE", "another"), ("KEPT", "another"), ("KEPT", "polygon")]
    prices = "select symbol from trading.symbols where metadata ? 'last_update' order by symbol"
    assert lived.rows(prices) == [("GONE",), ("KEPT",)]
    assert bars_of(lived) == {"GONE": 0 if with_bars else 5, "KEPT": 5}
    assert symbols.add(lived.connection, [asset("GONE")]).added == ["GONE"]


def test_what_has_left_config_yaml_is_missing_and_not_to_be_taken_out_there(world: World) -> None:
    catalogue.sync_with_config(world.connection, [asset("GONE")])
    catalogue.sync_with_config(world.connection, world.config().assets)

    done = symbols.remove(world.connection, ["GONE", "GBPUSD"], with_bars=False)

    assert done == symbols.Removed([], ["GONE"], ["GBPUSD"], 0)


def test_a_removal_waits_for_a_run_that_stores_and_then_takes_what_it_stored(lived: World) -> None:
    began = threading.Event()

    def remove() -> symbols.Removed:
        with open_database(lived.database) as connection:
            began.set()
            return symbols.remove(connection, ["GONE"])

    def waits() -> Iterator[tuple[Any, ...]] | list[tuple[Any, ...]]:
        with open_database(lived.database) as connection:
            return [tuple(row.values()) for row in connection.execute("select 1 from pg_locks where not granted")]

    with ThreadPoolExecutor(1) as pool:
        with lived.connection.transaction():
            lived.connection.execute("select from trading.symbols where symbol = 'GONE' for no key update")
            removal = pool.submit(remove)
            began.wait(5)
            wait_until(waits)
            # As all who store a price go on: status, state, queue.
            lived.connection.execute("update data_sources.data_sync_status set sync_status = 'failed'")
            lived.connection.execute("update assetbatch.sync_state set error = 'x'")
            lived.connection.execute("update assetbatch.queue set attempts = 9 where symbol = 'GONE'")
        assert removal.result(timeout=10).removed == ["GONE"]

    assert lived.rows("select symbol from assetbatch.sync_state") == [("KEPT",)]
