"""What `forecast` counts: what waits in the queue, and what is going to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch.model import AssetType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.markets import Market

# With live prices those do not count whose market rests and that were served since it closed; with those of finished
# days, only those that lack the day that can be had of their market, and whose ticker is not refused.
QUEUED = """
select a.asset_type, count(*) as items
from assetbatch.queue q
join assetbatch.assets a using (symbol)
join unnest(%(markets)s::text[], %(daily)s::boolean[], %(days)s::date[]) as w (asset_type, daily, day)
  using (asset_type)
left join unnest(%(hours)s::text[], %(closed_at)s::timestamptz[]) as c (market, closed_at) using (market)
left join assetbatch.sync_state s using (symbol)
where q.state <> 'dead'
  and case when w.daily then coalesce(s.day, '-infinity') < w.day and not a.polygon_ticker = any(%(refused)s::text[])
           else c.market is null or (c.closed_at is not null and coalesce(q.served_at <= c.closed_at, true)) end
group by a.asset_type
"""

# What is streamed now is taken to be streamed then.
DUE = """
select a.asset_type, count(*) as items
from assetbatch.assets a
join unnest(
  %(frequencies)s::int[], %(hours)s::text[], %(served_before)s::timestamptz[]
) as l (update_frequency_seconds, market, served_before) using (update_frequency_seconds, market)
join unnest(%(markets)s::text[], %(daily)s::boolean[], %(days)s::date[]) as w (asset_type, daily, day)
  using (asset_type)
left join assetbatch.sync_state s using (symbol)
left join assetbatch.streamed t using (symbol)
where a.enabled and a.role = 'secondary' and not exists (select from assetbatch.queue q where q.symbol = a.symbol)
  and a.symbol not in (select symbol from assetbatch.gone_tickers)
  and case when w.daily then coalesce(s.day, '-infinity') < w.day and not a.polygon_ticker = any(%(refused)s::text[])
           else t.symbol is null and coalesce(s.served_at < l.served_before, true) end
group by a.asset_type
"""

STREAMED = "select symbol from assetbatch.streamed join assetbatch.assets using (symbol) where enabled"


def streamed(connection: Connection) -> set[str]:
    """Return the assets that a stream keeps fresh now, so that no call has to ask for their quotes."""
    return {row["symbol"] for row in connection.execute(STREAMED)}


def _days(days: Mapping[AssetType, date | None], refused: Collection[str]) -> dict[str, object]:
    return {
        "refused": list(refused),
        "markets": [market.value for market in AssetType],
        "days": [days.get(market) for market in AssetType],
        "daily": [market in days for market in AssetType],
    }


def queued(
    connection: Connection,
    resting: Mapping[Market, datetime | None],
    days: Mapping[AssetType, date | None],
    refused: Collection[str],
) -> dict[AssetType, int]:
    """Count the items of each market that need a call; `days` and `refused` as with the enqueueing.

    `resting` has the markets that rest, and since when; None: that is not known.
    """
    hours = {"hours": [market.value for market in resting], "closed_at": list(resting.values())}
    rows = connection.execute(QUEUED, hours | _days(days, refused))
    return {AssetType(row["asset_type"]): row["items"] for row in rows}


def due(
    connection: Connection,
    limits: Sequence[tuple[int, Market, datetime]],
    days: Mapping[AssetType, date | None],
    refused: Collection[str],
) -> dict[AssetType, int]:
    """Count the secondary assets of each market that are due and not on the queue.

    `limits` has for each frequency and market before when assets must have been served to be due.
    """
    rows = connection.execute(
        DUE,
        {
            "frequencies": [seconds for seconds, _, _ in limits],
            "hours": [market.value for _, market, _ in limits],
            "served_before": [moment for _, _, moment in limits],
        }
        | _days(days, refused),
    )
    return {AssetType(row["asset_type"]): row["items"] for row in rows}
