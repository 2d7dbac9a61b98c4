"""What an operator does with the queue: look at it, bring items back, take items off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.queue.enqueue import ENTRANCE_TIMEOUT, LOCK_ENTRANCE
from assetbatch.database.queue.items import State
from assetbatch.database.retries import in_transaction
from assetbatch.model import Priority

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row

# In the order in which they will be claimed; then what is under way, what waits for its time, and what is dead.
LIST = """
select symbol, priority, state, attempts, enqueued_at, available_at, error_kind, error, died_at,
       count(*) over () as total
from assetbatch.queue
where state = any(%(states)s)
order by array_position(array['queued', 'leased', 'delayed', 'dead'], state),
         case when state = 'queued' then priority > 1 end,
         case state when 'queued' then rank when 'delayed' then available_at when 'dead' then died_at
                    else leased_until end,
         id
limit %(limit)s
"""

# With all attempts and the priority that the catalogue gives, behind what waits already.
RETRY = """
with asked as materialized (
  select symbol, state
  from assetbatch.queue
  where (state = 'dead' or (state = 'delayed' and %(symbols)s::text[] is not null))
    and symbol = any(coalesce(%(symbols)s, array[symbol])) and (%(kind)s::text is null or error_kind = %(kind)s)
  order by state = 'dead', died_at, symbol
  for update
), fitting as (
  select symbol from asked
  limit greatest(0, %(max_size)s - (select count(*) from assetbatch.queue where state <> 'dead'))
        + (select count(*) from asked where state = 'delayed')
), retried as (
  update assetbatch.queue q
  set state = 'queued', attempts = 0, largest_call = null, struck_at = null, waiting_since = statement_timestamp(),
      available_at = statement_timestamp(), priority = p.priority,
      rank = statement_timestamp() + (p.priority - 1) * make_interval(secs => %(step_seconds)s),
      died_at = null, died_on_plan = null, died_with_key = null
  from (
    select f.symbol, coalesce(a.rank, 4) as priority
    from fitting f left join assetbatch.assets a on a.symbol = f.symbol and a.role = 'secondary'
  ) p
  where q.symbol = p.symbol
  returning q.symbol
)
select array(select symbol from retried order by symbol) as retried,
       array(select symbol from asked except select symbol from retried order by symbol) as dropped
"""

REMOVE = """
with gone as (delete from assetbatch.queue where symbol = any(%(symbols)s) returning symbol)
select array(select symbol from gone order by symbol) as removed
"""

CLEAR = "delete from assetbatch.queue where state = any(%(states)s)"

COUNT = "select count(*) as count from assetbatch.queue where state = any(%(states)s)"


class Listed(Struct, frozen=True):
    """One item as it stands."""

    symbol: str
    priority: Priority
    state: State
    attempts: int
    enqueued_at: datetime
    available_at: datetime
    error_kind: str | None
    error: str | None


class Listing(Struct, frozen=True):
    """Items in the order of the queue; `total` counts those beyond the limit, too."""

    items: tuple[Listed, ...]
    total: int
    now: datetime


def listing(connection: Connection, states: Sequence[State], *, limit: int | None) -> Listing:
    """Read the items that are in one of these states."""
    rows = connection.execute(LIST, {"states": [state.value for state in states], "limit": limit}).fetchall()
    items = tuple(
        Listed(
            row["symbol"],
            Priority(row["priority"]),
            State(row["state"]),
            row["attempts"],
            row["enqueued_at"],
            row["available_at"],
            row["error_kind"],
            row["error"],
        )
        for row in rows
    )
    now = connection.execute("select clock_timestamp() as now").fetchone()
    assert now is not None  # noqa: S101 - a select without from has one row
    return Listing(items, rows[0]["total"] if rows else 0, now["now"])


def retry(
    connection: Connection, symbols: Sequence[str] | None, *, kind: str | None, max_size: int, step_seconds: float
) -> tuple[list[str], list[str]]:
    """Bring dead letters back, and delayed items that are named; None: all dead letters.

    `kind` chooses those that failed with it. Returns the symbols that are queued again, and those that do not fit.
    """

    def work() -> Row | None:
        connection.execute(LOCK_ENTRANCE)
        return connection.execute(
            RETRY,
            {
                "symbols": None if symbols is None else list(symbols),
                "kind": kind,
                "max_size": max_size,
                "step_seconds": step_seconds,
            },
        ).fetchone()

    row = in_transaction(connection, work, lock_timeout=ENTRANCE_TIMEOUT)
    assert row is not None  # noqa: S101 - a select without from has one row
    return row["retried"], row["dropped"]


def remove(connection: Connection, symbols: Sequence[str]) -> list[str]:
    """Take items off the queue, whatever their state; return those that were on it."""
    row = connection.execute(REMOVE, {"symbols": list(symbols)}).fetchone()
    assert row is not None  # noqa: S101 - a select without from has one row
    removed: list[str] = row["removed"]
    return removed


def clear(connection: Connection, states: Sequence[State]) -> int:
    """Take all items in these states off the queue; return how many."""
    return connection.execute(CLEAR, {"states": [state.value for state in states]}).rowcount


def count(connection: Connection, states: Sequence[State]) -> int:
    """Count the items in these states."""
    row = connection.execute(COUNT, {"states": [state.value for state in states]}).fetchone()
    return 0 if row is None else row["count"]
