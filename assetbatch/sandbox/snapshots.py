"""Documents of the live prices: the unified snapshot (v3), those of one market (v2), last quote and trade."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType
from assetbatch.sandbox import bodies
from assetbatch.sandbox.aggregates import last_day_bar, ohlcv
from assetbatch.sandbox.bodies import Document, Refused
from assetbatch.sandbox.catalogue import KNOWN, NOT_IN_PLAN, find
from assetbatch.sandbox.faults import SINGLE, UNIFIED
from assetbatch.sandbox.market import MINUTE_MS, is_open

if TYPE_CHECKING:
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.request import Request

MOST_TICKERS = 250
DEFAULT_ROWS = 10
_OHLCV = ("open", "high", "low", "close", "volume")
_FX_EXCHANGE = 48
_CRYPTO_EXCHANGE = 1


def unified(request: Request) -> Document:
    """`/v3/snapshot`: rows of any markets, sorted by ticker, ten a page unless `limit` says otherwise."""
    limit = request.number("limit", DEFAULT_ROWS, MOST_TICKERS)
    asked = sorted(_asked(request), reverse=request.descending("order"))
    shown, next_url = request.page(asked, limit)
    results = request.faults.rows([_unified_row(request, ticker) for ticker in shown], UNIFIED)
    document: Document = {"request_id": None, "status": request.status, "results": results}
    return document | ({"next_url": next_url} if next_url else {})


def _asked(request: Request) -> list[str]:
    listed = request.query.get("ticker.any_of", request.query.get("ticker"))
    if listed is None:
        names = {traits.reference_name for traits in TRAITS.values()}
        wanted = names & {request.query.get("type", "")} or names
        return [ticker for ticker, known in KNOWN.items() if known.traits.reference_name in wanted]
    tickers = {ticker for ticker in listed.split(",") if ticker}
    if len(tickers) > MOST_TICKERS:
        raise Refused(bodies.error(400, f"{bodies.BAD_QUERY}: ticker.any_of"))
    return list(tickers)


def _unified_row(request: Request, ticker: str) -> Document:
    instrument = find(ticker)
    if instrument is None:
        if ticker in NOT_IN_PLAN:
            return {"ticker": ticker, "error": "NOT_ENTITLED", "message": "Not entitled to this ticker."}
        return {"ticker": ticker, "error": "NOT_FOUND", "message": "Ticker not found."}
    now_ms = request.faults.moment_ms(ticker, request.now_ms)
    tick = request.market.tick(instrument, now_ms)
    day = request.market.day_so_far(instrument, tick)
    before = last_day_bar(request, instrument, _finished_day(request))
    previous = before[1].close if before else instrument.level
    number = instrument.number
    has_trades = instrument.traits.has_trades
    exchange = _CRYPTO_EXCHANGE if has_trades else _FX_EXCHANGE
    quote = {
        "ask": number(tick.ask),
        "bid": number(tick.bid),
        "ask_exchange": exchange,
        "bid_exchange": exchange,
        "last_updated": tick.at_ms * 1_000_000,
        "timeframe": "REAL-TIME",
    }
    trade = {
        "price": number(tick.price),
        "size": instrument.volume(1),
        "exchange": _CRYPTO_EXCHANGE,
        "conditions": [1],
        "id": str(tick.at_ms),
        "participant_timestamp": tick.at_ms * 1_000_000,
        "timeframe": "REAL-TIME",
    }
    row: Document = {
        "ticker": ticker,
        "type": instrument.traits.reference_name,
        "name": instrument.name,
        "market_status": "open" if is_open(instrument.market, now_ms) else "closed",
        "session": {
            **ohlcv(instrument, day, _OHLCV),
            "previous_close": number(previous),
            "change": number(tick.price - previous),
            "change_percent": _percent(tick.price - previous, previous),
        },
        "last_minute": {
            **ohlcv(instrument, tick.bar, _OHLCV),
            "vwap": number(tick.bar.vwap),
            "transactions": tick.bar.transactions,
        },
    }
    if not has_trades or _has_quote(instrument):
        row["last_quote"] = quote
    if has_trades:
        row["last_trade"] = trade
    return row


def single(request: Request, market: str, ticker: str) -> Document:
    """`/v2/snapshot/…/tickers/{ticker}`; an unknown ticker, or one of another market, is a 404."""
    instrument = request.instrument(ticker)
    if instrument.traits.snapshot_name != market:
        raise Refused(bodies.not_found(request.path))
    document: Document = {"request_id": None, "status": request.status}
    for row in request.faults.rows([_market_row(request, instrument)], SINGLE)[:1]:
        document["ticker"] = row
    return document


def whole_market(request: Request, market: str) -> Document:
    """`/v2/snapshot/…/tickers`: no paging; no `tickers` means all; unknown ones are left out in silence."""
    asked = request.query.get("tickers")
    found = [find(ticker) for ticker in dict.fromkeys(asked.split(","))] if asked else [*KNOWN.values()]
    rows = [
        _market_row(request, instrument)
        for instrument in found
        if instrument is not None and instrument.traits.snapshot_name == market
    ]
    return {"status": request.status, "tickers": request.faults.rows(rows, SINGLE)}


def _market_row(request: Request, instrument: Instrument) -> Document:
    now_ms = request.faults.moment_ms(instrument.ticker, request.now_ms)
    tick = request.market.tick(instrument, now_ms)
    day = ohlcv(instrument, request.market.day_so_far(instrument, tick))
    minute = ohlcv(instrument, tick.bar)
    minute |= {"n": tick.bar.transactions, "t": tick.at_ms // MINUTE_MS * MINUTE_MS}
    before = last_day_bar(request, instrument, _finished_day(request))
    previous = before[1].close if before else instrument.level
    number = instrument.number
    row: Document = {
        "ticker": instrument.ticker,
        "day": day,
        "min": minute,
        "prevDay": {**ohlcv(instrument, before[1]), "vw": number(before[1].vwap)} if before else {},
        "todaysChange": number(tick.price - previous),
        "todaysChangePerc": _percent(tick.price - previous, previous),
        "updated": _shared_future_ms(request) if instrument.mark % 2 else tick.at_ms,
    }
    if not instrument.traits.has_trades:
        row["lastQuote"] = {"a": number(tick.ask), "b": number(tick.bid), "t": tick.at_ms, "x": _FX_EXCHANGE}
        return row
    day["vw"] = minute["vw"] = 0
    row["lastTrade"] = {
        "p": number(tick.price), "s": instrument.volume(1), "t": tick.at_ms, "x": _CRYPTO_EXCHANGE, "c": [1],
        "i": str(tick.at_ms),
    }  # fmt: skip
    return row


def last_quote(request: Request, base: str, quote: str) -> Document:
    """`/v1/last_quote/currencies/{base}/{quote}`: status `success`, times in ms, no `C:` before the pair."""
    instrument = request.instrument(TRAITS[AssetType.FOREX].prefix + base + quote)
    tick = request.market.tick(instrument, request.now_ms)
    last = {
        "ask": instrument.number(tick.ask),
        "bid": instrument.number(tick.bid),
        "exchange": _FX_EXCHANGE,
        "timestamp": tick.at_ms,
    }
    return {"status": "success", "request_id": None, "symbol": f"{base}/{quote}", "last": last}


def last_trade(request: Request, base: str, quote: str) -> Document:
    """`/v1/last/crypto/{base}/{quote}`: status `success`, times in ms, the pair with a hyphen."""
    instrument = request.instrument(TRAITS[AssetType.CRYPTO].prefix + base + quote)
    tick = request.market.tick(instrument, request.now_ms)
    last = {
        "price": instrument.number(tick.price),
        "size": instrument.volume(1),
        "exchange": _CRYPTO_EXCHANGE,
        "conditions": [1],
        "timestamp": tick.at_ms,
    }
    return {"status": "success", "request_id": None, "symbol": f"{base}-{quote}", "last": last}


def _has_quote(instrument: Instrument) -> bool:
    # Of crypto, the vendor shows a quote for some: a reader must do without.
    return instrument.mark % 3 != 0


def _finished_day(request: Request) -> date:
    return request.now.astimezone(UTC).date() - timedelta(days=1)


def _percent(change: int, whole: int) -> float:
    return round(change / whole * 100, 8)


def _shared_future_ms(request: Request) -> int:
    # Not a time of anything: many rows carry this one value of tomorrow, as if it were
    # their own.
    tomorrow = datetime.combine(request.now.astimezone(UTC).date() + timedelta(days=1), time(4, 0, 8), UTC)
    return int(tomorrow.timestamp()) * 1000 + 999
