"""Absences: the reasons for which bars are not there, noted and told."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.bars import TOLD_AGAIN
from assetbatch.database.bars.holes import HELD
from assetbatch.database.query import Query
from assetbatch.words import counted, named, utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.bars import JudgedPage
    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType, Span

# For so long a call for the newest bars may ask in passing for what the vendor had no bar for once: longer than a
# weekend at which there is none.
IN_PASSING = timedelta(days=3)

# What is told of those that the table did not take.
MOST_REASONS = 3

# Those that somebody has put there meanwhile are refused no more.
REFUSED = """
select a.symbol, a.told as words, min(a.noted_at) as since,
       sum(extract(epoch from upper(r) - lower(r)) / 300 - there.bars)::bigint as bars
from assetbatch.bar_absences a
join assetbatch.assets c using (symbol)
left join trading.symbols s using (symbol)
cross join unnest(a.ranges) r
cross join lateral (
  select count(*) as bars from market_data.ohlcv_5m b
  where b.symbol_id = s.id and b.ts >= lower(r) and b.ts < upper(r)
) there
where a.reason = 'refused' and c.enabled and a.symbol = any(coalesce(%(symbols)s, array[a.symbol]))
group by a.symbol, a.told
having sum(extract(epoch from upper(r) - lower(r)) / 300 - there.bars) > 0
order by bars desc, a.symbol
"""

# What the vendor had no bar for, and was not asked a second time.
SILENCES = """
select v.symbol, (sum(extract(epoch from upper(r) - lower(r))) / 300)::bigint as bars, min(lower(r)) as since,
       max(upper(r)) as until, max(i.told_at) as told_at
