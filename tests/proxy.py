"""A TCP proxy before PostgreSQL that cuts connections at a chosen request: before the server has it, or after that."""

from __future__ import annotations

import socket
import struct
import threading
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


class Cut(Enum):
    """Where a connection is cut."""

    BEFORE = auto()
    """The server never hears of the request."""
    AFTER = auto()
    """The server has done what was asked, and its answer is lost."""
    BEHIND = auto()
    """The request is on its way, and nobody waits for the answer."""


class Proxy:
    """Carries connections to a PostgreSQL. `cut` is told each request and its number, and may have it cut."""

    def __init__(self, conninfo: str) -> None:
        self._server = conninfo_to_dict(conninfo)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self.cut: Callable[[int, bytes], Cut | None] = lambda _number, _request: None
        self.is_open = True
        """Whether new connections are carried."""

    @property
    def conninfo(self) -> str:
        """How to connect through it."""
        host, port = self._listener.getsockname()
        user, name = self._server.get("user"), self._server["dbname"]
        return make_conninfo(host=host, port=port, user=user, dbname=name, sslmode="disable", gssencmode="disable")

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
                if self.is_open:
                    threading.Thread(target=self._carry, args=(client,), daemon=True).start()
                else:
                    client.close()

    def _connect(self) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(f"{self._server['host']}/.s.PGSQL.{self._server.get('port', 5432)}")
        return server

    def _carry(self, client: socket.socket) -> None:
        server = self._connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_cut, answered = threading.Event(), threading.Event()
        threading.Thread(target=_bring_answers, args=(server, client, is_cut, answered), daemon=True).start()
        with client, server:
            with suppress(OSError):
                self._bring_requests(client, server, is_cut, answered)
            for one in (client, server):
                # Closing alone does not end it, as long as the other thread reads.
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _bring_requests(
        self, client: socket.socket, server: socket.socket, is_cut: threading.Event, answered: threading.Event
    ) -> None:
        for request, is_whole in _requests(client):
            where = self._seen(request) if is_whole else None
            if where is not None:
                is_cut.set()
            answered.clear()
            if where is not Cut.BEFORE:
                server.sendall(request)
            if where is Cut.AFTER:
                answered.wait(10)
            if where is not None:
                return

    def _seen(self, request: bytes) -> Cut | None:
        with self._lock:
            self.requests.append(request)
            return self.cut(len(self.requests), request)


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


def _bring_answers(
    server: socket.socket, client: socket.socket, is_cut: threading.Event, answered: threading.Event
) -> None:
    with suppress(OSError), server.makefile("rb") as stream:
        while header := stream.read(5):
            body = stream.read(_length(header[1:]))
            if not is_cut.is_set():
                client.sendall(header + body)
            if header[:1] == READY:
                answered.set()
    answered.set()
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _length(size: bytes) -> int:
    """Return how many bytes follow; the size counts itself."""
    return int(struct.unpack("!I", size)[0]) - 4
