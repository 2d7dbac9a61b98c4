from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from assetbatch.config import Config
from assetbatch.database import catalogue
from assetbatch.database.bars.absences import RefusedBars
from assetbatch.database.connection import Connection
from assetbatch.database.outbox import Refusal
from assetbatch.database.read.overview import Overview
from assetbatch.database.setup.platform import RoleView
from assetbatch.failures import FailureKind, hint_of
from assetbatch.model import Access, AssetType, Product
from assetbatch.planner import AskedDay, DayOutcome
from assetbatch.plans import Entitlement, Sight
from assetbatch.report import reading
from assetbatch.report.documents import status_document
from assetbatch.report.freshness import Freshness
from assetbatch.report.health import Health, Level
from assetbatch.report.status import BarsStatus, Status
from assetbatch.report.status_tables import status_view
from assetbatch.words import until
from tests.world import FRIDAYS_CLOSE, MINUTE, TUESDAY, add_assets, judged, load_config, overview

SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNUSED = "postgresql://user@127.0.0.1/unused"

FAILING_BARS = [{"symbol": "EURUSD", "error_kind": "timeout", "error": "too slow", "total": 2}]

Build = Callable[..., Status]


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


FORGET = "truncate assetbatch.assets, assetbatch.sync_state"

ADD_STATE = """
insert into assetbatch.sync_state (symbol, succeeded_at, error_kind, error, day)
values (%(symbol)s, %(succeeded_at)s, %(error_kind)s, %(error)s, %(day)s)
"""


@dataclass(frozen=True)
class SyncState:
    succeeded_at: datetime | None = None
    error_kind: FailureKind | None = None
    error: str = ""
    day: date | None = None


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tmp_path, DATABASE_URL=UNUSED, POLYGON_TIER="starter")


def without_live_prices(now: datetime = TUESDAY) -> Overview:
    """A quiet hour of a key that is refused what its plan promises."""
    return replace(
        overview(now),
        entitlements={Sight(Product.CURRENCIES, Access.SNAPSHOTS): Entitlement(allowed=False, asked_at=now)},
    )


@pytest.fixture
def build(connection: Connection) -> Build:
    """Build the report of priority assets that are all in one state, but for those that have one of their own."""

    def built(
        config: Config,
        seen: Overview,
        state: SyncState | None = None,
        *,
        source: str | None = "api.massive.com",
        secondary: bool = False,
        **states: SyncState,
    ) -> Status:
        assets = config.assets if secondary else config.priority_assets
        common = state or SyncState(succeeded_at=seen.now - MINUTE)
        # The database has had these assets for long.
        connection.execute(FORGET)
        catalogue.sync_with_config(connection, assets)
        connection.execute("update assetbatch.assets set enabled_at = 'epoch'")
        for symbol, one in ({asset.symbol: common for asset in assets} | states).items():
            connection.execute(ADD_STATE, asdict(one) | {"symbol": symbol})
        return reading.build(config, seen, judged(connection, config, seen), source=source)

    return built


@pytest.mark.parametrize(
    ("asset", "state", "now", "expected"),
    [
        ("EURUSD", SyncState(), TUESDAY, "never"),
        ("EURUSD", SyncState(succeeded_at=TUESDAY - minutes(15)), TUESDAY, "fresh"),
        ("EURUSD", SyncState(succeeded_at=TUESDAY - minutes(15.1)), TUESDAY, "stale"),
        ("EURUSD", SyncState(succeeded_at=FRIDAYS_CLOSE - minutes(2)), SUNDAY, "closed"),
        ("EURUSD", SyncState(succeeded_at=FRIDAYS_CLOSE - minutes(20)), SUNDAY, "stale"),
        ("EURUSD", SyncState(succeeded_at=SUNDAY - minutes(2)), SUNDAY, "fresh"),
        ("BTCUSD", SyncState(succeeded_at=SUNDAY - minutes(20)), SUNDAY, "stale"),
        ("EURUSD", SyncState(succeeded_at=TUESDAY, error_kind=FailureKind.INVALID, error="zero"), TUESDAY, "failing"),
        ("EURUSD", SyncState(error_kind=FailureKind.NOT_ENTITLED), TUESDAY, "not_entitled"),
    ],
)
def test_freshness_in_market_time(
    build: Build, config: Config, asset: str, state: SyncState, now: datetime, expected: str
) -> None:
    states = {one.asset.symbol: one.state for one in build(config, overview(now), **{asset: state}).assets}

    assert states[asset] == expected


