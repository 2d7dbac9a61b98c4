from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assetbatch.database import prices
from assetbatch.database.last_update import news_of, rfc3339
from assetbatch.database.prices import Brought
from assetbatch.failures import FailureKind
from assetbatch.model import Failure, Quote
from tests.conftest import open_database, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.connection import Connection

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
WAITS_FOR_A_LOCK = "select from pg_locks where not granted"


def quote(price: str = "1.10", *, at: datetime = NOON, **more: Any) -> Quote:
    return Quote(Decimal(price), at, bid=Decimal(price), **more)


def store(connection: Connection, *brought: Brought) -> prices.Stored:
    with connection.transaction():
        return prices.write(connection, brought, prices.Times(NOON, NOON), carefully=True)


def last_update(connection: Connection, symbol: str = "EURUSD") -> dict[str, Any]:
    row = connection.execute("select metadata from trading.symbols where symbol = %s", [symbol]).fetchone()
    assert row is not None
    found: dict[str, Any] = row["metadata"]["last_update"]
    return found


def seqs(connection: Connection) -> list[int]:
    return [row["seq"] for row in connection.execute("select seq from assetbatch.outbox order by id")]


def test_numbers_keep_the_vendors_digits(connection: Connection) -> None:
    stored = store(connection, Brought("EURUSD", quote("1.10", ask=Decimal("8.14e-05"), daily_open=Decimal(97000))))

    assert stored.updated == ["EURUSD"]
    text = connection.execute("select metadata::text as text from trading.symbols").fetchone()
    assert text is not None
    assert '"last_price": 1.10,' in text["text"]
    assert '"ask": 0.0000814' in text["text"]
    assert '"daily_high": null' in text["text"]
    assert last_update(connection)["timestamp"] == "2026-11-17T12:00:00.000Z"


def test_of_an_index_there_is_neither_bid_nor_ask(connection: Connection) -> None:
    stored = store(connection, Brought("BROAD", Quote(Decimal("3822.390"), NOON, daily_open=Decimal("3827.38"))))

    assert stored.updated == ["BROAD"]
    found = last_update(connection, "BROAD")
    assert {name: found[name] for name in ("bid", "ask", "last_price", "daily_open", "daily_close")} == {
        "bid": None,
        "ask": None,
        "last_price": Decimal("3822.390"),
        "daily_open": Decimal("3827.38"),
        "daily_close": None,
    }


def test_other_metadata_of_the_platform_is_kept(connection: Connection) -> None:
    connection.execute("insert into trading.symbols (symbol, metadata) values ('EURUSD', '{\"sector\": \"fx\"}')")

    store(connection, Brought("EURUSD", quote()))

    row = connection.execute("select metadata ->> 'sector' as sector from trading.symbols").fetchone()
    assert row == {"sector": "fx"}


def test_an_older_quote_never_overwrites_a_newer_one(connection: Connection) -> None:
    store(connection, Brought("EURUSD", quote("1.20")))

    stored = store(connection, Brought("EURUSD", quote("1.10", at=NOON - timedelta(seconds=1))))

    assert (stored.updated, stored.unchanged) == ([], ["EURUSD"])
    assert last_update(connection)["last_price"] == Decimal("1.20")
    assert len(seqs(connection)) == 1


def test_the_same_quote_again_is_unchanged_and_makes_no_event(connection: Connection) -> None:
    store(connection, Brought("EURUSD", quote()))

    assert store(connection, Brought("EURUSD", quote())).unchanged == ["EURUSD"]
    assert store(connection, Brought("EURUSD", quote(daily_high=Decimal(2)))).updated == ["EURUSD"]
    assert len(seqs(connection)) == 2


@pytest.mark.parametrize("junk", ["7", '"text"', '{"timestamp": "yesterday"}', '{"timestamp": 5}', "{}", "[]", "null"])
def test_what_others_wrote_there_gives_way(connection: Connection, junk: str) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata)"
        " values ('EURUSD', jsonb_build_object('last_update', %s::jsonb))",
        [junk],
    )

    assert store(connection, Brought("EURUSD", quote())).updated == ["EURUSD"]


@given(st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.none() | st.text() | st.integers()))
def test_what_is_news_is_told_of_anything_stored(stored: object) -> None:
    news = news_of(quote(), stored, None, NOON)

    assert news is not None
    assert news.has_quote


