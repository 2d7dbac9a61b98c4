"""Documents of the bars: the previous day, the grouped day of a whole market, and ranges with paging."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from assetbatch.markets import TRAITS, type_of
from assetbatch.sandbox import bodies
from assetbatch.sandbox.bodies import Document, Refused
from assetbatch.sandbox.faults import BAR
from assetbatch.sandbox.hours import (
    DAY_MINUTES,
    DAY_MS,
    EPOCH,
    EXCHANGES,
    HISTORY_BEGINS,
    MINUTE_MS,
    date_of,
    midnight_ms,
    moment,
)
from assetbatch.sandbox.market import merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from assetbatch.model import AssetType
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.market import Bar
    from assetbatch.sandbox.request import Request

DEFAULT_BASE_BARS = 5_000
MOST_BASE_BARS = 50_000
_SPANS = {"minute": 1, "hour": 60, "day": DAY_MINUTES}


def previous_day(request: Request, ticker: str) -> Document:
    """`/v2/aggs/ticker/{ticker}/prev`: the newest finished day that has a bar; its `t` is the day's end.

    Of stocks and indices a day is finished when its session is.
    """
    market = type_of(ticker)
    instrument = request.find(ticker)
    _require_free(request, instrument)
    if instrument is not None and request.faults.holiday(market, request.target):
        instrument = None
    found = last_day_bar(request, instrument, _newest_session(request, market)) if instrument else None
    rows = []
    if instrument and found:
        rows = [{"T": ticker, **_day_row(request, instrument, found[0], _end_ms(request, market, found[0]))}]
    document = _document(request, market, request.faults.rows(rows, BAR), queried=len(rows))
    return {"ticker": request.faults.ticker(ticker), **document}


def grouped_day(request: Request, locale: str, name: str, day_text: str) -> Document:
    """`/v2/aggs/grouped/…/{market}/{date}`: the day of every known ticker; today's bar still moves.

    Of stocks over the counter only when `include_otc` says so.
    """
    day = _date(day_text)
    if day is None:
        raise Refused(bodies.error(400, "The path parameter `date` is invalid"))
    named = (
        one
        for one, traits in TRAITS.items()
        if traits.has_whole_days and (traits.locale, traits.reference_name) == (locale, name)
    )
    market = next(named, None)
    if market is None:
        raise Refused(bodies.plain(404, "404 page not found\n"))
    request.require_timeframe(market, day, day)
    rests = request.faults.holiday(market, request.target)
    number = (day - EPOCH).days
    end_ms = _end_ms(request, market, number)
    rows = []
    for instrument in [] if rests else request.known(market):
        row = _day_row(request, instrument, number, end_ms) if request.wants(instrument) else {}
        if row:
            rows.append({"T": instrument.ticker, **row, **({"otc": True} if instrument.is_over_the_counter else {})})
    return _document(request, market, request.faults.rows(rows, BAR, day=day_text), queried=len(rows))


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
    market = type_of(ticker)
    first_ms, last_ms = _instant(market, begin, "from"), _instant(market, end, "to", end_of_day=True)
    if last_ms < first_ms:
        raise Refused(bodies.error(400, "The path parameter `to` is invalid: before `from`"))
    limit = request.number("limit", DEFAULT_BASE_BARS, MOST_BASE_BARS)
    descending = request.descending("sort")
    instrument = request.lately(ticker)
    _require_free(request, instrument)
    first_day, last_day = moment(market, first_ms)[0], moment(market, last_ms)[0]
    request.require_timeframe(market, date_of(first_day), date_of(last_day))
    document: Document = {"ticker": request.faults.ticker(ticker)}
    rests = instrument is not None and request.faults.holiday(market, request.target)
    if instrument is None or rests or _has_minutes_only(request, multiplier, timespan):
        return document | _document(request, market, [], queried=0)
    if timespan == "day":
        windows: Windows = _Days(request, instrument, multiplier)
    else:
        windows = _Minutes(request, instrument, multiplier * _SPANS[timespan] * MINUTE_MS)
    rows, queried, rest = _page(windows, (first_ms, last_ms), limit, descending=descending)
    document |= _document(request, market, request.faults.rows(rows, BAR, ticker=ticker), queried=queried)
    if rest is not None:
        ends = (begin, str(windows.start_ms(rest + 1) - 1)) if descending else (str(windows.start_ms(rest)), end)
        path = f"/v2/aggs/ticker/{ticker}/range/{step}/{ends[0]}/{ends[1]}"
        document["next_url"] = request.next_url(path, request.query)
    return document


def last_day_bar(request: Request, instrument: Instrument, day: int) -> tuple[int, Bar] | None:
    """Find the newest day up to `day` that has a bar, and its bar; None when a week has none."""
    now_ms = request.now_ms_of(instrument.market)
    for candidate in range(day, day - 7, -1):
        bar = request.market.day(instrument, candidate, now_ms)
        if bar is not None:
            return candidate, bar
    return None


class _Minutes:
    """Windows of whole minutes, counted from 1970; what they are made of is minutes."""

    def __init__(self, request: Request, instrument: Instrument, step_ms: int) -> None:
        self._request, self._instrument, self._step_ms = request, instrument, step_ms
        self.now_ms = request.now_ms_of(instrument.market)

    def window(self, at_ms: int) -> int:
        return at_ms // self._step_ms

    def start_ms(self, window: int) -> int:
        return window * self._step_ms

    def row(self, window: int) -> tuple[Document, int]:
        start_ms = self.start_ms(window)
        told = self._request.at_its_day(self._instrument, moment(self._instrument.market, start_ms)[0])
        bar = self._request.market.bar(told, start_ms, start_ms + self._step_ms, self.now_ms)
        return (_row(told, bar, start_ms), bar.base_minutes) if bar else ({}, 0)


class _Days:
    """Windows of whole days of a market, counted from 1970; what they are made of is days."""

    def __init__(self, request: Request, instrument: Instrument, count: int) -> None:
        self._request, self._instrument, self._count = request, instrument, count
        self.now_ms = request.now_ms_of(instrument.market)

    def window(self, at_ms: int) -> int:
        return moment(self._instrument.market, at_ms)[0] // self._count

    def start_ms(self, window: int) -> int:
        return midnight_ms(self._instrument.market, window * self._count)

    def row(self, window: int) -> tuple[Document, int]:
        first = window * self._count
        told = self._request.at_its_day(self._instrument, first)
        days = range(first, first + self._count)
        bars = [bar for day in days if (bar := self._request.market.day(told, day, self.now_ms))]
        whole = merge(bars)
        return (_row(told, whole, self.start_ms(window)), len(bars)) if whole else ({}, 0)


Windows = _Minutes | _Days


def _page(
    windows: Windows, ends_ms: tuple[int, int], limit: int, *, descending: bool
) -> tuple[list[Document], int, int | None]:
    # The rows, how many base bars they took, and the first window that did not fit.
    first = windows.window(max(ends_ms[0], HISTORY_BEGINS * DAY_MS))
    last = windows.window(min(ends_ms[1], windows.now_ms))
    rows: list[Document] = []
    queried = 0
    order = range(first, last + 1)
    for window in reversed(order) if descending else order:
        row, base = windows.row(window)
        if not row:
            continue
        if rows and queried + base > limit:
            return rows, queried, window
        queried += base
        rows.append(row)
    return rows, queried, None


def _has_minutes_only(request: Request, multiplier: int, timespan: str) -> bool:
    # Some tickers of the vendor have 1/minute and 1/day and nothing between.
    between = timespan == "hour" or (timespan == "minute" and multiplier > 1)
    return between and request.faults.document("minutes-only", request.target)


def _require_free(request: Request, instrument: Instrument | None) -> None:
    # Of some markets, plans without live prices have some tickers only.
    if instrument is not None and not instrument.is_free:
        request.require_entitlement(instrument.market)


def _document(request: Request, market: AssetType, rows: list[Document], *, queried: int) -> Document:
    document: Document = {
        "adjusted": request.is_adjusted,
        "queryCount": queried,
        "resultsCount": len(rows),
        "status": request.status(market),
        "request_id": None,
    }
    if not TRAITS[market].has_volume:
        # What is computed is not adjusted, either.
        del document["adjusted"]
    if rows:
        # An answer without bars has no `results` at all.
        document |= {"results": rows, "count": len(rows)}
    return document


def ohlcv(instrument: Instrument, bar: Bar, names: Iterable[str] = "ohlcv") -> dict[str, Any]:
    """Lay out what bars of all kinds share, under these names: of the prices, and of the volume where there is one."""
    figures = list(map(instrument.number, (bar.open, bar.high, bar.low, bar.close)))
    if instrument.traits.has_volume:
        figures.append(instrument.volume(bar.transactions))
    return dict(zip(names, figures, strict=False))


def _row(instrument: Instrument, bar: Bar, at_ms: int) -> dict[str, Any]:
    row = ohlcv(instrument, bar)
    if instrument.traits.has_volume:
        row |= {"vw": instrument.number(bar.vwap), "n": bar.transactions}
    return row | {"t": at_ms}


def _day_row(request: Request, instrument: Instrument, day: int, end_ms: int) -> Document:
    told = request.at_its_day(instrument, day)
    bar = request.market.day(told, day, request.now_ms_of(instrument.market))
    return _row(told, bar, end_ms) if bar else {}


def _newest_session(request: Request, market: AssetType) -> int:
    day, rest_ms = moment(market, request.now_ms_of(market))
    session = request.market.hours.session(market, day)
    if market in EXCHANGES and session.opens < session.closes <= rest_ms // MINUTE_MS:
        return day
    return (request.last_finished_day(market) - EPOCH).days


def _end_ms(request: Request, market: AssetType, day: int) -> int:
    # Days of stocks end with the session.
    if market in EXCHANGES:
        return midnight_ms(market, day) + request.market.hours.session(market, day).closes * MINUTE_MS
    return (day + 1) * DAY_MS - 1


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _instant(market: AssetType, text: str, name: str, *, end_of_day: bool = False) -> int:
    if text.isascii() and text.isdecimal():
        # Up to the year 9999: what lies beyond is no date.
        if int(text[:16]) < 253_402_300_800_000:
            return int(text[:16])
    elif (day := _date(text)) is not None and day >= EPOCH:
        number = (day - EPOCH).days
        return midnight_ms(market, number + 1) - 1 if end_of_day else midnight_ms(market, number)
    raise Refused(bodies.error(400, f"Could not parse the date of the path parameter `{name}`"))
