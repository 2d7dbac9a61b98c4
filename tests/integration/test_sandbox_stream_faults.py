"""Every word of misbehaviour of the stream, seen from the client's end of a real connection."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from assetbatch.sandbox.faults import KINDS, OTHER_TICKER, ROW_CHANGES, STREAM_KINDS, Faults
from assetbatch.sandbox.server import Sandbox
from assetbatch.sandbox.session import NO_REQUEST, NO_WEBSOCKET, TOO_MANY, WRONG_KEY
from assetbatch.sandbox.stream_faults import spoiled
from tests.conftest import wait_until
from tests.streaming import SECONDS, Client, Clock, connected, streaming

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(clock=clock, stream_rate=4) as sandbox:
        yield sandbox


def lag_ms(clock: Clock, event: dict[str, Any]) -> float:
    return clock().timestamp() * 1000 - float(event["t"])


def falls_silent(sandbox: Sandbox, client: Client) -> None:
    (session,) = sandbox.stream.open()
    wait_until(lambda: session.is_mute)
    wait_until(lambda: client.silent(0.8))


def test_words_of_the_stream_are_words_of_the_sandbox_and_are_no_matter_of_http(sandbox: Sandbox) -> None:
    assert set(KINDS) >= STREAM_KINDS
    sandbox.fail = [word + ":EUR@0.5" for word in STREAM_KINDS]
    with pytest.raises(ValueError, match="ws-drop"):
        sandbox.fail = ["ws-nonsense"]


@pytest.mark.parametrize(("word", "status"), [("ws-403", 403), ("ws-502", 502)])
def test_an_upgrade_that_is_refused(sandbox: Sandbox, word: str, status: int) -> None:
    sandbox.fail = [f"{word}:crypto"]
    with pytest.raises(InvalidStatus) as caught, connected(sandbox, "/crypto"):
        pass
    assert caught.value.response.status_code == status
    with connected(sandbox, "/forex") as client:
        client.authenticate()
    assert [session.path for session in sandbox.stream.sessions] == ["/forex"]


def test_an_upgrade_that_is_never_answered_and_a_stop_in_the_middle_of_it(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-mute-upgrade"]
    with pytest.raises(TimeoutError), connected(sandbox, open_timeout=0.5):
        pass
    begin = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - begin < 2


def test_mute_before_the_greeting(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-mute-connected"]
    sandbox.stream.account.auth_seconds = 0.1
    with connected(sandbox) as client:
        client.send("auth", "sandbox")
        assert client.silent(0.5)
        sandbox.stream.drop()
        assert client.end() == (1006, "")


def test_mute_after_the_key(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-mute-auth"]
    sandbox.stream.account.auth_seconds = 0.1
    with connected(sandbox) as client:
        assert client.status()[0] == "connected"
        client.send("auth", "sandbox")
        assert client.silent(0.5)


def test_mute_after_the_subscription(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-mute-subscribe"]
    with connected(sandbox) as client:
        client.authenticate()
        client.send("subscribe", "C.EUR/USD")
        assert client.silent(1)


def test_a_connection_that_falls_silent_still_answers_pings_and_one_that_is_dead_does_not(sandbox: Sandbox) -> None:
    for word, answers in (("ws-mute", True), ("ws-dead", False)):
        sandbox.fail = []
        with streaming(sandbox, "C.EUR/USD", close_timeout=0.1) as client:
            client.event("C")
            sandbox.fail = [word]
            falls_silent(sandbox, client)
            assert client.connection.ping().wait(SECONDS if answers else 0.5) is answers
            sandbox.stream.drop()
        wait_until(lambda: not sandbox.stream.open())


def test_mute_now(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.EUR/USD") as client:
        client.event("C")
        assert sandbox.stream.mute("forex") == 1
        falls_silent(sandbox, client)


def test_a_wrong_key(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-auth-failed"]
    with connected(sandbox) as client:
        client.receive()
        client.send("auth", "sandbox")
        assert client.status() == ("auth_failed", WRONG_KEY)
        assert client.end() == (1006, "")


def test_a_plan_without_a_cluster(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-no-plan:crypto"]
    with connected(sandbox, "/crypto") as client:
        client.receive()
        client.send("auth", "sandbox")
        assert client.status() == ("auth_failed", NO_WEBSOCKET)
        assert client.end() == (1006, "")
    with streaming(sandbox, "C.EUR/USD"):
        pass


def test_no_patience(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-auth-timeout"]
    with connected(sandbox) as client:
        client.receive()
        assert client.status() == ("auth_timeout", NO_REQUEST)
        assert client.end() == (1006, "")


def test_a_channel_that_is_not_in_the_plan_and_one_without_an_answer(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-not-authorized:CA.", "ws-no-answer:GBP"]
    with connected(sandbox) as client:
        client.authenticate()
        client.send("subscribe", "CA.EUR/USD,C.GBP/USD,C.EUR/USD")
        assert client.status() == ("error", "not authorized")
        assert client.status() == ("success", "subscribed to: C.EUR/USD")
        assert {client.event("C")["p"] for _ in range(6)} == {"EUR/USD"}


def test_too_many_connections_are_told_after_the_subscription(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-max-connections"]
    with streaming(sandbox, "C.EUR/USD") as client:
        assert client.end() == (1008, "")
        assert client.status() == ("max_connections", TOO_MANY)


@pytest.mark.parametrize(
    ("word", "code", "status"),
    [
        ("ws-drop", 1006, ""),
        ("ws-close-1000", 1000, ""),
        ("ws-close-1001", 1001, ""),
        ("ws-close-1008", 1008, ""),
        ("ws-close-1012", 1012, ""),
        ("ws-slow-consumer", 1008, "slow_consumer"),
        ("ws-force-disconnect", 1008, "force_disconnect"),
    ],
)
def test_what_ends_a_connection_a_second_after_its_subscription(
    sandbox: Sandbox, word: str, code: int, status: str
) -> None:
    sandbox.fail = [f"{word}:forex"]
    begin = time.monotonic()
    with streaming(sandbox, "C.EUR/USD") as client, streaming(sandbox, "XT.BTC-USD", path="/crypto") as crypto:
        client.event("C")
        assert client.end() == (code, "")
        assert time.monotonic() - begin > 0.9
        told = [event["status"] for event in client.unread if event["ev"] == "status"]
        assert told == ([status] if status else [])
        crypto.event("XT")


def test_what_ends_connections_now_and_then_is_drawn_each_second(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-drop@0"]
    with streaming(sandbox, "C.EUR/USD") as client:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            client.event("C")
        sandbox.fail = ["ws-drop@0.99"]
        assert client.end() == (1006, "")


def test_a_slow_server(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.fail = ["ws-slow"]
    begin = time.monotonic()
    with connected(sandbox) as client:
        client.receive()
        assert time.monotonic() - begin >= 2
        client.send("auth", "sandbox")
        client.receive()
        assert time.monotonic() - begin >= 4
        client.send("subscribe", "C.EUR/USD")
        assert client.status()[0] == "success"
        assert [lag_ms(clock, client.event("C")) > 1_999 for _ in range(4)] == [True] * 4
        sandbox.stream.expel("force_disconnect", "late")
        assert client.end() == (1008, "")
        assert client.until(lambda event: event["ev"] == "status")["message"] == "late"


def test_a_frame_of_two_mebibytes(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-big"]
    with streaming(sandbox, "C.EUR/USD", max_size=3 * 1024 * 1024) as client:
        texts = [""]
        while len(texts[-1]) < 2 * 1024 * 1024:
            texts.append(str(client.connection.recv(timeout=10)))
        assert [event["p"] for event in json.loads(texts[-1])] == ["EUR/USD"]
        client.event("C")
    with streaming(sandbox, "C.EUR/USD") as client:
        with pytest.raises(ConnectionClosed):
            client.until(lambda _: False)
        session = sandbox.stream.sessions[-1]
        wait_until(lambda: not session.is_open)
        assert (session.close_code, session.ended_by) == (1009, "")


def test_a_frame_that_is_no_json(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-garbage"]
    with streaming(sandbox, "C.EUR/USD") as client:
        with pytest.raises(json.JSONDecodeError):
            client.until(lambda _: False)
        client.event("C")


def test_a_frame_mixes_statuses_and_data_of_several_channels(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-mixed"]
    with streaming(sandbox, "XT.BTC-USD", "XQ.BTC-USD", path="/crypto") as client:
        client.event("XQ")
    assert ["status", "status", "XT", "XQ"] in [[event["ev"] for event in frame] for frame in client.frames]
    with streaming(sandbox, "C.NO/PE") as client:
        assert client.silent()


def test_a_pair_that_is_confirmed_and_silent(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-silent:EUR/"]
    with streaming(sandbox, "C.EUR/USD", "C.GBP/USD") as client:
        assert {client.event("C")["p"] for _ in range(6)} == {"GBP/USD"}


def first(sandbox: Sandbox, word: str, channel: str = "C") -> dict[str, Any]:
    """Return the first event of EUR/USD or BTC-USD that goes wrong, beside another pair's that does not."""
    sandbox.fail = [word]
    if channel.startswith("C"):
        with streaming(sandbox, f"{channel}.EUR/USD", "C.GBP/USD") as client:
            sound = client.until(lambda event: "GBP/USD" in event.values())
            assert (type(sound["a"]), type(sound["t"])) == (float, int)
            return client.until(lambda event: event["ev"] == channel and "GBP/USD" not in event.values())
    with streaming(sandbox, f"{channel}.BTC-USD", path="/crypto") as client:
        return client.event(channel)


