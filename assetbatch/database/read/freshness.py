"""How fresh each asset is: judged here, once, in one statement for all of them; whoever tells of it reads it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from assetbatch.database.query import Query
from assetbatch.database.rows import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Row
    from assetbatch.markets import Market

# The states are those of `report.freshness.Freshness`. What the vendor left out of a finished day though it had it
# lately did not trade then; what it never had is a ticker that it does not know, a metal once two days lack it: one
# may be a holiday of its own. What was asked for since its market closed, and had no price, is closed, too. What is
# gone is in the state that the vendor's reference list says, for nobody asks for it.
JUDGE = """
with limits as (
  select * from unnest(
    %(update_frequency_seconds)s::int[], %(market)s::text[], %(stale_before)s::timestamptz[],
    %(fresh_since)s::timestamptz[], %(late_before)s::timestamptz[], %(never_before)s::timestamptz[],
    %(closed_at)s::timestamptz[], %(silent_before)s::timestamptz[], %(day)s::date[], %(rests)s::boolean[],
    %(daily)s::boolean[], %(rests_alone)s::boolean[]
  ) as l (
    update_frequency_seconds, market, stale_before, fresh_since, late_before, never_before, closed_at, silent_before,
    day, rests, daily, rests_alone
  )
), judged as materialized (
  select a.symbol, a.polygon_ticker, a.asset_type, a.role, a.rank, a.update_frequency_seconds, a.name, a.enabled,
         a.origin, s.succeeded_at, s.day, s.error_kind, coalesce(g.words, s.error) as error, v.state,
         case v.state when 'failing' then true
                      when 'stale' then a.enabled_at < l.stale_before
                      when 'never' then a.enabled_at < l.never_before
                      else false end as ill,
         v.state = 'failing' and exists (
           select from assetbatch.unknown_tickers u where u.symbol = a.symbol
         ) as unknown,
         coalesce(case when l.rests or s.succeeded_at is null or g.state is not null then false
                       when l.daily then coalesce(s.day, '-infinity') < l.day
                       else s.succeeded_at < l.late_before end, false) as late
  from assetbatch.assets a
  left join limits l using (update_frequency_seconds, market)
  left join assetbatch.sync_state s using (symbol)
  left join assetbatch.gone_tickers g using (symbol)
  cross join lateral (
    select coalesce(
             l.daily and l.rests_alone and s.error_kind = 'missing' and s.missing_since = s.day, false
           ) as paused
  ) p
  cross join lateral (
    select case when g.state is not null then g.state
                when s.error_kind = 'not_entitled' then 'not_entitled'
                when l.rests then 'closed'
                when s.error_kind is not null and not (
                  l.daily and s.error_kind = 'missing'
                  and (coalesce(s.succeeded_at > %(seen_since)s, false) or p.paused)
                ) then 'failing'
                when s.served_at > l.closed_at and coalesce(s.succeeded_at <= l.closed_at, true) then 'closed'
                when s.succeeded_at is null and not p.paused then 'never'
                when l.daily then case when coalesce(s.day, '-infinity') < l.day then 'stale' else 'end_of_day' end
                when s.succeeded_at < l.stale_before then 'stale'
                when s.priced_at < l.silent_before then 'silent'
                when s.succeeded_at >= l.fresh_since then 'fresh'
                else 'closed' end as state
  ) v
  where a.enabled or a.symbol = any(%(named)s)
), counted as (
  select coalesce(jsonb_agg(g), '[]') as groups
  from (
    select asset_type, role, state, ill, unknown, count(*) as assets
    from judged where enabled group by asset_type, role, state, ill, unknown
  ) g
), others as (
  select symbol from judged
  where enabled and symbol <> all(%(named)s)
  order by array_position(array['failing', 'stale', 'never', 'not_entitled', 'silent'], state),
           succeeded_at nulls first, symbol
  limit %(most_others)s
), shown as (
  select symbol, 0 as place from judged where symbol = any(%(named)s)
  union all
  select symbol, row_number() over () from others
)
select case when row_number() over (order by o.place, j.symbol) = 1 then c.groups end as groups,
       j.symbol, j.polygon_ticker, j.asset_type, j.role, j.rank, j.update_frequency_seconds, j.name, j.origin,
       j.state, j.ill, j.unknown, j.late, j.succeeded_at, j.day, j.error_kind, j.error,
       t.metadata -> 'last_update' ->> 'last_price' as last_price,
       t.metadata -> 'last_update' ->> 'daily_open' as daily_open,
       t.metadata -> 'last_update' ->> 'timestamp' as data_timestamp
from counted c
left join (shown o join judged j using (symbol)) on true
left join trading.symbols t on t.symbol = j.symbol
order by o.place, j.symbol
"""


class Limit(Struct, frozen=True):
    """What assets of one frequency and market are held against; times are aware UTC.

    With live prices: stale is what was last updated before `stale_before`, fresh what was since `fresh_since`, late, if
    it is a priority asset, what was before `late_before`. With those of finished days: stale and late is what lacks
    `day`; None: that is not late yet. What was never updated may wait if it was added since `never_before`. A market
    that rests by its hours does so since `closed_at`; `rests`: the vendor says that it does. What has a price of before
    `silent_before` is asked for in vain: nothing trades. `daily`: prices are those of finished days; `rests_alone`: the
    market may rest on days that others of its type trade on.
    """

    update_frequency_seconds: int
    market: Market
    stale_before: datetime
    fresh_since: datetime
    late_before: datetime
    never_before: datetime
    closed_at: datetime | None = None
    silent_before: datetime | None = None
    day: date | None = None
    rests: bool = False
    daily: bool = False
    rests_alone: bool = False


class Group(Struct, frozen=True):
    """So many enabled assets of a type and role that are in one state.

    `ill`: failing, stale, or never updated in the time that an asset has for that; `unknown`: the vendor never had it.
    """

    asset_type: str
    role: str
    state: str
    ill: bool
    unknown: bool
    assets: int


class Judged(Struct, frozen=True):
    """All enabled assets in groups, and a row each of those that were named and of the others that are worst off."""

    groups: tuple[Group, ...] = ()
    named: Mapping[str, Row] = field(default_factory=dict)
    others: tuple[Row, ...] = ()


def judge(
    limits: Sequence[Limit],
    *,
    seen_since: datetime,
    named: Sequence[str],
    most_others: int | None,
) -> Query[Judged]:
    """Judge all enabled assets.

    What a finished day lacks though the vendor had it since `seen_since` is not failing. `named` assets have rows,
    enabled or not; of the others the worst, so many at most, or all (None), the worst first.
    """
    return Query(
        JUDGE,
        columns(Limit, limits)
        | {
            "market": [limit.market.value for limit in limits],
            "seen_since": seen_since,
            "named": list(named),
            "most_others": most_others,
        },
        lambda cursor: _read(cursor.fetchall(), named),
    )


def _read(rows: Sequence[Row], named: Sequence[str]) -> Judged:
    assets = [row for row in rows if row["symbol"] is not None]
    return Judged(
        groups=tuple(Group(**group) for group in rows[0]["groups"]),
        named={row["symbol"]: row for row in assets if row["symbol"] in named},
        others=tuple(row for row in assets if row["symbol"] not in named),
    )
