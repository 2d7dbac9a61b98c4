"""Bars: whose are due, and who may ask for them.

Who asks for an asset's bars holds a lease on them for as long as one call takes; what comes next is read off the bars
again. What is settled is final: below `asked_until` there is no open bar.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from msgspec import Struct
from msgspec.structs import asdict

from assetbatch.bars import ONE_PAGE, TOLD_AGAIN, Track
from assetbatch.database.catalogue import asset_of
from assetbatch.database.leases import new_token, release_dead
from assetbatch.database.query import Query, command
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import filled
from assetbatch.model import AssetType, Span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from assetbatch.database.connection import Connection, Row
    from assetbatch.failures import FailureKind
    from assetbatch.markets import Market

# Whose newest bars are due: what the planner says of each frequency and market. Priority assets in their order, then
# the oldest watermark. An asset that was served and has no row in the platform's table now was deleted there. While one
# waits whose bars the table did not take, it takes no others either that reach as far. Of a ticker that the vendor does
# not know, or not any more, there are none; whether it does, the price tells that is on its way. In the night of a
# split it is not known whether the vendor's bars are adjusted.
DUE = """
with limits as (
  select * from unnest(
    %(frequencies)s::int[], %(markets)s::text[], %(asked_before)s::timestamptz[], %(until)s::timestamptz[]
  ) as l (update_frequency_seconds, market, asked_before, until)
), refusing (since) as (
  select coalesce(min(l.until), 'infinity')
  from assetbatch.bar_state b join assetbatch.assets a using (symbol)
  join limits l using (update_frequency_seconds, market)
  where b.error_kind = 'refused_by_table' and b.retry_at > %(now)s and a.enabled
)
select a.symbol, a.asset_type
from assetbatch.assets a
join limits l using (update_frequency_seconds, market)
left join assetbatch.bar_state b using (symbol)
where a.enabled and a.symbol = any(coalesce(%(symbols)s, array[a.symbol]))
  and l.until < (select since from refusing)
  and not exists (select from assetbatch.unknown_tickers u where u.symbol = a.symbol)
  and a.symbol not in (select symbol from assetbatch.gone_tickers)
  and not exists (
    select from assetbatch.splits p
    where p.ticker = a.polygon_ticker and not p.is_applied and p.executed_at <= %(now)s
  )
  and (not exists (select from assetbatch.queue q where q.symbol = a.symbol and q.state in ('queued', 'leased'))
       or exists (select from assetbatch.sync_state s where s.symbol = a.symbol and s.succeeded_at is not null))
  and (exists (select from trading.symbols s where s.symbol = a.symbol)
       or b.asked_until is null
       and not exists (select from assetbatch.sync_state s where s.symbol = a.symbol and s.served_at is not null))
  and coalesce(b.asked_at < l.asked_before, true) and coalesce(b.asked_until < l.until, true)
  and coalesce(b.retry_at <= %(now)s, true) and coalesce(b.leased_until < clock_timestamp(), true)
order by a.role, case when a.role = 'priority' then a.rank end, b.watermark nulls first, a.symbol
limit %(limit)s
"""

CLAIM = """
insert into assetbatch.bar_state as b (symbol, wanted_since, token, leased_until)
select symbol, greatest(%(wanted_since)s, %(kept_since)s), %(token)s,
       clock_timestamp() + make_interval(secs => %(seconds)s)
from assetbatch.assets where symbol = any(%(symbols)s)
on conflict (symbol) do update
set token = excluded.token, leased_until = excluded.leased_until,
    wanted_since = greatest(least(b.wanted_since, %(wanted_since)s), %(kept_since)s)
where coalesce(b.leased_until < clock_timestamp() or b.token = excluded.token, true)
"""

# The newest bar that is final: those before `asked_until` are; of what a platform filled itself, the newest at all.
READ_TRACKS = """
select a.*, greatest(least(b.wanted_since, %(wanted_since)s), %(kept_since)s) as wanted_since,
       b.asked_until, b.rechecked_at, coalesce(b.source_minutes, 5) as source_minutes, b.source_told_at, (
  select o.ts from market_data.ohlcv_5m o
  where o.symbol_id = s.id and o.ts < coalesce(b.asked_until, 'infinity') order by o.ts desc limit 1
) as newest, exists (
  select from assetbatch.sync_state y where y.symbol = a.symbol and y.served_at is not null
) as served, (
  select lower(range_agg(r) * tstzmultirange(tstzrange(%(page_since)s, null)))
  from assetbatch.bar_silences i, unnest(i.ranges) r where i.symbol = a.symbol and i.told_at <= %(told_before)s
) as silent_since, exists (
  select from assetbatch.bar_silences i where i.symbol = a.symbol
) or exists (
  select from assetbatch.bar_absences o where o.symbol = a.symbol and o.reason = 'nothing' and not isempty(o.ranges)
) as silent, exists (
  select from assetbatch.unknown_tickers u where u.symbol = a.symbol
) or a.symbol in (select symbol from assetbatch.gone_tickers) as is_unknown,
       unadjusted.since as unadjusted_since, unadjusted.until as unadjusted_until
