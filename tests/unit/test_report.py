from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from assetbatch import config as configuration
from assetbatch.config import Config
from assetbatch.database.catalogue import SyncState
from assetbatch.database.overview import Overview
from assetbatch.errors import FailureKind
from assetbatch.model import Access, Asset, AssetType, Role
from assetbatch.planner import AskedDay, DayOutcome, Entitlement
from assetbatch.report import status, tables
from assetbatch.report.alerts import Health, Level
from assetbatch.report.freshness import Freshness, Outlook, freshness

TUESDAY = datetime(2026, 11, 17, 12, tzinfo=UTC)
FRIDAY_CLOSE = datetime(2026, 11, 20, 22, tzinfo=UTC)
SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
INTERVAL = timedelta(minutes=5)
EURO = Asset("EURUSD", "C:EURUSD", AssetType.FOREX, Role.PRIORITY, 1, 300)
BITCOIN = Asset("BTCUSD", "X:BTCUSD", AssetType.CRYPTO, Role.PRIORITY, 2, 300)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


@pytest.mark.parametrize(
    ("asset", "state", "now", "expected"),
    [
        (EURO, SyncState(), TUESDAY, Freshness.NEVER),
        (EURO, SyncState(succeeded_at=TUESDAY - minutes(15)), TUESDAY, Freshness.FRESH),
        (EURO, SyncState(succeeded_at=TUESDAY - minutes(15.1)), TUESDAY, Freshness.STALE),
        (EURO, SyncState(succeeded_at=FRIDAY_CLOSE - minutes(2)), SUNDAY, Freshness.CLOSED),
        (EURO, SyncState(succeeded_at=FRIDAY_CLOSE - minutes(20)), SUNDAY, Freshness.STALE),
        (EURO, SyncState(succeeded_at=SUNDAY - minutes(2)), SUNDAY, Freshness.FRESH),
        (BITCOIN, SyncState(succeeded_at=SUNDAY - minutes(20)), SUNDAY, Freshness.STALE),
        (
            EURO,
            SyncState(succeeded_at=TUESDAY, error_kind=FailureKind.INVALID, error="zero"),
            TUESDAY,
            Freshness.FAILING,
        ),
        (EURO, SyncState(error_kind=FailureKind.NOT_ENTITLED), TUESDAY, Freshness.NOT_ENTITLED),
    ],
)
def test_freshness_in_market_time(asset: Asset, state: SyncState, now: datetime, expected: Freshness) -> None:
    assert freshness(asset, state, Outlook(now, INTERVAL)) is expected


@pytest.fixture
def config(tmp_path: Path) -> Config:
    environment = {"DATABASE_URL": "postgresql://user@127.0.0.1/unused", "POLYGON_TIER": "starter"}
    (tmp_path / "config.yaml").write_text("")
    return configuration.load(file=tmp_path / "config.yaml", environ=environment, cwd=tmp_path)


def overview(now: datetime = TUESDAY, *, job: dict[str, Any] | None = None, **hour: Any) -> Overview:
    """A quiet hour in which all went well, but for what is given."""
    quiet = {
        "priority_ok": 12,
        "priority_finished": 12,
        "priority_latency_ms": 400.0,
        "rate_limit_waits": 0,
        "calls": 12,
        "refusals": 0,
        "events_pending": 0,
        "oldest_event_at": None,
    }
    row: dict[str, Any] = {
        "job": "run-priority",
        "last_run": now - minutes(1),
        "last_status": "ok",
        "exit_code": 0,
        "last_error": None,
        "runs": 288,
        "partial": 0,
        "failed": 0,
        "longest_gap_seconds": 301.0,
        "last_failure": None,
    }
    return Overview(now, {}, [row | (job or {})], quiet | hour, [], None, None, [])


def build(
    config: Config, seen: Overview, *, succeeded_at: datetime | None = None, error: FailureKind | None = None
) -> status.Status:
    last = succeeded_at or seen.now - minutes(1)
    states = {asset.symbol: SyncState(succeeded_at=last, error_kind=error) for asset in config.priority_assets}
    return status.build(config, seen, states, source="sandbox")


