"""The misbehaviours that can be asked for: whole answers that go wrong, and rows that do.

A word is `KIND`, `KIND:MATCH`, `KIND@P` or `KIND:MATCH@P`. MATCH is looked for in path and query (for kinds
of rows: in the row's ticker, of a whole market's day in `C:XAUUSD 2026-04-03`); P is a probability, drawn for each
request (each row) from a seeded source. Words with `ws-` are of the stream: see `stream_faults`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from msgspec import Struct

from assetbatch.model import AssetType
from assetbatch.sandbox.bodies import Document, raw
from assetbatch.sandbox.breakdowns import BREAKDOWNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from assetbatch.sandbox.bodies import Answer

STALE_MS = 10 * 60_000
OTHER_TICKER = "X:OTHERUSD"
"""What `wrong-ticker` puts in the place of the ticker that was asked for."""


class RowShape(Struct, frozen=True):
    """Where a row keeps its prices and times: container ("" for the row itself) to the keys in it."""

    ticker: str
    prices: dict[str, tuple[str, ...]]
    times: dict[str, tuple[str, ...]]
    hour: int
    """One hour in the unit of the row's times."""


UNIFIED = RowShape(
    "ticker",
    {"last_quote": ("bid", "ask", "midpoint"), "last_trade": ("price",), "last_minute": ("close",), "": ("value",)},
    {
        "last_quote": ("last_updated",),
        "last_trade": ("participant_timestamp", "last_updated"),
        "last_minute": ("last_updated",),
        "": ("last_updated",),
    },
    3600 * 10**9,
)
SINGLE = RowShape(
    "ticker",
    {"lastQuote": ("b", "a"), "lastTrade": ("p",)},
    {"lastQuote": ("t",), "lastTrade": ("t",)},
    3_600_000,
)
SINGLE_STOCK = RowShape(
    "ticker",
    {"lastQuote": ("p", "P"), "lastTrade": ("p",), "min": ("c",)},
    {"lastQuote": ("t",), "lastTrade": ("t",)},
    3600 * 10**9,
)
BAR = RowShape("T", {"": ("o", "h", "l", "c", "vw")}, {"": ("t",)}, 3_600_000)


def _set(value: Any) -> Callable[[Document, RowShape], None]:
    return lambda row, shape: _each(row, shape.prices, lambda _: value)


def _places(row: Document, places: dict[str, tuple[str, ...]]) -> Iterator[tuple[Document, str]]:
    """Yield what holds a value of the row, and under which key."""
    for container, keys in places.items():
        values = row.get(container, {}) if container else row
        yield from ((values, key) for key in keys if key in values)


def _each(row: Document, places: dict[str, tuple[str, ...]], change: Callable[[Any], Any]) -> None:
    for values, key in _places(row, places):
        # What another fault has already spoilt is left as it is.
        if isinstance(values[key], int | float):
            values[key] = change(values[key])


def _missing(row: Document, shape: RowShape) -> None:
    for values, key in _places(row, shape.prices):
        del values[key]


def _wrong_ticker(row: Document, shape: RowShape) -> None:
    if shape.ticker in row:
        row[shape.ticker] = OTHER_TICKER


def _scientific(value: float) -> str:
    digits = repr(value).replace(".", "").replace("-", "").lstrip("0").split("e")[0]
    return raw(f"{value:.{max(len(digits) - 1, 0)}e}")


def _strings(row: Document, shape: RowShape) -> None:
    for key, value in row.items():
        if isinstance(value, dict):
            _strings(value, shape)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            row[key] = repr(value)


ROW_CHANGES: Mapping[str, Callable[[Document, RowShape], None]] = {
    "zero": _set(0),
    "nan": _set(raw("NaN")),
    "negative": lambda row, shape: _each(row, shape.prices, lambda price: -price),
    "huge": _set(raw("1e400")),
    "missing": _missing,
    "future": lambda row, shape: _each(row, shape.times, lambda at: at + shape.hour),
    "wrong-ticker": _wrong_ticker,
    "strings": _strings,
    "exponent": lambda row, shape: _each(row, shape.prices, _scientific),
}
ROW_KINDS = frozenset({*ROW_CHANGES, "stale", "drop", "duplicate"})
DOCUMENT_KINDS = frozenset({"delayed", "minutes-only", "holiday"})
# Of a connection's upgrade, greeting, key and subscriptions; of each second of it; of its events.
_STREAM_WORDS = """
ws-403 ws-502 ws-mute-upgrade ws-mute-connected ws-auth-timeout ws-slow ws-mixed
ws-mute-auth ws-auth-failed ws-no-plan ws-mute-subscribe ws-not-authorized ws-no-answer ws-max-connections
ws-drop ws-close-1000 ws-close-1001 ws-close-1008 ws-close-1012 ws-slow-consumer ws-force-disconnect ws-mute ws-dead
ws-big ws-garbage
ws-silent ws-past ws-off-schema ws-float ws-duplicate ws-unordered ws-revised ws-unknown-event
"""
STREAM_KINDS = frozenset({*_STREAM_WORDS.split(), *(f"ws-{kind}" for kind in ROW_CHANGES)})
KINDS = tuple(sorted({*BREAKDOWNS, *ROW_KINDS, *DOCUMENT_KINDS, *STREAM_KINDS}))


