"""Days on which exchanges are not open as usual, as the vendor lists them: kept, since it lists none that are over.

Whoever reads them knows them in all of the process from then on: market hours go by them, where they are open by rule.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch import calendars
from assetbatch.calendars import new_york_stock_exchange
from assetbatch.database.query import Query, command
from assetbatch.market_hours import NEW_YORK
from assetbatch.markets import HOURS
from assetbatch.planner import AHEAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime, time

    from assetbatch.database.connection import Connection, Row

LISTED_EVERY = timedelta(days=7)
# A list that could not be had is asked for again after so long.
ASK_AGAIN = timedelta(days=1)

# What is of another clock, ahead of this one, is as good as nothing.
READ = """
select h.day, h.closes_at,
       not coalesce(l.listed_at <@ tstzrange(c.now - %(listed_every)s, c.now + %(ahead)s, '(]'), false)
       and not coalesce(l.asked_at <@ tstzrange(c.now - %(ask_again)s, c.now + %(ahead)s, '(]'), false) as is_due
from (select coalesce(%(now)s::timestamptz, statement_timestamp()) as now) c
cross join assetbatch.market_holiday_lists l
left join assetbatch.market_holidays h on true
"""

# Of several runs that find it due, one asks.
TAKE_TURN = """
update assetbatch.market_holiday_lists set asked_at = %(now)s
where not coalesce(asked_at <@ tstzrange(%(now)s - %(ask_again)s, %(now)s + %(ahead)s, '(]'), false)
"""

GIVE_BACK = "update assetbatch.market_holiday_lists set asked_at = null"

# A day that comes and is listed no more is as others again; those that are over stay.
STORE = """
with gone as (
  delete from assetbatch.market_holidays where day > %(today)s and day <> all(%(days)s::date[])
), listed as (
  insert into assetbatch.market_holidays as h (day, closes_at, noted_at)
  select day, closes_at, %(now)s from unnest(%(days)s::date[], %(closes_at)s::time[]) as v (day, closes_at)
  on conflict (day) do update set closes_at = excluded.closes_at, noted_at = excluded.noted_at
  where h.closes_at is distinct from excluded.closes_at
)
update assetbatch.market_holiday_lists set listed_at = %(now)s
"""

TYPES = frozenset(market.asset_type for market, hours in HOURS.items() if hours.exceptions is new_york_stock_exchange)
"""Of assets that trade by those days."""
PATIENCE = {"listed_every": LISTED_EVERY, "ask_again": ASK_AGAIN, "ahead": AHEAD}


class Listed(Struct, frozen=True):
    """What the vendor's last lists had: when the session of a day closes, None: there is none.

    `is_due`: they are old, and nobody asked for others lately.
    """

    days: Mapping[date, time | None]
    is_due: bool


def listed(now: datetime | None) -> Query[Listed]:
    """Ask for the days that the vendor listed; `now` None: it is now."""
    return Query(READ, PATIENCE | {"now": now}, lambda cursor: _known(cursor.fetchall()))


def _known(rows: Sequence[Row]) -> Listed:
    found = Listed(
        {row["day"]: row["closes_at"] for row in rows if row["day"] is not None}, any(row["is_due"] for row in rows)
    )
    calendars.learn(found.days)
    return found


def take_turn(connection: Connection, now: datetime) -> bool:
    """Take the right to ask the vendor for its list; False: somebody else has it, or had it within a day."""
    return connection.execute(TAKE_TURN, PATIENCE | {"now": now}).rowcount == 1


def give_back_turn(connection: Connection) -> None:
    """Let the list be asked for again at once: the call did not leave."""
    connection.execute(GIVE_BACK)


def storing(days: Mapping[date, time | None], now: datetime) -> Query[int]:
    """Keep a list."""
    today = now.astimezone(NEW_YORK).date()
    return command(STORE, {"days": list(days), "closes_at": list(days.values()), "today": today, "now": now})
