"""The answer to a call, read by what the call is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from assetbatch.model import CallKind
from assetbatch.provider import answers, bars, daily, quotes, reference

if TYPE_CHECKING:
    from datetime import datetime

    from assetbatch.model import Call

Answer: TypeAlias = quotes.Answers | bars.Page | reference.MarketsOpen | reference.TickerPage
Parsed: TypeAlias = answers.Document | bars.Page


def parse(call: Call, body: bytes | bytearray, *, retry_after_seconds: float | None = None) -> Parsed:
    """Return the document that answers a call, or the page of bars itself where nothing in it is odd.

    Raises CallError: it is no JSON, too large, or a refusal inside a good answer.
    """
    if call.kind is CallKind.BARS and (page := bars.plain(call, body)) is not None:
        return page
    document = answers.parse(body)
    check(call, document, retry_after_seconds=retry_after_seconds)
    return document


def check(call: Call, document: answers.Document, *, retry_after_seconds: float | None = None) -> None:
    """Look for a refusal inside a good answer. Raises CallError."""
    if call.kind is not CallKind.MARKET_STATUS or "status" in document:  # a good one has no status of its own
        answers.check_status(document, retry_after_seconds=retry_after_seconds)


def read(call: Call, parsed: Parsed, *, now: datetime) -> Answer:
    """Read a good answer to a call: prices for snapshots and daily figures, a page of bars, … Raises CallError."""
    if isinstance(parsed, bars.Page):
        return bars.known_by(parsed, now)
    document = parsed
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
