"""The vendor's answers: a status that is looked at, rows, refusals as typed errors. Their JSON is that of `documents`.

Nothing in them is trusted: not their size, depth or numbers, and what is shown of them is bounded and printable.
"""

from __future__ import annotations

from decimal import Decimal

from assetbatch.errors import CallError, FailureKind
from assetbatch.provider.documents import MAX_BYTES, Document, parse

__all__ = ["MAX_BYTES", "Document", "check_status", "message", "parse", "refusal", "rows_of", "text"]

GOOD_STATUSES = {"OK", "DELAYED", "success"}
KIND_OF_STATUS = {
    401: FailureKind.KEY_REFUSED,
    403: FailureKind.NOT_ENTITLED,
    404: FailureKind.NOT_FOUND,
    429: FailureKind.RATE_LIMITED,
}
LONGEST_TEXT = 300


def check_status(document: Document) -> None:
    """Look for a refusal inside a good answer. Raises CallError."""
    status = document.get("status")
    if isinstance(status, str) and status in GOOD_STATUSES:
        return
    if status == "NOT_AUTHORIZED":
        raise refusal(403, document)
    raise CallError(FailureKind.MALFORMED, f"the answer's status is {text(status)}: {message(document)}", answered=True)


def rows_of(document: Document) -> list[Document]:
    """Find the rows of an answer: none where `results` is absent or null. Raises CallError (malformed)."""
    rows = document.get("results")
    if rows is None:
        rows = []
    if not isinstance(rows, list):
        raise CallError(FailureKind.MALFORMED, "`results` is no list", answered=True)
    return [row for row in rows if isinstance(row, dict)]


def message(document: object) -> str:
    """Find the vendor's own words in an answer, bounded."""
    if isinstance(document, dict):
        for key in ("message", "error"):
            if isinstance(document.get(key), str):
                return text(document[key])
    return "no message"


def text(value: object) -> str:
    """Show something of the vendor's in a message: one line, bounded, printable."""
    if not isinstance(value, (str, Decimal, bool, type(None))):
        return f"a {type(value).__name__}"
    shown = str(value)
    if len(shown) > LONGEST_TEXT:
        # Cut between words, never inside one: half of a key would escape whoever blots keys out.
        shown = " ".join(shown[:LONGEST_TEXT].split()[:-1]) + " …"
    return "".join(character if character.isprintable() else "?" for character in " ".join(shown.split()))


def refusal(http_status: int, document: object, *, retry_after_seconds: float | None = None) -> CallError:
    """Turn an HTTP status other than 200, and what came with it, into a typed error.

    403 has several meanings that only its message tells apart: never, not this far back, not yet.
    """
    words = message(document)
    kind = _kind_of(http_status, words.lower(), document)
    return CallError(
        kind,
        f"HTTP {http_status}: {words}" if http_status != 200 else words,
        http_status=http_status,
        answered=True,
        retry_after_seconds=retry_after_seconds,
    )


def _kind_of(http_status: int, words: str, document: object) -> FailureKind:
    if http_status == 403 and not isinstance(document, dict):
        # Said by a proxy or firewall on the way: the vendor always gives a reason.
        return FailureKind.MALFORMED
    if http_status == 403 and "before end of day" in words:
        return FailureKind.NOT_YET
    if http_status == 403 and "data timeframe" in words:
        return FailureKind.TIMEFRAME
    if http_status == 404 and isinstance(document, dict) and document.get("status") == "NOT_FOUND":
        return FailureKind.UNKNOWN_TICKER
    by_class = {4: FailureKind.BAD_REQUEST, 5: FailureKind.SERVER_ERROR}
    return KIND_OF_STATUS.get(http_status) or by_class.get(http_status // 100, FailureKind.MALFORMED)
