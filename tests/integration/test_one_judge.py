"""Health has one judge: over random states, text, exit code, JSON, metrics and `doctor` say the same, and say it right.

What is right is written here a second time, asset by asset, in the words of the rule and not of the statement.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from assetbatch import market_hours
from assetbatch.database import catalogue
from assetbatch.market_hours import market_of
from assetbatch.model import Asset, AssetType, Role
from assetbatch.report import doctor, reading
from assetbatch.report.doctor import worst
from assetbatch.report.documents import status_document
from assetbatch.report.health import Health
from assetbatch.report.nagios import output
from assetbatch.report.prometheus import exposition
from assetbatch.report.reading import Wanted
from tests.world import DAY, HOUR, MINUTE, load_config

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.report.status import Status

INTERVAL = 5 * MINUTE
TICKERS = ("C:EURUSD", "C:XAUUSD", "X:BTCUSD")
FREQUENCIES = (300, 1800, 86_400)
# Well apart from every threshold: what is read takes a moment.
AGES = (None, MINUTE, 8 * MINUTE, 40 * MINUTE, 3 * HOUR, 26 * HOUR, 4 * DAY, 9 * DAY)
ERRORS = (None, None, None, None, "invalid", "missing", "unknown_ticker", "not_entitled")
JOBS = ("run-priority", "drain-queue", "enqueue-secondary")
FORGET = """
truncate assetbatch.assets, assetbatch.sync_state, assetbatch.runs, assetbatch.queue, assetbatch.outbox,
         assetbatch.api_calls, assetbatch.bar_state
"""
CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2}
LEVELS = {"ok": Health.HEALTHY, "warn": Health.DEGRADED, "fail": Health.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class One:
    """An asset of the catalogue and what was met when it was last asked for."""

    ticker: str
    frequency: int
    enabled_ago: timedelta
    succeeded_ago: timedelta | None
    error: str | None
    day_ago: int | None
    priced_ago: timedelta | None = None

    def asset(self, number: int) -> Asset:
        kind = AssetType.CRYPTO if self.ticker.startswith("X:") else AssetType.FOREX
        return Asset(f"S{number}", self.ticker, kind, Role.SECONDARY, 3, self.frequency)

    def day(self, now: datetime) -> date | None:
        return None if self.day_ago is None else now.date() - timedelta(days=self.day_ago)


@dataclass(frozen=True, slots=True)
class Runs:
    """When a job's last runs began, the newest first, and how they ended."""

    job: str
    last_ago: timedelta
    endings: tuple[str, ...]


assets = st.lists(
    st.builds(
        One,
        ticker=st.sampled_from(TICKERS),
        frequency=st.sampled_from(FREQUENCIES),
        enabled_ago=st.sampled_from([MINUTE, 26 * HOUR, 30 * DAY]),
        succeeded_ago=st.sampled_from(AGES),
        error=st.sampled_from(ERRORS),
        day_ago=st.sampled_from([None, 1, 2, 3, 4, 8]),
        priced_ago=st.sampled_from([None, MINUTE, 6 * DAY, 11 * DAY, 40 * DAY]),
    ),
    max_size=6,
)
runs = st.tuples(
    *(
        st.builds(
            Runs,
            job=st.just(job),
            last_ago=st.sampled_from([MINUTE / 2, 4 * MINUTE, 12 * MINUTE, 90 * MINUTE]),
            endings=st.lists(st.sampled_from(["ok", "ok", "partial", "failed"]), min_size=1, max_size=4).map(tuple),
        )
        for job in JOBS
    )
)


def late_day(kind: AssetType, now: datetime) -> date:
    """The newest finished day that has been there for three hours."""
    days = market_hours.finished_days(kind, now)
    return next(day for day in days if now > market_hours.day_over_at(day) + 3 * HOUR)


def rule(one: One, asset: Asset, now: datetime, *, daily: bool) -> tuple[str, bool]:
    """The state of an asset, and whether it is not well, as the contract words it."""
    error, ago = one.error, one.succeeded_ago
    if error == "not_entitled":
        return error, False
    if daily and error == "missing" and ago is not None and ago < 7 * DAY:
        error = None  # it did not trade on that day
    if error is not None:
        return "failing", True

    def open_for(length: timedelta) -> timedelta:
        return market_hours.open_time(market_of(asset), now - length, now)

    period = timedelta(seconds=one.frequency)
    if ago is None:
        return "never", open_for(one.enabled_ago) > 2 * period
    oldest = 2 * period + INTERVAL
    has_had_time = open_for(one.enabled_ago) > oldest
    if daily:
        day = one.day(now)
        stale = day is None or day < late_day(asset.asset_type, now)
        return ("stale", has_had_time) if stale else ("end_of_day", False)
    if open_for(ago) > oldest:
        return "stale", has_had_time
    is_silent = one.priced_ago is not None and open_for(one.priced_ago) > max(7 * DAY, oldest)
    return ("silent" if is_silent else "fresh" if ago <= oldest else "closed"), False


