"""Announcing what changed: from the outbox to Redis, or by NOTIFY, by one publisher at a time.

At least once: an event is marked only after it was delivered, and a repeat carries its old `seq`. What cannot be
announced now is announced by the next run of any job, and no run is held up for longer than DELIVERY_SECONDS.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from assetbatch.database import outbox
from assetbatch.database.leases import Lease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection

log = logging.getLogger(__name__)

BATCH = 500
DELIVERY_SECONDS = 2.0
# Between two announcements of a run that goes on: events of many calls go out together, and a slow carrier takes a
# twentieth of the run at most.
PAUSE_SECONDS = 1.0
PAUSE_FACTOR = 20


class DeliveryError(Exception):
    """Events could not be delivered; they stay in the outbox."""


class Publisher(Protocol):
    """Delivers events, all or an exception: DeliveryError."""

    def publish(self, events: Sequence[outbox.Event], *, seconds: float) -> None:
        """Deliver in order, within so many seconds; return once whoever carries them has acknowledged all."""


def backend(config: Config) -> str:
    """Tell what carries the events: redis, postgres or none."""
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
    """Announces for one run, whenever it has time; a carrier that is away or slow holds up a run only once."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._not_before = 0.0
        self._given_up = False
        self._slow_seconds = 0.0

    def announce(self, *, at_once: bool = False) -> None:
        """Announce what waits, unless that was done just now or has failed in this run.

        Trouble with the carrier is logged as a warning: the events are still there for the next run.
        """
        if self._given_up or (not at_once and time.monotonic() < self._not_before):
            return
        began = time.monotonic()
        try:
            publish_pending(self._config, self._connection)
        except DeliveryError as error:
            self._given_up = True
            log.warning("events wait for the next run: %s", error)
        took = time.monotonic() - began
        if took > PAUSE_SECONDS / 2:
            self._slow_seconds += took
        self._given_up |= self._slow_seconds >= DELIVERY_SECONDS
        self._not_before = began + max(PAUSE_SECONDS, took * PAUSE_FACTOR)


def publish_pending(config: Config, connection: Connection) -> int:
    """Announce what waits in the outbox, or as much as there is time for; return how many events were announced.

    Raises DeliveryError.
    """
    carrier = publisher(config, connection)
    if carrier is None:
        outbox.discard(connection)
        return 0
    lease = Lease(connection, "publisher")
    if not lease.take():
        return 0
    published = 0
    end = time.monotonic() + DELIVERY_SECONDS
    try:
        outbox.drop_stale(connection, max_age_minutes=config.settings.events.max_age_minutes)
        while (left := end - time.monotonic()) > 0 and (events := outbox.pending(connection, limit=BATCH)):
            carrier.publish(events, seconds=left)
            outbox.mark_published(connection, events)
            published += len(events)
    finally:
        lease.give_up()
    return published
