"""`forecast`: what the next runs would call, how many calls, and when every asset will be fresh. Makes no call."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import bars as core
from assetbatch import market_hours, planner
from assetbatch.database import catalogue
from assetbatch.database.bars import holes as bar_holes
from assetbatch.database.bars import state as bars
from assetbatch.database.read import forecast
from assetbatch.database.setup import schema
from assetbatch.jobs.backfill import seconds_for
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.jobs.wanted import Wanted
from assetbatch.markets import TRAITS, Market
from assetbatch.model import Access, CallKind
from assetbatch.schedule import DRAIN_QUEUE, ENQUEUE_SECONDARY, RUN_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType
    from assetbatch.plans import Mode

# Holes are looked for in so many assets at most: it reads all their bars.
MOST_SCANNED = 200


class ForeseenCalls(Struct, frozen=True):
    """Calls of one kind that a job is going to make at its next run, or over its next runs where one does not do."""

    job: str
    at: datetime
    kind: CallKind
    calls: int
    assets: int
    markets: tuple[AssetType, ...] = ()
    """Whose finished day the calls bring."""
    exempt: int = 0
    """How many of them are without limit."""


class ForeseenBars(Struct, frozen=True):
    """The calls that one asset's bars need."""

    symbol: str
    since: datetime
    calls: int
    is_exempt: bool = False
    """Whether they are without limit."""


class Forecast(Struct, frozen=True):
    """What is going to be called. `fresh_at` is when every price can be there, `complete_at` every bar, too.

    `newer_at` is when newer finished days can exist; None: prices are live. `unscanned` assets were not looked at for
    holes in their bars.
    """

    now: datetime
    mode: Mode
    limit: int | None
    window_seconds: float
    calls: tuple[ForeseenCalls, ...]
    bars: tuple[ForeseenBars, ...]
    fresh_at: datetime
    complete_at: datetime
    newer_at: datetime | None
    unscanned: int
    streamed: int
    """Assets that a stream keeps fresh now: no call asks for their quotes."""

    @property
    def total(self) -> int:
        """All calls together."""
        return sum(one.calls for one in self.calls)


def foresee(config: Config, connection: Connection) -> Forecast:
    """Foresee the next runs of all jobs, from what is stored, due and queued now."""
    now = schema.check(connection)
    clock = Clock(now)
    return _Forecaster(config, connection, clock).forecast()


