"""The catalogue as a document and as a table, and what became of assets that were to be added."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from assetbatch.model import Priority, Role
from assetbatch.report.documents import picked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from assetbatch.database.symbols import Added, Listed, Listing
    from assetbatch.errors import Fault


def added_document(
    added: Added,
    *,
    calls: int | None,
    skipped: Sequence[tuple[str, str]] = (),
    faults: Sequence[Fault] = (),
) -> dict[str, Any]:
    """Lay out `symbols add` and `symbols import`; `calls` None: nothing was held against the reference list."""
    return {
        "added": added.added,
        "already_there": added.already_there,
        "skipped": [{"polygon_ticker": ticker, "reason": reason} for ticker, reason in skipped],
        "refused": [{"symbol": symbol, "error": error} for symbol, error in added.refused],
        "faults": [picked(fault, "place", "key", "message") for fault in faults],
        "counts": {
            "added": len(added.added),
            "already_there": len(added.already_there),
            "skipped": len(skipped),
            "refused": len(added.refused),
            "faults": len(faults),
        },
        "checked": calls is not None,
        "api_calls_used": calls or 0,
    }


def document(listing: Listing) -> dict[str, Any]:
    """Lay out the catalogue: a contract, whose fields are only ever added to."""
    return {
        "total": listing.total,
        "items": [
            picked(item.asset, "symbol", "polygon_ticker", "asset_type", "name", "role", "rank")
            | {"priority": _priority(item), "update_frequency_seconds": item.asset.update_frequency_seconds}
            | picked(item, "enabled", "origin")
            for item in listing.items
        ],
    }


def view(listing: Listing, *, width: int) -> RenderableType:
    """Lay out the catalogue for a terminal."""
    from rich.console import Group
    from rich.text import Text

    from assetbatch.report.tables import fitted_table
    from assetbatch.report.words import duration

    if not listing.items:
        return Text("the catalogue is empty: `assetbatch init` puts the assets of config.yaml there")
    columns = ("symbol", "ticker", "type", "role", "priority", "every", "origin")
    rows = [
        (
            (
                item.asset.symbol,
                item.asset.polygon_ticker,
                item.asset.asset_type.value,
                item.asset.role.value,
                _priority(item) or str(item.asset.rank),
                duration(timedelta(seconds=item.asset.update_frequency_seconds)) if item.enabled else "disabled",
                item.origin,
            ),
            None if item.enabled else "dim",
        )
        for item in listing.items
    ]
    table = fitted_table("Catalogue", columns, rows, width=width, less=("type", "origin", "role", "priority", "every"))
    more = listing.total - len(listing.items)
    return Group(table, Text(f"and {more} more: --limit {listing.total}")) if more else table


def _priority(item: Listed) -> str | None:
    """Name the priority of a secondary asset; others have a place in their own order."""
    try:
        return Priority(item.asset.rank).name if item.asset.role is Role.SECONDARY else None
    except ValueError:  # a rank that somebody wrote by hand
        return None