from assetbatch.assets a left join assetbatch.bar_state b using (symbol) left join trading.symbols s using (symbol)
left join lateral (
  select upper(u.ranges) as until,
         lower(u.ranges * tstzmultirange(tstzrange(upper(u.ranges) - %(page)s::interval, null))) as since
  from assetbatch.unadjusted_bars u where u.symbol = a.symbol and u.ask_at <= %(now)s
) unadjusted on true
where a.symbol = any(%(symbols)s)
order by array_position(%(symbols)s, a.symbol)
"""

HOLD = "select from assetbatch.bar_state where symbol = %(symbol)s and token = %(token)s for update"

# Fenced by the token: who has lost the lease changes nothing. The watermark is read off the bars.
FINISH = """
update assetbatch.bar_state b
set asked_until = greatest(b.asked_until, %(asked_until)s), asked_at = coalesce(%(asked_at)s, b.asked_at),
    rechecked_at = coalesce(%(rechecked_at)s, b.rechecked_at),
    source_minutes = %(source_minutes)s, source_told_at = %(source_told_at)s,
    watermark = (
      select o.ts from market_data.ohlcv_5m o join trading.symbols s on s.id = o.symbol_id
      where s.symbol = b.symbol and o.ts < coalesce(greatest(b.asked_until, %(asked_until)s), 'infinity')
      order by o.ts desc limit 1
    ),
    failures = 0, retry_at = null, error_kind = null, error = null, token = null, leased_until = null
where b.symbol = %(symbol)s and b.token = %(token)s
"""

# In a platform's own table a bar that was written open settles without being written, when it stays as it was. Who asks
# for changes has to hear of it all the same; of what this transaction wrote it has been told.
TELL_SETTLED = """
with before as (
  select symbol, asked_until from assetbatch.bar_state where symbol = %(symbol)s and token = %(token)s
), settled as (
  insert into assetbatch.bar_changes (symbol, ranges, bars)
  select before.symbol, range_agg(tstzrange(o.ts, o.ts + interval '5 minutes')), count(*)
  from before
  join trading.symbols s using (symbol)
  join market_data.ohlcv_5m o on o.symbol_id = s.id
  where o.ts >= coalesce(before.asked_until, %(asked_since)s) and o.ts < %(asked_until)s::timestamptz
    and not exists (
      select from assetbatch.bar_changes c
      where c.xid = pg_current_xact_id() and c.symbol = before.symbol and c.ranges @> o.ts
    )
  group by before.symbol
)"""
FINISH_BARE = TELL_SETTLED + FINISH

FAIL = """
update assetbatch.bar_state
set failures = failures + 1, error_kind = %(kind)s, error = %(error)s, token = null, leased_until = null,
    retry_at = %(now)s + least(%(first_seconds)s * 2 ^ least(failures, 20), %(longest_seconds)s) * interval '1 second'
where symbol = %(symbol)s and token = %(token)s
"""

RELEASE = (
    "update assetbatch.bar_state set token = null, leased_until = null where symbol = %(symbol)s and token = %(token)s"
)

REVIVE = """
update assetbatch.bar_state b set failures = 0, retry_at = null, error_kind = null, error = null
from assetbatch.assets a
where a.symbol = b.symbol and a.asset_type = %(market)s and b.error_kind = any(%(kinds)s)
"""

# Bars that fail are asked for again this often at least.
LONGEST_SECONDS = 86_400.0

READ_STATES = """
select b.symbol, least(b.wanted_since, lower(u.ranges)) as wanted_since, b.asked_until
from assetbatch.bar_state b left join assetbatch.unadjusted_bars u using (symbol)
where b.symbol = any(%(symbols)s)
"""

ARE_PARTITIONED = "select from assetbatch.meta where key = 'bars' and value = 'partitioned'"

KEEP_PARTITIONS = "select assetbatch.keep_partitions(%(since)s, %(kept_since)s)"


class Claimed(Struct, frozen=True):
    """The right to ask for one asset's bars, for as long as one call takes."""

    track: Track
    token: UUID

    @property
    def key(self) -> dict[str, object]:
        """By what the row is found, as long as the right is this one."""
        return {"symbol": self.track.asset.symbol, "token": self.token}


class Learned(Struct, frozen=True):
    """What a call has told of an asset's bars, beside them; None: nothing new, but of `source_told_at`."""

    source_minutes: int
    source_told_at: datetime | None = None
    asked_since: datetime | None = None
    asked_until: datetime | None = None
    asked_at: datetime | None = None
    rechecked_at: datetime | None = None


