"""The lives of tickers: whom to ask the vendor's reference list about, and what it said.

What is delisted or renamed is in the view `assetbatch.gone_tickers` until it has a price again; whoever makes calls
leaves that out. A ticker is looked at once, as soon as it seems to be gone, and once a week while it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from assetbatch.database.catalogue import asset_of
from assetbatch.database.query import Query
from assetbatch.database.retries import in_transaction
from assetbatch.database.rows import columns, filled
from assetbatch.markets import TRAITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection
    from assetbatch.model import Asset

# A ticker seems to be gone when the vendor does not know it, or when the finished days of more than a weekend and a
# holiday lack it; the first one already where it never had a price. Both are found by an index: every run asks.
DUE = """
with suspects as (
  select symbol from assetbatch.sync_state where error_kind in ('missing', 'not_found', 'unknown_ticker')
  union
  select symbol from assetbatch.ticker_lives where state in ('delisted', 'renamed')
)
select a.*, coalesce(l.state, 'suspected') as state, l.delisted_on, l.became, l.figi, l.company, l.reused_on,
       case when s.succeeded_at is null then null
            else least(s.missing_since, s.succeeded_at::date) end as missing_since,
       coalesce(s.error_kind = 'unknown_ticker', false) as is_refused,
       coalesce(s.succeeded_at > l.asked_at, false) as is_back
from suspects
join assetbatch.assets a using (symbol)
join assetbatch.sync_state s using (symbol)
left join assetbatch.ticker_lives l using (symbol)
where a.enabled and a.asset_type = any(%(types)s)
  and case
        when l.state in ('delisted', 'renamed') then true
        when s.error_kind = 'missing' then s.succeeded_at is null or coalesce(s.day - s.missing_since >= 4, true)
        else s.error_kind in ('unknown_ticker', 'not_found')
      end
  and coalesce(l.ask_at <= coalesce(%(now)s::timestamptz, statement_timestamp()), true)
order by l.ask_at nulls first, a.role, a.rank, a.symbol
limit %(limit)s
"""

# With what is gone go its place in the queue, and what was wrong with its bars: nobody is going to ask again.
NOTE = """
with noted as (
  insert into assetbatch.ticker_lives
    (symbol, state, delisted_on, became, figi, company, reused_on, asked_at, ask_at)
  select v.*
  from unnest(
    %(symbol)s::text[], %(state)s::text[], %(delisted_on)s::date[], %(became)s::text[], %(figi)s::text[],
    %(company)s::text[], %(reused_on)s::date[], %(asked_at)s::timestamptz[], %(ask_at)s::timestamptz[]
  ) as v (symbol, state, delisted_on, became, figi, company, reused_on, asked_at, ask_at)
  join assetbatch.assets using (symbol)
  order by v.symbol
  on conflict (symbol) do update
  set state = excluded.state, delisted_on = excluded.delisted_on, became = excluded.became, figi = excluded.figi,
      company = excluded.company, reused_on = excluded.reused_on, asked_at = excluded.asked_at,
      ask_at = excluded.ask_at
  returning symbol, state in ('delisted', 'renamed') as is_gone
), items as (
  delete from assetbatch.queue q using noted n where q.symbol = n.symbol and n.is_gone and q.state <> 'leased'
)
update assetbatch.bar_state b set failures = 0, retry_at = null, error_kind = null, error = null
from noted n where b.symbol = n.symbol and n.is_gone and b.error_kind is not null
"""

# Types whose reference list tells what became of those that are not traded any more.
TYPES = tuple(asset_type for asset_type, traits in TRAITS.items() if traits.lists_inactive)
# So many are asked about in one run.
MOST_DUE = 1_000


class State(StrEnum):
    """What the reference list says of a ticker."""

    SUSPECTED = "suspected"
    LISTED = "listed"
    DELISTED = "delisted"
    RENAMED = "renamed"
    UNKNOWN = "unknown"


GONE = frozenset({State.DELISTED, State.RENAMED})


class Life(Struct, frozen=True):
    """What is known of a ticker that seems to be gone.

    `company` is the CIK of who issued it, as long as its other tickers are to be looked at; `missing_since`: the first
    day that lacks it, None: it never had a price; `is_refused`: the vendor says that it does not know it; `is_back`: it
    has had a price since it was asked about. The rest is as the columns of `assetbatch.ticker_lives` have it.
    """

    asset: Asset
    state: State
    delisted_on: date | None = None
    became: str | None = None
    figi: str | None = None
    company: str | None = None
    reused_on: date | None = None
    missing_since: date | None = None
    is_refused: bool = False
    is_back: bool = False

    @property
    def ticker(self) -> str:
        """The vendor's name for it."""
        return self.asset.polygon_ticker


class _Noted(Struct, frozen=True):
    symbol: str
    state: str
    delisted_on: date | None
    became: str | None
    figi: str | None
    company: str | None
    reused_on: date | None
    asked_at: datetime
    ask_at: datetime


def due(now: datetime | None = None) -> Query[list[Life]]:
    """Ask which assets the reference list is to be asked about; `now` stands for the database's time, None: it is."""
    return Query(
        DUE,
        {"types": [one.value for one in TYPES], "now": now, "limit": MOST_DUE},
        lambda rows: [filled(Life, row, asset=asset_of(row), state=State(row["state"])) for row in rows],
    )


def note(connection: Connection, lives: Sequence[tuple[Life, datetime]], *, asked_at: datetime) -> None:
    """Note what the list says of tickers, and when each may be asked for again; what is gone leaves the queue."""
    rows = [
        filled(_Noted, asdict(life), symbol=life.asset.symbol, state=life.state.value, asked_at=asked_at, ask_at=ask_at)
        for life, ask_at in lives
    ]
    in_transaction(connection, lambda: connection.execute(NOTE, columns(_Noted, rows)))
