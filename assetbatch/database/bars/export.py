"""Bars out of the database, in order, as lines of CSV: all of some symbols, or what has changed since a cursor."""

from __future__ import annotations

import csv
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
from msgspec import Struct, field

from assetbatch.bars import LENGTH
from assetbatch.database.bars import changes
from assetbatch.database.query import Query
from assetbatch.errors import UnknownSymbolsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from psycopg.abc import PQGen

    from assetbatch.database.bars.changes import Cursor
    from assetbatch.database.connection import Connection

COLUMNS = ("symbol", "ts", "open", "high", "low", "close", "volume", "vwap", "trades", "is_final", "fetched_at")

READ_UNKNOWN = """
select u.symbol from unnest(%(symbols)s::text[]) u (symbol)
where not exists (select from trading.symbols s where s.symbol = u.symbol)
  and not exists (select from assetbatch.assets a where a.symbol = u.symbol)
order by u.symbol collate "C"
"""

READ_SPANS = """
select s.symbol, first.ts as since, last.ts as until
from trading.symbols s
cross join (
  select coalesce(%(since)s::timestamptz, '-infinity') as since,
         least(%(until)s::timestamptz, '9999-12-30 00:00Z') as until
) k
cross join lateral (
  select b.ts from market_data.ohlcv_5m b
  where b.symbol_id = s.id and b.ts >= k.since and b.ts < k.until order by b.ts limit 1
) first
cross join lateral (
  select b.ts from market_data.ohlcv_5m b
  where b.symbol_id = s.id and b.ts >= k.since and b.ts < k.until order by b.ts desc limit 1
) last
where s.symbol = any(coalesce(%(symbols)s, array[s.symbol]))
order by s.symbol collate "C"
"""

# A platform's own table may lack the last two columns: there the names mean those of `bare`. Where nothing says
# whether a bar is final, what is settled is, and all that the platform filled itself.
# By bounds that are known beforehand the planner looks up no more than they hold.
COPY_BARS = """
copy (
  select s.symbol, b.ts, b.open, b.high, b.low, b.close, b.volume, b.vwap, b.trades, b.is_final::text, b.fetched_at
  from unnest(%(symbols)s::text[], %(since)s::timestamptz[], %(until)s::timestamptz[]) as v (symbol, since, until)
  join trading.symbols s using (symbol)
  left join assetbatch.bar_state k using (symbol)
  cross join (values (null::boolean, null::timestamptz)) as bare (is_final, fetched_at)
  cross join lateral (
    select o.ts, o.open, o.high, o.low, o.close, o.volume, o.vwap, o.trades, fetched_at,
           coalesce(is_final, o.ts < coalesce(k.asked_until, 'infinity')) as is_final
    from market_data.ohlcv_5m o
    where o.symbol_id = s.id and o.ts >= v.since and o.ts < v.until and o.ts >= %(first)s and o.ts < %(last)s
  ) b
  where b.is_final or %(with_open)s
  order by s.symbol collate "C", b.ts
) to stdout (format csv)
"""

# So many the server sorts at a time, in memory.
BARS_AT_ONCE = 50_000
BLOCK_LINES = 50_000
BLOCK_BYTES = 8 << 20
LINES_AT_ONCE = 2_000
SORT_IN_MEMORY = (
    "select pg_catalog.set_config('work_mem', '64MB', true), pg_catalog.set_config('jit', 'off', true),"
    " pg_catalog.set_config('max_parallel_workers_per_gather', '0', true)"
)
# What comes first in a line of CSV.
FIRST = re.compile(rb'"(?:[^"]|"")*"|[^,]*')


class Selection(Struct, frozen=True, kw_only=True):
    """Which bars: of these symbols, None: of all; from `since` on and before `until`; `changed_since` a cursor.

    Final ones, and those that are still open only `with_open`.
    """

    symbols: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    changed_since: str | None = None
    with_open: bool = False


class Exported(Struct):
    """What was read: the `cursor` that brings what changes after it, None on a standby; lines, and of which symbols.

    `most`: how many lines there are at most.
    """

    cursor: str | None
    most: int
    rows: int = 0
    symbols: list[str] = field(default_factory=list)


