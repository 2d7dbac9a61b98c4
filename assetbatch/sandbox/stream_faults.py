"""The misbehaviours of the stream that can be asked for, by their words.

MATCH is looked for in the path (`/forex`) and, where a word is about names or events, in what is subscribed
(`C.EUR/USD`). Of a connection, what its beginning is drawn for comes once, what ends or ails it is drawn each second
from its first subscription on; of an event, for each.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING

from assetbatch.sandbox.bodies import raw
from assetbatch.sandbox.faults import ROW_CHANGES, RowShape
from assetbatch.sandbox.session import TOO_SLOW, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from assetbatch.sandbox.clusters import Channel
    from assetbatch.sandbox.faults import Faults
    from assetbatch.sandbox.feed import Event

REVISED_AFTER_MS = 2_000
GARBAGE = "upstream connect error or disconnect/reset before headers"
_HOUR_MS = 3_600_000
_PRICES = frozenset({"bid", "ask", "price", "open", "high", "low", "close", "vwap"})


def _closes(code: int) -> Callable[[Session], None]:
    return lambda session: session.close(code, "close")


_EACH_SECOND: Mapping[str, Callable[[Session], None]] = {
    "ws-drop": lambda session: session.drop("drop"),
    **{f"ws-close-{code}": _closes(code) for code in (1000, 1001, 1008, 1012)},
    "ws-slow-consumer": lambda session: session.expel("slow_consumer", TOO_SLOW),
    "ws-force-disconnect": lambda session: session.expel("force_disconnect", "Disconnected."),
    "ws-mute": Session.mute,
    "ws-dead": Session.play_dead,
    "ws-big": Session.pad_next,
    "ws-garbage": lambda session: session.write(GARBAGE),
}


def _past(event: Event, shape: RowShape) -> None:
    for key in shape.times[""]:
        # What another fault has already spoilt is left as it is, here and below.
        if isinstance(event[key], int):
            event[key] -= shape.hour


def _off_schema(event: Event, shape: RowShape) -> None:
    for key in shape.prices[""]:
        if key in event:
            event[key] = {"value": event[key]}


def _float(event: Event, _: RowShape) -> None:
    # As once of the vendor: 12.0 where a whole number was declared.
    for key, value in event.items():
        if isinstance(value, int):
            event[key] = raw(f"{value}.0")


_EVENT_CHANGES: Mapping[str, Callable[[Event, RowShape], None]] = {
    **{f"ws-{kind}": change for kind, change in ROW_CHANGES.items()},
    "ws-past": _past,
    "ws-off-schema": _off_schema,
    "ws-float": _float,
}


def ail(session: Session, faults: Faults) -> None:
    """Draw what ends or ails a connection, once a second from its first subscription on."""
    now = time.monotonic()
    if session.draws_at is None:
        session.draws_at = now + 1 if session.held else None
    elif now >= session.draws_at and not session.ended_by:
        session.draws_at = now + 1
        session.send([])
        for kind, act in _EACH_SECOND.items():
            if faults.holds(kind, session.path):
                act(session)


def spoiled(session: Session, faults: Faults, events: Sequence[Event], now_ms: int) -> list[Event]:
    """Return what goes out in the place of events that fall due now."""
    sent = session.revisions_until(now_ms)
    for event in events:
        channel = session.cluster.channel(event["ev"])
        assert channel is not None  # noqa: S101 - it made the event
        sent += _spoiled(session, faults, channel, event, now_ms)
    return sent


def _spoiled(session: Session, faults: Faults, channel: Channel, event: Event, now_ms: int) -> list[Event]:
    name = f"{channel.name}.{event[channel.symbol]}"

    def holds(kind: str) -> bool:
        return faults.holds(kind, session.path, name)

    before, session.last_of[name] = session.last_of.get(name), event
    if holds("ws-silent"):
        return []
    out = dict(event)
    shape = _shape(channel)
    for kind, change in _EVENT_CHANGES.items():
        if holds(kind):
            change(out, shape)
    sent = [out]
    if "s" in channel.fields and "o" in channel.fields and holds("ws-revised"):
        session.revisions.append((now_ms + REVISED_AFTER_MS, event))
        sent = [_provisional(out)]
    if holds("ws-duplicate"):
        sent.append(out)
    if before is not None and holds("ws-unordered"):
        sent.append(before)
    if holds("ws-unknown-event"):
        sent.insert(0, {"ev": "ZZ", "sym": event[channel.symbol]})
    return sent


def _provisional(event: Event) -> Event:
    # A minute that some late quotes and trades are not in yet.
    return event | {"c": event.get("o")} | {name: _half(event[name]) for name in ("v", "dv") if name in event}


def _half(volume: float | str) -> float | str:
    if isinstance(volume, str):
        return str(Decimal(volume) / 2) if volume.replace(".", "").isdigit() else volume
    return volume // 2 if isinstance(volume, int) else volume / 2


def _shape(channel: Channel) -> RowShape:
    prices = tuple(name for name, source in channel.fields.items() if source in _PRICES)
    return RowShape(channel.symbol, {"": prices}, {"": channel.times}, _HOUR_MS)