# What comes in some order: who brings it, of which second, and which figure.
STREAM, CALL = "stream", "call"
arrivals = st.lists(
    st.tuples(st.sampled_from([STREAM, CALL]), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=6
)


def brought(who: str, second: int, figure: int) -> Brought:
    at, price = NOON - timedelta(minutes=1) + timedelta(seconds=second), Decimal(figure)
    daily = dict.fromkeys(("daily_open", "daily_high", "daily_low", "daily_close"), price) if who == CALL else {}
    return Brought("EURUSD", Quote(price, at, bid=price, has_daily=who == CALL, **daily))


def merged(came: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """What is to be stored, by a simple model: each part is the newest of its kind, of one time the last."""
    found: dict[str, Any] = {"last_price": None, "timestamp": None, "daily_close": None}
    quote_at = daily_at = 0
    for who, second, figure in came:
        if second >= quote_at:
            quote_at, found["last_price"] = second, Decimal(figure)
            found["timestamp"] = rfc3339(NOON - timedelta(minutes=1) + timedelta(seconds=second))
        if who == CALL and second >= daily_at:
            daily_at, found["daily_close"] = second, Decimal(figure)
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals)
def test_calls_and_stream_in_any_order_leave_the_newest_quote_and_the_newest_figures_of_a_day(
    connection: Connection, came: list[tuple[str, int, int]]
) -> None:
    connection.execute("truncate trading.symbols cascade; truncate assetbatch.sync_state, assetbatch.outbox")
    for one in came:
        store(connection, brought(*one))

    stored = last_update(connection)
    assert {key: stored[key] for key in ("last_price", "timestamp", "daily_close")} == merged(came)
    # Each change is an event, and no event is of an older quote than the one before.
    payloads = [row["payload"] for row in connection.execute("select payload from assetbatch.outbox order by seq")]
    times = [payload["timestamp"] for payload in payloads]
    assert times == sorted(times)
    assert payloads[-1]["last_price"] == stored["last_price"]
    known = connection.execute("select priced_at from assetbatch.sync_state").fetchone()
    assert known is not None
    assert rfc3339(known["priced_at"]) == stored["timestamp"]


def test_figures_of_a_day_that_have_waited_for_newer_ones_give_way(connection: Connection, database: str) -> None:
    def write(connection: Connection, second: int) -> None:
        at = NOON - timedelta(minutes=1) + timedelta(seconds=second)
        brought = [Brought("EURUSD", quote(f"1.{second}", at=at, daily_close=Decimal(second)))]
        prices.write(connection, brought, prices.Times(NOON, NOON), carefully=False)

    def wait_and_write() -> None:
        with connection.transaction():
            write(connection, 2)

    with open_database(database) as other, ThreadPoolExecutor(1) as writers:
        with other.transaction():
            write(other, 1)
        with other.transaction():
            write(other, 3)
            waiting = writers.submit(wait_and_write)
            wait_until(lambda: other.execute(WAITS_FOR_A_LOCK).fetchone() is not None)
        waiting.result()

    found = last_update(connection)
    assert (found["last_price"], found["daily_close"]) == (Decimal("1.3"), 3)


def test_a_quote_of_a_call_that_is_older_than_the_streams_is_fenced_and_its_daily_figures_are_taken(
    connection: Connection,
) -> None:
    store(connection, brought(STREAM, 5, 2))
    stored = store(connection, brought(CALL, 4, 3))

    assert stored.updated == ["EURUSD"]
    found = last_update(connection)
    assert (found["last_price"], found["daily_close"], found["timestamp"][-7:]) == (2, 3, "05.000Z")
    assert store(connection, brought(CALL, 3, 7)).updated == []
    assert last_update(connection)["daily_close"] == 3


def test_the_same_figures_of_a_later_time_fence_what_lies_between(connection: Connection) -> None:
    store(connection, brought(CALL, 2, 3))
    store(connection, brought(STREAM, 6, 3))
    store(connection, brought(CALL, 5, 3))

    store(connection, brought(CALL, 4, 7))
    assert last_update(connection)["daily_close"] == 3


OTHERS = [
    "null", "7", "[]", '"text"', "{}", '{"timestamp": 5}', '{"timestamp": "yesterday"}',
    '{"timestamp": "2026-11-17T11:00:00"}', '{"timestamp": "2099-01-01T00:00:00Z", "last_price": 9}',
    '{"last_price": "1.5", "timestamp": null, "daily_close": {"a": 1}}', '{"bid": [1], "daily_open": "x"}',
]  # fmt: skip


@pytest.mark.parametrize("junk", OTHERS)
@pytest.mark.parametrize("order", [(STREAM, CALL), (CALL, STREAM)])
def test_whatever_others_wrote_there_gives_way_to_both_parts(
    connection: Connection, junk: str, order: tuple[str, str]
) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata)"
        " values ('EURUSD', jsonb_build_object('last_update', %s::jsonb))",
        [junk],
    )
    for second, who in enumerate(order, start=1):
        store(connection, brought(who, second, second))

    found = last_update(connection)
    assert found["last_price"] == 2
    assert found["daily_close"] == order.index(CALL) + 1


def test_seq_grows_and_never_goes_back_after_an_old_backup(connection: Connection) -> None:
    store(connection, Brought("EURUSD", quote("1.1")))
    store(connection, Brought("EURUSD", quote("1.2", at=NOON + timedelta(seconds=1))))
    first = seqs(connection)
    connection.execute("update assetbatch.sync_state set event_seq = 5")
    store(connection, Brought("EURUSD", quote("1.3", at=NOON + timedelta(seconds=2))))

    assert seqs(connection) == sorted(set(seqs(connection)))
    assert len(first) == 2
    connection.execute("update assetbatch.sync_state set event_seq = event_seq + 10000000000")
    store(connection, Brought("EURUSD", quote("1.4", at=NOON + timedelta(seconds=3))))
    assert seqs(connection) == sorted(set(seqs(connection)))


