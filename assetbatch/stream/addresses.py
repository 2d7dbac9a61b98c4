"""Where the clusters of the stream are: with the source that all other prices come from."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import UNSET

from assetbatch.errors import ConfigurationError, Fault
from assetbatch.markets import TRAITS
from assetbatch.model import Product
from assetbatch.plans import KEYS
from assetbatch.provider.addresses import SANDBOX_SOURCE, source_of
from assetbatch.provider.massive.websocket import CHANNELS, cluster_of

# From the port of the sandbox to that of its WebSocket.
SANDBOX_DISTANCE = 1000
LAST_PORT = 65_535

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.model import AssetType


def configured(config: Config) -> Sequence[AssetType]:
    """Return the types of assets that are to be streamed, whether or not their plans have it."""
    words = config.settings.stream.clusters
    return [asset_type for asset_type in CHANNELS if words == "auto" or asset_type.value in words]


def addresses(config: Config) -> Mapping[AssetType, str]:
    """Return the address of each cluster that is configured, where the plan of its market has it.

    Raises ConfigurationError where none has, where none is known for the source of all other prices, and where an
    address is of another source.
    """
    wanted, base_url = configured(config), config.settings.provider.base_url
    source = source_of(base_url)
    found: dict[AssetType, str] = {}
    for asset_type in wanted:
        plan = config.plan_of(asset_type)
        if not plan.has_websocket:
            continue
        key = f"stream.urls.{asset_type}"
        given = getattr(config.settings.stream.urls, asset_type.value)
        url = given if given is not UNSET else _default(base_url, cluster_of(asset_type, plan).url)
        if url is None:
            words = f"is missing: prices come from {source}, and its WebSocket may be anywhere"
            raise _fault(config, key, words, "give its address, as wss://…")
        if source_of(url) != source:
            words = f"{url} is of another source than provider.base_url, {base_url}: one database has one source"
            raise _fault(config, key, words, "give both of the vendor's, or both of the sandbox's")
        if url.startswith("ws://") and source != SANDBOX_SOURCE:
            raise _fault(config, key, "would send the key unencrypted", "give a wss:// address")
        found[asset_type] = url
    if wanted and not found:
        raise _no_plan(config, wanted[0])
    return found


def _no_plan(config: Config, asset_type: AssetType) -> ConfigurationError:
    product = TRAITS[asset_type].product
    key, option = KEYS[product], "--plan" if product is Product.CURRENCIES else f"--{product}-plan"
    words = f"the {config.plan_of(asset_type).name} plan has no WebSocket: streaming takes a paid one"
    ways = (
        f"set {key} to the paid plan that your key has ({config.settings.provider.upgrade_url}), or try"
        f" streaming with `assetbatch sandbox {option} starter`, which needs no key of the vendor's"
    )
    return _fault(config, key, words, ways)


def _default(base_url: str, vendors: str) -> str | None:
    """Return where a cluster is, as calls go: the vendor's, or the sandbox's, at the port that it has of itself."""
    source = source_of(base_url)
    if source == source_of(vendors):
        return vendors
    parts = urlsplit(base_url)
    if source != SANDBOX_SOURCE or parts.hostname is None or not 0 < (parts.port or 0) <= LAST_PORT - SANDBOX_DISTANCE:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"ws://{host}:{(parts.port or 0) + SANDBOX_DISTANCE}{urlsplit(vendors).path}"


def _fault(config: Config, key: str, message: str, hint: str) -> ConfigurationError:
    place = config.origins.get(key, "")
    return ConfigurationError([Fault("" if place == "default" else place, key, message, hint)])
