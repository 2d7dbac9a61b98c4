"""What the vendor streams, as data: clusters, the addresses that serve them, their channels, the fields of an event.

A cluster has one path. Stocks and indices have theirs, also with what is 15 minutes old, where other plans look; what
has no `asset_type` here has no prices yet: each of its names is confirmed, and silent.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch.model import AssetType

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

    name: str
    channels: tuple[Channel, ...]
    asset_type: AssetType | None = None
    separator: str = ""
    other: str = ""

    def channel(self, name: str) -> Channel | None:
        """Return the channel of that name, None when there is none."""
        return next((channel for channel in self.channels if channel.name == name), None)


class Source(Struct, frozen=True, eq=False):
    """What is served at one path: a cluster, so many milliseconds late."""

    cluster: Cluster
    delay_ms: int = 0


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
_FAIR_VALUE = Channel("FMV", Content.NEVER_SENT, plans=frozenset({"business"}))

FOREX = Cluster(
    "forex",
    (
        Channel("C", Content.TICK, "p", _FOREX_QUOTE, times=("t",)),
        Channel("CA", Content.MINUTE, "pair", _FOREX_BAR),
        Channel("CAS", Content.SECOND, "pair", _FOREX_BAR),
        _FAIR_VALUE,
    ),
    AssetType.FOREX,
    separator="/",
    other="-",
)
CRYPTO = Cluster(
    "crypto",
    (
        Channel("XT", Content.TICK, "pair", _CRYPTO_TRADE, times=("t", "r")),
        Channel("XQ", Content.TICK, "pair", _CRYPTO_QUOTE, times=("t", "r")),
        Channel("XA", Content.MINUTE, "pair", _CRYPTO_BAR),
        Channel("XAS", Content.SECOND, "pair", _CRYPTO_BAR),
        _FAIR_VALUE,
    ),
    AssetType.CRYPTO,
    separator="-",
)
STOCKS = Cluster("stocks", tuple(Channel(name, Content.NEVER_SENT) for name in ("A", "AM", "T", "Q", "LULD", "NOI")))
INDICES = Cluster("indices", tuple(Channel(name, Content.NEVER_SENT) for name in ("A", "AM", "V")))

_LATE_MS = 15 * 60_000
SOURCES: Mapping[str, Source] = {
    **{f"/{cluster.name}": Source(cluster) for cluster in (FOREX, CRYPTO, STOCKS, INDICES)},
    **{f"/delayed/{cluster.name}": Source(cluster, _LATE_MS) for cluster in (STOCKS, INDICES)},
}
"""By path, what is served there."""
