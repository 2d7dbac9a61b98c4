"""What is told of the stream, held against what its runs have written, in one state after the other."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from assetbatch.database import catalogue, streams
from assetbatch.database.streams import Report, Told
from assetbatch.jobs import forecast
from assetbatch.report import doctor, reading, stream_alerts
from assetbatch.report.documents import status_document
from assetbatch.report.health import Health
from assetbatch.report.prometheus import exposition
from assetbatch.report.reading import Wanted, read
from assetbatch.report.status_tables import status_view
from assetbatch.report.streams import sentence, standing, stream_document, stream_status
from tests.world import FRIDAYS_CLOSE, MINUTE, SECOND, TUESDAY, add_assets, judged, load_config, overview

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from assetbatch.config import Config
    from assetbatch.database.connection import Connection
    from assetbatch.report.health import Alert
    from assetbatch.report.status import Status

SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
ENABLED = "stream: {enabled: true}\n"
REFUSED = "auth_failed: Your plan doesn't include websocket access."
EVICTED = "max_connections: Maximum number of websocket connections exceeded."


def told(cluster: str, state: str = "live", *, now: datetime = TUESDAY, ago: float = 3.0, **fields: Any) -> Told:
    """What a stream told of a cluster some seconds ago, from a run of an hour."""
    live: dict[str, Any] = {"since": now - 60 * MINUTE, "asked": 2, "confirmed": 2, "events_a_second": 40.0}
    live |= {"lag_p50_ms": 80, "lag_p95_ms": 400, "is_alive": True}
    everything: dict[str, Any] = {"frame_at": now - SECOND, "connects": 3, "events": 9, "dropped": 1}
    report = Report(cluster, state, **(everything | (live if state == "live" else {}) | fields))
    return Told(report, 7, "far", now - 60 * MINUTE, now - ago * SECOND, is_told=ago < 120, now=now)


def configured(folder: Path, text: str = ENABLED, plan: str = "starter") -> Config:
    return load_config(folder, text, DATABASE_URL="postgresql://user@127.0.0.1/unused", POLYGON_TIER=plan)


def built(
    connection: Connection,
    config: Config,
    *seen: Told,
    now: datetime = TUESDAY,
    job: dict[str, Any] | None = None,
) -> Status:
    """Build the report of priority assets that are all fresh."""
    looked = replace(overview(now, job=job), streams=seen)
    catalogue.sync_with_config(connection, config.priority_assets)
    connection.execute(
        "insert into assetbatch.sync_state (symbol, succeeded_at, day) select symbol, %(at)s, %(day)s"
        " from assetbatch.assets on conflict do nothing",
        {"at": now - MINUTE, "day": now.date()},
    )
    return reading.build(config, looked, judged(connection, config, looked), source="api.massive.com")


def of_stream(alerts: Sequence[Alert]) -> list[tuple[str, str]]:
    return [(one.metric, one.level.name) for one in alerts if one.area == "stream"]


BOTH = (told("forex"), told("crypto"))
LATE = {"last_run": TUESDAY - 20 * MINUTE}


@pytest.mark.parametrize(
    ("text", "seen", "now", "job", "expected"),
    [
        ("", (), TUESDAY, None, []),
        ("", (told("forex", ago=300),), TUESDAY, None, []),
        (ENABLED, BOTH, TUESDAY, None, []),
        (ENABLED, (), TUESDAY, None, [("stream.away", "WARNING")]),
        (ENABLED, (told("forex", ago=119), BOTH[1]), TUESDAY, None, []),
        (ENABLED, (told("forex", ago=130), BOTH[1]), TUESDAY, None, [("stream.away", "WARNING")]),
        (ENABLED, (told("forex", "ended", ago=20), told("crypto", "ended", ago=20)), TUESDAY, None, []),
        (ENABLED, (told("forex", "ended", ago=300), BOTH[1]), TUESDAY, None, [("stream.away", "WARNING")]),
        (ENABLED, (told("forex", ago=300), told("crypto", ago=300)), TUESDAY, LATE, [("stream.away", "CRITICAL")]),
        ("stream: {enabled: true, clusters: [crypto]}\n", BOTH[1:], TUESDAY, None, []),
        ("", (told("forex", "refused", words=REFUSED), BOTH[1]), TUESDAY, None, [("stream.refused", "CRITICAL")]),
        ("", (told("forex", "refused", words=REFUSED, ago=300),), TUESDAY, None, []),
        ("", (told("crypto", "resting", words=EVICTED),), TUESDAY, None, [("stream.resting", "WARNING")]),
        ("", (told("forex", unconfirmed=("C.A/B: no answer",)),), TUESDAY, None, [("stream.unconfirmed", "WARNING")]),
        ("", (told("forex", silent=("EURUSD",)),), TUESDAY, None, [("stream.silent", "WARNING")]),
        # A connection is made anew; one that is not there for longer is told, of a market that trades.
        ("", (told("forex", "waiting", frame_at=TUESDAY - MINUTE),), TUESDAY, None, []),
        (
            "",
            (told("forex", "waiting", frame_at=TUESDAY - 3 * MINUTE, words="the connection broke off"),),
            TUESDAY,
            None,
            [("stream.unreachable", "WARNING")],
        ),
        ("", (told("forex", "connecting", frame_at=None),), TUESDAY, None, [("stream.unreachable", "WARNING")]),
        # On a weekend.
        (
            ENABLED,
            (told("forex", now=SUNDAY, frame_at=FRIDAYS_CLOSE), told("crypto", now=SUNDAY)),
            SUNDAY,
            None,
            [],
        ),
        (ENABLED, (told("forex", "waiting", now=SUNDAY), told("crypto", now=SUNDAY)), SUNDAY, None, []),
        (
            ENABLED,
            (told("forex", now=SUNDAY), told("crypto", "waiting", now=SUNDAY, frame_at=SUNDAY - 3 * MINUTE)),
            SUNDAY,
            None,
            [("stream.unreachable", "WARNING")],
        ),
    ],
)
def test_alerts_of_the_stream(
    connection: Connection,
    tmp_path: Path,
    text: str,
    seen: tuple[Told, ...],
    now: datetime,
    job: dict[str, Any] | None,
    expected: list[tuple[str, str]],
) -> None:
    report = built(connection, configured(tmp_path, text), *seen, now=now, job=job)

    assert of_stream(report.alerts) == expected
    if job is None:
        worst = max((level for _, level in expected), default="HEALTHY", key=("WARNING", "CRITICAL", "HEALTHY").index)
        healths = {"HEALTHY": Health.HEALTHY, "WARNING": Health.DEGRADED, "CRITICAL": Health.UNHEALTHY}
        assert report.health is healths[worst]
    for alert in report.alerts:
        assert alert.hint


def test_alerts_name_what_it_is_about_and_the_mend(connection: Connection, tmp_path: Path) -> None:
    seen = (
        told("crypto", "resting", words=EVICTED),
        told("forex", unconfirmed=tuple(f"C.A{n}/B: no answer" for n in range(7)), silent=("EURUSD",)),
    )
    alerts = {one.metric: one for one in built(connection, configured(tmp_path), *seen).alerts}

    assert "another connection of this account" in alerts["stream.resting"].message
    assert "end the other program" in alerts["stream.resting"].hint
    assert alerts["stream.unconfirmed"].message.endswith("C.A4/B: no answer and 2 more")
    assert (alerts["stream.unconfirmed"].value, alerts["stream.silent"].value) == (7, 1)

    refused = built(connection, configured(tmp_path), told("crypto"), told("forex", "refused", words=REFUSED)).alerts[0]
    assert refused.message == f"plan says starter, the stream of forex is refused: {REFUSED}"

    away = [told(name, "ended", ago=300, words="the stream refuses the key") for name in ("forex", "crypto")]
    (alert,) = built(connection, configured(tmp_path), *away).alerts
    assert alert.message == "the stream of crypto and forex is away: it ended 5 min ago: the stream refuses the key"
    assert "far" in alert.hint
    assert alert.value == 300

    (alert,) = built(connection, configured(tmp_path)).alerts
    assert (alert.message, alert.hint) == (
        "stream.enabled is true, but no stream of crypto and forex ever ran",
        stream_alerts.START,
    )


def test_a_plan_without_websocket_is_told_in_place_of_a_stream_that_is_away(
    connection: Connection, tmp_path: Path
) -> None:
    report = built(connection, configured(tmp_path, plan="free"))

    assert of_stream(report.alerts) == [("stream.plan", "WARNING")]


STOCKS = """
provider: {{plan: {plan}, plans: {{stocks: {stocks}}}}}
batch:
  priority_assets:
    - {{symbol: AAPL, polygon_ticker: AAPL, asset_type: stocks}}
    - {{symbol: EURUSD, polygon_ticker: "C:EURUSD", asset_type: forex}}
  secondary_assets: []
