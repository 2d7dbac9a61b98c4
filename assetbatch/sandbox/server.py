"""The sandbox itself: a server with a key, a plan and a limit, to be started, made to fail and stopped."""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime
from functools import cached_property
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, unquote

from assetbatch.markets import TRAITS
from assetbatch.model import Product
from assetbatch.plans import ALIASES, FREE, PLANS
from assetbatch.sandbox import bodies, routes, sold, wire
from assetbatch.sandbox.actions import Listing
from assetbatch.sandbox.bodies import Refused
from assetbatch.sandbox.faults import Faults
from assetbatch.sandbox.hours import Hours
from assetbatch.sandbox.market import Market
from assetbatch.sandbox.request import Request, read_query
from assetbatch.sandbox.window import Arrival, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date

    from assetbatch.plans import Plan
    from assetbatch.sandbox.bodies import Answer
    from assetbatch.sandbox.stream import Stream

__all__ = ["Arrival", "Sandbox"]

_KEY_IN_QUERY = re.compile(r"(?<=apiKey=)[^&]*")
_POLL_SECONDS = 0.02


class _PlanOf:
    """What the key is entitled to of a product from now on; set it at any time. ValueError for no plan of it."""

    def __init__(self, product: Product) -> None:
        self._product = product

    def __get__(self, sandbox: Sandbox, _: type[Sandbox]) -> str:
        return sandbox.plans[self._product]

    def __set__(self, sandbox: Sandbox, plan: str) -> None:
        plans = PLANS[self._product]
        if ALIASES.get(plan, plan) not in plans:
            raise ValueError(f"unknown plan {plan!r} of {self._product}: the plans are {', '.join(plans)}")
        sandbox.plans[self._product] = plan


