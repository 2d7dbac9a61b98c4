"""A vendor that has its answers ready, so that what is measured is who asks, and not the making of prices."""

from __future__ import annotations

import json
import re
import threading
import time
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

LENGTH_MS = 300_000
TICKER = re.compile(r"/v2/snapshot/locale/global/markets/crypto/tickers/([^/?]+)")
SPAN = re.compile(r"/v2/aggs/ticker/([^/]+)/range/5/minute/(\d+)/(\d+)\?")


class Canned(ABC):
    """A server in a thread, with or without a key; its kinds say what it answers to a path."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.arrivals: list[Any] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @abstractmethod
    def answer(self, path: str) -> bytes: ...

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = vendor.answer(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


class CannedBars(Canned):
    """It has a bar for every five minutes of so many days, the same of each ticker."""

    def __init__(self, *, days: int) -> None:
        super().__init__()
        self._last = int(time.time() * 1000) // LENGTH_MS * LENGTH_MS + 3_600_000
        self._first = self._last - days * 86_400_000
        self._rows = [_bar(number, ts) for number, ts in enumerate(range(self._first, self._last, LENGTH_MS))]

    def answer(self, path: str) -> bytes:
        asked = SPAN.match(path)
        assert asked is not None
        last = min(int(asked[3]), int(time.time() * 1000))
        first, behind = (max(0, -(-(ms - self._first) // LENGTH_MS)) for ms in (int(asked[2]), last))
        rows = self._rows[first:behind]
        head = (
            f'{{"ticker":"{asked[1]}","queryCount":{len(rows)},"resultsCount":{len(rows)},"adjusted":true,"results":['
        )
        return head.encode() + b",".join(rows) + b'],"status":"OK","request_id":"canned"}'


class CannedQuotes(Canned):
    """It knows any crypto ticker that a snapshot is asked for; all have prices of the moment it began."""

    def __init__(self) -> None:
        super().__init__()
        began_at = time.time_ns()
        self._unified = [_behind_ticker(_unified(number, began_at)) for number in range(997)]
        self._single = _behind_ticker(_single(began_at))

    def answer(self, path: str) -> bytes:
        if (single := TICKER.match(path)) is not None:
            return b'{"request_id":"canned","status":"OK","ticker":{"ticker":"%b",%b}' % (
                single[1].encode(),
                self._single,
            )
        (tickers,) = parse_qs(urlsplit(path).query)["ticker.any_of"]
        rows = [
            b'{"ticker":"%b",%b' % (ticker.encode(), self._unified[number % len(self._unified)])
            for number, ticker in enumerate(tickers.split(","))
        ]
        return b'{"request_id":"canned","results":[' + b",".join(rows) + b'],"status":"OK"}'


def _bar(number: int, ts: int) -> bytes:
    cents = 9_650_000 + number * 37 % 9_973
    opened, high, low, close = (one / 100 for one in (cents, cents + 1_025, cents - 950, cents + 175))
    volume, vwap = number * 7_919 % 1_000_003 / 10_000, (cents + 6.25) / 100
    return (
        f'{{"v":{volume},"vw":{vwap},"o":{opened},"c":{close},"h":{high},"l":{low},"t":{ts},"n":{number % 251}}}'
    ).encode()


def _behind_ticker(row: dict[str, Any]) -> bytes:
    """Return what a row has behind its ticker."""
    return json.dumps(row, separators=(",", ":"))[1:].encode()


def _unified(number: int, now_ns: int) -> dict[str, Any]:
    """Return a row of a unified snapshot but for its ticker, as the vendor has it."""
    price = (9_650_000 + number * 37) / 100
    day = {"open": price - 11.5, "high": price + 20.25, "low": price - 30.75, "close": price + 0.5}
    return {
        "type": "crypto",
        "name": "Something - United States Dollar",
        "market_status": "open",
        "session": {
            **day,
            "previous_close": price - 12.25,
            "change": 12.25,
            "change_percent": 0.01269438,
            "volume": 1234.56789012,
        },
        "last_minute": {**day, "volume": 0.5123, "vwap": price + 0.0625, "transactions": number % 251},
        "last_quote": {
            "ask": price + 0.25,
            "bid": price - 0.25,
            "ask_exchange": 1,
            "bid_exchange": 1,
            "last_updated": now_ns,
            "timeframe": "REAL-TIME",
        },
        "last_trade": {
            "price": price,
            "size": 0.01234567,
            "exchange": 1,
            "conditions": [1],
            "id": str(now_ns),
            "participant_timestamp": now_ns,
            "timeframe": "REAL-TIME",
        },
    }


def _single(now_ns: int) -> dict[str, Any]:
    """Return the row of a single ticker's snapshot but for the ticker."""
    now_ms = now_ns // 1_000_000
    day = {"o": 96488.5, "h": 96520.25, "l": 96469.25, "c": 96500.5, "v": 1234.56789012, "vw": 0}
    return {
        "day": day,
        "min": {**day, "n": 37, "t": now_ms // 60_000 * 60_000},
        "prevDay": {**day, "vw": 96490.0625},
        "lastTrade": {"p": 96500, "s": 0.01234567, "t": now_ms, "x": 1, "c": [1], "i": str(now_ns)},
        "todaysChange": 12.25,
        "todaysChangePerc": 0.01269438,
        "updated": now_ms,
    }
