"""What is sent when: the events of a channel and a pair that fall due in a stretch of time.

They come from the market that answers over HTTP, too: a quote is the one that a snapshot shows at its time, and five
minutes make the bar that is served later. Unlike snapshots, a market at rest is silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from assetbatch.markets import TRAITS
from assetbatch.model import AssetType
from assetbatch.sandbox.catalogue import KNOWN, find
from assetbatch.sandbox.clusters import Content
from assetbatch.sandbox.hours import EXCHANGES, MINUTE_MS, midnight_ms, moment
from assetbatch.sandbox.market import TICK_MS, Bar, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.clusters import Channel, Cluster
    from assetbatch.sandbox.market import Market, Tick

Event = dict[str, Any]
Values = Mapping[str, Any]

ALL = "*"
SECOND_MS = 1_000
MOST_TICKS_MS = 10_000
"""Of a longer stretch (the clock was set ahead) quotes and seconds come for its end alone; minutes for as many."""
MOST_MINUTES_MS = 15 * MINUTE_MS
_FOREX_EXCHANGE = 48
_OTHER_EXCHANGE = 1
_BOUGHT, _REGULAR = 2, 0
_TAPE = 3


def stream_name(cluster: Cluster, instrument: Instrument) -> str:
    """Return what the cluster calls an instrument in its events."""
    return instrument.base + cluster.separator + instrument.quote if cluster.separator else instrument.ticker


@lru_cache(maxsize=10_000)
def instruments(cluster: Cluster, name: str) -> tuple[Instrument, ...]:
    """Return what a name of a subscription stands for: one pair, for `*` the whole catalogue; nothing if unknown."""
    if name == ALL:
        return tuple(known for known in KNOWN.values() if known.market is cluster.asset_type)
    for separator in filter(None, (cluster.separator, cluster.other)):
        base, _, quote = name.partition(separator)
        instrument = find(TRAITS[cluster.asset_type].prefix + base + quote)
        if instrument is not None and (instrument.base, instrument.quote) == (base, quote):
            return (instrument,)
    instrument = None if cluster.separator else find(name)
    return (instrument,) if instrument is not None and instrument.market is cluster.asset_type else ()


def events(
    market: Market,
    cluster: Cluster,
    channel: Channel,
    instrument: Instrument,
    *,
    stretch: tuple[int, int],
    rate: float,
) -> Iterator[tuple[int, Event]]:
    """Yield what falls due in (begin, end], milliseconds since 1970, each with its time; `rate` ticks a second."""
    listed = market.listing.listed(instrument.ticker, moment(instrument.market, stretch[1])[0])
    if listed is None:
        return
    instrument = listed
    head = {"ev": channel.name, channel.symbol: stream_name(cluster, instrument)}
    for due_ms, values in _CONTENTS[channel.content](market, instrument, stretch, rate):
        yield due_ms, head | {name: values[source] for name, source in channel.fields.items()}


def _tick_values(instrument: Instrument, tick: Tick, at_ms: int) -> Values:
    """Return the newest quote and trade at a time, which becomes theirs."""
    number, size = instrument.number, instrument.volume(1)
    return {
        "bid": number(tick.bid),
        "ask": number(tick.ask),
        "price": number(tick.price),
        "bid_size": size,
        "ask_size": size,
        "size": size,
        "whole_size": int(size),
        "size_text": str(size),
        "conditions": [_BOUGHT if instrument.market is AssetType.CRYPTO else _REGULAR],
        "id": str(at_ms),
        "sequence": at_ms,
        "tape": _TAPE,
        "exchange": _OTHER_EXCHANGE if instrument.traits.has_trades else _FOREX_EXCHANGE,
        "at_ms": at_ms,
        "received_ms": at_ms + 4,
    }


def _ticks(
    market: Market, instrument: Instrument, stretch: tuple[int, int], rate: float
) -> Iterator[tuple[int, Values]]:
    if rate <= 0:
        return
    # At one a second, two or four the times are those at which the market's own ticks come; faster, each comes
    # several times, each time later.
    period_ms = max(1, round(1_000 / rate))
    for at_ms in _due(stretch, period_ms, instrument.mark % period_ms, MOST_TICKS_MS):
        if market.hours.is_open(instrument.market, at_ms):
            tick = market.tick(instrument, at_ms)
            # In a minute without trade the newest one is an older one.
            if at_ms - tick.at_ms < TICK_MS:
                yield at_ms, _tick_values(instrument, tick, at_ms)


def _minutes(
    market: Market, instrument: Instrument, stretch: tuple[int, int], _: float
) -> Iterator[tuple[int, Values]]:
    delay_ms = _delay_ms(instrument)
    for due_ms in _due(stretch, MINUTE_MS, delay_ms, MOST_MINUTES_MS):
        end_ms = due_ms - delay_ms
        bar = market.bar(instrument, end_ms - MINUTE_MS, end_ms, end_ms)
        if bar is not None:
            yield due_ms, _bar_values(market, instrument, bar, end_ms - MINUTE_MS, end_ms)


def _seconds(
    market: Market, instrument: Instrument, stretch: tuple[int, int], _: float
) -> Iterator[tuple[int, Values]]:
    delay_ms = _delay_ms(instrument)
    phase_ms = instrument.mark % TICK_MS
    for due_ms in _due(stretch, SECOND_MS, delay_ms, MOST_TICKS_MS):
        start_ms = due_ms - delay_ms - SECOND_MS
        if not market.hours.is_open(instrument.market, start_ms):
            continue
        times = range(start_ms + phase_ms, start_ms + SECOND_MS, TICK_MS)
        prices = [market.tick(instrument, at_ms).price for at_ms in times]
        bar = merge([Bar(price, price, price, price, price, 1, 0) for price in prices])
        if bar is not None:
            yield due_ms, _bar_values(market, instrument, bar, start_ms, start_ms + SECOND_MS)


def _bar_values(market: Market, instrument: Instrument, bar: Bar, start_ms: int, end_ms: int) -> Values:
    number, volume = instrument.number, instrument.volume(bar.transactions)
    of_day = _day_values(market, instrument, volume, end_ms) if instrument.market in EXCHANGES else {}
    return {
        **of_day,
        "open": number(bar.open),
        "high": number(bar.high),
        "low": number(bar.low),
        "close": number(bar.close),
        "volume": volume,
        "vwap": number(bar.vwap),
        "average_size": int(volume / bar.transactions),
        "start_ms": start_ms,
        "end_ms": end_ms,
    }


def _day_values(market: Market, instrument: Instrument, volume: float, end_ms: int) -> Values:
    """Return what bars of exchanges have beside their own figures: of the day so far, and volumes in two ways."""
    day, _ = moment(instrument.market, end_ms - 1)
    traded = market.bar(instrument, midnight_ms(instrument.market, day), end_ms, end_ms)
    session = market.day(instrument, day, end_ms)
    day_volume = instrument.volume(traded.transactions) if traded else 0
    return {
        "whole_volume": int(volume),
        "volume_text": str(volume),
        "whole_day_volume": int(day_volume),
        "day_volume_text": str(day_volume),
        "day_open": instrument.number(session.open) if session else 0,
        "day_vwap": instrument.number(traded.vwap) if traded else 0,
    }


def _delay_ms(instrument: Instrument) -> int:
    # The vendor's bars come one to four seconds after their end.
    return 1_000 + instrument.mark % 2_000


def _due(stretch: tuple[int, int], period_ms: int, phase_ms: int, most_ms: int) -> range:
    # Each `phase_ms` after a whole period, in (begin, end].
    begin_ms, end_ms = max(stretch[0], stretch[1] - most_ms), stretch[1]
    first = (begin_ms - phase_ms) // period_ms + 1
    last = (end_ms - phase_ms) // period_ms
    return range(first * period_ms + phase_ms, last * period_ms + phase_ms + 1, period_ms)


_CONTENTS: Mapping[Content, Callable[..., Iterator[tuple[int, Values]]]] = {
    Content.TICK: _ticks,
    Content.SECOND: _seconds,
    Content.MINUTE: _minutes,
    Content.NEVER_SENT: lambda *_: iter(()),
}
