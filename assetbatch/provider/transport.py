"""HTTP over `requests`, told what it must not do: retry, follow, look for other credentials, send what nobody awaits.

Owns the imports of requests and urllib3; the client imports it when the first request goes out.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from assetbatch import __version__
from assetbatch.failures import CallError, FailureKind
from assetbatch.provider import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.provider.flight import Flight

ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class _Flights(threading.local):
    """The flight of this thread: the connection finds it here, since requests hands nothing through."""

    current: Flight | None = None


flights = _Flights()


def new_session(api_key: str, *, delivery_seconds: float) -> requests.Session:
    """Make a session that sends `api_key` in the header, and each request once.

    What the system could not deliver within `delivery_seconds` it drops, also of a process that was killed or frozen.
    """
    session = _Session()
    adapter = _Adapter(delivery_seconds)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = _Bearer(api_key)
    session.headers.update(
        {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": f"assetbatch/{__version__}"}
    )
    return session


def call_error(error: Exception, flight: Flight, host: str) -> CallError:
    """Say what went wrong on the way to `host`; whether the request had left is known from the connection itself."""
    words = answers.text(_innermost(error))
    if not flight.sent:
        return unreachable(host, words)
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return CallError(FailureKind.TIMEOUT, "the server sent nothing in time")
    if isinstance(error, urllib3.exceptions.DecodeError):
        return CallError(FailureKind.MALFORMED, "the answer could not be unpacked", answered=True)
    return CallError(FailureKind.SERVER_ERROR, f"the connection broke: {words}")


def unreachable(host: str, words: str) -> CallError:
    """Say that no request reached `host`, by its name and port as they are configured."""
    return CallError(FailureKind.UNREACHABLE, f"{host} could not be reached: {words}", sent=False)


def _innermost(error: BaseException) -> str:
    """Find the words of the first cause: what the system said, without objects and URLs around it."""
    while True:
        inside = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
        inner = next((cause for cause in inside if isinstance(cause, BaseException)), None)
        if inner is None:
            return str(error) or type(error).__name__
        error = inner


def _send(connection: Any, send_bytes: Callable[[Any], None], data: Any) -> None:
    """Tell the flight that its request is about to leave; the greeting of a proxy (CONNECT) is none yet."""
    flight = flights.current
    if connection.sock is None:
        connection.connect()
    if flight is not None and not bytes(data).startswith(b"CONNECT "):
        flight.leave(connection.sock)
    send_bytes(data)


class _Plain(HTTPConnection):
    def send(self, data: Any) -> None:
        _send(self, super().send, data)


class _Encrypted(HTTPSConnection):
    def send(self, data: Any) -> None:
        _send(self, super().send, data)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted


class _Adapter(HTTPAdapter):
    """Makes connections that look at the flight before they send, straight to the server or through a proxy."""

    def __init__(self, delivery_seconds: float) -> None:
        user_timeout = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(delivery_seconds * 1000)))
        self._socket_options = [*HTTPConnection.default_socket_options, user_timeout]
        super().__init__(max_retries=urllib3.Retry(0, read=False, redirect=False))

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, socket_options=self._socket_options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _EncryptedPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):
            raise requests.exceptions.InvalidProxyURL("a SOCKS proxy is not supported")  # its connections are its own
        manager = super().proxy_manager_for(proxy, **kwargs, socket_options=self._socket_options)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


class _Bearer(requests.auth.AuthBase):
    """An auth object, since without one requests looks into ~/.netrc and may replace the header."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """See no redirect: even one that is not followed, requests would read whole, bomb or not."""
