"""Transactions that are tried again: another one stopped them, or the connection was lost and made anew.

Tenacity is imported when it is needed: most runs do without.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

import psycopg

from assetbatch.database.sqlstates import Meaning, meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.database.connection import Connection

T = TypeVar("T")
WORTH_ANOTHER = (Meaning.IN_THE_WAY, Meaning.LOST)
# At least and at most, between two attempts.
PAUSE_SECONDS = (0.01, 0.1)


def repeated(transaction: Callable[[], T]) -> T:
    """Run a whole transaction; what is worth it repeats it, 3 times at most.

    That is another transaction in its way, and a lost connection that was made anew.
    """
    try:
        return transaction()
    except psycopg.Error as error:
        if meaning_of(error) not in WORTH_ANOTHER:
            raise
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

    time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - no secret
    return Retrying(
        retry=retry_if_exception(lambda error: meaning_of(error) in WORTH_ANOTHER),
        stop=stop_after_attempt(3),
        wait=wait_random(*PAUSE_SECONDS),
        reraise=True,
    )(transaction)


def in_transaction(connection: Connection, work: Callable[[], T], *, lock_timeout: str | None = None) -> T:
    """Do some work in a transaction of its own, as often as is worth it; return what it returned."""

    def attempt() -> T:
        with connection.transaction(lock_timeout=lock_timeout):
            return work()

    return repeated(attempt)
