from __future__ import annotations

import json
import platform
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import typer

from assetbatch import __version__
from assetbatch import config as configuration
from assetbatch.cli.options import duration
from assetbatch.report import reading
from assetbatch.report.documents import status_document
from assetbatch.report.reading import Wanted
from tests.world import add_assets

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from assetbatch.report.status import Status
    from assetbatch.sandbox.server import Sandbox
    from tests.conftest import Commands

FIELDS = {
    "schema", "status", "jobs", "queue", "last_priority_update", "api_calls_remaining", "assets", "asset_states",
    "metrics", "alerts", "events", "budget", "bars", "prices",
}  # fmt: skip
METRICS = {
    "batch.priority.success_rate", "batch.priority.latency_ms", "queue.size", "api.rate_limit_waits", "api.calls",
    "api.budget_used_ratio", "assets.stale", "events.pending",
}  # fmt: skip
# What importing psycopg and typer costs is most of it; `requests`, `rich` and `redis` alone would go beyond.
MOST_MODULES = 453


def told(commands: Commands, connection: Connection, wanted: Wanted | None = None) -> Status:
    """What `status` would tell, without another process."""
    config = configuration.load(file=None, environ=commands.environment, cwd=commands.folder)
    return reading.read(config, connection, wanted)


def add_secondary(connection: Connection, number: int) -> None:
    """Add secondary assets S1 to Sn to the catalogue that were updated just now."""
    connection.execute(
        "insert into assetbatch.assets"
        " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
        " select 'S' || n, 'X:S' || n || 'USD', 'crypto', 'secondary', 3, 1800, 'symbols'"
        " from generate_series(1, %s) n",
        (number,),
    )
    connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at, succeeded_at)"
        " select symbol, clock_timestamp(), clock_timestamp() from assetbatch.assets where symbol ~ '^S[0-9]+$'"
    )


def make_well(connection: Connection) -> None:
    """Write down a priority run that has just gone well."""
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by, finished_at, status, exit_code)"
        " select 'run-priority', %s, %s, 'starter', at, at, at, 'ok', 0 from clock_timestamp() at",
        (platform.node(), __version__),
    )
    add_assets(connection, "C:XAUUSD", "C:EURUSD", "X:BTCUSD", role="priority", rank=1)
    connection.execute(
        "insert into assetbatch.sync_state (symbol, served_at, succeeded_at)"
        " select symbol, now(), now() from assetbatch.assets"
    )