class Export:
    """The bars of a selection as they are at one moment, within `Connection.moment`.

    Raises UnknownSymbolsError, CursorError, and DatabaseUnavailableError for changes that a standby is asked for.
    """

    def __init__(self, connection: Connection, selection: Selection) -> None:
        self._connection = connection
        self._selection = selection
        self._first = b"\n"
        cursor = None if selection.changed_since is None else changes.Cursor.of(selection.changed_since)
        symbols = None if selection.symbols is None else sorted({*selection.symbols})
        if symbols is not None:
            unknown = connection.execute(READ_UNKNOWN, {"symbols": symbols}).fetchall()
            if unknown:
                raise UnknownSymbolsError([row["symbol"] for row in unknown])
        now = changes.moment(connection)
        if cursor is not None:
            changes.check(connection, cursor, now)
        self._spans = connection.answer(self._wanted(cursor, symbols))
        self.done = Exported(
            None if now is None else now.text, sum(_most(since, until) for _, since, until in self._spans)
        )

    def _wanted(
        self, cursor: Cursor | None, symbols: Sequence[str] | None
    ) -> Query[list[tuple[str, datetime, datetime]]]:
        begin, end = self._selection.since, self._selection.until
        if cursor is not None:
            return changes.since(cursor, symbols, begin, end)
        return Query(
            READ_SPANS,
            {"symbols": None if symbols is None else list(symbols), "since": begin, "until": end},
            lambda rows: [(row["symbol"], row["since"], row["until"] + timedelta(microseconds=1)) for row in rows],
        )

    def blocks(self) -> Iterator[bytes]:
        """Read the bars, in the order of symbols (by their bytes) and times: a line of CSV each, in COLUMNS.

        Numbers have every digit, what is absent is empty, times are in UTC. A block has some BLOCK_LINES, or fewer.
        """
        self._connection.execute(SORT_IN_MEMORY)
        block: list[bytes] = []
        size = 0
        for lines in self._batches():
            self._note_symbols(lines)
            self.done.rows += len(lines)
            block += lines
            size += sum(map(len, lines))
            if len(block) >= BLOCK_LINES or size >= BLOCK_BYTES:
                yield b"".join(block)
                block, size = [], 0
        if block:
            yield b"".join(block)

    def _batches(self) -> Iterator[list[bytes]]:
        plain = self._connection.plain
        for part in _parts(self._spans):
            names, since, until = zip(*part, strict=True)
            asked: dict[str, object] = {"symbols": list(names), "since": list(since), "until": list(until)}
            asked |= {"first": min(since), "last": max(until)}
            asked |= {"with_open": self._selection.with_open}
            with psycopg.Cursor(plain).copy(COPY_BARS, asked) as copy:
                while lines := plain.wait(_next_lines(copy)):
                    yield lines

    def _note_symbols(self, lines: Sequence[bytes]) -> None:
        """Note of which symbols lines are; mostly all are of the one of the last."""
        if lines[0].startswith(self._first) and lines[-1].startswith(self._first):
            return
        for line in lines:
            if not line.startswith(self._first):
                found = FIRST.match(line)
                assert found is not None  # noqa: S101 - whatever there is matches
                self._first = found[0] + b","
                self.done.symbols += next(csv.reader([found[0].decode()]))


def _next_lines(copy: psycopg.Copy) -> PQGen[list[bytes]]:
    """Read some lines, none at the end; psycopg's own way to wait for each takes longer than the server for it."""
    lines: list[bytes] = []
    while len(lines) < LINES_AT_ONCE and (line := (yield from copy._read_gen())):  # noqa: SLF001
        lines.append(bytes(line))
    return lines


def _parts(spans: Sequence[tuple[str, datetime, datetime]]) -> Iterator[list[tuple[str, datetime, datetime]]]:
    """Go through spans in their order, each part no more than BARS_AT_ONCE may be in."""
    part: list[tuple[str, datetime, datetime]] = []
    room = BARS_AT_ONCE
    for symbol, begin, end in spans:
        since = begin
        while since < end:
            until = min(end, since + room * LENGTH)
            part.append((symbol, since, until))
            room -= _most(since, until)
            since = until
            if room <= 0:
                yield part
                part, room = [], BARS_AT_ONCE
    if part:
        yield part


def _most(since: datetime, until: datetime) -> int:
    """Return how many bars there may be in a span."""
    return -((since - until) // LENGTH)
