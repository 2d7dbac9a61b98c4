"""Quotes out of snapshots. A row that is no price condemns itself alone.

Numbers stay `Decimal` from the text on; times are told apart by their magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from assetbatch.errors import CallError, FailureKind
from assetbatch.model import AssetType, Call, CallKind, Quote
from assetbatch.provider.answers import Document, message, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from assetbatch.model import Asset

# Beyond any price; bounds what numeric columns and people must take.
LARGEST_NUMBER = Decimal(10) ** 18
SMALLEST_NUMBER = Decimal(10) ** -18
MOST_DIGITS = 40
# Clocks differ a little; a price of tomorrow is none.
FUTURE_TOLERANCE = timedelta(minutes=5)
OLDEST_TIME = datetime(1970, 1, 2, tzinfo=UTC)
# (below this magnitude, units a second)
TIME_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a kind of snapshot keeps what a quote is made of.

    `updated` of a row is not among it: one and the same time, often in the future, for half of the vendor's rows.
    """

    quote: str
    bid: str
    ask: str
    quote_time: str
    trade: str
    price: str
    trade_times: tuple[str, ...]
    day: str
    open: str
    high: str
    low: str
    close: str


SHAPES = {
    CallKind.SNAPSHOT: Shape(
        quote="last_quote",
        bid="bid",
        ask="ask",
        quote_time="last_updated",
        trade="last_trade",
        price="price",
        trade_times=("participant_timestamp", "sip_timestamp", "last_updated"),
        day="session",
        open="open",
        high="high",
        low="low",
        close="close",
    ),
    CallKind.SNAPSHOT_SINGLE: Shape(
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
    ),
}


class InvalidRowError(Exception):
    """A row is no price; says why."""


@dataclass(slots=True)
class Answers:
    """What a snapshot brought, by symbol: quotes, and why there is none."""

    quotes: dict[str, Quote] = field(default_factory=dict)
    failures: dict[str, tuple[FailureKind, str]] = field(default_factory=dict)


def read(call: Call, document: Document, *, now: datetime) -> Answers:
    """Read the answer to a snapshot call; every asset of the call is in the result, as a quote or as a failure."""
    rows = dict(_rows(call, document))
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
                answers.quotes[asset.symbol] = _quote(asset, row, SHAPES[call.kind], now)
            except InvalidRowError as error:
                answers.failures[asset.symbol] = (FailureKind.INVALID, f"{asset.polygon_ticker}: {error}")
    return answers


def _rows(call: Call, document: Document) -> Iterator[tuple[str, Document]]:
    if call.kind is CallKind.SNAPSHOT:
        rows = document.get("results")
        if rows is None:
            rows = []
        if not isinstance(rows, list):
            raise CallError(FailureKind.MALFORMED, "`results` is no list", answered=True)
    else:
        rows = [document.get("ticker")]
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("ticker"), str):
            yield row["ticker"], row


def _row_error(row: Document) -> tuple[FailureKind, str]:
    kinds = {"NOT_FOUND": FailureKind.UNKNOWN_TICKER, "NOT_ENTITLED": FailureKind.NOT_ENTITLED}
    code = row["error"]
    return kinds.get(code if isinstance(code, str) else "", FailureKind.INVALID), f"{text(code)}: {message(row)}"


def _quote(asset: Asset, row: Document, shape: Shape, now: datetime) -> Quote:
    quote, trade, day = (_part(row, name) for name in (shape.quote, shape.trade, shape.day))
    if asset.asset_type is AssetType.CRYPTO:
        price, moment = _number(trade, shape.price), _first(trade, shape.trade_times)
    else:
        price, moment = _number(quote, shape.bid), quote.get(shape.quote_time)
    if price is None:
        what = "trade" if asset.asset_type is AssetType.CRYPTO else "bid"
        raise InvalidRowError(f"no {what} price (zero or absent)")
    return Quote(
        polygon_ticker=asset.polygon_ticker,
        last_price=price,
        timestamp=_time(moment, now),
        bid=_number(quote, shape.bid),
        ask=_number(quote, shape.ask),
        daily_open=_number(day, shape.open),
        daily_high=_number(day, shape.high),
        daily_low=_number(day, shape.low),
        daily_close=_number(day, shape.close),
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


def _number(part: Mapping[str, Any], key: str) -> Decimal | None:
    """Read a price. Absent, null and zero are the vendor's three ways to say that there is none."""
    value = part.get(key)
    if value is None:
        return None
    if not isinstance(value, Decimal) or not value.is_finite():
        raise InvalidRowError(f"`{key}` is no number: {text(value)}")
    if value == 0:
        return None
    if value < 0:
        raise InvalidRowError(f"`{key}` is negative: {text(value)}")
    if not SMALLEST_NUMBER <= value <= LARGEST_NUMBER or len(value.as_tuple().digits) > MOST_DIGITS:
        raise InvalidRowError(f"`{key}` is out of range: {text(value)}")
    return value


def _time(value: object, now: datetime) -> datetime:
    """Read a time in seconds, milli-, micro- or nanoseconds, told apart by magnitude. Raises InvalidRowError."""
    if not isinstance(value, Decimal) or not value.is_finite() or value <= 0 or value >= TIME_UNITS[-1][0]:
        raise InvalidRowError(f"no time of its price: {text(value)}")
    per_second = next(per_second for below, per_second in TIME_UNITS if value < below)
    # Whole microseconds: what datetime and PostgreSQL hold; a nanosecond is cut, never rounded into the future.
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(value * 10**6 / per_second))
    if moment > now + FUTURE_TOLERANCE:
        raise InvalidRowError(f"its time {moment.isoformat()} is in the future")
    if moment < OLDEST_TIME:
        raise InvalidRowError(f"no time of its price: {text(value)}")
    return moment
