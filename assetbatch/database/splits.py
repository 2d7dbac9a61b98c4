"""Splits, as the vendor lists them: asked for once a day by whoever is first; and what has changed since then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.query import Query
from assetbatch.database.rows import columns, one, value
from assetbatch.markets import TRAITS
from assetbatch.model import Split
from assetbatch.plans import ASK_AGAIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType

# A split may be listed late: from so many days before the list came last it is asked for.
DAYS_BACK = 7

SPLIT_TYPES = [asset_type.value for asset_type, traits in TRAITS.items() if traits.has_splits]

READ_STATE = """
select is_wanted and coalesce(l.ask_at <= t.now, true) as is_due,
       (least(l.listed_at, t.now) at time zone 'America/New_York')::date - %(days_back)s::int as since,
       exists (select from assetbatch.splits where not is_applied and adjusted_from <= t.now) as has_come
from (select coalesce(%(now)s::timestamptz, statement_timestamp()) as now) t
cross join (
  select exists (select from assetbatch.assets where enabled and asset_type = any(%(types)s)) as is_wanted
) w
left join assetbatch.split_list l on l.market = %(market)s
"""

READ_LISTED_AT = """
select case when exists (select from assetbatch.assets where enabled and asset_type = any(%(types)s)) then coalesce(
  (select max(listed_at) from assetbatch.split_list),
  (select min(enabled_at) from assetbatch.assets where enabled and asset_type = any(%(types)s))
) end as listed_at
"""

TAKE = """
insert into assetbatch.split_list as l (market, ask_at) values (%(market)s, %(now)s + %(ask_again)s::interval)
on conflict (market) do update set ask_at = excluded.ask_at where l.ask_at <= %(now)s
"""

GIVE_BACK = "update assetbatch.split_list set ask_at = %(now)s where market = %(market)s"

# One that was not on the list of a time at which it should have been is in force from now on, as is one that was
# changed or withdrawn after its day had come. The vendor adjusts overnight: from four o'clock in New York on, when
# trade before the opening begins, all is adjusted
# (https://massive.com/docs/rest/stocks/corporate-actions/splits).
NOTE = """
with listed as (
  select *, execution_date::timestamp at time zone 'America/New_York' as executed_at,
         (execution_date + time '04:00') at time zone 'America/New_York' as adjusted_from
  from unnest(%(ticker)s::text[], %(execution_date)s::date[], %(split_from)s::numeric[], %(split_to)s::numeric[])
    as v (ticker, execution_date, split_from, split_to)
), gone as (
  select s.ticker, s.execution_date, s.executed_at from assetbatch.splits s
  where s.execution_date >= %(since)s and s.withdrawn_at is null
    and not exists (select from listed l where (l.ticker, l.execution_date) = (s.ticker, s.execution_date))
), called_off as (
  delete from assetbatch.splits s using gone g
  where (s.ticker, s.execution_date) = (g.ticker, g.execution_date) and g.executed_at > %(now)s
), withdrawn as (
  update assetbatch.splits s
  set withdrawn_at = %(now)s, adjusted_from = greatest(s.adjusted_from, %(now)s), is_applied = false
  from gone g
  where (s.ticker, s.execution_date) = (g.ticker, g.execution_date) and g.executed_at <= %(now)s
), before as (
  select listed_at from assetbatch.split_list where market = %(market)s
), noted as (
  update assetbatch.split_list
  set listed_at = %(now)s,
      ask_at = (date_trunc('day', %(now)s at time zone 'America/New_York') + interval '1 day')
               at time zone 'America/New_York'
  where market = %(market)s
)
insert into assetbatch.splits as s (ticker, execution_date, split_from, split_to, noted_at, adjusted_from)
select l.ticker, l.execution_date, l.split_from, l.split_to, %(now)s,
       case when before.listed_at >= l.executed_at then greatest(l.adjusted_from, %(now)s) else l.adjusted_from end
from listed l left join before on true
on conflict (ticker, execution_date) do update
set split_from = excluded.split_from, split_to = excluded.split_to, withdrawn_at = null,
    adjusted_from = greatest(s.adjusted_from, %(now)s), is_applied = false
where (s.split_from, s.split_to) is distinct from (excluded.split_from, excluded.split_to)
   or s.withdrawn_at is not null
"""


class SplitsState(Struct, frozen=True):
    """What is to be done about splits now: ask for the list, of those since a day; apply those that have come."""

    is_due: bool
    since: date
    has_come: bool


def state(market: AssetType, *, now: datetime | None) -> Query[SplitsState]:
    """Ask what is to be done about the splits of a market; `now` None: it is now."""
    return Query(
        READ_STATE,
        {
            "types": SPLIT_TYPES,
            "market": market.value,
            "days_back": DAYS_BACK,
            "now": now,
        },
        lambda cursor: SplitsState(**one(cursor)),
    )


def listed_at() -> Query[datetime | None]:
    """Ask when the list came last, or since when there are assets that need it; None: there are none."""
    return Query(READ_LISTED_AT, {"types": SPLIT_TYPES}, value)


def take(connection: Connection, market: AssetType, *, now: datetime) -> bool:
    """Take the right to ask for the list, for an hour; False where another run has taken it, or asked meanwhile."""
    asked = {"market": market.value, "now": now, "ask_again": ASK_AGAIN}
    return connection.execute(TAKE, asked).rowcount > 0


def give_back(connection: Connection, market: AssetType, *, now: datetime) -> None:
    """Let another run ask at once."""
    connection.execute(GIVE_BACK, {"market": market.value, "now": now})


def note(connection: Connection, market: AssetType, found: Sequence[Split], *, since: date, now: datetime) -> None:
    """Note all splits since a day, as the vendor listed them at `now`: what it lists no longer is withdrawn.

    The list is asked for again when the next day has begun in New York. A split that is listed twice counts once.
    """
    listed = list({(split.ticker, split.execution_date): split for split in reversed(found)}.values())
    connection.execute(NOTE, columns(Split, listed) | {"market": market.value, "since": since, "now": now})
