"""The planner: which calls to make, as few as can be. Pure: what is known goes in, calls come out.

Nothing is asked that cannot bring newer data. Each kind of call is one function from assets to calls; `plan` chooses
among them by what the key may see, so that another kind is one more function and one more line there.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from assetbatch import market_hours
from assetbatch.markets import TRAITS
from assetbatch.model import AssetType, Call, CallKind
from assetbatch.plans import ASK_AGAIN, Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assetbatch.markets import Market
    from assetbatch.model import Asset
    from assetbatch.plans import Modes

# A request line may have 8 kB where it passes nginx; this much of it is for tickers, percent-encoded: a ticker's colon
# and the comma behind it take three characters each.
MAX_TICKERS_LENGTH = 6000
ADDED_LENGTH = 5
# Cron and clocks jitter: what comes by this much too early is meant to be in time.
JITTER = timedelta(seconds=15)
# So far ahead no two runs begin; a clock that was set back may have been.
AHEAD = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What did not trade on a finished day, and for so long on none, has left the market.
SEEN_WITHIN = timedelta(days=7)
# A day that the vendor does not have yet is stepped back from, so often at most: each step costs a call.
MOST_STEPS_BACK = 4


class DayOutcome(StrEnum):
    """What the vendor answered when it was asked for a finished day of a market."""

    STORED = "stored"
    EMPTY = "empty"
    """It has no figures: a holiday, or it is late."""
    NOT_YET = "not_yet"
    """For the vendor the day is not over."""


class AskedDay(Struct, frozen=True):
    """A day that the vendor was asked for, so many times, the last time at `asked_at`."""

    outcome: DayOutcome
    asked_at: datetime
    times: int = 1


Days = Mapping[tuple[AssetType, date], AskedDay]
"""What is known of the last days of each market."""

Delays = Mapping[AssetType, timedelta]
"""How late live prices of each type are: what they show of a market is so long ago."""


class Plan(Struct, frozen=True):
    """What to do about the assets that were asked for: calls to make, and assets that need none and why."""

    calls: tuple[Call, ...] = ()
    not_due: tuple[Asset, ...] = ()
    unchanged: tuple[Asset, ...] = ()


class Candidate(Struct, frozen=True):
    """An asset, as of when it was served last (`served_as_of`), and the newest finished day that was asked for it.

    `failed`: what that day brought was no price. `missing`: how the vendor left it out of that day, and out of each one
    since `missing_since`; its newest price came at `succeeded_at`. `is_gone`: it is delisted or renamed.
    """

    asset: Asset
    served_at: datetime | None = None
    day: date | None = None
    failed: bool = False
    missing: str = ""
    missing_since: date | None = None
    succeeded_at: datetime | None = None
    is_gone: bool = False


def ask_again_at(asked: AskedDay) -> datetime:
    """Return when a day that brought nothing is asked for again: after an hour; an empty one ever later."""
    return asked.asked_at + ASK_AGAIN * (2 ** min(asked.times - 1, 6) if asked.outcome is DayOutcome.EMPTY else 1)


def wanted_day(market: AssetType, days: Days, now: datetime) -> date | None:
    """Return the newest finished day that is stored or can be asked for now; None: all the last ones were refused."""
    for day in islice(market_hours.finished_days(market, now), MOST_STEPS_BACK + 1):
        if _may_ask(days.get((market, day)), now):
            return day
    return None


def _may_ask(asked: AskedDay | None, now: datetime) -> bool:
    return asked is None or asked.outcome is DayOutcome.STORED or now >= ask_again_at(asked)


def newer_day_at(market: AssetType, days: Days, now: datetime) -> datetime:
    """Return when a newer finished day than the wanted one can exist."""
    steps = list(islice(market_hours.finished_days(market, now), MOST_STEPS_BACK + 1))
    day = steps[0] + timedelta(days=1)
    while not market_hours.trades_on(market, day):
        day += timedelta(days=1)
    wanted = wanted_day(market, days, now)
    held = [ask_again_at(days[market, refused]) for refused in steps if wanted is None or refused > wanted]
    return min([market_hours.day_over_at(day), *held])


def _jitter(every: timedelta) -> timedelta:
    return min(JITTER, every / 10)


def due_before(update_frequency_seconds: float, now: datetime) -> datetime:
    """Return when an asset must have been served to be not due: once in each slot, slots counted from midnight UTC.

    Two starts that jitter brought into one slot are a whole period apart, less the jitter: the second counts for the
    slot that it was meant for. "So many seconds after the last" alone would find nothing due at every other start.
    """
    every = timedelta(seconds=update_frequency_seconds)
    of_day = (now - EPOCH) % timedelta(days=1)
    return max(now - of_day % every, now - every + _jitter(every))


def is_due(candidate: Candidate, now: datetime) -> bool:
    """Return whether an asset is due; one that was served in the future, by a clock that was set back since, is."""
    served_at = candidate.served_at
    return (
        served_at is None
        or served_at < due_before(candidate.asset.update_frequency_seconds, now)
        or served_at > now + AHEAD
    )


def next_due(now: datetime, every: timedelta) -> datetime:
    """Return when a job is due after the time that `now` belongs to: at multiples of `every` since the epoch.

    A run that jitter started a little early belongs to the time that it was meant for.
    """
    return EPOCH + ((now - EPOCH + _jitter(every)) // every + 1) * every


def next_start(now: datetime, every: timedelta) -> datetime:
    """Return when cron starts a job next: at multiples of `every` since the epoch, and not before that."""
    return EPOCH + ((now - EPOCH) // every + 1) * every


def closed_at(market: Market, now: datetime, delays: Delays) -> datetime | None:
    """Return since when live prices of a market that rests can be no newer; None: they can."""
    delay = delays[market.asset_type]
    closed = market_hours.last_close(market, now - delay)
    return None if closed is None else closed + delay


def served_before(update_frequency_seconds: float, market: Market, now: datetime, delays: Delays) -> datetime:
    """Return before when an asset must have been served last for a call to be worth it: it is due and does not rest.

    A start that comes a little early counts for the slot that it was meant for: assets of the queue are served at any
    time within a slot.
    """
    closed = closed_at(market, now, delays)
    due = due_before(update_frequency_seconds, now + _jitter(timedelta(seconds=update_frequency_seconds)))
    return due if closed is None else min(due, closed)


def rests(candidate: Candidate, now: datetime, delays: Delays, closed: Set[AssetType] = frozenset()) -> bool:
    """Return whether nothing newer can exist: the market is closed, and was when the last good run began.

    `closed` are markets that the vendor says rest now: where their hours do not say so, too, nobody knows since when.
    """
    since = closed_at(market_hours.market_of(candidate.asset), now, delays)
    if since is None:
        return candidate.asset.asset_type in closed
    return candidate.served_at is not None and candidate.served_at > since


def served_as_of(call: Call | None, began_at: datetime) -> datetime:
    """Return as of when a call serves its assets with live prices, the mode of another plan, too.

    A quote does as of when it was asked for; figures of a finished day are older than any quote since that began.
    """
    return began_at if call is None or call.day is None else market_hours.day_begins_at(*call.market_day)


def plan(
    candidates: Sequence[Candidate],
    *,
    modes: Modes,
    delays: Delays,
    batch_size: int,
    now: datetime,
    days: Days,
    closed: Set[AssetType] = frozenset(),
    refused: Set[str] = frozenset(),
) -> Plan:
    """Plan the fewest calls that bring what is newer, for assets in their order of importance; live ones first.

    `closed` are markets that the vendor says rest now, whatever their hours; of `refused` tickers it gives no days.
    Nothing newer exists of what is gone.
    """
    gone = [one.asset for one in candidates if one.is_gone]
    candidates = [one for one in candidates if not one.is_gone]
    daily = [one for one in candidates if modes[one.asset.asset_type] is Mode.END_OF_DAY]
    live = [one for one in candidates if modes[one.asset.asset_type] is Mode.LIVE]
    due = [candidate for candidate in live if is_due(candidate, now)]
    resting = {one.asset.symbol for one in due if rests(one, now, delays, closed)}
    calls = snapshots([one.asset for one in due if one.asset.symbol not in resting], batch_size)
    finished, unchanged = _daily(daily, days, now, refused)
    return Plan(
        calls=(*calls, *finished),
        not_due=tuple(one.asset for one in live if not is_due(one, now)),
        unchanged=(*(one.asset for one in due if one.asset.symbol in resting), *unchanged, *gone),
    )


def _daily(
    candidates: Sequence[Candidate], days: Days, now: datetime, refused: Set[str]
) -> tuple[list[Call], list[Asset]]:
    """Return calls for the newest finished day, one for all assets of a market that has such; and who needs none."""
    calls: dict[tuple[AssetType, date, str], Call] = {}
    unchanged = []
    for candidate in candidates:
        asset, market = candidate.asset, candidate.asset.asset_type
        day = None if asset.polygon_ticker in refused else wanted_day(market, days, now)
        if day is None or not _lacks(candidate, day, days, now):
            day = _day_before(candidate, days, now)
        if day is None:
            unchanged.append(asset)
            continue
        call = day_of(asset, day)
        key = market, day, "" if call.kind is CallKind.DAILY else asset.symbol
        calls[key] = replace(call, assets=(*calls[key].assets, asset)) if key in calls else call
    return list(calls.values()), unchanged


def day_of(asset: Asset, day: date) -> Call:
    """Return the call that brings a finished day of an asset: of its whole market, where there is such a call."""
    whole = TRAITS[asset.asset_type].has_whole_days
    kind = CallKind.DAILY if whole else CallKind.DAILY_TICKER
    return Call(kind, assets=(asset,), market=asset.asset_type, day=day)


def _lacks(candidate: Candidate, day: date, days: Days, now: datetime) -> bool:
    if candidate.day is None or candidate.day < day:
        return True
    asked = days.get((candidate.asset.asset_type, day))
    return candidate.failed and asked is not None and now - asked.asked_at >= ASK_AGAIN


def is_missed(candidate: Candidate, now: datetime) -> bool:
    """Return whether the newest finished day should have an asset that it lacks: it may not have traded then."""
    excused = candidate.is_gone or _seen_lately(candidate, now) or _may_have_rested(candidate)
    return bool(candidate.missing) and not excused


def _seen_lately(candidate: Candidate, now: datetime) -> bool:
    return candidate.succeeded_at is not None and now - candidate.succeeded_at < SEEN_WITHIN


def _may_have_rested(candidate: Candidate) -> bool:
    """Return whether the newest day alone lacks a metal, or an index: those have holidays that are not known."""
    rests_alone = market_hours.market_of(candidate.asset).rests_alone
    return rests_alone and candidate.missing_since is not None and candidate.missing_since == candidate.day


def _day_before(candidate: Candidate, days: Days, now: datetime) -> date | None:
    """Return the day to look back to for what has no price, and may have rested on the newest; None: no need."""
    newest = candidate.day
    if newest is None or _seen_lately(candidate, now) or not _may_have_rested(candidate):
        return None
    market = candidate.asset.asset_type
    last_ones = islice(market_hours.finished_days(market, now), MOST_STEPS_BACK + 1)
    return next((day for day in last_ones if day < newest and _may_ask(days.get((market, day)), now)), None)


def looks_back(call: Call, days: Days) -> bool:
    """Return whether a call is for a day before one that is stored: for those alone that the newer one lacks."""
    return any(
        market is call.market and call.day is not None and day > call.day and asked.outcome is DayOutcome.STORED
        for (market, day), asked in days.items()
    )


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
