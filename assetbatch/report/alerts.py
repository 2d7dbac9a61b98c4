"""Alerts: what is wrong, and what mends it.

The one judge: `status`, its exit code, `metrics` and `doctor` tell what is found here, and examine nothing themselves.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from assetbatch import market_hours, plans
from assetbatch.database.bars import absences as bar_absences
from assetbatch.failures import FailureKind, hint_of
from assetbatch.markets import TRAITS
from assetbatch.model import Access, AssetType, Role
from assetbatch.plans import KEYS, Mode, plan_words
from assetbatch.report import job_alerts
from assetbatch.report.freshness import DAY_PATIENCE, GONE, Freshness, oldest_priority
from assetbatch.report.health import Alert, Level
from assetbatch.words import counted, duration, named, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from assetbatch.config import Config
    from assetbatch.database.read.freshness import Group
    from assetbatch.database.read.overview import Overview
    from assetbatch.report.freshness import AssetStatus, Outlook
    from assetbatch.report.status import BarsStatus, Budget, Status

# Events are published at the end of the run that made them: what waits for longer has no carrier.
EVENTS_PENDING_AT_MOST = timedelta(minutes=5)
# A hole that is older has had its turn, unless the system itself is younger.
HOLES_AT_MOST = timedelta(days=1)
# A day has one list: two that did not come are no chance.
SPLITS_UNKNOWN_AT_MOST = timedelta(days=2)
REFUSED = {FailureKind.REFUSED_BY_TABLE, FailureKind.REFUSED_BY_DATABASE}
DRAINS = "does drain-queue run, and is the budget of calls large enough?"
FAR_FROM_WELL = {Freshness.STALE, Freshness.FAILING}


def all_alerts(
    config: Config, overview: Overview, outlook: Outlook, groups: Sequence[Group], status: Status
) -> tuple[Alert, ...]:
    """Return everything that is wrong, the worst first, and causes before their consequences.

    `groups` count all assets; of secondary ones `status` has those that are worst off.
    """
    assets, others = status.assets, status.others
    found = [
        *job_alerts.of_source(config, status.prices.source),
        *job_alerts.of_key(overview),
        *job_alerts.of_silence(config, overview, outlook),
        *job_alerts.of_failures(config, overview),
        *_of_plan(config, overview, outlook, assets),
        *_of_markets(groups, assets, others),
        *_of_stream(config, overview, groups),
        *_of_priority_assets(config, overview, outlook, assets),
        *_of_other_assets(config, groups, others),
        *_of_limit(overview, status.budget),
        *_of_queue(config, overview, status.metrics),
        *_of_bars(overview, status.bars),
        *_of_splits(overview),
        *_of_events(overview),
        *_of_platform(overview),
        *_of_hosts(overview),
        *_of_thresholds(config, status.metrics, overview),
    ]
    return tuple(sorted(found, key=lambda alert: alert.level, reverse=True))


def _of_thresholds(config: Config, metrics: Mapping[str, float | None], overview: Overview) -> Iterator[Alert]:
    limits = config.settings.alerts
    metric, least = "batch.priority.success_rate", limits.priority_success_rate_min
    if (rate := metrics[metric]) is not None and rate < least:
        message = f"{rate:.0%} of the priority runs of the last hour went well"
        hint = f"the last that did not: {overview.job('run-priority')['last_error'] or 'it was killed'}"
        yield Alert(Level.WARNING, metric, message, hint, rate, least)
    metric, most = "batch.priority.latency_ms", limits.priority_latency_ms_max
    if (latency := metrics[metric]) is not None and latency > most:
        hint = "is the API slow, or the budget used up?"
        yield Alert(Level.WARNING, metric, f"priority runs take {latency:,.0f} ms", hint, latency, most)
    metric, most = "api.rate_limit_waits", limits.rate_limit_waits_per_hour_max
    if (waits := metrics[metric]) is not None and waits > most:
        message = f"priority calls had to wait or were refused {waits:,} times in the last hour"
        yield Alert(Level.WARNING, metric, message, "does another program use this key?", waits, most)


def _of_plan(config: Config, overview: Overview, outlook: Outlook, assets: Sequence[AssetStatus]) -> Iterator[Alert]:
    """Hold the word of the plan against what the key was refused, as far as that matters now."""
    mode = config.settings.provider.mode
    for product, refused in plans.contradictions(overview.entitlements, config.plans, mode, outlook.modes).items():
        days = [one.day for one in assets if one.day and TRAITS[one.asset.asset_type].product is product]
        message = plans.contradicted(product, config.plans[product], refused)
        if Access.SNAPSHOTS in refused:
            message += f": prices are of {max(days)}" if days else ": no price of a finished day is stored"
        message += plans.reasons(refused)
        hint = f"lapsed payment? `assetbatch probe` asks again at once; else set {KEYS[product]} to what the key has"
        yield Alert(Level.CRITICAL, "api.plan", message, hint)


def _of_markets(
    groups: Sequence[Group], assets: Sequence[AssetStatus], others: Sequence[AssetStatus]
) -> Iterator[Alert]:
    """Report a market none of whose assets is kept fresh, unless it is told of each of them that it is late."""
    for market in AssetType:
        own = [group for group in groups if group.asset_type == market and group.state not in GONE]
        ill = [group for group in own if group.ill and group.state in FAR_FROM_WELL]
        total = sum(group.assets for group in own)
        late = sum(one.late for one in assets if one.asset.asset_type is market)
        if total > late and sum(group.assets for group in ill) == total:
            own_assets = (one for one in (*assets, *others) if one.asset.asset_type is market)
            first = next((one for one in own_assets if one.error and one.state not in GONE), None)
            why = f"; {first.asset.symbol}: {first.error}" if first else ""
            message = f"every {market} asset is stale or failing: {_states(ill)}{why}"
            hint = hint_of(first.error_kind if first else None) or "`assetbatch status --all-assets` tells why"
            yield Alert(Level.CRITICAL, f"assets.{market}", message, hint, total, 0)


def _of_stream(config: Config, overview: Overview, groups: Sequence[Group]) -> Iterator[Alert]:
    if overview.streams or config.settings.stream.enabled:
        from assetbatch.report import stream_alerts

        yield from stream_alerts.of_stream(config, overview, {AssetType(group.asset_type) for group in groups})


def _of_priority_assets(
    config: Config, overview: Overview, outlook: Outlook, assets: Sequence[AssetStatus]
) -> Iterator[Alert]:
    yield from _of_refused(config, [one for one in assets if one.state is Freshness.NOT_ENTITLED])
    for one in assets:
        if one.late and one.state is not Freshness.CLOSED:
            yield _late(one, outlook)
    if silent := [one for one in assets if one.state is Freshness.SILENT]:
        since = utc(min(one.priced_at or overview.now for one in silent))
        message = f"{', '.join(one.asset.symbol for one in silent)}: asked for, but nothing has traded since {since}"
        hint = "delisted, or renamed? See polygon_ticker"
        yield Alert(Level.WARNING, "assets.silent", message, hint, len(silent), 0)
    runs = overview.job("run-priority")["runs"]
    causes: dict[tuple[FailureKind | None, str, bool], list[AssetStatus]] = {}
    for one in assets:
        if one.state in {Freshness.FAILING, Freshness.NEVER}:
            causes.setdefault((one.error_kind, one.error, one.last_sync is None), []).append(one)
    for (kind, error, never), some in causes.items():
        symbols = ", ".join(one.asset.symbol for one in some)
        hint = hint_of(kind) or "is it killed? `assetbatch -v run-priority` tells more"
        if never and runs > 1:
            words = f": {error}" if error else ", though run-priority runs"
            yield Alert(Level.CRITICAL, "assets.never", f"{symbols}: never updated{words}", hint, len(some), 0)
        elif kind or error:
            yield Alert(Level.WARNING, "assets.failing", f"{symbols} failed: {error}", hint, len(some), 0)


def _of_refused(config: Config, refused: Sequence[AssetStatus]) -> Iterator[Alert]:
    for product, plan in config.plans.items():
        if own := [one.asset for one in refused if TRAITS[one.asset.asset_type].product is product]:
            symbols = ", ".join(asset.symbol for asset in own)
            message = f"plan says {plan_words(product, plan)}, the key is refused {symbols}"
            hint = "lapsed payment?" if plan.is_live else f"see {config.settings.provider.upgrade_url}"
            # A plan without live prices may well have only some of what is sold in part.
            is_known = not plan.is_live and all(TRAITS[asset.asset_type].is_sold_in_part for asset in own)
            yield Alert(Level.WARNING if is_known else Level.CRITICAL, "api.plan", message, hint)


def _late(one: AssetStatus, outlook: Outlook) -> Alert:
    """Report a priority asset that is older than it may be, whatever the cause: one that fails is late, too."""
    metric, hint = f"assets.{one.asset.symbol}", hint_of(one.error_kind) or "`assetbatch -v run-priority` tells more"
    why = f": {one.error}" if one.error else ""
    if outlook.modes[one.asset.asset_type] is Mode.END_OF_DAY:
        day = outlook.overdue_day(one.asset.asset_type)
        late = outlook.now - market_hours.day_over_at(day)
        message = f"{one.asset.symbol} has no price of {day}, {duration(late)} after there could be one{why}"
        return Alert(Level.CRITICAL, metric, message, hint, round(late.total_seconds()), DAY_PATIENCE.total_seconds())
    age = one.market_age or timedelta(0)
    at_most = oldest_priority(one.asset.update_frequency_seconds, outlook.interval)
    message = f"{one.asset.symbol} was not updated in the last {duration(age)} that its market was open{why}"
    return Alert(Level.CRITICAL, metric, message, hint, round(age.total_seconds()), at_most.total_seconds())


def _of_other_assets(config: Config, groups: Sequence[Group], others: Sequence[AssetStatus]) -> Iterator[Alert]:
    """Report secondary assets that are not kept fresh, beyond as many as are tolerated; unknown tickers apart."""
    ill = [group for group in groups if group.ill and group.role == Role.SECONDARY]
    most = config.settings.alerts.assets_not_well_max
    if sum(group.assets for group in ill) <= most:
        return
    for unknown in (True, False):
        some = [group for group in ill if group.unknown is unknown]
        total = sum(group.assets for group in some)
        shown = [one for one in others if one.ill and one.unknown is unknown]
        names = named([one.asset.symbol for one in shown], total)
        error = next((one for one in shown if one.error), None)
        why = "" if error is None else f": {error.error}" if total == 1 else f"; {error.asset.symbol}: {error.error}"
        if some and unknown:
            message = f"the vendor does not know {names}{why}"
            yield Alert(Level.WARNING, "assets.unknown", message, hint_of(FailureKind.UNKNOWN_TICKER), total, most)
        elif some:
            message = f"{counted(total, 'other asset')} not well ({_states(some)}): {names}{why}"
            yield Alert(Level.WARNING, "assets.not_well", message, _mend_of_others(config, shown), total, most)


def _mend_of_others(config: Config, ill: Sequence[AssetStatus]) -> str:
    if config.settings.batch.secondary_source == "config" and any(one.origin == "symbols" for one in ill):
        return "what `symbols` added is put on the queue with batch.secondary_source: database"
    hint = next((hint for one in ill if (hint := hint_of(one.error_kind))), "")
    return hint or DRAINS


def _way_out_of_refusals(budget: Budget) -> str:
    if not budget.spaced:
        return "our own calls explain it: after a failover or a restore some were not known"
    if budget.limit is None:
        return (
            "the configuration says unlimited, the server counts all the same: check provider.plan, or set"
            " rate_limiting.calls_per_minute; until then calls are spaced"
        )
    return "another program uses this key, or the server counts otherwise: lower rate_limiting.calls_per_minute"


def _states(groups: Sequence[Group]) -> str:
    counts: Counter[str] = Counter()
    for group in groups:
        counts[group.state] += group.assets
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def _of_limit(overview: Overview, budget: Budget) -> Iterator[Alert]:
    if refusals := budget.refusals_last_hour:
        message = f"the API refused {counted(refusals, 'call')} as too many in the last hour"
        yield Alert(Level.WARNING, "api.refusals", message, _way_out_of_refusals(budget), refusals, 0)
    if hosts := overview.disagreeing_hosts:
        limits = (f"{one['host']} {one['max_calls'] or 'unlimited'} in {one['window_seconds']:g} s" for one in hosts)
        message = f"hosts have different limits, the strictest holds: {', '.join(limits)}"
        yield Alert(Level.WARNING, "api.hosts_disagree", message, "make their config.yaml the same")


def _of_queue(config: Config, overview: Overview, metrics: Mapping[str, float | None]) -> Iterator[Alert]:
    size, most = metrics["queue.size"] or 0, config.settings.alerts.queue_size_max
    # A queue that drains is no trouble.
    if size > most and (overview.queue_size_before or 0) > most:
        message = f"{size:,.0f} items wait in the queue, for more than an interval"
        yield Alert(Level.WARNING, "queue.size", message, DRAINS, size, most)
    letters = [row for row in overview.queue if row["state"] == "dead"]
    if letters and overview.now - letters[0]["died_at"] < timedelta(days=1):
        total, newest = sum(row["items"] for row in letters), letters[0]["newest"]
        names = named([row["symbol"] for row in newest], total)
        message = f"{counted(total, 'dead letter')}, the last one within a day: {names}; {newest[0]['error']}"
        hint = f"`assetbatch queue retry {newest[0]['symbol']}` once it is fixed"
        hint = "; then ".join(filter(None, [hint_of(newest[0]["error_kind"]), hint]))
        yield Alert(Level.WARNING, "queue.dead", message, hint, total, 0)


def _of_events(overview: Overview) -> Iterator[Alert]:
    oldest, pending = overview.hour["oldest_event_at"], overview.hour["events_pending"]
    if refused := overview.events_refused:
        message = f"{counted(refused.events, 'event')} refused, and waiting: {refused.words}"
        hint = "what carries events has to take them: see REDIS_URL and the rights of its user; NOTIFY takes symbols of"
        hint += " 50 bytes at most"
        yield Alert(Level.WARNING, "events.refused", message, hint, refused.events, 0)
    elif oldest is not None and overview.now - oldest > EVENTS_PENDING_AT_MOST:
        message = f"{counted(pending, 'event')} waiting for more than 5 minutes"
        yield Alert(Level.WARNING, "events.pending", message, "is Redis running, and do jobs run?", pending, 0)


def _of_bars(overview: Overview, bars: BarsStatus) -> Iterator[Alert]:
    for words in bar_absences.sentences(bars.refused):
        hint = "the owner of the table has to mend that; `assetbatch backfill` fetches them then"
        yield Alert(Level.WARNING, "bars.refused", words, hint)
    failing = overview.failing_bars
    if failing and not (bars.refused and failing[0]["error_kind"] in REFUSED):
        first, total = failing[0], failing[0]["total"]
        names = named([row["symbol"] for row in failing], total)
        message = f"the last call for bars failed for {names}; {first['symbol']}: {first['error']}"
        hint = hint_of(first["error_kind"]) or "the next runs try again"
        yield Alert(Level.WARNING, "bars.failing", message, hint, total, 0)
    began, old = overview.first_run_at, overview.now - HOLES_AT_MOST
    if bars.holes and bars.oldest_hole and began and max(bars.oldest_hole, began) < old:
        since = utc(bars.oldest_hole)
        message = f"{counted(bars.holes, 'bar')} of priority assets missing, since {since}"
        hint = "does drain-queue run? `assetbatch backfill` fetches them now"
        yield Alert(Level.WARNING, "bars.holes", message, hint)


def _of_splits(overview: Overview) -> Iterator[Alert]:
    at = overview.splits_listed_at
    if at is not None and overview.now - at > SPLITS_UNKNOWN_AT_MOST:
        message = f"the list of splits has not come since {at:%Y-%m-%d}: bars of before one may be of another scale"
        yield Alert(Level.WARNING, "splits.list", message, "`assetbatch -v drain-queue` tells why")


def _of_platform(overview: Overview) -> Iterator[Alert]:
    """Report what is not written since the role does not see what it takes."""
    if overview.role_view is not None and overview.role_view.blind_spot is not None:
        yield Alert(Level.WARNING, "database.provider", overview.role_view.blind_spot, overview.role_view.mend)


def _of_hosts(overview: Overview) -> Iterator[Alert]:
    """Report hosts that work by different words: each sees what the others store."""
    for what, hint in (("version", "upgrade the older one"), ("plan", "make provider.plan the same")):
        if len({row[what] for row in overview.differing_hosts}) > 1:
            words = ", ".join(f"{row['host']} {row[what]}" for row in overview.differing_hosts)
            yield Alert(Level.WARNING, "hosts.differ", f"{what}s differ: {words}", hint)
