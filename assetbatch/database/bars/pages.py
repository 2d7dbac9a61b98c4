"""Pages of bars: stored, and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from msgspec import Struct

from assetbatch.bar_series import NUMBERS
from assetbatch.bars import LENGTH
from assetbatch.database.errors import words_of
from assetbatch.database.prices import ADD_SYMBOLS
from assetbatch.database.query import Query, command
from assetbatch.database.rows import value
from assetbatch.database.savepoints import refuses_row, refuses_table, sift
from assetbatch.failures import FailureKind
from assetbatch.markets import TRAITS
from assetbatch.model import Bar
from assetbatch.planner import EPOCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.bar_series import BarSeries
    from assetbatch.database.connection import Connection
    from assetbatch.model import Asset, Span

LOCK_SYMBOL = """
select exists (
  select from market_data.ohlcv_5m b where b.symbol_id = s.id and b.ts between %(first)s and %(last)s
) as has_bars
from trading.symbols s where s.symbol = %(symbol)s for no key update of s
"""

# The symbols are named apart, to tell the planner how few they are: else it may read the whole table.
INSERT = """
insert into market_data.ohlcv_5m as b
  (symbol_id, ts, open, high, low, close, volume, vwap, trades, is_final, fetched_at)
select s.id, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trades,
       v.ts + interval '5 minutes' <= %(final_until)s, %(fetched_at)s
from unnest(
  %(symbols)b::text[], %(ts)b::timestamptz[], %(open)s::numeric[], %(high)s::numeric[], %(low)s::numeric[],
  %(close)s::numeric[], %(volume)s::numeric[], %(vwap)s::numeric[], %(trades)s::int[]
) as v (symbol, ts, open, high, low, close, volume, vwap, trades)
join trading.symbols s using (symbol)
where s.symbol = any(%(names)b)
"""

# An older fetch never overwrites a newer one, an open bar never a final one, and what does not change is not written. A
# fetch in the future is of a clock that was set back since.
UPSERT = (
    INSERT
    + """
on conflict (symbol_id, ts) do update
set open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    vwap = excluded.vwap, trades = excluded.trades, is_final = excluded.is_final, fetched_at = excluded.fetched_at
where coalesce(b.fetched_at <= %(asked_at)s or b.fetched_at > clock_timestamp() + interval '1 minute', true)
  and (excluded.is_final or b.is_final is not true)
  and (b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades, b.is_final)
        is distinct from (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.vwap,
                          excluded.trades, excluded.is_final)
"""
)

# Which final bars a statement has changed is written with them, for those who ask for changes by a cursor.
TELL_CHANGES = """
), told as (
  insert into assetbatch.bar_changes (symbol, ranges, bars)
  select %(symbol)s, range_agg(tstzrange(ts, ts + interval '5 minutes')), count(*)
  from written where is_final having count(*) > 0
)
select count(*) as written from written
"""
WRITE = "with written as (" + INSERT + "returning b.ts, b.is_final" + TELL_CHANGES
WRITE_OVER = "with written as (" + UPSERT + "returning b.ts, b.is_final" + TELL_CHANGES

# For a platform's own table without these two columns. What an older fetch brings is older than its lease, and refused.
INSERT_BARE = """
insert into market_data.ohlcv_5m as b (symbol_id, ts, open, high, low, close, volume, vwap, trades)
select s.id, v.ts, v.open, v.high, v.low, v.close, v.volume, v.vwap, v.trades
from unnest(
  %(symbols)b::text[], %(ts)b::timestamptz[], %(open)s::numeric[], %(high)s::numeric[], %(low)s::numeric[],
  %(close)s::numeric[], %(volume)s::numeric[], %(vwap)s::numeric[], %(trades)s::int[]
) as v (symbol, ts, open, high, low, close, volume, vwap, trades)
join trading.symbols s using (symbol)
where s.symbol = any(%(names)b)
  and not (%(is_open)s and exists (
    select from assetbatch.bar_state k where k.symbol = v.symbol and k.asked_until > v.ts
  ))
"""

UPSERT_BARE = (
    INSERT_BARE
    + """
on conflict (symbol_id, ts) do update
set open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    vwap = excluded.vwap, trades = excluded.trades
where (b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades)
        is distinct from (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.vwap,
                          excluded.trades)
"""
)

# Bars that are there just so, and are settled now, are told of with the end of the call: see `state.FINISH_BARE`.
RETURN_BARE = "returning b.ts, b.ts + interval '5 minutes' <= %(final_until)s as is_final"
WRITE_BARE = "with written as (" + INSERT_BARE + RETURN_BARE + TELL_CHANGES
WRITE_OVER_BARE = "with written as (" + UPSERT_BARE + RETURN_BARE + TELL_CHANGES

# A platform's own table may lack the last column: there, what is settled is final. `is_final` is that of the bar where
# it has one, else, one level further out, that of `absent`.
READ_BARS = """
select b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades,
       coalesce((select is_final from (select b.*) own), true) as is_final