def test_after_a_run_all_is_well_in_json_and_in_a_table_without_colour_in_a_pipe(commands: Commands) -> None:
    commands("run-priority")

    done = commands("status", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "assetbatch.status/1"
    assert set(document) >= FIELDS
    assert set(document["metrics"]) == METRICS
    assert (document["status"], document["alerts"]) == ("healthy", [])
    assert document["asset_states"] == {"fresh": 3, "never": 4}
    assert document["api_calls_remaining"] == 4
    assert document["queue"]["by_priority"] == {"CRITICAL": 0, "HIGH": 0, "MEDIUM": 0, "LOW": 0}
    assert [(job["id"], job["last_status"], job["day"]["runs"]) for job in document["jobs"]] == [
        ("run-priority", "ok", 1),
        ("drain-queue", None, 0),
        ("enqueue-secondary", None, 0),
    ]
    assert all(job["next_run"].endswith("Z") for job in document["jobs"])
    priority = document["assets"][:3]
    assert [asset["symbol"] for asset in priority] == ["XAUUSD", "EURUSD", "BTCUSD"]
    assert all(float(asset["last_price"]) > 0 and isinstance(asset["last_price"], str) for asset in priority)
    assert {(asset["role"], asset["state"]) for asset in document["assets"][3:]} == {("secondary", "never")}
    events = {"pending": 0, "oldest_age_seconds": None, "dropped": 0, "published_by": "postgres", "refused": None}
    assert document["events"] == events
    live = {"mode": "live", "day": None, "newer_data_at": None}
    assert document["prices"] == live | {"markets": {"crypto": live, "forex": live}}

    shown = commands("status").stdout

    assert "\x1b" not in shown
    assert shown.startswith("HEALTHY")
    assert all(word in shown for word in ("XAUUSD", "EURUSD", "BTCUSD", "3 fresh, 4 never", "1 of 5 used"))
    assert max(map(len, shown.splitlines())) <= 100


def test_check_is_ok_after_a_run(commands: Commands, connection: Connection) -> None:
    make_well(connection)

    done = commands("status", "--check")

    assert done.returncode == 0
    assert done.stdout.startswith("OK - healthy | 'queue_size'=0;500;;0;1000 'queue_dead'=0;;;0 ")


# label, value (or U), unit; then warning and critical, as ranges, least and most.
FIGURE = re.compile(r"'(\w+)'=(?:(-?[0-9.e+]+)(s|%)?|U)((?:;[0-9.]*:?){0,2}(?:;[0-9.]*){0,2})")
LABELS = [
    "queue_size", "queue_dead", "calls_remaining", "calls_last_hour", "refusals_last_hour", "waits_last_hour",
    "priority_success", "priority_latency", "oldest_priority_age", "assets_stale", "assets_failing", "assets_never",
    "bars_missing", "events_pending", "events_oldest_age",
]  # fmt: skip


@pytest.mark.parametrize("tier", ["starter", "free"])
@pytest.mark.parametrize("has_run", [True, False])
def test_check_has_the_same_figures_whatever_there_is_and_no_sign_of_theirs_in_its_words(
    commands: Commands, connection: Connection, tier: str, has_run: bool
) -> None:
    if has_run:
        commands("run-priority", POLYGON_TIER=tier)
    connection.execute(
        "insert into assetbatch.queue"
        " (symbol, state, priority, waiting_since, rank, enqueued_at, available_at, died_at, error_kind, error)"
        " select 'S' || n, 'dead', 3, t, t, t, t, t, 'invalid', 'a|b' || chr(10) || 'c' from now() t,"
        " generate_series(1, 2) n"
    )

    first, *others = commands("status", "--check", POLYGON_TIER=tier).stdout.splitlines()

    words, sign, figures = first.partition(" | ")
    assert sign
    assert "|" not in "".join([words, figures, *others])
    assert any("a/b c" in line for line in [words, *others])
    found = [FIGURE.fullmatch(figure) for figure in figures.split()]
    assert [figure and figure[1] for figure in found] == LABELS
    values = {figure[1]: figure[2] for figure in found if figure}
    assert values["queue_dead"] == "2"
    assert (values["oldest_priority_age"] is None, values["priority_success"]) == (
        not has_run, "100" if has_run else None,
    )  # fmt: skip


def test_check_has_no_sign_of_figures_where_nothing_can_be_read(commands: Commands) -> None:
    done = commands("status", "--check", DATABASE_URL="postgresql://a@127.0.0.1:9/a%7Cb")

    assert (done.returncode, "|" in done.stdout) == (2, False)


def test_check_is_critical_before_the_first_run(commands: Commands) -> None:
    done = commands("status", "--check")

    assert done.returncode == 2
    assert "run-priority has never run" in done.stdout


def test_check_tells_a_machine_whose_cron_stopped(commands: Commands, connection: Connection) -> None:
    make_well(connection)
    connection.execute(
        "update assetbatch.runs set (started_at, finished_at) = (select at, at from"
        " (select started_at - interval '11 minutes' as at) t)"
    )

    report = told(commands, connection)

    assert report.health.check_code == 2
    assert [(alert.metric, alert.hint) for alert in report.alerts] == [
        ("jobs.run-priority", f"is cron, or the timer, running on {platform.node()}, and has it this job?")
    ]


def test_check_tells_a_refused_key(commands: Commands) -> None:
    commands("run-priority", POLYGON_API_KEY="wrong")

    done = commands("status", "--check")

    assert done.returncode == 2
    assert "the API refused the key" in done.stdout


def test_check_is_critical_when_the_database_is_away_and_unknown_without_configuration(commands: Commands) -> None:
    away = commands("status", "--check", DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")
    unknown = commands("status", "--check", DATABASE_URL="")

    assert (away.returncode, away.stdout[:8]) == (2, "CRITICAL")
    assert (unknown.returncode, unknown.stdout[:7]) == (3, "UNKNOWN")
    assert "()" not in unknown.stdout


@pytest.mark.parametrize(
    ("harm", "url"),
    [
        ("alter table assetbatch.sync_state rename column error to fault", None),
        ("delete from assetbatch.migrations where version > 5", None),
        ("update assetbatch.meta set value = '9.9' where key = 'oldest_program'", None),
        ("drop schema assetbatch cascade", None),
        ("select 1", "postgresql://nobody@127.0.0.1:9/nothing"),
    ],
)
def test_what_cannot_be_read_is_critical_whoever_tells_of_it(
    commands: Commands, connection: Connection, harm: str, url: str | None
) -> None:
    make_well(connection)
    connection.execute(harm.encode())
    commands.environment |= {"DATABASE_URL": url} if url else {}
    file = commands.folder / "all.prom"

    check, as_json = commands("status", "--check"), commands("status", "--check", "--json")
    doctor = commands("doctor", "--json")
    metrics = commands("metrics", "--output", str(file))

    assert (check.returncode, check.stdout[:8]) == (2, "CRITICAL")
    assert (as_json.returncode, json.loads(as_json.stdout)["status"]) == (2, "unhealthy")
    assert (doctor.returncode, json.loads(doctor.stdout)["status"]) == (3, "fail")
    assert metrics.returncode in {1, 69, 78}
    # Without their labels.
    told = {re.sub(r"\{.*\}", "", line) for line in file.read_text().splitlines()}
    assert {"assetbatch_up 0.0", "assetbatch_health 2.0"} <= told
    assert ("this is a bug" in check.stderr) is ("fault" in harm)


def test_a_run_that_was_killed_counts_as_failed(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by)"
        " select 'run-priority', 'h', '0', 'starter', clock_timestamp() - interval '6 minutes' * n, clock_timestamp()"
        " from generate_series(1, 2) n"
    )

    report = told(commands, connection)

    assert report.jobs[0].day["failed"] == 2
    assert report.jobs[0].last_status == "failed"
    assert "assets.never" in [alert.metric for alert in report.alerts]


def test_a_narrow_terminal_keeps_name_price_and_state(commands: Commands, connection: Connection) -> None:
    make_well(connection)

    shown = commands("status", COLUMNS="50", TTY_COMPATIBLE="1", NO_COLOR="1").stdout

    assert "EURUSD" in shown
    assert shown.count("fresh") == 4  # three assets, and how many they are
    assert "of which open" not in shown
    assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 50


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("tier", ["starter", "free"])
def test_no_word_or_number_of_the_tables_is_broken(commands: Commands, sandbox: Sandbox, width: int, tier: str) -> None:
    sandbox.plan = commands.environment["POLYGON_TIER"] = tier
    commands("run-priority")

    shown = commands("status", COLUMNS=str(width)).stdout

    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    # A table's row is one line: name, price (a whole one has no point), state; a job, how it went.
    state = "fresh" if tier == "starter" else "end_of_day"
    for symbol in ("EURUSD", "BTCUSD"):
        row = rf"\W+{symbol}\W+\d+(\.\d+)? \W.* {state} \W+"
        assert any(re.fullmatch(row, line) for line in lines), shown
    assert any("enqueue-secondary" in line and "never" in line for line in lines)
    assert "…" not in shown
    assert ("of day" in shown, "today" in shown, "of which open" in shown) == (
        tier == "free", False, tier == "starter" and width == 100,
    )  # fmt: skip


def test_a_locked_table_ends_status_in_bounded_time(commands: Commands, connection: Connection) -> None:
    with connection.transaction():
        connection.execute("lock table trading.symbols in access exclusive mode")
        done = commands("status", "--check", timeout=30)

    assert (done.returncode, done.stdout[:8]) == (2, "CRITICAL")


def test_a_refusal_degrades(commands: Commands, connection: Connection) -> None:
    make_well(connection)
    connection.execute(
        "insert into assetbatch.api_calls (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets)"
        " values (1, 'snapshot', 'rate_limited', 429, true, 1, 1, 1)"
    )

    done = commands("status", "--check")

    assert done.returncode == 1
    assert "refused 1 call" in done.stdout


def test_status_starts_with_few_modules(commands: Commands) -> None:
    probe = (
        "import atexit, sys; atexit.register(lambda: print(len(sys.modules), file=sys.stderr));"
        " sys.argv[1:] = ['status', '--json']; from assetbatch.cli import main; main()"
    )
    counted = commands.python("-c", probe)

    assert counted.returncode == 0
    assert int(counted.stderr) <= MOST_MODULES


def test_the_queue_is_told_by_state_and_priority(commands: Commands, connection: Connection) -> None:
    make_well(connection)
    (commands.folder / "config.yaml").write_text(
        "batch:\n  secondary_assets:\n"
        "    - {symbol: ETHUSDT, polygon_ticker: 'X:ETHUSDT', asset_type: crypto, priority: HIGH}\n"
        "    - {symbol: SOLUSD, polygon_ticker: 'X:SOLUSD', asset_type: crypto}\n"
        "    - {symbol: NONE, polygon_ticker: 'X:NONEUSD', asset_type: crypto, priority: CRITICAL}\n"
    )
    assert commands("enqueue-secondary").returncode == 0
    queued = told(commands, connection).queue
    assert commands("drain-queue", "--max-items", "1").returncode == 3

    document = json.loads(commands("status", "--json").stdout)

    assert (queued.total_items, queued.dead) == (3, 0)
    assert queued.by_priority == {"CRITICAL": 1, "HIGH": 1, "MEDIUM": 1, "LOW": 0}
    assert set(queued.oldest_age_seconds_by_priority) == {"CRITICAL", "HIGH", "MEDIUM"}
    assert queued.oldest_item_age_seconds == max(queued.oldest_age_seconds_by_priority.values()) >= 0
    assert (document["queue"]["total_items"], document["queue"]["dead"]) == (2, 1)
    assert document["metrics"]["queue.size"] == 2
    assert [alert["metric"] for alert in document["alerts"]] == ["assets.unknown", "queue.dead"]
    assert document["alerts"][1]["message"].startswith("1 dead letter, the last one within a day: NONE; ")
    assert document["alerts"][1]["hint"].endswith("`assetbatch queue retry NONE` once it is fixed")


def test_the_worst_of_many_assets_are_told_and_all_when_asked(commands: Commands, connection: Connection) -> None:
    add_secondary(connection, 60)
    connection.execute("update assetbatch.sync_state set error_kind = 'invalid', error = 'zero' where symbol = 'S50'")
    connection.execute("update assetbatch.sync_state set succeeded_at = now() - interval '2 hours' where symbol = 'S9'")
    connection.execute("delete from assetbatch.sync_state where symbol in ('S20', 'S7')")

    worst = told(commands, connection)
    everything = told(commands, connection, Wanted(all_assets=True))

    assert len(worst.others) == 20
    assert [(one.asset.symbol, one.state.value) for one in worst.others[:4]] == [
        ("S50", "failing"),
        ("S9", "stale"),
        ("S20", "never"),
        ("S7", "never"),
    ]
    assert worst.asset_states == everything.asset_states == {"never": 2, "failing": 1, "stale": 1, "fresh": 56}
    assert worst.metrics["assets.stale"] == 1
    assert len(everything.others) == 60
    # People are shown those that somebody should look at, programs as many as the document says.
    shown = commands("status").stdout
    assert [f"S{number} " in shown for number in (50, 9, 20, 7, 1)] == [True, True, True, True, False]
    assert len(json.loads(commands("status", "--json").stdout)["assets"]) == 23


def test_runs_that_were_not_well_are_listed_since_when_it_was_asked(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs"
        " (job, host, version, plan, started_at, ends_by, finished_at, status, exit_code, error)"
        " select 'drain-queue', host, '0', 'free', at, at, case when status <> 'running' then at end, status, code,"
        " error"
        " from (values ('a', 30, 'failed', 69, 'away'), ('b', 20, 'ok', 0, null), ('c', 10, 'partial', 3, 'zero'),"
        " ('d', 5, 'running', null, null), ('e', 1, 'skipped', 0, null)) r (host, minutes, status, code, error),"
        " lateral (select clock_timestamp() - minutes * interval '1 minute' as at) t"
    )

    runs = told(commands, connection, Wanted(since=timedelta(minutes=90))).not_well
    shown = commands("status", "--since", "15m")

    assert [(run["host"], run["status"], run["exit_code"], run["error"]) for run in runs or ()] == [
        ("d", "killed", None, "it was killed"),
        ("c", "partial", 3, "zero"),
        ("a", "failed", 69, "away"),
    ]
    assert shown.returncode == 0
    assert "zero" in shown.stdout
    assert "away" not in shown.stdout


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("0m", timedelta(0)),
        ("yesterday", None),
        ("7", None),
        ("-1h", None),
        ("9999999h9", None),
        ("999999999d", None),
    ],
)
def test_lengths_of_time_are_read_as_people_write_them(text: str, length: timedelta | None) -> None:
    if length is None:
        with pytest.raises(typer.BadParameter, match="90s, 10m, 24h or 7d"):
            duration(text)
    else:
        assert duration(text) == length


