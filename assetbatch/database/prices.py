"""Writing what a call or a stream brought: prices, sync status and events, inside the caller's transaction.

Order of locks, the same for all who write: symbols by name, then status, then outbox. Where the platform's own
constraints refuse an asset, that asset fails alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import psycopg
from msgspec import Struct, field
from msgspec.structs import replace

from assetbatch.database.errors import words_of
from assetbatch.database.last_update import is_from_future, news_of, texts_of
from assetbatch.database.query import Query, command
from assetbatch.database.savepoints import refuses, refuses_row, sift
from assetbatch.failures import POLICIES, FailureKind, SyncStatus
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date, datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.model import Quote

# Our own transactions keep a row for milliseconds. Each part that is tried may meet one that is kept by others.
LOCKED_ROW_TIMEOUT = "250ms"
MOST_LOCK_WAITS = 40

# Lists of texts go in binary (`b`): as text they are escaped one by one, which costs more than all else here.
ADD_SYMBOLS = """
insert into trading.symbols (symbol, metadata)
select symbol, '{}' from unnest(%(symbols)b::text[]) as missing (symbol)
where (select true from trading.symbols s where s.symbol = missing.symbol limit 1) is null
order by symbol
on conflict (symbol) do nothing
"""

# `is_damaged`: prices were appended to what is no object, as `||` does; older versions did that.
LOCK_SYMBOLS = """
select s.symbol, s.metadata -> 'last_update' as last_update, coalesce(jsonb_typeof(s.metadata), 'null') as kind,
       coalesce(jsonb_typeof(s.metadata) = 'array' and s.metadata -> -1 ? 'last_update', false) as is_damaged
from trading.symbols s
where s.symbol = any(%(symbols)b)
order by s.symbol
for no key update of s
"""

# Once they are locked: a statement that waits for a lock reads all other tables as they were before it waited.
READ_DAILY_AT = """
select v.symbol, k.daily_at
from unnest(%(symbols)b::text[]) as v (symbol)
cross join lateral (select daily_at from assetbatch.sync_state where symbol = v.symbol limit 1) k
"""

# Locks those that are free; what it returns are the others.
LOCK_FREE_SYMBOLS = """
with free as materialized (
  select symbol from trading.symbols where symbol = any(%(symbols)b)
  order by symbol
  for no key update skip locked
)
select symbol from trading.symbols
where symbol = any(%(symbols)b) and symbol not in (select symbol from free)
order by symbol
"""

READ_NAMESAKES = """
select symbol from trading.symbols
where lower(trim(symbol)) in (select lower(trim(name)) from unnest(%(symbols)b::text[]) as missing (name))
  and symbol <> all(%(symbols)b)
order by symbol
"""

READ_LOCK_TIMEOUT = "select current_setting('lock_timeout') as lock_timeout"
WAIT_SHORTLY = "select set_config('lock_timeout', %(lock_timeout)s, true)"

# What is JSON's null is no object yet; what is neither is the platform's, and does not come here. Of the two parts, the
# one that is no news stays as it is. The symbols are named twice to tell the planner how few they are: else it may read
# the whole table.
WRITE_PRICES = """
update trading.symbols s
set metadata = coalesce(nullif(s.metadata, 'null'), '{}') || jsonb_build_object(
      'last_update',
      case when v.is_whole then '{}' else jsonb_build_object(
        'bid', s.metadata #> '{last_update,bid}', 'ask', s.metadata #> '{last_update,ask}',
        'last_price', s.metadata #> '{last_update,last_price}', 'timestamp', s.metadata #> '{last_update,timestamp}',
        'daily_open', s.metadata #> '{last_update,daily_open}', 'daily_high', s.metadata #> '{last_update,daily_high}',
        'daily_low', s.metadata #> '{last_update,daily_low}', 'daily_close', s.metadata #> '{last_update,daily_close}'
      ) end || v.news::jsonb || jsonb_build_object(
        'updated_at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
      )
    ),
    updated_at = clock_timestamp()
