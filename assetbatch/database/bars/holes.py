"""Holes: where bars are missing, for no reason that is noted in `bar_absences`, or are as they were before a split."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.bars import TOLD_AGAIN
from assetbatch.database.query import Query
from assetbatch.database.rows import value
from assetbatch.model import AssetType, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection

# For so long nobody asks again for what the vendor had no bar for that is one, or the table did not take.
HELD = timedelta(days=1)

# Holes are looked for where nobody has looked for longest; nowhere while the table takes nothing, and not of a ticker
# that the vendor does not know. What a split has changed comes first, once that is known to have come into force.
NEXT_TO_SCAN = """
select a.symbol, a.asset_type
from assetbatch.assets a join assetbatch.bar_state b using (symbol)
left join assetbatch.unadjusted_bars n on n.symbol = a.symbol and n.ask_at <= %(now)s
where a.enabled and a.asset_type = any(%(types)s) and b.asked_until is not null
  and exists (select from trading.symbols s where s.symbol = a.symbol)
  and not exists (select from assetbatch.unknown_tickers u where u.symbol = a.symbol)
  and a.symbol not in (select symbol from assetbatch.gone_tickers)
  and not exists (
    select from assetbatch.splits p
    where p.ticker = a.polygon_ticker and not p.is_applied and p.executed_at <= %(now)s
  )
  and coalesce(b.scanned_at < %(scanned_before)s, true)
  and coalesce(b.retry_at <= %(now)s, true) and coalesce(b.leased_until < clock_timestamp(), true)
  and not exists (
    select from assetbatch.bar_state r join assetbatch.assets o using (symbol)
    where r.error_kind = 'refused_by_table' and r.retry_at > %(now)s and o.enabled
  )
order by n.symbol is null, a.role, b.scanned_at nulls first, a.symbol
limit %(limit)s
"""

MARK_SCANNED = "update assetbatch.bar_state set scanned_at = %(now)s where symbol = %(symbol)s"

HAS_FINALITY = """
select count(*) = 2 as yes from pg_attribute
where attrelid = 'market_data.ohlcv_5m'::regclass and attname in ('is_final', 'fetched_at') and not attisdropped
"""

# What is wanted, less the bars that are there, less what is absent for a reason that still holds; but for what is to be
# fetched again since a split. Where a platform's own table does not tell which bars are final, the column's name means
# that of `bare`, and all are; so is one of which its table does not tell, a null.
HOLES = """
with wanted (r) as (
  select tstzmultirange(tstzrange(%(since)s, greatest(%(since)s, %(until)s)))
), covered (r) as (
  select (
    select coalesce(range_agg(tstzrange(b.ts, b.ts + interval '5 minutes')), '{}')
    from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
    where s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s and coalesce(is_final, true)
  )
  from (values (true)) as bare (is_final)
), absent (r) as (
  select coalesce(range_agg(r), '{}') from (
    select a.ranges from assetbatch.bar_absences a
    where a.symbol = %(symbol)s and a.month >= date_trunc('month', %(since)s at time zone 'UTC')
      and (a.reason not in ('failed', 'refused') or a.noted_at > %(failed_since)s)
      and (a.reason <> 'not_entitled' or a.told = %(told)s)
    union all
    select i.ranges from assetbatch.bar_silences i
    where i.symbol = %(symbol)s and i.ask_at > %(now)s and coalesce(i.told_at > %(told_since)s, true)
  ) o, unnest(o.ranges) r
), unadjusted (r) as (
  select coalesce(range_agg(r), '{}') from assetbatch.unadjusted_bars u, unnest(u.ranges) r
  where u.symbol = %(symbol)s and u.ask_at <= %(now)s
)
select lower(hole) as since, upper(hole) as until
from wanted, covered, absent, unadjusted, unnest(wanted.r - (covered.r + absent.r - unadjusted.r)) hole
order by 1
"""

# The newest final bar of each asset, and how many are missing up to where its bars ought to reach by now: those that
# the table does not take are, the hours at which its market rests and what is absent for another reason are not, nor
# those of a ticker that the plan does not have.
COVERAGE = """
with asked as (
  select * from unnest(%(symbols)s::text[], %(until)s::timestamptz[], %(counted)s::boolean[], %(told)s::text[])
    as v (symbol, until, is_counted, told)
), rest as (
  select * from unnest(%(rest_symbols)s::text[], %(rest_since)s::timestamptz[], %(rest_until)s::timestamptz[])
    as v (symbol, since, until)
)
select a.symbol, newest.ts as newest, coalesce(gap.bars, 0)::int as missing, gap.oldest
from asked a
join assetbatch.bar_state t using (symbol)
left join trading.symbols s using (symbol)
cross join (values (null::boolean)) as bare (is_final)
cross join lateral (select greatest(t.wanted_since, %(since)s) as since) wanted
left join lateral (
  select b.ts from market_data.ohlcv_5m b
  where b.symbol_id = s.id and coalesce(is_final, b.ts < coalesce(t.asked_until, 'infinity'))
  order by b.ts desc limit 1
) newest on true
left join lateral (
  select sum(extract(epoch from upper(hole) - lower(hole))) / 300 as bars, min(lower(hole)) as oldest
  from unnest(
    case when a.is_counted and wanted.since < a.until and t.error_kind is distinct from 'not_entitled' then
      tstzmultirange(tstzrange(wanted.since, a.until))
      - (select coalesce(range_agg(tstzrange(b.ts, b.ts + interval '5 minutes')), '{}') from market_data.ohlcv_5m b
         where b.symbol_id = s.id and b.ts >= wanted.since and b.ts < a.until and coalesce(is_final, true))
      - (select coalesce(range_agg(r), '{}') from assetbatch.bar_absences o, unnest(o.ranges) r
         where o.symbol = a.symbol and o.month >= date_trunc('month', wanted.since at time zone 'UTC')
           and o.reason <> 'refused' and (o.reason <> 'failed' or o.noted_at > %(failed_since)s)
           and (o.reason <> 'not_entitled' or o.told = a.told))
      - (select coalesce(range_agg(r), '{}') from assetbatch.bar_silences i, unnest(i.ranges) r
         where i.symbol = a.symbol and i.ask_at > %(now)s)
      - (select coalesce(range_agg(tstzrange(rest.since, rest.until)), '{}') from rest where rest.symbol = a.symbol)
    end
  ) hole
) gap on true
"""


def next_to_scan(
    connection: Connection, *, types: Collection[AssetType], scanned_before: datetime, now: datetime, limit: int
) -> dict[str, AssetType]:
    """Return assets of these types where nobody has looked for holes since `scanned_before`."""
    of = {"types": [one.value for one in types]}
    rows = connection.execute(NEXT_TO_SCAN, of | {"scanned_before": scanned_before, "now": now, "limit": limit})
    return {row["symbol"]: AssetType(row["asset_type"]) for row in rows}


def mark_scanned(connection: Connection, symbol: str, now: datetime) -> None:
    """Note that an asset's holes are not to be looked for again in this run."""
    connection.execute(MARK_SCANNED, {"symbol": symbol, "now": now})


