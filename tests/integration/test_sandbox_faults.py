"""Every word of misbehaviour, seen from the client's end of a real socket."""

from __future__ import annotations

import json
import math
import re
import socket
import time
import zlib
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.sandbox.breakdowns import BOMB_BYTES, packed_bomb
from assetbatch.sandbox.faults import KINDS, OTHER_TICKER, STREAM_KINDS
from assetbatch.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

NOW = datetime(2026, 9, 3, 12, 0, 30, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
SNAPSHOT = "/v3/snapshot?ticker.any_of=C:EURUSD,X:ETHUSDT,X:BTCUSD"
SINGLE = "/v2/snapshot/locale/global/markets/forex/tickers/C:EURUSD"
MARKET = "/v2/snapshot/locale/global/markets/crypto/tickers?tickers=X:ETHUSDT,X:BTCUSD"
BARS = "/v2/aggs/ticker/X:BTCUSD/range/5/minute/2026-09-02/2026-09-02"


class Client:
    def __init__(self, session: requests.Session) -> None:
        self.session = session
        self.now = NOW
        self.sandbox = Sandbox(clock=lambda: self.now)

    def fail(self, *words: str) -> None:
        self.sandbox.fail = list(words)

    def get(self, path: str = SNAPSHOT, **options: Any) -> requests.Response:
        return self.session.get(
            self.sandbox.url + path, timeout=options.pop("timeout", 10), allow_redirects=False, **options
        )

    def rows(self, path: str = SNAPSHOT) -> list[dict[str, Any]]:
        body = json.loads(self.get(path).content, parse_float=Decimal)
        if isinstance(body.get("ticker"), dict):
            return [body["ticker"]]
        found: list[dict[str, Any]] = body.get("results", body.get("tickers", []))
        return found

    def connect(self, path: str = SNAPSHOT) -> socket.socket:
        raw = socket.create_connection(("127.0.0.1", int(self.sandbox.url.rsplit(":")[-1])), timeout=10)
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox\r\n\r\n".encode())
        return raw


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    import requests

    with requests.Session() as session:
        session.headers.update({"Authorization": "Bearer sandbox"})
        session.trust_env = False
        client = Client(session)
        with client.sandbox:
            yield client


@pytest.fixture
def client(shared: Client) -> Client:
    shared.now = NOW
    shared.sandbox.fail = []
    shared.sandbox.start()  # some tests end it
    return shared


@pytest.mark.parametrize(
    ("word", "status", "content_type", "words"),
    [
        ("500", 500, "text/html", "<center>nginx</center>"),
        ("502", 502, "text/html", "502 Bad Gateway"),
        ("504", 504, "text/html", "504 Gateway Time-out"),
        ("html", 200, "text/html", "Guest network"),
        ("400", 400, "application/json", "Failed to parse query parameters"),
        ("401", 401, "application/json", "Unknown API Key"),
        ("403", 403, "application/json", "You are not entitled to this data."),
        ("403-entitled", 403, "application/json", "You are not entitled to this data."),
        ("403-timeframe", 403, "application/json", "Your plan doesn't include this data timeframe."),
        ("403-today", 403, "application/json", "Attempted to request today's data before end of day."),
        ("403-in-200", 200, "application/json", "NOT_AUTHORIZED"),
        ("404", 404, "application/json", "Ticker not found."),
        ("404-text", 404, "text/plain; charset=utf-8", "404 page not found"),
        ("408", 408, "text/html", "408 Request Time-out"),
        ("413", 413, "text/html", "413 Request Entity Too Large"),
        ("425", 425, "text/html", "425 Too Early"),
        ("499", 499, "text/html", "499 Client Closed Request"),
        ("401-in-200", 200, "application/json", "Unknown API Key"),
        ("429-in-200", 200, "application/json", "You've exceeded the maximum requests per minute"),
        ("429", 429, "application/json", "You've exceeded the maximum requests per minute"),
    ],
)
def test_refusals(client: Client, word: str, status: int, content_type: str, words: str) -> None:
    client.fail(word)
    answer = client.get()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, content_type)
    assert words in answer.text
    assert client.sandbox.arrivals[-1].status == status
    assert "Retry-After" not in answer.headers


def test_404_of_version_2_has_no_words(client: Client) -> None:
    client.fail("404")
    assert client.get(SINGLE).json()["status"] == "NotFound"


def test_retry_after(client: Client) -> None:
    client.fail("429-retry-after")
    answer = client.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")


def test_redirect(client: Client) -> None:
    client.fail("redirect")
    answer = client.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://127.0.0.1:9/elsewhere")


