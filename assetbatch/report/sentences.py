"""The sentences of `status`, which `doctor` tells, too: assets, prices, calls, queue, bars and events."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch.database.bars.absences import sentences as refused_bars
from assetbatch.plans import Mode
from assetbatch.report.freshness import Freshness
from assetbatch.words import counted, duration, joined, named, utc

if TYPE_CHECKING:
    from assetbatch.report.status import Status


def sentences(status: Status) -> dict[str, str]:
    """Return for each area of `status` how it stands."""
    told = {
        "assets": _asset_states(status),
        "prices": _prices(status),
        "calls": f"{calls_now(status)}; {_calls_last_hour(status)}",
        "queue": _queue(status),
        "bars": _bars(status),
        "events": _events(status),
    }
    if status.streams:
        from assetbatch.report.streams import sentence

        told["stream"] = sentence(status.streams)
    return told


def _asset_states(status: Status) -> str:
    order = [state.value for state in Freshness]
    counts = sorted(status.asset_states.items(), key=lambda item: order.index(item[0]))
    states = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in counts if count) or "none"
    gone = [f"{symbol} {words}" for symbol, words in status.gone.named]
    return f"{states}; no longer asked for: {named(gone, status.gone.total)}" if gone else states


def _prices(status: Status) -> str:
    prices = status.prices
    source = prices.source or "nowhere yet"
    daily = {name: one.day for name, one in prices.markets.items() if one.mode is Mode.END_OF_DAY}
    if prices.mode is Mode.LIVE and daily:
        live = [name for name in prices.markets if name not in daily]
        of_days = (f"{name} {day or 'none yet'}" for name, day in daily.items())
        return f"live ({', '.join(live)}), end of day ({', '.join(of_days)}), from {source}"
    if prices.mode is Mode.LIVE:
        return f"live, from {source}"
    if prices.day is None:
        return f"end of day, none yet, from {source}"
    newer = "" if prices.newer_at is None else f", newer ones from {utc(prices.newer_at)} on"
    return f"end of day of {prices.day}, from {source}{newer}"


def calls_now(status: Status) -> str:
    """Return how many calls may be made at this moment."""
    budget = status.budget
    if budget.limit is None or budget.remaining is None:
        return "unlimited"
    used = budget.limit - budget.remaining
    free = f"{used:,} of {budget.limit:,} used in the last {budget.window_seconds:g} s, {budget.remaining:,} free"
    if budget.next_free_at is not None:
        free += f", the next in {duration(budget.next_free_at - status.now)}"
    if budget.exempt:
        free += f" ({joined(budget.exempt)} unlimited)"
    return free


def _calls_last_hour(status: Status) -> str:
    budget = status.budget
    return f"{budget.calls_last_hour:,} in the last hour, {budget.refusals_last_hour:,} refused"


def _queue(status: Status) -> str:
    queue = status.queue
    words = [f"{queue.total_items:,} waiting"]
    if queue.total_items:
        ages = queue.oldest_age_seconds_by_priority
        each = (
            f"{count:,} {name} for {duration(timedelta(seconds=ages[name]))}"
            for name, count in queue.by_priority.items()
            if count
        )
        words[0] += f" ({', '.join(each)})"
    states = (("being updated", queue.leased), ("delayed until another try", queue.delayed))
    words += [f"{count:,} {word}" for word, count in states if count]
    return ", ".join([*words, counted(queue.dead, "dead letter")])


def _bars(status: Status) -> str:
    bars = status.bars
    newest = [
        f"{one.asset.symbol} {utc(bars.newest[one.asset.symbol], today=status.now, zone=False)}"
        for one in status.assets
        if one.asset.symbol in bars.newest
    ]
    words = [f"newest final: {', '.join(newest)} UTC" if newest else "none yet"]
    if bars.holes is None:
        words += ["no more are asked for (bars.enabled)"] if newest else []
    elif newest or bars.holes:
        words.append(f"{bars.holes:,} missing in the last 7 days")
    if bars.failing:
        words.append(f"those of {counted(bars.failing, 'asset')} fail")
    return "; ".join([*words, *refused_bars(bars.refused)])


def _events(status: Status) -> str:
    events = status.events
    age = events.oldest_age_seconds
    since = "" if age is None else f", the oldest for {duration(timedelta(seconds=age))}"
    by = "nobody publishes them" if events.published_by == "none" else f"published by {events.published_by}"
    if events.refused is not None:
        by = f"refused: {events.refused}"
    dropped = f"; {events.dropped:,} dropped so far, overtaken while they waited" if events.dropped else ""
    return f"{events.pending:,} waiting{since}; {by}{dropped}"
