"""Holes: where bars are missing, and the reasons for which they may be."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch.model import Span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from assetbatch.bars import Harvest
    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType

# Holes are looked for where nobody has looked for longest.
NEXT_TO_SCAN = """
select a.symbol
from assetbatch.assets a join assetbatch.bar_state b using (symbol)
where a.enabled and b.asked_until is not null
  and exists (select from trading.symbols s where s.symbol = a.symbol)
  and coalesce(b.scanned_at < %(scanned_before)s, true)
  and coalesce(b.retry_at <= %(now)s, true) and coalesce(b.leased_until < clock_timestamp(), true)
order by a.role, b.scanned_at nulls first, a.symbol
limit %(limit)s
"""

MARK_SCANNED = "update assetbatch.bar_state set scanned_at = %(now)s where symbol = %(symbol)s"

HAS_FINALITY = """
select count(*) = 2 as yes from pg_attribute
where attrelid = 'market_data.ohlcv_5m'::regclass and attname in ('is_final', 'fetched_at') and not attisdropped
"""

# What is wanted, less the bars that are there, less what is absent for a reason that still holds.
HOLES = """
with wanted (r) as (
  select tstzmultirange(tstzrange(%(since)s, greatest(%(since)s, %(until)s)))
), covered (r) as (
  select coalesce(range_agg(tstzrange(b.ts, b.ts + interval '5 minutes')), '{}')
  from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
  where s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s and b.is_final
), absent (r) as (
  select coalesce(range_agg(r), '{}') from assetbatch.bar_absences a, unnest(a.ranges) r
  where a.symbol = %(symbol)s and a.month >= date_trunc('month', %(since)s at time zone 'UTC')
    and (a.reason <> 'failed' or a.noted_at > %(failed_since)s)
    and (a.reason <> 'not_entitled' or a.told = %(told)s)
)
select lower(hole) as since, upper(hole) as until
from wanted, covered, absent, unnest(wanted.r - covered.r - absent.r) hole
order by 1
"""

# For a platform's own table without that column: what was open before a long stop cannot be told there.
HOLES_BARE = """
with wanted (r) as (
  select tstzmultirange(tstzrange(%(since)s, greatest(%(since)s, %(until)s)))
), covered (r) as (
  select coalesce(range_agg(tstzrange(b.ts, b.ts + interval '5 minutes')), '{}')
  from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
  where s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s
), absent (r) as (
  select coalesce(range_agg(r), '{}') from assetbatch.bar_absences a, unnest(a.ranges) r
  where a.symbol = %(symbol)s and a.month >= date_trunc('month', %(since)s at time zone 'UTC')
    and (a.reason <> 'failed' or a.noted_at > %(failed_since)s)
    and (a.reason <> 'not_entitled' or a.told = %(told)s)
)
select lower(hole) as since, upper(hole) as until
from wanted, covered, absent, unnest(wanted.r - covered.r - absent.r) hole
order by 1
"""

# What a page covers and has no bar for is absent for a reason; other reasons that were noted for that time are gone.
NOTE_ABSENCES = """
with asked (r) as (
  select tstzmultirange(tstzrange(%(since)s, %(until)s))
), absent (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(absent_since)b::timestamptz[], %(absent_until)b::timestamptz[]) as v (since, until)
), closed (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(closed_since)b::timestamptz[], %(closed_until)b::timestamptz[]) as v (since, until)
), invalid (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(invalid_since)b::timestamptz[], %(invalid_until)b::timestamptz[]) as v (since, until)
), found (reason, ranges) as (
  select 'closed', absent.r * closed.r - invalid.r from absent, closed, invalid
  union all select 'nothing', absent.r - closed.r - invalid.r from absent, closed, invalid
  union all select 'failed', invalid.r from invalid
  union all select 'not_entitled', '{}'
), months (month) as (
  select tstzmultirange(tstzrange(m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC'))
  from generate_series(
    date_trunc('month', %(since)s at time zone 'UTC'), %(until)s at time zone 'UTC', interval '1 month'
  ) m
)
insert into assetbatch.bar_absences as b (symbol, reason, month, ranges, noted_at)
select %(symbol)s, reason, (lower(month) at time zone 'UTC')::date, ranges * month, %(noted_at)s
from found, months
where not isempty(ranges * month)
   or exists (select from assetbatch.bar_absences o, asked
              where o.symbol = %(symbol)s and o.reason = found.reason and o.ranges && asked.r
                and o.month = (lower(months.month) at time zone 'UTC')::date)
on conflict (symbol, reason, month) do update
set ranges = case when b.reason = 'failed' and b.noted_at <= excluded.noted_at - interval '1 day'
                  then '{}' else b.ranges - (select r from asked) end + excluded.ranges,
    noted_at = case when b.reason = 'failed' and b.noted_at > excluded.noted_at - interval '1 day'
                    then b.noted_at else excluded.noted_at end
where b.ranges <> b.ranges - (select r from asked) + excluded.ranges
   or (b.reason = 'failed' and b.noted_at <= excluded.noted_at - interval '1 day')
"""

NOTE_NOT_ENTITLED = """
insert into assetbatch.bar_absences as b (symbol, reason, month, ranges, noted_at, told)
select %(symbol)s, 'not_entitled', m,
       tstzmultirange(tstzrange(%(since)s, %(until)s)
                      * tstzrange(m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC')),
       %(noted_at)s, %(told)s
from generate_series(
  date_trunc('month', %(since)s at time zone 'UTC'), %(until)s at time zone 'UTC' - interval '1 microsecond',
  interval '1 month'
) m
on conflict (symbol, reason, month) do update
set ranges = excluded.ranges + case when b.told = excluded.told then b.ranges else '{}' end,
    noted_at = excluded.noted_at, told = excluded.told
"""


FORGET_NOT_ENTITLED = """
delete from assetbatch.bar_absences b using assetbatch.assets a
where a.symbol = b.symbol and a.asset_type = %(market)s and b.reason = 'not_entitled' and b.told = %(told)s
"""


def next_to_scan(connection: Connection, *, scanned_before: datetime, now: datetime, limit: int) -> list[str]:
    """Tell where nobody has looked for holes since `scanned_before`."""
    rows = connection.execute(NEXT_TO_SCAN, {"scanned_before": scanned_before, "now": now, "limit": limit})
    return [row["symbol"] for row in rows]


def mark_scanned(connection: Connection, symbol: str, now: datetime) -> None:
    """Note that an asset's holes are not to be looked for again in this run."""
    connection.execute(MARK_SCANNED, {"symbol": symbol, "now": now})


def has_finality(connection: Connection) -> bool:
    """Tell whether the table of the bars has the columns that say which are final; a platform's own may lack them."""
    row = connection.execute(HAS_FINALITY).fetchone()
    return row is not None and bool(row["yes"])


def holes(
    connection: Connection, symbol: str, span: Span, *, now: datetime, told: str, has_finality: bool
) -> list[Span]:
    """Find where bars are missing within a span, for no reason that still holds, in the order of time.

    `told` names plan and key, as `note_not_entitled` did; `has_finality`: the table tells which bars are final.
    """
    rows = connection.execute(
        HOLES if has_finality else HOLES_BARE,
        {
            "symbol": symbol,
            "since": span.since,
            "until": span.until,
            "failed_since": now - timedelta(days=1),
            "told": told,
        },
    )
    return [Span(row["since"], row["until"]) for row in rows]


def note_absences(
    connection: Connection, symbol: str, harvest: Harvest, *, span: Span, closed: Sequence[Span], noted_at: datetime
) -> None:
    """Note why a page has no bar where it has none: within what it covers, and `closed` is when the market rested."""
    if span.since >= harvest.until:
        return
    connection.execute(
        NOTE_ABSENCES,
        {
            "symbol": symbol,
            "since": span.since,
            "until": harvest.until,
            "absent_since": [one.since for one in harvest.absent],
            "absent_until": [one.until for one in harvest.absent],
            "closed_since": [one.since for one in closed],
            "closed_until": [one.until for one in closed],
            "invalid_since": [one.since for one in harvest.invalid],
            "invalid_until": [one.until for one in harvest.invalid],
            "noted_at": noted_at,
        },
    )


def note_not_entitled(connection: Connection, symbol: str, span: Span, *, told: str, noted_at: datetime) -> None:
    """Note that a plan and key may not see these bars: they are not asked for again with them."""
    connection.execute(
        NOTE_NOT_ENTITLED,
        {"symbol": symbol, "since": span.since, "until": span.until, "told": told, "noted_at": noted_at},
    )


def forget_not_entitled(connection: Connection, market: AssetType, *, told: str) -> None:
    """Let a market's bars be holes again that a plan and key could not see."""
    connection.execute(FORGET_NOT_ENTITLED, {"market": market.value, "told": told})
