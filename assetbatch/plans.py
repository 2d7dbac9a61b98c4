"""What the vendor sells, as data (https://massive.com/pricing), and what a key was found to see of that. Pure.

Each product has plans, all by the same words; how prices are asked for follows from them, and from what was refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.markets import TRAITS
from assetbatch.model import Access, AssetType, Product

if TYPE_CHECKING:
    from collections.abc import Collection

    from assetbatch.model import Asset


class Plan(Struct, frozen=True):
    """What one plan gives; None: without limit.

    `is_live`: prices of this moment, by snapshots, so late as the `delay`; else those of finished days alone.
    `history_years` is how far back bars reach. `has_trades`: single trades are told, where there are any.
    """

    name: str
    calls_per_minute: int | None = None
    history_years: int | None = None
    is_live: bool = True
    has_websocket: bool = True
    delay: timedelta = timedelta(0)
    has_trades: bool = True

    @property
    def history(self) -> timedelta | None:
        """How far back bars can be asked for."""
        return None if self.history_years is None else reach(self.history_years)


def reach(years: int) -> timedelta:
    """Return how far back so many years of the vendor's are at the least: a day less, for the calendars to differ."""
    return timedelta(days=365 * years - 1)


FREE = Plan("free", calls_per_minute=5, history_years=2, is_live=False, has_websocket=False, has_trades=False)
LATE = timedelta(minutes=15)


def _named(*plans: Plan) -> Mapping[str, Plan]:
    return {plan.name: plan for plan in (FREE, *plans)}


PLANS: Mapping[Product, Mapping[str, Plan]] = {
    Product.CURRENCIES: _named(Plan("starter"), Plan("developer"), Plan("advanced"), Plan("business")),
    Product.STOCKS: _named(
        Plan("starter", history_years=5, delay=LATE, has_trades=False),
        Plan("developer", history_years=10, delay=LATE),
        Plan("advanced"),
        Plan("business"),
    ),
    Product.INDICES: _named(Plan("starter", delay=LATE), Plan("advanced"), Plan("business")),
}
# Where the configuration says which plan of it a key is on.
KEYS: Mapping[Product, str] = {
    Product.CURRENCIES: "provider.plan",
    Product.STOCKS: "provider.plans.stocks",
    Product.INDICES: "provider.plans.indices",
}
ALIASES = {"basic": FREE.name}
"""Words that are understood, but not offered."""


# What one call brings at most, on every plan: quotes of so many tickers; bars made of so many minutes.
MOST_TICKERS = 250
MOST_BASE_MINUTES = 50_000

# How far back the plans of any market reach that do not have all: it is not known which one a key really has.
HISTORY_YEARS = (10, 5, 2)


def plan_words(product: Product, plan: Plan) -> str:
    """Return a plan's name, with what it is of where that is not what each key is for."""
    return plan.name if product is Product.CURRENCIES else f"{plan.name} for {product}"


# --- What a key sees

# What was refused is asked again after so long, and so is a day that was not there yet; one ticker alone, which a plan
# may not have, ever more rarely than the others are asked for.
ASK_AGAIN = timedelta(hours=1)
ASK_TICKER_AGAIN = timedelta(days=7)


class Mode(StrEnum):
    """What the key may see."""

    LIVE = "live"
    END_OF_DAY = "end_of_day"


class Entitlement(Struct, frozen=True):
    """What the vendor said when it was last asked whether a key may see something."""

    allowed: bool
    asked_at: datetime
    reason: str = ""


class Sight(Struct, frozen=True):
    """A kind of calls for one product; of one `ticker` alone, where that is named."""

    product: Product
    access: Access
    ticker: str = ""


def sight_of(asset: Asset, access: Access) -> Sight:
    """Return what it says about a key that a call for one asset alone was answered, or refused.

    Who pays for a product has live prices of all of it; of days and bars, a plan may have some tickers only.
    """
    traits = TRAITS[asset.asset_type]
    in_part = traits.is_sold_in_part and access is not Access.SNAPSHOTS
    return Sight(traits.product, access, asset.polygon_ticker if in_part else "")


Told = dict[Sight, Entitlement]
"""What the vendor said that a key may see, or not; of what is not there, nothing was asked, or nothing refused."""

Modes = Mapping[AssetType, Mode]
"""How prices of each type are asked for: plans are sold by what they are of."""


def mode(plan: Plan, configured: str, snapshots: Entitlement | None, now: datetime) -> Mode:
    """Return how prices are asked for.

    The word of the plan is believed until the key is refused; a refusal holds for an hour. A plan may have end-of-day
    prices only, unless `provider.mode` insists, or the key was found to see more.
    """
    if configured == Mode.END_OF_DAY:
        return Mode.END_OF_DAY
    believed = plan.is_live or configured == Mode.LIVE
    live = believed if snapshots is None else snapshots.allowed or (believed and now - snapshots.asked_at >= ASK_AGAIN)
    return Mode.LIVE if live else Mode.END_OF_DAY


def asks_for_bars(enabled: bool | str, limit: int | None, mode: Mode) -> bool:
    """Return whether bars are asked for: `auto` does where that delays no price."""
    return bool(enabled) if enabled != "auto" else limit is None or mode is Mode.END_OF_DAY


def modes(plans: Mapping[Product, Plan], configured: str, told: Told, now: datetime) -> Modes:
    """Return how prices are asked for, type by type."""
    products = {
        product: mode(plan, configured, told.get(Sight(product, Access.SNAPSHOTS)), now)
        for product, plan in plans.items()
    }
    return {asset_type: products[traits.product] for asset_type, traits in TRAITS.items()}


def overall(modes: Modes, types: Collection[AssetType]) -> Mode:
    """Return how prices of all these types are asked for: live, where any are."""
    return Mode.LIVE if any(modes[one] is Mode.LIVE for one in types) else Mode.END_OF_DAY


def contradictions(
    told: Told, plans: Mapping[Product, Plan], configured: str, modes: Modes
) -> dict[Product, dict[Access, Entitlement]]:
    """Return for each product the refusals that go against the word of its plan, as far as that matters now.

    That it has no snapshots may be what the plan says; where prices are live, nobody asks for finished days. What is
    said of one ticker alone says nothing about the plan.
    """
    found: dict[Product, dict[Access, Entitlement]] = {}
    live = {TRAITS[asset_type].product for asset_type, mode in modes.items() if mode is Mode.LIVE}
    for sight, said in told.items():
        is_live = plans[sight.product].is_live and configured != Mode.END_OF_DAY
        expected = set() if is_live else {Access.SNAPSHOTS}
        expected |= {Access.DAILY} if sight.product in live else set()
        if not (said.allowed or sight.ticker or sight.access in expected):
            found.setdefault(sight.product, {})[sight.access] = said
    return found


def contradicted(product: Product, plan: Plan, refused: Mapping[Access, Entitlement]) -> str:
    """Return the sentence that holds the word of a product's plan against these refusals."""
    return f"plan says {plan_words(product, plan)}, the key is refused {', '.join(sorted(refused))}"


def reasons(refused: Mapping[Access, Entitlement]) -> str:
    """Return the vendor's words for these refusals, in brackets; nothing where it gave none."""
    words = "; ".join(dict.fromkeys(found.reason for _, found in sorted(refused.items()) if found.reason))
    return f" ({words})" if words else ""
