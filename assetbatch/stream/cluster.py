"""One cluster of a stream: its lease, and while that is ours, its feed, its book, its assets, and how it is doing."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import bars, market_hours
from assetbatch.boottime import boot_time
from assetbatch.database import streams
from assetbatch.markets import TRAITS
from assetbatch.model import Span, Streamed
from assetbatch.plans import ASK_AGAIN
from assetbatch.stream.book import Book
from assetbatch.stream.connection import Feed
from assetbatch.stream.pacing import STEADY_SECONDS, Pacing
from assetbatch.words import named

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.leases import Lease
    from assetbatch.database.query import Query
    from assetbatch.database.streams import Listed
    from assetbatch.jobs.clock import Clock
    from assetbatch.model import Asset
    from assetbatch.provider.massive.websocket import Cluster

log = logging.getLogger(__name__)

# How often it is told how a cluster is doing, and for how long its assets then need no call.
TELL_SECONDS = 5.0
ALIVE_SECONDS = 20.0
REFRESH_SECONDS = 300.0
# The last prices of a session are told a little after its end.
LAST_PRICES = timedelta(minutes=1)
# What is longer is left to the jobs, which go on from the newest bar.
LONGEST_GAP = bars.ONE_PAGE
GAP = timedelta(minutes=1)
# A confirmed name without a quote for so long behind the vendor's newest, by its own times.
SILENT = timedelta(minutes=1)
JOIN_SECONDS = 0.8
NO_PAIR = "the vendor's reference list has no pair of it"
NO_PAIR_YET = "what the vendor calls its pair is not known yet"


class Counted(Struct, frozen=True):
    """What came until the monotonic time `at`, in all."""

    at: float
    events: int = 0
    dropped: int = 0
    connects: int = 0


class Asked(Struct, frozen=True):
    """Since when the market rested when an asset was asked for, and the monotonic time of that."""

    closed: datetime
    at: float


class Telling(Struct, frozen=True):
    """What the database is told of a cluster: `queries`, of which `at` answers with the database's time.

    `about`, `kept` and `counted` are what is known to be told with that.
    """

    queries: tuple[Query[Any], ...]
    at: Query[datetime]
    report: streams.Report
    about: tuple[object, ...]
    kept: list[str] | None
    counted: Counted


class ClusterStream:
    """One cluster of one run of `stream`, which `stop` ends; without minutes it builds no bars."""

    def __init__(self, cluster: Cluster, url: str, lease: Lease, clock: Clock, stop: threading.Event) -> None:
        self.cluster = cluster
        self.lease = lease
        self.feed: Feed | None = None
        """None: another stream has the lease."""
        self.book = Book({})
        self.listed: dict[str, Listed] = {}
        """The assets that there are, by symbol."""
        self.names: dict[str, str] = {}
        """The symbols of those that can be streamed, by what the stream calls them."""
        self.report: streams.Report | None = None
        """What was last told of it."""
        self.did = Streamed(self.name)
        """What was told of it in all this run."""
        self._url = url
        self._clock = clock
        self._stop = stop
        self._pacing = Pacing()
        self._silent: frozenset[str] = frozenset()
        self._pairless: frozenset[str] = frozenset()
        self._told: tuple[object, ...] = ()
        self._told_at = self._looked_at = -math.inf
        # By symbol, when figures of the day were last asked for though its market rests.
        self._asked: dict[str, Asked] = {}
        # What the database has been told: the assets that are fresh, and what came.
        self._kept: list[str] | None = None
        self._counted = Counted(time.monotonic())

    @property
    def name(self) -> str:
        """What the database calls it."""
        return self.cluster.asset_type.value

    @property
    def is_live(self) -> bool:
        """Whether prices come, or would."""
        return self.feed is not None and self.feed.state.word == "live"

    def take_list(self, listed: Sequence[Listed], pairless: Collection[str]) -> bool:
        """Take it that these are the assets; return whether that changes what is to be subscribed to.

        `pairless` are tickers of which the vendor's reference list has no pair.
        """
        own = [found for found in listed if found.asset.asset_type is self.cluster.asset_type]
        named = [(self.cluster.name(found.asset.polygon_ticker, found.pair), found.asset.symbol) for found in own]
        names = {name: symbol for name, symbol in named if name is not None}
        changes = names != self.names
        self.listed, self.names = {found.asset.symbol: found for found in own}, names
        self._pairless = frozenset(one.asset.symbol for one in own if one.asset.polygon_ticker in pairless)
        return changes

    def take_over(self, key: str, heard_at: datetime | None) -> None:
        """Connect, once the lease is ours; `heard_at` is when whoever had it last heard. Raises NoThreadError."""
        self.book = Book(self.names)
        self._counted = Counted(time.monotonic())
        self._connect(key, heard_at)

    def connect_anew(self, key: str) -> None:
        """Connect anew, once other names are listed; what came stays to be stored. Raises NoThreadError."""
        assert self.feed is not None  # noqa: S101 - who has none streams nothing
        self.feed.halt()
        self.feed.join(JOIN_SECONDS)
        self.book.relist(self.names)
        self._counted = replace(self._counted, connects=0)
        self._connect(key, self.feed.missing_since)

    def _connect(self, key: str, lost_at: datetime | None) -> None:
        feed = Feed(
            self.cluster,
            self._url,
            key=key,
            names=[f"{channel}.{name}" for channel in self.cluster.channels for name in self.names],
            markets={market_hours.market_of(found.asset) for found in self.listed.values()},
            book=self.book,
            clock=self._clock,
            pacing=self._pacing,
            stop=self._stop,
            # Who was cut off from the database, or frozen, may have been taken over from.
            may_connect=lambda: self.lease.until > boot_time(),
            lost_at=lost_at,
            before=None if self.feed is None else self.feed.state,
        )
        self._kept, self._looked_at = None, -math.inf
        log.info("%s: streaming %d assets from %s", self.name, len(self.names), self._url)
        feed.start()
        self.feed = feed

    def fresh(self) -> list[str]:
        """Return the symbols of which prices come, or would."""
        if self.feed is None or not self.is_live:
            return []
        confirmed, channel = self.feed.state.confirmed, self.cluster.quotes.channel
        named = ((f"{channel}.{name}", symbol) for name, symbol in self.names.items())
        return sorted(symbol for name, symbol in named if name in confirmed and symbol not in self._silent)

    def telling(self, run_id: int) -> Telling | None:
        """Return what is to be told now: whenever something has changed, and every few seconds."""
        is_due = self._about() != self._told or time.monotonic() - self._told_at >= TELL_SECONDS
        return self._telling(run_id, ended=False) if self.feed is not None and is_due else None

    def last_telling(self, run_id: int) -> Telling | None:
        """Return what is to be told once it has ended."""
        return self._telling(run_id, ended=True) if self.feed is not None else None

    def was_told(self, telling: Telling) -> None:
        """Take it that the database has been told."""
        self.report = telling.report
        self._told, self._told_at = telling.about, time.monotonic()
        self._kept, self._counted = telling.kept, telling.counted
        report, did = telling.report, self.did
        self.did = Streamed(
            self.name,
            assets=max(did.assets, report.confirmed),
            events=did.events + report.events,
            dropped=did.dropped + report.dropped,
            connects=did.connects + report.connects,
        )

    def _about(self) -> tuple[object, ...]:
        """Return what is told at once when it changes."""
        return (None if self.feed is None else self.feed.state, self._silent, self._pairless)

    def _telling(self, run_id: int, *, ended: bool) -> Telling:
        feed, counts = self.feed, self.book.counts()
        assert feed is not None  # noqa: S101 - who has none tells nothing
        about, state, fresh = self._about(), feed.state, self.fresh()
        counted = Counted(time.monotonic(), counts.events, counts.dropped, state.connects)
        since = self._counted
        nameless = sorted(self.listed.keys() - set(self.names.values()))
        report = streams.Report(
            cluster=self.name,
            state="ended" if ended else state.word,
            words=state.ending.words if state.ending is not None and not self.is_live else "",
            is_alive=self.is_live and not ended,
            since=state.since,
            frame_at=feed.heard_at,
            asked=len(self.listed),
            confirmed=len({*fresh, *self._silent}) if fresh else 0,
            unconfirmed=(
                *(f"{name}: {why}" for name, why in state.unconfirmed),
                *(f"{symbol}: {NO_PAIR if symbol in self._pairless else NO_PAIR_YET}" for symbol in nameless),
            ),
            silent=tuple(sorted(self._silent)),
            connects=counted.connects - since.connects,
            events=counted.events - since.events,
            events_a_second=round((counted.events - since.events) / max(0.001, counted.at - since.at), 1),
            dropped=counted.dropped - since.dropped,
            lag_p50_ms=counts.lag_ms(0.5),
            lag_p95_ms=counts.lag_ms(0.95),
        )
        if counts.oddest:
            log.info("%s: events were dropped, the last one: %s", self.name, counts.oddest)
        keeps = self.is_live and fresh != self._kept
        queries = [streams.keep_fresh(self.name, fresh)] if keeps else []
        at = streams.tell(report, run_id=run_id, alive_seconds=ALIVE_SECONDS)
        return Telling((*queries, at), at, report, about, fresh if keeps else self._kept, counted)

    def is_due_to_look(self, share: float = 1.0) -> bool:
        """Return whether it is time to look whose figures of the day are to be asked for; `share`: of its period."""
        return self.is_live and time.monotonic() - self._looked_at >= share * REFRESH_SECONDS

    def due_for_refresh(self, now: datetime, newest: Mapping[str, streams.Newest]) -> list[Asset]:
        """Return the assets whose daily figures are to be asked for now, by the `newest` that is stored of each.

        That is what trades; and what a market that has closed leaves to be told: nobody else asks for it.
        """
        self._looked_at = time.monotonic()
        told, due = now - self.cluster.delay, []
        closes = {market: market_hours.last_close(market, told) for market in TRAITS[self.cluster.asset_type].markets}
        for symbol, found in self.listed.items():
            closed = closes[market_hours.market_of(found.asset)]
            if closed is not None:
                if not self._is_left(symbol, closed, told, newest.get(symbol, streams.Newest())):
                    continue
                self._asked[symbol] = Asked(closed, time.monotonic())
            due.append(found.asset)
        return due

    def _is_left(self, symbol: str, closed: datetime, told: datetime, known: streams.Newest) -> bool:
        """Return whether something is left to be told of an asset since its market closed.

        What was served since then may lack figures of its last price, which is looked at once; else it is tried again.
        """
        asked, at = self._asked.get(symbol), closed + LAST_PRICES
        if known.served_at is None or known.served_at - self.cluster.delay < at:
            return told >= at and (asked is None or time.monotonic() - asked.at >= ASK_AGAIN.total_seconds())
        return known.lacks_figures and (asked is None or asked.closed != closed)

    def look_for_silent(self, stored: Mapping[str, streams.Newest]) -> None:
        """Find the assets that are confirmed, and silent though calls bring newer quotes, which are `stored`.

        What is so new that the stream may still be about to tell it says nothing.
        """
        since = self.feed.state.since if self.feed is not None else None
        if since is None:
            return
        delay, newest = self.cluster.delay, self.book.newest()
        due = self._clock.now() - delay - self.cluster.quotes.every
        silent = frozenset(
            symbol
            for symbol in self.names.values()
            if (known := stored.get(symbol)) is not None
            and (at := known.priced_at) is not None
            and (at <= due or symbol in self._silent)
            and at - (known_at := max(newest.get(symbol, since - delay), since - delay)) > SILENT
            and self._open_time(symbol, known_at, at) > SILENT
        )
        if news := sorted(silent - self._silent):
            words = "confirmed, but silent, while calls bring newer quotes (misspelt, or delisted?)"
            log.warning("%s: %s: %s", self.name, words, named(news))
        self._silent = silent

    def _open_time(self, symbol: str, since: datetime, until: datetime) -> timedelta:
        return market_hours.open_time(market_hours.market_of(self.listed[symbol].asset), since, until)

    def missed(self, now: datetime) -> dict[str, Span]:
        """Return, once, what was missed before a connection that has lasted, by symbol: over a minute of trade."""
        feed = self.feed
        state = feed.state if feed is not None else None
        if feed is None or state is None or state.since is None or state.since == feed.made_up_since:
            return {}
        if (now - state.since).total_seconds() < STEADY_SECONDS:
            return {}
        feed.made_up_since = state.since
        if state.lost_at is None or self.cluster.minutes is None:
            return {}
        lost_at, since = state.lost_at - self.cluster.delay, state.since - self.cluster.delay
        span = Span(bars.floor(max(lost_at, since - LONGEST_GAP)), bars.floor(since) + bars.LENGTH)
        return {symbol: span for symbol in self.listed if self._open_time(symbol, lost_at, since) > GAP}
