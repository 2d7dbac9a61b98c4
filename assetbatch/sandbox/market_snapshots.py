"""Documents of the live prices of one market, in the shapes of v1 and v2: snapshots, the last quote, the last trade."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType
from assetbatch.sandbox import bodies
from assetbatch.sandbox.aggregates import ohlcv
from assetbatch.sandbox.bodies import Document, Refused
from assetbatch.sandbox.faults import SINGLE, SINGLE_STOCK
from assetbatch.sandbox.hours import EARLY, MINUTE_MS, REST, moment
from assetbatch.sandbox.snapshots import CLEARED_MS, decimal_text, exchange_of, shown

if TYPE_CHECKING:
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.market import Bar, Tick
    from assetbatch.sandbox.request import Request
    from assetbatch.sandbox.snapshots import Shown

_MARKETS = {
    (TRAITS[market].locale, TRAITS[market].snapshot_name): market
    for market in (AssetType.FOREX, AssetType.CRYPTO, AssetType.STOCKS)
}
"""By locale and name, the markets that have snapshots of their own."""
_NS = 1_000_000
_OHLCV = tuple("ohlcv")


def single(request: Request, locale: str, name: str, ticker: str) -> Document:
    """`/v2/snapshot/…/tickers/{ticker}`; an unknown ticker, or one of another market, is a 404."""
    market = _market(request, locale, name)
    instrument = request.instrument(ticker)
    if instrument.market is not market:
        raise Refused(bodies.not_found(request.path))
    document: Document = {"request_id": None, "status": request.status(market)}
    for row in _rows(request, market, [instrument])[:1]:
        document["ticker"] = row
    return document


def whole_market(request: Request, locale: str, name: str) -> Document:
    """`/v2/snapshot/…/tickers`: no paging; no `tickers` means all; unknown ones are left out in silence."""
    market = _market(request, locale, name)
    asked = request.query.get("tickers")
    if asked:
        found = map(request.find, dict.fromkeys(asked.split(",")))
        wanted = [one for one in found if one is not None and one.market is market]
    else:
        wanted = [one for one in request.listed(market) if request.wants(one)]
    rows = _rows(request, market, wanted)
    document: Document = {"status": request.status(market), "tickers": rows}
    return document | ({"count": len(rows), "request_id": None} if market is AssetType.STOCKS else {})


def last_quote(request: Request, base: str, quote: str) -> Document:
    """`/v1/last_quote/currencies/{base}/{quote}`: status `success`, times in ms, no `C:` before the pair."""
    instrument, tick = _last(request, AssetType.FOREX, base + quote)
    last = {
        "ask": instrument.number(tick.ask),
        "bid": instrument.number(tick.bid),
        "exchange": exchange_of(instrument),
        "timestamp": tick.at_ms,
    }
    return {"status": "success", "request_id": None, "symbol": f"{base}/{quote}", "last": last}


def last_trade(request: Request, base: str, quote: str) -> Document:
    """`/v1/last/crypto/{base}/{quote}`: status `success`, times in ms, the pair with a hyphen."""
    instrument, tick = _last(request, AssetType.CRYPTO, base + quote)
    last = {
        "price": instrument.number(tick.price),
        "size": instrument.volume(1),
        "exchange": exchange_of(instrument),
        "conditions": [1],
        "timestamp": tick.at_ms,
    }
    return {"status": "success", "request_id": None, "symbol": f"{base}-{quote}", "last": last}


def _last(request: Request, market: AssetType, pair: str) -> tuple[Instrument, Tick]:
    request.require_entitlement(market)
    instrument = request.instrument(TRAITS[market].prefix + pair)
    return instrument, request.market.tick(instrument, request.now_ms)


def _market(request: Request, locale: str, name: str) -> AssetType:
    market = _MARKETS.get((locale, name))
    if market is None:
        raise Refused(bodies.plain(404, "404 page not found\n"))
    request.require_entitlement(market)
    return market


def _rows(request: Request, market: AssetType, instruments: list[Instrument]) -> list[Document]:
    if market is AssetType.STOCKS:
        return request.faults.rows([_stock_row(request, one) for one in instruments], SINGLE_STOCK)
    return request.faults.rows([_currency_row(request, one) for one in instruments], SINGLE)


def _currency_row(request: Request, instrument: Instrument) -> Document:
    found, number = shown(request, instrument), instrument.number
    tick = found.tick
    day, minute = _figures(instrument, found.day), _minute(found)
    row = _row(found, day, minute, _shared_future_ms(request) if instrument.mark % 2 else tick.at_ms)
    if not instrument.traits.has_trades:
        quote = {"a": number(tick.ask), "b": number(tick.bid), "t": tick.at_ms, "x": exchange_of(instrument)}
        return row | {"lastQuote": quote}
    day["vw"] = minute["vw"] = 0
    trade = {
        "p": number(tick.price), "s": instrument.volume(1), "t": tick.at_ms, "x": exchange_of(instrument), "c": [1],
        "i": str(tick.at_ms),
    }  # fmt: skip
    return row | {"lastTrade": trade}


def _stock_row(request: Request, instrument: Instrument) -> Document:
    found, number = shown(request, instrument), instrument.number
    plan, tick = request.plan_of(instrument.market), found.tick
    day, minute, size = _figures(instrument, found.day), _minute(found), instrument.volume(1)
    day |= {"vw": number(found.day.vwap) if found.day else 0, "dv": decimal_text(day["v"])}
    minute |= {"vw": number(tick.bar.vwap), "dv": decimal_text(minute["v"]), "av": day["v"], "dav": day["dv"]}
    quote = {"P": number(tick.ask), "S": 1, "p": number(tick.bid), "s": 2, "t": tick.at_ms * _NS}
    trade = {
        "p": number(tick.price), "s": int(size), "ds": decimal_text(size), "t": tick.at_ms * _NS,
        "x": exchange_of(instrument), "c": [14, 41], "i": str(tick.at_ms),
    }  # fmt: skip
    row = _row(found, day, minute, tick.at_ms * _NS)
    if not plan.delay:
        row["lastQuote"] = quote
    if plan.has_trades:
        row["lastTrade"] = trade
    if _is_cleared(request, found):
        row |= {name: _zeros(row[name]) for name in ("min", "lastQuote", "lastTrade") if name in row}
        row |= {"todaysChange": 0, "todaysChangePerc": 0, "updated": 0}
    return row


def _row(found: Shown, day: Document, minute: Document, updated: int) -> Document:
    return {
        "ticker": found.instrument.ticker,
        "day": day,
        "min": minute,
        "prevDay": _previous(found),
        "todaysChange": found.change,
        "todaysChangePerc": found.change_percent,
        "updated": updated,
    }


def _figures(instrument: Instrument, bar: Bar | None) -> Document:
    return ohlcv(instrument, bar) if bar else dict.fromkeys(_OHLCV, 0)


def _minute(found: Shown) -> Document:
    bar, at_ms = found.tick.bar, found.tick.at_ms
    return _figures(found.instrument, bar) | {"n": bar.transactions, "t": at_ms // MINUTE_MS * MINUTE_MS}


def _previous(found: Shown) -> Document:
    if found.before is None:
        return {}
    return _figures(found.instrument, found.before) | {"vw": found.instrument.number(found.before.vwap)}


def _is_cleared(request: Request, found: Shown) -> bool:
    # Between 3:30 and the first trades of a day everything of the day before is gone.
    market = found.instrument.market
    day, passed_ms = moment(market, found.at_ms)
    return CLEARED_MS <= passed_ms < EARLY * MINUTE_MS and request.market.hours.session(market, day) != REST


def _zeros(part: Document) -> Document:
    empty = {int: 0, float: 0, str: "", list: None}
    return {name: empty[type(value)] for name, value in part.items()}


def _shared_future_ms(request: Request) -> int:
    # Not a time of anything: many rows carry this one value of tomorrow, as if it were
    # their own.
    tomorrow = datetime.combine(request.now.astimezone(UTC).date() + timedelta(days=1), time(4, 0, 8), UTC)
    return int(tomorrow.timestamp()) * 1000 + 999
