"""One feed by itself, at addresses that are not what they seem, and beside the feed that it takes over from."""

from __future__ import annotations

import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from assetbatch.jobs.clock import Clock
from assetbatch.markets import Market
from assetbatch.model import AssetType, Product
from assetbatch.plans import PLANS
from assetbatch.provider.massive.websocket import cluster_of
from assetbatch.stream.book import Book
from assetbatch.stream.connection import Feed
from assetbatch.stream.pacing import Cause, Ending, Pacing
from tests.asking import utc_now
from tests.conftest import API_KEY, wait_until

if TYPE_CHECKING:
    import pytest

    from assetbatch.sandbox.server import Sandbox


def feed(url: str, **more: Any) -> Feed:
    return Feed(
        cluster_of(AssetType.CRYPTO, PLANS[Product.CURRENCIES]["starter"]),
        url,
        key=API_KEY,
        names=["XT.BTC-USD"],
        markets={Market.CRYPTO},
        book=Book({"BTC-USD": "BTCUSD"}),
        clock=Clock(utc_now()),
        stop=threading.Event(),
        **({"pacing": Pacing()} | more),
    )


def test_no_redirect_has_the_key(sandbox: Sandbox) -> None:
    there = f"{sandbox.stream.url}/crypto"

    class Elsewhere(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", there)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        one = feed(f"ws://127.0.0.1:{server.server_port}/crypto")
        one.start()
        ending: Ending = wait_until(lambda: one.state.ending, seconds=20)
        one.halt()
        one.join(5)
        server.shutdown()
    assert ending.cause is Cause.UNREACHABLE
    # Versions of the library that follow no redirect say so themselves.
    assert "redirects to" in ending.words or "302" in ending.words
    assert all(not session.asked for session in sandbox.stream.sessions)


def test_the_sandbox_is_reached_past_a_proxy_of_the_environment_and_that_is_told_once(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "assetbatch")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    one = feed(f"{sandbox.stream.url}/crypto")
    one.start()
    wait_until(lambda: one.state.word == "live", seconds=20)
    sandbox.stream.send('[{"ev": "status", "status": "success", "message": "maintenance at 3 a.m."}]')
    wait_until(lambda: "the vendor says success: maintenance at 3 a.m." in caplog.text)
    one.halt()
    one.join(5)
    (session,) = sandbox.stream.sessions
    assert session.asked
    assert caplog.text.count("connected") == 1


def test_a_feed_that_takes_over_keeps_to_the_pause_of_the_one_before(sandbox: Sandbox) -> None:
    pacing = Pacing()
    pause = pacing.pause(Ending(Cause.TOO_MANY, "another connection of the account"))
    first = feed(f"{sandbox.stream.url}/crypto", pacing=pacing)
    first.start()
    end = time.monotonic() + 1
    wait_until(lambda: time.monotonic() > end)
    first.halt()
    first.join(5)
    assert pause >= 60
    assert (first.state.connects, list(sandbox.stream.sessions)) == (0, [])
