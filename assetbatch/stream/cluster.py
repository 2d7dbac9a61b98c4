"""One cluster of a stream: its lease, and while that is ours, its feed, its book, its assets, and how it is doing."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from assetbatch import bars, market_hours
from assetbatch.database import streams
from assetbatch.model import Span, Streamed
from assetbatch.stream.book import Book
from assetbatch.stream.connection import Feed
from assetbatch.stream.pacing import STEADY_SECONDS, Pacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
# What is longer is left to the jobs, which go on from the newest bar.
LONGEST_GAP = bars.ONE_PAGE
GAP = timedelta(minutes=1)
# A confirmed name without a quote for so long behind the vendor's newest, by its own times.
SILENT = timedelta(minutes=1)


class ClusterStream:
    """One cluster of one run of `stream`."""

    def __init__(self, cluster: Cluster, url: str, lease: Lease, clock: Clock, *, with_bars: bool) -> None:
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
        self._with_bars = with_bars
        self._pacing = Pacing()
        self._silent: frozenset[str] = frozenset()
        self._told: tuple[object, ...] = ()
        self._told_at = self._refreshed_at = -math.inf
        self._counted_at = time.monotonic()
        self._connects = 0
        self._kept: list[str] | None = None

    @property
    def name(self) -> str:
        """What the database calls it."""
        return self.cluster.asset_type.value

    @property
    def is_live(self) -> bool:
        """Whether prices come, or would."""
        return self.feed is not None and self.feed.state.word == "live"

    def take_list(self, listed: Sequence[Listed]) -> bool:
        """Take it that these are the assets; return whether that changes what is to be subscribed to."""
        own = [found for found in listed if found.asset.asset_type is self.cluster.asset_type]
        named = [(self.cluster.name(found.asset.polygon_ticker, found.pair), found.asset.symbol) for found in own]
        names = {name: symbol for name, symbol in named if name is not None}
        changes = names != self.names
        self.listed, self.names = {found.asset.symbol: found for found in own}, names
        return changes

    def connect(self, key: str, heard_at: datetime | None) -> None:
        """Connect, and subscribe to all names. Raises NoThreadError."""
        channels = [self.cluster.quotes.channel, *([self.cluster.minutes.channel] if self._with_bars else [])]
        self.book = Book(self.names)
        self.feed = Feed(
            self.cluster,
            self._url,
            key=key,
            names=[f"{channel}.{name}" for channel in channels for name in self.names],
            markets={market_hours.market_of(found.asset) for found in self.listed.values()},
            book=self.book,
            clock=self._clock,
            pacing=self._pacing,
            heard_at=heard_at,
        )
        self._connects, self._kept, self._refreshed_at = 0, None, -math.inf
        log.info("%s: streaming %d assets from %s", self.name, len(self.names), self._url)
        self.feed.start()

    def fresh(self) -> list[str]:
        """Return the symbols of which prices come, or would."""
        if self.feed is None or not self.is_live:
            return []
        confirmed, channel = self.feed.state.confirmed, self.cluster.quotes.channel
        named = ((f"{channel}.{name}", symbol) for name, symbol in self.names.items())
        return sorted(symbol for name, symbol in named if name in confirmed and symbol not in self._silent)

    def tellings(self, run_id: int) -> list[Query[Any]]:
        """Return what is to be told now: whenever something has changed, and every few seconds."""
        feed, now = self.feed, time.monotonic()
        if feed is None:
            return []
        told = (feed.state.word, feed.state.since, feed.state.connects, feed.state.confirmed, self._silent)
        if told == self._told and now - self._told_at < TELL_SECONDS:
            return []
        self._told, self._told_at = told, now
        queries: list[Query[Any]] = []
        fresh = self.fresh()
        if self.is_live and fresh != self._kept:
            self._kept = fresh
            queries.append(streams.keep_fresh(self.name, fresh))
        return [*queries, self.telling(run_id)]

    def telling(self, run_id: int, *, ended: bool = False) -> Query[datetime]:
        """Tell how it is doing. The answer is the database's time."""
        feed, counts, now = self.feed, self.book.counts(), time.monotonic()
        assert feed is not None  # noqa: S101 - who has none tells nothing
        state = feed.state
        seconds, self._counted_at = max(0.001, now - self._counted_at), now
        connects, self._connects = state.connects - self._connects, state.connects
        nameless = sorted(self.listed.keys() - set(self.names.values()))
        fresh = self.fresh()
        self.report = streams.Report(
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
                *(f"{symbol}: the vendor's reference list has no pair of it" for symbol in nameless),
            ),
            silent=tuple(sorted(self._silent)),
            connects=connects,
            events=counts.events,
            events_a_second=round(counts.events / seconds, 1),
            dropped=counts.dropped,
            lag_p50_ms=counts.lag_ms(0.5),
            lag_p95_ms=counts.lag_ms(0.95),
        )
        self.did = Streamed(
            self.name,
            assets=max(self.did.assets, self.report.confirmed),
            events=self.did.events + counts.events,
            dropped=self.did.dropped + counts.dropped,
            connects=self.did.connects + connects,
        )
        if counts.oddest:
            log.info("%s: %d events were dropped, the last one: %s", self.name, counts.dropped, counts.oddest)
        return streams.tell(self.report, run_id=run_id, alive_seconds=ALIVE_SECONDS)

    def due_for_refresh(self, now: datetime) -> list[Asset]:
        """Return the assets whose daily figures are to be asked for now: every few minutes those that trade."""
        if not self.is_live or time.monotonic() - self._refreshed_at < REFRESH_SECONDS:
            return []
        self._refreshed_at = time.monotonic()
        assets = (found.asset for found in self.listed.values())
        return [asset for asset in assets if market_hours.is_open(market_hours.market_of(asset), now)]

    def look_for_silent(self, priced_at: Mapping[str, datetime]) -> None:
        """Find the assets that are confirmed, and silent though calls bring newer quotes, of `priced_at`."""
        since = self.feed.state.since if self.feed is not None else None
        if since is None:
            return
        newest = self.book.newest()
        silent = frozenset(
            symbol
            for symbol in self.names.values()
            if (at := priced_at.get(symbol)) is not None and at - max(newest.get(symbol, since), since) > SILENT
        )
        for symbol in sorted(silent - self._silent):
            log.warning("%s is confirmed, but silent, while calls bring newer quotes: misspelt, or delisted?", symbol)
        self._silent = silent

    def missed(self, now: datetime) -> dict[str, Span]:
        """Return, once, what was missed before a connection that has lasted, by symbol: over a minute of trade."""
        feed = self.feed
        since = feed.state.since if feed is not None else None
        if feed is None or since is None or not self.is_live or (now - since).total_seconds() < STEADY_SECONDS:
            return {}
        lost_at, feed.lost_at = feed.lost_at, None
        if lost_at is None or not self._with_bars:
            return {}
        span = Span(bars.floor(max(lost_at, since - LONGEST_GAP)), bars.floor(since) + bars.LENGTH)
        return {
            symbol: span
            for symbol, found in self.listed.items()
            if market_hours.open_time(market_hours.market_of(found.asset), lost_at, since) > GAP
        }
