"""Events by Redis pub/sub, and on a capped stream for those who must not miss one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from assetbatch.events import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.database.outbox import Event

SOCKET_TIMEOUT_SECONDS = 1.0
STREAM = "asset:updates"
STREAM_LENGTH = 10_000


class RedisPublisher:
    """PUBLISH on each symbol's channel; with `stream` also XADD to the stream `asset:updates`."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._stream = stream
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            raise DeliveryError("REDIS_URL is no Redis URL (redis://host:6379/0)") from None

    def publish(self, events: Sequence[Event], *, seconds: float) -> None:
        """Deliver in one round trip. Raises DeliveryError.

        In a thread, since a time-out of the socket bounds one read, not a server that drips.
        """
        failure: list[Exception] = []

        def deliver() -> None:
            try:
                self._publish(events)
            except Exception as error:  # noqa: BLE001 - raised below, unless nobody waits for it any more
                failure.append(error)

        thread = threading.Thread(target=deliver, name="publisher", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise DeliveryError(f"Redis: no answer within {seconds:.1f} s")
        if failure:
            raise failure[0]

    def close(self) -> None:
        """Close the connection, also under a delivery that was given up: nothing more may leave behind the next one."""
        self._redis.close()
        self._redis.connection_pool.disconnect(inuse_connections=True)

    def _publish(self, events: Sequence[Event]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            pipeline.publish(event.channel, event.payload)
            if self._stream:
                pipeline.xadd(STREAM, {"event": event.payload}, maxlen=STREAM_LENGTH, approximate=True)
        try:
            pipeline.execute()
        except (redis.RedisError, OSError) as error:
            raise DeliveryError(f"Redis: {error}") from None
