"""The answer to a call, read by what the call is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from assetbatch.model import CallKind
from assetbatch.provider import answers, bars, daily, quotes, reference

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import Call

Answer: TypeAlias = quotes.Answers | bars.Page | reference.MarketsOpen | reference.TickerPage


def check(call: Call, document: answers.Document, *, retry_after_seconds: float | None = None) -> None:
    """Look for a refusal inside a good answer. Raises CallError."""
    if call.kind is not CallKind.MARKET_STATUS or "status" in document:  # a good one has no status of its own
        answers.check_status(document, retry_after_seconds=retry_after_seconds)


def read(call: Call, document: answers.Document, *, now: datetime) -> Answer:
    """Read a good answer to a call: prices for snapshots and daily figures, a page of bars, … Raises CallError."""
    match call.kind:
        case CallKind.MARKET_STATUS:
            return reference.read_status(document)
        case CallKind.DAILY:
            return daily.read(call, document, now=now)
        case CallKind.BARS:
            return bars.read(call, document, now=now)
        case CallKind.TICKERS:
            return reference.read_tickers(call, document)
        case CallKind.SNAPSHOT | CallKind.SNAPSHOT_SINGLE:
            return quotes.read(call, document, now=now)
