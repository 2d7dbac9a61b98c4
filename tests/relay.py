"""A relay in front of PostgreSQL: it counts round trips, and cuts connections at the request that a test chooses."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What ends a request of the client's, and what the server ends its answer with.
SYNC, QUERY, READY = b"S", b"Q", b"Z"
# The same, and a password, and the end.
ENDS = (SYNC, QUERY, b"p", b"X")


class Where(Enum):
    """Where a connection is cut."""

    BEFORE = auto()
    """The server never hears of the request."""
    AFTER = auto()
    """The server has done what was asked, and its answer is lost."""
    BEHIND = auto()
    """The request is on its way, and nobody waits for the answer."""


class Relay:
    """Carries connections to the PostgreSQL that `conninfo` names.

    `cut` is told each request and its number, and may have the connection cut there. `round_trips` counts how often a
    client has spoken after the server had, connecting included: what it says at once is one, and takes `delay_seconds`.
    """

    def __init__(
        self,
        conninfo: str,
        cut: Callable[[int, bytes], Where | None] = lambda _number, _request: None,
        *,
        delay_seconds: float = 0.0,
    ) -> None:
        self._server = conninfo_to_dict(conninfo)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        whose = make_conninfo(user=self._server.get("user"), dbname=self._server["dbname"])
        self.conninfo = make_conninfo(whose, host=host, port=port, sslmode="disable", gssencmode="disable")
        self.cut = cut
        self.delay_seconds = delay_seconds
        self.requests: list[bytes] = []
        self.round_trips = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=_Link(self, client).carry, args=(self._connect(),), daemon=True).start()

    def _connect(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(f"{self._server['host']}/.s.PGSQL.{self._server.get('port', 5432)}")
        return server

    def count_round_trip(self) -> None:
        """Count that a client speaks after the server has."""
        with self._lock:
            self.round_trips += 1
        time.sleep(self.delay_seconds)

    def seen(self, request: bytes) -> Where | None:
        """Note a request; return where it is to be cut."""
        with self._lock:
            self.requests.append(request)
            return self.cut(len(self.requests), request)


class _Link:
    """One connection through the relay."""

    def __init__(self, relay: Relay, client: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._is_cut = False
        self._unanswered = 0
        self._changed = threading.Condition()

    def carry(self, server: socket.socket) -> None:
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._bring_answers, args=(server,), daemon=True).start()
        with self._client, server:
            with suppress(OSError):
                self._bring_requests(server)
            for one in (self._client, server):
                # Closing alone does not end it, as long as the other thread reads.
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _bring_requests(self, server: socket.socket) -> None:
        for request, is_whole in _requests(self._client):
            with self._changed:
                if not self._unanswered:
                    self._relay.count_round_trip()
                self._unanswered += 1
            where = self._relay.seen(request) if is_whole else None
            self._is_cut = where is not None
            if where is not Where.BEFORE:
                server.sendall(request)
            if where is Where.AFTER:
                with self._changed:
                    self._changed.wait_for(lambda: not self._unanswered, 10)
            if where is not None:
                return

    def _bring_answers(self, server: socket.socket) -> None:
        with suppress(OSError), server.makefile("rb") as stream:
            while header := stream.read(5):
                body = stream.read(_length(header[1:]))
                if header[:1] == READY:
                    self._answer()
                if not self._is_cut:
                    self._client.sendall(header + body)
        self._answer()
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)

    def _answer(self) -> None:
        with self._changed:
            self._unanswered = max(self._unanswered - 1, 0)
            self._changed.notify_all()


def _requests(client: socket.socket) -> Iterator[tuple[bytes, bool]]:
    """Read what a client sends, request by request; False: what comes before the first, or is no request."""
    with client.makefile("rb") as stream:
        size = stream.read(4)
        yield size + stream.read(_length(size)), False
        request = b""
        while header := stream.read(5):
            request += header + stream.read(_length(header[1:]))
            if header[:1] in ENDS:
                yield request, header[:1] in (SYNC, QUERY)
                request = b""


def _length(size: bytes) -> int:
    """Return how many bytes follow; the size counts itself."""
    return int(struct.unpack("!I", size)[0]) - 4
