"""The WebSocket of one cluster: made, and made anew, in a thread of its own that fills the cluster's book.

The key goes out in a frame, so no frame that goes out is ever written down, at whatever level of the log.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import connect

from assetbatch import __version__, market_hours, threads
from assetbatch.provider.massive import websocket
from assetbatch.stream.pacing import Cause, Ending, Pacing
from assetbatch.stream.session import EndedError, Session

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from websockets.sync.client import ClientConnection

    from assetbatch.jobs.clock import Clock
    from assetbatch.markets import Market
    from assetbatch.provider.massive.websocket import Cluster
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
# How often to look whether the connection is to end.
TICK_SECONDS = 0.2
NORMAL_CLOSURE, GOING_AWAY = 1000, 1001


@dataclass(frozen=True, slots=True)
class State:
    """How a feed is doing. `word` is as the column `streams.state` says; it is live `since` that time (aware UTC).

    `confirmed` and `unconfirmed` are names, the latter with the reason; `ending` is how the connection before ended.
    """

    word: str = "connecting"
    since: datetime | None = None
    confirmed: frozenset[str] = frozenset()
    unconfirmed: tuple[tuple[str, str], ...] = ()
    ending: Ending | None = None
    connects: int = 0


class Feed:
    """The connections of one cluster, one after another, until it is halted.

    `names` are what to subscribe to, `CHANNEL.NAME`; `markets` those at whose hours its assets trade; `heard_at` is
    when an earlier feed last heard of the vendor.
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
        heard_at: datetime | None = None,
    ) -> None:
        self._cluster = cluster
        self._url = url
        self._key = key
        self._names = names
        self._markets = markets
        self._book = book
        self._clock = clock
        self._pacing = pacing
        self._halt = threading.Event()
        self.state = State()
        """How it is doing now."""
        self.heard_at = heard_at
        """When it last heard of the vendor; None: never."""
        self.lost_at = heard_at
        """Since when something may have been missed; None: nothing was."""
        self._events = 0
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

    def _run(self) -> None:
        while not self._halt.is_set():
            ending = self._attempt()
            if ending.cause is Cause.HALTED:
                return
            # Until a connection has lasted, all since the first of them broke may be missing.
            self.lost_at = self.lost_at or self.heard_at
            seconds = self._pacing.pause(ending)
            word = {Cause.TOO_MANY: "resting", Cause.REFUSED_KEY: "refused", Cause.REFUSED_PLAN: "refused"}
            self._set(word=word.get(ending.cause, "waiting"), since=None, ending=ending)
            log.info("%s: %s; the next attempt in %.1f s", self._cluster.asset_type, ending.words, seconds)
            self._halt.wait(seconds)

    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def _attempt(self) -> Ending:
        """Make one connection, and read from it until it ends; return how."""
        began = time.monotonic()
        self._events = 0
        self._set(word="connecting", connects=self.state.connects + 1)
        try:
            socket = connect(
                self._url,
                open_timeout=OPEN_SECONDS,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MOST_BYTES,
                max_queue=MOST_FRAMES,
                compression=None,
                user_agent_header=f"assetbatch/{__version__}",
                logger=_quiet,
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, WebSocketException, ValueError) as error:
            return Ending(Cause.UNREACHABLE, f"{self._url} cannot be reached: {error or type(error).__name__}")
        try:
            self._read(socket, began)
            cause, words = Cause.HALTED, "halted"
        except EndedError as error:
            cause, words = error.cause, error.words
        except ConnectionClosed as error:
            cause, words = _closing(error)
        finally:
            # Without waiting for long: the slot of the account is free once the close frame is there.
            with suppress(OSError, WebSocketException):
                socket.close()
        return Ending(cause, words, time.monotonic() - began, had_data=self._events > 0)

    def _read(self, socket: ClientConnection, began: float) -> None:
        """Read frames until the feed is halted. Raises EndedError and ConnectionClosed."""
        session = Session(self._key, self._names, began=began)
        heard_at = self._clock.now()
        is_live = False
        while not self._halt.is_set():
            left = session.seconds_left(time.monotonic())
            try:
                received = socket.recv(timeout=TICK_SECONDS if left is None else min(left, TICK_SECONDS))
            except TimeoutError:
                received = None
            now = self._clock.now()
            if received is not None:
                heard_at = now
                frame = websocket.read(self._cluster, received, now)
                if frame.quotes or frame.minutes or frame.dropped:
                    self._events += len(frame.quotes) + len(frame.minutes)
                    self._book.take(frame, now)
                for answer in session.take(frame.statuses, time.monotonic()):
                    socket.send(answer)
            for question in session.look(time.monotonic()):
                socket.send(question)
            if not is_live and session.is_ready:
                is_live = True
                self._book.begin(now)
                self._set(
                    word="live",
                    since=now,
                    confirmed=frozenset(session.confirmed),
                    unconfirmed=tuple(sorted(session.unconfirmed.items())),
                )
            if is_live:
                self.heard_at = heard_at
                self._require_sound(heard_at, now)

    def _require_sound(self, heard_at: datetime, now: datetime) -> None:
        """Raise EndedError where nothing came for too long of a time in which a market is open."""
        silent = (now - heard_at).total_seconds()
        if silent < SILENT_SECONDS:
            return
        for market in self._markets:
            if market_hours.open_time(market, heard_at, now).total_seconds() >= SILENT_SECONDS:
                raise EndedError(Cause.SILENT, f"nothing came for {silent:.0f} s, and {market.value} trades")


def _closing(error: ConnectionClosed) -> tuple[Cause, str]:
    """Return what it means that a connection was closed."""
    if error.rcvd is None:
        return Cause.DROPPED, "the connection broke off, without a word"
    words = (
        f"the vendor closed the connection ({error.rcvd.code}{' ' + error.rcvd.reason if error.rcvd.reason else ''})"
    )
    return Cause.CLOSED, words
