"""Events by Redis pub/sub, and on a capped stream for those who must not miss one."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from assetbatch import threads
from assetbatch.boottime import boot_time
from assetbatch.errors import LeaseLostError, NoThreadError
from assetbatch.events.delivery import DeliveryError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from assetbatch.database.outbox import Event

SOCKET_TIMEOUT_SECONDS = 1.0
STREAM = "asset:updates"
STREAM_LENGTH = 10_000
# Of no symbol; nothing is ever heard there.
REHEARSAL_CHANNEL = "asset:update:doctor"


def _gated(kind: type[redis.Connection], look: Callable[[], None]) -> type[redis.Connection]:
    """Return a kind of connection that looks first, last before its socket is written."""

    class Gated(kind):  # type: ignore[valid-type, misc]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            look()
            super().send_packed_command(command, check_health=check_health)

    return Gated


class RedisPublisher:
    """PUBLISH on each symbol's channel; with `stream` also XADD to the stream `asset:updates`, both or neither."""

    def __init__(self, url: str, *, stream: bool) -> None:
        self._stream = stream
        self._is_checked = False
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
        try:
            threads.begin(lambda: self._publish(events), name="publisher").result(seconds)
        except NoThreadError as error:
            raise DeliveryError(error.reason) from None
        except TimeoutError:
            raise DeliveryError(f"Redis: no answer within {seconds:.1f} s") from None

    def close(self) -> None:
        """Close the connection, also under a delivery that was given up: nothing more may leave behind the next one."""
        self._redis.close()
        self._redis.connection_pool.disconnect(inuse_connections=True)

    def rehearse(self) -> str:
        """Try what `publish` does, but let nobody hear it; return words about what is there. Raises DeliveryError.

        In a transaction that is not executed, Redis checks all but the type of the stream. A user who may not open one
        can only be asked what he is: a publisher without a stream needs none.
        """
        with _own_errors():
            self._look()
            alone = redis.Redis(connection_pool=self._redis.connection_pool, single_connection_client=True)
            try:
                alone.execute_command("MULTI")  # type: ignore[no-untyped-call]
            except redis.exceptions.NoPermissionError:
                return "answers; whether it takes events is not known: its user may not try it in a transaction"
            try:
                alone.publish(REHEARSAL_CHANNEL, "")
                if self._stream:
                    alone.xadd(STREAM, {"event": ""})
            finally:
                # With its connection goes the transaction.
                self._redis.connection_pool.disconnect(inuse_connections=True)
            if not self._stream:
                return "takes events"
            with suppress(redis.exceptions.NoPermissionError):
                return f"takes events; {self._redis.xlen(STREAM)} in the stream {STREAM}"
            return f"takes events, also in the stream {STREAM}"

    def _look_at_the_clock(self) -> None:
        if boot_time() > self._leave_by:
            raise LeaseLostError("the events were held up until another run may publish them")

    def _publish(self, events: Sequence[Event]) -> None:
        with _own_errors():
            self._look()
            # What is refused when it is queued lets nothing of a transaction happen.
            with self._redis.pipeline(transaction=self._stream) as pipeline:
                for event in events:
                    pipeline.publish(event.channel, event.payload)
                    if self._stream:
                        pipeline.xadd(STREAM, {"event": event.payload}, maxlen=STREAM_LENGTH, approximate=True)
                answers = pipeline.execute(raise_on_error=False)
        each = 2 if self._stream else 1
        found = [answers[each * number : each * (number + 1)] for number in range(len(events))]
        errors = [answer for both in found for answer in both if isinstance(answer, Exception)]
        if errors:
            taken = [
                event
                for event, both in zip(events, found, strict=True)
                if not any(isinstance(one, Exception) for one in both)
            ]
            raise _trouble(errors[0], taken)

    def _look(self) -> None:
        """Look once whom the connection has reached: what a replica is told to publish, its primary's listeners miss.

        Whoever may ask neither way is taken at his word. And a stream has to be one, and needs transactions.
        """
        if self._is_checked:
            return
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.role()
            pipeline.info("replication")
            pipeline.type(STREAM)
            if self._stream:
                # Where MULTI is refused, what a pipeline sends behind it happens all the same, one by one.
                pipeline.execute_command("MULTI")  # type: ignore[no-untyped-call]
                pipeline.execute_command("EXEC")  # type: ignore[no-untyped-call]
            role, info, kind, *transaction = pipeline.execute(raise_on_error=False)
        place = None
        if isinstance(role, list) and _text(role[0]) == "slave":
            place = f"{_text(role[1])}:{role[2]}"
        elif isinstance(info, dict) and info.get("role") == "slave":
            place = f"{info.get('master_host')}:{info.get('master_port')}"
        if place is not None:
            raise RefusedError(f"REDIS_URL names a replica of {place}: name the primary")
        if self._stream and not isinstance(kind, Exception) and _text(kind) not in {"none", "stream"}:
            raise RefusedError(f"Redis: {STREAM} is a {_text(kind)} there, no stream")
        for answer in transaction:
            if isinstance(answer, Exception):
                raise _trouble(answer)
        self._is_checked = True


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise _trouble(error) from None


def _trouble(error: Exception, delivered: Sequence[Event] = ()) -> DeliveryError:
    """Return what an error means: that Redis refuses, or that it is away; without the event that it was about."""
    refused = isinstance(error, (redis.ResponseError, redis.AuthenticationError, redis.exceptions.AuthorizationError))
    words = " ".join(str(error).rpartition(" of pipeline caused error: ")[2].split())
    return (RefusedError if refused else DeliveryError)(f"Redis: {words}", delivered)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