def test_a_quiet_hour_is_healthy(build: Build, config: Config) -> None:
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
    build: Build, config: Config, seen: Overview, metric: str | None, health: Health
) -> None:
    report = build(config, seen)

    assert [alert.metric for alert in report.alerts] == ([metric] if metric else [])
    assert report.health is health


def test_a_priority_asset_older_than_three_intervals_of_market_time_is_critical(build: Build, config: Config) -> None:
    assert build(config, overview(), SyncState(succeeded_at=TUESDAY - minutes(15))).health is Health.HEALTHY
    report = build(config, overview(), SyncState(succeeded_at=TUESDAY - minutes(15.1)))

    assert report.health is Health.UNHEALTHY
    assert [alert.metric for alert in report.alerts] == ["assets.XAUUSD", "assets.EURUSD", "assets.BTCUSD"]


def test_a_weekend_raises_no_alarm_about_markets_that_are_closed(build: Build, config: Config) -> None:
    report = build(config, overview(SUNDAY), SyncState(succeeded_at=FRIDAYS_CLOSE - MINUTE))

    assert [alert.metric for alert in report.alerts] == ["assets.BTCUSD"]
    assert [one.state for one in report.assets] == [Freshness.CLOSED, Freshness.CLOSED, Freshness.STALE]


def test_assets_that_fail_for_one_reason_are_one_alert_with_its_mend(build: Build, config: Config) -> None:
    failed = SyncState(succeeded_at=TUESDAY - MINUTE, error_kind=FailureKind.UNKNOWN_TICKER)

    *markets, alert = build(config, overview(), failed).alerts

    assert [one.metric for one in markets] == ["assets.forex", "assets.crypto"]
    assert alert.message.startswith("XAUUSD, EURUSD, BTCUSD failed")
    assert "polygon_ticker" in alert.hint


def test_the_first_line_of_a_market_or_an_asset_that_fails_has_the_cause_and_its_mend(
    build: Build, config: Config
) -> None:
    unknown = SyncState(error_kind=FailureKind.UNKNOWN_TICKER, error="who is C:XAUUSDD")
    late = SyncState(
        succeeded_at=TUESDAY - timedelta(hours=1), error_kind=FailureKind.REFUSED_BY_DATABASE, error="sane"
    )

    market, *_ = build(config, overview(), XAUUSD=unknown, EURUSD=unknown).alerts
    asset, *_ = build(config, overview(), BTCUSD=late).alerts

    assert market.message == "every forex asset is stale or failing: 2 failing; XAUUSD: who is C:XAUUSDD"
    assert market.hint == hint_of(FailureKind.UNKNOWN_TICKER)
    assert asset.message == "BTCUSD was not updated in the last 60 min that its market was open: sane"
    assert asset.hint == hint_of(FailureKind.REFUSED_BY_DATABASE)


def test_a_kind_of_failure_that_a_newer_program_has_stored_is_told_by_its_words(
    build: Build, connection: Connection, config: Config
) -> None:
    build(config, overview())
    connection.execute(
        "update assetbatch.sync_state set error_kind = 'moonstruck', error = 'the moon' where symbol = 'BTCUSD'"
    )

    report = reading.build(config, overview(), judged(connection, config, overview()), source=None)

    assert "BTCUSD failed: the moon" in [alert.message for alert in report.alerts]
    bitcoin = [asset for asset in config.priority_assets if asset.symbol == "BTCUSD"]
    (known,) = connection.answer(catalogue.candidates(bitcoin))
    assert (known.asset.symbol, known.failed, known.missing) == ("BTCUSD", False, "")


