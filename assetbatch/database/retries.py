"""What is tried again, and how long: a server that restarts, a transaction that another one got in the way of."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import psycopg
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def patiently(open_connection: Callable[[], T], seconds: float) -> T:
    """Connect; a PostgreSQL that is away is tried again with backoff, for so many seconds in all."""
    return Retrying(
        retry=retry_if_exception_type(psycopg.OperationalError),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.2, max=3) + wait_random(0, 0.2),
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