def has_finality(connection: Connection) -> bool:
    """Return whether the table of the bars has the columns that say which are final; a platform's own may lack them."""
    return bool(value(connection.execute(HAS_FINALITY)))


def holes(
    connection: Connection,
    symbol: str,
    span: Span,
    *,
    now: datetime,
    told: str,
    held: timedelta = HELD,
    at_once: bool = False,
) -> list[Span]:
    """Find where bars are missing within a span, for no reason that still holds, or unadjusted, in the order of time.

    `told` names plan and key, as `note_not_entitled` did; what is no bar, or was refused, is no hole while `held`. What
    the vendor had no bar for once is a hole after an hour if it is wanted `at_once`; else calls for the newest bars may
    ask for it in passing first.
    """
    rows = connection.execute(
        HOLES,
        {
            "symbol": symbol,
            "since": span.since,
            "until": span.until,
            "now": now,
            "failed_since": now - held,
            "told_since": now - TOLD_AGAIN if at_once else None,
            "told": told,
        },
    )
    return [Span(**row) for row in rows]


class Coverage(Struct, frozen=True):
    """What the table has of an asset's bars: the open of its newest final one, how many are `missing`, the oldest."""

    newest: datetime | None
    missing: int
    oldest_missing: datetime | None


def coverage(
    reaches: Mapping[str, datetime],
    *,
    counted: Collection[str],
    closed: Mapping[str, Sequence[Span]],
    since: datetime,
    now: datetime,
    told: Mapping[str, str],
) -> Query[dict[str, Coverage]]:
    """Ask by symbol what the table has of these assets' bars; nothing of one whose bars were never asked for.

    `reaches` tells until when the bars of each ought to be there by now. Those that are missing are counted for
    `counted` alone, from `since` on, or from when they are wanted if that is later; not where its market is `closed`,
    nor what is absent for a reason that holds. What the table refused is missing. `told` names plan and key.
    """
    rests = [(symbol, span) for symbol in counted for span in closed.get(symbol, ())]
    return Query(
        COVERAGE,
        {
            "symbols": list(reaches),
            "until": list(reaches.values()),
            "counted": [symbol in counted for symbol in reaches],
            "rest_symbols": [symbol for symbol, _ in rests],
            "rest_since": [span.since for _, span in rests],
            "rest_until": [span.until for _, span in rests],
            "since": since,
            "now": now,
            "failed_since": now - HELD,
            "told": [told[symbol] for symbol in reaches],
        },
        lambda rows: {row["symbol"]: Coverage(row["newest"], row["missing"], row["oldest"]) for row in rows},
    )
