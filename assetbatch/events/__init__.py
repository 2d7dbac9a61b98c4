"""Announcing what changed: from the outbox to Redis, or by NOTIFY, by one publisher at a time.

At least once: an event is marked only after it was delivered, and a repeat carries its old `seq`. What cannot be
announced now is announced by the next run of any job, and no run is held up for longer than DELIVERY_SECONDS.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from assetbatch.database import outbox
from assetbatch.database.leases import Lease
from assetbatch.database.query import in_order_of_index
from assetbatch.errors import LeaseLostError
from assetbatch.events.delivery import DeliveryError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.database.query import Query
    from assetbatch.events.delivery import Publisher

log = logging.getLogger(__name__)

# More than a stream of all pairs of a market changes between two announcements.
BATCH = 5000
DELIVERY_SECONDS = 2.0
# With less time than this no batch is begun: its answer would come too late, and it would be sent twice.
SHORTEST_SECONDS = 0.2
# The right to publish. A publisher that was killed keeps the others waiting for so long.
LEASE_SECONDS = 5.0
# Between two announcements of a run that goes on: events of many calls go out together, and a slow carrier takes a
# twentieth of the run at most.
PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 20
# Until a run that goes on tries a carrier again that was away.
RETRY_SECONDS = 15.0


def backend(config: Config) -> str:
    """Return what carries the events: redis, postgres or none."""
    configured = config.settings.events.backend
    if configured == "auto":
        return "redis" if config.redis_url else "postgres"
    return configured


def publisher(config: Config, connection: Connection) -> Publisher | None:
    """Make the publisher that the configuration asks for; None for none. Raises DeliveryError."""
    match backend(config):
        case "redis":
            from assetbatch.events.redis import RedisPublisher

            assert config.redis_url is not None  # noqa: S101 - the configuration was checked
            return RedisPublisher(config.redis_url.reveal(), stream=config.settings.events.stream)
        case "postgres":
            from assetbatch.events.notify import NotifyPublisher

            return NotifyPublisher(connection)
    return None


class Announcer:
    """Announces for one run, whenever it has time; a carrier that is away or slow costs it DELIVERY_SECONDS in all."""

    def __init__(self, config: Config, connection: Connection, *, run_id: int | None = None) -> None:
        self._config = config
        self._connection = connection
        self._run_id = run_id
        self._not_before = 0.0
        self._given_up = False
        self._warned = False
        self._lost_seconds = 0.0

    def try_again(self) -> None:
        """Give a carrier that was too slow another chance, in a run that goes on for long."""
        self._given_up, self._lost_seconds = False, 0.0

    def opening(self) -> Opening | None:
        """Return what `announce` begins with, for who has other questions beside it; None: it would do nothing."""
        if self._given_up or DELIVERY_SECONDS - self._lost_seconds < SHORTEST_SECONDS:
            return None
        return Opening(self._config, self._connection, run_id=self._run_id)

    def announce(self, *, at_once: bool = False, opening: Opening | None = None) -> None:
        """Announce what waits, unless that was done just now, or this run has lost too much time with it.

        `opening` has been asked for already. Trouble with the carrier is logged as a warning, once: the events are
        still there for the next run.
        """
        left = DELIVERY_SECONDS - self._lost_seconds
        began = time.monotonic()
        if self._given_up or left < SHORTEST_SECONDS or (not at_once and began < self._not_before):
            return
        failed = False
        try:
            if publish_pending(self._config, self._connection, seconds=left, run_id=self._run_id, opening=opening):
                self._warned = False
        except DeliveryError as error:
            failed = True
            if not self._warned:
                # A refusal for another reason is another trouble, an outage in other words is the same.
                if isinstance(error, RefusedError):
                    log.warning(f"events are refused, and wait: {error}")
                else:
                    log.warning("events wait for the next run: %s", error)
            self._warned = True
        took = time.monotonic() - began
        slow = took > PAUSE_SECONDS / 2
        # A carrier that refuses at once may soon be back; one that keeps a run waiting would do so again.
        self._given_up = failed and slow
        self._lost_seconds += took if failed or slow else 0
        self._not_before = began + max(RETRY_SECONDS if failed else PAUSE_SECONDS, took * PAUSE_FACTOR)


class Opening:
    """The right to publish what waits, where something does: asked for in one round trip, with what else goes along."""

    def __init__(self, config: Config, connection: Connection, *, run_id: int | None) -> None:
        max_age_minutes = config.settings.events.max_age_minutes
        self.lease = Lease(connection, "publisher", seconds=LEASE_SECONDS, run_id=run_id)
        self.is_granted = self.lease.taking(outbox.TAKE_TURN)
        self.swept = outbox.sweep(max_age_minutes=max_age_minutes)
        self.waiting = outbox.pending(limit=BATCH, max_age_minutes=max_age_minutes)

    @property
    def queries(self) -> tuple[Query[Any], ...]:
        """Return the questions, in this order: with the right granted, nobody else publishes what is read then."""
        return self.is_granted, self.swept, in_order_of_index(), self.waiting


def publish_pending(
    config: Config,
    connection: Connection,
    *,
    seconds: float = DELIVERY_SECONDS,
    run_id: int | None = None,
    opening: Opening | None = None,
) -> int:
    """Announce what waits in the outbox, or as much as there is time for; return how many events were announced.

    `opening` has been asked for already. Raises DeliveryError.
    """
    end = time.monotonic() + seconds
    if opening is None:
        opening = Opening(config, connection, run_id=run_id)
        connection.ask(*opening.queries)
    lease, is_granted, published = opening.lease, opening.is_granted.answer, 0
    if not is_granted and opening.waiting.answer and lease.take_from_dead():
        is_granted = True
        connection.ask(opening.waiting)
    while is_granted:
        try:
            told, marking = _publish(config, connection, lease, end, opening.waiting.answer)
        except BaseException:
            lease.give_up()
            raise
        published += told
        any_pending = outbox.is_any_pending()
        # After the right is given up: a run that was turned away meanwhile has left its events to this one.
        connection.ask(*([marking] if marking else []), lease.giving_up(), any_pending)
        if end - time.monotonic() < SHORTEST_SECONDS or not any_pending.answer:
            break
        is_granted = lease.take()
        if is_granted:
            connection.ask(opening.waiting)
    return published


def _deliver(
    connection: Connection,
    carrier: Publisher,
    news: Sequence[outbox.Event],
    *,
    seconds: float,
    leave_by: float,
    is_well: bool,
) -> tuple[RefusedError | None, Query[int]]:
    """Deliver events; return why some were refused, where others were taken, and what marks those that were.

    `is_well`: none was refused before them. Raises DeliveryError, and LeaseLostError as the publisher does.
    """
    try:
        carrier.publish(news, seconds=seconds, leave_by=leave_by)
    except DeliveryError as error:
        marking = outbox.mark_published(error.delivered)
        if not isinstance(error, RefusedError):
            connection.ask(marking)
            raise
        outbox.note_refusal(connection, str(error))
        if not error.delivered:
            raise
        return error, marking
    return None, outbox.mark_published(news, is_well=is_well)


def _publish(
    config: Config, connection: Connection, lease: Lease, end: float, events: Sequence[outbox.Event]
) -> tuple[int, Query[int] | None]:
    """Announce these events and those behind them; return how many were, and what marks the last of them."""
    max_age_minutes = config.settings.events.max_age_minutes
    carrier: Publisher | None = None
    published = 0
    refusal: RefusedError | None = None
    marking: Query[int] | None = None
    try:
        while events and end - time.monotonic() >= SHORTEST_SECONDS:
            carrier = carrier or publisher(config, connection)
            if carrier is None:
                outbox.set_aside(connection, events)
            news = [event for event in events if not event.overtaken]
            if carrier is not None and len(news) < len(events):
                outbox.drop(connection, [event for event in events if event.overtaken])
            if carrier is not None and news:
                left = min(max(SHORTEST_SECONDS, end - time.monotonic()), DELIVERY_SECONDS)
                refused, marking = _deliver(
                    connection, carrier, news, seconds=left, leave_by=lease.until - left, is_well=refusal is None
                )
                published += len(refused.delivered if refused else news)
                refusal = refused or refusal
            if len(events) < BATCH:
                break
            # What was refused does not keep those behind it.
            after_id = events[-1].id if refusal else 0
            waiting = outbox.pending(limit=BATCH, max_age_minutes=max_age_minutes, after_id=after_id)
            # Before they are read: with the lease lost in between, another one may have published some of them.
            marked = [marking] if marking else []
            lease.keep(*marked, in_order_of_index(), waiting, lasting=LEASE_SECONDS * 0.9)
            events, marking = waiting.answer, None
    except LeaseLostError:
        log.info("another run publishes now")
    finally:
        if carrier is not None:
            carrier.close()
    if refusal is not None:
        connection.ask(*([marking] if marking else []))
        raise refusal
    return published, marking
