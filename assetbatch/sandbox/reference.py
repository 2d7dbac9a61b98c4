"""Documents about tickers and market hours: free on every plan."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Product
from assetbatch.sandbox.catalogue import currency_name
from assetbatch.sandbox.hours import CLOSES, MINUTE_MS, NEW_YORK, OPENS, date_of, moment

if TYPE_CHECKING:
    from datetime import date

    from assetbatch.sandbox.bodies import Document
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.request import Request

DEFAULT_ROWS = 100
MOST_ROWS = 1_000
AHEAD = timedelta(days=365)
"""How far ahead holidays are told."""
_EXCHANGES = ("NASDAQ", "NYSE", "OTC")
_INDEX_GROUPS = (
    "cccy", "cgi", "dow_jones", "ftse_russell", "msci", "mstar", "mstarc", "nasdaq", "s_and_p", "societe_generale",
)  # fmt: skip
_HOLIDAYS = {
    1: "Martin Luther King, Jr. Day", 2: "Washington's Birthday", 3: "Good Friday", 4: "Good Friday",
    5: "Memorial Day", 6: "Juneteenth", 7: "Independence Day", 9: "Labor Day", 11: "Thanksgiving", 12: "Christmas",
}  # fmt: skip
"""By month, what the exchanges rest for."""


def tickers(request: Request) -> Document:
    """`/v3/reference/tickers`: the catalogue by `market`, `ticker`, `search`, `active`; sorted, paged."""
    limit = request.number("limit", DEFAULT_ROWS, MOST_ROWS)
    # A name may have been that of several, of which one is listed at most.
    found = {
        f"{known.ticker} {known.since}": known for known in request.known(*AssetType) if _asked_for(request, known)
    }
    shown, next_url = request.page(sorted(found, reverse=request.descending("order")), limit)
    rows = [_row(request, found[key]) for key in shown]
    document: Document = {"results": rows, "status": request.status(), "request_id": None, "count": len(rows)}
    return document | ({"next_url": next_url} if next_url else {})


def ticker_details(request: Request, ticker: str) -> Document:
    """`/v3/reference/tickers/{ticker}`: the cheap way to learn whether a ticker exists; 404 if not."""
    return {"request_id": None, "results": _row(request, request.instrument(ticker)), "status": request.status()}


def market_status(request: Request) -> Document:
    """`/v1/marketstatus/now`: which markets are open, with the server's time in New York."""
    now, hours = request.now.astimezone(NEW_YORK).replace(microsecond=0), request.market.hours
    trading = {
        market
        for market in AssetType
        if hours.is_open(market, request.now_ms) and not request.faults.holiday(market, request.target)
    }
    day, rest_ms = moment(AssetType.STOCKS, request.now_ms)
    session, minute = hours.session(AssetType.STOCKS, day), rest_ms // MINUTE_MS
    is_extended = AssetType.STOCKS in trading
    is_open = is_extended and session.opens <= minute < session.closes
    stocks = "open" if is_open else "extended-hours" if is_extended else "closed"
    return {
        "afterHours": is_extended and minute >= session.closes,
        "currencies": {
            traits.reference_name: "open" if market in trading else "closed"
            for market, traits in TRAITS.items()
            if traits.product is Product.CURRENCIES
        },
        "earlyHours": is_extended and minute < session.opens,
        "exchanges": {"nasdaq": stocks, "nyse": stocks, "otc": "open" if is_open else "closed"},
        "indicesGroups": dict.fromkeys(_INDEX_GROUPS, "open" if AssetType.INDICES in trading else "closed"),
        "market": stocks,
        "serverTime": now.isoformat(),
    }


def holidays(request: Request) -> list[Document]:
    """`/v1/marketstatus/upcoming`: on which days of the coming year exchanges rest or close early; a bare array."""
    today = request.today(AssetType.STOCKS)
    days = [today + timedelta(days=ahead) for ahead in range(AHEAD.days)]
    found = []
    for day in days:
        closing = request.market.hours.closing(day)
        if day.isoweekday() <= 5 and closing != time(CLOSES // 60):
            name = "Special Closing" if day in request.market.hours.holidays else _name(day)
            found += [_holiday(day, closing, name, exchange) for exchange in _EXCHANGES]
    return found


def _name(day: date) -> str:
    return "New Years Day" if (day.month, day.day) in {(12, 31), (1, 1), (1, 2)} else _HOLIDAYS[day.month]


def _holiday(day: date, closing: time | None, name: str, exchange: str) -> Document:
    row: Document = {"date": str(day), "exchange": exchange, "name": name}
    if closing is None:
        return row | {"status": "closed"}
    opens = time(*divmod(OPENS, 60))
    return row | {"status": "early-close", "open": _instant(day, opens), "close": _instant(day, closing)}


def _instant(day: date, clock: time) -> str:
    at = datetime.combine(day, clock, NEW_YORK).astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.000Z"


def _asked_for(request: Request, known: Instrument) -> bool:
    its = {"market": known.reference_name, "ticker": known.ticker, "type": known.kind}
    fits = all(request.query.get(name, value) == value for name, value in its.items())
    wants_listed = request.query.get("active", "true") != "false"
    words = f"{known.ticker} {known.name}".upper()
    return fits and wants_listed == request.is_listed(known) and request.query.get("search", "").upper() in words


def _row(request: Request, known: Instrument) -> Document:
    is_listed = request.is_listed(known)
    row = {
        "ticker": known.ticker,
        "name": known.name,
        "market": known.reference_name,
        "locale": known.traits.locale,
        "active": is_listed,
    }
    if not is_listed:
        row["delisted_utc"] = f"{date_of(known.until)}T00:00:00Z"
    if known.market is AssetType.INDICES:
        return row | {"source_feed": known.listed_by}
    if known.market is AssetType.STOCKS:
        return row | {
            "primary_exchange": known.listed_by,
            "type": known.kind,
            "currency_name": "usd",
            "cik": f"{known.mark % 10**7:010}",
            "composite_figi": _figi(known.mark),
            "share_class_figi": _figi(known.mark >> 5),
            "last_updated_utc": "2026-01-02T00:00:00Z",
        }
    return row | {
        "currency_symbol": known.quote,
        "currency_name": currency_name(known.quote),
        "base_currency_symbol": known.base,
        "base_currency_name": currency_name(known.base),
        "last_updated_utc": "2017-01-01T00:00:00Z",
    }


def _figi(mark: int) -> str:
    letters = "BCDFGHJKLMNPQRSTVWXZ0123456789"
    return "BBG00" + "".join(letters[mark // len(letters) ** place % len(letters)] for place in range(7))
