"""Bars, page by page: https://massive.com/docs/rest/crypto/aggregates/custom-bars. A row that is no bar fails alone.

A page in which nothing is odd is taken by columns, its digits as they are written; any other is read row by row. Of
`next_url` it only counts that it is there: the next page is asked for by its time, so that a run that was
killed between two pages goes on where it was. What was traded is not looked at of assets without volume.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from assetbatch.bar_series import ABSENT, BarSeries
from assetbatch.failures import CallError, FailureKind
from assetbatch.markets import TRAITS
from assetbatch.model import Bar
from assetbatch.planner import EPOCH
from assetbatch.plans import MOST_BASE_MINUTES
from assetbatch.provider.answers import GOOD_STATUSES, rows_of, text
from assetbatch.provider.documents import MAX_ROWS
from assetbatch.provider.request import Request
from assetbatch.provider.results import Page
from assetbatch.provider.values import (
    FRACTION,
    FUTURE_TOLERANCE,
    LARGEST_NUMBER,
    MOST_DIGITS,
    PRICE,
    InvalidRowError,
    number,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from assetbatch.model import Call
    from assetbatch.provider.documents import Document

PRICES = ("o", "h", "l", "c")
TRADED = ("v", "vw", "n")

# Likewise of what is no price.
_VOLUME = rb"(?:0|[1-9][0-9]{0,17})%b|[1-9]%b[eE](?:-[0-9]{1,2}|\+?0?[0-9])" % (FRACTION, FRACTION)
_TRADES = rb"0|[1-9][0-9]{0,8}|null"
# By the vendor's name, in the order of `BarSeries.digits`: what a whole column of a page looks like.
_COLUMNS = {
    name: re.compile(rb"(?:(?:%b)(?:,|\Z))++" % one)
    for name, one in {
        **dict.fromkeys(PRICES, PRICE),
        "v": _VOLUME,
        "vw": PRICE + rb"|null",
        "n": _TRADES,
    }.items()
}
_ABSENT = Raw(b"null")


class _Row(msgspec.Struct, gc=False):
    """A row of a page, of which only the time is read."""

    t: int
    o: Raw
    h: Raw
    l: Raw  # noqa: E741 - the vendor's name
    c: Raw
    v: Raw = Raw(b"0")
    vw: Raw = _ABSENT
    n: Raw = _ABSENT


class _Document(msgspec.Struct):
    """A page as it should be."""

    status: str
    ticker: str
    results: list[_Row]
    resultsCount: int = 0  # noqa: N815 - the vendor's name
    next_url: str | None = None


_DECODER = msgspec.json.Decoder(_Document)


def request(call: Call) -> Request[Page]:
    """Return the request for one page of the bars of a call's asset, of so many minutes each, within its span."""
    assert call.span is not None  # noqa: S101 - such a call has a span
    ticker = quote(call.assets[0].polygon_ticker, safe=":")
    since, until = (_milliseconds(moment) for moment in (call.span.since, call.span.until))
    query = urlencode({"adjusted": "true", "sort": "asc", "limit": MOST_BASE_MINUTES})
    path = f"/v2/aggs/ticker/{ticker}/range/{call.minutes}/minute/{since}/{until - 1}?{query}"
    return Request(call, path, partial(_read, call), plain=partial(_plain, call))


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _plain(call: Call, body: bytes | bytearray) -> Callable[[datetime], Page] | None:
    """Return what reads a page in which nothing is odd; None where `_read` has to look at the document, row by row."""
    if body.count(b"{") > MAX_ROWS:
        return None
    try:
        document = _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    assert call.span is not None  # noqa: S101 - such a call has a span
    rows, (asset,) = document.results, call.assets
    times = [row.t for row in rows]
    since, until = (_milliseconds(moment) for moment in (call.span.since, call.span.until))
    length = call.minutes * 60_000
    if (
        document.status not in GOOD_STATUSES
        or document.ticker != asset.polygon_ticker
        or document.resultsCount > len(rows)
        or not rows
        or not since <= times[0] <= times[-1] < until
        or any(ts % length for ts in times)
        or any(ts >= later for ts, later in pairwise(times))
    ):
        return None
    digits = []
    for name, pattern in _COLUMNS.items():
        if name in TRADED and not TRAITS[asset.asset_type].has_volume:
            digits.append(",".join([ABSENT] * len(rows)))
            continue
        column = b",".join(map(attrgetter(name), rows))
        if not pattern.fullmatch(column):
            return None
        digits.append(column.decode())
    moments = tuple(datetime.fromtimestamp(ts // 1000, UTC) for ts in times)
    return partial(_known_by, Page(BarSeries(moments, tuple(digits)), bool(document.next_url)))


def _known_by(page: Page, now: datetime) -> Page:
    """Return what of a plain page is not of the future."""
    known = bisect_right(page.bars.times, now + FUTURE_TOLERANCE)
    if known == len(page.bars):
        return page
    if page.more and not known:
        raise _no_bars()
    return replace(page, bars=page.bars[:known])


def _no_bars() -> CallError:
    return CallError(FailureKind.MALFORMED, "a page without bars says that there are more", answered=True)


def _read(call: Call, document: Document, now: datetime) -> Page:
    """Read a page of bars. Raises CallError (malformed, invalid)."""
    assert call.span is not None  # noqa: S101 - such a call has a span
    (asset,) = call.assets
    ticker = document.get("ticker")
    if ticker != asset.polygon_ticker:
        reason = f"asked for {asset.polygon_ticker}, the answer is about {text(ticker)}"
        raise CallError(FailureKind.INVALID, reason, answered=True)
    rows, told = rows_of(document), document.get("resultsCount")
    if isinstance(told, Decimal) and told.is_finite() and told > len(rows):
        # What is not there may have been lost: such a page does not tell that there is nothing.
        reason = f"the page has {len(rows)} rows and says that they are {text(told)}"
        raise CallError(FailureKind.MALFORMED, reason, answered=True)
    length, has_volume = timedelta(minutes=call.minutes), TRAITS[asset.asset_type].has_volume
    bars: dict[datetime, Bar] = {}
    invalid: dict[datetime, str] = {}
    contradicted: set[datetime] = set()
    for row in rows:
        try:
            ts = time_of(row.get("t"), now)
        except InvalidRowError:
            continue  # of no time: what it should have told is missing, and told as that
        # The vendor gives the whole window that the beginning of the span lies in.
        if not call.span.since <= ts < call.span.until or (ts - EPOCH) % length:
            continue
        try:
            bar = bar_of(ts, row, has_volume=has_volume)
        except InvalidRowError as error:
            invalid[ts] = str(error)
            continue
        other = bars.setdefault(ts, bar)
        if bar != other:
            contradicted.add(ts)
            bars[ts] = max(other, bar, key=_weight)
    more = bool(document.get("next_url"))
    if more and not bars:
        raise _no_bars()
    return Page(
        BarSeries.of(bars[ts] for ts in sorted(bars)),
        more,
        tuple((ts, invalid[ts]) for ts in sorted(invalid) if ts not in bars),
        tuple(sorted(contradicted)),
    )


def _weight(bar: Bar) -> tuple[int, Decimal]:
    """Return how much a bar knows of, to choose among several of one time: of as much, the first is taken."""
    return (-1 if bar.trades is None else bar.trades, bar.volume or Decimal(0))


def bar_of(ts: datetime, row: Mapping[str, Any], *, has_volume: bool = True) -> Bar:
    """Read a bar that begins at `ts`, by the vendor's short names. Raises InvalidRowError.

    Without `has_volume` its asset is of a type of which nothing is traded.
    """
    prices = [number(row, key) for key in PRICES]
    if None in prices:
        raise InvalidRowError(f"no `{PRICES[prices.index(None)]}` (zero or absent)")
    opened, high, low, close = prices
    assert opened and high and low and close  # noqa: S101, PT018 - or the type checker would not know
    traded = (_volume(row), number(row, "vw"), _trades(row)) if has_volume else (None, None, None)
    return Bar(ts, opened, high, low, close, *traded)


def _volume(row: Mapping[str, Any]) -> Decimal:
    value = row.get("v", Decimal(0))
    if (
        not isinstance(value, Decimal)
        or not value.is_finite()
        or not 0 <= value <= LARGEST_NUMBER
        or len(value.as_tuple().digits) > MOST_DIGITS
    ):
        raise InvalidRowError(f"`v` is no volume: {text(value)}")
    return value


def _trades(row: Mapping[str, Any]) -> int | None:
    value = row.get("n")
    if value is None:
        return None
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value < 2**31 or value % 1:
        raise InvalidRowError(f"`n` is no count: {text(value)}")
    return int(value)