stream: {{enabled: true}}
"""
TRADE_BEGINS = datetime(2026, 11, 17, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("plan", "stocks", "states", "minutes", "expected"),
    [
        # A market that is free is not missed; where all are, the key of one is named.
        ("starter", "free", {"forex": "live"}, 60, []),
        ("starter", "starter", {"forex": "live"}, 60, [("stream.away", "no stream of stocks")]),
        ("free", "starter", {"stocks": "live"}, 60, []),
        ("free", "free", {}, 60, [("stream.plan", "provider.plan")]),
        # What is late has nothing to tell of a day until a quarter of an hour after trade began.
        ("starter", "advanced", {"forex": "live", "stocks": "waiting"}, 3, [("stream.unreachable", "3 min")]),
        ("starter", "starter", {"forex": "live", "stocks": "waiting"}, 3, []),
        ("starter", "starter", {"forex": "live", "stocks": "waiting"}, 18, [("stream.unreachable", "3 min")]),
        ("starter", "starter", {"forex": "live", "stocks": "refused"}, 60, [("stream.refused", "starter for stocks")]),
    ],
)
def test_each_market_is_told_of_by_its_own_plan(
    connection: Connection,
    tmp_path: Path,
    plan: str,
    stocks: str,
    states: dict[str, str],
    minutes: int,
    expected: list[tuple[str, str]],
) -> None:
    text = STOCKS.format(plan=plan, stocks=stocks)
    config = load_config(tmp_path, text, DATABASE_URL="postgresql://user@127.0.0.1/unused")
    now = TRADE_BEGINS + minutes * MINUTE
    lost: dict[str, Any] = {"frame_at": TRADE_BEGINS - 60 * MINUTE}
    seen = [told(name, one, now=now, **({} if one == "live" else lost)) for name, one in states.items()]

    alerts = [one for one in built(connection, config, *seen, now=now).alerts if one.area == "stream"]

    assert [one.metric for one in alerts] == [metric for metric, _ in expected]
    for alert, (_, words) in zip(alerts, expected, strict=True):
        assert words in f"{alert.message} {alert.hint}"


def test_status_shows_each_cluster_and_what_is_in_the_way(connection: Connection, tmp_path: Path) -> None:
    seen = (told("crypto", silent=("BTCUSD",)), told("forex", "resting", words=EVICTED))
    report = built(connection, configured(tmp_path, ""), *seen)

    for width in (80, 100, 140):
        console = Console(width=width, file=io.StringIO())
        console.print(status_view(report, width=width))
        assert isinstance(console.file, io.StringIO)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        (crypto,) = [line for line in lines if line.startswith("│ crypto")]
        assert [word in crypto for word in ("live", "60 min", "2 of 2")] == [True] * 3
        assert ("80 / 400 ms" in crypto) is (width >= 80)
        assert ("far" in crypto) is (width > 100)
    words = "1 of 2 clusters live; crypto silent: BTCUSD; forex resting: max_connections: Maximum number of websocket"
    assert words in " ".join(" ".join(lines).split())
    gone = built(connection, configured(tmp_path, ""), told("crypto", "ended", ago=300), told("forex", ago=600))
    assert sentence(gone.streams) == "0 of 2 clusters live; crypto ended 5 min ago; forex away for 10 min"
    (stream,) = [one for one in doctor.of_status(replace(report, alerts=())) if one.name == "stream"]
    assert stream.found.startswith("1 of 2 clusters live")


def test_where_no_stream_was_ever_used_nothing_is_said_of_it(connection: Connection, tmp_path: Path) -> None:
    report = built(connection, configured(tmp_path, ""))

    assert status_document(report)["stream"] == []
    assert "stream" not in {one.name for one in doctor.of_status(report)}
    assert "assetbatch_stream_up{" not in exposition(report, "here")


def test_the_document_has_all_that_was_told() -> None:
    document = stream_document(stream_status(told("forex", unconfirmed=("C.A/B: no answer",))))

    assert document == {
        "cluster": "forex", "state": "live", "since": TUESDAY - 60 * MINUTE, "host": "far", "run_id": 7,
        "told_at": TUESDAY - 3 * SECOND, "last_frame_at": TUESDAY - SECOND, "serves": True, "words": None,
        "asked": 2, "confirmed": 2, "connects": 3, "events": 9, "events_a_second": 40.0, "dropped": 1,
        "lag_p50_ms": 80, "lag_p95_ms": 400, "unconfirmed": ["C.A/B: no answer"], "silent": [],
    }  # fmt: skip
    ended = stream_status(told("forex", "ended", ago=4))
    assert (ended.state, ended.since) == ("ended", TUESDAY - 4 * SECOND)
    assert stream_status(told("forex", ago=500)).state == "away"


def test_metrics_of_the_moment_are_of_what_is_live(connection: Connection, tmp_path: Path) -> None:
    text = exposition(built(connection, configured(tmp_path, ""), told("crypto"), told("forex", "resting")), "here")

    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("assetbatch_stream_"))

    def value(name: str, cluster: str, **labels: str) -> float | None:
        all_labels = {"cluster": cluster, "installation": "here"} | labels
        words = ",".join(f'{key}="{word}"' for key, word in sorted(all_labels.items()))
        found = lines.get(f"assetbatch_stream_{name}{{{words}}}")
        return None if found is None else float(found)

    assert (value("up", "crypto"), value("up", "forex")) == (1, 0)
    assert (value("state", "forex", state="resting"), value("state", "forex", state="live")) == (1, 0)
    assert (value("lag_seconds", "crypto", quantile="0.95"), value("lag_seconds", "forex", quantile="0.95")) == (
        0.4,
        None,
    )
    assert (value("events_per_second", "crypto"), value("events", "forex"), value("connects", "forex")) == (40, 9, 3)
    assert (value("told_age_seconds", "forex"), value("assets_confirmed", "crypto")) == (3, 2)


def test_one_line_for_a_terminal() -> None:
    live, resting = told("crypto").report, told("forex", "resting").report

    assert standing([live, resting], 2) == "40 events a second, lag 80 ms, 1 of 2 connections live; forex resting"
    assert standing([], 2).startswith("standing by")
    assert len(standing([replace(live, events_a_second=1e5, lag_p50_ms=12_345), live], 2)) < 80


# What is in the table


def tell(connection: Connection, *reports: Report, alive_seconds: float = 20.0) -> None:
    connection.ask(*(streams.tell(one, run_id=1, alive_seconds=alive_seconds) for one in reports))


def test_what_streams_tell_adds_up_and_is_read_with_all_else(connection: Connection, tmp_path: Path) -> None:
    config = configured(tmp_path, "")
    add_assets(connection, "X:BTCUSD", role="priority", rank=1)
    live = Report("crypto", "live", is_alive=True, asked=1, confirmed=1, connects=1, events=10, events_a_second=5.0)
    tell(connection, live, replace(live, connects=2, events=4))
    connection.ask(streams.keep_fresh("crypto", ["BTCUSD"]))

    report = read(config, connection, Wanted(asset="BTCUSD"))

    (one,) = status_document(report)["stream"]
    assert (one["state"], one["serves"], one["events"], one["connects"], one["host"]) == ("live", True, 14, 3, None)
    assert status_document(report)["asset"]["is_streamed"] is True
    tell(connection, replace(live, state="ended", is_alive=False))
    (one,) = status_document(read(config, connection))["stream"]
    assert (one["state"], one["serves"]) == ("ended", False)
    connection.execute("update assetbatch.streams set state = 'live', told_at = now() - interval '3 min'")
    report = read(config, connection, Wanted(asset="BTCUSD"))
    assert status_document(report)["stream"][0]["state"] == "away"
    assert status_document(report)["asset"]["is_streamed"] is False


def test_forecast_leaves_out_the_quotes_of_what_is_streamed(connection: Connection, tmp_path: Path) -> None:
    config = configured(tmp_path, "bars: {enabled: false}\n")
    catalogue.sync_with_config(connection, config.assets)
    connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at, succeeded_at)"
        " select symbol, now() - interval '1 day', now() - interval '1 day' from assetbatch.assets"
    )
    everything = forecast.foresee(config, connection)
    tell(connection, *(Report(name, "live", is_alive=True) for name in ("forex", "crypto")))
    connection.ask(streams.keep_fresh("crypto", ["BTCUSD", "ETHUSDT"]))
    partly = forecast.foresee(config, connection)
    connection.ask(streams.keep_fresh("forex", [one.symbol for one in config.assets if one.asset_type == "forex"]))
    nothing = forecast.foresee(config, connection)

    def assets(found: forecast.Forecast) -> int:
        return sum(one.assets for one in found.calls)

    assert (everything.streamed, partly.streamed, nothing.streamed) == (0, 2, 7)
    assert assets(partly) < assets(everything)
    assert (nothing.total, assets(nothing)) == (0, 0)
