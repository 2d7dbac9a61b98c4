"""Where a call goes, and which source of prices a base URL names."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetbatch.model import Asset, AssetType, Call, CallKind, Role
from assetbatch.provider import endpoints
from assetbatch.provider.addresses import source_of


def asset(ticker: str) -> Asset:
    kind = AssetType.CRYPTO if ticker.startswith("X:") else AssetType.FOREX
    return Asset(ticker.partition(":")[2], ticker, kind, Role.PRIORITY, 1, 300)


@pytest.mark.parametrize(
    ("base_url", "source"),
    [
        ("https://api.massive.com", "api.massive.com"),
        ("https://api.polygon.io", "api.massive.com"),
        ("https://API.Polygon.IO.:443/", "api.massive.com"),
        ("https://api.staging.massive.com", "api.staging.massive.com"),
        ("http://localhost:8765", "sandbox"),
        ("http://LOCALHOST", "sandbox"),
        ("http://127.0.0.1:1", "sandbox"),
        ("http://127.9.8.7", "sandbox"),
        ("http://[::1]:8765", "sandbox"),
        ("http://[::ffff:127.0.0.1]:8765", "sandbox"),
        ("http://[::ffff:192.0.2.1]:8765", "::ffff:192.0.2.1"),
        ("http://192.0.2.1", "192.0.2.1"),
        ("https://127.0.0.1.example.com", "127.0.0.1.example.com"),
        ("https://api.polygon.io.example.com", "api.polygon.io.example.com"),
        ("https://localhost.example.com", "localhost.example.com"),
    ],
)
def test_a_base_url_names_its_source(base_url: str, source: str) -> None:
    assert source_of(base_url) == source


def test_a_snapshot_asks_for_all_tickers_and_all_rows() -> None:
    call = Call(CallKind.SNAPSHOT, (asset("C:XAUUSD"), asset("X:BTCUSD")))

    assert endpoints.prices(call).path == "/v3/snapshot?ticker.any_of=C%3AXAUUSD%2CX%3ABTCUSD&limit=250"


@pytest.mark.parametrize(
    ("ticker", "path"),
    [
        ("C:XAUUSD", "/v2/snapshot/locale/global/markets/forex/tickers/C:XAUUSD"),
        ("X:BTCUSD", "/v2/snapshot/locale/global/markets/crypto/tickers/X:BTCUSD"),
        # Not a ticker that the configuration lets through, but never another path either.
        ("C:A/../B?c#d", "/v2/snapshot/locale/global/markets/forex/tickers/C:A%2F..%2FB%3Fc%23d"),
    ],
)
def test_a_single_snapshot_asks_in_the_path_of_its_market(ticker: str, path: str) -> None:
    assert endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (asset(ticker),))).path == path


@given(st.lists(st.from_regex(r"\A[CX]:[^\s,]{1,50}\Z"), min_size=1, max_size=250))
def test_every_ticker_comes_out_as_it_went_in(tickers: list[str]) -> None:
    split = urlsplit(endpoints.prices(Call(CallKind.SNAPSHOT, tuple(map(asset, tickers)))).path)
    query = parse_qs(split.query, strict_parsing=True)

    assert split.path == "/v3/snapshot"
    assert query == {"ticker.any_of": [",".join(tickers)], "limit": ["250"]}

    single = urlsplit(endpoints.prices(Call(CallKind.SNAPSHOT_SINGLE, (asset(tickers[0]),))).path)
    assert (single.query, single.fragment) == ("", "")
    assert single.path.count("/") == 8
    assert unquote(single.path.rpartition("/")[2]) == tickers[0]
