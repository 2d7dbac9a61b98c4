"""Points of a chart: bars that are final, put together where there are more than it has room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.catalogue import asset_of
from assetbatch.database.query import Query
from assetbatch.database.rows import one
from assetbatch.words import moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from decimal import Decimal

    from assetbatch.model import Asset, Span

# As elsewhere, a platform's own table may not tell which bars are final: then the column's name means that of `bare`,
# and those are, as are nulls, that were asked for once they were settled. It may have bars without a price, too, or NaN
# for one: those are no points.
READ_CHARTED = """
select a.*, t.metadata -> 'last_update' ->> 'last_price' as price, t.metadata -> 'last_update' ->> 'timestamp' as at,
       newest.ts as newest, statement_timestamp() as now
from assetbatch.assets a
left join trading.symbols t using (symbol)
left join assetbatch.bar_state k using (symbol)
cross join (values (null::boolean)) as bare (is_final)
left join lateral (
  select b.ts from market_data.ohlcv_5m b
  where b.symbol_id = t.id and coalesce(is_final, b.ts < coalesce(k.asked_until, 'infinity'))
  order by b.ts desc limit 1
) newest on true
where a.symbol = %(symbol)s
"""

READ_POINTS = """
select date_bin(%(length)s::interval, b.ts, timestamptz '1970-01-01 00:00Z') as ts,
       (array_agg(b.open order by b.ts))[1]::numeric as open, max(b.high)::numeric as high, min(b.low)::numeric as low,
       (array_agg(b.close order by b.ts desc))[1]::numeric as close, count(*)::int as bars
from trading.symbols t
left join assetbatch.bar_state k using (symbol)
cross join (values (null::boolean)) as bare (is_final)
cross join lateral (
  select o.ts, o.open, o.high, o.low, o.close from market_data.ohlcv_5m o
  where o.symbol_id = t.id and o.ts >= %(since)s and o.ts < %(until)s
    and coalesce(is_final, o.ts < coalesce(k.asked_until, 'infinity'))
    and abs(o.open) < 'infinity' and abs(o.high) < 'infinity' and abs(o.low) < 'infinity' and abs(o.close) < 'infinity'
) b
where t.symbol = %(symbol)s
group by 1
order by 1
"""

COUNT_OPEN = """
select count(*)::int as bars
from trading.symbols t
join assetbatch.bar_state k using (symbol)
cross join (values (null::boolean)) as bare (is_final)
cross join lateral (
  select from market_data.ohlcv_5m o
  where o.symbol_id = t.id and o.ts >= %(since)s
    and not coalesce(is_final, o.ts < coalesce(k.asked_until, 'infinity'))
) b
where t.symbol = %(symbol)s
"""


class Charted(Struct, frozen=True):
    """An asset, its newest price (the vendor's digits) and when the market made it; its newest final bar's open."""

    now: datetime
    asset: Asset
    price: str | None
    price_at: datetime | None
    newest: datetime | None


class Point(Struct, frozen=True):
    """So many bars, from `ts` on, put together."""

    ts: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    bars: int


def charted(symbol: str) -> Query[Charted | None]:
    """Ask what is known of an asset; None: the catalogue has none of this name."""
    return Query(
        READ_CHARTED,
        {"symbol": symbol},
        lambda rows: next(
            (Charted(row["now"], asset_of(row), row["price"], moment(row["at"]), row["newest"]) for row in rows), None
        ),
    )


def points(symbol: str, span: Span, *, length: timedelta) -> Query[Sequence[Point]]:
    """Ask for the final bars of a time, those of each `length` put together, in order; none where there is no bar."""
    return Query(
        READ_POINTS,
        {"symbol": symbol, "since": span.since, "until": span.until, "length": length},
        lambda rows: [Point(**row) for row in rows],
    )


def open_bars(symbol: str, since: datetime) -> Query[int]:
    """Ask how many bars since a time are there that are not final yet."""
    return Query(COUNT_OPEN, {"symbol": symbol, "since": since}, lambda rows: int(one(rows)["bars"]))
