"""The stream's part of the database: how each cluster is doing, what it keeps fresh, and what pairs are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.database.catalogue import asset_of
from assetbatch.database.query import Query, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from assetbatch.database.connection import Connection, Row
    from assetbatch.model import Asset, AssetType

READ_ASSETS = """
select a.symbol, a.polygon_ticker, a.asset_type, a.role, a.rank, a.update_frequency_seconds, a.name,
       s.served_at is not null as known, p.base, p.quote
from assetbatch.assets a
left join assetbatch.sync_state s using (symbol)
left join assetbatch.pairs p using (polygon_ticker)
where a.enabled and a.asset_type = any(%(types)s)
  and a.symbol not in (select symbol from assetbatch.gone_tickers)
order by a.role, a.rank, a.symbol
"""

NOTE_PAIRS = """
insert into assetbatch.pairs as p (polygon_ticker, base, quote)
select * from unnest(%(tickers)s::text[], %(bases)s::text[], %(quotes)s::text[]) as v (ticker, base, quote)
order by ticker
on conflict (polygon_ticker) do update set base = excluded.base, quote = excluded.quote, noted_at = clock_timestamp()
where (p.base, p.quote) is distinct from (excluded.base, excluded.quote)
"""

# Counts go on from run to run of the same cluster; who takes over begins where the one before ended.
TELL = """
insert into assetbatch.streams as s
  (cluster, run_id, state, words, told_at, alive_until, since, frame_at, asked, confirmed, unconfirmed, silent,
   connects, events, events_a_second, dropped, lag_p50_ms, lag_p95_ms)
values (%(cluster)s, %(run_id)s, %(state)s, %(words)s, clock_timestamp(),
        case when %(is_alive)s then clock_timestamp() + make_interval(secs => %(alive_seconds)s) else 'epoch' end,
        %(since)s, %(frame_at)s, %(asked)s, %(confirmed)s, %(unconfirmed)s, %(silent)s, %(connects)s, %(events)s,
        %(events_a_second)s, %(dropped)s, %(lag_p50_ms)s, %(lag_p95_ms)s)
on conflict (cluster) do update
set run_id = excluded.run_id, state = excluded.state, words = excluded.words, told_at = excluded.told_at,
    alive_until = excluded.alive_until, since = excluded.since, frame_at = coalesce(excluded.frame_at, s.frame_at),
    asked = excluded.asked, confirmed = excluded.confirmed, unconfirmed = excluded.unconfirmed,
    silent = excluded.silent, connects = s.connects + excluded.connects, events = s.events + excluded.events,
    events_a_second = excluded.events_a_second, dropped = s.dropped + excluded.dropped,
    lag_p50_ms = excluded.lag_p50_ms, lag_p95_ms = excluded.lag_p95_ms
returning clock_timestamp() as now
"""

READ_FRAME_AT = "select frame_at from assetbatch.streams where cluster = %(cluster)s"

READ_NEWEST = """
select symbol, served_at, priced_at, daily_at from assetbatch.sync_state where symbol = any(%(symbols)s)
"""

# Only what differs is written.
KEEP_FRESH = """
with gone as (
  delete from assetbatch.streamed_assets where cluster = %(cluster)s and symbol <> all(%(symbols)s::text[])
)
insert into assetbatch.streamed_assets as a (symbol, cluster)
select symbol, %(cluster)s from unnest(%(symbols)s::text[]) as v (symbol) order by symbol
on conflict (symbol) do update set cluster = excluded.cluster where a.cluster <> excluded.cluster
"""

# What waits for a quote that is stored has nothing to wait for any more. What a worker holds ends with that.
COMPLETE = "delete from assetbatch.queue where symbol = any(%(symbols)s) and state in ('queued', 'delayed')"

READ_ALL = """
select s.cluster, s.state, s.words, s.since, s.frame_at, s.asked, s.confirmed, s.unconfirmed, s.silent, s.connects,
       s.events, s.events_a_second, s.dropped, s.lag_p50_ms, s.lag_p95_ms, s.run_id, s.told_at, r.host, r.started_at,
       s.told_at > statement_timestamp() - make_interval(secs => %(away_seconds)s) as is_told,
       s.alive_until > statement_timestamp() as is_alive, statement_timestamp() as now
from assetbatch.streams s left join assetbatch.runs r on r.id = s.run_id
order by s.cluster
"""


class Listed(Struct, frozen=True):
    """An asset to stream, whether it has a row in the platform's table, and its pair: None, if it is not known yet."""

    asset: Asset
    known: bool
    pair: tuple[str, str] | None


