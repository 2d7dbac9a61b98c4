"""The closing prices of the last day, hour by hour, as `status` draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.database.query import Query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from assetbatch.database.connection import Row

HOURS = 24

# Hours are counted back from now, so that the last one is whole, too. A platform's own table may have NaN, or nothing.
READ_CLOSES = """
select s.symbol, floor(extract(epoch from %(now)s - b.ts) / 3600)::int as hours_ago,
       (array_agg(b.close order by b.ts desc))[1] as close
from trading.symbols s
join market_data.ohlcv_5m b on b.symbol_id = s.id and b.ts > %(now)s - interval '24 hours' and b.ts <= %(now)s
where s.symbol = any(%(symbols)s) and abs(b.close) < 'infinity'
group by s.symbol, hours_ago
"""


def hourly(symbols: Sequence[str], now: datetime) -> Query[Mapping[str, Sequence[Decimal | None]]]:
    """Ask for the last close of each of the last 24 hours, the oldest first; None: no bar began in that hour.

    What has no bar at all is left out.
    """
    return Query(READ_CLOSES, {"symbols": list(symbols), "now": now}, lambda cursor: _read(cursor.fetchall()))


def _read(rows: Sequence[Row]) -> Mapping[str, Sequence[Decimal | None]]:
    found: dict[str, list[Decimal | None]] = {}
    for row in rows:
        closes = found.setdefault(row["symbol"], [None] * HOURS)
        closes[HOURS - 1 - row["hours_ago"]] = row["close"]
    return found
