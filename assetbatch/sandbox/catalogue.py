"""The tickers that the sandbox knows: written by hand, with a plausible level each. No market data."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType

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
_SYNTHETIC = re.compile(r"(T\d{1,6})(USD)", re.ASCII)
_CURRENCIES = {
    "USD": "United States dollar", "EUR": "Euro", "GBP": "British pound sterling", "JPY": "Japanese yen",
    "CHF": "Swiss franc", "AUD": "Australian dollar", "NZD": "New Zealand dollar", "CAD": "Canadian dollar",
    "XAU": "Gold", "XAG": "Silver", "XPT": "Platinum", "XPD": "Palladium", "BTC": "Bitcoin",
    "ETH": "Ethereum", "USDT": "Tether", "CORN": "Corn", "NATGAS": "Natural gas",
}  # fmt: skip

NOT_IN_PLAN = frozenset({"AAPL", "MSFT", "NVDA", "SPY", "TSLA", "I:DJI", "I:NDX", "I:SPX"})
"""Tickers that no currencies plan includes: they have an error of their own in snapshots."""


class Instrument(Struct, frozen=True):
    """One ticker. Prices are whole numbers of units; a unit is 10 ** -decimals of the quote currency."""

    ticker: str
    market: AssetType
    base: str
    quote: str
    decimals: int
    level: int
    """The price around which it moves, in units."""
    swing: int
    """How much farther it moves than the common shape of a day."""
    mark: int
    """63 bits that are this ticker's own."""

    @property
    def traits(self) -> Traits:
        """What the vendor calls its market, and what it has of it."""
        return TRAITS[self.market]

    @property
    def name(self) -> str:
        """What the vendor shows for the pair: `Euro - United States dollar`."""
        return f"{currency_name(self.base)} - {currency_name(self.quote)}"

    def volume(self, transactions: int) -> float:
        """Return what so many transactions moved: quotes for forex, units of the base currency for crypto."""
        if not self.traits.has_trades:
            return transactions
        lot = max(1, (10 + self.mark % 90) * int(10 ** (8 + self.decimals)) // self.level)
        return transactions * lot / 10**8

    def number(self, units: int) -> float:
        """Turn a price in units into the JSON number: at most 8 decimals, whole ones without a point."""
        scale = int(10**self.decimals)
        return units // scale if units % scale == 0 else units / scale


def currency_name(code: str) -> str:
    """Name a currency: its code, where it has no name here."""
    return _CURRENCIES.get(code, code)


def _mark(ticker: str) -> int:
    return int.from_bytes(hashlib.blake2b(ticker.encode(), digest_size=8).digest()) >> 1


def _instrument(market: AssetType, base: str, quote: str, level: float) -> Instrument:
    # At least six digits, so that a move of a few millionths is a move, and never more than eight decimals.
    decimals = 2
    while level * 10**decimals < 100_000 and decimals < 8:
        decimals += 1
    units = round(level * 10**decimals)
    usual = 1 if market is AssetType.FOREX else 5
    ticker = TRAITS[market].prefix + base + quote
    # Where eight decimals leave few digits (0.0000214) a wider swing keeps every second's price different.
    swing = max(usual, 100_000 // units + 1)
    return Instrument(ticker, market, base, quote, decimals, units, swing, _mark(ticker))


def _read(text: str, market: AssetType) -> list[Instrument]:
    words = text.split()
    pairs = [pair.partition("/") for pair in words[::2]]
    return [
        _instrument(market, base, quote, level=float(level))
        for (base, _, quote), level in zip(pairs, words[1::2], strict=True)
    ]


KNOWN: dict[str, Instrument] = {
    known.ticker: known
    for known in sorted(_read(_FOREX, AssetType.FOREX) + _read(_CRYPTO, AssetType.CRYPTO), key=lambda i: i.ticker)
}
"""The catalogue by ticker, in the order of the tickers."""


def find(ticker: str) -> Instrument | None:
    """Find the instrument of a ticker, None when there is none; case counts.

    Besides the catalogue there are synthetic pairs for load tests, `C:T1USD` to `C:T999999USD` and the same
    with `X:`. They are in no listing.
    """
    return KNOWN.get(ticker) or _synthetic(ticker)


@lru_cache(maxsize=200_000)
def _synthetic(ticker: str) -> Instrument | None:
    for market, traits in TRAITS.items():
        if ticker.startswith(traits.prefix) and (match := _SYNTHETIC.fullmatch(ticker, len(traits.prefix))):
            mark = _mark(ticker)
            return _instrument(market, match[1], match[2], level=(10_000 + mark % 90_000) / 10 ** (2 + mark % 3))
    return None
