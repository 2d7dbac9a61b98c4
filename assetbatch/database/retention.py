"""Forgetting what is old: runs, calls, and what was noted of keys, hosts and days that nobody uses any more.

A run of a job does it at its end, in small batches and for a moment only: what is left over is the next one's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import psycopg

from assetbatch.database.leases import Lease
from assetbatch.database.query import command

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600
BATCH = 500
BUDGET_SECONDS = 0.15
LOCK_TIMEOUT = "20ms"
STATEMENT_TIMEOUT = "150ms"

# The oldest are those with the smallest ids, so that looking costs the same when there is nothing to forget. What
# somebody else is just changing stays until the next time.
FORGET_RUNS = """
delete from assetbatch.runs where id in (
  select id from assetbatch.runs
  where id = any(array(select id from assetbatch.runs order by id limit %(batch)s))
    and started_at < clock_timestamp() - make_interval(days => %(days)s)
    and (status <> 'running' or coalesce(ends_by < clock_timestamp(), true))
  for update skip locked
)
"""

FORGET_CALLS = """
delete from assetbatch.api_calls where id in (
  select id from assetbatch.api_calls
  where id = any(array(select id from assetbatch.api_calls order by id limit %(batch)s))
    and at < clock_timestamp() - make_interval(days => %(days)s)
  for update skip locked
)
"""

FORGET_HOSTS = """
delete from assetbatch.rate_limit_hosts where (key_fingerprint, host) in (
  select key_fingerprint, host from assetbatch.rate_limit_hosts
  where seen_at < clock_timestamp() - make_interval(days => %(days)s)
  limit %(batch)s for update skip locked
)
"""

# A refusal that has not been asked about for so long is asked about anyway: it holds for an hour.
FORGET_ENTITLEMENTS = """
delete from assetbatch.entitlements where (key_fingerprint, plan, access) in (
  select key_fingerprint, plan, access from assetbatch.entitlements
  where asked_at < clock_timestamp() - make_interval(days => greatest(%(days)s, 30))
    and not (allowed and exists (
      select from assetbatch.rate_limits k
      where k.key_fingerprint = entitlements.key_fingerprint
        and k.last_answer_at > clock_timestamp() - make_interval(days => %(days)s)
    ))
  limit %(batch)s for update skip locked
)
"""

# Who plans looks back two weeks.
FORGET_DAYS = """
delete from assetbatch.daily_figures where (market, day) in (
  select market, day from assetbatch.daily_figures
  where day < clock_timestamp()::date - greatest(%(days)s, 30)
    and coalesce(asking_until < clock_timestamp(), true)
  limit %(batch)s for update skip locked
)
"""

# A cursor that has not seen a change which is gone is refused from then on, see `changes.CHECK`.
FORGET_BAR_CHANGES = """
with gone as (
  delete from assetbatch.bar_changes where id in (
    select id from assetbatch.bar_changes
    where id = any(array(select id from assetbatch.bar_changes order by id limit %(batch)s))
      and changed_at < clock_timestamp() - make_interval(days => %(bar_changes_days)s)
    for update skip locked
  )
  returning xid, made_in
), newest as (
  select xid, made_in from gone where made_in = 'assetbatch.bar_changes'::regclass order by xid desc limit 1
), noted as (
  update assetbatch.bar_cursors c
  set forgotten_in = newest.made_in,
      forgotten_through = greatest(newest.xid, case when c.forgotten_in = newest.made_in then c.forgotten_through end)
  from newest
)
select from gone
"""

FORGET = (FORGET_CALLS, FORGET_RUNS, FORGET_HOSTS, FORGET_ENTITLEMENTS, FORGET_DAYS, FORGET_BAR_CHANGES)


def turn(connection: Connection) -> Lease:
    """Return the lease of who prunes: kept, not given up, so that it is once an hour."""
    return Lease(connection, "pruning", seconds=EVERY_SECONDS)


def prune(
    connection: Connection,
    lease: Lease,
    *,
    days: int,
    bar_changes_days: int,
    budget_seconds: float = BUDGET_SECONDS,
    batch: int = BATCH,
) -> int:
    """Delete what is older than so many days, as much as the time allows; return how many rows that were.

    Which bars changed is kept for `bar_changes_days`.

    The `lease` is taken, so that no other run does it, nor this one within an hour of the last time that nothing was
    left over. What gets in its way is logged: the run that it belongs to went well.
    """
    given = {"days": days, "bar_changes_days": bar_changes_days, "batch": batch}
    deleted, left = 0, [command(statement, given) for statement in FORGET]
    try:
        end = time.monotonic() + budget_seconds
        # All in one round trip: of a database that is far away, one for each would take longer than there is time.
        while left and time.monotonic() < end:
            connection.ask(*left, lock_timeout=LOCK_TIMEOUT, statement_timeout=STATEMENT_TIMEOUT)
            deleted += sum(one.answer for one in left)
            left = [one for one in left if one.answer >= batch]
        if left:
            lease.give_up()
    except psycopg.Error as error:
        log.info("old records stay for now: %s", error)
    return deleted
