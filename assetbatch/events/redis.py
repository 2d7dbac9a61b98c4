"""Events by Redis pub/sub, and on a capped stream for those who must not miss one."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from assetbatch.boottime import boot_time
from assetbatch.errors import LeaseLostError
from assetbatch.events import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assetbatch.database.outbox import Event

SOCKET_TIMEOUT_SECONDS = 1.0
STREAM = "asset:updates"
STREAM_LENGTH = 10_000


def _gated(kind: type[redis.Connection], look: Callable[[], None]) -> type[redis.Connection]:
    """Return a kind of connection that looks first, last before its socket is written."""

    class Gated(kind):  # type: ignore[valid-type, misc]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            look()
            super().send_packed_command(command, check_health=check_health)

    return Gated


class RedisPublisher:
    """PUBLISH on each symbol's channel; with `stream` also XADD to the stream `asset:updates`."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._stream = stream
        self._leave_by = math.inf
        try:
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            pool = self._redis.connection_pool
            pool.connection_class = _gated(pool.connection_class, self._look_at_the_clock)
        except ValueError:
            raise DeliveryError("REDIS_URL is no Redis URL (redis://host:6379/0)") from None

    def publish(self, events: Sequence[Event], *, seconds: float, leave_by: float) -> None:
        """Deliver in one round trip. Raises DeliveryError, and LeaseLostError when they had not left by `leave_by`.

        In a thread, since a time-out of the socket bounds one read, not a server that drips.
        """
        self._leave_by = leave_by
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

    def _look_at_the_clock(self) -> None:
        if boot_time() > self._leave_by:
            raise LeaseLostError("the events were held up until another run may publish them")

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
