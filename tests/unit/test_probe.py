"""What was found of a key, held against the word of its plan."""

from __future__ import annotations

import pytest

from assetbatch.jobs.probe import MarketAccess, Probed
from assetbatch.model import AssetType, Product
from assetbatch.plans import PLANS


@pytest.mark.parametrize(
    ("plan", "quotes", "verdict"),
    [
        ("free", (None, None), ""),
        ("free", (True, None), ""),
        ("free", (False, True), ""),
        ("free", (True, True), "plan says free, the key sees live prices"),
        ("starter", (None, None), ""),
        ("starter", (None, False), "plan says starter, the key is refused live prices of crypto"),
    ],
)
def test_probe_finds_fault_with_the_plan_only_where_it_could_tell(
    plan: str, quotes: tuple[bool | None, ...], verdict: str
) -> None:
    said = PLANS[Product.CURRENCIES][plan]
    currencies = (AssetType.FOREX, AssetType.CRYPTO)
    markets = [MarketAccess(market, seen, None, None, said) for market, seen in zip(currencies, quotes, strict=True)]

    found = Probed(plan, tuple(markets), 5).verdict

    assert found.startswith(verdict)
    assert bool(found) is bool(verdict)
