"""Quotes of this moment: the unified snapshot, of tickers of any market, and that of a single ticker.

https://massive.com/docs/rest/forex/snapshots/unified-snapshot
https://massive.com/docs/rest/forex/snapshots/single-ticker-snapshot

A row that is no price condemns itself alone: it is read from the document, as all others beside it. A unified snapshot
in which nothing is odd is read by itself, and five times as fast.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from assetbatch.failures import FailureKind
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Quote
from assetbatch.plans import MOST_TICKERS
from assetbatch.provider.answers import GOOD_STATUSES, message, rows_of, text
from assetbatch.provider.documents import MAX_PART_BYTES, parse
from assetbatch.provider.request import Request
from assetbatch.provider.results import Answers
from assetbatch.provider.values import FUTURE_TOLERANCE, PRICE, InvalidRowError, moment_of, number, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.markets import Price
    from assetbatch.model import Asset, Call
    from assetbatch.provider.documents import Document


class Part(Struct, frozen=True):
    """Where a kind of snapshot keeps an object of a row: its name, what its figures are called, and where its time is.

    Of several times the first counts that is there.
    """

    name: str
    figures: Mapping[str, str]
    times: tuple[str, ...] = ()


# By the names that the unified snapshot has for them; "" is the row itself. `updated` of a row is in none: one and the
# same time, often in the future, for half of the vendor's rows.
UNIFIED: Mapping[str, Part] = {
    name: Part(name, {figure: figure for figure in figures}, times)
    for name, figures, times in (
        ("", ("value",), ("last_updated",)),
        ("last_quote", ("bid", "ask"), ("last_updated",)),
        ("last_trade", ("price",), ("participant_timestamp", "sip_timestamp", "last_updated")),
        ("last_minute", ("close",), ("last_updated",)),
        ("session", ("open", "high", "low", "close"), ()),
    )
}
SINGLE: Mapping[str, Part] = {
    "last_quote": Part("lastQuote", {"bid": "b", "ask": "a"}, ("t",)),
    "last_trade": Part("lastTrade", {"price": "p"}, ("t",)),
    "last_minute": Part("min", {"close": "c"}, ("t",)),
    "session": Part("day", {"open": "o", "high": "h", "low": "l", "close": "c"}),
}
# There is none of a single index.
SINGLES: Mapping[AssetType, Mapping[str, Part]] = {
    AssetType.FOREX: SINGLE,
    AssetType.CRYPTO: SINGLE,
    # Here, capitals are of the ask: `S` and `s` are the sizes.
    AssetType.STOCKS: {**SINGLE, "last_quote": Part("lastQuote", {"bid": "p", "ask": "P"}, ("t",))},
}


def unified(call: Call) -> Request[Answers]:
    """Return the request for the quotes of all assets of a call, of whatever markets."""
    tickers = ",".join(asset.polygon_ticker for asset in call.assets)
    # The vendor's default limit, 10, would cut the answer.
    path = f"/v3/snapshot?{urlencode({'ticker.any_of': tickers, 'limit': MOST_TICKERS})}"
    return Request(call, path, partial(_read_unified, call), plain=partial(_plain, call))


def single(call: Call) -> Request[Answers]:
    """Return the request for the quote of the one asset of a call: the unified one where its market has no other."""
    (asset,) = call.assets
    shape = SINGLES.get(asset.asset_type)
    if shape is None:
        return unified(call)
    traits, ticker = TRAITS[asset.asset_type], quote(asset.polygon_ticker, safe=":")
    path = f"/v2/snapshot/locale/{traits.locale}/markets/{traits.snapshot_name}/tickers/{ticker}"
    return Request(call, path, lambda document, now: _read(call, [document.get("ticker")], shape, now))


def _read_unified(call: Call, document: Document, now: datetime) -> Answers:
    return _read(call, rows_of(document), UNIFIED, now)


def _read(call: Call, found: Sequence[object], shape: Mapping[str, Part], now: datetime) -> Answers:
    """Read the rows of a snapshot; every asset of the call is in the result, as a quote or as a failure."""
    rows = {row["ticker"]: row for row in found if isinstance(row, dict) and isinstance(row.get("ticker"), str)}
    answers = Answers()
    for asset in call.assets:
        row = rows.get(asset.polygon_ticker)
        if row is None:
            others = ", ".join(sorted(text(ticker) for ticker in rows)[:3])
            reason = f"asked for {asset.polygon_ticker}, the answer has {others or 'nothing'}"
            answers.failures[asset.symbol] = (FailureKind.MISSING, reason)
        elif row.get("error") is not None:
            answers.failures[asset.symbol] = _row_error(row)
        else:
            try:
                answers.quotes[asset.symbol] = _quote(asset, row, shape, now)
            except InvalidRowError as error:
                answers.failures[asset.symbol] = (FailureKind.INVALID, f"{asset.polygon_ticker}: {error}")
    return answers


def _row_error(row: Document) -> tuple[FailureKind, str]:
    kinds = {"NOT_FOUND": FailureKind.UNKNOWN_TICKER, "NOT_ENTITLED": FailureKind.NOT_ENTITLED}
    code = row["error"]
    return kinds.get(code if isinstance(code, str) else "", FailureKind.INVALID), f"{text(code)}: {message(row)}"


def _quote(asset: Asset, row: Document, shape: Mapping[str, Part], now: datetime) -> Quote:
    objects = {name: _object(row, part.name) for name, part in shape.items()}

    def figure(name: str, key: str) -> Decimal | None:
        return number(objects[name], shape[name].figures[key])

    places = TRAITS[asset.asset_type].prices
    found = ((place.part, price) for place in places if (price := figure(place.part, place.figure)) is not None)
    part, price = next(found, ("", None))
    if price is None:
        raise InvalidRowError(f"no {' or '.join(place.name for place in places)} (zero or absent)")
    return Quote(
        last_price=price,
        timestamp=time_of(_first(objects[part], shape[part].times), now),
        bid=figure("last_quote", "bid"),
        ask=figure("last_quote", "ask"),
        daily_open=figure("session", "open"),
        daily_high=figure("session", "high"),
        daily_low=figure("session", "low"),
        daily_close=figure("session", "close"),
    )


def _object(row: Document, key: str) -> Mapping[str, Any]:
    part = row.get(key) if key else row
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise InvalidRowError(f"`{key}` is no object")
    return part


def _first(part: Mapping[str, Any], keys: Iterable[str]) -> object:
    return next((part[key] for key in keys if part.get(key)), None)


# --- Where nothing is odd

_NONE = Raw(b"null")
_FIGURES = re.compile(rb"(?:(?:%b|null|0(?:\.0{1,18})?)(?:,|\Z))++" % PRICE)


class _Timed(msgspec.Struct, gc=False):
    last_updated: int | None = None

    @property
    def moment(self) -> int:
        return self.last_updated or 0


class _LastQuote(_Timed, gc=False):
    bid: Raw = _NONE
    ask: Raw = _NONE


class _LastTrade(_Timed, gc=False):
    price: Raw = _NONE
    participant_timestamp: int | None = None
    sip_timestamp: int | None = None

    @property
    def moment(self) -> int:
        return self.participant_timestamp or self.sip_timestamp or self.last_updated or 0


class _LastMinute(_Timed, gc=False):
    close: Raw = _NONE


class _Session(msgspec.Struct, gc=False):
    open: Raw = _NONE
    high: Raw = _NONE
    low: Raw = _NONE
    close: Raw = _NONE


class _Row(_Timed, kw_only=True, gc=False):
    """A row of a unified snapshot as it should be; its numbers are not read yet, but for its times."""

    ticker: str
    error: None = None
    value: Raw = _NONE
    last_quote: _LastQuote | None = None
    last_trade: _LastTrade | None = None
    last_minute: _LastMinute | None = None
    session: _Session | None = None

    def figure(self, place: Price) -> tuple[Raw, int]:
        """Return the digits that are at a place, and the time of them."""
        part = getattr(self, place.part) if place.part else self
        return (_NONE, 0) if part is None else (getattr(part, place.figure), part.moment)


class _Document(msgspec.Struct):
    status: str
    results: list[_Row]


_DECODER = msgspec.json.Decoder(_Document)
_NO_QUOTE, _NO_SESSION = _LastQuote(), _Session()


def _plain(call: Call, body: bytes | bytearray) -> Callable[[datetime], Answers] | None:
    """Return what reads an answer in which nothing is odd; None where the document has to be looked at."""
    if len(body) > MAX_PART_BYTES:
        return None
    try:
        answers = _read_plain(call, _DECODER.decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError, LookupError, InvalidRowError):
        return None
    newest = max(found.timestamp for found in answers.quotes.values())

    def known(now: datetime) -> Answers:
        return answers if newest <= now + FUTURE_TOLERANCE else _read_unified(call, parse(body), now)

    return known


def _read_plain(call: Call, document: _Document) -> Answers:
    """Read a price of each asset. Raises LookupError, InvalidRowError where anything is odd, or one has none."""
    rows = {row.ticker: row for row in document.results}
    figures: list[Raw] = []
    times: list[list[int]] = []
    for asset in call.assets:
        row = rows[asset.polygon_ticker]
        last_quote, day = row.last_quote or _NO_QUOTE, row.session or _NO_SESSION
        found = [row.figure(place) for place in TRAITS[asset.asset_type].prices]
        figures += [digits for digits, _ in found]
        figures += (last_quote.bid, last_quote.ask, day.open, day.high, day.low, day.close)
        times.append([at for _, at in found])
    column = b",".join(figures)
    if document.status not in GOOD_STATUSES or not _FIGURES.fullmatch(column):
        raise InvalidRowError("something is odd")
    numbers = iter([None if digits == "null" else Decimal(digits) or None for digits in column.decode().split(",")])
    answers = Answers()
    for asset, moments in zip(call.assets, times, strict=True):
        prices = [(price, at) for price, at in zip(islice(numbers, len(moments)), moments, strict=True) if price]
        bid, ask, opened, high, low, close = islice(numbers, 6)
        if not prices:
            raise InvalidRowError("no price")
        last_price, at = prices[0]
        answers.quotes[asset.symbol] = Quote(last_price, moment_of(at), bid, ask, opened, high, low, close)
    return answers