def test_a_plan_that_is_contradicted_is_critical_and_a_free_one_is_not(
    build: Build, config: Config, tmp_path: Path
) -> None:
    state = SyncState(succeeded_at=TUESDAY, day=date(2026, 11, 16))

    (alert,) = build(config, without_live_prices(), state).alerts

    assert (alert.metric, alert.level) == ("api.plan", Level.CRITICAL)
    assert alert.message == "plan says starter, the key is refused snapshots: prices are of 2026-11-16"
    assert "probe" in alert.hint
    assert not build(load_config(tmp_path, DATABASE_URL=UNUSED), without_live_prices(), state).alerts


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
    build: Build, config: Config, day: date | None, now: datetime, state: Freshness
) -> None:
    today = SyncState(succeeded_at=now, day=now.date())

    report = build(config, without_live_prices(now), today, EURUSD=SyncState(succeeded_at=now, day=day))

    assert report.assets[1].state is state
    stale = [alert for alert in report.alerts if alert.metric == "assets.EURUSD"]
    assert [alert.level for alert in stale] == ([Level.CRITICAL] if state is Freshness.STALE else [])


@pytest.mark.parametrize(
    ("day", "metrics"),
    [(16, ["assets.XAUUSD", "assets.EURUSD", "assets.BTCUSD"]), (17, ["assets.forex", "assets.crypto"])],
)
def test_prices_of_finished_days_whose_calls_go_on_failing_are_critical_whether_a_day_is_lacking_or_not(
    build: Build, tmp_path: Path, day: int, metrics: list[str]
) -> None:
    now = datetime(2026, 11, 18, 12, tzinfo=UTC)
    failing = SyncState(succeeded_at=now, day=date(2026, 11, day), error_kind=FailureKind.SERVER_ERROR)

    report = build(load_config(tmp_path, DATABASE_URL=UNUSED), overview(now), failing)

    assert {one.state for one in report.assets} == {Freshness.FAILING}
    assert [alert.metric for alert in report.alerts if alert.level is Level.CRITICAL] == metrics


def test_a_day_that_the_vendor_has_not_is_no_trouble(build: Build, config: Config) -> None:
    now = datetime(2026, 11, 18, 12, tzinfo=UTC)
    days = {(AssetType.FOREX, date(2026, 11, 17)): AskedDay(DayOutcome.EMPTY, now)}
    state = SyncState(succeeded_at=now, day=date(2026, 11, 16))

    report = build(config, replace(without_live_prices(now), days=days), state)

    assert [one.state for one in report.assets] == [Freshness.END_OF_DAY, Freshness.END_OF_DAY, Freshness.STALE]


def test_a_market_that_the_vendor_says_rests_is_closed(build: Build, config: Config) -> None:
    resting = SyncState(succeeded_at=TUESDAY - minutes(60), error_kind=FailureKind.INVALID, error="zero")
    seen = replace(overview(), closed=frozenset({AssetType.FOREX}))

    report = build(config, seen, resting, BTCUSD=SyncState(succeeded_at=TUESDAY))

    assert [one.state for one in report.assets] == [Freshness.CLOSED, Freshness.CLOSED, Freshness.FRESH]
    assert report.health is Health.HEALTHY


@pytest.mark.parametrize(
    ("error_kind", "after_one", "words"),
    [
        (None, Health.HEALTHY, "never updated, though run-priority runs"),
        (FailureKind.UNKNOWN_TICKER, Health.UNHEALTHY, "never updated: who is that"),
    ],
)
def test_assets_that_were_never_updated_though_runs_begin_are_critical(
    build: Build, config: Config, error_kind: FailureKind | None, after_one: Health, words: str
) -> None:
    never = SyncState(error_kind=error_kind, error="who is that" if error_kind else "")

    report = build(config, overview(), never)

    assert report.health is Health.UNHEALTHY
    assert f"XAUUSD, EURUSD, BTCUSD: {words}" in [alert.message for alert in report.alerts]
    assert build(config, overview(job={"runs": 1}), never).health is after_one


def test_the_worst_alert_comes_first(build: Build, config: Config) -> None:
    report = build(config, overview(refusals=1, job={"exit_code": 77}))

    assert [alert.metric for alert in report.alerts] == ["api.key", "api.refusals"]


def job(name: str, last_run: datetime | None) -> dict[str, Any]:
    return overview().jobs[0] | {"job": name, "last_run": last_run, "last_status": None, "exit_code": None, "runs": 0}


