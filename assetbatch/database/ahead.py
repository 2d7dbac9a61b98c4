"""A clock of the database's that was hours ahead, and was then set right: what it wrote lies in the future.

Until that comes nothing would be due, nobody could take a lease, and all would look fresh. So whatever lies in the
future that cannot is set back: to yesterday where the next step waits for it, else to now. When prices were served is
set back by a week: what was asked for since a market has closed is taken for its last. What was ahead by less than a
minute passes by itself. A run learns of it as it begins, see `runs.BEGIN_RUN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

TOLD = "the database's clock was ahead, and was set right: times in the future were set back, nothing waits for them"

SET_BACK: tuple[LiteralString, ...] = (
    """
    update assetbatch.sync_state
    set served_at = case when served_at > now() then now() - interval '7 days' else served_at end,
        succeeded_at = case when succeeded_at > now() then now() - interval '1 day' else succeeded_at end
    where greatest(served_at, succeeded_at) > now()
    """,
    """
    update assetbatch.queue
    set enqueued_at = least(enqueued_at, now()),
        waiting_since = least(waiting_since, now()),
        available_at = least(available_at, now()),
        served_at = case when served_at > now() then now() else served_at end,
        struck_at = case when struck_at > now() then now() else struck_at end,
        died_at = case when died_at > now() then now() else died_at end,
        claimed_at = case when claimed_at > now() then now() else claimed_at end,
        leased_until = case when leased_until > now() + interval '10 minutes' then now() else leased_until end
    where greatest(enqueued_at, waiting_since, available_at, served_at, struck_at, died_at, claimed_at,
                   leased_until - interval '10 minutes') > now()
    """,
    """
    update assetbatch.bar_state
    set asked_at = case when asked_at > now() then now() - interval '1 day' else asked_at end,
        asked_until = case when asked_until > now() then now() - interval '1 day' else asked_until end,
        rechecked_at = case when rechecked_at > now() then now() - interval '1 day' else rechecked_at end,
        scanned_at = case when scanned_at > now() then now() - interval '1 day' else scanned_at end,
        retry_at = case when retry_at > now() then now() else retry_at end
    where greatest(asked_at, asked_until, rechecked_at, scanned_at, retry_at) > now()
    """,
    """
    update assetbatch.bar_state set token = null, leased_until = null
    where leased_until > now() + interval '10 minutes'
    """,
    # The vendor has told nothing of what is yet to be.
    """
    update assetbatch.bar_absences
    set ranges = ranges * tstzmultirange(tstzrange(null, now())), noted_at = least(noted_at, now())
    where noted_at > now()
    """,
    "delete from assetbatch.bar_silences where told_at > now()",
    "delete from assetbatch.daily_figures where day > (now() at time zone 'UTC')::date",
    """
    update assetbatch.daily_figures
    set asked_at = case when asked_at > now() then now() - interval '1 day' else asked_at end,
        token = case when asking_until > now() + interval '10 minutes' then null else token end,
        asking_until = case when asking_until > now() + interval '10 minutes' then null else asking_until end
    where greatest(asked_at, asking_until - interval '10 minutes') > now()
    """,
    """
    update assetbatch.split_list set listed_at = least(listed_at, now()), ask_at = now()
    where greatest(listed_at, ask_at - interval '1 day') > now()
    """,
    # One that was taken to have come is still to come.
    """
    update assetbatch.splits
    set noted_at = least(noted_at, now()),
        withdrawn_at = case when withdrawn_at > now() then now() else withdrawn_at end,
        adjusted_from = greatest(
          least(adjusted_from, now()), (execution_date + time '04:00') at time zone 'America/New_York'
        ),
        is_applied = is_applied and executed_at <= now()
    where greatest(noted_at, withdrawn_at) > now() or (is_applied and executed_at > now())
    """,
    """
    update assetbatch.unadjusted_bars
    set adjusted_from = least(adjusted_from, now()),
        ask_at = case when ask_at > now() + interval '1 hour' then now() else ask_at end
    where greatest(adjusted_from, ask_at - interval '1 hour') > now()
    """,
    "update assetbatch.ticker_lives set asked_at = now(), ask_at = now() where asked_at > now()",
    """
    update assetbatch.streams
    set told_at = least(told_at, now()),
        alive_until = case when alive_until > now() + interval '1 minute' then now() else alive_until end,
        since = case when since > now() then now() else since end,
        frame_at = case when frame_at > now() then now() else frame_at end
    where greatest(told_at, alive_until - interval '1 minute', since, frame_at) > now()
    """,
    "update assetbatch.entitlements set asked_at = now() - interval '1 day' where asked_at > now()",
    "update assetbatch.market_status set asked_at = now() - interval '1 day' where asked_at > now()",
    "delete from assetbatch.leases where held_until > now() + interval '10 minutes'",
    """
    update assetbatch.runs
    set started_at = least(started_at, now()),
        finished_at = case when finished_at > now() then now() else finished_at end,
        ends_by = case when started_at > now() then now() else ends_by end
    where greatest(started_at, finished_at) > now()
    """,
    "update assetbatch.api_calls set at = now() where at > now()",
    """
    update assetbatch.outbox
    set created_at = least(created_at, now()),
        published_at = case when published_at > now() then now() else published_at end
    where greatest(created_at, published_at) > now()
    """,
    "update assetbatch.assets set enabled_at = now() where enabled_at > now()",
)


def set_back(connection: Connection) -> int:
    """Set back what lies in the future and cannot, in the caller's transaction; return how many rows that were.

    What is later than the transaction's own beginning counts as future.
    """
    return sum(connection.execute(statement).rowcount for statement in SET_BACK)
