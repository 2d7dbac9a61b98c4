"""A relay in front of PostgreSQL: it counts round trips, and cuts connections where a test wants it to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1 << 16


class Relay:
    """Listens on a port of its own, and passes on what comes to the server that `conninfo` names.

    `round_trips` counts how often a client has spoken after the server had: what it says at once is one. `cut` is asked
    with that number before a client's words are passed on, and after the server's answer to them, and says whether the
    connection ends there; the client does not hear the answer then.
    """

    def __init__(self, conninfo: str, cut: Callable[[int, bool], bool] = lambda _number, _answered: False) -> None:
        server = conninfo_to_dict(conninfo)
        self._server = f"{server['host']}/.s.PGSQL.{server.get('port', 5432)}"
        self.cut = cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = (
            f"postgresql://{server['user']}@127.0.0.1:{port}/{server['dbname']}?sslmode=disable&gssencmode=disable"
        )
        self.round_trips = 0
        self.connections = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self.connections += 1
                self._open += [client, server]
                _Link(self, client, server).start()

    def spoken(self, link: _Link) -> bool:
        """Count what a client says; return whether the connection ends before the server hears it."""
        with self._lock:
            if not link.speaks:
                link.speaks = True
                self.round_trips += 1
                link.number = self.round_trips
            return self.cut(link.number, False)

    def answered(self, link: _Link) -> bool:
        """Return whether the connection ends before the client hears what the server says."""
        with self._lock:
            link.speaks = False
            return self.cut(link.number, True)


class _Link:
    """One connection through the relay."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self.speaks = False
        self.number = 0

    def start(self) -> None:
        for source, target, ends in (
            (self._client, self._server, self._relay.spoken),
            (self._server, self._client, self._relay.answered),
        ):
            threading.Thread(target=self._pass_on, args=(source, target, ends), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, ends: Callable[[_Link], bool]) -> None:
        with suppress(OSError):
            while data := source.recv(SIZE):
                if ends(self):
                    break
                target.sendall(data)
        for one in (self._client, self._server):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
