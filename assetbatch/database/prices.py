"""Writing what a call brought: prices, sync status and events, inside the caller's transaction.

Order of locks, the same for all who write: symbols by name, then status, then outbox. An older quote never overwrites a
newer one, whoever brings it. Where the platform's own constraints refuse an asset, that asset fails alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import psycopg

from assetbatch.database.connection import words_of
from assetbatch.database.savepoints import sift
from assetbatch.errors import KINDS, FailureKind, SyncStatus
from assetbatch.model import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assetbatch.database.connection import Connection
    from assetbatch.model import Quote

# Lists of texts go in binary (`b`): as text they are escaped one by one, which costs more than all else here.
ADD_SYMBOLS = """
insert into trading.symbols (symbol, metadata)
select symbol, '{}' from unnest(%(symbols)b::text[]) as missing (symbol)
where not exists (select from trading.symbols s where s.symbol = missing.symbol)
order by symbol
on conflict (symbol) do nothing
"""

LOCK_SYMBOLS = """
select symbol, metadata -> 'last_update' as last_update
from trading.symbols where symbol = any(%(symbols)b)
order by symbol
for no key update
"""

WRITE_PRICES = """
update trading.symbols s
set metadata = coalesce(s.metadata, '{}') || jsonb_build_object('last_update', q.last_update),
    updated_at = clock_timestamp()
from (
  select symbol, jsonb_build_object(
           'bid', bid, 'ask', ask, 'last_price', last_price,
           'daily_open', daily_open, 'daily_high', daily_high, 'daily_low', daily_low, 'daily_close', daily_close,
           'timestamp', timestamp,
           'updated_at', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
         ) as last_update
  from unnest(
    %(symbols)b::text[], %(bid)s::numeric[], %(ask)s::numeric[], %(last_price)s::numeric[], %(daily_open)s::numeric[],
    %(daily_high)s::numeric[], %(daily_low)s::numeric[], %(daily_close)s::numeric[], %(timestamps)b::text[]
  ) as v (symbol, bid, ask, last_price, daily_open, daily_high, daily_low, daily_close, timestamp)
) q
where s.symbol = q.symbol
"""

# The time of the last sync stays what it was when this one failed.
WRITE_SYNC_STATUS = """
insert into data_sources.data_sync_status as d (ticker_id, provider_id, last_sync_timestamp, sync_status, updated_at)
select s.id, p.id, case when v.sync_status = 'success' then clock_timestamp() end, v.sync_status, clock_timestamp()
from unnest(%(symbols)b::text[], %(sync_statuses)b::text[]) as v (symbol, sync_status)
join trading.symbols s using (symbol)
cross join (select id from data_sources.api_providers where code = 'polygon') p
order by v.symbol
on conflict (ticker_id, provider_id) do update
set last_sync_timestamp = coalesce(excluded.last_sync_timestamp, d.last_sync_timestamp),
    sync_status = excluded.sync_status, updated_at = excluded.updated_at
