"""The tickers that the sandbox knows: written by hand, with a plausible level each. No market data."""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from assetbatch.markets import TRAITS, type_of
from assetbatch.model import AssetType
from assetbatch.sandbox.equities import INDICES, STOCKS

if TYPE_CHECKING:
    from assetbatch.markets import Traits

# `base/quote level`; the ticker is prefix + base + quote. CORN/USD and NATGAS/USD are here because a
# pair must not be taken apart as three letters and three.
_FOREX = """
EUR/USD 1.08      GBP/USD 1.27      USD/JPY 155       USD/CHF 0.89      AUD/USD 0.65      NZD/USD 0.59
USD/CAD 1.40      EUR/GBP 0.85      EUR/JPY 167.4     EUR/CHF 0.961     EUR/AUD 1.66      EUR/NZD 1.83
EUR/CAD 1.51      GBP/JPY 196.8     GBP/CHF 1.13      GBP/AUD 1.953     GBP/NZD 2.152     GBP/CAD 1.778
AUD/JPY 100.7     AUD/NZD 1.102     AUD/CAD 0.91      AUD/CHF 0.5785    NZD/JPY 91.4      NZD/CAD 0.826
NZD/CHF 0.525     CAD/JPY 110.7     CAD/CHF 0.6357    CHF/JPY 174.1     USD/SEK 10.95     USD/NOK 11.1
USD/DKK 6.91      USD/PLN 4.02      USD/HUF 386       USD/CZK 23.6      USD/TRY 34.6      USD/ZAR 18.1
USD/MXN 20.3      USD/BRL 5.8       USD/CNH 7.25      USD/HKD 7.78      USD/SGD 1.342     USD/INR 84.4
USD/THB 34.6      USD/KRW 1398      USD/TWD 32.5      USD/IDR 15880     USD/PHP 58.9      USD/MYR 4.46
USD/ILS 3.72      USD/AED 3.6729    USD/SAR 3.755     EUR/SEK 11.55     EUR/NOK 11.7      EUR/PLN 4.33
EUR/HUF 409       EUR/TRY 36.2      EUR/CZK 25.3      EUR/DKK 7.459     JPY/USD 0.006452  XAU/USD 2650
XAG/USD 30.9      XPT/USD 945       XPD/USD 1010      XAU/EUR 2510      XAG/EUR 29.2      CORN/USD 4.32
NATGAS/USD 3.08
"""
_CRYPTO = """
BTC/USD 97000     ETH/USD 3350      SOL/USD 238       XRP/USD 1.44      ADA/USD 0.98      DOGE/USD 0.41
AVAX/USD 42.6     DOT/USD 8.9       LINK/USD 17.6     LTC/USD 96.4      BCH/USD 512       XLM/USD 0.47
ATOM/USD 8.7      UNI/USD 10.9      NEAR/USD 6.7      ICP/USD 12.1      FIL/USD 5.3       ETC/USD 31.2
APT/USD 12.7      ARB/USD 0.93      OP/USD 2.24       INJ/USD 29.4      AAVE/USD 184      MKR/USD 1630
ALGO/USD 0.31     VET/USD 0.0412    HBAR/USD 0.147    TRX/USD 0.208     SHIB/USD 0.0000214 PEPE/USD 0.0000814
XTZ/USD 1.29      EOS/USD 0.88      SAND/USD 0.61     MANA/USD 0.59     GRT/USD 0.27      BTC/EUR 92400
ETH/EUR 3190      BTC/USDT 97040    ETH/USDT 3351     SOL/USDT 238.1    ETH/BTC 0.03454
"""
_SYNTHETIC = re.compile(r"(?:[CX]:(?P<base>T\d{1,6})USD|ZZT\d{1,6})", re.ASCII)
_CURRENCIES = {
    "USD": "United States dollar", "EUR": "Euro", "GBP": "British pound sterling", "JPY": "Japanese yen",
    "CHF": "Swiss franc", "AUD": "Australian dollar", "NZD": "New Zealand dollar", "CAD": "Canadian dollar",
    "XAU": "Gold", "XAG": "Silver", "XPT": "Platinum", "XPD": "Palladium", "BTC": "Bitcoin",
    "ETH": "Ethereum", "USDT": "Tether", "CORN": "Corn", "NATGAS": "Natural gas",
}  # fmt: skip

