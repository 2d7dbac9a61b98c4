"""Plans that differ from product to product: what one is refused, or waits for, is no matter of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from assetbatch.database import entitlements
from assetbatch.database.rate_limit import key_fingerprint
from assetbatch.jobs import backfill, forecast, probe
from assetbatch.jobs.symbols import read_reference
from assetbatch.model import Access, AssetType, Product
from assetbatch.plans import Entitlement, Sight
from assetbatch.report import reading
from assetbatch.sandbox.server import Sandbox
from tests.conftest import API_KEY
from tests.integration.test_stocks import OPEN, World, of_type
from tests.world import HOUR, MINUTE, add_assets, no_stop

if TYPE_CHECKING:
    from pathlib import Path

    from assetbatch.database.connection import Connection


@pytest.fixture
def world(connection: Connection, database: str, sandbox: Sandbox, tmp_path: Path) -> World:
    return World(connection, database, sandbox, tmp_path)


def refuse(world: World, product: Product, access: Access, ticker: str = "") -> None:
    """Let the key have been refused something on the free plan just now."""
    found = Entitlement(allowed=False, asked_at=world.now, reason="not entitled")
    about: Any = {"key": key_fingerprint(API_KEY), "plan": "free", "sight": Sight(product, access, ticker)}
    entitlements.remember(world.connection, found=found, **about)


def test_a_refusal_of_an_index_bars_leaves_its_days_alone(world: World) -> None:
    provider = world.plan("free")
    add_assets(world.connection, "I:DJI")
    refuse(world, Product.INDICES, Access.BARS, "I:DJI")
    refuse(world, Product.INDICES, Access.SNAPSHOTS, "I:DJI")

    world.enqueue(provider=provider)
    result = world.drain(provider=provider)

    assert (world.asked(), result.updated) == (["I:DJI 2026-11-17"], ("DJI",))


def test_a_drain_learns_from_rows_that_are_refused_and_goes_on_with_finished_days(world: World) -> None:
    world.plan("starter")
    provider = "{plans: {stocks: starter}}"
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL", "KIMpL")
    world.enqueue(provider=provider)

    result = world.drain(provider=provider)

    assert world.asked()[1:] == ["stocks 2026-11-16"]
    assert (set(result.updated), result.dead) == ({"EURUSD", "AAPL", "KIMpL"}, ())
    assert any("plan says starter for stocks, the key is refused snapshots" in one for one in result.warnings)
    status = reading.read(world.configure(provider=provider), world.connection)
    assert [alert.message for alert in status.alerts if alert.metric == "api.plan"] != []


def test_what_was_refused_of_all_stays_so_while_one_alone_is_refused_again(world: World) -> None:
    world.plan("starter")
    provider = "{plans: {stocks: starter}}"
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL", "KIMpL")
    world.enqueue(provider=provider)
    world.drain(provider=provider)
    world.asked()

    world.now += HOUR + MINUTE
    world.enqueue(["EURUSD", "AAPL"], provider=provider)
    result = world.drain(provider=provider)

    assert [urlsplit(path).path for path in world.asked()] == ["/v3/snapshot"]
    assert (result.updated, result.unchanged, result.dead) == (("EURUSD",), ("AAPL",), ())
    assert any("plan says starter for stocks, the key is refused snapshots" in one for one in result.warnings)


@pytest.mark.parametrize("ticker", ["AAPL", "I:DJI"])
@pytest.mark.parametrize("batch_size", [1, 250])
def test_one_asset_alone_of_its_product_comes_as_finished_days_too(world: World, ticker: str, batch_size: int) -> None:
    world.plan("starter")
    provider = f"{{plans: {{stocks: starter, indices: starter}}, batch_size: {batch_size}}}"
    world.now = OPEN
    kind = "indices" if ticker.startswith("I:") else "stocks"
    asset = f"{{symbol: ONE, polygon_ticker: '{ticker}', asset_type: {kind}}}"
    euro = "{symbol: EURUSD, polygon_ticker: 'C:EURUSD', asset_type: forex}"

    result = world.prioritise(provider=provider, batch=f"{{priority_assets: [{euro}, {asset}], secondary_assets: []}}")

    assert set(result.updated) == {"EURUSD", "ONE"}
    assert any(f"plan says starter for {kind}, the key is refused snapshots" in one for one in result.warnings)

    add_assets(world.connection, ticker)
    world.connection.execute("delete from assetbatch.entitlements")
    world.enqueue(provider=provider)
    drained = world.drain(provider=provider)
    assert (len(drained.updated), drained.dead) == (1, ())


def test_what_is_refused_of_a_limited_market_keeps_nothing_of_a_paid_one_waiting(world: World) -> None:
    provider = world.plan("starter")
    keys: dict[str, Any] = {"provider": provider, "bars": "{enabled: auto, backfill_days: 1}"}
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL")
    refuse(world, Product.STOCKS, Access.DAILY)
    world.enqueue(**keys)

    result = world.drain(**keys)

    assert (result.exit_code, result.updated, result.bars.assets) == (0, ("EURUSD",), 1)
    again = world.drain(**keys)
    assert again.exit_code == 0


def test_what_needs_no_slot_goes_on_while_items_of_a_limited_market_wait_for_theirs(
    connection: Connection, database: str, tmp_path: Path
) -> None:
    with Sandbox(key=API_KEY, limit=5, window_seconds=600, paid_unlimited=True) as strict:
        world = World(connection, database, strict, tmp_path, now=OPEN)
        keys: dict[str, Any] = {"provider": world.plan("starter"), "rate_limiting": "{window_seconds: 600}"}
        add_assets(connection, "C:EURUSD", "C:GBPUSD", *of_type(AssetType.INDICES))
        world.enqueue(**keys)

        result = world.drain(max_seconds=6, **keys, bars="{backfill_days: 1}")

        assert 429 not in {arrival.status for arrival in strict.arrivals}
        assert sum("/range/1/day/" in arrival.path for arrival in strict.arrivals) == 5
        assert (result.bars.assets, result.remaining) == (2, len(of_type(AssetType.INDICES)) - 5)


def test_an_item_whose_asset_was_the_last_of_its_type_is_dropped(world: World) -> None:
    provider = world.plan("starter")
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "AAPL", "I:DJI")
    world.enqueue(provider=provider)
    world.connection.execute("update assetbatch.assets set enabled = false where symbol = 'AAPL'")

    result = world.drain(provider=provider)

    assert (set(result.updated), result.remaining) == ({"EURUSD", "DJI"}, 0)


def test_what_is_added_while_a_run_goes_on_waits_for_one_that_knows_its_limit(world: World) -> None:
    world.plan("starter")
    provider = "{batch_size: 1, concurrency: 1}"
    world.now = OPEN
    add_assets(world.connection, "C:EURUSD", "C:GBPUSD")
    world.enqueue(provider=provider)
    was_added = False

    def add() -> None:
        nonlocal was_added
        if not was_added:
            was_added = True
            add_assets(world.connection, "AAPL")
            world.enqueue(["AAPL"], provider=provider)

    world.before = add
    result = world.drain(provider=provider)

    assert set(result.updated) == {"EURUSD", "GBPUSD"}
    assert {path.partition("?")[0].rpartition("/")[2] for path in world.asked()} == {"C:EURUSD", "C:GBPUSD"}
    world.before = lambda: None
    world.drain(provider=provider)
    assert world.asked() == ["stocks 2026-11-16"]


def test_a_list_of_a_limited_market_takes_slots_before_there_are_assets_of_it(world: World) -> None:
    provider = world.plan("starter")
    world.now = OPEN
    keys: dict[str, Any] = {"provider": provider, "rate_limiting": "{window_seconds: 600}"}
    add_assets(world.connection, "C:EURUSD")
    world.enqueue(**keys)
    world.drain(**keys)

    read_reference(world.configure(**keys), world.connection, host="test", stop=no_stop(), markets=[AssetType.STOCKS])

    assert slots_taken(world) == 1
    world.now += HOUR
    world.enqueue(**keys)
    assert world.drain(max_seconds=4, **keys).updated == ("EURUSD",)


def test_a_forecast_and_a_backfill_reckon_with_a_limit_for_what_is_limited_alone(world: World) -> None:
    world.plan("starter")
    # It foresees from the time of the database.
    world.now = None  # type: ignore[assignment]
    add_assets(world.connection, *(f"X:T{number}USD" for number in range(1, 41)), "AAPL")
    keys: dict[str, Any] = {"provider": "{batch_size: 1}", "rate_limiting": "{window_seconds: 600}"}
    world.enqueue(**keys)

    found = forecast.foresee(world.configure(**keys), world.connection)

    # A quote each, a day of stocks, and the list of holidays.
    assert found.total == 42
    assert (found.complete_at - found.now).total_seconds() < 600

    filling = backfill.foresee(
        world.configure(**keys), world.connection, symbols=None, since=None, until=None, refetch=False
    )
    assert filling.calls == 41
    assert filling.seconds < 600


def test_a_probe_without_assets_takes_slots_for_what_is_limited(world: World) -> None:
    provider = world.plan("starter")
    world.now = OPEN

    config = world.configure(provider=provider, rate_limiting="{window_seconds: 600}")
    found = probe.probe(config, world.connection, host="test", stop=no_stop())

    # Of all at once, and two each of stocks and of indices; what currencies are asked for takes none.
    assert (found.calls_used, slots_taken(world)) == (9, 5)


def slots_taken(world: World) -> int:
    rows = world.connection.execute("select from assetbatch.rate_limit_slots where counted_by > 'epoch'").fetchall()
    return len(rows)