ADD_BARS = """
insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume, is_final, fetched_at)
select id, ts, 1, 1, 1, 1, 1, true, now()
from trading.symbols, generate_series(%(since)s::timestamptz, %(until)s, interval '5 minutes') ts
where symbol = %(symbol)s
"""


def test_bars_are_told_as_the_table_has_them_up_to_where_they_ought_to_reach(
    commands: Commands, connection: Connection
) -> None:
    (commands.folder / "config.yaml").write_text("bars: {enabled: true}\n")
    connection.execute("insert into trading.symbols (symbol) values ('BTCUSD'), ('S1')")
    add_secondary(connection, 1)
    # The memory of a bar that no table has; what was asked for last; and two that fail, one of nobody's.
    connection.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, asked_until, watermark, error_kind)"
        " values ('BTCUSD', now() - interval '30 days', date_trunc('hour', now()), now(), null),"
        " ('S1', '2026-11-20 10:00Z', null, null, 'timeout'), ('GONE', '2026-11-20 10:00Z', null, null, 'timeout')"
    )
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    connection.execute(
        ADD_BARS,
        {"symbol": "BTCUSD", "since": hour - timedelta(days=8), "until": hour - timedelta(hours=30)},
    )

    told_of = told(commands, connection).bars

    assert told_of.newest == {"BTCUSD": hour - timedelta(hours=30)}
    assert told_of.holes == pytest.approx((now - hour) / timedelta(minutes=5) + 30 * 12, abs=5)
    assert told_of.oldest_hole == hour - timedelta(hours=30) + timedelta(minutes=5)
    assert told_of.failing == 1

    # The newest is months old: all of the last days is missing.
    connection.execute("update market_data.ohlcv_5m set ts = ts - interval '90 days'")
    assert told(commands, connection).bars.holes == pytest.approx(7 * 288, abs=5)
    # What is absent for a reason is not, but for what the table did not take.
    connection.execute(
        "insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at)"
        " select 'BTCUSD', reason, date_trunc('month', at),"
        " tstzmultirange(tstzrange(at, at + interval '1 hour')), now()"
        " from (values ('nothing', now() - interval '2 days'), ('failed', now() - interval '3 days'),"
        " ('refused', now() - interval '4 days')) as v (reason, at)"
    )
    assert told(commands, connection).bars.holes == pytest.approx(7 * 288 - 24, abs=6)
    # Where no more are asked for, none are missing.
    (commands.folder / "config.yaml").write_text("bars: {enabled: false}\n")
    assert told(commands, connection).bars.holes is None
    assert "no more are asked for" in commands("status").stdout


