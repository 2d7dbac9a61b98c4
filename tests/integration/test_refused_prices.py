"""What triggers, constraints and types of the platform do to prices: each row answers for itself, in its own words."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from assetbatch.database import prices
from assetbatch.database.prices import Brought
from assetbatch.database.savepoints import carefully
from assetbatch.failures import FailureKind
from assetbatch.model import Quote
from tests.conftest import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
ASSETS = ("BTCUSD", "EURUSD", "XAUUSD")
KEPT_OUT = "a trigger or a rule of trading.symbols drops or changes the price"

EVENTS = "select symbol from assetbatch.outbox order by symbol"
STATUSES = """
select s.symbol, d.sync_status from data_sources.data_sync_status d join trading.symbols s on s.id = d.ticker_id
order by s.symbol
"""


def quote(price: str = "1.10", *, at: datetime = NOON) -> Quote:
    return Quote(Decimal(price), at, bid=Decimal(price))


def store(connection: Connection, *symbols: str, price: str = "1.10", at: datetime = NOON) -> prices.Stored:
    """Store prices as the jobs do: carefully only where something is refused."""

    def write(*, carefully: bool) -> prices.Stored:
        brought = [Brought(symbol, quote(price, at=at)) for symbol in symbols or ASSETS]
        connection.execute("set local lock_timeout = '1s'")
        return prices.write(connection, brought, prices.Times(NOON, NOON), carefully=carefully)

    return carefully(connection, write)


def failures(stored: prices.Stored) -> dict[str, str]:
    assert {one.kind for one in stored.failed} <= {FailureKind.REFUSED_BY_DATABASE}
    return {one.symbol: one.error for one in stored.failed}


def rows(connection: Connection, statement: str) -> list[Any]:
    return [tuple(row.values()) for row in connection.execute(statement)]


def trigger(connection: Connection, body: str, *, table: str = "trading.symbols", when: str = "before") -> None:
    """Have a trigger of the platform run on each row of a table; `body` may go by `is_bitcoin`."""
    mine = (
        "new.symbol = 'BTCUSD'"
        if table == "trading.symbols"
        else ("exists (select from trading.symbols s where s.id = new.ticker_id and s.symbol = 'BTCUSD')")
    )
    kind = "constraint trigger" if when == "deferred" else "trigger"
    timing = {"deferred": "after"}.get(when, when)
    how = "deferrable initially deferred" if when == "deferred" else ""
    connection.execute(
        f"""
        create function trading.guard() returns trigger language plpgsql as $$
        declare
          is_bitcoin boolean := {mine};
        begin
          {body}
          return new;
        end $$;
        create {kind} guard {timing} insert or update on {table} {how} for each row execute function trading.guard();
        """
    )


RAISED = {
    "raise exception 'no bitcoin here'": "no bitcoin here",
    "raise exception 'no bitcoin here' using errcode = '45000'": "no bitcoin here",
    "raise exception 'in use' using errcode = '55006'": "in use",
    "raise exception 'no bitcoin here' using errcode = 'AB123'": "no bitcoin here",
    "raise no_data_found": "no_data_found",
    "raise exception 'no bitcoin here' using errcode = 'insufficient_privilege'": "no bitcoin here",
    "assert false, 'no bitcoin here'": "no bitcoin here",
    "perform new.sector": 'record "new" has no field "sector"',
    "perform sector from trading.symbols": 'column "sector" does not exist',
    "perform trading.audit(new.id)": "function trading.audit(bigint) does not exist",
    "perform from trading.audit": 'relation "trading.audit" does not exist',
    "perform from audit.log": 'relation "audit.log" does not exist',
    "perform 1 / 0": "division by zero",
    "perform set_config('no.such', null, true); execute 'set role none_such'": 'role "none_such" does not exist',
}


@pytest.mark.parametrize("when", ["before", "after", "deferred"])
@pytest.mark.parametrize("statement", RAISED)
def test_whatever_a_trigger_raises_for_a_row_costs_that_row_alone(
    connection: Connection, statement: str, when: str
) -> None:
    trigger(connection, f"if is_bitcoin then {statement}; end if;", when=when)

    stored = store(connection)

    assert sorted(stored.updated) == ["EURUSD", "XAUUSD"]
    assert failures(stored) == {"BTCUSD": RAISED[statement]}
    assert rows(connection, EVENTS) == [("EURUSD",), ("XAUUSD",)]


@pytest.mark.parametrize("when", ["before", "after", "deferred"])
def test_what_a_trigger_raises_for_a_status_costs_that_row_alone(connection: Connection, when: str) -> None:
    trigger(
        connection,
        "if is_bitcoin then raise exception 'no bitcoin here' using errcode = '45000'; end if;",
        table="data_sources.data_sync_status",
        when=when,
    )

    stored = store(connection)

    assert failures(stored) == {"BTCUSD": "no bitcoin here"}
    assert rows(connection, STATUSES) == [("EURUSD", "success"), ("XAUUSD", "success")]


def test_a_privilege_that_a_trigger_lacks_costs_its_row_alone(connection: Connection, role: str) -> None:
    connection.execute("create table trading.audit (symbol text)")
    trigger(connection, "if is_bitcoin then insert into trading.audit values (new.symbol); end if;")

    with open_database(psycopg.conninfo.make_conninfo(connection.info.dsn, user=role)) as own:
        stored = store(own)

    assert failures(stored) == {"BTCUSD": "permission denied for table audit"}
    assert sorted(stored.updated) == ["EURUSD", "XAUUSD"]


@pytest.fixture
def role(connection: Connection) -> Iterator[str]:
    """An ordinary role with the rights of the jobs."""
    connection.execute("create role of_jobs login")
    for schema in ("trading", "data_sources", "market_data", "assetbatch"):
        connection.execute(f"grant usage on schema {schema} to of_jobs")
        connection.execute(f"grant select, insert, update on all tables in schema {schema} to of_jobs")
    yield "of_jobs"
    connection.execute("drop owned by of_jobs")
    connection.execute("drop role of_jobs")


def test_a_deferred_foreign_key_costs_the_row_that_breaks_it_alone(connection: Connection) -> None:
    connection.execute(
        """
        create table trading.listed (symbol text primary key);
        insert into trading.listed values ('EURUSD'), ('XAUUSD');
        alter table trading.symbols add foreign key (symbol) references trading.listed
          deferrable initially deferred;
        """
    )

    stored = store(connection)

    assert sorted(stored.updated) == ["EURUSD", "XAUUSD"]
    assert list(failures(stored)) == ["BTCUSD"]
    assert "violates foreign key constraint" in failures(stored)["BTCUSD"]


def test_a_constraint_that_waits_for_the_status_is_asked_when_that_is_there(connection: Connection) -> None:
    trigger(
        connection,
        """
        if is_bitcoin then raise exception 'no bitcoin here'; end if;
        if not exists (select from data_sources.data_sync_status where ticker_id = new.id) then
          raise exception 'no status';
        end if;
        """,
        when="deferred",
    )

    assert failures(store(connection)) == {"BTCUSD": "no bitcoin here"}


def test_what_is_refused_of_all_fails_each_in_the_platforms_words(connection: Connection) -> None:
    trigger(connection, "raise exception 'closed for today' using errcode = '45000';")

    stored = store(connection)

    assert failures(stored) == dict.fromkeys(ASSETS, "closed for today")


def test_a_missing_privilege_of_ours_is_no_assets_fault(connection: Connection, role: str) -> None:
    connection.execute(f"revoke update on trading.symbols from {role}")

    with (
        open_database(psycopg.conninfo.make_conninfo(connection.info.dsn, user=role)) as own,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        store(own)


def test_a_missing_schema_of_ours_is_no_assets_fault(connection: Connection) -> None:
    connection.execute("drop table assetbatch.sync_state cascade")

    with pytest.raises(psycopg.errors.UndefinedTable):
        store(connection)


@pytest.mark.parametrize(
    ("body", "when"),
    [
        ("if is_bitcoin then return null; end if;", "before"),
        ("if is_bitcoin then new.metadata := new.metadata - 'last_update'; end if;", "before"),
        ("if is_bitcoin and tg_op = 'UPDATE' then new.metadata := old.metadata; end if;", "before"),
        ("if is_bitcoin and tg_op = 'UPDATE' then new.metadata := null; end if;", "before"),
        ("if is_bitcoin then new.metadata := jsonb_set(new.metadata, '{last_update,bid}', 'null', false); end if;",
         "before"),
        ("if is_bitcoin and new.metadata ? 'last_update' then update trading.symbols set metadata = '{}'; end if;",
         "after"),
    ],
)  # fmt: skip
def test_what_a_trigger_keeps_from_being_written_is_failed_and_makes_no_event(
    connection: Connection, body: str, when: str
) -> None:
    connection.execute(
        "alter table trading.symbols alter metadata drop not null;"
        "insert into trading.symbols (symbol) values ('BTCUSD')"
    )
    trigger(connection, body, when=when)

    stored = store(connection)

    assert sorted(stored.updated) == ["EURUSD", "XAUUSD"]
    assert failures(stored) == {"BTCUSD": KEPT_OUT}
    assert rows(connection, EVENTS) == [("EURUSD",), ("XAUUSD",)]
    assert rows(connection, STATUSES) == [("BTCUSD", "failed"), ("EURUSD", "success"), ("XAUUSD", "success")]


def test_what_a_trigger_adds_to_a_price_is_its_own_affair(connection: Connection) -> None:
    trigger(
        connection,
        "if new.metadata ? 'last_update' then"
        " new.metadata := jsonb_strip_nulls(jsonb_set(new.metadata, '{last_update,spread}', '1')); end if;",
    )

    assert sorted(store(connection).updated) == list(ASSETS)
    assert store(connection).updated == []


def test_a_symbol_that_a_trigger_spells_otherwise_is_told_as_that(connection: Connection) -> None:
    trigger(connection, "if is_bitcoin then new.symbol := lower(new.symbol); end if;", when="before")

    first, again = store(connection), store(connection)

    for stored in (first, again):
        assert "trading.symbols has it as btcusd" in failures(stored)["BTCUSD"]


# --- metadata that is no object

NULLS = ["null", "'null'"]


@pytest.mark.parametrize("value", NULLS)
def test_metadata_that_is_null_becomes_an_object(connection: Connection, value: str) -> None:
    connection.execute(
        "alter table trading.symbols alter metadata drop not null;"
        f"insert into trading.symbols (symbol, metadata) values ('BTCUSD', {value})".encode()
    )

    assert sorted(store(connection).updated) == list(ASSETS)
    kept = "select metadata -> 'last_update' ->> 'last_price' from trading.symbols where symbol = 'BTCUSD'"
    assert rows(connection, kept) == [("1.10",)]
    assert store(connection).updated == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [("[]", "array"), ('["fx"]', "array"), ('"fx"', "string"), ("7", "number"), ("true", "boolean")],
)
def test_metadata_that_is_no_object_fails_its_asset_alone_and_stays(
    connection: Connection, value: str, kind: str
) -> None:
    connection.execute("insert into trading.symbols (symbol, metadata) values ('BTCUSD', %s)", [value])

    for _ in range(2):
        stored = store(connection)
        words = f"trading.symbols.metadata of its row is of JSON type {kind}, and a price needs an object"
        assert failures(stored) == {"BTCUSD": words}

    kept = f"select metadata = '{value}' from trading.symbols where symbol = 'BTCUSD'"
    assert rows(connection, kept) == [(True,)]
    assert rows(connection, EVENTS) == [("EURUSD",), ("XAUUSD",)]
    assert rows(connection, STATUSES)[0] == ("BTCUSD", "failed")


def test_metadata_that_an_older_version_damaged_is_told_as_that(connection: Connection) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata)"
        " values ('BTCUSD', 'null'::jsonb || '{\"last_update\": {\"bid\": 1}}' || '{\"last_update\": {\"bid\": 2}}')"
    )

    assert "an older version of assetbatch appended prices" in failures(store(connection))["BTCUSD"]


# --- a time in the future


@pytest.mark.parametrize("future", ["2099-01-01T00:00:00Z", "2026-11-17T12:06:00+00:00", "9999-12-31T23:59:59Z"])
def test_a_price_of_the_future_gives_way_and_is_named_once(connection: Connection, future: str) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata) values"
        " ('BTCUSD', jsonb_build_object('last_update', jsonb_build_object('last_price', 9, 'timestamp', %s::text)))",
        [future],
    )

    first, again = store(connection), store(connection)

    assert (first.from_future, sorted(first.updated)) == (["BTCUSD"], list(ASSETS))
    assert (again.from_future, again.updated) == ([], [])


def test_a_price_whose_clock_was_a_little_ahead_stays(connection: Connection) -> None:
    store(connection, at=NOON + timedelta(minutes=4))

    assert store(connection).updated == []


# --- rows that somebody else keeps locked


def test_some_rows_that_are_locked_in_another_table_are_found(database: str, connection: Connection) -> None:
    symbols = [f"S{number:03}" for number in range(200)]
    store(connection, *symbols)
    with open_database(database) as platform, platform.transaction():
        platform.execute(
            "select from data_sources.data_sync_status d join trading.symbols s on s.id = d.ticker_id"
            " where s.symbol in ('S017', 'S099', 'S143') for update of d"
        )

        stored = store(connection, *symbols, price="1.20", at=NOON + timedelta(seconds=1))

    assert (len(stored.updated), sorted(stored.locked)) == (197, ["S017", "S099", "S143"])


LOCKS = {
    "the row": "select from trading.symbols where symbol = 'BTCUSD' for update",
    "its status": "update data_sources.data_sync_status d set note = 'x' from trading.symbols s"
    " where s.id = d.ticker_id and s.symbol = 'BTCUSD'",
}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_row_that_another_transaction_keeps_is_left_to_the_next_run(
    database: str, connection: Connection, lock: str
) -> None:
    connection.execute("alter table data_sources.data_sync_status add column note text")
    store(connection)
    with open_database(database) as platform, platform.transaction():
        platform.execute(LOCKS[lock].encode())

        stored = store(connection, price="1.20", at=NOON + timedelta(seconds=1))

        assert (sorted(stored.updated), stored.locked, stored.failed) == (["EURUSD", "XAUUSD"], ["BTCUSD"], [])
    state = "select error_kind from assetbatch.sync_state where symbol = 'BTCUSD'"
    assert rows(connection, state) == [(None,)]
    assert rows(connection, "show lock_timeout") == [("0",)]
    assert store(connection, price="1.20", at=NOON + timedelta(seconds=1)).updated == ["BTCUSD"]


def test_a_row_that_is_being_added_elsewhere_is_left_to_the_next_run(database: str, connection: Connection) -> None:
    with open_database(database) as platform, platform.transaction():
        platform.execute("insert into trading.symbols (symbol) values ('BTCUSD')")

        stored = store(connection)

        assert (sorted(stored.updated), stored.locked, stored.failed) == (["EURUSD", "XAUUSD"], ["BTCUSD"], [])


def test_many_locked_rows_cost_no_more_time_than_one(database: str, connection: Connection) -> None:
    symbols = [f"S{number:03}" for number in range(200)]
    store(connection, *symbols)
    with open_database(database) as platform, platform.transaction():
        platform.execute("select from trading.symbols where right(symbol, 1) <> '7' for update")

        stored = store(connection, *symbols, price="1.20", at=NOON + timedelta(seconds=1))

    assert (len(stored.updated), len(stored.locked)) == (20, 180)


def test_a_table_that_is_locked_is_not_waited_for_row_by_row(database: str, connection: Connection) -> None:
    with open_database(database) as platform, platform.transaction():
        platform.execute("lock table data_sources.data_sync_status")

        began = time.monotonic()
        stored = store(connection, *(f"S{number:03}" for number in range(200)))

        assert (len(stored.locked), stored.updated, stored.failed) == (200, [], [])
        assert time.monotonic() - began < 15


# --- what the careful path costs where nothing is refused


def test_a_call_that_goes_well_takes_five_statements(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    store(connection)
    texts: list[str] = []

    class Counted(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            texts.append(query)
            return super().execute(query, *arguments, **options)

    monkeypatch.setattr(connection.plain, "cursor_factory", Counted)
    with connection.transaction():
        later = quote("1.20", at=NOON + timedelta(seconds=1))
        brought = [Brought(symbol, later, known=True) for symbol in ASSETS]
        stored = prices.write(connection, brought, prices.Times(NOON, NOON), carefully=False)

    assert len(stored.updated) == 3
    assert texts == [
        prices.LOCK_SYMBOLS,
        prices.READ_DAILY_AT,
        prices.WRITE_PRICES,
        prices.WRITE_SYNC_STATUS,
        prices.WRITE_SYNC_STATE_AND_EVENTS,
    ]