class Newest(Struct, frozen=True):
    """What is newest of an asset: when it was served, and the vendor's times of its price and of its day's figures."""

    served_at: datetime | None = None
    priced_at: datetime | None = None
    daily_at: datetime | None = None

    @property
    def lacks_figures(self) -> bool:
        """Whether the price is newer than the figures of the day."""
        return self.priced_at is not None and (self.daily_at is None or self.daily_at < self.priced_at)


class Report(Struct, frozen=True):
    """How a cluster is doing. Counts are of the time since the last report; times are aware UTC."""

    cluster: str
    state: str
    words: str = ""
    is_alive: bool = False
    since: datetime | None = None
    frame_at: datetime | None = None
    asked: int = 0
    confirmed: int = 0
    unconfirmed: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    connects: int = 0
    events: int = 0
    events_a_second: float = 0.0
    dropped: int = 0
    lag_p50_ms: int | None = None
    lag_p95_ms: int | None = None


class Told(Struct, frozen=True):
    """What a stream last told of a cluster, and whose run and host that is; counts are of all its time.

    `started_at`: when that run began; `is_told`: not too long ago; `is_alive`: its assets need no call for their
    quotes.
    """

    report: Report
    run_id: int
    host: str | None
    started_at: datetime | None
    told_at: datetime
    is_told: bool
    now: datetime


def assets(types: Iterable[AssetType]) -> Query[list[Listed]]:
    """Ask for the enabled assets of some types, with what a stream has to know of each."""
    return Query(
        READ_ASSETS,
        {"types": [one.value for one in types]},
        lambda rows: [
            Listed(asset_of(row), row["known"], None if row["base"] is None else (row["base"], row["quote"]))
            for row in rows
        ],
    )


def note_pairs(connection: Connection, pairs: Mapping[str, tuple[str, str]]) -> None:
    """Note the base and quote of these tickers, as the vendor's reference list has them."""
    bases, quotes = ([pair[side] for pair in pairs.values()] for side in (0, 1))
    connection.execute(NOTE_PAIRS, {"tickers": list(pairs), "bases": bases, "quotes": quotes})


def tell(report: Report, *, run_id: int, alive_seconds: float) -> Query[datetime]:
    """Write how a cluster is doing; the answer is the database's time.

    While it `is_alive`, its assets count as served, until so many seconds after this.
    """
    fields = {name: getattr(report, name) for name in Report.__struct_fields__}
    lists = {"unconfirmed": list(report.unconfirmed), "silent": list(report.silent)}
    return Query(
        TELL,
        fields | lists | {"run_id": run_id, "alive_seconds": alive_seconds},
        lambda rows: next(row["now"] for row in rows),
    )


def frame_at(connection: Connection, cluster: str) -> datetime | None:
    """Return when a cluster's stream last heard of the vendor; None: never."""
    row = connection.execute(READ_FRAME_AT, {"cluster": cluster}).fetchone()
    return None if row is None else row["frame_at"]


def newest(symbols: Sequence[str]) -> Query[dict[str, Newest]]:
    """Ask for what is newest of each asset that was ever asked for, whoever brought it."""
    return Query(
        READ_NEWEST,
        {"symbols": list(symbols)},
        lambda rows: {row["symbol"]: Newest(row["served_at"], row["priced_at"], row["daily_at"]) for row in rows},
    )


def keep_fresh(cluster: str, symbols: Sequence[str]) -> Query[int]:
    """Let these be the assets that a cluster keeps fresh while it is alive."""
    return command(KEEP_FRESH, {"cluster": cluster, "symbols": list(symbols)})


def complete(symbols: Sequence[str]) -> Query[int]:
    """Take these out of the queue, where nobody holds them: their quotes are stored."""
    return command(COMPLETE, {"symbols": list(symbols)})


def all_told(*, away_seconds: float) -> Query[list[Told]]:
    """Ask what streams last told; one that has not for `away_seconds` is away."""

    def read(row: Row) -> Told:
        named = {name: row[name] for name in Report.__struct_fields__}
        lists = {name: tuple(named[name]) for name in ("unconfirmed", "silent")}
        own = {name: row[name] for name in ("run_id", "host", "started_at", "told_at", "is_told", "now")}
        return Told(Report(**named | lists), **own)

    return Query(READ_ALL, {"away_seconds": away_seconds}, lambda rows: [read(row) for row in rows])
