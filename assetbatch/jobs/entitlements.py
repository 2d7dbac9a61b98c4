"""What the key may see, and what the vendor has: read when a run begins, corrected by what its calls are told."""

from __future__ import annotations

import logging
import math
from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec.structs import astuple, replace

from assetbatch import market_hours, planner, plans
from assetbatch.database import catalogue, holidays
from assetbatch.database import entitlements as remembering
from assetbatch.database.bars import absences as bar_absences
from assetbatch.database.bars import state as database_bars
from assetbatch.database.entitlements import Remembered
from assetbatch.database.rate_limit import key_of, rules_of
from assetbatch.database.retries import in_transaction
from assetbatch.failures import WITHOUT_PRICE, FailureKind
from assetbatch.markets import TRAITS
from assetbatch.model import Access, CallKind, Trouble
from assetbatch.planner import DayOutcome
from assetbatch.plans import Entitlement, Mode, Sight

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import date, datetime

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.failures import CallError
    from assetbatch.jobs.clock import Clock
    from assetbatch.model import Asset, AssetType, Call, Failure, Product
    from assetbatch.planner import Candidate
    from assetbatch.plans import Told
    from assetbatch.provider.results import Answers

log = logging.getLogger(__name__)

OUTCOMES = {
    FailureKind.NOT_YET: DayOutcome.NOT_YET,
    FailureKind.TIMEFRAME: DayOutcome.NOT_YET,  # also said of days that have not begun
    FailureKind.EMPTY: DayOutcome.EMPTY,
}

# What a bigger plan would show.
BEYOND_THE_PLAN = frozenset({FailureKind.NOT_ENTITLED, FailureKind.TIMEFRAME, FailureKind.NOT_YET})


class Turn(Enum):
    """Whose turn it is to ask for a finished day."""

    OURS = auto()
    THEIRS = auto()
    """Another run is asking for it."""
    OVER = auto()
    """Another run has asked for it meanwhile."""


