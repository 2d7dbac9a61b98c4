"""Documents of the live prices of any markets: the unified snapshot (v3), and that of indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.markets import TRAITS, type_of
from assetbatch.model import AssetType
from assetbatch.sandbox import bodies
from assetbatch.sandbox.aggregates import last_day_bar, ohlcv
from assetbatch.sandbox.bodies import Document, Refused
from assetbatch.sandbox.faults import UNIFIED
from assetbatch.sandbox.hours import EXCHANGES, MINUTE_MS, REST, moment

if TYPE_CHECKING:
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.market import Bar, Tick
    from assetbatch.sandbox.request import Request

MOST_TICKERS = 250
DEFAULT_ROWS = 10
FX_EXCHANGE = 48
CRYPTO_EXCHANGE = 1
NASDAQ = 12
CLEARED_MS = 210 * MINUTE_MS
"""When the figures of the last session are cleared, from New York's midnight on: 3:30."""
_NS = 1_000_000
_OHLCV = ("open", "high", "low", "close", "volume")


class Shown(Struct, frozen=True):
    """What snapshots show of an instrument: its newest price, its day so far, and the day before."""

    instrument: Instrument
    at_ms: int
    """When they show it: now, or as long ago as the plan is late."""
    tick: Tick
    day: Bar | None
    """None before the session of a day has begun."""
    before: Bar | None

    @property
    def previous(self) -> int:
        """The close of the day before, in units."""
        return self.before.close if self.before else self.instrument.level

    @property
    def change(self) -> float:
        """How far the price is from the close of the day before."""
        return self.instrument.number(self.tick.price - self.previous)

    @property
    def change_percent(self) -> float:
        """The same, in hundredths of that close."""
        return round((self.tick.price - self.previous) / self.previous * 100, 8)


def shown(request: Request, instrument: Instrument) -> Shown:
    """Return what snapshots show of an instrument at the moment."""
    market = instrument.market
    at_ms = request.faults.moment_ms(instrument.ticker, request.now_ms_of(market))
    tick = request.market.tick(instrument, at_ms)
    number, passed_ms = moment(market, at_ms)
    if market not in EXCHANGES:
        day: Bar | None = request.market.day_so_far(instrument, tick)
    else:
        hours = request.market.hours
        if passed_ms < CLEARED_MS or hours.session(market, number) == REST:
            # What the last session left stands until the next one's day has begun.
            number -= 1
            while hours.session(market, number) == REST:
                number -= 1
        day = request.market.day(instrument, number, at_ms)
    before = last_day_bar(request, instrument, number - 1)
    return Shown(instrument, at_ms, tick, day, before[1] if before else None)


def unified(request: Request) -> Document:
    """`/v3/snapshot`: rows of any markets, sorted by ticker, ten a page unless `limit` says otherwise."""
    request.require_entitlement(*AssetType)
    listed = request.query.get("ticker.any_of", request.query.get("ticker"))
    if listed is not None:
        return _rows(request, _split(listed))
    names = {traits.reference_name: market for market, traits in TRAITS.items()}
    kind = request.query.get("type", "")
    markets = [market for name, market in names.items() if kind in {"", name} and request.plan_of(market).is_live]
    return _rows(request, {one.ticker for one in request.listed(*markets)})


def indices(request: Request) -> Document:
    """`/v3/snapshot/indices`: the same rows, of indices alone."""
    request.require_entitlement(AssetType.INDICES)
    listed = request.query.get("ticker.any_of")
    if listed is None:
        return _rows(request, {one.ticker for one in request.listed(AssetType.INDICES)})
    return _rows(request, _split(listed), AssetType.INDICES)


def _split(listed: str) -> set[str]:
    tickers = {ticker for ticker in listed.split(",") if ticker}
    if len(tickers) > MOST_TICKERS:
        raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: ticker.any_of"))
    return tickers


def _rows(request: Request, asked: set[str], only: AssetType | None = None) -> Document:
    limit = request.number("limit", DEFAULT_ROWS, MOST_TICKERS)
    tickers, next_url = request.page(sorted(asked, reverse=request.descending("order")), limit)
    results = request.faults.rows([_row(request, ticker, only) for ticker in tickers], UNIFIED)
    status = request.status(*{type_of(ticker) for ticker in tickers})
    document: Document = {"request_id": None, "status": status, "results": results}
    return document | ({"next_url": next_url} if next_url else {})


