"""The two lists of assets: rules across their rows, and what the rest of the tool gets of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from assetbatch.config.given import Given, plain
from assetbatch.config.settings import PRIORITY_ASSETS, SECONDARY_ASSETS
from assetbatch.errors import Fault
from assetbatch.model import Asset, AssetType, Priority, Role

if TYPE_CHECKING:
    from assetbatch.config.settings import AssetSection, Batch
    from assetbatch.config.validation import Values

PRIORITY_LIST = "batch.priority_assets"
SECONDARY_LIST = "batch.secondary_assets"
_MARKETS = {"C": "forex", "X": "crypto"}


def check(values: Values, faults: list[Fault]) -> None:
    """Add the faults of well-formed assets: ticker against type, a symbol that is there twice."""
    seen: dict[str, str] = {}
    for key in (PRIORITY_LIST, SECONDARY_LIST):
        if key not in values:
            continue
        for number, row in enumerate(values[key].value):
            path = f"{key}[{number}]"
            _check_market(row, path, faults)
            symbol = row.get("symbol")
            if symbol is None:
                continue
            if symbol.value in seen:
                message = f"{symbol.value} is there twice; the first one is at {seen[symbol.value]}"
                faults.append(Fault(symbol.place, f"{path}.symbol", message))
            seen.setdefault(symbol.value, f"{symbol.place} ({path})")


def _check_market(row: dict[str, Given], path: str, faults: list[Fault]) -> None:
    if "polygon_ticker" not in row or "asset_type" not in row:
        return
    ticker, asset_type = row["polygon_ticker"], row["asset_type"]
    market = _MARKETS[ticker.value[0]]
    if market != asset_type.value:
        message = f"{asset_type.value} does not go with {ticker.value}, which is {market}"
        faults.append(Fault(asset_type.place, f"{path}.asset_type", message))


def yielding_defaults(values: Values) -> Values:
    """Return the default lists without what the user put into the other: moving an asset is one change."""
    defaults: Values = {}
    for key, other, rows in (
        (PRIORITY_LIST, SECONDARY_LIST, PRIORITY_ASSETS),
        (SECONDARY_LIST, PRIORITY_LIST, SECONDARY_ASSETS),
    ):
        if key not in values and other in values:
            taken = {row["symbol"] for row in plain(values[other].value) if "symbol" in row}
            kept = [msgspec.to_builtins(row) for row in rows if row.symbol not in taken]
            defaults[key] = Given(kept, "default")
    return defaults


def priority_assets(batch: Batch) -> tuple[Asset, ...]:
    """Return the enabled priority assets, the first one first; none when they are switched off."""
    if not batch.priority_assets_enabled:
        return ()
    assets = [
        _asset(
            row,
            Role.PRIORITY,
            place if row.priority is msgspec.UNSET else row.priority,
            batch.interval_minutes,
        )
        for place, row in enumerate(batch.priority_assets, start=1)
        if row.enabled
    ]
    return tuple(sorted(assets, key=lambda asset: asset.rank))


def secondary_assets(batch: Batch) -> tuple[Asset, ...]:
    """Return the enabled secondary assets, in the order of the list."""
    return tuple(
        _asset(row, Role.SECONDARY, Priority[row.priority], batch.enqueue_interval_minutes)
        for row in batch.secondary_assets
        if row.enabled
    )


def _asset(row: AssetSection, role: Role, rank: int, interval_minutes: float) -> Asset:
    frequency = row.update_frequency_seconds
    if frequency is msgspec.UNSET:
        frequency = min(86_400, max(1, round(interval_minutes * 60)))
    return Asset(
        symbol=row.symbol,
        polygon_ticker=row.polygon_ticker,
        asset_type=AssetType(row.asset_type),
        role=role,
        rank=rank,
        update_frequency_seconds=frequency,
        name=row.name,
        enabled=row.enabled,
    )