class Entitlements:
    """What one run may ask for now. `run_id` None: somebody who only looks. What is `remembered` is read by then."""

    def __init__(
        self,
        connection: Connection,
        config: Config,
        clock: Clock,
        *,
        run_id: int | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        self._run_id = run_id
        self.connection = connection
        self.config = config
        self.clock = clock
        self._key = key_of(config) or ""
        self._lease: remembering.DayLease | None = None
        self.known: set[str] = set()
        """Symbols that had a row in the platform's table when their market was asked for."""
        self._believed: set[str] = set()
        self._remembered = remembered or self._look()

    def look(self) -> None:
        """Read what is remembered, of this run and of others."""
        self._remembered = self._look()

    def _look(self) -> Remembered:
        found = Remembered(key=self._key, plans=self.config.plans, now=self.clock.now())
        self.connection.ask(*found.queries)
        return found

    @property
    def _found(self) -> Told:
        return self._remembered.entitlements.answer

    @property
    def types(self) -> frozenset[AssetType]:
        """Of which types there are assets."""
        return self._remembered.types.answer | self.config.types

    @property
    def days(self) -> planner.Days:
        """What is known of the last days of each market."""
        return self._remembered.days.answer

    @property
    def closed(self) -> frozenset[AssetType]:
        """Markets that the vendor said are closed, within the last hour: a holiday that market hours do not know."""
        return self._remembered.closed.answer

    @property
    def lacks_holidays(self) -> bool:
        """Whether the vendor is to be asked for its list of holidays: it is old, and something trades by it."""
        return self._remembered.holidays.answer.is_due and not self.types.isdisjoint(holidays.TYPES)

    @property
    def groups(self) -> list[frozenset[AssetType]]:
        """The types that there are, in groups: those whose calls are not limited beside others', and those others."""
        limited = frozenset(one for one in self.types if self.config.limit_of(TRAITS[one].product) is not None)
        return [group for group in (self.types - limited, limited) if group] or [limited]

    def told_of(self, asset_type: AssetType) -> str:
        """Name the plan for a type and the key, as whom the vendor told something."""
        return remembering.told_to(self.config.plan_of(asset_type).name, self._key)

    @property
    def modes(self) -> plans.Modes:
        """How prices of each type are asked for now."""
        return plans.modes(self.config.plans, self.config.settings.provider.mode, self._found, self.clock.now())

    @property
    def mode(self) -> Mode:
        """How prices are asked for now, of all types that there are: live, where any are."""
        return plans.overall(self.modes, self.types)

    @property
    def daily_types(self) -> frozenset[AssetType]:
        """The types of which there are assets whose prices are those of finished days."""
        modes = self.modes
        return frozenset(one for one in self.types if modes[one] is Mode.END_OF_DAY)

    @property
    def contradiction(self) -> str:
        """What the key is refused though the words of its plans say otherwise; empty: nothing."""
        config = self.config
        found = plans.contradictions(self._found, config.plans, config.settings.provider.mode, self.modes)
        words = [
            plans.contradicted(product, config.plans[product], refused) + plans.reasons(refused)
            for product, refused in found.items()
        ]
        return f"{'; '.join(words)}. Lapsed payment? `assetbatch probe` asks again at once" if words else ""

    def plan(self, candidates: Sequence[Candidate], at: datetime) -> planner.Plan:
        """Return the fewest calls that bring what is newer at a time, for assets in their order of importance."""
        return planner.plan(
            candidates,
            modes=self.modes,
            delays=self.config.delays,
            batch_size=self.config.settings.provider.batch_size,
            now=at,
            days=self.days,
            closed=self.closed,
            refused=self.refused_tickers,
        )

    def unknown(self, failed: Sequence[Failure]) -> list[Failure]:
        """Return those failures that are about tickers which the vendor left out of each finished day so far.

        Metals may rest on a day that others trade on: they are unknown if two in a row lack them.
        """
        missing = {one.symbol for one in failed if one.kind is FailureKind.MISSING} - self._believed
        # A day that was asked for by ticker says nothing of those before.
        never = (
            {one.symbol for one in catalogue.unknown_tickers(self.connection, sorted(missing))} if missing else set()
        )
        return [one for one in failed if one.kind is FailureKind.MISSING and one.symbol in never]

    def may(self, access: Access, asset_type: AssetType) -> bool:
        """Return whether it is worth asking."""
        return self.refusal(access, asset_type) is None

    def tries(self, access: Access, asset_type: AssetType) -> bool:
        """Return whether the next call of a kind tries again what was refused: its answer decides about others."""
        found = self._found.get(Sight(TRAITS[asset_type].product, access))
        return found is not None and not found.allowed and self.may(access, asset_type)

    def refusal(self, access: Access, asset_type: AssetType) -> Trouble | None:
        """Return why it is not worth asking: it was refused within the hour; None: it is."""
        found = self._found.get(Sight(TRAITS[asset_type].product, access))
        if found is None or found.allowed or self.clock.now() - found.asked_at >= plans.ASK_AGAIN:
            return None
        return Trouble(FailureKind.NOT_ENTITLED, found.reason)

    @property
    def refused_tickers(self) -> frozenset[str]:
        """Tickers whose days the plan does not have, though it has those of others."""
        now = self.clock.now()
        return frozenset(
            sight.ticker
            for sight, found in self._found.items()
            if sight.ticker and sight.access is Access.DAILY
            if not found.allowed and now - found.asked_at < plans.ASK_TICKER_AGAIN
        )

    def barred(self, asset_type: AssetType) -> Trouble | None:
        """Return why no prices of a type can be asked for at all; None: they can."""
        return self.refusal(Access.DAILY, asset_type) if asset_type in self.daily_types else None

    def serves(self, call: Call) -> bool:
        """Return whether a call is worth making still, by what others were told meanwhile."""
        return all(self.may(call.kind.access, one) for one in call.types) and not (
            call.kind is CallKind.DAILY_TICKER and call.assets[0].polygon_ticker in self.refused_tickers
        )

    def excuses(self, asset: Asset, kind: FailureKind) -> bool:
        """Return whether a live answer without a price is no failure, since the asset's market rests."""
        market, seen = market_hours.market_of(asset), self.clock.now() - self.config.plan_of(asset.asset_type).delay
        rests = asset.asset_type in self.closed or not market_hours.is_open(market, seen, regular=True)
        return rests and kind in WITHOUT_PRICE

    def may_ask_status(self) -> bool:
        """Return whether the vendor may be asked which markets are open: once an hour at most."""
        asked_at = remembering.last_status_at(self.connection)
        return asked_at is None or self.clock.now() - asked_at >= plans.ASK_AGAIN

    def note_markets(self, found: dict[AssetType, bool]) -> None:
        """Note which markets the vendor says are open; that one rests outside its sessions is no news, soon over."""
        now = self.clock.now()
        open_ones = {
            one: is_open or not market_hours.is_open(TRAITS[one].main_market, now, regular=True)
            for one, is_open in found.items()
        }
        remembering.note_markets(self.connection, open_ones, now)
        self.look()

    def newer_at(self, markets: Collection[AssetType]) -> datetime | None:
        """Return when newer figures of these markets can exist; None: at any time."""
        modes, now = self.modes, self.clock.now()
        if any(modes[market] is Mode.LIVE for market in markets):
            return None
        return min((planner.newer_day_at(market, self.days, now) for market in markets), default=None)

    def wanted_days(self) -> dict[AssetType, date | None]:
        """Return the newest finished day that can be had now, of each market whose prices are those of finished days.

        None for a market: no day can be asked for now.
        """
        now = self.clock.now()
        return {market: planner.wanted_day(market, self.days, now) for market in self.daily_types}

    def held_seconds(self) -> dict[AssetType, float]:
        """Return for how many seconds the newest day of a market that was asked for lately is not asked for again."""
        asked = {market: self.days.get((market, day)) for market, day in self.wanted_days().items() if day}
        again_at = {market: one.asked_at + plans.ASK_AGAIN for market, one in asked.items() if one}
        return {market: (at - self.clock.now()).total_seconds() for market, at in again_at.items()}

    def widened(self, call: Call) -> Call:
        """Let a call for daily figures serve all of its market: the catalogue is what config.yaml says by then.

        One that looks back serves all that it is worth looking back for.
        """
        if call.kind is not CallKind.DAILY or call.market is None:
            return call
        found = catalogue.assets_of_market(self.connection, call.market)
        self.known |= found.served
        self._believed -= {asset.symbol for asset in found.assets}
        self._believed |= found.believed
        if planner.looks_back(call, self.days):
            return replace(call, assets=tuple(asset for asset in found.assets if asset.symbol in found.paused))
        return replace(call, assets=found.assets)

    def take_day(self, call: Call, days: planner.Days) -> Turn:
        """Take the right to ask for a call's day, if it is our turn; `days` are those that the call was planned on."""
        hold = rules_of(self.config, ()).hold_seconds + self.config.window_seconds
        self._lease = remembering.DayLease(self.connection, *call.market_day, seconds=hold, run_id=self._run_id)
        if not self._lease.take():
            self._lease = None
            return Turn.THEIRS
        self.look()
        if self.days.get(call.market_day) == days.get(call.market_day):
            return Turn.OURS
        self.give_up_day()
        return Turn.OVER

    def leave_by(self, call: Call) -> float:
        """Return until when a call may leave, as `boot_time()`: one for a day is back before its lease is over."""
        if self._lease is None or call.day is None:
            return math.inf
        return self._lease.until - rules_of(self.config, ()).request_seconds

    def give_up_day(self) -> None:
        """Let another run ask, where the call brought nothing to note."""
        if self._lease is not None:
            self._lease.give_up()
            self._lease = None

    def note_stored(self, call: Call) -> list[str]:
        """Note, in the transaction that stores a day's figures, that they are; end the queue's items they serve.

        Returns the symbols of those items.
        """
        market, day = call.market_day
        self._note_day(market, day, DayOutcome.STORED)
        if planner.looks_back(call, self.days):
            return []
        from assetbatch.database.queue import items as queue

        hour = plans.ASK_AGAIN.total_seconds()
        return queue.complete_served(self.connection, {market: day}, {market: hour})

    def learn(self, call: Call, error: CallError | None) -> bool:
        """Learn from how a call went; True: there is another way now to what it was for."""
        access, types = call.kind.access, call.types
        if error is None:
            for sight in {Sight(TRAITS[one].product, access) for one in types}:
                if sight in self._found and not self._found[sight].allowed:
                    self.remember(sight, allowed=True, reason="")
                    for market in (one for one in types if TRAITS[one].product is sight.product):
                        self.revive(market, prices=access is not Access.BARS, bars=access is Access.BARS)
            return False
        if error.kind is FailureKind.NOT_ENTITLED:
            return self._refused(call, error.reason)
        if error.kind in OUTCOMES and call.kind is CallKind.DAILY:
            self._note_outcome(call, OUTCOMES[error.kind])
            return True
        if call.kind is CallKind.DAILY_TICKER and OUTCOMES.get(error.kind) is DayOutcome.NOT_YET:
            self._note_outcome(call, DayOutcome.NOT_YET)
            return True
        return False

    def learn_rows(self, call: Call, answer: Answers) -> tuple[Asset, ...]:
        """Learn from a good answer, rows of which may be refused; return assets for which there is another way now.

        What all rows of a product are told holds for all of it, where there are several, or it is all that there is of
        the product, or was so before; one alone among others may be the ticker's.
        """
        told = {
            symbol: reason for symbol, (kind, reason) in answer.failures.items() if kind is FailureKind.NOT_ENTITLED
        }
        seen = tuple(asset for asset in call.assets if asset.symbol not in told)
        found: list[Asset] = []
        for product in {TRAITS[one].product for one in call.types} if told else ():
            own = [asset for asset in call.assets if TRAITS[asset.asset_type].product is product]
            before = self._found.get(Sight(product, call.kind.access))
            holds = len(own) > 1 or (before is not None and not before.allowed) or self._is_all(own[0], product)
            if holds and not set(own) & set(seen):
                self._refused(replace(call, assets=tuple(own)), told[own[0].symbol])
                found += [one for one in own if one.asset_type in self.daily_types and not self.barred(one.asset_type)]
        self.learn(replace(call, assets=seen), None)
        return tuple(found)

    def _is_all(self, asset: Asset, product: Product) -> bool:
        """Return whether there is no other asset of a product."""
        others = (*self.config.assets, *catalogue.enabled_assets(self.connection))
        return all(one.symbol == asset.symbol for one in others if TRAITS[one.asset_type].product is product)

    def _note_outcome(self, call: Call, outcome: DayOutcome) -> None:
        in_transaction(self.connection, lambda: self._note_day(*call.market_day, outcome))
        if call.kind is CallKind.DAILY:
            self._lease = None
        self.look()

    def _refused(self, call: Call, reason: str) -> bool:
        access, types = call.kind.access, call.types
        for one in types:
            is_alone = len(call.assets) == 1
            sight = plans.sight_of(call.assets[0], access) if is_alone else Sight(TRAITS[one].product, access)
            again = "a week" if sight.ticker else "an hour"
            words = " ".join(filter(None, astuple(sight)))
            log.info("%s: refused as not entitled; it is asked again in %s", words, again)
            self.remember(sight, allowed=False, reason=reason)
        others = self.daily_types
        return access is Access.SNAPSHOTS and any(one in others and self.barred(one) is None for one in types)

    def not_yet(self, market: AssetType) -> None:
        """Note that the day that is wanted of a market is not over for the vendor."""
        day = planner.wanted_day(market, self.days, self.clock.now())
        if day is not None:
            in_transaction(self.connection, lambda: self._note_day(market, day, DayOutcome.NOT_YET))
            self.look()

    def _note_day(self, market: AssetType, day: date, outcome: DayOutcome) -> None:
        remembering.note_day(self.connection, market, day, outcome, self.clock.now())

    def remember(self, sight: Sight, *, allowed: bool, reason: str) -> None:
        """Remember what the vendor said about a kind of call."""
        found = Entitlement(allowed, self.clock.now(), reason)
        about = {"key": self._key, "plan": self.config.plans[sight.product].name}
        in_transaction(
            self.connection,
            lambda: remembering.remember(self.connection, **about, sight=sight, found=found),
        )
        self._found[sight] = found

    def revive(self, market: AssetType, *, prices: bool = False, bars: bool = False, history: bool = False) -> None:
        """Let be asked for at once what was put to rest of a market, now that the key sees it.

        That is dead letters where it sees prices, bars that were put off, and those of the past.
        """

        def work() -> None:
            if bars:
                database_bars.revive(self.connection, market, kinds=[kind.value for kind in BEYOND_THE_PLAN])
            if history:
                bar_absences.forget_not_entitled(self.connection, market, told=self.told_of(market))

        in_transaction(self.connection, work)
        if prices:
            from assetbatch.database.queue import admin as queue_desk
            from assetbatch.jobs.claims import step_seconds

            assets = catalogue.assets_of_market(self.connection, market).assets
            queue_desk.retry(
                self.connection,
                [asset.symbol for asset in assets],
                kind=FailureKind.NOT_ENTITLED.value,
                max_size=self.config.settings.queue.max_size,
                step_seconds=step_seconds(self.config),
            )