"""

# A symbol's seq never goes back, not even after an old backup was restored: the clock is ahead of what was given then.
WRITE_SYNC_STATE_AND_EVENTS = """
with v as (
  select * from unnest(
    %(symbols)b::text[], %(error_kinds)b::text[], %(errors)b::text[], %(priced_at)s::timestamptz[],
    %(changed)s::boolean[], %(payloads)b::text[]
  ) as v (symbol, error_kind, error, priced_at, changed, payload)
), state as (
  insert into assetbatch.sync_state as s
    (symbol, served_at, succeeded_at, priced_at, error_kind, error, day, missing_since, event_seq)
  select v.symbol,
         case when v.error_kind is null then %(served_at)s end,
         case when v.priced_at is not null then %(answered_at)s end, v.priced_at,
         v.error_kind, v.error, %(day)s::date, case when v.error_kind = 'missing' then %(day)s::date end,
         case when v.changed then (extract(epoch from clock_timestamp()) * 1000000)::bigint else 0 end
  from v order by v.symbol
  on conflict (symbol) do update
  set served_at = case when excluded.day is null then coalesce(excluded.served_at, s.served_at)
                       else greatest(excluded.served_at, s.served_at) end,
      succeeded_at = coalesce(excluded.succeeded_at, s.succeeded_at),
      priced_at = coalesce(excluded.priced_at, s.priced_at),
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
where v.changed
order by v.symbol
"""


@dataclass(frozen=True, slots=True)
class Brought:
    """What a call brought for one asset: a quote, or why there is none; neither where its market rests without one.

    `known`: it had a row in the platform's table before. Where that is gone, the platform has deleted it, and it is not
    put there again.
    """

    symbol: str
    quote: Quote | None = None
    failure: Failure | None = None
    known: bool = False


@dataclass(slots=True)
class Stored:
    """What became of it: symbols whose price changed, for which nothing newer came, that were deleted; failures.

    `statuses_lost`: how many rows of data_sync_status were not written, and nothing said why.
    """

    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    statuses_lost: int = 0

    def __iadd__(self, other: Stored) -> Self:
        """Add what became of others."""
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.deleted += other.deleted
        self.failed += other.failed
        self.statuses_lost += other.statuses_lost
        return self


@dataclass(frozen=True, slots=True)
class Times:
    """The times of an answer: `served_at` decides when its assets are due again; `day` is the finished day it is of."""

    served_at: datetime
    answered_at: datetime
    day: date | None = None


def rfc3339(moment: datetime) -> str:
    """Write an aware UTC time as the vendor's documents and ours do: `2026-11-22T08:00:00.123Z`."""
    text = moment.isoformat(timespec="microseconds" if moment.microsecond % 1000 else "milliseconds")
    return text.replace("+00:00", "Z")


def last_update(quote: Quote) -> dict[str, Decimal | str | None]:
    """Lay out a quote as `metadata.last_update` holds it."""
    return {
        "bid": quote.bid,
        "ask": quote.ask,
        "last_price": quote.last_price,
        "daily_open": quote.daily_open,
        "daily_high": quote.daily_high,
        "daily_low": quote.daily_low,
        "daily_close": quote.daily_close,
        "timestamp": rfc3339(quote.timestamp),
    }


def supersedes(quote: Quote, stored: object) -> bool:
    """Tell whether `quote` belongs in the place of `stored`, a `metadata.last_update` (or None, or anything at all).

    It does when it is newer, or of the same time but not the same. What is stored may have been written by others: what
    cannot be read as a time gives way.
    """
    if not isinstance(stored, dict):
        return True
    try:
        stored_at = datetime.fromisoformat(stored["timestamp"])
        if stored_at != quote.timestamp:
            return stored_at < quote.timestamp
    except (KeyError, TypeError, ValueError):
        return True
    return any(stored.get(key) != value for key, value in last_update(quote).items() if key != "timestamp")


def write(connection: Connection, brought: Sequence[Brought], times: Times, *, carefully: bool) -> Stored:
    """Write what was brought. The caller opens the transaction, and repeats it `carefully` when this raises a refusal.

    Carefully means that what the platform refuses is looked for, and fails alone.
    """
    if not carefully:
        return _write_together(connection, brought, times)
    # In the order of all who write, for the parts come in another.
    connection.execute(LOCK_SYMBOLS, {"symbols": [one.symbol for one in brought]})
    found = sift(connection, brought, lambda part: _write_together(connection, part, times))
    stored = Stored()
    for one in found.taken:
        stored += one
    if found.refused:
        stored += _write_refusals(connection, {one.symbol: words_of(error) for one, error in found.refused}, times)
    return stored


def _write_refusals(connection: Connection, reasons: Mapping[str, str], times: Times) -> Stored:
    failures = [Failure(symbol, FailureKind.REFUSED_BY_DATABASE, reasons[symbol]) for symbol in sorted(reasons)]
    refused = [Brought(failure.symbol, failure=failure) for failure in failures]
    # The status tells of it too, unless it is this very table that refuses.
    sift(connection, refused, lambda part: _write_statuses(connection, part))
    _write_states(connection, refused, {}, times)
    return Stored(failed=failures)


def _write_together(connection: Connection, brought: Sequence[Brought], times: Times) -> Stored:
    symbols = {"symbols": [one.symbol for one in brought]}
    locked = {row["symbol"]: row["last_update"] for row in connection.execute(LOCK_SYMBOLS, symbols)}
    if new := [one.symbol for one in brought if not one.known and one.symbol not in locked]:
        connection.execute(ADD_SYMBOLS, {"symbols": new})
        locked = {row["symbol"]: row["last_update"] for row in connection.execute(LOCK_SYMBOLS, symbols)}
        if not locked.keys() >= set(new):
            raise psycopg.errors.RaiseException(
                "a trigger, a rule or row-level security keeps its row out of trading.symbols, or hides it"
            )
    deleted = [one.symbol for one in brought if one.symbol not in locked]
    brought = [one for one in brought if one.symbol in locked]
    changed = {
        one.symbol: one.quote for one in brought if one.quote is not None and supersedes(one.quote, locked[one.symbol])
    }
    if changed:
        connection.execute(WRITE_PRICES, _columns(changed))
    written = _write_statuses(connection, brought)
    _write_states(connection, brought, changed, times)
    return Stored(
        updated=list(changed),
        unchanged=[one.symbol for one in brought if one.failure is None and one.symbol not in changed],
        deleted=deleted,
        failed=[one.failure for one in brought if one.failure is not None],
        statuses_lost=len(brought) - written,
    )


def _write_statuses(connection: Connection, brought: Sequence[Brought]) -> int:
    return connection.execute(
        WRITE_SYNC_STATUS,
        {"symbols": [one.symbol for one in brought], "sync_statuses": [_sync_status(one).value for one in brought]},
    ).rowcount


def _sync_status(one: Brought) -> SyncStatus:
    if one.failure is not None:
        return KINDS[one.failure.kind].sync_status
    return SyncStatus.NO_DATA if one.quote is None else SyncStatus.SUCCESS


def _write_states(
    connection: Connection, brought: Sequence[Brought], changed: Mapping[str, Quote], times: Times
) -> None:
    connection.execute(
        WRITE_SYNC_STATE_AND_EVENTS,
        {
            "symbols": [one.symbol for one in brought],
            "error_kinds": [one.failure.kind.value if one.failure else None for one in brought],
            "errors": [one.failure.error if one.failure else None for one in brought],
            "priced_at": [None if one.quote is None else one.quote.timestamp for one in brought],
            "changed": [one.symbol in changed for one in brought],
            "payloads": [_event(one.symbol, changed.get(one.symbol)) for one in brought],
            "served_at": times.served_at,
            "answered_at": times.answered_at,
            "day": times.day,
        },
    )


def _columns(quotes: Mapping[str, Quote]) -> dict[str, list[Any]]:
    values = [last_update(quote) for quote in quotes.values()]
    columns = {key: [value[key] for value in values] for key in values[0]}
    return columns | {"symbols": list(quotes), "timestamps": columns["timestamp"]}


def _event(symbol: str, quote: Quote | None) -> str | None:
    """Write an event as JSON, but for its seq; numbers keep the vendor's digits."""
    if quote is None:
        return None
    fields = last_update(quote)
    numbers = ", ".join(f'"{key}": {_number(fields[key])}' for key in ("bid", "ask", "last_price"))
    return f'{{"symbol": {json.dumps(symbol)}, {numbers}, "timestamp": "{fields["timestamp"]}"}}'


def _number(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else "null"
