"""End-of-day prices, in process: a database, and a vendor and jobs that go by a simulated clock."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from assetbatch.database import entitlements
from assetbatch.database.setup import schema
from assetbatch.jobs import forecast, priority
from assetbatch.jobs.calls import Calls
from assetbatch.model import Access, AssetType, CallKind, Product
from assetbatch.plans import PLANS, Entitlement, Sight
from assetbatch.report import reading
from assetbatch.report.health import Health
from assetbatch.sandbox.catalogue import KNOWN
from assetbatch.sandbox.server import Sandbox
from tests import world as worlds
from tests.conftest import API_KEY, open_database, wait_until
from tests.world import ALL, HOUR, MINUTE, NO_ASSETS, NO_SECONDARY, TUESDAY, UNLIMITED, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from assetbatch.database.connection import Connection
    from assetbatch.model import RunResult
    from assetbatch.provider.request import Request

LIMITED = "{window_seconds: 0.02, margin_seconds: 0, calls_per_minute: 5}"
GROUPED = re.compile(r"/v2/aggs/grouped/locale/global/market/(fx|crypto)/(\d{4}-\d\d-\d\d)\?.*")
NOT_YET = "403-today"


@dataclass
class World(worlds.World):
    """A world with a free key, on a Tuesday."""

    KEYS: ClassVar = {"rate_limiting": "{window_seconds: 0.02, margin_seconds: 0}", "bars": "{enabled: false}"}

    now: datetime = TUESDAY

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sandbox.plan = self.environment["POLYGON_TIER"] = "free"

    def hold_one(self) -> threading.Event:
        """Hold the next answer back, until the event is set."""
        hold = threading.Event()
        holds = [hold]
        self.before = lambda: holds and holds.pop().wait(20)
        return hold

    def last_update(self, symbol: str) -> dict[str, Any]:
        row = self.connection.execute(
            "select metadata -> 'last_update' as last_update from trading.symbols where symbol = %s", [symbol]
        ).fetchone()
        return {} if row is None or row["last_update"] is None else dict(row["last_update"])

    def queued(self) -> dict[str, tuple[str, int]]:
        """Tell of each item in the queue its state and attempts."""
        rows = self.connection.execute("select symbol, state, attempts from assetbatch.queue")
        return {row["symbol"]: (row["state"], row["attempts"]) for row in rows}

    def asked(self) -> list[str]:
        """Tell what was asked for: `fx 2026-11-16` for a day, else the path; and forget it."""
        paths, self.sandbox.arrivals[:] = [arrival.path for arrival in self.sandbox.arrivals], []
        return [" ".join(found.groups()) if (found := GROUPED.fullmatch(path)) else path for path in paths]


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


def snapshots(asked: list[str]) -> list[str]:
    return [path for path in asked if "/snapshot" in path]


# A free key.


def test_a_free_key_has_prices_and_bars_after_three_calls_and_a_drain_and_then_asks_nothing(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        "rate_limiting": "{window_seconds: 0.5, margin_seconds: 0.05}",
        "bars": "{backfill_days: 3}",
        "batch": NO_SECONDARY,
    }
    with Sandbox(key=API_KEY, limit=5, window_seconds=0.5) as sandbox:
        world = World(connection, database, sandbox, tmp_path)
        first = world.prioritise(**keys)

        assert (first.exit_code, first.updated, first.failed) == (0, ALL, ())
        assert len(world.sandbox.arrivals) == first.api_calls_used == 3
        assert first.newer_at == datetime(2026, 11, 18, 5, tzinfo=UTC)
        for symbol in ALL:
            stored = world.last_update(symbol)
            assert stored["timestamp"] == "2026-11-16T23:59:59.999Z"
            assert stored["last_price"] == stored["daily_close"] > 0
            assert (stored["bid"], stored["ask"]) == (None, None)
        events = connection.execute("select symbol from assetbatch.outbox").fetchall()
        assert {row["symbol"] for row in events} == set(ALL)

        assert world.drain(**keys).exit_code == 0
        # From Saturday noon to the end of Monday, of which forex trades from Sunday evening on.
        bars = connection.execute(
            "select s.symbol, max(ts) as newest, count(*) as n, bool_and(is_final) as final"
            " from market_data.ohlcv_5m b join trading.symbols s on s.id = b.symbol_id group by s.symbol"
        ).fetchall()
        assert {row["symbol"]: row["n"] for row in bars} == {"XAUUSD": 26 * 12, "EURUSD": 26 * 12, "BTCUSD": 60 * 12}
        assert all(row["final"] and row["newest"] == datetime(2026, 11, 16, 23, 55, tzinfo=UTC) for row in bars)
        assert {arrival.status for arrival in world.sandbox.arrivals} == {200}

        world.asked()
        for _ in range(2):
            world.now += 5 * MINUTE
            again, drained = world.prioritise(**keys), world.drain(**keys)
            assert (again.unchanged, again.updated, again.deferred) == (ALL, (), ())
            assert again.newer_at == datetime(2026, 11, 18, 5, tzinfo=UTC)
            assert (again.exit_code, drained.exit_code) == (0, 0)
        assert world.asked() == []


def test_from_friday_evening_on_forex_is_of_fridays_end_of_trade(world: World) -> None:
    world.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    result = world.prioritise()

    assert result.updated == ALL
    assert world.asked() == ["fx 2026-11-20", "crypto 2026-11-21"]
    assert world.last_update("EURUSD")["timestamp"] == "2026-11-20T22:00:00.000Z"
    assert world.last_update("BTCUSD")["timestamp"] == "2026-11-21T23:59:59.999Z"


def test_a_whole_catalogue_costs_two_calls_a_day(world: World) -> None:
    listed = [ticker for ticker in KNOWN if ticker[2:] not in ALL]
    synthetic = [f"C:T{number}USD" for number in range(1194)] + [f"X:T{number}EUR" for number in range(405)]
    forex, crypto = (
        [one for one in (*listed, *synthetic) if one.startswith(prefix)][:size]
        for prefix, size in (("C:", 1192), ("X:", 404))
    )
    world.add(*forex, *crypto)
    keys: dict[str, Any] = {"queue": "{max_size: 5000}", "batch": NO_SECONDARY}
    listed = [ticker for ticker in listed if ticker in {*forex, *crypto}]
    asked = []
    for number in range(0, 48, 3):
        first = world.prioritise(**keys)
        enqueued = world.enqueue(**keys)
        drained = world.drain(**keys)

        assert (first.exit_code, enqueued.exit_code, drained.exit_code) == (0, 0, 0)
        assert drained.remaining == 0
        asked += [(number, one) for one in world.asked()]
        world.now += 3 * HOUR

    assert asked == [
        (0, "fx 2026-11-16"),
        (0, "crypto 2026-11-16"),
        (18, "fx 2026-11-17"),
        (18, "crypto 2026-11-17"),
        (42, "fx 2026-11-18"),
        (42, "crypto 2026-11-18"),
    ]
    rows = world.connection.execute(
        "select polygon_ticker, error_kind, day::text"
        " from assetbatch.assets left join assetbatch.sync_state using (symbol) where role = 'secondary'"
    ).fetchall()
    assert len(rows) == 1192 + 404
    assert {row["day"] for row in rows} == {"2026-11-18"}
    assert {row["polygon_ticker"] for row in rows if row["error_kind"] is None} == set(listed)
    assert {row["error_kind"] for row in rows} == {None, "missing"}


def test_a_call_for_a_market_ends_its_items_but_those_that_somebody_holds(world: World) -> None:
    world.add("C:GBPUSD", "C:USDJPY", "X:ETHUSD")
    world.enqueue(batch=NO_SECONDARY)
    world.connection.execute(
        "update assetbatch.queue set state = 'leased', token = gen_random_uuid(), attempts = 1,"
        " claimed_at = clock_timestamp(), leased_until = clock_timestamp() + interval '1 hour' where symbol = 'USDJPY'"
    )
    world.sandbox.fail = ["500:market/crypto"]

    result = world.prioritise(batch=NO_SECONDARY)

    assert result.updated == ("XAUUSD", "EURUSD")
    assert result.others_updated == 2
    assert world.queued() == {"USDJPY": ("leased", 1), "ETHUSD": ("queued", 0)}
    assert world.last_update("USDJPY")["timestamp"] == "2026-11-16T23:59:59.999Z"


def test_what_is_queued_by_hand_though_it_is_served_needs_no_call(world: World) -> None:
    world.add("C:GBPUSD")
    world.prioritise(batch=NO_SECONDARY)
    world.asked()
    world.enqueue(["GBPUSD"], batch=NO_SECONDARY)

    result = world.drain(batch=NO_SECONDARY)

    assert result.unchanged == ("GBPUSD",)
    assert (world.queued(), world.asked(), result.exit_code) == ({}, [], 0)
    assert result.newer_at == datetime(2026, 11, 18, 5, tzinfo=UTC)


def test_a_drain_of_many_items_makes_one_call_a_market_and_gives_none_back(world: World) -> None:
    world.add("C:GBPUSD", "C:USDJPY", "C:USDCHF", "X:SOLUSD", "X:ETHUSD", "X:ADAUSD")
    world.enqueue(batch=NO_ASSETS)

    result = world.drain(batch=NO_ASSETS)

    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-16"]
    assert set(result.updated) == {"GBPUSD", "USDJPY", "USDCHF", "SOLUSD", "ETHUSD", "ADAUSD"}
    assert (result.requeued, result.unchanged, world.queued()) == ((), (), {})


def test_slots_are_kept_for_the_run_after_a_boundary_alone(world: World) -> None:
    foreseen = []
    for now in ("2026-11-17T12:00", "2026-11-18T04:50", "2026-11-18T04:55", "2026-11-18T05:00"):
        world.now = datetime.fromisoformat(now).replace(tzinfo=UTC)
        world.prioritise()
        row = world.connection.execute("select foreseen_calls from assetbatch.rate_limits").fetchone()
        assert row is not None
        foreseen.append(row["foreseen_calls"])

    assert foreseen == [0, 0, 2, 0]


# Days that the vendor does not have yet.


def test_a_day_that_is_not_over_for_the_vendor_is_stepped_back_from_and_asked_for_again_after_an_hour(
    world: World,
) -> None:
    world.sandbox.fail = [f"{NOT_YET}:fx/2026-11-16"]

    first = world.prioritise()

    assert (first.exit_code, first.updated, first.failed) == (0, ALL, ())
    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-13", "fx 2026-11-16"]
    assert world.last_update("EURUSD")["timestamp"] == "2026-11-13T22:00:00.000Z"
    assert first.newer_at is not None
    assert abs(first.newer_at - world.now - HOUR) < MINUTE / 6

    world.now += 59 * MINUTE
    assert world.prioritise().unchanged == ALL
    assert world.drain().exit_code == 0
    assert world.asked() == []

    world.now += 2 * MINUTE
    assert world.prioritise().unchanged == ALL
    assert world.asked() == ["fx 2026-11-16"]

    world.now += HOUR + MINUTE
    world.sandbox.fail = []
    last = world.prioritise()
    assert last.updated == ("XAUUSD", "EURUSD")
    assert world.asked() == ["fx 2026-11-16"]
    assert world.last_update("EURUSD")["timestamp"] == "2026-11-16T23:59:59.999Z"


def test_a_priority_run_makes_no_more_calls_than_it_has_assets_however_far_back_it_has_to_go(world: World) -> None:
    world.sandbox.fail = [NOT_YET]
    asked = []

    for _ in range(8):
        result = world.prioritise()
        made = world.asked()
        assert len(made) == result.api_calls_used <= 3
        asked += made
        world.now += 5 * MINUTE

    # Five days each, no more, and none of them twice within the hour.
    assert sorted(asked) == [
        *(f"crypto 2026-11-{day}" for day in (12, 13, 14, 15, 16)),
        *(f"fx 2026-11-{day}" for day in (10, 11, 12, 13, 16)),
    ]


def test_an_empty_day_is_stepped_back_from_and_asked_for_ever_more_rarely(world: World) -> None:
    world.sandbox.fail = ["holiday:fx/2026-11-16"]
    hours = []

    for hour in range(16):
        assert world.prioritise().exit_code == 0
        hours += [hour for one in world.asked() if one == "fx 2026-11-16"]
        world.now += HOUR + MINUTE

    # After 1, 2, 4 and 8 hours.
    assert hours == [0, 1, 3, 7, 15]
    assert world.last_update("EURUSD")["timestamp"] == "2026-11-13T22:00:00.000Z"


def test_a_market_whose_days_are_late_does_not_cost_the_other_its_price(world: World) -> None:
    world.sandbox.fail = [f"{NOT_YET}:fx/2026-11-1{day}" for day in (6, 3, 2)]

    result = world.prioritise()

    assert result.updated == ("BTCUSD",)
    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-13", "fx 2026-11-16"]
    world.now += 5 * MINUTE
    assert world.prioritise().updated == ("XAUUSD", "EURUSD")
    assert world.asked() == ["fx 2026-11-12", "fx 2026-11-11"]


def test_a_drain_steps_back_as_a_priority_run_does(world: World) -> None:
    world.add("C:GBPUSD", "X:SOLUSD")
    world.enqueue(batch=NO_ASSETS)
    world.sandbox.fail = [f"{NOT_YET}:fx/2026-11-16", "holiday:fx/2026-11-13"]

    result = world.drain(batch=NO_ASSETS)

    assert (result.exit_code, set(result.updated), result.dead) == (0, {"GBPUSD", "SOLUSD"}, ())
    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-12", "fx 2026-11-13", "fx 2026-11-16"]
    assert world.queued() == {}


# What the key may see.


def remembered(world: World) -> list[tuple[str, str, bool]]:
    rows = world.connection.execute("select plan, access, allowed from assetbatch.entitlements order by 1, 2")
    return [(row["plan"], row["access"], row["allowed"]) for row in rows]


@pytest.mark.parametrize("batch_size", [250, 1])
def test_a_plan_that_is_contradicted_falls_back_in_the_same_run_and_is_asked_again_hourly(
    world: World, batch_size: int
) -> None:
    world.environment["POLYGON_TIER"] = "starter"
    keys: dict[str, Any] = {
        "rate_limiting": LIMITED,
        "provider": f"{{batch_size: {batch_size}}}",
    }

    first = world.prioritise(**keys)

    asked = world.asked()
    assert len(snapshots(asked)) == 1
    assert asked[1:] == ["fx 2026-11-16", "crypto 2026-11-16"]
    assert (first.exit_code, first.updated, first.failed) == (0, ALL, ())
    assert remembered(world) == [("starter", "snapshots", False)]

    for _ in range(11):
        world.now += 5 * MINUTE
        assert world.prioritise(**keys).unchanged == ALL
    assert world.asked() == []

    world.now += 6 * MINUTE
    assert world.prioritise(**keys).unchanged == ALL
    asked = world.asked()
    assert (len(asked), len(snapshots(asked))) == (1, 1)

    world.now += 59 * MINUTE
    world.sandbox.plan = "starter"
    assert world.prioritise(**keys).unchanged == ALL
    world.now += 2 * MINUTE
    healed = world.prioritise(**keys)
    assert healed.updated == ALL
    assert remembered(world) == [("starter", "snapshots", True)]
    world.now += 5 * MINUTE
    assert world.prioritise(**keys).updated == ALL


MISTYPED = """
{priority_assets: [{symbol: EURUSD, polygon_ticker: "C:EURUSSD", asset_type: forex},
                   {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto}],
 secondary_assets: [{symbol: ETHUSDT, polygon_ticker: "X:ETHUSDTT", asset_type: crypto}]}
