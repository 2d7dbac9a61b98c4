"""A connection: what its statements find set, what bounds them, and how it is made anew.

Nothing here depends on a session, so that PgBouncer in transaction mode will do: no prepared statements, no LISTEN, no
session advisory locks. What a statement needs is asked for by us, whatever the server, the database, the role or
another client of a pool have set: once where the session is ours alone, else in each transaction. That costs no round
trip: it goes with the statement.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, LiteralString, Self, TypeVar

import psycopg

from assetbatch.database import errors, sqlstates
from assetbatch.database.pipeline import pipeline
from assetbatch.database.query import IN_ORDER_OF_INDEX, Query, Statement, command
from assetbatch.database.sqlstates import AwayError, Meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from psycopg.abc import Params

log = logging.getLogger(__name__)

Row = dict[str, Any]
Plain = psycopg.Connection[Row]
T = TypeVar("T")

# `set transaction` has to come before any query, and needs a transaction that was begun.
BEGIN, COMMIT = "begin isolation level read committed", "commit"
BEGIN_MOMENT = "begin isolation level repeatable read, read only"
# What a transaction holds it keeps from others; a statement on its own may wait for its whole time.
LOCK_TIMEOUT = "5s"
# Before SETTINGS, which takes longer than what somebody may have set.
LIFT_TIMEOUT = "set local statement_timeout = '30s'"

# For the whole session where the server is spoken to directly: then it has told us its own process. What a
# server does not know is no setting of its (transaction_timeout came with PostgreSQL 17). A client that is frozen, or
# cut off, keeps its locks for as long as it may idle in a transaction: less than a lease. Unless it is named in the
# search_path, pg_catalog comes first; the rest of the path is for the platform's triggers. Until that is set, whatever
# is called here is named in full, operators and all.
SETTINGS = """
select pg_catalog.set_config(s.name, s.value, pg_backend_pid operator(pg_catalog.<>) %(pid)s::int),
       pg_backend_pid operator(pg_catalog.=) %(pid)s::int as is_ours
