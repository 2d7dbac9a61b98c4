"""What the two sides of a pair are called: asked of the vendor's reference list once, since no ticker tells it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from assetbatch.database import streams
from assetbatch.database.rate_limit import Lane
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.symbols import pages
from assetbatch.model import Call, CallKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from assetbatch.jobs.run import Run
    from assetbatch.model import Asset

MAX_SECONDS = 120.0
# Of so few each is asked for by itself; else all pages of the market.
FEW = 3


def ask(run: Run, missing: Sequence[Asset]) -> set[str]:
    """Ask what the sides of these pairs are called, and note it; return the tickers that were found.

    Raises CallError; what was found before is noted.
    """
    calls = Calls(run, Lane.QUEUE)
    wanted = {asset.polygon_ticker for asset in missing}
    found: dict[str, tuple[str, str]] = {}
    try:
        for call in _calls(missing):
            for page in pages(calls, call, time.monotonic() + MAX_SECONDS):
                found |= {ticker: pair for ticker, pair in page.pairs.items() if ticker in wanted}
    finally:
        if found:
            streams.note_pairs(run.connection, found)
    return set(found)


def _calls(missing: Sequence[Asset]) -> Iterator[Call]:
    for asset_type in dict.fromkeys(asset.asset_type for asset in missing):
        own = [asset for asset in missing if asset.asset_type is asset_type]
        for asked in [(asset,) for asset in own] if len(own) <= FEW else [()]:
            yield Call(CallKind.TICKERS, asked, asset_type)