class Sandbox:
    """A local server that answers as the vendor does, with invented prices: one `seed`, one market.

    It listens from the first moment, so `url` is known; it answers between `start` and `stop` (or inside
    `with`), or as long as `serve_forever` runs. At most `limit` requests (None: any number) are let in in any
    `window_seconds`; the others get a 429. With `paid_unlimited` only what is on a free plan counts. `plan` is what the
    key has for forex and crypto, a name of `plans.PLANS`, `stocks_plan` and `indices_plan` what it has for those. On
    `holidays` stocks and indices rest, beside those of the exchanges' own rules; `listing` is what becomes of stocks.
    `fail` lists words of `sandbox.faults`. `clock` tells the time that prices and plans go by, and may be set at any
    time; the limit goes by the monotonic clock. `keep_arrivals` False keeps no list of requests and connections, for a
    server that runs for days. `stream` is its WebSocket, on `stream_port`, with `stream_rate` quotes a second of each
    pair.

    Quotes of currencies move at weekends too, unlike the vendor's, so that it can be tried at any hour; their bars keep
    market hours, as all of stocks and indices does.

    Raises ValueError for a plan, limit, window or failure that does not exist, OSError when the address is
    taken.
    """

    plan = _PlanOf(Product.CURRENCIES)
    stocks_plan = _PlanOf(Product.STOCKS)
    indices_plan = _PlanOf(Product.INDICES)

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "sandbox",
        plan: str = "starter",
        stocks_plan: str = FREE.name,
        indices_plan: str = FREE.name,
        holidays: Iterable[date] = (),
        listing: Listing | None = None,
        limit: int | None = None,
        paid_unlimited: bool = False,
        window_seconds: float = 60.0,
        fail: Sequence[str] = (),
        seed: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        keep_arrivals: bool = True,
        stream_port: int = 0,
        stream_rate: float = 1.0,
    ) -> None:
        self._host = host
        self._key = key.encode()
        self._keep_arrivals = keep_arrivals
        self._stream_port = stream_port
        self._stream_rate = stream_rate
        self.plans: dict[Product, str] = {}
        self.plan, self.stocks_plan, self.indices_plan = plan, stocks_plan, indices_plan
        self._seed = seed
        self.clock = clock
        self._market = Market(seed, Hours(holidays))
        self.listing = listing or Listing()
        self.paid_unlimited = paid_unlimited
        self._window = Window(limit, window_seconds, keep_arrivals=keep_arrivals)
        self._lock = Lock()
        self.fail = list(fail)
        self._stopping = Event()
        self._thread: Thread | None = None
        self._server: wire.Server | None = wire.Server(host, port, self._respond, self._stopping)
        self._port = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._port}"

    @cached_property
    def stream(self) -> Stream:
        """The vendor's WebSocket, which serves whenever the sandbox does; there is none until it is asked for.

        Raises OSError when its address is taken.
        """
        from assetbatch.sandbox.stream import Stream

        stream = Stream(
            host=self._host,
            port=self._stream_port,
            key=self._key,
            plan=lambda market: self._plans_now()[TRAITS[market].product],
            clock=lambda: self.clock(),  # noqa: PLW0108 - the one of the time being
            market=self._market,
            faults=self._faults_now,
            rate=self._stream_rate,
            keep_sessions=self._keep_arrivals,
        )
        if self._thread is not None:
            stream.start()
        return stream

    @property
    def arrivals(self) -> list[Arrival]:
        """Every request in the order of arrival; its status is put in once it is known."""
        return self._window.arrivals

    @property
    def listing(self) -> Listing:
        """Which tickers there are, and what becomes of them; set it at any time."""
        return self._market.listing

    @listing.setter
    def listing(self, listing: Listing) -> None:
        self._market.listing = listing

    @property
    def fail(self) -> list[str]:
        """What goes wrong from now on; set it or change the list at any time. ValueError for a wrong word."""
        return self._fail

    @fail.setter
    def fail(self, words: Sequence[str]) -> None:
        faults = Faults(words, self._seed)
        with self._lock:
            self._fail = list(words)
            self._faults = (list(words), faults)

    def start(self) -> None:
        """Serve in a thread of its own; after `stop`, on the same port again."""
        if self._thread is not None:
            return
        self._stopping.clear()
        if self._server is None:
            self._server = wire.Server(self._host, self._port, self._respond, self._stopping)
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="sandbox", daemon=True)
        self._thread.start()
        if "stream" in vars(self):
            self.stream.start()

    def stop(self) -> None:
        """Stop listening, give up what is being answered, end every connection; at once, safe to repeat."""
        self._stopping.set()
        if "stream" in vars(self):
            self.stream.stop()
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None:
            return
        if thread is not None:
            server.shutdown()
            thread.join()
        server.server_close()

    def serve_forever(self) -> None:
        """Serve until `stop` is called (a signal handler may) or an exception such as KeyboardInterrupt."""
        self.start()
        try:
            self._stopping.wait()
        finally:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _respond(self, method: str, target: str, authorization: str | None) -> Answer:
        # The limit comes before the key: the strictest server counts whatever reaches it.
        counts = not self.paid_unlimited or self._is_of_free_plan(target)
        arrival, accepted = self._window.arrive(_KEY_IN_QUERY.sub("***", target), counts=counts)
        if not accepted:
            return bodies.error(429, bodies.TOO_MANY)
        answer = self._answer(method, target, authorization)
        self._window.answered(arrival, answer.status)
        return answer

    def _is_of_free_plan(self, target: str) -> bool:
        plans = self._plans_now()
        return any(not plans[TRAITS[market].product].is_live for market in sold.markets(target))

    def _answer(self, method: str, target: str, authorization: str | None) -> Answer:
        if method != "GET":
            return bodies.plain(405, "405 method not allowed\n")
        path, _, query = target.partition("?")
        try:
            faults = self._faults_now()
        except ValueError as wrong:
            return bodies.plain(500, f"sandbox: {wrong}\n")

        def good() -> Answer:
            refusal = self._key_refused(authorization, query)
            if refusal is not None:
                return refusal
            try:
                request = Request(
                    target=target,
                    path=unquote(path),
                    query=read_query(query),
                    now=self.clock(),
                    plans=self._plans_now(),
                    url=self.url,
                    market=self._market,
                    faults=faults,
                )
            except Refused as refused:
                return refused.answer
            return routes.answer(request)

        return faults.breakdown(target, good) or good()

    def _plans_now(self) -> Mapping[Product, Plan]:
        return {product: PLANS[product][ALIASES.get(plan, plan)] for product, plan in self.plans.items()}

    def _faults_now(self) -> Faults:
        # The list may have been changed in place; what has begun (a stale time, a seeded draw) goes on while
        # it is the same.
        with self._lock:
            words, faults = self._faults
            if words != self._fail:
                words = list(self._fail)
                faults = Faults(words, self._seed)
                self._faults = (words, faults)
            return faults

    def _key_refused(self, authorization: str | None, query: str) -> Answer | None:
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            given = dict(parse_qsl(query)).get("apiKey", "")
        if not given:
            return bodies.error(401, bodies.NO_KEY)
        if not hmac.compare_digest(given.encode(), self._key):
            return bodies.error(401, bodies.UNKNOWN_KEY)
        return None