class _Forecaster:
    def __init__(self, config: Config, connection: Connection, clock: Clock) -> None:
        self._config = config
        self._connection = connection
        self._entitlements = Entitlements(connection, config, clock)
        self._now = clock.started_at
        self._streamed = forecast.streamed(connection)
        self._days = self._entitlements.wanted_days()
        self._refused = self._entitlements.refused_tickers

    def forecast(self) -> Forecast:
        batch = self._config.settings.batch
        drained = planner.next_start(self._now, DRAIN_QUEUE.every(batch))
        prices = [
            *self._priority(planner.next_start(self._now, RUN_PRIORITY.every(batch))),
            *self._secondary(
                drained, forecast.queued(self._connection, self._resting(drained), self._days, self._refused)
            ),
            *self._secondary_later(planner.next_start(self._now, ENQUEUE_SECONDARY.every(batch))),
        ]
        prices = self._once(prices)
        found, unscanned = self._bars(Clock(drained))
        calls = [*prices]
        if found:
            number = sum(one.calls for one in found)
            exempt = sum(one.calls for one in found if one.is_exempt)
            calls.append(ForeseenCalls(DRAIN_QUEUE.name, drained, CallKind.BARS, number, len(found), exempt=exempt))
        if self._entitlements.lacks_holidays:
            calls.append(ForeseenCalls(DRAIN_QUEUE.name, drained, CallKind.MARKET_HOLIDAYS, 1, 0))
        last = max((one.at for one in prices if one.calls), default=self._now)
        return Forecast(
            now=self._now,
            mode=self._entitlements.mode,
            limit=self._config.calls_per_window(self._entitlements.types),
            window_seconds=self._config.window_seconds,
            calls=tuple(calls),
            bars=tuple(found),
            fresh_at=last + self._lasts([one for one in prices if one.at == last]),
            complete_at=max(last, drained if found else last) + self._lasts(calls),
            newer_at=self._entitlements.newer_at({asset.asset_type for asset in self._config.assets}),
            unscanned=unscanned,
            streamed=len(self._streamed),
        )

    def _lasts(self, found: Sequence[ForeseenCalls]) -> timedelta:
        calls, exempt = sum(one.calls for one in found), sum(one.exempt for one in found)
        return timedelta(seconds=seconds_for(calls, self._config, self._entitlements.types, exempt=exempt))

    def _is_exempt(self, types: Iterable[AssetType]) -> bool:
        return all(self._config.limit_of(TRAITS[one].product) is None for one in types)

    def _priority(self, at: datetime) -> Iterator[ForeseenCalls]:
        known = self._connection.answer(catalogue.candidates(self._config.priority_assets))
        served = [
            replace(one, served_at=at) if one.served_at and one.asset.symbol in self._streamed else one for one in known
        ]
        plan = self._entitlements.plan(served, at)
        for kind in dict.fromkeys(call.kind for call in plan.calls):
            own = [call for call in plan.calls if call.kind is kind]
            yield ForeseenCalls(
                RUN_PRIORITY.name,
                at,
                kind,
                len(own),
                sum(len(call.assets) for call in own),
                tuple(call.market for call in own if call.market),
                exempt=sum(self._is_exempt(call.types) for call in own),
            )

    def _once(self, calls: Sequence[ForeseenCalls]) -> list[ForeseenCalls]:
        """Count the figures of a market's day once: one call serves all jobs."""
        seen: set[AssetType] = set()
        found = []
        for one in calls:
            if one.kind is CallKind.DAILY:
                left = tuple(market for market in one.markets if market not in seen)
                seen.update(left)
                exempt = sum(self._is_exempt([market]) for market in left)
                found.append(replace(one, calls=len(left), markets=left, exempt=exempt))
            else:
                found.append(one)
        return [one for one in found if one.calls]

    def _secondary_later(self, at: datetime) -> Iterator[ForeseenCalls]:
        """Tell what follows from what `enqueue-secondary` is going to put on the queue the next time."""
        limits = [
            (seconds, market, planner.served_before(seconds, market, at, self._config.delays))
            for seconds in self._connection.answer(catalogue.frequencies())
            for market in Market
        ]
        yield from self._secondary(at, forecast.due(self._connection, limits, self._days, self._refused))

    def _secondary(self, at: datetime, items: Mapping[AssetType, int]) -> Iterator[ForeseenCalls]:
        size = self._config.settings.provider.batch_size
        # What is limited is asked for apart from what is not.
        for is_exempt in (True, False):
            own = {one: number for one, number in items.items() if one not in self._days}
            live = sum(number for one, number in own.items() if self._is_exempt([one]) is is_exempt)
            if live:
                kind, calls = CallKind.SNAPSHOT_SINGLE if size == 1 else CallKind.SNAPSHOT, -(-live // size)
                yield ForeseenCalls(DRAIN_QUEUE.name, at, kind, calls, live, exempt=calls if is_exempt else 0)
        daily = {one: number for one, number in items.items() if number and one in self._days}
        whole = tuple(one for one in daily if TRAITS[one].has_whole_days)
        if whole:
            number = sum(daily[one] for one in whole)
            exempt = sum(self._is_exempt([one]) for one in whole)
            yield ForeseenCalls(DRAIN_QUEUE.name, at, CallKind.DAILY, len(whole), number, whole, exempt)
        for one in daily.keys() - set(whole):
            exempt = daily[one] if self._is_exempt([one]) else 0
            yield ForeseenCalls(DRAIN_QUEUE.name, at, CallKind.DAILY_TICKER, daily[one], daily[one], (one,), exempt)

    def _resting(self, at: datetime) -> dict[Market, datetime | None]:
        """Return the markets that rest then, and since when; None: the vendor says so, nobody knows since when."""
        closed_at = {market: planner.closed_at(market, at, self._config.delays) for market in Market}
        return {
            one: at for one, at in closed_at.items() if at is not None or one.asset_type in self._entitlements.closed
        }

    def _bars(self, clock: Clock) -> tuple[list[ForeseenBars], int]:
        """Return the calls that bars need of which a job would find them due then; and how many were not looked at."""
        entitlements = Entitlements(self._connection, self._config, clock)
        wanted, connection = Wanted(entitlements), self._connection
        types = {one for one in entitlements.types if wanted.asks(one) and entitlements.may(Access.BARS, one)}
        assets = [asset for asset in catalogue.enabled_assets(connection) if asset.asset_type in types]
        if not assets:
            return [], 0
        looked_at, now = [asset.symbol for asset in assets[:MOST_SCANNED]], clock.now()
        limits = wanted.limits(connection.answer(catalogue.frequencies()), types)
        due = {symbol for symbol, _ in bars.due(connection, limits, symbols=looked_at, now=now, limit=len(looked_at))}
        scanned = bar_holes.next_to_scan(connection, types=types, scanned_before=now, now=now, limit=len(assets))
        found = []
        since, kept_since = {one: wanted.since(one) for one in types}, wanted.kept_since()
        asked = [
            bars.tracks(own, wanted_since=since[one], kept_since=kept_since, now=now)
            for one in sorted(types)
            if (own := [asset.symbol for asset in assets[:MOST_SCANNED] if asset.asset_type is one])
        ]
        connection.ask(*asked)
        places = {symbol: place for place, symbol in enumerate(looked_at)}
        known = sorted((track for query in asked for track in query.answer), key=lambda one: places[one.asset.symbol])
        for track in known:
            symbol, until = track.asset.symbol, track.asked_until
            newest = wanted.newest(track) if symbol in due else None
            if newest is None and symbol not in scanned:
                continue
            # Behind the newest bars, which come first.
            until = newest.since if newest else until
            holes = wanted.holes(symbol, track.asset.asset_type, track.wanted_since, until)
            calls = core.calls_for(holes, market_hours.market_of(track.asset))
            if newest is not None:
                # Whether the vendor has bars of 1 minute alone is asked by a call of its own.
                calls += 2 if track.is_doubtful(now) else 1
            if calls:
                begins = [*(hole.since for hole in holes), *([newest.since] if newest else [])]
                found.append(ForeseenBars(symbol, begins[0], calls, self._is_exempt([track.asset.asset_type])))
        if any(entitlements.tries(Access.BARS, one) for one in types):
            found = [replace(one, calls=1) for one in found[:1]]
        return found, len(assets) - len(looked_at)