def test_values_that_are_no_prices(sandbox: Sandbox) -> None:
    zero = first(sandbox, "ws-zero:EUR/USD")
    assert (zero["a"], zero["b"]) == (0, 0)
    assert zero["t"] > 10**12
    assert math.isnan(first(sandbox, "ws-nan:EUR")["a"])
    assert first(sandbox, "ws-negative:EUR")["a"] < 0
    assert first(sandbox, "ws-huge:EUR")["b"] == math.inf
    assert {"a", "b"} & first(sandbox, "ws-missing:EUR").keys() == set()
    assert first(sandbox, "ws-wrong-ticker:EUR")["p"] == OTHER_TICKER


def test_values_off_their_schema(sandbox: Sandbox) -> None:
    assert isinstance(first(sandbox, "ws-off-schema:EUR")["a"], dict)
    strings = first(sandbox, "ws-strings:EUR")
    assert isinstance(strings["a"], str)
    assert isinstance(strings["t"], str)
    assert isinstance(first(sandbox, "ws-float:EUR")["t"], float)
    trade = first(sandbox, "ws-off-schema", "XT")
    assert isinstance(trade["p"], dict)
    assert isinstance(first(sandbox, "ws-float", "XAS")["z"], float)
    exact = first(sandbox, "ws-exponent", "XQ")
    assert exact["bp"] > 90_000


