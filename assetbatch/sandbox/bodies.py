"""An answer as it goes out, and the vendor's own words of refusal."""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import Any
from uuid import uuid4

from msgspec import Struct, field

Document = dict[str, Any]

UPGRADE = "Please upgrade your plan at https://massive.com/pricing"
NOT_ENTITLED = f"You are not entitled to this data. {UPGRADE}"
TIMEFRAME = f"Your plan doesn't include this data timeframe. {UPGRADE}"
BEFORE_END_OF_DAY = f"Attempted to request today's data before end of day. {UPGRADE}"
UNKNOWN_KEY = "Unknown API Key"
NO_KEY = "API Key was not provided"
TOO_MANY = (
    "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to continue. "
    "https://massive.com/pricing"
)
BAD_QUERY = "Failed to parse query parameters"

_RAW = "\0raw:"
_RAW_TOKEN = re.compile(r'"\\u0000raw:([^"]*)"')


class Delivery(Enum):
    """How an answer is put on the wire."""

    WHOLE = auto()
    SILENT = auto()
    """Nothing is sent, and the connection stays open."""
    DRIP = auto()
    """The headers at once, then a byte a second."""
    DRIP_HEADERS = auto()
    """A byte a second from the first on."""
    RESET = auto()
    """Headers and half the body, then the connection is torn down."""


class Answer(Struct, frozen=True):
    """One answer: `status` is 0 when none is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Delivery = Delivery.WHOLE
    request_id: str = field(default_factory=lambda: uuid4().hex)


class Refused(Exception):  # noqa: N818 - the vendor refuses; nothing went wrong here
    """The request is answered with a refusal."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def raw(token: str) -> str:
    """Mark a value that is to be written into the JSON text as it stands, valid or not."""
    return _RAW + token


def documented(document: Document | list[Document], *, status: int = 200) -> Answer:
    """Write a document as JSON; a `request_id` of None is filled in."""
    request_id = uuid4().hex
    if isinstance(document, dict) and document.get("request_id", "") is None:
        document["request_id"] = request_id
    text = json.dumps(document, separators=(",", ":"))
    if "\\u0000raw:" in text:
        text = _RAW_TOKEN.sub(r"\1", text)
    return Answer(status, text.encode(), request_id=request_id)


def error(status: int, text: str) -> Answer:
    """Refuse in the shape of 400, 401 and 429: the words stand under `error`."""
    return documented({"status": "ERROR", "request_id": None, "error": text}, status=status)


def not_authorized(message: str, *, status: int = 403) -> Answer:
    """Refuse in the shape of 403: the words, under `message`, alone tell "never" from "later"."""
    return documented({"status": "NOT_AUTHORIZED", "request_id": None, "message": message}, status=status)


def not_found(path: str) -> Answer:
    """Refuse an unknown ticker that was asked for alone: v3 says so in words, v2 does not."""
    if path.startswith("/v3/"):
        return documented({"status": "NOT_FOUND", "request_id": None, "message": "Ticker not found."}, status=404)
    return documented({"status": "NotFound", "request_id": None}, status=404)


def plain(status: int, text: str) -> Answer:
    """Answer in plain text, as the vendor's router gives it for a path that does not exist."""
    return Answer(status, text.encode(), "text/plain; charset=utf-8")


def nginx(status: int, reason: str) -> Answer:
    """Answer with a page of the proxy in front of the API."""
    head = f"<head><title>{status} {reason}</title></head>"
    body = f"<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>"
    return Answer(status, f"<html>\r\n{head}\r\n{body}\r\n</html>\r\n".encode(), "text/html")