class Fault(Struct, frozen=True):
    """One misbehaviour: what, where (any text: everywhere), how often."""

    kind: str
    match: str = ""
    probability: float = 1.0


def read_word(word: str) -> Fault:
    """Read the misbehaviour that a word asks for.

    Raises ValueError, naming the words that exist, for an unknown one or a probability outside 0 to 1.
    """
    rest, at, chance = word.rpartition("@")
    kind, _, match = (rest if at else word).partition(":")
    if kind not in KINDS:
        raise ValueError(f"unknown failure {word!r}: the words are {', '.join(KINDS)} (each as KIND[:MATCH][@P])")
    try:
        probability = float(chance) if at else 1.0
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"failure {word!r}: {chance!r} is no probability from 0 to 1")
    return Fault(kind, match, probability)


class Faults:
    """What is to go wrong from now on. Raises ValueError for a word that does not exist."""

    def __init__(self, words: Sequence[str], seed: int) -> None:
        read = [read_word(word) for word in words]
        self._breakdowns = [fault for fault in read if fault.kind in BREAKDOWNS]
        self._held = [fault for fault in read if fault.kind in DOCUMENT_KINDS | STREAM_KINDS]
        self.of_stream = any(fault.kind in STREAM_KINDS for fault in read)
        """Whether anything is to go wrong with the stream."""
        self._stale = [fault for fault in read if fault.kind == "stale"]
        self._rows = [fault for fault in read if fault.kind in ROW_KINDS and fault.kind != "stale"]
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._stopped_at: dict[str, int] = {}

    def breakdown(self, path: str, answer: Callable[[], Answer]) -> Answer | None:
        """Break the answer to this request, or return None; `answer` makes the good one that is to break."""
        for fault in self._breakdowns:
            if self._fires(fault, path, unquote(path)):
                return BREAKDOWNS[fault.kind](path, answer)
        return None

    def holds(self, kind: str, *texts: str) -> bool:
        """Whether a misbehaviour is to be seen in what any of the texts names; drawn anew each time."""
        return any(fault.kind == kind and self._fires(fault, *texts) for fault in self._held)

    def document(self, kind: str, path: str) -> bool:
        """Whether a misbehaviour of whole documents holds for this request."""
        return self.holds(kind, path, unquote(path))

    def holiday(self, market: AssetType, path: str) -> bool:
        """Whether a market rests, for this request, though its hours say otherwise: all do, but crypto."""
        return market is not AssetType.CRYPTO and self.document("holiday", path)

    def moment_ms(self, ticker: str, now_ms: int) -> int:
        """Return the time that live prices of a ticker are of: now, or a moment that stands still (stale)."""
        if any(self._fires(fault, ticker) for fault in self._stale):
            return self._stopped_at.setdefault("", now_ms - STALE_MS)
        return now_ms

    def ticker(self, ticker: str) -> str:
        """Name the ticker of a document about one ticker: itself, or another."""
        row = {"T": ticker}
        return str(next(iter(self.rows([row], BAR, only="wrong-ticker")))["T"])

    def rows(
        self, rows: list[Document], shape: RowShape, *, ticker: str = "", day: str = "", only: str | None = None
    ) -> list[Document]:
        """Let go wrong with the rows what is to; `ticker` for rows that do not name theirs, `day` for those of one."""
        if not self._rows:
            return rows
        changed: list[Document] = []
        for row in rows:
            changed += self._changed(row, shape, f"{ticker or row.get(shape.ticker, '')} {day}", only)
        return changed

    def _changed(self, row: Document, shape: RowShape, place: str, only: str | None) -> list[Document]:
        copies = [row]
        for fault in self._rows:
            if only not in {None, fault.kind} or not self._fires(fault, place):
                continue
            if fault.kind == "drop":
                return []
            if fault.kind == "duplicate":
                copies.append(row)
            else:
                ROW_CHANGES[fault.kind](row, shape)
        return copies

    def _fires(self, fault: Fault, *texts: str) -> bool:
        if not any(fault.match in text for text in texts):
            return False
        return fault.probability >= 1 or self._chance.random() < fault.probability