def test_jobs_are_told_in_their_order_after_many_runs(commands: Commands, connection: Connection) -> None:
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, started_at, ends_by, finished_at, status, exit_code)"
        " select job, 'h', '0', 'starter', at, at, at, 'ok', 0 from generate_series(1, 50) number,"
        " unnest(array['run-priority', 'enqueue-secondary', 'drain-queue']) job,"
        " lateral (select clock_timestamp() - (50 - number) * interval '1 minute' as at) t"
    )
    # With statistics PostgreSQL joins the runs in an order of its own.
    connection.execute("analyze assetbatch.runs")

    jobs = told(commands, connection).jobs

    assert [(job.id, job.day["runs"]) for job in jobs] == [
        ("run-priority", 50),
        ("drain-queue", 50),
        ("enqueue-secondary", 50),
    ]


def test_whole_numbers_among_the_prices_of_a_story_are_strings_as_the_others_are(
    commands: Commands, connection: Connection
) -> None:
    connection.execute(
        "insert into trading.symbols (symbol, metadata)"
        """ values ('BTCUSD', '{"last_update": {"last_price": 97000, "bid": 96999.50, "ask": null}}')"""
    )

    story = status_document(told(commands, connection, Wanted(asset="BTCUSD")))["asset"]["last_update"]

    assert json.loads(json.dumps(story, default=str)) == {"last_price": "97000", "bid": "96999.50", "ask": None}