""".replace("\n", " ")


def test_a_mistyped_ticker_is_told_by_each_run_and_by_status_though_no_call_is_made_for_it(world: World) -> None:
    first = world.prioritise(batch=MISTYPED)
    second = world.prioritise(batch=MISTYPED)

    assert (first.api_calls_used, second.api_calls_used) == (2, 0)
    for result in (first, second):
        assert (result.exit_code, [(one.symbol, one.kind) for one in result.failed]) == (3, [("EURUSD", "missing")])
        assert "EURUSD" not in result.unchanged
    assert first.warnings == (
        "the vendor does not know ETHUSDT: X:ETHUSDTT is not among the 41 tickers of 2026-11-16. Check polygon_ticker",
    )
    judge = reading.read(world.configure(batch=MISTYPED), world.connection)
    alerts = {alert.metric: alert for alert in judge.alerts}
    assert judge.health is Health.UNHEALTHY
    assert alerts["assets.failing"].message == "EURUSD failed: C:EURUSSD is not among the 67 tickers of 2026-11-16"
    assert "ETHUSDT" in alerts["assets.unknown"].message
    assert all("check polygon_ticker" in alerts[metric].hint for metric in ("assets.failing", "assets.unknown"))


def test_a_ticker_that_did_not_trade_on_a_day_is_neither_unknown_nor_failing_until_a_week_is_over(world: World) -> None:
    world.add("SOLUSD")
    world.prioritise(batch=NO_SECONDARY)
    world.sandbox.fail = ["drop:X:SOLUSD"]
    states = []

    for _ in range(8):
        world.now += 24 * HOUR
        result = world.prioritise(batch=NO_SECONDARY)
        config = world.configure(batch=NO_SECONDARY)
        judgement = worlds.judged(world.connection, config, worlds.overview(world.now))
        states += [(row["state"], row["unknown"]) for row in judgement.others if row["symbol"] == "SOLUSD"]

        assert result.warnings == ()
    assert states == [("end_of_day", False)] * 7 + [("failing", False)]


@pytest.mark.parametrize("batch", [NO_SECONDARY, NO_ASSETS])
def test_a_key_that_is_refused_what_its_plan_says_is_a_warning_of_the_run(world: World, batch: str) -> None:
    world.environment["POLYGON_TIER"] = "starter"
    world.add("SOLUSD")
    world.enqueue(batch=batch)

    priority_run, drain = world.prioritise(batch=batch), world.drain(batch=batch)

    (told,) = drain.warnings if batch == NO_ASSETS else priority_run.warnings
    assert told.startswith("plan says starter, the key is refused snapshots")
    assert "probe" in told
    assert (priority_run if batch == NO_ASSETS else drain).warnings == ()


def test_a_plan_that_is_changed_is_in_force_at_the_next_run(world: World) -> None:
    assert world.prioritise().updated == ALL
    world.asked()
    world.now += 5 * MINUTE
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "starter"

    assert world.prioritise(rate_limiting=UNLIMITED).updated == ALL

    assert len(snapshots(world.asked())) == 1
    world.now += 5 * MINUTE
    world.environment["POLYGON_TIER"] = "free"
    back = world.prioritise()
    # A day's figures never take the place of a newer price.
    assert (back.unchanged, world.asked()) == (ALL, [])


def test_the_free_plan_tries_no_snapshot_unless_told_to(world: World) -> None:
    assert world.prioritise().updated == ALL
    world.now += 2 * HOUR
    assert world.prioritise().unchanged == ALL
    world.drain()
    assert snapshots(world.asked()) == []

    world.now += 5 * MINUTE
    told = world.prioritise(provider="{mode: live}")

    assert (told.exit_code, told.unchanged, told.failed) == (0, ALL, ())
    assert len(snapshots(world.asked())) == 1
    # Now it is known, and the free plan is not asked again by itself.
    world.now += 2 * HOUR
    assert world.prioritise().unchanged == ALL
    assert world.asked() == []


def test_a_paid_plan_that_is_told_to_stays_with_finished_days(world: World) -> None:
    world.sandbox.plan = world.environment["POLYGON_TIER"] = "starter"

    assert world.prioritise(provider="{mode: end_of_day}").updated == ALL

    assert world.asked() == ["fx 2026-11-16", "crypto 2026-11-16"]


@pytest.mark.parametrize(("batch_size", "rate_limiting"), [(250, LIMITED), (1, LIMITED), (1, UNLIMITED)])
def test_a_drain_whose_key_is_refused_serves_the_same_items_by_finished_days(
    world: World, batch_size: int, rate_limiting: str
) -> None:
    world.environment["POLYGON_TIER"] = "starter"
    keys: dict[str, Any] = {
        "rate_limiting": rate_limiting,
        "provider": f"{{batch_size: {batch_size}}}",
        "batch": NO_ASSETS,
    }
    world.add("C:GBPUSD", "C:USDJPY", "X:ETHUSD", "X:SOLUSD")
    world.enqueue(**keys)

    result = world.drain(**keys)

    asked = world.asked()
    assert asked[-2:] in (["fx 2026-11-16", "crypto 2026-11-16"], ["crypto 2026-11-16", "fx 2026-11-16"])
    # One snapshot each that was on its way already.
    assert 1 <= len(snapshots(asked)) == len(asked) - 2 <= (4 if (batch_size, rate_limiting) == (1, UNLIMITED) else 1)
    assert (result.exit_code, result.dead, result.failed, result.ended_by) == (0, (), (), None)
    assert set(result.updated) == {"GBPUSD", "USDJPY", "ETHUSD", "SOLUSD"}
    assert result.requeued == ()
    assert world.queued() == {}
    assert remembered(world) == [("starter", "snapshots", False)]
    world.enqueue(result.updated, **keys)
    assert set(world.drain(**keys).unchanged) == set(result.updated)
    assert world.asked() == []


def test_a_day_whose_call_had_not_left_when_a_second_snapshot_was_refused_is_asked_for_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.environment["POLYGON_TIER"] = "starter"
    keys: dict[str, Any] = {"rate_limiting": UNLIMITED, "provider": "{batch_size: 1}", "batch": NO_ASSETS}
    world.add("C:GBPUSD", "X:ETHUSD")
    world.enqueue(**keys)
    prepared, begin = threading.Event(), Calls.begin
    # The first answer waits until both have left, the second one until a day's call is about to leave.
    waits: list[Callable[[], object]] = [
        lambda: prepared.wait(20),
        lambda: wait_until(lambda: len(world.sandbox.arrivals) == 2),
    ]
    world.before = lambda: waits and waits.pop()()

    def begin_late(calls: Calls, request: Request[Any], *arguments: Any, **options: Any) -> None:
        is_first_day = request.call.kind is CallKind.DAILY and not prepared.is_set()
        begin(calls, request, *arguments, **(options | {"after_seconds": 20.0} if is_first_day else options))
        if is_first_day:
            prepared.set()

    monkeypatch.setattr(Calls, "begin", begin_late)

    result = world.drain(max_seconds=8, **keys)

    assert set(result.updated) == {"GBPUSD", "ETHUSD"}
    assert sorted(world.asked()[2:]) == ["crypto 2026-11-16", "fx 2026-11-16"]


def test_what_a_key_was_refused_is_remembered_of_that_key_and_plan_alone(connection: Connection) -> None:
    found = Entitlement(allowed=False, asked_at=TUESDAY, reason="upgrade")
    sight = Sight(Product.CURRENCIES, Access.SNAPSHOTS)
    entitlements.remember(connection, key="one", plan="starter", sight=sight, found=found)

    def remembered(key: str, plan: str, product: Product = Product.CURRENCIES) -> dict[Sight, Entitlement]:
        return connection.answer(entitlements.entitlements(key=key, plans={product: PLANS[product][plan]}))

    assert remembered("one", "starter") == {sight: found}
    assert remembered("one", "developer") == remembered("one", "starter", Product.STOCKS) == {}
    assert remembered("another", "starter") == {}


def test_items_of_a_refused_call_go_back_with_all_their_attempts(world: World) -> None:
    world.environment["POLYGON_TIER"] = "starter"
    world.add("C:GBPUSD", "X:ETHUSD")
    world.enqueue(batch=NO_SECONDARY)
    world.sandbox.fail = ["500:grouped"]

    result = world.drain(batch=NO_SECONDARY)

    assert len(snapshots(world.asked())) == 1
    assert result.dead == ()
    assert world.queued() == {"GBPUSD": ("queued", 0), "ETHUSD": ("queued", 0)}


def test_a_key_that_may_see_nothing_at_all_is_told_so_and_not_asked_again_within_the_hour(world: World) -> None:
    world.sandbox.fail = ["403-entitled"]

    first = world.prioritise()
    asked = world.asked()
    again = world.prioritise()

    assert (first.exit_code, again.exit_code) == (3, 3)
    assert {failure.kind for failure in (*first.failed, *again.failed)} == {"not_entitled"}
    assert (len(asked), world.asked()) == (1, [])


def test_a_drain_whose_key_may_see_nothing_gives_everything_back_and_says_why(world: World) -> None:
    world.add("C:GBPUSD", "X:ETHUSD")
    world.enqueue(batch=NO_ASSETS)
    world.sandbox.fail = ["403-entitled"]

    for calls in (1, 0):
        result = world.drain(batch=NO_ASSETS)
        assert result.ended_by is not None
        assert (result.ended_by.kind, result.exit_code, result.dead) == ("not_entitled", 3, ())
        assert len(world.asked()) == calls
        assert world.queued() == {"GBPUSD": ("queued", 0), "ETHUSD": ("queued", 0)}


# Holidays of gold alone: forex trades, and the day has no row of it. The Monday after Easter's Friday.


EASTER_MONDAY = datetime(2026, 4, 6, 12, tzinfo=UTC)
NO_GOLD = ["drop:C:XAUUSD 2026-04-03", "drop:C:XAGUSD 2026-04-03"]
TWO_ASSETS = """
{priority_assets: [{symbol: XAUUSD, polygon_ticker: "C:XAUUSD", asset_type: forex},
                   {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto}], secondary_assets: []}
