"""One connection of the stream: what the client has asked for, and how the vendor answers that."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed

from assetbatch.sandbox import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from websockets.asyncio.server import ServerConnection

    from assetbatch.model import AssetType
    from assetbatch.plans import Plan
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.clusters import Channel, Cluster
    from assetbatch.sandbox.feed import Event

WRONG_KEY = "authentication failed"
NO_WEBSOCKET = "Your plan doesn't include websocket access. Visit https://massive.com/pricing to upgrade."
NO_REQUEST = "No authentication request received."
TOO_MANY = (
    "Maximum number of websocket connections exceeded. You have reached the connection limit for your account. "
    "Please contact support at https://massive.com/contact to increase your limit."
)
TOO_SLOW = "Your connection reads too slowly."
"""The vendor's own words for it are unknown."""
POLICY_VIOLATION = 1008
CLOSE_SECONDS = 1.0
SLOW_SECONDS = 2.0
PADDING_BYTES = 2 * 1024 * 1024

_RAW_TOKEN = re.compile(rb'"\\u0000raw:([^"]*)"')


@dataclass
class Account:
    """Whose key it is, and what that gives; all of it may be changed at any time."""

    key: bytes = field(repr=False)
    plan: Callable[[AssetType], Plan]
    """A key of currencies is free for stocks."""
    connections: int = 1
    """How many it may have open at once for a cluster, whatever the feed."""
    auth_seconds: float = 10.0
    """How long a connection may stand without a key. The vendor's own figure is unknown."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client sent: when (`time.monotonic()`), which action, and with what; a key is masked."""

    at: float
    action: str
    params: str


