"""Documents of the bars: the previous day, the grouped day of a whole market, and ranges with paging."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from assetbatch.markets import TRAITS
from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Document, Refused
from assetbatch.sandbox.catalogue import KNOWN, find
from assetbatch.sandbox.faults import BAR
from assetbatch.sandbox.market import DAY_MINUTES, DAY_MS, EPOCH, HISTORY_BEGINS, MINUTE_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.market import Bar
    from assetbatch.sandbox.request import Request

DEFAULT_BASE_BARS = 5_000
MOST_BASE_BARS = 50_000
_SPANS = {"minute": 1, "hour": 60, "day": DAY_MINUTES}


def previous_day(request: Request, ticker: str) -> Document:
    """`/v2/aggs/ticker/{ticker}/prev`: the newest finished day that has a bar; its `t` is the day's end."""
    instrument = find(ticker)
    if instrument is not None and request.faults.holiday(instrument.market, request.target):
        instrument = None
    found = last_day_bar(request, instrument, request.last_finished_day()) if instrument else None
    rows = []
    if instrument and found:
        rows = [{"T": ticker, **_row(instrument, found[1], _end_ms(found[0]))}]
    document = _document(request, request.faults.rows(rows, BAR), queried=len(rows))
    return {"ticker": request.faults.ticker(ticker), **document}


def grouped_day(request: Request, market: str, day_text: str) -> Document:
    """`/v2/aggs/grouped/…/{market}/{date}`: the day of every known ticker; today's bar still moves."""
    day = _date(day_text)
    if day is None:
        raise Refused(bodies.error(400, "The path parameter `date` is invalid"))
    request.require_timeframe(day, day)
    rows = []
    asset_type = next(one for one, traits in TRAITS.items() if traits.reference_name == market)
    rests = request.faults.holiday(asset_type, request.target)
    for instrument in KNOWN.values():
        if instrument.market is asset_type and not rests:
            bar = _day_bar(request, instrument, day)
            if bar is not None:
                rows.append({"T": instrument.ticker, **_row(instrument, bar, _end_ms(day))})
    return _document(request, request.faults.rows(rows, BAR, day=day_text), queried=len(rows))


def custom_range(request: Request, ticker: str, step: str, begin: str, end: str) -> Document:
    """`/v2/aggs/ticker/{ticker}/range/{multiplier}/{timespan}/{from}/{to}`, both ends included.

    Windows are whole ones that `from` and `to` lie in, counted from 1970; `t` is a window's start. `limit`
    counts what they are made of: minutes (for minute and hour) or days. The window that is still open comes
    as far as it is.
    """
    count, _, timespan = step.partition("/")
    multiplier = int(count[:6])
    if timespan not in _SPANS or multiplier < 1:
        raise Refused(bodies.error(400, "The path parameter `timespan` is invalid"))
    first_ms, last_ms = _instant(begin, "from"), _instant(end, "to", end_of_day=True)
    if last_ms < first_ms:
        raise Refused(bodies.error(400, "The path parameter `to` is invalid: before `from`"))
    limit = request.number("limit", DEFAULT_BASE_BARS, MOST_BASE_BARS)
    descending = request.descending("sort")
    request.require_timeframe(_day_of(first_ms), _day_of(last_ms))
    instrument = find(ticker)
    document: Document = {"ticker": request.faults.ticker(ticker)}
    rests = instrument is not None and request.faults.holiday(instrument.market, request.target)
    if instrument is None or rests or _has_minutes_only(request, multiplier, timespan):
        return document | _document(request, [], queried=0)
    step_ms, daily = multiplier * _SPANS[timespan] * MINUTE_MS, timespan == "day"
    ends_ms = first_ms, last_ms
    rows, queried, rest_ms = _page(request, instrument, step_ms, ends_ms, limit, daily=daily, descending=descending)
    document |= _document(request, request.faults.rows(rows, BAR, ticker=ticker), queried=queried)
    if rest_ms is not None:
        ends = (begin, str(rest_ms + step_ms - 1)) if descending else (str(rest_ms), end)
        path = f"/v2/aggs/ticker/{ticker}/range/{step}/{ends[0]}/{ends[1]}"
        document["next_url"] = request.next_url(path, request.query)
    return document


