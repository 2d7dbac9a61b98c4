"""The WebSocket of one cluster: made, and made anew, in a thread of its own that fills the cluster's book.

The key goes out in a frame, so no frame that goes out is ever written down, at whatever level of the log.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect
from websockets.uri import parse_uri

from assetbatch import __version__, market_hours, threads
from assetbatch.provider.addresses import SANDBOX_SOURCE, source_of
from assetbatch.provider.answers import text
from assetbatch.provider.massive import websocket
from assetbatch.provider.stream import Word
from assetbatch.stream.pacing import Cause, Ending, Pacing
from assetbatch.stream.session import EndedError, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from websockets.sync.client import ClientConnection

    from assetbatch.jobs.clock import Clock
    from assetbatch.markets import Market
    from assetbatch.provider.massive.websocket import Cluster
    from assetbatch.provider.stream import Frame
    from assetbatch.stream.book import Book

log = logging.getLogger(__name__)
# The library's own: at DEBUG it would write frames down.
_quiet = logging.getLogger("assetbatch.stream.frames")
_quiet.setLevel(logging.CRITICAL)

OPEN_SECONDS = 10.0
PING_SECONDS = 20.0
CLOSE_SECONDS = 0.5
# Data that is pushed may come in one frame with all that is subscribed to.
MOST_BYTES = 16 * 2**20
# Frames of one event each come by thousands a second: the fewer wait, the more often two threads take turns.
MOST_FRAMES = 128
SILENT_SECONDS = 30.0
# Stocks that are seldom traded are silent for longer: each connection that brought nothing at all waits twice as long
# as the one before, up to so many times.
MOST_PATIENCE = 16
# How often to look whether the connection is to end.
TICK_SECONDS = 0.2


class State(Struct, frozen=True):
    """How a feed is doing. `word` is as the column `streams.state` says; it is live `since` that time (aware UTC).

    What came between `lost_at` and then is missing, None: nothing is. `confirmed` and `unconfirmed` are names, the
    latter with the reason; `ending` is how the connection before ended.
    """

    word: str = "connecting"
    since: datetime | None = None
    lost_at: datetime | None = None
    confirmed: frozenset[str] = frozenset()
    unconfirmed: tuple[tuple[str, str], ...] = ()
    ending: Ending | None = None
    connects: int = 0


class Feed:
    """The connections of one cluster, one after another, until it is halted.

    `names` are what to subscribe to, `CHANNEL.NAME`; `markets` those at whose hours its assets trade; `lost_at` is
    since when something may be missing, and `before` how the feed before this one was doing, whose pause goes on. No
    connection is made while it may not; `stop`, as `halt`, ends it.
    """

    def __init__(
        self,
        cluster: Cluster,
        url: str,
        *,
        key: str,
        names: Sequence[str],
        markets: Collection[Market],
        book: Book,
        clock: Clock,
        pacing: Pacing,
        stop: threading.Event,
        may_connect: Callable[[], bool] = lambda: True,
        lost_at: datetime | None = None,
        before: State | None = None,
    ) -> None:
        self._cluster = cluster
        self._url = url
        self._key = key
        self._names = names
        self._markets = markets
        self._book = book
        self._clock = clock
        self._pacing = pacing
        self._may_connect = may_connect
        self._stop = stop
        self._halt = threading.Event()
        # Each of these is written by one thread alone.
        self.state = State(lost_at=lost_at)
        if before is not None and before.since is None:
            self.state = replace(self.state, word=before.word, ending=before.ending)
        """How it is doing now."""
        self.heard_at = lost_at
        """When it last heard of the vendor; None: never."""
        self.made_up_since: datetime | None = None
        """The `since` of the connection before which nothing is missing any more, set by who has seen to that."""
        self.error: Exception | None = None
        """What nobody foresaw, and has ended it."""
        self._events = 0
        self._patience = 1
        self._thread = threading.Thread(target=self._run, name=f"stream {cluster.asset_type}", daemon=True)

    def start(self) -> None:
        """Connect, and stay connected. Raises NoThreadError."""
        threads.start(self._thread)

    def halt(self) -> None:
        """Ask it to close its connection; `join` waits until that is done."""
        self._halt.set()

    def join(self, seconds: float) -> None:
        """Wait until it is closed, for so long."""
        self._thread.join(seconds)

    @property
    def _is_over(self) -> bool:
        return self._halt.is_set() or self._stop.is_set()

    @property
    def missing_since(self) -> datetime | None:
        """Since when something is missing if it ends now: until a connection has lasted, since the first break."""
        state = self.state
        is_made_up = state.since is not None and state.since == self.made_up_since
        return self.heard_at if is_made_up else state.lost_at or self.heard_at

    def _run(self) -> None:
        try:
            while not self._is_over:
                if (seconds := self._pacing.not_before - time.monotonic()) > 0:
                    self._halt.wait(seconds)
                elif self._may_connect():
                    self._connect_once()
                else:
                    self._halt.wait(TICK_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised again by who looks after it
            self.error = error

    def _connect_once(self) -> None:
        ending = self._attempt()
        if ending.cause is Cause.HALTED:
            return
        if ending.cause is not Cause.SILENT:
            self._patience = 1
        elif not ending.had_data:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        seconds = self._pacing.pause(ending)
        word = {Cause.TOO_MANY: "resting", Cause.REFUSED_KEY: "refused", Cause.REFUSED_PLAN: "refused"}
        lost_at = self.missing_since
        self._set(word=word.get(ending.cause, "waiting"), since=None, lost_at=lost_at, ending=ending)
        # What somebody has to see to is told; a connection that is made anew is everyday business.
        level = logging.WARNING if ending.cause in word else logging.INFO
        log.log(level, "%s: %s; the next attempt in %.1f s", self._cluster.asset_type, ending.words, seconds)

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _blotted(self, words: str) -> str:
        """Return the vendor's words without the key, should it give that back."""
        return words.replace(self._key, "***")

    def _attempt(self) -> Ending:
        """Make one connection, and read from it until it ends; return how."""
        began = time.monotonic()
        self._events = 0
        self._set(word="connecting", connects=self.state.connects + 1)
        # At its end the close frame goes out, and is not waited for long: with it the account's slot is free.
        with suppress(OSError, WebSocketException), ExitStack() as stack:
            try:
                connecting = connect(
                    self._url,
                    open_timeout=OPEN_SECONDS,
                    ping_interval=PING_SECONDS,
                    ping_timeout=PING_SECONDS,
                    close_timeout=CLOSE_SECONDS,
                    max_size=MOST_BYTES,
                    max_queue=MOST_FRAMES,
                    # No proxy of the environment leads to this machine itself.
                    proxy=None if source_of(self._url) == SANDBOX_SOURCE else True,
                    compression=None,
                    user_agent_header=f"assetbatch/{__version__}",
                    logger=_quiet,
                )
                socket = stack.enter_context(connecting)
            except (OSError, WebSocketException, ValueError, EOFError, ImportError) as error:
                # An ImportError: what a proxy of the environment takes is not installed.
                words = text(self._blotted(str(error))) or type(error).__name__
                return Ending(Cause.UNREACHABLE, f"{self._url} cannot be reached: {words}")
            try:
                self._require_no_redirect(socket)
                self._read(socket, began)
                cause, words = Cause.HALTED, "halted"
            except EndedError as error:
                cause, words = error.cause, error.words
            except ConnectionClosed as error:
                cause, words = _closing(error)
            ending = Ending(cause, self._blotted(words), time.monotonic() - began, had_data=self._events > 0)
        return ending

    def _require_no_redirect(self, socket: ClientConnection) -> None:
        """Raise EndedError where the library has followed a redirect: no other address is to have the key."""
        there = socket.protocol.uri
        if there != parse_uri(self._url):
            words = f"{self._url} redirects to {text(there.host)}:{there.port}, which is not followed: see stream.urls"
            raise EndedError(Cause.UNREACHABLE, words)

    def _read(self, socket: ClientConnection, began: float) -> None:
        """Read frames until the feed is halted. Raises EndedError and ConnectionClosed."""
        session = Session(self._key, self._names, began=began)
        heard_at = self._clock.now()
        since: datetime | None = None
        names: tuple[int, int] | None = None
        while not self._is_over:
            left = session.seconds_left(time.monotonic())
            try:
                received = socket.recv(timeout=TICK_SECONDS if left is None else min(left, TICK_SECONDS))
            except TimeoutError:
                received = None
            now = self._clock.now()
            if received is not None:
                heard_at = now
                frame = self._taken(received, now)
                for answer in session.take(frame.statuses, time.monotonic()):
                    socket.send(answer)
            for question in session.look(time.monotonic()):
                socket.send(question)
            counted = len(session.confirmed), len(session.unconfirmed)
            if session.is_ready and counted != names:
                names = counted
                if since is None:
                    since = now
                    self._book.begin(now - self._cluster.delay)
                self._set(
                    word="live",
                    since=since,
                    confirmed=frozenset(session.confirmed),
                    unconfirmed=tuple(sorted(session.unconfirmed.items())),
                )
                log.info("%s: connected, %d names confirmed, %d not", self._cluster.asset_type, *names)
            if since is not None:
                self.heard_at = heard_at
                self._require_sound(heard_at, now)

    def _taken(self, received: str | bytes, now: datetime) -> Frame:
        """Read a frame, and let the book have what it brought."""
        frame = websocket.read(self._cluster, received, now)
        frame.oddest = self._blotted(frame.oddest)
        if frame.quotes or frame.minutes or frame.dropped:
            self._events += len(frame.quotes) + len(frame.minutes)
            self._book.take(frame, now - self._cluster.delay)
        for odd in (status for status in frame.statuses if status.word is Word.OTHER):
            log.info("%s: the vendor says %s", self._cluster.asset_type, self._blotted(odd.about))
        return frame

    def _require_sound(self, heard_at: datetime, now: datetime) -> None:
        """Raise EndedError where nothing came for too long of a time in which a market is open."""
        silent, delay = (now - heard_at).total_seconds(), self._cluster.delay
        too_long = self._patience * (SILENT_SECONDS + self._cluster.quotes.every.total_seconds())
        if silent < too_long:
            return
        for market in self._markets:
            open_time = market_hours.open_time(market, heard_at - delay, now - delay, regular=True)
            if open_time.total_seconds() >= too_long:
                raise EndedError(Cause.SILENT, f"nothing came for {silent:.0f} s, and {market.value} trades")


def _closing(error: ConnectionClosed) -> tuple[Cause, str]:
    """Return what it means that a connection was closed: by the vendor, by us for what it sent, or by nobody."""
    close, who = (error.rcvd, "the vendor") if error.rcvd is not None else (error.sent, "we")
    if close is None:
        return Cause.DROPPED, "the connection broke off, without a word"
    reason = f" {text(close.reason)}" if close.reason else ""
    return Cause.CLOSED, f"{who} closed the connection ({close.code}{reason})"
