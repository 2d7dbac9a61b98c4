"""What is tried again, and how long: a server that restarts, a transaction that another one stopped.

Tenacity is imported when it is needed: who only looks does without.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, TypeVar

import psycopg

from assetbatch.database.sqlstates import Meaning, meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from assetbatch.database.connection import Connection

log = logging.getLogger(__name__)
T = TypeVar("T")
WORTH_ANOTHER = (Meaning.IN_THE_WAY, Meaning.LOST)
# libpq tells no error code of a connection that failed, only the server's words.
REFUSED = re.compile("authentication failed|does not exist|pg_hba.conf")


def patiently(open_connection: Callable[[], T], seconds: float) -> T:
    """Connect; a PostgreSQL that is away is tried again with backoff, for so many seconds in all.

    One that is there and refuses is not: a wrong password stays wrong.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

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
    """Run a whole transaction; what is worth it repeats it, 3 times at most.

    That is another transaction in its way, and a lost connection that was made anew.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

    return Retrying(
        retry=retry_if_exception(lambda error: meaning_of(error) in WORTH_ANOTHER),
        stop=stop_after_attempt(4),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )(transaction)


def in_transaction(connection: Connection, work: Callable[[], T], *, lock_timeout: str | None = None) -> T:
    """Do some work in a transaction of its own, as often as is worth it; return what it returned."""

    def attempt() -> T:
        with connection.transaction(lock_timeout=lock_timeout):
            return work()

    return repeated(attempt)