def test_an_asset_has_a_story(commands: Commands, connection: Connection) -> None:
    commands("run-priority")
    connection.execute(
        "insert into assetbatch.queue"
        " (symbol, state, priority, waiting_since, rank, enqueued_at, available_at, attempts, error_kind, error)"
        " select 'EURUSD', 'delayed', 4, at, at, at, at + interval '29 minutes 45 seconds', 2, 'missing', 'left out'"
        " from clock_timestamp() at"
    )
    connection.execute(
        "insert into assetbatch.bar_state (symbol, wanted_since, watermark, error_kind, error)"
        " values ('EURUSD', '2026-11-01Z', '2026-11-23 00:00Z', 'timeout', 'too slow')"
    )
    newest = datetime(2026, 11, 20, 21, 55, tzinfo=UTC)
    connection.execute(ADD_BARS, {"symbol": "EURUSD", "since": newest, "until": newest})
    connection.execute(
        "insert into assetbatch.bar_absences (symbol, reason, month, ranges, noted_at)"
        " values ('EURUSD', 'closed', '2026-11-01', '{[2026-11-20 22:00Z,2026-11-20 23:00Z)}', now())"
    )
    connection.execute(
        "insert into assetbatch.api_calls"
        " (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets, symbol)"
        " values (1, 'bars', 'server_error', 503, true, 7, 1, 1, 'EURUSD'),"
        " (1, 'bars', 'ok', 200, true, 7, 1, 1, 'XAUUSD')"
    )

    story = json.loads(commands("status", "--asset", "EURUSD", "--json").stdout)["asset"]
    shown = " ".join(commands("status", "--asset", "EURUSD").stdout.split())

    assert (story["symbol"], story["state"], story["catalogue"]["polygon_ticker"]) == ("EURUSD", "fresh", "C:EURUSD")
    assert isinstance(story["last_update"]["bid"], str)
    assert (story["queue_item"]["state"], story["queue_item"]["attempts"]) == ("delayed", 2)
    assert (story["bars"]["stored"], story["bars"]["watermark"]) == (1, "2026-11-20T21:55:00Z")
    assert [(row["reason"], row["bars"]) for row in story["bars"]["absent"]] == [("closed", 12)]
    assert [(call["outcome"], call["http_status"]) for call in story["calls"]] == [("server_error", 503)]
    for words in (
        "EURUSD (C:EURUSD, forex, Euro/US Dollar): priority asset 2, every 5 min: fresh; from config",
        "delayed, LOW, enqueued",
        "2 attempts, again in 29 min; missing: left out",
        "1 stored, wanted since 2026-11-01 00:00 UTC, newest final 2026-11-20 21:55 UTC, failed: timeout: too slow",
        "No bar 12 while the market was closed",
        "server_error",
    ):
        assert words in shown, words
    nobody = commands("status", "--asset", "EURUSDD")
    assert (nobody.returncode, "no asset is called EURUSDD" in nobody.stderr) == (2, True)