def test_a_quiet_hour_is_healthy(config: Config) -> None:
    report = build(config, overview())

    assert (report.health, report.alerts) == (Health.HEALTHY, ())


@pytest.mark.parametrize(
    ("seen", "metric", "health"),
    [
        (overview(priority_ok=9, priority_finished=10), None, Health.HEALTHY),
        (overview(priority_ok=89, priority_finished=100), "batch.priority.success_rate", Health.DEGRADED),
        (overview(priority_latency_ms=30_000.0), None, Health.HEALTHY),
        (overview(priority_latency_ms=30_001.0), "batch.priority.latency_ms", Health.DEGRADED),
        (overview(rate_limit_waits=10), None, Health.HEALTHY),
        (overview(rate_limit_waits=11), "api.rate_limit_waits", Health.DEGRADED),
        (overview(refusals=1), "api.refusals", Health.DEGRADED),
        (overview(events_pending=3, oldest_event_at=TUESDAY - minutes(4)), None, Health.HEALTHY),
        (overview(events_pending=3, oldest_event_at=TUESDAY - minutes(6)), "events.pending", Health.DEGRADED),
        (overview(job={"last_run": TUESDAY - minutes(10)}), None, Health.HEALTHY),
        (overview(job={"last_run": TUESDAY - minutes(10.1)}), "jobs.run-priority", Health.UNHEALTHY),
        (overview(job={"last_run": None}), "jobs.run-priority", Health.UNHEALTHY),
        (overview(job={"exit_code": 77}), "api.key", Health.UNHEALTHY),
    ],
)
def test_alerts_fire_at_their_thresholds_and_not_beside_them(
    config: Config, seen: Overview, metric: str | None, health: Health
) -> None:
    report = build(config, seen)

    assert [alert.metric for alert in report.alerts] == ([metric] if metric else [])
    assert report.health is health


def test_a_priority_asset_older_than_three_intervals_of_market_time_is_critical(config: Config) -> None:
    assert build(config, overview(), succeeded_at=TUESDAY - minutes(15)).health is Health.HEALTHY
    report = build(config, overview(), succeeded_at=TUESDAY - minutes(15.1))

    assert report.health is Health.UNHEALTHY
    assert [alert.metric for alert in report.alerts] == ["assets.XAUUSD", "assets.EURUSD", "assets.BTCUSD"]


def test_a_weekend_raises_no_alarm_about_markets_that_are_closed(config: Config) -> None:
    report = build(config, overview(SUNDAY), succeeded_at=FRIDAY_CLOSE - minutes(1))

    assert [alert.metric for alert in report.alerts] == ["assets.BTCUSD"]
    assert [one.state for one in report.assets] == [Freshness.CLOSED, Freshness.CLOSED, Freshness.STALE]


def test_assets_that_fail_for_one_reason_are_one_alert_with_its_mend(config: Config) -> None:
    (alert,) = build(config, overview(), error=FailureKind.UNKNOWN_TICKER).alerts

    assert alert.message.startswith("XAUUSD, EURUSD, BTCUSD failed")
    assert "polygon_ticker" in alert.hint


def test_a_plan_that_is_contradicted_is_critical_and_a_free_one_is_not(config: Config, tmp_path: Path) -> None:
    refused = {Access.SNAPSHOTS: Entitlement(allowed=False, asked_at=TUESDAY)}
    environment = {"DATABASE_URL": "postgresql://user@127.0.0.1/unused"}
    free = configuration.load(file=tmp_path / "config.yaml", environ=environment, cwd=tmp_path)
    states = {one.symbol: SyncState(succeeded_at=TUESDAY, day=date(2026, 11, 16)) for one in config.priority_assets}

    (alert,) = status.build(config, replace(overview(), entitlements=refused), states, source="sandbox").alerts

    assert (alert.metric, alert.level) == ("api.plan", Level.CRITICAL)
    assert alert.message == "plan says starter, the key is refused snapshots: prices are of 2026-11-16"
    assert "probe" in alert.hint
    assert not status.build(free, replace(overview(), entitlements=refused), states, source="sandbox").alerts


