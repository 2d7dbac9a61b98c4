"""Coverage: how many of the bars that are expected are there, day by day; the rule is `functions/coverage.sql`."""

from __future__ import annotations

from datetime import date  # noqa: TC003 - read when the decoder is made
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from assetbatch.database.query import Query, command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from assetbatch.markets import Market
    from assetbatch.model import AssetType, Span

# Compiling the statement takes longer than it runs.
WITHOUT_COMPILING = "select pg_catalog.set_config('jit', 'off', true)"

# As text: what reads it is quicker than a row each. Of whose bars nobody has asked for any there are no days.
READ_DAYS = """
select a.symbol, a.asset_type, k.symbol is not null as is_known, coalesce(c.days, '[]') as days,
       case when k.symbol is not null then c.idle
            when not a.enabled then 'disabled'
            else coalesce((select g.state from assetbatch.gone_tickers g where g.symbol = a.symbol),
                          (select 'unknown' from assetbatch.unknown_tickers u where u.symbol = a.symbol))
       end as idle
from assetbatch.assets a
left join assetbatch.bar_state k using (symbol)
left join (
  select c.symbol, min(c.idle) as idle,
         json_agg(json_build_array(
           c.day, c.expected, c.final, c.open, c.closed, c.nothing, c.not_entitled, c.failed, c.refused, c.missing
         ) order by c.day)::text as days
  from assetbatch.bar_coverage(
    %(since)s::timestamptz, %(now)s::timestamptz,
    %(markets)s::text[], %(frequencies)s::int[], %(reaches)s::timestamptz[],
    %(resting)s::text[], %(rests_since)s::timestamptz[], %(rests_until)s::timestamptz[],
    %(types)s::text[], %(told)s::text[]
  ) c
  where c.symbol = any(coalesce(%(symbols)s::text[], array[c.symbol])) and c.day <= %(until)s::date
  group by c.symbol
) c on c.symbol = a.symbol
where case when %(symbols)s::text[] is null then a.enabled else a.symbol = any(%(symbols)s::text[]) end
order by a.symbol
"""


class Day(Struct, frozen=True, array_like=True):
    """How many bars of a day (UTC) are expected: all but those of `closed`, the hours at which the market rested.

    `expected` is the sum of all others: those that are there, `final` or `open`; that are not, since the vendor had
    `nothing`, or nothing with this plan and key (`not_entitled`), what it sent was no bar (`failed`), or the table
    `refused` it; and `missing`, for no reason that is known.
    """

    day: date
    expected: int
    final: int
    open: int
    closed: int
    nothing: int
    not_entitled: int
    failed: int
    refused: int
    missing: int


class Covered(Struct, frozen=True):
    """An asset's days, in order; none where its bars were never asked for, or are not wanted of those days.

    `is_known`: somebody has asked for some.
    `idle` is why nobody asks for its bars: disabled, removed (by the platform), delisted, renamed, unknown (to the
    vendor) or not_entitled; None: they are asked for.
    """

    symbol: str
    asset_type: str
    idle: str | None
    is_known: bool
    days: tuple[Day, ...]


_read_days = msgspec.json.Decoder(tuple[Day, ...])


def uncompiled() -> Query[int]:
    """Let the statement behind it in its transaction run as it is."""
    return command(WITHOUT_COMPILING)


def covered(
    symbols: Sequence[str] | None,
    *,
    since: datetime,
    until: date,
    now: datetime,
    reaches: Mapping[tuple[Market, int], datetime],
    closed: Mapping[Market, Sequence[Span]],
    told: Mapping[AssetType, str],
) -> Query[list[Covered]]:
    """Ask for the days from `since` to `until` of these assets; None: of all that are enabled.

    `reaches` tells until when the bars of each market and update frequency (seconds) ought to be there by now, `closed`
    when it rested. `told` names plan and key; without it, what any of them was told of the plan holds.
    """
    rests = [(market, span) for market, spans in closed.items() for span in spans]
    return Query(
        READ_DAYS,
        {
            "symbols": None if symbols is None else list(symbols),
            "since": since,
            "until": until,
            "now": now,
            "markets": [market.value for market, _ in reaches],
            "frequencies": [seconds for _, seconds in reaches],
            "reaches": list(reaches.values()),
            "resting": [market.value for market, _ in rests],
            "rests_since": [span.since for _, span in rests],
            "rests_until": [span.until for _, span in rests],
            "types": [one.value for one in told],
            "told": list(told.values()),
        },
        lambda rows: [
            Covered(row["symbol"], row["asset_type"], row["idle"], row["is_known"], _read_days.decode(row["days"]))
            for row in rows
        ],
    )