@pytest.mark.parametrize(
    "terminal",
    [
        {"PYTHONIOENCODING": "ascii", "LANG": "C.UTF-8"},
        {"LANG": "C"},
        {"LC_ALL": "C"},
        {"LANG": "C.UTF-8", "TERM": "dumb"},
        {"LANG": "C.UTF-8", "COLUMNS": "60"},
    ],
    ids=str,
)
def test_every_terminal_can_read_it(commands: Commands, connection: Connection, terminal: dict[str, str]) -> None:
    add_secondary(connection, 1)
    connection.execute("update assetbatch.sync_state set error_kind = 'invalid', error = 'Größe 0 …'")
    connection.execute(
        "insert into assetbatch.runs (job, host, version, plan, status, finished_at, error)"
        " values ('run-priority', 'h', '0', 'free', 'failed', now(), 'Größe 0 …')"
    )
    commands.environment |= terminal

    done = commands("status")

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "BTCUSD" in done.stdout
    unicode = terminal.get("LANG") == "C.UTF-8" and "PYTHONIOENCODING" not in terminal
    assert ("│" in done.stdout) is unicode
    assert max(map(len, done.stdout.splitlines())) <= int(terminal.get("COLUMNS", 100))


def test_bars_that_the_table_refuses_are_mailed_once_and_told_until_it_takes_them(
    commands: Commands, connection: Connection
) -> None:
    (commands.folder / "config.yaml").write_text("bars: {enabled: true, backfill_days: 4}\n")
    commands.environment["POLYGON_RATE_LIMIT"] = "100"
    connection.execute("alter table market_data.ohlcv_5m add constraint sane check (close not between 2000 and 5000)")

    runs = [commands("run-priority") for _ in range(2)]

    words = 'refused by market_data.ohlcv_5m: new row for relation "ohlcv_5m" violates check constraint "sane"'
    assert [run.returncode for run in runs] == [0, 0]
    assert f"bars of XAUUSD were {words}" in runs[0].stderr
    assert runs[1].stderr == ""
    document = json.loads(commands("status", "--json").stdout)["bars"]
    assert [(one["symbol"], one["bars"] > 250) for one in document["refused"]] == [("XAUUSD", True)]
    assert document["holes"] > 250
    assert "XAUUSD" not in document["newest"]
    assert f"bars of XAUUSD were {words}" in " ".join(commands("status").stdout.split())

    connection.execute("alter table market_data.ohlcv_5m drop constraint sane")
    connection.execute("update assetbatch.bar_state set retry_at = null")
    mended = commands("run-priority")
    assert (mended.returncode, "ended" in mended.stderr, mended.stderr.count("\n")) == (0, True, 1)
    document = json.loads(commands("status", "--json").stdout)["bars"]
    assert (document["refused"], document["holes"], "XAUUSD" in document["newest"]) == ([], 0, True)


