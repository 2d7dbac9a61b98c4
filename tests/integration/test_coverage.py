"""Coverage, held against a slow, simple reference, bar by bar, and against what `status` and the jobs call a hole."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

import pytest

from assetbatch import market_hours
from assetbatch.bars import LENGTH, floor
from assetbatch.database.bars import coverage, holes
from assetbatch.jobs.coverage import COUNTS
from assetbatch.markets import Market
from assetbatch.model import AssetType, Span
from tests.world import DAY, HOUR, add_assets

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection

TICKERS = {Market.FOREX: "C:EURUSD", Market.METALS: "C:XAUUSD", Market.CRYPTO: "X:BTCUSD", Market.STOCKS: "AAPL"}
TOLD, OTHER = "starter me", "starter another"
# Of a weekend under way, of Thanksgiving and its half day, of Christmas.
TIMES = [
    datetime(2026, 11, 24, 12, 2, tzinfo=UTC),
    datetime(2026, 11, 28, 15, 1, tzinfo=UTC),
    datetime(2026, 11, 29, 23, 30, tzinfo=UTC),
    datetime(2026, 12, 26, 3, 4, tzinfo=UTC),
    datetime(2027, 1, 2, 0, 0, tzinfo=UTC),
]
SAYING_NOTHING = (
    "alter table market_data.ohlcv_5m drop column is_final, drop column fetched_at",
    "alter table market_data.ohlcv_5m alter is_final drop not null, alter fetched_at drop not null",
)
ADD_BARS = """
insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume{columns})
select s.id, v.ts, 1, 1, 1, 1, 1{values}
from trading.symbols s cross join unnest(%(ts)s::timestamptz[], %(final)s::boolean[]) as v (ts, is_final)
where s.symbol = %(symbol)s
"""
FINALITY = {"columns": ", is_final, fetched_at", "values": ", v.is_final, v.ts"}
ADD_STATE = """
insert into assetbatch.bar_state (symbol, wanted_since, asked_until, watermark, error_kind)
values (%(symbol)s, %(wanted_since)s, %(asked_until)s, %(watermark)s, %(error_kind)s)
"""
ADD_ABSENCE = """
insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at, told)
select %(symbol)s, %(reason)s, m::date, r * tstzmultirange(tstzrange(m, m + interval '1 month')), %(noted_at)s, %(told)s
from (select range_agg(tstzrange(since, until)) as r
      from unnest(%(since)s::timestamptz[], %(until)s::timestamptz[]) v (since, until)) v,
     generate_series(date_trunc('month', lower(r)), upper(r), '1 month') m
