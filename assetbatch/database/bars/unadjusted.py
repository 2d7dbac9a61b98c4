"""Bars as they were before a split: which they are, and that they were fetched again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.rows import value
from assetbatch.plans import ASK_AGAIN

if TYPE_CHECKING:
    from datetime import date, datetime
    from decimal import Decimal

    from assetbatch.database.connection import Connection
    from assetbatch.model import Span

# All that was fetched before the vendor had it adjusted, as far back as it can be had; what is applied at the same time
# by another run is left to that. Where a platform's own table does not tell when a bar was fetched, the column's name
# means that of `bare`: any may have been before. For a day it is doubted that a page which changes nothing is adjusted;
# what was withdrawn the vendor need never have adjusted. A finished day whose figures came before is asked for once
# more, where prices are those of finished days.
APPLY = """
with come as materialized (
  select ticker, execution_date, executed_at, adjusted_from, split_from, split_to, withdrawn_at
  from assetbatch.splits where not is_applied and adjusted_from <= %(now)s
  order by ticker, execution_date for update skip locked
), applied as (
  update assetbatch.splits s set is_applied = true
  from come c where (s.ticker, s.execution_date) = (c.ticker, c.execution_date)
), figures as (
  update assetbatch.sync_state y set day = null
  from come c join assetbatch.assets a on a.polygon_ticker = c.ticker
  where y.symbol = a.symbol and y.day < c.execution_date and exists (
    select from assetbatch.daily_figures d
    where d.market = a.asset_type and d.day = y.day and d.asked_at < c.adjusted_from
  )
), stale as (
  select a.symbol, c.execution_date, c.split_from, c.split_to, c.withdrawn_at is not null as is_withdrawn,
         c.adjusted_from, c.executed_at, there.*
  from come c
  join assetbatch.assets a on a.polygon_ticker = c.ticker
  join trading.symbols s using (symbol)
  cross join (values ('-infinity'::timestamptz)) as bare (fetched_at)
  cross join lateral (
    select min(b.ts) as since, count(*) as bars
    from market_data.ohlcv_5m b
    where b.symbol_id = s.id and b.ts >= coalesce(%(reach)s::timestamptz, '-infinity') and b.ts < c.executed_at
      and coalesce(fetched_at < c.adjusted_from, true)
  ) there
  where there.bars > 0
), put as (
  insert into assetbatch.unadjusted_bars as u (symbol, ranges, adjusted_from, doubted_until, ask_at)
  select symbol, range_agg(tstzrange(since, executed_at)), max(adjusted_from),
         max(executed_at + case when is_withdrawn then interval '0' else interval '28 hours' end), %(now)s
  from stale group by symbol
  on conflict (symbol) do update
  set ranges = u.ranges + excluded.ranges, adjusted_from = greatest(u.adjusted_from, excluded.adjusted_from),
      doubted_until = greatest(u.doubted_until, excluded.doubted_until), ask_at = excluded.ask_at
)
select symbol, execution_date, split_from, split_to, is_withdrawn, bars from stale order by symbol, execution_date
"""

# Where a table does not tell when a bar was fetched, none counts.
COUNT_STALE = """
select count(*) as bars
from assetbatch.unadjusted_bars u
join trading.symbols s using (symbol)
cross join (values ('infinity'::timestamptz)) as bare (fetched_at)
cross join lateral (
  select fetched_at from market_data.ohlcv_5m b
  where b.symbol_id = s.id and b.ts >= %(since)s and b.ts < %(until)s and u.ranges @> b.ts
) o
where u.symbol = %(symbol)s and o.fetched_at < u.adjusted_from
"""

# Bars that the vendor does not have any more stay as they are: it would be as wrong to lose them. While it has not
# adjusted them, what it has of before the split is to be fetched again, too.
NOTE_FETCHED = """
with seen as materialized (
  select u.symbol, u.ranges - tstzmultirange(tstzrange(%(since)s, %(until)s)) as rest,
         %(kept)s = 0 or %(kept)s < %(stale)s or u.doubted_until <= %(asked_at)s as is_adjusted
  from assetbatch.unadjusted_bars u
  where u.symbol = %(symbol)s and u.adjusted_from <= %(asked_at)s
), ended as (
  delete from assetbatch.unadjusted_bars u using seen
  where u.symbol = seen.symbol and seen.is_adjusted and isempty(seen.rest)
), shortened as (
  update assetbatch.unadjusted_bars u
  set ranges = case when seen.is_adjusted then seen.rest else u.ranges end,
      adjusted_from = case when seen.is_adjusted then u.adjusted_from else %(ask_at)s end,
      ask_at = case when seen.is_adjusted then u.ask_at else %(ask_at)s end
  from seen where u.symbol = seen.symbol and not (seen.is_adjusted and isempty(seen.rest))
)
select is_adjusted, isempty(rest) as is_last from seen
"""

LEAVE = """
with rest as (
  select symbol, ranges - tstzmultirange(tstzrange(%(since)s, %(until)s)) as ranges
  from assetbatch.unadjusted_bars where symbol = %(symbol)s
), ended as (
  delete from assetbatch.unadjusted_bars u using rest where u.symbol = rest.symbol and isempty(rest.ranges)
)
update assetbatch.unadjusted_bars u set ranges = rest.ranges
from rest where u.symbol = rest.symbol and not isempty(rest.ranges)
"""


class Applied(Struct, frozen=True):
    """A split that has come, or was withdrawn since, and how many bars of an asset it changes."""

    symbol: str
    execution_date: date
    split_from: Decimal
    split_to: Decimal
    is_withdrawn: bool
    bars: int


class Fetched(Struct, frozen=True):
    """What a page has done about bars of before a split.

    `kept` are as they were, since the vendor has none for them, or the same; `is_adjusted`: it has adjusted them, else
    they are asked for again in an hour; `is_last`: nothing is left to be fetched.
    """

    kept: int
    is_adjusted: bool
    is_last: bool


def apply(connection: Connection, *, reach: datetime | None, now: datetime) -> list[Applied]:
    """Note which bars the splits change that have come; return whose.

    `reach` is how far back bars can be had at all, None: without limit.
    """
    rows = connection.execute(APPLY, {"reach": reach, "now": now})
    return [Applied(**row) for row in rows]


def count_stale(connection: Connection, symbol: str, span: Span) -> int:
    """Count the bars of a span that are to be fetched again and were not yet."""
    covered = {"symbol": symbol, "since": span.since, "until": span.until}
    return int(value(connection.execute(COUNT_STALE, covered)))


def note_fetched(connection: Connection, symbol: str, span: Span, *, stale: int, asked_at: datetime) -> Fetched | None:
    """Note, in the transaction that stores it, that a page has brought what there is of a span; None: nobody waited.

    Before it was stored, `stale` bars were to be fetched again.
    """
    kept = count_stale(connection, symbol, span)
    covered = {"symbol": symbol, "since": span.since, "until": span.until, "stale": stale, "kept": kept}
    times = {"asked_at": asked_at, "ask_at": asked_at + ASK_AGAIN}
    row = connection.execute(NOTE_FETCHED, covered | times).fetchone()
    return None if row is None else Fetched(kept, **row)


def leave(connection: Connection, symbol: str, span: Span) -> None:
    """Leave bars as they are that the plan does not reach back to."""
    connection.execute(LEAVE, {"symbol": symbol, "since": span.since, "until": span.until})
