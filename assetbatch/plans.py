"""What the vendor sells, as data (https://massive.com/pricing): the plans of each product, all by the same words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from assetbatch.model import Product

if TYPE_CHECKING:
    from collections.abc import Mapping


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
