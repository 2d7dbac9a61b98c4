"""`stream`: one process that keeps the prices of all clusters fresh, each under a lease of its own.

Connections fill their books; this, the one thread that asks the database, stores what is in them, all clusters in one
transaction, and tells how they are doing.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from assetbatch.database import streams
from assetbatch.database.bars import holes, pages
from assetbatch.database.bars import state as bar_state
from assetbatch.database.errors import words_of
from assetbatch.database.leases import Lease
from assetbatch.database.prices import Brought, Stored, Times
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.database.savepoints import refuses
from assetbatch.database.sqlstates import Meaning, meaning_of
from assetbatch.errors import AssetbatchError, LeaseLostError
from assetbatch.events import Announcer
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs.run import perform
from assetbatch.jobs.storing import write_prices
from assetbatch.provider.massive.websocket import CLUSTERS
from assetbatch.stream import notify, pairs
from assetbatch.stream.calls import Aside
from assetbatch.stream.cluster import LONGEST_GAP, ClusterStream
from assetbatch.stream.pacing import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import AssetType, Quote, RunResult

log = logging.getLogger(__name__)

JOB = "stream"
# Who was killed keeps the next one waiting for so long.
LEASE_SECONDS = 15.0
STANDBY_SECONDS = 1.0
# How often to look whether there are other assets now, and what those are called that had no name.
LOOK_SECONDS = 60.0
PAIRS_SECONDS = 3600.0
# A database that is away is waited for, again and again; in between, the service manager hears that we are there.
PATIENCE_SECONDS = 10.0
# A carrier of events that was too slow is tried again after so long.
ANNOUNCER_SECONDS = 60.0
# How long the table of the bars is left alone once it has refused some.
NO_BARS_SECONDS = 3600.0
JOIN_SECONDS = 0.8
ASIDE_SECONDS = 0.3
FOR_EVER = timedelta(days=3650)


def stream(
    start: Start,
    *,
    urls: Mapping[AssetType, str],
    max_seconds: float | None,
    connect: Callable[[], AbstractContextManager[Connection]],
    progress: Callable[[Sequence[streams.Report]], object] = lambda _: None,
) -> RunResult:
    """Stream the clusters at these addresses until the run is asked to end, or for `max_seconds`.

    `connect` opens further database connections. `progress` is told every second how the clusters are doing. Raises
    ConfigurationError without a key, SourceMismatchError on a database of another source, and CallError (key_refused)
    once all clusters refuse it.
    """
    api_key = start.config.require_api_key().reveal()
    began = time.monotonic()

    def work(run: Run) -> RunResult:
        run.claim_source()
        end = math.inf if max_seconds is None else began + max_seconds
        return Streamer(run, api_key, urls, connect, progress).run(end)

    return perform(JOB, start, work, max_seconds=max_seconds or FOR_EVER.total_seconds())


class Streamer:
    """One run of `stream`."""

    def __init__(
        self,
        run: Run,
        api_key: str,
        urls: Mapping[AssetType, str],
        connect: Callable[[], AbstractContextManager[Connection]],
        progress: Callable[[Sequence[streams.Report]], object],
    ) -> None:
        self._run = run
        self._connection = run.connection
        self._api_key = api_key
        self._progress = progress
        self._with_bars = run.config.settings.stream.bars
        fingerprint = key_fingerprint(api_key)
        self._clusters = [
            ClusterStream(
                CLUSTERS[asset_type],
                url,
                Lease(run.connection, f"{JOB} {asset_type} {fingerprint}", seconds=LEASE_SECONDS, run_id=run.id),
                run.clock,
                with_bars=self._with_bars,
            )
            for asset_type, url in urls.items()
        ]
        self._aside = Aside(run, api_key, connect)
        self._announcer, self._announcer_since = run.announcer, time.monotonic()
        self._has_finality = holes.has_finality(run.connection)
        self._no_bars_until = self._pairs_asked_at = self._stood_by_at = -math.inf
        self._is_database_away = False

    @property
    def _ours(self) -> list[ClusterStream]:
        """The clusters that this run streams."""
        return [one for one in self._clusters if one.feed is not None]

    def run(self, end: float) -> RunResult:
        """Stream until the monotonic time `end`, or until the run is asked to end."""
        stop, every = self._run.stop.requested, self._run.config.settings.stream.flush_seconds
        self._list_assets()
        if self._with_bars:
            since = self._run.clock.now() - LONGEST_GAP
            bar_state.keep_partitions(self._connection, since=since, kept_since=None)
        self._aside.start()
        notify.tell("READY=1")
        listed_at = flushed_at = progressed_at = time.monotonic()
        try:
            while not stop.is_set() and (now := time.monotonic()) < end:
                notify.tell("WATCHDOG=1")
                with self._outages():
                    self._stand_by()
                    if now - listed_at >= LOOK_SECONDS:
                        listed_at = now
                        self._list_assets()
                    if now - flushed_at >= every:
                        flushed_at = now
                        self._flush()
                        self._go_on()
                self._require_key()
                if now - progressed_at >= 1:
                    progressed_at = now
                    self._progress([one.report for one in self._ours if one.report is not None])
                stop.wait(max(0.0, min(flushed_at + every, now + STANDBY_SECONDS, end) - time.monotonic()))
        finally:
            notify.tell("STOPPING=1")
            self._close()
        return self._result()

    def _result(self) -> RunResult:
        run, aside = self._run, self._aside.cost
        run.cost.calls_used += aside.calls_used
        run.cost.refusals += aside.refusals
        run.cost.long_waits += aside.long_waits
        result = run.result(anything_stored=True)
        return replace(result, updated=tuple(sorted(run.stored.updated)), warnings=run.platform_warnings())

    @contextmanager
    def _outages(self) -> Iterator[None]:
        """Let the block meet an outage of the database, told once: the newest prices wait until it has passed."""
        try:
            yield
        except psycopg.Error as error:
            if meaning_of(error) is Meaning.OURS and not self._connection.is_lost(error):
                raise
            if not self._is_database_away:
                log.warning("the database is away, the newest prices wait until it is back: %s", words_of(error))
            self._is_database_away = True
            self._connection.be_patient(PATIENCE_SECONDS)
            self._run.stop.requested.wait(STANDBY_SECONDS)
        else:
            if self._is_database_away:
                log.warning("the database is back")
            self._is_database_away = False

    # --- who streams what

    def _stand_by(self) -> None:
        """Take the leases that can be had, and connect."""
        now = time.monotonic()
        if now - self._stood_by_at < STANDBY_SECONDS:
            return
        self._stood_by_at = now
        for one in self._clusters:
            if one.feed is None and one.names and one.lease.take():
                one.connect(self._api_key, streams.frame_at(self._connection, one.name))

    def _list_assets(self) -> None:
        """Read which assets there are; where they have changed, connect anew."""
        types = [one.cluster.asset_type for one in self._clusters]
        listed = self._connection.answer(streams.assets(types))
        missing = [one.asset for one in listed if CLUSTERS[one.asset.asset_type].lacks_pair(one.pair)]
        if missing and time.monotonic() - self._pairs_asked_at >= PAIRS_SECONDS:
            self._pairs_asked_at = time.monotonic()
            if pairs.ask(self._run, self._api_key, missing):
                listed = self._connection.answer(streams.assets(types))
        for one in self._clusters:
            if one.take_list(listed) and one.feed is not None:
                heard_at = one.feed.heard_at
                self._disconnect([one])
                self._flush()
                one.connect(self._api_key, heard_at)

    def _disconnect(self, which: Sequence[ClusterStream]) -> None:
        """Close connections; what they brought stays to be stored."""
        feeds = [one.feed for one in which if one.feed is not None]
        for feed in feeds:
            feed.halt()
        end = time.monotonic() + JOIN_SECONDS
        for feed in feeds:
            feed.join(max(0.0, end - time.monotonic()))

    # --- storing

    def _flush(self) -> None:
        """Store what has come, and tell how the clusters are doing, in one transaction."""
        now, ours = self._run.clock.now(), self._ours
        telling = [query for one in ours for query in one.tellings(self._run.id)]
        renewing = {one: query for one in ours if (query := one.lease.renewing(lasting=LEASE_SECONDS / 2))}
        taken = {one: one.book.drain(now) for one in ours}
        quotes = {symbol: quote for part in taken.values() for symbol, quote in part.quotes.items()}
        bars = {key: series for part in taken.values() for key, series in part.bars.items()}
        if time.monotonic() < self._no_bars_until:
            bars.clear()
        beside = [*telling, *renewing.values()]
        try:
            if quotes or bars:
                self._store(quotes, bars, beside, now)
            elif beside:
                self._connection.ask(*beside)
        except BaseException:
            for one, part in taken.items():
                one.book.put_back(part)
            raise
        for one, query in renewing.items():
            try:
                one.lease.require(query)
            except LeaseLostError as error:
                log.warning("%s", error)
                self._disconnect([one])
                one.feed = None
        if quotes:
            self._announce()

    def _store(
        self,
        quotes: Mapping[str, Quote],
        bars: Mapping[tuple[str, datetime], BarSeries],
        beside: Sequence[Query[Any]],
        now: datetime,
    ) -> None:
        known = {symbol for one in self._clusters for symbol, found in one.listed.items() if found.known}
        brought = [
            Brought(symbol, quote, known=symbol in known or symbol in self._run.stored.updated)
            for symbol, quote in sorted(quotes.items())
        ]
        open_bars = [(symbol, bars[symbol, begins]) for symbol, begins in sorted(bars)]
        writing = [pages.upserting(open_bars, has_finality=self._has_finality, now=now)] if open_bars else []
        try:
            stored = self._write(brought, [*writing, *beside], now)
        except psycopg.Error as error:
            if not writing or not refuses(error):
                raise
            log.warning("open bars are refused, and left to calls for an hour: %s", words_of(error))
            self._no_bars_until = time.monotonic() + NO_BARS_SECONDS
            stored = self._write(brought, beside, now)
        self._run.stored.updated[:] = sorted({*self._run.stored.updated, *stored.updated})
        if missed := [*(one.symbol for one in stored.failed), *stored.locked, *stored.deleted]:
            log.info("not stored: %s", ", ".join(missed))

    def _write(self, brought: Sequence[Brought], beside: Sequence[Query[Any]], now: datetime) -> Stored:
        stored, _ = write_prices(self._connection, brought, Times(now, now), [], lambda _: (beside, lambda: None))
        return stored

    def _announce(self) -> None:
        """Announce what was stored."""
        now = time.monotonic()
        if now - self._announcer_since >= ANNOUNCER_SECONDS:
            self._announcer = Announcer(self._run.config, self._connection, run_id=self._run.id)
            self._announcer_since = now
        self._announcer.announce()

    # --- beside the stream

    def _go_on(self) -> None:
        """See to it what is asked for by calls: daily figures, and what was missed."""
        now = self._run.clock.now()
        for one in self._ours:
            if assets := one.due_for_refresh(now):
                one.look_for_silent(self._connection.answer(streams.priced_at(list(one.listed))))
                self._aside.refresh(assets)
            if missed := one.missed(now):
                log.info("%s: asking for the bars of %d assets that were missed", one.name, len(missed))
                self._aside.close_gap(missed)

    def _require_key(self) -> None:
        """Raise CallError once every cluster has refused the key."""
        endings = [one.feed.state.ending if one.feed is not None else None for one in self._clusters]
        refused = [one.words for one in endings if one is not None and one.cause is Cause.REFUSED_KEY]
        if refused and len(refused) == len(endings):
            raise CallError(FailureKind.KEY_REFUSED, f"the stream refuses the key: {refused[0]}", answered=True)

    def _close(self) -> None:
        """Close all connections, store what is left, and give the leases up."""
        self._disconnect(self._ours)
        with suppress(psycopg.Error, AssetbatchError):
            self._flush()
            ours = self._ours
            ended = [one.telling(self._run.id, ended=True) for one in ours]
            self._connection.ask(*ended, *(one.lease.giving_up() for one in ours))
        self._aside.end(ASIDE_SECONDS)