def test_any_two_at_once_keep_no_event_from_being_sent(sandbox: Sandbox, clock: Clock) -> None:
    with streaming(sandbox, "CA.EUR/USD", "C.EUR/USD") as client:
        quote = client.event("C")
        (session,) = sandbox.stream.open()
        begins = int(clock().timestamp() // 60 * 60) * 1000
        figures = dict.fromkeys(("o", "h", "l", "c"), 1.08) | {"v": 12, "s": begins, "e": begins + 60_000}
        events = [quote, {"ev": "CA", "pair": "EUR/USD", **figures}]
        changes = sorted(f"ws-{kind}" for kind in [*ROW_CHANGES, "past", "off-schema", "float", "revised"])
        for pair in combinations(changes, 2):
            assert len(spoiled(session, Faults(pair, 0), events, begins)) >= 2, pair


def test_times_that_are_wrong(sandbox: Sandbox, clock: Clock) -> None:
    assert -HOUR_MS - 5_000 < lag_ms(clock, first(sandbox, "ws-future:EUR")) < -HOUR_MS + 5_000
    assert HOUR_MS - 5_000 < lag_ms(clock, first(sandbox, "ws-past:EUR")) < HOUR_MS + 5_000
    second = first(sandbox, "ws-past", "XAS")
    assert second["e"] - second["s"] == 1_000


def test_duplicates(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-duplicate"]
    with streaming(sandbox, "C.EUR/USD") as client:
        assert client.event("C") == client.event("C")
        assert client.event("C") == client.event("C")


def test_an_older_quote_after_a_newer_one(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-unordered"]
    with streaming(sandbox, "C.EUR/USD") as client:
        first, newer, older = (client.event("C") for _ in range(3))
    assert older == first
    assert newer["t"] > older["t"]


def test_a_minute_is_sent_again_with_other_figures(sandbox: Sandbox, clock: Clock) -> None:
    sandbox.fail = ["ws-revised:XA."]
    with streaming(sandbox, "XA.BTC-USD", "XT.BTC-USD", path="/crypto") as client:
        clock.forward(minutes=1)
        early, late = client.event("XA"), client.event("XA")
    assert (early["s"], early["e"], early["o"], early["h"], early["l"]) == tuple(late[key] for key in "seohl")
    assert early["c"] != late["c"]
    assert early["v"] == late["v"] / 2


def test_an_event_of_a_kind_that_nobody_knows(sandbox: Sandbox) -> None:
    sandbox.fail = ["ws-unknown-event"]
    with streaming(sandbox, "C.EUR/USD") as client:
        assert client.event("ZZ")["sym"] == "EUR/USD"
        client.event("C")


def test_what_goes_wrong_is_set_while_connections_stand_and_a_wrong_word_is_told(sandbox: Sandbox) -> None:
    with streaming(sandbox, "C.EUR/USD") as client:
        sandbox.fail.append("ws-off-schema")
        client.until(lambda event: isinstance(event.get("a"), dict))
        sandbox.fail.clear()
        client.until(lambda event: isinstance(event.get("a"), float))
        sandbox.fail.append("ws-nonsense")
        code, reason = client.end()
    assert code == 1011
    assert "ws-nonsense" in reason
    with pytest.raises(InvalidStatus) as caught, connected(sandbox):
        pass
    assert caught.value.response.status_code == 500


def test_every_word_is_tried_here() -> None:
    tried = set(re.findall(r"""["'](ws-[a-z0-9-]+)(?=["':@])""", Path(__file__).read_text()))
    assert not STREAM_KINDS - tried