def test_a_failure_keeps_price_and_time_of_the_last_sync(connection: Connection) -> None:
    store(connection, Brought("EURUSD", quote()))
    status = "select last_sync_timestamp, sync_status from data_sources.data_sync_status"
    before = connection.execute(status).fetchone()
    assert before is not None

    stored = store(connection, Brought("EURUSD", failure=Failure("EURUSD", FailureKind.MISSING, "gone")))

    after = connection.execute(status).fetchone()
    assert stored.failed[0].error == "gone"
    assert after == {"last_sync_timestamp": before["last_sync_timestamp"], "sync_status": "no_data"}
    assert last_update(connection)["last_price"] == Decimal("1.10")
    state = connection.execute("select served_at, error_kind, error from assetbatch.sync_state").fetchone()
    assert state == {"served_at": NOON, "error_kind": "missing", "error": "gone"}


def test_a_trigger_that_raises_fails_its_asset_alone(connection: Connection) -> None:
    connection.execute(
        """
        create function trading.guard() returns trigger language plpgsql as $$
        begin
          if new.symbol = 'GBPUSD' then raise exception 'pounds are not traded here'; end if;
          return new;
        end $$;
        create trigger guard before insert or update on trading.symbols for each row execute function trading.guard();
        """
    )

    stored = store(connection, Brought("GBPUSD", quote()), Brought("EURUSD", quote()))

    assert stored.updated == ["EURUSD"]
    assert [(one.symbol, one.kind, one.error) for one in stored.failed] == [
        ("GBPUSD", FailureKind.REFUSED_BY_DATABASE, "pounds are not traded here")
    ]
    assert len(seqs(connection)) == 1


def test_one_that_is_refused_among_many_is_found_by_halving(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("alter table trading.symbols add constraint sane check (symbol <> 'S77')")
    tries: list[int] = []
    write = prices._write_together

    def counted(connection: Connection, brought: Sequence[Brought], times: prices.Times) -> prices.Stored:
        tries.append(len(brought))
        return write(connection, brought, times)

    monkeypatch.setattr(prices, "_write_together", counted)

    stored = store(connection, *(Brought(f"S{number}", quote()) for number in range(128)))

    assert len(stored.updated) == 127
    assert [(one.symbol, one.kind) for one in stored.failed] == [("S77", FailureKind.REFUSED_BY_DATABASE)]
    assert len(tries) == 15


def test_an_asset_that_is_refused_later_is_failed_in_the_platforms_table_too(connection: Connection) -> None:
    store(connection, Brought("EURUSD", quote("1.10")))
    connection.execute(
        "alter table trading.symbols add check ((metadata -> 'last_update' ->> 'last_price')::numeric < 2) not valid"
    )

    stored = store(connection, Brought("EURUSD", quote("3.10", at=NOON + timedelta(seconds=1))))

    assert [one.kind for one in stored.failed] == [FailureKind.REFUSED_BY_DATABASE]
    row = connection.execute("select sync_status from data_sources.data_sync_status").fetchone()
    assert row == {"sync_status": "failed"}


def test_a_trigger_that_swallows_a_row_fails_its_asset_alone(connection: Connection) -> None:
    connection.execute(
        """
        create function trading.swallow() returns trigger language plpgsql as $$
        begin return case when new.symbol = 'GBPUSD' then null else new end; end $$;
        create trigger swallow before insert on trading.symbols for each row execute function trading.swallow();
        """
    )

    stored = store(connection, Brought("GBPUSD", quote()), Brought("EURUSD", quote()))

    assert stored.updated == ["EURUSD"]
    assert [one.symbol for one in stored.failed] == ["GBPUSD"]


def test_writers_in_opposite_order_do_not_deadlock_and_lose_nothing(database: str) -> None:
    symbols = [f"S{number}" for number in range(20)]

    def write(turn: int) -> int:
        order, failed = symbols if turn % 2 else symbols[::-1], 0
        with open_database(database) as own:
            while order:  # what others keep locked for too long comes once more
                stored = store(own, *(Brought(s, quote(at=NOON + timedelta(seconds=turn))) for s in order))
                failed += len(stored.failed)
                order = [symbol for symbol in order if symbol in stored.locked]
        return failed

    with ThreadPoolExecutor(8) as writers:
        assert list(writers.map(write, range(24))) == [0] * 24

    with open_database(database) as connection:
        assert {last_update(connection, symbol)["timestamp"] for symbol in symbols} == {"2026-11-17T12:00:23.000Z"}
        for row in connection.execute(
            "select array_agg(seq order by id) as seqs from assetbatch.outbox group by symbol"
        ):
            assert row["seqs"] == sorted(set(row["seqs"]))