ADD_CLOSES = """
insert into market_data.ohlcv_5m (symbol_id, ts, open, high, low, close, volume, is_final, fetched_at)
select id, now() - make_interval(hours => h, mins => 30), 1, 9, 1, c, 1, true, now()
from trading.symbols, unnest(%(hours_ago)s::int[], %(closes)s::numeric[]) v (h, c) where symbol = %(symbol)s
"""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"COLUMNS": "120", "LANG": "C.UTF-8"}, "▁" + " " * 19 + "▃  █"),
        ({"COLUMNS": "80", "LANG": "C.UTF-8"}, "▁" + " " * 9 + "▃█"),
        ({"COLUMNS": "50", "LANG": "C.UTF-8"}, None),
        ({"COLUMNS": "120", "LC_ALL": "C"}, None),
    ],
    ids=str,
)
def test_the_last_day_of_a_priority_asset_is_drawn_with_its_gaps_where_there_is_room(
    commands: Commands, connection: Connection, words: dict[str, Any], line: str | None
) -> None:
    make_well(connection)
    prices = {"last_update": {"last_price": 97123.45, "daily_open": 96000, "timestamp": "2026-11-17T12:00:00Z"}}
    connection.execute(
        "insert into trading.symbols (symbol, metadata) select unnest(array['BTCUSD', 'EURUSD']), %s::jsonb",
        (json.dumps(prices),),
    )
    connection.execute(ADD_CLOSES, {"symbol": "BTCUSD", "hours_ago": [23, 3, 0, 24], "closes": [1, 3, 8, 99]})

    shown = commands("status", **words).stdout

    (btc,) = [one for one in shown.splitlines() if "BTCUSD" in one and "97123.45" in one]
    (euro,) = [one for one in shown.splitlines() if "EURUSD" in one and "97123.45" in one]
    assert max(map(len, shown.splitlines())) <= int(words["COLUMNS"])
    assert ("last 24 h" in next(one for one in shown.splitlines() if "symbol" in one)) == (line is not None)
    if line is not None:
        assert btc.rstrip(" │").endswith(line.rstrip())
        assert not {*"▁▂▃▄▅▆▇█"} & {*euro}


