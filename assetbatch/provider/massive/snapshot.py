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
from assetbatch.model import Quote
from assetbatch.plans import MOST_TICKERS
from assetbatch.provider.answers import GOOD_STATUSES, message, rows_of, text
from assetbatch.provider.documents import MAX_PART_BYTES, parse
from assetbatch.provider.request import Request
from assetbatch.provider.results import Answers
from assetbatch.provider.values import FUTURE_TOLERANCE, PRICE, InvalidRowError, moment_of, number, time_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.model import Asset, Call
    from assetbatch.provider.documents import Document


class Shape(Struct, frozen=True):
    """Where a kind of snapshot keeps what a quote is made of; by itself, the unified one.

    `updated` of a row is not among it: one and the same time, often in the future, for half of the vendor's rows.
    """

    quote: str = "last_quote"
    bid: str = "bid"
    ask: str = "ask"
    quote_time: str = "last_updated"
    trade: str = "last_trade"
    price: str = "price"
    trade_times: tuple[str, ...] = ("participant_timestamp", "sip_timestamp", "last_updated")
    day: str = "session"
    open: str = "open"
    high: str = "high"
    low: str = "low"
    close: str = "close"


UNIFIED = Shape()
SINGLE = Shape(
    quote="lastQuote",
    bid="b",
    ask="a",
    quote_time="t",
    trade="lastTrade",
    price="p",
    trade_times=("t",),
    day="day",
    open="o",
    high="h",
    low="l",
    close="c",
)


def unified(call: Call) -> Request[Answers]:
    """Return the request for the quotes of all assets of a call, of whatever markets."""
    tickers = ",".join(asset.polygon_ticker for asset in call.assets)
    # The vendor's default limit, 10, would cut the answer.
    path = f"/v3/snapshot?{urlencode({'ticker.any_of': tickers, 'limit': MOST_TICKERS})}"
    return Request(call, path, partial(_read_unified, call), plain=partial(_plain, call))


def single(call: Call) -> Request[Answers]:
    """Return the request for the quote of the one asset of a call."""
    (asset,) = call.assets
    traits, ticker = TRAITS[asset.asset_type], quote(asset.polygon_ticker, safe=":")
    path = f"/v2/snapshot/locale/{traits.locale}/markets/{traits.snapshot_name}/tickers/{ticker}"
    return Request(call, path, lambda document, now: _read(call, [document.get("ticker")], SINGLE, now))


def _read_unified(call: Call, document: Document, now: datetime) -> Answers:
    return _read(call, rows_of(document), UNIFIED, now)


def _read(call: Call, found: Sequence[object], shape: Shape, now: datetime) -> Answers:
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


def _quote(asset: Asset, row: Document, shape: Shape, now: datetime) -> Quote:
    last_quote, trade, day = (_part(row, name) for name in (shape.quote, shape.trade, shape.day))
    has_trades = TRAITS[asset.asset_type].has_trades
    if has_trades:
        price, moment = number(trade, shape.price), _first(trade, shape.trade_times)
    else:
        price, moment = number(last_quote, shape.bid), last_quote.get(shape.quote_time)
    if price is None:
        what = "trade" if has_trades else "bid"
        raise InvalidRowError(f"no {what} price (zero or absent)")
    return Quote(
        last_price=price,
        timestamp=time_of(moment, now),
        bid=number(last_quote, shape.bid),
        ask=number(last_quote, shape.ask),
        daily_open=number(day, shape.open),
        daily_high=number(day, shape.high),
        daily_low=number(day, shape.low),
        daily_close=number(day, shape.close),
    )


def _part(row: Document, key: str) -> Mapping[str, Any]:
    part = row.get(key)
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


class _LastQuote(msgspec.Struct, gc=False):
    bid: Raw = _NONE
    ask: Raw = _NONE
    last_updated: int | None = None


class _LastTrade(msgspec.Struct, gc=False):
    price: Raw = _NONE
    participant_timestamp: int | None = None
    sip_timestamp: int | None = None
    last_updated: int | None = None


class _Session(msgspec.Struct, gc=False):
    open: Raw = _NONE
    high: Raw = _NONE
    low: Raw = _NONE
    close: Raw = _NONE


class _Row(msgspec.Struct, gc=False):
    """A row of a unified snapshot as it should be; its numbers are not read yet, but for its time."""

    ticker: str
    error: None = None
    last_quote: _LastQuote | None = None
    last_trade: _LastTrade | None = None
    session: _Session | None = None


class _Document(msgspec.Struct):
    status: str
    results: list[_Row]


_DECODER = msgspec.json.Decoder(_Document)
_NO_QUOTE, _NO_TRADE, _NO_SESSION = _LastQuote(), _LastTrade(), _Session()


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
    times: list[int] = []
    for asset in call.assets:
        row = rows[asset.polygon_ticker]
        last_quote, trade, day = row.last_quote or _NO_QUOTE, row.last_trade or _NO_TRADE, row.session or _NO_SESSION
        if TRAITS[asset.asset_type].has_trades:
            price = trade.price
            moment = trade.participant_timestamp or trade.sip_timestamp or trade.last_updated
        else:
            price, moment = last_quote.bid, last_quote.last_updated
        figures += (price, last_quote.bid, last_quote.ask, day.open, day.high, day.low, day.close)
        times.append(moment or 0)
    column = b",".join(figures)
    if document.status not in GOOD_STATUSES or not _FIGURES.fullmatch(column):
        raise InvalidRowError("something is odd")
    numbers = iter([None if digits == "null" else Decimal(digits) or None for digits in column.decode().split(",")])
    answers = Answers()
    for asset, at in zip(call.assets, times, strict=True):
        last_price, bid, ask, *daily = islice(numbers, 7)
        if last_price is None:
            raise InvalidRowError("no price")
        opened, high, low, close = daily
        answers.quotes[asset.symbol] = Quote(last_price, moment_of(at), bid, ask, opened, high, low, close)
    return answers