where not isempty(r * tstzmultirange(tstzrange(m, m + interval '1 month')))
"""
ADD_SILENCE = """
insert into assetbatch.bar_silences (symbol, told_at, ask_at, ranges)
select %(symbol)s, %(told_at)s, %(ask_at)s, range_agg(tstzrange(since, until))
from unnest(%(since)s::timestamptz[], %(until)s::timestamptz[]) v (since, until)
"""
GONE = """
insert into assetbatch.ticker_lives (symbol, state, asked_at, ask_at) values (%(symbol)s, 'delisted', now(), now())
"""
UNKNOWN = "insert into assetbatch.sync_state (symbol, error_kind) values (%(symbol)s, 'unknown_ticker')"
READ_FUNCTION = """
select symbol, day, idle, {counts} from assetbatch.bar_coverage(
  null, %(now)s, null, null, null, null, null, null, null, null
) order by symbol, day
"""


@dataclass
class Noted:
    """Why bars are absent, where; what does not hold any more counts for nothing."""

    reason: str
    spans: list[Span]
    noted_at: datetime
    told: str = ""
    ask_at: datetime | None = None

    def holds(self, now: datetime, told: str | None) -> bool:
        if self.ask_at is not None:
            return self.ask_at > now
        if self.reason == "failed":
            return self.noted_at > now - DAY
        return self.reason != "not_entitled" or told in {None, self.told}

    def has(self, ts: datetime) -> bool:
        return any(span.since <= ts < span.until for span in self.spans)


@dataclass
class Asset:
    """An asset and its bars, each final or open."""

    symbol: str
    market: Market
    wanted_since: datetime
    asked_until: datetime | None
    idle: str | None
    watermark: datetime | None = None
    bars: dict[datetime, bool] = field(default_factory=dict)
    noted: list[Noted] = field(default_factory=list)

    @property
    def known_until(self) -> datetime | None:
        """How far bars were asked for, or are there where the newest were never asked for."""
        if self.asked_until is None and self.watermark is not None:
            return self.watermark + LENGTH
        return self.asked_until

    def kind_of(self, ts: datetime, *, until: datetime, rests: list[Span], now: datetime, told: str | None) -> str:
        """Say what a time is where a bar may be: the rule in words."""
        bar = self.bars.get(ts)
        if ts >= until:
            return "beyond" if bar is None else "final" if bar else "open"
        if bar:
            return "final"
        why = {one.reason for one in self.noted if one.has(ts) and one.holds(now, told)}
        if any(rest.since <= ts < rest.until for rest in rests):
            why.add("closed")
        for reason in ("closed", "nothing", "not_entitled", "failed", "refused"):
            if reason in why:
                return reason
        if bar is not None:
            return "open"
        return "not_entitled" if self.idle == "not_entitled" else "missing"

    def days(
        self,
        *,
        since: datetime | None,
        reach: datetime | None,
        rests: list[Span],
        now: datetime,
        told: str | None,
    ) -> dict[object, Counter[str]]:
        begin = max(self.wanted_since, since or self.wanted_since)
        until = max([begin, *filter(None, [self.known_until, reach if self.idle in {None, "not_entitled"} else None])])
        ends = datetime.combine(max(now, until - LENGTH).date(), time(0), UTC) + DAY
        found: dict[object, Counter[str]] = {}
        ts = begin
        while ts < ends:
            day = found.setdefault(ts.date(), Counter())
            kind = self.kind_of(ts, until=until, rests=rests, now=now, told=told)
            day[kind] += 1
            day["expected"] += kind not in {"closed", "beyond"}
            ts += LENGTH
        return found


def some_spans(chance: random.Random, since: datetime, until: datetime) -> list[Span]:
    """Some stretches, longer and shorter, some of them over midnight or the end of a month."""
    found = []
    for _ in range(chance.choice([1, 2, 8])):
        begin = floor(since + chance.random() * (until - since))
        found.append(Span(begin, begin + LENGTH * chance.choice([1, 2, 30, 300])))
    return found


def some_asset(chance: random.Random, symbol: str, market: Market, now: datetime, *, has_finality: bool) -> Asset:
    """An asset as jobs may have left it: below `asked_until` no bar is open, but where one was noted to be absent."""
    wanted_since = floor(now - chance.choice([1, 3, 6]) * DAY - chance.random() * DAY)
    asked_until = chance.choice([None, floor(now - chance.random() * 3 * HOUR), floor(now - chance.random() * DAY)])
    idle = chance.choice([None, None, None, "disabled", "delisted", "unknown", "not_entitled"])
    asset = Asset(symbol, market, wanted_since, asked_until, idle)
    for reason in chance.sample(["closed", "nothing", "not_entitled", "failed", "refused", "silence"], k=3):
        spans = some_spans(chance, wanted_since - DAY, now)
        noted_at = now - chance.choice([1, 30]) * HOUR
        told = chance.choice([TOLD, OTHER]) if reason == "not_entitled" else ""
        ask_at = noted_at + chance.choice([1, 2, 72]) * HOUR if reason == "silence" else None
        asset.noted.append(Noted("nothing" if ask_at else reason, spans, noted_at, told, ask_at))
    rests = market_hours.closed_spans(market, wanted_since - DAY, now)
    share = chance.choice([0.5, 0.95, 0.998, 1.0])
    ts = floor(wanted_since - HOUR)
    while ts < now:
        is_absent = any(one.has(ts) for one in asset.noted)
        rest = any(span.since <= ts < span.until for span in rests)
        if chance.random() < (0.05 if is_absent or rest else share):
            is_settled = asked_until is not None and ts < asked_until
            is_open = has_finality and chance.random() < 0.3 and (is_absent or not is_settled)
            asset.bars[ts] = not is_open
        ts += LENGTH
    asset.watermark = chance.choice([None, max(asset.bars, default=None)])
    return asset


def store(connection: Connection, asset: Asset, now: datetime, *, has_finality: bool) -> None:
    about = {"symbol": asset.symbol}
    connection.execute(
        ADD_STATE,
        about
        | {
            "wanted_since": asset.wanted_since,
            "asked_until": asset.asked_until,
            "watermark": asset.watermark,
            "error_kind": "not_entitled" if asset.idle == "not_entitled" else None,
        },
    )
    statement = ADD_BARS.format(**FINALITY if has_finality else {"columns": "", "values": ""})
    connection.execute(statement.encode(), about | {"ts": list(asset.bars), "final": list(asset.bars.values())})
    for one in asset.noted:
        spans = {"since": [span.since for span in one.spans], "until": [span.until for span in one.spans]}
        if one.ask_at is None:
            more = {"reason": one.reason, "noted_at": one.noted_at, "told": one.told}
            connection.execute(ADD_ABSENCE, about | spans | more)
        else:
            connection.execute(ADD_SILENCE, about | spans | {"told_at": one.noted_at, "ask_at": one.ask_at})
    if asset.idle == "disabled":
        connection.execute("update assetbatch.assets set enabled = false where symbol = %(symbol)s", about)
    elif asset.idle in {"delisted", "unknown"}:
        connection.execute(GONE if asset.idle == "delisted" else UNKNOWN, about)


@pytest.mark.parametrize("has_finality", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_a_reference_counts_bar_by_bar(connection: Connection, seed: int, *, has_finality: bool) -> None:
    chance = random.Random(seed)
    now = TIMES[seed % len(TIMES)]
    if not has_finality:
        connection.execute(SAYING_NOTHING[seed % 2].encode())
    markets = {f"{market.name}{number}": market for market in TICKERS for number in range(2)}
    for symbol, market in markets.items():
        add_assets(connection, f"{TICKERS[market]}{symbol[-1]}")
    connection.execute("update assetbatch.assets set symbol = upper(market) || right(symbol, 1)")
    connection.execute("insert into trading.symbols (symbol) select symbol from assetbatch.assets")
    assets = [some_asset(chance, one, market, now, has_finality=has_finality) for one, market in markets.items()]
    for asset in assets:
        store(connection, asset, now, has_finality=has_finality)
    since = datetime.combine((now - chance.choice([1, 4, 40]) * DAY).date(), time(0), UTC)
    reaches = {
        (market, 1800): floor(now - chance.choice([0, 1, 30]) * HOUR) for market in TICKERS if chance.random() < 0.8
    }
    closed = {market: market_hours.closed_spans(market, since, now) for market in TICKERS}
    told = {one: TOLD for one in AssetType if chance.random() < 0.7}

    query = coverage.covered(
        [asset.symbol for asset in assets],
        since=since,
        until=now.date(),
        now=now,
        reaches=reaches,
        closed=closed,
        told=told,
    )
    connection.ask(coverage.uncompiled(), query)
    by_symbol = {one.symbol: one for one in query.answer}
    for asset in assets:
        shown = by_symbol[asset.symbol]
        settled = asset if has_finality else with_settled(asset, since, reaches.get((asset.market, 1800)))
        expected = settled.days(
            since=since,
            reach=reaches.get((asset.market, 1800)),
            rests=closed[asset.market],
            now=now,
            told=told.get(asset.market.asset_type),
        )
        assert shown.idle == asset.idle
        assert {day.day: {name: getattr(day, name) for name in COUNTS} for day in shown.days} == {
            day: {name: counts[name] for name in COUNTS} for day, counts in expected.items()
        }, asset.symbol
        for day in shown.days:
            assert day.expected == sum(getattr(day, name) for name in COUNTS if name not in {"expected", "closed"})

    # What the view says by itself: of no time that nobody has asked for, and of no rest that no page has noted.
    rows = connection.execute(READ_FUNCTION.format(counts=", ".join(COUNTS)).encode(), {"now": now}).fetchall()
    for asset in assets:
        settled = asset if has_finality else with_settled(asset, None, None)
        expected = settled.days(since=None, reach=None, rests=[], now=now, told=None)
        assert {row["day"]: {name: row[name] for name in COUNTS} for row in rows if row["symbol"] == asset.symbol} == {
            day: {name: counts[name] for name in COUNTS} for day, counts in expected.items()
        }, asset.symbol

    # What `status` counts as missing is what is missing, refused, or there but open when it ought to be settled.
    counted = holes.coverage(
        {one.symbol: reaches.get((one.market, 1800), one.wanted_since) for one in assets},
        counted=[one.symbol for one in assets],
        closed={one.symbol: closed[one.market] for one in assets},
        since=since,
        now=now,
        told={one.symbol: TOLD for one in assets},
    )
    connection.ask(counted)
    for asset in assets:
        reach = reaches.get((asset.market, 1800))
        if reach is None or asset.idle not in {None, "not_entitled"}:
            continue
        missing, ts = 0, max(since, asset.wanted_since)
        settled = asset if has_finality else with_settled(asset, since, reach)
        while ts < reach and asset.idle is None:
            kind = settled.kind_of(ts, until=reach, rests=closed[asset.market], now=now, told=TOLD)
            missing += kind in {"missing", "refused", "open"}
            ts += LENGTH
        assert counted.answer[asset.symbol].missing == missing, asset.symbol


def with_settled(asset: Asset, since: datetime | None, reach: datetime | None) -> Asset:
    """Say of each bar whether it is final as a table has it that does not tell: what ought to be there by now is."""
    idle = asset.idle in {None, "not_entitled"}
    begin = max(asset.wanted_since, since or asset.wanted_since)
    until = max([begin, *filter(None, [asset.known_until, reach if idle else None])])
    return Asset(
        asset.symbol,
        asset.market,
        asset.wanted_since,
        asset.asked_until,
        asset.idle,
        asset.watermark,
        {ts: ts < until for ts in asset.bars},
        asset.noted,
    )