def test_empty_garbage_and_half(client: Client) -> None:
    whole = client.get(headers={"Accept-Encoding": "identity"}).content
    client.fail("empty")
    assert client.get().content == b""
    client.fail("garbage")
    with pytest.raises(UnicodeDecodeError):
        client.get().content.decode()
    client.fail("half")
    half = client.get(headers={"Accept-Encoding": "identity"})
    assert abs(len(half.content) - len(whole) // 2) < 50
    assert half.headers["Content-Length"] == str(len(half.content))
    with pytest.raises(json.JSONDecodeError):
        json.loads(half.content)


def test_nested_is_deeper_than_a_parser_goes(client: Client) -> None:
    client.fail("nested")
    body = client.get().content
    assert body.count(b"[") == body.count(b"]") == 200_000
    with pytest.raises(RecursionError):
        json.loads(body)


def test_bomb_is_small_outside_and_huge_inside(client: Client) -> None:
    client.fail("bomb")
    answer = client.get(stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 1024 * 1024
    packed = answer.raw.read(decode_content=False)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert unpacker.decompress(packed, 1000).startswith(b'{"status":"OK","results":[]      ')
    # The last four bytes of gzip tell the size, and the whole is consistent: read it in pieces, keeping none.
    assert int.from_bytes(packed[-4:], "little") == BOMB_BYTES + 28
    assert packed == packed_bomb()


def test_the_bombs_check_sum_is_right() -> None:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    size, last, rest = 0, b"", packed_bomb()
    while not unpacker.eof:
        piece = unpacker.decompress(rest, 16 * 1024 * 1024)
        size, last, rest = size + len(piece), piece[-1:] or last, unpacker.unconsumed_tail
    assert (size, last) == (BOMB_BYTES + 28, b"}")


def test_timeout_never_answers_and_does_not_hold_the_server_up(client: Client) -> None:
    import requests

    client.fail("timeout")
    with pytest.raises(requests.ReadTimeout):
        client.get(timeout=0.2)
    assert client.sandbox.arrivals[-1].status == 0
    with client.connect() as raw:
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        begun = time.monotonic()
        client.sandbox.stop()
        assert time.monotonic() - begun < 2
        raw.settimeout(5)
        assert raw.recv(1) == b""


def test_drip_sends_whole_headers_then_a_byte_a_second(client: Client) -> None:
    client.fail("drip")
    with client.connect() as raw:
        head = raw.recv(65_536)
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        begun = time.monotonic()
        assert raw.recv(65_536) == b"{"
        assert 0.7 < time.monotonic() - begun < 5


def test_drip_headers_begins_with_the_first_byte(client: Client) -> None:
    client.fail("drip-headers")
    with client.connect() as raw:
        begun = time.monotonic()
        assert raw.recv(65_536) == b"H"
        assert 0.7 < time.monotonic() - begun < 5


def test_reset_tears_the_connection_down_in_the_body(client: Client) -> None:
    import requests

    client.fail("reset")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.get()
    assert client.sandbox.arrivals[-1].status == 200


def prices(row: dict[str, Any]) -> list[Any]:
    places = {
        "last_quote": ("bid", "ask"),
        "last_trade": ("price",),
        "lastQuote": ("b", "a"),
        "lastTrade": ("p",),
    }
    found = [row[name][key] for name, keys in places.items() if name in row for key in keys if key in row[name]]
    return found or [row[key] for key in "ohlc" if key in row]


@pytest.mark.parametrize(
    ("word", "spoilt"),
    [
        ("zero", lambda price: price == 0),
        ("nan", math.isnan),
        ("negative", lambda price: price < 0),
        ("strings", lambda price: isinstance(price, str) and float(price) > 0),
        ("huge", lambda price: price == Decimal("1e400")),
    ],
)
@pytest.mark.parametrize("path", [SNAPSHOT, SINGLE, MARKET, BARS])
def test_spoilt_prices(client: Client, path: str, word: str, spoilt: Callable[[Any], bool]) -> None:
    assert all(price > 0 for row in client.rows(path) for price in prices(row))
    client.fail(word)
    rows = client.rows(path)
    assert rows
    for row in rows:
        assert prices(row)
        assert all(spoilt(price) for price in prices(row))


def test_exponent_is_the_same_number_written_otherwise(client: Client) -> None:
    good = client.rows()
    client.fail("exponent")
    text = client.get().text
    assert client.rows() == good
    assert 'e+00,"bid":1.0' in text
    assert '"price":9.' in text


@pytest.mark.parametrize("path", [SNAPSHOT, SINGLE, MARKET, BARS])
def test_missing_prices(client: Client, path: str) -> None:
    client.fail("missing")
    rows = client.rows(path)
    assert rows
    assert [prices(row) for row in rows] == [[]] * len(rows)


def test_future_quotes(client: Client) -> None:
    client.fail("future")
    euro, bitcoin, _ = client.rows()
    hour = 3600 * 10**9
    assert 0 <= NOW_NS + hour - euro["last_quote"]["last_updated"] < 10**9
    assert 0 <= NOW_NS + hour - bitcoin["last_trade"]["participant_timestamp"] < 10**9
    assert client.rows(SINGLE)[0]["lastQuote"]["t"] > NOW_NS // 10**6 + 3_500_000


def test_stale_quotes_stand_still_until_it_recovers(client: Client) -> None:
    client.fail("stale:C:EURUSD")
    first = client.rows()
    client.now += timedelta(seconds=90)
    second = client.rows()
    assert first[0]["last_quote"] == second[0]["last_quote"]
    assert 0 <= NOW_NS - 600 * 10**9 - first[0]["last_quote"]["last_updated"] < 10**9
    assert first[1]["last_trade"] != second[1]["last_trade"]
    client.fail()
    assert client.rows()[0]["last_quote"] != first[0]["last_quote"]


def test_wrong_tickers(client: Client) -> None:
    client.fail("wrong-ticker:EUR")
    assert [row["ticker"] for row in client.rows()] == [OTHER_TICKER, "X:BTCUSD", "X:ETHUSDT"]
    assert client.rows(SINGLE)[0]["ticker"] == OTHER_TICKER
    client.fail("wrong-ticker")
    assert client.get(BARS).json()["ticker"] == OTHER_TICKER
    previous = client.get("/v2/aggs/ticker/C:EURUSD/prev").json()
    assert (previous["ticker"], previous["results"][0]["T"]) == (OTHER_TICKER, OTHER_TICKER)


def test_dropped_and_doubled_rows(client: Client) -> None:
    client.fail("drop:X:ETH")
    assert [row["ticker"] for row in client.rows()] == ["C:EURUSD", "X:BTCUSD"]
    client.fail("duplicate:X:ETH")
    assert [row["ticker"] for row in client.rows()] == ["C:EURUSD", "X:BTCUSD", "X:ETHUSDT", "X:ETHUSDT"]
    client.fail("drop")
    assert "ticker" not in client.get(SINGLE).json()
    assert "results" not in client.get(BARS).json()


def test_only_matching_rows_are_spoilt(client: Client) -> None:
    client.fail("zero:X:BTC", "nan:ETH", "negative:ETH")
    euro, bitcoin, ether = client.rows()
    assert min(prices(euro)) > 0
    assert set(prices(bitcoin)) == {0}
    assert all(math.isnan(price) for price in prices(ether))


def test_delayed_is_good_data(client: Client) -> None:
    good = client.get().json()
    client.fail("delayed:/v3/")
    body = client.get().json()
    assert body["status"] == "DELAYED"
    assert body["results"] == good["results"]
    assert client.get(BARS).json()["status"] == "OK"


def test_minutes_only_leaves_minutes_and_days(client: Client) -> None:
    client.fail("minutes-only:X:BTCUSD")
    counts = {
        span: client.get(f"/v2/aggs/ticker/X:BTCUSD/range/{span}/2026-09-02/2026-09-02").json()["resultsCount"]
        for span in ("1/minute", "5/minute", "60/minute", "1/hour", "1/day")
    }
    assert counts == {"1/minute": 1440, "5/minute": 0, "60/minute": 0, "1/hour": 0, "1/day": 1}


def test_a_match_limits_it_to_some_paths(client: Client) -> None:
    client.fail("500:C:EURUSD", "502:/range/")
    assert [client.get(path).status_code for path in (SNAPSHOT, SINGLE, MARKET, BARS)] == [500, 500, 200, 502]
    assert client.get("/v2/aggs/ticker/C%3AEURUSD/prev").status_code == 500


def test_a_probability_limits_it_to_some_requests(client: Client) -> None:
    client.fail("500@0.5")
    statuses = [client.get("/v1/marketstatus/now").status_code for _ in range(60)]
    client.fail("500@0.5")
    assert [client.get("/v1/marketstatus/now").status_code for _ in range(60)] == statuses
    assert 15 < statuses.count(500) < 45
    assert statuses.count(200) == 60 - statuses.count(500)


def test_the_list_may_be_changed_in_place(client: Client) -> None:
    client.sandbox.fail.append("500")
    assert client.get().status_code == 500
    client.sandbox.fail.clear()
    assert client.get().status_code == 200
    client.sandbox.fail.append("nonsense")
    answer = client.get()
    assert answer.status_code == 500
    assert "unknown failure 'nonsense'" in answer.text
    with pytest.raises(ValueError, match="unknown failure"):
        client.sandbox.fail = ["nonsense"]


def test_many_hanging_clients_leave_room_for_others(client: Client) -> None:
    client.fail("timeout:C:EURUSD")
    with ExitStack() as open_:
        client.sandbox.arrivals.clear()
        hanging = [open_.enter_context(client.connect(SINGLE)) for _ in range(20)]
        begun = time.monotonic()
        while sum(arrival.path == SINGLE for arrival in client.sandbox.arrivals) < 20:
            assert time.monotonic() < begun + 10
            time.sleep(0.01)
        assert client.get(MARKET).status_code == 200
        client.sandbox.stop()
        assert [raw.recv(1) for raw in hanging] == [b""] * 20


def test_a_holiday_is_of_forex_alone(client: Client) -> None:
    client.fail("holiday")

    assert client.get("/v1/marketstatus/now").json()["currencies"]["fx"] == "closed"
    assert "results" not in client.get("/v2/aggs/grouped/locale/global/market/fx/2026-09-01").json()
    assert client.get("/v2/aggs/grouped/locale/global/market/crypto/2026-09-01").json()["resultsCount"] > 1


def test_every_word_is_tried_here() -> None:
    tried = set(re.findall(r"""["']([a-z0-9-]+)(?=["':@])""", Path(__file__).read_text()))
    assert not set(KINDS) - STREAM_KINDS - tried
