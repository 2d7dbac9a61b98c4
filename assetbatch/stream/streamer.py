"""`stream`: one process that keeps the prices of all clusters fresh, each under a lease of its own.

Connections fill their books; this, the one thread that asks the database, stores what is in them, all clusters in one
transaction, and tells how they are doing.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from msgspec.structs import replace

from assetbatch.boottime import boot_time
from assetbatch.database import catalogue, runs, streams, symbols
from assetbatch.database.bars import state as bar_state
from assetbatch.database.errors import words_of
from assetbatch.database.leases import Lease
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.database.retries import in_transaction
from assetbatch.database.savepoints import refuses
from assetbatch.database.sqlstates import Meaning, meaning_of
from assetbatch.errors import AssetbatchError, Interrupted, LeaseLostError
from assetbatch.failures import CallError, FailureKind
from assetbatch.jobs.run import perform
from assetbatch.provider.massive.websocket import cluster_of
from assetbatch.stream import notify
from assetbatch.stream.addresses import configured
from assetbatch.stream.book import Taken
from assetbatch.stream.calls import BackgroundCalls
from assetbatch.stream.cluster import JOIN_SECONDS, LONGEST_GAP, ClusterStream
from assetbatch.stream.pacing import Cause
from assetbatch.stream.storing import LOCK_TIMEOUT, Storage
from assetbatch.words import named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.jobs.run import Run, Start
    from assetbatch.model import Asset, AssetType, RunResult
    from assetbatch.provider.massive.websocket import Cluster

log = logging.getLogger(__name__)

JOB = "stream"
# Who was killed keeps the next one waiting for so long.
LEASE_SECONDS = 15.0
STANDBY_SECONDS = 1.0
# How often leases are looked after at least, should prices be stored less often.
KEEP_SECONDS = 3.0
# How often to look whether there are other assets now.
LOOK_SECONDS = 60.0
# A database that is away is tried once, again and again: in between, the service manager hears that we are there, and
# a signal is heard.
PATIENCE_SECONDS = 0.1
# How often to look for events that could not be announced with those that came after them.
ANNOUNCE_SECONDS = 5.0
# A carrier of events that was too slow is tried again after so long.
ANNOUNCER_SECONDS = 60.0
# What is due for the figures of its day after so large a share of the time is asked for with what is due.
TOGETHER = 0.5
DAY_SECONDS = 86_400.0
LAST_CALLS_SECONDS = 0.3
# For how long one without an end counts as under way, should it be killed.
ENDLESS_SECONDS = 2 * DAY_SECONDS


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
    is_as_configured = catalogue.is_as_configured(start.config.assets)

    def work(run: Run) -> RunResult:
        run.claim_source()
        if not is_as_configured.answer:
            catalogue.sync_with_config(run.connection, run.config.assets)
        end = math.inf if max_seconds is None else began + max_seconds
        # A simulated time is not the database's.
        return Streamer(run, api_key, urls, connect, progress, follows_database=start.started_at is None).run(end)

    seconds = ENDLESS_SECONDS if max_seconds is None else max_seconds
    return perform(JOB, start, work, max_seconds=seconds, needs=[is_as_configured])


class Streamer:
    """One run of `stream`. `follows_database`: its time is the database's, however long it runs."""

    def __init__(
        self,
        run: Run,
        api_key: str,
        urls: Mapping[AssetType, str],
        connect: Callable[[], AbstractContextManager[Connection]],
        progress: Callable[[Sequence[streams.Report]], object],
        *,
        follows_database: bool,
    ) -> None:
        self._run = run
        self._connection = run.connection
        self._api_key = api_key
        self._progress = progress
        self._follows_database = follows_database
        self._settings = run.config.settings.stream
        fingerprint = key_fingerprint(api_key)
        self._clusters = [
            ClusterStream(
                self._cluster(asset_type),
                url,
                Lease(run.connection, f"{JOB} {asset_type} {fingerprint}", seconds=LEASE_SECONDS, run_id=run.id),
                run.clock,
                run.stop.requested,
            )
            for asset_type, url in urls.items()
        ]
        self._calls = BackgroundCalls(run, connect, lambda: self._known)
        self._storage = Storage(run.connection)
        self._stored: set[str] = set()
        self._standing_by: set[str] = set()
        self._left_out: set[AssetType] = set()
        self._announced_at = self._announcer_since = time.monotonic()
        self._listed_at = self._stood_by_at = self._day_began_at = -math.inf
        self._is_database_away = self._is_idle = self._is_endless = False

    def _cluster(self, asset_type: AssetType) -> Cluster:
        """Return a cluster as the plan of its market has it."""
        found = cluster_of(asset_type, self._run.config.plan_of(asset_type))
        return found if self._settings.bars else replace(found, minutes=None)

    @property
    def _known(self) -> set[str]:
        """The symbols that had a row in the platform's table before."""
        return self._stored.union(
            self._calls.stored, *([s for s, found in one.listed.items() if found.known] for one in self._ours)
        )

    @property
    def _ours(self) -> list[ClusterStream]:
        """The clusters that this run streams."""
        return [one for one in self._clusters if one.feed is not None]

    def run(self, end: float) -> RunResult:
        """Stream until the monotonic time `end`, or until the run is asked to end."""
        self._is_endless = math.isinf(end)
        self._calls.start()
        self._list_assets()
        self._connection.be_patient(PATIENCE_SECONDS, ends_interrupted=True)
        notify.tell("READY=1")
        try:
            try:
                self._stream(end)
            except Exception:
                self._close()
                raise
            self._close()
        except Interrupted:
            # By force, wherever it was: the database may not answer any more.
            notify.tell("STOPPING=1")
            self._connection.be_patient(0)
            self._disconnect(self._ours)
            raise
        return self._result()

    def _stream(self, end: float) -> None:
        stop, every = self._run.stop.requested, self._settings.flush_seconds
        flushed_at = kept_at = progressed_at = time.monotonic()
        while not stop.is_set() and (now := time.monotonic()) < end:
            notify.tell("WATCHDOG=1")
            with self._outages():
                self._stand_by()
                self._look_around()
                if is_due := now - flushed_at >= every:
                    flushed_at = now
                if is_due or now - kept_at >= KEEP_SECONDS:
                    kept_at = now
                    self._flush(stores=is_due)
                    self._go_on()
            self._require_key()
            self._require_threads()
            if now - progressed_at >= 1:
                progressed_at = now
                self._progress([one.report for one in self._ours if one.report is not None])
            stop.wait(max(0.0, min(flushed_at + every, now + STANDBY_SECONDS, end) - time.monotonic()))

    def _result(self) -> RunResult:
        run, calls = self._run, self._calls.cost
        run.cost.calls_used += calls.calls_used
        run.cost.refusals += calls.refusals
        run.cost.long_waits += calls.long_waits
        result = run.result(anything_stored=True)
        return replace(
            result,
            updated=tuple(sorted(self._stored)),
            streamed=tuple(one.did for one in self._clusters),
            warnings=run.platform_warnings(),
        )

    @contextmanager
    def _outages(self) -> Iterator[None]:
        """Let the block meet an outage of the database, told once: the newest prices wait until it has passed."""
        try:
            yield
        except psycopg.Error as error:
            meaning = meaning_of(error)
            if meaning is Meaning.OURS and not self._connection.is_lost(error):
                raise
            if meaning is Meaning.READ_ONLY:
                # It became a standby: who connects anew may be led to the server that took its place.
                self._connection.leave(error)
            if not self._is_database_away:
                log.warning("the database is away, the newest prices wait until it is back: %s", words_of(error))
            self._is_database_away = True
            self._connection.be_patient(PATIENCE_SECONDS, ends_interrupted=True)
            self._run.stop.requested.wait(STANDBY_SECONDS)
        else:
            if self._is_database_away:
                log.warning("the database is back")
            self._is_database_away = False

    def _require_key(self) -> None:
        """Raise CallError while every cluster with assets refuses the key, or calls do before any has connected."""
        states = [None if one.feed is None else one.feed.state for one in self._clusters if one.names]
        refused = [
            state.ending.words
            for state in states
            if state is not None and state.word == "refused" and state.ending is not None
            if state.ending.cause is Cause.REFUSED_KEY
        ]
        if refused and len(refused) == len(states):
            raise CallError(FailureKind.KEY_REFUSED, f"the stream refuses the key: {refused[0]}", answered=True)
        if self._calls.refusal is not None and not self._ours:
            raise self._calls.refusal

    def _require_threads(self) -> None:
        """Raise what nobody foresaw, and has ended one of the threads."""
        for one in (self._calls, *(one.feed for one in self._ours)):
            if one is not None and one.error is not None:
                raise one.error

    # --- who streams what

    def _stand_by(self) -> None:
        """Take the leases that can be had, and connect."""
        now = time.monotonic()
        if now - self._stood_by_at < STANDBY_SECONDS:
            return
        self._stood_by_at = now
        for one in self._clusters:
            if one.feed is not None or not one.names:
                continue
            if one.lease.take():
                one.take_over(self._api_key, streams.frame_at(self._connection, one.name))
                self._standing_by.discard(one.name)
            elif one.name not in self._standing_by:
                log.info("%s: another stream has it, and this one stands by", one.name)
                self._standing_by.add(one.name)

    def _look_around(self) -> None:
        """Look from time to time whether there are other assets, and once a day after what must not run out."""
        now = time.monotonic()
        if now - self._listed_at >= LOOK_SECONDS or self._calls.has_asked_pairs.is_set():
            self._list_assets()
        if now - self._day_began_at >= DAY_SECONDS:
            self._day_began_at = now
            if self._is_endless:
                self._connection.answer(runs.go_on(self._run.id, seconds=ENDLESS_SECONDS))
            if self._settings.bars:
                self._keep_partitions()

    def _keep_partitions(self) -> None:
        try:
            since = self._run.clock.now() - LONGEST_GAP
            bar_state.keep_partitions(self._connection, since=since, kept_since=None)
        except psycopg.Error as error:
            if not refuses(error):
                raise
            log.warning("the table of the bars does not get its next months: %s", words_of(error))

    def _list_assets(self) -> None:
        """Read which assets there are; where they have changed, connect anew."""
        self._listed_at = time.monotonic()
        self._calls.has_asked_pairs.clear()
        clusters = {one.cluster.asset_type: one.cluster for one in self._clusters}
        found = self._connection.answer(streams.assets(configured(self._run.config)))
        listed = [one for one in found if one.asset.asset_type in clusters]
        if not listed and not self._is_idle:
            names = " or ".join(one.name for one in self._clusters)
            log.warning("there is nothing to stream: no asset of %s is enabled", names)
        self._is_idle = not listed
        self._leave_out({one.asset.asset_type for one in found} - clusters.keys())
        self._calls.name_pairs([one.asset for one in listed if clusters[one.asset.asset_type].lacks_pair(one.pair)])
        before = {symbol for one in self._clusters for symbol in one.listed}
        for one in self._clusters:
            changes = one.take_list(listed, self._calls.pairless)
            if not changes or one.feed is None:
                continue
            if one.names:
                one.connect_anew(self._api_key)
            else:
                self._disconnect([one])
                self._let_go([one])
        if gone := before - {one.asset.symbol for one in listed}:
            self._forget(sorted(gone))

    def _forget(self, gone: Sequence[str]) -> None:
        """Take out what was stored of assets after they had been removed, and before that was heard of."""
        try:
            in_transaction(
                self._connection, lambda: self._connection.ask(symbols.forgetting(gone)), lock_timeout=LOCK_TIMEOUT
            )
        except psycopg.Error as error:
            if not (refuses(error) or isinstance(error, psycopg.errors.LockNotAvailable)):
                raise
            log.warning("what is known of the prices of %s stays: %s", named(gone), words_of(error))

    def _leave_out(self, types: set[AssetType]) -> None:
        """Say once that assets of these types are left to calls, which is news only where they are to be streamed."""
        level = logging.INFO if self._settings.clusters == "auto" else logging.WARNING
        for asset_type in sorted(types - self._left_out):
            plan = self._run.config.plan_of(asset_type).name
            log.log(level, "%s: not streamed, since the %s plan has no WebSocket; calls go on", asset_type, plan)
        self._left_out = types

    def _disconnect(self, which: Sequence[ClusterStream]) -> None:
        """Close connections; what they brought stays to be stored."""
        feeds = [one.feed for one in which if one.feed is not None]
        for feed in feeds:
            feed.halt()
        end = time.monotonic() + JOIN_SECONDS
        for feed in feeds:
            feed.join(max(0.0, end - time.monotonic()))

    def _let_go(self, which: Sequence[ClusterStream]) -> None:
        """Tell that these have ended, and let others have them."""
        ended = {one: told for one in which if (told := one.last_telling(self._run.id)) is not None}
        for one in which:
            one.feed = None
        if which:
            giving_up = [one.lease.giving_up() for one in which]
            self._connection.ask(*(query for told in ended.values() for query in told.queries), *giving_up)
        for one, told in ended.items():
            one.was_told(told)

    def _require_leases(self) -> None:
        """Ask for more time where a lease has run out, before anything is stored under it.

        We were frozen, or cut off from the database: somebody else may stream by now, and what came before is old.
        """
        late = {one: one.lease.renewing() for one in self._ours if one.lease.until <= boot_time()}
        if late:
            self._connection.ask(*(query for query in late.values() if query is not None))
            self._renewed(late)

    def _renewed(self, renewing: Mapping[ClusterStream, Query[bool] | None]) -> None:
        """Stop streaming where no more time was granted."""
        for one, query in renewing.items():
            try:
                one.lease.require(query)
            except LeaseLostError as error:
                log.warning("%s", error)
                self._disconnect([one])
                one.feed = None

    # --- storing

    def _flush(self, *, stores: bool = True) -> None:
        """Store what has come, tell how the clusters are doing, and keep their leases, in one transaction."""
        self._require_leases()
        now, ours = self._run.clock.now(), self._ours
        tellings = [(one, told) for one in ours if (told := one.telling(self._run.id)) is not None]
        renewing = {one: query for one in ours if (query := one.lease.renewing(lasting=LEASE_SECONDS / 2))}
        taken = {one: one.book.drain(now - one.cluster.delay) for one in ours} if stores else {}
        together = Taken()
        for part in taken.values():
            together.quotes |= part.quotes
            together.bars |= part.bars
        beside: list[Query[Any]] = [*(query for _, told in tellings for query in told.queries), *renewing.values()]
        left = together
        try:
            if beside or together.quotes or together.bars:
                updated, left = self._storage.store(together, self._known, beside, now)
                self._stored.update(updated)
        finally:
            for one, part in taken.items():
                one.book.put_back(
                    Taken(
                        {symbol: quote for symbol, quote in part.quotes.items() if symbol in left.quotes},
                        {key: series for key, series in part.bars.items() if key in left.bars},
                    )
                )
        for one, told in tellings:
            one.was_told(told)
            if self._follows_database:
                self._run.clock.set(told.at.answer)
        self._renewed(renewing)
        if together.quotes or time.monotonic() - self._announced_at >= ANNOUNCE_SECONDS:
            self._announce()

    def _announce(self) -> None:
        """Announce what was stored."""
        self._announced_at = now = time.monotonic()
        if now - self._announcer_since >= ANNOUNCER_SECONDS:
            self._run.announcer.try_again()
            self._announcer_since = now
        self._run.announcer.announce()

    # --- beside the stream

    def _go_on(self) -> None:
        """See to it what is asked for by calls: daily figures, and what was missed."""
        now = self._run.clock.now()
        if any(one.is_due_to_look() for one in self._ours):
            self._look_at_figures(now)
        for one in self._ours:
            if missed := one.missed(now):
                log.info("%s: asking for the bars of %d assets that were missed", one.name, len(missed))
                self._calls.close_gap(missed)

    def _look_at_figures(self, now: datetime) -> None:
        """Ask for the figures of the day that are due: of all clusters together, since one call takes any of them."""
        together = [one for one in self._ours if one.is_due_to_look(TOGETHER)]
        newest = self._connection.answer(streams.newest([symbol for one in together for symbol in one.listed]))
        due: list[Asset] = []
        for one in together:
            if assets := one.due_for_refresh(now, newest):
                one.look_for_silent(newest)
                due += assets
        if due:
            self._calls.refresh(due)

    def _close(self) -> None:
        """Close all connections, store what is left, and give the leases up."""
        notify.tell("STOPPING=1")
        self._disconnect(self._ours)
        with suppress(psycopg.Error, AssetbatchError):
            self._flush()
            self._let_go(self._ours)
        self._calls.end(LAST_CALLS_SECONDS)