def put(connection: Connection, found: list[One], began: tuple[Runs, ...]) -> datetime:
    """Write a state down; return the time by which ages count."""
    connection.execute(FORGET)
    row = connection.execute("select clock_timestamp() as now").fetchone()
    assert row is not None
    now: datetime = row["now"]
    for number, one in enumerate(found):
        asset = one.asset(number)
        connection.execute(
            "insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds,"
            " origin, enabled_at) values (%s, %s, %s, 'secondary', 3, %s, 'symbols', %s)",
            (asset.symbol, asset.polygon_ticker, asset.asset_type.value, one.frequency, now - one.enabled_ago),
        )
        connection.execute(
            "insert into assetbatch.sync_state (symbol, succeeded_at, error_kind, error, day, priced_at)"
            " values (%s, %s, %s, %s, %s, %s)",
            (
                asset.symbol,
                one.succeeded_ago and now - one.succeeded_ago,
                one.error,
                one.error,
                one.day(now),
                one.priced_ago and now - one.priced_ago,
            ),
        )
    for job in began:
        for place, ending in enumerate(job.endings):
            connection.execute(
                "insert into assetbatch.runs"
                " (job, host, version, plan, started_at, ends_by, finished_at, status, exit_code, error)"
                " select %s, 'h', '0', 'starter', at, at, at, %s, 0, %s from (select %s::timestamptz as at) t",
                (job.job, ending, ending, now - job.last_ago - place * INTERVAL),
            )
    return now


def configured(folder: Path, database: str, tier: str) -> Config:
    text = "batch: {priority_assets: [], secondary_assets: []}\nbars: {enabled: false}\n"
    return load_config(folder, text, DATABASE_URL=database, POLYGON_TIER=tier)


def agree(status: Status, config: Config) -> None:
    """Hold what each of those who tell of health says against the others."""
    health = status.health
    families: dict[str, Any] = {one.name: one for one in text_string_to_metric_families(exposition(status, "here"))}
    levels = {sample.labels["level"]: sample.value for sample in families["assetbatch_alerts_by_level"].samples}

    assert status_document(status)["status"] == health
    assert CODES[output(status, config).split(" ")[0]] == health.check_code
    assert families["assetbatch_health"].samples[0].value == health.check_code
    assert LEVELS[worst(doctor.of_status(status)).value] == health
    assert (levels["critical"] > 0, levels["warning"] + levels["critical"] > 0) == (
        health is Health.UNHEALTHY,
        health is not Health.HEALTHY,
    )
    assert {alert.message for alert in status.alerts} == {
        one.found for one in doctor.of_status(status) if one.level.value != "ok"
    }


@pytest.mark.parametrize("tier", ["starter", "free"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=assets, began=runs)
def test_all_say_the_same_and_what_the_rule_says(
    connection: Connection, database: str, tmp_path: Path, tier: str, found: list[One], began: tuple[Runs, ...]
) -> None:
    now = put(connection, found, began)

    config = configured(tmp_path, database, tier)
    status = reading.read(config, connection, Wanted(all_assets=True))

    event(status.health.value)
    agree(status, config)
    ruled = {
        one.asset(place): rule(one, one.asset(place), now, daily=tier == "free") for place, one in enumerate(found)
    }
    assert status.asset_states == Counter(state for state, _ in ruled.values())
    assert {one.asset.symbol: (one.state.value, one.ill) for one in status.others} == {
        asset.symbol: said for asset, said in ruled.items()
    }
    everything_of_a_market = any(
        own and all(ill and state in {"stale", "failing"} for state, ill in own)
        for own in ([said for asset, said in ruled.items() if asset.asset_type is kind] for kind in AssetType)
    )
    failing_for_long = any(
        all(ending == "failed" for ending in job.endings)
        and job.last_ago + (len(job.endings) - 1) * INTERVAL
        >= 2 * {"run-priority": INTERVAL, "drain-queue": MINUTE, "enqueue-secondary": 30 * MINUTE}[job.job]
        for job in began
    )
    if everything_of_a_market or failing_for_long:
        assert status.health is Health.UNHEALTHY
    elif any(ill for _, ill in ruled.values()) or any(job.endings[0] == "failed" for job in began):
        assert status.health is not Health.HEALTHY
    elif all(set(job.endings) == {"ok"} for job in began):
        assert (status.health, status.alerts) == (Health.HEALTHY, ())


def test_frequencies_of_disabled_assets_count_too(connection: Connection) -> None:
    put(connection, [One("X:BTCUSD", 77, MINUTE, None, None, None)], ())
    connection.execute("update assetbatch.assets set enabled = false")

    assert connection.answer(catalogue.frequencies()) == [77]
