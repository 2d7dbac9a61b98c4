"""`enqueue-secondary`: puts the secondary assets that are due on the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assetbatch import planner
from assetbatch.database import catalogue
from assetbatch.database.leases import LEASE_SECONDS
from assetbatch.database.queue.enqueue import enqueue
from assetbatch.database.rate_limit import key_of
from assetbatch.jobs.claims import step_seconds
from assetbatch.jobs.run import perform
from assetbatch.model import Role
from assetbatch.schedule import ENQUEUE_SECONDARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from assetbatch.jobs.run import Run, Start
    from assetbatch.markets import Market
    from assetbatch.model import Enqueued, RunResult

# Waits for other enqueuers, and 100,000 assets take seconds.
MAX_SECONDS = 60.0


def enqueue_secondary(
    start: Start, *, source: str, symbols: Sequence[str] | None = None, due_or_not: bool = False
) -> RunResult:
    """Enqueue the assets of `source` (config or database) that are due, or all of them; `symbols`: only these."""
    is_as_configured, frequencies = catalogue.is_as_configured(start.config.assets), catalogue.frequencies()

    def work(run: Run) -> RunResult:
        config, connection = run.config, run.connection
        if not is_as_configured.answer:
            catalogue.sync_with_config(connection, config.assets)
            connection.ask(frequencies)
        seen = run.entitlements

        def served_before(update_frequency_seconds: int, market: Market) -> datetime:
            return planner.served_before(update_frequency_seconds, market, run.clock.started_at, run.config.delays)

        enqueued = enqueue(
            connection,
            served_before,
            frequencies=frequencies.answer,
            days=seen.wanted_days(),
            refused=seen.refused_tickers,
            origins=["config"] if source == "config" else None,
            symbols=symbols,
            due_or_not=due_or_not,
            max_size=config.settings.queue.max_size,
            step_seconds=step_seconds(config),
            plan=config.plan_words,
            key=key_of(config),
        )
        return run.result(enqueued=enqueued, warnings=_warnings(run, enqueued, symbols or (), source))

    return perform(
        ENQUEUE_SECONDARY.name,
        start,
        work,
        max_seconds=MAX_SECONDS,
        lease_seconds=LEASE_SECONDS,
        needs=[is_as_configured, frequencies],
        looks_at_queue=True,
    )


def _strangers(run: Run, symbols: Sequence[str], source: str) -> list[str]:
    """Return which of these are no enabled secondary assets of `source`."""
    assets = run.config.assets if source == "config" else catalogue.enabled_assets(run.connection, symbols)
    return sorted(set(symbols) - {asset.symbol for asset in assets if asset.role is Role.SECONDARY})


def _warnings(run: Run, enqueued: Enqueued, symbols: Sequence[str], source: str) -> Iterator[str]:
    if enqueued.dropped:
        max_size = run.config.settings.queue.max_size
        yield (
            f"the queue is full: {enqueued.dropped:,} of the assets that are due did not fit, and come first next time."
            f" Raise queue.max_size (QUEUE_MAX_SIZE), now {max_size:,}, or ask for fewer less often"
        )
    if enqueued.unmapped:
        strangers = _strangers(run, symbols, source)
        named = (
            f": {', '.join(strangers)}" if strangers else ", or the platform has deleted their rows in trading.symbols"
        )
        yield f"{enqueued.unmapped:,} cannot be enqueued, being no enabled secondary assets{named}"
