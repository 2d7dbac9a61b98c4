"""Where the stream is: with the source of all other prices, never unencrypted, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from assetbatch.errors import ConfigurationError
from assetbatch.model import AssetType
from assetbatch.stream.addresses import addresses
from tests.world import load_config

if TYPE_CHECKING:
    from pathlib import Path

VENDOR, OLD, SANDBOX = "https://api.massive.com", "https://api.polygon.io", "http://127.0.0.1:8100"


def found(folder: Path, base_url: str, stream: str = "{}", plan: str = "starter", plans: str = "{}") -> dict[str, str]:
    """The addresses by cluster."""
    config = load_config(
        folder,
        f"provider: {{base_url: '{base_url}', plan: {plan}, plans: {plans}}}\nstream: {stream}\n",
        DATABASE_URL="postgresql://u@h:5432/d",
    )
    return {asset_type.value: url for asset_type, url in addresses(config).items()}


@pytest.mark.parametrize("base_url", [VENDOR, OLD])
def test_the_vendors_prices_stream_from_the_vendor(tmp_path: Path, base_url: str) -> None:
    assert found(tmp_path, base_url) == {
        "forex": "wss://socket.massive.com/forex",
        "crypto": "wss://socket.massive.com/crypto",
    }


@pytest.mark.parametrize(
    ("base_url", "host"),
    [(SANDBOX, "127.0.0.1:9100"), ("http://localhost:8100", "localhost:9100"), ("http://[::1]:8100", "[::1]:9100")],
)
def test_a_sandbox_streams_at_the_port_that_it_has_of_itself(tmp_path: Path, base_url: str, host: str) -> None:
    assert found(tmp_path, base_url)["crypto"] == f"ws://{host}/crypto"


def test_only_the_clusters_that_are_configured(tmp_path: Path) -> None:
    assert set(found(tmp_path, SANDBOX, "{clusters: [crypto]}")) == {AssetType.CRYPTO}


def test_another_address_of_the_same_source_is_taken(tmp_path: Path) -> None:
    urls = "{urls: {forex: 'wss://socket.polygon.io/forex'}, clusters: [forex]}"
    assert found(tmp_path, VENDOR, urls) == {"forex": "wss://socket.polygon.io/forex"}


@pytest.mark.parametrize(
    ("base_url", "stream", "told"),
    [
        (VENDOR, "{urls: {forex: 'wss://elsewhere.example/forex'}}", "another source"),
        (VENDOR, "{urls: {forex: 'ws://127.0.0.1:9000/forex'}}", "another source"),
        (SANDBOX, "{urls: {forex: 'wss://socket.massive.com/forex'}}", "another source"),
        (VENDOR, "{urls: {crypto: 'ws://socket.massive.com/crypto'}}", "unencrypted"),
        ("https://proxy.example", "{}", "may be anywhere"),
        # Beyond the last port there is none.
        ("http://127.0.0.1:65000", "{}", "may be anywhere"),
    ],
)
def test_what_is_no_address_of_that_source_is_a_fault_of_the_configuration(
    tmp_path: Path, base_url: str, stream: str, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        found(tmp_path, base_url, stream)


def test_a_free_plan_is_told_the_ways(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        found(tmp_path, VENDOR, plan="free")
    words = str(refused.value) + str(refused.value.hint)
    assert "no WebSocket" in words
    assert "provider.plan" in words
    assert "sandbox" in words


@pytest.mark.parametrize(
    ("plan", "plans", "expected"),
    [
        ("starter", "{stocks: starter}", "socket/forex socket/crypto delayed/stocks"),
        ("free", "{stocks: developer, indices: starter}", "delayed/stocks delayed/indices"),
        ("free", "{stocks: advanced, indices: advanced}", "socket/stocks socket/indices"),
    ],
)
def test_each_market_streams_from_the_host_of_its_own_plan_and_one_that_is_free_is_left_out(
    tmp_path: Path, plan: str, plans: str, expected: str
) -> None:
    hosts = [
        url.removeprefix("wss://").replace(".massive.com", "")
        for url in found(tmp_path, VENDOR, "{}", plan, plans).values()
    ]
    assert hosts == expected.split()


def test_an_address_takes_the_place_of_the_host_of_the_plan(tmp_path: Path) -> None:
    urls = "{urls: {stocks: 'wss://socket.massive.com/stocks'}, clusters: [stocks]}"
    addresses = found(tmp_path, VENDOR, urls, plans="{stocks: starter}")
    assert addresses == {"stocks": "wss://socket.massive.com/stocks"}
    assert found(tmp_path, SANDBOX, "{clusters: [indices]}", plans="{indices: starter}") == {
        "indices": "ws://127.0.0.1:9100/indices"
    }


def test_where_no_market_that_is_meant_has_a_paid_plan_its_own_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"provider\.plans\.stocks: the free plan has no Web") as refused:
        found(tmp_path, VENDOR, "{clusters: [stocks, indices]}")
    assert "sandbox --stocks-plan starter`" in refused.value.hint