def jobs(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all jobs, this one among them."""
    return [row if row["job"] == quiet["job"] else quiet for quiet in overview().jobs]


def items(*ages: float, state: str = "queued", priority: int = 3) -> list[dict[str, Any]]:
    """Rows of the queue as they are counted: one for each oldest age in minutes."""
    return [
        {
            "state": state,
            "priority": priority,
            "items": 1,
            "oldest": TUESDAY - minutes(age),
            "died_at": TUESDAY - minutes(age),
            "newest": [{"symbol": "NONE", "error_kind": None, "error": "who"}],
        }
        for age in ages
    ]


@pytest.mark.parametrize(
    ("waiting_for", "last_run", "silent"),
    [
        (4.9, None, False),
        (5.1, None, True),
        (60, 4.9, False),
        (60, 5.1, True),
        (1, 60, False),
    ],
)
def test_items_that_nobody_drains_are_told(
    build: Build, config: Config, waiting_for: float, last_run: float | None, silent: bool
) -> None:
    drain = job("drain-queue", None if last_run is None else TUESDAY - minutes(last_run))
    seen = replace(overview(), jobs=jobs(drain), queue=items(waiting_for))

    alerts = build(config, seen).alerts

    assert [alert.metric for alert in alerts] == (["jobs.drain-queue"] if silent else [])
    assert all(("has it this job" if last_run else "assetbatch install cron") in alert.hint for alert in alerts)
    going_on = replace(seen, jobs=jobs(drain | {"last_status": "running"}))
    assert build(config, going_on).alerts == ()


@pytest.mark.parametrize(
    ("first_run", "last_run", "silent"), [(60, None, False), (61, None, True), (600, 60, False), (600, 61, True)]
)
def test_secondary_assets_that_nobody_enqueues_are_told(
    build: Build, config: Config, first_run: float, last_run: float | None, silent: bool
) -> None:
    enqueue = job("enqueue-secondary", None if last_run is None else TUESDAY - minutes(last_run))
    seen = replace(overview(), jobs=jobs(enqueue), first_run_at=TUESDAY - minutes(first_run))

    alerts = build(config, seen).alerts

    assert [alert.metric for alert in alerts] == (["jobs.enqueue-secondary"] if silent else [])


def test_dead_letters_of_delayed_items_and_of_yesterday_silence_nobody(build: Build, config: Config) -> None:
    drain = job("drain-queue", None)
    dead = [row | {"died_at": TUESDAY - timedelta(hours=25)} for row in items(9000, state="dead")]
    seen = replace(overview(), jobs=jobs(drain), queue=[*dead, *items(60, state="delayed")])

    assert build(config, seen).alerts == ()


@pytest.mark.parametrize(
    ("before", "now", "told"), [(501, 501, True), (500, 501, False), (501, 500, False), (None, 9000, False)]
)
def test_a_long_queue_is_trouble_when_it_was_one_an_interval_ago(
    build: Build, config: Config, before: int | None, now: int, told: bool
) -> None:
    seen = replace(overview(), queue=[items(1)[0] | {"items": now}], queue_size_before=before)

    assert [alert.metric for alert in build(config, seen).alerts] == (["queue.size"] if told else [])


@pytest.mark.parametrize(("hours", "told"), [(23, True), (25, False)])
def test_a_dead_letter_of_the_last_day_degrades(build: Build, config: Config, hours: float, told: bool) -> None:
    dead = items(9000, state="dead")[0] | {"died_at": TUESDAY - timedelta(hours=hours)}

    report = build(config, replace(overview(), queue=[dead]))

    assert [alert.metric for alert in report.alerts] == (["queue.dead"] if told else [])


def test_another_source_than_the_databases_is_critical(build: Build, config: Config) -> None:
    (alert,) = build(config, overview(), source="sandbox").alerts

    assert (alert.metric, alert.level) == ("database.source", Level.CRITICAL)
    assert "sandbox" in alert.message
    assert not build(config, overview(), source=None).alerts


def test_an_asset_that_is_updated_seldom_may_be_as_old_as_that_makes_it(build: Build, tmp_path: Path) -> None:
    text = (
        "batch:\n  priority_assets:\n    - {symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto,"
        " update_frequency_seconds: 3600}\n"
    )
    hourly = load_config(tmp_path, text, DATABASE_URL=UNUSED, POLYGON_TIER="starter")

    assert build(hourly, overview(), SyncState(succeeded_at=TUESDAY - minutes(125))).health is Health.HEALTHY
    assert build(hourly, overview(), SyncState(succeeded_at=TUESDAY - minutes(126))).health is Health.UNHEALTHY


def shown(report: Status, width: int) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, width=width)
    console.print(status_view(report, width=width))
    return text.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 100])
def test_one_screen_holds_all_and_names_the_worst_first(build: Build, config: Config, width: int) -> None:
    drain, enqueue = job("drain-queue", None), job("enqueue-secondary", TUESDAY - minutes(20))
    seen = replace(
        overview(refusals=1, events_pending=3, oldest_event_at=TUESDAY - minutes(6)),
        jobs=[overview(job={"last_run": TUESDAY - minutes(12)}).jobs[0], drain, enqueue],
        queue=[*items(240, priority=1), *items(7), *items(900, state="dead")],
        failing_bars=FAILING_BARS,
    )

    bars = BarsStatus({"EURUSD": TUESDAY - minutes(10)}, failing=2, holes=7)

    lines = shown(replace(build(config, seen), bars=bars), width)

    assert lines[0].startswith("UNHEALTHY  run-priority has not run for 12 min")
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in (
        "3 events waiting for more than 5 minutes",
        "2 waiting (1 CRITICAL for 4 h, 1 MEDIUM for 7 min), 1 dead",
        "newest final: EURUSD 11:50 UTC",
        "7 missing in the last 7 days",
        "2 assets fail",
        "3 waiting, the oldest for 6 min; published by postgres",
        "live, from api.massive.com",
    ):
        assert words in text


def test_words_of_the_database_are_no_markup(build: Build, config: Config) -> None:
    failed = SyncState(error_kind=FailureKind.INVALID, error="[/red] is no price [bold]")

    lines = shown(build(config, overview(), failed), 100)

    assert "[/red] is no price [bold]" in " ".join(" ".join(lines).split())


def test_prices_of_finished_days_name_the_day_and_when_there_can_be_a_newer_one(build: Build, config: Config) -> None:
    now = datetime(2026, 11, 18, 12, tzinfo=UTC)

    report = build(config, without_live_prices(now), SyncState(succeeded_at=now, day=date(2026, 11, 17)))

    lines = [line for line in shown(report, 100) if line.startswith("Prices")]
    assert lines == ["Prices  end of day of 2026-11-17, from api.massive.com, newer ones from 2026-11-19 05:00 UTC on"]
    told = status_document(report)["prices"]
    newer = {"mode": "end_of_day", "newer_data_at": datetime(2026, 11, 19, 5, tzinfo=UTC)}
    markets = told.pop("markets")
    assert told == newer | {"day": "2026-11-17"}
    assert markets == {name: newer | {"day": None} for name in ("crypto", "forex")}


@pytest.mark.parametrize(("tier", "words"), [("starter", "live"), ("free", "end of day, none yet")])
def test_before_the_first_price_there_are_words_for_people_and_null_in_json(
    build: Build, tmp_path: Path, tier: str, words: str
) -> None:
    config = load_config(tmp_path, DATABASE_URL=UNUSED, POLYGON_TIER=tier)

    report = build(config, overview(), SyncState(), source=None)

    lines = shown(report, 100)
    assert [line for line in lines if line.startswith("Prices")] == [f"Prices  {words}, from nowhere yet"]
    document = status_document(report)
    assert (document["source"], document["prices"]["day"]) == (None, None)


@pytest.mark.parametrize(("failing", "words"), [([], "none yet"), (FAILING_BARS, "none yet; those of 2 assets fail")])
def test_where_nobody_has_bars_yet_none_are_missing(
    build: Build, config: Config, failing: list[dict[str, Any]], words: str
) -> None:
    lines = shown(build(config, replace(overview(), failing_bars=failing)), 100)

    assert [line for line in lines if line.startswith("Bars")] == [f"Bars    {words}"]


@pytest.mark.parametrize(("tolerated", "metrics"), [(0, ["assets.unknown", "assets.not_well"]), (3, []), (2, [])])
def test_other_assets_that_are_not_well_are_named_beyond_as_many_as_are_tolerated(
    build: Build, tmp_path: Path, tolerated: int, metrics: list[str]
) -> None:
    text = f"alerts: {{assets_not_well_max: {tolerated}}}\n"
    config = load_config(tmp_path, text, DATABASE_URL=UNUSED, POLYGON_TIER="starter")

    report = build(
        config,
        overview(),
        secondary=True,
        ETHUSDT=SyncState(error_kind=FailureKind.UNKNOWN_TICKER, error="who is X:ETHUSDT"),
        GBPUSD=SyncState(succeeded_at=TUESDAY - timedelta(days=2)),
    )

    assert [alert.metric for alert in report.alerts] == metrics
    if metrics:
        assert report.health is Health.DEGRADED
        assert [alert.message for alert in report.alerts] == [
            "the vendor does not know ETHUSDT: who is X:ETHUSDT",
            "1 other asset not well (1 stale): GBPUSD",
        ]


def test_what_no_job_keeps_fresh_is_told_with_the_word_that_mends_it(
    build: Build, connection: Connection, config: Config
) -> None:
    build(config, overview())
    add_assets(connection, "X:SOLUSD")
    connection.execute("update assetbatch.assets set enabled_at = 'epoch'")

    report = reading.build(config, overview(), judged(connection, config, overview()), source=None)

    (alert,) = report.alerts
    assert (alert.metric, "SOLUSD" in alert.message) == ("assets.not_well", True)
    assert "batch.secondary_source: database" in alert.hint


@pytest.mark.parametrize(
    ("seconds_before", "priority", "enqueue"),
    [
        (8, "in 8 s", "in 8 s"),
        (1, "in 1 s", "in 1 s"),
        (0, "in 5 min 0 s", "in 30 min 0 s"),
        (119, "in 119 s", "in 119 s"),
        (299, "in 4 min 59 s", "in 4 min 59 s"),
        (301, "in 1 s", "in 5 min 1 s"),
    ],
)
def test_the_next_run_is_expected_when_cron_starts_it_and_not_one_later(
    build: Build, config: Config, seconds_before: int, priority: str, enqueue: str
) -> None:
    now = TUESDAY - timedelta(seconds=seconds_before)
    report = build(config, overview(now))

    expected = {job.id: until(job.next_run, report.now) for job in report.jobs}
    assert (expected["run-priority"], expected["enqueue-secondary"]) == (priority, enqueue)
    assert any(f" {priority} " in line for line in shown(report, 140))


REFUSED_BARS = [FAILING_BARS[0] | {"error_kind": "refused_by_table"}]
REFUSED = RefusedBars("EURUSD", 43, "no partition of relation", TUESDAY)
OLD, YOUNG = TUESDAY - timedelta(hours=25), TUESDAY - timedelta(hours=23)


@pytest.mark.parametrize(
    ("bars", "seen", "metrics"),
    [
        (BarsStatus({}, 0, 0, refused=[REFUSED]), {}, ["bars.refused"]),
        (BarsStatus({}, 1, 0, refused=[REFUSED]), {"failing_bars": REFUSED_BARS}, ["bars.refused"]),
        (BarsStatus({}, 1, 0), {"failing_bars": FAILING_BARS}, ["bars.failing"]),
        (BarsStatus({}, 0, 7, OLD), {"first_run_at": OLD}, ["bars.holes"]),
        (BarsStatus({}, 0, 7, OLD), {"first_run_at": YOUNG}, []),
        (BarsStatus({}, 0, 7, YOUNG), {"first_run_at": OLD}, []),
        (BarsStatus({}, 0, None), {"first_run_at": OLD}, []),
        (None, {"events_refused": Refusal("no permission", TUESDAY, 3, 2)}, ["events.refused"]),
        (None, {"role_view": RoleView("jobs", has_provider=False, guarded=[])}, ["database.provider"]),
        (None, {"role_view": RoleView("jobs", has_provider=True, guarded=["trading.symbols"])}, []),
    ],
)  # fmt: skip
def test_what_is_not_stored_or_not_published_degrades(
    build: Build,
    connection: Connection,
    config: Config,
    bars: BarsStatus | None,
    seen: dict[str, Any],
    metrics: list[str],
) -> None:
    build(config, overview())
    found = replace(overview(), **seen)
    found.jobs[2]["last_run"] = found.now

    report = reading.build(config, found, judged(connection, config, found), source=None, bars=bars)

    assert [alert.metric for alert in report.alerts] == metrics
    assert report.health is (Health.DEGRADED if metrics else Health.HEALTHY)
    assert all(alert.hint for alert in report.alerts)
