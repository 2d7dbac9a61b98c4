"""One request in, one answer or one typed error out.

A request is bounded as a whole, in time and in size, whatever the server does: it runs in a thread of its own, and who
asked waits for it no longer than the time-out. Nothing is retried, followed or paged here: one call of the client is
one request, so that each takes its own slot of the budget.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from assetbatch import __version__
from assetbatch.errors import CallError, FailureKind
from assetbatch.provider import answers
from assetbatch.provider.addresses import target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from assetbatch.model import Call

MAX_ANSWER_BYTES = 64 * 2**20
READ_BYTES = 64 * 2**10


@dataclass(slots=True)
class _Flight:
    """One request on its way, seen by the thread that makes it and by the connection that carries it."""

    path: str
    deadline: float
    sent: bool = False


class _Flights(threading.local):
    """The flight of this thread: the connection finds it here, since requests hands nothing through."""

    current: _Flight | None = None


_flights = _Flights()


class Client:
    """Asks the vendor with one key. `wait(seconds, done)` waits for an event; it may raise to give up early."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        connect_timeout_seconds: float,
        timeout_seconds: float,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._connect_timeout_seconds = connect_timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
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
        (wait or threading.Event.wait)(done, self.request_seconds)
        if not done.is_set():
            self._session = None
            raise CallError(FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s", sent=flight.sent)
        result = landed.get()
        if isinstance(result, Exception):
            raise result
        return answers.quotes(call, result, now=now())

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
                allow_redirects=False,
                stream=True,
            ) as response:
                body = self._read(response, flight)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _transport_error(error, flight) from None
        if response.is_redirect or 300 <= response.status_code < 400:
            raise CallError(
                FailureKind.REDIRECTED,
                f"{self._base_url} answered with a redirect to {answers.text(response.headers.get('Location'))}",
                http_status=response.status_code,
                answered=True,
            )
        if response.status_code != 200:
            raise answers.refusal(
                response.status_code, _try_parse(body), retry_after_seconds=_retry_after(response.headers)
            )
        document = answers.parse(body)
        answers.check_status(document)
        return document

    def _read(self, response: requests.Response, flight: _Flight) -> bytearray:
        body = bytearray()
        while chunk := response.raw.read1(READ_BYTES, decode_content=True):
            body += chunk
            if len(body) > self._max_answer_bytes:
                raise CallError(
                    FailureKind.TOO_LARGE,
                    f"the answer is larger than {self._max_answer_bytes} bytes",
                    answered=True,
                )
            if time.monotonic() > flight.deadline:
                raise CallError(FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s")
        return body


def _try_parse(body: bytearray) -> object:
    try:
        return answers.parse(body)
    except CallError:
        return None


def _transport_error(error: Exception, flight: _Flight) -> CallError:
    """Say what went wrong on the way; whether the request had left is known from the connection itself."""
    import requests

    words = answers.text(_innermost(error))
    if isinstance(error, (requests.Timeout, TimeoutError)) and flight.sent:
        return CallError(FailureKind.TIMEOUT, "the server sent nothing in time")
    if not flight.sent:
        return CallError(FailureKind.UNREACHABLE, f"could not be reached: {words}", sent=False)
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return CallError(FailureKind.MALFORMED, "the answer could not be unpacked", answered=True)
    return CallError(FailureKind.SERVER_ERROR, f"the connection broke: {words}")


def _innermost(error: BaseException) -> str:
    """Find the words of the first cause: what the system said, without objects and URLs around it."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return str(error) or type(error).__name__
        error = inner


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds the server asks to wait; a date is held against the server's own clock, not this host's."""
    value = headers.get("Retry-After", "")
    try:
        return float(int(value))
    except ValueError:
        pass
    try:
        until, server_now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return (until.astimezone(UTC) - server_now.astimezone(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None


def _new_session(api_key: str) -> requests.Session:
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def send(connection: Any, send_bytes: Callable[[Any], None], data: Any) -> None:
        """Note that a request is about to leave, unless its time is over: then nobody waits for it any more."""
        flight = _flights.current
        if connection.sock is None:
            connection.connect()
        if flight is not None:
            if time.monotonic() > flight.deadline:
                raise TimeoutError("the time was over before the request left")
            flight.sent = True
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

    session = requests.Session()
    adapter = Adapter(max_retries=urllib3.Retry(0, redirect=False))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.auth = Bearer()
    session.headers.update(
        {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": f"assetbatch/{__version__}"}
    )
    return session
