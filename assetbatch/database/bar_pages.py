"""Pages of bars: stored, with the reasons for what they have not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assetbatch.database.connection import words_of
from assetbatch.database.prices import ADD_SYMBOLS, REFUSALS
from assetbatch.model import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.bars import Harvest
    from assetbatch.database.connection import Connection
    from assetbatch.model import Asset, Span

HAS_FINALITY = """
select count(*) = 2 as yes from pg_attribute
where attrelid = 'market_data.ohlcv_5m'::regclass and attname in ('is_final', 'fetched_at') and not attisdropped
"""

LOCK_SYMBOL = "select id from trading.symbols where symbol = %(symbol)s for no key update"

# An older fetch never overwrites a newer one, an open bar never a final one, and what does not change is not written.
UPSERT = """
insert into market_data.ohlcv_5m as b
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trades, v.is_final, %(fetched_at)s
from unnest(
  %(ts)b::timestamptz[], %(open)s::numeric[], %(high)s::numeric[], %(low)s::numeric[], %(close)s::numeric[],
  %(volume)s::numeric[], %(vwap)s::numeric[], %(trades)b::int[], %(is_final)b::boolean[]
) as v (ts, open, high, low, close, volume, vwap, trades, is_final)
cross join trading.symbols s
where s.symbol = %(symbol)s
on conflict (symbol_id, ts) do update
set open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    vwap = excluded.vwap, trades = excluded.trades, is_final = excluded.is_final, fetched_at = excluded.fetched_at
where coalesce(b.fetched_at <= %(asked_at)s, true) and (excluded.is_final or b.is_final is not true)
  and (b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades, b.is_final)
        is distinct from (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.vwap,
                          excluded.trades, excluded.is_final)
"""

# For a platform's own table without these two columns. What an older fetch brings is older than its lease, and refused.
UPSERT_BARE = """
insert into market_data.ohlcv_5m as b (symbol_id, ts, open, high, low, close, volume, vwap, trades)
select s.id, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trades
from unnest(
  %(ts)b::timestamptz[], %(open)s::numeric[], %(high)s::numeric[], %(low)s::numeric[], %(close)s::numeric[],
  %(volume)s::numeric[], %(vwap)s::numeric[], %(trades)b::int[], %(is_final)b::boolean[]
) as v (ts, open, high, low, close, volume, vwap, trades, is_final)
cross join trading.symbols s
where s.symbol = %(symbol)s
on conflict (symbol_id, ts) do update
set open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    vwap = excluded.vwap, trades = excluded.trades
where (b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades)
        is distinct from (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.vwap,
                          excluded.trades)
