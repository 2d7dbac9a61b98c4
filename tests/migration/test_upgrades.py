"""From every version of the schema to the newest, with rows in all tables."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from assetbatch.database.setup import schema
from tests.conftest import open_database

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection, Row

ALL = schema.migrations()
VERSIONS = [migration.version for migration in ALL]
OWN_SCHEMAS = ("assetbatch", "trading", "market_data", "data_sources")

# What a program of that version may have left in the tables that its migration made.
ROWS = {
    1: """
        insert into trading.symbols (symbol, metadata)
        values ('EURUSD', '{"last_update": {"last_price": 1.10, "timestamp": "2026-11-20T22:00:00.000Z"}, "own": 1}'),
               ('BTCUSD', '{}');
        insert into data_sources.data_sync_status (ticker_id, provider_id, last_sync_timestamp, sync_status)
        select s.id, p.id, '2026-11-20', 'success' from trading.symbols s, data_sources.api_providers p;
        insert into assetbatch.meta (key, value) values ('source', 'api.massive.com');
    """,
    2: """
        insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
        values ('EURUSD', 'C:EURUSD', 'forex', 'priority', 1, 300, 'config'),
               ('XAGUSD', 'C:XAGUSD', 'forex', 'secondary', 3, 1800, 'symbols');
        insert into assetbatch.sync_state (symbol, served_at, succeeded_at, day, event_seq)
        values ('EURUSD', '2026-11-20 22:00', '2026-11-20 22:00', '2026-11-20', 1795212000000000);
        insert into assetbatch.runs (job, host, version, plan, calls_per_window, status, exit_code)
        values ('run-priority', 'a', '0.1.0', 'free', 5, 'ok', 0),
               ('drain-queue', 'b', '0.1.0', 'free', 5, 'running', null);
        insert into assetbatch.api_calls (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets)
        select id, 'quotes', 'ok', 200, true, 80, 0, 3 from assetbatch.runs;
        insert into assetbatch.outbox (symbol, seq, payload, published_at)
        values ('EURUSD', 1, '{"symbol": "EURUSD", "seq": 1}', now()),
               ('EURUSD', 2, '{"symbol": "EURUSD", "seq": 2}', null);
        insert into assetbatch.leases values ('publisher', gen_random_uuid(), now());
    """,
    3: """
        insert into assetbatch.rate_limits (key_fingerprint, max_calls, window_length, margin, min_spacing)
        values ('old', 5, '60 s', '1 s', '0');
        insert into assetbatch.rate_limit_slots (key_fingerprint, slot, counted_by, hold, granted_at, token)
        values ('old', 1, now() + interval '35 s', '35 s', now(), gen_random_uuid()),
               ('old', 2, default, default, default, null);
        insert into assetbatch.rate_limit_hosts values ('old', 'a', 5, '60 s', '1 s', '0', now());
        insert into assetbatch.rate_limit_waiters values ('old', 7, 'queue', now());
    """,
    4: """
        insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at)
        values ('XAGUSD', 3, now(), now(), now(), now());
        insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at, state, died_at)
        values ('NOPE', 4, now(), now(), now(), now(), 'dead', now());
    """,
    5: """
        insert into market_data.ohlcv_5m
        select id, timestamptz '2026-11-20' + n * interval '5 min', 1.10, 1.2, 1.0, 1.15, 10, 1.12, 3, true, now()
        from trading.symbols, generate_series(0, 99) n;
        insert into assetbatch.bar_state (symbol, wanted_since) values ('EURUSD', '2026-11-01');
        insert into assetbatch.bar_absences
        values ('EURUSD', 'nothing', '2026-11-01', '{[2026-11-03 10:00+00, 2026-11-03 10:05+00)}', now());
        insert into assetbatch.daily_figures values ('forex', '2026-11-20', 'stored', 1, now());
        insert into assetbatch.entitlements values ('old', 'free', 'snapshots', false, now(), 'not entitled');
        insert into assetbatch.market_status values ('forex', false, now());
    """,
    6: """
        insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at, told)
        values ('EURUSD', 'refused', '2026-11-01', '{[2026-11-20 10:00Z,2026-11-20 11:00Z)}', now(), 'full');
        update assetbatch.sync_state set missing_since = '2026-11-20', priced_at = '2026-11-19';
        update assetbatch.rate_limits set history = '7713056685277385028/00000001';
        insert into assetbatch.runs (job, host, version, plan, place, pid, pid_started, gone_at)
        values ('backfill', 'a', '0.1.0', 'free', 'a boot pid:[1]', 4711, 53363, now());
        insert into assetbatch.bar_silences (symbol, told_at, ask_at, ranges)
        values ('EURUSD', '2026-11-20 12:00Z', '2026-11-20 13:00Z', '{[2026-11-19 10:00Z,2026-11-19 11:00Z)}');
    """,
    # It makes no table.
    7: "select",
    8: """
        insert into assetbatch.pairs (polygon_ticker, base, quote) values ('C:EURUSD', 'EUR', 'USD');
        insert into assetbatch.streams (cluster, run_id, state, told_at, unconfirmed)
        values ('forex', 7, 'live', now(), '{C.XAG/USD}');
        insert into assetbatch.streamed_assets values ('EURUSD', 'forex');
        update assetbatch.sync_state set daily_at = '2026-11-20 22:00Z';
    """,
    9: """
        insert into assetbatch.assets
          (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
        values ('BRK.B', 'BRK.B', 'stocks', 'secondary', 3, 1800, 'symbols'),
               ('DJI', 'I:DJI', 'indices', 'secondary', 3, 1800, 'symbols');
        insert into assetbatch.daily_figures values ('stocks', '2026-11-20', 'stored', 1, now());
        insert into assetbatch.market_status values ('stocks', false, now());
        insert into assetbatch.entitlements (key_fingerprint, plan, product, access, ticker, allowed, asked_at)
        values ('old', 'free', 'indices', 'bars', 'I:SPX', false, now());
        update assetbatch.rate_limits set exempt_by = now(), exempts = '{currencies}';
    """,
    10: """
        insert into assetbatch.market_holidays values ('2026-11-26', null, now()), ('2026-11-27', '13:00', now());
        update assetbatch.market_holiday_lists set asked_at = now(), listed_at = now();
    """,
    11: """
        insert into assetbatch.splits (ticker, execution_date, split_from, split_to, noted_at, adjusted_from)
        values ('AAPL', '2026-11-24', 1, 4, now(), '2026-11-24 09:00Z');
        insert into assetbatch.split_list (market, listed_at, ask_at) values ('stocks', now(), now());
        insert into assetbatch.unadjusted_bars (symbol, ranges, adjusted_from, doubted_until, ask_at)
        values ('AAPL', '{["2026-09-01Z","2026-11-24Z")}', now(), now(), now());
    """,
    12: """
        insert into assetbatch.ticker_lives (symbol, state, delisted_on, asked_at, ask_at)
        values ('EURUSD', 'delisted', '2026-11-20', now(), now());
    """,
    13: """
        insert into assetbatch.bar_changes (symbol, ranges, bars)
        values ('EURUSD', '{[2026-11-20 10:00Z,2026-11-20 10:05Z)}', 1);
        update assetbatch.bar_cursors
        set forgotten_through = '700', forgotten_in = 'assetbatch.bar_changes'::regclass;
    """,
    # It makes a view.
    14: "select",
}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[schema.Migration]:
    """The migrations that the program knows: none yet; a test adds them. Functions are those of the newest schema."""
    known: list[schema.Migration] = []
    functions = schema.functions()
    monkeypatch.setattr(schema, "migrations", lambda: list(known))
    monkeypatch.setattr(schema, "functions", lambda: functions if len(known) == len(ALL) else [])
    return known


def tables(connection: Connection) -> list[str]:
    rows = connection.execute(
        """
        select format('%%I.%%I', schemaname, tablename) as name from pg_tables
        where schemaname = any(%s) order by 1
        """,
        [list(OWN_SCHEMAS)],
    )
    return [row["name"] for row in rows]


def content(connection: Connection, table: str) -> list[Row]:
    rows = connection.execute(f"select to_jsonb(t) as row from {table} t")
    return sorted((row["row"] for row in rows), key=lambda row: json.dumps(row, default=str, sort_keys=True))


def everything(connection: Connection) -> dict[str, list[Row]]:
    return {table: content(connection, table) for table in tables(connection)}


def lost(before: dict[str, list[Row]], after: dict[str, list[Row]]) -> list[tuple[str, Row]]:
    """Rows that are no longer there as they were; columns may have been added to them."""
    return [
        (table, row)
        for table, rows in before.items()
        for row in rows
        if not any(row == {key: kept.get(key) for key in row} for kept in after[table])
    ]


def fill(connection: Connection, version: int) -> None:
    connection.execute(ROWS[version])


def upgrade_to(connection: Connection, known: list[schema.Migration], version: int) -> None:
    """Apply one migration after the other, as so many releases did, with rows of each."""
    for migration in ALL[len(known) :]:
        if migration.version > version:
            return
        known.append(migration)
        assert schema.migrate(connection) == [migration]
        fill(connection, migration.version)


def test_no_row_is_lost_on_the_way_from_the_first_version(empty_database: str, known: list[schema.Migration]) -> None:
    with open_database(empty_database) as connection:
        before: dict[str, list[Row]] = {}
        for migration in ALL:
            known.append(migration)
            assert schema.migrate(connection) == [migration]
            assert lost(before, everything(connection)) == []
            fill(connection, migration.version)
            before = everything(connection)
        assert [table for table, rows in before.items() if not rows] == [], "rows for these are missing in ROWS"
        meta = before["assetbatch.meta"]

        assert schema.migrate(connection) == []

        assert everything(connection) == before
        assert {"key": "source", "value": "api.massive.com"} in meta
        schema.check(connection)


def test_symbols_that_are_refused_by_now_stay_where_they_are(
    empty_database: str, known: list[schema.Migration]
) -> None:
    with open_database(empty_database) as connection:
        upgrade_to(connection, known, 5)
        connection.execute(
            "insert into assetbatch.assets"
            " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
            " values (repeat('S', 51), 'X:A', 'crypto', 'secondary', 3, 1800, 'config')"
        )
        known[:] = ALL
        schema.migrate(connection)

        # As when it has left config.yaml.
        gone = connection.execute(
            "update assetbatch.assets set enabled = false where length(symbol) > 50 returning polygon_ticker"
        ).fetchall()

        assert gone == [{"polygon_ticker": "X:A"}]
        with pytest.raises(psycopg.errors.CheckViolation, match="assets_symbol_check"):
            connection.execute("update assetbatch.assets set enabled = true where length(symbol) > 50")


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_two_hosts_may_upgrade_at_once_from_any_version(
    empty_database: str, known: list[schema.Migration], version: int
) -> None:
    with open_database(empty_database) as one, open_database(empty_database) as other, ThreadPoolExecutor(2) as hosts:
        upgrade_to(one, known, version)
        before = everything(one)
        known[:] = ALL

        applied = list(hosts.map(schema.migrate, (one, other)))

        assert sorted(map(len, applied)) == [0, len(ALL) - version]
        assert lost(before, everything(one)) == []
        schema.check(other)


# Functions with the heads that they had in version 5, when they were part of a migration.
OLD_FUNCTIONS = """
create function assetbatch.adopt_key(
  p_key text, p_max_calls int, p_window interval, p_margin interval, p_spacing interval
) returns void language plpgsql as $$begin raise 'old'; end$$;
create function assetbatch.apply_rules(
  r assetbatch.rate_limits, p_host text, p_max_calls int, p_window interval, p_margin interval, p_spacing interval,
  t timestamptz
) returns assetbatch.rate_limits language plpgsql as $$begin raise 'old'; end$$;
create function assetbatch.acquire_slot(
  p_key text, p_host text,
  p_max_calls int, p_window_seconds float8, p_margin_seconds float8, p_spacing_seconds float8,
  p_calls_per_second float8, p_hold_seconds float8, p_lane text, p_ticket bigint, p_max_wait_seconds float8,
  p_calls_after int, p_calls int,
  out verdict text, out token uuid, out ticket bigint, out wait_seconds float8, out calls_in_window int
) language plpgsql set lock_timeout = '5s' as $$begin raise 'old'; end$$;
create function assetbatch.release_slot(
  p_key text, p_token uuid, p_outcome text, p_retry_after_seconds float8,
  out known boolean, out foreseen boolean
) language plpgsql set lock_timeout = '5s' as $$begin raise 'old'; end$$;
"""

ALL_FUNCTIONS = """
select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as definition, proacl::text
from pg_proc p where pronamespace = 'assetbatch'::regnamespace order by 1
"""

ALL_COLUMNS = """
select c.oid::regclass::text as table_name, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid) as fallback, col_description(c.oid, a.attnum) as description
from pg_class c join pg_attribute a on a.attrelid = c.oid
left join pg_attrdef d on (d.adrelid, d.adnum) = (c.oid, a.attnum)
where c.relnamespace = 'assetbatch'::regnamespace and a.attnum > 0 order by 1, 2
"""


def test_an_upgrade_ends_where_a_fresh_installation_begins(
    empty_database: str, connection: Connection, known: list[schema.Migration]
) -> None:
    with open_database(empty_database) as upgraded:
        known[:] = ALL[:5]
        schema.migrate(upgraded)
        upgraded.execute(OLD_FUNCTIONS)
        known[:] = ALL
        assert schema.migrate(upgraded)

        for query in (ALL_FUNCTIONS, ALL_COLUMNS):
            assert upgraded.execute(query).fetchall() == connection.execute(query).fetchall()


def test_functions_that_change_come_with_a_migration() -> None:
    """A database whose schema has the newest version is left alone: its functions have to be those of that version."""
    digest = hashlib.sha256("".join(schema.functions()).encode()).hexdigest()[:12]
    assert (VERSIONS[-1], digest) == (14, "f55c9c4a3dd3"), "add a migration, if only an empty one, then change this"


PLATFORM = """
create schema trading; create schema data_sources; create schema market_data;
create table trading.symbols (
  id uuid primary key default gen_random_uuid(), symbol varchar(20) unique, metadata jsonb, updated_at timestamptz,
  sector text not null default 'none'
);
create table data_sources.api_providers (id serial primary key, code text unique, url text);
create table data_sources.data_sync_status (
  ticker_id uuid references trading.symbols on delete cascade, provider_id int references data_sources.api_providers,
  last_sync_timestamp timestamptz, sync_status text, updated_at timestamptz, note text,
  unique (provider_id, ticker_id)
);
create table market_data.ohlcv_5m (
  ts timestamptz not null, symbol_id uuid not null, open float8, high float8, low float8, close float8, volume float8,
  vwap float8, trades int
);
create unique index on market_data.ohlcv_5m (symbol_id, ts desc);
create index on market_data.ohlcv_5m (ts desc);
insert into trading.symbols (symbol, metadata) select 'T' || n, '{"kept": 1}' from generate_series(1, 20) n;
insert into data_sources.api_providers (code) values ('other'), ('polygon');
insert into data_sources.data_sync_status select s.id, 1, now(), 'success', now(), 'own' from trading.symbols s;
insert into market_data.ohlcv_5m
select timestamptz '2026-11-02' + n * interval '5 min', s.id, 1.1, 1.2, 1.0, 1.15, 10, null, 3
from trading.symbols s, generate_series(0, 49) n;
"""

DEFINITIONS = """
select c.oid::regclass::text as table_name, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid) as fallback, c.relowner, c.relacl::text
from pg_class c join pg_attribute a on a.attrelid = c.oid
left join pg_attrdef d on (d.adrelid, d.adnum) = (c.oid, a.attnum)
where c.relnamespace = any(array['trading', 'data_sources', 'market_data']::regnamespace[]) and a.attnum > 0
order by 1, 2
"""


@pytest.mark.parametrize("partition_bars", [False, True])
def test_the_platforms_own_tables_stay_as_they_are_with_their_rows(
    empty_database: str, known: list[schema.Migration], *, partition_bars: bool
) -> None:
    with open_database(empty_database) as connection:
        connection.execute(PLATFORM)
        before, definitions = everything(connection), connection.execute(DEFINITIONS).fetchall()
        for migration in ALL:
            known.append(migration)
            schema.migrate(connection, partition_bars=partition_bars)
            after = everything(connection)
            assert {table: after[table] for table in before} == before
        assert connection.execute(DEFINITIONS).fetchall() == definitions
        assert schema.migrate(connection, partition_bars=partition_bars) == []
