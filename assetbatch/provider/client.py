"""One request in, one answer or one typed error out.

A request is bounded as a whole, in time and in size, whatever the server does: it runs in a thread of its own, and who
asked waits for it no longer than the time-out. Nothing is retried, followed or paged here: one call of the client is
one request, so that each takes its own slot of the budget.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from assetbatch import __version__
from assetbatch.errors import CallError, FailureKind
from assetbatch.provider import answers
from assetbatch.provider.addresses import SANDBOX_SOURCE, source_of, target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from assetbatch.model import Call

READ_BYTES = 64 * 2**10
# Of a refusal only its words are read.
MAX_REFUSAL_BYTES = 64 * 2**10


@dataclass(slots=True)
class _Flight:
    """One request on its way, seen by who asked, by the thread that makes it and by the connection that carries it."""

    path: str
    deadline: float
    sent: bool = False
    given_up: bool = False
    through: socket.socket | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def leave(self, through: socket.socket) -> None:
        """Note that the request leaves now. Raises TimeoutError when nobody waits for it any more."""
        with self.lock:
            if self.given_up or time.monotonic() > self.deadline:
                raise TimeoutError("the time was over before the request left")
            self.sent = True
            self.through = through

    def give_up(self) -> None:
        """Wait no longer: what has not left never leaves, so that `sent` is final, and what is under way is cut."""
        with self.lock:
            self.given_up = True
        if isinstance(self.through, socket.socket):
            # Wakes the thread, which an endless answer would keep busy; closing is left to it. TCP's own shutdown:
            # that of an SSLSocket takes the encryption away from under the thread.
            with suppress(OSError):
                socket.socket.shutdown(self.through, socket.SHUT_RDWR)


class _Flights(threading.local):
    """The flight of this thread: the connection finds it here, since requests hands nothing through."""

    current: _Flight | None = None


_flights = _Flights()


class Client:
    """Asks the vendor with one key."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        connect_timeout_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._connect_timeout_seconds = connect_timeout_seconds
        self._timeout_seconds = timeout_seconds
        # No proxy of the environment leads to this machine itself.
        local = source_of(base_url) == SANDBOX_SOURCE
        self._proxies = {"no_proxy": urlsplit(base_url).hostname or ""} if local else {}
        self._session: requests.Session | None = None

    @property
    def request_seconds(self) -> float:
        """The most that a request takes, from connecting to its last byte."""
        return self._connect_timeout_seconds + self._timeout_seconds

    def ask(
        self,
        call: Call,
        *,
        now: Callable[[], datetime],
        wait: Callable[[threading.Event, float], object] | None = None,
    ) -> answers.Answers:
        """Make a call and read its answer. Raises CallError.

        `now` is the time that prices are held against. `wait` waits for an event, for some seconds at most, in place of
        `Event.wait`; what it raises ends the waiting.
        """
        flight = _Flight(target(call), time.monotonic() + self.request_seconds)
        landed: queue.SimpleQueue[answers.Document | Exception] = queue.SimpleQueue()
        done = threading.Event()

        def fly() -> None:
            try:
                landed.put(self._fetch(flight))
            except Exception as error:  # noqa: BLE001 - carried to the thread that asked, and raised there
                landed.put(error)
            done.set()

        # A daemon: a server that drips must not keep the process from ending.
        threading.Thread(target=fly, name="request", daemon=True).start()
        try:
            (wait or threading.Event.wait)(done, self.request_seconds)
        finally:
            if not done.is_set():
                flight.give_up()
                self._session = None
        if flight.given_up:
            raise CallError(FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s", sent=flight.sent)
        result = landed.get()
        try:
            if isinstance(result, Exception):
                raise result
            found = answers.quotes(call, result, now=now())
        except CallError as error:
            error.reason = self._without_key(error.reason)
            error.args = (error.reason,)
            raise
        finally:
            # Else an error and this frame in its traceback hold each other, and with them the open connection.
            del result
        found.failures = {symbol: (kind, self._without_key(words)) for symbol, (kind, words) in found.failures.items()}
        return found

    def _without_key(self, words: str) -> str:
        """Blot out the key, should the server have repeated it: reasons are printed, logged and stored."""
        for written in (self._api_key, quote(self._api_key, safe="")):
            words = words.replace(written, "***")
        return words

    def _fetch(self, flight: _Flight) -> answers.Document:
        import requests
        import urllib3

        _flights.current = flight
        if self._session is None:
            self._session = _new_session(self._api_key)
        try:
            with self._session.get(
                self._base_url + flight.path,
                timeout=(self._connect_timeout_seconds, self._timeout_seconds),
                proxies=self._proxies,
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code != 200:
                    raise self._refusal(response, flight)
                body = self._read(response, flight, answers.MAX_BYTES)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _transport_error(error, flight) from None
        document = answers.parse(body)
        answers.check_status(document)
        return document

    def _refusal(self, response: requests.Response, flight: _Flight) -> CallError:
        """Read an answer that is none; its status says what it is, even where its body is cut, broken or endless."""
        import urllib3

        if 300 <= response.status_code < 400:
            location = response.headers.get("Location", "").partition("?")[0]
            return CallError(
                FailureKind.REDIRECTED,
                f"{self._base_url} answered with HTTP {response.status_code}, a redirect"
                f" to {answers.text(location) if location else 'nowhere'}",
                http_status=response.status_code,
                answered=True,
            )
        document = None
        with suppress(CallError, urllib3.exceptions.HTTPError, OSError):
            document = answers.parse(self._read(response, flight, MAX_REFUSAL_BYTES))
        return answers.refusal(response.status_code, document, retry_after_seconds=_retry_after(response.headers))

    def _read(self, response: requests.Response, flight: _Flight, max_bytes: int) -> bytearray:
        body = bytearray()
        while chunk := response.raw.read1(READ_BYTES, decode_content=True):
            body += chunk
            if len(body) > max_bytes:
                raise CallError(FailureKind.TOO_LARGE, f"the answer is larger than {max_bytes} bytes", answered=True)
            if time.monotonic() > flight.deadline:
                raise CallError(FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s")
        return body


def _transport_error(error: Exception, flight: _Flight) -> CallError:
    """Say what went wrong on the way; whether the request had left is known from the connection itself."""
    import requests
    from urllib3.exceptions import DecodeError
    from urllib3.exceptions import TimeoutError as StalledError

    words = answers.text(_innermost(error))
    if not flight.sent:
        return CallError(FailureKind.UNREACHABLE, f"could not be reached: {words}", sent=False)
    if isinstance(error, (requests.Timeout, StalledError, TimeoutError)):
        return CallError(FailureKind.TIMEOUT, "the server sent nothing in time")
    if isinstance(error, DecodeError):
        return CallError(FailureKind.MALFORMED, "the answer could not be unpacked", answered=True)
    return CallError(FailureKind.SERVER_ERROR, f"the connection broke: {words}")


def _innermost(error: BaseException) -> str:
    """Find the words of the first cause: what the system said, without objects and URLs around it."""
    while True:
        inside = (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args)
        inner = next((cause for cause in inside if isinstance(cause, BaseException)), None)
        if inner is None:
            return str(error) or type(error).__name__
        error = inner


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds the server asks to wait; a date is held against the server's own clock, not this host's."""
    value = headers.get("Retry-After", "")
    try:
        if value.isdecimal():
            return float(value)
        until, server_now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return (until.astimezone(UTC) - server_now.astimezone(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _new_session(api_key: str) -> requests.Session:
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def send(connection: Any, send_bytes: Callable[[Any], None], data: Any) -> None:
        """Tell the flight that its request is about to leave; the greeting of a proxy (CONNECT) is none yet."""
        flight = _flights.current
        if connection.sock is None:
            connection.connect()
        if flight is not None and not bytes(data).startswith(b"CONNECT "):
            flight.leave(connection.sock)
        send_bytes(data)

    class Plain(HTTPConnection):
        def send(self, data: Any) -> None:
            send(self, super().send, data)

    class Encrypted(HTTPSConnection):
        def send(self, data: Any) -> None:
            send(self, super().send, data)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    class Bearer(requests.auth.AuthBase):
        """An auth object, since without one requests looks into ~/.netrc and may replace the header."""

        def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {api_key}"
            return request

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            """See no redirect: even one that is not followed, requests would read whole, bomb or not."""

    session = Session()
    adapter = Adapter(max_retries=urllib3.Retry(0, read=False, redirect=False))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = Bearer()
    session.headers.update(
        {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": f"assetbatch/{__version__}"}
    )
    return session