@dataclass(eq=False, repr=False)
class Session:
    """One connection, also after its end. Times are `time.monotonic()`; the event loop alone changes it."""

    path: str
    cluster: Cluster
    connection: ServerConnection
    account: Account
    admit: Callable[[Session], None]
    """Called once the key is good, before that is said."""
    holds: Callable[..., bool]
    """Whether the misbehaviour of this name is to be seen, in what is named after it."""
    events_per_frame: int
    authenticated_at: float | None = None
    closed_at: float | None = None
    close_code: int | None = None
    """What the close frame said, 1006 without one; None as long as it is open."""
    ended_by: str = ""
    """What the server ended it for: a status, `drop`, `close`, `stop`; empty when the client did."""
    asked: list[Asked] = field(default_factory=list)
    held: dict[str, Channel] = field(default_factory=dict)
    """The subscriptions that were confirmed, as they were asked for."""
    frames: int = 0
    events: int = 0
    """How many were sent, statuses left out."""
    fed_until_ms: int = 0
    """Up to when, by the sandbox's clock, events were sent."""
    wanted: list[tuple[Channel, Instrument]] = field(default_factory=list)
    """What the subscriptions come to, each once."""
    last_of: dict[str, Event] = field(default_factory=dict)
    """By subscription, the newest event; where events are to go wrong."""
    revisions: list[tuple[int, Event]] = field(default_factory=list)
    """What is to be sent again, and when by the sandbox's clock."""
    is_mute: bool = False
    late_seconds: float = 0.0
    """How long each frame is on its way."""
    draws_at: float | None = None
    """When it is drawn next what ends or ails the connection."""
    _mixes: bool = False
    _waiting: list[Event] = field(default_factory=list)
    _pads: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def plan(self) -> Plan:
        """What the key has of what it serves."""
        return self.account.plan(self.cluster.asset_type)

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""
        return self.closed_at is None

    async def serve(self) -> None:
        """Greet, then answer what the client sends until one of the two ends it."""
        self._mixes = self.holds("ws-mixed")
        self.is_mute = self.holds("ws-mute-connected")
        self.late_seconds = SLOW_SECONDS if self.holds("ws-slow") else 0.0
        self.tell("connected", "Connected Successfully")
        patience = asyncio.get_running_loop().call_later(self.account.auth_seconds, self._lose_patience)
        try:
            if self.holds("ws-auth-timeout"):
                self._lose_patience()
            async for message in self.connection:
                self._answer(message)
        except ConnectionClosed:
            return
        finally:
            patience.cancel()

    def closed(self) -> None:
        """Note that the connection is gone."""
        self.closed_at = time.monotonic()
        self.close_code = self.connection.close_code

    def tell(self, status: str, message: str) -> None:
        """Send one status."""
        self.send([_status(status, message)])

    def send(self, elements: Sequence[Event]) -> None:
        """Send statuses and events, in as few frames as `events_per_frame` allows; statuses that wait come first."""
        elements, self._waiting = [*self._waiting, *elements], []
        for begin in range(0, len(elements), self.events_per_frame):
            part = elements[begin : begin + self.events_per_frame]
            text = encoded(part)
            if self._pads:
                text, self._pads = text[:-1] + " " * PADDING_BYTES + "]", False
            self.events += sum(element["ev"] != "status" for element in part)
            self.write(text)

    def write(self, text: str) -> None:
        """Send a text frame as it stands, without waiting for the client to read."""
        if not self.is_mute:
            self.frames += 1
            self._in_time(lambda: broadcast((self.connection,), text))

    def drop(self, reason: str) -> None:
        """End it without a close frame, what was written before first."""
        self.ended_by = self.ended_by or reason
        self._in_time(self.connection.transport.close)

    def close(self, code: int, reason: str, message: str = "") -> None:
        """End it with a close frame, after a while whether the client answers that or not."""
        self.ended_by = self.ended_by or reason
        self._in_time(lambda: self._close(code, message))

    def mute(self) -> None:
        """Send nothing any more; what the client sends is read."""
        self.is_mute = True

    def play_dead(self) -> None:
        """Neither send nor read anything any more: not even a ping is answered."""
        self.mute()
        self.connection.transport.pause_reading()

    def pad_next(self) -> None:
        """Let the next frame have more than two mebibytes, nearly all of them spaces."""
        self._pads = True

    def revisions_until(self, now_ms: int) -> list[Event]:
        """Return what is to be sent again by now, and forget it."""
        due = [event for at_ms, event in self.revisions if at_ms <= now_ms]
        self.revisions = [(at_ms, event) for at_ms, event in self.revisions if at_ms > now_ms]
        return due

    def refuse(self, status: str, message: str) -> None:
        """Say why, and end it without a close frame."""
        self.tell(status, message)
        self.drop(status)

    def expel(self, status: str, message: str) -> None:
        """Say why, and end it with a close frame."""
        self.tell(status, message)
        self.close(POLICY_VIOLATION, status)

    def _in_time(self, act: Callable[[], None]) -> None:
        if self.late_seconds:
            asyncio.get_running_loop().call_later(self.late_seconds, act)
        else:
            act()

    def _close(self, code: int, message: str) -> None:
        task = asyncio.ensure_future(self.connection.close(code, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # The library waits without an end for one that does not read.
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.connection.transport.abort)

    def _lose_patience(self) -> None:
        if self.authenticated_at is None and not self.is_mute:
            self.refuse("auth_timeout", NO_REQUEST)

    def _answer(self, message: str | bytes) -> None:
        try:
            request = msgspec.json.decode(message, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            # What the vendor says to it is not known: nothing.
            return
        action, params = str(request.get("action")), str(request.get("params", ""))
        self.asked.append(Asked(time.monotonic(), action, "***" if action == "auth" else params))
        if action == "auth" and self.authenticated_at is None:
            self._authenticate(params)
        elif action in {"subscribe", "unsubscribe"} and self.authenticated_at is not None:
            names = list(dict.fromkeys(params.split(",")))
            if action == "subscribe":
                self._subscribe(names)
            else:
                self._unsubscribe(names)
            self._count_up()

    def _authenticate(self, key: str) -> None:
        self.is_mute = self.is_mute or self.holds("ws-mute-auth")
        if self.is_mute:
            return
        if self.holds("ws-auth-failed") or not hmac.compare_digest(key.encode(), self.account.key):
            self.refuse("auth_failed", WRONG_KEY)
        elif self.holds("ws-no-plan") or not self.plan.has_websocket:
            self.refuse("auth_failed", NO_WEBSOCKET)
        else:
            self.authenticated_at = time.monotonic()
            self.admit(self)
            self.tell("auth_success", "authenticated")

    def _subscribe(self, names: Iterable[str]) -> None:
        # Each name that is held already, or of no channel, has no answer; one of an unknown pair is confirmed.
        self.is_mute = self.is_mute or self.holds("ws-mute-subscribe")
        answers = []
        for name in names:
            channel = self.cluster.channel(name.partition(".")[0])
            if channel is None or "." not in name or name in self.held or self.holds("ws-no-answer", name):
                continue
            lacks = channel.plans and self.plan.name not in channel.plans
            if lacks or self.holds("ws-not-authorized", name):
                answers.append(_status("error", "not authorized"))
                continue
            self.held[name] = channel
            answers.append(_status("success", f"subscribed to: {name}"))
        if self._mixes:
            self._waiting += answers
        else:
            self.send(answers)
        if self.holds("ws-max-connections"):
            self.expel("max_connections", TOO_MANY)

    def _unsubscribe(self, names: Iterable[str]) -> None:
        held = [name for name in names if self.held.pop(name, None)]
        self.send([_status("success", f"unsubscribed to: {name}") for name in held])

    def _count_up(self) -> None:
        found = {
            (channel, instrument): None
            for name, channel in self.held.items()
            for instrument in feed.instruments(self.cluster, name.partition(".")[2])
        }
        self.wanted = list(found)


def encoded(elements: Sequence[Event]) -> str:
    """Write a frame: a JSON array; what `bodies.raw` marked stands in it as it is."""
    text = msgspec.json.encode(elements)
    return (_RAW_TOKEN.sub(rb"\1", text) if rb"\u0000raw:" in text else text).decode()


def _status(status: str, message: str) -> Event:
    return {"ev": "status", "status": status, "message": message}
