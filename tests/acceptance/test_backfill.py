"""The past fetched on request, what it costs told beforehand, and what a key may see, asked on purpose."""

from __future__ import annotations

import json
import re
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, wait_until
from tests.terminal import run_at_terminal

if TYPE_CHECKING:
    from assetbatch.database.connection import Connection
    from tests.conftest import Commands

FIRST_DAYS = ("--symbol", "BTCUSD", "--since", "2026-01-01", "--until", "2026-01-03")
# A short window, so that nothing waits long; no bars but those that are asked for.
KEYS = "rate_limiting: {window_seconds: 0.5, margin_seconds: 0}\nbars: {enabled: false}\n"


@pytest.fixture(autouse=True)
def configured(commands: Commands) -> None:
    (commands.folder / "config.yaml").write_text(KEYS)
    assert commands("init").returncode == 0


def test_a_backfill_foretells_its_calls_and_asks_for_nothing_twice(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    first = commands("backfill", *FIRST_DAYS)
    again = commands("backfill", *FIRST_DAYS)
    quiet = commands("-q", "backfill", *FIRST_DAYS)
    longer = commands(
        "backfill", "--symbol", "BTCUSD", "--since", "2025-12-31T00:00Z", "--until", "2026-01-03", "--json"
    )

    assert (first.returncode, first.stdout) == (0, "")
    assert "1 call for the bars of BTCUSD: about 1 minute under the limit" in first.stderr
    assert "no call to make" in again.stderr
    assert quiet.stderr == ""
    document = json.loads(longer.stdout)
    assert (document["calls_foreseen"], document["api_calls_used"]) == (1, 1)
    assert document["bars"] == {"assets": 1, "stored": 288}
    assert len(sandbox.arrivals) == 2
    rows = connection.execute("select count(*) as bars, bool_and(is_final) as final from market_data.ohlcv_5m")
    assert rows.fetchone() == {"bars": 3 * 288, "final": True}


def test_at_a_terminal_a_backfill_tells_whose_bars_come_how_many_are_there_and_what_is_left(
    commands: Commands, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text(
        "rate_limiting: {calls_per_minute: 1, window_seconds: 17, margin_seconds: 0}\nbars: {enabled: false}\n"
    )
    environment = commands.environment | {"POLYGON_RATE_LIMIT": "1", "XDG_STATE_HOME": str(commands.folder)}
    days = ("--symbol", "BTCUSD", "--symbol", "EURUSD", "--since", "2026-01-05", "--until", "2026-01-07")

    done, seen = run_at_terminal(
        [sys.executable, "-m", "assetbatch", "backfill", *days], environment=environment, folder=commands.folder
    )

    assert (done.returncode, len(sandbox.arrivals)) == (0, 2), seen
    # The whole time, though it looks again every 15 s; and then what is left of it.
    assert re.search(r"waiting 1[67] s for a call", seen)
    assert seen.find("waiting 16 s") < seen.find("waiting 12 s") < seen.find("waiting 3 s")
    assert re.search(r"BTCUSD: 576 bars stored, 1 call left, 1\d s or more", seen)


def test_what_is_asked_for_again_and_has_changed_is_printed(commands: Commands, connection: Connection) -> None:
    commands("backfill", *FIRST_DAYS)
    connection.execute("update market_data.ohlcv_5m set close = close + 1 where ts = '2026-01-02T03:05Z'")

    changed = commands("backfill", *FIRST_DAYS, "--refetch")
    unchanged = commands("backfill", *FIRST_DAYS, "--refetch", "--json")

    (line,) = changed.stdout.splitlines()
    assert line.startswith("BTCUSD 2026-01-02 03:05 UTC: close ")
    document = json.loads(unchanged.stdout)
    assert (document["api_calls_used"], document["changed"], document["bars"]["stored"]) == (1, [], 0)


def test_a_ticker_that_has_1_minute_bars_only_is_built_of_them(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["minutes-only:BTCUSD"]

    document = json.loads(commands("backfill", *FIRST_DAYS, "--json").stdout)

    assert (document["api_calls_used"], document["bars"]) == (2, {"assets": 1, "stored": 576})


def test_what_the_vendor_did_not_have_is_told_and_is_not_said_to_be_all_there_is(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    sandbox.fail = ["drop:BTCUSD"]
    first = commands("backfill", *FIRST_DAYS)
    within_the_hour = commands("backfill", *FIRST_DAYS)
    calls = len(sandbox.arrivals)
    sandbox.fail = []
    connection.execute("update assetbatch.bar_silences set told_at = told_at - interval '1 hour'")
    again = commands("backfill", *FIRST_DAYS, "--json")

    assert (first.returncode, within_the_hour.returncode, calls) == (0, 0, 2)
    words = "576 bars of BTCUSD between 2026-01-01 00:00 UTC and 2026-01-03 00:00 UTC were not there when"
    assert words in " ".join(first.stderr.split())
    assert "no call to make now: 576 bars that the vendor did not have may be asked for again" in within_the_hour.stderr
    assert "nothing is missing" not in within_the_hour.stderr
    document = json.loads(again.stdout)
    assert (document["api_calls_used"], document["bars"], again.stderr) == (1, {"assets": 1, "stored": 576}, "")


def test_a_page_that_fails_for_good_is_told_and_the_next_run_goes_on(commands: Commands, sandbox: Sandbox) -> None:
    sandbox.fail = ["404:EURUSD"]
    days = ("--since", "2026-01-05", "--until", "2026-01-06", "--symbol", "EURUSD", "--symbol", "BTCUSD")
    failed = commands("backfill", *days, "--json")
    sandbox.fail = []
    mended = commands("backfill", *days, "--json")

    document = json.loads(failed.stdout)
    assert (failed.returncode, document["status"], document["updated"]) == (3, "partial", ["BTCUSD"])
    assert [one["symbol"] for one in document["failed"]] == ["EURUSD"]
    assert (mended.returncode, json.loads(mended.stdout)["updated"]) == (0, ["EURUSD"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "yesterday"), "is no day or time"),
        (("--since", "2026-01-02", "--until", "2026-01-01"), "is not before"),
        (("--symbol", "NOSUCH"), "not in the catalogue: NOSUCH"),
        (("--wait", "-1"), "--wait"),
        (("--wait", "inf"), "--wait"),
        (("--wait", "nan"), "--wait"),
    ],
)
def test_wrong_usage_makes_no_call(
    commands: Commands, sandbox: Sandbox, arguments: tuple[str, ...], words: str
) -> None:
    done = commands("backfill", *arguments)

    assert (done.returncode, words in done.stderr) == (2, True)
    assert not sandbox.arrivals


def test_forecast_foretells_22_calls_for_two_years_of_bitcoin_and_makes_none(
    commands: Commands, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text("bars: {enabled: true, backfill_days: 731}\n")

    document = json.loads(commands("forecast", "--json").stdout)
    shown = commands("forecast").stdout

    assert {"symbol": "BTCUSD", "calls": 22}.items() <= document["bars"][2].items()
    assert {one["kind"] for one in document["calls"]} == {"snapshot", "bars"}
    assert document["total_calls"] == sum(one["calls"] for one in document["calls"])
    assert document["now"] < document["fresh_at"] < document["complete_at"]
    assert "Bars that take several calls" in shown
    assert not sandbox.arrivals


def test_after_everything_is_there_nothing_is_foreseen_but_when_newer_prices_can_exist(commands: Commands) -> None:
    with Sandbox(key=API_KEY, plan="free") as free:
        commands.environment |= {"POLYGON_BASE_URL": free.url, "POLYGON_TIER": "free"}
        before = json.loads(commands("forecast", "--json").stdout)
        assert commands("run-priority").returncode == 0
        after = json.loads(commands("forecast", "--json").stdout)

    assert [(one["job"], one["kind"], one["calls"]) for one in before["calls"]] == [
        ("run-priority", "grouped_daily", 2)
    ]
    assert (after["mode"], after["newer_data_at"] > after["now"]) == ("end_of_day", True)
    # The next run may begin just when a new day can be had.
    assert [one for one in after["calls"] if one["at"] < after["newer_data_at"]] == []
    assert after["total_calls"] == sum(one["calls"] for one in after["calls"])


def test_probe_says_its_cost_and_what_the_key_sees_and_remembers_it(commands: Commands, connection: Connection) -> None:
    with Sandbox(key=API_KEY, plan="free") as free:
        shown = commands("probe", POLYGON_BASE_URL=free.url)
        document = json.loads(commands("probe", "--json", POLYGON_BASE_URL=free.url).stdout)
        assert len(free.arrivals) == 10

    assert shown.stderr.startswith("this takes 5 calls; the budget is 5 in 0.5 s")
    assert "the key is refused live prices of forex and crypto: lapsed payment?" in shown.stdout
    assert document["verdict"].startswith("plan says starter")
    assert document["markets"] == [
        {"market": name, "quotes": False, "todays_bars": False, "history": "2 years at most", "recency": "end of day"}
        for name in ("forex", "crypto")
    ]
    rows = connection.execute("select access, allowed from assetbatch.entitlements order by access").fetchall()
    assert rows == [{"access": "bars", "allowed": True}, {"access": "snapshots", "allowed": False}]


def test_probe_brings_live_prices_back_at_once(commands: Commands, sandbox: Sandbox) -> None:
    with Sandbox(key=API_KEY, plan="free") as free:
        assert commands("run-priority", POLYGON_BASE_URL=free.url).returncode == 0
    check = commands("status", "--check")
    still = json.loads(commands("run-priority", "--json").stdout)
    probed = json.loads(commands("probe", "--json").stdout)
    live = json.loads(commands("run-priority", "--json").stdout)

    assert (check.returncode, "the key is refused snapshots: prices are of" in check.stdout) == (2, True)
    assert (still["unchanged"], still["api_calls_used"]) == (["XAUUSD", "EURUSD", "BTCUSD"], 0)
    assert {market["recency"] for market in probed["markets"]} == {"live"}
    assert "BTCUSD" in live["updated"] + live["not_due"]
    assert "/v3/snapshot" in sandbox.arrivals[0].path
    assert commands("status", "--check").returncode == 0


def test_probe_after_paying_brings_bars_and_dead_letters_back_at_once(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text(
        "rate_limiting: {calls_per_minute: 100, window_seconds: 0.05, margin_seconds: 0}\n"
        "bars: {enabled: true, backfill_days: 2}\n"
    )
    commands.environment["POLYGON_RATE_LIMIT"] = ""
    long_ago = datetime.now(UTC).date() - timedelta(days=2 * 365 + 30)
    days = ("--symbol", "BTCUSD", "--since", str(long_ago), "--until", str(long_ago + timedelta(days=2)))
    sandbox.plan = "free"
    assert commands("drain-queue").returncode == 0
    assert commands("backfill", *days).returncode == 0
    assert commands("enqueue-secondary", "--all").returncode == 0
    connection.execute(
        "update assetbatch.queue set state = 'dead', died_at = now(), died_on_plan = 'starter', error_kind ="
        " case when symbol = 'ETHUSDT' then 'not_entitled' else 'unknown_ticker' end, died_with_key = 'the same'"
    )
    put_off = "select symbol from assetbatch.bar_state where retry_at > now()"
    assert connection.execute(put_off).rowcount > 0
    assert "no call to make" in commands("backfill", *days).stderr

    sandbox.plan = "starter"
    assert commands("probe").returncode == 0

    assert connection.execute(put_off).rowcount == 0
    assert connection.execute("select from assetbatch.queue where state = 'dead'").rowcount == 3
    drained = json.loads(commands("drain-queue", "--json").stdout)
    assert (drained["updated"], drained["remaining"]) == (["ETHUSDT"], 0)
    assert drained["bars"]["assets"] == 7
    # Of the past, too: it is wanted since somebody asked for it.
    stored = connection.execute("select from market_data.ohlcv_5m where ts < %s", [long_ago + timedelta(days=2)])
    assert stored.rowcount == 576


def test_probe_that_is_refused_as_before_leaves_what_rests(
    commands: Commands, connection: Connection, sandbox: Sandbox
) -> None:
    (commands.folder / "config.yaml").write_text(
        "rate_limiting: {calls_per_minute: 100, window_seconds: 0.05, margin_seconds: 0}\nbars: {enabled: true}\n"
    )
    commands.environment["POLYGON_RATE_LIMIT"] = ""
    sandbox.plan = "free"
    assert commands("drain-queue").returncode == 0
    put_off = "select symbol from assetbatch.bar_state where retry_at > now() order by 1"
    before = connection.execute(put_off).fetchall()

    assert commands("probe").returncode == 0

    assert before
    assert connection.execute(put_off).fetchall() == before


def test_probe_on_a_wrong_key_ends_with_77(commands: Commands) -> None:
    done = commands("probe", POLYGON_API_KEY="wrong-key-of-mine")

    assert (done.returncode, "check POLYGON_API_KEY" in done.stderr) == (77, True)


@pytest.mark.parametrize("command", [("backfill", *FIRST_DAYS), ("probe",)])
def test_a_call_that_a_signal_cut_short_blames_nobody(
    commands: Commands, connection: Connection, sandbox: Sandbox, command: tuple[str, ...]
) -> None:
    sandbox.fail = ["timeout"]
    run = commands.start(*command)
    wait_until(lambda: sandbox.arrivals)

    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=10)

    assert run.returncode == 130, stderr
    rows = connection.execute("select failures, retry_at, token from assetbatch.bar_state where failures > 0")
    assert rows.fetchall() == []
