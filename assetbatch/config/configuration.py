"""The configuration as the rest of the tool sees it: values, and what follows from them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from msgspec import UNSET

from assetbatch.config import assets
from assetbatch.config.database import passwords
from assetbatch.config.secret import ways
from assetbatch.config.validation import same_plan
from assetbatch.errors import ConfigurationError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from assetbatch.config.database import Database
    from assetbatch.config.secret import Secret
    from assetbatch.config.settings import Settings
    from assetbatch.model import Asset

FREE_CALLS_PER_WINDOW = 5


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is configured.

    `settings` has exactly the names of config.yaml; `file` is the one that was read; `origins` says for each
    dotted key where its value came from: `default`, `config.yaml:7`, `POLYGON_TIER`, `.env:2`, `option`.
    """

    settings: Settings
    api_key: Secret | None
    database: Database
    redis_url: Secret | None
    file: Path | None
    origins: Mapping[str, str]

    @property
    def plan(self) -> str:
        """The plan's word; basic is free."""
        return same_plan(self.settings.provider.plan)

    @property
    def calls_per_window(self) -> int | None:
        """Calls that any window of `window_seconds` allows; None: unlimited."""
        given = self.settings.rate_limiting.calls_per_minute
        if given is not UNSET:
            return given
        return FREE_CALLS_PER_WINDOW if self.plan == "free" else None

    @property
    def window_seconds(self) -> float:
        """Length of the window in which calls count."""
        return self.settings.rate_limiting.window_seconds

    @property
    def priority_assets(self) -> tuple[Asset, ...]:
        """The enabled priority assets, the first one first; none when they are switched off."""
        return assets.priority_assets(self.settings.batch)

    @property
    def secondary_assets(self) -> tuple[Asset, ...]:
        """The enabled secondary assets of the configuration; `rank` is their queue priority."""
        return assets.secondary_assets(self.settings.batch)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every text that no log line may show, the longest first: masking one leaves no rest of another."""
        pings = self.settings.pings
        found = {ping for ping in (pings.run_priority, pings.drain_queue, pings.enqueue_secondary) if ping}
        if self.api_key is not None:
            found.add(self.api_key.reveal())
        for url in (self.database.conninfo, self.redis_url):
            if url is not None:
                found.add(url.reveal())
                found |= _with_codes(passwords(url) if url is self.database.conninfo else url_passwords(url.reveal()))
        return tuple(sorted(filter(None, found), key=lambda text: (-len(text), text)))

    def require_api_key(self) -> Secret:
        """Return the API key. Raises `ConfigurationError` that says how to give one."""
        if self.api_key is None:
            message = f"no API key is given: set {ways('POLYGON_API_KEY')}"
            raise ConfigurationError(
                [Fault("POLYGON_API_KEY", "", message)],
                hint="to try the tool without a key, start `assetbatch sandbox`",
            )
        return self.api_key


def _with_codes(texts: set[str]) -> set[str]:
    """Return texts as they are, with their % codes resolved, and with % codes for special characters."""
    return texts | {unquote(text) for text in texts} | {quote(text, safe="") for text in texts}


def url_passwords(url: str) -> set[str]:
    """Return the password of a URL as it is written there: in its authority, and in `password=`."""
    written = re.findall(r"^[a-z]+://[^/?#]*?:([^/?#]*)@", url) + re.findall(r"[?&]password=([^&#]*)", url)
    return set(filter(None, written))
