"""Troubles of the stream, each on a real socket: what is told of them, and that prices go on where they can."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
import requests

from assetbatch.boottime import boot_time
from assetbatch.database import streams
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs import clock
from assetbatch.provider.massive import websocket
from assetbatch.stream import cluster, pacing, session, storing, streamer
from assetbatch.stream import connection as connections
from tests.conftest import API_KEY, open_database, wait_until
from tests.relay import Relay
from tests.stream_runs import FOREX, last_price
from tests.streaming import connected
from tests.world import add_assets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stream_runs import StreamWorld

TOLD = "assetbatch.stream"


def test_prices_come_and_what_is_there_is_told(world: StreamWorld) -> None:
    with world.streaming(world.settings()) as running:
        world.goes_on()
        row = world.wait_for(state="live", confirmed=1, asked=1, unconfirmed=[], silent=[])
        wait_until(lambda: world.told()["lag_p50_ms"] is not None)
        assert row["frame_at"] is not None
    assert running.error is None
    assert running.result is not None
    assert running.result.exit_code == 0
    assert world.told()["state"] == "ended"
    assert world.sandbox.stream.open() == []
    assert {one.close_code for one in world.sandbox.stream.sessions} == {1000}
    leases = world.connection.execute("select name from assetbatch.leases where name like 'stream%'").fetchall()
    assert leases == []
    (crypto, forex) = world.connection.answer(streams.all_told(away_seconds=60))
    assert (crypto.report.cluster, forex.report.cluster) == ("crypto", "forex")
    assert not forex.report.is_alive


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ws-drop", "broke off"),
        ("ws-close-1000", "the vendor closed the connection (1000"),
        ("ws-close-1001", "(1001"),
        ("ws-close-1008", "(1008"),
        ("ws-close-1012", "(1012"),
        ("ws-slow-consumer", "slow_consumer"),
        ("ws-force-disconnect", "force_disconnect"),
        ("ws-auth-timeout", "auth_timeout"),
        ("ws-mute-upgrade", "cannot be reached"),
        ("ws-mute-connected", "a greeting did not come"),
        ("ws-mute-auth", "an answer to the key did not come"),
        ("ws-mute-subscribe", "no subscription was confirmed"),
        ("ws-mute", "nothing came for"),
        ("ws-dead", "nothing came for"),
        ("ws-403", "HTTP 403"),
        ("ws-502", "HTTP 502"),
    ],
)
def test_whatever_ends_a_connection_is_told_and_followed_by_another(world: StreamWorld, fault: str, words: str) -> None:
    world.sandbox.fail = [f"{fault}:/forex"]
    with world.streaming(world.settings()) as running:
        # The other cluster goes on.
        world.goes_on("BTCUSD")
        world.wait_for(state="waiting", words=words)
        world.goes_on("BTCUSD")
        world.sandbox.fail = []
        world.wait_for(state="live")
        world.goes_on()
    assert running.error is None


@pytest.mark.parametrize(
    "fault", ["ws-big", "ws-mixed", "ws-slow", "ws-garbage@0.5", "ws-off-schema@0.5", "ws-float", "ws-past@0.5",
              "ws-future@0.5", "ws-duplicate", "ws-unordered", "ws-revised", "ws-unknown-event", "ws-nan@0.5"],
)  # fmt: skip
def test_odd_frames_and_events_cost_themselves_alone(
    world: StreamWorld, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "ws-slow":
        for module, name in [(session, "STEP_SECONDS"), (session, "CONFIRM_SECONDS"), (connections, "SILENT_SECONDS")]:
            monkeypatch.setattr(module, name, 10.0)
    world.sandbox.fail = [fault]
    with world.streaming(world.settings()) as running:
        world.wait_for(state="live")
        for _ in range(3):
            world.goes_on()
        assert len(world.sandbox.stream.sessions) == 2, world.told()
        if "off-schema" in fault or "future" in fault or "garbage" in fault or "unknown" in fault or "nan" in fault:
            wait_until(lambda: world.told()["dropped"] > 0)
    assert running.error is None
    payloads = world.connection.execute("select payload from assetbatch.outbox where symbol = 'EURUSD' order by seq")
    times = [row["payload"]["timestamp"] for row in payloads]
    assert times == sorted(times)


def test_a_name_that_is_not_in_the_plan_is_told_by_name_and_the_others_stream(world: StreamWorld) -> None:
    world.sandbox.fail = ["ws-not-authorized:CA.", "ws-no-answer:XA."]
    with world.streaming(world.settings()):
        world.goes_on()
        assert world.wait_for(state="live")["unconfirmed"] == ["CA.EUR/USD: not in the plan"]
        (told,) = world.wait_for("crypto", state="live")["unconfirmed"]
        assert told == "XA.BTC-USD: no answer: the vendor knows no such channel"


def test_a_pair_that_is_confirmed_and_silent_is_told_and_left_to_calls_until_it_speaks(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "SILENT", timedelta(seconds=1))
    monkeypatch.setattr(cluster, "REFRESH_SECONDS", 1.0)
    monkeypatch.setattr(connections, "SILENT_SECONDS", 60.0)
    world.sandbox.fail = ["ws-silent:C.EUR/USD"]
    with world.streaming(world.settings()) as running:
        world.wait_for(state="live", silent=["EURUSD"])
        assert (
            "forex: confirmed, but silent, while calls bring newer quotes (misspelt, or delisted?): EURUSD"
            in caplog.text
        )
        wait_until(lambda: streamed(world) == {"BTCUSD"})
        world.sandbox.fail = []
        world.wait_for(silent=[])
        wait_until(lambda: streamed(world) == {"BTCUSD", "EURUSD"})
    assert running.error is None


def streamed(world: StreamWorld) -> set[str]:
    """What needs no call for its quote now."""
    return {row["symbol"] for row in world.connection.execute("select symbol from assetbatch.streamed")}


def test_a_wrong_key_ends_it_with_77_once_all_clusters_say_so(world: StreamWorld) -> None:
    world.environment["POLYGON_API_KEY"] = "wrong"
    with world.streaming(world.settings()) as running:
        running.thread.join(20)
    assert isinstance(running.error, CallError)
    assert running.error.kind is FailureKind.KEY_REFUSED
    assert running.error.exit_code == 77


def test_a_wrong_key_ends_it_though_pairs_are_known(world: StreamWorld) -> None:
    world.connection.execute(
        "insert into assetbatch.pairs values ('C:EURUSD', 'EUR', 'USD'), ('X:BTCUSD', 'BTC', 'USD')"
    )
    world.environment["POLYGON_API_KEY"] = "wrong"
    with world.streaming(world.settings()) as running:
        running.thread.join(20)
    assert isinstance(running.error, CallError)
    assert "the stream refuses the key: auth_failed: authentication failed" in str(running.error)


def test_a_wrong_key_ends_it_though_only_one_cluster_has_assets(world: StreamWorld) -> None:
    world.sandbox.fail = ["ws-auth-failed"]
    config = world.settings(FOREX)
    with world.streaming(config) as running:
        running.thread.join(20)
    assert isinstance(running.error, CallError)


def test_a_plan_without_one_cluster_lets_that_rest_and_the_other_stream_and_asks_again(world: StreamWorld) -> None:
    world.sandbox.fail = ["ws-no-plan:/forex"]
    with world.streaming(world.settings()) as running:
        world.wait_for(state="refused", words="websocket access")
        world.goes_on("BTCUSD")
        wait_until(lambda: len([one for one in world.sandbox.stream.sessions if one.path == "/forex"]) >= 2)
        world.sandbox.fail = []
        world.goes_on()
        assert world.wait_for(state="live")["words"] == ""
    assert running.error is None


def test_a_key_that_is_refused_on_one_cluster_after_another_was_mended_ends_nothing(world: StreamWorld) -> None:
    world.sandbox.fail = ["ws-auth-failed:/forex"]
    with world.streaming(world.settings()) as running:
        world.wait_for(state="refused")
        world.sandbox.fail = []
        world.wait_for(state="live")
        world.sandbox.fail = ["ws-auth-failed:/crypto"]
        world.sandbox.stream.drop("crypto")
        world.wait_for("crypto", state="refused")
        world.goes_on("EURUSD")
    assert running.error is None


def test_who_is_evicted_by_a_foreign_connection_rests_and_tells_it_once(
    world: StreamWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, TOLD)
    with world.streaming(world.settings()) as running:
        world.goes_on()
        (ours,) = world.sandbox.stream.open("forex")
        with connected(world.sandbox) as foreign:
            foreign.authenticate(API_KEY)
            began = time.monotonic()
            world.wait_for(state="resting", words="Maximum number of websocket connections exceeded.")
            assert ours.ended_by == "max_connections"
            world.goes_on("BTCUSD")
            wait_until(lambda: len(world.sandbox.stream.sessions) > 3)
            assert time.monotonic() - began >= pacing.REST_SECONDS
            world.goes_on("EURUSD")
    assert running.error is None
    assert caplog.text.count("max_connections") == 1
    assert world.sandbox.stream.overlap_seconds("forex") < 1


def test_a_server_that_is_not_there_is_tried_again_until_it_is(world: StreamWorld) -> None:
    config = world.settings()
    world.sandbox.stream.stop()
    with world.streaming(config) as running:
        world.wait_for(state="waiting", words="cannot be reached")
        world.sandbox.stream.start()
        world.goes_on()
        world.sandbox.stream.stop()
        world.wait_for(state="waiting", words="Connection refused")
        world.sandbox.stream.start()
        world.goes_on()
    assert running.error is None


def test_two_hundred_drops_in_a_row_make_no_hot_loop_and_leave_no_gap(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(pacing, "LONGEST_SECONDS", 0.05)
    monkeypatch.setattr(cluster, "STEADY_SECONDS", 1.0)
    monkeypatch.setattr(clock, "boot_time", lambda: boot_time() + world.market.forwarded)
    world.environment["POLYGON_RATE_LIMIT"] = "unlimited"
    sessions = world.sandbox.stream.sessions
    begun_at = world.market()
    with world.streaming(world.settings(FOREX)) as running:
        world.goes_on("EURUSD")
        world.wait_for(state="live")
        began, first = time.monotonic(), len(sessions)
        for _ in range(200):
            drop_one(world)
            # Twenty minutes of market time pass in all.
            world.market.forward(seconds=6)
        took = time.monotonic() - began
        assert 199 <= len(sessions) - first <= took / (pacing.LONGEST_SECONDS / 2) + 10
        world.goes_on("EURUSD")
        world.wait_for(state="live")
        ended_at = world.market()
        wanted = {
            at: figures for at, figures in bars_by_call(world, "C:EURUSD", begun_at, ended_at).items() if at > begun_at
        }
        assert len(wanted) >= 3
        wait_until(lambda: bars_stored(world).keys() >= wanted.keys(), seconds=30)
        # What came whole before a break is there at once, open; a call brings all. The last may be open still.
        wait_until(lambda: len(bars_stored(world, "is_final")) >= len(wanted) - 1, seconds=30)
        final = bars_stored(world, "is_final")
        assert {at: final[at] for at in wanted if at in final} == {at: wanted[at] for at in wanted if at in final}
    assert running.error is None


def drop_one(world: StreamWorld) -> None:
    """Wait for a connection, drop it, and wait until it is gone, whether or not there is another one by then."""
    found = wait_until(lambda: world.sandbox.stream.open("forex"))[0]
    world.sandbox.stream.drop("forex")
    wait_until(lambda: not found.is_open)


def bars_by_call(world: StreamWorld, ticker: str, since: datetime, until: datetime) -> dict[datetime, list[Decimal]]:
    """The finished bars that a call brings, by their time."""
    span = "/".join(str(int(at.timestamp() * 1000)) for at in (since, until))
    url = f"{world.sandbox.url}/v2/aggs/ticker/{ticker}/range/5/minute/{span}?limit=50000"
    answer = requests.get(url, headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10)
    rows = json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["results"]
    found = {datetime.fromtimestamp(int(row["t"]) / 1000, UTC): [row[key] for key in "ohlcv"] for row in rows}
    return {at: figures for at, figures in found.items() if at + timedelta(minutes=5) < until}


def bars_stored(world: StreamWorld, *needed: str) -> dict[datetime, list[Decimal]]:
    rows = world.connection.execute("select * from market_data.ohlcv_5m").fetchall()
    figures = ("open", "high", "low", "close", "volume")
    return {row["ts"]: [row[key] for key in figures] for row in rows if all(row[key] for key in needed)}


def test_an_answer_that_echoes_the_key_gets_it_nowhere(world: StreamWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with world.streaming(world.settings()) as running:
        world.wait_for(state="live")
        status = {"ev": "status", "status": "error", "message": f"no {API_KEY} here"}
        world.sandbox.stream.send(json.dumps([{"action": "auth", "params": API_KEY}, status, {"ev": API_KEY}]))
        world.sandbox.stream.send(API_KEY)
        wait_until(lambda: world.told()["dropped"] >= 3)
        world.sandbox.stream.expel("force_disconnect", f"the key {API_KEY} is no more", "forex")
        # The table may have that it is live again by now.
        wait_until(lambda: "the key *** is no more" in caplog.text)
        world.sandbox.stream.close(4000, f"bye {API_KEY}", "crypto")
        wait_until(lambda: "bye ***" in caplog.text)
        world.goes_on()
    assert running.error is None
    assert API_KEY not in caplog.text


def test_a_frozen_database_row_or_one_that_is_refused_keeps_no_other_price(
    world: StreamWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "LOCKED_SECONDS", 1.0)
    monkeypatch.setattr(storing, "REFUSED_SECONDS", 1.0)
    with world.streaming(world.settings()) as running:
        world.goes_on()
        world.wait_for(state="live")
        with world.connection.transaction():
            world.connection.execute("select from trading.symbols where symbol = 'EURUSD' for update")
            began = time.monotonic()
            for _ in range(5):
                world.goes_on("BTCUSD")
            took = time.monotonic() - began
        assert took < 15
        world.goes_on("EURUSD")
        assert "keeps the rows locked, for now: EURUSD" in caplog.text
        world.connection.execute(
            "alter table trading.symbols add constraint no_euro check (symbol <> 'EURUSD' or id < 0) not valid"
        )
        wait_until(lambda: "EURUSD is not stored" in caplog.text)
        for _ in range(3):
            world.goes_on("BTCUSD")
        world.connection.execute("alter table trading.symbols drop constraint no_euro")
        world.goes_on("EURUSD")
    assert running.error is None
    assert caplog.text.count("EURUSD is not stored") == 1


def test_a_flush_takes_few_round_trips_however_many_assets_there_are(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickers = [f"X:T{number}USD" for number in range(100)]
    add_assets(world.connection, *tickers)
    world.connection.execute(
        "insert into assetbatch.pairs select t, substr(t, 3, length(t) - 5), 'USD' from unnest(%s::text[]) t", [tickers]
    )
    flush, counts = streamer.Streamer._flush, list[int]()

    def counting(self: streamer.Streamer, *, stores: bool = True) -> None:
        before = relay.round_trips
        flush(self, stores=stores)
        counts.append(relay.round_trips - before)

    monkeypatch.setattr(streamer.Streamer, "_flush", counting)
    urls = ", ".join(f"{one}: '{world.sandbox.stream.url}/{one}'" for one in ("forex", "crypto"))
    config = world.settings(stream=f"{{flush_seconds: 1, urls: {{{urls}}}}}")
    with Relay(world.database) as relay, world.streaming(config, database=relay.conninfo) as running:
        world.wait_for("crypto", state="live")
        wait_until(lambda: len(world.connection.execute("select from assetbatch.sync_state").fetchall()) == 102)
        counts.clear()
        since = world.told("crypto")["events"]
        wait_until(lambda: len(counts) > 5 and world.told("crypto")["events"] > since, seconds=30)
    assert running.error is None
    assert max(counts) <= 6, counts


def test_a_lease_is_kept_however_seldom_prices_are_stored(world: StreamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamer, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(streamer, "KEEP_SECONDS", 0.5)
    urls = f"{{crypto: '{world.sandbox.stream.url}/crypto'}}"
    held = "select count(*) as n from assetbatch.leases where name like 'stream %' and held_until > clock_timestamp()"
    with world.streaming(world.settings(stream=f"{{flush_seconds: 60, clusters: [crypto], urls: {urls}}}")) as running:
        world.wait_for("crypto", state="live")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert world.connection.execute(held).fetchone() == {"n": 1}
    # At its end it stores what has come.
    assert last_price(world.connection, "BTCUSD") is not None
    assert running.error is None


REFUSING = {
    "a trigger of one asset": """
        create function market_data.refuse() returns trigger language plpgsql as $$
        begin
          if new.symbol_id = (select id from trading.symbols where symbol = 'EURUSD') then
            raise exception 'no euro bars';
          end if;
          return new;
        end $$;
        create trigger refuse before insert or update on market_data.ohlcv_5m
          for each row execute function market_data.refuse()
        """,
    "no table": "alter table market_data.ohlcv_5m rename to elsewhere",
}


@pytest.mark.parametrize("trouble", REFUSING.values(), ids=REFUSING.keys())
def test_a_table_of_bars_that_refuses_keeps_no_price(
    world: StreamWorld, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    with world.streaming(world.settings()) as running:
        world.goes_on()
        world.wait_for(state="live")
        world.wait_for("crypto", state="live")
        world.connection.execute(trouble)
        for pair, channel, name in [("EUR/USD", "CA", "forex"), ("BTC-USD", "XA", "crypto")]:
            start = int(world.market().timestamp()) // 60 * 60_000
            bar = {"ev": channel, "pair": pair, "o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "s": start}
            world.sandbox.stream.publish(bar, cluster=name)
        wait_until(lambda: "open bars are refused" in caplog.text)
        for _ in range(2):
            world.goes_on()
    assert running.error is None
    assert caplog.text.count("open bars are refused") == 1
    if "euro" in trouble:
        found = world.connection.execute(
            "select s.symbol from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id"
            " where not is_final"
        ).fetchall()
        assert found == [{"symbol": "BTCUSD"}]


def test_a_lock_on_the_table_of_bars_keeps_no_price(world: StreamWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LOCKED_SECONDS", 1.0)
    with world.streaming(world.settings()) as running:
        world.goes_on()
        world.wait_for(state="live")
        with world.connection.transaction():
            world.connection.execute("lock table market_data.ohlcv_5m in access exclusive mode")
            start = int(world.market().timestamp()) // 60 * 60_000
            bar = {"ev": "CA", "pair": "EUR/USD", "o": 1, "h": 1, "l": 1, "c": 1, "v": 1, "s": start}
            world.sandbox.stream.publish(bar, cluster="forex")
            for _ in range(3):
                world.goes_on("BTCUSD")
        wait_until(
            lambda: (
                world.connection.execute("select from market_data.ohlcv_5m where not is_final").fetchone() is not None
            )
        )
    assert running.error is None


def test_an_error_that_nobody_foresaw_in_a_thread_ends_the_run(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.streaming(world.settings()) as running:
        world.goes_on()

        def fails(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(websocket, "read", fails)
        running.thread.join(10)
    assert isinstance(running.error, RuntimeError)


def test_an_error_of_a_call_beside_it_ends_neither_lease_nor_run(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from assetbatch.database import runs
    from assetbatch.errors import LeaseLostError

    def fails(*_: object) -> None:
        raise LeaseLostError("somebody else asks")

    monkeypatch.setattr(cluster, "REFRESH_SECONDS", 0.5)
    with world.streaming(world.settings()) as running:
        world.goes_on()
        world.wait_for(state="live")
        monkeypatch.setattr(runs, "recording", fails)
        wait_until(lambda: "came to nothing" in caplog.text)
        monkeypatch.undo()
        world.goes_on()
        assert world.connection.execute("select status from assetbatch.runs where job = 'stream'").fetchall() == [
            {"status": "running"}
        ]
        held = world.connection.execute("select name from assetbatch.leases where name like 'stream %'").fetchall()
        assert len(held) == 2
    assert running.error is None


def test_what_has_no_assets_says_so_once_and_waits_for_some(
    world: StreamWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with world.streaming(world.settings("priority_assets: []")) as running:
        wait_until(lambda: "there is nothing to stream" in caplog.text)
        add_assets(world.connection, "C:EURUSD")
        world.goes_on("EURUSD")
        world.connection.execute("delete from assetbatch.assets")
        wait_until(lambda: not world.sandbox.stream.open())
        world.wait_for(state="ended")
        wait_until(lambda: caplog.text.count("there is nothing to stream") == 2)
    assert running.error is None


def test_the_service_manager_hears_when_it_is_ready_alive_and_stopping(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch, short_folder: Path
) -> None:
    address = str(short_folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with world.streaming(world.settings()) as running:
            assert channel.recv(100) == b"READY=1"
            assert channel.recv(100) == b"WATCHDOG=1"
            running.stop.requested.set()
            while (word := channel.recv(100)) == b"WATCHDOG=1":
                pass
            assert word == b"STOPPING=1"
    assert running.error is None


@contextmanager
def mute_server() -> Iterator[str]:
    """Accepts connections, and neither reads nor writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


