"""The sandbox's WebSocket as recorded of the vendor's: handshake, subscriptions, events, who may connect, the clock."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest
from websockets.exceptions import InvalidStatus

from assetbatch.model import AssetType
from assetbatch.sandbox.clusters import CLUSTERS, Channel, Cluster, Content
from assetbatch.sandbox.server import Sandbox
from assetbatch.sandbox.session import NO_REQUEST, NO_WEBSOCKET, TOO_MANY
from tests.conftest import wait_until
from tests.sandbox_client import get
from tests.streaming import BUSY, Clock, connected, streaming

MINUTE_MS = 60_000
SATURDAY = datetime(2026, 9, 5, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock) as sandbox:
        yield sandbox


def test_the_whole_conversation_is_the_recorded_one(sandbox: Sandbox) -> None:
    with connected(sandbox) as client:
        assert client.receive() == [{"ev": "status", "status": "connected", "message": "Connected Successfully"}]
        client.send("auth", "sandbox")
        assert client.receive() == [{"ev": "status", "status": "auth_success", "message": "authenticated"}]
        client.send("subscribe", "C.EUR/USD,CA.EUR/USD")
        assert client.receive() == [
            {"ev": "status", "status": "success", "message": "subscribed to: C.EUR/USD"},
            {"ev": "status", "status": "success", "message": "subscribed to: CA.EUR/USD"},
        ]
        assert client.event("C")["p"] == "EUR/USD"
        client.send("unsubscribe", "C.EUR/USD,C.GBP/USD")
        assert client.status() == ("success", "unsubscribed to: C.EUR/USD")
        client.unread.clear()
        assert client.silent(1.5)

    (session,) = sandbox.stream.sessions
    assert [(one.action, one.params) for one in session.asked] == [
        ("auth", "***"), ("subscribe", "C.EUR/USD,CA.EUR/USD"), ("unsubscribe", "C.EUR/USD,C.GBP/USD"),
    ]  # fmt: skip
    wait_until(lambda: not session.is_open)
    assert (session.close_code, session.ended_by, list(session.held)) == (1000, "", ["CA.EUR/USD"])
    assert session.frames == len(client.frames)
    assert session.events == sum(event["ev"] != "status" for frame in client.frames for event in frame)


def test_what_is_held_already_and_what_is_of_no_channel_has_no_answer(sandbox: Sandbox) -> None:
    sandbox.stream.rate = 0
    with streaming(sandbox, "C.EUR/USD") as client:
        client.send("subscribe", "C.EUR/USD,ZZ.X,XT.BTC-USD,C,C.EUR/USD")
        client.send("unsubscribe", "C.USD/JPY,ZZ.X")
        client.connection.send("no JSON")
        client.connection.send('["nor an object"]')
        client.connection.send('{"action":"dance"}')
        assert client.silent()
        client.subscribe("C.GBP/USD")


def test_a_pair_that_does_not_exist_is_confirmed_and_silent(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.NO/PE", "C.EURUSD", "C.EU/RUSD", "C.") as client:
        assert client.silent(1.3)


@pytest.mark.parametrize("name", ["C.EUR/USD", "C.EUR-USD"])
def test_a_forex_pair_is_taken_either_way_and_always_comes_with_a_slash(sandbox: Sandbox, name: str) -> None:
    with streaming(sandbox, name) as client:
        assert client.event("C")["p"] == "EUR/USD"


def test_a_star_is_every_pair_of_the_catalogue_metals_too_and_each_event_comes_once(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.*", "C.XAU/USD", "C.XAU-USD") as client:
        seen = [client.event("C") for _ in range(150)]
    names = {event["p"] for event in seen}
    assert {"EUR/USD", "XAU/USD", "NATGAS/USD"} <= names
    assert len(names) > 60
    assert len({(event["p"], event["t"]) for event in seen}) == len(seen)


def test_what_a_synthetic_pair_is_called(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.T77/USD") as client:
        assert client.event("C")["p"] == "T77/USD"
    with streaming(sandbox, "XT.T77-USD", path="/crypto") as client:
        assert client.event("XT")["pair"] == "T77-USD"


def test_a_quote_is_the_one_that_the_last_quote_shows(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.EUR/USD", "C.XAU/USD") as client:
        quotes = [client.event("C") for _ in range(4)]
    for quote in quotes:
        assert list(quote) == ["ev", "p", "x", "a", "b", "t"]
        sandbox.clock = partial(datetime.fromtimestamp, quote["t"] / 1000, UTC)
        shown = get(sandbox, f"/v1/last_quote/currencies/{quote['p']}")["last"]
        assert shown == {"ask": quote["a"], "bid": quote["b"], "exchange": quote["x"], "timestamp": quote["t"]}


def test_a_trade_is_the_one_that_the_last_trade_shows(sandbox: Sandbox) -> None:
    with streaming(sandbox, "XT.BTC-USD", "XQ.BTC-USD", path="/crypto") as client:
        trade, quote = client.event("XT"), client.event("XQ")
    assert list(trade) == ["ev", "pair", "p", "s", "c", "i", "x", "t", "r"]
    assert list(quote) == ["ev", "pair", "bp", "bs", "ap", "as", "x", "t", "r"]
    assert isinstance(trade["i"], str)
    assert trade["t"] <= trade["r"]
    assert quote["bp"] < trade["p"] < quote["ap"]
    sandbox.clock = partial(datetime.fromtimestamp, trade["t"] / 1000, UTC)
    shown = get(sandbox, "/v1/last/crypto/BTC/USD")["last"]
    assert (shown["price"], shown["size"], shown["timestamp"]) == (trade["p"], trade["s"], trade["t"])


@pytest.mark.parametrize(
    ("path", "channel", "pair", "ticker", "fields"),
    [
        ("/forex", "CA", "XAU/USD", "C:XAUUSD", "ev pair o c h l v s e"),
        ("/crypto", "XA", "BTC-USD", "X:BTCUSD", "ev pair o c h l v vw z s e"),
    ],
)
def test_five_minutes_make_the_bar_that_is_served_later(
    sandbox: Sandbox, clock: Clock, path: str, channel: str, pair: str, ticker: str, fields: str
) -> None:
    minutes: list[dict[str, Any]] = []
    with streaming(sandbox, f"{channel}.{pair}", path=path) as client:
        for _ in range(5):
            clock.forward(minutes=1)
            minutes.append(client.event(channel))
        # Seldom do five that follow each other begin at a whole five minutes: go on until they do.
        while minutes[-5]["s"] % (5 * MINUTE_MS):
            clock.forward(minutes=1)
            minutes.append(client.event(channel))
    five = minutes[-5:]
    assert list(five[0]) == fields.split()
    assert [one["s"] - five[0]["s"] for one in five] == [place * MINUTE_MS for place in range(5)]
    assert all(one["e"] - one["s"] == MINUTE_MS for one in five)
    assert all(isinstance(one["s"], int) for one in five)
    start = five[0]["s"]
    (bar,) = get(sandbox, f"/v2/aggs/ticker/{ticker}/range/5/minute/{start}/{start + 1}")["results"]
    assert (bar["t"], bar["o"], bar["c"]) == (start, five[0]["o"], five[-1]["c"])
    assert bar["h"] == max(one["h"] for one in five)
    assert bar["l"] == min(one["l"] for one in five)
    assert bar["v"] == pytest.approx(sum(one["v"] for one in five), rel=1e-12)
    ones = get(sandbox, f"/v2/aggs/ticker/{ticker}/range/1/minute/{start}/{start + 5 * MINUTE_MS - 1}")["results"]
    assert [[one[key] for key in "ohlcv"] for one in ones] == [[one[key] for key in "ohlcv"] for one in five]


def test_bars_come_a_while_after_their_end_and_seconds_lie_in_their_minute(sandbox: Sandbox, clock: Clock) -> None:
    clock.set(BUSY.replace(second=57))
    with streaming(sandbox, "CA.EUR/USD", "CAS.EUR/USD") as client:
        minute = client.event("CA")
        late = clock().timestamp() * 1000 - minute["e"]
        assert 1_000 <= late < 15_000
    seconds = [event for frame in client.frames for event in frame if event["ev"] == "CAS"]
    assert list(seconds[0]) == ["ev", "pair", "o", "c", "h", "l", "v", "s", "e"]
    assert all(one["e"] - one["s"] == 1_000 for one in seconds)
    inside = [one for one in seconds if minute["s"] <= one["s"] < minute["e"]]
    assert inside
    assert all(minute["l"] <= one["l"] <= one["h"] <= minute["h"] for one in inside)


def test_a_market_at_rest_is_silent_and_the_other_goes_on(sandbox: Sandbox, clock: Clock) -> None:
    clock.set(SATURDAY)
    with streaming(sandbox, "C.EUR/USD", "CAS.EUR/USD", "CA.EUR/USD") as forex:
        clock.forward(minutes=2)
        assert forex.silent(1.5)
        with streaming(sandbox, "XT.BTC-USD", path="/crypto") as crypto:
            crypto.event("XT")
        clock.set(SATURDAY + timedelta(days=2))
        forex.event("C")


def test_a_clock_that_stands_still_or_goes_back_sends_nothing(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.clock = lambda: BUSY
    with streaming(sandbox, "C.EUR/USD") as client:
        assert client.silent(1.3)
        sandbox.clock = lambda: BUSY - timedelta(hours=1)
        assert client.silent()
        sandbox.clock = lambda: BUSY - timedelta(minutes=59)
        assert client.event("C")["t"] <= (BUSY - timedelta(minutes=59)).timestamp() * 1000


def test_the_rate_is_that_of_each_pair(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.stream.rate = 100
    with streaming(sandbox, "C.EUR/USD", "C.USD/JPY") as client:
        quotes = [client.event("C") for _ in range(400)]
    times = [quote["t"] for quote in quotes if quote["p"] == "EUR/USD"]
    assert times == sorted(times)
    assert {after - before for before, after in pairwise(times)} == {10}


def test_nothing_is_replayed(sandbox: Sandbox, clock: Clock) -> None:
    with streaming(sandbox, "C.EUR/USD", "CA.EUR/USD") as client:
        client.event("C")
    clock.forward(minutes=5)
    since = clock().timestamp() * 1000
    wait_until(lambda: not sandbox.stream.open())
    with streaming(sandbox, "C.EUR/USD", "CA.EUR/USD") as client:
        assert client.until(lambda event: event["ev"] != "status")["t"] > since - 1_000


def test_a_wrong_key_is_told_and_the_connection_cut(sandbox: Sandbox) -> None:
    with connected(sandbox) as client:
        client.receive()
        client.send("auth", "another-key")
        assert client.status() == ("auth_failed", "authentication failed")
        assert client.end() == (1006, "")
    assert "another-key" not in repr(sandbox.stream.sessions[0].asked) + repr(sandbox.stream.account)


def test_a_plan_without_it_has_the_same_status_and_another_message(sandbox: Sandbox) -> None:
    sandbox.plan = "free"
    with connected(sandbox) as client:
        client.receive()
        client.send("auth", "sandbox")
        assert client.status() == ("auth_failed", NO_WEBSOCKET)
        assert client.end() == (1006, "")


@pytest.mark.parametrize("path", ["/stocks", "/indices"])
def test_a_key_of_currencies_has_no_stocks_and_no_indices(sandbox: Sandbox, path: str) -> None:
    with connected(sandbox, path) as client:
        client.receive()
        client.send("auth", "sandbox")
        assert client.status() == ("auth_failed", NO_WEBSOCKET)


def test_stocks_split_at_the_first_dot_and_what_a_test_publishes_arrives(sandbox: Sandbox) -> None:
    sandbox.stocks_plan = "developer"
    sandbox.stream.rate = 0
    with streaming(sandbox, "AM.BRK.B", "T.*", path="/stocks") as client:
        assert sandbox.stream.publish({"ev": "AM", "sym": "BRK.B", "v": 9099.618093}, cluster="stocks") == 1
        assert client.event("AM") == {"ev": "AM", "sym": "BRK.B", "v": 9099.618093}
        assert sandbox.stream.publish({"ev": "C"}, cluster="forex") == 0
        client.send("unsubscribe", "AM.BRK.B,T.*")
        assert client.status() == ("success", "unsubscribed to: AM.BRK.B")
        assert sandbox.stream.publish({"ev": "AM", "sym": "BRK.B"}) == 0


def test_a_cluster_is_a_row_of_a_table(sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"v": "volume", "vw": "vwap", "o": "open", "c": "close", "h": "high", "l": "low", "s": "start_ms"}
    row = Cluster(
        AssetType.CRYPTO,
        (Channel("AM", Content.MINUTE, fields=fields), Channel("T", Content.TICK, fields={"p": "price", "t": "at_ms"})),
    )
    monkeypatch.setitem(cast("dict[str, Cluster]", CLUSTERS), "/made-up", row)

    with streaming(sandbox, "AM.X:BTCUSD", "T.X:BTCUSD", "T.C:EURUSD", path="/made-up") as client:
        clock.forward(minutes=1)
        minute, trade = client.event("AM"), client.event("T")

    assert list(minute) == ["ev", "sym", *fields]
    assert (minute["sym"], trade["sym"]) == ("X:BTCUSD", "X:BTCUSD")


def test_who_sends_no_key_is_sent_away(sandbox: Sandbox) -> None:
    sandbox.stream.account.auth_seconds = 0.2
    with connected(sandbox) as client:
        client.receive()
        client.send("subscribe", "C.EUR/USD")
        assert client.status() == ("auth_timeout", NO_REQUEST)
        assert client.end() == (1006, "")


def test_auth_may_be_sent_before_the_greeting(sandbox: Sandbox) -> None:
    sandbox.stream.account.auth_seconds = 1.0
    with connected(sandbox) as client:
        client.send("auth", "sandbox")
        assert client.status()[0] == "connected"
        assert client.status()[0] == "auth_success"
        client.subscribe("C.EUR/USD")
        assert [client.event("C") for _ in range(2)]


def test_a_channel_that_the_plan_lacks_is_refused_without_its_name_and_the_others_are_confirmed(
    sandbox: Sandbox,
) -> None:
    with connected(sandbox) as client:
        client.authenticate()
        client.send("subscribe", "C.EUR/USD,FMV.C:EURUSD,CA.EUR/USD")
        assert client.status() == ("success", "subscribed to: C.EUR/USD")
        assert client.status() == ("error", "not authorized")
        assert client.status() == ("success", "subscribed to: CA.EUR/USD")
    sandbox.plan = "business"
    with streaming(sandbox, "FMV.C:EURUSD"):
        pass


def test_the_newcomer_is_accepted_and_the_older_connection_sent_away(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.EUR/USD") as older, streaming(sandbox, "XT.BTC-USD", path="/crypto"):
        with streaming(sandbox, "C.GBP/USD") as newer:
            assert older.end() == (1008, "")
            assert older.status() == ("max_connections", TOO_MANY)
            assert newer.event("C")["p"] == "GBP/USD"
        first, crypto, second = sandbox.stream.sessions
        assert first.ended_by == "max_connections"
        assert crypto.is_open
        assert second.path == "/forex"
        assert 0 < sandbox.stream.overlap_seconds("forex") < 1
        assert sandbox.stream.overlap_seconds("crypto") == 0


def test_an_account_may_have_more_connections(sandbox: Sandbox) -> None:
    sandbox.stream.account.connections = 2
    sandbox.stocks_plan = "starter"
    with ExitStack() as stack:
        clients = [stack.enter_context(streaming(sandbox, "AM.AAPL", path="/stocks")) for _ in range(3)]
        assert clients[0].end() == (1008, "")
        assert clients[1].silent()
        assert clients[2].silent()


def test_a_reader_that_is_too_slow_is_ended(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assetbatch.sandbox.stream.MOST_UNREAD_BYTES", 500_000)
    with connected(sandbox, max_queue=1, close_timeout=0.1) as client:
        client.authenticate()
        client.send("subscribe", "C.*")
        sandbox.stream.rate = 1_000
        (session,) = sandbox.stream.open()
        wait_until(lambda: session.ended_by)
        assert session.ended_by == "slow_consumer"
        wait_until(lambda: not session.is_open)


def test_a_server_that_runs_for_days_keeps_no_list_of_connections(clock: Clock) -> None:
    with Sandbox(clock=clock, keep_arrivals=False) as sandbox:
        with streaming(sandbox, "C.EUR/USD"):
            assert len(sandbox.stream.sessions) == 1
        wait_until(lambda: not sandbox.stream.sessions)


def test_drop_close_and_send_act_on_what_stands_now(sandbox: Sandbox) -> None:
    assert sandbox.stream.drop() == 0
    with streaming(sandbox, "C.EUR/USD") as forex, streaming(sandbox, "XT.BTC-USD", path="/crypto") as crypto:
        assert sandbox.stream.send('[{"ev":"C","odd":NaN}]', cluster="forex") == 1
        assert "odd" in forex.until(lambda event: event["ev"] == "C" and "odd" in event)
        assert sandbox.stream.drop("forex") == 1
        assert forex.end() == (1006, "")
        assert sandbox.stream.close(1012, "restart") == 1
        assert crypto.end() == (1012, "restart")
    with streaming(sandbox, "C.EUR/USD") as client:
        assert sandbox.stream.expel("force_disconnect", "bye") == 1
        assert client.end() == (1008, "")
        assert client.status() == ("force_disconnect", "bye")
    assert [session.ended_by for session in sandbox.stream.sessions] == ["drop", "close", "force_disconnect"]


def test_what_a_client_closes_with_is_noted_and_a_client_that_is_killed_too(sandbox: Sandbox) -> None:
    with connected(sandbox) as client:
        client.connection.close(3001, "enough")
    with connected(sandbox) as client:
        client.receive()
        client.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.connection.socket.close()
    wait_until(lambda: not sandbox.stream.open())
    assert [session.close_code for session in sandbox.stream.sessions] == [3001, 1006]


def test_another_path_is_not_found(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidStatus) as caught, connected(sandbox, "/options"):
        pass
    assert caught.value.response.status_code == 404


def test_it_stops_with_the_sandbox_and_starts_again_at_the_same_address(clock: Clock) -> None:
    sandbox = Sandbox(clock=clock)
    url = sandbox.stream.url
    for _ in range(2):
        with sandbox:
            with streaming(sandbox, "C.EUR/USD") as client:
                sandbox.stop()
                assert client.end() == (1006, "")
            assert sandbox.stream.sessions[-1].ended_by == "stop"
            sandbox.start()
            assert sandbox.stream.url == url
    sandbox.stop()
    with pytest.raises(ConnectionRefusedError), connected(sandbox):
        pass


def test_a_sandbox_whose_stream_was_never_served_lets_go_of_its_address() -> None:
    sandbox = Sandbox()
    port = int(sandbox.stream.url.rpartition(":")[2])
    with Sandbox(stream_port=port) as other:
        with pytest.raises(OSError, match="in use"):
            _ = other.stream
        sandbox.stop()
        assert other.stream.url == sandbox.stream.url


def test_it_listens_on_ipv6() -> None:
    with Sandbox(host="::1") as sandbox, connected(sandbox) as client:
        assert sandbox.stream.url.startswith("ws://[::1]:")
        client.authenticate()


def test_an_answer_is_json_without_blanks(sandbox: Sandbox) -> None:
    with connected(sandbox) as client:
        text = client.connection.recv(timeout=10)
        assert text == json.dumps(json.loads(text), separators=(",", ":"))


def test_without_its_stream_a_sandbox_does_not_load_the_library() -> None:
    script = "import sys; from assetbatch.sandbox.server import Sandbox; Sandbox().stop(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "websockets" not in done.stdout.split()