MILLION = 1_000_000
"""Heights of prices are millionths of an instrument's level."""
SPLIT_DECIMALS = 2


class Pace(Enum):
    """In which minutes of a day something happens."""

    ALWAYS = "always"
    BUSY = "busy"
    """In each minute of the session, in one of four before and after."""
    THIN = "thin"
    """In one minute of five of the session."""
    RARE = "rare"
    """In five minutes of the session."""


class Instrument(Struct, frozen=True):
    """One ticker. Prices are whole numbers of units; a unit is 10 ** -decimals of the quote currency."""

    ticker: str
    market: AssetType
    base: str
    quote: str
    """Of currencies alone, like `base`."""
    decimals: int
    level: int
    """The price around which it moves, in units."""
    swing: int
    """How much farther it moves than the common shape of a day."""
    mark: int
    """63 bits that are this ticker's own."""
    name: str
    """What the vendor shows: `Euro - United States dollar`, `Apple Inc.`"""
    pace: Pace = Pace.ALWAYS
    kind: str = ""
    """What a stock is: `CS`, `ETF`, `TEST`."""
    listed_by: str = ""
    """The exchange of a stock, the feed of an index."""
    is_free: bool = True
    """Whether every plan of its market has it."""
    since: int = 0
    until: int = 10**6
    """From which day of its market to which (exclusive) there is such a ticker."""
    before: str = ""
    """The ticker that it had at first, if another one."""
    shares: Fraction = Fraction(1)
    """How many shares by now were one share at first."""

    @property
    def traits(self) -> Traits:
        """What the vendor calls its market, and what it has of it."""
        return TRAITS[self.market]

    @property
    def is_over_the_counter(self) -> bool:
        """Whether no exchange lists it: whole markets have it only for those who ask."""
        return self.listed_by == "OTC"

    @property
    def reference_name(self) -> str:
        """The market that the reference list has it in: what is traded over the counter has one of its own."""
        return "otc" if self.is_over_the_counter else self.traits.reference_name

    def is_listed(self, day: int) -> bool:
        """Whether there is such a ticker on a day of its market."""
        return self.since <= day < self.until

    def volume(self, transactions: int) -> float:
        """Return what so many transactions moved: quotes for forex, units of the base currency for crypto, shares."""
        if not self.traits.has_trades:
            return transactions
        if self.market is AssetType.STOCKS:
            # Of some, people trade parts of a share.
            micro_shares = (20 + self.mark % 90) * MILLION + (0 if self.mark % 3 else self.mark % 999_983)
            return _number(transactions * micro_shares * self.shares.numerator, MILLION * self.shares.denominator)
        lot = max(1, (10 + self.mark % 90) * int(10 ** (8 + self.decimals)) // self.level)
        return transactions * lot / 10**8

    def price(self, height: int, times: int = 1) -> int:
        """Return the price at a height, in units; of a sum of so many heights, their mean price."""
        units = self.level * (MILLION * times + self.swing * height) // (MILLION * times)
        if self.shares == 1:
            return units
        return units * int(10**SPLIT_DECIMALS) * self.shares.denominator // self.shares.numerator

    def split(self, shares: Fraction) -> Instrument:
        """Return it as it is told of after splits: at prices with two decimals more, so that most come out even."""
        return self if shares == 1 else replace(self, shares=shares, decimals=self.decimals + SPLIT_DECIMALS)

    def number(self, units: int) -> float:
        """Turn a price in units into the JSON number: at most 8 decimals, whole ones without a point."""
        return _number(units, int(10**self.decimals))


def _number(parts: int, scale: int) -> float:
    return parts // scale if parts % scale == 0 else parts / scale


def currency_name(code: str) -> str:
    """Name a currency: its code, where it has no name here."""
    return _CURRENCIES.get(code, code)


def _mark(ticker: str) -> int:
    return int.from_bytes(hashlib.blake2b(ticker.encode(), digest_size=8).digest()) >> 1


def _scaled(level: float, most_decimals: int) -> tuple[int, int]:
    # At least six digits, so that a move of a few millionths is a move, and no more decimals than the vendor has.
    decimals = 2
    while level * 10**decimals < 100_000 and decimals < most_decimals:
        decimals += 1
    return decimals, round(level * 10**decimals)


def _pair(market: AssetType, base: str, quote: str, level: float) -> Instrument:
    decimals, units = _scaled(level, 8)
    usual = 1 if market is AssetType.FOREX else 5
    ticker = TRAITS[market].prefix + base + quote
    # Where eight decimals leave few digits (0.0000214) a wider swing keeps every second's price different.
    swing = max(usual, 100_000 // units + 1)
    name = f"{currency_name(base)} - {currency_name(quote)}"
    return Instrument(ticker, market, base, quote, decimals, units, swing, _mark(ticker), name)


def _security(ticker: str, level: float, **facts: Any) -> Instrument:
    market = type_of(ticker)
    decimals, units = _scaled(level, 4 if market is AssetType.STOCKS else 2)
    swing = max(5, 100_000 // units + 1)
    return Instrument(ticker, market, "", "", decimals, units, swing, _mark(ticker), **facts)


def _pairs(text: str, market: AssetType) -> list[Instrument]:
    words = text.split()
    pairs = [pair.partition("/") for pair in words[::2]]
    return [
        _pair(market, base, quote, level=float(level))
        for (base, _, quote), level in zip(pairs, words[1::2], strict=True)
    ]


def _stock(line: str) -> Instrument:
    ticker, level, kind, exchange, pace, name = line.split(maxsplit=5)
    return _security(ticker, float(level), kind=kind, listed_by=exchange, pace=Pace(pace), name=name)


def _index(line: str) -> Instrument:
    ticker, level, feed, plans, name = line.split(maxsplit=4)
    return _security(ticker, float(level), listed_by=feed, is_free=plans == "free", pace=Pace.BUSY, name=name)


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


KNOWN: dict[str, Instrument] = {
    known.ticker: known
    for known in sorted(
        [
            *_pairs(_FOREX, AssetType.FOREX),
            *_pairs(_CRYPTO, AssetType.CRYPTO),
            *map(_stock, _lines(STOCKS)),
            *map(_index, _lines(INDICES)),
        ],
        key=lambda one: one.ticker,
    )
}
"""The catalogue by ticker, in the order of the tickers."""


def find(ticker: str) -> Instrument | None:
    """Find the instrument of a ticker, None when there is none; case counts.

    Besides the catalogue there are synthetic tickers for load tests: the pairs `C:T1USD` to `C:T999999USD` and the same
    with `X:`, the stocks `ZZT1` to `ZZT999999`. They are in no listing.
    """
    return KNOWN.get(ticker) or _synthetic(ticker)


@lru_cache(maxsize=200_000)
def _synthetic(ticker: str) -> Instrument | None:
    match = _SYNTHETIC.fullmatch(ticker)
    if match is None:
        return None
    mark = _mark(ticker)
    level = (10_000 + mark % 90_000) / 10 ** (2 + mark % 3)
    if match["base"]:
        return _pair(type_of(ticker), match["base"], "USD", level)
    return _security(ticker, level, kind="CS", listed_by="XNYS", pace=Pace.BUSY, name=f"Invented {ticker}")
