from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis

from assetbatch import events
from assetbatch.boottime import boot_time
from assetbatch.config import Config
from assetbatch.database import outbox
from assetbatch.database.leases import Lease
from assetbatch.database.query import Query
from assetbatch.errors import LeaseLostError
from assetbatch.events.delivery import RefusedError
from assetbatch.events.notify import NotifyPublisher
from assetbatch.events.redis import RedisPublisher
from tests.conftest import Commands, RedisServer, open_database, wait_until
from tests.world import load_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assetbatch.database.connection import Connection

# An abandoned thread of a publisher that timed out may end after its test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def config_with(tmp_path: Path, *, redis_url: str = "", events_keys: str = "{}") -> Config:
    environment = {"REDIS_URL": redis_url} if redis_url else {}
    database = "postgresql://user@127.0.0.1/unused"
    return load_config(tmp_path, f"events: {events_keys}\n", DATABASE_URL=database, **environment)


def add_events(connection: Connection, *symbols: str, minutes_old: int = 0) -> None:
    for number, symbol in enumerate(symbols):
        connection.execute(
            "insert into assetbatch.outbox (symbol, seq, payload, created_at)"
            " values (%s, %s, jsonb_build_object('symbol', %s::text, 'seq', %s::int, 'last_price', 1.10),"
            " clock_timestamp() - make_interval(mins => %s))",
            [symbol, number, symbol, number, minutes_old],
        )


def pending(connection: Connection) -> int:
    return len(connection.answer(outbox.pending(limit=10_000, max_age_minutes=60)))


def test_redis_subscribers_get_each_event_once_in_order(
    connection: Connection, tmp_path: Path, redis_server: RedisServer
) -> None:
    config = config_with(tmp_path, redis_url=redis_server.url, events_keys="{stream: true}")
    add_events(connection, *["EURUSD", "BTCUSD"] * 300)
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("asset:update:*")
        subscriber.get_message(timeout=5)

        assert events.publish_pending(config, connection) == 600

        messages: list[Any] = []
        while len(messages) < 600 and (message := subscriber.get_message(timeout=5)):
            messages.append(message)
        received = [json.loads(message["data"]) for message in messages]
        assert [event["seq"] for event in received] == list(range(600))
        assert messages[0]["channel"] == b"asset:update:EURUSD"
        assert client.xlen("asset:updates") == 600
    assert pending(connection) == 0
    assert events.publish_pending(config, connection) == 0


