"""What the vendor streams, as data: clusters, the paths that serve them, their channels, the fields of an event.

The vendor has a host of its own for plans that are late. Here a cluster has one path, which is so late as the plan.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch.model import AssetType, Product
from assetbatch.plans import PLANS

if TYPE_CHECKING:
    from collections.abc import Mapping


class Content(Enum):
    """What an event of a channel tells."""

    TICK = auto()
    """The newest quote or trade."""
    SECOND = auto()
    """The bar of a finished second."""
    MINUTE = auto()
    """The bar of a finished minute."""
    NEVER_SENT = auto()


class Channel(Struct, frozen=True, eq=False):
    """One channel: events carry its name as `ev`, the pair or ticker under `symbol`, and `fields`.

    `fields` leads from the vendor's names to those of `feed`, `times` are those of them that are times. `plans` are
    those that have the channel; empty: all that have the cluster.
    """

    name: str
    content: Content
    symbol: str = "sym"
    fields: Mapping[str, str] = field(default_factory=dict)
    times: tuple[str, ...] = ("s", "e")
    plans: frozenset[str] = frozenset()


class Cluster(Struct, frozen=True, eq=False):
    """What one connection serves.

    A stream name is `base + separator + quote`, or the ticker as it is where there is no separator; the `other`
    separator is taken, too.
    """

    asset_type: AssetType
    channels: tuple[Channel, ...]
    separator: str = ""
    other: str = ""

    @property
    def name(self) -> str:
        """What its path is called."""
        return self.asset_type.value

    def channel(self, name: str) -> Channel | None:
        """Return the channel of that name, None when there is none."""
        return next((channel for channel in self.channels if channel.name == name), None)


_OHLC = {"o": "open", "c": "close", "h": "high", "l": "low"}
_TIMES = {"s": "start_ms", "e": "end_ms"}
_FOREX_BAR = {**_OHLC, "v": "volume", **_TIMES}
_CRYPTO_BAR = {**_OHLC, "v": "volume", "vw": "vwap", "z": "average_size", **_TIMES}
_FOREX_QUOTE = {"x": "exchange", "a": "ask", "b": "bid", "t": "at_ms"}
_CRYPTO_QUOTE = {
    "bp": "bid", "bs": "bid_size", "ap": "ask", "as": "ask_size", "x": "exchange", "t": "at_ms", "r": "received_ms",
}  # fmt: skip
_CRYPTO_TRADE = {
    "p": "price", "s": "size", "c": "conditions", "i": "id", "x": "exchange", "t": "at_ms", "r": "received_ms",
}  # fmt: skip
# `v` counts whole shares, `dv` parts of them, too; `op` is 0 before the session.
_STOCK_BAR = {
    "v": "whole_volume", "av": "whole_day_volume", "op": "day_open", "vw": "vwap", **_OHLC, "a": "day_vwap",
    "z": "average_size", **_TIMES, "dv": "volume_text", "dav": "day_volume_text",
}  # fmt: skip
_STOCK_TRADE = {
    "x": "exchange", "i": "id", "z": "tape", "p": "price", "s": "whole_size", "ds": "size_text", "c": "conditions",
    "t": "at_ms", "q": "sequence",
}  # fmt: skip
_INDEX_BAR = {"op": "day_open", **_OHLC, **_TIMES}
_WITH_TRADES = frozenset(name for name, plan in PLANS[Product.STOCKS].items() if plan.has_trades)
_WITH_QUOTES = frozenset({"advanced", "business"})
_FAIR_VALUE = Channel("FMV", Content.NEVER_SENT, plans=frozenset({"business"}))

_CLUSTERS = (
    Cluster(
        AssetType.FOREX,
        (
            Channel("C", Content.TICK, "p", _FOREX_QUOTE, times=("t",)),
            Channel("CA", Content.MINUTE, "pair", _FOREX_BAR),
            Channel("CAS", Content.SECOND, "pair", _FOREX_BAR),
            _FAIR_VALUE,
        ),
        separator="/",
        other="-",
    ),
    Cluster(
        AssetType.CRYPTO,
        (
            Channel("XT", Content.TICK, "pair", _CRYPTO_TRADE, times=("t", "r")),
            Channel("XQ", Content.TICK, "pair", _CRYPTO_QUOTE, times=("t", "r")),
            Channel("XA", Content.MINUTE, "pair", _CRYPTO_BAR),
            Channel("XAS", Content.SECOND, "pair", _CRYPTO_BAR),
            _FAIR_VALUE,
        ),
        separator="-",
    ),
    Cluster(
        AssetType.STOCKS,
        (
            Channel("T", Content.TICK, fields=_STOCK_TRADE, times=("t",), plans=_WITH_TRADES),
            Channel("AM", Content.MINUTE, fields=_STOCK_BAR),
            Channel("A", Content.SECOND, fields=_STOCK_BAR),
            *(Channel(name, Content.NEVER_SENT, plans=_WITH_QUOTES) for name in ("Q", "LULD", "NOI")),
            _FAIR_VALUE,
        ),
    ),
    Cluster(
        AssetType.INDICES,
        (
            Channel("V", Content.TICK, "T", {"val": "price", "t": "at_ms"}, times=("t",)),
            Channel("AM", Content.MINUTE, fields=_INDEX_BAR),
            Channel("A", Content.SECOND, fields=_INDEX_BAR),
        ),
    ),
)
CLUSTERS: Mapping[str, Cluster] = {f"/{cluster.name}": cluster for cluster in _CLUSTERS}
"""By path, what is served there."""