def test_it_ends_at_once_while_it_connects_to_who_says_nothing(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "OPEN_SECONDS", 10.0)
    with mute_server() as url:
        streams = f"{{flush_seconds: 0.1, urls: {{forex: '{url}/forex', crypto: '{url}/crypto'}}}}"
        with world.streaming(world.settings(stream=streams)) as running:
            world.wait_for(state="connecting")
            began = time.monotonic()
            running.end()
            assert time.monotonic() - began < 2
    assert running.error is None


def test_it_ends_at_once_while_a_name_is_looked_up_for_ever(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_up, ends = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        looks_up.set()
        ends.wait(30)
        raise OSError("no such name")

    with world.streaming(world.settings()) as running:
        world.goes_on()
        world.wait_for(state="live")
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        world.sandbox.stream.drop()
        assert looks_up.wait(10)
        began = time.monotonic()
        running.end()
        assert time.monotonic() - began < 2
        ends.set()
    assert running.error is None


def test_rows_of_a_removed_asset_that_another_transaction_keeps_hold_no_stream_up(
    world: StreamWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with world.streaming(world.settings()) as running, open_database(world.database) as other:
        world.goes_on()
        with other.transaction():
            other.execute("select from assetbatch.sync_state where symbol = 'BTCUSD' for update")
            world.connection.execute("delete from assetbatch.assets where symbol = 'BTCUSD'")
            wait_until(lambda: "what is known of the prices of BTCUSD stays" in caplog.text)
            world.goes_on("EURUSD")
    assert running.error is None


def test_it_ends_at_once_while_a_call_is_under_way(world: StreamWorld) -> None:
    world.sandbox.fail = ["timeout:/v3/snapshot"]
    with world.streaming(world.settings()) as running:
        world.wait_for(state="live")
        wait_until(lambda: any("/v3/snapshot" in one.path for one in world.sandbox.arrivals))
        began = time.monotonic()
        running.end()
        assert time.monotonic() - began < 2
    assert running.error is None
    assert world.told()["state"] == "ended"
    assert threading.active_count() < 50
