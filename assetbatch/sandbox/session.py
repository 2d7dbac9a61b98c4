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

    from assetbatch.plans import Plan
    from assetbatch.sandbox.catalogue import Instrument
    from assetbatch.sandbox.clusters import Channel, Cluster, Source
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

_RAW_TOKEN = re.compile(rb'"\\u0000raw:([^"]*)"')


@dataclass
class Account:
    """Whose key it is, and what that gives; all of it may be changed at any time."""

    key: bytes = field(repr=False)
    plan: Callable[[], Plan]
    clusters: set[str]
    """What the plan is of. A key of currencies has none of stocks."""
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
    source: Source
    connection: ServerConnection
    account: Account
    admit: Callable[[Session], None]
    """Called once the key is good, before that is said."""
    events_per_frame: int
    opened_at: float = field(default_factory=time.monotonic)
    authenticated_at: float | None = None
    closed_at: float | None = None
    close_code: int | None = None
    """What the close frame said, 1006 without one; None as long as it is open."""
    ended_by: str = ""
    """What the server ended it for: a status, `drop`, `close`; empty when the client did."""
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
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def cluster(self) -> Cluster:
        """What it serves."""
        return self.source.cluster

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""
        return self.closed_at is None

    async def serve(self) -> None:
        """Greet, then answer what the client sends until one of the two ends it."""
        self.tell("connected", "Connected Successfully")
        loop = asyncio.get_running_loop()
        patience = loop.call_later(self.account.auth_seconds, self._lose_patience)
        try:
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
        """Send statuses and events, in as few frames as `events_per_frame` allows."""
        for begin in range(0, len(elements), self.events_per_frame):
            part = elements[begin : begin + self.events_per_frame]
            self.events += sum(element["ev"] != "status" for element in part)
            self.write(encoded(part))

    def write(self, text: str) -> None:
        """Send a text frame as it stands, without waiting for the client to read."""
        self.frames += 1
        broadcast((self.connection,), text)

    def drop(self, reason: str) -> None:
        """End it without a close frame, what was written before first."""
        self.ended_by = self.ended_by or reason
        self.connection.transport.close()

    def close(self, code: int, reason: str, message: str = "") -> None:
        """End it with a close frame, after a while whether the client answers that or not."""
        self.ended_by = self.ended_by or reason
        task = asyncio.ensure_future(self.connection.close(code, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # The library waits without an end for one that does not read.
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.connection.transport.abort)

    def refuse(self, status: str, message: str) -> None:
        """Say why, and end it without a close frame."""
        self.tell(status, message)
        self.drop(status)

    def expel(self, status: str, message: str) -> None:
        """Say why, and end it with a close frame."""
        self.tell(status, message)
        self.close(POLICY_VIOLATION, status)

    def _lose_patience(self) -> None:
        if self.authenticated_at is None:
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
            self.send(self._subscribe(names) if action == "subscribe" else self._unsubscribe(names))
            self._count_up()

    def _authenticate(self, key: str) -> None:
        if not hmac.compare_digest(key.encode(), self.account.key):
            self.refuse("auth_failed", WRONG_KEY)
        elif not self.account.plan().has_websocket or self.cluster.name not in self.account.clusters:
            self.refuse("auth_failed", NO_WEBSOCKET)
        else:
            self.authenticated_at = time.monotonic()
            self.admit(self)
            self.tell("auth_success", "authenticated")

    def _subscribe(self, names: Iterable[str]) -> list[Event]:
        # Each name that is held already, or of no channel, has no answer; one of an unknown pair is confirmed.
        answers = []
        for name in names:
            channel = self.cluster.channel(name.partition(".")[0])
            if channel is None or "." not in name or name in self.held:
                continue
            if channel.plans and self.account.plan().name not in channel.plans:
                answers.append(_status("error", "not authorized"))
                continue
            self.held[name] = channel
            answers.append(_status("success", f"subscribed to: {name}"))
        return answers

    def _unsubscribe(self, names: Iterable[str]) -> list[Event]:
        held = [name for name in names if self.held.pop(name, None)]
        return [_status("success", f"unsubscribed to: {name}") for name in held]

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