def _row(request: Request, ticker: str, only: AssetType | None) -> Document:
    instrument = request.find(ticker)
    if instrument is None or only not in {None, instrument.market}:
        return {"ticker": ticker, "error": "NOT_FOUND", "message": "Ticker not found."}
    plan = request.plan_of(instrument.market)
    if not plan.is_live:
        return {"ticker": ticker, "error": "NOT_ENTITLED", "message": "Not entitled to this ticker."}
    found = shown(request, instrument)
    row: Document = {
        "ticker": ticker,
        "type": instrument.traits.reference_name,
        "name": instrument.name,
        "market_status": _market_status(request, found),
        "session": _session(found),
    }
    timeframe = "DELAYED" if plan.delay else "REAL-TIME"
    if not instrument.traits.has_volume:
        value = {"value": instrument.number(found.tick.price), "last_updated": found.tick.at_ms * _NS}
        return row | value | {"timeframe": timeframe}
    row["last_minute"] = _minute(found)
    if _has_quote(instrument) and not plan.delay:
        row["last_quote"] = _quote(found, timeframe)
    if instrument.traits.has_trades and plan.has_trades:
        row["last_trade"] = _trade(found, timeframe)
    return row


def _session(found: Shown) -> Document:
    instrument, number = found.instrument, found.instrument.number
    session = ohlcv(instrument, found.day, _OHLCV) if found.day else dict.fromkeys(_OHLCV, 0)
    session |= {
        "previous_close": number(found.previous),
        "change": found.change,
        "change_percent": found.change_percent,
    }
    if instrument.market is AssetType.STOCKS:
        session |= {
            "price": number(found.tick.price),
            "vwap": number(found.day.vwap) if found.day else 0,
            "decimal_volume": decimal_text(session["volume"]),
            "last_updated": found.tick.at_ms * _NS,
        }
    return session


def _minute(found: Shown) -> Document:
    instrument, bar = found.instrument, found.tick.bar
    minute = {
        **ohlcv(instrument, bar, _OHLCV),
        "vwap": instrument.number(bar.vwap),
        "transactions": bar.transactions,
    }
    if instrument.market is AssetType.STOCKS:
        minute |= {"decimal_volume": decimal_text(minute["volume"]), "last_updated": found.tick.at_ms * _NS}
    return minute


def _quote(found: Shown, timeframe: str) -> Document:
    number, tick = found.instrument.number, found.tick
    exchange = exchange_of(found.instrument)
    quote: Document = {"ask": number(tick.ask), "bid": number(tick.bid)}
    if found.instrument.market is AssetType.STOCKS:
        quote |= {"ask_size": 100, "bid_size": 200}
    return quote | {
        "ask_exchange": exchange,
        "bid_exchange": exchange,
        "last_updated": tick.at_ms * _NS,
        "timeframe": timeframe,
    }


def _trade(found: Shown, timeframe: str) -> Document:
    instrument, at_ms = found.instrument, found.tick.at_ms
    # Each market calls the time of a trade otherwise.
    time_name = "last_updated" if instrument.market is AssetType.STOCKS else "participant_timestamp"
    return {
        "price": instrument.number(found.tick.price),
        "size": instrument.volume(1),
        "exchange": exchange_of(instrument),
        "conditions": [1],
        "id": str(at_ms),
        time_name: at_ms * _NS,
        "timeframe": timeframe,
    }


def _market_status(request: Request, found: Shown) -> str:
    market = found.instrument.market
    day, rest_ms = moment(market, found.at_ms)
    session, minute = request.market.hours.session(market, day), rest_ms // MINUTE_MS
    if not session.begins <= minute < session.ends:
        return "closed"
    if minute < session.opens:
        return "early_trading"
    if minute >= session.closes:
        return "late_trading"
    return "regular_trading" if market is AssetType.INDICES else "open"


def exchange_of(instrument: Instrument) -> int:
    """Return the number of the exchange that trades and quotes an instrument."""
    if instrument.market is AssetType.STOCKS:
        return NASDAQ
    return CRYPTO_EXCHANGE if instrument.traits.has_trades else FX_EXCHANGE


def decimal_text(volume: float) -> str:
    """Write a volume in which there may be parts of a share, as the vendor does."""
    return str(float(volume))


def _has_quote(instrument: Instrument) -> bool:
    # Of crypto, the vendor shows a quote for some: a reader must do without.
    return instrument.market is not AssetType.CRYPTO or instrument.mark % 3 != 0
