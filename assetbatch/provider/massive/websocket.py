"""The WebSocket: what is said and heard on it, as data by cluster.

https://massive.com/docs/websocket/quickstart

A frame is a JSON array that may mix statuses, channels and markets; each of its events stands alone, and one that is
off its schema costs that event. Times are Unix milliseconds, whatever a page says of seconds.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Quote
from assetbatch.provider.answers import text
from assetbatch.provider.documents import NO_NUMBER, decimal_of
from assetbatch.provider.massive.aggregates import bar_of
from assetbatch.provider.stream import Frame, Status, Word
from assetbatch.provider.values import InvalidRowError, number, time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from assetbatch.model import Bar
    from assetbatch.plans import Plan

REAL_TIME, DELAYED = "wss://socket.massive.com", "wss://delayed.massive.com"
# In all of a frame, at any depth: all pairs of a cluster may come in one.
MOST_VALUES = 1_000_000
CONFIRMED = "subscribed to: "
# Both kinds of refusal have the same status, and differ in their words.
NO_SUCH_KEY = "authentication failed"
# Clocks differ. A quote that is ahead keeps all from being stored that come until its time.
MOST_AHEAD = timedelta(seconds=30)
WORDS = {
    "connected": Word.CONNECTED,
    "auth_success": Word.AUTHENTICATED,
    "auth_failed": Word.REFUSED_PLAN,
    "max_connections": Word.TOO_MANY,
    "auth_timeout": Word.ENDED,
    "slow_consumer": Word.ENDED,
    "force_disconnect": Word.ENDED,
}


class QuoteFields(Struct, frozen=True):
    """Where a channel of quotes or trades has what; "": nowhere. `price` is what counts as the last price.

    `is_of_trades`: only plans that are told single trades have it. `every`: so long after a price an event of it comes
    at the latest, where they are collected first.
    """

    channel: str
    name: str
    price: str
    time: str
    bid: str = ""
    ask: str = ""
    is_of_trades: bool = False
    every: timedelta = timedelta(0)


class MinuteFields(Struct, frozen=True):
    """Where a channel of minutes names its asset; its figures are called as those of the bars that a call brings.

    `exact_volume` is where it has the volume as a text, with parts of a share, as bars of calls have it; "": nowhere.
    """

    channel: str
    name: str
    exact_volume: str = ""


class Cluster(Struct, frozen=True):
    """One address of the stream, with the channels of its assets; all that it brings is so late as the `delay`.

    A pair is called by its two sides, with `joined_by` between them; "": an asset by its ticker. `minutes` None: they
    are not asked for. Where quotes come by the same channel, a minute is one, too.
    """

    asset_type: AssetType
    quotes: QuoteFields
    minutes: MinuteFields | None
    joined_by: str = ""
    delay: timedelta = timedelta(0)

    @property
    def url(self) -> str:
        """Where the vendor has it: what is late has a host of its own."""
        return f"{DELAYED if self.delay else REAL_TIME}/{self.asset_type.value}"

    @property
    def channels(self) -> tuple[str, ...]:
        """What to subscribe to of each asset, prices first."""
        minutes = () if self.minutes is None else (self.minutes.channel,)
        return tuple(dict.fromkeys((self.quotes.channel, *minutes)))

    def lacks_pair(self, pair: tuple[str, str] | None) -> bool:
        """Return whether an asset has no name for want of its pair."""
        return bool(self.joined_by) and pair is None

    def name(self, ticker: str, pair: tuple[str, str] | None) -> str | None:
        """Return what the stream calls an asset; None: the sides of its pair are not known."""
        if not self.joined_by:
            return ticker
        return None if pair is None else self.joined_by.join(pair)


class Channels(Struct, frozen=True):
    """The channels of one type of asset: of `quotes` the first counts that a plan has."""

    quotes: tuple[QuoteFields, ...]
    minutes: MinuteFields
    joined_by: str = ""


CHANNELS: Mapping[AssetType, Channels] = {
    # Forex has no trades: the bid is its price, of which the vendor makes its own bars. Volume counts quotes.
    AssetType.FOREX: Channels(
        (QuoteFields("C", name="p", price="b", bid="b", ask="a", time="t"),),
        MinuteFields("CA", name="pair"),
        joined_by="/",
    ),
    # Quotes of crypto (XQ) are those of one exchange each, no market's: bid and ask are left out.
    AssetType.CRYPTO: Channels(
        (QuoteFields("XT", name="pair", price="p", time="t"),),
        MinuteFields("XA", name="pair"),
        joined_by="-",
    ),
    # Without trades the price is what the last minute closed with, of the time at which that ended; some seconds later
    # it comes.
    AssetType.STOCKS: Channels(
        (
            QuoteFields("T", name="sym", price="p", time="t", is_of_trades=True),
            QuoteFields("AM", name="sym", price="c", time="e", every=timedelta(seconds=75)),
        ),
        MinuteFields("AM", name="sym", exact_volume="dv"),
    ),
    AssetType.INDICES: Channels(
        (QuoteFields("V", name="T", price="val", time="t"),),
        MinuteFields("AM", name="sym"),
    ),
}


def cluster_of(asset_type: AssetType, plan: Plan) -> Cluster:
    """Return the cluster of a type of asset as a plan has it."""
    found = CHANNELS[asset_type]
    quotes = next(fields for fields in found.quotes if plan.has_trades or not fields.is_of_trades)
    return Cluster(asset_type, quotes, found.minutes, found.joined_by, plan.delay)


# One for all: with frames of one event it would take longer to make it than to read them.
_DECODER = json.JSONDecoder(parse_float=decimal_of, parse_int=decimal_of, parse_constant=lambda _: NO_NUMBER)


def authentication(key: str) -> str:
    """Return the frame that tells who we are. It is never to be written down."""
    return json.dumps({"action": "auth", "params": key})


def subscription(names: Iterable[str]) -> str:
    """Return the frame that subscribes to these, each `CHANNEL.NAME`."""
    return json.dumps({"action": "subscribe", "params": ",".join(names)})


def read(cluster: Cluster, frame: str | bytes, now: datetime) -> Frame:
    """Read a frame. What is no frame at all is one event that is dropped."""
    found = Frame()
    try:
        events: Any = _parsed(frame)
    except (ValueError, RecursionError):
        events = ["what came is no JSON, or more than any frame has"]
    quotes, minutes = cluster.quotes, cluster.minutes
    is_one_channel = minutes is not None and minutes.channel == quotes.channel
    has_volume = TRAITS[cluster.asset_type].has_volume
    for event in events if isinstance(events, list) else [events]:
        try:
            kind = event.get("ev") if isinstance(event, dict) else None
            if kind == quotes.channel and not is_one_channel:
                found.quotes.append(_quote(quotes, event, now))
            elif minutes is not None and kind == minutes.channel:
                minute = _minute(minutes, event, now, has_volume=has_volume)
                if is_one_channel:
                    found.closes.append(_quote(quotes, event, now))
                found.minutes.append(minute)
            elif kind == "status":
                found.statuses.append(_status(event))
            else:
                raise InvalidRowError(f"an event that nobody asked for: {text(event)}")
        except InvalidRowError as error:
            found.dropped += 1
            found.oddest = str(error)
    return found


def _parsed(frame: str | bytes) -> Any:
    characters = frame if isinstance(frame, str) else frame.decode()
    # Each value has one of these before it, and becomes many times its size.
    if len(frame) > MOST_VALUES and sum(characters.count(mark) for mark in ",[{") > MOST_VALUES:
        raise ValueError
    return _DECODER.decode(characters)


def _name(event: Mapping[str, Any], key: str) -> str:
    name = event.get(key)
    if not isinstance(name, str):
        raise InvalidRowError(f"`{key}` names nothing: {text(name)}")
    return name


def _quote(fields: QuoteFields, event: Mapping[str, Any], now: datetime) -> tuple[str, Quote]:
    price = number(event, fields.price)
    if price is None:
        raise InvalidRowError(f"no price (zero or absent): {text(event)}")
    bid = price if fields.bid == fields.price else number(event, fields.bid) if fields.bid else None
    ask = number(event, fields.ask) if fields.ask else None
    quote = Quote(price, time_of(event.get(fields.time), now, ahead=MOST_AHEAD), bid, ask, has_daily=False)
    return _name(event, fields.name), quote


def _minute(fields: MinuteFields, event: Mapping[str, Any], now: datetime, *, has_volume: bool) -> tuple[str, Bar]:
    start = time_of(event.get("s"), now)
    if start.second or start.microsecond:
        raise InvalidRowError(f"a minute that begins at {start.isoformat()}")
    volume = event.get(fields.exact_volume) if fields.exact_volume else None
    figures = {**event, "v": decimal_of(volume)} if isinstance(volume, str) else event
    return _name(event, fields.name), bar_of(start, figures, has_volume=has_volume)


def _status(event: Mapping[str, Any]) -> Status:
    status, message = event.get("status"), event.get("message")
    words = message if isinstance(message, str) else text(message)
    word = WORDS.get(status if isinstance(status, str) else "", Word.OTHER)
    if status == "success" and words.startswith(CONFIRMED):
        return Status(Word.CONFIRMED, words.removeprefix(CONFIRMED).strip())
    if status == "error" and "not authorized" in words.lower():
        word = Word.NOT_ENTITLED
    elif word is Word.REFUSED_PLAN and NO_SUCH_KEY in words.lower():
        word = Word.REFUSED_KEY
    return Status(word, f"{text(status)}: {text(words)}")