def due(
    connection: Connection,
    limits: Sequence[tuple[int, Market, datetime, datetime]],
    *,
    symbols: Sequence[str] | None,
    now: datetime,
    limit: int,
) -> list[tuple[str, AssetType]]:
    """Return whose newest bars are due, and of which type they are, the most important first.

    `limits` has for each frequency and market before when they must have been asked for, and how far they reach now.
    """
    rows = connection.execute(
        DUE,
        {
            "frequencies": [seconds for seconds, _, _, _ in limits],
            "markets": [market.value for _, market, _, _ in limits],
            "asked_before": [moment for _, _, moment, _ in limits],
            "until": [moment for _, _, _, moment in limits],
            "symbols": None if symbols is None else list(symbols),
            "now": now,
            "limit": limit,
        },
    )
    return [(row["symbol"], AssetType(row["asset_type"])) for row in rows]


def states(connection: Connection, symbols: Sequence[str]) -> dict[str, tuple[datetime, datetime | None]]:
    """Read since when bars are wanted, or are to be fetched again, and until when they were asked for."""
    rows = connection.execute(READ_STATES, {"symbols": list(symbols)})
    return {row["symbol"]: (row["wanted_since"], row["asked_until"]) for row in rows}


def claim(
    connection: Connection,
    symbol: str,
    *,
    wanted_since: datetime,
    kept_since: datetime | None,
    seconds: float,
    now: datetime,
    run_id: int | None = None,
) -> Claimed | None:
    """Take the right to ask for an asset's bars; None where another run has it, or the asset is gone.

    Bars are wanted since `wanted_since`, or since an earlier time that was wanted before; none are kept before
    `kept_since`.
    """
    token = new_token(run_id)
    wanted = {"symbols": [symbol], "wanted_since": wanted_since, "kept_since": kept_since}
    claiming = command(CLAIM, wanted | {"token": token, "seconds": seconds})
    track = tracks([symbol], wanted_since=wanted_since, kept_since=kept_since, now=now)
    # As long as for a statement on its own: a run that was killed may hold the row until its session ends.
    connection.ask(claiming, track, lock_timeout="0")
    if not claiming.answer and release_dead(connection):
        connection.ask(claiming, track, lock_timeout="0")
    return Claimed(track.answer[0], token) if claiming.answer else None


def tracks(
    symbols: Sequence[str], *, wanted_since: datetime, kept_since: datetime | None, now: datetime
) -> Query[list[Track]]:
    """Ask what is known of these assets' bars, in this order."""
    return Query(
        READ_TRACKS,
        {
            "symbols": list(symbols),
            "wanted_since": wanted_since,
            "kept_since": kept_since,
            "page_since": now - ONE_PAGE,
            "page": ONE_PAGE,
            "told_before": now - TOLD_AGAIN,
            "now": now,
        },
        lambda rows: [
            filled(Track, row, asset=asset_of(row), watermark=row["newest"], unadjusted=_unadjusted(row))
            for row in rows
        ],
    )


def _unadjusted(row: Row) -> Span | None:
    return None if row["unadjusted_since"] is None else Span(row["unadjusted_since"], row["unadjusted_until"])


def release(connection: Connection, claimed: Claimed) -> None:
    """Let another run ask."""
    connection.execute(RELEASE, claimed.key)


def fail(
    connection: Connection,
    claimed: Claimed,
    *,
    kind: FailureKind,
    error: str,
    first_seconds: float,
    longest_seconds: float = LONGEST_SECONDS,
    now: datetime,
) -> None:
    """Note that a call failed: its asset's bars are asked for again after `first_seconds`, doubled each time."""
    why = {"kind": kind.value, "error": error}
    when = {"first_seconds": first_seconds, "longest_seconds": longest_seconds, "now": now}
    connection.execute(FAIL, claimed.key | why | when)


def revive(connection: Connection, market: AssetType, *, kinds: Sequence[str]) -> None:
    """Let a market's bars be asked for at once whose calls failed so: what was in their way has ended."""
    connection.execute(REVIVE, {"market": market.value, "kinds": list(kinds)})


def hold(connection: Connection, claimed: Claimed) -> bool:
    """Keep the lease until the transaction ends; False: another run has it, or the asset is gone."""
    return connection.execute(HOLD, claimed.key).fetchone() is not None


def finish(connection: Connection, claimed: Claimed, learned: Learned, *, has_finality: bool = True) -> None:
    """Note what a call has told, and let another run ask."""
    connection.execute(FINISH if has_finality else FINISH_BARE, claimed.key | asdict(learned))


def keep_partitions(connection: Connection, *, since: datetime, kept_since: datetime | None) -> None:
    """Create the months that are needed, and drop those that are not kept; of a plain table, nothing."""
    # They are made three months ahead: behind somebody's long read, tomorrow does as well.
    with suppress(psycopg.errors.LockNotAvailable):
        wanted = {"since": since, "kept_since": kept_since}
        in_transaction(connection, lambda: connection.execute(KEEP_PARTITIONS, wanted), lock_timeout="1s")


def are_partitioned(connection: Connection) -> bool:
    """Return whether the table of the bars is the tool's own, with a partition for each month."""
    return connection.execute(ARE_PARTITIONED).fetchone() is not None