""".replace("\n", " ")


def alerts_and_states(world: World, **keys: str) -> tuple[list[str], dict[str, str]]:
    """Return what is wrong with assets, and how each stands."""
    config, seen = world.configure(**keys), worlds.overview(world.now, job={"last_run": world.now})
    judgement = worlds.judged(world.connection, config, seen)
    told = reading.build(config, seen, judgement, source="sandbox")
    rows = [*judgement.named.values(), *judgement.others]
    return [alert.metric for alert in told.alerts], {row["symbol"]: row["state"] for row in rows}


def test_gold_on_a_holiday_of_its_own_has_the_day_before_on_a_new_database(world: World) -> None:
    world.add("C:XAGUSD")
    world.now = EASTER_MONDAY
    world.sandbox.fail = NO_GOLD

    first = world.prioritise(batch=NO_SECONDARY)

    assert (first.exit_code, first.failed, first.warnings, first.updated) == (0, (), (), ALL)
    # As many calls as there are priority assets; what is asked for once more is what the newest day lacks.
    assert world.asked() == ["fx 2026-04-03", "crypto 2026-04-05", "fx 2026-04-02"]
    stamps = [world.last_update(symbol)["timestamp"] for symbol in ("XAUUSD", "XAGUSD", "EURUSD")]
    assert stamps == ["2026-04-02T23:59:59.999Z"] * 2 + ["2026-04-03T21:00:00.000Z"]
    again = world.prioritise(batch=NO_SECONDARY)
    assert (again.exit_code, again.unchanged, world.asked()) == (0, ALL, [])
    alerts, states = alerts_and_states(world, batch=NO_SECONDARY)
    assert (alerts, set(states.values())) == ([], {"end_of_day"})


def test_gold_on_a_holiday_of_its_own_keeps_the_day_before(world: World) -> None:
    world.now = EASTER_MONDAY - 3 * 24 * HOUR
    world.prioritise(batch=NO_SECONDARY)
    world.sandbox.fail = NO_GOLD
    world.now = EASTER_MONDAY
    world.asked()

    result = world.prioritise(batch=NO_SECONDARY)

    assert (result.exit_code, result.failed, result.warnings) == (0, (), ())
    assert (result.unchanged, world.asked()) == (("XAUUSD",), ["fx 2026-04-03", "crypto 2026-04-05"])
    assert world.last_update("XAUUSD")["timestamp"] == "2026-04-02T23:59:59.999Z"
    alerts, states = alerts_and_states(world, batch=NO_SECONDARY)
    assert (alerts, states["XAUUSD"]) == ([], "end_of_day")
    world.now += 24 * HOUR
    assert world.prioritise(batch=NO_SECONDARY).updated == ALL


@pytest.mark.parametrize("drained_first", [False, True])
def test_a_run_without_a_call_left_looks_back_in_the_next_one(world: World, *, drained_first: bool) -> None:
    world.add("C:XAGUSD", "C:GBPUSD")
    world.now = EASTER_MONDAY
    world.sandbox.fail = NO_GOLD
    if drained_first:
        world.enqueue(batch=TWO_ASSETS)
        drained = world.drain(batch=TWO_ASSETS)
        assert (drained.exit_code, drained.warnings, world.queued()) == (0, (), {})
    else:
        first = world.prioritise(batch=TWO_ASSETS)
        assert (first.exit_code, first.failed, first.warnings, first.unchanged) == (0, (), (), ("XAUUSD",))
    assert world.asked() == ["fx 2026-04-03", "crypto 2026-04-05"][: 1 if drained_first else 2]
    assert alerts_and_states(world, batch=TWO_ASSETS)[1]["XAUUSD"] == "end_of_day"
    assert drained_first or alerts_and_states(world, batch=TWO_ASSETS)[0] == []

    world.now += 5 * MINUTE
    second = world.prioritise(batch=TWO_ASSETS)

    assert (second.exit_code, "XAUUSD" in second.updated, second.warnings) == (0, True, ())
    assert world.asked() == [*(["crypto 2026-04-05"] if drained_first else []), "fx 2026-04-02"]
    assert world.last_update("XAGUSD")["timestamp"] == "2026-04-02T23:59:59.999Z"
    assert world.last_update("GBPUSD")["timestamp"] == "2026-04-03T21:00:00.000Z"


def test_silver_alone_is_unknown_once_a_second_day_lacks_it(world: World) -> None:
    world.add("C:XAGUSD", "C:XAUUSSD")
    world.now = EASTER_MONDAY
    world.sandbox.fail = NO_GOLD
    world.enqueue(batch=NO_ASSETS)

    first = world.drain(batch=NO_ASSETS)

    assert (first.exit_code, first.warnings, world.asked()) == (0, (), ["fx 2026-04-03"])
    assert alerts_and_states(world, batch=NO_ASSETS)[0] == []
    world.now += 24 * HOUR
    world.enqueue(batch=NO_ASSETS)
    second = world.drain(batch=NO_ASSETS)
    assert second.updated == ("XAGUSD",)
    assert ["XAUUSSD" in warning for warning in second.warnings] == [True]
    alerts, states = alerts_and_states(world, batch=NO_ASSETS)
    assert (alerts, states["XAUUSSD"]) == (["assets.unknown"], "failing")


def test_a_mistyped_ticker_of_gold_is_told_in_the_first_run_and_looked_back_for_once(world: World) -> None:
    batch = NO_SECONDARY[:-1] + (
        ', priority_assets: [{symbol: XAUUSD, polygon_ticker: "C:XAUUSSD", asset_type: forex},'
        ' {symbol: EURUSD, polygon_ticker: "C:EURUSD", asset_type: forex},'
        ' {symbol: BTCUSD, polygon_ticker: "X:BTCUSD", asset_type: crypto}]}'
    )
    results = [world.prioritise(batch=batch) for _ in range(3)]

    assert [(one.exit_code, [failure.symbol for failure in one.failed]) for one in results] == [(3, ["XAUUSD"])] * 3
    assert [one.api_calls_used for one in results] == [3, 0, 0]
    alerts, states = alerts_and_states(world, batch=batch)
    assert (alerts, states["XAUUSD"]) == (["assets.never"], "failing")
    world.asked()
    for _ in range(2):
        world.now += 24 * HOUR
        assert world.prioritise(batch=batch).exit_code == 3
        assert len(world.asked()) == 2


def test_gold_that_comes_into_a_kept_catalogue_on_its_holiday_is_looked_back_for(world: World) -> None:
    world.now = EASTER_MONDAY
    world.sandbox.fail = NO_GOLD
    world.add("C:GBPUSD")
    batch = MISTYPED.replace("C:EURUSSD", "C:EURUSD").replace("X:ETHUSDTT", "X:ETHUSDT")
    world.now -= 24 * HOUR
    world.prioritise(batch=batch)
    world.now += 24 * HOUR
    world.prioritise(batch=batch)
    world.asked()

    result = world.prioritise(batch=NO_SECONDARY)

    assert (result.exit_code, result.failed, result.updated) == (0, (), ("XAUUSD",))
    assert world.asked() == ["fx 2026-04-03", "fx 2026-04-02"]
    assert world.last_update("EURUSD")["timestamp"] == "2026-04-03T21:00:00.000Z"


# Rows that are no prices.


WRONG = {
    "C:EURUSD": ("zero", "invalid"),
    "C:GBPUSD": ("negative", "invalid"),
    "C:USDJPY": ("nan", "invalid"),
    "C:USDCHF": ("huge", "invalid"),
    "C:AUDUSD": ("missing", "invalid"),
    "C:NZDUSD": ("strings", "invalid"),
    "C:USDCAD": ("drop", "missing"),
    "C:EURGBP": ("wrong-ticker", "missing"),
    "C:EURJPY": ("duplicate", None),
    "C:EURCHF": ("exponent", None),
    "C:EURAUD": ("stale", None),
}


def test_a_row_that_is_no_price_fails_its_asset_alone(world: World) -> None:
    world.add(*(ticker for ticker in WRONG if ticker != "C:EURUSD"), "C:EURNZD")
    world.sandbox.fail = [*(f"{fault}:{ticker}" for ticker, (fault, _) in WRONG.items()), "delayed"]

    result = world.prioritise(batch=NO_SECONDARY)

    assert (result.updated, result.exit_code) == (("XAUUSD", "BTCUSD"), 3)
    assert [(failure.symbol, failure.kind) for failure in result.failed] == [("EURUSD", "invalid")]
    assert result.others_updated == 4
    rows = world.connection.execute(
        "select polygon_ticker, error_kind, metadata ? 'last_update' as stored from assetbatch.assets"
        " join assetbatch.sync_state using (symbol) join trading.symbols using (symbol)"
    ).fetchall()
    found = {row["polygon_ticker"]: (row["error_kind"], row["stored"]) for row in rows}
    assert found == {
        **{ticker: (kind, kind is None) for ticker, (_, kind) in WRONG.items()},
        **dict.fromkeys(("C:XAUUSD", "X:BTCUSD", "C:EURNZD"), (None, True)),
    }


def test_a_price_that_was_none_is_asked_for_again_hourly_until_it_is_one(world: World) -> None:
    world.sandbox.fail = ["zero:EURUSD"]
    assert world.prioritise().exit_code == 3
    world.asked()
    for _ in range(11):
        world.now += 5 * MINUTE
        world.prioritise()
    assert world.asked() == []

    world.sandbox.fail = []
    world.now += 10 * MINUTE
    healed = world.prioritise()

    assert (healed.updated, healed.exit_code) == (("EURUSD",), 0)
    assert world.asked() == ["fx 2026-11-16"]


def test_a_forecast_foresees_the_call_for_a_price_that_was_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.fail = ["zero:EURUSD"]
    assert world.prioritise(batch=NO_SECONDARY).exit_code == 3
    world.sandbox.fail = []
    world.now += HOUR + 5 * MINUTE
    monkeypatch.setattr(schema, "check", lambda _: world.now)

    foreseen = forecast.foresee(world.configure(batch=NO_SECONDARY), world.connection)
    made = world.prioritise(batch=NO_SECONDARY)

    assert [(one.job, one.markets, one.assets) for one in foreseen.calls] == [("run-priority", (AssetType.FOREX,), 1)]
    assert made.api_calls_used == foreseen.total == 1


def test_rows_that_are_no_prices_cost_a_drain_no_call_each(world: World) -> None:
    world.add("C:GBPUSD", "C:USDJPY", "C:USDCHF", "C:AUDUSD")
    world.enqueue(batch=NO_ASSETS)
    world.sandbox.fail = ["zero:C:USD"]

    result = world.drain(batch=NO_ASSETS)

    assert set(result.updated) == {"GBPUSD", "AUDUSD"}
    assert world.asked() == ["fx 2026-11-16"]
    assert world.queued() == {"USDJPY": ("delayed", 0), "USDCHF": ("delayed", 0)}


@pytest.mark.parametrize("fault", ["zero:C:USDJPY", "negative:C:USDJPY"])
@pytest.mark.parametrize("first", ["drain", "priority"])
def test_a_day_with_a_price_that_was_none_is_not_asked_for_again_within_the_hour_whoever_queues_it(
    world: World, fault: str, first: str
) -> None:
    world.add("C:GBPUSD", "C:USDJPY")
    world.sandbox.fail = [fault]
    batch = NO_SECONDARY if first == "priority" else NO_ASSETS
    world.enqueue(batch=batch)
    if first == "priority":
        world.prioritise(batch=batch)
    else:
        world.drain(batch=batch)
    assert world.asked()[:1] == ["fx 2026-11-16"]

    for minutes in (1, 10, 48):
        world.now += minutes * MINUTE
        # Put on the queue by hand, or due again after a failure of before.
        world.connection.execute("delete from assetbatch.queue where symbol = 'USDJPY'")
        world.enqueue(["USDJPY"], batch=batch)
        result = world.drain(batch=batch)
        assert (result.exit_code, result.dead, world.asked()) == (0, (), [])
        assert world.queued() == {"USDJPY": ("delayed", 0)}

    world.now += 2 * MINUTE
    world.sandbox.fail = []
    world.connection.execute("update assetbatch.queue set available_at = now()")
    assert world.drain(batch=batch).updated == ("USDJPY",)
    assert (world.asked(), world.queued()) == (["fx 2026-11-16"], {})


# Two runs at once.


def noted_tries(monkeypatch: pytest.MonkeyPatch) -> list[entitlements.DayLease]:
    """Note each try to take the right to ask for a day."""
    tries = []
    take = entitlements.DayLease.take

    def noted(lease: entitlements.DayLease) -> bool:
        tries.append(lease)
        return take(lease)

    monkeypatch.setattr(entitlements.DayLease, "take", noted)
    return tries


@pytest.mark.parametrize("rate_limiting", [LIMITED, UNLIMITED])
def test_runs_that_begin_together_make_one_call_a_market(
    world: World, pool: ThreadPoolExecutor, rate_limiting: str
) -> None:
    keys: dict[str, Any] = {"rate_limiting": rate_limiting}
    world.add("C:GBPUSD", "X:SOLUSD")
    world.enqueue(**keys)
    meeting = threading.Barrier(2)

    def meet(run: Callable[[], RunResult]) -> RunResult:
        meeting.wait(10)
        return run()

    runs = (partial(world.prioritise, **keys), partial(world.drain, **keys))
    first, drained = (one.result(timeout=20) for one in [pool.submit(meet, run) for run in runs])

    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-16"]
    assert (first.exit_code, drained.exit_code) == (0, 0)
    assert {*first.updated, *first.unchanged} == set(ALL)
    assert world.queued() == {}


def test_a_day_that_another_run_stored_meanwhile_is_not_asked_for_again(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("X:SOLUSD")
    world.enqueue(batch=NO_SECONDARY)
    hold = world.hold_one()
    first = pool.submit(world.prioritise, batch=NO_SECONDARY)
    wait_until(lambda: world.sandbox.arrivals)

    # This run has forex under way, and crypto before it.
    drained = world.drain(batch=NO_SECONDARY)
    hold.set()
    result = first.result(timeout=20)

    assert set(drained.updated) == {"SOLUSD", "BTCUSD"}
    assert world.asked() == ["fx 2026-11-16", "crypto 2026-11-16"]
    assert (result.updated, result.unchanged, result.exit_code) == (("XAUUSD", "EURUSD"), ("BTCUSD",), 0)


def test_two_drains_side_by_side_make_one_call_a_market(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("C:GBPUSD", "C:USDJPY", "C:USDCHF", "X:SOLUSD", "X:ETHUSD", "X:ADAUSD")
    world.enqueue(batch=NO_ASSETS)
    hold = world.hold_one()
    first = pool.submit(world.drain, batch=NO_ASSETS)
    wait_until(lambda: world.sandbox.arrivals)
    second = pool.submit(world.drain, batch=NO_ASSETS)
    wait_until(lambda: world.connection.execute("select from assetbatch.runs where job = 'drain-queue'").rowcount == 2)
    hold.set()
    results = [first.result(timeout=20), second.result(timeout=20)]

    assert sorted(world.asked()) == ["crypto 2026-11-16", "fx 2026-11-16"]
    assert [(one.exit_code, one.dead) for one in results] == [(0, ()), (0, ())]
    done = {symbol for one in results for symbol in one.updated + one.unchanged}
    assert done == {"GBPUSD", "USDJPY", "USDCHF", "SOLUSD", "ETHUSD", "ADAUSD"}
    assert world.queued() == {}


def test_a_run_waits_for_the_answer_of_another_no_longer_than_it_may_begin_calls(
    world: World, pool: ThreadPoolExecutor
) -> None:
    entitlements.DayLease(world.connection, AssetType.FOREX, date(2026, 11, 16), seconds=3600).take()
    stop = no_stop()
    keys: dict[str, Any] = {"batch": "{secondary_assets: [], max_cycle_seconds: 1}"}

    run = pool.submit(partial(world.prioritise, stop=stop, **keys))
    try:
        result = run.result(timeout=8)
    finally:
        stop.requested.set()

    # It asks for what nobody else does.
    assert (result.updated, world.asked()) == (("BTCUSD",), ["crypto 2026-11-16"])
    assert {failure.symbol: failure.kind for failure in result.failed} == {"XAUUSD": "no_slot", "EURUSD": "no_slot"}


def test_a_run_that_waits_for_two_answers_asks_for_what_is_given_up_first(
    world: World, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    forex, crypto = (
        entitlements.DayLease(world.connection, market, date(2026, 11, 16), seconds=3600)
        for market in (AssetType.FOREX, AssetType.CRYPTO)
    )
    assert forex.take()
    assert crypto.take()
    tries = noted_tries(monkeypatch)
    stop = no_stop()
    with open_database(world.database) as elsewhere:
        run = pool.submit(priority.run_priority, world.start(world.configure(), elsewhere, stop=stop))
        try:
            wait_until(lambda: len(tries) > 2)
            crypto.give_up()
            wait_until(lambda: world.sandbox.arrivals)
            forex.give_up()
            result = run.result(timeout=8)
        finally:
            stop.requested.set()

    assert (result.updated, world.asked()) == (ALL, ["crypto 2026-11-16", "fx 2026-11-16"])


def test_a_day_that_another_run_stored_while_this_one_was_told_of_the_other_market_is_not_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("C:GBPUSD")
    world.enqueue(batch=NO_SECONDARY)
    world.sandbox.fail = [f"{NOT_YET}:crypto/2026-11-16"]
    drained: list[RunResult] = []
    note_day = entitlements.note_day

    def note_late(connection: Connection, market: AssetType, *told: Any) -> None:
        if market is AssetType.CRYPTO and not drained:
            forex.give_up()
            drained.append(world.drain(batch=NO_SECONDARY))
        note_day(connection, market, *told)

    monkeypatch.setattr(entitlements, "note_day", note_late)

    with open_database(world.database) as elsewhere:
        forex = entitlements.DayLease(elsewhere, AssetType.FOREX, date(2026, 11, 16), seconds=3600)
        assert forex.take()
        result = world.prioritise(batch=NO_SECONDARY)

    assert [set(one.updated) for one in drained] == [{"XAUUSD", "EURUSD", "GBPUSD"}]
    assert (result.updated, result.unchanged) == (("BTCUSD",), ("XAUUSD", "EURUSD"))
    assert world.asked() == ["crypto 2026-11-16", "fx 2026-11-16", "crypto 2026-11-15"]


def test_what_a_run_killed_elsewhere_was_asking_for_is_asked_for_by_the_next_when_its_lease_is_over(
    world: World, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.now = datetime.now(UTC)
    world.add("C:GBPUSD", "X:SOLUSD")
    world.enqueue(batch=NO_SECONDARY)
    world.hold_one()
    killed = world.commands().start("drain-queue")
    wait_until(lambda: world.sandbox.arrivals)
    killed.kill()
    killed.communicate()
    world.connection.execute("update assetbatch.runs set place = 'elsewhere'")
    (asked,) = world.asked()
    tries = noted_tries(monkeypatch)

    run = pool.submit(world.prioritise, batch=NO_SECONDARY)
    wait_until(lambda: len(tries) > 3)
    assert asked not in world.asked()
    with open_database(world.database) as elsewhere:
        elsewhere.execute(
            "update assetbatch.daily_figures set asking_until = clock_timestamp() where token is not null"
        )
    result = run.result(timeout=20)

    assert (result.exit_code, set(result.updated)) == (0, set(ALL))
    assert asked in world.asked()
    # The item that it held runs out by itself, and needs no call any more.
    assert [state for state, _ in world.queued().values()] == ["leased"]
    world.connection.execute("update assetbatch.queue set leased_until = clock_timestamp()")
    drained = world.drain(batch=NO_SECONDARY)
    assert (world.queued(), world.asked(), drained.exit_code) == ({}, [], 0)
