"""The vendor's WebSocket: one server for all clusters, in a thread of its own, which tests can command."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from concurrent.futures import Future
from datetime import timedelta
from http import HTTPStatus
from itertools import combinations
from operator import itemgetter
from threading import Thread
from typing import TYPE_CHECKING

from websockets.asyncio.server import serve

from assetbatch.sandbox import feed
from assetbatch.sandbox.clusters import CLUSTERS
from assetbatch.sandbox.session import TOO_MANY, TOO_SLOW, Account, Session
from assetbatch.sandbox.stream_faults import ail, spoiled

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from assetbatch.model import AssetType
    from assetbatch.plans import Plan
    from assetbatch.sandbox.faults import Faults
    from assetbatch.sandbox.feed import Event
    from assetbatch.sandbox.market import Market

_log = logging.getLogger(__name__)
# The library writes whole frames down, keys with them.
_unheard = logging.getLogger(f"{__name__}.library")
_unheard.disabled = True

STEP_SECONDS = 0.05
MOST_UNREAD_BYTES = 16 * 1024 * 1024
INTERNAL_ERROR = 1011
MOST_REASON = 123
"""Bytes of text that fit into a close frame."""
_BACKLOG = 128


class Stream:
    """Serves every path of `clusters.CLUSTERS` at `url`, between `start` and `stop`, from `market` by `clock`.

    Each pair has `rate` quotes and trades a second. Up to `events_per_frame` events go into one frame. `account`
    is whose key it is. `sessions` are all connections that there were, without `keep_sessions` those that stand.
    Methods may be called from any thread. Raises OSError when the address is taken.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        key: bytes,
        plan: Callable[[AssetType], Plan],
        clock: Callable[[], datetime],
        market: Market,
        faults: Callable[[], Faults],
        rate: float = 1.0,
        keep_sessions: bool = True,
    ) -> None:
        self._host = host
        self._clock = clock
        self._market = market
        self._faults = faults
        self.rate = rate
        self.events_per_frame = 50
        self.account = Account(key, plan)
        self._keep_sessions = keep_sessions
        self.sessions: list[Session] = []
        self._open: list[Session] = []
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._listener: socket.socket | None = self._listen(port)
        self._port = self._listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"ws://{shown}:{self._port}"

    def start(self) -> None:
        """Serve in a thread of its own; after `stop`, on the same port again."""
        if self._thread is not None:
            return
        listener, self._listener = self._listener or self._listen(self._port), None
        ready: Future[None] = Future()
        self._thread = Thread(
            target=asyncio.run, args=(self._run(listener, ready),), name="sandbox-stream", daemon=True
        )
        self._thread.start()
        ready.result()

    def stop(self) -> None:
        """Stop listening, and end every connection without a close frame; safe to repeat."""
        thread, self._thread = self._thread, None
        if thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()
        elif self._listener is not None:
            self._listener.close()
            self._listener = None

    def open(self, cluster: str = "") -> list[Session]:
        """Return the connections that stand now, of one cluster or of all."""
        return [session for session in list(self._open) if cluster in {"", session.cluster.name}]

    def drop(self, cluster: str = "") -> int:
        """End the connections that stand now without a close frame; return how many there were."""
        return self._each(cluster, lambda session: session.drop("drop"))

    def close(self, code: int, message: str = "", cluster: str = "") -> int:
        """End the connections that stand now with a close frame; return how many there were."""
        return self._each(cluster, lambda session: session.close(code, "close", message))

    def mute(self, cluster: str = "") -> int:
        """Send nothing any more on the connections that stand now; return how many there were."""
        return self._each(cluster, lambda session: session.mute())

    def expel(self, status: str, message: str, cluster: str = "") -> int:
        """Tell the connections that stand now a status, then close them with 1008; return how many there were."""
        return self._each(cluster, lambda session: session.expel(status, message))

    def send(self, frame: str, cluster: str = "") -> int:
        """Send a text frame, JSON or not, to the connections that stand now; return how many there were."""
        return self._each(cluster, lambda session: session.write(frame))

    def publish(self, *events: Event, cluster: str = "") -> int:
        """Send events, as they stand, in one frame to the connections that hold any subscription; return how many."""
        return self._each(cluster, lambda session: session.send(events), where=lambda session: bool(session.held))

    def overlap_seconds(self, cluster: str) -> float:
        """Return for how long at most two connections of a cluster stood side by side, each with a good key."""
        now = time.monotonic()
        spans = [
            (session.authenticated_at, session.closed_at or now)
            for session in list(self.sessions)
            if session.cluster.name == cluster and session.authenticated_at is not None
        ]
        overlaps = [min(one[1], other[1]) - max(one[0], other[0]) for one, other in combinations(spans, 2)]
        return max([0.0, *overlaps])

    def _listen(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        return socket.create_server((self._host, port), family=family, backlog=_BACKLOG)

    def _each(
        self, cluster: str, act: Callable[[Session], None], where: Callable[[Session], bool] = lambda _: True
    ) -> int:
        async def act_on_all() -> int:
            sessions = [session for session in self.open(cluster) if where(session)]
            for session in sessions:
                act(session)
            return len(sessions)

        if self._loop is None:
            return 0
        return asyncio.run_coroutine_threadsafe(act_on_all(), self._loop).result()

    async def _run(self, listener: socket.socket, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        serving = serve(
            self._converse,
            sock=listener,
            process_request=self._upgrade,
            compression=None,
            open_timeout=None,
            ping_interval=None,
            server_header="nginx",
            logger=_unheard,
        )
        async with serving as server:
            pump = asyncio.create_task(self._pump())
            ready.set_result(None)
            await self._stopping.wait()
            self._loop = None
            pump.cancel()
            server.close(close_connections=False)
            for session in self._open:
                session.ended_by = session.ended_by or "stop"
                session.connection.transport.abort()

    async def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        path = _path(request)
        if path not in CLUSTERS:
            return connection.respond(HTTPStatus.NOT_FOUND, "404 page not found\n")
        try:
            faults = self._faults()
        except ValueError as wrong:
            return connection.respond(HTTPStatus.INTERNAL_SERVER_ERROR, f"sandbox: {wrong}\n")
        if faults.holds("ws-mute-upgrade", path):
            await self._stopping.wait()
        for status in (HTTPStatus.FORBIDDEN, HTTPStatus.BAD_GATEWAY):
            if faults.holds(f"ws-{status.value}", path):
                return connection.respond(status, f"{status.phrase}\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        assert connection.request is not None  # noqa: S101 - the upgrade was one
        path = _path(connection.request)
        session = Session(
            path,
            CLUSTERS[path],
            connection,
            self.account,
            self._admit,
            holds=lambda kind, *texts: self._faults().holds(kind, path, *texts),
            events_per_frame=self.events_per_frame,
        )
        self.sessions.append(session)
        self._open.append(session)
        try:
            await session.serve()
        except Exception:  # noqa: BLE001 - the other connections go on
            _log.exception("the sandbox failed to answer a connection of its stream")
        finally:
            session.closed()
            self._open.remove(session)
            if not self._keep_sessions:
                self.sessions.remove(session)

    def _admit(self, newcomer: Session) -> None:
        # The older ones go.
        held = [
            session
            for session in self._open
            if session.cluster is newcomer.cluster and session.authenticated_at is not None and not session.ended_by
        ]
        for session in held[: max(0, len(held) - self.account.connections)]:
            session.expel("max_connections", TOO_MANY)
        newcomer.fed_until_ms = self._now_ms()

    async def _pump(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            try:
                self._step()
            except Exception:  # noqa: BLE001 - so does the next step
                _log.exception("the sandbox failed to feed its stream")

    def _step(self) -> None:
        now_ms = self._now_ms()
        try:
            faults = self._faults()
        except ValueError as wrong:
            self._give_up(f"sandbox: {wrong}")
            return
        for session in list(self._open):
            if faults.of_stream:
                ail(session, faults)
            self._feed(session, now_ms, faults)

    def _give_up(self, message: str) -> None:
        for session in self._open:
            if not session.ended_by:
                session.close(INTERNAL_ERROR, "close", message[:MOST_REASON])

    def _feed(self, session: Session, now_ms: int, faults: Faults) -> None:
        delay_ms, begin_ms = session.plan.delay // timedelta(milliseconds=1), session.fed_until_ms
        session.fed_until_ms = now_ms
        if not session.wanted or session.ended_by:
            return
        if session.connection.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            session.expel("slow_consumer", TOO_SLOW)
            return
        stretch = (begin_ms - delay_ms, now_ms - delay_ms)
        due = [
            event
            for channel, instrument in session.wanted
            for event in feed.events(
                self._market, session.cluster, channel, instrument, stretch=stretch, rate=self.rate
            )
        ]
        due.sort(key=itemgetter(0))
        events = [event for _, event in due]
        sent = spoiled(session, faults, events, now_ms) if faults.of_stream else events
        if sent:
            session.send(sent)

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1_000)


def _path(request: Request) -> str:
    return request.path.partition("?")[0]
