"""HTTP/1.1 on a socket: a thread a connection, one write an answer, and the ways of answering badly."""

from __future__ import annotations

import logging
import socket
import socketserver
import struct
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from assetbatch.sandbox.bodies import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from assetbatch.sandbox.bodies import Answer

_log = logging.getLogger(__name__)

IDLE_SECONDS = 75
BACKLOG = 512
_DRIP_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_WORTH_PACKING_BYTES = 1_024


def packed(answer: Answer, accepted: str) -> Answer:
    """Pack the answer as gzip where the client takes that and it is worth it, as the vendor sends it."""
    if "gzip" not in accepted or len(answer.body) < _WORTH_PACKING_BYTES or answer.headers:
        return answer
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    body = packer.compress(answer.body) + packer.flush()
    return replace(answer, body=body, headers=(("Content-Encoding", "gzip"),))


class _Handler(BaseHTTPRequestHandler):
    """One connection: each request on it is answered as its server says."""

    protocol_version = "HTTP/1.1"
    server_version = "nginx"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    connection: socket.socket
    server: Server

    def do_GET(self) -> None:
        answer = self.server.respond(self.command, self.path, self.headers.get("Authorization"))
        self._send(packed(answer, self.headers.get("Accept-Encoding") or ""))

    def do_POST(self) -> None:
        # Its body is not read, so the connection cannot go on.
        self.close_connection = True
        self.do_GET()

    do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing: a request is in `arrivals`, its headers nowhere."""

    def _send(self, answer: Answer) -> None:
        if answer.delivery is Delivery.SILENT:
            self._hang()
            return
        head = self._head(answer)
        match answer.delivery:
            case Delivery.DRIP:
                self.connection.sendall(head)
                self._drip(answer.body)
            case Delivery.DRIP_HEADERS:
                self._drip(head + answer.body)
            case Delivery.RESET:
                self.connection.sendall(head + answer.body[: len(answer.body) // 2])
                self._tear_down()
            case _:
                self.connection.sendall(head + answer.body)

    def _head(self, answer: Answer) -> bytes:
        reason = self.responses.get(answer.status, ("",))[0]
        fields = {
            "Server": self.server_version,
            "Date": self.date_time_string(),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "X-Request-Id": answer.request_id,
            "Strict-Transport-Security": "max-age=15724800; includeSubDomains",
            "Connection": "close" if self.close_connection else "keep-alive",
            **dict(answer.headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{self.protocol_version} {answer.status} {reason}\r\n{lines}\r\n".encode("latin-1")

    def _drip(self, text: bytes) -> None:
        for place in range(len(text)):
            if self.server.stopping.wait(_DRIP_SECONDS):
                self.close_connection = True
                return
            self.connection.sendall(text[place : place + 1])

    def _hang(self) -> None:
        # Until the server stops or the client has gone: a thread for every client that gave up would add up.
        self.close_connection = True
        self.connection.settimeout(0)
        while not self.server.stopping.wait(_LOOK_SECONDS):
            try:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    return
            except BlockingIOError:
                continue

    def _tear_down(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Server(ThreadingHTTPServer):
    """Listens on host and port (0: any free one) once it is made, and accepts when it serves.

    `respond(method, target, authorization)` makes each answer. When `stopping` is set, answers under way are given up;
    `server_close()` then ends every connection. Raises OSError when the address cannot be had.
    """

    request_queue_size = BACKLOG
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, host: str, port: int, respond: Callable[[str, str, str | None], Answer], stopping: Event
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.respond = respond
        self.stopping = stopping
        self._host = host
        self._open: set[socket.socket] = set()
        self._lock = Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Take the address; unlike HTTPServer, look no name up in the DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self._host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, and remember that it is open."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection that is done with."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, and end every connection."""
        super().server_close()
        with self._lock:
            for connection in self._open:
                # Wakes the thread that waits on it; closing is left to that thread.
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what went wrong here; a client that has gone is no news."""
        if not isinstance(sys.exception(), OSError):
            _log.error("the sandbox failed to answer", exc_info=True)