from (
  values
    ('DateStyle', 'ISO, YMD'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'),
    ('extra_float_digits', '1'), ('bytea_output', 'hex'), ('standard_conforming_strings', 'on'), ('row_security', 'on'),
    ('default_transaction_isolation', 'read committed'),
    ('statement_timeout', '30s'), ('lock_timeout', '0'),
    ('idle_in_transaction_session_timeout', '15s'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
    ('search_path', pg_catalog.ltrim(pg_catalog.regexp_replace(
      pg_catalog.current_setting('search_path'), '(^|,)[ ]*"?pg_catalog"?[ ]*(?=,|$)', '', 'gi'), ', '))
) s (name, value)
cross join pg_catalog.pg_backend_pid()
where pg_catalog.current_setting(s.name, true) is not null
"""

# By which a transaction is known once its connection is lost. A standby gives no numbers.
READ_IDENTITY = """
select pg_current_xact_id()::text as xid, pg_backend_pid() as process where not pg_is_in_recovery()
"""

# On a server that took over since the last grant of a slot the number may be another's: there it is as if it was never
# committed.
READ_FATE = """
select pg_xact_status(%(xid)s::xid8) as fate,
       (select pg_terminate_backend(pid) from pg_stat_activity
        where pid = %(process)s and backend_xid = %(xid)s::xid8::xid) as ended
where not exists (select from assetbatch.rate_limits where history <> assetbatch.history())
"""
# What a lost connection was asked last may lie before its server process yet. A pool tells of no process that there is.
END_PROCESS = """
select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a
where a.pid operator(pg_catalog.=) %(process)s::int and a.usename operator(pg_catalog.=) current_user
  and a.application_name operator(pg_catalog.=) pg_catalog.current_setting('application_name')
"""
# How often one statement is repeated that met a lost connection, and how long a transaction's end is waited for.
MOST_LOSSES = 3
END_SECONDS = 10.0

# A statement's snapshot is older than a lock that it waits for, so the lock is a statement of its own.
LOCK_ATTEMPT = "select pg_catalog.pg_advisory_xact_lock(%(attempt)s::bigint)"
LOCK_ATTEMPT_IN_ORDER = IN_ORDER_OF_INDEX + ", pg_catalog.pg_advisory_xact_lock(%(attempt)s::bigint)"

LIMIT_TRANSACTION = "select pg_catalog.set_config(%(name)s, %(value)s, true)"


class Connection:
    """A connection whose statements find set what they need, and which is made anew when it breaks.

    `plain` is psycopg's, and `reopen` opens another one, within so many seconds. A server that is away is waited for,
    `patience_seconds` each time that it goes; without patience, what met the lost connection raises.

    A statement on its own is then repeated, so it has to be one that may be; a transaction is left to its owner, see
    `retries.repeated`.
    """

    def __init__(self, plain: Plain, reopen: Callable[[float], Plain], *, patience_seconds: float) -> None:
        self._plain = plain
        self._process = plain.info.backend_pid
        self._reopen = reopen
        self._patience_seconds = patience_seconds
        self._ends_interrupted = False
        self._lost_by: psycopg.Error | None = None
        self.losses = 0
        """How often it was made anew."""
        self._is_set = False
        self._depth = 0
        # A pipeline with the beginning of a transaction, which goes with its first statement.
        self._beginning = ExitStack()

    def __enter__(self) -> Self:
        """Let the block have it."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    @property
    def info(self) -> psycopg.ConnectionInfo:
        """What psycopg knows of it."""
        return self._plain.info

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked on it as it is."""
        return self._plain.closed

    @property
    def plain(self) -> Plain:
        """The one of psycopg's that carries it now."""
        self._beginning.pop_all().close()
        return self._plain

    def close(self) -> None:
        """Close it for good."""
        self._patience_seconds = 0
        self._plain.close()

    def be_patient(self, seconds: float, *, ends_interrupted: bool = False) -> None:
        """Let it be made anew after all, though the server stayed away before.

        Not once an answer was waited for and an interruption came: `ends_interrupted`.
        """
        self._patience_seconds, self._ends_interrupted = seconds, ends_interrupted

    def execute(
        self, query: Statement, params: Params | None = None, *, found_by: LiteralString | None = None
    ) -> psycopg.Cursor[Row]:
        """Execute a statement, outside of a transaction together with what it needs, in one round trip.

        What may have been done though the answer was lost is looked for by the query `found_by` before it is repeated;
        rows that this finds are taken for the answer.
        """
        if self._depth:
            with self._waiting():
                if params is None:
                    # Perhaps there are several statements in it, which a pipeline does not carry.
                    return self.plain.execute(query)
                with self._beginning.pop_all():
                    return self._plain.execute(query, params)
        query_of_it = Query(query, params, lambda cursor: cursor, found_by=found_by)
        try:
            return self.answer(query_of_it)
        except psycopg.errors.SyntaxError:
            if params is not None or self._is_set:
                raise
            with self.transaction():
                return self.plain.execute(query)

    def answer(self, query: Query[T]) -> T:
        """Ask one question, and return its answer."""
        self.ask(query)
        return query.answer

    def ask(self, *queries: Query[Any], lock_timeout: str | None = None, statement_timeout: str | None = None) -> None:
        """Ask these in one round trip, and, outside of a transaction, as one; then each has its `answer`.

        None may depend on the answer of another. When their answers are lost they are asked once more, but for those
        that are found: once the first attempt, which may still be under way, is over.
        """
        if self._depth:
            is_begun = self._beginning.pop_all()
            with is_begun if self._plain.pgconn.pipeline_status else self._pipeline():
                found = [self._plain.execute(one.statement, one.params) for one in queries]
            _take(queries, found)
            return
        losses, left = 0, list(queries)
        lock_timeout = lock_timeout or (LOCK_TIMEOUT if len(left) > 1 else None)
        first: list[Query[Any]] = []
        if any(one.found_by for one in left):
            lock = LOCK_ATTEMPT_IN_ORDER if any(one.in_order for one in left) else LOCK_ATTEMPT
            first = [command(lock, {"attempt": random.getrandbits(63)})]
        while left:
            self.require_open()
            try:
                if losses:
                    left = [one for one in left if not self._is_found(one, first)]
                asked = [*first, *left]
                _take(asked, self._alone(asked, lock_timeout, statement_timeout))
                left = []
            except psycopg.Error as error:
                if not self.is_lost(error) or losses == MOST_LOSSES:
                    raise
                losses += 1

    def _is_found(self, query: Query[Any], first: Sequence[Query[Any]]) -> bool:
        """Return whether what a query is to do is done; then its answer is that."""
        if query.found_by is None:
            return False
        *_, found = self._alone([*first, Query(query.found_by, query.params, lambda cursor: cursor)], None, None)
        if found.rowcount:
            query.answer = query.read(found)
        return bool(found.rowcount)

    def _alone(
        self, queries: Sequence[Query[Any]], lock_timeout: str | None, statement_timeout: str | None
    ) -> list[psycopg.Cursor[Row]]:
        """Execute queries as a transaction of their own."""
        if self._is_set and len(queries) == 1 and lock_timeout is None and statement_timeout is None:
            with self._waiting():
                return [self._plain.execute(queries[0].statement, queries[0].params)]
        asked = None
        try:
            with self._pipeline():
                psycopg.Cursor(self._plain).execute(BEGIN)
                if not self._is_set:
                    asked = self._ask_for_settings()
                self._limit(lock_timeout, statement_timeout)
                found = [self._plain.execute(one.statement, one.params) for one in queries]
                psycopg.Cursor(self._plain).execute(COMMIT)
        except BaseException:
            if not self.closed:
                self._plain.rollback()
            raise
        if asked is not None:
            self._is_set = _is_granted(asked)
        return found

    @contextmanager
    def _pipeline(self) -> Iterator[None]:
        """Let what the block executes go in one round trip; who is interrupted in it waits for no answer any more."""
        try:
            with self._waiting(), pipeline(self._plain), self._waiting():
                yield
        except psycopg.OperationalError as error:
            # That the pipeline cannot end follows from that.
            if error.__context__ is not None and self._drop_if_interrupted(error.__context__):
                raise error.__context__ from None
            raise

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Let the block wait for answers, until it is interrupted."""
        try:
            yield
        except BaseException as error:
            self._drop_if_interrupted(error)
            raise

    def _drop_if_interrupted(self, error: BaseException) -> bool:
        """Close a connection on which an answer is under way that nobody is going to read."""
        is_interrupted = not isinstance(error, Exception)
        if is_interrupted:
            self._plain.close()
            if self._ends_interrupted:
                self._patience_seconds = 0
        return is_interrupted

    def _limit(self, lock_timeout: str | None, statement_timeout: str | None) -> None:
        """Bound the locks and the statements of the transaction that has begun."""
        for name, value in (("lock_timeout", lock_timeout), ("statement_timeout", statement_timeout)):
            if value is not None:
                psycopg.Cursor(self._plain).execute(LIMIT_TRANSACTION, {"name": name, "value": value})

    @contextmanager
    def transaction(
        self,
        *,
        lock_timeout: str | None = None,
        statement_timeout: str | None = None,
        force_rollback: bool = False,
    ) -> Iterator[psycopg.Transaction]:
        """Run the block as one transaction, or within one, from a savepoint on.

        Its locks and statements end in bounded time: LOCK_TIMEOUT, that of SETTINGS, or another. When the answer to its
        end is lost, it is looked for what became of it.
        """
        if not self._depth:
            self.require_open()
        # Not `Connection.transaction()`: begun in a pipeline, that stays in one.
        block = psycopg.Transaction(self.plain, force_rollback=force_rollback)
        asked = identity = None
        commits = False

        def see(kind: type[BaseException] | None, *_: object) -> None:
            nonlocal commits
            commits = kind is None and not force_rollback

        try:
            with ExitStack() as stack:
                with ExitStack() as beginning:
                    beginning.enter_context(self._pipeline())
                    stack.enter_context(block)
                    if not self._depth:
                        asked = None if self._is_set else self._ask_for_settings()
                        identity = psycopg.Cursor(self._plain).execute(READ_IDENTITY)
                        lock_timeout = lock_timeout or LOCK_TIMEOUT
                    self._limit(lock_timeout, statement_timeout)
                    self._beginning = beginning.pop_all()
                self._depth += 1
                # Once all statements are answered, and before the end is asked for.
                stack.push(see)
                stack.callback(self._leave)
                yield block
        except psycopg.Error as error:
            if self._depth or not self.is_lost(error):
                raise
            if not commits or identity is None or not self._is_committed(identity):
                raise
        else:
            if asked is not None and commits:
                self._is_set = _is_granted(asked)

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Run the block as one read only transaction that sees the database as it is at one moment, however long.

        Its statements end when they are done: no time-out ends them. What ends the block early ends the connection.
        """
        self.require_open()
        plain = self.plain
        try:
            with self._pipeline():
                psycopg.Cursor(plain).execute(BEGIN_MOMENT)
                if not self._is_set:
                    self._ask_for_settings()
                for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                    psycopg.Cursor(plain).execute(LIMIT_TRANSACTION, {"name": name, "value": "0"})
            self._depth += 1
            try:
                yield
            finally:
                self._leave()
            plain.commit()
        except BaseException:
            # It may be in the midst of a long answer.
            plain.close()
            raise

    def _leave(self) -> None:
        self._depth -= 1
        self._beginning.pop_all().close()

    def _ask_for_settings(self) -> psycopg.Cursor[Row]:
        """Ask for SETTINGS within a transaction that has just begun, and a pipeline; `_is_granted` reads the answer."""
        psycopg.Cursor(self._plain).execute(LIFT_TIMEOUT)
        return psycopg.Cursor(self._plain).execute(SETTINGS, {"pid": self.info.backend_pid})

    def is_lost(self, error: psycopg.Error) -> bool:
        """Return whether an error means that the connection is of no use any more; then it is closed."""
        lost = not isinstance(error, AwayError) and (self.closed or sqlstates.meaning_of(error) is Meaning.LOST)
        if lost:
            self.leave(error)
        return lost

    def leave(self, error: psycopg.Error) -> None:
        """Close the connection for an error: another one may lead to a server that is of use."""
        self._lost_by = error
        self._plain.close()

    def require_open(self) -> None:
        """Make the connection anew where it broke. Raises AwayError when the server stays away."""
        if not self.closed:
            return
        patience, self._patience_seconds = self._patience_seconds, 0
        if not patience:
            raise AwayError("the connection is closed" if self._lost_by is None else errors.words_of(self._lost_by))
        log.info("the connection to PostgreSQL is lost: making another one")
        process = self._process
        try:
            self._plain = self._reopen(patience)
        except psycopg.OperationalError as error:
            raise AwayError(str(error)) from None
        # Else it is waited for no more: whatever is done then is on the way out.
        self._patience_seconds = patience
        self._is_set = False
        self.losses += 1
        self._process = self._plain.info.backend_pid
        end = time.monotonic() + END_SECONDS
        with suppress(psycopg.Error):  # else the next statement tells
            while self._plain.execute(END_PROCESS, {"process": process}).rowcount and time.monotonic() < end:
                time.sleep(0.02)

    def _is_committed(self, identity: psycopg.Cursor[Row]) -> bool:
        """Return whether a transaction was committed to whose end the answer was lost.

        Where its server process still waits for what will never come, that is ended first.
        """
        known = identity.fetchone()
        end = time.monotonic() + END_SECONDS
        while known is not None and time.monotonic() < end:
            try:
                row = self.execute(READ_FATE, known).fetchone()
            except (psycopg.ProgrammingError, psycopg.DataError):
                # It was to make the schema, or the number is not given yet here.
                return False
            if row is None or row["fate"] != "in progress":
                return row is not None and row["fate"] == "committed"
            time.sleep(0.1)
        return False


def _take(queries: Sequence[Query[Any]], found: Sequence[psycopg.Cursor[Row]]) -> None:
    """Let each query read its answer."""
    for one, cursor in zip(queries, found, strict=True):
        one.answer = one.read(cursor)


def _is_granted(asked: psycopg.Cursor[Row]) -> bool:
    """Return whether SETTINGS hold for the session, once their transaction is committed."""
    row = asked.fetchone()
    return row is not None and bool(row["is_ours"])
