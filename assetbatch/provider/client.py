"""One request in, one answer or one typed error out.

A request is bounded as a whole, in time and in size, whatever the server does: it runs in a thread of its own, and who
asked waits for it no longer than the time-out. Nothing is retried, followed or paged here: one call of the client is
one request, so that each takes its own slot of the budget.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote, urlsplit

from msgspec import Struct, field

from assetbatch import threads
from assetbatch.errors import NoThreadError
from assetbatch.failures import CallError, FailureKind
from assetbatch.provider import answers, documents
from assetbatch.provider.addresses import SANDBOX_SOURCE, source_of
from assetbatch.provider.flight import Flight, HeldUpError
from assetbatch.provider.results import Answers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from assetbatch.provider.request import Request

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)

READ_BYTES = 64 * 2**10
# Of a refusal only its words are read.
MAX_REFUSAL_BYTES = 64 * 2**10


def get_ready() -> None:
    """Begin to import what requests need, while whoever called this waits for something else.

    Where no thread is to be had, it is imported when a client warms up.
    """
    with suppress(NoThreadError):
        threads.begin(lambda: import_module("assetbatch.provider.transport"), name="imports")


class Asked(Struct, Generic[A_co], frozen=True):
    """A request under way."""

    request: Request[A_co]
    flight: Flight
    landed: queue.SimpleQueue[Callable[[datetime], A_co] | Exception] = field(default_factory=queue.SimpleQueue)

    @property
    def has_landed(self) -> bool:
        """Whether its answer, or its failure, is there."""
        return not self.landed.empty()


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
        self._host = urlsplit(base_url).netloc.rpartition("@")[2]
        self._api_key = api_key
        self._connect_timeout_seconds = connect_timeout_seconds
        self._timeout_seconds = timeout_seconds
        # No proxy of the environment leads to this machine itself.
        local = source_of(base_url) == SANDBOX_SOURCE
        self._proxies = {"no_proxy": urlsplit(base_url).hostname or ""} if local else {}
        self._session: requests.Session | None = None
        self._was_late = False

    @property
    def request_seconds(self) -> float:
        """The most that a request takes, from connecting to its last byte."""
        return self._connect_timeout_seconds + self._timeout_seconds

    def warm_up(self) -> None:
        """Import what a request needs, so that the first one does not hold its slot for that, too."""
        from assetbatch.provider import transport

        self._session = transport.new_session(self._api_key, delivery_seconds=self._timeout_seconds)

    def begin(
        self,
        request: Request[A],
        done: Callable[[], object],
        *,
        leave_by: float = math.inf,
        after_seconds: float = 0.0,
        brake: threading.Event | None = None,
    ) -> Asked[A]:
        """Send a request, after so many seconds; `done` is called, in another thread, when its answer is there.

        Where no thread can be started, that is how it failed.

        Past `leave_by` (`boot_time()`) it does not leave, nor once `brake` is set, which it sets itself when it is
        refused as one too many. A client has one call under way at a time: `finish` ends it.
        """
        seconds = after_seconds + self.request_seconds
        asked = Asked(request, Flight(request.path, seconds, leave_by, brake or threading.Event()))

        def fly() -> None:
            time.sleep(after_seconds)
            try:
                if asked.flight.is_late:
                    raise HeldUpError
                if not asked.flight.given_up:
                    asked.landed.put(self._fetch(asked))
            except Exception as error:  # noqa: BLE001 - carried to the thread that asked, and raised there
                if isinstance(error, CallError) and error.kind is FailureKind.RATE_LIMITED:
                    asked.flight.brake.set()
                asked.landed.put(error)
            done()

        # A daemon: a server that drips must not keep the process from ending.
        thread = threading.Thread(target=fly, name="request", daemon=True)
        try:
            threads.start(thread)
        except NoThreadError as error:
            asked.landed.put(CallError(FailureKind.NO_THREAD, error.reason, sent=False))
            done()
        return asked

    def give_up(self, asked: Asked[object]) -> None:
        """Wait no longer: what has not left never leaves."""
        asked.flight.give_up()
        self._session = None

    def finish(self, asked: Asked[A], *, now: datetime) -> A:
        """Read the answer of a call; one that is not there yet is given up. Raises CallError, HeldUpError."""
        if not asked.has_landed:
            self.give_up(asked)
            if not asked.flight.sent and asked.flight.is_late:
                raise self._late(asked.flight)
            raise CallError(
                FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s", sent=asked.flight.sent
            )
        result = asked.landed.get()
        try:
            if isinstance(result, Exception):
                raise result
            found = result(now)
        except CallError as error:
            error.reason = self._without_key(error.reason)
            error.args = (error.reason,)
            raise
        finally:
            # Else an error and this frame in its traceback hold each other, and with them the open connection.
            del result
        if isinstance(found, Answers):
            failures = found.failures.items()
            found.failures = {symbol: (kind, self._without_key(words)) for symbol, (kind, words) in failures}
        return found

    def _late(self, flight: Flight) -> Exception:
        """Return what a request failed of that had no time left to leave once it was connected, or was not by then.

        Its process may have been frozen meanwhile, which is nobody's fault; twice in a row it is the network's.
        """
        if flight.brake.is_set():
            return HeldUpError()
        if not self._was_late:
            self._was_late = True
            return HeldUpError()
        from assetbatch.provider.transport import unreachable

        return unreachable(self._host, "connecting takes too long")

    def _without_key(self, words: str) -> str:
        """Blot out the key, should the server have repeated it: reasons are printed, logged and stored."""
        for written in (self._api_key, quote(self._api_key, safe="")):
            words = words.replace(written, "***")
        return words

    def _fetch(self, asked: Asked[A]) -> Callable[[datetime], A]:
        from assetbatch.provider import transport

        flight = asked.flight
        transport.flights.current = flight
        if self._session is None:
            self.warm_up()
            assert self._session is not None  # noqa: S101 - just made
        try:
            with self._session.get(
                self._base_url + flight.path,
                timeout=(self._connect_timeout_seconds, self._timeout_seconds),
                proxies=self._proxies,
                allow_redirects=False,
                stream=True,
            ) as response:
                self._was_late = False
                if response.status_code != 200:
                    raise self._refusal(response, asked)
                body = self._read(response, flight, documents.MAX_BYTES)
                return asked.request.parse(body, retry_after_seconds=_retry_after(response.headers))
        except HeldUpError:
            raise self._late(flight) from None
        except transport.ERRORS as error:
            raise transport.call_error(error, flight, self._host) from None

    def _refusal(self, response: requests.Response, asked: Asked[object]) -> CallError:
        """Read an answer that is none; its status says what it is, even where its body is cut, broken or endless."""
        from assetbatch.provider import transport

        if 300 <= response.status_code < 400:
            location = response.headers.get("Location", "").partition("?")[0]
            return CallError(
                FailureKind.REDIRECTED,
                f"{self._base_url} answered with HTTP {response.status_code}, a redirect"
                f" to {answers.text(location) if location else 'nowhere'}",
                http_status=response.status_code,
                answered=True,
            )
        document, call = None, asked.request.call
        with suppress(CallError, *transport.ERRORS):
            document = documents.parse(self._read(response, asked.flight, MAX_REFUSAL_BYTES))
        return answers.refusal(
            response.status_code,
            document,
            several=len(call.assets) > 1 and call.day is None,
            retry_after_seconds=_retry_after(response.headers),
        )

    def _read(self, response: requests.Response, flight: Flight, max_bytes: int) -> bytearray:
        body = bytearray()
        while chunk := response.raw.read1(READ_BYTES, decode_content=True):
            body += chunk
            if len(body) > max_bytes:
                raise CallError(FailureKind.TOO_LARGE, f"the answer is larger than {max_bytes} bytes", answered=True)
            if flight.is_over:
                raise CallError(FailureKind.TIMEOUT, f"no whole answer within {self.request_seconds:g} s")
        return body


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