from unnest(%(symbols)s::text[], %(since)s::timestamptz[], %(until)s::timestamptz[]) as v (symbol, since, until)
join assetbatch.bar_silences i using (symbol)
cross join unnest(i.ranges * tstzmultirange(tstzrange(v.since, greatest(v.since, v.until)))) r
where i.told_at > %(told_since)s
group by v.symbol
order by bars desc, v.symbol
"""

# What a page covers and has no bar for is absent for a reason; other reasons that were noted for that time are gone.
# That the vendor has nothing is believed where it has said so before, an hour ago or more; elsewhere it is a silence,
# which is gone when it is believed, or broken.
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
), refused (r) as (
  select coalesce(range_agg(tstzrange(since, until)), '{}')
  from unnest(%(refused_since)b::timestamptz[], %(refused_until)b::timestamptz[]) as v (since, until)
), silent (r) as (
  select absent.r - closed.r - invalid.r from absent, closed, invalid
), told (r) as (
  select coalesce(range_agg(r), '{}') from (
    select ranges from assetbatch.bar_silences where symbol = %(symbol)s and told_at <= %(told_before)s
    union all
    select ranges from assetbatch.bar_absences
    where symbol = %(symbol)s and reason = 'nothing' and month >= date_trunc('month', %(since)s at time zone 'UTC')
  ) o, unnest(o.ranges) r
), waiting (r) as (
  select coalesce(range_agg(r), '{}') from assetbatch.bar_silences i, unnest(i.ranges) r
  where i.symbol = %(symbol)s and i.told_at > %(told_before)s
), heard (id, r) as (
  select i.id, i.ranges - case when i.told_at > %(told_before)s then asked.r - silent.r else asked.r end
  from assetbatch.bar_silences i, asked, silent where i.symbol = %(symbol)s and i.ranges && asked.r
), ended as (
  delete from assetbatch.bar_silences i using heard where i.id = heard.id and isempty(heard.r)
), shortened as (
  update assetbatch.bar_silences i set ranges = heard.r from heard
  where i.id = heard.id and not isempty(heard.r) and i.ranges <> heard.r
), begun as (
  insert into assetbatch.bar_silences (symbol, told_at, ask_at, ranges)
  select %(symbol)s, %(noted_at)s, %(ask_at)s, silent.r - told.r - waiting.r from silent, told, waiting
  where not isempty(silent.r - told.r - waiting.r)
), found (reason, ranges) as (
  select 'closed', absent.r * closed.r - invalid.r from absent, closed, invalid
  union all select 'nothing', silent.r * told.r from silent, told
  union all select 'failed', invalid.r from invalid
  union all select 'refused', refused.r from refused
  union all select 'not_entitled', '{}'
), months (month) as (
  select tstzmultirange(tstzrange(m at time zone 'UTC', (m + interval '1 month') at time zone 'UTC'))
  from refused, generate_series(
    date_trunc('month', %(since)s at time zone 'UTC'), greatest(%(until)s, upper(refused.r)) at time zone 'UTC',
    interval '1 month'
  ) m
)
insert into assetbatch.bar_absences as b (symbol, reason, month, ranges, noted_at, told)
select %(symbol)s, reason, (lower(month) at time zone 'UTC')::date, ranges * month, %(noted_at)s,
       case reason when 'refused' then %(words)s else '' end
from found, months
where not isempty(ranges * month)
   or exists (select from assetbatch.bar_absences o, asked
              where o.symbol = %(symbol)s and o.reason = found.reason and o.ranges && asked.r
                and o.month = (lower(months.month) at time zone 'UTC')::date)
on conflict (symbol, reason, month) do update
set ranges = case when b.reason in ('failed', 'refused') and b.noted_at <= excluded.noted_at - interval '1 day'
                  then '{}' else b.ranges - (select r from asked) end + excluded.ranges,
    noted_at = case when b.reason in ('failed', 'refused') and b.noted_at > excluded.noted_at - interval '1 day'
                    then b.noted_at else excluded.noted_at end,
    told = case when b.reason = 'refused' and not isempty(excluded.ranges) then excluded.told else b.told end
where b.ranges <> b.ranges - (select r from asked) + excluded.ranges
   or (b.reason in ('failed', 'refused') and b.noted_at <= excluded.noted_at - interval '1 day')
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


# As if they had been noted a day before: the next page that covers them finds out anew.
RELEASE = """
update assetbatch.bar_absences set noted_at = least(noted_at, %(now)s - %(held)s)
where symbol = any(%(symbols)s) and reason in ('failed', 'refused')
returning symbol, reason
"""

FORGET_NOT_ENTITLED = """
delete from assetbatch.bar_absences b using assetbatch.assets a
where a.symbol = b.symbol and a.asset_type = %(market)s and b.reason = 'not_entitled' and b.told = %(told)s
"""


class RefusedBars(Struct, frozen=True):
    """Bars of an asset that the platform's table did not take, for what reason in PostgreSQL's words, since when."""

    symbol: str
    bars: int
    words: str
    since: datetime


def refused(symbols: Sequence[str] | None = None) -> Query[list[RefusedBars]]:
    """Ask whose bars the platform's table did not take and does not have yet, the most first; None: of all assets.

    An asset has one for each reason.
    """
    return Query(
        REFUSED,
        {"symbols": None if symbols is None else list(symbols)},
        lambda rows: [RefusedBars(row["symbol"], row["bars"], row["words"], row["since"]) for row in rows],
    )


class Silence(Struct, frozen=True):
    """How many bars of an asset, between two times, the vendor did not have at `told_at`, as it said once so far."""

    symbol: str
    bars: int
    since: datetime
    until: datetime
    told_at: datetime

    @property
    def ask_at(self) -> datetime:
        """When asking again can tell."""
        return self.told_at + TOLD_AGAIN


def silences(connection: Connection, spans: Mapping[str, Span], *, now: datetime) -> list[Silence]:
    """Return which bars, within these spans, the vendor did not have when it was asked less than an hour ago."""
    rows = connection.execute(
        SILENCES,
        {
            "symbols": list(spans),
            "since": [span.since for span in spans.values()],
            "until": [span.until for span in spans.values()],
            "told_since": now - TOLD_AGAIN,
        },
    )
    return [Silence(**row) for row in rows]


def silence_sentence(found: Sequence[Silence]) -> str:
    """Return in a sentence what the vendor did not have, and when it can be asked again."""
    bars, symbols = sum(one.bars for one in found), [one.symbol for one in found]
    since, until = min(one.since for one in found), max(one.until for one in found)
    again = max(one.ask_at for one in found)
    return (
        f"{bars:,} bar{'s' if bars > 1 else ''} of {named(symbols)} between"
        f" {utc(since)} and {utc(until)} were not there when the vendor was asked; that is"
        f" believed when it says so again, from {utc(again)} on"
    )


def sentences(found: Sequence[RefusedBars]) -> list[str]:
    """Return a sentence for each reason for which bars were refused, for so many reasons at most."""
    by_words: dict[str, list[RefusedBars]] = {}
    for one in found:
        by_words.setdefault(one.words, []).append(one)
    told = []
    for words, ones in list(by_words.items())[:MOST_REASONS]:
        bars = sum(one.bars for one in ones)
        symbols = sorted(one.symbol for one in ones)
        which = f"{counted(bars, 'bar')} of {named(symbols)} {'were' if bars > 1 else 'was'}"
        told.append(f"{which} refused by market_data.ohlcv_5m: {words}")
    return told


def note_absences(
    connection: Connection,
    symbol: str,
    judged: JudgedPage,
    *,
    span: Span,
    closed: Sequence[Span],
    noted_at: datetime,
    in_passing: bool = False,
    words: str = "",
) -> None:
    """Note why a page has no bar where it has none: within what it covers, and `closed` is when the market rested.

    What the vendor had no bar for at `noted_at` for the first time is a hole again an hour later, or, `in_passing`,
    when no call for the newest bars has asked for it in days. Of what the table refused, `words` say why.
    """
    if span.since >= judged.until and not judged.refused:
        return
    connection.execute(
        NOTE_ABSENCES,
        {
            "symbol": symbol,
            "since": span.since,
            "until": judged.until,
            "absent_since": [one.since for one in judged.absent],
            "absent_until": [one.until for one in judged.absent],
            "closed_since": [one.since for one in closed],
            "closed_until": [one.until for one in closed],
            "invalid_since": [one.since for one in judged.invalid],
            "invalid_until": [one.until for one in judged.invalid],
            "refused_since": [one.since for one in judged.refused],
            "refused_until": [one.until for one in judged.refused],
            "words": words,
            "noted_at": noted_at,
            "told_before": noted_at - TOLD_AGAIN,
            "ask_at": noted_at + (IN_PASSING if in_passing else TOLD_AGAIN),
        },
    )


def note_not_entitled(connection: Connection, symbol: str, span: Span, *, told: str, noted_at: datetime) -> None:
    """Note that a plan and key may not see these bars: they are not asked for again with them."""
    connection.execute(
        NOTE_NOT_ENTITLED,
        {"symbol": symbol, "since": span.since, "until": span.until, "told": told, "noted_at": noted_at},
    )


def release(connection: Connection, symbols: Sequence[str], *, now: datetime) -> set[str]:
    """Let bars of these assets be holes again that the vendor had none for that is one, or the table did not take.

    Return the symbols of which the table has refused some.
    """
    rows = connection.execute(RELEASE, {"symbols": list(symbols), "now": now, "held": HELD})
    return {row["symbol"] for row in rows if row["reason"] == "refused"}


def forget_not_entitled(connection: Connection, market: AssetType, *, told: str) -> None:
    """Let a market's bars be holes again that a plan and key could not see."""
    connection.execute(FORGET_NOT_ENTITLED, {"market": market.value, "told": told})
