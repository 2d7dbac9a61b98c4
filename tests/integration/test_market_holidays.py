"""Holidays as the vendor lists them: asked for once a week, kept, and known to whoever looks at a clock."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from assetbatch import market_hours
from assetbatch.database import holidays
from assetbatch.jobs import forecast
from assetbatch.jobs.clock import Clock
from assetbatch.jobs.entitlements import Entitlements
from assetbatch.markets import Market
from assetbatch.model import AssetType, CallKind
from assetbatch.report import reading
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY, open_database, wait_until
from tests.integration.test_end_of_day import World
from tests.world import DAY, HOUR, MINUTE, NO_ASSETS, TUESDAY, UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from assetbatch.database.connection import Connection

NEW_YORK = ZoneInfo("America/New_York")
THANKSGIVING, FRIDAY, CHRISTMAS = date(2026, 11, 26), date(2026, 11, 27), date(2026, 12, 25)
# No rule knows it.
MOURNING = date(2026, 11, 30)
LIST = "/v1/marketstatus/upcoming"
ADD = """
insert into assetbatch.assets (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)
values (%(symbol)s, %(ticker)s, %(kind)s, 'secondary', 3, 1800, 'symbols')
"""
# A priority asset that trades by New York's clock, and one that does not.
STOCK = "{symbol: AAPL, polygon_ticker: AAPL, asset_type: stocks, priority: 1}"
BITCOIN = "{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto, priority: 1}"


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), NEW_YORK).astimezone(UTC)


def listed(connection: Connection, now: datetime = TUESDAY) -> holidays.Listed:
    return connection.answer(holidays.listed(now))


def store(connection: Connection, days: dict[date, time | None], now: datetime = TUESDAY) -> None:
    connection.answer(holidays.storing(days, now))


def test_the_list_is_asked_for_a_week_after_it_was_had_and_a_day_after_it_was_not(connection: Connection) -> None:
    assert listed(connection) == holidays.Listed({}, is_due=True)
    assert holidays.take_turn(connection, TUESDAY)
    assert not listed(connection, TUESDAY + DAY - HOUR).is_due
    assert listed(connection, TUESDAY + DAY).is_due
    assert holidays.take_turn(connection, TUESDAY + DAY)
    store(connection, {THANKSGIVING: None}, TUESDAY + DAY)
    assert not listed(connection, TUESDAY + 8 * DAY - HOUR).is_due
    assert listed(connection, TUESDAY + 8 * DAY).is_due


def test_what_a_clock_wrote_that_was_ahead_does_not_hold_the_list_up(connection: Connection) -> None:
    holidays.take_turn(connection, TUESDAY + HOUR)
    store(connection, {THANKSGIVING: None}, TUESDAY + HOUR)

    assert listed(connection).is_due
    assert holidays.take_turn(connection, TUESDAY)


def test_one_of_two_runs_asks_and_another_one_once_its_call_did_not_leave(
    connection: Connection, database: str
) -> None:
    with open_database(database) as other:
        assert holidays.take_turn(connection, TUESDAY)
        assert not holidays.take_turn(other, TUESDAY + timedelta(seconds=1))
        holidays.give_back_turn(connection)
        assert holidays.take_turn(other, TUESDAY + timedelta(seconds=2))


def test_what_is_listed_takes_precedence_over_the_rule(connection: Connection) -> None:
    assert market_hours.is_open(Market.STOCKS, noon(MOURNING))
    store(connection, {MOURNING: None, FRIDAY: None, CHRISTMAS: time(13)})
    assert market_hours.is_open(Market.STOCKS, noon(MOURNING))

    # Whoever reads it knows it from then on.
    assert listed(connection).days == {MOURNING: None, FRIDAY: None, CHRISTMAS: time(13)}

    assert not market_hours.is_open(Market.STOCKS, noon(MOURNING))
    assert not market_hours.is_open(Market.STOCKS, noon(FRIDAY))
    assert market_hours.is_open(Market.INDICES, noon(CHRISTMAS))
    assert not market_hours.is_open(Market.INDICES, noon(THANKSGIVING))
    assert market_hours.is_open(Market.FOREX, noon(MOURNING))


def test_a_day_that_is_listed_no_more_is_as_others_and_one_that_is_over_stays(connection: Connection) -> None:
    store(connection, {THANKSGIVING: None, MOURNING: None, CHRISTMAS: None})
    # The list of a holiday itself may have it, or not.
    on_thanksgiving = noon(THANKSGIVING)
    store(connection, {CHRISTMAS: None}, on_thanksgiving)

    assert listed(connection, on_thanksgiving).days == {THANKSGIVING: None, CHRISTMAS: None}


def test_days_of_a_list_may_change(connection: Connection) -> None:
    store(connection, {FRIDAY: None, CHRISTMAS: time(13)})
    store(connection, {FRIDAY: time(13), CHRISTMAS: None}, TUESDAY + HOUR)

    assert listed(connection).days == {FRIDAY: time(13), CHRISTMAS: None}


# A whole run.


@pytest.fixture
def mourning() -> Iterator[Sandbox]:
    """A vendor whose exchanges rest on a day that follows no rule."""
    with Sandbox(key=API_KEY, stocks_plan="starter", indices_plan="starter", holidays=[MOURNING]) as sandbox:
        yield sandbox


@pytest.fixture
def world(connection: Connection, database: str, mourning: Sandbox, tmp_path: Path) -> World:
    """A world with live prices of all that there is, without a limit."""
    world = World(connection, database, mourning, tmp_path)
    mourning.plan = world.environment["POLYGON_TIER"] = "starter"
    return world


KEYS: dict[str, Any] = {
    "rate_limiting": UNLIMITED,
    "provider": "{plans: {stocks: starter, indices: starter}}",
    "batch": NO_ASSETS,
}


def add(world: World, ticker: str, kind: str) -> None:
    world.connection.execute(ADD, {"symbol": ticker.removeprefix("I:"), "ticker": ticker, "kind": kind})


def lists(world: World) -> int:
    """Count how often the list was asked for, and forget it."""
    return world.asked().count(LIST)


def priority(*assets: str) -> dict[str, Any]:
    return KEYS | {"batch": f"{{priority_assets: [{', '.join(assets)}], secondary_assets: []}}"}


@pytest.mark.parametrize(("ticker", "kind"), [("AAPL", "stocks"), ("I:SPX", "indices")])
def test_a_drain_asks_for_the_list_once_a_week_and_keeps_it(world: World, ticker: str, kind: str) -> None:
    add(world, ticker, kind)

    result = world.drain(**KEYS)

    assert (result.exit_code, lists(world)) == (0, 1)
    found = listed(world.connection, world.now).days
    assert found[MOURNING] is None
    assert (found[THANKSGIVING], found[FRIDAY], found[CHRISTMAS]) == (None, time(13), None)
    world.now += 7 * DAY - MINUTE
    world.drain(**KEYS)
    assert lists(world) == 0
    world.now += 2 * MINUTE
    world.drain(**KEYS)
    assert lists(world) == 1


def test_nobody_asks_for_it_where_nothing_trades_by_it(world: World) -> None:
    world.add("SOLUSD", "C:GBPUSD")

    world.drain(**KEYS)
    world.prioritise(**priority(BITCOIN))

    assert LIST not in world.asked()


def test_the_list_comes_behind_prices_and_before_bars(world: World) -> None:
    add(world, "AAPL", "stocks")
    world.enqueue(**KEYS)
    bars = KEYS | {"bars": "{enabled: true, backfill_days: 1}"}

    world.drain(**bars)

    assert [path.partition("?")[0] for path in world.asked()][:2] == ["/v3/snapshot", LIST]
    world.connection.execute("update assetbatch.market_holiday_lists set asked_at = null, listed_at = null")
    world.now += 5 * MINUTE
    world.prioritise(**(bars | priority(STOCK)))
    asked = [path.partition("?")[0] for path in world.asked()]
    assert asked[:2] == ["/v3/snapshot", LIST]
    assert asked[2].startswith("/v2/aggs/ticker/AAPL/range")


def test_no_run_waits_for_the_call(world: World) -> None:
    """Prices take the only slot: the list is left to a run that finds one free."""
    add(world, "I:SPX", "indices")
    limited = KEYS | {"rate_limiting": "{calls_per_minute: 1, window_seconds: 2, margin_seconds: 0}"}
    world.enqueue(**limited)

    result = world.drain(**limited)

    assert (result.updated, result.waited_seconds < 1) == (("SPX",), True)
    assert [path.partition("?")[0] for path in world.asked()] == ["/v3/snapshot"]
    wait_until(lambda: world.drain(**limited).api_calls_used)
    assert world.asked() == [LIST]


@pytest.mark.parametrize("fault", ["403:upcoming", "404:upcoming", "500:upcoming"])
def test_a_list_that_cannot_be_had_is_told_in_the_log_and_asked_for_again_in_a_day(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    add(world, "AAPL", "stocks")
    world.sandbox.fail = [fault]

    with caplog.at_level(logging.WARNING):
        result = world.drain(**KEYS)

    assert (result.exit_code, result.failed, lists(world)) == (0, (), 1)
    assert "no list of holidays, days go by rule" in caplog.text
    assert not market_hours.is_open(Market.STOCKS, noon(THANKSGIVING))
    assert market_hours.is_open(Market.STOCKS, noon(MOURNING))
    world.sandbox.fail = []
    world.now += DAY - MINUTE
    world.drain(**KEYS)
    assert lists(world) == 0
    world.now += 2 * MINUTE
    world.drain(**KEYS)
    assert lists(world) == 1
    assert not market_hours.is_open(Market.STOCKS, noon(MOURNING))


def test_a_day_of_mourning_costs_no_call_and_raises_no_alarm(world: World) -> None:
    keys = priority(STOCK)
    world.now = datetime(2026, 11, 27, 23, 30, tzinfo=UTC)
    world.prioritise(**keys)
    assert lists(world) == 1

    for hours in range(60, 72):
        world.now = datetime(2026, 11, 28, tzinfo=UTC) + hours * HOUR
        result = world.prioritise(**keys)
        assert (result.exit_code, result.unchanged) == (0, ("AAPL",))
        assert not any("AAPL" in path or path == LIST for path in world.asked())

    world.now = noon(date(2026, 12, 1))
    assert world.prioritise(**keys).updated == ("AAPL",)


def test_status_goes_by_what_is_listed(world: World) -> None:
    """An asset without a price for five days is stale, unless its market rested on all of them."""
    config = world.configure(**KEYS)
    add(world, "AAPL", "stocks")
    world.connection.execute(
        "insert into assetbatch.sync_state (symbol, succeeded_at, served_at) values ('AAPL', %(at)s, %(at)s)",
        {"at": datetime.now(UTC) - 5 * DAY},
    )
    assert reading.read(config, world.connection).asset_states == {"stale": 1}

    today = datetime.now(NEW_YORK).date()
    store(world.connection, {today + number * DAY: None for number in range(-9, 9)}, datetime.now(UTC))

    assert reading.read(config, world.connection).asset_states == {"closed": 1}


def test_the_forecast_has_the_call_where_it_is_due(world: World) -> None:
    config = world.configure(**KEYS)
    add(world, "AAPL", "stocks")

    def foreseen() -> list[str]:
        return [one.kind for one in forecast.foresee(config, world.connection).calls]

    assert CallKind.MARKET_HOLIDAYS in foreseen()
    store(world.connection, {THANKSGIVING: None}, datetime.now(UTC))
    assert CallKind.MARKET_HOLIDAYS not in foreseen()


@pytest.mark.parametrize(
    ("clock", "rests"),
    [(time(9, 15), frozenset()), (time(12), {AssetType.STOCKS, AssetType.INDICES}), (time(16, 5), frozenset())],
)
def test_that_exchanges_rest_is_remembered_of_their_sessions_alone(
    world: World, clock: time, rests: frozenset[AssetType]
) -> None:
    """Else stocks would rest for an hour from when they were seen to, at a quarter past nine as well."""
    now = datetime.combine(TUESDAY.date(), clock, NEW_YORK).astimezone(UTC)
    seen = Entitlements(world.connection, world.configure(**KEYS), Clock(now))

    seen.note_markets({AssetType.FOREX: True, AssetType.STOCKS: False, AssetType.INDICES: False})

    assert seen.closed == rests
