"""Tickers that the vendor does not know: no call for their bars, in no job, until they are served or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from assetbatch.jobs import backfill, forecast
from assetbatch.jobs.run import Start
from tests.integration.test_forecast import World, bars_foretold
from tests.integration.test_forecast import world as _world
from tests.world import DAY, HOUR, MINUTE, QUICK, SECOND, no_stop

if TYPE_CHECKING:
    from collections.abc import Callable

world = _world


INVENTED = [f"X:NOSUCH{number}USD" for number in range(1, 31)]
PRIORITY = (
    "{{secondary_assets: [], priority_assets: ["
    "{{symbol: WRONG, polygon_ticker: '{ticker}', asset_type: crypto}},"
    " {{symbol: BTCUSD, polygon_ticker: 'X:BTCUSD', asset_type: crypto}}]}}"
)


def live(world: World) -> dict[str, Any]:
    del world
    return {}


def live_one_by_one(world: World) -> dict[str, Any]:
    del world
    return {"provider": "{batch_size: 1, concurrency: 8}"}


def finished_days(world: World) -> dict[str, Any]:
    world.environment["POLYGON_TIER"] = world.sandbox.plan = "free"
    return {"rate_limiting": QUICK}


PLANS = pytest.mark.parametrize("plan", [live, live_one_by_one, finished_days])


def asked(world: World, word: str) -> int:
    return len([one for one in world.calls() if word in one.path])


@PLANS
def test_invented_tickers_cost_no_call_for_bars(world: World, plan: Callable[[World], dict[str, Any]]) -> None:
    keys = plan(world)
    world.add(*INVENTED, "X:ETHUSD")
    world.enqueue()
    for hours in (0, 1, 2, 25):
        world.now += hours * HOUR
        foreseen = bars_foretold(forecast.foresee(world.configure(**keys), world.connection))
        known = len(world.calls())
        world.drain(**keys)
        if hours:
            assert len(world.calls()) - known == foreseen <= 1
        world.enqueue()

    assert asked(world, "NOSUCH") == 0
    assert world.stored("ETHUSD")


@PLANS
def test_a_priority_asset_of_a_wrong_ticker_costs_none_until_the_ticker_is_changed(
    world: World, plan: Callable[[World], dict[str, Any]]
) -> None:
    keys = plan(world)
    for _ in range(4):
        result = world.prioritise(batch=PRIORITY.format(ticker="X:WRONG"), **keys)
        assert "WRONG" not in result.deferred
        world.now += 6 * 60 * SECOND
    assert asked(world, "WRONG") == 0
    assert len(world.stored("BTCUSD")) > 400

    for _ in range(2):
        world.prioritise(batch=PRIORITY.format(ticker="X:ETHUSD"), **keys)
        world.now += 6 * 60 * SECOND
    assert len(world.stored("WRONG")) > 400


@pytest.mark.parametrize("origin", ["config", "by hand"])
def test_what_was_said_of_one_ticker_is_not_said_of_another(world: World, origin: str) -> None:
    world.sandbox.fail = ["drop:X:T1USD"]
    world.connection.execute(
        "insert into assetbatch.assets"
        " (symbol, polygon_ticker, asset_type, role, rank, update_frequency_seconds, origin)"
        " values ('ONE', 'X:T1USD', 'crypto', 'secondary', 3, 1800, 'symbols');"
        "insert into trading.symbols (symbol, metadata) values ('ONE', '{}')"
    )
    world.drain()
    world.now += HOUR + SECOND
    world.drain()
    assert world.absent("ONE").keys() >= {"nothing"}

    one = "{symbol: ONE, polygon_ticker: 'X:T2USD', asset_type: crypto}"
    world.now += MINUTE
    if origin == "by hand":
        world.connection.execute("update assetbatch.assets set polygon_ticker = 'X:T2USD'")
    else:
        world.connection.execute("update assetbatch.assets set origin = 'config'")
        world.enqueue(batch=f"{{priority_assets: [], secondary_assets: [{one}]}}")
        world.connection.execute("delete from assetbatch.queue; update assetbatch.assets set enabled = true")
    world.drain()

    state = world.state("ONE")
    assert world.settled("ONE") == world.vendors("X:T2USD", state["wanted_since"], state["asked_until"])
    assert world.absent("ONE") == {}


def test_a_ticker_that_the_vendor_comes_to_know_gets_its_bars(world: World) -> None:
    world.add("X:T1USD")
    world.sandbox.fail = ["drop:T1USD"]
    world.enqueue()
    world.drain()
    world.now += HOUR
    world.drain()
    assert asked(world, "T1USD") == 0

    world.sandbox.fail = []
    world.now += HOUR
    world.enqueue()
    world.connection.execute("update assetbatch.queue set state = 'queued', died_at = null")
    world.drain()
    assert asked(world, "T1USD") == 1
    assert world.is_whole("T1USD")


def test_a_ticker_that_turns_out_to_be_unknown_while_its_bars_wait_is_left_out(world: World) -> None:
    world.add(*INVENTED)

    def tell() -> None:
        world.connection.execute(
            "insert into assetbatch.sync_state (symbol, error_kind) select symbol, 'unknown_ticker'"
            " from assetbatch.assets on conflict (symbol) do update set error_kind = 'unknown_ticker'"
        )

    world.before = lambda: tell() if len(world.calls()) == 1 else None
    world.drain(provider="{concurrency: 1}")

    # The one that was on its way asks for 1-minute bars no more.
    assert asked(world, "NOSUCH") == 1


@pytest.mark.parametrize("refetch", [False, True])
def test_a_backfill_leaves_them_out_and_names_them(world: World, refetch: bool) -> None:
    world.add("X:NOSUCHUSD", "X:T1USD")
    world.enqueue(["NOSUCHUSD"])
    world.drain(bars="{enabled: false}")
    config = world.configure(bars="{enabled: false}")
    foreseen = backfill.foresee(
        config, world.connection, symbols=None, since=world.now - 3 * DAY, until=world.now - DAY, refetch=refetch
    )
    assert (foreseen.calls, list(foreseen.spans)) == (1, ["T1USD"])

    start = Start(config, world.connection, "test", no_stop(), world.now)
    result = backfill.backfill(start, foreseen, refetch=refetch)

    assert (result.exit_code, result.updated, len(world.calls())) == (0, ("T1USD",), 1)
    (warning,) = result.warnings
    assert warning.startswith("the vendor does not know NOSUCHUSD: ")
