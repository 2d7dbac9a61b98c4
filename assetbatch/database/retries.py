"""What is tried again, and how: a server that restarts, a transaction that another one stopped."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, TypeVar

import psycopg
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)
T = TypeVar("T")
# libpq tells no error code of a connection that failed, only the server's words.
REFUSED = re.compile("authentication failed|does not exist|pg_hba.conf")


def patiently(open_connection: Callable[[], T], seconds: float) -> T:
    """Connect; a PostgreSQL that is away is tried again with backoff, for so many seconds in all.

    One that is there and refuses is not: a wrong password stays wrong.
    """

    def is_away(error: BaseException) -> bool:
        return isinstance(error, psycopg.OperationalError) and not REFUSED.search(str(error))

    return Retrying(
        retry=retry_if_exception(is_away),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.2, max=3) + wait_random(0, 0.2),
        before_sleep=lambda _state: log.info("PostgreSQL is away, trying again"),
        reraise=True,
    )(open_connection)


def repeated(transaction: Callable[[], T]) -> T:
    """Run a whole transaction; deadlocks and serialisation failures repeat it, 3 times at most."""
    return Retrying(
        retry=retry_if_exception_type((psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)),
        stop=stop_after_attempt(4),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )(transaction)
