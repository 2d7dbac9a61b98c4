"""What `init --restored` does to each table, and what it leaves to a system that runs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from assetbatch.database.leases import Lease
from assetbatch.database.queue import items as queue
from assetbatch.database.rate_limit import Lane, Outcome, RateLimiter, Rules
from assetbatch.database.setup import restore
from assetbatch.failures import CallError
from tests.conftest import Commands, open_database, wait_until
from tests.world import RULES

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection, Row

UNLIMITED = replace(RULES, max_calls=None, max_calls_per_second=1000)


def limiter(connection: Connection, key: str = "key", rules: Rules = RULES) -> RateLimiter:
    return RateLimiter(connection, key=key, host="a", rules=rules, lane=Lane.PRIORITY, pause=lambda _seconds: None)


def mend(connection: Connection, *, key: str | None = "key", rules: Rules = RULES) -> restore.Restored:
    return restore.mend(connection, key=key, rules=rules, max_age_minutes=60)


def one(connection: Connection, statement: str) -> Row:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row


def seconds_refused(connection: Connection, key: str = "key", rules: Rules = RULES) -> float:
    with pytest.raises(CallError) as caught:
        limiter(connection, key, rules).acquire(max_wait_seconds=0)
    return float(str(caught.value).split()[-2])


@pytest.mark.parametrize("key", ["key", "one that the backup does not know"])
def test_no_call_goes_out_for_a_window(connection: Connection, key: str) -> None:
    before = limiter(connection)
    before.release(before.acquire(), Outcome.OK)

    done = mend(connection, key=key)

    assert 59 <= seconds_refused(connection, key) <= 61
    assert done.blocked_until is not None
    now = one(connection, "select clock_timestamp() as now")["now"]
    assert 59 <= (done.blocked_until - now).total_seconds() <= 61
    assert done.keys_blocked == (1 if key == "key" else 2)
    # Of slots that come free when the window is over, none was lost.
    assert one(connection, "select count(*) as n from assetbatch.rate_limit_slots where key_fingerprint = 'key'") == {
        "n": 5
    }


def test_a_key_is_blocked_that_was_made_known_by_nobody(connection: Connection) -> None:
    assert mend(connection).keys_blocked == 1
    assert 59 <= seconds_refused(connection) <= 61
    connection.execute("update assetbatch.rate_limits set full_by = full_by - interval '61 seconds'")
    assert [limiter(connection).acquire(max_wait_seconds=0).calls for _ in range(5)] == [1] * 5


def test_without_any_key_it_says_that_none_is_blocked(connection: Connection) -> None:
    done = mend(connection, key=None)

    assert (done.keys_blocked, done.blocked_until) == (0, None)


def test_a_dump_that_was_restored_elsewhere_blocks_the_key_by_itself_and_no_longer_once_it_is_mended(
    connection: Connection,
) -> None:
    before = limiter(connection)
    before.release(before.acquire(), Outcome.OK)
    other_history = "update assetbatch.rate_limits set history = '7713056685277385028/00000001'"
    connection.execute(other_history)
    assert 95 <= seconds_refused(connection) <= 97

    connection.execute("update assetbatch.rate_limits set full_by = 'epoch'")
    connection.execute(other_history)
    mend(connection)
    assert 59 <= seconds_refused(connection) <= 61


def test_where_the_server_does_not_tell_its_history_calls_go_out(connection: Connection) -> None:
    before = limiter(connection)
    before.release(before.acquire(), Outcome.OK)
    known = one(connection, "select history from assetbatch.rate_limits")
    with connection.transaction(force_rollback=True):
        connection.execute("revoke execute on function pg_control_system() from public")
        connection.execute("create role poor; grant usage on schema assetbatch to poor")
        connection.execute("grant all on all tables in schema assetbatch to poor; set local role poor")
        slot = limiter(connection).acquire(max_wait_seconds=0)
        assert limiter(connection).release(slot, Outcome.OK)
        assert one(connection, "select history from assetbatch.rate_limits") == known


def test_a_longer_window_of_the_configuration_counts(connection: Connection) -> None:
    before = limiter(connection)
    before.release(before.acquire(), Outcome.OK)
    longer = replace(RULES, window_seconds=300)

    done = mend(connection, rules=longer)

    now = one(connection, "select clock_timestamp() as now")["now"]
    assert done.blocked_until is not None
    assert 299 <= (done.blocked_until - now).total_seconds() <= 301
    assert seconds_refused(connection, rules=longer) > 295


def test_without_a_limit_no_call_has_to_wait_but_a_limit_that_comes_later_knows(connection: Connection) -> None:
    limiter(connection, rules=UNLIMITED).acquire()

    assert mend(connection, rules=UNLIMITED).blocked_until is None

    assert limiter(connection, rules=UNLIMITED).acquire(max_wait_seconds=0).calls == 1
    assert seconds_refused(connection) >= 59


def add_event(connection: Connection, symbol: str, timestamp: str, *, age_minutes: float = 0) -> None:
    connection.execute(
        """
        insert into assetbatch.outbox (symbol, seq, payload, created_at)
        values (%s, 1, %s, clock_timestamp() - make_interval(secs => 60 * %s))
        """,
        [symbol, json.dumps({"symbol": symbol, "timestamp": timestamp}), age_minutes],
    )


def test_events_that_are_no_news_any_more_are_dropped(connection: Connection) -> None:
    for symbol, last_update in (
        ("EURUSD", {"timestamp": "2026-11-20T10:00:05.123Z"}),
        ("BTCUSD", {"timestamp": "2026-11-20T10:00:05.123456Z"}),
        ("OWNUSD", {"timestamp": "yesterday"}),
        ("ODDUSD", ["no object"]),
    ):
        connection.execute(
            "insert into trading.symbols (symbol, metadata) values (%s, %s)",
            [symbol, json.dumps({"last_update": last_update})],
        )
    add_event(connection, "EURUSD", "2026-11-20T10:00:05.122Z")
    add_event(connection, "EURUSD", "2026-11-20T09:00:06.123456Z")
    add_event(connection, "BTCUSD", "2026-11-20T10:00:05.123Z")
    add_event(connection, "XAUUSD", "2026-11-20T10:00:05.123Z", age_minutes=61)
    kept = [
        ("EURUSD", "2026-11-20T10:00:05.123Z"),
        ("EURUSD", "2026-11-20T10:00:05.123456Z"),
        ("EURUSD", "2026-11-20T10:00:06.000Z"),
        ("BTCUSD", "2026-11-20T10:00:05.123456Z"),
        ("OWNUSD", "2026-11-20T10:00:05.123Z"),
        ("ODDUSD", "2026-11-20T10:00:05.123Z"),
        ("GONE", "2026-11-20T10:00:05.123Z"),
    ]
    for symbol, timestamp in kept:
        add_event(connection, symbol, timestamp, age_minutes=59)

    assert mend(connection).events_dropped == 4

    pending = connection.execute(
        "select symbol, payload ->> 'timestamp' as at from assetbatch.outbox where published_at is null order by id"
    )
    assert [(row["symbol"], row["at"]) for row in pending] == kept
    dropped = "select count(*) as n from assetbatch.outbox where dropped and published_at is not null"
    assert one(connection, dropped) == {"n": 4}
    assert mend(connection).events_dropped == 0


def put(connection: Connection, symbol: str, state: str, *, attempts: int = 0) -> None:
    connection.execute(
        """
        insert into assetbatch.queue (symbol, priority, waiting_since, rank, enqueued_at, available_at, attempts, state,
                                      token, claimed_at, leased_until, died_at)
        select %(symbol)s, 3, t, t, t, t, %(attempts)s, %(state)s, token,
               case when leased then t end, case when leased then t + interval '1 day' end,
               case when %(state)s = 'dead' then t end
        from (select clock_timestamp() as t, %(state)s = 'leased' as leased) now
        cross join lateral (select case when leased then gen_random_uuid() end as token) tokens
        """,
        {"symbol": symbol, "state": state, "attempts": attempts},
    )


def test_what_a_worker_held_goes_back_to_its_place_without_an_attempt_lost(connection: Connection) -> None:
    for symbol, state, attempts in (("A", "leased", 2), ("B", "queued", 1), ("C", "delayed", 1), ("D", "dead", 4)):
        put(connection, symbol, state, attempts=attempts)
    order = "select symbol, rank, id from assetbatch.queue order by symbol"
    before = connection.execute(order).fetchall()

    assert mend(connection).queue_items_released == 1

    assert connection.execute(order).fetchall() == before
    rows = connection.execute("select symbol, state, attempts from assetbatch.queue order by symbol").fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("A", "queued", 1),
        ("B", "queued", 1),
        ("C", "delayed", 1),
        ("D", "dead", 4),
    ]
    back = queue.bring_back(connection, retries=0)
    assert (back.expired, back.dead) == ([], [])


def test_bars_days_and_refusals_are_free_again(connection: Connection) -> None:
    connection.execute(
        """
        insert into assetbatch.bar_state (symbol, wanted_since, token, leased_until)
        values ('EURUSD', now(), gen_random_uuid(), now() + interval '1 day'), ('BTCUSD', now(), null, null);
        insert into assetbatch.daily_figures (market, day, token, asking_until)
        values ('forex', '2026-11-20', gen_random_uuid(), now() + interval '1 day');
        insert into assetbatch.daily_figures values ('crypto', '2026-11-20', 'stored', 1, now());
        insert into assetbatch.entitlements
        values ('key', 'starter', 'snapshots', false, now()), ('key', 'starter', 'bars', true, now());
        """
    )

    done = mend(connection)

    assert (done.bars_released, done.days_released, done.refusals_forgotten) == (1, 1, 1)
    held = """
        select (select count(*) from assetbatch.bar_state where leased_until is not null or token is not null) as bars,
               (select count(*) from assetbatch.daily_figures where asking_until is not null) as days,
               (select count(*) from assetbatch.daily_figures where outcome = 'stored') as stored,
               (select array_agg(access) from assetbatch.entitlements) as known
    """
    assert one(connection, held) == {"bars": 0, "days": 0, "stored": 1, "known": ["bars"]}
    again = mend(connection)
    assert (again.bars_released, again.days_released, again.refusals_forgotten) == (0, 0, 0)


def test_a_lease_is_released_that_no_run_can_hold_and_kept_that_one_does(connection: Connection) -> None:
    live = Lease(connection, "run-priority")
    assert live.take()
    connection.execute(
        """
        insert into assetbatch.leases
        values ('drain-queue', gen_random_uuid(), now() + interval '3 hours'),
               ('publisher', gen_random_uuid(), now() - interval '3 hours')
        """
    )

    assert mend(connection).leases_released == 2

    assert live.take()
    assert Lease(connection, "drain-queue").take()
    assert not Lease(connection, "run-priority").take()


def test_the_window_counts_from_after_the_call_that_was_just_being_allowed(
    database: str, connection: Connection
) -> None:
    limiter(connection).acquire()
    with open_database(database) as run, ThreadPoolExecutor(1) as operator:
        with run.transaction():
            limiter(run).acquire()
            mending = operator.submit(mend, connection)
            waiting = "select pid from pg_locks where not granted and pid = %s"
            wait_until(lambda: run.execute(waiting, [connection.info.backend_pid]).fetchone())
            granted = one(run, "select clock_timestamp() as at")["at"]
        mending.result(timeout=10)
        assert one(run, "select full_by from assetbatch.rate_limits")["full_by"] >= granted


RESTART = """
alter table assetbatch.runs alter id restart;
alter table assetbatch.api_calls alter id restart;
alter table assetbatch.outbox alter id restart;
alter table assetbatch.queue alter id restart;
alter table trading.symbols alter id restart;
alter table data_sources.api_providers alter id restart;
"""


def test_sequences_that_were_restarted_are_set_past_their_tables(commands: Commands, connection: Connection) -> None:
    assert commands("run-priority").returncode == 0
    assert commands("enqueue-secondary").returncode == 0
    connection.execute(RESTART)

    told = commands("run-priority", "--json")
    connection.execute("alter table assetbatch.runs alter id restart with 1000")
    told_later = commands("drain-queue", "--json")
    mended = commands("init", "--restored", "--json")
    well = commands("drain-queue", "--max-seconds=2")

    for run in (told, told_later):
        (line,) = run.stderr.splitlines()
        assert run.returncode == 78
        assert "init --restored" in json.loads(line)["hint"]
    assert (mended.returncode, mended.stderr) == (0, "")
    assert json.loads(mended.stdout)["restored"]["sequences_mended"] == 4
    assert well.returncode == 0
    for table in ("runs", "api_calls", "outbox", "queue"):
        last = f"select pg_sequence_last_value(pg_get_serial_sequence('assetbatch.{table}', 'id')::regclass) as n"
        assert one(connection, last)["n"] >= one(connection, f"select max(id) as n from assetbatch.{table}")["n"]


def test_a_database_whose_sequences_are_well_is_left_so(connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, status) values ('a', 'b', 'c', 'd', 'ok')"
    )

    assert mend(connection).sequences_mended == 0
