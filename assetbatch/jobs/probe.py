"""`probe`: asks the API on purpose what this key may see, with as few calls as tell, and remembers it."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from assetbatch.database.entitlements import types_in_use
from assetbatch.database.rate_limit import Lane, rules_of
from assetbatch.failures import POLICIES, CallError, FailureKind
from assetbatch.jobs.calls import Calls
from assetbatch.jobs.entitlements import BEYOND_THE_PLAN
from assetbatch.jobs.run import Start, perform
from assetbatch.markets import TRAITS, without_prefix
from assetbatch.model import Asset, AssetType, Call, CallKind, Product, Role, Span
from assetbatch.plans import FREE, HISTORY_YEARS, KEYS, Plan, Sight, plan_words, sight_of
from assetbatch.provider import endpoints
from assetbatch.words import joined

if TYPE_CHECKING:
    from collections.abc import Collection

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.jobs.clock import Stop
    from assetbatch.jobs.run import Run
    from assetbatch.model import RunResult
    from assetbatch.provider.request import Request

log = logging.getLogger(__name__)
A = TypeVar("A")

JOB = "probe"
# Beyond what the smallest plan shows.
YEARS = min(HISTORY_YEARS)
LONG_AGO = timedelta(days=YEARS * 365 + 10)


class MarketAccess(Struct, frozen=True):
    """What a key may see of a market; None: it could not be told."""

    market: AssetType
    quotes: bool | None
    todays_bars: bool | None
    long_history: bool | None
    plan: Plan = FREE
    """What the configuration says of it."""

    @property
    def recency(self) -> str:
        """How recent the newest data are."""
        return "live" if self.quotes else "bars of today" if self.todays_bars else "end of day"

    @property
    def history(self) -> str:
        """How far the bars reach back."""
        return {True: f"over {YEARS} years", False: f"{YEARS} years at most", None: "unknown"}[self.long_history]


class Probed(Struct, frozen=True):
    """What a key was found to see, held against the word of its plan."""

    plan: str
    markets: tuple[MarketAccess, ...]
    calls_used: int

    @property
    def verdict(self) -> str:
        """What does not fit together, product by product; empty: nothing."""
        words = []
        for product in Product:
            own = [one for one in self.markets if TRAITS[one.market].product is product]
            without = [one.market.value for one in own if one.quotes is False]
            plan = own[0].plan if own else None
            if plan is None:
                continue
            variable = " (POLYGON_TIER)" if product is Product.CURRENCIES else ""
            says = f"plan says {plan_words(product, plan)}, the key"
            if plan.is_live and without:
                words.append(f"{says} is refused live prices of {joined(without)}: lapsed payment?")
            if not plan.is_live and all(one.quotes for one in own):
                words.append(f"{says} sees live prices: set {KEYS[product]}{variable} to what you pay for")
        return "; ".join(words)


def probe(config: Config, connection: Connection, *, host: str, stop: Stop) -> Probed:
    """Ask what the key may see, and remember it. Raises CallError where the API gives no answer at all."""
    config.require_api_key()
    found: list[Probed] = []

    def work(run: Run) -> RunResult:
        run.claim_source()
        found.append(_Probe(run).ask())
        return run.result()

    start, types = Start(config, connection, host, stop), types_to_probe(config, connection)
    perform(JOB, start, work, max_seconds=longest_seconds(config), types=types)
    return found[0]


def types_to_probe(config: Config, connection: Connection) -> Collection[AssetType]:
    """Return the types that there are assets of; all, where there are no assets yet."""
    return (connection.answer(types_in_use()) | config.types) or TRAITS.keys()


def longest_seconds(config: Config) -> float:
    """Return how long the calls may take, waits for the budget included."""
    return calls_for(TRAITS) * (config.window_seconds + rules_of(config, ()).hold_seconds)


def calls_for(types: Collection[AssetType]) -> int:
    """Return how many calls tell: of quotes of all types at once; of each the bars of today, and of long ago."""
    return 1 + 2 * len(types)


class _Probe:
    """The calls of one probe."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._calls = Calls(run, Lane.QUEUE)
        self._no_call_after = time.monotonic() + longest_seconds(run.config)
        self._allowed: set[Sight] = set()
        self._refused: dict[Sight, str] = {}

    def ask(self) -> Probed:
        """Make the calls, and remember what they told: of the types that there are assets of."""
        types = self._run.entitlements.types or TRAITS.keys()
        assets = [
            Asset(without_prefix(traits.example), traits.example, market, Role.SECONDARY, 1, 300)
            for market, traits in TRAITS.items()
            if market in types
        ]
        quotes = self._quotes(assets)
        markets = [self._market(asset, quotes[asset.symbol]) for asset in assets]
        for sight in self._allowed | self._refused.keys():
            self._run.entitlements.remember(sight, allowed=sight in self._allowed, reason=self._refused.get(sight, ""))
        for one in markets:
            self._run.entitlements.revive(
                one.market, prices=bool(one.quotes), bars=bool(one.todays_bars), history=bool(one.long_history)
            )
        return Probed(self._run.config.plan_words, tuple(markets), self._run.cost.calls_used)

    def _market(self, asset: Asset, quotes: bool | None) -> MarketAccess:
        now = self._run.clock.now()
        day = timedelta(days=1)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        long_ago = midnight - LONG_AGO
        return MarketAccess(
            asset.asset_type,
            quotes=quotes,
            todays_bars=self._sees(Call(CallKind.BARS, (asset,), span=Span(midnight, midnight + day))),
            long_history=self._sees(Call(CallKind.BARS, (asset,), span=Span(long_ago, long_ago + day))),
            plan=self._run.config.plan_of(asset.asset_type),
        )

    def _quotes(self, assets: list[Asset]) -> dict[str, bool | None]:
        """Return for each symbol whether its quote is to be seen: an answer may refuse some of its rows."""
        call = Call(CallKind.SNAPSHOT, tuple(assets))
        try:
            found = self._ask(endpoints.prices(call))
        except CallError as error:
            seen = self._judge(call, error)
            return {asset.symbol: seen for asset in assets}
        refused = {symbol: words for symbol, (kind, words) in found.failures.items() if kind in BEYOND_THE_PLAN}
        for asset in assets:
            sight = sight_of(asset, call.kind.access)
            if asset.symbol in refused:
                self._refused[sight] = refused[asset.symbol]
            else:
                self._allowed.add(sight)
        return {asset.symbol: asset.symbol not in refused for asset in assets}

    def _sees(self, call: Call) -> bool | None:
        """Return whether a call for bars is answered; None: it could not be told."""
        try:
            self._ask(endpoints.bars(call))
        except CallError as error:
            return self._judge(call, error)
        self._allowed.update(sight_of(asset, call.kind.access) for asset in call.assets)
        return True

    def _ask(self, request: Request[A]) -> A:
        return self._calls.ask(request, max_wait_seconds=self._no_call_after - time.monotonic())

    def _judge(self, call: Call, error: CallError) -> bool | None:
        """Return what a failure says about the key. Raises what says nothing about it, and ends the probe."""
        if POLICIES[error.kind].ends_run or POLICIES[error.kind].outage:
            raise error
        sights = [sight_of(asset, call.kind.access) for asset in call.assets]
        if error.kind is FailureKind.NOT_ENTITLED:
            self._refused |= dict.fromkeys(sights, error.reason)
            return False
        if error.kind in BEYOND_THE_PLAN:
            # Refused for its time only: such calls themselves are allowed.
            self._allowed.update(sights)
            return False
        log.info("%s: %s", call.kind, error)
        return None
