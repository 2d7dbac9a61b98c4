"""One asset's history: all that the database knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from assetbatch.database.rows import value

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection, Row

READ_CATALOGUE = """
select symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, name, enabled, origin
from assetbatch.assets where symbol = %(symbol)s
"""

READ_PRICE = "select metadata -> 'last_update' as last_update from trading.symbols where symbol = %(symbol)s"

READ_ITEM = """
select state, priority, attempts, enqueued_at, available_at, leased_until, died_at, error_kind, error
from assetbatch.queue where symbol = %(symbol)s
"""

READ_BARS = """
select b.wanted_since, b.asked_until, there.watermark, b.source_minutes, b.retry_at, b.error_kind, b.error, there.stored
from assetbatch.bar_state b
cross join (values (null::boolean)) as bare (is_final)
cross join lateral (
  select count(*) as stored,
         max(o.ts) filter (where coalesce(is_final, o.ts < coalesce(b.asked_until, 'infinity'))) as watermark
  from market_data.ohlcv_5m o join trading.symbols s on s.id = o.symbol_id
  where s.symbol = b.symbol
) there
where b.symbol = %(symbol)s
"""

READ_ABSENCES = """
select reason, (extract(epoch from sum(upper(r) - lower(r))) / 300)::bigint as bars,
       min(lower(r)) as since, max(upper(r)) as until
from (
  select reason, ranges from assetbatch.bar_absences where symbol = %(symbol)s
  union all
  select 'nothing_told_once', ranges from assetbatch.bar_silences where symbol = %(symbol)s
) a, unnest(a.ranges) r
group by reason
order by reason
"""

# Of the newest splits of its ticker, how many bars are still as they were before: `waiting` to be fetched again, or
# `kept` since the vendor has no others. Where a table does not tell when a bar was fetched, none is counted as kept.
READ_SPLITS = """
select p.execution_date, p.split_from, p.split_to, p.executed_at, p.withdrawn_at, there.waiting, there.kept
from assetbatch.assets a
join assetbatch.splits p on p.ticker = a.polygon_ticker
left join trading.symbols s on s.symbol = a.symbol
left join assetbatch.unadjusted_bars u on u.symbol = a.symbol
cross join (values ('infinity'::timestamptz)) as bare (fetched_at)
cross join lateral (
  select count(*) filter (where coalesce(u.ranges @> b.ts, false)) as waiting,
         count(*) filter (where fetched_at < p.adjusted_from and not coalesce(u.ranges @> b.ts, false)) as kept
  from market_data.ohlcv_5m b where b.symbol_id = s.id and b.ts < p.executed_at and p.is_applied
) there
where a.symbol = %(symbol)s
order by p.execution_date desc
limit %(limit)s
"""

READ_LIFE = """
select state, delisted_on, became, figi, reused_on, asked_at, ask_at
from assetbatch.ticker_lives where symbol = %(symbol)s
"""

READ_STREAMED = "select exists (select from assetbatch.streamed where symbol = %(symbol)s) as is_streamed"

# Calls are found by their time, not by their asset: looking at the newest of them bounds what that costs.
READ_CALLS = """
select at, kind, outcome, http_status, latency_ms
from (select * from assetbatch.api_calls order by id desc limit %(looked_at)s) newest
where symbol = %(symbol)s
order by id desc
limit %(limit)s
"""

CALLS_LOOKED_AT = 100_000
MOST_CALLS = 10
MOST_SPLITS = 5


class AssetHistory(Struct, frozen=True):
    """Rows as they were read; None: there is none."""

    catalogue: Row | None
    price: Any
    item: Row | None
    bars: Row | None
    absences: list[Row]
    splits: list[Row]
    calls: list[Row]
    is_streamed: bool
    """A stream keeps its price fresh now: no call asks for its quote."""
    life: Row | None = None
    """What the reference list says of its ticker, where that was asked."""


def read(connection: Connection, symbol: str) -> AssetHistory:
    """Read what is known of an asset; the newest calls that covered it alone, as far as they are not long past."""
    asset = {"symbol": symbol}
    return AssetHistory(
        catalogue=connection.execute(READ_CATALOGUE, asset).fetchone(),
        price=value(connection.execute(READ_PRICE, asset)),
        item=connection.execute(READ_ITEM, asset).fetchone(),
        bars=connection.execute(READ_BARS, asset).fetchone(),
        absences=connection.execute(READ_ABSENCES, asset).fetchall(),
        splits=connection.execute(READ_SPLITS, asset | {"limit": MOST_SPLITS}).fetchall(),
        calls=connection.execute(READ_CALLS, asset | {"looked_at": CALLS_LOOKED_AT, "limit": MOST_CALLS}).fetchall(),
        is_streamed=bool(value(connection.execute(READ_STREAMED, asset))),
        life=connection.execute(READ_LIFE, asset).fetchone(),
    )
