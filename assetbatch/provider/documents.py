"""JSON of any size that the vendor may send, read part by part: only what some reader looks at is kept.

The vendor adds fields as it likes, and a page may have 50,000 rows: what nobody knows costs its bytes, no more. So the
members of the document, and the rows of its lists, are parsed one at a time, and are cut down to the known fields
before the next one is. Memory is bounded by the bytes that came, by the largest part, and by what is kept.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from decimal import Decimal, InvalidOperation
from typing import Any

from assetbatch.failures import CallError, FailureKind

Document = dict[str, Any]

# What an answer may weigh, unpacked. With these bounds the worst answer leaves a run below 200 MiB.
MAX_BYTES = 64 * 2**20
# Each value has a comma or an opening bracket before it. The time that reading takes goes by these.
MAX_VALUES = 8_000_000
# The vendor's longest page has 50,000 bars of a minute.
MAX_ROWS = 100_000
# Of JSON python makes many times its size: `0,` becomes a Decimal of 104 bytes (120 since Python 3.13), and one
# character outside ASCII makes all of a text up to four times as wide. So a part, before anything is known of it, is
# bounded more closely.
MAX_PART_BYTES = 4 * 2**20
MAX_PART_VALUES = 100_000
FIRST_PART_BYTES = 256
# 50,000 bars weigh 59 MiB, since Python 3.13 65 MiB.
MAX_KEPT_BYTES = 68 * 2**20
LONGEST_NUMBER = 100
LONGEST_WORD = len("-Infinity")
NO_NUMBER = Decimal("NaN")

# All that is read of any answer, at any depth.
KNOWN = {
    name: name
    for name in (
        *("status", "message", "error", "results", "resultsCount", "next_url", "ticker", "name", "market"),
        *("base_currency_symbol", "currency_symbol", "execution_date", "split_from", "split_to"),
        *("currencies", "fx", "crypto", "exchanges", "nyse", "nasdaq", "exchange", "date"),
        *("T", "t", "o", "h", "l", "c", "v", "vw", "n", "a", "b", "p", "P"),
        *("last_quote", "last_trade", "last_minute", "session", "lastQuote", "lastTrade", "min", "day"),
        *("bid", "ask", "price", "value"),
        *("open", "high", "low", "close", "last_updated", "participant_timestamp", "sip_timestamp"),
        *("active", "delisted_utc", "composite_figi", "cik"),
    )
}

_CUT_NUMBER = re.compile(r"(\.|[eE][-+]?)?")
_SPACE = re.compile(rb"[ \t\n\r]*")


class NoJSONError(ValueError):
    """A text is no JSON object; says what it is instead."""


def parse(body: bytes | bytearray, *, is_list: bool = False) -> Document:
    """Read a JSON object, of it the known fields. Raises CallError (too large, malformed), without quoting what it is.

    Where it may be a bare list (`is_list`), that is read as the `results` of an object.
    A literal NaN is no JSON, but is read: as a Decimal it fails the row that has it, not its neighbours.
    """
    try:
        return _Reader(body).document(is_list=is_list)
    except NoJSONError as error:
        reason = f"the answer is {error} ({len(body)} bytes)"
    except (ValueError, RecursionError) as error:
        reason = f"the answer is no JSON ({type(error).__name__}, {len(body)} bytes)"
    raise CallError(FailureKind.MALFORMED, reason, answered=True)


def decimal_of(digits: str) -> Decimal:
    """Read a number; one that no price has, of endless digits or exponent, fails its row only."""
    try:
        return Decimal(digits) if len(digits) <= LONGEST_NUMBER else NO_NUMBER
    except InvalidOperation:
        return NO_NUMBER


class _Reader:
    def __init__(self, body: bytes | bytearray) -> None:
        encoding = json.detect_encoding(body)
        if len(body) > (MAX_BYTES if encoding.startswith("utf-8") else MAX_PART_BYTES):
            raise self._too_large(body)
        if encoding == "utf-8-sig":
            body = body[len(codecs.BOM_UTF8) :]
        elif encoding != "utf-8":
            body = body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        if _values(body) > MAX_VALUES:
            raise self._too_large(body)
        self._body = body
        self._at = 0
        self._kept_bytes = 0
        self._part_bytes = FIRST_PART_BYTES
        # What `json` itself calls at a place in a text; it returns the value there, and where it ends.
        decoder = json.JSONDecoder(parse_float=decimal_of, parse_int=decimal_of, parse_constant=Decimal)
        self._scan = decoder.scan_once  # type: ignore[attr-defined]

    def document(self, *, is_list: bool) -> Document:
        if is_list and self._comes(b"["):
            found: Document = {"results": self._rows()}
        elif self._comes(b"{"):
            found = self._members()
        else:
            raise NoJSONError("no JSON object")
        self._skip_space()
        if self._at < len(self._body):
            raise NoJSONError("no JSON: something is behind its end")
        return found

    def _members(self) -> Document:
        """Read an object whose brace was read."""
        found: Document = {}
        more = not self._comes(b"}")
        while more:
            key = self._part()
            if not isinstance(key, str) or not self._comes(b":"):
                raise NoJSONError("no JSON: a member without a name")
            value = self._rows() if self._comes(b"[") else self._kept(self._part())
            if key in KNOWN:
                found[KNOWN[key]] = value
            more = self._goes_on(b"}")
        return found

    def _rows(self) -> list[Any]:
        """Read a list whose bracket was read; what is no object stands there as None."""
        rows: list[Any] = []
        more = not self._comes(b"]")
        while more:
            row = self._part()
            rows.append(self._kept(row) if isinstance(row, dict) else None)
            if len(rows) > MAX_ROWS:
                raise self._too_large(self._body)
            more = self._goes_on(b"]")
        return rows

    def _part(self) -> Any:
        """Read one value, whole. How long it is, nobody knows before it is read: as long as the one before, or more."""
        self._skip_space()
        body, at = self._body, self._at
        while True:
            chunk = bytes(body[at : at + self._part_bytes])
            is_all = at + len(chunk) == len(body)
            text, _ = codecs.utf_8_decode(chunk, "surrogatepass", is_all)
            if sys.getsizeof(text) > 2 * MAX_PART_BYTES or _values(chunk) > MAX_PART_VALUES:
                raise self._too_large(body)
            try:
                value, end = self._scan(text, 0)
            except (StopIteration, json.JSONDecodeError) as error:
                if is_all or _is_broken(error, text):
                    raise NoJSONError("no JSON") from None
            else:
                # A number may go on behind the end of what was looked at, at any place: `1`, `1.`, `1e`, `1e+`.
                if is_all or not _CUT_NUMBER.fullmatch(text, end):
                    used = end if text.isascii() else len(text[:end].encode("utf-8", "surrogatepass"))
                    self._at += used
                    self._part_bytes = max(FIRST_PART_BYTES, used + used // 4)
                    return value
            if self._part_bytes >= 2 * MAX_PART_BYTES:
                raise self._too_large(body)
            self._part_bytes *= 2

    def _kept(self, value: Any) -> Any:
        """Cut a value down to what is known of it. A list in a row is known to nobody."""
        if isinstance(value, dict):
            value = {KNOWN[key]: self._kept(one) for key, one in value.items() if key in KNOWN}
        elif isinstance(value, list):
            value = []
        self._kept_bytes += sys.getsizeof(value)
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise self._too_large(self._body)
        return value

    def _skip_space(self) -> None:
        found = _SPACE.match(self._body, self._at)
        assert found is not None  # noqa: S101 - it matches nothing, too
        self._at = found.end()

    def _comes(self, mark: bytes) -> bool:
        """Return whether a mark comes next; then it is read."""
        self._skip_space()
        comes = self._body.startswith(mark, self._at)
        self._at += comes
        return comes

    def _goes_on(self, end: bytes) -> bool:
        """Return whether there is one more, or the `end` comes."""
        if self._comes(b","):
            return True
        if not self._comes(end):
            raise NoJSONError("no JSON: it breaks off")
        return False

    @staticmethod
    def _too_large(body: bytes | bytearray) -> CallError:
        reason = f"the answer ({len(body)} bytes) is larger than any good one"
        return CallError(FailureKind.TOO_LARGE, reason, answered=True)


def _is_broken(error: StopIteration | json.JSONDecodeError, text: str) -> bool:
    """Return whether a text is no JSON whatever comes behind it, and not merely cut off."""
    if isinstance(error, StopIteration):
        return bool(error.value < len(text) - LONGEST_WORD)
    return not error.msg.startswith("Unterminated") and error.pos < len(text) - LONGEST_WORD


def _values(body: bytes | bytearray) -> int:
    """Return how many values there are at most."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")