ADD_CALLS = """
insert into assetbatch.api_calls
  (run_id, kind, outcome, http_status, sent, latency_ms, waited_ms, assets, calls_in_window)
select 1, 'bars', outcome, 200, true, 1, 1, 1, calls
from (values ('ok', 3, 60), ('rate_limited', 5, 2), ('ok', null, 7)) v (outcome, calls, n), generate_series(1, n)
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            {"COLUMNS": "100", "LANG": "C.UTF-8"},
            r"█{5}×░{20,} last hour: █ 60 used, × 2 refused, ░ 238 free; 7 without limit",
        ),
        (
            {"COLUMNS": "100", "LC_ALL": "C"},
            r"#{5}x\.{20,} last hour: # 60 used, x 2 refused, \. 238 free; 7 without limit",
        ),
        ({"COLUMNS": "60"}, "69 in the last hour, 2 refused"),
    ],
    ids=str,
)
def test_the_calls_of_the_last_hour_are_a_bar_with_its_words_where_there_is_a_limit(
    commands: Commands, connection: Connection, words: dict[str, Any], told: str
) -> None:
    make_well(connection)
    connection.execute(ADD_CALLS)

    limited = " ".join(commands("status", POLYGON_RATE_LIMIT="5", **words).stdout.split())
    (commands.folder / "config.yaml").write_text("rate_limiting: {calls_per_minute: null}\n")
    del commands.environment["POLYGON_RATE_LIMIT"]
    unlimited = " ".join(commands("status", **words).stdout.split())

    assert re.search(told, limited), limited
    assert "Calls unlimited; 69 in the last hour, 2 refused" in unlimited