from unnest(%(symbols)b::text[], %(news)b::text[], %(whole)s::boolean[]) as v (symbol, news, is_whole)
where s.symbol = v.symbol and s.symbol = any(%(symbols)b)
"""

# The time of the last sync stays what it was when this one failed. The word is cast to whatever type its column has.
# Triggers of the platform have had their way with the prices by now, and with the status: what it returns are how many
# of those were written, and each price that is not there as it was written.
WRITE_SYNC_STATUS = """
with v as materialized (
  select s.id, v.symbol, v.sync_status, v.last_update as expected, s.metadata -> 'last_update' as last_update
  from unnest(%(symbols)b::text[], %(sync_statuses)b::text[], %(last_updates)b::text[])
    as v (symbol, sync_status, last_update)
  left join trading.symbols s on s.symbol = v.symbol and s.symbol = any(%(symbols)b)
), written as (
  insert into data_sources.data_sync_status as d (ticker_id, provider_id, last_sync_timestamp, sync_status, updated_at)
  select v.id, p.id, case when v.sync_status = 'success' then clock_timestamp() end,
         assetbatch.as_type_of((null::data_sources.data_sync_status).sync_status, v.sync_status), clock_timestamp()
  from v cross join (select id from data_sources.api_providers where code = 'polygon') p
  where v.id is not null
  order by v.symbol
  on conflict (ticker_id, provider_id) do update
  set last_sync_timestamp = coalesce(excluded.last_sync_timestamp, d.last_sync_timestamp),
      sync_status = excluded.sync_status, updated_at = excluded.updated_at
  returning 1
)
select w.written, v.symbol, v.last_update
from (select count(*) as written from written) w
left join v on v.expected is not null and (v.last_update @> v.expected::jsonb) is not true
"""

# A symbol's seq never goes back, not even after an old backup was restored: the clock is ahead of what was given then.
WRITE_SYNC_STATE_AND_EVENTS = """
with v as (
  select * from unnest(
    %(symbols)b::text[], %(error_kinds)b::text[], %(errors)b::text[], %(priced_at)s::timestamptz[],
    %(has_daily)s::boolean[], %(payloads)b::text[]
  ) as v (symbol, error_kind, error, priced_at, has_daily, payload)
), state as (
  insert into assetbatch.sync_state as s
    (symbol, served_at, succeeded_at, priced_at, daily_at, error_kind, error, day, missing_since, event_seq)
  select v.symbol,
         case when v.error_kind is null then %(served_at)s end,
         case when v.priced_at is not null then %(answered_at)s end, v.priced_at,
         case when v.has_daily then v.priced_at else 'epoch' end,
         v.error_kind, v.error, %(day)s::date, case when v.error_kind = 'missing' then %(day)s::date end,
         case when v.payload is not null then (extract(epoch from clock_timestamp()) * 1000000)::bigint else 0 end
  from v order by v.symbol
  on conflict (symbol) do update
  set served_at = case when excluded.day is null then coalesce(excluded.served_at, s.served_at)
                       else greatest(excluded.served_at, s.served_at) end,
      succeeded_at = coalesce(excluded.succeeded_at, s.succeeded_at),
      priced_at = case when s.priced_at < %(answered_at)s + interval '5 minutes'
                       then greatest(excluded.priced_at, s.priced_at)
                       else coalesce(excluded.priced_at, s.priced_at) end,
      daily_at = case when s.daily_at < %(answered_at)s + interval '5 minutes'
                      then greatest(excluded.daily_at, s.daily_at) else excluded.daily_at end,
      error_kind = excluded.error_kind, error = excluded.error, day = greatest(s.day, excluded.day),
      missing_since = case when excluded.missing_since is not null and s.error_kind = 'missing'
                           then least(excluded.missing_since, s.missing_since) else excluded.missing_since end,
      event_seq = case when excluded.event_seq > 0
                       then greatest(s.event_seq + 1, excluded.event_seq) else s.event_seq end
  returning symbol, event_seq
)
insert into assetbatch.outbox (symbol, seq, payload)
select v.symbol, state.event_seq, v.payload::jsonb || jsonb_build_object('seq', state.event_seq)
from v join state using (symbol)
where v.payload is not null
order by v.symbol
"""


class Brought(Struct, frozen=True):
    """What a call brought for one asset: a quote, or why there is none; neither where its market rests without one.

    `known`: it had a row in the platform's table before. Where that is gone, the platform has deleted it, and it is not
    put there again.
    """

    symbol: str
    quote: Quote | None = None
    failure: Failure | None = None
    known: bool = False


class Stored(Struct):
    """What became of it: symbols whose price changed, for which nothing newer came, that were deleted; failures.

    `locked` are symbols that another transaction kept locked: nothing is stored of them, and nothing is charged to
    them. `from_future`: the price that was there was of a time in the future, and gave way. `statuses_lost`: how many
    rows of data_sync_status were not written, and nothing said why.
    """

    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    from_future: list[str] = field(default_factory=list)
    statuses_lost: int = 0

    def __iadd__(self, other: Stored) -> Self:
        """Add what became of others."""
        for name in ("updated", "unchanged", "deleted", "failed", "locked", "from_future"):
            getattr(self, name).extend(getattr(other, name))
        self.statuses_lost += other.statuses_lost
        return self


class Times(Struct, frozen=True):
    """The times of an answer: `served_at` decides when its assets are due again; `day` is the finished day it is of."""

    served_at: datetime
    answered_at: datetime
    day: date | None = None


def write(
    connection: Connection,
    brought: Sequence[Brought],
    times: Times,
    *,
    carefully: bool,
    along: Callable[[Stored], Sequence[Query[Any]]] = lambda _: (),
) -> Stored:
    """Write what was brought. The caller opens the transaction, and repeats it `carefully` when this raises a refusal.

    `along` is told what is going to become of it, but for `statuses_lost`: what it returns is asked in the same round
    trip.

    Carefully means that what the platform refuses is looked for, and fails alone; and that what another transaction
    keeps locked is left to the next run. Raises what has to do with no row: trouble of the server, a table that takes
    nothing from this role.
    """
    if not carefully:
        return _write_together(connection, brought, times, along)
    limit = connection.execute(READ_LOCK_TIMEOUT).fetchone()
    connection.execute(WAIT_SHORTLY, {"lock_timeout": LOCKED_ROW_TIMEOUT})
    # In the order of all who write, for the parts come in another.
    locked = _lock(connection, [one.symbol for one in brought])
    stored, reasons = _write_apart(connection, [one for one in brought if one.symbol not in locked], times)
    stored.locked += sorted(locked)
    if reasons:
        stored += _write_refusals(connection, reasons, times)
    connection.execute(WAIT_SHORTLY, limit)
    connection.ask(*along(stored))
    return stored


def _lock(connection: Connection, symbols: Sequence[str]) -> set[str]:
    """Lock the rows of symbols; return those that another transaction keeps for longer than our own ever do."""
    try:
        with connection.transaction():
            connection.execute(LOCK_SYMBOLS, {"symbols": symbols})
    except psycopg.errors.LockNotAvailable:
        return {row["symbol"] for row in connection.execute(LOCK_FREE_SYMBOLS, {"symbols": symbols})}
    return set()


def _write_apart(
    connection: Connection, brought: Sequence[Brought], times: Times
) -> tuple[Stored, dict[str, psycopg.Error]]:
    """Write what can be written; return what became of it, and why the other symbols were refused."""
    waits = 0

    def is_refusal(error: psycopg.Error) -> bool:
        nonlocal waits
        if isinstance(error, psycopg.errors.LockNotAvailable):
            waits += 1
        return refuses(error) or 0 < waits <= MOST_LOCK_WAITS

    found = sift(connection, brought, lambda part: _write_together(connection, part, times), is_refusal=is_refusal)
    stored = Stored()
    for one in found.taken:
        stored += one
    reasons = {one.symbol: error for one, error in found.refused if refuses(error)}
    stored.locked += [one.symbol for one, _ in found.refused if one.symbol not in reasons]
    if reasons and not found.taken and not any(refuses_row(error) for error in reasons.values()):
        # Not for what any of them is: the schema is not what it has to be, or a privilege is missing.
        raise next(iter(reasons.values()))
    return stored, reasons


def _write_refusals(connection: Connection, reasons: Mapping[str, psycopg.Error], times: Times) -> Stored:
    failures = [
        Failure(symbol, FailureKind.REFUSED_BY_DATABASE, words_of(reasons[symbol])) for symbol in sorted(reasons)
    ]
    refused = [Brought(failure.symbol, failure=failure) for failure in failures]
    # The status tells of it too, unless it is this very table that refuses.
    sift(connection, refused, lambda part: connection.answer(_statuses(part, {})))
    connection.ask(_states(refused, {}, times))
    return Stored(failed=failures)


def _write_together(
    connection: Connection,
    brought: Sequence[Brought],
    times: Times,
    along: Callable[[Stored], Sequence[Query[Any]]] = lambda _: (),
) -> Stored:
    symbols = [one.symbol for one in brought]
    unknown = [one.symbol for one in brought if not one.known]
    daily = [one.symbol for one in brought if one.quote is not None and one.quote.has_daily]
    locking = Query(LOCK_SYMBOLS, {"symbols": symbols}, _by_symbol)
    reading = Query(READ_DAILY_AT, {"symbols": daily}, _daily_at)
    connection.ask(
        *([command(ADD_SYMBOLS, {"symbols": unknown})] if unknown else []), locking, *([reading] if daily else [])
    )
    locked, daily_at = locking.answer, reading.answer if daily else {}
    if missing := [symbol for symbol in unknown if symbol not in locked]:
        raise psycopg.errors.RaiseException(why_not_there(connection, missing))
    deleted = [one.symbol for one in brought if one.symbol not in locked]
    brought = [_unless_damaged(one, locked[one.symbol]) for one in brought if one.symbol in locked]
    before = {symbol: row["last_update"] for symbol, row in locked.items()}
    changed = {
        one.symbol: news
        for one in brought
        if one.quote is not None
        and (news := news_of(one.quote, before[one.symbol], daily_at.get(one.symbol), times.answered_at))
    }
    stored = Stored(
        updated=list(changed),
        unchanged=[one.symbol for one in brought if one.failure is None and one.symbol not in changed],
        deleted=deleted,
        failed=[one.failure for one in brought if one.failure is not None],
        from_future=[symbol for symbol in changed if is_from_future(before[symbol], times.answered_at)],
    )
    texts = {symbol: texts_of(symbol, news, before[symbol]) for symbol, news in changed.items()}
    writing = {
        "symbols": list(texts),
        "news": [text for text, _ in texts.values()],
        "whole": _array(news.has_quote and news.has_daily for news in changed.values()),
    }
    statuses = _statuses(brought, texts)
    connection.ask(
        *([command(WRITE_PRICES, writing)] if texts else []),
        statuses,
        _states(brought, texts, times),
        *along(stored),
    )
    # The same time may be written in another way there.
    if not all(changed[symbol].is_in(found) for symbol, found in statuses.answer.others.items()):
        raise psycopg.errors.RaiseException("a trigger or a rule of trading.symbols drops or changes the price")
    stored.statuses_lost = len(brought) - statuses.answer.written
    return stored


def _by_symbol(cursor: psycopg.Cursor[Row]) -> dict[str, Row]:
    # At once: one by one the rows take several times as long.
    return {row["symbol"]: row for row in cursor.fetchall()}


def _daily_at(cursor: psycopg.Cursor[Row]) -> dict[str, datetime]:
    return {row["symbol"]: row["daily_at"] for row in cursor.fetchall()}


def why_not_there(connection: Connection, symbols: Sequence[str]) -> str:
    """Return why rows that were added are not found by their symbols."""
    found = [row["symbol"] for row in connection.execute(READ_NAMESAKES, {"symbols": symbols})]
    if found:
        return f"trading.symbols has it as {', '.join(found)}: a trigger or the platform spells it so, and so must we"
    return "a trigger, a rule or row-level security keeps its row out of trading.symbols, or hides it"


def _unless_damaged(one: Brought, row: Mapping[str, Any]) -> Brought:
    """Let an asset fail whose `metadata` is of a kind that no price can be put into without damage."""
    if one.failure is not None or row["kind"] in {"object", "null"}:
        return one
    words = f"trading.symbols.metadata of its row is of JSON type {row['kind']}, and a price needs an object"
    if row["is_damaged"]:
        words += ": an older version of assetbatch appended prices to what it was; set it to '{}', or to what it held"
    return replace(one, quote=None, failure=Failure(one.symbol, FailureKind.REFUSED_BY_DATABASE, words))


class _After(Struct, frozen=True):
    """How many statuses were written; by symbol, the `last_update` that is there where it is not what was written."""

    written: int
    others: dict[str, object]


def _statuses(brought: Sequence[Brought], texts: Mapping[str, tuple[str, str]]) -> Query[_After]:
    """Write the status of each, and look what became of the prices that were written."""

    def read(cursor: psycopg.Cursor[Row]) -> _After:
        rows = cursor.fetchall()
        return _After(rows[0]["written"], {row["symbol"]: row["last_update"] for row in rows if row["symbol"]})

    return Query(
        WRITE_SYNC_STATUS,
        {
            "symbols": [one.symbol for one in brought],
            "sync_statuses": [_sync_status(one).value for one in brought],
            "last_updates": [texts[one.symbol][0] if one.symbol in texts else None for one in brought],
        },
        read,
    )


def _sync_status(one: Brought) -> SyncStatus:
    if one.failure is not None:
        return POLICIES[one.failure.kind].sync_status
    return SyncStatus.NO_DATA if one.quote is None else SyncStatus.SUCCESS


def _states(brought: Sequence[Brought], texts: Mapping[str, tuple[str, str]], times: Times) -> Query[int]:
    """Write what is known of each, and the events of those whose price changed."""
    return command(
        WRITE_SYNC_STATE_AND_EVENTS,
        {
            "symbols": [one.symbol for one in brought],
            "error_kinds": [one.failure.kind.value if one.failure else None for one in brought],
            "errors": [one.failure.error if one.failure else None for one in brought],
            "priced_at": _array(None if one.quote is None else one.quote.timestamp for one in brought),
            "has_daily": _array(one.quote is not None and one.quote.has_daily for one in brought),
            "payloads": [texts[one.symbol][1] if one.symbol in texts else None for one in brought],
            "served_at": times.served_at,
            "answered_at": times.answered_at,
            "day": times.day,
        },
    )


def _array(values: Iterable[object]) -> str:
    """Write times or truths, or None, as PostgreSQL writes an array: a tenth of what the driver takes."""
    return f"{{{','.join('null' if value is None else str(value) for value in values)}}}"
