"""A client of the vendor's WebSocket for tests: what it sends and gets, one frame at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from assetbatch.sandbox.server import Sandbox

Event = dict[str, Any]
SECONDS = 30.0
BUSY = datetime(2026, 9, 3, 12, 0, 30, tzinfo=UTC)  # a Thursday


class Clock:
    """A clock that goes on from a moment, and can be set."""

    def __init__(self, begin: datetime = BUSY) -> None:
        self._lock = Lock()
        self.forwarded = 0.0
        """By how many seconds in all."""
        self.set(begin)

    def __call__(self) -> datetime:
        with self._lock:
            return datetime.now(UTC) + self._ahead

    def set(self, at: datetime) -> None:
        with self._lock:
            self._ahead = at - datetime.now(UTC)

    def forward(self, **by: float) -> None:
        with self._lock:
            self._ahead += timedelta(**by)
            self.forwarded += timedelta(**by).total_seconds()


class Client:
    """One connection. `events` are what came beside statuses, `statuses` all those, in order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[list[Event]] = []
        self.unread: list[Event] = []

    def send(self, action: str, params: str) -> None:
        self.connection.send(json.dumps({"action": action, "params": params}))

    def receive(self, seconds: float = SECONDS) -> list[Event]:
        """Return the next frame. TimeoutError when none comes."""
        frame: list[Event] = json.loads(self.connection.recv(timeout=seconds))
        self.frames.append(frame)
        return frame

    def until(self, wanted: Callable[[Event], bool], seconds: float = SECONDS) -> Event:
        """Return the first event that is wanted, now or out of a frame to come; those before it are passed over."""
        while True:
            while self.unread:
                event = self.unread.pop(0)
                if wanted(event):
                    return event
            self.unread += self.receive(seconds)

    def event(self, channel: str, seconds: float = SECONDS) -> Event:
        return self.until(lambda event: event["ev"] == channel, seconds)

    def status(self) -> tuple[str, str]:
        found = self.event("status")
        return found["status"], found["message"]

    def authenticate(self, key: str = "sandbox") -> None:
        assert self.status() == ("connected", "Connected Successfully")
        self.send("auth", key)
        assert self.status() == ("auth_success", "authenticated")

    def subscribe(self, *names: str) -> None:
        """Subscribe to names that are all confirmed."""
        self.send("subscribe", ",".join(names))
        for name in names:
            assert self.status() == ("success", f"subscribed to: {name}")

    def silent(self, seconds: float = 0.3) -> bool:
        """Return whether nothing comes for so long."""
        try:
            self.unread += self.receive(seconds)
        except TimeoutError:
            return True
        return False

    def end(self) -> tuple[int, str]:
        """Read until the connection ends; return its close code (1006: without a close frame) and reason."""
        try:
            while True:
                self.unread += self.receive()
        except ConnectionClosed as closed:
            return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


@contextmanager
def connected(sandbox: Sandbox, path: str = "/forex", **options: Any) -> Iterator[Client]:
    with connect(sandbox.stream.url + path, proxy=None, **options) as connection:
        yield Client(connection)


@contextmanager
def streaming(sandbox: Sandbox, *names: str, path: str = "/forex", **options: Any) -> Iterator[Client]:
    """Connect, authenticate and subscribe."""
    with connected(sandbox, path, **options) as client:
        client.authenticate()
        client.subscribe(*names)
        yield client
