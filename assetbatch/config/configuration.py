"""The configuration as the rest of the tool sees it: values, and what follows from them."""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct

from assetbatch.config.assets import asset_of, seconds_of
from assetbatch.config.secret import ways
from assetbatch.errors import ConfigurationError, Fault
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Priority, Product, Role
from assetbatch.plans import ALIASES, FREE, KEYS, PLANS, plan_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from pathlib import Path

    from assetbatch.config.database import Database
    from assetbatch.config.lookalikes import Doubt
    from assetbatch.config.secret import Secret
    from assetbatch.config.settings import Settings
    from assetbatch.model import Asset
    from assetbatch.plans import Plan


class Config(Struct, frozen=True, dict=True):
    """Everything that is configured.

    `settings` has exactly the names of config.yaml; `file` is the one that was read; `origins` says for each
    dotted key where its value came from: `default`, `config.yaml:7`, `POLYGON_TIER`, `.env:2`. `secrets` is every
    text that no log line may show, the longest first. `doubts`: variables that nothing reads, but that look like ours.
    """

    settings: Settings
    api_key: Secret | None
    database: Database
    redis_url: Secret | None
    file: Path | None
    origins: Mapping[str, str]
    secrets: tuple[str, ...]
    doubts: tuple[Doubt, ...] = ()

    def __repr__(self) -> str:
        return f"Config({self.file})"

    @cached_property
    def plans(self) -> Mapping[Product, Plan]:
        """The plan of each product; basic is free."""
        words = {product: attrgetter(key)(self.settings) for product, key in KEYS.items()}
        return {product: PLANS[product][ALIASES.get(word, word)] for product, word in words.items()}

    @property
    def plan_words(self) -> str:
        """Name the plan of forex and crypto, and each other one that is paid for."""
        paid = [plan_words(product, plan) for product, plan in self.plans.items() if plan is not FREE]
        return ", ".join([self.plans[Product.CURRENCIES].name, *(word for word in paid if " " in word)])

    @property
    def delays(self) -> Mapping[AssetType, timedelta]:
        """How late live prices of each type are."""
        return {one: self.plan_of(one).delay for one in AssetType}

    def plan_of(self, asset_type: AssetType) -> Plan:
        """Return the plan by which assets of a type are seen."""
        return self.plans[TRAITS[asset_type].product]

    def limit_of(self, product: Product) -> int | None:
        """Return how many calls for a product any window of `window_seconds` allows; None: unlimited."""
        given = self.settings.rate_limiting.calls_per_minute
        return self.plans[product].calls_per_minute if given is UNSET else given

    def calls_per_window(self, types: Iterable[AssetType]) -> int | None:
        """Return the limit that calls for assets of these types share, those of them that have one; None: unlimited.

        Of no types: that of forex and crypto.
        """
        products = {TRAITS[asset_type].product for asset_type in types} or {Product.CURRENCIES}
        limits = [limit for product in products if (limit := self.limit_of(product)) is not None]
        return min(limits, default=None)

    @property
    def window_seconds(self) -> float:
        """Length of the window in which calls count."""
        return self.settings.rate_limiting.window_seconds

    @cached_property
    def priority_assets(self) -> tuple[Asset, ...]:
        """The enabled priority assets, the first one first; none when they are switched off."""
        batch = self.settings.batch
        seconds = seconds_of(batch.interval_minutes)
        assets = [
            asset_of(row, Role.PRIORITY, place if row.priority is UNSET else row.priority, seconds)
            for place, row in enumerate(batch.priority_assets, start=1)
            if row.enabled and batch.priority_assets_enabled
        ]
        return tuple(sorted(assets, key=lambda asset: asset.rank))

    @property
    def secondary_frequency_seconds(self) -> int:
        """How often a secondary asset is updated unless something else is said."""
        return seconds_of(self.settings.batch.enqueue_interval_minutes)

    @cached_property
    def secondary_assets(self) -> tuple[Asset, ...]:
        """The enabled secondary assets of the configuration, in the order of the list."""
        return tuple(
            asset_of(row, Role.SECONDARY, Priority[row.priority], self.secondary_frequency_seconds)
            for row in self.settings.batch.secondary_assets
            if row.enabled
        )

    @property
    def assets(self) -> tuple[Asset, ...]:
        """All enabled assets of the configuration."""
        return (*self.priority_assets, *self.secondary_assets)

    @cached_property
    def types(self) -> frozenset[AssetType]:
        """The types of all enabled assets of the configuration."""
        return frozenset(asset.asset_type for asset in self.assets)

    def require_api_key(self) -> Secret:
        """Return the API key. Raises `ConfigurationError` that says how to give one."""
        if self.api_key is None:
            message = f"no API key is given: set {ways('POLYGON_API_KEY')}"
            hints = [doubt.told for doubt in self.doubts if doubt.meant == "POLYGON_API_KEY"]
            hints.append("`assetbatch sandbox --help` tells how to try it without a key")
            raise ConfigurationError([Fault("POLYGON_API_KEY", "", message, "\n".join(hints))])
        return self.api_key