"""

# A platform's own table may lack the last column: there, what is settled is final.
READ_BARS = """
select b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades,
       coalesce((to_jsonb(b) ->> 'is_final')::boolean, true) as is_final
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
where s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s
order by b.ts
"""

# What a page covers and has no bar for is absent for a reason; other reasons that were noted for that time are gone.
NOTE_ABSENCES = """
with asked (r) as (
  select tstzmultirange(tstzrange(%(since)s, %(until)s))
), absent (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(absent_since)b::timestamptz[], %(absent_until)b::timestamptz[]) as v (since, until)
), closed (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(closed_since)b::timestamptz[], %(closed_until)b::timestamptz[]) as v (since, until)
), invalid (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(invalid_since)b::timestamptz[], %(invalid_until)b::timestamptz[]) as v (since, until)
), found (reason, ranges) as (
  select 'closed', absent.r * closed.r - invalid.r from absent, closed, invalid
  union all select 'nothing', absent.r - closed.r - invalid.r from absent, closed, invalid
  union all select 'failed', invalid.r from invalid
  union all select 'not_entitled', '{}'
), months (month) as (
  select tstzmultirange(tstzrange(m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC'))
  from generate_series(
    date_trunc('month', %(since)s at time zone 'UTC'), %(until)s at time zone 'UTC', interval '1 month'
  ) m
)
insert into assetbatch.bar_absences as b (symbol, reason, month, ranges, noted_at)
select %(symbol)s, reason, (lower(month) at time zone 'UTC')::date, ranges * month, %(noted_at)s
from found, months
where not isempty(ranges * month)
   or exists (select from assetbatch.bar_absences o, asked
              where o.symbol = %(symbol)s and o.reason = found.reason and o.ranges && asked.r
                and o.month = (lower(months.month) at time zone 'UTC')::date)
on conflict (symbol, reason, month) do update
set ranges = case when b.reason = 'failed' and b.noted_at <= excluded.noted_at - interval '1 day'
                  then '{}' else b.ranges - (select r from asked) end + excluded.ranges,
    noted_at = case when b.reason = 'failed' and b.noted_at > excluded.noted_at - interval '1 day'
                    then b.noted_at else excluded.noted_at end
where b.ranges <> b.ranges - (select r from asked) + excluded.ranges
   or (b.reason = 'failed' and b.noted_at <= excluded.noted_at - interval '1 day')
"""

NOTE_NOT_ENTITLED = """
insert into assetbatch.bar_absences as b (symbol, reason, month, ranges, noted_at, told)
select %(symbol)s, 'not_entitled', m,
       tstzmultirange(tstzrange(%(since)s, %(until)s)
                      * tstzrange(m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC')),
       %(noted_at)s, %(told)s
from generate_series(
  date_trunc('month', %(since)s at time zone 'UTC'), %(until)s at time zone 'UTC' - interval '1 microsecond',
  interval '1 month'
) m
on conflict (symbol, reason, month) do update
set ranges = excluded.ranges + case when b.told = excluded.told then b.ranges else '{}' end,
    noted_at = excluded.noted_at, told = excluded.told
"""


@dataclass(frozen=True, slots=True)
class StoredBars:
    """How many bars a page wrote; `refused`: when those were that the platform's table did not take, and why."""

    written: int
    refused: tuple[tuple[datetime, str], ...] = ()


def has_finality(connection: Connection) -> bool:
    """Tell whether the table of the bars has the columns that say which are final; a platform's own may lack them."""
    row = connection.execute(HAS_FINALITY).fetchone()
    return row is not None and bool(row["yes"])


def write(
    connection: Connection,
    asset: Asset,
    page: Sequence[tuple[Bar, bool]],
    *,
    is_new: bool,
    has_finality: bool,
    asked_at: datetime,
    fetched_at: datetime,
    carefully: bool,
    known: Mapping[datetime, tuple[Bar, bool]] | None = None,
) -> StoredBars | None:
    """Write bars with whether they are final, in the caller's transaction; None: the platform has deleted the symbol.

    The caller repeats it `carefully` when it raises a refusal of the database: then what is refused is looked for, and
    the bars beside it are stored. An asset that `is_new` gets its row in trading.symbols. `asked_at` is when the call
    began, `fetched_at` the time of its answer. Of bars `known` to be there just so, no lock is written.
    """
    if connection.execute(LOCK_SYMBOL, {"symbol": asset.symbol}).fetchone() is None:
        if not is_new:
            return None
        connection.execute(ADD_SYMBOLS, {"symbols": [asset.symbol]})
    page = [row for row in page if row != (known or {}).get(row[0].ts)]
    statement = UPSERT if has_finality else UPSERT_BARE
    times = {"symbol": asset.symbol, "asked_at": asked_at, "fetched_at": fetched_at}

    def put(part: Sequence[tuple[Bar, bool]]) -> int:
        return connection.execute(statement, _columns(part) | times).rowcount

    return _halving(connection, page, put) if carefully else StoredBars(put(page) if page else 0)


def _halving(
    connection: Connection, page: Sequence[tuple[Bar, bool]], put: Callable[[Sequence[tuple[Bar, bool]]], int]
) -> StoredBars:
    if not page:
        return StoredBars(0)
    try:
        with connection.transaction():
            return StoredBars(put(page))
    except REFUSALS as error:
        if len(page) == 1:
            reason = words_of(error)
            return StoredBars(0, ((page[0][0].ts, reason),))
    middle = len(page) // 2
    first, second = (_halving(connection, part, put) for part in (page[:middle], page[middle:]))
    return StoredBars(first.written + second.written, first.refused + second.refused)


def _columns(page: Sequence[tuple[Bar, bool]]) -> dict[str, Any]:
    rows = [bar for bar, _ in page]
    return {
        "ts": [bar.ts for bar in rows],
        "open": [bar.open for bar in rows],
        "high": [bar.high for bar in rows],
        "low": [bar.low for bar in rows],
        "close": [bar.close for bar in rows],
        "volume": [bar.volume for bar in rows],
        "vwap": [bar.vwap for bar in rows],
        "trades": [bar.trades for bar in rows],
        "is_final": [is_final for _, is_final in page],
    }


def note_absences(
    connection: Connection, symbol: str, harvest: Harvest, *, span: Span, closed: Sequence[Span], noted_at: datetime
) -> None:
    """Note why a page has no bar where it has none: within what it covers, and `closed` is when the market rested."""
    if span.since >= harvest.until:
        return
    connection.execute(
        NOTE_ABSENCES,
        {
            "symbol": symbol,
            "since": span.since,
            "until": harvest.until,
            "absent_since": [one.since for one in harvest.absent],
            "absent_until": [one.until for one in harvest.absent],
            "closed_since": [one.since for one in closed],
            "closed_until": [one.until for one in closed],
            "invalid_since": [one.since for one in harvest.invalid],
            "invalid_until": [one.until for one in harvest.invalid],
            "noted_at": noted_at,
        },
    )


def note_not_entitled(connection: Connection, symbol: str, span: Span, *, told: str, noted_at: datetime) -> None:
    """Note that a plan and key may not see these bars: they are not asked for again with them."""
    connection.execute(
        NOTE_NOT_ENTITLED,
        {"symbol": symbol, "since": span.since, "until": span.until, "told": told, "noted_at": noted_at},
    )


def read(connection: Connection, symbol: str, span: Span) -> dict[datetime, tuple[Bar, bool]]:
    """Read the bars that are there, by their time, with whether they are final."""
    rows = connection.execute(READ_BARS, {"symbol": symbol, "since": span.since, "until": span.until})
    return {row["ts"]: (Bar(**row), is_final) for row in rows if (is_final := row.pop("is_final")) is not None}
