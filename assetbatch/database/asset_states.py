"""How all assets stand, counted in one statement, and the few that stand worst."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.market_hours import Market

# The words are those of `report.freshness.Freshness`, and so is the order in which they are tried.
JUDGE = """
with limits as (
  select * from unnest(
    %(frequencies)s::int[], %(markets)s::text[], %(stale_before)s::timestamptz[], %(fresh_since)s::timestamptz[],
    %(days)s::date[], %(rest)s::boolean[]
  ) as l (update_frequency_seconds, market, stale_before, fresh_since, day, rests)
), judged as materialized (
  select a.symbol, s.succeeded_at,
         case when s.error_kind = 'not_entitled' then 'not_entitled'
              when l.rests then 'closed'
              when s.error_kind is not null then 'failing'
              when s.succeeded_at is null then 'never'
              when %(daily)s then case when coalesce(s.day, '-infinity') < l.day then 'stale' else 'end_of_day' end
              when s.succeeded_at < l.stale_before then 'stale'
              when s.succeeded_at >= l.fresh_since then 'fresh'
              else 'closed' end as state
  from assetbatch.assets a
  join limits l using (update_frequency_seconds, market)
  left join assetbatch.sync_state s using (symbol)
  where a.enabled and a.symbol <> all(%(apart)s)
)
select coalesce((
         select jsonb_object_agg(state, assets)
         from (select state, count(*) as assets from judged group by state) counted
       ), '{}') as counts,
       array(
         select symbol from judged
         where state in ('failing', 'stale', 'never', 'not_entitled')
         order by array_position(array['failing', 'stale', 'never', 'not_entitled'], state),
                  succeeded_at nulls first, symbol
         limit %(most)s
       ) as worst
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """What assets of one frequency and market are held against.

    With live prices: stale is what was last updated before `stale_before`, fresh what was since `fresh_since`. With
    those of finished days: stale is what lacks `day`; None: that is not late yet. `rests`: the vendor says so.
    """

    update_frequency_seconds: int
    market: Market
    stale_before: datetime
    fresh_since: datetime
    day: date | None = None
    rests: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """How many assets are in each state, and the symbols of those that are worst off, the worst first."""

    counts: Mapping[str, int] = field(default_factory=dict)
    worst: tuple[str, ...] = ()


def judge(
    connection: Connection, limits: Sequence[Limit], *, daily: bool, apart: Sequence[str], most_worst: int
) -> Judged:
    """Judge all enabled assets but those set `apart`; `daily`: prices are those of finished days."""
    row = connection.execute(
        JUDGE,
        {
            "frequencies": [one.update_frequency_seconds for one in limits],
            "markets": [one.market.value for one in limits],
            "stale_before": [one.stale_before for one in limits],
            "fresh_since": [one.fresh_since for one in limits],
            "days": [one.day for one in limits],
            "rest": [one.rests for one in limits],
            "daily": daily,
            "apart": list(apart),
            "most": most_worst,
        },
    ).fetchone()
    assert row is not None  # noqa: S101 - a select without from has one row
    return Judged(row["counts"], tuple(row["worst"]))
