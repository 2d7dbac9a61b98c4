"""The planner: which calls to make, as few as can be. Pure: what is known goes in, calls come out.

Nothing is asked that cannot bring newer data. Each kind of call is one function from assets to calls; `plan` chooses
among them by what the key may see, so that another kind is one more function and one more line there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from assetbatch import market_hours
from assetbatch.model import Call, CallKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from assetbatch.market_hours import Market
    from assetbatch.model import Asset

# A request line may have 8 kB where it passes nginx; this much of it is for tickers, percent-encoded: a ticker's colon
# and the comma behind it take three characters each.
MAX_TICKERS_LENGTH = 6000
ADDED_LENGTH = 5
# Cron and clocks jitter: what comes by this much too early is meant to be in time.
JITTER = timedelta(seconds=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Mode(StrEnum):
    """What the key may see."""

    LIVE = "live"
    END_OF_DAY = "end_of_day"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about the assets that were asked for: calls to make, and assets that need none and why."""

    calls: tuple[Call, ...] = ()
    not_due: tuple[Asset, ...] = ()
    unchanged: tuple[Asset, ...] = ()
    not_entitled: tuple[Asset, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An asset, and the start of the run that last served it."""

    asset: Asset
    served_at: datetime | None = None


def mode(plan: str, configured: str) -> Mode:
    """Tell how prices are asked for: the free plan has end-of-day prices only, unless `provider.mode` insists."""
    if configured == "auto":
        return Mode.END_OF_DAY if plan == "free" else Mode.LIVE
    return Mode(configured)


def _jitter(every: timedelta) -> timedelta:
    return min(JITTER, every / 10)


def due_before(update_frequency_seconds: float, now: datetime) -> datetime:
    """Tell when an asset must have been served to be not due: once in each slot, slots counted from midnight UTC.

    Two starts that jitter brought into one slot are a whole period apart, less the jitter: the second counts for the
    slot that it was meant for. "So many seconds after the last" alone would find nothing due at every other start.
    """
    every = timedelta(seconds=update_frequency_seconds)
    of_day = (now - EPOCH) % timedelta(days=1)
    return max(now - of_day % every, now - every + _jitter(every))


def is_due(candidate: Candidate, now: datetime) -> bool:
    """Tell whether an asset is due."""
    return candidate.served_at is None or candidate.served_at < due_before(
        candidate.asset.update_frequency_seconds, now
    )


def next_due(now: datetime, every: timedelta) -> datetime:
    """Tell when a job is due after the time that `now` belongs to: at multiples of `every` since the epoch."""
    return EPOCH + ((now - EPOCH + _jitter(every)) // every + 1) * every


def served_before(update_frequency_seconds: float, market: Market, now: datetime) -> datetime:
    """Tell before when an asset must have been served last for a call to be worth it: it is due and does not rest.

    A start that comes a little early counts for the slot that it was meant for: assets of the queue are served at any
    time within a slot.
    """
    closed_at = market_hours.last_close(market, now)
    due = due_before(update_frequency_seconds, now + _jitter(timedelta(seconds=update_frequency_seconds)))
    return due if closed_at is None else min(due, closed_at)


def rests(candidate: Candidate, now: datetime) -> bool:
    """Tell whether nothing newer can exist: the market is closed, and was when the last good run began."""
    closed_at = market_hours.last_close(market_hours.market_of(candidate.asset), now)
    return closed_at is not None and candidate.served_at is not None and candidate.served_at > closed_at


def plan(candidates: Sequence[Candidate], *, mode: Mode, batch_size: int, now: datetime) -> Plan:
    """Plan the fewest calls that bring what is newer, for assets in their order of importance."""
    due = [candidate for candidate in candidates if is_due(candidate, now)]
    wanted = [candidate.asset for candidate in due if not rests(candidate, now)]
    rest = Plan(
        not_due=tuple(candidate.asset for candidate in candidates if not is_due(candidate, now)),
        unchanged=tuple(candidate.asset for candidate in due if rests(candidate, now)),
    )
    if mode is Mode.END_OF_DAY:
        return replace(rest, not_entitled=tuple(wanted))
    return replace(rest, calls=tuple(snapshots(wanted, batch_size)))


def foresee(assets: Iterable[Asset], *, mode: Mode, batch_size: int, due: datetime, now: datetime) -> int:
    """How many calls these assets need at `due`, when the run that began at `now` served them all."""
    candidates = [Candidate(asset, served_at=now) for asset in assets]
    return len(plan(candidates, mode=mode, batch_size=batch_size, now=due).calls)


def snapshots(assets: Sequence[Asset], batch_size: int) -> list[Call]:
    """Ask for quotes, of as many assets in one call as `batch_size` and the length of a request line allow."""
    if batch_size == 1:
        return [Call(CallKind.SNAPSHOT_SINGLE, (asset,)) for asset in assets]
    calls: list[Call] = []
    batch: list[Asset] = []
    length = 0
    for asset in assets:
        added = len(asset.polygon_ticker) + ADDED_LENGTH
        if batch and (len(batch) == batch_size or length + added > MAX_TICKERS_LENGTH):
            calls.append(Call(CallKind.SNAPSHOT, tuple(batch)))
            batch, length = [], 0
        batch.append(asset)
        length += added
    return [*calls, Call(CallKind.SNAPSHOT, tuple(batch))] if batch else calls


def halves(call: Call) -> list[Call]:
    """Split a call that was refused as a whole, so that the asset that spoiled it ends up alone."""
    middle = (len(call.assets) + 1) // 2
    return [Call(call.kind, part) for part in (call.assets[:middle], call.assets[middle:])]