@pytest.mark.parametrize(
    ("day", "now", "state"),
    [
        (date(2026, 11, 16), datetime(2026, 11, 18, 4, 59, tzinfo=UTC), Freshness.END_OF_DAY),
        (date(2026, 11, 16), datetime(2026, 11, 18, 8, tzinfo=UTC), Freshness.END_OF_DAY),
        (date(2026, 11, 16), datetime(2026, 11, 18, 8, 1, tzinfo=UTC), Freshness.STALE),
        (date(2026, 11, 17), datetime(2026, 11, 18, 8, 1, tzinfo=UTC), Freshness.END_OF_DAY),
        (date(2026, 11, 20), datetime(2026, 11, 24, 4, 59, tzinfo=UTC), Freshness.END_OF_DAY),
        (None, datetime(2026, 11, 18, 8, 1, tzinfo=UTC), Freshness.STALE),
    ],
)
def test_with_end_of_day_prices_what_lacks_a_day_for_three_hours_is_stale(
    config: Config, day: date | None, now: datetime, state: Freshness
) -> None:
    refused = {Access.SNAPSHOTS: Entitlement(allowed=False, asked_at=now)}
    states = {
        one.symbol: SyncState(succeeded_at=now, day=day if one.symbol == "EURUSD" else now.date())
        for one in config.priority_assets
    }

    report = status.build(config, replace(overview(now), entitlements=refused), states, source="sandbox")

    assert report.assets[1].state is state
    stale = [alert for alert in report.alerts if alert.metric == "assets.EURUSD"]
    assert [alert.level for alert in stale] == ([Level.CRITICAL] if state is Freshness.STALE else [])


def test_a_day_that_the_vendor_has_not_is_no_trouble(config: Config) -> None:
    now = datetime(2026, 11, 18, 12, tzinfo=UTC)
    seen = replace(
        overview(now),
        entitlements={Access.SNAPSHOTS: Entitlement(allowed=False, asked_at=now)},
        days={(AssetType.FOREX, date(2026, 11, 17)): AskedDay(DayOutcome.EMPTY, now)},
    )
    states = {one.symbol: SyncState(succeeded_at=now, day=date(2026, 11, 16)) for one in config.priority_assets}

    report = status.build(config, seen, states, source="sandbox")

    assert [one.state for one in report.assets] == [Freshness.END_OF_DAY, Freshness.END_OF_DAY, Freshness.STALE]


def test_a_market_that_the_vendor_says_rests_is_closed(config: Config) -> None:
    states = {
        one.symbol: SyncState(succeeded_at=TUESDAY - minutes(60), error_kind=FailureKind.INVALID, error="zero")
        for one in config.priority_assets[:2]
    } | {"BTCUSD": SyncState(succeeded_at=TUESDAY)}

    report = status.build(config, replace(overview(), closed=frozenset({AssetType.FOREX})), states, source="sandbox")

    assert [one.state for one in report.assets] == [Freshness.CLOSED, Freshness.CLOSED, Freshness.FRESH]
    assert report.health is Health.HEALTHY


def test_assets_that_were_never_updated_though_runs_begin_are_critical(config: Config) -> None:
    states = {asset.symbol: SyncState() for asset in config.priority_assets}

    assert status.build(config, overview(), states, source="sandbox").health is Health.UNHEALTHY
    assert status.build(config, overview(job={"runs": 1}), states, source="sandbox").health is Health.HEALTHY


def test_the_worst_alert_comes_first(config: Config) -> None:
    report = build(config, overview(refusals=1, job={"exit_code": 77}))

    assert [alert.metric for alert in report.alerts] == ["api.key", "api.refusals"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d"), (-5, "0 s")]
)
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert tables.duration(timedelta(seconds=seconds)) == text
