"""The client against real sockets: bounded in time and memory, one request a call, and honest about what was sent."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest

from assetbatch.boottime import boot_time
from assetbatch.failures import CallError, FailureKind
from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.client import Client
from assetbatch.provider.flight import HeldUpError
from assetbatch.provider.request import Request
from assetbatch.provider.results import Answers
from assetbatch.sandbox.breakdowns import packed_bomb
from assetbatch.sandbox.server import Sandbox
from tests.asking import ask as ask_with
from tests.conftest import ran, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


KEY = "7Qk_Zp/4+T%x9mB2"
GOLD = Asset("XAUUSD", "C:XAUUSD", AssetType.FOREX, Role.PRIORITY, 1, 300)
BITCOIN = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 2, 300)
CALL = endpoints.prices(Call(CallKind.SNAPSHOT, (GOLD, BITCOIN)))
SINGLE = endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (BITCOIN,)))
CONNECT_SECONDS = 0.2
SECONDS = 0.4
# What a machine under load may add to a time-out.
SLACK_SECONDS = 1.5
MOST_MEMORY_MIB = 200


def good_body() -> bytes:
    now_ns = time.time_ns()
    rows = [
        {"ticker": "C:XAUUSD", "last_quote": {"bid": 2104.9, "ask": 2105.1, "last_updated": now_ns}},
        {"ticker": "X:BTCUSD", "last_trade": {"price": 51500.25, "participant_timestamp": now_ns}},
    ]
    return json.dumps({"status": "OK", "request_id": "x", "results": rows}).encode()


def http(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    fields = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Some Words\r\n{lines}\r\n".encode("latin-1") + body


class Server:
    """A socket server by hand: `answer(connection, request)` does what it likes; True keeps the connection."""

    def __init__(
        self,
        answer: Callable[[socket.socket, bytes], object],
        tls: ssl.SSLContext | None = None,
        greet: Callable[[Server, socket.socket], object] | None = None,
    ) -> None:
        self.answer = answer
        self.tls = tls
        self.greet = greet
        self.requests: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.stopping = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for each in (self.listener, *self.connections):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            each.close()
        self.thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self.greet is not None:
                self.greet(self, connection)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.connections.append(connection)
            with connection:
                rest = b""
                while True:
                    while b"\r\n\r\n" not in rest:
                        more = connection.recv(65_536)
                        if not more:
                            return
                        rest += more
                    request, _, rest = rest.partition(b"\r\n\r\n")
                    self.requests.append(request)
                    if self.answer(connection, request) is not True:
                        return

    def drip(self, connection: socket.socket, data: bytes) -> None:
        """Send a byte now and then, and then nothing."""
        for place in range(len(data)):
            if self.stopping.wait(0.05):
                return
            connection.sendall(data[place : place + 1])
        self.stopping.wait(30)


def serve(data: bytes) -> Server:
    """A server with one answer for all, on connections that stay open."""

    def answer(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(data)
        return True

    return Server(answer)


def client(url: str, *, seconds: float = SECONDS) -> Client:
    return Client(base_url=url, api_key=KEY, connect_timeout_seconds=CONNECT_SECONDS, timeout_seconds=seconds)


def ask(asker: Client | str, call: Request[Answers] = CALL, **options: Any) -> Answers:
    asker = client(asker, seconds=10) if isinstance(asker, str) else asker
    return ask_with(asker, call, **options)


def failing(asker: Client | str, call: Request[Answers] = CALL, **options: Any) -> CallError:
    began = time.monotonic()
    with pytest.raises(CallError) as caught:
        ask(asker, call, **options)
    error = caught.value
    assert time.monotonic() - began < CONNECT_SECONDS + 10 + SLACK_SECONDS
    assert error.reason.isprintable()
    assert KEY not in error.reason
    assert str(error) == error.reason
    return error


def requests_under_way() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "request"]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# What is asked, and a good answer


def test_one_request_with_the_key_in_its_header_alone() -> None:
    with serve(http(good_body())) as server:
        found = ask(server.url)

    assert {symbol: quote.last_price for symbol, quote in found.quotes.items()} == {
        "XAUUSD": Decimal("2104.9"),
        "BTCUSD": Decimal("51500.25"),
    }
    (request,) = server.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /v3/snapshot?ticker.any_of=C%3AXAUUSD%2CX%3ABTCUSD&limit=250 HTTP/1.1"
    assert f"Authorization: Bearer {KEY}" in lines
    assert "Accept-Encoding: gzip" in lines
    assert request.count(KEY.encode()) == 1


def test_an_unfinished_path_in_the_base_url_is_kept() -> None:
    with serve(http(good_body())) as server:
        ask(server.url + "/through/here/")

    assert server.requests[0].startswith(b"GET /through/here/v3/snapshot?")


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_a_packed_answer_in_pieces_is_one_answer(pieces: int) -> None:
    packed = gzip.compress(good_body())

    def answer(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        for place in range(0, len(packed), pieces):
            piece = packed[place : place + pieces]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    with Server(answer) as server:
        assert len(ask(server.url).quotes) == 2


# Refusals, one test a kind

PRICING = "Please upgrade your plan at https://massive.com/pricing"


def vendor(status: str, **words: str) -> bytes:
    return json.dumps({"status": status, "request_id": "x"} | words).encode()


NGINX = b"<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body><hr><center>nginx</center></body></html>"
# What each status and word means stands in the unit tests of answers; here it comes over a socket, body and all.
TABLE = [
    (401, vendor("ERROR", error="Unknown API Key"), FailureKind.KEY_REFUSED),
    (403, vendor("NOT_AUTHORIZED", message=f"You are not entitled to this data. {PRICING}"), FailureKind.NOT_ENTITLED),
    (403, b"<html>Blocked by the firewall</html>", FailureKind.MALFORMED),
    (200, vendor("NOT_AUTHORIZED", message="You are not entitled to this data."), FailureKind.NOT_ENTITLED),
    (200, vendor("ERROR", error="Something else"), FailureKind.MALFORMED),
    (400, vendor("ERROR", error="Failed to parse query parameters"), FailureKind.BAD_REQUEST),
    (404, b"404 page not found\n", FailureKind.NOT_FOUND),
    (429, vendor("ERROR", error="You've exceeded the maximum requests per minute"), FailureKind.RATE_LIMITED),
    (429, b"", FailureKind.RATE_LIMITED),
    (504, NGINX, FailureKind.SERVER_ERROR),
    # Not the vendor's, but what may stand in between.
    (103, b"", FailureKind.MALFORMED),
    (204, b"", FailureKind.MALFORMED),
    (206, good_body(), FailureKind.MALFORMED),
    (413, NGINX, FailureKind.TOO_MANY),
    (200, vendor("ERROR", error="You've exceeded the maximum requests per minute"), FailureKind.RATE_LIMITED),
    (999, good_body(), FailureKind.MALFORMED),
]


@pytest.mark.parametrize(("status", "body", "kind"), TABLE)
def test_each_refusal_is_its_kind_and_asked_once(status: int, body: bytes, kind: FailureKind) -> None:
    with serve(http(body, status)) as server:
        error = failing(server.url)

    assert (error.kind, error.sent, error.answered) == (kind, True, True)
    assert error.http_status in {status, None if kind is FailureKind.MALFORMED else 403}
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 404, 429, 500])
@pytest.mark.parametrize(
    "broken",
    [
        lambda status: http(b'{"error": "x"}', status)[:-5],
        lambda status: http(b"no gzip", status, Content_Encoding="gzip"),
        lambda status: http(b"[" * 200_000, status),
        lambda status: http(b"x" * 1_000_000, status),
        lambda status: http(b"{}", status, Content_Encoding="gzip, gzip, gzip, gzip, gzip, gzip"),
    ],
    ids=["cut", "no gzip", "nested", "large", "six times packed"],
)
def test_the_status_counts_though_its_words_cannot_be_read(status: int, broken: Callable[[int], bytes]) -> None:
    with Server(lambda connection, _: connection.sendall(broken(status))) as server:
        error = failing(server.url)

    assert (error.http_status, error.answered) == (status, True)
    assert error.reason == f"HTTP {status}: no message"


# Redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (None, "nowhere"),
        ("", "nowhere"),
        ("http://127.0.0.1:9/elsewhere?and=more", "http://127.0.0.1:9/elsewhere"),
        ("/v3/snapshot", "/v3/snapshot"),
        ("http://[broken", "http://[broken"),
        ("\x1b[31m", "?[31m"),
    ],
)
def test_no_redirect_is_followed(status: int, location: str | None, shown: str) -> None:
    headers = {} if location is None else {"Location": location}
    with serve(http(b"", status, **headers)) as server:
        error = failing(server.url)

    assert (error.kind, error.http_status, error.answered) == (FailureKind.REDIRECTED, status, True)
    assert error.reason.startswith(f"{server.url} answered with HTTP {status}")
    assert error.reason.endswith(f"to {shown}")
    assert "provider.base_url" in error.hint
    assert len(server.requests) == 1


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("86400", 86400),
        ("9" * 400, float("inf")),
        ("Mon, 23 Nov 2026 08:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 07:59:00 GMT", -60),
        ("Monday, 23-Nov-26 08:00:30 GMT", 30),
        ("Mon, 01 Jan 9999 00:00:00 GMT", 251_575_344_000),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("1_0", None),
        ("soon", None),
        ("\xb2", None),
        ("5, 5", None),
        ("Mon, 01 Jan 99999999999999999999999 00:00:00 GMT", None),
        ("Mon, 23 Nov 2026 08:00:30 +99999999999999999999", None),
        ("Mon, 31 Feb 2026 08:00:30 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    # The server's clock may be years off this one: its date is held against its own.
    with serve(http(b"", 429, Date="Mon, 23 Nov 2026 08:00:00 GMT", Retry_After=value)) as server:
        error = failing(server.url)

    assert (error.kind, error.retry_after_seconds) == (FailureKind.RATE_LIMITED, seconds)


@pytest.mark.parametrize(
    "headers", [{}, {"Date": "whenever"}, {"Date": "Mon, 23 Nov 99999999999999999999 08:00:00 GMT"}]
)
def test_a_retry_after_that_cannot_be_counted_from_anything(headers: dict[str, str]) -> None:
    with serve(http(b"", 429, Retry_After="Mon, 23 Nov 2026 08:00:30 GMT", **headers)) as server:
        assert failing(server.url).retry_after_seconds is None


# Time


def endless(start: bytes, again: bytes) -> Callable[[Server, socket.socket], None]:
    def answer(_server: Server, connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)

    return answer


def dripping(start: bytes, rest: bytes) -> Callable[[Server, socket.socket], None]:
    def answer(server: Server, connection: socket.socket) -> None:
        connection.sendall(start)
        server.drip(connection, rest)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
PACKED = OK + b"Content-Encoding: gzip\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW: dict[str, Callable[[Server, socket.socket], object]] = {
    "silent": lambda server, _: server.stopping.wait(30),
    "headers, then silent": dripping(http(b"{}")[:-2], b""),
    "dripped headers": dripping(b"", OK + b"X-Long: " + b"x" * 2000),
    "dripped body": dripping(OK + b"\r\n", b" " * 2000),
    "dripped chunks": dripping(CHUNKED, b"1\r\n \r\n" * 2000),
    "dripped chunk head": dripping(CHUNKED + b"1;a=", b"x" * 2000),
    "dripped gzip": dripping(PACKED + b"\r\n", gzip.compress(os.urandom(2000))),
    "endless 100": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "endless trailers": endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: b\r\n" * 100),
    "gzip of nothing": endless(PACKED + b"\r\n", gzip.compress(b"") * 1000),
}


@pytest.mark.parametrize("name", SLOW)
def test_an_answer_ends_in_time_and_so_does_its_thread(name: str) -> None:
    slow = SLOW[name]
    with Server(lambda connection, _: slow(server, connection)) as server:
        began = time.monotonic()
        error = failing(client(server.url))
        took = time.monotonic() - began
        wait_until(lambda: not requests_under_way())

    assert (error.kind, error.sent, error.answered) == (FailureKind.TIMEOUT, True, False)
    assert took < CONNECT_SECONDS + SECONDS + SLACK_SECONDS
    assert len(server.requests) == 1


@pytest.mark.parametrize("lines", [b"A: b\r\n" * 100, b"A" * 65_536], ids=["many", "long"])
def test_endless_headers_end_at_once(lines: bytes) -> None:
    with Server(lambda connection, _: endless(OK, lines)(server, connection)) as server:
        error = failing(client(server.url))

    assert (error.kind, error.sent, error.answered) == (FailureKind.SERVER_ERROR, True, False)


def test_after_a_time_out_the_next_call_is_whole() -> None:
    def answer(connection: socket.socket, _request: bytes) -> bool:
        if len(server.requests) == 1:
            server.stopping.wait(30)
        connection.sendall(http(good_body()))
        return True

    with Server(answer) as server:
        asker = client(server.url)
        assert failing(asker).kind is FailureKind.TIMEOUT
        assert len(ask(asker).quotes) == 2
        assert len(server.requests) == 2


# Sent or not


def test_a_refused_connection_sends_nothing() -> None:
    error = failing("http://127.0.0.1:9")

    assert (error.kind, error.sent, error.answered) == (FailureKind.UNREACHABLE, False, False)
    assert "Connection refused" in error.reason


def test_a_name_that_does_not_exist_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    error = failing("http://api.example")

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert "Name or service not known" in error.reason


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "\xe4.example", "[::1"])
def test_a_name_that_cannot_exist_sends_nothing(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if host.startswith("["):
        with pytest.raises(ValueError, match="IPv6"):
            client(f"http://{host}")
        return
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [])

    assert (failing(f"http://{host}").kind, failing(f"http://{host}").sent) == (FailureKind.UNREACHABLE, False)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A DNS that answers when the event is set."""
    answered = threading.Event()
    real = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        answered.wait(30)
        return real(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield answered
    answered.set()
    wait_until(lambda: not requests_under_way())


def test_a_slow_name_ends_in_time_and_what_was_given_up_never_leaves(slow_names: threading.Event) -> None:
    with serve(http(good_body())) as server:
        error = failing(client(server.url))
        assert (error.kind, error.sent) == (FailureKind.TIMEOUT, False)

        slow_names.set()
        wait_until(lambda: not requests_under_way())
        assert server.requests == []


def test_what_the_waiting_gave_up_early_never_leaves(slow_names: threading.Event) -> None:
    def interrupted(_done: threading.Event, _seconds: float) -> None:
        raise KeyboardInterrupt

    with serve(http(good_body())) as server:
        asker = client(server.url, seconds=30)
        error = failing(asker, wait=lambda done, _seconds: done.wait(0.05))
        assert (error.kind, error.sent) == (FailureKind.TIMEOUT, False)
        with pytest.raises(KeyboardInterrupt):
            ask(asker, wait=interrupted)

        slow_names.set()
        wait_until(lambda: not requests_under_way())
        assert server.requests == []


def test_past_its_time_to_leave_a_call_does_not_even_connect() -> None:
    with serve(http(good_body())) as server:
        for _ in range(3):
            with pytest.raises(HeldUpError):
                ask(server.url, leave_by=boot_time() - 0.001)
        assert server.connections == []


@pytest.mark.parametrize("words", [(429, b""), (200, vendor("ERROR", error="You've exceeded the maximum requests"))])
def test_after_one_too_many_no_other_leaves_that_shares_its_brake_and_nobody_is_blamed(
    words: tuple[int, bytes],
) -> None:
    status, body = words
    brake, refused = threading.Event(), threading.Event()
    with serve(http(body, status, Retry_After="7")) as server:
        first, second = client(server.url), client(server.url)
        asked = first.begin(CALL, refused.set, brake=brake)
        waiting = second.begin(CALL, lambda: None, after_seconds=0.5, brake=brake)
        assert refused.wait(SECONDS)
        with pytest.raises(CallError) as caught:
            first.finish(asked, now=datetime.now(UTC))
        assert (caught.value.kind, caught.value.retry_after_seconds) == (FailureKind.RATE_LIMITED, 7)
        for _ in range(3):
            assert waiting.flight.is_over
            with pytest.raises(HeldUpError):
                second.finish(waiting, now=datetime.now(UTC))
            waiting = second.begin(CALL, lambda: None, brake=brake)
        time.sleep(0.6)
        assert len(server.requests) == 1


def test_an_answer_may_come_after_the_time_to_leave() -> None:
    def answer(connection: socket.socket, _request: bytes) -> None:
        time.sleep(0.6)
        connection.sendall(http(good_body()))

    with Server(answer) as server:
        assert len(ask(server.url, leave_by=boot_time() + 0.3).quotes) == 2


def test_a_slow_name_holds_no_slot_and_is_told_when_it_is_slow_twice(slow_names: threading.Event) -> None:
    with serve(http(good_body())) as server:
        asker = client(server.url, seconds=20)
        began = time.monotonic()
        # The first time nobody knows whether it was the network, or this process that stood still.
        with pytest.raises(HeldUpError):
            ask(asker, leave_by=boot_time() + 0.1)
        error = failing(asker, leave_by=boot_time() + 0.1)
        assert time.monotonic() - began < 0.2 + SLACK_SECONDS
        assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)

        slow_names.set()
        wait_until(lambda: not requests_under_way())
        assert server.requests == []
        assert len(ask(asker, leave_by=boot_time() + 5).quotes) == 2