def test_without_redis_they_are_notified_on_both_channels(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    config = config_with(tmp_path)
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute('listen "asset:update:EURUSD"; listen "asset:update"')
        add_events(connection, "EURUSD", "BTCUSD")

        assert events.publish_pending(config, connection) == 2

        notes = list(listener.notifies(timeout=5, stop_after=3))
    assert sorted(note.channel for note in notes) == ["asset:update", "asset:update", "asset:update:EURUSD"]
    assert json.loads(notes[0].payload)["symbol"] in {"EURUSD", "BTCUSD"}


def test_with_redis_away_they_wait_for_the_next_run(
    connection: Connection, tmp_path: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_with(tmp_path, redis_url=redis_server.url)
    add_events(connection, "EURUSD")
    redis_server.stop()

    events.Announcer(config, connection).announce()
    assert pending(connection) == 1

    redis_server.start()
    assert events.publish_pending(config, connection) == 1


def test_a_redis_that_never_answers_costs_two_seconds_at_most(connection: Connection, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config_with(tmp_path, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        add_events(connection, "EURUSD")
        began = time.monotonic()

        events.Announcer(config, connection).announce()

        assert time.monotonic() - began < events.DELIVERY_SECONDS + 0.5
    assert pending(connection) == 1


def test_a_redis_that_drips_costs_two_seconds_at_most(connection: Connection, tmp_path: Path) -> None:
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            while not stop.wait(0.3):
                client.sendall(b"+")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        config = config_with(tmp_path, redis_url=f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        add_events(connection, "EURUSD")
        began = time.monotonic()

        events.Announcer(config, connection).announce()

        assert time.monotonic() - began < events.DELIVERY_SECONDS + 0.5
        stop.set()
        thread.join()


def test_news_too_old_is_dropped_but_for_each_symbols_newest(connection: Connection, tmp_path: Path) -> None:
    add_events(connection, "EURUSD", "EURUSD", "EURUSD", "BTCUSD", minutes_old=61)

    assert events.publish_pending(config_with(tmp_path), connection) == 2

    rows = connection.execute("select symbol, seq from assetbatch.outbox where not dropped order by id").fetchall()
    assert rows == [{"symbol": "EURUSD", "seq": 2}, {"symbol": "BTCUSD", "seq": 3}]


def test_one_publisher_at_a_time(database: str, connection: Connection, tmp_path: Path) -> None:
    connection.execute(
        "insert into assetbatch.leases values ('publisher', gen_random_uuid(), clock_timestamp() + interval '1 minute')"
    )
    add_events(connection, "EURUSD")

    assert events.publish_pending(config_with(tmp_path), connection) == 0

    connection.execute("update assetbatch.leases set held_until = clock_timestamp()")
    with open_database(database) as other:
        assert events.publish_pending(config_with(tmp_path), other) == 1


def test_a_run_publishes_what_an_earlier_one_left(
    commands: Commands, connection: Connection, redis_server: RedisServer
) -> None:
    add_events(connection, "GBPUSD")

    done = commands("run-priority", REDIS_URL=redis_server.url)

    assert (done.returncode, done.stderr) == (0, "")
    assert pending(connection) == 0


def test_a_run_with_redis_away_stores_and_warns(commands: Commands, connection: Connection) -> None:
    done = commands("run-priority", REDIS_URL="redis://127.0.0.1:9/0")

    assert done.returncode == 0
    assert "events wait for the next run" in done.stderr
    assert pending(connection) == 3


def test_events_off_leaves_no_carrier(connection: Connection, tmp_path: Path) -> None:
    add_events(connection, "EURUSD")

    assert events.publish_pending(config_with(tmp_path, events_keys="{backend: none}"), connection) == 0
    assert pending(connection) == 0


def test_a_notify_that_is_held_up_costs_two_seconds_at_most(connection: Connection, tmp_path: Path) -> None:
    add_events(connection, "EURUSD")
    connection.execute(
        "create schema held; create function held.pg_notify(text, text) returns int language sql"
        " as 'select 1 from pg_sleep(30)'"
    )
    connection.execute("set search_path to held, pg_catalog")
    began = time.monotonic()

    events.Announcer(config_with(tmp_path), connection).announce()

    assert time.monotonic() - began < events.DELIVERY_SECONDS + 1
    assert pending(connection) == 1


def test_a_run_killed_after_its_prices_were_stored_loses_no_event(
    commands: Commands, connection: Connection, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = commands.start("run-priority", REDIS_URL=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        wait_until(lambda: pending(connection) == 3)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()

    connection.execute("update assetbatch.leases set held_until = clock_timestamp()")
    before = {event.payload for event in connection.answer(outbox.pending(limit=10, max_age_minutes=60))}
    assert len(before) == 3
    assert events.publish_pending(config_with(tmp_path), connection) == 3


def test_a_carrier_in_trouble_holds_up_a_run_once(connection: Connection, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = config_with(tmp_path, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        add_events(connection, "EURUSD")
        announcer = events.Announcer(config, connection)
        announcer.announce()
        began = time.monotonic()

        announcer.announce(at_once=True)

        assert time.monotonic() - began < 0.5


def test_a_redis_that_stands_still_costs_a_run_two_seconds_in_all(
    connection: Connection, tmp_path: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_with(tmp_path, redis_url=redis_server.url)
    assert redis_server.process is not None
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("asset:update:*")
        subscriber.get_message(timeout=5)
        add_events(connection, "EURUSD", "EURUSD")
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            announcer = events.Announcer(config, connection)
            began = time.monotonic()
            for _ in range(5):
                announcer.announce(at_once=True)
            took = time.monotonic() - began
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        connection.execute("update assetbatch.outbox set seq = 7, payload = payload || '{\"seq\": 7}' where seq = 1")
        assert events.publish_pending(config, connection) == 2

        seqs = []
        while 7 not in seqs and (message := subscriber.get_message(timeout=5)):
            seqs.append(json.loads(message["data"])["seq"])

    assert took < events.DELIVERY_SECONDS + 0.5
    # What stood in line when the delivery was given up comes, too, and is sent again.
    assert list(dict.fromkeys(seqs)) in ([0, 7], [0, 1, 7])


def test_a_redis_that_is_back_is_tried_again_in_the_same_run(
    connection: Connection, tmp_path: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    announcer = events.Announcer(config_with(tmp_path, redis_url=redis_server.url), connection)
    add_events(connection, "EURUSD")
    redis_server.stop()
    announcer.announce()
    announcer.announce(at_once=True)
    assert pending(connection) == 1

    redis_server.start()
    announcer.announce(at_once=True)

    assert pending(connection) == 0
    assert sum("events wait for the next run" in record.getMessage() for record in caplog.records) <= 1


def test_what_a_run_stored_that_was_turned_away_is_published_by_the_one_that_held_the_right(
    database: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(tmp_path)
    turned_away: list[int] = []

    class Slow(Lease):
        """Another run stores and is turned away, after the last look at what waits and before the right is free."""

        def giving_up(self) -> Query[None]:
            if not turned_away:
                with monkeypatch.context() as other, open_database(database) as own:
                    other.setattr(events, "Lease", Lease)
                    add_events(own, "BTCUSD")
                    turned_away.append(events.publish_pending(config, own))
            return super().giving_up()

    monkeypatch.setattr(events, "Lease", Slow)
    add_events(connection, "EURUSD")

    assert events.publish_pending(config, connection) == 2
    assert turned_away == [0]
    assert pending(connection) == 0


def test_the_right_to_publish_is_short(database: str, connection: Connection, tmp_path: Path) -> None:
    held: list[float] = []

    class Carrier:
        def publish(self, _news: object, **_: float) -> None:
            with open_database(database) as own:
                row = own.execute(
                    "select extract(epoch from held_until - clock_timestamp())::float8 as seconds"
                    " from assetbatch.leases where name = 'publisher'"
                ).fetchone()
                assert row is not None
                held.append(row["seconds"])

        def close(self) -> None:
            held.append(0)

    add_events(connection, "EURUSD")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(events, "publisher", lambda *_: Carrier())
        events.publish_pending(config_with(tmp_path), connection)

    assert 0 < held[0] <= events.LEASE_SECONDS == 5
    assert held[1] == 0
    assert connection.execute("select from assetbatch.leases").fetchone() is None


def dropped(connection: Connection) -> int:
    row = connection.execute("select value::int from assetbatch.meta where key = 'events_dropped'").fetchone()
    return 0 if row is None else row["value"]


def test_a_sweep_goes_round_and_gets_to_every_row(connection: Connection) -> None:
    def left() -> list[int]:
        return [row["seq"] for row in connection.execute("select seq from assetbatch.outbox order by id")]

    # The newest of each symbol, which waits however old it is, stands before what may go: more than a sweep looks at.
    add_events(connection, "A", "B", "C", "D", "E", "F", "F", "G", "G", "H", minutes_old=180)
    connection.execute(
        "update assetbatch.outbox set published_at = clock_timestamp() - interval '90 minutes' where symbol = 'F';"
        "update assetbatch.outbox set published_at = clock_timestamp() - interval '30 minutes' where symbol = 'H'"
    )
    add_events(connection, "A")

    gone = [connection.answer(outbox.sweep(max_age_minutes=10, limit=3)) for _ in range(8)]

    # F was published long ago; of G and A the older ones were overtaken; H is kept for an hour from its publishing.
    assert left() == [1, 2, 3, 4, 8, 9, 0]
    assert sum(gone) == 4
    assert dropped(connection) == 2
    assert max(gone) <= 3


def test_without_a_carrier_the_outbox_stays_bounded_and_nothing_counts_as_dropped(
    connection: Connection, tmp_path: Path
) -> None:
    config = config_with(tmp_path, events_keys="{backend: none}")
    for _ in range(3):
        add_events(connection, *["EURUSD", "BTCUSD"] * 5)
        events.publish_pending(config, connection)
        connection.execute(
            "update assetbatch.outbox"
            " set created_at = created_at - interval '2 hours', published_at = published_at - interval '2 hours'"
        )
    events.publish_pending(config, connection)

    assert connection.execute("select count(*) as count from assetbatch.outbox").fetchone() == {"count": 0}
    assert dropped(connection) == 0


def test_notify_says_nothing_of_what_another_has_announced_meanwhile(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    add_events(connection, "EURUSD", "BTCUSD", "XAUUSD")
    read = connection.answer(outbox.pending(limit=10, max_age_minutes=60))
    with psycopg.connect(database, autocommit=True) as listener, open_database(database) as other:
        listener.execute('listen "asset:update"')
        assert events.publish_pending(config_with(tmp_path), other) == 3
        add_events(connection, "GBPUSD")
        NotifyPublisher(connection).publish(read, seconds=2, leave_by=boot_time() - 60)
        assert events.publish_pending(config_with(tmp_path), connection) == 1
        heard = [json.loads(note.payload)["symbol"] for note in listener.notifies(timeout=2, stop_after=5)]

    assert heard == ["EURUSD", "BTCUSD", "XAUUSD", "GBPUSD"]


def test_redis_hears_nothing_from_who_was_held_up_until_the_lease_was_over(
    connection: Connection, redis_server: RedisServer
) -> None:
    add_events(connection, "EURUSD")
    read = connection.answer(outbox.pending(limit=10, max_age_minutes=60))
    publisher = RedisPublisher(redis_server.url, stream=True)
    with redis.Redis.from_url(redis_server.url) as client:
        with pytest.raises(LeaseLostError):
            publisher.publish(read, seconds=2, leave_by=boot_time() - 0.001)
        assert client.xlen("asset:updates") == 0
        publisher.publish(read, seconds=2, leave_by=boot_time() + 2)
        assert client.xlen("asset:updates") == 1
    publisher.close()


# What Redis answers, and does not take


def named(server: RedisServer, rules: str) -> str:
    """Give a user of this Redis such rights; return the URL that names him."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "jobs", "reset", "on", ">secret", *rules.split())
    return server.url.replace("redis://", "redis://jobs:secret@")


def xlen(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.xlen("asset:updates")) if client.type("asset:updates") == b"stream" else 0


@contextmanager
def heard(server: RedisServer) -> Iterator[list[int]]:
    """Give the seqs of all that is heard within the block, once it is over."""
    seqs: list[int] = []
    with redis.Redis.from_url(server.url) as client, client.pubsub() as subscriber:
        subscriber.psubscribe("*")
        subscriber.get_message(timeout=5)
        yield seqs
        client.publish("the end", "{}")
        while (message := subscriber.get_message(timeout=5)) and message["channel"] != b"the end":
            seqs.append(json.loads(message["data"])["seq"])


def spoil(server: RedisServer, how: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        match how:
            case "full":
                client.config_set("maxmemory", "1")
            case "wrong type":
                client.set("asset:updates", "text")
            case "mended":
                client.config_set("maxmemory", "0")
                client.delete("asset:updates")


ALL_BUT = "~* &* +@all -"
REFUSALS = [
    (ALL_BUT + "publish", "", "'publish' command"),
    (ALL_BUT + "xadd", "", "'xadd' command"),
    (ALL_BUT + "multi", "", "'multi' command"),
    ("~* resetchannels &other:* +@all", "", "one of the channels"),
    ("~other &* +@all", "", "one of the keys"),
    (ALL_BUT + "nothing", "full", "maxmemory"),
    (ALL_BUT + "nothing", "wrong type", "asset:updates is a string there, no stream"),
    (ALL_BUT + "exec", "", "'exec' command"),
    ("~* &* +@all -role -info -type", "wrong type", "WRONGTYPE"),
    ("nopass off", "", "username-password"),
]


@pytest.mark.parametrize(("rules", "how", "words"), REFUSALS, ids=[words for _, _, words in REFUSALS])
def test_what_redis_refuses_waits_is_told_and_leaves_nothing_behind(
    connection: Connection, tmp_path: Path, redis_server: RedisServer, rules: str, how: str, words: str
) -> None:
    url = named(redis_server, rules.removesuffix(" -nothing"))
    spoil(redis_server, how)
    config = config_with(tmp_path, redis_url=url, events_keys="{stream: true}")
    add_events(connection, "EURUSD", "BTCUSD")

    with heard(redis_server) as seqs:
        for _ in range(3):
            with pytest.raises(RefusedError, match=words):
                events.publish_pending(config, connection)

    assert seqs == [] or words == "WRONGTYPE"
    assert xlen(redis_server) == 0
    assert pending(connection) == 2
    refusal = connection.answer(outbox.refusal())
    assert refusal is not None
    assert (refusal.times, refusal.events) == (3, 2)
    assert words in refusal.words
    assert "secret" not in refusal.words
    assert "last_price" not in refusal.words
    spoil(redis_server, "mended")
    config = config_with(tmp_path, redis_url=named(redis_server, "~* &* +@all"), events_keys="{stream: true}")

    assert events.publish_pending(config, connection) == 2

    assert xlen(redis_server) == 2
    assert connection.answer(outbox.refusal()) is None


def test_a_user_who_may_publish_alone_is_enough_for_channels(
    connection: Connection, tmp_path: Path, redis_server: RedisServer
) -> None:
    url = named(redis_server, "resetchannels &asset:update:* +publish")
    add_events(connection, "EURUSD", "BTCUSD")

    assert events.publish_pending(config_with(tmp_path, redis_url=url), connection) == 2
    assert connection.answer(outbox.refusal()) is None


def test_what_one_channel_refuses_holds_up_no_other(
    connection: Connection, tmp_path: Path, redis_server: RedisServer
) -> None:
    config = config_with(tmp_path, redis_url=named(redis_server, "resetchannels &asset:update:E* +@all"))
    add_events(connection, "EURUSD", "BTCUSD", "EURUSD")

    with heard(redis_server) as seqs:
        for _ in range(2):
            with pytest.raises(RefusedError, match="one of the channels"):
                events.publish_pending(config, connection)

    assert seqs == [0, 2]
    refusal = connection.answer(outbox.refusal())
    assert refusal is not None
    assert (refusal.times, refusal.events) == (2, 1)


@pytest.mark.parametrize("rules", ["+@all", "+@all -role", "+@all -info"])
@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_replica_is_refused_until_it_is_the_primary(
    connection: Connection, tmp_path: Path, redis_server: RedisServer, rules: str, stream: str
) -> None:
    replica = RedisServer(redis_server.program)
    replica.start("--replicaof", "127.0.0.1", str(redis_server.port))
    try:
        config = config_with(tmp_path, redis_url=named(replica, f"~* &* {rules}"), events_keys=f"{{stream: {stream}}}")
        add_events(connection, "EURUSD")

        with pytest.raises(RefusedError, match=f"a replica of 127.0.0.1:{redis_server.port}: name the primary"):
            events.publish_pending(config, connection)

        assert pending(connection) == 1
        with redis.Redis.from_url(replica.url) as client:
            client.replicaof("NO", "ONE")
        config = config_with(tmp_path, redis_url=replica.url, events_keys=f"{{stream: {stream}}}")
        assert events.publish_pending(config, connection) == 1
    finally:
        replica.stop()


def test_a_replica_that_does_not_say_so_is_taken_for_a_primary(
    connection: Connection, tmp_path: Path, redis_server: RedisServer
) -> None:
    url = named(redis_server, "~* &* +@all -role -info -type")
    add_events(connection, "EURUSD")

    assert events.publish_pending(config_with(tmp_path, redis_url=url), connection) == 1


def test_a_run_that_is_refused_stores_its_prices_and_tells_it_once(
    commands: Commands, connection: Connection, redis_server: RedisServer
) -> None:
    url = named(redis_server, "~* &* +@all -publish")

    first = commands("run-priority", REDIS_URL=url)
    again = commands("run-priority", REDIS_URL=url)

    assert (first.returncode, again.returncode) == (0, 0)
    assert "events are refused, and wait: Redis: this user has no permissions" in first.stderr
    assert again.stderr == ""
    assert pending(connection) == 3
    shown = " ".join(commands("status", REDIS_URL=url).stdout.split())
    assert "refused: Redis: this user has no permissions to run the 'publish' command" in shown


@pytest.mark.parametrize(
    ("rules", "stream", "found"),
    [
        ("~* &* +@all", True, "takes events; 0 in the stream"),
        ("~* &* +@all -xlen", True, "takes events, also in the stream"),
        ("~* &* +@all -xadd", False, "takes events"),
        ("resetchannels &asset:update:* +publish +multi", False, "takes events"),
        ("resetchannels &asset:update:* +publish", False, "is not known"),
        *((rules.removesuffix(" -nothing"), True, None) for rules, how, _ in REFUSALS if not how),
        (ALL_BUT + "publish", False, None),
    ],
)
def test_a_rehearsal_finds_what_publishing_meets_and_nobody_hears_it(
    redis_server: RedisServer, rules: str, stream: bool, found: str | None
) -> None:
    publisher = RedisPublisher(named(redis_server, rules), stream=stream)

    with heard(redis_server) as seqs:
        if found is None:
            with pytest.raises(RefusedError):
                publisher.rehearse()
        else:
            assert found in publisher.rehearse()
        publisher.close()

    assert seqs == []
    assert xlen(redis_server) == 0


LONG = "S" * 51
NEWLINE = "NEW\nLINE"


def test_a_symbol_too_long_for_notify_keeps_no_other_event_back(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BATCH", 4)
    heard: list[tuple[str, str]] = []
    connection.plain.add_notify_handler(
        lambda notice: heard.append((notice.channel, json.loads(notice.payload)["symbol"]))
    )
    connection.execute('listen "asset:update"; listen "asset:update:EURUSD"; listen "asset:update:NEW\nLINE"')
    config = config_with(tmp_path)
    add_events(connection, "EURUSD", LONG, NEWLINE, "BTCUSD", "XAUUSD", "B" * 9000, "GBPUSD", "USDJPY", "EURGBP")

    for times in (1, 2):
        with pytest.raises(RefusedError, match=r"NOTIFY: channel name too long: 'asset:update:(SSS|BBB)"):
            events.publish_pending(config, connection)

        assert [event.symbol for event in connection.answer(outbox.pending(limit=99, max_age_minutes=60))] == [
            LONG,
            "B" * 9000,
        ]
        refusal = connection.answer(outbox.refusal())
        assert refusal is not None
        assert (refusal.events, refusal.times >= times) == (2, True)
    connection.execute("select 1")
    assert [symbol for channel, symbol in heard if channel == "asset:update"] == [
        "EURUSD", NEWLINE, "BTCUSD", "XAUUSD", "GBPUSD", "USDJPY", "EURGBP",
    ]  # fmt: skip
    assert {channel for channel, _ in heard} == {"asset:update", "asset:update:EURUSD", "asset:update:NEW\nLINE"}

    connection.execute("delete from assetbatch.outbox where length(symbol) > 50")
    add_events(connection, "EURUSD")
    assert events.publish_pending(config, connection) == 1
    assert connection.answer(outbox.refusal()) is None


def test_jobs_go_on_beside_a_symbol_that_no_channel_can_have(commands: Commands, connection: Connection) -> None:
    put = (
        "insert into assetbatch.assets"
        " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
        " values (%s, %s, 'crypto', 'secondary', 1, 1800, %s)"
    )
    for symbol in (LONG, NEWLINE, "", "\x7f"):
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(put, [symbol, "X:ADAUSD", "symbols"])
    # As they may be left by an older version.
    connection.execute("alter table assetbatch.assets drop constraint assets_symbol_check")
    for symbol, ticker, origin in ((LONG, "X:ADAUSD", "symbols"), (NEWLINE, "X:SOLUSD", "symbols")):
        connection.execute(put, [symbol, ticker, origin])
    connection.execute(put, ["C" * 60, "X:DOTUSD", "config"])
    connection.execute(
        "alter table assetbatch.assets add constraint assets_symbol_check"
        " check (not enabled or octet_length(symbol) between 1 and 50) not valid"
    )
    commands.environment["POLYGON_RATE_LIMIT"] = "50"

    runs = [commands(*words) for words in (["init"], ["enqueue-secondary", "--all", "--source", "database"],
                                           ["drain-queue"], ["run-priority"])]  # fmt: skip

    assert [done.returncode for done in runs] == [0, 0, 0, 0], [done.stderr for done in runs]
    assert [event.symbol for event in connection.answer(outbox.pending(limit=99, max_age_minutes=60))] == [LONG]
    status = json.loads(commands("status", "--json").stdout)
    (alert,) = [one for one in status["alerts"] if one["metric"] == "events.refused"]
    assert "channel name too long" in json.dumps(alert)
    assert status["status"] == "degraded"
    stored = connection.execute("select symbol from trading.symbols where metadata ? 'last_update'").fetchall()
    assert {LONG, NEWLINE, "BTCUSD"} <= {row["symbol"] for row in stored}
