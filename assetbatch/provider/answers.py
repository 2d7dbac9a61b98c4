"""The vendor's answers: a status that is looked at, rows, refusals as typed errors. Their JSON is that of `documents`.

Nothing in them is trusted: not their size, depth or numbers, and what is shown of them is bounded and printable.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from assetbatch.failures import CallError, FailureKind

if TYPE_CHECKING:
    from assetbatch.provider.documents import Document

GOOD_STATUSES = {"OK", "DELAYED", "success"}
KIND_OF_STATUS = {
    401: FailureKind.KEY_REFUSED,
    402: FailureKind.NOT_ENTITLED,
    403: FailureKind.NOT_ENTITLED,
    404: FailureKind.NOT_FOUND,
    407: FailureKind.MALFORMED,  # said by a proxy
    408: FailureKind.SERVER_ERROR,
    413: FailureKind.TOO_MANY,
    425: FailureKind.SERVER_ERROR,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.SERVER_ERROR,
}
# The vendor's words, which say it whatever status they come with.
KIND_OF_WORDS = {
    "exceeded the maximum requests": FailureKind.RATE_LIMITED,
    "unknown api key": FailureKind.KEY_REFUSED,
    "api key was not provided": FailureKind.KEY_REFUSED,
}
# Where an answer has its words.
WORDY = ("message", "error")
LONGEST_TEXT = 300


def check_status(document: Document, *, retry_after_seconds: float | None = None) -> None:
    """Look for a refusal inside a good answer. Raises CallError."""
    status = document.get("status")
    if isinstance(status, str) and status in GOOD_STATUSES:
        return
    found = refusal(200, document, retry_after_seconds=retry_after_seconds)
    if found.kind is not FailureKind.MALFORMED:
        raise found
    raise CallError(FailureKind.MALFORMED, f"the answer's status is {text(status)}: {message(document)}", answered=True)


def rows_of(document: Document) -> list[Document]:
    """Find the rows of an answer: none where `results` is absent or null. Raises CallError (malformed)."""
    rows = document.get("results")
    if rows is None:
        rows = []
    if not isinstance(rows, list):
        raise CallError(FailureKind.MALFORMED, "`results` is no list", answered=True)
    return [row for row in rows if isinstance(row, dict)]


def next_page(document: Document, path: str) -> str:
    """Return the query of the next page of a list, without any key; empty on the last page. Raises CallError.

    Of the address that the answer names nothing else is used: its host is not to be trusted.
    """
    next_url = document.get("next_url")
    if not isinstance(next_url, str) or not next_url:
        return ""
    parts = urlsplit(next_url)
    if parts.path != path:
        raise CallError(FailureKind.MALFORMED, f"the next page is elsewhere: {text(parts.path)}", answered=True)
    return urlencode([(key, value) for key, value in parse_qsl(parts.query) if key != "apiKey"])


def message(document: object) -> str:
    """Find the vendor's own words in an answer, bounded."""
    if isinstance(document, dict):
        for key in WORDY:
            if isinstance(document.get(key), str) and document[key].strip():
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


def refusal(
    http_status: int, document: object, *, several: bool = False, retry_after_seconds: float | None = None
) -> CallError:
    """Turn an answer that is none, by its HTTP status and what came with it, into a typed error.

    403 has several meanings that only its message tells apart: never, not this far back, not yet. `several`: the call
    was for several assets, and may be made for fewer.
    """
    kind = _kind_of(http_status, document)
    if kind is FailureKind.TOO_MANY and not several:
        kind = FailureKind.SERVER_ERROR
    return CallError(
        kind,
        f"HTTP {http_status}: {message(document)}",
        http_status=http_status,
        answered=True,
        retry_after_seconds=retry_after_seconds,
    )


def _kind_of(http_status: int, document: object) -> FailureKind:
    words = " ".join(str(document.get(key)) for key in WORDY).lower() if isinstance(document, dict) else ""
    for phrase, kind in KIND_OF_WORDS.items():
        if phrase in words:
            return kind
    if http_status == 200 and isinstance(document, dict) and document.get("status") == "NOT_AUTHORIZED":
        http_status = 403
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