@pytest.mark.parametrize("late", [True, False])
def test_the_last_look_at_the_clock_is_after_the_handshake(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    leave_by = boot_time() + (0.1 if late else 10)
    with Server(
        lambda connection, _: connection.sendall(http(good_body())), tls, greet=lambda *_: time.sleep(0.15)
    ) as server:
        asker = client(server.url, seconds=5)
        done = threading.Event()
        asked = asker.begin(CALL, done.set, leave_by=leave_by)
        assert done.wait(5)
        if late:
            with pytest.raises(HeldUpError):
                asker.finish(asked, now=datetime.now(UTC))
        assert (asked.flight.sent, len(server.requests)) == (not late, int(not late))


def test_what_a_frozen_process_has_sent_its_system_drops_after_the_time_out() -> None:
    # Held open, and closed by the server only at its end.
    with Server(lambda *_: server.stopping.wait(30)) as server:
        asker = client(server.url, seconds=7)
        asked = asker.begin(CALL, lambda: None)
        wait_until(lambda: server.requests)
        through = asked.flight.through
        assert through is not None
        assert through.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        asker.give_up(asked)
        wait_until(lambda: not requests_under_way())


def test_giving_up_early_cuts_what_is_under_way() -> None:
    ended = threading.Event()

    def answer(connection: socket.socket, _request: bytes) -> None:
        assert connection.recv(1) == b""
        ended.set()

    with Server(answer) as server:
        error = failing(client(server.url, seconds=30), wait=lambda _done, _: wait_until(lambda: server.requests))

        assert (error.kind, error.sent, error.answered) == (FailureKind.TIMEOUT, True, False)
        assert ended.wait(5)


def reset(connection: socket.socket, sent: bytes = b"") -> None:
    connection.sendall(sent)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


BROKEN: dict[str, Callable[[socket.socket], object]] = {
    "closed": lambda _: None,
    "reset": reset,
    "half": lambda connection: connection.sendall(http(good_body())[:-40]),
    "half, then reset": lambda connection: reset(connection, http(good_body())[:-40]),
    "another protocol": lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"),
    "HTTP 0.9": lambda connection: connection.sendall(good_body()),
    "status": lambda connection: connection.sendall(b"HTTP/1.1 999999 x\r\n\r\n"),
    "chunk cut": lambda connection: connection.sendall(CHUNKED + b"50\r\n{}"),
    "chunk of no size": lambda connection: connection.sendall(CHUNKED + b"zz\r\n{}"),
    "chunk of a huge size": lambda connection: connection.sendall(CHUNKED + b"f" * 20 + b"\r\n{}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_was_sent_once_and_not_answered(name: str) -> None:
    with Server(lambda connection, _: BROKEN[name](connection)) as server:
        error = failing(server.url)

    assert (error.kind, error.sent, error.answered) == (FailureKind.SERVER_ERROR, True, False)
    assert error.reason.startswith("the connection broke: ")
    assert len(server.requests) == 1


MALFORMED = {
    "empty": http(b""),
    "html": http(b"<!DOCTYPE html><title>Guest network</title>"),
    "garbage": http(bytes(range(256))),
    "list": http(b"[]"),
    "nested": http(b'{"status":"OK","results":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "no gzip": http(good_body(), Content_Encoding="gzip"),
    "cut gzip": http(gzip.compress(good_body())[:-30], Content_Encoding="gzip"),
    "six times packed": http(good_body(), Content_Encoding="gzip, gzip, gzip, gzip, gzip, gzip"),
    "a packing that was not offered": http(b"\x28\xb5\x2f\xfd", Content_Encoding="br"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_answer_was_answered_all_the_same(name: str) -> None:
    with serve(MALFORMED[name]) as server:
        error = failing(server.url)

    assert (error.kind, error.sent, error.answered) == (FailureKind.MALFORMED, True, True)
    assert "check provider.base_url" in error.hint


# Connections


def test_calls_share_a_connection() -> None:
    with serve(http(good_body())) as server:
        asker = client(server.url)
        for _ in range(3):
            assert len(ask(asker).quotes) == 2

    assert (len(server.requests), len(server.connections)) == (3, 1)


def test_an_idle_connection_that_the_server_closed_spoils_no_call() -> None:
    with Server(lambda connection, _: connection.sendall(http(good_body()))) as server:
        asker = client(server.url)
        for number in range(1, 4):
            assert len(ask(asker).quotes) == 2
            wait_until(lambda: server.connections[-1].fileno() == -1)
            assert (len(server.requests), len(server.connections)) == (number, number)


def test_a_request_that_was_taken_and_not_answered_is_not_sent_twice() -> None:
    def answer(connection: socket.socket, _request: bytes) -> bool:
        if len(server.requests) == 2:
            return False
        connection.sendall(http(good_body()))
        return True

    with Server(answer) as server:
        asker = client(server.url)
        ask(asker)
        error = failing(asker)
        assert (error.kind, error.sent, error.answered) == (FailureKind.SERVER_ERROR, True, False)
        assert (len(server.requests), len(server.connections)) == (2, 1)
        assert len(ask(asker).quotes) == 2


def test_bytes_behind_an_answer_are_not_the_next_one() -> None:
    with serve(http(good_body()) + http(b'{"status": "OK", "results": []}')) as server:
        asker = client(server.url)
        for _ in range(3):
            assert len(ask(asker).quotes) == 2

    assert len(server.requests) == 3


# The environment


def test_netrc_does_not_replace_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password else\ndefault login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serve(http(good_body())) as server:
        ask(server.url)
        ask(server.url.replace("127.0.0.1", "user:password@127.0.0.1"))

    for request in server.requests:
        assert request.count(b"Authorization") == 1
        assert f"\r\nAuthorization: Bearer {KEY}".encode() in request


def test_a_proxy_does_not_replace_the_key_and_none_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(http(good_body())) as proxy, serve(http(good_body())) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//somebody:else@"))
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//somebody:else@"))
        ask("http://api.example")
        ask(server.url)

    assert (len(proxy.requests), len(server.requests)) == (1, 1)
    assert proxy.requests[0].startswith(b"GET http://api.example/v3/snapshot?")
    assert f"\r\nAuthorization: Bearer {KEY}".encode() in proxy.requests[0]
    assert b"Proxy-Authorization" not in server.requests[0]


def test_what_went_to_a_proxy_was_sent_and_not_past_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda *_: None) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        error = failing("http://api.example")
        assert (error.kind, error.sent, len(proxy.requests)) == (FailureKind.SERVER_ERROR, True, 1)
        with pytest.raises(HeldUpError):
            ask("http://api.example", leave_by=boot_time() - 1)
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("answer", [http(b"", 407), http(b"", 502), b"", b"nonsense\r\n\r\n"])
def test_a_proxy_that_does_not_let_through_sends_nothing(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda connection, _: connection.sendall(answer)) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url.replace("//", "//somebody:secretly@"))
        error = failing("https://api.example")

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert "secretly" not in error.reason
    (request,) = proxy.requests
    assert request.startswith(b"CONNECT api.example:443 ")
    assert KEY.encode() not in request


@pytest.mark.parametrize(
    "proxy", ["http://u:secretly@127.0.0.1:9", "http://u:secretly@[bad", "x://u:secretly@h", "http://", "socks5://h:1"]
)
def test_a_proxy_that_is_none_sends_nothing(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [])

    error = failing("https://api.example")

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert "secretly" not in error.reason


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine that nobody has signed, with its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", path, "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_name(f"{path.name}.crt").read_bytes())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_vouches_for_sends_nothing(tls: ssl.SSLContext) -> None:
    with Server(lambda connection, _: connection.sendall(http(good_body())), tls) as server:
        error = failing(server.url)

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert "CERTIFICATE_VERIFY_FAILED" in error.reason
    assert server.requests == []


def test_a_certificate_for_another_name_sends_nothing(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Server(lambda connection, _: connection.sendall(http(good_body())), tls) as server:
        assert len(ask(server.url).quotes) == 2
        error = failing(server.url.replace("127.0.0.1", "localhost"))

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert len(server.requests) == 1


def test_an_endless_encrypted_answer_ends_in_time_and_so_does_its_thread(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    flood = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    with Server(lambda connection, _: flood(server, connection), tls) as server:
        error = failing(client(server.url))
        wait_until(lambda: not requests_under_way())

    assert (error.kind, error.sent) == (FailureKind.TIMEOUT, True)


def test_a_handshake_that_never_ends_does() -> None:
    with Server(lambda *_: None, greet=lambda server, _: server.stopping.wait(30)) as server:
        began = time.monotonic()
        error = failing(client(server.url.replace("http:", "https:")))
        took = time.monotonic() - began

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)
    assert took < CONNECT_SECONDS + SECONDS + SLACK_SECONDS


def test_encryption_where_the_server_has_none_sends_nothing() -> None:
    with Server(lambda *_: None, greet=lambda _, connection: connection.sendall(http(b"", 400))) as server:
        error = failing(client(server.url.replace("http:", "https:")))

    assert (error.kind, error.sent) == (FailureKind.UNREACHABLE, False)


# The key


ECHOES = {
    "message": http(vendor("NOT_AUTHORIZED", message=f"you sent Authorization: Bearer {KEY}, go away"), 403),
    "error": http(vendor("ERROR", error=f"Unknown API Key {KEY}"), 401),
    "encoded": http(vendor("ERROR", error=f"/v3/snapshot?apiKey={quote(KEY, safe='')}"), 400),
    "status": http(vendor(f"Bearer {KEY}")),
    "long": http(vendor("ERROR", error="words " * 47 + f"Authorization: {KEY} " * 9), 400),
    "path": http(b"", 302, Location=f"http://elsewhere/{KEY}/x?apiKey={KEY}"),
    "protocol": f"Bearer {KEY}\r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_key_that_the_server_repeats_is_blotted_out(name: str) -> None:
    with Server(lambda connection, _: connection.sendall(ECHOES[name])) as server:
        error = failing(server.url)

    shown = f"{error.reason} {error} {error.args} {error.hint}"
    assert KEY not in shown
    assert quote(KEY, safe="") not in shown
    assert "7Qk_" not in shown


def test_a_key_repeated_in_a_row_is_blotted_out() -> None:
    rows = [
        {"ticker": "C:XAUUSD", "error": f"Bearer {KEY}", "message": f"Bearer {KEY}"},
        {"ticker": f"X:{KEY}"},
    ]
    with serve(http(json.dumps({"status": "OK", "results": rows}).encode())) as server:
        found = ask(server.url)

    assert found.failures == {
        "XAUUSD": (FailureKind.INVALID, "Bearer ***: Bearer ***"),
        "BTCUSD": (FailureKind.MISSING, "asked for X:BTCUSD, the answer has C:XAUUSD, X:***"),
    }


# Memory

MEBIBYTE = 2**20


def filled(unit: bytes, *, most: int = 60 * MEBIBYTE, values: int | None = None) -> bytes:
    """A legal document of so many bytes, or values."""
    marks = sum(unit.count(mark) for mark in (b",", b"[", b"{")) + 1
    times = most // (len(unit) + 1) if values is None else values // marks
    return b'{"status":"OK","results":[' + (unit + b",") * times + b"0]}"


# The heavy ones have the most values, and take seconds.
HEAVY = {"brackets, as many as are let in", "rows of many values that nobody knows"}
WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb": (lambda: http(packed_bomb(), Content_Encoding="gzip"), "too_large"),
    "bomb in a bomb": (lambda: http(gzip.compress(packed_bomb()), Content_Encoding="gzip, gzip"), "too_large"),
    "bomb with 302": (
        lambda: http(packed_bomb(), 302, Content_Encoding="gzip", Location="http://127.0.0.1:9"),
        "redirected",
    ),
    "60 MiB of numbers": (lambda: http(filled(b"0")), "too_large"),
    "brackets, as many as are let in": (lambda: http(filled(b"[" * 900 + b"]" * 900, values=7_900_000)), "missing"),
    "objects, as many as are let in": (lambda: http(filled(b'{"":0}', values=199_000)), "missing"),
    "a text, as long as is let in": (
        lambda: http(filled(b'"' + b"x" * (4 * MEBIBYTE - 100) + b'"', values=1)),
        "missing",
    ),
    "texts, as many as are let in": (lambda: http(filled(b'"' + b"x" * (3 * MEBIBYTE) + '😀"'.encode())), "too_large"),
    "rows of 60 MiB": (lambda: http(filled(b'{"x":"' + b"x" * 700 + '😀"}'.encode())), "missing"),
    "the largest of everything": (
        lambda: http(
            b'{"status":"OK","results":['
            + b'{"o":0,"h":0,"l":0,"c":0,"v":0,"vw":0,"n":0,"t":0},' * 50_000
            + (b'{"x":"' + b"x" * 3 * MEBIBYTE + b'"},') * 19
            + b"["
            + b"0," * 90_000
            + b"0]]}"
        ),
        "missing",
    ),
    "rows of many values that nobody knows": (
        lambda: http(filled(b"{" + b",".join(b'"x%d":0' % number for number in range(70)) + b"}", values=6_900_000)),
        "missing",
    ),
}
# The peak of this process's own memory: what getrusage tells of a child begins with its parent's.
ASK = """
import sys
from tests.integration.test_client import *
try:
    kind = ask(client(sys.argv[1], seconds=60)).failures["XAUUSD"][0]
except CallError as error:
    kind = error.kind
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(kind, int(peak) // 1024)
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in WEIGHTS]
)
def test_no_answer_takes_200_mebibytes(name: str) -> None:
    make, kind = WEIGHTS[name]
    with serve(make()) as server:
        done = ran([sys.executable, "-c", ASK, server.url], timeout=None)

    assert done.returncode == 0, done.stderr
    found, peak = done.stdout.split()
    assert found == kind
    assert 10 < int(peak) < MOST_MEMORY_MIB


# A page of as many 1-minute bars as there can be, asked for, read, and weighed.
PAGE = """
import sys
from datetime import UTC, datetime, timedelta
from assetbatch.model import CallKind, Span
from tests.integration.test_client import *
begin = datetime(2026, 1, 1, tzinfo=UTC)
span = Span(begin, begin + timedelta(minutes=50_000))
request = endpoints.bars(Call(CallKind.BARS, (BITCOIN,), span=span, minutes=1))
found = ask_with(client(sys.argv[1], seconds=60), request, now=lambda: datetime(2026, 3, 1, tzinfo=UTC))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(found.bars), int(peak) // 1024)
"""


@pytest.mark.parametrize(
    "more",
    [
        "",
        "".join(f', "unknown_field_{number}": 303067.65623321' for number in range(25)),
        ', "name": "Bitcöin €😀 \\u20ac \\ud83d\\ude00"',
        ', "x": {"y": [[{"z": {"o": 1, "t": 2}}]], "t": 1}',
        f', "x": "{"x" * 900}"',
    ],
    ids=["known", "many more", "characters", "nested", "long"],
)
def test_what_nobody_knows_of_50_000_bars_costs_no_more_than_its_bytes(more: str) -> None:
    rows = (
        f'{{"v": 303067.65623321, "vw": 987.45529, "o": 955.79, "c": 1009.475, "h": 1042.926, "l": 949.001,'
        f' "t": {1_767_225_600_000 + 60_000 * number}, "n": 1251{more}}}'
        for number in range(50_000)
    )
    body = f'{{"ticker": "X:BTCUSD", "resultsCount": 50000, "status": "OK", "results": [{", ".join(rows)}]}}'.encode()
    with serve(http(body)) as server:
        done = ran([sys.executable, "-c", PAGE, server.url], timeout=None)

    assert done.returncode == 0, done.stderr
    bars, peak = done.stdout.split()
    assert bars == "50000"
    # 122 MiB were seen for what is known, with python itself; with 50 MiB of a body, 158.
    assert int(peak) < 135 + (len(body) / MEBIBYTE - 8)


# The sandbox

WORDS = {
    "500": FailureKind.SERVER_ERROR,
    "timeout": FailureKind.TIMEOUT,
    "drip": FailureKind.TIMEOUT,
    "drip-headers": FailureKind.TIMEOUT,
    "reset": FailureKind.SERVER_ERROR,
    "garbage": FailureKind.MALFORMED,
    "half": FailureKind.MALFORMED,
    "nested": FailureKind.MALFORMED,
    "bomb": FailureKind.TOO_LARGE,
    "redirect": FailureKind.REDIRECTED,
    "403-in-200": FailureKind.NOT_ENTITLED,
    "403-today": FailureKind.NOT_YET,
    "429": FailureKind.RATE_LIMITED,
}


@pytest.fixture(scope="module")
def stand_in() -> Iterator[Sandbox]:
    with Sandbox(key=KEY) as server:
        yield server


@pytest.mark.parametrize("word", WORDS)
def test_each_breakdown_of_the_sandbox_is_its_kind(stand_in: Sandbox, word: str) -> None:
    stand_in.fail = [word]

    patient = WORDS[word] is not FailureKind.TIMEOUT

    assert failing(stand_in.url if patient else client(stand_in.url)).kind is WORDS[word]


@pytest.mark.parametrize("call", [CALL, SINGLE], ids=["unified", "single"])
@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((word, FailureKind.INVALID) for word in ("zero", "nan", "negative", "huge", "missing", "future", "strings")),
        *((word, FailureKind.MISSING) for word in ("drop", "wrong-ticker")),
    ],
)
def test_each_spoilt_row_fails_alone(stand_in: Sandbox, call: Request[Answers], word: str, kind: FailureKind) -> None:
    stand_in.fail = [f"{word}:BTC"]

    found = ask(stand_in.url, call)

    assert found.failures["BTCUSD"][0] is kind
    assert sorted(found.quotes) == [symbol for symbol in ("XAUUSD",) if symbol in call.call.symbols]


@pytest.mark.parametrize("word", ["duplicate", "exponent", "stale", "delayed"])
def test_what_is_odd_but_right_is_taken(stand_in: Sandbox, word: str) -> None:
    stand_in.fail = [word]

    found = ask(stand_in.url)

    assert (sorted(found.quotes), found.failures) == (["BTCUSD", "XAUUSD"], {})
    for one in found.quotes.values():
        assert timedelta(0) <= datetime.now(UTC) - one.timestamp < timedelta(minutes=20)
