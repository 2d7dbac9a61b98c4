"""Markets that rest, on a plan with live prices: what is asked of them, in simulated weeks, and what status says."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from urllib.request import Request, urlopen
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from assetbatch.database import entitlements
from assetbatch.report import reading
from assetbatch.report.health import Health, Level
from assetbatch.report.status import Status
from tests.conftest import API_KEY
from tests.integration.test_end_of_day import World
from tests.world import ALL, HOUR, MINUTE, NO_ASSETS, NO_SECONDARY, QUICK, UNLIMITED, judged, overview

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import AssetType
    from assetbatch.sandbox.server import Sandbox

NEW_YORK = ZoneInfo("America/New_York")
TICKERS = {"C:XAUUSD": "XAUUSD", "C:EURUSD": "EURUSD", "X:BTCUSD": "BTCUSD"}
STATUS = "/v1/marketstatus/now"
# The Friday before Easter 2026: forex rests, and its hours say nothing of it.
GOOD_FRIDAY = datetime(2026, 4, 3, 12, tzinfo=UTC)


def is_open(symbol: str, now: datetime) -> bool:
    """Tell by the clock on a wall in New York whether an asset trades."""
    if symbol == "BTCUSD":
        return True
    local = now.astimezone(NEW_YORK)
    if symbol == "XAUUSD" and local.hour == 17:
        return False
    # What begins in the evening belongs to the next day.
    day = local.date() + timedelta(days=local.hour >= 17)
    return day.isoweekday() <= 5 and (day.month, day.day) not in {(12, 25), (1, 1)}


@pytest.fixture
def live(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    """A world with live prices and without a limit."""
    world = World(connection, database, sandbox, tmp_path)
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "starter"
    return world


def tickers(paths: list[str]) -> list[str]:
    """Tell for which assets quotes were asked."""
    found = re.findall("|".join(TICKERS), unquote(" ".join(path for path in paths if "/snapshot" in path)))
    return [TICKERS[ticker] for ticker in found]


def closed_markets(world: World) -> frozenset[AssetType]:
    """Tell which markets the vendor said are closed."""
    return world.connection.answer(entitlements.Remembered(key="", plans={}, now=world.now).closed)


def told(world: World) -> Status:
    """Tell what `status` says at the simulated time, of assets: the rest of it is quiet."""
    closed = closed_markets(world)
    seen = replace(overview(world.now, job={"last_run": world.now}), closed=closed)
    config = world.configure(rate_limiting=UNLIMITED, batch=NO_SECONDARY)
    return reading.build(config, seen, judged(world.connection, config, seen), source="sandbox")


def starts(first: datetime, *, days: int) -> list[datetime]:
    """Tell when runs start: every 4 hours, and every 5 minutes where forex or gold closes or opens."""
    found = []
    for number in range(days * 288):
        start = first + number * 5 * MINUTE
        forex = {is_open("EURUSD", start + offset * MINUTE) for offset in range(-10, 20, 5)}
        gold = {is_open("XAUUSD", start + offset * MINUTE) for offset in (-5, 0)}
        if number % 48 == 0 or len(forex) == 2 or len(gold) == 2:
            # Cron starts a moment late.
            found.append(start + timedelta(seconds=2))
    return found


@pytest.mark.parametrize(
    ("first", "days"),
    [
        (datetime(2026, 3, 6, 12, tzinfo=UTC), 8),
        (datetime(2026, 10, 30, 12, tzinfo=UTC), 8),
        (datetime(2026, 12, 23, 12, tzinfo=UTC), 14),
    ],
    ids=["march", "november", "holidays"],
)
def test_a_closed_market_is_asked_once_more_and_nothing_looks_stale(live: World, first: datetime, days: int) -> None:
    live.now = first - HOUR
    live.prioritise(rate_limiting=UNLIMITED, batch=NO_SECONDARY)
    live.asked()
    served_open = dict.fromkeys(ALL, True)
    asked_closed = dict.fromkeys(ALL, 0)

    for start in starts(first, days=days):
        live.now = start
        before = told(live)
        result = live.prioritise(rate_limiting=UNLIMITED, batch=NO_SECONDARY)

        expected = [symbol for symbol in ALL if is_open(symbol, start) or served_open[symbol]]
        assert tickers(live.asked()) == expected, start
        assert (result.updated, result.exit_code) == (tuple(expected), 0)
        assert result.unchanged == tuple(symbol for symbol in ALL if symbol not in expected)
        for symbol, one in zip(ALL, before.assets, strict=True):
            if not (is_open(symbol, start) or served_open[symbol]):
                assert one.state in {"fresh", "closed"}, (symbol, start)
            asked_closed[symbol] += symbol in expected and not is_open(symbol, start)
            served_open[symbol] = is_open(symbol, start)
        after = told(live)
        assert after.alerts == (), start
        assert {one.state for one in after.assets} <= {"fresh", "closed"}
        assert after.assets[2].state == "fresh"

    assert asked_closed["BTCUSD"] == 0
    assert asked_closed["EURUSD"] >= 2
    assert asked_closed["XAUUSD"] > asked_closed["EURUSD"]


def test_a_market_that_rests_is_asked_nothing_by_a_drain_either(live: World) -> None:
    live.add("C:GBPUSD", "X:SOLUSD")
    live.now = datetime(2026, 11, 20, 22, 5, tzinfo=UTC)
    live.enqueue(batch=NO_ASSETS)
    assert set(live.drain(batch=NO_ASSETS, rate_limiting=UNLIMITED).updated) == {"GBPUSD", "SOLUSD"}
    live.asked()

    for _ in range(4):
        live.now += 12 * HOUR
        # On Saturday and Sunday morning forex is not even due.
        live.enqueue(batch=NO_ASSETS)
        live.drain(batch=NO_ASSETS, rate_limiting=UNLIMITED)
        (path,) = live.asked()
        rests = not is_open("EURUSD", live.now)
        assert ("GBPUSD" in path, "SOLUSD" in path) == (not rests, True)


# Holidays that the hours do not know.


def test_a_market_that_the_vendor_says_is_closed_is_left_alone_for_an_hour(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.prioritise(rate_limiting=UNLIMITED)
    live.asked()
    live.sandbox.fail = ["holiday", "zero:C:"]
    live.now += 5 * MINUTE

    first = live.prioritise(rate_limiting=UNLIMITED)

    assert (first.updated, first.unchanged, first.failed, first.exit_code) == (
        ("BTCUSD",),
        ("XAUUSD", "EURUSD"),
        (),
        0,
    )
    assert live.asked()[1:] == [STATUS]
    for _ in range(11):
        live.now += 5 * MINUTE
        again = live.prioritise(rate_limiting=UNLIMITED)
        assert (again.updated, again.unchanged, again.exit_code) == (("BTCUSD",), ("XAUUSD", "EURUSD"), 0)
        assert tickers(live.asked()) == ["BTCUSD"]
        report = told(live)
        assert [one.state for one in report.assets] == ["closed", "closed", "fresh"]
        assert report.alerts == ()

    live.now += 6 * MINUTE
    assert live.prioritise(rate_limiting=UNLIMITED).exit_code == 0
    asked = live.asked()
    assert (tickers(asked), asked[-1]) == (list(ALL), STATUS)

    live.sandbox.fail = []
    live.now += 61 * MINUTE
    back = live.prioritise(rate_limiting=UNLIMITED)
    assert (back.updated, back.failed) == (ALL, ())
    assert STATUS not in live.asked()


def test_a_market_that_is_closed_is_left_alone_by_a_drain_too(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["holiday", "zero:C:"]
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": NO_SECONDARY}
    live.prioritise(**keys)
    live.add("C:GBPUSD", "X:SOLUSD")
    live.now += 5 * MINUTE
    live.enqueue(**keys)
    live.asked()

    result = live.drain(**keys)

    assert (result.exit_code, result.updated, result.failed) == (0, ("SOLUSD",), ())
    assert "GBPUSD" in result.unchanged
    assert all("GBPUSD" not in path for path in live.asked())
    assert live.queued() == {}


@pytest.mark.parametrize("fault", ["zero:C:", "drop:C:"])
def test_a_market_without_a_price_that_is_open_fails_and_its_status_is_asked_for_hourly(
    live: World, fault: str
) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = [fault]
    statuses = 0

    for _ in range(25):
        result = live.prioritise(rate_limiting=UNLIMITED)
        assert (result.updated, result.exit_code) == (("BTCUSD",), 3)
        assert {failure.symbol for failure in result.failed} == {"XAUUSD", "EURUSD"}
        statuses += live.asked().count(STATUS)
        live.now += 5 * MINUTE + timedelta(seconds=1)

    assert statuses == 3


def test_a_market_status_that_cannot_be_had_is_asked_for_hourly_too(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["zero:C:", "404:marketstatus"]
    statuses = 0

    for _ in range(6):
        assert live.prioritise(rate_limiting=UNLIMITED).exit_code == 3
        statuses += live.asked().count(STATUS)
        live.now += 5 * MINUTE

    assert statuses == 1


def test_one_asset_without_a_price_says_nothing_about_its_market(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["holiday", "zero:C:EURUSD"]

    result = live.prioritise(rate_limiting=UNLIMITED)

    assert [failure.symbol for failure in result.failed] == ["EURUSD"]
    assert STATUS not in live.asked()
    assert closed_markets(live) == frozenset()


def test_under_a_limit_a_status_is_asked_for_only_where_a_call_is_left(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["holiday", "zero:C:"]
    limits = "{window_seconds: 0.02, margin_seconds: 0, calls_per_minute: 5}"

    without = live.prioritise(rate_limiting=limits, provider="{batch_size: 1}")

    assert (len(live.asked()), without.exit_code) == (3, 3)
    live.now += 5 * MINUTE
    with_one = live.prioritise(rate_limiting=limits)
    assert (with_one.unchanged, with_one.exit_code) == (("XAUUSD", "EURUSD"), 0)
    assert live.asked()[1:] == [STATUS]


def test_with_finished_days_no_status_is_asked_for(live: World) -> None:
    live.sandbox.fail = ["zero:C:"]

    assert live.prioritise(provider="{mode: end_of_day}").exit_code == 3

    assert STATUS not in live.asked()


def test_a_holiday_of_the_sandbox_is_of_forex_alone(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["holiday"]

    def ask(path: str) -> dict[str, Any]:
        request = Request(live.sandbox.url + path, headers={"Authorization": f"Bearer {API_KEY}"})
        with urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    assert ask(STATUS)["currencies"] == {"fx": "closed", "crypto": "open"}
    assert "results" not in ask("/v2/aggs/grouped/locale/global/market/fx/2026-04-02")
    assert ask("/v2/aggs/grouped/locale/global/market/crypto/2026-04-02")["resultsCount"] > 1
    assert "results" not in ask("/v2/aggs/ticker/C:EURUSD/prev")
    assert "results" not in ask("/v2/aggs/ticker/C:EURUSD/range/5/minute/2026-04-02/2026-04-02")
    assert ask("/v2/aggs/ticker/X:BTCUSD/range/5/minute/2026-04-02/2026-04-02")["resultsCount"] == 288


# Markets that rest by their hours, and whose snapshots the vendor has reset.


SATURDAY = datetime(2026, 11, 21, 5, 5, 2, tzinfo=UTC)
RESETS = {
    "zero": ["zero:C:"],
    "no prices": ["missing:C:"],
    "left out": ["drop:C:"],
    "404": ["404:C:"],
    "404 in plain text": ["404-text:C:"],
}
SIZES = ["{batch_size: 250}", "{batch_size: 1}"]


def states(world: World) -> dict[str, tuple[str, bool]]:
    """Tell of all assets how they stand, and whether that is ill."""
    config = world.configure(rate_limiting=UNLIMITED, batch=NO_SECONDARY)
    found = judged(world.connection, config, overview(world.now))
    return {row["symbol"]: (row["state"], row["ill"]) for row in (*found.named.values(), *found.others)}


def statuses(world: World) -> dict[str, str]:
    rows = world.connection.execute(
        "select symbol, sync_status from data_sources.data_sync_status d join trading.symbols s on s.id = d.ticker_id"
    )
    return {row["symbol"]: row["sync_status"] for row in rows}


# Alone, an asset is left out, or its call is refused: what an answer has of it is read as that of many.
@pytest.mark.parametrize(
    ("provider", "reset"),
    [(SIZES[0], word) for word in RESETS] + [(SIZES[1], word) for word in ("left out", "404", "404 in plain text")],
)
@pytest.mark.parametrize("was_served", [True, False], ids=["served before", "new"])
def test_a_market_that_rests_and_has_no_price_is_asked_once_and_is_calm_until_it_opens(
    live: World, reset: str, provider: str, *, was_served: bool
) -> None:
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": NO_SECONDARY, "provider": provider}
    live.add("C:GBPUSD", "C:XAGUSD", "X:SOLUSD")
    if was_served:
        live.now = datetime(2026, 11, 20, 21, 50, 2, tzinfo=UTC)
        live.prioritise(**keys)
        live.enqueue(**keys)
        live.drain(**keys)
        live.asked()
    live.sandbox.fail = RESETS[reset]
    live.now = SATURDAY
    asked: list[str] = []

    while live.now < datetime(2026, 11, 22, 21, 59, tzinfo=UTC):
        result = live.prioritise(**keys)
        live.enqueue(**keys)
        drained = live.drain(**keys)

        assert (result.exit_code, result.failed, result.warnings) == (0, (), ())
        assert (drained.exit_code, drained.failed, drained.requeued, drained.warnings) == (0, (), (), ())
        assert set(result.unchanged) == {"XAUUSD", "EURUSD"}
        assert set(live.queued()) <= {"SOLUSD"}
        asked += [path for path in map(unquote, live.asked()) if "C:" in path or "marketstatus" in path]
        found = states(live)
        assert {found[symbol] for symbol in ("XAUUSD", "EURUSD", "GBPUSD", "XAGUSD")} == {("closed", False)}
        assert told(live).alerts == ()
        live.now += 11 * HOUR + 5 * MINUTE

    for ticker in ("C:XAUUSD", "C:EURUSD", "C:GBPUSD", "C:XAGUSD"):
        # A batch that is refused as a whole is halved until what rests stands alone.
        assert sum(ticker in path for path in asked) in ({1} if "404" not in reset else {1, 2, 3}), asked
    assert STATUS not in asked
    assert {statuses(live)[symbol] for symbol in ("XAUUSD", "GBPUSD")} == {"no_data"}

    live.sandbox.fail = []
    live.now = datetime(2026, 11, 22, 23, 5, 2, tzinfo=UTC)
    live.enqueue(**keys)
    assert live.prioritise(**keys).updated == ALL
    assert set(live.drain(**keys).updated) == {"GBPUSD", "XAGUSD", "SOLUSD"}
    assert live.queued() == {}
    assert {state for state, _ in states(live).values()} == {"fresh"}


def test_gold_that_has_no_price_in_its_daily_pause_is_asked_once_and_is_calm(live: World) -> None:
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": NO_SECONDARY}
    live.now = datetime(2026, 11, 18, 21, 55, 2, tzinfo=UTC)
    live.prioritise(**keys)
    live.asked()
    live.sandbox.fail = ["zero:C:XAU"]
    asked = []

    for _ in range(12):
        live.now += 5 * MINUTE
        result = live.prioritise(**keys)
        assert (result.exit_code, result.failed, result.updated) == (0, (), ("EURUSD", "BTCUSD"))
        assert result.unchanged == ("XAUUSD",)
        asked += tickers(live.asked())
        assert (states(live)["XAUUSD"], told(live).alerts) == (("closed", False), ())
    assert asked.count("XAUUSD") == 1

    # Once it is open, no price is a failure again.
    live.now += 5 * MINUTE
    failed = live.prioritise(**keys)
    assert (failed.exit_code, [one.symbol for one in failed.failed]) == (3, ["XAUUSD"])


@pytest.mark.parametrize("provider", SIZES)
def test_a_ticker_that_nobody_knows_is_found_out_when_its_market_opens(live: World, provider: str) -> None:
    batch = (
        '{priority_assets: [{symbol: EURUSD, polygon_ticker: "C:EURUSSD", asset_type: forex}], secondary_assets: []}'
    )
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": batch, "provider": provider}
    live.add("C:GBPUSSD")
    live.now = SATURDAY
    for _ in range(3):
        live.enqueue(**keys)
        assert (live.prioritise(**keys).exit_code, live.drain(**keys).exit_code) == (0, 0)
        live.now += 5 * HOUR

    live.now = datetime(2026, 11, 22, 22, 5, 2, tzinfo=UTC)
    live.enqueue(**keys)
    result, drained = live.prioritise(**keys), live.drain(**keys)

    assert (result.exit_code, [one.symbol for one in result.failed]) == (3, ["EURUSD"])
    assert [*drained.dead, *drained.requeued] == ["GBPUSSD"]
    assert states(live)["EURUSD"] == ("failing", True)


def test_under_a_limit_a_batch_that_is_refused_as_a_whole_costs_what_rests_nothing(live: World) -> None:
    limits = "{window_seconds: 0.02, margin_seconds: 0, calls_per_minute: 5}"
    live.now = SATURDAY
    live.sandbox.fail = ["404"]

    first = live.prioritise(rate_limiting=limits, batch=NO_SECONDARY)

    assert (first.unchanged, [one.symbol for one in first.failed]) == (("XAUUSD", "EURUSD"), ["BTCUSD"])


def test_a_market_that_the_vendor_says_is_closed_forgets_what_failed_before_it_was_asked(live: World) -> None:
    live.now = GOOD_FRIDAY
    live.sandbox.fail = ["holiday", "drop:C:"]

    live.prioritise(rate_limiting=UNLIMITED)

    live.now += HOUR + MINUTE
    assert {state for state, _ in states(live).values()} <= {"fresh", "never", "stale"}
    assert statuses(live)["EURUSD"] == "no_data"


def test_the_vendor_is_asked_whether_forex_rests_while_gold_pauses(live: World) -> None:
    live.now = datetime(2026, 4, 2, 21, 30, tzinfo=UTC)
    live.sandbox.fail = ["holiday", "zero:C:"]

    result = live.prioritise(rate_limiting=UNLIMITED)

    assert (result.exit_code, result.failed, set(result.unchanged)) == (0, (), {"XAUUSD", "EURUSD"})
    assert live.asked()[1:] == [STATUS]


# Another plan while forex rests: a finished day is no answer about live prices, nor the other way round.


def test_prices_are_live_at_once_when_the_plan_is_changed_on_a_saturday(live: World) -> None:
    keys: dict[str, Any] = {"rate_limiting": QUICK, "batch": NO_SECONDARY}
    live.add("C:GBPUSD", "X:SOLUSD")
    live.connection.execute("update assetbatch.assets set update_frequency_seconds = 86400 where symbol = 'SOLUSD'")
    live.sandbox.plan = live.environment["POLYGON_TIER"] = "free"
    live.now = SATURDAY + 7 * HOUR
    assert live.prioritise(**keys).updated == ALL
    assert live.last_update("EURUSD")["timestamp"] == "2026-11-20T22:00:00.000Z"
    live.enqueue(**keys)
    live.drain(**keys)
    live.asked()

    live.sandbox.plan = live.environment["POLYGON_TIER"] = "starter"
    live.now += 5 * MINUTE
    live.enqueue(**keys)
    changed, drained = live.prioritise(**keys), live.drain(**keys)

    assert changed.updated == ALL
    assert set(drained.updated) == {"GBPUSD", "SOLUSD"}
    assert tickers(live.asked()) == list(ALL)
    live.now += 5 * MINUTE
    assert live.prioritise(**keys).unchanged == ("XAUUSD", "EURUSD")

    # On the free plan a newer day is asked for; back again, what was asked for live since forex closed still counts.
    live.sandbox.plan = live.environment["POLYGON_TIER"] = "free"
    live.asked()
    live.now += 24 * HOUR
    assert live.prioritise(**keys).updated == ("BTCUSD",)
    assert live.asked() == ["crypto 2026-11-21"]
    live.sandbox.plan = live.environment["POLYGON_TIER"] = "starter"
    live.now += 5 * MINUTE
    assert live.prioritise(**keys).unchanged == ("XAUUSD", "EURUSD")


def test_a_finished_day_is_asked_for_when_the_plan_becomes_free_on_a_saturday(live: World) -> None:
    keys: dict[str, Any] = {"rate_limiting": QUICK, "batch": NO_SECONDARY}
    live.now = SATURDAY + 7 * HOUR
    live.prioritise(**keys)
    live.asked()
    live.sandbox.plan = live.environment["POLYGON_TIER"] = "free"
    live.now += 5 * MINUTE

    first = live.prioritise(**keys)
    live.sandbox.plan = live.environment["POLYGON_TIER"] = "starter"
    live.now += 5 * MINUTE
    back = live.prioritise(**keys)

    asked = live.asked()
    assert (first.exit_code, asked[:2]) == (0, ["fx 2026-11-20", "crypto 2026-11-20"])
    # What was asked for live since forex closed still counts.
    assert (back.unchanged, tickers(asked[2:])) == (("XAUUSD", "EURUSD"), ["BTCUSD"])


# What is asked for and answered, but trades no more.


def test_a_last_trade_of_long_ago_is_silent_and_neither_fresh_nor_stale(live: World) -> None:
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": NO_SECONDARY}
    live.add("X:SOLUSD", "C:GBPUSD")
    live.now = began = datetime(2026, 9, 15, 12, tzinfo=UTC)
    live.sandbox.fail = ["stale:X:SOLUSD", "stale:C:GBPUSD"]
    found = {}

    for days in (0, 6, 8, 10, 40):
        live.now = began + timedelta(days=days)
        live.enqueue(**keys)
        result, drained = live.prioritise(**keys), live.drain(**keys)
        assert (result.exit_code, drained.exit_code) == (0, 0)
        assert {*drained.updated, *drained.unchanged} == {"SOLUSD", "GBPUSD"}
        found[days] = {symbol: states(live)[symbol] for symbol in ("SOLUSD", "GBPUSD")}
        # Of a secondary asset that is no alarm.
        assert told(live).alerts == ()

    fresh, silent = ("fresh", False), ("silent", False)
    # Forex rests on two days of seven.
    assert {days: (one["SOLUSD"], one["GBPUSD"]) for days, one in found.items()} == {
        0: (fresh, fresh),
        6: (fresh, fresh),
        8: (silent, fresh),
        10: (silent, silent),
        40: (silent, silent),
    }
    live.sandbox.fail = []
    live.now += 24 * HOUR
    live.enqueue(**keys)
    live.prioritise(**keys)
    live.drain(**keys)
    assert {state for state, _ in states(live).values()} == {"fresh"}


def test_a_priority_asset_that_trades_no_more_is_a_warning(live: World) -> None:
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "batch": NO_SECONDARY}
    live.now = datetime(2026, 9, 15, 12, tzinfo=UTC)
    live.sandbox.fail = ["stale:X:BTCUSD"]
    live.prioritise(**keys)
    live.now += timedelta(days=40)
    assert live.prioritise(**keys).unchanged == ("BTCUSD",)

    report = told(live)

    (alert,) = report.alerts
    assert (alert.metric, alert.level, report.health) == ("assets.silent", Level.WARNING, Health.DEGRADED)
    assert alert.message == "BTCUSD: asked for, but nothing has traded since 2026-09-15 11:49 UTC"
    assert [one.state for one in report.assets] == ["fresh", "fresh", "silent"]