from (values (true)) absent (is_final)
cross join market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
where s.symbol = %(symbol)s and b.ts >= %(since)s and b.ts < %(until)s
order by b.ts
"""


COUNT_BARS = """
select count(*) as count
from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id
where s.symbol = %(symbol)s and b.ts = any(%(ts)b::timestamptz[])
"""

# What a refused page costs at most, however its bars lie: a boundary in a page is found with some 40.
MOST_STATEMENTS = 200


class StoredBars(Struct, frozen=True):
    """How many bars a page wrote; `refused`: when those were that the platform's table did not take, and why.

    `kind` is whose fault the first refusal is, the asset's (refused_by_database) or the table's; `is_any_taken` is
    False where no bar of the page was taken.
    """

    written: int
    refused: tuple[tuple[datetime, str], ...] = ()
    kind: FailureKind | None = None
    is_any_taken: bool = True


def write(
    connection: Connection,
    asset: Asset,
    page: BarSeries,
    *,
    final_until: datetime,
    is_new: bool,
    has_finality: bool,
    asked_at: datetime,
    fetched_at: datetime,
    carefully: bool,
    known: Mapping[datetime, tuple[Bar, bool]] | None = None,
) -> StoredBars | None:
    """Write bars, in the caller's transaction; None: the platform has deleted the symbol.

    The caller repeats it `carefully` when it raises a refusal of the database: then what is refused is looked for, and
    the bars beside it are stored. Those that end by `final_until` are final. An asset that `is_new` gets its row in
    trading.symbols. `asked_at` is when the call began, `fetched_at` the time of its answer. Of bars `known` to be there
    just so, no lock is written. Which final ones have changed is noted in assetbatch.bar_changes.
    """
    begins, ends = (page.times[0], page.times[-1]) if page else (None, None)
    row = connection.execute(LOCK_SYMBOL, {"symbol": asset.symbol, "first": begins, "last": ends}).fetchone()
    if row is None and not is_new:
        return None
    if known:
        page = page.without({bar.ts for bar in page if known.get(bar.ts) == (bar, bar.ts + LENGTH <= final_until)})
    # Where nothing is there, the server need not look for each. What somebody puts there just now raises, and then it
    # is done carefully.
    is_empty = not carefully and (row is None or not row["has_bars"])
    write_new, write_over = (WRITE, WRITE_OVER) if has_finality else (WRITE_BARE, WRITE_OVER_BARE)
    statement = write_new if is_empty else write_over
    given: dict[str, object] = {"symbol": asset.symbol, "final_until": final_until, "is_open": False}
    given |= {"asked_at": asked_at, "fetched_at": fetched_at}

    def put(part: BarSeries) -> int:
        if row is None:
            connection.execute(ADD_SYMBOLS, {"symbols": [asset.symbol]})
        written = int(value(connection.execute(statement, _columns([(asset.symbol, part)]) | given)))
        if written < len(part) and _count(connection, asset, part) < len(part):
            raise psycopg.errors.RaiseException("a trigger, a rule or row-level security keeps it out of the table")
        return written

    if not carefully:
        return StoredBars(put(page) if page else 0)
    found = sift(
        connection,
        range(len(page)),
        lambda part: put(page[part[0] : part[-1] + 1]),
        most_statements=MOST_STATEMENTS,
    )
    if not found.refused:
        return StoredBars(sum(found.taken))
    first = found.refused[0][1]
    is_tables = not found.taken and refuses_table(first)
    if not (found.taken or is_tables or refuses_row(first)):
        # Neither for what any of them is nor for where they belong: there is no such table.
        raise first
    refused = sorted((page.times[at], _reason(asset, error)) for at, error in found.refused)
    return StoredBars(
        sum(found.taken),
        tuple(refused),
        FailureKind.REFUSED_BY_TABLE if is_tables else FailureKind.REFUSED_BY_DATABASE,
        is_any_taken=bool(found.taken),
    )


def _reason(asset: Asset, error: psycopg.Error) -> str:
    """Return why a bar was refused, and how a table is mended that takes none without volume."""
    words = words_of(error)
    if isinstance(error, psycopg.errors.NotNullViolation) and not TRAITS[asset.asset_type].has_volume:
        words += f": {asset.asset_type} have none, and `assetbatch init` prints the statement that lets it be null"
    return words


def upserting(series: Sequence[tuple[str, BarSeries]], *, has_finality: bool, now: datetime) -> Query[int]:
    """Write bars that are still open, of each symbol, in the caller's transaction; none takes a final one's place."""
    given = {"final_until": EPOCH, "asked_at": now, "fetched_at": now, "is_open": True}
    return command(UPSERT if has_finality else UPSERT_BARE, _columns(series) | given)


def _count(connection: Connection, asset: Asset, page: BarSeries) -> int:
    """Count the bars of a page that are in the table, as they are or otherwise."""
    return int(value(connection.execute(COUNT_BARS, {"symbol": asset.symbol, "ts": list(page.times)})))


def _columns(series: Sequence[tuple[str, BarSeries]]) -> dict[str, Any]:
    """Return the arrays of the columns, whose numbers the server alone reads."""
    columns = zip(*(page.digits for _, page in series), strict=True)
    texts = {name: f"{{{','.join(column)}}}" for name, column in zip(NUMBERS, columns, strict=True)}
    symbols = [symbol for symbol, page in series for _ in page.times]
    names = [symbol for symbol, _ in series]
    return {"names": names, "symbols": symbols, "ts": [ts for _, page in series for ts in page.times], **texts}


def read(connection: Connection, symbol: str, span: Span) -> dict[datetime, tuple[Bar, bool]]:
    """Read the bars that are there, by their time, with whether they are final."""
    rows = connection.execute(READ_BARS, {"symbol": symbol, "since": span.since, "until": span.until})
    found = {}
    for row in rows:
        *bar, is_final = row.values()
        found[row["ts"]] = (Bar(*bar), is_final)
    return found