def last_day_bar(request: Request, instrument: Instrument, day: date) -> tuple[date, Bar] | None:
    """Find the newest day up to `day` that has a bar, and its bar; None when a week has none."""
    for back in range(7):
        candidate = day - timedelta(days=back)
        bar = _day_bar(request, instrument, candidate)
        if bar is not None:
            return candidate, bar
    return None


def _page(
    request: Request,
    instrument: Instrument,
    step_ms: int,
    ends_ms: tuple[int, int],
    limit: int,
    *,
    daily: bool,
    descending: bool,
) -> tuple[list[Document], int, int | None]:
    # The rows, how many base bars they took, and the start of the first window that did not fit.
    first = max(ends_ms[0], HISTORY_BEGINS * DAY_MS) // step_ms
    last = min(ends_ms[1], request.now_ms) // step_ms
    rows: list[Document] = []
    queried = 0
    windows = range(first, last + 1)
    for window in reversed(windows) if descending else windows:
        start_ms = window * step_ms
        bar = request.market.bar(instrument, start_ms, start_ms + step_ms, request.now_ms)
        if bar is None:
            continue
        base = -(-bar.base_minutes // DAY_MINUTES) if daily else bar.base_minutes
        if rows and queried + base > limit:
            return rows, queried, start_ms
        queried += base
        rows.append(_row(instrument, bar, start_ms))
    return rows, queried, None


def _has_minutes_only(request: Request, multiplier: int, timespan: str) -> bool:
    # Some tickers of the vendor have 1/minute and 1/day and nothing between.
    between = timespan == "hour" or (timespan == "minute" and multiplier > 1)
    return between and request.faults.document("minutes-only", request.target)


def _document(request: Request, rows: list[Document], *, queried: int) -> Document:
    document: Document = {
        "adjusted": True,
        "queryCount": queried,
        "resultsCount": len(rows),
        "status": request.status,
        "request_id": None,
    }
    if rows:
        # An answer without bars has no `results` at all.
        document |= {"results": rows, "count": len(rows)}
    return document


def ohlcv(instrument: Instrument, bar: Bar, names: Iterable[str] = "ohlcv") -> dict[str, Any]:
    """Lay out what bars of all kinds share, under these names: of the prices, and of the volume."""
    prices = map(instrument.number, (bar.open, bar.high, bar.low, bar.close))
    return dict(zip(names, (*prices, instrument.volume(bar.transactions)), strict=True))


def _row(instrument: Instrument, bar: Bar, at_ms: int) -> dict[str, Any]:
    return ohlcv(instrument, bar) | {"vw": instrument.number(bar.vwap), "n": bar.transactions, "t": at_ms}


def _day_bar(request: Request, instrument: Instrument, day: date) -> Bar | None:
    number = (day - EPOCH).days
    if number < request.now_ms // DAY_MS:
        return request.market.finished_day(instrument, number)
    start_ms = number * DAY_MS
    return request.market.bar(instrument, start_ms, start_ms + DAY_MS, request.now_ms)


def _end_ms(day: date) -> int:
    return ((day - EPOCH).days + 1) * DAY_MS - 1


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _instant(text: str, name: str, *, end_of_day: bool = False) -> int:
    if text.isascii() and text.isdecimal():
        # Up to the year 9999: what lies beyond is no date.
        if int(text[:16]) < 253_402_300_800_000:
            return int(text[:16])
    elif (day := _date(text)) is not None and day >= EPOCH:
        return _end_ms(day) if end_of_day else (day - EPOCH).days * DAY_MS
    raise Refused(bodies.error(400, f"Could not parse the date of the path parameter `{name}`"))


def _day_of(at_ms: int) -> date:
    return EPOCH + timedelta(days=at_ms // DAY_MS)
